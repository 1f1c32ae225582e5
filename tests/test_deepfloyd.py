# SPDX-License-Identifier: Apache-2.0
"""DeepFloyd IF's first stage against diffusers' own pipeline: texts, noise schedule, E[x0 | x]; its folders; its pictures."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from bozzetto.diffusion.guidance import classifier_free
from bozzetto.distill.sds import sds
from bozzetto.errors import InputError
from bozzetto.priors import load, sample
from bozzetto.priors.deepfloyd import LENGTH, DeepFloyd
from bozzetto.priors.published import PUBLISHED
from bozzetto.priors.schedule import NoiseSchedule, read_schedule
from bozzetto.verbs.draw import draw_text
from tests.twins import deepfloyd as twin


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pipe() -> Any:
    return twin.pipeline(twin.parts())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return twin.write(tmp_path_factory.mktemp("if") / "folder")


@pytest.fixture(scope="module")
def prior(folder: Path) -> DeepFloyd:
    return load(folder)


def noise(prior: DeepFloyd, n: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, *prior.shape, generator=seeded(seed))


# ---- the same as diffusers' ----


@pytest.mark.parametrize("text", ["a red chair", " A Blue TABLE ", "", "zebra 7", "a red chair " * 40])
def test_a_text_becomes_what_the_pipeline_makes_of_it(prior, pipe, text):
    told, null = pipe.encode_prompt(text, device="cpu")
    assert told.shape == (1, LENGTH, 32)
    torch.testing.assert_close(prior.condition(text=text)["token"], told, rtol=0, atol=1e-5)
    torch.testing.assert_close(prior.condition()["token"], null, rtol=0, atol=1e-5)
    assert text == "" or (told - null).abs().max() > 0.1


def test_the_noise_schedule_is_the_folders(prior, pipe, folder):
    assert prior.schedule == read_schedule(folder / "scheduler") == NoiseSchedule(1e-4, 0.02, "squaredcos_cap_v2")
    theirs = pipe.scheduler.alphas_cumprod.double()
    torch.testing.assert_close(prior.schedule.alpha_bar(), theirs, rtol=1e-3, atol=1e-6)  # theirs is multiplied up in float32
    assert (NoiseSchedule(1e-4, 0.02, "linear").alpha_bar() - theirs).abs().max() > 0.1


@pytest.mark.parametrize("k", [3, 400, 900])
def test_x0_is_what_the_pipeline_makes_of_its_noise(prior, pipe, k):
    """Step by step: the U-Net on x_t, its first half as the noise, and DDPM's formula for x0."""
    a = pipe.scheduler.alphas_cumprod[k].double()
    x0, eps, token = noise(prior, seed=1).clamp(-1, 1), noise(prior, seed=2), prior.condition(text="a red chair")
    x_t = (a.sqrt() * x0 + (1 - a).sqrt() * eps).float()
    with torch.no_grad():
        said = pipe.unet(x_t, k, encoder_hidden_states=token["token"].expand(2, -1, -1)).sample
        mean, variance = said.split(3, 1)
        assert said.shape[1] == 6 and (mean - variance).abs().max() > 1e-3
        ours = prior.denoiser.denoise((x_t / a.sqrt()).float(), ((1 - a) / a).sqrt(), token)
        mixed = (x_t - (1 - a).sqrt() * variance) / a.sqrt()
    theirs = (x_t - (1 - a).sqrt() * mean) / a.sqrt()
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-5, atol=1e-5)
    assert k == 3 or (ours - mixed).abs().max() > 1e-3  # the other half is not the noise


