# SPDX-License-Identifier: Apache-2.0
"""A small edit carried to a large picture; how far an edit went by CLIP; how edits are measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bozzetto.data.instructions import Triple
from bozzetto.evaluate.edits import distances, table
from bozzetto.fit.retouched import retouched
from bozzetto.priors.clip import directional
from bozzetto.training.pairs import Pairs


def scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(128, 128, 3) with fine grain, the alpha (128, 128) of an object off its centre, and the picture at 32 pixels."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.arange(128.0)[:, None], torch.arange(128.0)[None]
    alpha = (((rows - 70) / 40) ** 2 + ((columns - 50) / 30) ** 2 < 1).float()
    grain = 0.4 + 0.2 * torch.rand(128, 128, generator=generator)
    rgb = torch.stack([grain, grain, grain], -1) * alpha[..., None] + (1 - alpha[..., None])
    small = torch.nn.functional.interpolate(rgb.movedim(-1, 0)[None], (32, 32), mode="bilinear", antialias=True)[0].movedim(0, -1)
    return rgb, alpha, small


def test_a_small_edit_has_the_large_pictures_grain_and_leaves_the_rest_bit_for_bit():
    rgb, alpha, small = scene()
    inside = torch.nn.functional.interpolate(alpha[None, None], (32, 32), mode="bilinear", antialias=True)[0, 0, ..., None]
    paint = torch.tensor([0.2, 0.4, 1.0])
    after = small * (inside * paint + 1 - inside)
    made = retouched(rgb, alpha, small, after)
    assert torch.equal(made[alpha == 0], rgb[alpha == 0])
    core = torch.nn.functional.avg_pool2d(alpha[None, None], 25, 1, 12)[0, 0] > 0.999
    truth = (rgb * paint)[core]
    assert (made[core] - truth).abs().mean() < 0.02  # what antialiasing takes from grain
    assert np.corrcoef(made[core][:, 2].numpy(), truth[:, 2].numpy())[0, 1] > 0.99
    enlarged = torch.nn.functional.interpolate(after.movedim(-1, 0)[None], (128, 128), mode="bilinear")[0].movedim(0, -1)
    assert (enlarged[core] - truth).abs().mean() > 1.5 * (made[core] - truth).abs().mean()  # the control: the small edit made large


def test_what_is_drawn_outside_the_object_comes_along_and_specks_do_not():
    rgb, alpha, small = scene()
    after = small.clone()
    after[2:9, 20:27] = torch.tensor([1.0, 0.0, 0.0])
    after[28, 28] = 0.0
    made = retouched(rgb, alpha, small, after)
    assert (made[16:28, 88:100] - torch.tensor([1.0, 0.0, 0.0])).abs().mean() < 0.1
    assert torch.equal(made[108:, 108:], rgb[108:, 108:])


@pytest.mark.parametrize(("turned", "expected"), [(1.0, 1.0), (-1.0, -1.0), (0.0, 0.0)])
def test_ip_6_directional_similarity_is_the_cosine_of_both_changes(turned, expected):
    e = torch.eye(4)
    before, after = e[:1], (e[:1] + turned * e[1:2] + (turned == 0) * e[3:])
    caption, edited = e[2:3], e[2:3] + e[1:2]
    assert abs(float(directional(before, after, caption, edited)) - expected) < 1e-6
    assert abs(float(directional(after, before, caption, edited)) + expected) < 1e-6  # one pair swapped
    assert abs(float(directional(after, before, edited, caption)) - expected) < 1e-6  # both
    assert float(directional(before, before, caption, edited)) == 0


def test_the_table_counts_edits_that_are_nearer_than_the_picture_and_than_the_fill():
    """Three recolours to red: one true, one left as it was, one the flat colour; the truth is a shaded red."""
    mask = torch.zeros(3, 8, 8, dtype=torch.uint8)
    mask[:, 2:6, 1:5] = 255
    before = torch.full((3, 8, 8, 3), 255, dtype=torch.uint8)
    before[:, 2:6, 1:5] = 90
    after = before.clone()
    after[:, 2:4, 1:5], after[:, 4:6, 1:5] = torch.tensor([205, 30, 35], dtype=torch.uint8), torch.tensor([105, 15, 18], dtype=torch.uint8)
    said = [Triple("a chair", "paint it red", "a red chair", "red", "recolour")] * 3
    pairs = Pairs(before, after, mask, said, ["x"] * 3, "rendered")
    flat = before.clone()
    flat[:, 2:6, 1:5] = torch.tensor([205, 30, 35], dtype=torch.uint8)
    made = torch.stack([after[0], before[1], flat[2]]).float() / 255
    assert table(pairs, [0, 1, 2], made)[2] == "| recolour | 3 | 67 % | 33 % | 0.00 |"
    near, outside = distances(made, after.float() / 255, (mask > 0).float())
    assert near[0] == 0 and near[1] > 0 and outside.max() == 0
