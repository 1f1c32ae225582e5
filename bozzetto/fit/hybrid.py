# SPDX-License-Identifier: Apache-2.0
"""What sculpts, as settings of a recipe: a 2D and a 3D prior together (`Hybrid`), the picture and regularisers (`Held`), and how fine
(`Sculpted`).

Hybrid guidance is a weighted sum of two score distillations, w_2D L_SDS(text) + w_3D L_SDS(picture, pose): each prior has its own codec,
levels, guidance scale and noise (Magic123, arXiv:2306.17843, Eq. 5; DreamCraft3D, arXiv:2310.16818, Eq. 7). For Gaussian priors it ends
at the mean of theirs, weighted by w / (variance + level): check SDS-4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from bozzetto.distill.sds import Levels
from bozzetto.fit.around import Around
from bozzetto.fit.estimates import Both, Estimator, Guessed
from bozzetto.fit.finish import Finish
from bozzetto.fit.framed import Framed
from bozzetto.fit.loop import Term, own
from bozzetto.fit.recipe import Job, Need
from bozzetto.fit.reference import Relief
from bozzetto.fit.sculpt import Coarse
from bozzetto.fit.settings import Within
from bozzetto.fit.solid import Solid
from bozzetto.fit.terms import Pull, Shown, Shows, Sides
from bozzetto.priors.plan import Asked
from bozzetto.shapes.shape import Step


@dataclass(frozen=True)
class Hybrid:
    """How much each prior pulls."""

    around: Around = Around(views=1, lowest_deg=-10, highest_deg=45)
    weight_2d: Annotated[float, Within(0, 1e6)] = 0.005
    """what the text's prior finds likely, summed over latents"""
    weight_3d: Annotated[float, Within(0, 1e6)] = 0.1
    """what the prior of views finds likely, summed over latents"""
    guidance_2d: Annotated[float, Within(-200, 200)] = 20.0
    """of the text's prior"""
    guidance_3d: Annotated[float, Within(-200, 200)] = 5.0
    """of the prior of views"""

    def pulls(
        self,
        job: Job[Any],
        solid: Solid,
        framed: Framed,
        size: int,
        levels: tuple[Levels, Levels],
        *,
        sides: Sides = "told",
        shows: Callable[[Step], Shows] = lambda step: "colour",
        by_angle: bool = False,
    ) -> tuple[Pull, Pull]:
        """Of the text's prior and of the prior of views, which always sees colours; their losses are `sds_2d` and `sds_3d`.

        size      pixels a side of what is rendered
        levels    of the one and the other
        sides, shows  of the former, by_angle of the latter, as `terms.Pull` has them
        """
        around = lambda step: self.around(framed.azimuth, step)  # noqa: E731
        two = Pull(
            job.text_prior,
            framed,
            around,
            levels[0],
            self.weight_2d,
            self.guidance_2d,
            size,
            text=job.words,
            name="sds_2d",
            sides=sides,
            shows=shows,
        )
        three = Pull(
            job.views,
            framed,
            around,
            levels[1],
            self.weight_3d,
            self.guidance_3d,
            size,
            guessed=solid.colours,
            name="sds_3d",
            by_angle=by_angle,
        )
        return two, three

    def asked(self, steps: float, *, negatives: int = 0) -> dict[Need, Asked]:
        """What `pulls` asks of both priors in so many steps; negatives are of Perp-Neg, which has two."""
        n, ways = steps * self.around.views, {"text": self.guidance_2d, "views": self.guidance_3d}
        both = {need: Asked(n * (1 if scale == 1 else 2), self.around.views, pulled=n) for need, scale in ways.items()}
        return {"text": both["text"]._replace(calls=n * (2 + negatives)) if negatives else both["text"], "views": both["views"]}


@dataclass(frozen=True)
class Held:
    """What holds a shape while priors pull; losses of the picture are means over its pixels."""

    rgb_weight: Annotated[float, Within(0, 1e6)] = 500.0
    """the picture's colours, mean squared difference"""
    mask_weight: Annotated[float, Within(0, 1e6)] = 500.0
    """the picture's silhouette, mean squared difference"""
    depth_weight: Annotated[float, Within(0, 1e6)] = 0.05
    """how a field's depth goes with the guess's in the picture's view, or that of --depth, 1 - correlation"""
    normal_weight: Annotated[float, Within(0, 1e6)] = 0.05
    """how a field's normals go with those of --normal there, 1 - cosine"""
    eikonal_weight: Annotated[float, Within(0, 1e6)] = 1.0
    """a field's gradient of length 1"""
    sparse_weight: Annotated[float, Within(0, 1e6)] = 0.01
    """against fog in a density"""
    keep_weight: Annotated[float, Within(0, 1e6)] = 0.02
    """how much a DMTet stays with the field, squared grid cells"""
    smooth_weight: Annotated[float, Within(0, 1e6)] = 1.0
    """normals of neighbouring vertices alike"""
    even_weight: Annotated[float, Within(0, 1e6)] = 1.0
    """neighbouring colours alike, where only colours move"""

    def shown(self, job: Job[Any], solid: Solid, size: int, *, colours: bool = True) -> Shown:
        """The picture's own view against the picture, `size` pixels a side; its silhouette alone, or its colours, too."""
        return Shown(job.source, solid.frustum.camera, size, mask=self.mask_weight, rgb=self.rgb_weight if colours else 0.0)

    def relief(self, job: Job[Any], solid: Solid, size: int) -> Relief:
        """The picture's own view, `size` pixels a side, against what is given of its depth and normals, or the guess's depth."""
        ask: Estimator = Guessed(solid) if job.depth is None else job.depth
        if job.normal is None:
            return Relief(ask(job.source, size), solid.frustum.camera, depth=self.depth_weight)
        known = Both(ask, job.normal)(job.source, size)
        return Relief(known, solid.frustum.camera, depth=self.depth_weight, normal=self.normal_weight)

    def regular(self) -> Term:
        """The regularisers that the shape has."""
        named = {
            "eikonal": self.eikonal_weight,
            "sparse": self.sparse_weight,
            "keep": self.keep_weight,
            "smooth": self.smooth_weight,
            "even": self.even_weight,
        }
        return own(named)


@dataclass(frozen=True)
class Sculpted:
    """What all recipes that sculpt can be told."""

    coarse: Coarse = Coarse()
    steps: Annotated[int, Within(1, 100_000)] = 200
    """of the stage after the coarse one"""
    picture: Annotated[int, Within(32, 1024)] = 128
    """pixels a side of what is rendered of a mesh"""
    cells: Annotated[int, Within(8, 128)] = 48
    """of the DMTet's grid, before its subdivision"""
    colours: Annotated[int, Within(2, 256)] = 64
    """cells a side of the grid of colours"""
    hybrid: Hybrid = Hybrid()
    held: Held = Held()
    finish: Finish = Finish()


DRAFT: dict[str, Any] = {"coarse": Coarse(steps=60, picture=64, around=48, levels=8, sections=12), "finish": Finish(faces=10_000)}
DRAFT |= {"steps": 40, "picture": 96, "cells": 40, "colours": 48}
FINE: dict[str, Any] = {"coarse": Coarse(steps=2500, picture=256, around=128, levels=16, sections=32), "finish": Finish(60_000, 2048)}
FINE |= {"steps": 2500, "picture": 512, "cells": 96, "colours": 192}
"""settings of those presets, where a recipe has no others"""
