# SPDX-License-Identifier: Apache-2.0
"""Recipe `sweetdreamer` (Li et al. 2023, arXiv:2310.02596): a 2D prior of text, and an aligned one of coordinate maps that lays out.

1. guess     the solid behind the picture, as in every recipe: the camera, and the first shape and colours. Without a picture a ball of fog
             stands in its place, as in the paper
2. geometry  a density on a hash grid: lambda_ori L_SDS(rgb; text) + lambda_align L_SDS(map; text, camera) (Sec. 3.2), and the picture's
             own view. As released the maps have the first quarter to themselves, at twenty times their weight; then the 2D prior joins
3. paint     the mesh stays, colours by L_SDS(rgb; text) alone
4. clean, texture  as everywhere: what the picture shows has its pixels

Settings are the released code's where they carry over: guidance 21 in geometry and 101 in paint (the code writes
cond + 20 (cond - uncond), and 100), for the maps, too; levels from .02 to .98, whose upper end falls to .5 over five sixths of geometry
and two fifths of paint; sides told in words, front and back within 45 degrees; distances and angles of the maps' cameras. There geometry
takes 6000 steps at 64 pixels; where it begins as the guess (`fit.sculpt`), hundreds do.
Differs: the box of the maps is smoothed (`fit.aligned`); colours alone move in the last stage, as in the paper's DMTet pipeline, where the
released second stage goes on with geometry; no orientation loss, no environment, guided colours are not rescaled. Maps are of objects in
their canonical pose: --azimuth-deg should say which side the picture shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from torch import Tensor

from bozzetto.distill.sds import Levels, Ramp
from bozzetto.fit.aligned import Aligned, MovingBox
from bozzetto.fit.around import Around
from bozzetto.fit.finish import Finish, Lifted, finish
from bozzetto.fit.fog import begun, unseen
from bozzetto.fit.framed import Framed
from bozzetto.fit.hybrid import DRAFT, FINE, Held
from bozzetto.fit.loop import Term, When, optimise
from bozzetto.fit.recipe import Job, Recipe
from bozzetto.fit.sculpt import SHOWN, Coarse, Sculpture, handed_on, tets_of
from bozzetto.fit.settings import Within
from bozzetto.fit.solid import Solid
from bozzetto.fit.terms import Pull
from bozzetto.priors.plan import Asked
from bozzetto.priors.prior import Prior
from bozzetto.shapes.colours import ColourGrid
from bozzetto.shapes.painted import Painted
from bozzetto.shapes.shape import Step
from bozzetto.shapes.tets import Course


@dataclass(frozen=True)
class SweetDreamer:
    """Lift by a prior of text and one of coordinate maps."""

    coarse: Coarse = Coarse(steps=300)
    steps: Annotated[int, Within(1, 100_000)] = 200
    """of stage paint"""
    picture: Annotated[int, Within(32, 1024)] = 128
    """pixels a side of what is rendered of a mesh"""
    cells: Annotated[int, Within(8, 128)] = 48
    """of the mesh's grid, across the field's box"""
    colours: Annotated[int, Within(2, 256)] = 64
    """cells a side of the grid of colours"""
    around: Around = Around(views=1, lowest_deg=-10, highest_deg=45)
    weight_2d: Annotated[float, Within(0, 1e6)] = 0.005
    """what the text's prior finds likely, summed over latents"""
    weight_align: Annotated[float, Within(0, 1e6)] = 0.005
    """what the maps' prior finds likely, summed over a map, once the other has joined; 20 times as much before"""
    guidance: Annotated[float, Within(-200, 200)] = 21.0
    """of both priors in stage geometry"""
    guidance_paint: Annotated[float, Within(-200, 200)] = 101.0
    """of the text's prior in stage paint"""
    smooth: Annotated[float, Within(0.01, 1)] = 0.1
    """share of the way to the shape's box that the maps' box goes at each look; 1 is not smoothed"""
    held: Held = Held()
    finish: Finish = Finish()

    def turns(self, framed: Framed, solid: Solid | None) -> Callable[[Step], tuple[Tensor, Tensor]]:
        """A step's azimuths and elevations: near the picture's at first, or from all round."""
        around = self.around if solid else replace(self.around, near_deg=180)
        return lambda step: around(framed.azimuth, step)


