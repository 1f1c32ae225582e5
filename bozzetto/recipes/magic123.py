# SPDX-License-Identifier: Apache-2.0
"""Recipe `magic123` (Qian et al. 2023, arXiv:2306.17843): one picture by a 2D and a 3D prior, first as a radiance field, then as a DMTet.

1. guess     the solid behind the picture, as in every recipe: the camera, and the first shape and colours
   invert    where it is asked for: the text's prior learns a word from the picture, by textual inversion, and is asked for that
2. coarse    a density on a hash grid; every fourth step is the picture's (colours, mask, depth), the others are hybrid guidance,
             lambda_2D L_SDS(text) + lambda_3D L_SDS(picture, pose) (Eq. 5), with noises of their own; levels .2 to .6
3. fine      a DMTet from the density, levels .02 to .5 (the code's; the paper says .2 to .6)
4. clean, texture  as everywhere: what the picture shows has its pixels

Guidance is 101 for the text (the code writes cond + 100 (cond - uncond)) and 5 for the views, whose weight grows with the angle to the
picture, as a share of half a turn: the 3D prior is sure where it sees little else than the picture. lambda_3D / lambda_2D is 40 in the
coarse stage and 10 in the fine one, as in the paper. Differs: the text is inverted from the picture where `invert` says so, else given
(it is two of the method's three hours); the field begins as the guess (`fit.sculpt`), so that hundreds of steps do for the 5000 of each
stage; one DMTet of the guess's size for its 128-cell one. Relative depth and blurred normals weigh nothing in the fine stage of the code
either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from bozzetto.distill.sds import Levels, Ramp
from bozzetto.fit.around import Around
from bozzetto.fit.finish import Lifted, finish
from bozzetto.fit.framed import Framed
from bozzetto.fit.hybrid import DRAFT, FINE, Hybrid, Sculpted
from bozzetto.fit.loop import Term, When, optimise
from bozzetto.fit.recipe import Job, Recipe
from bozzetto.fit.sculpt import SHOWN, Coarse, Sculpture, field_of, handed_on, resumed, rough_surface, tets_of
from bozzetto.fit.settings import Within
from bozzetto.fit.solid import Solid
from bozzetto.fit.teaching import inverted
from bozzetto.priors.plan import Asked
from bozzetto.priors.prior import Prior
from bozzetto.shapes.colours import ColourGrid
from bozzetto.shapes.shape import Step
from bozzetto.shapes.tets import Course

AROUND = Around(views=1, lowest_deg=-45, highest_deg=45)


@dataclass(frozen=True)
class Magic123(Sculpted):
    """Lift by two priors, coarse to fine."""

    coarse: Coarse = Coarse(steps=300)
    hybrid: Hybrid = Hybrid(AROUND, weight_2d=0.0025, weight_3d=0.1, guidance_2d=101.0, guidance_3d=5.0)
    fine_2d: Annotated[float, Within(0, 1000)] = 4.0
    """times as much of the text's prior in stage fine"""
    invert: Annotated[int, Within(0, 100_000)] = 0
    """steps in which the text's prior learns a word from the picture, and is then asked for that, such as 3000; 0: the text as it is"""


def lift(job: Job[Magic123]) -> Lifted:
    """Picture and text to textured mesh."""
    run, solid = job.run, job.guess()
    asked = inverted(job, job.settings.invert) if job.settings.invert else job
    carved = run.stage("coarse", lambda: coarse(asked, solid), Sculpture)
    made = run.stage("fine", lambda: fine(asked, solid, carved), Sculpture)
    grid, told = ColourGrid(**made.colours).requires_grad_(False), {**solid.told(), "text": job.words, "losses": made.losses}
    return finish(job.source, made, lambda clean: grid, solid.frustum.camera, job.settings.finish, run, told, drawn=True)


def asks(s: Magic123, _: Mapping[Any, Prior]) -> Mapping[Any, Asked]:
    """What both priors are asked for."""
    both = s.hybrid.asked(s.coarse.steps * 3 // 4 + s.steps)
    return {**both, "text": both["text"].and_then(Asked(taught=s.invert))}


def is_pictures(step: Step) -> bool:
    """Whether the known view has the step."""
    return step.number % 4 == 0


def coarse(job: Job[Magic123], solid: Solid) -> Sculpture:
    """A density that the picture and both priors agree on, as a DMTet."""
    s, c, rough = job.settings, job.settings.coarse, rough_surface(job, solid)
    framed = Framed.of(job.source, solid.frustum.camera, *rough, SHOWN)
    volume, levels = field_of(solid, rough, c, is_density=True, seed=job.seed), Levels(Ramp(0.2, 0.2), Ramp(0.6, 0.6))
    pulls = s.hybrid.pulls(job, solid, framed, c.around, (levels, levels), by_angle=True)
    guidance = [When(pull, lambda step: not is_pictures(step)) for pull in pulls]
    picture = s.held.shown(job, solid, c.picture), s.held.relief(job, solid, c.picture)
    terms: list[Term] = [*(When(x, is_pictures) for x in picture), *guidance, s.held.regular()]
    losses = optimise(volume, terms, job.run, "coarse", steps=c.steps, seed=job.seed)
    return handed_on(tets_of(volume, s.cells, Course(0.5), s.colours), losses)


def fine(job: Job[Magic123], solid: Solid, carved: Sculpture) -> Sculpture:
    """The DMTet, which has the known view in each step: a mesh is cheap to draw."""
    s = job.settings
    framed = Framed.of(job.source, solid.frustum.camera, carved.vertices, carved.faces, SHOWN)
    tets, levels = resumed(carved, Course(0.5, smooth=5, colour_lr=0.02)), Levels(Ramp(0.02, 0.02), Ramp(0.5, 0.5))
    hybrid = replace(s.hybrid, weight_2d=s.fine_2d * s.hybrid.weight_2d)
    pulls = hybrid.pulls(job, solid, framed, s.picture, (levels, levels), by_angle=True)
    terms: list[Term] = [s.held.shown(job, solid, s.picture), *pulls, s.held.regular()]
    return handed_on(tets, optimise(tets, terms, job.run, "fine", steps=s.steps, seed=job.seed + 1))


RECIPE = Recipe(
    "magic123",
    {
        "draft": Magic123(**DRAFT),
        "standard": Magic123(),
        "fine": Magic123(**FINE),
    },
    lift,
    stages={"guess": 0.01, "coarse": 0.5, "fine": 0.4, "clean": 0.02, "texture": 0.07},
    needs=("first_guess", "text", "views"),
    about="a 2D and a 3D prior weighed against each other, a radiance field first",
    asks=asks,
    compares=True,
)
