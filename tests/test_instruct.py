# SPDX-License-Identifier: Apache-2.0
"""InstructPix2Pix against diffusers' own pipeline, its traps as controls, its folders and `bozzetto edit`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import published as random_weights
from bozzetto.camera import orbit
from bozzetto.diffusion.guidance import dual
from bozzetto.diffusion.samplers import ddim
from bozzetto.errors import InputError
from bozzetto.fit.drawings import Drawing
from bozzetto.priors import load, loading
from bozzetto.priors.instruct import InstructPix2Pix, fitted
from bozzetto.priors.plan import Asked, Plan
from bozzetto.priors.prior import Reference
from bozzetto.verbs.edit import edit, edit_picture
from bozzetto.verbs.plan import for_drawing
from tests.test_cli import CHAIR, run

SIDE = 16  # pixels of the tiny prior


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_weights.write("instruct-pix2pix", tmp_path_factory.mktemp("instruct") / "tiny", "tiny")


@pytest.fixture(scope="module")
def prior(folder: Path) -> InstructPix2Pix:
    return loading.load_as(InstructPix2Pix, folder)


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    """(1, 32, 16, 3): taller than wide, brighter to the right, redder below."""
    rows, columns = torch.linspace(0, 1, 2 * SIDE)[:, None], torch.linspace(0, 1, SIDE)[None]
    return torch.stack([rows.expand(-1, SIDE), columns.expand(2 * SIDE, -1), 0.3 + 0 * rows * columns], -1)[None]


def noise(prior: InstructPix2Pix, seed: int = 1) -> torch.Tensor:
    c, h, w = prior.shape
    return torch.randn(1, c, 2 * h, w, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def pipe(prior: InstructPix2Pix) -> Any:
    """diffusers' pipeline of the same networks, by DDIM."""
    from diffusers import DDIMScheduler, StableDiffusionInstructPix2PixPipeline

    how: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
    scheduler = DDIMScheduler(**how, set_alpha_to_one=True, timestep_spacing="trailing")
    parts = {"vae": prior.codec.vae, "unet": prior.unet, "scheduler": scheduler, "text_encoder": None, "tokenizer": None}
    nothing = {"safety_checker": None, "feature_extractor": None, "image_encoder": None, "requires_safety_checker": False}
    made = StableDiffusionInstructPix2PixPipeline(**parts, **nothing)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize(("text_scale", "image_scale"), [(7.5, 1.5), (2.0, 1.0)])
def test_an_edit_is_what_the_pipeline_makes(prior, pipe, picture, text_scale, image_scale):
    """Their three branches, their sums and their chain, from the same noise under the same conditions."""
    steps, x = 4, noise(prior)
    told, null = prior.condition(text="paint it blue")["token"], prior.condition()["token"]
    theirs = pipe(
        prompt_embeds=told,
        negative_prompt_embeds=null,
        image=picture.movedim(-1, 1),
        latents=x.clone(),
        num_inference_steps=steps,
        guidance_scale=text_scale,
        image_guidance_scale=image_scale,
        output_type="latent",
    ).images
    bar = pipe.scheduler.alphas_cumprod.double()[pipe.scheduler.timesteps]
    sigmas = torch.cat([((1 - bar) / bar).sqrt(), torch.zeros(1, dtype=torch.float64)])
    latent = prior.codec.latent(picture)

    def mine(seen: torch.Tensor) -> torch.Tensor:
        both = {"token": told, "image_latent": seen}
        guided = dual(prior.denoiser, {"token": null}, {"token": null, "image_latent": seen}, image_scale, text_scale)
        with torch.no_grad():
            return ddim(guided, x.double() * (1 + sigmas[0] ** 2).sqrt(), sigmas, both)

    torch.testing.assert_close(mine(latent).float(), theirs, rtol=1e-4, atol=1e-4)  # float32, times guidance
    assert (mine(prior.codec.encode(picture)) - theirs).abs().max() > 1e-3  # the control: the picture's latent scaled as x0 is


def test_a_pictures_latent_is_the_mode_unscaled_and_its_null_is_zeros(prior, picture):
    square = picture[:, :SIDE]
    cond = prior.condition(Reference(square, orbit([0.0], 0.0, 2.0, size=SIDE, fov=0.6)), text="paint it blue")
    mean, _ = prior.codec.posterior(2 * square.movedim(-1, 1) - 1)
    assert torch.equal(cond["image_latent"], mean.float()) and "image_latent" not in prior.condition()
    x = noise(prior)[:, :, : prior.shape[1]]
    with torch.no_grad():
        nothing, zeros, black = (
            prior.denoiser.denoise(x, 1.0, {"token": cond["token"], **more})
            for more in ({}, {"image_latent": 0 * mean}, {"image_latent": prior.codec.latent(0 * square)})
        )
    assert torch.equal(nothing, zeros) and (black - zeros).abs().max() > 1e-3  # a black picture is a picture


