# SPDX-License-Identifier: Apache-2.0
"""MVDream: both published layouts against an independent forward pass (CK-3), what its cameras say (MV-6), what its views do (MV-1..3)."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from bozzetto import cli
from bozzetto.camera import Camera, orbit
from bozzetto.errors import InputError
from bozzetto.priors import load, sample
from bozzetto.priors.latent import ConditionedUNet
from bozzetto.priors.loading import MINI, load_for
from bozzetto.priors.mvdream import MVDream, labels
from bozzetto.priors.sampling import Sampler, null_of
from tests.twins import ldm
from tests.twins import mvdream as twin

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[ldm.Weights, Path, Path]:
    at = tmp_path_factory.mktemp("mvdream")
    w, made = twin.converted(at)
    return w, made, twin.port(at / "port", made, w)


@pytest.fixture(scope="module")
def prior(folders) -> MVDream:
    return load(folders[1])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seen_from(elevation: float = 15.0, start: float = 0.0) -> Camera:
    return orbit([start + k * math.pi / 2 for k in range(4)], [math.radians(elevation)] * 4, 2.5, size=16, fov=0.6)


def told(elevation: float, start: float) -> Tensor:
    """(4, 16) of the released code, whose azimuth is 90 degrees where ours is 0."""
    return torch.tensor(np.stack([twin.camera(elevation, 90 + start + 90 * k).ravel() for k in range(4)])).float()


@torch.no_grad()
@pytest.mark.parametrize("layout", [0, 1])
def test_ck_3_both_layouts_compute_what_the_released_code_does(folders, layout: int) -> None:
    """One joint step of two objects; and each of three wrong cameras is far off: a quarter turn, raw distances, elevation's other sign."""
    w, found = folders[0], load(folders[1 + layout])
    x, step, text = noise(2, 4, 4, 8, 8), torch.tensor([500, 500]), "a red chair, 3d asset"
    ids = found.tokenizer.encode(text).ids
    cond = found.condition(cameras=seen_from(), text=text)
    assert cond["token"].shape == (1, 1, twin.LENGTH, 64) and cond["camera"].shape == (1, 4, 16)
    torch.testing.assert_close(cond["token"][0], ldm.words(w, torch.tensor([ids]), **twin.WORDS), rtol=0, atol=1e-4)
    made = found.network(x, step, **cond)
    assert (made - twin.predicted(w, x, 500, ids, told(15, 0))).abs().max() < 1e-4
    raw = told(15, 0).view(4, 4, 4).clone()
    raw[:, :3, 3] *= 2.5
    for wrong in (told(15, 90), raw.flatten(1), told(-15, 0)):
        assert (made - twin.predicted(w, x, 500, ids, wrong)).abs().max() > 1e-2


def test_ck_3_every_tensor_is_used_once(folders) -> None:
    w, made, port = folders
    prefix = "model.diffusion_model."
    here, there = load_file(made / UNET), load_file(port / UNET)
    names = {n: ldm_name(n) for n in there}
    assert len(set(names.values())) == len(names) == len(here) and set(names.values()) == set(here)
    assert all(torch.equal(here[new], w.state[prefix + old]) for old, new in names.items())


def ldm_name(name: str) -> str:
    from bozzetto.priors.ldm import unet_name

    found = unet_name(name, len(twin.U["channel_mult"]), twin.U["num_res_blocks"])
    assert found is not None, name
    return found


def test_mv_6_a_camera_is_its_matrix_at_unit_distance_and_the_callers_stays() -> None:
    upright = orbit([0.0], [0.0], 3.0, size=8, fov=0.5)
    identity = Camera(torch.eye(3, 4, dtype=torch.float64)[None].clone(), upright.K, upright.size)
    identity.c2w[0, 2, 3] = 7.0
    fixed = torch.tensor([[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1.0]])
    assert torch.equal(labels(identity), fixed) and float(identity.c2w[0, 2, 3]) == 7
    for start in (0.0, 70.0):  # from everywhere, and at any distance and field of view
        near = seen_from(20.0, math.radians(start))
        far = orbit([math.radians(start) + k * math.pi / 2 for k in range(4)], [math.radians(20)] * 4, 9.0, size=16, fov=0.2)
        before = near.c2w.clone()
        torch.testing.assert_close(labels(near), told(20, start), rtol=0, atol=1e-6)
        torch.testing.assert_close(labels(near), labels(far), rtol=0, atol=1e-6)
        assert torch.equal(near.c2w, before)
        assert (labels(near) - told(-20, start)).abs().max() > 0.3 and (labels(near) - told(20, start - 90)).abs().max() > 0.3


