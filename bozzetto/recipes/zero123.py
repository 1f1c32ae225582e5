# SPDX-License-Identifier: Apache-2.0
"""Recipe `zero123`: the first guess, then what Zero-1-to-3 (arXiv:2303.11328) finds likely from every other side.

1. guess     the solid behind the picture, and a DMTet that meets its silhouette: as recipe `guess`
2. distill   shape and colours moved by score distillation (arXiv:2209.14988) in views round the object, each under the picture
             and its relative pose, while the picture's own view is held to the picture. Views begin near the picture's and
             spread; halfway the grid is subdivided, and in the last third only colours move
3. clean, texture as there, hidden texels from the distilled colours

Distillation settings are threestudio's for Zero-1-to-3 (levels, guidance 3, weights of distillation and colours); its NeRF is an SDF on
DMTet's grid with a grid of colours here, which needs a few hundred steps instead of thousands, as the guess has done the rest. The
mask weighs ten times what it does there: a mesh's outline has a gradient at its edge alone. Views end at 60 degrees, not at 80. The
picture's losses are means over pixels, the distillation's a sum over latents, as there: its weight is meant for 32 x 32 x 4 of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
from torch import Tensor

from bozzetto.distill.sds import Levels, Ramp
from bozzetto.fit.around import Around
from bozzetto.fit.finish import Finish, Lifted, finish
from bozzetto.fit.framed import Framed
from bozzetto.fit.loop import Term, optimise, own
from bozzetto.fit.recipe import Job, Recipe
from bozzetto.fit.settings import Within
from bozzetto.fit.silhouette import Silhouette, Surface, meet_silhouette
from bozzetto.fit.solid import Solid
from bozzetto.fit.terms import Pull, Shown
from bozzetto.priors.plan import Asked
from bozzetto.shapes.colours import ColourGrid
from bozzetto.shapes.dmtet import DMTet
from bozzetto.shapes.tets import Course, Tets

SHOWN = 512  # pixels a side at which the prior is shown the picture; it resizes to its own


def levels_of(steps: int) -> Levels:
    """threestudio's: falling over the first third of the steps (200 of 600)."""
    return Levels(Ramp(0.4, 0.2, 0, steps // 3), Ramp(0.85, 0.5, 0, steps // 3))


@dataclass(frozen=True)
class Zero123:
    """Lift by the first guess and distillation."""

    guess: Silhouette = Silhouette(steps=60)
    """of the first stage"""
    steps: Annotated[int, Within(1, 100_000)] = 300
    """of distillation"""
    around: Around = Around()
    picture: Annotated[int, Within(32, 1024)] = 128
    """pixels a side of what is rendered; the prior resizes it to its own"""
    guidance: Annotated[float, Within(-100, 100)] = 3.0
    """1 follows the picture, more does so harder"""
    levels: Levels = field(default_factory=lambda: levels_of(300))
    lr: Annotated[float, Within(0, 1)] = 0.5
    """largest step of a distance, in grid cells"""
    colour_lr: Annotated[float, Within(0, 10)] = 0.05
    """step of the colours' logits"""
    colours: Annotated[int, Within(2, 256)] = 64
    """cells a side of the grid of colours"""
    distill_weight: Annotated[float, Within(0, 1e6)] = 0.1
    """what the prior finds likely, summed over latents"""
    rgb_weight: Annotated[float, Within(0, 1e6)] = 500.0
    """the picture's colours, mean squared difference"""
    mask_weight: Annotated[float, Within(0, 1e6)] = 500.0
    """the picture's silhouette, mean squared difference"""
    keep_weight: Annotated[float, Within(0, 1e6)] = 0.02
    """how much the field stays with the guess, squared grid cells"""
    smooth_weight: Annotated[float, Within(0, 1e6)] = 1.0
    """normals of neighbouring vertices alike"""
    sign_weight: Annotated[float, Within(0, 1e6)] = 0.01
    """against floating bits and cavities"""
    still: Annotated[float, Within(0, 1)] = 0.67
    """share of the steps after which the shape stays as it is"""
    finish: Finish = Finish()


@dataclass(frozen=True)
class Distilled:
    """A surface (N, 3), (F, 3) of the crop's frame, its colours as `ColourGrid` has them, and the last losses."""

    vertices: Tensor
    faces: Tensor
    colours: dict[str, Tensor]
    losses: dict[str, float]


def lift(job: Job[Zero123]) -> Lifted:
    """Picture to textured mesh."""
    source, run, s = job.source, job.run, job.settings
    solid = job.guess()
    shape = run.stage("shape", lambda: meet_silhouette(source, solid, s.guess, run), Surface)
    made = run.stage("distill", lambda: distill(job, solid, shape), Distilled)
    grid = ColourGrid(**made.colours).requires_grad_(False)
    camera = solid.frustum.camera
    told = {**solid.told(), "losses": made.losses}
    return finish(source, made, lambda clean: grid, camera, s.finish, run, told, drawn=True)


def distill(job: Job[Zero123], solid: Solid, shape: Surface) -> Distilled:
    """The surface and the colours that the prior and the picture agree on."""
    s, camera = job.settings, solid.frustum.camera
    framed = Framed.of(job.source, camera, shape.vertices, shape.faces, SHOWN)  # as the prior's pictures show objects
    lower, upper = shape.vertices.amin(0), shape.vertices.amax(0)
    margin = 0.1 * (upper - lower).max()
    colours = ColourGrid.of(solid.colours, lower - margin, upper + margin, s.colours)
    tets = Tets(DMTet.from_state(shape.dmtet), Course(s.lr, smooth=5, still=s.still, colour_lr=s.colour_lr), colours)
    terms: list[Term] = [
        Shown(job.source, camera, s.picture, mask=s.mask_weight, rgb=s.rgb_weight),
        own({"keep": s.keep_weight, "smooth": s.smooth_weight, "sign": s.sign_weight}),
        Pull(
            job.views,
            framed,
            lambda step: s.around(framed.azimuth, step),
            s.levels,
            weight=s.distill_weight,
            guidance=s.guidance,
            size=s.picture,
            guessed=solid.colours,
        ),
    ]
    losses = optimise(tets, terms, job.run, "distill", steps=s.steps, seed=job.seed)
    with torch.no_grad():
        vertices, faces = tets.surface()
    return Distilled(vertices.float(), faces, dict(colours.state_dict()), losses)


DRAFT, FINE = Silhouette(cells=40, steps=40, picture=192), Silhouette(cells=72, steps=100, picture=384)
LONG = Zero123(steps=800, levels=levels_of(800))
RECIPE = Recipe(
    "zero123",
    {
        "draft": Zero123(guess=DRAFT, steps=60, levels=levels_of(60), finish=Finish(faces=10_000)),
        "standard": Zero123(),
        "fine": replace(LONG, guess=FINE, around=Around(views=4), picture=256, colours=128, finish=Finish(faces=60_000)),
    },
    lift,
    stages={"guess": 0.01, "shape": 0.08, "distill": 0.82, "clean": 0.02, "texture": 0.07},
    needs=("first_guess", "views"),
    about="goes on from the guess by score distillation",
    asks=lambda s, _: {"views": Asked(2 * s.steps * s.around.views, s.around.views, pulled=s.steps * s.around.views)},
)
