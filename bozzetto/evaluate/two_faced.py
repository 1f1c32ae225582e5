# SPDX-License-Identifier: Apache-2.0
"""How far the side behind looks like the side in front: two-faced (Janus) shapes, which score distillation by priors of single views makes.

Two pictures are drawn, from the picture's side and from behind, half a turn about the vertical on. A copy of the front, turned round, looks
there as the front does here: not mirrored. Over the pixels that the object covers in both, r is Pearson's correlation of their colours,
each channel's mean in each picture taken away; 0 where either picture is of one colour. Objects have such a correlation themselves, r* of
the truth, since a table is like itself from behind. What counts is how much of what is left a model has in excess:

    score = (r - r*) / (1 - r*), not below 0:    1 a copy of the front, 0 no more alike than the truth's own two sides

A shape is two-faced where that is above one half. It says nothing of colours that are wrong behind in another way, of a face at the
side, nor of shape alone. Where the truth's two sides are nearly alike (r* > ALIKE), or its front is of one colour, there is no score.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

COVERED = 0.9  # alpha from which a pixel is the object's
FEWEST = 16  # pixels in common, below which nothing is said
ALIKE = 0.8
PLAIN = 1e-4  # variance of colours below which a picture is of one colour


def likeness(front: Tensor, behind: Tensor) -> float:
    """r of two premultiplied pictures (H, W, 4); NaN where they have too few pixels in common."""
    both = (front[..., 3] > COVERED) & (behind[..., 3] > COVERED)
    if int(both.sum()) < FEWEST:
        return math.nan
    a, b = (x[both][:, :3] / x[both][:, 3:] for x in (front.double(), behind.double()))
    a, b = a - a.mean(0), b - b.mean(0)
    spread = float(a.square().mean()), float(b.square().mean())
    return float((a * b).mean()) / math.sqrt(spread[0] * spread[1]) if min(spread) > PLAIN else 0.0


def two_faced(made: Tensor, truth: Tensor) -> float:
    """The score in [0, 1] of pictures (2, H, W, 4), from the front and from behind, of a model and of the truth; NaN where there is none.

    A model that covers next to nothing has 0.
    """
    on = truth[0, ..., 3] > COVERED
    shown = truth[0][on]
    own = likeness(truth[0], truth[1])
    is_plain = int(on.sum()) < FEWEST or float((shown[:, :3] - shown[:, :3].mean(0)).square().mean()) <= PLAIN
    if is_plain or math.isnan(own) or own > ALIKE:
        return math.nan
    found = likeness(made[0], made[1])
    return 0.0 if math.isnan(found) else max((found - own) / (1 - own), 0.0)


def rate(scores: Tensor) -> float:
    """Share of two-faced ones among scores (N,) that are there; NaN of none."""
    known = scores[torch.isfinite(scores)]
    return float((known > 0.5).double().mean()) if len(known) else math.nan