@torch.no_grad()
def test_mv_1_views_that_change_places_with_their_cameras_change_answers_alike(prior: MVDream) -> None:
    x, step, order = noise(2, 4, 4, 8, 8), torch.tensor([20, 700]), [2, 0, 3, 1]
    cond = prior.condition(cameras=seen_from(start=0.3), text="an owl")
    moved = {**cond, "camera": cond["camera"][:, order]}
    made = prior.network(x, step, **cond)
    assert (made[:, order] - prior.network(x[:, order], step, **moved)).abs().max() < 1e-5
    assert (made[:, order] - prior.network(x[:, order], step, **cond)).abs().max() > 1e-3  # cameras that stay where they were


@torch.no_grad()
def test_mv_2_equal_views_of_one_camera_answer_as_one(prior: MVDream) -> None:
    x, step = noise(2, 1, 4, 8, 8), torch.tensor([20, 700])
    token, camera = prior.condition(text="an owl")["token"], labels(seen_from())[None, :1]
    one = prior.network(x, step, token=token, camera=camera)
    many = prior.network(x.expand(-1, 4, -1, -1, -1).contiguous(), step, token=token, camera=camera)
    assert (many - one).abs().max() < 1e-5


@torch.no_grad()
def test_mv_3_one_picture_without_a_camera_is_stable_diffusions_bit_for_bit(prior: MVDream) -> None:
    from diffusers import UNet2DConditionModel

    config = {k: v for k, v in prior.unet.config.items() if not k.startswith("_") and "class_embed" not in k}
    plain = UNet2DConditionModel(**config).eval()
    state = {k: v for k, v in prior.unet.state_dict().items() if not k.startswith("class_embedding.")}
    assert state.keys() == plain.state_dict().keys() and len(state) + 4 == len(prior.unet.state_dict())
    plain.load_state_dict(state)
    x, step, token = noise(2, 4, 8, 8), torch.tensor([20, 700]), prior.condition(text="an owl")["token"]
    wanted = ConditionedUNet(plain)(x, step, token=token[0])
    assert torch.equal(prior.network(x[:, None], step, token=token)[:, 0], wanted)
    zeros = torch.zeros(1, 1, 16)  # a camera of zeros is another thing
    assert (prior.network(x[:, None], step, token=token, camera=zeros)[:, 0] - wanted).abs().max() > 1e-3
    assert torch.equal(prior.network(x[:, None], step, token=token)[:, 0], wanted)  # and is forgotten


@torch.no_grad()
def test_guidance_leads_away_from_no_text_and_not_from_no_camera(prior: MVDream) -> None:
    cond = prior.condition(cameras=prior.views(), text="an owl")
    null = null_of(prior, cond)
    assert torch.equal(null["camera"], cond["camera"]) and torch.equal(null["token"], prior.condition()["token"])
    unit, generator = noise(1, *prior.shape), torch.Generator()
    strong = [sample(prior, cond, noise=unit, sampler=Sampler(2, g, 0.0), generator=generator) for g in (1.0, 3.0)]
    alone = sample(prior, {**cond, "token": prior.condition()["token"]}, noise=unit, sampler=Sampler(2, 3.0, 0.0), generator=generator)
    assert (strong[0] - strong[1]).abs().max() > 1e-3
    twice = sample(prior, null, noise=unit, sampler=Sampler(2, 1.0, 0.0), generator=generator)
    torch.testing.assert_close(alone, twice, rtol=0, atol=1e-4)  # without a text there is nothing to lead to
    gentle = sample(prior, cond, noise=unit, sampler=Sampler(2, 3.0, 0.0, rescale=0.7), generator=generator)
    assert (gentle - strong[1]).abs().max() > 1e-4


def test_its_views_stand_a_quarter_turn_apart_the_first_in_front(prior: MVDream) -> None:
    there = prior.views()
    torch.testing.assert_close(labels(there), told(15, 0), rtol=0, atol=1e-6)
    assert float(there.position[0, 0]) > 2 and abs(float(there.position[0, 1])) < 1e-9
    with pytest.raises(ValueError, match="a multiple of 4 of them, got 3"):
        prior.condition(cameras=there[[0, 1, 2]])


