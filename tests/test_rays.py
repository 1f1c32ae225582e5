# SPDX-License-Identifier: Apache-2.0
"""Fields optimised by rays of known views, in the one loop: from a sphere to a solid without symmetry, stopped and gone on with."""

from __future__ import annotations

import math

import pytest
import torch

from bozzetto.camera import orbit
from bozzetto.fit.loop import optimise, own
from bozzetto.fit.rays import Rays
from bozzetto.fit.run import Run
from bozzetto.kernels.hashgrid import Levels
from bozzetto.render.mesh import render_surface
from bozzetto.shapes.density import density
from bozzetto.shapes.dmtet import DMTet, area_normals
from bozzetto.shapes.field import Frequencies, HashGrid
from bozzetto.shapes.neus import neus
from bozzetto.shapes.tets import Course as Moves
from bozzetto.shapes.tets import Tets
from bozzetto.shapes.volume import Course

LOW, HIGH = (-0.4, -0.45, -0.3), (0.5, 0.2, 0.45)
CENTRE, HALF = [0.08, -0.15, 0.12], [0.3, 0.16, 0.1]
WEIGHTS = {"rgb": 1.0, "mask": 0.1}


def colours(x, normals=None):
    return torch.stack([(x[:, 1] + 0.5).clamp(0, 1), 0.3 + 0 * x[:, 0], (x[:, 2] + 0.4).clamp(0, 1)], 1)


@pytest.fixture(scope="module")
def solid():
    with torch.no_grad():
        return DMTet.from_ellipsoid(HALF, (36, 28, 30), LOW, HIGH, CENTRE).surface()


@pytest.fixture(scope="module")
def targets(solid):
    vertices, faces = solid
    cameras = orbit([2.4 * i for i in range(10)], [math.asin(-0.6 + 0.13 * i) for i in range(10)], 2.2, size=48, fov=0.5)
    return render_surface(vertices, faces, area_normals(vertices, faces), cameras, colours)


def begun(make, encoding=None, seed=0):
    g = torch.Generator().manual_seed(seed)
    encoding = encoding or HashGrid(Levels(6, 8, 1.5, 12), first=3, generator=g)
    made = make(LOW, HIGH, encoding=encoding, course=Course(every=25), generator=g, **({"radius": 0.2} if make is neus else {}))
    made.lattice = 48
    return made


def away(vertices):
    """Mean distance (to first order) of a surface's vertices from the ellipsoid."""
    p = vertices - torch.tensor(CENTRE)
    k0, k1 = (p / torch.tensor(HALF)).norm(dim=1), (p / torch.tensor(HALF) ** 2).norm(dim=1)
    return float((k0 * (k0 - 1) / k1).abs().mean())


@pytest.mark.parametrize(
    "kind", ["neus", pytest.param("neus on frequencies", marks=pytest.mark.slow), pytest.param("density", marks=pytest.mark.slow)]
)
def test_a_ball_or_a_blob_becomes_what_the_views_show(kind, targets):
    shape = begun(density if kind == "density" else neus, Frequencies(3) if "frequencies" in kind else None)
    # a density has no surface of its own, but where it passes a threshold: a tenth of the ellipsoid's longest half axis is what it comes to
    enough = 0.25 * away(shape.surface()[0]) if kind != "density" else 0.03
    terms = [Rays(targets, WEIGHTS, 256), own({"eikonal": 0.1, "curvature": 0.01})]
    losses = optimise(shape, terms, Run(None, {}), "shape", steps=240, seed=1)
    vertices, _ = shape.surface()
    after = away(vertices)
    assert after < enough < 0.25 * away(vertices * torch.tensor([1.0, -1, 1]))  # the control: its mirror image
    assert losses["rgb"] < 0.03 and losses["mask"] < 0.12
    if kind != "density":
        assert float(shape.medium.sharpness.detach()) > 25  # from 20
        assert losses["eikonal"] < 0.05


def test_a_fit_that_was_stopped_goes_on_to_the_same_bytes(targets, tmp_path):
    terms = [Rays(targets, WEIGHTS, 64), own({"eikonal": 0.1, "curvature": 0.01})]
    whole = begun(neus)
    optimise(whole, terms, Run(None, {}), "shape", steps=20, seed=2)
    run = Run(tmp_path, {})
    run.progress = lambda stage, share: setattr(run, "interrupted", share > 0.5)
    with run.interruptible():
        optimise(begun(neus), terms, run, "shape", steps=20, seed=2)
    again, run = begun(neus, seed=3), Run(tmp_path, {}, resume=True)
    with run.interruptible():
        optimise(again, terms, run, "shape", steps=20, seed=2)
    for name, value in whole.state().items():
        assert torch.equal(value, again.state()[name]), name


def test_a_shape_without_rays_is_refused(targets):
    tets = Tets(DMTet.from_ellipsoid(HALF, (12, 9, 10), LOW, HIGH, CENTRE), Moves(0.1))
    with pytest.raises(TypeError, match="expected a Volume"):
        optimise(tets, [Rays(targets, WEIGHTS)], Run(None, {}), "shape", steps=1)
