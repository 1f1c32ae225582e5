# SPDX-License-Identifier: Apache-2.0
"""The reference view's losses against closed forms, finite differences, OpenCV, and a shape that they move."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from bozzetto.camera import in_camera, orbit
from bozzetto.distill.sds import Ramp
from bozzetto.fit.estimates import Estimate
from bozzetto.fit.loop import optimise
from bozzetto.fit.reference import (
    Relief,
    absolute_inside,
    blurred,
    correlation,
    depth_loss,
    eroded,
    normal_loss,
    smoothness,
    variation,
)
from bozzetto.fit.run import Run
from bozzetto.fit.terms import Shown, squared_inside
from bozzetto.image import Crop
from bozzetto.render.mesh import render_surface
from bozzetto.shapes.dmtet import area_normals
from bozzetto.shapes.shape import Step
from bozzetto.shapes.tets import Course, Tets
from bozzetto.views import Views
from tests.twins import block

STEP = Step(0, 10, torch.Generator())


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some(shape: tuple[int, ...], seed: int = 9) -> torch.Tensor:
    """A mask of about two thirds."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.35


def gradient(loss, x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(x), x)
    return found


# ---- depth ----


@pytest.mark.parametrize(("a", "b"), [(3.0, -2.0), (0.01, 100.0), (-2.0, 5.0)])
def test_dc_1_correlation_sees_past_a_factor_and_a_shift_but_for_the_sign(a, b):
    d, wanted, mask = random(7, 5), random(7, 5, seed=1), some((7, 5))
    rho = correlation(d, wanted, mask)
    assert 0.01 < abs(float(rho)) < 0.99
    assert float(rho) == pytest.approx(float(np.corrcoef(d[mask], wanted[mask])[0, 1]), abs=1e-12)
    assert float(correlation(a * d + b, wanted, mask)) == pytest.approx(np.sign(a) * float(rho), abs=1e-9)
    assert float(correlation(d, a * wanted + b, mask)) == pytest.approx(np.sign(a) * float(rho), abs=1e-9)


