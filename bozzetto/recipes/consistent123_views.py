# SPDX-License-Identifier: Apache-2.0
"""Recipe `consistent123-views` (Weng et al. 2023, arXiv:2310.08092): views that a Zero-1-to-3 draws together, fused.

1. guess  the solid behind the picture, as in every recipe: the camera, and what the fusion begins with
2. views  V of them round the object in one sample: every view looks at the picture, and at the others (`priors.consistent123`); guidance
          fades from `drawing.guidance` to `fades_to`
3. fuse   the views and the picture as a surface with colours (`fit.fused`); or, where the prior is not to be believed so far, as the
          embedded one is not, the guess, carved by the drawn outlines and coloured by the views, as in recipe `views`
4. clean, texture  as everywhere: what the picture shows has its pixels

The paper ends with the views; what becomes of them is ours. Any Zero-1-to-3 will do: its own weights stay as they are, and what looks
across views is read from `joint/` of its folder, if that is there; else views look at the picture alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.fit import doubted
from bozzetto.fit.asset import png
from bozzetto.fit.clean import Clean
from bozzetto.fit.doubted import Doubt
from bozzetto.fit.drawings import Drawing, Drawings, draw_framed
from bozzetto.fit.finish import Finish, Lifted, finish
from bozzetto.fit.framed import Framed
from bozzetto.fit.fused import Drawn, Fusing, fuse
from bozzetto.fit.recipe import Job, Recipe
from bozzetto.fit.sculpt import SHOWN, Sculpture, rough_surface
from bozzetto.fit.settings import Within
from bozzetto.fit.silhouette import Surface
from bozzetto.fit.solid import Colours, Solid
from bozzetto.priors.consistent123 import VIEWS, Consistent123
from bozzetto.priors.plan import Asked
from bozzetto.priors.prior import Prior
from bozzetto.priors.zero123 import Zero123
from bozzetto.shapes.colours import ColourGrid
from bozzetto.views import Views


@dataclass(frozen=True)
class Consistent123Views:
    """Lift by views that are drawn together."""

    views: Annotated[int, Within(1, 64)] = VIEWS
    """drawn together, on a ring at the picture's elevation"""
    drawing: Drawing = Drawing()
    fades_to: Annotated[float, Within(-100, 100)] = 1.0
    """scale of guidance at the smallest noise"""
    self_attention: Literal["shared", "own"] = "shared"
    """shared: views look at the picture in place of themselves, as in the paper; own: as the prior was trained"""
    doubt: Doubt = Doubt()
    fusing: Fusing = Fusing()
    finish: Finish = Finish()


def lift(job: Job[Consistent123Views]) -> Lifted:
    """Picture to textured mesh."""
    run, s, solid = job.run, job.settings, job.guess()
    framed = Framed.of(job.source, solid.frustum.camera, *rough_surface(job, solid), SHOWN)
    prior = joint(job.views, s)
    cameras = framed.ring(s.views)
    made = run.stage("views", lambda: drawings(job, prior, framed, cameras, solid), Drawings)
    files = {"views.png": png(torch.cat([*made.pictures], 1))}
    shape: Surface | Sculpture
    colours: Callable[[Clean], Colours]
    if s.doubt.of(job.views):
        placed = framed.placed(cameras.resized(made.pictures.shape[1]))
        shape, colours = doubted.doubted(job, solid, made, placed, s.doubt, "fuse")
    else:
        shape = run.stage("fuse", lambda: fuse(job, drawn(framed, cameras, made), solid, s.fusing), Sculpture)
        grid = ColourGrid(**shape.colours).requires_grad_(False)
        colours = lambda clean: grid  # noqa: E731
    told = {**solid.told(), "trust": round(float(made.trust.mean()), 4), "losses": shape.losses}
    return finish(job.source, shape, colours, solid.frustum.camera, s.finish, run, told, drawn=True, files=lambda clean: files)


def joint(prior: Prior, s: Consistent123Views) -> Prior:
    """The prior, made to draw views together, where it is a Zero-1-to-3; any other is asked view by view."""
    if not isinstance(prior, Zero123):
        return prior
    made: Prior = Consistent123(prior, s.views, shared=s.self_attention == "shared", fades=(s.fades_to, 1.0))
    return made


def drawings(job: Job[Consistent123Views], prior: Prior, framed: Framed, cameras: Camera, solid: Solid) -> Drawings:
    """The views, at the prior's size."""
    told = job.settings.drawing
    pictures = draw_framed(framed, prior, cameras, solid.colours, told, seed=job.seed, progress=job.run.progress)
    return Drawings.of(pictures[None], prior.background)


def drawn(framed: Framed, cameras: Camera, made: Drawings) -> Drawn:
    """What the fusion is to agree with: the views, and the picture itself, which is trusted most."""
    size = made.pictures.shape[1]
    own = framed.cameras([framed.azimuth], [framed.elevation])
    alpha = torch.cat([shrunk(framed.alpha[None, ..., None], size), made.alpha[..., None]])
    rgb = torch.cat([shrunk(framed.rgb[None], size), made.pictures * made.alpha[..., None]])
    placed = framed.placed(Camera.joined([own, cameras])).resized(size)
    weight = torch.cat([torch.ones(1), made.trust.mean((1, 2))])
    return Drawn(Views(rgb, alpha, torch.zeros_like(alpha), torch.zeros_like(rgb), placed), weight, has_normals=False)


def shrunk(pictures: Tensor, size: int) -> Tensor:
    """Pictures (V, H, W, C) at size pixels a side."""
    return torch.nn.functional.interpolate(pictures.movedim(-1, 1), (size, size), mode="area").movedim(1, -1)


def asks(s: Consistent123Views, priors: Mapping[Any, Prior]) -> Mapping[Any, Asked]:
    """What the prior is asked for: all views at once, and the picture beside them."""
    steps, guidance, *_ = s.drawing.sampler(priors["views"])
    ways = 1 if guidance == 1 == s.fades_to else 2
    return {"views": Asked(steps * (s.views + 1) * ways, s.views + 1, decoded=s.views)}


RECIPE = Recipe(
    "consistent123-views",
    {
        "draft": Consistent123Views(fusing=Fusing(by="dmtet", steps=120, cells=40), doubt=doubted.DRAFT, finish=Finish(faces=10_000)),
        "standard": Consistent123Views(),
        "fine": Consistent123Views(views=16, fusing=Fusing(steps=1000), doubt=doubted.FINE, finish=Finish(faces=60_000)),
    },
    lift,
    stages={"guess": 0.04, "views": 0.2, "fuse": 0.55, "clean": 0.03, "texture": 0.18},
    needs=("first_guess", "views"),
    about="a prior of views draws them together, so that they agree; they are fused",
    asks=asks,
)
