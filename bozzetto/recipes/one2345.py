# SPDX-License-Identifier: Apache-2.0
"""One-2-3-45 (Liu et al. 2023, arXiv:2306.16928): a prior draws the object from eight sides, a network makes a solid of the drawings.

1. elevation  where it is to be found by the prior (`estimate`): by four views that it draws beside the picture (`priors.elevation`)
2. guess      the camera of the picture, and how large the object is in it; its solid is only a hint, for a prior that takes one
3. views      eight round the object at the paper's poses, or those that a joint prior draws; beside each, where they are asked for,
              neighbours 10 degrees off that are drawn under it
4. shape      one pass of the reconstructor (`priors.reconstructor`), marching tetrahedra; or, where the prior is not to be believed so
              far, as the embedded one is not, the guess, carved where the reconstructor says outside (`fit.doubted`)
5. clean, texture  as in recipe `guess`; texels that the picture does not show get colours blended from the drawings

Differs. The picture itself is a source view, in the place of the prior's drawing of it; the released code reconstructs from the 32
neighbours alone and leaves out both the picture and the eight. The elevation is by default the first guess's, which needs no drawings;
the network is ours (its docstring says how it differs), and its cube is laid by the guess.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from torch import Tensor

from bozzetto.fit import doubted
from bozzetto.fit.clean import Clean
from bozzetto.fit.doubted import Doubt
from bozzetto.fit.drawings import Drawing, Drawings, cells_of
from bozzetto.fit.eight import Eight, count
from bozzetto.fit.finish import Finish, Lifted, finish
from bozzetto.fit.framed import Framed, frame_of
from bozzetto.fit.posed import Cube, distances, painter, surface
from bozzetto.fit.recipe import Job, Recipe
from bozzetto.fit.settings import Within
from bozzetto.fit.silhouette import Surface
from bozzetto.fit.solid import Colours
from bozzetto.priors.elevation import estimate_elevation
from bozzetto.priors.loading import MINI
from bozzetto.priors.plan import Asked
from bozzetto.priors.prior import Prior
from bozzetto.priors.reconstructor import Posed, load
from bozzetto.priors.small import digest


@dataclass(frozen=True)
class One2345:
    """Lift by drawn views and a network that reads them all."""

    drawing: Drawing = Drawing(batch=8)
    samples: Annotated[int, Within(1, 64)] = 3
    """drawings of each of the eight, whose mean is used; 1 is the paper's, and the embedded prior's are stained"""
    neighbours: Annotated[int, Within(0, 4)] = 0
    """views beside each of the eight, up, down, left and right of it, drawn under it; 4 is the paper's"""
    estimate: Annotated[int, Within(0, 1)] = 0
    """1 finds the elevation by the prior, where it was not given, as the paper does; by default the first guess says it"""
    photograph: Annotated[int, Within(0, 1)] = 1
    """the picture itself is a source; with 0 the prior draws that view anew"""
    doubt: Doubt = Doubt()
    wrong: Annotated[int, Within(0, 32)] = 1
    """views that may be wrong where they show background: what no more show past stays a part of the hull that the network begins with"""
    size: Annotated[int, Within(32, 1024)] = 128
    """pixels a side at which the network sees each view; a multiple of 4"""
    cells: Annotated[int, Within(8, 256)] = 80
    """of the lattice on which the surface is found, along the longest side"""
    finish: Finish = Finish()


@dataclass(frozen=True)
class Found:
    """A stage's elevation: radians, and by how many points it was found."""

    elevation: float
    tracks: int