def test_dc_2_its_gradient_moves_neither_mean_nor_scale():
    """(z^ - rho z) / (N sigma), orthogonal to 1 and to d; -rho, 1 - rho and (1 - rho) / 2 as 1 : 1 : 1/2."""
    d, wanted, mask = random(7, 5), random(7, 5, seed=1), some((7, 5))
    found = gradient(lambda x: correlation(x, wanted, mask), d)
    n, sigma = int(mask.sum()), d[mask].std(correction=0)
    z, z_wanted = ((x[mask] - x[mask].mean()) / x[mask].std(correction=0) for x in (d, wanted))
    expected = torch.zeros_like(d)
    expected[mask] = (z_wanted - correlation(d, wanted, mask) * z) / (n * sigma)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-10)
    assert abs(float(found.sum())) < 1e-12 and abs(float((found * d).sum())) < 1e-12
    torch.testing.assert_close(gradient(lambda x: depth_loss(x, wanted, mask), d), -expected, atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(gradient(lambda x: depth_loss(x, wanted, mask) / 2, d), -expected / 2, atol=1e-12, rtol=1e-10)
    assert torch.autograd.gradcheck(lambda x: correlation(x, wanted, mask), d.clone().requires_grad_())


@pytest.mark.parametrize("flat", ["rendering", "estimate", "one pixel", "no pixel"])
def test_dc_2_what_is_flat_says_nothing_and_has_no_gradient(flat):
    d, wanted, mask = random(4, 4).float(), random(4, 4, seed=1).float(), torch.ones(4, 4, dtype=torch.bool)
    if flat == "rendering":
        d = torch.full((4, 4), 2.7) + 2e-7 * d  # rounding is no relief
    elif flat == "estimate":
        wanted = torch.zeros(4, 4)
    else:
        mask = torch.zeros(4, 4, dtype=torch.bool)
        mask[1, 2] = flat == "one pixel"
    assert float(depth_loss(d, wanted, mask)) == 1
    assert not gradient(lambda x: depth_loss(x, wanted, mask), d).any()
    faint = 2.7 + 1e-3 * random(4, 4).float()  # a relief of a thousandth is one
    assert gradient(lambda x: depth_loss(x, random(4, 4, seed=1).float(), torch.ones(4, 4, dtype=torch.bool)), faint).any()


def test_mg_2_half_of_it_runs_from_0_to_1():
    d, mask = random(6, 6), some((6, 6))
    assert float(depth_loss(d, 5 * d - 3, mask)) / 2 == pytest.approx(0, abs=1e-12)
    assert float(depth_loss(d, -0.1 * d + 7, mask)) / 2 == pytest.approx(1, abs=1e-12)
    for seed in range(20):
        assert 0 < float(depth_loss(d, random(6, 6, seed=seed + 1), mask)) / 2 < 1


# ---- normals ----


def sphere(camera, size: int):
    """Normals in the world and coverage of a ball seen from far away, by hand: x right and y up on the picture are those of the camera."""
    i = (torch.arange(size, dtype=torch.float64) + 0.5) / size * 2 - 1
    x, y = i[None].expand(size, -1), -i[:, None].expand(-1, size)
    inside = x**2 + y**2 < 0.9
    z = (1 - x**2 - y**2).clamp(min=0).sqrt()
    local = torch.stack([x, y, z], -1)
    return local @ camera.c2w[0, :, :3].mT, local, inside


def test_dc_3_normals_of_a_ball_agree_in_the_cameras_axes_and_a_mirrored_x_shows():
    camera = orbit([0.7], [0.4], 3.0, size=24, fov=0.6)
    world, local, mask = sphere(camera, 24)
    found = in_camera(world, camera)
    torch.testing.assert_close(found, local, atol=1e-12, rtol=0)
    assert float(normal_loss(found, local, mask)) == pytest.approx(0, abs=1e-12)  # DreamCraft3D's -cos is -1
    mirrored = local * torch.tensor([-1.0, 1.0, 1.0])
    expected = 1 - float((1 - 2 * local[mask][:, 0] ** 2).mean())  # cos of n and its mirror is 1 - 2 n_x**2
    assert float(normal_loss(found, mirrored, mask)) == pytest.approx(expected, abs=1e-12) and expected > 0.4
    assert float(normal_loss(world, local, mask)) > 0.1  # nor does the world's frame pass


def test_the_gradient_of_normals_is_across_them():
    n, wanted, mask = random(5, 4, 3), random(5, 4, 3, seed=1), some((5, 4))
    found = gradient(lambda x: normal_loss(x, wanted, mask), n)
    unit, w = (x / x.norm(dim=-1, keepdim=True) for x in (n, wanted))
    cos = (unit * w).sum(-1, keepdim=True)
    expected = -(w - cos * unit) / (int(mask.sum()) * n.norm(dim=-1, keepdim=True)) * mask[..., None]
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-9)
    assert float((found * n).sum(-1).abs().max()) < 1e-12
    assert torch.autograd.gradcheck(lambda x: normal_loss(x, wanted, mask), n.clone().requires_grad_())
    n[0, 0] = 0  # antialiased nothing: no direction, no gradient, no count
    mask[0, 0] = True
    assert not gradient(lambda x: normal_loss(x, wanted, mask), n)[0, 0].any()
    rest = mask.clone()
    rest[0, 0] = False
    assert float(normal_loss(n, wanted, mask)) == float(normal_loss(n, wanted, rest))
    assert not gradient(lambda x: normal_loss(x, wanted, torch.zeros_like(mask)), n).any()


def test_the_blur_is_opencvs_with_torchvisions_width():
    """sigma = .15 side + .35 in torchvision, which Magic123 calls: 1.7 for 9 pixels."""
    n = random(20, 15, 3).numpy()
    expected = cv2.GaussianBlur(n, (9, 9), 1.7, borderType=cv2.BORDER_REFLECT_101)
    torch.testing.assert_close(blurred(torch.from_numpy(n)), torch.from_numpy(expected), atol=1e-12, rtol=0)


def test_mg_3_a_constant_map_is_smooth_and_the_gradient_stops_at_the_blurred_one():
    """2 (n - B n) / count in the paper; 2 (1 - B)' (1 - B) n / count in the released code, B the blur as a matrix."""
    constant = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64).expand(12, 12, 3)
    assert float(smoothness(constant)) < 1e-30 and float(variation(constant)) == 0
    n = random(9, 7, 3)
    basis = torch.eye(63, dtype=torch.float64).view(63, 9, 7)
    B = torch.stack([blurred(e[..., None], 5)[..., 0].flatten() for e in basis], 1)
    flat, count = n.view(63, 3), n.numel()
    rest = flat - B @ flat
    assert float(smoothness(n, 5)) == pytest.approx(float(rest.square().mean()), rel=1e-12)
    torch.testing.assert_close(gradient(lambda x: smoothness(x, 5), n).view(63, 3), 2 * rest / count, atol=1e-13, rtol=1e-9)
    through = 2 * (torch.eye(63, dtype=torch.float64) - B).T @ rest / count
    torch.testing.assert_close(gradient(lambda x: smoothness(x, 5, follow=True), n).view(63, 3), through, atol=1e-13, rtol=1e-9)
    assert not torch.allclose(through, 2 * rest / count)


