# SPDX-License-Identifier: Apache-2.0
"""Recipe `dreamcraft3d` (Sun et al. 2023, arXiv:2310.16818): a 2D and a 3D prior sculpt together, and a 2D prior that learns paints.

1. guess     the solid behind the picture, as in every recipe: the camera, and the first shape and colours
2. coarse    a NeuS field. Steps alternate between the picture (colours, mask, relative depth) and hybrid guidance, L_SDS of the text
             + mu L_SDS of the 3D prior (Eq. 7); noise levels fall from large to small within the first 4 % (Sec. 4.2)
3. geometry  a DMTet from the field's SDF. Each step has both; the 2D prior sees normals in three of four steps and colours in the
             fourth, and in that alone the picture's colours count
4. boost     the mesh stays, colours by bootstrapped score distillation (`distill.bsd`), in turns with the picture (Sec. 4.3)
5. clean, texture  as everywhere: what the picture shows has its pixels

Settings are the released code's where they carry over: levels, guidance (20 with Perp-Neg, 5, 2), turns. Its mu is 1 (the paper's 2);
the embedded text prior is too young to pull so hard: mu is 20. It has 5000 steps a stage and begins with fog; here the guess has
done most of it (`fit.sculpt`). phi is a low-rank update, as in the paper (a second U-Net in the code).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch

from bozzetto.distill.bsd import Refresh
from bozzetto.distill.sds import Levels, Ramp
from bozzetto.distill.vsd import Learner
from bozzetto.fit.finish import Lifted, finish
from bozzetto.fit.framed import Framed
from bozzetto.fit.hybrid import DRAFT, FINE, Sculpted
from bozzetto.fit.learning import Bootstrapped, bootstrapped
from bozzetto.fit.loop import Term, When, optimise
from bozzetto.fit.recipe import Job, Recipe
from bozzetto.fit.reference import absolute_inside
from bozzetto.fit.sculpt import SHOWN, Sculpture, even, field_of, handed_on, odd, resumed, rough_surface, tets_of
from bozzetto.fit.settings import Within
from bozzetto.fit.solid import Solid
from bozzetto.fit.terms import Shown
from bozzetto.priors.lora import LoRA, adapted
from bozzetto.priors.plan import Asked
from bozzetto.priors.prior import Prior
from bozzetto.shapes.colours import ColourGrid
from bozzetto.shapes.painted import Painted
from bozzetto.shapes.tets import Course


@dataclass(frozen=True)
class DreamCraft3D(Sculpted):
    """Lift by two priors, and paint by one that learns."""

    boost: Annotated[int, Within(1, 100_000)] = 200
    """steps of stage boost"""
    boost_weight: Annotated[float, Within(0, 1e6)] = 0.02
    """of bootstrapped distillation, summed over latents"""
    boost_guidance: Annotated[float, Within(-200, 200)] = 2.0
    """of the prior that learns"""
    rank: Annotated[int, Within(1, 256)] = 4
    """of the low-rank updates that learn"""
    learning: Annotated[float, Within(0, 1)] = 1e-4
    """step of what learns"""


def lift(job: Job[DreamCraft3D]) -> Lifted:
    """Picture and text to textured mesh."""
    run, s, solid = job.run, job.settings, job.guess()
    carved = run.stage("coarse", lambda: coarse(job, solid), Sculpture)
    framed = Framed.of(job.source, solid.frustum.camera, carved.vertices, carved.faces, SHOWN)
    made = run.stage("geometry", lambda: geometry(job, solid, framed, carved), Sculpture)
    painted = run.stage("boost", lambda: boost(job, solid, framed, made), Sculpture)
    told = {**solid.told(), "text": job.words, "losses": made.losses | painted.losses}
    colours = ColourGrid(**painted.colours).requires_grad_(False)
    return finish(job.source, made, lambda clean: colours, solid.frustum.camera, s.finish, run, told, drawn=True)


def asks(s: DreamCraft3D, priors: Mapping[Any, Prior]) -> Mapping[Any, Asked]:
    """What both priors are asked for, and a third that paints."""
    sculpted, (levels, refresh) = s.hybrid.asked(s.coarse.steps // 2 + s.steps, negatives=2), schedule(s)
    steps = [n for n in range(s.boost) if n % 2 or refresh.is_learning(n)]
    learnt = bootstrapped(refresh, levels, steps, s.hybrid.around.views, 1 if s.boost_guidance == 1 else 2)
    return {**sculpted, "paint": learnt} if "paint" in priors else {**sculpted, "text": sculpted["text"].and_then(learnt)}


def schedule(s: DreamCraft3D) -> tuple[Levels, Refresh]:
    """Of stage boost: its levels, and five refreshes, as of 5000 steps."""
    turns = max(s.boost // 5, 3)
    refresh = Refresh(every=turns, learning=max(turns // 5, 1), each=max(turns // 40, 1), steps=10)
    return Levels(Ramp(0.05, 0.05), Ramp(0.5, 0.2, 0, s.boost)), refresh


def coarse(job: Job[DreamCraft3D], solid: Solid) -> Sculpture:
    """A field that the picture and both priors agree on, as a DMTet."""
    s, c, rough = job.settings, job.settings.coarse, rough_surface(job, solid)
    framed = Framed.of(job.source, solid.frustum.camera, *rough, SHOWN)
    volume, soon = field_of(solid, rough, c, seed=job.seed), max(c.steps // 25, 1)
    anneal = Levels(Ramp(0.7, 0.2, 0, soon), Ramp(0.85, 0.5, 0, soon))
    pulls = s.hybrid.pulls(job, solid, framed, c.around, (anneal, anneal), sides="perp-neg")
    picture = s.held.shown(job, solid, c.picture), s.held.relief(job, solid, c.picture)
    terms: list[Term] = [*(When(x, even) for x in picture), *(When(pull, odd) for pull in pulls), s.held.regular()]
    losses = optimise(volume, terms, job.run, "coarse", steps=c.steps, seed=job.seed)
    return handed_on(tets_of(volume, s.cells, Course(0.5), s.colours), losses)


def geometry(job: Job[DreamCraft3D], solid: Solid, framed: Framed, carved: Sculpture) -> Sculpture:
    """The DMTet, sculpted on."""
    s, held = job.settings, job.settings.held
    tets = resumed(carved, Course(0.5, smooth=5, colour_lr=0.02))
    levels = Levels(Ramp(0.02, 0.02), Ramp(0.5, 0.5)), Levels(Ramp(0.2, 0.2), Ramp(0.5, 0.5))
    terms: list[Term] = [
        When(held.shown(job, solid, s.picture), lambda step: step.number % 4 == 0),
        When(held.shown(job, solid, s.picture, colours=False), lambda step: step.number % 4 != 0),
        *s.hybrid.pulls(
            job, solid, framed, s.picture, levels, sides="perp-neg", shows=lambda step: "normal" if step.number % 4 else "colour"
        ),
        held.regular(),
    ]
    return handed_on(tets, optimise(tets, terms, job.run, "geometry", steps=s.steps, seed=job.seed + 1))


def boost(job: Job[DreamCraft3D], solid: Solid, framed: Framed, made: Sculpture) -> Sculpture:
    """Colours on the mesh as it is."""
    s, draw, prior = job.settings, torch.Generator().manual_seed(job.seed), job.painter
    updates = [adapted(prior, LoRA(s.rank), generator=draw) for _ in range(2)]
    booth, phi = (Learner(x, torch.optim.AdamW(x.parameters(), lr=s.learning)) for x in updates)
    levels, refresh = schedule(s)
    around = lambda step: s.hybrid.around(framed.azimuth, step)  # noqa: E731
    unknown = {k: torch.zeros_like(v) for k, v in prior.condition().items() if k == "token"}  # as released: not the empty text
    how = framed, around, levels, s.boost_weight, s.boost_guidance, s.picture
    pull = Bootstrapped(prior, *how, text=job.words, name="bsd", sides="told", booth=booth, own=phi, refresh=refresh, unknown=unknown)
    picture = Shown(job.source, solid.frustum.camera, s.picture, mask=0.0, rgb=s.held.rgb_weight, colours=absolute_inside())
    painted = Painted(made.vertices, made.faces, ColourGrid(**made.colours), 0.2)
    is_shown = lambda step: even(step) and not refresh.is_learning(step.number)  # noqa: E731  # a refresh has each of its steps
    terms: list[Term] = [When(picture, is_shown), When(pull, lambda step: not is_shown(step)), s.held.regular()]
    losses = optimise(painted, terms, job.run, "boost", steps=s.boost, seed=job.seed + 2)
    return replace(made, colours=dict(painted.colours.state_dict()), losses=losses)


RECIPE = Recipe(
    "dreamcraft3d",
    {"draft": DreamCraft3D(**DRAFT, boost=40), "standard": DreamCraft3D(), "fine": DreamCraft3D(**FINE, boost=2000)},
    lift,
    stages={"guess": 0.01, "coarse": 0.5, "geometry": 0.25, "boost": 0.2, "clean": 0.01, "texture": 0.03},
    needs=("first_guess", "text", "views"),
    about="a 2D and a 3D prior sculpt together, and one that learns paints",
    asks=asks,
    extras=("paint",),
    compares=True,
)
