# SPDX-License-Identifier: Apache-2.0
"""Drawn views to a surface: the loss against closed forms, and fusions of objects that are known."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from bozzetto.camera import in_camera, in_world, level_ring, orbit
from bozzetto.errors import InputError
from bozzetto.fit.agreement import Agreement, DrawnPictures, DrawnRays, Seen, Wanted, compared, least, squarely
from bozzetto.fit.fused import Drawn, Fusing, Outlines, fuse
from bozzetto.fit.run import Run
from bozzetto.fit.settings import changed
from bozzetto.kernels.hashgrid import Levels
from bozzetto.render.mesh import render_surface
from bozzetto.shapes.colours import ColourGrid
from bozzetto.shapes.dmtet import DMTet, area_normals
from bozzetto.shapes.field import Field, Frequencies, HashGrid
from bozzetto.shapes.neus import SignedDistance
from bozzetto.shapes.shape import Step
from bozzetto.shapes.volume import Course, Volume, imitate
from tests.twins import block

F64 = torch.float64
SIX = [math.radians(a) for a in (0, 45, 90, 180, -90, -45)]  # Wonder3D's
WEIGHTS = torch.tensor([1.0, 0.8, 0.2, 1.0, 0.4, 0.7])
CENTRE, RADIUS, SCALE = torch.tensor([0.1, -0.15, 0.08]), 0.25, 1.2
BALLS = ((0.08, -0.12, 0.05, 0.25), (0.02, 0.12, 0.15, 0.14), (-0.18, -0.1, -0.08, 0.1))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def six(size=48, elevation=0.3, scale=SCALE):
    return level_ring(orbit(0.4, elevation, 2.0, size=size, ortho_scale=scale), SIX)


def sphere(cameras):
    with torch.no_grad():
        vertices, faces = DMTet.from_sphere(RADIUS, 40, -0.5, 0.5, CENTRE.tolist()).surface()
    return render_surface(vertices, faces, F.normalize(vertices - CENTRE, dim=1), cameras)


def balls(x):
    """Signed distance of three balls that overlap: off-centre, and no mirror image of itself."""
    return torch.stack([(x - x.new_tensor(b[:3])).norm(dim=-1) - b[3] for b in BALLS]).amin(0)


def colours(x, n=None):
    return 0.5 + 0.35 * torch.sin(9 * x + torch.tensor([0.3, 1.9, 4.0]))


@pytest.fixture(scope="module")
def lumps():
    with torch.no_grad():
        vertices, faces = DMTet.from_sdf(balls, 48, [-0.5] * 3, [0.5] * 3).surface()
    normals = area_normals(vertices, faces)
    return lambda cameras: render_surface(vertices, faces, normals, cameras, colours)


def even(views, has_normals=True):
    return Drawn(views, torch.ones(len(views.cameras)), has_normals)


def job(run=None, seed=0):
    return SimpleNamespace(run=run or Run(None, {}), seed=seed, picture=None, words="lumps")


# ---- cameras and normals ----


def test_wo_1_normals_in_the_front_cameras_axes_are_those_of_the_sphere_in_every_view():
    cameras = six(96)
    views = sphere(cameras)
    on = views.alpha[..., 0] > 0.99
    points = cameras.unproject(cameras.pixel_centres().expand(6, -1, -1, -1), views.depth[..., 0].double())
    exact = F.normalize(points - CENTRE, dim=-1).float()
    told, own = in_camera(views.normal, cameras), torch.cat([in_camera(views.normal[k], cameras[k])[None] for k in range(6)])
    assert float((in_world(told, cameras) - exact)[on].norm(dim=-1).max()) < 0.02  # the sphere's facets
    towards = -(cameras.rays()[1].float())
    for k in range(6):  # normals in each view's own axes, taken for the front's: off by the rotation between both
        turn = (cameras.c2w[0, :, :3] @ cameras.c2w[k, :, :3].mT).float()
        wrong = in_world(own[k], cameras)
        torch.testing.assert_close(wrong[on[k]], views.normal[k][on[k]] @ turn.mT, rtol=0, atol=1e-5)
        off = float((wrong - exact[k])[on[k]].norm(dim=-1).mean())
        assert off < 0.02 if k == 0 else off > 0.5
    behind = 3
    away = lambda n: float(((n * towards[behind]).sum(-1)[on[behind]] < 0).float().mean())  # noqa: E731
    assert away(in_world(told[behind], cameras)) == 0 and away(in_world(own[behind], cameras)) > 0.9  # how the mistake shows
    none = squarely(*(x[on[behind]] for x in (-towards[behind], in_world(own[behind], cameras), on[behind])))
    assert float((none > 0).float().mean()) < 0.1  # and it counts for nothing


def test_wo_6_a_ring_that_is_level_for_a_raised_camera_has_the_published_elevations():
    """e(a) = asin(cos a sin e_f + sin a sin e_r); Wonder3D's table is such a ring, front 14.96 and right 24.62 degrees high."""
    front, right = math.radians(14.96), math.radians(24.62)
    # the front camera rolls about its axis until its right (90 degrees on) is so high
    camera = orbit(0.0, front, 2.0, size=8, ortho_scale=1.0)
    roll = math.asin(math.sin(right) / math.cos(front))
    axes = camera.c2w[0, :, :3]
    x = math.cos(roll) * axes[:, 0] + math.sin(roll) * axes[:, 1]
    rolled = replace(camera, c2w=torch.stack([x, torch.linalg.cross(axes[:, 2], x), axes[:, 2], camera.c2w[0, :, 3]], 1)[None])
    ring = level_ring(rolled, SIX)
    elevation = torch.asin(ring.position[:, 2] / 2)
    formula = torch.tensor([math.asin(math.cos(a) * math.sin(front) + math.sin(a) * math.sin(right)) for a in SIX], dtype=F64)
    torch.testing.assert_close(elevation, formula, rtol=0, atol=1e-12)
    fall = torch.rad2deg(front - elevation)[1:]
    torch.testing.assert_close(fall, torch.tensor([-13.54, -9.66, 29.91, 39.57, 21.39], dtype=F64), rtol=0, atol=0.03)
    turn = torch.rad2deg(torch.atan2(ring.position[:, 1], ring.position[:, 0]) - math.atan2(*rolled.position[0, [1, 0]].tolist()))[1:] % 360
    torch.testing.assert_close(turn, torch.tensor([46.5, 97.0, 180.0, 277.0, 320.1], dtype=F64), rtol=0, atol=0.06)
    level = level_ring(orbit(0.4, 0.0, 2.0, size=8, ortho_scale=1.0), SIX)  # at elevation 0 it is the ring of azimuths
    torch.testing.assert_close(level.c2w, orbit([0.4 + a for a in SIX], 0.0, 2.0, size=8, ortho_scale=1.0).c2w, rtol=0, atol=1e-12)