def test_variation_is_that_of_neighbours():
    """A ramp of slope s down and t across: s**2 + t**2, mean over three channels of which one is a ramp."""
    i, j = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), indexing="ij")
    n = torch.stack([0.3 * i - 0.2 * j, torch.ones(5, 6), torch.zeros(5, 6)], -1).double()
    assert float(variation(n)) == pytest.approx((0.09 + 0.04) / 3, rel=1e-6)


# ---- schedules and masks ----


def test_dc_4_schedules_at_their_start_in_between_and_at_their_end():
    """DreamCraft3D's: the lowest level .7 to .2 by step 200, the orientation's weight 1 to 10 at step 2000, consistency 10 to 1 over
    1000..2000; as [start, v0, v1, end] in its files."""
    low, jump, fall = Ramp(0.7, 0.2, 0, 200), Ramp(1, 10, 2000, 2000), Ramp(10, 1, 1000, 2000)
    assert [low(k) for k in (0, 100, 200, 5000)] == pytest.approx([0.7, 0.45, 0.2, 0.2])
    assert [jump(k) for k in (0, 1999, 2000, 4999)] == [1, 1, 10, 10]
    assert [fall(k) for k in (0, 1000, 1500, 2000, 3000)] == pytest.approx([10, 10, 5.5, 1, 1])


def test_dc_7_erosion_takes_four_pixels_and_none_at_the_pictures_border():
    mask = torch.zeros(40, 50, dtype=torch.bool)
    mask[5:30, 8:41] = True
    wanted = torch.zeros_like(mask)
    wanted[9:26, 12:37] = True
    assert torch.equal(eroded(mask), wanted)
    mask[:, 45:] = True  # a bar of five pixels at the right border, over the whole height
    wanted[:, 49:] = True  # the border takes nothing from it, its left edge four
    assert torch.equal(eroded(mask), wanted)
    ragged = some((30, 30)) | (torch.hypot(*torch.meshgrid(torch.arange(30.0) - 14, torch.arange(30.0) - 11, indexing="ij")) < 9)
    for side in (3, 9):
        twin = ndimage.binary_erosion(ragged.numpy(), np.ones((side, side)), border_value=1)
        assert torch.equal(eroded(ragged, side), torch.from_numpy(twin)) and twin.any()


