# SPDX-License-Identifier: Apache-2.0
"""Recipe `views` under a prior that knows the object: its drawings' outlines and colours reach the mesh."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bozzetto.fit.run import Run
from bozzetto.fit.source import Source
from bozzetto.frustum import frustum_camera
from bozzetto.priors.solid import EMPTY
from bozzetto.recipes import guess as first
from bozzetto.recipes import views
from bozzetto.verbs.lift import lift
from bozzetto.verbs.views import NovelViews
from tests.test_recipe_zero123 import BLUE, CHAIR, ELEVATION, Oracle, P, truth
from tests.twins import zero123 as twin

SETTINGS = views.FromViews(
    guess=first.Guess(cells=24, steps=60, picture=96, faces=4000, texture=128),
    drawing=NovelViews(steps=3, guidance=1.0, batch=9),
    samples=1,
    carve=3.0,  # this prior can be trusted
    size=64,
)


class Drawing(Oracle):
    """Cameras come relative to the centre of what is guessed, which is the object's: the guess is too deep on both sides alike."""

    def decode(self, x0):
        return (x0 / 2 + 0.5).clamp(0, 1).movedim(1, -1)


@pytest.fixture(scope="module")
def source():
    drawn = truth(frustum_camera(0.0, ELEVATION, P, 128))
    return Source("block.png", (drawn.rgb[0] / drawn.alpha[0].clamp(min=1e-3)).clamp(0, 1), drawn.alpha[0, ..., 0], drawn.rgb[0], "0")


def deep(guess, factor):
    """The block's guess, wrong: this much as deep as it is."""
    d, n, _ = guess["occupancy"].shape
    rows = (torch.arange(n) + 0.5) / n - 0.5
    depth = ((torch.arange(d) + 0.5) / d * 2 - 1) * 0.9
    inside = (depth.abs() < 0.175 * factor * 1.25).float().view(-1, 1, 1) * torch.ones(d, n, n)
    seen = (guess["occupancy"].amax(0, keepdim=True) > EMPTY).float() + 0 * rows
    return {**guess, "occupancy": torch.where(inside * seen > 0, 3.0, EMPTY), "view": torch.tensor([ELEVATION, P])}


def test_drawings_carve_a_wrong_depth_and_colours_reach_the_back(source, tmp_path, monkeypatch):
    predict = first.predict
    monkeypatch.setattr(first, "predict", lambda s, n: deep(predict(s, n), 2.0))
    from bozzetto.priors import first_guess
    from bozzetto.priors.loading import MINI

    network = first_guess.load(MINI / "first_guess")

    def depth_of(lifted):
        v = lifted.mesh.vertices
        size = v.amax(0) - v.amin(0)
        return float(size[0] / size[1])

    alone = first.lift(source, network, SETTINGS.guess, Run(tmp_path / "a", {}))
    made = views.lift(source, network, Drawing(), SETTINGS, Run(tmp_path / "b", {}))
    assert depth_of(alone) > 0.75 and depth_of(made) < 0.7 * depth_of(alone)  # the truth is 0.5
    v, n = made.mesh.vertices, made.mesh.normals
    back = (n[:, 0] < -0.95) & (v[:, 0] < 0)
    uv = (made.mesh.uv[back] * 128).long().clamp(0, 127)
    colour = made.mesh.texture[uv[:, 1], uv[:, 0]].mean(0)
    assert float((colour - BLUE).abs().max()) < 0.15


def test_a_wire_that_no_drawing_shows_is_not_carved():
    coverage = torch.zeros(1, 32, 32)
    coverage[:, 4:20, 6:26], coverage[:, 20:30, 8] = 1, 1  # a seat, and one leg
    occupancy = torch.full((32, 32, 32), EMPTY)
    occupancy[12:20] = torch.where(coverage > 0, -EMPTY, EMPTY)
    camera = frustum_camera(0.0, ELEVATION, P, 64)
    seen_past = {"trust": torch.ones(1, 1, 1), "alpha": torch.zeros(1, 64, 64)}  # a drawing of nothing at all
    left = views.carved({"occupancy": occupancy, "coverage": coverage}, camera, P, seen_past, camera, 2.0)
    assert torch.equal(left[:, 22:30, 8], occupancy[:, 22:30, 8])
    assert bool((left[:, 8:16, 10:22] < occupancy[:, 8:16, 10:22]).any())


def test_trust_falls_where_an_object_is_as_pale_as_the_paper():
    dark, pale = torch.ones(1, 32, 32, 3), torch.ones(1, 32, 32, 3)
    dark[:, 8:24, 8:24], pale[:, 8:24, 8:24] = 0.2, 0.93
    assert float(views._told(dark, 1.0)) == 1 and float(views._told(pale, 1.0)) == 0
    alpha = views.solid(dark, 1.0)
    assert float(alpha.sum()) == 256 and float(alpha[0, 10, 10]) == 1


def test_a_seed_is_a_file(tmp_path, monkeypatch):
    """Through the command's own function, with random weights in a published layout, which take no hint."""
    weights = twin.write_port(tmp_path / "prior", twin.port_parts(), 1)
    small = replace(SETTINGS, guess=replace(SETTINGS.guess, steps=4), ring=3, above=0, samples=2)
    monkeypatch.setitem(views.PRESETS, "draft", small)
    files = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        lift(CHAIR, tmp_path / name, preset="draft", recipe="views", prior=weights, kind="zero123", seed=seed)
        files.append((tmp_path / name / "asset.glb").read_bytes())
    assert files[0] == files[1] != files[2]
