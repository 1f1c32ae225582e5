# SPDX-License-Identifier: Apache-2.0
"""Gaussian splatting against closed forms, a dense float64 twin and finite differences (checks GS-1 to GS-10)."""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bozzetto.camera import orbit, to_opencv
from bozzetto.kernels import gsplat, harmonics, pool
from bozzetto.kernels.blend import blend
from bozzetto.kernels.project import in_picture, project
from bozzetto.kernels.splat import splat
from bozzetto.kernels.tiles import depth_order
from tests.twins import splat as twin

NAMES = ("means", "quats", "scales", "opacities", "colours", "w2c", "K")
UNCUT = {"min_alpha": 0.0, "min_transmittance": 0.0}


def scene(n: int, size: tuple[int, int], *, views: int = 2, k: int = 9, seed: int = 0, scale: float = 0.15) -> dict[str, Tensor]:
    """n Gaussians round the origin, some behind others, seen from `views` sides; float64."""
    g = torch.Generator().manual_seed(seed)
    cameras = orbit([0.3 + 1.1 * i for i in range(views)], 0.4, 2.2, size=size, fov=0.9)
    c2w = to_opencv(cameras.c2w)
    R = c2w[:, :, :3].mT
    return {
        "means": torch.rand(n, 3, generator=g, dtype=torch.float64) - 0.5,
        "quats": torch.randn(n, 4, generator=g, dtype=torch.float64),
        "scales": scale * (0.3 + torch.rand(n, 3, generator=g, dtype=torch.float64)),
        "opacities": 0.15 + 0.8 * torch.rand(n, generator=g, dtype=torch.float64),
        "colours": 0.3 * torch.randn(n, k, 3, generator=g, dtype=torch.float64)
        if k
        else torch.rand(n, 3, generator=g, dtype=torch.float64),
        "w2c": torch.cat([R, -R @ c2w[:, :, 3:]], 2),
        "K": cameras.K,
    }


def on_axis(opacity: float = 0.9, scale: float = 0.1, z: float = 2.0, f: float = 60.0, size: int = 64) -> dict[str, Tensor]:
    """One round Gaussian straight before the camera, at the middle of the picture; its colour is 1."""
    K = torch.tensor([[[f, 0, size / 2], [0, f, size / 2], [0, 0, 1]]], dtype=torch.float64)
    one = torch.ones(1, 3, dtype=torch.float64)
    axes = torch.eye(3, 4, dtype=torch.float64)[None]
    quats = torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64)
    return dict(zip(NAMES, ((one * torch.tensor([0, 0, z])), quats, scale * one, one[:, 0] * opacity, one, axes, K), strict=True))


def test_gs_1_harmonics_are_orthonormal_and_degree_1_turns_as_a_vector():
    u, wu = np.polynomial.legendre.leggauss(8)  # exact to degree 15 in z; 12 azimuths are exact to degree 11
    phi = 2 * np.pi * np.arange(12) / 12
    z, r = torch.tensor(u)[:, None], torch.tensor(np.sqrt(1 - u * u))[:, None]
    d = torch.stack([r * torch.tensor(np.cos(phi)), r * torch.tensor(np.sin(phi)), z.expand(8, 12)], -1)
    Y = harmonics.basis(d)
    gram = torch.einsum("ijk,ijl,i->kl", Y, Y, torch.tensor(wu) * 2 * np.pi / 12)
    torch.testing.assert_close(gram, torch.eye(16, dtype=torch.float64), rtol=0, atol=1e-14)  # 96 terms of order 1
    sh = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.1
    at = -torch.tensor([[0.6, 0.0, 0.8]], dtype=torch.float64)  # the Gaussian is at 0: d = -at
    v = math.sqrt(3 / (4 * math.pi)) * torch.stack([-sh[0, 3], -sh[0, 1], sh[0, 2]])
    expected = 0.5 + math.sqrt(1 / (4 * math.pi)) * sh[0, 0] + -at[0] @ v
    torch.testing.assert_close(harmonics.colours(sh, torch.zeros(1, 3).double(), at)[0, 0], expected, rtol=1e-14, atol=0)


