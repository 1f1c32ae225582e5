# SPDX-License-Identifier: Apache-2.0
"""Recipe `wonder3d` (Long et al. 2023, arXiv:2310.15008): six views and their normals in one sample, and a surface that agrees with all.

1. guess    the solid behind the picture, as in every recipe: its camera, and where the object's middle is
2. views    six colours and six normals round the picture's up axis (`priors.wonder3d`), written beside the asset as `drawn.png`
3. fuse     a signed distance, or a DMTet, that has the drawn outlines, normals and colours, the worst of each left out (`fit.fused`)
4. clean, texture  as everywhere: what the picture shows has its pixels, the rest the drawn views', and the guess's where none sees it

The drawn views are orthographic, and the picture is taken for one: so the crop's camera is moved as far away as `FLAT` says, and the
guessed solid, which lives in its frustum, with it. Differs from the released code: the surface begins as the guess in the drawn outlines,
where there it is a ball; and pictures show a deep object smaller (`framed`), where there all outlines are as large.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from bozzetto.brief import brief
from bozzetto.fit.asset import png
from bozzetto.fit.drawings import Drawing, Drawings, colours_from, draw_framed
from bozzetto.fit.finish import Finish, Lifted, finish
from bozzetto.fit.framed import Framed
from bozzetto.fit.fused import Drawn, Fusing, fuse
from bozzetto.fit.recipe import Job, Recipe
from bozzetto.fit.sculpt import Sculpture, rough_surface
from bozzetto.fit.settings import Within
from bozzetto.fit.solid import Solid
from bozzetto.fit.source import Source
from bozzetto.priors import domains

FLAT = 0.05
"""strength of perspective that stands for none: the nearest that `Solid.guess` knows"""
SHARE = 0.75
"""of a picture's width that the outline's longer side takes: 192 of 256 pixels, as in the released code"""
MOST = 0.9
"""of a picture's width that the guessed solid may take in any view; training had .74 at most, the diagonal of its box in 1.35"""
TRUST = (1.0, 0.8, 0.2, 1.0, 0.4, 0.7)
"""in front, front right, right, back, left and front left, as released"""


@dataclass(frozen=True)
class Wonder3D:
    """Lift by six drawn views and their normals."""

    drawing: Drawing = Drawing(batch=1)
    fusing: Fusing = Fusing()
    share: Annotated[float, Within(0.1, 1)] = SHARE
    """of the prior's picture that the outline's longer side takes; less where the object is so deep that another view would cut it off"""
    finish: Finish = Finish()


@brief
@dataclass(frozen=True)
class Twelve:
    """pictures (12, H, W, 3): six normals, six colours."""

    pictures: Tensor


def lift(job: Job[Wonder3D]) -> Lifted:
    """Picture to textured mesh."""
    s, run, prior = job.settings, job.run, job.prior("normals")
    solid = replace(job.guess(), p=FLAT)
    framing = framed(job.source, solid, rough_surface(job, solid), prior.size, s.share)
    ring = prior.views(framing.reference(prior.background))

    def draw() -> Twelve:
        return Twelve(draw_framed(framing, prior, ring, solid.colours, s.drawing, seed=job.seed, progress=run.progress))

    twelve = run.stage("views", draw, Twelve)
    views = domains.to_views(twelve.pictures, framing.placed(ring))
    made = run.stage("fuse", lambda: fuse(job, Drawn(views, torch.tensor(TRUST), True), solid, s.fusing), Sculpture)
    alpha = views.alpha[..., 0]
    drawings = Drawings(views.rgb / views.alpha.clamp(min=1e-3), alpha, torch.ones_like(alpha))
    told = {**solid.told(), "width": round(framing.width, 4), "losses": made.losses}
    return finish(
        job.source,
        made,
        lambda clean: colours_from(drawings, views.cameras, clean, solid.colours),
        solid.frustum.camera,
        s.finish,
        run,
        told,
        drawn=True,
        files=lambda clean: {"drawn.png": png(sheet(twelve.pictures))},
    )


def framed(source: Source, solid: Solid, rough: tuple[Tensor, Tensor], size: int, share: float) -> Framed:
    """The object as Wonder3D's pictures show it: the middle of its box in the centre, the outline's longer side a `share` of the width;
    smaller, so that the solid takes MOST of it, where that would cut it off in some view of the ring.

    rough  the solid's vertices and faces, in the crop's frame; size is that of the pictures
    """
    camera, (vertices, faces) = solid.frustum.camera, rough
    low, high = vertices.amin(0).double(), vertices.amax(0).double()
    middle = (low + high) / 2
    x, y, z = ((vertices.double() - middle) @ camera.c2w[0, :, :3]).unbind(1)  # right, up, towards the eye
    reach = float(torch.maximum(torch.hypot(x, z), y.abs()).max())
    shown = source.crop(camera.size[0]).alpha > 0.5
    pixels = max(int(shown.any(k).nonzero().max() - shown.any(k).nonzero().min()) + 1 for k in (0, 1))
    outline = pixels / float(camera.K[0, 0, 0]) * float(camera.project(middle[None])[1])
    return Framed.of(source, camera, vertices, faces, size, max(outline / share, 2 * reach / MOST) / float((high - low).max()))


def sheet(pictures: Tensor) -> Tensor:
    """(2 H, 6 W, 3): normals above, colours below."""
    return torch.cat([torch.cat(list(row), 1) for row in pictures.chunk(2)])


RECIPE = Recipe(
    "wonder3d",
    {
        "draft": Wonder3D(fusing=Fusing(by="dmtet", steps=100), finish=Finish(faces=10_000)),
        "standard": Wonder3D(),
        "fine": Wonder3D(Drawing(steps=50, batch=1), Fusing(steps=3000), finish=Finish(faces=60_000)),
    },
    lift,
    stages={"guess": 0.01, "views": 0.45, "fuse": 0.45, "clean": 0.02, "texture": 0.07},
    needs=("first_guess", "normals"),
    about="a diffusion prior draws six views and their normals, and a surface is made of them",
    asks=lambda s, priors: {"normals": s.drawing.asked(priors["normals"], 1)},
)
