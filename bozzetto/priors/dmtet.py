# SPDX-License-Identifier: Apache-2.0
"""DMTet with its networks: points or coarse voxels to a closed surface in one pass (Shen et al. 2021, arXiv:2111.04276, Sec. 3.1).

1. encode      F_vol of any place (`point_voxel`)
2. predict     an MLP of F_vol and the place: SDF s and features f at the vertices of a tetrahedral grid (Sec. 3.1.1)
3. refine      of the tets that the surface crosses, a graph network of concat(v, s, F_vol(v), f): offsets, changes of s, new f (3.1.2)
4. subdivide   those tets and their neighbours, eight for each; refine again
5. march       the surface, by `kernels.marching` (3.1.3)
6. surface     a graph network on its mesh moves vertices and says how far Loop's rule pulls each; one subdivision (3.1.4)

The authors' networks were never released; sizes are ours. Differs: offsets are bounded in norm, not by tanh on each axis, so that no
tet can fold (`shapes.tetgrid.TetGrid.reach`); s begins as the encoder's first distance, which the MLP corrects; lengths are in grid
spacings where a graph network reads or writes them, so that one that was trained on one grid serves another. All last layers of the graph
networks begin as zeros: refinement begins as none, surface subdivision as Loop's.

Letters: V vertices of a graph, E edges; h the grid's spacing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bozzetto.brief import brief
from bozzetto.kernels.marching import marching_tetrahedra
from bozzetto.priors import small
from bozzetto.priors.point_voxel import REACH, UNIT, Field, PointEncoder, VoxelEncoder
from bozzetto.shapes.dmtet import area_normals
from bozzetto.shapes.loop import loop_alpha, loop_subdivide
from bozzetto.shapes.start import EmptySurface
from bozzetto.shapes.tetgrid import TetGrid, find_edges, subdivide_surface

CHUNK = 1 << 16  # places that are asked for at a time


@dataclass(frozen=True)
class DMTetConfig:
    """The networks' shape; written beside the weights, from which they are built again."""

    reads: Literal["points", "voxels"] = "points"
    widths: tuple[int, int, int] = (12, 24, 40)
    """channels of the 3D network"""
    neurons: int = 64
    """of the MLP's layers"""
    features: int = 16
    """f, at each vertex"""
    graph: int = 32
    """channels of the graph networks"""


class GraphNetwork(nn.Module):
    """Features (V, C) on a graph to (V, out): three layers, each x + silu(own + mean of the neighbours'); the last begins as zeros."""

    def __init__(self, inner: int, width: int, out: int) -> None:
        super().__init__()
        self.stem = nn.Linear(inner, width)
        self.own = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.others = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(3))
        self.head = nn.Linear(width, out)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """edges (E, 2), each once"""
        a, b = edges.unbind(1)
        one = torch.ones(len(edges), dtype=x.dtype, device=x.device)
        count = torch.zeros(len(x), dtype=x.dtype, device=x.device).index_add(0, a, one).index_add(0, b, one).clamp(min=1)
        x = F.silu(self.stem(x))
        for own, others in zip(self.own, self.others, strict=True):
            told = others(x)
            mean = torch.zeros_like(told).index_add(0, a, told[b]).index_add(0, b, told[a]) / count[:, None]
            x = x + F.silu(own(x) + mean)
        made: Tensor = self.head(x)
        return made


@brief
@dataclass(frozen=True)
class Volumetric:
    """A grid with what the networks say at its vertices.

    vertices  (N, 3), moved; sdf (N,), negative inside, with boundary vertices on their side; features (N, F)
    offsets   (M, 3) of the vertices that were moved last, grid spacings
    """

    grid: TetGrid
    vertices: Tensor
    sdf: Tensor
    features: Tensor
    offsets: Tensor

    def surface(self) -> tuple[Tensor, Tensor, Tensor]:
        """Vertices (M, 3) with gradients, faces (F, 3), and the grid's edge (M, 2) on which each lies.

        raises  EmptySurface where the SDF has one sign
        """
        vertices, faces, ends = marching_tetrahedra(self.vertices, self.sdf, self.grid)
        if not len(faces):
            raise EmptySurface("the networks found no surface in it")
        return vertices, faces, ends