def test_gs_1_the_energy_of_a_band_does_not_change_when_the_sphere_turns():
    g = torch.Generator().manual_seed(1)
    Q = twin.rotations(torch.randn(1, 4, generator=g, dtype=torch.float64))[0]
    d = torch.nn.functional.normalize(torch.randn(60, 3, generator=g, dtype=torch.float64), dim=-1)
    sh = torch.randn(16, generator=g, dtype=torch.float64)
    turned = torch.linalg.lstsq(harmonics.basis(d @ Q.mT), (harmonics.basis(d) @ sh)[:, None]).solution[:, 0]
    for degree in range(4):
        band = slice(degree**2, (degree + 1) ** 2)
        assert abs(float((turned[band] ** 2).sum() / (sh[band] ** 2).sum()) - 1) < 1e-10  # conditioning of 60 random directions
    assert float((turned - sh).abs().max()) > 0.1  # it did turn


def test_gs_2_the_linear_map_is_exact_and_perspective_exceeds_it_by_the_series():
    """Points drawn from a Gaussian and projected: on axis the variance grows by 1 + 3 (s/z)^2 + 15 (s/z)^4 over the linear map's."""
    z, f, n = 2.0, 100.0, 400_000
    g = torch.Generator().manual_seed(0)
    s = torch.tensor([0.1, 0.05, 0.1 * z], dtype=torch.float64)
    x = torch.randn(n, 3, generator=g, dtype=torch.float64) * s
    g1 = on_axis(f=f)
    g1["scales"] = s[None]
    _, conic, _, _ = project(*(g1[k] for k in ("means", "quats", "scales", "w2c", "K")), (64, 64))
    var_x = float(conic[0, 0, 2] / (conic[0, 0, 0] * conic[0, 0, 2] - conic[0, 0, 1] ** 2)) - 0.3
    assert abs(var_x / (f * 0.1 / z) ** 2 - 1) < 1e-12
    seen = f * x[:, 0] / (z + x[:, 2])
    excess = float((seen**2).mean()) / var_x
    assert abs(excess - (1 + 3 * 0.01 + 15 * 0.0001)) < 4 * math.sqrt(2 / n) * excess + 2e-4  # 4 standard errors, and the next term


def test_gs_3_round_gaussians_project_to_circles_and_signs_of_quaternions_do_not_matter():
    g1 = on_axis(scale=0.1, z=2.0, f=60.0)
    args = [g1[k] for k in ("means", "quats", "scales", "w2c", "K")]
    xy, conic, depth, _ = project(*args, (64, 64))
    torch.testing.assert_close(
        conic[0, 0], torch.tensor([1 / 9.3, 0, 1 / 9.3], dtype=torch.float64), rtol=1e-6, atol=0
    )  # (60 * .1 / 2)^2 + .3
    assert xy[0, 0].tolist() == [32, 32] and float(depth[0, 0]) == 2
    turned = project(args[0], torch.tensor([[0.3, -0.5, 0.7, 0.2]], dtype=torch.float64), *args[2:], (64, 64))[1]
    torch.testing.assert_close(turned, conic, rtol=1e-13, atol=1e-15)
    s = scene(5, (20, 20))
    a, b = (splat(s["means"], q, *(s[k] for k in NAMES[2:]), (20, 20)).rgb for q in (s["quats"], -3 * s["quats"]))
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_gs_4_the_sum_of_alpha_is_the_cut_gaussians_mass():
    """2 pi sqrt(det) (o - 1/255): the integral over the ellipse where alpha is at least 1/255; 0.1 % for 600 pixels of its rim."""
    for opacity in (0.9, 0.3):
        g1 = on_axis(opacity=opacity)
        out = splat(*g1.values(), (64, 64))
        assert abs(float(out.alpha.sum()) / (2 * math.pi * 9.3 * (opacity - 1 / 255)) - 1) < 3e-3
        torch.testing.assert_close(out.rgb, out.alpha.expand_as(out.rgb), rtol=0, atol=1e-15)


def stack(alphas: list[float], colours: list[float], size: int = 3) -> dict[str, Tensor]:
    """Wide Gaussians behind one another, so that each has its alpha at the middle pixel's centre."""
    n = len(alphas)
    s = on_axis(size=size)
    z = 1 + torch.arange(n, dtype=torch.float64)
    s["means"] = torch.stack([0 * z, 0 * z, z], -1)
    s["quats"], s["scales"] = s["quats"].expand(n, 4), torch.ones(n, 3).double() * z[:, None]
    s["opacities"], s["colours"] = (
        torch.tensor(alphas, dtype=torch.float64),
        torch.tensor(colours, dtype=torch.float64)[:, None].expand(n, 3),
    )
    return s


