# SPDX-License-Identifier: Apache-2.0
"""Recipe `syncdreamer` (Liu et al. 2023, arXiv:2309.03453): sixteen views drawn together, and a surface that meets them.

1. guess    the solid behind the picture, as in every recipe: its camera and elevation, and what the surface begins with
2. views    sixteen, 30 degrees above the object and 22.5 degrees apart, the first at the picture's azimuth. A joint prior
            (`priors.syncdreamer`) draws them as one sample. Any Zero-1-to-3, such as the embedded one, draws them one by one: then they
            agree with the picture and not with each other, which is what the paper compares with
3. fuse     NeuS on the drawings, and on the picture as one view more (`fit.fused`); or, where the prior is not to be believed so far, as
            the embedded one is not, the guess, carved and coloured by them (`fit.doubted`)
4. clean, texture  as everywhere: what the picture shows has its pixels, the rest those of the drawings that see it squarely

The drawings lie beside the asset, as `views.png`. The object's size in the picture is told to the prior by the guess: the longest side of
its box is 1 at a distance of 1.5 under a focal length of 280 of 256 pixels, as in training, so that a ball is 198 pixels wide; the
released code scales every outline to 200. Differs, too: the field begins as the guess, so that hundreds of steps do for 2000; colours
and outlines of the drawings that agree least with the others are left out, as in Wonder3D's fusion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.fit import doubted
from bozzetto.fit.asset import png
from bozzetto.fit.clean import Clean
from bozzetto.fit.doubted import Doubt
from bozzetto.fit.drawings import Drawing, Drawings, colours_from, draw_framed, draw_own
from bozzetto.fit.finish import Finish, Lifted, finish
from bozzetto.fit.framed import Framed, frame_of
from bozzetto.fit.fused import Drawn, Fusing, fuse
from bozzetto.fit.recipe import Job, Recipe
from bozzetto.fit.sculpt import Sculpture, rough_surface
from bozzetto.fit.settings import Within
from bozzetto.fit.silhouette import Surface
from bozzetto.fit.solid import Colours, Solid
from bozzetto.priors.plan import Asked
from bozzetto.priors.prior import Prior
from bozzetto.priors.sync_volume import ELEVATION
from bozzetto.shapes.colours import ColourGrid
from bozzetto.views import Views

VIEWS = 16
ROW = 4  # of the sheet
SURE = 0.97  # share of the views in whose outlines a point must be to be solid at first: of two that see a face from the side, both


@dataclass(frozen=True)
class SyncDreamer:
    """Lift by sixteen views that a prior draws, together where it can."""

    drawing: Drawing = Drawing()
    size: Annotated[int, Within(32, 1024)] = 256
    """pixels a side at which the picture is shown to the prior; at least as many as it draws"""
    own: Annotated[float, Within(0, 100)] = 1.0
    """trust in the picture as one more view, where each drawn one has 1; 0 leaves it out"""
    doubt: Doubt = Doubt()
    fusing: Fusing = Fusing(eikonal_weight=0.1, kept_mask=SURE)
    finish: Finish = Finish()


def lift(job: Job[SyncDreamer]) -> Lifted:
    """Picture to textured mesh."""
    run, s, solid = job.run, job.settings, job.guess()
    framed = framed_for(job, solid)
    around = cameras_around(framed, job.views)
    drawings = run.stage("views", lambda: draw(job, framed, around, solid.colours), Drawings)
    placed = framed.placed(around.resized(drawings.pictures.shape[1]))
    made: Surface | Sculpture
    colours: Callable[[Clean], Colours]
    if s.doubt.of(job.views):
        made, colours = doubted.doubted(job, solid, drawings, placed, s.doubt, "fuse")
    else:
        made = run.stage("fuse", lambda: fuse(job, drawn(job, solid, drawings, placed), solid, s.fusing), Sculpture)
        grid = ColourGrid(**made.colours).requires_grad_(False)
        colours = lambda clean: colours_from(drawings, placed, clean, grid)  # noqa: E731
    sheet = {"views.png": png(in_rows(drawings.pictures))}
    told = {**solid.told(), "trust": round(float(drawings.trust.mean()), 4), "losses": made.losses}
    return finish(job.source, made, colours, solid.frustum.camera, s.finish, run, told, drawn=True, files=lambda clean: sheet)


def framed_for(job: Job[SyncDreamer], solid: Solid) -> Framed:
    """The picture as the prior's training showed objects."""
    size = max(job.settings.size, job.views.size)
    return Framed.of(job.source, solid.frustum.camera, *rough_surface(job, solid), size, frame_of(job.views))