SPOILS: list[tuple[Callable[[dict[str, Tensor]], Any], str]] = [
    (lambda s: s.pop("model.diffusion_model.camera_embed.2.bias"), r"U-Net.*1 missing.*class_embedding\.linear_2\.bias"),
    (lambda s: s.update({"model.diffusion_model.out.2.bias": torch.zeros(5)}), r"1 of another shape: conv_out\.bias \[5\]"),
    (lambda s: s.pop("first_stage_model.quant_conv.bias"), "autoencoder.*1 missing"),
    (lambda s: s.pop("cond_stage_model.model.ln_final.bias"), "text tower.*1 missing"),
    (lambda s: s.pop("cond_stage_model.model.token_embedding.weight"), "text tower is missing or incomplete"),
    (lambda s: s.update({"model.diffusion_model.stray": torch.zeros(1)}), "1 tensors do not belong to MVDream, such as model.diffusion"),
    (lambda s: s.update({"image_embed.latents": torch.zeros(1)}), "1 tensors do not belong to MVDream, such as image_embed"),
]


@pytest.mark.parametrize(("change", "words"), SPOILS)
def test_ck_7_a_checkpoint_must_be_whole(folders, tmp_path: Path, change, words: str) -> None:
    from bozzetto.priors.convert import convert

    _, state = twin.checkpoint()
    change(state)
    ckpt, config = twin.write(tmp_path, state)
    with pytest.raises(InputError, match=words) as error:
        convert(ckpt, tmp_path / "out", "mvdream", config, tokenizer=MINI / "clip")
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_ck_7_a_folder_must_be_whole(folders, tmp_path: Path) -> None:
    port = shutil.copytree(folders[2], tmp_path / "port")
    whole, config = load_file(port / UNET), json.loads((port / "unet" / "config.json").read_text())

    def refused(says: str) -> None:
        with pytest.raises(InputError, match=says) as error:
            load(port)
        assert "\n" not in str(error.value)

    save_file({k: v for k, v in whole.items() if k != "camera_embed.0.bias"}, port / UNET)
    refused(r"1 missing, 0 unknown.*class_embedding\.linear_1\.bias")
    save_file({**whole, "image_embed.x": torch.zeros(1)}, port / UNET)
    refused("1 tensors do not belong to MVDream's U-Net, such as image_embed.x")
    (port / UNET).write_bytes((folders[2] / UNET).read_bytes()[:-100])
    refused("not a whole safetensors file")
    save_file(whole, port / UNET)
    for change, says in (
        ({"ip_dim": 16}, "this is ImageDream"),
        ({"camera_dim": 12}, "reads 16 numbers of a camera, this one 12"),
        ({"context_dim": 32}, "should be 64"),
        ({"model_channels": "a"}, "is not of MVDream's U-Net"),
    ):
        (port / "unet" / "config.json").write_text(json.dumps({**config, **change}))
        refused(says)
    del config["channel_mult"]
    (port / "unet" / "config.json").write_text(json.dumps(config))
    refused("'channel_mult'")
    shutil.copy(folders[2] / "unet" / "config.json", port / "unet")
    shutil.rmtree(port / "tokenizer")
    refused("tokenizer/ is missing")


def test_on_the_command_line(folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["bozzetto", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return int(left.value.code or 0)

    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    ckpt, config = twin.write(tmp_path, twin.checkpoint()[1])
    arguments = ("convert", ckpt, "--kind", "mvdream", "--config", config, "--out", tmp_path / "made")
    assert run(*arguments) == 2
    assert "holds no tokenizer, and stable-diffusion-2.1-base: is not on this disk" in capsys.readouterr().err
    assert run(*arguments, "--tokenizer", tmp_path) == 2 and "holds no tokenizer/" in capsys.readouterr().err
    assert run(*arguments, "--tokenizer", MINI / "clip") == 0
    assert load(tmp_path / "made").schedule == load(folders[1]).schedule
    how = ("--prior", tmp_path / "made", "--steps", 2, "--out", tmp_path / "owl.png", "--quiet")
    assert run("draw", "an owl", "--count", 2, *how) == 0
    assert np.asarray(Image.open(tmp_path / "owl.png")).shape == (32, 64, 3)  # a row a drawing, its views side by side
    with pytest.raises(InputError, match="a prior of kind mvdream has no use here; give one of kind zero123"):
        load_for("views", tmp_path / "made")
