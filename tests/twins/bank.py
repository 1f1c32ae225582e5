# SPDX-License-Identifier: Apache-2.0
"""A bank for `priors.exact`: four boxes off the origin, each of two colours, so that no view is another's mirror image or kin."""

from __future__ import annotations

import torch
import trimesh

from bozzetto.camera import orbit
from bozzetto.mesh import vertex_normals
from bozzetto.render.mesh import render_surface

SIZES = ([0.35, 0.7, 0.5], [0.6, 0.3, 0.4], [0.3, 0.3, 0.8], [0.5, 0.6, 0.2])
COLOURS = (
    [[0.9, 0.2, 0.1], [0.1, 0.2, 0.8]],
    [[0.2, 0.8, 0.2], [0.9, 0.9, 0.1]],
    [[0.6, 0.1, 0.7], [0.1, 0.8, 0.8]],
    [[0.3] * 3, [1.0, 0.6, 0.1]],
)
CAPTIONS = ("red box", "green box", "purple tower", "grey slab")


def box(size, colours, centre=(0.05, -0.1, 0.03)):
    """One colour in front (+x of its centre), the other behind."""
    made = trimesh.creation.box(size).subdivide().subdivide()
    middle, (front, back) = torch.tensor(centre), torch.tensor(colours)
    vertices, faces = torch.tensor(made.vertices).float() + middle, torch.tensor(made.faces).long()
    normals = vertex_normals(vertices, faces)
    return lambda cameras: render_surface(vertices, faces, normals, cameras, lambda x, n: torch.where(x[:, :1] > middle[0], front, back))


BANK = [box(size, colours) for size, colours in zip(SIZES, COLOURS, strict=True)]


def ring(count, elevation=0.3, start=0.0, size=16):
    """Cameras all round, counter-clockwise from an azimuth."""
    return orbit([start + 2 * torch.pi * k / count for k in range(count)], elevation, 2.0, size=size, fov=0.7)
