# SPDX-License-Identifier: Apache-2.0
"""Recipe `guess`: the first guess made to agree with the picture. No generative prior: fast, and every other recipe's start.

1. guess    the solid behind the picture, from the embedded network, asked at two scales, plain and mirrored
2. shape    a DMTet from its occupancy, moved until the picture's silhouette is met while the hidden side stays with the
            guess; coarse, then once subdivided round the surface
3. clean    floaters off, smoothed, decimated, box centred and scaled to 1
4. texture  unwrapped; texels that the picture shows get its pixels, the others colours of the picture that the guess helps
            to find (`render.hidden`)

Kin: One-2-3-45 (arXiv:2306.16928) for the feed-forward start, DMTet (arXiv:2111.04276) and nvdiffrec (arXiv:2111.12503)
for the optimisation. The camera is that of the crop, looking at its centre: `bozzetto.frustum`.
"""

from __future__ import annotations

from dataclasses import dataclass

from bozzetto.fit.finish import Finish, Lifted, finish
from bozzetto.fit.recipe import Job, Recipe
from bozzetto.fit.silhouette import Silhouette, Surface, meet_silhouette


@dataclass(frozen=True)
class Guess(Silhouette):
    """Lift by the first guess alone."""

    finish: Finish = Finish()


def lift(job: Job[Guess]) -> Lifted:
    """Picture to textured mesh."""
    source, run, settings = job.source, job.run, job.settings
    solid = job.guess()
    shape = run.stage("shape", lambda: meet_silhouette(source, solid, settings, run), Surface)
    told = {**solid.told(), "losses": shape.losses}
    return finish(source, shape, lambda clean: solid.colours, solid.frustum.camera, settings.finish, run, told, drawn=solid.is_drawn)


RECIPE = Recipe(
    "guess",
    {
        "draft": Guess(cells=40, steps=40, picture=192, finish=Finish(faces=10_000)),
        "standard": Guess(),
        "fine": Guess(cells=72, steps=300, picture=384, finish=Finish(faces=60_000)),
    },
    lift,
    stages={"guess": 0.05, "shape": 0.6, "clean": 0.05, "texture": 0.3},
    about="the embedded network alone",
)