def cameras_around(framed: Framed, prior: Prior) -> Camera:
    """What is drawn from, relative to the object's centre. A joint prior has cameras of its own; a prior of single views is asked for
    the picture's own distance and lens, since a pose code's change of distance is 0 then."""
    if (own := framed.own(prior)) is not None:
        return own
    return framed.cameras([framed.azimuth + 2 * math.pi * k / VIEWS for k in range(VIEWS)], [ELEVATION] * VIEWS)


def draw(job: Job[SyncDreamer], framed: Framed, around: Camera, guessed: Colours) -> Drawings:
    """One sample of all views, at the prior's size."""
    prior, s = job.views, job.settings
    if prior.views() is None:
        pictures = draw_framed(framed, prior, around, guessed, s.drawing, seed=job.seed, progress=job.run.progress)
    else:
        pictures = draw_own(framed, prior, s.drawing, seed=job.seed, progress=job.run.progress)
    return Drawings.of(pictures[None], prior.background)


def drawn(job: Job[SyncDreamer], solid: Solid, drawings: Drawings, placed: Camera) -> Drawn:
    """What the surface is fused from: the drawings, and the picture beside them."""
    size, alpha = placed.size[0], drawings.alpha[..., None]
    rgb = torch.minimum((drawings.pictures - (1 - alpha) * job.views.background).clamp(min=0), alpha)  # off the paper
    weight = torch.ones(len(alpha))
    if job.settings.own:
        crop = job.source.crop(size)
        placed = Camera.joined([placed, solid.frustum.camera.resized(size)])
        rgb, alpha = torch.cat([rgb, crop.rgb[None]]), torch.cat([alpha, crop.alpha[None, ..., None]])
        weight = F.pad(weight, (0, 1), value=job.settings.own)
    return Drawn(Views(rgb, alpha, torch.zeros_like(alpha), torch.zeros_like(rgb), placed), weight, has_normals=False)


def in_rows(pictures: Tensor) -> Tensor:
    """(H', W', 3) of pictures (V, H, W, 3), ROW of them beside each other."""
    return torch.cat([torch.cat(list(row), 1) for row in pictures.split(ROW)], 0)


def asks(s: SyncDreamer, priors: Mapping[Any, Prior]) -> Mapping[Any, Asked]:
    """One sample of a joint prior, or one of each view."""
    return {"views": s.drawing.asked(priors["views"], VIEWS if priors["views"].views() is None else 1)}


COARSE = Fusing(by="dmtet", steps=60, picture=64, cells=32, colours=32, kept_mask=SURE)
LONG = Fusing(steps=1500, rays=2048, cells=96, colours=128, eikonal_weight=0.1, kept_mask=SURE)
RECIPE = Recipe(
    "syncdreamer",
    {
        "draft": SyncDreamer(doubt=doubted.DRAFT, fusing=COARSE, finish=Finish(faces=10_000)),
        "standard": SyncDreamer(),
        "fine": SyncDreamer(doubt=doubted.FINE, fusing=LONG, finish=Finish(faces=60_000)),
    },
    lift,
    stages={"guess": 0.02, "views": 0.3, "fuse": 0.55, "clean": 0.03, "texture": 0.1},
    needs=("first_guess", "views"),
    about="sixteen views that a prior draws together, or any Zero-1-to-3 one by one, and a surface that meets them",
    asks=asks,
    joint=True,
)
