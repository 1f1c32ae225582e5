# SPDX-License-Identifier: Apache-2.0
"""The solid behind a picture, from what the first guess says of it and from the picture's silhouette.

A guess is unsure, and says so: its occupancies are smeared along the rays, thin parts have no full cell anywhere. Here the
silhouette is met, and thin parts are made whole.

Letters: D depths of h x w columns; a logit above 0 is solid.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from bozzetto.frustum import DEPTH_RANGE
from bozzetto.priors.first_guess import LEVEL

WIRE = 2.5  # columns of the guess: parts thinner than this are wires
EMPTY = -3.0  # logit of a cell that the silhouette says is empty; as far from 0 as a full one


def solid(occupancy: Tensor, coverage: Tensor) -> Tensor:
    """Logits (D, h, w), above 0 where a cell is solid, from the network's (D, h, w) and the picture's coverage (1, h, w) in [0, 1].

    LEVEL, for all objects alike: levels that keep the expected volume, of the object, its columns or windows between, were measured
    and are worse after the alignment of `evaluate`; so was moving columns to the predicted surface (docs/notebook.md).
    """
    return agree_with_silhouette(occupancy - LEVEL, coverage)


def agree_with_silhouette(occupancy: Tensor, coverage: Tensor, full: float = 0.3) -> Tensor:
    """Cells outside the silhouette emptied; where a pixel shows the object, something is behind it.

    A column in which no cell passes `full` is that of a thin part whose depth is unsure: a wire that may be anywhere in ten
    cells has a tenth in each. It gets one bar of cells, at the median of the column's probability, as long as the cells it
    expects, and at least as the part is wide in the picture: most thin parts are round. Medians are averaged along the part,
    so that it stays whole and straight. Clamped, so that surfaces lie midway between cells.

    occupancy (D, h, w) logits, coverage (1, h, w) in [0, 1]
    """
    unsure = (coverage > 0.2) & (occupancy.amax(0, keepdim=True) < full)
    bars = torch.where(unsure, _bars(occupancy, coverage, unsure), EMPTY)
    kept = torch.where(coverage > 0, torch.where(unsure, bars, occupancy), EMPTY).clamp(EMPTY, -EMPTY)
    # What is thinner than a cell of the coarse grid would be missed there; a cell wider, it is found, and trimmed to the silhouette.
    wires = torch.where(unsure & (width_of(coverage) < WIRE), bars, EMPTY)
    return torch.maximum(kept, F.max_pool2d(wires, 3, stride=1, padding=1))


def _bars(occupancy: Tensor, coverage: Tensor, unsure: Tensor, steep: float = 3.0, least: float = 1.5) -> Tensor:
    """Logits (D, h, w) of one bar a column, falling by `steep` a cell from its ends."""
    depths, _, width = occupancy.shape
    p = torch.sigmoid(occupancy + LEVEL)
    mass, so_far = p.sum(0, keepdim=True), p.cumsum(0)
    cell = (so_far < mass / 2).sum(0, keepdim=True).clamp(max=depths - 1)
    inside = p.gather(0, cell).clamp(min=1e-9)
    median = cell + 1 - (so_far.gather(0, cell) - mass / 2) / inside
    weight = torch.where(unsure, mass, 0)
    for _ in range(12):  # some three cells either way
        total = F.avg_pool2d(weight, 3, stride=1, padding=1).clamp(min=1e-12)
        median = torch.where(unsure, F.avg_pool2d(weight * median, 3, stride=1, padding=1) / total, median)
    across = width_of(coverage) / width / (2 * DEPTH_RANGE / depths)  # in cells of depth
    length = torch.maximum(torch.minimum(mass, 2 * across + 1), across).clamp(min=least)
    place = torch.arange(depths).view(-1, 1, 1) + 0.5
    return (steep * (length / 2 - (place - median).abs())).clamp(EMPTY, -EMPTY)


def width_of(coverage: Tensor) -> Tensor:
    """(1, h, w): diameter, in pixels, of the largest disc inside the silhouette whose centre is at most a pixel away."""
    fine = F.interpolate(coverage[None], scale_factor=4, mode="bilinear")[0, 0] > 0.35
    radius = ndimage.distance_transform_edt(np.pad(fine.numpy(), 1))[1:-1, 1:-1]
    near = F.max_pool2d(torch.from_numpy(radius).float()[None, None], 9, stride=1, padding=4)
    return F.max_pool2d(near, 4)[0] / 2
