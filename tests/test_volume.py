# SPDX-License-Identifier: Apache-2.0
"""Rendering through a medium: NeuS's weights in closed form (NS-1 to NS-6, NS-9), a density's, and where steps and sections lie."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from bozzetto.camera import orbit
from bozzetto.kernels.march import march, resample
from bozzetto.render.volume import absorbed, absorbed_by_sdf, weighed

F64 = torch.float64


def along(first, last, n):
    """Ends (n + 1,) of equal sections, and their middles."""
    ends = torch.linspace(first, last, n + 1, dtype=F64)
    return ends, (ends[1:] + ends[:-1]) / 2


def weights(sdf, ends, k, anneal=1.0):
    return weighed(absorbed_by_sdf(sdf, ends.diff(), torch.tensor(float(k), dtype=F64), anneal))


def phi(x, k):
    return float(torch.sigmoid(torch.tensor(k * x, dtype=F64)))


@pytest.mark.parametrize("k", [10.0, 64.0, 400.0])
@pytest.mark.parametrize("c", [1.0, 0.5, 0.1])
def test_ns_1_a_plane_is_seen_where_it_is_with_the_variance_of_the_logistic(c, k):
    """f = c (t* - t): total 1 - Phi(f_n) / Phi(f_0), highest and mean at t*, variance pi^2 / (3 k^2 c^2)."""
    at, reach = 0.317, 40 / (k * c)
    ends, middles = along(at - reach, at + reach, 4000)
    w = weights(c * (at - ends), ends, k)
    total = 1 - phi(-c * reach, k) / phi(c * reach, k)
    torch.testing.assert_close(float(w.sum()), total, rtol=1e-12, atol=0)  # the sums telescope, whatever the sections
    step = float(ends[1] - ends[0])
    assert abs(float(middles[w.argmax()]) - at) <= step / 2 + 1e-12
    mean = float((w * middles).sum() / w.sum())
    assert abs(mean - at) < 1e-9 * reach
    variance = float((w * (middles - mean).square()).sum() / w.sum())
    torch.testing.assert_close(variance, math.pi**2 / (3 * k * k * c * c) + step**2 / 12, rtol=1e-4, atol=0)  # as the sections are binned
    coarse = torch.cat([ends[:1], ends[torch.rand(4001, generator=torch.Generator().manual_seed(0)) < 0.002], ends[-1:]]).unique()
    torch.testing.assert_close(float(weights(c * (at - coarse), coarse, k).sum()), total, rtol=1e-12, atol=0)


def test_ns_2_the_heaviest_of_equal_sections_holds_the_crossing():
    """For any length of the sections, and wherever they begin. The control: of unequal ones a long one beside it may weigh more."""
    g = torch.Generator().manual_seed(1)
    for _ in range(200):
        k, c, step, shift = (float(x) for x in torch.rand(4, generator=g, dtype=F64))
        k, c, step = 10 ** (1 + 2 * k), 0.05 + 0.95 * c, 10 ** (-3 + 3 * step)
        ends = (torch.arange(-40, 41, dtype=F64) + shift) * step
        w = weights(-c * ends, ends, k)
        i = int(w.argmax())
        assert ends[i] <= 1e-12 and ends[i + 1] >= -1e-12
    ends = torch.tensor([-1.0, -0.01, 0.01, 1.0], dtype=F64)
    assert int(weights(-ends, ends, 10.0).argmax()) != 1


@pytest.mark.parametrize(("c", "offset"), [(1.0, math.log((1 + 5**0.5) / 2)), (0.5, math.log(1 + 2**0.5))])
def test_ns_3_the_s_density_as_it_is_would_show_the_surface_too_near(c, offset):
    """sigma = phi_k(f) peaks where k f is 0.4812 (c = 1: the golden ratio's logarithm) or 0.8814, and stops 1 - exp(-1 / c) in all;
    NeuS's weights do neither."""
    k = 50.0
    ends, middles = along(-2, 2, 80000)
    f = -c * middles
    sigma = k * torch.sigmoid(k * f) * torch.sigmoid(-k * f)
    w = weighed(absorbed(sigma, ends.diff()))
    torch.testing.assert_close(float(f[w.argmax()]) * k, offset, rtol=0, atol=2 * k * c * 5e-5)
    torch.testing.assert_close(float(w.sum()), 1 - math.exp(-1 / c), rtol=1e-6, atol=0)
    ours = weights(-c * ends, ends, k)
    assert abs(float(f[ours.argmax()]) * k) < 0.01 and float(ours.sum()) > 0.999


def test_ns_4_a_slab_hides_what_is_behind_it():
    """Half-thickness d, then a wall: the first takes 1 - Phi(-d) / Phi(f_0), all behind it what is left, .0392 for k = 64, d = .05."""
    k, d = 64.0, 0.05
    ends = torch.linspace(-1, 1.5, 5001, dtype=F64)
    f = torch.minimum(ends.abs() - d, 1 - ends)  # a slab round 0, a wall from 1 on
    w = weights(f, ends, k)
    near = ends[1:] <= 0.5
    first = 1 - phi(-d, k) / phi(1 - d, k)
    torch.testing.assert_close(float(w[near].sum()), first, rtol=1e-12, atol=0)
    behind = (1 - first) * (1 - phi(-0.5, k) / phi(0.475, k))  # of the wall, from where f is highest before it
    torch.testing.assert_close(float(w[~near].sum()), behind, rtol=1e-6, atol=0)  # no section ends just there
    assert abs(first - 0.9608) < 1e-4
    assert (w[(ends[:-1] > 0) & (ends[1:] <= 0.5)] == 0).all()  # nothing where f rises
    slanted = weights(0.6 * f, ends, k, anneal=0.0)
    assert float(slanted[(ends[:-1] > 0) & (ends[1:] < d)].sum()) > 0  # but at first, so that there is a gradient


def test_ns_5_on_a_sphere_the_offsets_fall_with_the_square_of_sharpness():
    """Radius .6, .3 off the axis: highest at t* - 1.28 / k^2, mean at t* + 1.06 / k^2, and the depth tends to the sphere's."""
    R, b = 0.6, 0.3
    hit = -((R * R - b * b) ** 0.5)
    bend = b * b / R**3  # f'' at the hit: (1 - c^2) / R
    c = (1 - b * b / R**2) ** 0.5
    for k in (100.0, 200.0, 400.0):
        ends, middles = along(hit - 0.35, 0, 200000)  # to the middle of the sphere, where f is lowest
        f = (ends.square() + b * b).sqrt() - R
        w = weights(f, ends, k)
        x = (middles - middles[w.argmax()]) * k
        near = x.abs() < 0.3  # a parabola through the top: one section is too coarse
        fit = torch.linalg.lstsq(torch.stack([x**2, x, torch.ones_like(x)], 1)[near], w[near].log()[:, None]).solution
        top = float(middles[w.argmax()] - fit[1, 0] / fit[0, 0] / 2 / k)
        torch.testing.assert_close((top - hit) * k * k, 2 * bend / (-c) ** 3, rtol=10 / k, atol=0)  # the next order in 1 / k
        mean = float((w * middles).sum() / w.sum())
        torch.testing.assert_close((mean - hit) * k * k, math.pi**2 / 3 * bend / (2 * c**3), rtol=10 / k, atol=0)


def test_ns_6_a_sharp_surface_in_the_right_place_is_made_sharper():
    """Samples on both sides of the true surface, of a colour that is right on it alone: the loss falls with k."""
    ends, middles = along(-0.5, 0.5, 400)
    k = torch.tensor(30.0, dtype=F64, requires_grad=True)
    w = weighed(absorbed_by_sdf(-ends, ends.diff(), k))
    colour = torch.exp(-40 * middles.square())
    ((w * colour).sum() - 1).abs().backward()
    assert k.grad < 0
    off = torch.tensor(30.0, dtype=F64, requires_grad=True)  # the control: a surface in the wrong place is made softer
    w = weighed(absorbed_by_sdf(0.2 - ends, ends.diff(), off))
    ((w * colour).sum() - 1).abs().backward()
    assert off.grad > 0


@pytest.mark.parametrize("anneal", [0.0, 0.4, 1.0])
def test_ns_9_gradients_of_the_weights_meet_finite_differences(anneal):
    g = torch.Generator().manual_seed(2)
    ends = torch.rand(3, 9, generator=g, dtype=F64).sort(1).values
    f = (0.3 - 0.7 * ends + 0.02 * torch.rand(3, 9, generator=g, dtype=F64)).requires_grad_()
    k = torch.tensor(7.0, dtype=F64, requires_grad=True)
    assert gradcheck(lambda f, k: weighed(absorbed_by_sdf(f, ends.diff(dim=1), k, anneal)), (f, k))


def test_far_inside_and_far_outside_nothing_overflows():
    ends = torch.tensor([-3.0, -1, 0, 1, 3])
    f = torch.tensor([1e3, 1.0, -1.0, -1e3, -2e3], requires_grad=True)
    w = weighed(absorbed_by_sdf(f, ends.diff(), torch.tensor(1e3)))
    w[1].backward()
    assert torch.isfinite(w).all() and torch.isfinite(f.grad).all() and float(w[1].detach()) == 1


def test_a_density_stops_what_its_integral_says():
    """A slab of density s and thickness d lets exp(-s d) through, however it is cut, and its weights are those of its parts."""
    lengths = torch.tensor([0.1, 0.03, 0.2], dtype=F64)
    w = weighed(absorbed(torch.full((3,), 4.0, dtype=F64), lengths))
    passed = torch.exp(-4 * torch.cat([torch.zeros(1, dtype=F64), lengths.cumsum(0)]))
    torch.testing.assert_close(w, -passed.diff(), rtol=1e-13, atol=0)
    torch.testing.assert_close(1 - w.sum(), passed[-1], rtol=1e-13, atol=0)


# ---- steps ----


def cells():
    """Occupied cells of an uneven box, off-centre and without symmetry."""
    g = torch.Generator().manual_seed(3)
    return torch.rand(7, 5, 9, generator=g) < 0.3, torch.tensor([-0.5, -0.2, -0.4]), torch.tensor([0.6, 0.5, 0.3])


@pytest.mark.parametrize("step", [0.05, 0.011])
def test_steps_are_those_of_the_lattice_that_fall_into_occupied_cells(step):
    occupied, lower, upper = cells()
    cameras = orbit([0.4, 2.5], [0.3, -0.6], 2.0, size=(9, 8), fov=0.9)
    o, d = (x.reshape(-1, 3) for x in cameras.rays())
    axis = torch.eye(3, dtype=F64)  # along the axes, from within the box and from outside, and past it
    o = torch.cat([o, torch.tensor([[0.0, 0, 0], [0, 0, -2.0], [-2, 3, 0]], dtype=F64)])
    d = torch.cat([d, axis[[0, 2, 0]]])
    offset = torch.rand(len(o), generator=torch.Generator().manual_seed(4), dtype=F64)
    t, width, count = march(o, d, occupied, lower, upper, step, 500, offset)
    shape = torch.tensor(occupied.shape)
    for r in range(len(o)):
        far = torch.where(d[r] > 0, upper - o[r], lower - o[r]) / d[r]
        near = torch.where(d[r] > 0, lower - o[r], upper - o[r]) / d[r]
        outside = (d[r] == 0) & ((o[r] < lower) | (o[r] > upper))
        near, far = near[d[r] != 0].max().clamp(min=0), far[d[r] != 0].min()
        at = near + (torch.arange(2000) + offset[r]) * step
        at = at[(at < far) & ~outside.any()]
        place = ((o[r] + at[:, None] * d[r] - lower) / (upper - lower) * shape).long().clamp(torch.zeros(3, dtype=torch.int64), shape - 1)
        wanted = at[occupied[tuple(place.T)]]
        assert int(count[r]) == len(wanted)
        torch.testing.assert_close(t[r, : len(wanted)].double(), wanted, rtol=0, atol=1e-6)  # float32
        assert (t[r, len(wanted) :] == 0).all()
        if len(wanted):
            assert abs(float(width[r]) - step) < 1e-8


def test_a_ray_with_too_many_steps_has_longer_ones():
    occupied = torch.ones(4, 4, 4, dtype=torch.bool)
    one = torch.ones(3)
    t, width, count = march(torch.tensor([[-2.0, 0.1, 0.1]]), torch.tensor([[1.0, 0, 0]]), occupied, -one, one, 0.01, 50, torch.zeros(1))
    assert 45 <= int(count) <= 50 and abs(float(width) * int(count) - 2) < float(width)
    torch.testing.assert_close(t[0, : int(count)].diff(), width.expand(int(count) - 1), rtol=0, atol=1e-5)


def test_finer_sections_lie_where_the_weight_is():
    """Ends at shares of a known distribution, against its inverse by hand; and one end behind all of the weight but a thousandth."""
    t = torch.tensor([[0.1, 0.3, 0.5, 2.1, 0.0]])
    w = torch.tensor([[0.0, 3.0, 1.0, 0.0, 9.0]])  # the last is beyond the count
    width, count = torch.tensor([0.2]), torch.tensor([4])
    shares = torch.tensor([[0.0, 0.375, 0.75, 1.0]])
    plain = resample(w, t, width, count, shares, 0.0)
    # all of it lies in (0.2, 0.6): three quarters up to 0.4, where the density falls to a third
    torch.testing.assert_close(plain, torch.tensor([[0.0, 0.3, 0.4, 0.6, 0.6]]), rtol=0, atol=1e-6)
    spare = resample(w, t, width, count, shares, 0.4)  # a tenth for each step, 0.45 + 0.1 for the second
    at = 0.2 + 0.2 * (0.375 - 0.1) / 0.55
    wanted = [0.0, at, 0.4 + 0.2 * (0.75 - 0.65) / 0.25, 0.6, 2.2]
    torch.testing.assert_close(spare, torch.tensor([wanted]), rtol=0, atol=1e-6)
    even = resample(0 * w, t, width, count, torch.linspace(0, 1, 5)[None], 0.1)
    torch.testing.assert_close(even, torch.tensor([[0.0, 0.2, 0.2, 0.4, 0.6, 2.2]]), rtol=0, atol=1e-6)