def test_dc_8_colours_outside_the_mask_have_no_gradient():
    rgb = torch.rand(1, 24, 24, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    alpha = torch.zeros(24, 24)
    alpha[3:17, 6:22] = 1
    crop = Crop(0.5 * alpha[..., None].expand(-1, -1, 3), alpha, (0, 0, 24))
    camera = orbit([0.0], [0.0], 2.0, size=24, fov=0.6)
    views = Views(rgb, alpha[None, ..., None], alpha[None, ..., None], rgb.detach(), camera)
    for loss, inside in (
        (squared_inside, alpha > 0),
        (absolute_inside(), eroded(alpha > 0.5)),
        (absolute_inside(5), eroded(alpha > 0.5, 5)),
    ):
        (found,) = torch.autograd.grad(loss(views, crop), rgb)
        assert not found[0][~inside].any() and found[0][inside].all()


# ---- a shape ----


class Plane(nn.Module):
    """A square sheet, tilted by a number, and no closer to a camera than another number says."""

    def __init__(self, tilt=0.3, near=0.1):
        super().__init__()
        self.tilt, self.near = (nn.Parameter(torch.tensor(x, dtype=torch.float64)) for x in (tilt, near))

    def render(self, cameras, only=None):
        y, z = torch.meshgrid(torch.linspace(-1, 1, 9), torch.linspace(-1, 1, 9), indexing="ij")
        vertices = torch.stack([self.near + self.tilt * y + 0.2 * y * z, y, z], -1).reshape(-1, 3)
        i = torch.arange(81).view(9, 9)
        a, b, c, d = i[:-1, :-1].flatten(), i[1:, :-1].flatten(), i[1:, 1:].flatten(), i[:-1, 1:].flatten()
        faces = torch.cat([torch.stack([a, b, c], 1), torch.stack([a, c, d], 1)])
        return render_surface(vertices, faces, area_normals(vertices, faces), cameras)


def test_the_depth_of_a_surface_follows_its_vertices():
    """Of the plane n . x = c a ray p + t r meets it at t = (c - n . p) / (n . r), t along the axis where r's part along it is 1: moved
    along its normal, every depth changes by 1 / (n . r)."""
    camera = orbit([0.35], [0.25], 3.0, size=16, fov=0.4)
    n = torch.tensor([0.8, 0.36, 0.48], dtype=torch.float64)
    across = torch.linalg.svd(n[None])[2][1:]
    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    corners = torch.tensor([[-9.0, -9.0], [9.0, -9.0], [0.0, 15.0]], dtype=torch.float64) @ across
    vertices, faces = corners + shift * n, torch.tensor([[0, 1, 2]])
    views = render_surface(vertices, faces, n.expand(3, 3), camera)
    assert views.alpha.all()
    _, r = camera.rays()
    r = r[0] / -(r[0] @ camera.c2w[0, :, 2:3])
    expected = (-(n @ camera.position[0]) / (r @ n), 1 / (r @ n))
    torch.testing.assert_close(views.depth[0, ..., 0], expected[0], atol=1e-5, rtol=1e-5)  # barycentrics are float32
    weights = random(16, 16)
    (found,) = torch.autograd.grad((views.depth[0, ..., 0] * weights).sum(), shift)
    assert float(found) == pytest.approx(float((weights * expected[1]).sum()), rel=1e-4)


@pytest.mark.parametrize("name", ["depth", "normal"])
def test_relief_has_the_gradient_of_finite_differences(name):
    """Of tilt and distance, through the renderer; central differences of 1e-2 in float32 pictures, hence a hundredth."""
    camera = orbit([0.2], [0.1], 3.0, size=32, fov=0.5)
    views = Plane(-0.2).render(camera)
    known = Estimate.of(views.alpha[0, ..., 0] > 0.5, views.depth[0, ..., 0].detach(), in_camera(views.normal[0], camera).detach())
    relief, shape = Relief(known, camera, **{name: 1.0}), Plane()

    def value() -> torch.Tensor:
        (loss,) = relief(shape, STEP).values()
        return loss.value

    found = torch.autograd.grad(value(), [shape.tilt, shape.near])
    for parameter, g in zip((shape.tilt, shape.near), found, strict=True):
        ends = []
        for h in (0.01, -0.01):
            parameter.data += h
            ends.append(float(value().detach()))
            parameter.data -= h
        assert float(g) == pytest.approx((ends[0] - ends[1]) / 0.02, rel=0.02, abs=2e-4)
    assert float(found[0]) > 0.1  # less tilt is nearer to what is known


def test_relief_has_the_losses_that_are_weighted_and_needs_what_they_ask_for():
    camera = orbit([0.2], [0.1], 3.0, size=16, fov=0.5)
    mask = torch.ones(16, 16, dtype=torch.bool)
    both = Estimate.of(mask, random(16, 16).float(), random(16, 16, 3).float())
    losses = Relief(both, camera, depth=2.0, normal=3.0, smooth=4.0)(Plane(), STEP)
    assert {k: v.weight for k, v in losses.items()} == {"depth": 2.0, "normal": 3.0, "normal_smooth": 4.0}
    assert Relief(both, camera, depth=2.0)(Plane(), STEP).keys() == {"depth"}
    with pytest.raises(ValueError, match="it knows no normal"):
        Relief(Estimate.of(mask, random(16, 16)), camera, normal=1.0)
    nothing = Estimate.of(torch.zeros_like(mask), random(16, 16).float(), random(16, 16, 3).float())
    losses = Relief(nothing, camera, depth=1.0, normal=1.0)(shape := Plane(), STEP)
    (losses["depth"].value + losses["normal"].value).backward()
    assert float(losses["depth"].value.detach()) == 1 and not shape.tilt.grad.any()


def moved(sign: float, factor: float = 1.0, shift: float = 0.0, steps: int = 30) -> float:
    """rho of a block twice as deep as the true one with the truth, after steps under an estimate of the truth's depth."""
    source, solid, size = block.picture(), block.guess(deep=2.0), 64
    camera = block.FRUSTUM.camera
    truth = block.truth(camera.resized(size), block.CENTRE)
    mask, depth = truth.alpha[0, ..., 0] > 0.99, truth.depth[0, ..., 0]
    shape, estimate = Tets(solid.dmtet(1 / 24), Course(lr=0.3, smooth=3)), Estimate.of(mask, sign * (factor * depth + shift))
    optimise(shape, [Shown(source, camera, size, mask=20.0), Relief(estimate, camera, depth=30.0)], Run(None, {}), "shape", steps=steps)
    with torch.no_grad():
        views = shape.render(camera.resized(size))
    return float(correlation(views.depth[0, ..., 0], depth, mask & (views.alpha[0, ..., 0] > 0.99)))


def test_a_shape_takes_the_relief_of_an_estimate_and_a_flipped_sign_spoils_it():
    """Whatever its unit, up to what rounding comes to over the steps."""
    start, right = moved(1.0, steps=0), moved(1.0)
    assert start < 0.75 and right > 0.95
    assert moved(1.0, 7.0, -3.0) == pytest.approx(right, abs=1e-3)
    assert moved(-1.0) < start - 0.3