def test_wo_7_orthographic_outlines_have_their_area_and_opposite_ones_mirror_each_other(lumps):
    size = 128
    alpha = sphere(six(size)).alpha
    torch.testing.assert_close(alpha.sum((1, 2, 3)), torch.full((6,), math.pi * (RADIUS * size / SCALE) ** 2), rtol=0.006, atol=0)
    seen = lumps(six(size)).alpha[..., 0]
    assert float((seen[0].flip(1) - seen[3]).abs().mean()) < 2e-3 < 0.05 < float((seen[0] - seen[3]).abs().mean())


def test_wo_8_gradients_of_a_field_are_its_finite_differences():
    field = Field(Frequencies(3), [-0.5] * 3, [0.6] * 3, depth=2, is_smooth=True, generator=seeded())
    points = torch.rand(400, 3, generator=seeded(4)) - 0.45
    gradient = field.value_and_gradient(points)[1].detach()
    h = 2e-4
    differences = torch.stack([(field.value(points + h * a) - field.value(points - h * a)).detach() / (2 * h) for a in torch.eye(3)], 1)
    # float32: a millionth of the value over 2 h, and h^2 times a third derivative
    assert float(((differences - gradient).norm(dim=1) / gradient.norm(dim=1)).quantile(0.95)) < 5e-3
    assert float(((differences + gradient).norm(dim=1) / gradient.norm(dim=1)).median()) > 1.9  # the sign


# ---- the loss ----


