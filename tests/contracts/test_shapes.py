# SPDX-License-Identifier: Apache-2.0
"""What the fitting loop asks of every shape: an off-centre, lopsided object, rendered, moved, kept, and turned into a surface."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from bozzetto.camera import orbit
from bozzetto.shapes.colours import ColourGrid
from bozzetto.shapes.densify import Densify, DensifySchedule, Mcmc
from bozzetto.shapes.density import density
from bozzetto.shapes.discs import Discs, on_surface
from bozzetto.shapes.dmtet import DMTet
from bozzetto.shapes.growing import Growing
from bozzetto.shapes.neus import neus
from bozzetto.shapes.particles import Particles
from bozzetto.shapes.shape import Step
from bozzetto.shapes.tets import Course as Moves
from bozzetto.shapes.tets import Tets
from bozzetto.shapes.volume import Course, imitate

CENTRE = torch.tensor([0.08, -0.15, 0.12])
HALF = torch.tensor([0.3, 0.16, 0.1])  # an ellipsoid without two equal axes, off the origin in all three
LOW, HIGH = [-0.4, -0.45, -0.3], [0.5, 0.2, 0.45]
CAMERAS = orbit([0.3, 2.0, 4.0], [0.2, 0.6, -0.3], 2.5, size=64, fov=0.6)


def red_to_the_right(x, n=None):
    """Redder along +y: asymmetric, so that a mirrored picture differs."""
    return torch.stack([(x[:, 1] - LOW[1]) / (HIGH[1] - LOW[1]), 0.3 * torch.ones(len(x)), 0.2 * torch.ones(len(x))], 1).clamp(0, 1)


def dmtet(cells=(24, 18, 20)):
    return DMTet.from_ellipsoid(HALF.tolist(), cells, LOW, HIGH, CENTRE.tolist())


def tets(**kw):
    grid = ColourGrid.of(red_to_the_right, torch.tensor(LOW), torch.tensor(HIGH), 12)
    return Tets(dmtet(), Moves(0.2, colour_lr=0.05, **kw), grid)


def gaussians():
    return on_surface(*(x.detach() for x in dmtet().surface()), red_to_the_right)


def growing(strategy):
    g = gaussians()
    schedule = DensifySchedule(start=1, every=2, stop=50, threshold=1e-3, max_count=5000)
    return Growing(g, strategy(schedule, 1.0), 1.0, degree=0, cells=48, views=24, size=96)


def ellipsoid(x):
    """Signed distance, right to first order near the surface."""
    p = x - CENTRE
    k0, k1 = (p / HALF).norm(dim=1), (p / HALF**2).norm(dim=1)
    return k0 * (k0 - 1) / k1.clamp(min=1e-9)


def volume(make, **kw):
    made = make(LOW, HIGH, course=Course(open=0), generator=torch.Generator().manual_seed(0), **kw)
    made.lattice = 48
    return made


def imitating(make, lessons, **kw):
    made = volume(make, **kw)
    imitate(made, ellipsoid, red_to_the_right, lessons=lessons, generator=torch.Generator().manual_seed(1))
    return made


@cache
def imitated(make, **kw):
    return imitating(make, 100, **kw).state()


def rayed(make, **kw):
    made = imitating(make, 0, **kw)
    made.restore({k: v.clone() for k, v in imitated(make, **kw).items()})
    return made


SHAPES = {
    "tets": lambda: tets(),
    "tets without colours": lambda: Tets(dmtet(), Moves(0.2)),
    "tets moved as one": lambda: tets(smooth=5),
    "discs": lambda: Discs(gaussians(), 1 / 40, cells=48, views=24, size=96),
    "growing": lambda: growing(Densify),
    "particles": lambda: Particles([tets(), tets()]),
    "growing by MCMC": lambda: growing(Mcmc),
    "neus": lambda: rayed(neus, sharpness=500.0),
    "density": lambda: rayed(density),
}


@pytest.fixture(params=SHAPES, ids=lambda name: name.replace(" ", "_"))
def shape(request):
    torch.use_deterministic_algorithms(True)
    yield SHAPES[request.param]()
    torch.use_deterministic_algorithms(False)


def step(n, of=6, seed=0):
    return Step(n, of, torch.Generator().manual_seed(seed + n))


def middle(alpha):
    """(V, 2) centre of mass in pixels, as (column, row)."""
    at = torch.arange(alpha.shape[1]) + 0.5
    a = alpha[..., 0]
    return torch.stack([(a.sum(1) * at).sum(-1), (a.sum(2) * at).sum(-1)], -1) / a.sum((1, 2))[:, None]


def test_pictures_are_views(shape):
    with torch.no_grad():
        views = shape.render(CAMERAS)
    assert views.rgb.shape == (3, 64, 64, 3) and views.alpha.shape == (3, 64, 64, 1) and views.normal.shape == (3, 64, 64, 3)
    assert views.alpha.min() >= 0 and views.alpha.max() <= 1 + 1e-5
    assert (views.rgb <= views.alpha + 1e-4).all()  # premultiplied
    solid = views.alpha[..., 0] > 0.99
    assert solid.float().mean() > 0.03
    assert (views.depth[..., 0][solid] > 1.9).all() and (views.depth[..., 0][solid] < 3.1).all()
    assert (views.depth[views.alpha == 0] == 0).all()
    facing = torch.einsum("vhwi,vi->vhw", views.normal, CAMERAS.c2w[:, :, 2].float())
    assert facing[solid].mean() > 0.5  # towards the eye


def outline_centre(centre, half):
    """(V, 2) pixels: centre of the ellipse that is the ellipsoid's outline, by the dual quadric (Hartley and Zisserman, 8.6).

    Not where its centre projects: perspective sets them apart, here by up to 0.6 of a pixel.
    """
    at, depth = CAMERAS.project(torch.cat([torch.zeros(1, 3), torch.eye(3)]).double())
    rows = torch.cat([at * depth[..., None], depth[..., None]], -1).mT  # (V, 3, 4): origin, ends of the axes
    P = torch.cat([rows[..., 1:] - rows[..., :1], rows[..., :1]], -1)
    moved = torch.eye(4, dtype=torch.float64)
    moved[:3, 3] = centre
    dual = P @ moved @ torch.cat([half.double() ** 2, -torch.ones(1)]).diag() @ moved.mT @ P.mT
    return dual[:, :2, 2] / dual[:, 2:, 2]


def test_the_object_is_where_its_outline_is(shape):
    with torch.no_grad():
        found = middle(shape.render(CAMERAS, "alpha").alpha)
    assert (found - outline_centre(CENTRE, HALF)).norm(dim=-1).max() < 0.2
    mirrored = outline_centre(CENTRE * torch.tensor([1.0, -1.0, 1.0]), HALF)  # the control: a flipped sign
    assert (found - mirrored).norm(dim=-1).min() > 2


def test_what_is_asked_for_alone_is_the_same(shape):
    with torch.no_grad():
        whole, alpha, colour = shape.render(CAMERAS), shape.render(CAMERAS, "alpha"), shape.render(CAMERAS, "colour")
    torch.testing.assert_close(alpha.alpha, whole.alpha, atol=1e-6, rtol=0)
    torch.testing.assert_close(colour.alpha, whole.alpha, atol=1e-6, rtol=0)
    torch.testing.assert_close(colour.rgb, whole.rgb, atol=1e-6, rtol=0)
    with torch.no_grad():
        depth = shape.render(CAMERAS, "depth")
    torch.testing.assert_close(depth.alpha, whole.alpha, atol=1e-6, rtol=0)
    torch.testing.assert_close(depth.depth, whole.depth, atol=1e-5, rtol=0)


def look(shape):
    """What a `Growing` fits: it keeps what densification wants to know."""
    if isinstance(shape, Growing):
        rgb = shape.draw(CAMERAS[0], torch.zeros(3))
        return rgb[..., :1] if shape.gaussians.degree == 0 else rgb
    return shape.render(CAMERAS[[0]], "colour").alpha[0]


def course(shape, numbers, of=6):
    """Losses of some steps towards a picture of the object moved by a fifth of its length."""
    with torch.no_grad():
        moved = CAMERAS[[0]].c2w.clone()
    shifted = torch.roll(wanted_alpha(), 3, 1)
    losses = []
    for n in numbers:
        now = step(n, of)
        shape.begin(now)
        loss = (look(shape)[..., 0] - shifted).square().mean()
        loss.backward()
        shape.move(now)
        losses.append(float(loss.detach()))
    assert torch.equal(moved, CAMERAS[[0]].c2w)
    return losses


def wanted_alpha():
    with torch.no_grad():
        return Tets(dmtet(), Moves(0.1)).render(CAMERAS[[0]], "alpha").alpha[0, ..., 0]


def test_it_moves_towards_a_picture(shape):
    losses = course(shape, range(12), of=40)
    assert losses[-1] < 0.95 * losses[0], losses


def test_kept_and_restored_it_goes_on_to_the_same_bytes(shape, request):
    before = course(shape, range(4))  # the third is halfway, where tets are refined
    assert len(before) == 4
    kept = {k: v.detach().clone() for k, v in shape.state().items()}
    after = course(shape, (4, 5))
    again = SHAPES[request.node.callspec.params["shape"]]()
    again.restore(kept)
    assert course(again, (4, 5)) == after
    for name, value in shape.state().items():
        assert torch.equal(value, again.state()[name]), name


def test_its_own_losses_are_finite_scalars(shape):
    shape.begin(step(0))
    for name, value in shape.losses(step(0)).items():
        assert value.shape == () and torch.isfinite(value), name


def test_its_surface_is_closed_faces_outwards_and_lies_where_the_object_does(shape):
    with torch.no_grad():
        vertices, faces = shape.surface()
    edges = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    forth = {(int(a), int(b)) for a, b in edges}
    assert len(forth) == len(edges) and all((b, a) in forth for a, b in forth)  # each edge once in each direction
    t = vertices[faces].double()
    volume = torch.linalg.det(t).sum() / 6
    ball = 4 / 3 * torch.pi * HALF.prod()
    assert 0.8 * ball < volume < 1.35 * ball  # discs are as thick as they are
    middle = (torch.linalg.det(t)[:, None] * t.sum(1) / 4).sum(0) / 6 / volume
    assert (middle - CENTRE).norm() < 0.02