def test_guidance_is_on_the_noise_and_the_null_is_the_empty_text(prior, pipe):
    """Guided x0 is that of eps_null + g (eps_text - eps_null): both are affine in each other at one x."""
    k, g = 500, 20.0
    a, x_t = pipe.scheduler.alphas_cumprod[k].double(), noise(prior)
    told, null = pipe.encode_prompt("a blue chair", device="cpu")
    with torch.no_grad():
        eps = [pipe.unet(x_t, k, encoder_hidden_states=e.expand(2, -1, -1)).sample[:, :3] for e in (null, told)]
        guided = classifier_free(prior.denoiser, prior.condition(), g)
        ours = guided.denoise((x_t / a.sqrt()).float(), ((1 - a) / a).sqrt(), prior.condition(text="a blue chair"))
    theirs = (x_t - (1 - a).sqrt() * (eps[0] + g * (eps[1] - eps[0]))) / a.sqrt()
    assert (eps[1] - eps[0]).abs().max() > 1e-3
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-4)  # float32 rounding, times guidance


def test_pictures_are_thresholded_as_the_folder_asks(prior, pipe):
    """At sigma = 20,000 a noise that is wrong by a thousandth is an x0 of 20; the picture is within 1."""
    config = pipe.scheduler.config
    assert prior.sampler.thresholding == (config.dynamic_thresholding_ratio, config.sample_max_value)
    assert prior.denoiser.sigmas[-1] > 20_000
    told, few = prior.condition(text="a chair"), prior.sampler._replace(steps=3)
    seen: list[float] = []
    sample(prior, told, generator=seeded(0), sampler=few, watch=lambda step, x, x0: seen.append(float(x0.abs().max())))
    bare = sample(prior, told, generator=seeded(0), sampler=few._replace(thresholding=None))
    assert len(seen) == 3 and max(seen) <= 1 and bare.abs().max() > 100


# ---- what is dropped, and what matters ----


def test_the_learnt_variance_is_dropped(folder, prior, tmp_path):
    path = shutil.copytree(folder, tmp_path / "other") / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    x, cond = noise(prior), prior.condition(text="a chair")

    def asked(rows: slice) -> torch.Tensor:
        changed = {k: v.clone() for k, v in state.items()}
        changed["conv_out.weight"][rows] += 1
        save_file(changed, path)
        return load(tmp_path / "other").denoiser.denoise(x, 1.0, cond)

    with torch.no_grad():
        plain = prior.denoiser.denoise(x, 1.0, cond)
        assert torch.equal(asked(slice(3, 6)), plain)
        assert (asked(slice(0, 3)) - plain).abs().max() > 0.1


def test_a_network_without_a_variance_is_read_as_well(tmp_path):
    prior = load(twin.write(tmp_path / "folder", out_channels=3))
    assert prior.shape == (3, 16, 16)
    assert prior.denoiser.denoise(noise(prior), 1.0, prior.condition()).shape == (2, 3, 16, 16)


def test_padding_is_masked(prior):
    """The states of a text's own tokens are those of the text alone, without any padding; unmasked they are not."""
    text = "a red chair"
    token, ids = prior.condition(text=text)["token"], torch.tensor([prior.tokenizer(text)])
    n = ids.shape[1]
    padded = torch.cat([ids, ids.new_zeros(1, LENGTH - n)], 1)
    with torch.no_grad():
        alone = prior.text_encoder(input_ids=ids).last_hidden_state
        unmasked = prior.text_encoder(input_ids=padded).last_hidden_state
    torch.testing.assert_close(token[:, :n], alone, rtol=0, atol=1e-5)
    assert (token[:, :n] - unmasked[:, :n]).abs().max() > 0.01


def test_a_text_that_is_too_long_keeps_its_end(prior):
    assert prior.tokenizer("A CHAIR ".lower())[-1] == 1
    assert prior.excess(" ".join(["chair"] * 76)) == 0 and prior.excess(" ".join(["chair"] * 80)) == 4
    both = [prior.condition(text=" ".join(["chair"] * n))["token"] for n in (76, 80, 75)]
    assert torch.equal(both[0], both[1]) and not torch.equal(both[0], both[2])


def test_x0_is_the_picture_itself(prior):
    rgb = torch.rand(2, 16, 16, 3, generator=seeded(4))
    x0 = prior.encode_pictures(rgb)
    torch.testing.assert_close(x0, 2 * rgb.movedim(-1, 1) - 1, rtol=0, atol=1e-6)
    torch.testing.assert_close(prior.decode(x0), rgb, rtol=0, atol=1e-6)
    assert prior.size == 16 and prior.background == 1.0


