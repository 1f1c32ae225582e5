# SPDX-License-Identifier: Apache-2.0
"""Recipe `consistent123` (Lin et al. 2023, arXiv:2309.17261): the 3D prior alone until the shape has come to rest, then the 2D one, too.

1. guess     the solid behind the picture, as in every recipe: the camera, and the first shape and colours
2. coarse    a density on a hash grid, under the picture (colours, mask) and the 3D prior. Every few steps CLIP compares eight
             renderings with the text; where that no longer changes, the boundary t*, the 2D prior begins to count
             (`fit.boundary`: L = exp(-r) L_3D + (1 - exp(-r)) L_2D, r from 0 at t* to 1 at the end of stage fine)
3. fine      a DMTet from the density, r going on; levels .2 to .5 where the coarse ones are .2 to .6
4. clean, texture  as everywhere: what the picture shows has its pixels

Guidance is 10 for both, and the 3D prior's weight grows with the angle to the picture, as in the code. Differs: the field begins as the
guess (`fit.sculpt`), so that hundreds of steps do for the 5000 of each stage; the text is told from which side a view is; CLIP is
the embedded one where none is given. There is another paper of this name (Weng et al., arXiv:2310.08092).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from bozzetto.distill.sds import Levels, Ramp
from bozzetto.fit.around import Around
from bozzetto.fit.boundary import Boundary, CaseAware
from bozzetto.fit.finish import Lifted, finish
from bozzetto.fit.framed import Framed
from bozzetto.fit.hybrid import DRAFT, FINE, Hybrid, Sculpted
from bozzetto.fit.loop import Term, optimise
from bozzetto.fit.recipe import Job, Recipe
from bozzetto.fit.sculpt import SHOWN, Coarse, Sculpture, field_of, handed_on, resumed, rough_surface, tets_of
from bozzetto.fit.solid import Solid
from bozzetto.priors.clip import Clip
from bozzetto.priors.plan import Asked
from bozzetto.priors.prior import Prior
from bozzetto.shapes.colours import ColourGrid
from bozzetto.shapes.shape import Shape
from bozzetto.shapes.tets import Course

AROUND = Around(views=1, lowest_deg=-15, highest_deg=45)


@dataclass(frozen=True)
class Consistent123(Sculpted):
    """Lift by a 3D prior, and by a 2D prior once the shape is there."""

    coarse: Coarse = Coarse(steps=300)
    hybrid: Hybrid = Hybrid(AROUND, weight_2d=0.01, weight_3d=0.1, guidance_2d=10.0, guidance_3d=10.0)
    boundary: Boundary = Boundary(every=0.02)


def lift(job: Job[Consistent123]) -> Lifted:
    """Picture and text to textured mesh."""
    run, solid = job.run, job.guess()
    carved = run.stage("coarse", lambda: coarse(job, solid), Sculpture)
    made = run.stage("fine", lambda: fine(job, solid, carved), Sculpture)
    grid = ColourGrid(**made.colours).requires_grad_(False)
    told = {**solid.told(), "text": job.words, "boundary": carved.reached, "losses": made.losses}
    return finish(job.source, made, lambda clean: grid, solid.frustum.camera, job.settings.finish, run, told, drawn=True)


def asks(s: Consistent123, _: Mapping[Any, Prior]) -> Mapping[Any, Asked]:
    """What both priors are asked for, at most: the text's as soon as the boundary may be found."""
    steps, alone = s.coarse.steps, round(s.boundary.earliest * s.coarse.steps) + 1
    return {**s.hybrid.asked(steps + s.steps), "text": s.hybrid.asked(steps - alone + s.steps)["text"]}


def coarse(job: Job[Consistent123], solid: Solid) -> Sculpture:
    """A density, as a DMTet, and the step at which it had come to rest."""
    s, c, rough, clip = job.settings, job.settings.coarse, rough_surface(job, solid), job.priors.clip or Clip.read()
    framed = Framed.of(job.source, solid.frustum.camera, *rough, SHOWN)
    ring = framed.placed(framed.cameras([2 * math.pi * k / 8 for k in range(8)], [framed.elevation] * 8).resized(64))

    @torch.no_grad()
    def similarity(shape: Shape) -> float:
        return float(clip.similarity(shape.render(ring, "colour").over(1.0), job.words).mean())

    volume, levels = field_of(solid, rough, c, is_density=True, seed=job.seed), Levels(Ramp(0.2, 0.2), Ramp(0.6, 0.6))
    two, three = s.hybrid.pulls(job, solid, framed, c.around, (levels, levels), by_angle=True)
    aware = CaseAware(three, two, similarity, s.boundary, later=s.steps)
    terms: list[Term] = [s.held.shown(job, solid, c.picture), aware, s.held.regular()]
    losses = optimise(volume, terms, job.run, "coarse", steps=c.steps, seed=job.seed)
    reached = c.steps if aware.reached is None else aware.reached
    return handed_on(tets_of(volume, s.cells, Course(0.5), s.colours), losses, float(reached))


def fine(job: Job[Consistent123], solid: Solid, carved: Sculpture) -> Sculpture:
    """The DMTet, under both priors."""
    s, before = job.settings, job.settings.coarse.steps
    framed = Framed.of(job.source, solid.frustum.camera, carved.vertices, carved.faces, SHOWN)
    tets, levels = resumed(carved, Course(0.5, smooth=5, colour_lr=0.02)), Levels(Ramp(0.2, 0.2), Ramp(0.5, 0.5))
    two, three = s.hybrid.pulls(job, solid, framed, s.picture, (levels, levels), by_angle=True)
    aware = CaseAware(three, two, lambda shape: 0.0, reached=int(carved.reached or 0) - before)
    terms: list[Term] = [s.held.shown(job, solid, s.picture), aware, s.held.regular()]
    return handed_on(tets, optimise(tets, terms, job.run, "fine", steps=s.steps, seed=job.seed + 1))


RECIPE = Recipe(
    "consistent123",
    {
        "draft": Consistent123(**DRAFT),
        "standard": Consistent123(),
        "fine": Consistent123(**FINE),
    },
    lift,
    stages={"guess": 0.01, "coarse": 0.5, "fine": 0.4, "clean": 0.02, "texture": 0.07},
    needs=("first_guess", "text", "views"),
    about="a 3D prior until CLIP sees no more change, then more and more of a 2D one",
    asks=asks,
    extras=("clip",),
)