def lift(job: Job[One2345]) -> Lifted:
    """Picture to textured mesh."""
    settings, run, source = job.settings, job.run, job.source
    told: dict[str, Any] = {}
    if settings.estimate and job.elevation is None:
        found = run.stage("elevation", lambda: estimated(job), Found)
        told["tracks"] = found.tracks
        job = replace(job, elevation=found.elevation if found.tracks else None)
    solid = job.guess()
    camera, rough = solid.frustum.camera, solid.surface()
    if rough is None:  # nothing to look at: the ball that stands in for an empty field is kept as it is
        vertices, faces = solid.dmtet(1 / 40).surface()
        ball = Surface(vertices.detach().float(), faces)
        return finish(source, ball, lambda clean: solid.colours, camera, settings.finish, run, told | solid.told(), drawn=True)
    framed = Framed.of(source, camera, *rough, max(settings.size, job.views.size), frame_of(job.views))
    eight = Eight(job.views, framed, solid.colours, settings.drawing, bool(settings.photograph))
    made = run.stage("views", lambda: eight.drawn(settings.samples, settings.neighbours, job.seed, run.progress), Drawings)
    network, cube = load(MINI / "reconstructor"), Cube(framed.centre, torch.eye(3, dtype=torch.float64), 1 / framed.longest)
    sources = eight.sources(made, settings.neighbours, settings.size)
    with torch.no_grad():
        field = network.field(Posed(sources.rgba, cube.cameras(framed.placed(sources.cameras)), settings.wrong))

    def shaped() -> Surface:
        vertices, faces = surface(network, field, settings.cells, lambda share: run.progress("shape", share))
        return Surface(cube.back(vertices), faces) if len(faces) else Surface(*rough)

    def blended(clean: Clean) -> Colours:
        within = painter(network, field, cube.there(clean.in_crop(clean.vertices)), clean.faces)
        return lambda points, normals: within(cube.there(points), normals)

    colours: Callable[[Clean], Colours] = blended
    if settings.doubt.of(job.views):

        def past() -> Tensor:
            """A cell away from the network's surface is as if half of the eight drawings showed background there."""
            away = distances(network, field, cube.there(cells_of(solid))).view_as(solid.occupancy)
            return len(eight.cameras()) / 2 * (away * settings.cells).clamp(0, 1)

        drawn_from = framed.placed(eight.cameras(settings.neighbours).resized(made.pictures.shape[1]))
        shape, colours = doubted.doubted(job, solid, made, drawn_from, settings.doubt, "shape", past)
    else:
        shape = run.stage("shape", shaped, Surface)

    told |= {"reconstructor": digest(MINI / "reconstructor"), "sources": len(field.raw), "trust": round(float(made.trust.mean()), 4)}
    return finish(source, shape, colours, camera, settings.finish, run, told | solid.told(), drawn=True)


def estimated(job: Job[One2345]) -> Found:
    """By the prior's own drawings."""
    sampler = job.settings.drawing.sampler(job.views)
    crop = job.source.crop(job.views.size)
    rgb = crop.rgb + (1 - crop.alpha[..., None]) * job.views.background
    generator = torch.Generator().manual_seed(job.seed)
    found = estimate_elevation(job.views, rgb[None], generator=generator, steps=sampler.steps, guidance=sampler.guidance)
    return Found(found.elevation, found.num_tracks)


def asked(s: One2345, prior: Prior) -> Asked:
    """What all drawings ask of the prior."""
    return s.drawing.asked(prior, count(prior, s.samples, s.neighbours, bool(s.photograph)) + (4 if s.estimate else 0))


DRAFT = One2345(samples=1, doubt=doubted.DRAFT, cells=64, finish=Finish(faces=10_000))
RECIPE = Recipe(
    "one2345",
    {"draft": DRAFT, "standard": One2345(), "fine": One2345(neighbours=4, doubt=doubted.FINE, cells=112, finish=Finish(faces=60_000))},
    lift,
    stages={"elevation": 0.02, "guess": 0.03, "views": 0.6, "shape": 0.12, "clean": 0.03, "texture": 0.2},
    needs=("first_guess", "views"),
    about="a diffusion prior draws eight sides, and a network makes a solid of the drawings",
    asks=lambda s, priors: {"views": asked(s, priors["views"])},
    joint=True,
)
