# SPDX-License-Identifier: Apache-2.0
"""Training of the backbone: rows that are functions of their index, the paper's dropouts, and a prior that reads back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bozzetto import image
from bozzetto.camera import orbit
from bozzetto.errors import InputError
from bozzetto.fit.drawings import Drawing
from bozzetto.fit.source import Source
from bozzetto.priors import loading
from bozzetto.priors.codec import CodecConfig, LinearCodec
from bozzetto.priors.hint import PLANES, Hint
from bozzetto.priors.prior import Reference
from bozzetto.priors.zero123 import Zero123, relative_pose
from bozzetto.training import backbone, latents
from bozzetto.training.towers import Captioned, Towers, loss, make_tokenizer, retrieval, tokens
from bozzetto.verbs.views import NovelViews, picture_to_views

N, V, G, C, E = 3, 4, 2, 4, 128


@pytest.fixture(scope="module")
def data():
    g = torch.Generator().manual_seed(0)

    def r(*shape):
        return torch.randn(*shape, generator=g).half()

    about = [{"noun": n, "source": n, "colours": ["red"]} for n in ("chair", "mug", "boat")]
    angles = torch.rand(2, N, V, generator=g)
    return backbone.Encoded(r(N, V, C, 16, 16), r(N, G, V, C, 16, 16), r(N, G, V, PLANES, 16, 16), r(N, V, E), *angles, about)


def test_rows_are_functions_of_their_index(data):
    words = torch.zeros(N, 2, 24, dtype=torch.int64)
    rows = backbone.Rows(data, words, 0.5, seed=0, batch=2)
    for i in (0, 5, 6):
        a, b = rows[i], rows[i]
        assert all(torch.equal(a[k], b[k]) for k in a)
    kinds = [bool(rows[i]["is_text"]) for i in range(16)]
    assert kinds == 2 * ([False] * 6 + [True] * 2)  # one batch of four, the same for all of its rows


def test_z_6_dropouts_and_hints(data):
    rows = backbone.Rows(data, None, 1.0, seed=0, batch=2)
    made = [rows[i] for i in range(2000)]
    no_image = np.array([not r["image"].any() for r in made])
    no_token = np.array([not r["embedding"].any() for r in made])
    for share, wanted in ((no_image & ~no_token, 0.05), (no_token & ~no_image, 0.05), (no_image & no_token, 0.05)):
        assert abs(share.mean() - wanted) < 4 * (wanted * (1 - wanted) / 2000) ** 0.5
    hinted = np.array([bool(r["hint"].any()) for r in made])
    assert not (hinted & no_image & no_token).any()  # nothing known at all: guidance's null
    # The seen view is a guessed one in 0.7 + 0.3 / 2 of rows; of those 0.7 show the hint, but for the twentieth that knows nothing.
    wanted = 0.85 * 0.7 * 0.95
    assert abs(hinted.mean() - wanted) < 4 * (wanted * (1 - wanted) / 2000) ** 0.5


def test_poses_are_those_of_the_cameras(data):
    for seen, wanted in ((0, 1), (2, 3)):
        ends = [orbit([float(data.azimuth[1, v])], [float(data.elevation[1, v])], 2.0, size=2, fov=1.0) for v in (seen, wanted)]
        torch.testing.assert_close(data.pose(1, seen, wanted), relative_pose(*ends)[0].float(), atol=1e-5, rtol=0)


def small():
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251
        towers, codec = Towers(60, 0, 1), LinearCodec(CodecConfig(latent_channels=C, widths=(16, 8), blocks=(1, 1)))
        return backbone.Backbone(C, 16, E), towers.eval(), codec


def test_half_the_widths_are_a_quarter_of_the_weights():
    count = [sum(p.numel() for p in backbone.Backbone(C, 16, E, widths=w).network.parameters()) for w in ((64, 96, 128), (32, 48, 64))]
    assert 0.22 < count[1] / count[0] < 0.3


@pytest.mark.parametrize("prediction", ["v", "eps"])
def test_the_loss_is_of_what_is_predicted(data, prediction):
    class Knowing(torch.nn.Module):
        def forward(self, x, k, **cond):
            return batch["noise"] if prediction == "eps" else signal.sqrt() * batch["noise"] - (1 - signal).sqrt() * batch["x0"]

    network = backbone.Backbone(C, 16, E, prediction)
    network.network = Knowing()
    rows = backbone.Rows(data, None, 1.0, seed=0, batch=2)
    batch = {key: torch.stack([rows[i][key] for i in range(3)]) for key in rows[0]}
    alpha_bar = replace(backbone.SCHEDULE, prediction=prediction).alpha_bar().float()
    signal = alpha_bar[batch["k"]].view(-1, 1, 1, 1)
    assert float(network(batch, alpha_bar).max()) < 1e-10


def test_a_pale_pattern_raises_psnr_and_not_the_outlines_iou():
    truth = torch.ones(2, 32, 32, 3)
    truth[:, 8:24, 8:24] = 0.4
    worse = torch.where(truth < 0.5, torch.full_like(truth, 0.6), torch.full_like(truth, 0.88))  # colours off, and no white
    off = torch.where(truth < 0.5, torch.full_like(truth, 0.6), truth)
    assert backbone.pixel_psnr(worse, truth) > backbone.pixel_psnr(off, truth)
    assert backbone.outline_iou(worse, truth) == pytest.approx(0.25) and backbone.outline_iou(off, truth) == 1


def test_an_untrained_hint_changes_nothing_and_a_saved_prior_says_the_same(data, tmp_path):
    network, towers, codec = small()
    prior = Zero123(network.network.unet, codec, towers.vision, network.projection, backbone.SCHEDULE, "zero123-mini").eval()
    assert prior.uses_hint and prior.size == 128
    reference = Reference(torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(1)), orbit([0.0], 0.2, 3.0, size=128, fov=0.5))
    there = orbit([1.0, 2.0], 0.2, 3.0, size=128, fov=0.5)
    drawn = Hint(torch.rand(2, 128, 128, 3) * 0.5, torch.rand(2, 128, 128, PLANES))
    plain, hinted = prior.condition(reference, there), prior.condition(reference, there, hint=lambda c: drawn)
    assert hinted["hint"].shape == (2, C + PLANES, 16, 16)
    x = torch.randn(2, C, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        a, b = (prior.denoiser.denoise(x, 2.0, c) for c in (plain, hinted))
        torch.testing.assert_close(a, b)  # zero-initialised
        network.network.unet.conv_in.weight[:, 2 * C :] = 0.1
        assert not torch.allclose(prior.denoiser.denoise(x, 2.0, hinted), a, atol=1e-3)
        backbone.keep(prior, tmp_path / "prior")
        backbone.keep(prior, tmp_path / "prior")  # in place of the one that is there
        again = loading.load(tmp_path / "prior")
        made = again.denoiser.denoise(x, 2.0, again.condition(reference, there, hint=lambda c: drawn))
        torch.testing.assert_close(made, prior.denoiser.denoise(x, 2.0, hinted), atol=0.03, rtol=0.02)  # float16 weights
    assert sorted(p.name for p in tmp_path.iterdir()) == ["prior"]


def test_a_prior_without_hints_asks_for_none(data):
    network, towers, codec = small()
    network.network.unet.register_to_config(in_channels=2 * C)
    prior = Zero123(network.network.unet, codec, towers.vision, network.projection, backbone.SCHEDULE, "zero123-mini")
    assert not prior.uses_hint

    def asked(cameras):
        raise AssertionError("a hint was rendered for a prior that does not read it")

    assert "hint" not in prior.condition(cameras=orbit([0.0], 0.2, 3.0, size=128, fov=0.5), hint=asked)


def test_training_lowers_the_loss_of_both_tasks(data):
    network, _, _ = small()
    rows = backbone.Rows(data, torch.zeros(N, 2, 24, dtype=torch.int64), 0.5, seed=0, batch=8)
    alpha_bar = backbone.SCHEDULE.alpha_bar().float()
    batches = [{k: torch.stack([rows[i][k] for i in range(s, s + 8)]) for k in rows[s]} for s in (0, 24)]
    states = torch.randn(8, 24, backbone.WIDTH, generator=torch.Generator().manual_seed(0))
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    history = []
    for _ in range(8):
        total = network(batches[0], alpha_bar).mean() + network(batches[1], alpha_bar, states).mean()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        history.append(float(total.detach()))
    assert history[-1] < 0.9 * history[0]


def test_a_run_begins_from_a_priors_average(data, tmp_path):
    """From the run's own prior where its state is lost, or another's; counted on from the last line of its curve."""
    network, towers, codec = small()
    kept = Zero123(network.network.unet, codec, towers.vision, network.projection, backbone.SCHEDULE, "zero123-mini")
    backbone.keep(kept, tmp_path / "run" / "prior")
    other, _, _ = small()
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1)
    assert backbone.begin_from(tmp_path / "run" / "prior", other) == 0
    for (name, a), b in zip(other.named_parameters(), network.parameters(), strict=True):
        assert torch.equal(a, b.half().float()) and a.requires_grad, name
    (tmp_path / "run" / "curve.jsonl").write_text('{"samples": 400}\n{"samples": 800}\n')
    assert backbone.begin_from(tmp_path / "run" / "prior", other) == 800
    settings = backbone.Settings(tmp_path, tmp_path, tmp_path, tmp_path, tmp_path / "run")
    assert backbone.first_weights(settings) == tmp_path / "run" / "prior"
    assert backbone.first_weights(replace(settings, out=tmp_path / "none")) is None
    embedded = backbone.first_weights(replace(settings, start=Path("mini")))
    big = backbone.Backbone(12, 16, E)
    assert embedded is not None and backbone.begin_from(embedded, big) >= 176_000
    with pytest.raises(InputError, match="of another shape"):
        backbone.begin_from(embedded, other)


# ---- the towers ----


@pytest.fixture(scope="module")
def captioned():
    """Plain squares of two colours: as easy as it gets."""
    g = torch.Generator().manual_seed(3)
    pictures = torch.zeros(8, 3, 64, 64, 4, dtype=torch.uint8)
    pictures[..., 3] = 255
    pictures[..., 0] = torch.where(torch.arange(8) % 2 == 0, 220, 20)[:, None, None, None].to(torch.uint8)
    pictures[..., 2] = torch.where(torch.arange(8) % 2 == 0, 20, 220)[:, None, None, None].to(torch.uint8)
    about = [{"noun": "tomato" if k % 2 == 0 else "plum", "source": str(k), "colours": []} for k in range(8)]
    return Captioned(pictures, torch.rand(8, 3, generator=g), about)


def test_the_towers_learn_to_tell_two_things_apart(captioned):
    tokenizer = make_tokenizer(captioned.about, 400)
    assert tokenizer.decode(tokens(tokenizer, ["A photo of a TOMATO"])[0], skip_special_tokens=True).strip() == "a photo of a tomato"
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251
        towers = Towers(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
    optimiser = torch.optim.Adam(towers.parameters(), 1e-3)
    pixels = torch.cat([captioned.pixels(k, 0) for k in range(8)])
    words = tokens(tokenizer, [row["noun"] for row in captioned.about])
    for _ in range(25):
        optimiser.zero_grad()
        total, _ = loss(towers, {"pixels": pixels, "tokens": words})
        total.backward()
        optimiser.step()
    # Four rows share each caption: the least cross-entropy is that of an even choice among four.
    assert float(total) == pytest.approx(np.log(4), abs=0.1)
    assert retrieval(towers, captioned, tokenizer)["first"] == 1


def test_empty_captions_belong_to_nobody(captioned):
    tokenizer = make_tokenizer(captioned.about, 400)

    def fixed(pixels, words):
        e = torch.nn.functional.one_hot(torch.arange(len(pixels)), 4).float()
        return e, e, torch.tensor(50.0)

    words = tokens(tokenizer, ["tomato", "", "plum", ""])
    total, _ = loss(fixed, {"pixels": torch.zeros(4, 3, 64, 64), "tokens": words})
    assert float(total) == pytest.approx(0, abs=1e-6)


def test_latents_are_encoded_over_white():
    pictures = torch.zeros(2, 8, 8, 4, dtype=torch.uint8)
    pictures[0, ..., 0], pictures[0, ..., 3] = 100, 100
    assert latents.over_white(pictures)[0, 0, 0].tolist() == [255, 155, 155] and int(latents.over_white(pictures)[1].min()) == 255


# ---- what is embedded ----


def test_the_embedded_prior_reads_and_its_codec_returns_a_picture():
    prior = loading.load("mini")
    assert prior.uses_hint and prior.size == 128 and prior.kind == "zero123-mini"
    source = Source.load(Path(__file__).parent.parent / "examples" / "teddy-bear.png")
    crop = image.crop(source.rgb, source.alpha, 128)
    picture = (crop.rgb + 1 - crop.alpha[..., None])[None]
    with torch.no_grad():
        made = prior.decode(prior.encode_pictures(picture))
    assert float(-10 * (made - picture).square().mean().log10()) > 25
    weights = sum(p.stat().st_size for p in loading.MINI.rglob("*.safetensors"))
    assert weights < 60e6


def test_views_are_drawn_by_the_embedded_prior_and_a_seed_is_a_file(tmp_path):
    settings = NovelViews(count=2, drawing=Drawing(steps=2))
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        picture_to_views(Path(__file__).parent.parent / "examples" / "teapot.png", tmp_path / name, settings, seed=seed)
    a, b, c = ((tmp_path / n / "views.png").read_bytes() for n in "abc")
    assert a == b != c