def test_wo_3_square_on_weighs_e_grazing_1_and_looking_away_nothing():
    direction = torch.tensor([[1.0, 0, 0]]).expand(5, 3)
    turned = torch.tensor([180.0, 120.0, 91.0, 30.0, 0.0]).deg2rad()
    normal = 0.3 * torch.stack([turned.cos(), turned.sin(), 0 * turned], 1)  # of any length
    normal[4] = 0  # nothing is drawn
    is_object = torch.tensor([True, True, True, True, False])
    grown = torch.tensor([math.e, math.exp(0.5), 1.0, 1.0, 1.0])  # those that do not count are in the sum, as in the released code
    weights = squarely(direction, normal, is_object)
    torch.testing.assert_close(weights, torch.where(torch.tensor([1, 1, 0, 0, 0]) > 0, grown / grown.sum(), 0), rtol=0, atol=1e-6)
    nearly = squarely(direction[:1], torch.tensor([[-0.1001, math.sqrt(1 - 0.1001**2), 0]]), torch.ones(1, dtype=torch.bool))
    assert float(nearly) == pytest.approx(1.0)  # of one ray alone the sum is its own
    twice = squarely(direction.repeat(2, 1), normal.repeat(2, 1), is_object.repeat(2))
    torch.testing.assert_close(twice.sum(), weights.sum())  # as many rays again, of the same kinds: the same loss
    more = squarely(direction[:4], normal[:4], is_object[:4])
    assert float(more.sum()) > float(weights.sum())  # but without the background it is more


def test_the_least_errors_are_kept_and_then_trusted():
    errors = torch.tensor([5.0, 1, 4, 2, 3, 9, 0, 8, 7, 6], requires_grad=True)
    trust = torch.arange(10.0)
    kept = least(errors, 0.7, trust)
    assert kept.tolist() == [0 * 6, 1 * 1, 2 * 3, 3 * 4, 4 * 2, 5 * 0, 6 * 9]  # floor(.7 10) = 7, though .7 * 10 < 7 in some roundings
    kept.sum().backward()
    assert errors.grad.tolist() == [0, 1, 2, 3, 4, 0, 6, 0, 0, 9]
    assert len(least(errors, 0.29)) == 2 and len(least(errors[:0], 0.5)) == 0


def sides(corrupted=False, each=40):
    """Rays of six views onto one patch, and its normal as they have it, each a little off; one view has it wrong."""
    direction = F.normalize(torch.tensor([-1.0, 0.1, 0.0]) + 0.4 * torch.randn(6, 1, 3, generator=seeded(0)), dim=-1).expand(6, each, 3)
    normal = F.normalize(torch.tensor([1.0, -0.2, 0.3]) + 0.1 * torch.randn(6, each, 3, generator=seeded(1)), dim=-1)
    if corrupted:
        normal = torch.cat([normal[:2], F.normalize(normal[2:3] + torch.tensor([0.0, 0.7, 0.0]), dim=-1), normal[3:]])
    flat = lambda x: x.reshape(-1, 3).double()  # noqa: E731
    trust = WEIGHTS.double()[:, None].expand(6, each).reshape(-1)
    ones = torch.ones(6 * each, dtype=F64)
    return Wanted(torch.zeros(6 * each, 3, dtype=F64), ones, flat(normal), flat(direction), trust)


