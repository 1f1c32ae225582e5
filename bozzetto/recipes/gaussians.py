# SPDX-License-Identifier: Apache-2.0
"""Recipe `gaussians`: a lift through Gaussians instead of a DMTet. It leaves the Gaussians themselves, too, as SPLAT.

1. guess    the solid behind the picture: recipe `guess`
2. shape    a flat Gaussian on each vertex of the guess's surface, in the picture's colours where it shows it, else in the guess's;
            each step they are drawn from the picture's camera and held to the picture (colours and mask), and from one of many cameras
            all round and held to the guess, so coloured (colours, mask, depth)
3. fuse     their depths, seen from those cameras, become one closed surface: `bozzetto mesh`'s own code
4. clean, texture  as in `guess`

Tang et al. 2023, DreamGaussian (arXiv:2309.16653): a few hundred steps on Gaussians, its learning rates, then a mesh whose texture is
made afterwards. Differs: the hidden side comes from the first guess, not from score distillation, so the Gaussians begin on its surface
and are neither cloned, split nor pruned; the mesh comes from fused depths, not from the density; harmonics stay at degree 0, as there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.errors import InputError
from bozzetto.fit.asset import SPLAT
from bozzetto.fit.finish import Finish, Lifted, finish
from bozzetto.fit.loop import Term, optimise, own
from bozzetto.fit.recipe import Job, Recipe
from bozzetto.fit.settings import Within
from bozzetto.fit.silhouette import Surface
from bozzetto.fit.solid import Solid
from bozzetto.fit.terms import Like, Shown, absolute
from bozzetto.formats.ply import to_ply
from bozzetto.mesh import vertex_normals
from bozzetto.priors.hint import carried
from bozzetto.render.clean import taubin
from bozzetto.render.mesh import render_surface
from bozzetto.shapes.discs import Discs, on_surface
from bozzetto.shapes.gaussians import Gaussians
from bozzetto.shapes.looks import look, sphere, surface

SMOOTH = 20  # rounds: fused depths are as rough as their pixels, which a DMTet's field is not


@dataclass(frozen=True)
class FromGaussians:
    """Lift by the first guess, as Gaussians."""

    cells: Annotated[int, Within(8, 128)] = 56
    """of the guess's surface across the picture; Gaussians begin on its vertices"""
    steps: Annotated[int, Within(1, 100_000)] = 300
    """optimisation steps; DreamGaussian takes 500"""
    picture: Annotated[int, Within(32, 1024)] = 256
    """pixels a side of the view that is matched"""
    around: Annotated[int, Within(32, 1024)] = 160
    """pixels a side of the views that are held to the guess"""
    rgb_weight: Annotated[float, Within(0, 1e6)] = 1.0
    """the picture's colours, mean absolute difference"""
    mask_weight: Annotated[float, Within(0, 1e6)] = 4.0
    """the picture's silhouette, mean squared difference"""
    guess_rgb_weight: Annotated[float, Within(0, 1e6)] = 0.2
    """the guess's colours from all round"""
    guess_mask_weight: Annotated[float, Within(0, 1e6)] = 1.0
    """the guess's silhouettes"""
    guess_depth_weight: Annotated[float, Within(0, 1e6)] = 1.0
    """the guess's depths, mean absolute difference in crop widths"""
    keep_weight: Annotated[float, Within(0, 1e6)] = 0.02
    """how much the Gaussians stay where they began, squared grid cells"""
    lattice: Annotated[int, Within(8, 512)] = 112
    """cells of the fused surface, along its longest side"""
    views: Annotated[int, Within(1, 1000)] = 40
    """that depths are fused from, and that are held to the guess"""
    fused: Annotated[int, Within(16, 4096)] = 288
    """pixels a side of the fused views"""
    front: Annotated[int, Within(0, 100)] = 4
    """how many views the picture's own counts as when depths are fused: its outline is known"""
    finish: Finish = Finish()


@dataclass(frozen=True)
class Moved:
    """The Gaussians after the optimisation, by name, and the last losses."""

    gaussians: dict[str, Tensor]
    losses: dict[str, float]


def lift(job: Job[FromGaussians]) -> Lifted:
    """Picture to textured mesh, and the Gaussians as SPLAT."""
    run, s = job.run, job.settings
    solid = job.guess()
    made = run.stage("shape", lambda: fit(job, solid), Moved)
    g, camera = Gaussians(**made.gaussians), solid.frustum.camera
    g.degree = 0
    fused = run.stage("fuse", lambda: fuse(g, camera, job), Surface)
    told = {**solid.told(), "losses": made.losses, "gaussians": len(g)}
    splat = lambda clean: {SPLAT: to_ply(g.moved(clean.centre, float(clean.scale)))}  # noqa: E731
    return finish(job.source, fused, lambda clean: solid.colours, camera, s.finish, run, told, drawn=solid.is_drawn, files=splat)


def fit(job: Job[FromGaussians], solid: Solid) -> Moved:
    """Gaussians that look like the picture from its side and like the guess from the others.

    raises  InputError where the guess has nothing solid
    """
    s, camera, h = job.settings, solid.frustum.camera, 1 / job.settings.cells
    rough = solid.surface(h)
    if rough is None:
        raise InputError(f"{job.source.name}: the first guess has nothing solid here; use --recipe guess")
    whole = job.source.crop(camera.size[0])  # what the picture shows of the guess keeps its colours all round
    known = carried(whole.rgb, whole.alpha, camera, *rough, solid.colours)
    discs = Discs(on_surface(*rough, lambda x, n: known(x, n)[0]), h, cells=s.lattice, views=s.views, size=s.fused)
    cameras = sphere(discs.gaussians, s.views, s.around)
    targets = render_surface(*rough, vertex_normals(*rough), cameras, lambda x, n: known(x, n)[0])
    weights = {"guess_rgb": s.guess_rgb_weight, "guess_mask": s.guess_mask_weight, "guess_depth": s.guess_depth_weight}
    terms: list[Term] = [
        Shown(job.source, camera, s.picture, mask=s.mask_weight, rgb=s.rgb_weight, colours=absolute),
        Like(targets, weights, job.seed),
        own({"keep": s.keep_weight}),
    ]
    losses = optimise(discs, terms, job.run, "shape", steps=s.steps, seed=job.seed)
    return Moved(discs.gaussians.tensors(), losses)


def fuse(g: Gaussians, camera: Camera, job: Job[FromGaussians]) -> Surface:
    """What the Gaussians are from all round and from the picture's side."""
    s = job.settings
    cameras = Camera.joined([sphere(g, s.views, s.fused)] + [camera.resized(s.fused)] * s.front)
    looks = look(g, cameras, lambda share: job.run.progress("fuse", share), median=False)  # a median is one disc's: stairs on a slant
    vertices, faces = surface(looks, s.lattice)
    return Surface(taubin(vertices.float(), faces, SMOOTH), faces)


RECIPE = Recipe(
    "gaussians",
    {
        "draft": FromGaussians(cells=40, steps=120, picture=192, around=128, lattice=80, views=28, fused=192, finish=Finish(faces=10_000)),
        "standard": FromGaussians(),
        "fine": FromGaussians(cells=72, steps=500, picture=384, around=224, lattice=144, views=56, fused=384, finish=Finish(faces=60_000)),
    },
    lift,
    stages={"guess": 0.04, "shape": 0.5, "fuse": 0.2, "clean": 0.04, "texture": 0.22},
    about="moves the guess as Gaussians, and leaves a splat, too",
)
