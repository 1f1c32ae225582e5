# SPDX-License-Identifier: Apache-2.0
"""Points or coarse voxels to a closed mesh by DMTet's networks: `bozzetto shape` (`priors.dmtet`).

1. look      the cube round them, and what the network finds there
2. surface   an SDF on tetrahedra, refined round its surface, and the surface itself, subdivided once
3. clean     floaters off, at most so many faces
4. texture   where points have colours: unwrapped, each texel with that of its nearest points

Scale and place are the file's, and axes too: a GLB lies over the points that it was made of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from bozzetto.camera import from_gltf
from bozzetto.errors import InputError
from bozzetto.fit.clean import tidy
from bozzetto.fit.paint import colour
from bozzetto.fit.run import Progress
from bozzetto.formats.gltf import save as save_glb
from bozzetto.formats.scan import Points, Voxels, load
from bozzetto.mesh import Mesh
from bozzetto.priors import dmtet
from bozzetto.priors.dmtet import DMTetNetworks, grid_of
from bozzetto.priors.loading import MINI
from bozzetto.priors.point_voxel import UNIT, framed, padded
from bozzetto.shapes.start import EmptySurface
from bozzetto.verbs.settings import ShapeSettings

FEWEST = 100  # points
NEIGHBOURS = 4  # points that a texel takes its colour from


@dataclass(frozen=True)
class Result:
    """The mesh, in the file's scale and place; what it was made of, in words."""

    mesh: Mesh
    of: str


def shape(
    path: Path,
    out: Path,
    settings: ShapeSettings = ShapeSettings(),
    *,
    network: str | Path = "mini",
    seed: int = 0,
    progress: Progress | None = None,
) -> Result:
    """A file of points or voxels to a GLB.

    network  a folder of weights, or `mini`, the embedded ones
    seed     of which points are taken, where there are more than `settings.points`
    raises   InputError, before anything is written, for what cannot be read or written, settings out of range, too few points, or
             networks that find no surface in them
    """
    if out.suffix.lower() != ".glb":
        raise InputError(f"--out {out}: expected a name that ends in .glb")
    for name, low in (("cells", 8), ("points", FEWEST), ("faces", 4), ("texture", 16)):
        if getattr(settings, name) < low:
            raise InputError(f"--{name} {getattr(settings, name)}: expected a whole number of at least {low}")
    given = load(path)
    reads = "points" if isinstance(given, Points) else "voxels"
    networks = dmtet.load(MINI / f"shape_{reads}" if str(network) == "mini" else network)
    if networks.config.reads != reads:
        raise InputError(f"--network {network}: reads {networks.config.reads}, and {path} holds {reads}; give the weights for {reads}")
    say = progress or (lambda stage, share: None)
    try:
        mesh, of = mesh_of(given, networks, settings, where=str(path), seed=seed, progress=say)
    except EmptySurface:
        raise InputError(f"{path}: the network finds nothing solid in it; is it one object, without the floor it stands on?") from None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        save_glb(mesh, out, name=out.stem)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); free some space or choose another --out") from None
    return Result(mesh, of)


def mesh_of(
    given: Points | Voxels,
    networks: DMTetNetworks,
    s: ShapeSettings = ShapeSettings(),
    *,
    where: str = "points",
    seed: int = 0,
    progress: Progress = lambda stage, share: None,
) -> tuple[Mesh, str]:
    """The whole course; the mesh in our frame (z up) of what the file calls y up, and what it was made of."""
    progress("look", 0)
    if isinstance(given, Points):
        taken = picked(given, s.points, where, seed)
        middle, size = framed(taken.places)
        told = torch.from_numpy(((taken.places - middle) * size).astype(np.float32))
        of = f"{len(told)} points"
    else:
        told, before = padded(torch.from_numpy(np.ascontiguousarray(given.full)))
        size = UNIT / given.side
        middle = given.corner + given.side * (np.array(told.shape) / 2 - before.numpy())
        of = f"{' x '.join(map(str, given.full.shape))} voxels"
    vertices, faces = surface(networks, told, s.cells, progress)
    progress("clean", 0)
    clean = tidy(vertices, faces, s.faces)
    progress("texture", 0)
    mesh = Mesh(clean.vertices, clean.faces)
    if isinstance(given, Points) and given.colours is not None:
        mesh = colour(nearest((given.places - middle) * size, given.colours), clean, s.texture)
    there = clean.in_crop(mesh.vertices).double() / size + torch.from_numpy(middle)
    normals = None if mesh.normals is None else from_gltf(mesh.normals)
    return replace(mesh, vertices=from_gltf(there).float(), normals=normals), of


@torch.no_grad()
def surface(networks: DMTetNetworks, told: Tensor, cells: int, progress: Progress = lambda stage, share: None) -> tuple[Tensor, Tensor]:
    """Vertices (M, 3) and faces (F, 3) in the networks' frame, of points (N, 3) or padded voxels (X, Y, Z).

    cells  of the lattice, along the longest side
    """
    field = networks.encode(told)
    progress("surface", 0)
    longest = 1.0 if told.dtype != torch.bool else max(told.shape) * UNIT
    vertices, faces = networks(field, grid_of(field.half, longest / cells))
    return vertices, faces


def picked(points: Points, most: int, where: str, seed: int) -> Points:
    """At most so many of them.

    raises  InputError for too few, or points that are all one
    """
    if len(points.places) < FEWEST:
        raise InputError(
            f"{where}: {len(points.places)} points are too few to see a shape; give at least {FEWEST}, a few thousand are good"
        )
    if not np.ptp(points.places, axis=0).max() > 0:
        raise InputError(f"{where}: all points are one; export it again")
    if len(points.places) <= most:
        return points
    return Points(points.places[np.random.default_rng(seed).permutation(len(points.places))[:most]])


def nearest(points: np.ndarray, colours: np.ndarray) -> Callable[[Tensor, Tensor], Tensor]:
    """sRGB (P, 3) of places (P, 3): the mean of the nearest points', by the inverse of their distance."""
    tree = cKDTree(points)

    def asked(x: Tensor, normals: Tensor) -> Tensor:
        away, index = tree.query(x.numpy(), k=NEIGHBOURS)
        weight = 1 / (away + 1e-6)
        made = (colours[index] * (weight / weight.sum(1, keepdims=True))[..., None]).sum(1)
        return torch.from_numpy(made).to(x)

    return asked