def test_gs_5_two_gaussians_blend_by_the_formula_and_order_matters_unless_colours_are_equal():
    background = torch.tensor([0.2, 0.4, 0.6], dtype=torch.float64)
    for front, back in (((0.3, 0.9), (0.6, 0.1)), ((0.6, 0.1), (0.3, 0.9))):
        s = stack([front[0], back[0]], [front[1], back[1]])
        out = splat(*s.values(), (3, 3), background=background)
        rest = (1 - front[0]) * (1 - back[0])
        expected = front[0] * front[1] + (1 - front[0]) * back[0] * back[1] + rest * background
        torch.testing.assert_close(out.rgb[0, 1, 1], expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(out.alpha[0, 1, 1], torch.tensor([1 - rest], dtype=torch.float64), rtol=1e-12, atol=0)
    equal = [splat(*stack(a, [0.5, 0.5]).values(), (3, 3), background=background).rgb[0, 1, 1] for a in ([0.3, 0.6], [0.6, 0.3])]
    torch.testing.assert_close(equal[0], equal[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("antialiased", [False, True])
def test_forward_equals_the_dense_twin(antialiased):
    size = (37, 45)  # neither is a whole number of tiles
    s = scene(60, size, k=16)
    position = -(s["w2c"][:, :, :3].mT @ s["w2c"][:, :, 3:])[..., 0]
    features = harmonics.colours(s["colours"], s["means"], position)
    rgb, T, half = twin.splat(*(s[k] for k in NAMES[:4]), features, s["w2c"], s["K"], size, antialiased=antialiased)
    assert (T < 0.05).any() and (T == 1).any() and (half >= 0).any()
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        out = splat(*(t.to(dtype) for t in s.values()), size, antialiased=antialiased, geometry=True)
        # one pixel in a thousand may stand on a cut, which rounding decides
        bad = (out.rgb.double() - rgb).abs().amax(-1) > bound
        assert int(bad.sum()) <= (0 if dtype == torch.float64 else 3)
        assert float((out.alpha[..., 0].double() - (1 - T)).abs()[~bad].max()) < bound
        z = torch.einsum("vj,nj->vn", s["w2c"][:, 2, :3], s["means"]) + s["w2c"][:, 2, 3:]
        median = torch.where(half < 0, 0, torch.stack([z[v][half[v].clamp(min=0)] for v in range(2)]))
        assert float(((out.median[..., 0].double() - median).abs() > 1e-5).double().mean()) < 2e-3
        weighted = twin.splat(*(s[k] for k in NAMES[:4]), z[..., None], s["w2c"], s["K"], size, antialiased=antialiased)[0]
        expected = weighted[..., 0] / torch.where(T < 1, 1 - T, 1)
        assert float((out.depth[..., 0].double() - expected).abs()[~bad & (T < 0.9)].max()) < 10 * bound


def gradients(s: dict[str, Tensor], loss: Callable[..., Tensor], names: tuple[str, ...]) -> dict[str, Tensor]:
    leaves = {k: v.clone().requires_grad_(k in names) for k, v in s.items()}
    return dict(zip(names, torch.autograd.grad(loss(**leaves), [leaves[k] for k in names]), strict=True))


def differences(s: dict[str, Tensor], loss: Callable[..., Tensor], name: str, step: float = 1e-5) -> Tensor:
    """Central differences in float64: error of order step^2, rounding of order 1e-16 / step."""
    out = torch.zeros_like(s[name])
    for i in range(s[name].numel()):
        ends = []
        for sign in (1, -1):
            moved = s[name].clone()
            moved.view(-1)[i] += sign * step
            ends.append(float(loss(**{**s, name: moved})))
        out.view(-1)[i] = (ends[0] - ends[1]) / (2 * step)
    return out


@pytest.mark.parametrize("antialiased", [False, True])
def test_gs_6_gradients_of_every_input_meet_finite_differences(antialiased):
    size = (18, 21)
    s = scene(6, size, seed=3)
    s["background"] = torch.tensor([0.1, 0.5, 0.7], dtype=torch.float64)
    s["means"][0] = torch.tensor([0.0, 1.4, 0.6], dtype=torch.float64)  # far aside: u is clamped in J
    s["scales"][0] = torch.tensor([0.5, 0.6, 0.4])
    g = torch.Generator().manual_seed(5)
    weights = [torch.randn(2, *size, c, generator=g, dtype=torch.float64) for c in (3, 1, 1, 1, 3)]

    def loss(background: Tensor, **rest: Tensor) -> Tensor:
        out = splat(*(rest[k] for k in NAMES), size, background=background, antialiased=antialiased, geometry=True, **UNCUT)
        parts = (out.rgb, out.alpha, out.depth, out.median, out.normal)
        return sum((w * p).sum() for w, p in zip(weights, parts, strict=True))

    names = (*NAMES[:6], "background")
    exact = gradients(s, loss, names)
    for name in names:
        measured = differences(s, loss, name)
        error = float((exact[name] - measured).abs().max() / measured.abs().max())
        assert error < 1e-4, f"{name}: {error:.1e}"
        print(f"{name}: {error:.1e}")
    assert float(exact["means"][0].abs().max()) > 0


def test_gs_6_gradients_with_cuts_equal_the_twins_and_what_is_cut_off_has_none():
    size = (33, 20)
    s = scene(40, size, views=1, k=0, scale=0.3)
    s["opacities"][7], s["opacities"][8] = 1 / 300, 0.999  # never seen; held at TOP
    s["means"][9] = 2 * -s["w2c"][0, :, :3].mT @ s["w2c"][0, :, 3]  # behind the camera
    g = torch.randn(1, *size, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def ours(**a: Tensor) -> Tensor:
        return (splat(*(a[k] for k in NAMES), size).rgb * g).sum()

    def dense(**a: Tensor) -> Tensor:
        return (twin.splat(*(a[k] for k in NAMES[:4]), a["colours"][None], a["w2c"], a["K"], size)[0] * g).sum()

    a, b = gradients(s, ours, NAMES[:6]), gradients(s, dense, NAMES[:6])
    for name in NAMES[:6]:
        torch.testing.assert_close(a[name], b[name], rtol=1e-9, atol=1e-11 * float(b[name].abs().max()))
    for name in NAMES[:5]:
        assert (a[name][7] == 0).all() and (a[name][9] == 0).all()
    in_float32 = gradients({k: v.float() for k, v in s.items()}, lambda **x: (splat(*(x[k] for k in NAMES), size).rgb * g).sum(), NAMES[:6])
    for name in NAMES[:6]:  # R is a difference: rounding of the picture's sums, 1e-7, over 1 - alpha >= 0.01
        assert float((in_float32[name].double() - b[name]).abs().max() / b[name].abs().max()) < 1e-3


def test_gs_7_a_pixel_is_finished_before_the_gaussian_that_would_bring_it_below_the_limit():
    out = splat(*stack([0.98] * 5, [1.0] * 5).values(), (3, 3))
    assert abs(float(out.alpha[0, 1, 1]) - (1 - 0.02**2)) < 1e-12  # a third would leave 8e-6
    uncut = splat(*stack([0.98] * 5, [1.0] * 5).values(), (3, 3), **UNCUT)
    assert abs(float(uncut.alpha[0, 1, 1]) - (1 - 0.02**5)) < 1e-12
    held = splat(*stack([1.0], [1.0]).values(), (3, 3))
    assert abs(float(held.alpha[0, 1, 1]) - 0.99) < 1e-12


def test_gs_9_moving_scene_and_camera_together_changes_nothing_and_ties_keep_their_order():
    s = scene(20, (24, 24), k=4)
    by = torch.tensor([3.0, -2.0, 5.0], dtype=torch.float64)
    moved = {
        **s,
        "means": s["means"] + by,
        "w2c": torch.cat([s["w2c"][:, :, :3], s["w2c"][:, :, 3:] - s["w2c"][:, :, :3] @ by[:, None]], 2),
    }
    torch.testing.assert_close(splat(*moved.values(), (24, 24)).rgb, splat(*s.values(), (24, 24)).rgb, rtol=0, atol=1e-12)
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        depth = rng.integers(0, 50, 3000).astype(dtype) / 7 * 10.0 ** rng.integers(-3, 4, 3000)
        assert (depth_order(depth.astype(dtype)) == np.argsort(depth.astype(dtype), kind="stable")).all()


def test_gs_10_one_gaussian_is_found_again_from_its_picture():
    size = (40, 40)
    truth = on_axis(scale=0.2, size=40)
    truth["scales"] = torch.tensor([[0.2, 0.1, 0.15]], dtype=torch.float64)
    truth["quats"] = torch.tensor([[0.9, 0.1, 0.2, 0.35]], dtype=torch.float64)
    picture = splat(*truth.values(), size, **UNCUT).rgb
    s = {k: v.clone() for k, v in truth.items()}
    s["means"] += torch.tensor([0.08, -0.06, 0], dtype=torch.float64)
    s["scales"] *= torch.tensor([1.2, 1.3, 0.9], dtype=torch.float64)
    s["quats"] += torch.tensor([0, 0.1, -0.1, -0.15], dtype=torch.float64)
    for k in ("means", "scales", "quats"):
        s[k].requires_grad_()
    optimiser = torch.optim.LBFGS(
        [s["means"], s["scales"], s["quats"]], max_iter=200, tolerance_grad=1e-14, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = (splat(*s.values(), size, **UNCUT).rgb - picture).square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    with torch.no_grad():
        a, b = (project(*(t[k] for k in ("means", "quats", "scales", "w2c", "K")), size) for t in (s, truth))
    torch.testing.assert_close(a[0], b[0], rtol=0, atol=1e-3)  # pixels
    torch.testing.assert_close(a[1], b[1], rtol=1e-3, atol=1e-6)


def test_the_same_bits_for_any_number_of_threads():
    size = (70, 90)
    s = {k: v.float() for k, v in scene(3000, size, k=4, scale=0.03).items()}
    before, results = pool.num_threads(), []
    try:
        for threads in (1, 2, 5):
            pool.set_num_threads(threads)
            results.append(gradients(s, lambda **a: splat(*(a[k] for k in NAMES), size).rgb.square().sum(), NAMES[:6]))
    finally:
        pool.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(other[k], results[0][k]) for k in NAMES[:6])


def test_normals_and_depths_of_a_disc():
    s = on_axis(scale=1.0, z=2.0, size=8)
    s["scales"], s["quats"] = torch.tensor([[1.0, 1.0, 0.01]], dtype=torch.float64), torch.tensor([[1.0, 0.1, 0, 0]], dtype=torch.float64)
    out = splat(*s.values(), (8, 8), geometry=True)
    angle = 2 * math.atan(0.1)  # about x; the disc's axis z turns to (0, -sin, cos), and the camera is at -z of it
    torch.testing.assert_close(
        out.normal[0, 4, 4], torch.tensor([0, math.sin(angle), -math.cos(angle)], dtype=torch.float64), rtol=0, atol=1e-12
    )
    assert abs(float(out.depth[0, 4, 4]) - 2) < 1e-12 and abs(float(out.median[0, 4, 4]) - 2) < 1e-12


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_to_see_is_an_empty_picture_with_zero_gradients(n):
    s = {k: v[:n] if k in NAMES[:5] else v for k, v in scene(2, (5, 5)).items()}
    s["means"] = s["means"] + 100
    s["means"].requires_grad_()
    out = splat(*s.values(), (5, 5), background=torch.ones(3).double(), geometry=True)
    assert (out.rgb == 1).all() and (out.alpha == 0).all() and (out.depth == 0).all() and (out.median == 0).all()
    (out.rgb.sum() + out.depth.sum() + out.normal.sum()).backward()
    assert (s["means"].grad == 0).all()


def test_wrong_shapes_are_refused_by_name():
    s = scene(3, (5, 5))
    bad: list[tuple[dict[str, Any], str]] = [
        ({"quats": s["quats"][:, :3]}, "expected"),
        ({"colours": s["colours"][:2]}, "colours"),
        ({"colours": s["colours"][:, :5]}, "coefficients"),
    ]
    for change, words in bad:
        with pytest.raises(ValueError, match=words):
            splat(*{**s, **change}.values(), (5, 5))


def test_gradients_reach_blend_with_any_number_of_channels():
    """One, two, three and five channels give what each alone gives: 3 has a path of its own."""
    s = scene(30, (20, 30), views=1, k=0)
    xy, conic, depth, _ = project(*(s[k] for k in ("means", "quats", "scales", "w2c", "K")), (20, 30))
    f = torch.rand(1, 30, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    g = torch.rand(1, 20, 30, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole = None
    for parts in ([5], [3, 2], [1, 1, 1, 1, 1]):
        leaves = [t.detach().clone().requires_grad_() for t in (xy, conic, s["opacities"][None], f)]
        total = torch.zeros(())
        for piece, w in zip(leaves[3].split(parts, -1), g.split(parts, -1), strict=True):
            total = total + (blend(leaves[0], leaves[1], depth, leaves[2], piece, (20, 30))[0] * w).sum()
        grads = torch.autograd.grad(total, leaves)
        whole = whole or grads
        for a, b in zip(grads, whole, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_gs_2_a_gaussian_is_in_the_picture_where_three_deviations_of_it_are():
    """The square of ceil(3 sqrt(largest eigenvalue)) pixels round the middle, as the released radii, against eigenvalues in float64."""
    size, n = (20, 30), 400
    s = scene(n, size, seed=5)
    s["means"] = 7 * s["means"]
    xy, conic, _depth, _ = project(*(s[k] for k in ("means", "quats", "scales", "w2c", "K")), size)
    got = in_picture(xy, conic, size)
    for view in range(len(xy)):
        at, _, cov, z = twin.ellipses(*(s[k] for k in ("means", "quats", "scales")), s["w2c"][view], s["K"][view], size)
        mid, gap = (cov[:, 0, 0] + cov[:, 1, 1]) / 2, torch.linalg.eigvalsh(cov).diff(dim=1)[:, 0] / 2
        radius = (3 * (mid + gap.clamp(min=math.sqrt(0.1))).sqrt()).ceil()[:, None]
        edge = torch.tensor([size[1], size[0]])
        want = ((at + radius > 0) & (at - radius < edge)).all(-1) & (z > 0.01)
        assert torch.equal(got[view], want)
        ahead = z > 0.01
        assert int((ahead & ~want).sum()) > 20 and int((want & ((at < 0) | (at > edge)).any(-1)).sum()) > 5 and int((~ahead).sum()) > 0
    drawn = splat(*s.values(), size).drawn
    assert torch.equal(drawn, got) and in_picture(xy.float(), conic.float(), size).eq(got).float().mean() > 0.995


def test_gsplat_gets_its_arguments_in_its_own_order_and_gives_the_same(monkeypatch):
    """A stand-in with gsplat's signature, drawn by the twin: what is tested is the wrapper, since gsplat itself needs a GPU."""
    size = (14, 22)
    s = scene(12, size, k=4)

    def rasterization(means, quats, scales, opacities, colors, viewmats, Ks, width, height, **options):
        assert options == {"near_plane": 0.01, "packed": False, "rasterize_mode": "antialiased"} and means.dtype == torch.float32
        args = [t.double() for t in (means, quats, scales, opacities, colors, viewmats[:, :3], Ks)]
        picture, T, _ = twin.splat(*args, (height, width), antialiased=True)
        assert (viewmats[:, 3] == torch.tensor([0.0, 0, 0, 1])).all()
        return picture, (1 - T)[..., None], {"means2d": torch.zeros(len(Ks), len(means), 2), "radii": torch.ones(len(Ks), len(means), 2)}

    background = torch.rand(3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    here = splat(*s.values(), size, background=background, antialiased=True, geometry=True)
    monkeypatch.setitem(sys.modules, "gsplat", types.SimpleNamespace(rasterization=rasterization))
    monkeypatch.setattr(gsplat, "is_usable", lambda tensor: True)
    there = splat(*s.values(), size, background=background, antialiased=True, geometry=True)
    for name in ("rgb", "alpha", "depth", "normal"):
        torch.testing.assert_close(getattr(there, name).double(), getattr(here, name), rtol=0, atol=1e-4)  # float32 in between
    assert there.median is None and there.drawn.all()