class DMTetNetworks(nn.Module):
    """`encode`, `predict`, `refine` and `subdivide`, `finish`: the steps above; `forward` is all of them."""

    def __init__(self, config: DMTetConfig = DMTetConfig()) -> None:
        super().__init__()
        self.config = config
        c, f = config, config.features
        self.encode: PointEncoder | VoxelEncoder = PointEncoder(c.widths) if c.reads == "points" else VoxelEncoder(c.widths)
        read = self.encode.read
        layers = [nn.Linear(3 + read, c.neurons), nn.SiLU(), nn.Linear(c.neurons, c.neurons), nn.SiLU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(c.neurons, c.neurons), nn.SiLU(), nn.Linear(c.neurons, 2 + f))
        self.graphs = nn.ModuleList(GraphNetwork(3 + 1 + read + f, c.graph, 3 + 1 + f) for _ in range(2))
        self.mesh = GraphNetwork(3 + 3 + read + f, c.graph, 3 + 1)

    def forward(self, field: Field, grid: TetGrid) -> tuple[Tensor, Tensor]:
        """The surface of the field of some points or voxels (`encode`), from a grid in their frame: vertices and faces.

        raises  EmptySurface where there is none
        """
        shape = self.refine(0, field, self.predict(field, grid))
        return self.finish(field, self.refine(1, field, subdivide(shape)))

    def distance(self, field: Field, x: Tensor) -> tuple[Tensor, Tensor]:
        """SDF (P,), negative inside, and features (P, F) at places (P, 3)."""
        made = []
        for part in x.split(CHUNK):
            read, base = field.read(part)
            out = self.mlp(torch.cat([part, read], 1))
            # What lies far off has no say, and the MLP can overrule the rest: a plane goes on where its surface has ended.
            first = REACH * (base / (REACH * UNIT)).tanh() * (out[:, 1] + 3).sigmoid()
            made.append(torch.cat([UNIT * (first + out[:, 0])[:, None], out[:, 2:]], 1))
        all_ = torch.cat(made)
        return all_[:, 0], all_[:, 1:]

    def predict(self, field: Field, grid: TetGrid) -> Volumetric:
        """The SDF at the vertices of a grid at rest."""
        sdf, features = self.distance(field, grid.vertices)
        return Volumetric(grid, grid.vertices, grid.hold(sdf), features, grid.vertices[:0])

    def refine(self, level: int, field: Field, shape: Volumetric) -> Volumetric:
        """The vertices of the tets that the surface crosses, moved within their reach, with a new SDF."""
        grid, h = shape.grid, shape.grid.spacing
        positive = (shape.sdf > 0).cpu()[grid.tets].sum(1)
        kept, tets = torch.unique(grid.tets[(positive > 0) & (positive < 4)], return_inverse=True)
        if not len(kept):
            raise EmptySurface("the networks found no surface in it")
        edges = find_edges(tets, len(kept))[0].to(shape.sdf.device)
        kept = kept.to(shape.sdf.device)
        v, s, f = shape.vertices[kept], shape.sdf[kept], shape.features[kept]
        read, _ = field.read(v)
        out = self.graphs[level](torch.cat([v, (s / h).clamp(-4, 4)[:, None], read, f], 1), edges)
        o = out[:, :3]
        moved = v + grid.reach.to(v)[kept, None] * o / (1 + o.square().sum(1, keepdim=True)).sqrt()
        vertices = shape.vertices.index_put((kept,), moved)
        sdf = grid.hold(shape.sdf.index_put((kept,), s + h * out[:, 3]))
        features = shape.features.index_put((kept,), f + out[:, 4:])
        return Volumetric(replace(grid, vertices=vertices.detach().cpu()), vertices, sdf, features, (moved - v) / h)

    def finish(self, field: Field, shape: Volumetric) -> tuple[Tensor, Tensor]:
        """The surface, moved and subdivided once by Loop's rule with predicted weights: vertices and faces."""
        h = shape.grid.spacing
        vertices, faces, ends = shape.surface()
        pairs = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
        edges = pairs[pairs[:, 0] < pairs[:, 1]]  # each edge of a closed mesh runs both ways
        read, _ = field.read(vertices)
        f = shape.features[ends].mean(1)
        out = self.mesh(torch.cat([vertices, area_normals(vertices, faces), read, f], 1), edges)
        o = out[:, :3]
        moved = vertices + h / 2 * o / (1 + o.square().sum(1, keepdim=True)).sqrt()
        alpha = torch.logit(loop_alpha(faces, len(vertices), vertices.dtype)) + out[:, 3]
        return loop_subdivide(moved, faces, alpha.sigmoid())


def subdivide(shape: Volumetric) -> Volumetric:
    """Volume subdivision, with gradients: the tets that the surface crosses and their neighbours, eight for each (Sec. 3.1.2)."""
    grid, _, parents = subdivide_surface(shape.grid, shape.sdf)
    a, b = parents.to(shape.sdf.device).unbind(1)
    vertices, features = (shape.vertices[a] + shape.vertices[b]) / 2, (shape.features[a] + shape.features[b]) / 2
    return Volumetric(grid, vertices, grid.hold((shape.sdf[a] + shape.sdf[b]) / 2), features, vertices[:0])


def grid_of(half: Tensor, spacing: float) -> TetGrid:
    """A Kuhn lattice over [-half, half], half (3,), with cells of about a spacing."""
    cells = [max(round(2 * float(x) / spacing), 2) for x in half]
    return TetGrid.kuhn((cells[0], cells[1], cells[2]), (-half).tolist(), half.tolist())


def load(folder: str | Path, *, device: str | torch.device = "cpu") -> DMTetNetworks:
    """The networks in a folder (`config.json`, `model.safetensors`), in float32, ready to ask.

    raises InputError, one sentence, for a missing, truncated, pickled or mis-shaped file
    """
    return small.load(folder, lambda settings: DMTetNetworks(DMTetConfig(**settings)), device, "give")


def save(networks: DMTetNetworks, folder: str | Path) -> None:
    """Write the folder that `load` reads, float16, each file by rename."""
    small.save(networks, networks.config, folder)
