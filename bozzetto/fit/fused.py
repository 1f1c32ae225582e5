# SPDX-License-Identifier: Apache-2.0
"""Drawn views to a surface: what all recipes share whose prior draws a set of views of one object (Wonder3D, SyncDreamer, MVDream).

    drawn = Drawn(views, weight, has_normals=True)
    made = job.run.stage("fuse", lambda: fuse(job, drawn, solid, settings.fusing), Sculpture)

Two ways, one loss (`fit.agreement`):

    neus   a signed distance on a hash grid, rendered as a volume along rays (`shapes.neus`): Wonder3D's fusion (arXiv:2310.15008,
           Sec. 4.3), and with other weights SyncDreamer's (arXiv:2309.03453)
    dmtet  a DMTet and a grid of colours, rasterised (`shapes.tets`): seconds instead of minutes, and no finer than its grid

Both begin with what the drawn outlines leave, of the first guess if there is one.

Differs from Wonder3D's released code, beside what `shapes.neus` says: it begins with a ball and takes 3000 steps. Its numbers that
carry over are the defaults here: the levels of its hash grid, of which seven are open in the end; the annealing of what is seen from
behind, which ends at .15 and not at 1.

Letters: V views; N points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.camera import looked_at
from bozzetto.errors import InputError
from bozzetto.fit.agreement import Agreement, Drawn, DrawnPictures, DrawnRays
from bozzetto.fit.loop import Loss, Term, optimise, own
from bozzetto.fit.recipe import Job
from bozzetto.fit.sculpt import SHARPNESS, Rough, Sculpture, cube, field_in, handed_on, rough_surface
from bozzetto.fit.settings import Within
from bozzetto.fit.solid import Solid
from bozzetto.kernels.hashgrid import Levels
from bozzetto.shapes.colours import ColourGrid
from bozzetto.shapes.dmtet import DMTet
from bozzetto.shapes.neus import SignedDistance
from bozzetto.shapes.shape import Shape, Step
from bozzetto.shapes.tets import Course as TetsCourse
from bozzetto.shapes.tets import Tets
from bozzetto.shapes.volume import Course, Volume

__all__ = ["Drawn", "Fusing", "fuse"]

LOOKED = 48  # points a side at which outlines are first looked at
STEEP = 100.0  # of the sparse term, over half the box's side
BESIDE = 0.01  # of half the box's side: how far apart normals are compared


@dataclass(frozen=True)
class Fusing(Agreement):
    """How drawn views become a surface."""

    by: Literal["neus", "dmtet"] = "neus"
    """neus follows them more closely, dmtet is faster"""
    steps: Annotated[int, Within(1, 100_000)] = 300
    """optimisation steps"""
    rays: Annotated[int, Within(16, 100_000)] = 512
    """a step, of all views together; of neus"""
    picture: Annotated[int, Within(16, 1024)] = 128
    """pixels a side of the views that are rasterised, at most; of dmtet"""
    at_once: Annotated[int, Within(1, 64)] = 8
    """views rasterised in a step, at most; of dmtet"""
    distance_lr: Annotated[float, Within(0, 1)] = 0.1
    """Adam's step for the distances, in grid cells; falls to a fifth; of dmtet"""
    cells: Annotated[int, Within(8, 128)] = 64
    """of the grid of the DMTet that comes of it; dmtet subdivides it once"""
    colours: Annotated[int, Within(2, 256)] = 64
    """cells a side of the grid of colours"""
    eikonal_weight: Annotated[float, Within(0, 1e6)] = 0.2
    """gradients of length 1; of neus"""
    sparse_weight: Annotated[float, Within(0, 1e6)] = 0.5
    """against surfaces that nobody sees; of neus"""
    smooth_weight: Annotated[float, Within(0, 1e6)] = 1.0
    """neighbouring normals alike"""
    anneal: Annotated[float, Within(0.01, 1)] = 0.15
    """how far, in the end, sections seen from behind have lost their gradients; 1 is NeuS's own"""
    points: Annotated[int, Within(16, 100_000)] = 1024
    """at which sparseness and smoothness are measured; of neus"""
    levels: Annotated[int, Within(4, 32)] = 7
    """of the hash grid, the last of which opens in the end; of neus"""
    sections: Annotated[int, Within(4, 256)] = 16
    """of a ray, where the field is asked with gradients; of neus"""
    table_lr: Annotated[float, Within(0, 1)] = 1e-2
    """Adam's step for the hash grid's entries"""
    net_lr: Annotated[float, Within(0, 1)] = 5e-3
    """Adam's step for the networks"""


def fuse(job: Job[Any], drawn: Drawn, solid: Solid | None, settings: Fusing, stage: str = "fuse") -> Sculpture:
    """A surface that agrees with drawn views, in the crop's frame, its colours and last losses.

    drawn   views of any one size; perspective or orthographic cameras, which stand outside the object
    solid   the first guess, or None
    stage   name of the checkpoints: the caller makes a stage of this name of it
    raises  InputError where there is nothing to begin with
    """
    outlines = Outlines(drawn, settings.kept_mask)
    begun: Rough = outlines
    inside = outlines.points()
    if solid is not None and 2 * (solid.logits(inside) > 0).sum() >= len(inside):  # else the two are not of one object
        begun = Carved(solid, outlines) if len(inside) else solid
        inside = inside if len(inside) else rough_surface(job, solid)[0]
    if not len(inside):
        what = job.words if job.picture is None else job.picture.name
        raise InputError(f"{what}: the drawn views have no outline in common; draw others with another --seed")
    middle, half = cube(inside.amin(0), inside.amax(0))
    return (_by_rays if settings.by == "neus" else _by_pictures)(job, drawn, begun, middle, half, settings, stage)


