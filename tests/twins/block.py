# SPDX-License-Identifier: Apache-2.0
"""A two-coloured block, a prior that has seen nothing else, and a first guess of it that is wrong in depth and colour.

The block stands nearer than the middle of its picture's frame, so that whoever mistakes the one for the other looks past it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import trimesh

from bozzetto.denoiser import Adapted
from bozzetto.fit.recipe import Job, Priors
from bozzetto.fit.solid import Solid
from bozzetto.fit.source import Source
from bozzetto.frustum import Frustum, cell_centres
from bozzetto.mesh import vertex_normals
from bozzetto.priors.exact import Exact
from bozzetto.priors.sampling import PUBLISHED
from bozzetto.priors.sync_volume import ring
from bozzetto.render.mesh import render_surface

CHAIR = Path(__file__).parent.parent.parent / "examples" / "wooden-chair.png"
ELEVATION, P, SIDE = math.radians(20), 0.4, 32
RED, BLUE = torch.tensor([0.85, 0.15, 0.1]), torch.tensor([0.1, 0.2, 0.85])
FRUSTUM = Frustum.of(0.0, ELEVATION, P, 256)
SIZE = torch.tensor([0.35, 0.7, 0.5])  # half as deep as it is wide
CENTRE = 0.15 * FRUSTUM.camera.c2w[0, :, 2].float()  # on the picture's axis, towards the eye


def truth(cameras, centre=torch.zeros(3)):
    """Red in front (+x of its centre) and blue behind."""
    box = trimesh.creation.box(SIZE.tolist()).subdivide().subdivide()
    vertices, faces = torch.tensor(box.vertices).float() + centre, torch.tensor(box.faces).long()
    colour = lambda x, n: torch.where(x[:, :1] > centre[0], RED, BLUE)  # noqa: E731
    return render_surface(vertices, faces, vertex_normals(vertices, faces), cameras, colour)


def picture(size=256, centre=CENTRE):
    """The block as its picture shows it."""
    views = truth(FRUSTUM.camera.resized(size), centre)
    rgb = views.rgb[0] / views.alpha[0].clamp(min=1e-3)
    return Source("block.png", rgb.clamp(0, 1), views.alpha[0, ..., 0], rgb, "0")


def guess(deep=2.0, centre=CENTRE, trimmed=False):
    """The block so many times as deep as it is, on both sides alike, and red all over; trimmed to the picture's silhouette or not."""
    at = FRUSTUM.points(cell_centres(64, 64, 64).reshape(-1, 3)).view(64, 64, 64, 3) - centre
    solid = (at.abs() < SIZE * torch.tensor([deep, 1.0, 1.0]) / 2).all(-1)
    coverage = F.adaptive_avg_pool2d(picture(128, centre).crop(128).alpha[None], 64)
    solid &= (coverage > 0) | (not trimmed)
    p = float(torch.tensor(P))  # as a network's answer would have it
    return Solid(solid * 6.0 - 3.0, RED.view(3, 1, 1, 1).repeat(1, 12, 32, 32), coverage, 0.0, ELEVATION, p)


class Oracle:
    """A prior whose data are the block's own pictures, one for each camera round its centre and grey for none, with a spread.

    The denoiser is that of a Gaussian round the picture: (spread^2 x + sigma^2 picture) / (spread^2 + sigma^2).
    """

    background, size, shape, sampler, uses_hint = 1.0, SIDE, (3, SIDE, SIDE), PUBLISHED, False

    def __init__(self, spread=0.05):
        self.asked, self.spread = 0, spread
        self.denoiser = Adapted(self.denoise, torch.logspace(-1.5, 1.2, 1000, dtype=torch.float64))

    def denoise(self, x, sigma, cond):
        self.asked += 1
        assert not x.requires_grad
        share = torch.as_tensor(self.spread**2 / (self.spread**2 + sigma**2)).to(x).view(-1, 1, 1, 1)
        return share * x + (1 - share) * cond["x0"].to(x)

    def views(self, reference=None):
        return None

    def encode(self, views, *, generator=None):
        return self.encode_pictures(views.over(1.0).clamp(0, 1).float())

    def encode_pictures(self, rgb, *, generator=None):
        return F.interpolate(2 * rgb.movedim(-1, 1) - 1, (SIDE, SIDE), mode="area")

    def decode(self, x0):
        return (x0 / 2 + 0.5).clamp(0, 1).movedim(1, -1)

    def encode_reference(self, reference):
        return reference

    def condition(self, reference=None, cameras=None, text=None, hint=None):
        if cameras is None:
            return {"x0": torch.zeros(1, 3, SIDE, SIDE)}
        return {"x0": self.encode_pictures(truth(cameras).over(1.0))}


@dataclass(frozen=True)
class BlockJob(Job):
    """A lift of the block: the guess is the block's, the prior the oracle. No weights matter here."""

    solid: Solid | None = None

    def guess(self):
        return self.run.stage("guess", lambda: self.solid, Solid)


def job(source, settings, run, *, deep=2.0, seed=3, centre=CENTRE, spread=0.05, trimmed=False):
    return BlockJob(source, Priors(None, Oracle(spread)), settings, run, elevation=ELEVATION, seed=seed, solid=guess(deep, centre, trimmed))


def box(size, front, back):
    """Of longest side 1 round the origin, as joint priors know objects; two colours."""
    made = trimesh.creation.box((size / size.max()).tolist()).subdivide().subdivide()
    vertices, faces = torch.tensor(made.vertices).float(), torch.tensor(made.faces).long()
    normals = vertex_normals(vertices, faces)
    return lambda cameras: render_surface(vertices, faces, normals, cameras, lambda x, n: torch.where(x[:, :1] > 0, front, back))


def exact(together=16):
    """A joint prior of SyncDreamer's cameras that knows the block, and two others."""
    green = torch.tensor([0.1, 0.8, 0.2])
    bank = [box(torch.tensor([1.0, 0.4, 0.6]), green, RED), box(SIZE, RED, BLUE), box(torch.tensor([0.3, 0.3, 1.0]), BLUE, green)]
    return Exact(bank, ring(together, 48), size=48, width=0.05, together=together)
