# SPDX-License-Identifier: Apache-2.0
"""`bozzetto views`, under a prior that knows the object, and with random weights in a published layout."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bozzetto.errors import InputError
from bozzetto.fit.drawings import Drawing
from bozzetto.fit.source import Source
from bozzetto.formats.scene import load as load_scene
from bozzetto.priors.sampling import PUBLISHED, SMALL
from bozzetto.verbs.views import FOV, NovelViews, draw_views, picture_to_views, ring
from tests.twins import zero123 as twin
from tests.twins.block import CHAIR, ELEVATION, Oracle, truth

SETTINGS = NovelViews(3, size=64, drawing=Drawing(steps=6, guidance=1.0, batch=2))


@pytest.fixture(scope="module")
def source():
    views = truth(ring(NovelViews(count=1, size=128), ELEVATION))
    return Source("block.png", (views.rgb[0] / views.alpha[0].clamp(min=1e-3)).clamp(0, 1), views.alpha[0, ..., 0], views.rgb[0], "0")


def test_each_view_is_what_the_prior_knows_from_there(source):
    """A prior of one point: whatever the noise, DDIM ends at it, and each camera gets its own."""
    pictures, cameras = draw_views(source, Oracle(0.0), ELEVATION, SETTINGS)
    assert cameras.size == pictures.shape[1:3] == (32, 32)
    wanted = Oracle(0.0).decode(Oracle(0.0).encode_pictures(truth(cameras.resized(64)).over(1.0)))
    torch.testing.assert_close(pictures, wanted, atol=1e-5, rtol=0)
    assert (wanted[0] - wanted[1]).abs().max() > 0.2  # the views differ, so that order matters


def test_the_ring_goes_round_at_the_pictures_elevation():
    x, y, z = ring(NovelViews(count=3), 0.4).position.unbind(-1)
    torch.testing.assert_close(torch.rad2deg(torch.atan2(y, x)) % 360, torch.tensor([90.0, 180, 270]).double())
    torch.testing.assert_close(torch.asin(z / 1.2), torch.full((3,), 0.4).double())
    assert float(torch.asin(ring(NovelViews(elevation_deg=10), 0.4).position[0, 2] / 1.2)) == pytest.approx(math.radians(10))


def test_a_prior_is_sampled_as_suits_it_unless_told():
    class Sampled:
        def __init__(self, sampler):
            self.sampler = sampler

    assert Drawing().sampler(Sampled(SMALL)) == SMALL and Drawing().sampler(Sampled(PUBLISHED)) == PUBLISHED
    assert Drawing(steps=3, guidance=0.0, eta=0.0).sampler(Sampled(SMALL))[:3] == (3, 0.0, 0.0)
    assert Drawing(guidance=2.0).sampler(Sampled(PUBLISHED))[:3] == (50, 2.0, 1.0)


def test_half_precision_draws_nearly_the_same(tmp_path):
    weights = twin.write_port(tmp_path / "prior", twin.port_parts(), 1)
    settings = NovelViews(1, size=32, drawing=Drawing(steps=2, guidance=1.0))
    for precision in ("fp32", "bf16"):
        picture_to_views(CHAIR, tmp_path / precision, settings, prior=weights, kind="zero123", elevation=0.2, precision=precision)
    a, b = (np.asarray(Image.open(tmp_path / p / "view_000.png"), float) for p in ("fp32", "bf16"))
    assert 0 < np.abs(a - b).mean() < 4


def test_files_seeds_and_cameras(tmp_path):
    weights = twin.write_port(tmp_path / "prior", twin.port_parts(), 1)
    options = {"prior": weights, "kind": "zero123", "elevation": 0.2}
    settings = NovelViews(3, size=32, drawing=Drawing(steps=3, batch=2))
    for name, seed in (("a", 0), ("b", 0), ("c", 7)):
        picture_to_views(CHAIR, tmp_path / name, settings, seed=seed, **options)
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert names == ["transforms.json", "view_000.png", "view_001.png", "view_002.png", "views.png"]
    a, b, c = ((tmp_path / n / "views.png").read_bytes() for n in "abc")
    assert a == b != c
    record = json.loads((tmp_path / "a" / "transforms.json").read_text())
    assert record["camera_angle_x"] == FOV and len(record["frames"]) == 3
    scene = load_scene(tmp_path / "a")  # as `bozzetto splat` reads it
    wanted = ring(settings, 0.2).resized(twin.SIDE)  # whatever it was shown, the prior draws at its own size
    assert len(scene.pictures) == 3 and scene.pictures[0].shape[:2] == (twin.SIDE, twin.SIDE)
    torch.testing.assert_close(torch.cat([c.c2w for c in scene.cameras]), wanted.c2w)
    torch.testing.assert_close(torch.cat([c.K for c in scene.cameras]), wanted.K)


@pytest.mark.parametrize(
    ("settings", "prior", "words"),
    [
        (NovelViews(count=0), "mini", "at least 1"),
        (NovelViews(), "mini/none", "embeds no such"),
        (NovelViews(), "nowhere", "no such folder"),
        (NovelViews(), "digits-ddpm", "a prior of kind ddpm has no use here; give one of kind zero123"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, settings, prior, words):
    with pytest.raises(InputError, match=words):
        picture_to_views(CHAIR, tmp_path / "out", settings, prior=Path(prior))
    assert not (tmp_path / "out").exists()