def lift(job: Job[SweetDreamer]) -> Lifted:
    """Picture and text, or a text alone, to textured mesh."""
    run, solid = job.run, None if job.picture is None else job.guess()
    carved = run.stage("geometry", lambda: geometry(job, solid), Sculpture)
    made = run.stage("paint", lambda: paint(job, solid, carved), Sculpture)
    told = {**(solid.told() if solid else {}), "text": job.words, "losses": carved.losses | made.losses}
    colours, camera = ColourGrid(**made.colours).requires_grad_(False), solid.frustum.camera if solid else None
    return finish(job.picture, made, lambda clean: colours, camera, job.settings.finish, run, told, drawn=True)


def joins(steps: int) -> int:
    """The step of geometry from which the prior of text counts."""
    return steps // 4


def asks(s: SweetDreamer, priors: Mapping[Any, Prior]) -> Mapping[Any, Asked]:
    """What both priors are asked for, and a third that paints."""
    views, sculpts = s.around.views, s.coarse.steps - joins(s.coarse.steps)
    told, maps, paints = (
        Asked(n * views * (1 if g == 1 else 2), views, pulled=n * views)
        for n, g in ((sculpts, s.guidance), (s.coarse.steps, s.guidance), (s.steps, s.guidance_paint))
    )
    painted = {"text": told, "paint": paints} if "paint" in priors else {"text": told.and_then(paints)}
    return {**painted, "coordinates": maps}


def geometry(job: Job[SweetDreamer], solid: Solid | None) -> Sculpture:
    """A density that both priors agree on, and the picture, as a mesh."""
    s, c = job.settings, job.settings.coarse
    volume, rough, framed = begun(job, solid, c)
    join, often = joins(c.steps), max(c.steps // 30, 1)
    views = framed, s.turns(framed, solid), Levels(Ramp(0.02, 0.02), Ramp(0.98, 0.5, 0, 5 * c.steps // 6))
    text = Pull(job.text_prior, *views, s.weight_2d, s.guidance, c.around, text=job.words, name="sds_2d", sides="told")
    weight, box = Ramp(20 * s.weight_align, s.weight_align, join, join), MovingBox(rough, s.smooth)
    align = Aligned(job.coordinates, *views, weight, s.guidance, c.around, text=job.words, box=box, every=often)
    terms: list[Term] = [When(text, lambda step: step.number >= join), align, s.held.regular()]
    terms += [s.held.shown(job, solid, c.picture)] if solid else []
    losses = optimise(volume, terms, job.run, "geometry", steps=c.steps, seed=job.seed)
    return handed_on(tets_of(volume, s.cells, Course(0.5), s.colours), losses)


def paint(job: Job[SweetDreamer], solid: Solid | None, carved: Sculpture) -> Sculpture:
    """Colours on the mesh as it is."""
    s, mesh = job.settings, (carved.vertices, carved.faces)
    framed = Framed.of(job.source, solid.frustum.camera, *mesh, SHOWN) if solid else unseen(carved.vertices)
    how = framed, s.turns(framed, solid), Levels(Ramp(0.02, 0.02), Ramp(0.98, 0.5, 0, 2 * s.steps // 5)), s.weight_2d, s.guidance_paint
    pull = Pull(job.painter, *how, s.picture, text=job.words, name="sds_paint", sides="told")
    painted = Painted(*mesh, ColourGrid(**carved.colours), 0.2)
    terms: list[Term] = [pull, s.held.regular(), *([s.held.shown(job, solid, s.picture)] if solid else [])]
    losses = optimise(painted, terms, job.run, "paint", steps=s.steps, seed=job.seed + 1)
    return replace(carved, colours=dict(painted.colours.state_dict()), losses=losses)


RECIPE = Recipe(
    "sweetdreamer",
    {"draft": SweetDreamer(**DRAFT), "standard": SweetDreamer(), "fine": SweetDreamer(**FINE)},
    lift,
    stages={"guess": 0.01, "geometry": 0.7, "paint": 0.2, "clean": 0.02, "texture": 0.07},
    needs=("first_guess", "text", "coordinates"),
    about="a 2D prior, and one of coordinate maps that lays out",
    asks=asks,
    extras=("paint",),
    starts_from="either",
)
