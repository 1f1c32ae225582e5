# SPDX-License-Identifier: Apache-2.0
"""Elevation of a picture (One-2-3-45, Liu et al. 2023, arXiv:2306.16928): found from views that are drawn beside it.

World: objects of six families, each from a random height. What an exact Zero-1-to-3 would draw 10 degrees beside a picture is rendered,
in 128 pixels; nothing says how high the picture is. What is measured is `priors.elevation` without a network's mistakes, and with some.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.claims.claim import Beats, Claim, Scores
from bozzetto.data.renders import drawable, render
from bozzetto.priors.elevation import DEGREE, FOV, estimate_from_tracks, nearby, tracks
from bozzetto_objects import make

FAMILIES = ("teapot", "chair", "car", "bird", "table", "plane")
LOW, HIGH = -10.0, 60.0  # degrees
SIZE = 128


def stained(rgb: Tensor, generator: torch.Generator) -> Tensor:
    """Four views (4, S, S, 3) that do not agree: smooth stains of deviation .05, others in each."""
    coarse = torch.randn(4, 3, 8, 8, generator=generator)
    return (rgb + 0.05 * F.interpolate(coarse, (SIZE, SIZE), mode="bicubic").movedim(1, -1)).clamp(0, 1)


def run(seed: int) -> Scores:
    """Mean absolute error over the objects, degrees."""
    generator, errors = torch.Generator().manual_seed(seed), dict[str, list[float]]()
    for family in FAMILIES:
        true = LOW + (HIGH - LOW) * float(torch.rand(1, generator=generator))
        rgb = render(drawable(make(family, seed)), nearby(true * DEGREE, size=SIZE, azimuth=0.5, distance=2.0)).over(1.0)
        drawn = {
            "estimated": rgb,
            "estimated, views do not agree": torch.where(rgb < 1, stained(rgb, generator), rgb),
            "estimated, left and right exchanged": rgb[[0, 1, 3, 2]],
        }
        said = {name: estimate_from_tracks(tracks(x), size=SIZE, fov=FOV).elevation / DEGREE for name, x in drawn.items()}
        said |= {"the horizon": 0.0, "the middle of the range": (LOW + HIGH) / 2}
        for name, degrees in said.items():
            errors.setdefault(name, []).append(abs(degrees - true))
    return {name: math.fsum(values) / len(values) for name, values in errors.items()}


CLAIMS = (
    Claim(
        "elevation",
        method="One-2-3-45",
        source="arXiv:2306.16928, Sec. 3.3",
        says="Views drawn beside a picture tell how high it was taken from.",
        metric="mean absolute error, degrees",
        better="lower",
        run=run,
        must=(
            Beats("estimated", "the horizon"),
            Beats("estimated", "the middle of the range"),
            Beats("estimated, views do not agree", "the middle of the range"),
        ),
        control=Beats("estimated", "estimated, left and right exchanged"),
        seconds=8,
        remark=f"Heights are even from {LOW:.0f} to {HIGH:.0f} degrees. Where too few points are followed through all views, the answer "
        "is the horizon.",
    ),
)