def test_ip_1_without_an_instruction_its_scale_says_nothing(prior, picture):
    def drawn(text: str, scale: float) -> torch.Tensor:
        how = prior.sampler._replace(steps=3, guidance=scale)
        return prior.edited(picture, text, image_scale=1.5, sampler=how, generator=torch.Generator().manual_seed(0))

    torch.testing.assert_close(drawn("", 2.0), drawn("", 9.0), rtol=0, atol=1e-5)
    assert (drawn("paint it blue", 2.0) - drawn("paint it blue", 9.0)).abs().max() > 1e-4
    assert drawn("", 2.0).shape == picture.shape


@pytest.mark.parametrize(
    ("given", "size", "expected"),
    [
        ((600, 400), 512, (576, 384)),
        ((400, 600), 512, (384, 576)),
        ((512, 512), 512, (512, 512)),
        ((1000, 130), 512, (960, 128)),
        ((20, 20), 128, (128, 128)),
    ],
)
def test_sides_are_those_of_the_released_command(given, size, expected):
    """Of width w and height h: f = size / max, then ceil(min f / 64) 64 / min, and both sides down to multiples."""
    assert fitted(torch.zeros(*given, 3), size).shape == (*expected, 3)


def test_a_picture_is_cut_round_its_middle_and_nothing_is_stretched():
    """A disc stays round, where it was; its left half stays left."""
    rows, columns = torch.arange(300.0)[:, None] + 0.5, torch.arange(500.0)[None] + 0.5
    disc = ((rows - 150).square() + (columns - 250).square() < 100**2).float()
    left = disc * (columns < 250)
    seen = fitted(torch.stack([disc, left, 0 * disc], -1), 256)
    tall, wide = seen.shape[:2]
    extent = [float((seen[..., 0].amax(axis) > 0.5).sum()) for axis in (0, 1)]
    assert abs(extent[0] - extent[1]) <= 1.5
    where = (seen[..., 1].sum(0) * (torch.arange(wide) + 0.5)).sum() / seen[..., 1].sum()
    assert (
        where < wide / 2 - 10 and abs(float((seen[..., 0].sum(1) * (torch.arange(tall) + 0.5)).sum() / seen[..., 0].sum()) - tall / 2) < 1
    )


def test_a_model_that_reads_no_picture_is_refused(folder, tmp_path):
    other = random_weights.write("stable-diffusion-1.5", tmp_path / "sd", "tiny")
    with pytest.raises(InputError, match="a prior of kind text-to-image has no use here; give one of kind instruct-pix2pix"):
        edit(torch.zeros(64, 64, 3), "paint it blue", prior=other)
    index = other / "model_index.json"
    index.write_text(json.dumps({"_class_name": "StableDiffusionInstructPix2PixPipeline"}))
    with pytest.raises(InputError, match="in_channels of the U-Net should be 8, a latent and a picture's, got 4; it edits nothing"):
        load(other)
    cut = shutil.copytree(folder, tmp_path / "cut")
    (cut / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"\x10")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load(cut)


def test_edit_leaves_a_picture_that_a_lift_takes(folder, tmp_path, capsys, monkeypatch):
    out, few = tmp_path / "blue.png", ["--prior", str(folder), "--steps", "2", "--size", "64"]
    code, told = run(capsys, monkeypatch, "edit", CHAIR, "paint it blue", "--out", out, "--count", 2, *few)
    assert code == 0 and "needs about" in told
    made = np.asarray(Image.open(out))
    assert made.shape == (64, 128, 3) and np.ptp(made[:, 64:].astype(int) - made[:, :64]) > 0
    again = edit_picture(CHAIR, "paint it blue", tmp_path / "again.png", size=64, steps=2, prior=folder, count=1)
    assert np.array_equal(np.asarray(Image.open(again)), made[:, :64])  # edit k is the same, whatever the count


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["edit", str(CHAIR), " "], "no instruction given"),
        (["edit", str(CHAIR), "paint it blue", "--prior", "instruct-pix2pix"], "instruct-pix2pix: is not on this disk; fetch it first"),
        (["edit", str(CHAIR), "paint it blue", "--out", "blue.jpg"], "blue.jpg: expected a .png file in a folder that is there"),
        (["edit", str(CHAIR), "paint it blue", "--guidance", "nan"], "--guidance nan: expected a finite number"),
        (["edit", str(CHAIR), "paint it blue", "--image-guidance", "inf"], "--image-guidance inf: expected a finite number"),
        (["edit", str(CHAIR), "paint it blue", "--size", "20"], "--size 20: expected 64 to 2048 pixels"),
        (["edit", "nothing.png", "paint it blue"], "nothing.png: no such file"),
    ],
)
def test_what_cannot_be_edited_is_said_in_a_sentence(words, says, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.chdir(tmp_path)
    code, said = run(capsys, monkeypatch, *words)
    assert code == 2 and says in said and said.count("\n") == 1
    assert not list(tmp_path.glob("*.png"))


def test_what_an_edit_takes_is_planned_as_three_ways(folder):
    outline = load(folder, device="meta")
    assert for_drawing("edits", folder, Drawing(10, batch=1), 1).flop == Plan().plus(outline, Asked(30, decoded=1)).flop
