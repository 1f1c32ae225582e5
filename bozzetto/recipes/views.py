# SPDX-License-Identifier: Apache-2.0
"""Recipe `views`: the first guess, seen from all round as a view-conditioned prior draws it, and a shape that meets the drawings.

1. guess    the solid behind the picture: recipe `guess`
2. views    a ring of views and some from above, each drawn by the prior (DDIM) under the picture, its pose, and where the prior takes
            one the guess rendered there (`priors.hint`); a few samples each, whose difference says how far a drawing is to be trusted
3. shape    what lies outside the drawings' outlines is taken from the guess, as far as they are trusted; a DMTet from what is left,
            moved until the picture's silhouette is met
4. clean, texture  as there; texels that the picture does not show get the drawings' colours, then the guess's

Kin: One-2-3-45 (arXiv:2306.16928), which reconstructs from Zero-1-to-3's views by a network; here the network came first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.fit.clean import Clean
from bozzetto.fit.drawings import Drawing, Drawings, carve, colours_from, draw_framed, seen_past
from bozzetto.fit.finish import Finish, Lifted, finish
from bozzetto.fit.framed import Framed
from bozzetto.fit.recipe import Job, Recipe
from bozzetto.fit.settings import Within
from bozzetto.fit.silhouette import Silhouette, Surface, meet_silhouette
from bozzetto.fit.solid import Colours, Solid


@dataclass(frozen=True)
class FromViews:
    """Lift by the first guess and views that a prior draws."""

    guess: Silhouette = Silhouette()
    """of the shape"""
    ring: Annotated[int, Within(1, 64)] = 7
    """views all round at the picture's elevation, the picture itself left out"""
    above: Annotated[int, Within(0, 64)] = 2
    """views from above, either side of the back"""
    above_deg: Annotated[float, Within(-90, 90)] = 50.0
    """elevation of those"""
    samples: Annotated[int, Within(1, 64)] = 3
    """drawings of each view; their mean is used where they agree"""
    drawing: Drawing = Drawing(batch=9)
    size: Annotated[int, Within(32, 1024)] = 128
    """pixels a side at which picture and guess are shown to the prior; at least as many as it draws"""
    carve: Annotated[float, Within(0, 100)] = 0.6
    """logits that a cell loses for each drawing that is sure to see past it; the embedded prior is not to be trusted with more"""
    finish: Finish = Finish()


def lift(job: Job[FromViews]) -> Lifted:
    """Picture to textured mesh."""
    source, run, settings = job.source, job.run, job.settings
    solid = job.guess()
    told: dict[str, Any] = solid.told()
    rough, camera = solid.surface(), solid.frustum.camera
    carved: Solid = solid
    colours: Callable[[Clean], Colours] = lambda clean: solid.colours  # noqa: E731
    if rough is not None:  # an empty field has nothing to look at; the ball that stands in for it is kept as it is
        framed = Framed.of(source, camera, *rough, max(settings.size, job.views.size))
        around = cameras_around(framed, settings)
        made = run.stage("views", lambda: draw(job, framed, around, solid.colours), Drawings)
        placed = framed.placed(around.resized(made.pictures.shape[1]))
        carved = carve(solid, settings.carve * seen_past(solid, made, placed))
        told["trust"] = round(float(made.trust.mean()), 4)
        colours = lambda clean: colours_from(made, placed, clean, solid.colours)  # noqa: E731

    shape = run.stage("shape", lambda: meet_silhouette(source, carved, settings.guess, run), Surface)
    told["losses"] = shape.losses
    return finish(source, shape, colours, camera, settings.finish, run, told, drawn=True)


def cameras_around(framed: Framed, settings: FromViews) -> Camera:
    """The views to draw, relative to the object's centre: a ring, then those above, left and right of the back."""
    turns = [2 * math.pi * (k + 1) / (settings.ring + 1) for k in range(settings.ring)]
    over = [math.pi + (2 * (k + 0.5) / settings.above - 1) * 2 * math.pi / 3 for k in range(settings.above)]
    high = math.radians(settings.above_deg)
    azimuths = [framed.azimuth + t for t in turns + over]
    return framed.cameras(azimuths, [framed.elevation] * len(turns) + [max(high, framed.elevation)] * len(over))


def draw(job: Job[FromViews], framed: Framed, cameras: Camera, guessed: Colours) -> Drawings:
    """A few samples of each view, at the prior's size."""
    samples = job.settings.samples

    def sample(s: int) -> Tensor:
        def told(name: str, share: float) -> None:
            job.run.progress("views", (s + share) / samples)

        return draw_framed(framed, job.views, cameras, guessed, job.settings.drawing, seed=job.seed + 1000 * s, progress=told)

    return Drawings.of(torch.stack([sample(s) for s in range(samples)]), job.views.background)


DRAFT, FINE = Silhouette(cells=40, steps=40, picture=192), Silhouette(cells=72, steps=300, picture=384)
RECIPE = Recipe(
    "views",
    {
        "draft": FromViews(guess=DRAFT, finish=Finish(faces=10_000)),
        "standard": FromViews(),
        "fine": FromViews(guess=FINE, ring=11, above=4, samples=4, finish=Finish(faces=60_000)),
    },
    lift,
    stages={"guess": 0.04, "views": 0.4, "shape": 0.35, "clean": 0.03, "texture": 0.18},
    needs=("first_guess", "views"),
    about="lets a diffusion prior draw the hidden sides and follows the drawings",
    asks=lambda s, priors: {"views": s.drawing.asked(priors["views"], s.samples * (s.ring + s.above))},
)