def best_normal(wanted, kept):
    """By descent on the loss."""
    n = torch.tensor([0.9, 0.3, 0.1], dtype=F64, requires_grad=True)
    optimiser = torch.optim.LBFGS([n], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        seen = Seen(wanted.rgb, wanted.alpha, n.expand(len(wanted.alpha), 3))
        value = compared(seen, wanted, Agreement(kept_normal=kept), 0 * wanted.alpha)["normal"].value
        value.backward()
        return value

    optimiser.step(loss)
    return F.normalize(n.detach(), dim=0)


def test_wo_2_one_corrupted_view_is_dropped_and_the_minimiser_is_the_weighted_mean_of_the_others():
    """sum of w t (1 - cos(n, g)) is least where n is along sum of w t g."""
    good, bad = sides(), sides(corrupted=True)
    weights = squarely(bad.direction, bad.normal, bad.alpha > 0.5)
    assert float(weights.min()) > 0  # no normal looks away: only the ranking can find them
    is_good = torch.ones(6, 40, dtype=torch.bool)
    is_good[2] = False

    def mean(wanted, some):
        w = squarely(wanted.direction, wanted.normal, wanted.alpha > 0.5) * wanted.trust
        return F.normalize((w[:, None] * wanted.normal)[some.reshape(-1)].sum(0), dim=0)

    torch.testing.assert_close(best_normal(bad, 5 / 6), mean(bad, is_good), rtol=0, atol=1e-6)
    torch.testing.assert_close(best_normal(good, 1.0), mean(good, torch.ones_like(is_good)), rtol=0, atol=1e-6)
    heavy = replace(bad, trust=torch.ones_like(bad.trust))  # without the ranking, and with the bad view trusted like the others
    off = best_normal(heavy, 1.0)
    torch.testing.assert_close(off, mean(heavy, torch.ones_like(is_good)), rtol=0, atol=1e-6)
    assert float((off - mean(heavy, is_good)).norm()) > 0.05 > 100 * float((best_normal(heavy, 5 / 6) - mean(heavy, is_good)).norm())


def ball(sharpness):
    """A field that is a sphere, exactly."""
    field = Field(HashGrid(Levels(4, 8, 1.4, 10), generator=seeded()), [-0.5] * 3, [0.5] * 3, generator=seeded(1))
    volume = Volume(field, SignedDistance(sharpness), Course(), sections=32)
    imitate(volume, lambda x: (x - CENTRE).norm(dim=1) - RADIUS, lambda x, n: 0 * x + 0.5, lessons=20, generator=seeded(2))
    return volume


@pytest.mark.parametrize("weights", [torch.ones(6), WEIGHTS])
def test_wo_2_the_loss_is_0_at_the_exact_distance_with_exact_normals_whatever_the_weights(weights):
    """What is left is the breadth of the weights along a ray: 1 - cos goes with 1 / k^2."""
    cameras = six(64)
    drawn = Drawn(sphere(cameras), weights, True)
    step = lambda: Step(0, 1, seeded(3))  # noqa: E731
    losses = [float(DrawnRays(drawn, Agreement(), 3000)(ball(k), step())["normal"].value.detach()) for k in (50.0, 100.0, 800.0)]
    assert losses[1] < 0.5 * losses[0] and losses[2] < 2e-4
    flipped = replace(drawn, views=replace(drawn.views, normal=-drawn.views.normal))
    assert "normal" not in DrawnRays(flipped, Agreement(), 500)(ball(100.0), step())  # all of them look away


def test_gradients_of_the_loss_are_finite_differences():
    wanted = sides(corrupted=True, each=4)
    wanted = replace(wanted, alpha=torch.rand(24, dtype=F64, generator=seeded(5)), rgb=torch.rand(24, 3, dtype=F64, generator=seeded(6)))
    seen = [torch.rand(24, *x, dtype=F64, generator=seeded(7 + i)).requires_grad_() for i, x in enumerate(((3,), (), (3,)))]

    def total(*x):
        losses = compared(Seen(*x), wanted, Agreement(), least((x[1] - wanted.alpha).square(), 0.9, wanted.trust))
        return sum(loss.weight * loss.value for loss in losses.values())

    assert torch.autograd.gradcheck(total, seen)


# ---- fusions ----


def far(vertices):
    return float(balls(vertices).abs().mean())


FAST = {
    "dmtet": Fusing(by="dmtet", steps=16, cells=28, picture=48, rgb_weight=5, normal_weight=5, mask_weight=20),
    "neus": Fusing(by="neus", steps=60, cells=40, rays=160, points=160, sections=12),
}


EACH = ["dmtet", pytest.param("neus", marks=pytest.mark.slow)]


@pytest.mark.parametrize("by", EACH)
def test_drawn_views_become_the_object_and_their_mirror_image_does_not(by, lumps):
    drawn = even(lumps(six()))
    made = fuse(job(), drawn, None, FAST[by])
    mirrored = replace(six(), c2w=six().c2w[[0, 5, 4, 3, 2, 1]])  # azimuths' sign flipped
    wrong = fuse(job(), even(replace(drawn.views, cameras=mirrored)), None, FAST[by])
    assert far(made.vertices) < 0.015 < 0.03 < far(wrong.vertices)
    shown = made.vertices[::7]
    assert set(made.losses) >= {"rgb", "mask", "normal"} and float((shown.amax(0) - shown.amin(0)).max()) > 0.4


@pytest.mark.parametrize("by", EACH)
def test_views_correct_a_guess_that_is_twice_as_deep_and_red_behind(by):
    """Perspective views, whose normals are not looked at."""
    cameras = orbit([math.pi / 4 * k for k in range(8)], 0.2, 2.2, size=48, fov=0.6)
    views = block.truth(cameras, block.CENTRE)
    drawn = Drawn(views, torch.ones(8), False)
    made = fuse(job(), drawn, block.guess(2.0), replace(FAST[by], steps=2 * FAST[by].steps, kept_rgb=1.0))
    deep = lambda x: float(x.quantile(0.98) - x.quantile(0.02))  # noqa: E731
    assert 0.3 < deep(made.vertices[:, 0]) < 0.45 < 0.6 < deep(block.guess(2.0).surface()[0][:, 0])
    behind = made.vertices[made.vertices[:, 0] < block.CENTRE[0] - 0.12]
    red, _, blue = ColourGrid(**made.colours)(behind).mean(0).tolist()
    assert blue > red and "normal" not in made.losses  # the guess has .1 and .85 there
    unlike = replace(block.guess(2.0), occupancy=block.guess(2.0).occupancy.flip(2) - 6 * (torch.arange(64) > 20))  # a sliver, elsewhere
    alike = fuse(job(), drawn, unlike, replace(FAST["dmtet"], steps=2))
    assert deep(alike.vertices[:, 1]) > 0.6  # what the views show, and not the sliver


@pytest.mark.parametrize("by", EACH)
def test_a_fusion_that_was_stopped_goes_on_to_the_same_bytes(by, lumps, tmp_path):
    drawn, settings = even(lumps(six(24))), replace(FAST[by], steps=8, cells=16, picture=24, at_once=4)
    whole = fuse(job(), drawn, None, settings)
    run = Run(tmp_path, {})
    run.progress = lambda stage, share: setattr(run, "interrupted", share > 0.5)
    with run.interruptible():
        fuse(job(run), drawn, None, settings)
    run = Run(tmp_path, {}, resume=True)
    with run.interruptible():
        again = fuse(job(run), drawn, None, settings)
    assert torch.equal(whole.vertices, again.vertices) and torch.equal(whole.colours["logits"], again.colours["logits"])


def test_outlines_are_what_enough_of_the_trust_agrees_on():
    views = sphere(six(64))
    inside = CENTRE + RADIUS * torch.tensor([[0.0, 0, 0], [0.9, 0, 0], [0, -0.9, 0]])
    beyond = CENTRE + RADIUS * torch.tensor([[1.2, 0, 0], [0, -1.2, 0]])
    blank = replace(views, alpha=views.alpha * (torch.arange(6) != 2).view(6, 1, 1, 1))
    for drawn, is_there in ((even(views), True), (Drawn(blank, WEIGHTS, True), True), (even(blank), False)):
        outlines = Outlines(drawn, 0.9)  # the third view has .2 of 4.1, or a sixth
        assert bool((outlines.logits(inside) > 0).all()) == is_there and not (outlines.logits(beyond) > 0).any()
        assert bool(len(outlines.points())) == is_there
    nearest = Outlines(even(views), 0.9).points()
    assert float(((nearest - CENTRE).norm(dim=1) - RADIUS).max()) < 0.05  # corners of the hull
    with pytest.raises(InputError, match="lumps: the drawn views have no outline in common"):
        fuse(job(), even(blank), None, Fusing())


def test_what_cannot_be_fused_is_refused():
    views = sphere(six(16))
    for weight in (torch.ones(5), torch.zeros(6), -torch.ones(6)):
        with pytest.raises(ValueError, match="expected weights of 6 views"):
            Drawn(views, weight, True)
    with pytest.raises(TypeError, match="expected a Volume"):
        DrawnRays(even(views), Agreement(), 8)(None, Step(0, 1, seeded()))
    with pytest.raises(InputError, match="expected neus or dmtet"):
        changed(Fusing(), ["by=mesh"])
    assert changed(Fusing(), ["by=dmtet", "steps=3"]) == Fusing(by="dmtet", steps=3)


def test_others_are_rasterised_each_time_where_there_are_too_many(lumps):
    drawn, seen = even(lumps(six(8))), set()

    class Blank:
        def render(self, cameras, only=None):
            seen.update(tuple(p) for p in cameras.position.tolist())
            return replace(drawn.views[0:2], cameras=cameras)

    term, g = DrawnPictures(drawn, Agreement(), 2), seeded()
    for number in range(12):
        term(Blank(), Step(number, 12, g))
    assert len(seen) == 6
