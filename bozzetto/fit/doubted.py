# SPDX-License-Identifier: Apache-2.0
"""Drawn views that are not to be believed as far as a surface goes: they carve the guess and colour it, as in recipe `views`.

The embedded prior draws colours and extent, not parts: a surface fused from its views falls apart where they disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.fit.clean import Clean
from bozzetto.fit.drawings import Drawings, carve, colours_from, seen_past
from bozzetto.fit.recipe import Job
from bozzetto.fit.settings import Within
from bozzetto.fit.silhouette import Silhouette, Surface, meet_silhouette
from bozzetto.fit.solid import Colours, Solid
from bozzetto.priors.prior import Prior
from bozzetto.priors.zero123 import Zero123


@dataclass(frozen=True)
class Doubt:
    """Whether drawn views are believed, and what is done where they are not."""

    drawn: Literal["auto", "believed", "doubted"] = "auto"
    """believed: the views become the surface; doubted: they carve the guess and colour it; auto doubts the embedded prior alone"""
    carve: Annotated[float, Within(0, 100)] = 0.6
    """logits that a cell of the guess loses for each doubted view that is sure to see past it"""
    guess: Silhouette = Silhouette()
    """of the shape, where views are doubted"""

    def of(self, prior: Prior) -> bool:
        """Whether what this prior draws is doubted."""
        return self.drawn == "doubted" or (self.drawn == "auto" and is_embedded(prior))


def is_embedded(prior: Prior) -> bool:
    """Whether it is the small prior that comes with the package."""
    return isinstance(prior, Zero123) and prior.kind == "zero123-mini"


def doubted(
    job: Job[Any], solid: Solid, made: Drawings, placed: Camera, settings: Doubt, stage: str, past: Callable[[], Tensor] | None = None
) -> tuple[Surface, Callable[[Clean], Colours]]:
    """The carved guess, moved until it meets the picture's silhouette, in stage `stage`; and its colours.

    placed  the drawings' cameras, in the crop's frame and of their size
    past    to (D, h, w), how many drawings show background at a cell, or as good as show; by default what their outlines say
    """

    def shaped() -> Surface:
        carved = carve(solid, settings.carve * (seen_past(solid, made, placed) if past is None else past()))
        return meet_silhouette(job.source, carved, settings.guess, job.run, stage)

    shape = job.run.stage(stage, shaped, Surface)
    return shape, lambda clean: colours_from(made, placed, clean, solid.colours)


DRAFT = Doubt(guess=Silhouette(cells=40, steps=40, picture=192))
FINE = Doubt(guess=Silhouette(cells=72, steps=300, picture=384))
