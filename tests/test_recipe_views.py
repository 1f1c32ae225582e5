# SPDX-License-Identifier: Apache-2.0
"""Recipe `views` under a prior that knows the object: its drawings' outlines and colours reach the mesh."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bozzetto.fit.drawings import Drawing, Drawings, carve, coverage, seen_past, trust_in_colours
from bozzetto.fit.finish import Finish
from bozzetto.fit.run import Run
from bozzetto.fit.silhouette import Silhouette
from bozzetto.fit.solid import Solid
from bozzetto.priors.solid import EMPTY
from bozzetto.recipes import guess, views
from bozzetto.verbs.lift import lift
from tests.twins import block
from tests.twins import zero123 as twin
from tests.twins.block import BLUE, CHAIR, ELEVATION, P

SETTINGS = views.FromViews(
    guess=Silhouette(cells=24, steps=60, picture=96),
    drawing=Drawing(steps=3, guidance=1.0, batch=9),
    samples=1,
    carve=3.0,  # this prior can be trusted
    size=64,
    finish=Finish(faces=4000, texture=128),
)


@pytest.fixture(scope="module")
def source():
    return block.picture(128)


def test_drawings_carve_a_wrong_depth_and_colours_reach_the_back(source, tmp_path):
    """The guess is twice as deep as the block, on both sides alike, so that drawings come from round its true centre."""

    def depth_of(lifted):
        v = lifted.mesh.vertices
        size = v.amax(0) - v.amin(0)
        return float(size[0] / size[1])

    alone = guess.lift(
        block.job(source, guess.Guess(**vars(SETTINGS.guess), finish=SETTINGS.finish), Run(tmp_path / "a", {}), trimmed=True)
    )
    job = block.job(source, SETTINGS, Run(tmp_path / "b", {}), seed=0, spread=0.0, trimmed=True)  # a drawing with noise has no outline
    made = views.lift(job)
    assert depth_of(alone) > 0.75 and depth_of(made) < 0.7 * depth_of(alone)  # the truth is 0.5
    v, n = made.mesh.vertices, made.mesh.normals
    back = (n[:, 0] < -0.95) & (v[:, 0] < 0)
    uv = (made.mesh.uv[back] * 128).long().clamp(0, 127)
    colour = made.mesh.texture[uv[:, 1], uv[:, 0]].mean(0)
    assert float((colour - BLUE).abs().max()) < 0.15


def test_a_wire_that_no_drawing_shows_is_not_carved():
    shown = torch.zeros(1, 32, 32)
    shown[:, 4:20, 6:26], shown[:, 20:30, 8] = 1, 1  # a seat, and one leg
    occupancy = torch.full((32, 32, 32), EMPTY)
    occupancy[12:20] = torch.where(shown > 0, -EMPTY, EMPTY)
    solid = Solid(occupancy, torch.zeros(3, 4, 4, 4), shown, 0.0, ELEVATION, P)
    nothing = Drawings(torch.ones(1, 64, 64, 3), torch.zeros(1, 64, 64), torch.ones(1, 64, 64))  # a drawing of nothing at all
    left = carve(solid, 2.0 * seen_past(solid, nothing, solid.frustum.resized(64).camera)).occupancy
    assert torch.equal(left[:, 22:30, 8], occupancy[:, 22:30, 8])
    assert bool((left[:, 8:16, 10:22] < occupancy[:, 8:16, 10:22]).any())


def test_trust_falls_where_an_object_is_as_pale_as_the_paper():
    dark, pale = torch.ones(1, 32, 32, 3), torch.ones(1, 32, 32, 3)
    dark[:, 8:24, 8:24], pale[:, 8:24, 8:24] = 0.2, 0.93
    assert float(trust_in_colours(dark, 1.0)) == 1 and float(trust_in_colours(pale, 1.0)) == 0
    alpha = coverage(dark, 1.0)
    assert float(alpha.sum()) == 256 and float(alpha[0, 10, 10]) == 1


@pytest.mark.slow
def test_a_seed_is_a_file(tmp_path, monkeypatch):
    """Through the command's own function, with random weights in a published layout, which take no hint."""
    weights = twin.write_port(tmp_path / "prior", twin.port_parts(), 1)
    small = replace(SETTINGS, guess=replace(SETTINGS.guess, steps=4), ring=3, above=0, samples=2)
    monkeypatch.setitem(views.RECIPE.presets, "draft", small)
    files = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        lift(CHAIR, tmp_path / name, preset="draft", recipe="views", prior=weights, kind="zero123", seed=seed)
        files.append((tmp_path / name / "asset.glb").read_bytes())
    assert files[0] == files[1] != files[2]
