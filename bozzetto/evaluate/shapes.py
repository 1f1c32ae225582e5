# SPDX-License-Identifier: Apache-2.0
"""How good DMTet's networks are, on objects that nobody trained on: `python -m bozzetto.evaluate.shapes`.

Of each object 3,000 points of what is visible, with noise of .005 of the longest side, and 16 voxels along it (`training.solids`).
Beside what `bozzetto shape` makes of them stand the encoder's SDF alone on the same grid, so that refinement can be judged, the voxels'
own surface, and marching tetrahedra of their interpolated occupancy. `python -m benchmarks.poisson` adds screened Poisson reconstruction.

Chamfer is the mean of both directions, unsquared, in longest sides, between 16,384 points all over each surface, inner ones too, and as
many of what is visible of the truth: two samples of one surface are about .007 apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bozzetto.camera import to_gltf
from bozzetto.data.objects import Packed
from bozzetto.data.renders import carve_object, drawable
from bozzetto.evaluate.metrics import chamfer, normal_consistency
from bozzetto.formats.scan import Points, Voxels
from bozzetto.kernels.marching import marching_tetrahedra
from bozzetto.priors import dmtet
from bozzetto.priors.dmtet import DMTetNetworks, grid_of
from bozzetto.priors.loading import MINI
from bozzetto.priors.point_voxel import UNIT
from bozzetto.render.clean import is_watertight_manifold
from bozzetto.shapes.start import EmptySurface
from bozzetto.training.scenes import Known
from bozzetto.training.solids import Reads, solid_sample
from bozzetto.training.surface_losses import scattered
from bozzetto.verbs.settings import ShapeSettings
from bozzetto.verbs.shape import mesh_of

POINTS = 16384  # of each surface
Shape = tuple[Tensor, Tensor]
"""vertices (N, 3) and faces (F, 3)"""
Way = Callable[[Tensor], Shape]
"""from what is given, points (N, 3) or voxels (X, Y, Z), to a surface in the same frame"""


@dataclass(frozen=True)
class Settings:
    """`python -m bozzetto.evaluate.shapes`"""

    objects: Path = Path("data/objects")
    """packed objects, of which the validation side is taken"""
    reads: tuple[Reads, ...] = ("points", "voxels")
    """which tables"""
    count: int = 16
    """objects, evenly from the list"""
    points: Path = MINI / "shape_points"
    """weights for points"""
    voxels: Path = MINI / "shape_voxels"
    """weights for voxels"""
    more: tuple[Path, ...] = ()
    """other weights, to stand beside"""
    noise: float = 0.005
    """standard deviation, longest sides"""
    cells: int = ShapeSettings().cells
    """of the lattice"""
    seed: int = 0


def networks_way(networks: DMTetNetworks, cells: int) -> Way:
    """As the verb does."""

    def made(given: Tensor) -> Shape:
        half = np.array(given.shape) / 2 * UNIT
        scan = Points(given.double().numpy()) if given.dtype != torch.bool else Voxels(given.numpy(), -half, UNIT)
        mesh, _ = mesh_of(scan, networks, ShapeSettings(cells=cells))
        return to_gltf(mesh.vertices), mesh.faces

    return made


def alone_way(networks: DMTetNetworks, cells: int) -> Way:
    """The SDF at the grid's vertices, not refined."""

    @torch.no_grad()
    def made(given: Tensor) -> Shape:
        field = networks.encode(given)
        vertices, faces, _ = networks.predict(field, grid_of(field.half, 1 / cells)).surface()
        return vertices, faces

    return made


