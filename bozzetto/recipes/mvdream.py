# SPDX-License-Identifier: Apache-2.0
"""Recipe `mvdream` (Shi et al. 2023, arXiv:2308.16512): a text to an object by a prior that draws four of its views together.

1. coarse    a ball of fog, a density on a hash grid, under score distillation in groups of four views a quarter turn apart
             (`fit.together`): each group shares its elevation, field of view and distance. Levels fall within the first four fifths, the
             largest from .98 to .5 of all, the smallest from .98 to .02
2. fine      a DMTet from the density, levels .02 to .5
3. clean, texture  as everywhere; all colours are the prior's

Settings are the released code's where they carry over: levels, guidance 50 with the spread of x0 half brought back, cameras, learning
rates, the text that guidance leads away from. Differs: its plain configuration is followed, whose colours are not shaded and whose
normals no loss sees; hundreds of steps for its 10,000; the background is a random grey for each group, as in the prior's training, where
it has a learnt environment; the mesh of the second stage is ours. No picture is drawn: there is no guess, and no front to keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from bozzetto.distill.sds import Levels, Ramp
from bozzetto.fit.finish import Finish, Lifted, finish
from bozzetto.fit.fog import Fog
from bozzetto.fit.loop import Term, optimise, own
from bozzetto.fit.recipe import Job, Recipe
from bozzetto.fit.sculpt import Sculpture, handed_on, resumed, tets_of
from bozzetto.fit.settings import Within
from bozzetto.fit.together import Groups, Together
from bozzetto.priors.plan import Asked
from bozzetto.priors.prior import Prior
from bozzetto.shapes.colours import ColourGrid
from bozzetto.shapes.tets import Course

AWAY = (
    "ugly, bad anatomy, blurry, pixelated obscure, unnatural colors, poor lighting, dull, and unclear, cropped, lowres, low quality, "
    "artifacts, duplicate, morbid, mutilated, poorly drawn face, deformed, dehydrated, bad proportions"
)  # the released configuration's


@dataclass(frozen=True)
class MVDream:
    """Lift a text by a prior of several views together."""

    fog: Fog = Fog()
    groups: Groups = Groups()
    weight: Annotated[float, Within(0, 1e6)] = 0.1
    """what the prior finds likely, summed over latents"""
    guidance: Annotated[float, Within(-200, 200)] = 50.0
    """1 follows the text, more does so harder"""
    rescale: Annotated[float, Within(0, 1)] = 0.5
    """how far guidance's result goes back to the spread that it has without guidance"""
    stray: Annotated[float, Within(0, 1)] = 0.5
    """how far the grey behind a group of views strays from the prior's own"""
    sparse_weight: Annotated[float, Within(0, 1e6)] = 0.01
    """against fog in a density"""
    keep_weight: Annotated[float, Within(0, 1e6)] = 0.02
    """how much a DMTet stays with the field, squared grid cells"""
    smooth_weight: Annotated[float, Within(0, 1e6)] = 1.0
    """normals of neighbouring vertices alike"""
    steps: Annotated[int, Within(1, 100_000)] = 200
    """of stage fine"""
    picture: Annotated[int, Within(16, 1024)] = 128
    """pixels a side of what is rendered of the mesh"""
    cells: Annotated[int, Within(8, 128)] = 48
    """of the DMTet's grid, before its subdivision"""
    colours: Annotated[int, Within(2, 256)] = 64
    """cells a side of the grid of colours"""
    finish: Finish = Finish()


def lift(job: Job[MVDream]) -> Lifted:
    """Text to textured mesh."""
    run = job.run
    carved = run.stage("coarse", lambda: coarse(job), Sculpture)
    made = run.stage("fine", lambda: fine(job, carved), Sculpture)
    grid, told = ColourGrid(**made.colours).requires_grad_(False), {"text": job.words, "losses": made.losses}
    return finish(None, made, lambda clean: grid, None, job.settings.finish, run, told, drawn=True)


def asks(s: MVDream, _: Mapping[Any, Prior]) -> Mapping[Any, Asked]:
    """What the prior is asked for: objects, each of several views."""
    objects = (s.fog.steps + s.steps) * s.groups.count
    return {"multiview": Asked(objects * (1 if s.guidance == 1 else 2), s.groups.count, pulled=objects)}


def pull(job: Job[MVDream], levels: Levels, size: int) -> Together:
    """The prior's, under the text."""
    s, prior = job.settings, job.prior("multiview")
    said = job.words + getattr(prior, "suffix", "")
    return Together(prior, s.groups, levels, s.weight, s.guidance, s.rescale, size, said, AWAY, s.stray)


def coarse(job: Job[MVDream]) -> Sculpture:
    """A density from fog, as a DMTet."""
    s, volume, most = job.settings, job.settings.fog.volume(job.seed), max(job.settings.fog.steps * 4 // 5, 1)
    levels = Levels(Ramp(0.98, 0.02, 0, most), Ramp(0.98, 0.5, 0, most))
    terms: list[Term] = [pull(job, levels, s.fog.size), own({"sparse": s.sparse_weight})]
    losses = optimise(volume, terms, job.run, "coarse", steps=s.fog.steps, seed=job.seed)
    return handed_on(tets_of(volume, s.cells, Course(0.5), s.colours), losses)


def fine(job: Job[MVDream], carved: Sculpture) -> Sculpture:
    """The DMTet, sculpted and coloured on."""
    s, tets = job.settings, resumed(carved, Course(0.5, smooth=5, colour_lr=0.02))
    levels = Levels(Ramp(0.02, 0.02), Ramp(0.5, 0.5))
    terms: list[Term] = [pull(job, levels, s.picture), own({"keep": s.keep_weight, "smooth": s.smooth_weight})]
    return handed_on(tets, optimise(tets, terms, job.run, "fine", steps=s.steps, seed=job.seed + 1))


DRAFT = Fog(steps=200, size=40, levels=8, sections=12)
FINE = Fog(steps=6000, size=128, levels=16, sections=32)
RECIPE = Recipe(
    "mvdream",
    {
        "draft": MVDream(DRAFT, steps=40, picture=64, cells=40, colours=48, finish=Finish(faces=10_000)),
        "standard": MVDream(),
        "fine": MVDream(FINE, Groups(count=2), steps=2500, picture=256, cells=96, colours=192, finish=Finish(60_000, 2048)),
    },
    lift,
    stages={"coarse": 0.7, "fine": 0.25, "clean": 0.02, "texture": 0.03},
    needs=("multiview",),
    about="a text alone, by a prior that draws four views of an object together",
    asks=asks,
    starts_from="text",
)