@dataclass(frozen=True)
class Carved:
    """A guessed solid, without what the drawn outlines do not leave."""

    solid: Solid
    outlines: Outlines

    def logits(self, points: Tensor) -> Tensor:
        """(N,), above 0 inside, at points (N, 3)."""
        return torch.minimum(self.solid.logits(points), self.outlines.logits(points))

    def colours(self, points: Tensor, normals: Tensor) -> Tensor:
        """The guess's."""
        return self.solid.colours(points, normals)


class Outlines:
    """What drawn outlines leave, as something to begin with: the points that so much of the views' trust, `kept`, has in an outline."""

    def __init__(self, drawn: Drawn, kept: float) -> None:
        self.cameras, self.alpha, self.kept = drawn.views.cameras, drawn.views.alpha.permute(0, 3, 1, 2), kept
        self.share = (drawn.weight / drawn.weight.sum()).float()

    def logits(self, points: Tensor) -> Tensor:
        """(N,), above 0 inside, at points (N, 3)."""
        pixels, _ = self.cameras.project(points.double())
        where = (2 * pixels / pixels.new_tensor(self.cameras.size[::-1]) - 1).to(self.alpha)
        return self.share @ F.grid_sample(self.alpha, where[:, None], align_corners=False)[:, 0, 0] - self.kept

    def colours(self, points: Tensor, normals: Tensor) -> Tensor:
        """Grey."""
        return torch.full_like(points, 0.5)

    def points(self) -> Tensor:
        """(N, 3) float32, evenly inside."""
        middle, distance = looked_at(self.cameras.c2w)
        width = max(self.cameras.size[1] / float(f) for f in self.cameras.K[:, 0, 0]) * (1 if self.cameras.is_orthographic else distance)
        at = ((torch.arange(LOOKED, dtype=torch.float64) + 0.5) / LOOKED - 0.5) * width
        found = middle + torch.stack(torch.meshgrid(at, at, at, indexing="ij"), -1).view(-1, 3)
        return found[self.logits(found) > 0].float()


def _by_rays(job: Job[Any], drawn: Drawn, begun: Rough, middle: Tensor, half: float, s: Fusing, stage: str) -> Sculpture:
    medium = SignedDistance(SHARPNESS / half, anneal=1 / s.anneal)
    course = Course(table_lr=s.table_lr, net_lr=s.net_lr, open=1.0)
    volume = field_in(middle, half, begun, medium, Levels(s.levels, 32, 1.3195), course, s.sections, job.seed)
    terms: list[Term] = [DrawnRays(drawn, s, s.rays), scattered(s), own({"eikonal": s.eikonal_weight})]
    losses = optimise(volume, terms, job.run, stage, steps=s.steps, seed=job.seed)
    lower, upper = (middle - half).tolist(), (middle + half).tolist()
    with torch.no_grad():
        grid = ColourGrid.of(volume.field.colour, volume.field.lower, volume.field.upper, s.colours)
    return handed_on(Tets(DMTet.from_sdf(volume.signed, s.cells, lower, upper), TetsCourse(0.5), grid), losses)


def scattered(s: Fusing) -> Term:
    """Regularisers of a field at points anywhere in its cube: `sparse`, exp(-100 |f|) in units of half a side, and `smooth`, the mean
    absolute difference of unit normals a hundredth of that apart (Wonder3D's code; its paper has their squares)."""

    def term(shape: Shape, step: Step) -> Mapping[str, Loss]:
        if not isinstance(shape, Volume):
            raise TypeError(f"scattered: expected a Volume, got {type(shape).__name__}")
        field, u = shape.field, 2 * torch.rand(s.points, 3, generator=step.generator) - 1
        beside = torch.randn(s.points, 3, generator=step.generator)
        (value, gradient), (_, other) = (field.value_and_gradient(field.centre + field.unit * x) for x in (u, u + BESIDE * beside))
        sparse = torch.exp(-STEEP / field.unit * value.abs()).mean()
        smooth = (F.normalize(gradient, dim=1) - F.normalize(other, dim=1)).abs().mean()
        return {"sparse": Loss(s.sparse_weight, sparse), "smooth": Loss(s.smooth_weight, smooth)}

    return term


def _by_pictures(job: Job[Any], drawn: Drawn, begun: Rough, middle: Tensor, half: float, s: Fusing, stage: str) -> Sculpture:
    lower, upper = (middle - half).tolist(), (middle + half).tolist()
    dmtet = DMTet.from_occupancy(begun.logits, s.cells, lower, upper)
    grid = ColourGrid.of(begun.colours, middle - half, middle + half, s.colours)
    tets = Tets(dmtet, TetsCourse(s.distance_lr, fall=0.2, colour_lr=0.2), grid)
    terms: list[Term] = [DrawnPictures(drawn.resized(s.picture), s, s.at_once), own({"smooth": s.smooth_weight, "sign": 0.01})]
    losses = optimise(tets, terms, job.run, stage, steps=s.steps, seed=job.seed)
    return handed_on(tets, losses)