def blocks(given: Tensor) -> Shape:
    """The voxels themselves: two triangles for each square between a full and an empty one."""
    full, corners = torch.nn.functional.pad(given.int(), (1,) * 6), []
    for axis in range(3):
        other = [(axis + 1) % 3, (axis + 2) % 3]
        for sign in (1, -1):
            at = (full - full.roll(-sign, axis) == 1).nonzero() - 1
            quad = torch.zeros(4, 3, dtype=torch.long)
            quad[:, axis] = sign > 0
            quad[1:3, other[0]] = 1
            quad[2:4, other[1]] = 1
            corners.append(at[:, None] + (quad if sign > 0 else quad.flip(0)))
    square = torch.cat(corners).float() * UNIT - torch.tensor(given.shape) / 2 * UNIT
    faces = torch.arange(4 * len(square)).view(-1, 4)[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3)
    return square.reshape(-1, 3), faces


def marched(given: Tensor) -> Shape:
    """Where the voxels' occupancy, interpolated between their centres, is one half."""
    n = torch.tensor(given.shape)
    grid = grid_of((n - 1) / 2 * UNIT, UNIT)
    vertices, faces, _ = marching_tetrahedra(grid.vertices, grid.hold(0.5 - given.float().reshape(-1)), grid)
    return vertices, faces


def scores_of(made: Shape, on: np.ndarray, normals: np.ndarray, seed: int) -> dict[str, float]:
    """Of one surface; of none a Chamfer of 1."""
    vertices, faces = made
    if not len(faces):
        return {"chamfer": 1.0, "normals": 0.0, "closed": 0.0}
    points, its = scattered(vertices.double(), faces, POINTS, torch.Generator().manual_seed(seed))
    return {
        "chamfer": chamfer(points.numpy(), on),
        "normals": normal_consistency(points.numpy(), its.numpy(), on, normals),
        "closed": float(is_watertight_manifold(vertices, faces)),
    }


def table(settings: Settings, reads: Reads, ways: dict[str, Way]) -> None:
    """Print the rows of all ways, each beside the first: the last column is the mean Chamfer's share of its."""
    packed = Packed(settings.objects)
    indices = packed.indices("validation")
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for k in range(settings.count):
        d = drawable(packed[indices[k * len(indices) // settings.count]])
        known = Known.of(d, carve_object(d, points=POINTS))
        rng = np.random.default_rng([settings.seed, k])
        sample = solid_sample(known, reads, rng, count=3000, noise=settings.noise, augment=False)
        for name, way in ways.items():
            try:
                made = way(sample["given"])
            except EmptySurface:
                made = torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long)
            rows[name].append(scores_of(made, sample["on"].double().numpy(), sample["normals"].double().numpy(), k))
    print(f"\n{settings.count} validation objects, of {reads}; Chamfer: mean (median)\n")
    print("| | Chamfer ↓ | normals ↑ | closed manifolds | Chamfer's share of the first |\n| --- | ---: | ---: | ---: | ---: |")
    first = np.mean([r["chamfer"] for r in next(iter(rows.values()))])
    for name, found in rows.items():
        away, normals, closed = (np.array([r[key] for r in found]) for key in ("chamfer", "normals", "closed"))
        share = f"{away.mean() / first:.2f}"
        print(f"| {name} | {away.mean():.4f} ({np.median(away):.4f}) | {normals.mean():.3f} | {closed.mean():.0%} | {share} |", flush=True)


def compared(settings: Settings, reads: Reads, before: dict[str, Way]) -> None:
    """The table of one kind, behind what else there is to compare with."""
    networks = dmtet.load(settings.points if reads == "points" else settings.voxels)
    ways = dict(before)
    ways["SDF alone"] = alone_way(networks, settings.cells)
    ways["networks"] = networks_way(networks, settings.cells)
    for folder in settings.more:
        other = dmtet.load(folder)
        if other.config.reads == reads:
            ways[str(folder)] = networks_way(other, settings.cells)
    table(settings, reads, ways)


def main(settings: Settings) -> None:
    """Print the tables."""
    others: dict[Reads, dict[str, Way]] = {"points": {}, "voxels": {"the voxels themselves": blocks, "marching": marched}}
    for reads in settings.reads:
        compared(settings, reads, others[reads])


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings))
