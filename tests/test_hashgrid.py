# SPDX-License-Identifier: Apache-2.0
"""Hash grids: what they read, and gradients of first and second order, against loops over vertices, PyTorch and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from bozzetto.kernels import pool
from bozzetto.kernels.hashgrid import Levels, encode, encode_in_torch, slope
from bozzetto.shapes.field import Field, HashGrid
from tests.twins import hashgrid as twin

SMALL = Levels(4, 4, 1.9, 7)  # 4 and 8 vertices an axis, of which the first are few enough to have an entry each; then 15 and 28
TINY = Levels(2, 2, 2.0, 3)  # 8 entries each, the second hashed
DENSE = Levels(2, 5, 1.6, 10)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def some(n, levels, seed=0, beyond=0.0):
    """Points, a few of them outside the box if `beyond`, and a table, in float64."""
    g = seeded(seed)
    x = torch.rand(n, 3, generator=g, dtype=torch.float64) * (1 + 2 * beyond) - beyond
    return x, torch.randn(levels.entries, 2, generator=g, dtype=torch.float64)


def sizes(levels):
    return twin.sizes(levels.count, levels.base, levels.growth, levels.log2_entries)


@pytest.mark.parametrize("n", [0, 1, 37])
@pytest.mark.parametrize("levels", [SMALL, DENSE, Levels(1, 2, 1.0, 3)], ids=["hashed", "dense", "eight"])
def test_it_reads_what_loops_over_vertices_read(levels, n):
    x, table = some(n, levels, n, beyond=0.05)
    torch.testing.assert_close(encode(x, table, levels), twin.encode(x, table, sizes(levels)), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(encode_in_torch(x, table, levels), twin.encode(x, table, sizes(levels)), rtol=1e-13, atol=1e-13)


def test_its_gradients_are_those_of_the_loops():
    x, table = some(25, SMALL, beyond=0.05)
    weights = torch.randn(SMALL.features, len(x), generator=seeded(1), dtype=torch.float64)

    def made(f, levels):
        leaves = [x.clone().requires_grad_(), table.clone().requires_grad_()]
        return torch.autograd.grad((f(*leaves, levels) * weights).sum(), leaves)

    for ours, wanted in zip(made(encode, SMALL), made(twin.encode, sizes(SMALL)), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slope(x, table, weights, SMALL), made(encode, SMALL)[0], rtol=0, atol=0)
    assert (made(encode, SMALL)[0][(x < 0) | (x > 1)] == 0).all()  # a point beyond reads the border, and moves nothing


def test_gradients_of_both_orders_meet_finite_differences():
    x, table = some(4, TINY, 2)
    weights = torch.randn(TINY.features, len(x), generator=seeded(3), dtype=torch.float64)
    leaves = [t.requires_grad_() for t in (x, table, weights)]
    assert gradcheck(lambda x, t: encode(x, t, TINY), leaves[:2])
    assert gradgradcheck(lambda x, t: encode(x, t, TINY), leaves[:2])
    assert gradcheck(lambda x, t, w: slope(x, t, w, TINY), leaves)


def test_a_loss_on_slopes_reaches_the_entries_as_pytorch_has_it():
    x, table = some(40, SMALL, 4)
    weights = torch.randn(SMALL.features, len(x), generator=seeded(5), dtype=torch.float64)

    def by(read):
        at, t, w = x.clone().requires_grad_(), table.clone().requires_grad_(), weights.clone().requires_grad_()
        normal = slope(at, t, w, SMALL) if read is None else torch.autograd.grad(read(at, t, SMALL), at, w, create_graph=True)[0]
        return torch.autograd.grad((normal.norm(dim=1) - 1).square().sum(), (at, t, w))

    wanted = by(encode_in_torch)
    for read in (encode, None):
        for ours, theirs in zip(by(read), wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_hg_1_a_dense_level_reproduces_what_is_multilinear_and_weights_sum_to_one():
    levels = Levels(1, 9, 1.0, 10)
    scale, vertices = levels.scales[0], int(levels.resolutions[0])
    c = torch.randn(8, generator=seeded(6), dtype=torch.float64)

    def f(x):
        a, b, d = x.unbind(-1)
        return torch.stack([torch.ones_like(a), a, b, d, a * b, b * d, d * a, a * b * d], -1) @ c

    index = torch.arange(vertices, dtype=torch.float64)
    at = torch.stack(torch.meshgrid(index, index, index, indexing="ij"), -1).permute(2, 1, 0, 3).reshape(-1, 3)  # i runs fastest
    values = torch.zeros(levels.entries, 2, dtype=torch.float64)
    values[: len(at), 0], values[: len(at), 1] = f((at - 0.5) / scale), 1
    x = torch.rand(200, 3, generator=seeded(7), dtype=torch.float64) * (vertices - 1.5) / scale  # up to the last vertex
    found = encode(x, values, levels)
    torch.testing.assert_close(found[0], f(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[1], torch.ones(200, dtype=torch.float64), rtol=1e-14, atol=0)
    on = (at[(at >= 1).all(1)] - 0.5) / scale  # vertices themselves; the first of an axis lies half a cell outside
    torch.testing.assert_close(encode(on, values, levels)[0], f(on), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(encode(x.flip(1), values, levels)[0], f(x))  # the control: axes in another order


def test_hg_2_levels_have_the_published_sizes_and_the_published_hash():
    levels = Levels(16, 16, 1.447, 19)
    scales, resolutions = levels.scales, levels.resolutions
    assert resolutions[0] == 16 and abs(scales[-1] + 1 - 16 * 1.447**15) < 1e-9 and (resolutions == np.ceil(scales) + 1).all()
    counts = np.diff(levels.offsets)
    assert ((resolutions**3 <= 2**19) == (counts < 2**19)).all() and counts.max() == 2**19
    hashed = Levels(1, 300, 1.0, 8)
    table = torch.arange(hashed.entries, dtype=torch.float64)[:, None].repeat(1, 2)
    for vertex in ((0, 0, 0), (1, 2, 3), (299, 298, 17), (255, 128, 64)):
        x = (torch.tensor([vertex], dtype=torch.float64) - 0.5) / hashed.scales[0]
        if (x >= 0).all():
            number = (vertex[0] ^ vertex[1] * 2654435761 ^ vertex[2] * 805459861) % 2**32 % hashed.entries
            torch.testing.assert_close(float(encode(x, table, hashed)[0, 0]), float(number), rtol=0, atol=1e-9)


def test_hg_3_closed_levels_are_zero_and_have_no_gradient():
    x, table = some(30, SMALL, 8)
    table.requires_grad_()
    for active in (0, 1, 3):
        found = encode(x, table, SMALL, active)
        assert (found[2 * active :] == 0).all()
        torch.testing.assert_close(found[: 2 * active], encode(x, table, SMALL)[: 2 * active], rtol=0, atol=0)
        torch.testing.assert_close(found, encode_in_torch(x, table, SMALL, active), rtol=1e-13, atol=1e-13)
        grad = torch.autograd.grad(found.sum(), table)[0] if active else torch.zeros_like(table)
        first = int(SMALL.offsets[active])
        assert (grad[first:] == 0).all() and (active == 0 or grad[:first].abs().sum() > 0)


def test_hg_4_at_first_the_number_is_the_networks_alone():
    """Entries within 1e-4 of 0 leave the SDF of a sphere as it is, to 1e-3."""
    g = seeded(9)
    field = Field(HashGrid(Levels(), generator=g), [-1, -1, -1], [1, 1, 1], generator=g)
    x = 2 * torch.rand(500, 3, generator=g) - 1
    field.number.become_sphere(0.5)
    with torch.no_grad():
        begun = field.value(x)
        field.encoding.table.zero_()
        assert (begun - field.value(x)).abs().max() < 1e-3


def test_results_are_the_same_bits_for_any_number_of_threads():
    levels = Levels(6, 8, 1.6, 12)
    g = seeded(10)
    x, table = torch.rand(5000, 3, generator=g), torch.randn(levels.entries, 2, generator=g)
    weights = torch.randn(levels.features, len(x), generator=g)

    def made():
        leaves = [x.clone().requires_grad_(), table.clone().requires_grad_(), weights.clone().requires_grad_()]
        normal = slope(*leaves, levels)
        return [encode(*leaves[:2], levels), normal, *torch.autograd.grad(normal.square().sum(), leaves)]

    before = pool.num_threads()
    try:
        pool.set_num_threads(1)
        one = made()
        pool.set_num_threads(3)
        three = made()
    finally:
        pool.set_num_threads(before)
    for a, b in zip(one, three, strict=True):
        assert torch.equal(a, b)


def test_float32_is_near_float64():
    levels = Levels(8, 16, 1.5, 14)
    x, table = some(500, levels, 11)
    near = encode(x.float(), table.float(), levels).double()
    # A coordinate's rounding, 6e-8, is 6e-8 s of a cell: at s = 272, three weights of entries of about 1 are off by 2e-5 or so each.
    torch.testing.assert_close(near, encode(x, table, levels), rtol=0, atol=3e-4)


def test_what_is_not_a_number_reads_a_corner_and_breaks_nothing():
    x, table = some(3, SMALL, 12)
    x[1, 1], x[2, 0] = torch.nan, torch.inf
    assert torch.isfinite(encode(x, table, SMALL)).all()


def test_wrong_calls_say_what_was_expected():
    x, table = some(3, SMALL, 13)
    with pytest.raises(ValueError, match=r"points \(N, 3\)"):
        encode(x[:, :2], table, SMALL)
    with pytest.raises(ValueError, match="one dtype"):
        encode(x.float(), table, SMALL)
    with pytest.raises(ValueError, match="expected weights"):
        slope(x, table, x, SMALL)
    with pytest.raises(ValueError, match="log2_entries"):
        Levels(4, 16, 1.4, 40)