def test_sds_is_the_guided_residual_at_the_pixels(prior):
    """No codec: the gradient at a pixel is twice (x0 is 2 rgb - 1) that of SDS at x0, and no weight gets one."""
    rgb = torch.rand(1, 16, 16, 3, generator=seeded(5), requires_grad=True)
    guided, cond = classifier_free(prior.denoiser, prior.condition(), 20.0), prior.condition(text="a red chair")
    x0 = prior.encode_pictures(rgb)
    (at_pixels,) = torch.autograd.grad(sds(guided, x0, torch.tensor([2.0]), cond, generator=seeded(6)), rgb)
    free = x0.detach().requires_grad_()
    (at_x0,) = torch.autograd.grad(sds(guided, free, torch.tensor([2.0]), cond, generator=seeded(6)), free)
    torch.testing.assert_close(at_pixels.movedim(-1, 1), 2 * at_x0, rtol=1e-5, atol=1e-7)
    assert at_x0.abs().max() > 0 and not any(p.requires_grad for p in prior.parameters())


def test_it_draws(folder, tmp_path):
    out = draw_text("a red chair", tmp_path / "chair.png", prior=folder, steps=2, count=2)
    assert np.asarray(Image.open(out)).shape == (16, 32, 3)
    with pytest.raises(InputError, match="1 tokens longer"):
        draw_text("chair " * 77, tmp_path / "x.png", prior=folder, steps=2)


# ---- folders ----


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_is_read_in_half_precision_from_published_names(folder, prior, tmp_path, dtype):
    """Of the names that libraries give float16, shards and all; T5's last layers stay float32 in float16, as transformers has them."""
    from diffusers import UNet2DConditionModel
    from transformers import T5EncoderModel

    half = shutil.copytree(folder, tmp_path / "half")
    for cls, part in ((UNet2DConditionModel, "unet"), (T5EncoderModel, "text_encoder")):
        network = cls.from_pretrained(half / part, local_files_only=True).half()
        for path in (half / part).glob("*.safetensors"):
            path.unlink()
        network.save_pretrained(half / part, variant="fp16", max_shard_size="20MB" if part == "unet" else "20KB")
    names = {str(path.relative_to(half)) for part in ("unet", "text_encoder") for path in (half / part).iterdir()}
    published = {f.name for f in PUBLISHED["deepfloyd-if"].files if f.name.startswith(("unet/", "text_encoder/"))}
    assert published <= {re.sub(r"of-\d+", "of-00002", name) for name in names}  # there are more shards than two here
    made = load(half, dtype=dtype)
    kept = {n for n, p in made.text_encoder.named_parameters() if p.dtype == torch.float32}
    wide = {n for n, _ in made.text_encoder.named_parameters() if n.endswith(".wo.weight")}
    assert kept == (wide if dtype == torch.float16 else set()) and wide
    token, wanted = made.condition(text="a red chair")["token"], prior.condition(text="a red chair")["token"]
    assert token.dtype == torch.float32
    torch.testing.assert_close(token, wanted, rtol=0, atol=0.1 * float(wanted.abs().max()))  # two layers, 8 bits at the least
    x = noise(prior)
    with torch.no_grad():
        ours = made.denoiser.denoise(x, 1.0, {"token": token})
    torch.testing.assert_close(ours, prior.denoiser.denoise(x, 1.0, {"token": wanted}), rtol=0, atol=0.1)


def test_the_table_of_words_may_bear_either_name(folder, prior, tmp_path):
    path = shutil.copytree(folder, tmp_path / "old") / "text_encoder" / "model.safetensors"
    state = load_file(path)
    table = state.pop("shared.weight")
    for names in (("encoder.embed_tokens.weight",), ("encoder.embed_tokens.weight", "shared.weight")):
        save_file({**state, **{n: table.clone() for n in names}}, path)
        again = load(tmp_path / "old")
        assert torch.equal(again.condition(text="a table")["token"], prior.condition(text="a table")["token"])
        assert again.text_encoder.shared.weight.data_ptr() == again.text_encoder.encoder.embed_tokens.weight.data_ptr()
    save_file(state, path)
    with pytest.raises(InputError, match="2 missing"):
        load(tmp_path / "old")


