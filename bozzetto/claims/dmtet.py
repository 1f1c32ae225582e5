# SPDX-License-Identifier: Apache-2.0
"""DMTet (Shen et al. 2021, arXiv:2111.04276): what a deformable grid, its refinement and a free topology are each worth.

Every variant starts as one sphere and is fitted to points of a shape by the distance to their nearest and back, for as many steps. The
shapes: a box, turned and off the centre, whose edges no lattice follows; and a ring, which has another topology than the sphere.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from bozzetto.camera import rotations
from bozzetto.claims.claim import Beats, Claim, Scores
from bozzetto.evaluate.metrics import chamfer, normal_consistency
from bozzetto.shapes.dmtet import DMTet

CELLS = 16  # along each side of the grid
RATES = {"sdf": 0.012, "offset": 0.04, "vertices": 0.012}  # offsets are in units of their reach
Points = tuple[Tensor, Tensor]
"""places (P, 3) and unit normals (P, 3)"""


def box(count: int, generator: torch.Generator) -> Points:
    half = torch.tensor([0.34, 0.24, 0.16])
    axis = torch.multinomial(half.prod() / half, count, replacement=True, generator=generator)
    at = 2 * torch.rand(count, 3, generator=generator) - 1
    normals = torch.eye(3)[axis] * at.gather(1, axis[:, None]).sign()
    at = torch.where(normals != 0, normals, at)
    turn = rotations(torch.tensor([[0.8, 0.3, -0.2, 0.4]]))[0]
    return at * half @ turn.T + torch.tensor([0.04, -0.03, 0.05]), normals @ turn.T


def ring(count: int, generator: torch.Generator) -> Points:
    """Radii .3 and .13, off the centre."""
    u, v = 2 * math.pi * torch.rand(2, 2 * count, generator=generator)
    is_taken = torch.rand(2 * count, generator=generator) * 0.43 < 0.3 + 0.13 * v.cos()  # even by area
    u, v = u[is_taken][:count], v[is_taken][:count]
    normals = torch.stack([u.cos() * v.cos(), u.sin() * v.cos(), v.sin()], 1)
    return 0.3 * torch.stack([u.cos(), u.sin(), 0 * u], 1) + 0.13 * normals + torch.tensor([0.03, 0.02, -0.05]), normals


def on(vertices: Tensor, faces: Tensor, count: int, generator: torch.Generator) -> Points:
    """Points of a surface, even by area, with gradients."""
    a, b, c = vertices[faces].unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    i = torch.multinomial(normal.detach().norm(dim=1), count, replacement=True, generator=generator)
    s, t = torch.rand(2, count, 1, generator=generator)
    s = s.sqrt()
    return (1 - s) * a[i] + s * (1 - t) * b[i] + s * t * c[i], nn.functional.normalize(normal[i], dim=1)


class Moved(nn.Module):
    """A mesh that keeps its triangles: only its vertices move."""

    def __init__(self, vertices: Tensor, faces: Tensor) -> None:
        super().__init__()
        self.vertices, self.faces = nn.Parameter(vertices.detach().clone()), faces

    def surface(self) -> tuple[Tensor, Tensor]:
        return self.vertices, self.faces


def sphere(cells: int = CELLS, deform: float = 1.0) -> DMTet:
    shape = DMTet.from_sphere(0.38, cells)
    shape.deform = deform
    return shape


def fitted(
    shape: DMTet | Moved,
    target: Tensor,
    seed: int,
    *,
    refine: bool = False,
    signs: tuple[int, int] = (1, 1),
    passes: int = 3,
    steps: int = 45,
) -> Points:
    """Points of the shape after so many steps; with `refine` the grid is subdivided halfway.

    signs   of the gradients to the SDF and to the offsets: -1 is wrong
    passes  over neighbours that average the SDF's gradient
    """
    generator, tree = torch.Generator().manual_seed(seed), cKDTree(target.numpy())
    for step in range(steps):
        is_halfway = refine and step == steps // 2
        if isinstance(shape, DMTet):
            shape.recover()
            if is_halfway:
                shape.subdivide()
        if step == 0 or is_halfway:
            optimiser = torch.optim.Adam([{"params": [p], "name": name} for name, p in shape.named_parameters()])
        for group in optimiser.param_groups:
            group["lr"] = RATES[group["name"]] * (1 - step / steps)
        points = on(*shape.surface(), 1500, generator)[0]
        near = tree.query(points.detach().numpy())[1]
        back = cKDTree(points.detach().numpy()).query(target.numpy())[1]
        loss = (points - target[near]).norm(dim=1).mean() + (points[back] - target).norm(dim=1).mean()
        optimiser.zero_grad()
        loss.backward()
        if isinstance(shape, DMTet):
            shape.smooth_gradients(passes)
            for parameter, sign in zip((shape.sdf, shape.offset), signs, strict=True):
                if parameter.grad is not None:
                    parameter.grad *= sign
        optimiser.step()
    if isinstance(shape, DMTet):
        shape.recover()
    places, normals = on(*shape.surface(), 10_000, generator)
    return places.detach(), normals.detach()


@lru_cache(maxsize=8)
def boxes(seed: int) -> dict[str, Points]:
    """What each way makes of the box, and points of the box itself."""
    generator = torch.Generator().manual_seed(1000 + seed)
    target = box(2000, generator)[0]
    refined = sphere()
    found = {"refined round the surface": fitted(refined, target, seed, refine=True)}
    even = math.ceil((len(refined.grid.tets) / 6) ** (1 / 3))
    found["deformed"] = fitted(sphere(), target, seed)
    found["SDF alone"] = fitted(sphere(deform=0.0), target, seed)
    found["fine everywhere, as many tets"] = fitted(sphere(even), target, seed)
    found["deformed, offsets' gradient of the wrong sign"] = fitted(sphere(), target, seed, signs=(1, -1))
    found["refined, SDF's gradient of the wrong sign"] = fitted(sphere(), target, seed, refine=True, signs=(-1, 1))
    return found | {"the box's own points": box(10_000, generator)}


@lru_cache(maxsize=8)
def rings(seed: int) -> dict[str, Points]:
    """The same of the ring, in twice the steps."""
    generator = torch.Generator().manual_seed(1000 + seed)
    target = ring(2000, generator)[0]
    return {
        "DMTet": fitted(sphere(), target, seed, steps=90),
        "the first mesh's vertices alone": fitted(Moved(*sphere().surface()), target, seed, steps=90),
        "DMTet, gradient averaged once": fitted(sphere(), target, seed, passes=1, steps=90),
        "DMTet, SDF's gradient of the wrong sign": fitted(sphere(), target, seed, signs=(-1, 1), steps=90),
        "the ring's own points": ring(10_000, generator),
    }


def _off(made: dict[str, Points], truth: Points) -> Scores:
    return {name: 100 * chamfer(places.numpy(), truth[0].numpy()) for name, (places, _) in made.items()}


def distance(seed: int) -> Scores:
    """Chamfer distance to the box, hundredths of the object unit."""
    return _off(boxes(seed), box(10_000, torch.Generator().manual_seed(2000 + seed)))


def normals(seed: int) -> Scores:
    """1 - |cosine| between normals of nearest points."""
    to = [x.numpy() for x in box(10_000, torch.Generator().manual_seed(2000 + seed))]
    return {name: 1 - normal_consistency(places.numpy(), n.numpy(), to[0], to[1]) for name, (places, n) in boxes(seed).items()}


def topology(seed: int) -> Scores:
    """Chamfer distance to the ring."""
    return _off(rings(seed), ring(10_000, torch.Generator().manual_seed(2000 + seed)))


_CLAIM = Claim(
    "dmtet-deforms",
    method="DMTet",
    source="arXiv:2111.04276, Sec. 3.1",
    says="A grid whose vertices move is nearer to sharp edges than one whose signed distances alone are learnt, at as many cells.",
    metric="Chamfer distance, hundredths of the object's unit",
    better="lower",
    run=distance,
    must=(Beats("deformed", "SDF alone"),),
    control=Beats("deformed", "deformed, offsets' gradient of the wrong sign"),
    seconds=7,
    remark=f"The coarse grid has {CELLS} cells a side, each of 7 hundredths. `the box's own points` are what 10,000 random points of one "
    "surface are apart from as many others.",
)
CLAIMS = (
    _CLAIM,
    replace(
        _CLAIM,
        name="dmtet-normals",
        says="And so are its normals.",
        metric="1 - |cosine| of normals at nearest points",
        run=normals,
        seconds=1,
        remark="",
    ),
    replace(
        _CLAIM,
        name="dmtet-refines",
        source="arXiv:2111.04276, Sec. 3.1.2",
        says="Tetrahedra are better spent round the surface than everywhere.",
        must=(Beats("refined round the surface", "fine everywhere, as many tets"), Beats("refined round the surface", "deformed")),
        control=Beats("refined round the surface", "refined, SDF's gradient of the wrong sign"),
        seconds=1,
        remark="One refinement, halfway through the steps. The even grid has as many tetrahedra as the refined one, or more, in all steps. "
        "Of a coarse grid the shell round the surface is most: with 10 cells a side the two were level.",
    ),
    replace(
        _CLAIM,
        name="dmtet-topology",
        source="arXiv:2111.04276, Sec. 1 and 4",
        says="A sphere becomes a ring; a mesh that keeps its triangles leaves them across the hole.",
        run=topology,
        must=(Beats("DMTet", "the first mesh's vertices alone"),),
        control=Beats("DMTet", "DMTet, SDF's gradient of the wrong sign"),
        seconds=7,
        remark="Both start as the same sphere, and have the same loss and steps. The SDF's gradient is averaged over neighbours three "
        "times; averaged once, cavities are left behind.",
    ),
)
