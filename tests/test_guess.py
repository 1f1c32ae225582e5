# SPDX-License-Identifier: Apache-2.0
"""What the recipe makes of the network's answer, on answers whose solid is known."""

from __future__ import annotations

import pytest
import torch
from scipy import ndimage

from bozzetto.priors.first_guess import LEVEL
from bozzetto.priors.solid import EMPTY, agree_with_silhouette

DEPTHS, SIZE = 64, 64


def logits(p: torch.Tensor) -> torch.Tensor:
    """As `predict` hands them on: 0 where a cell counts as solid."""
    return torch.logit(p.clamp(1e-4, 1 - 1e-4)) - LEVEL


def wire(width: int, spread: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A leaning rod: occupancy (D, h, w), coverage (1, h, w), and the depth (h,) of its middle.

    The network knows its depth to `spread` cells: each of them has an equal share of `width` cells' worth of probability.
    """
    rows = torch.arange(SIZE)
    middle = 20 + rows * 0.3
    place = torch.arange(DEPTHS)[:, None] + 0.5
    share = ((place - middle).abs() < spread / 2).float()
    share = share / share.sum(0, keepdim=True) * width * 0.5
    p = torch.zeros(DEPTHS, SIZE, SIZE)
    coverage = torch.zeros(1, SIZE, SIZE)
    p[:, 4:60, 30 : 30 + width] = share[:, 4:60, None]
    coverage[:, 4:60, 30 : 30 + width] = 1
    return logits(p), coverage, middle


@pytest.mark.parametrize("width", [1, 2, 4])
def test_a_rod_of_unsure_depth_becomes_one_round_rod(width):
    occupancy, coverage, middle = wire(width, 12)
    solid = agree_with_silhouette(occupancy, coverage) > 0
    assert not (occupancy > 0).any()  # no cell of the network's own passes
    assert ndimage.label(solid, structure=torch.ones(3, 3, 3))[1] == 1
    column = solid[:, 8:56, 30 : 30 + width].float()
    place = torch.arange(DEPTHS).view(-1, 1, 1) + 0.5
    centre = (column * place).sum(0) / column.sum(0)
    assert float((centre - middle[8:56, None]).abs().max()) < 1.0  # a cell: bars are whole cells
    # as deep as wide: width / 64 of the picture is width * (64 / 1.8) / 64 cells of depth; at least 1.5, so that no grid misses it
    deep = max(width * DEPTHS / 1.8 / SIZE, 1.5)
    assert float((column.sum(0) - deep).abs().max()) <= 1.5


def test_a_wire_is_a_cell_wider_than_its_silhouette_and_a_rod_is_not():
    for width, wider in ((1, True), (4, False)):
        occupancy, coverage, _ = wire(width, 12)
        shown = (agree_with_silhouette(occupancy, coverage) > 0).any(0)
        assert bool((shown & ~(coverage[0] > 0)).any()) == wider, width


def test_what_the_network_is_sure_of_stays():
    p = torch.full((DEPTHS, SIZE, SIZE), 0.01)
    p[20:40, 10:50, 10:50] = 0.9
    coverage = torch.zeros(1, SIZE, SIZE)
    coverage[:, 10:50, 10:50] = 1
    before = logits(p)
    after = agree_with_silhouette(before, coverage)
    inside = coverage.expand_as(before) > 0
    torch.testing.assert_close(after[inside], before.clamp(EMPTY, -EMPTY)[inside])
    assert (after[~inside] == EMPTY).all()


def test_every_pixel_that_shows_the_object_has_something_behind_it():
    generator = torch.Generator().manual_seed(0)
    occupancy = torch.randn(DEPTHS, SIZE, SIZE, generator=generator) * 0.5 - 4
    coverage = (torch.rand(1, SIZE, SIZE, generator=generator) > 0.5).float()
    solid = (agree_with_silhouette(occupancy, coverage) > 0).any(0)
    assert solid[coverage[0] > 0].all()