def test_the_tower_may_lie_elsewhere(folder, prior, tmp_path):
    split, tower = shutil.copytree(folder, tmp_path / "split"), tmp_path / "tower"
    tower.mkdir()
    for part in ("text_encoder", "tokenizer"):
        (split / part).rename(tower / part)
    with pytest.raises(InputError, match="text_encoder/ is missing"):
        load(split)
    assert torch.equal(load(split, text=tower).condition(text="a")["token"], prior.condition(text="a")["token"])


def changed(path: Path, **settings: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def test_odd_folders_are_refused_in_one_sentence(folder, tmp_path):
    number = iter(range(100))

    def refused(says: str, spoil: Any) -> None:
        spoilt = shutil.copytree(folder, tmp_path / str(next(number)))
        spoil(spoilt)
        with pytest.raises(InputError, match=says) as error:
            load(spoilt)
        assert "\n" not in str(error.value)

    def set_in(file: str, **settings: Any) -> Any:
        return lambda f: changed(f / file, **settings)

    unet, tower = "unet/config.json", "text_encoder/config.json"
    refused("in_channels of the U-Net should be 3", set_in(unet, in_channels=6))  # a second stage
    refused("out_channels of the U-Net should be 6", set_in(unet, out_channels=4))
    refused("encoder_hid_dim of the U-Net should be 16", set_in(tower, d_model=16))
    refused("sample_size", set_in(unet, sample_size=None))
    refused("no network can be built from its settings", set_in(tower, num_layers="two"))
    refused("of another shape|unknown|missing", set_in(tower, d_ff=40))
    refused("only betas of", set_in("scheduler/scheduler_config.json", beta_schedule="sigmoid"))
    refused("scheduler/ is missing", lambda f: shutil.rmtree(f / "scheduler"))
    refused("tokenizer/ is missing", lambda f: shutil.rmtree(f / "tokenizer"))
    refused("tokenizer.json or spiece.model is missing", lambda f: (f / "tokenizer" / "tokenizer.json").unlink())
    refused("no tokenizer can be read", set_in("tokenizer/tokenizer.json", model={"type": "no such"}))
    refused("1 to end with", set_in("tokenizer/tokenizer.json", post_processor=None))

    def pickled(f: Path) -> None:
        (f / "unet" / "diffusion_pytorch_model.safetensors").rename(f / "unet" / "diffusion_pytorch_model.bin")

    refused("only pickled weights", pickled)


def test_a_sentencepiece_model_is_read_by_its_own_library(folder, tmp_path):
    """Trained here on four sentences; its tokens are those that transformers' conversion of it gives."""
    sentencepiece = pytest.importorskip("sentencepiece")
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "tokenizer" / "tokenizer.json").unlink()
    said = ["a red chair with four legs", "a blue car", "the wooden table is round", "a yellow boat on the water"] * 50
    with (other / "tokenizer" / "spiece.model").open("wb") as stream:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(said), model_writer=stream, vocab_size=32, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2
        )
    from transformers import T5Tokenizer

    prior, theirs = load(other), T5Tokenizer.from_pretrained(other / "tokenizer", local_files_only=True)
    for text in ("a red chair", "", "a  round zebra", "four boats"):
        assert prior.tokenizer(text) == theirs(text).input_ids
    assert prior.condition(text="a red chair")["token"].shape == (1, LENGTH, 32)
    (other / "tokenizer" / "spiece.model").write_bytes(b"no model")
    with pytest.raises(InputError, match="no tokenizer can be read"):
        load(other)


def test_without_sentencepiece_its_model_says_what_to_install(folder, tmp_path, monkeypatch):
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "tokenizer" / "tokenizer.json").rename(other / "tokenizer" / "spiece.model")
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == "sentencepiece" else found(name, *rest))
    with pytest.raises(InputError, match="needs sentencepiece"):
        load(other)
