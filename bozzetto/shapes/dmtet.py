# SPDX-License-Identifier: Apache-2.0
"""DMTet: a shape as an SDF and bounded offsets on the vertices of a tetrahedral grid, refined round its surface.

Shen et al. 2021, Deep Marching Tetrahedra (arXiv:2111.04276), without its networks (`priors.dmtet`): the unknowns themselves are
optimised, as in nvdiffrec (arXiv:2111.12503), whose sign loss is here, too. Surface subdivision, the paper's last step, is in `loop.py`.
Differs from the released code: offsets are bounded in norm so that no tet can fold (released bounds allow it); after a
subdivision offsets are built into the grid, so that the surface is the same to rounding; boundary vertices are held on
their side, so that the surface is always closed; the SDF starts in units of length, which gives a step size a meaning.

Letters: N grid vertices, s SDF (negative inside), o offset parameter, v' = v + reach * o / sqrt(1 + |o|^2); M, F the surface's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from bozzetto.kernels.marching import crossed_edges, marching_tetrahedra
from bozzetto.mesh import Mesh
from bozzetto.shapes import start
from bozzetto.shapes.start import EmptySurface, Occupancy
from bozzetto.shapes.tetgrid import Cells, Corner, TetGrid, subdivide_surface

__all__ = ["DMTet", "EmptySurface", "area_normals", "normal_consistency", "sign_loss"]


class DMTet(nn.Module):
    """Parameters `sdf` (N,) in object units and `offset` (N, 3) without unit; `grid` says how vertices are joined.

    grid    where vertices rest
    sdf     (N,), negative inside
    deform  share of the reach that offsets may use, in [0, 1]; 0 keeps vertices where they are
    """

    rest: Tensor
    reach: Tensor

    def __init__(self, grid: TetGrid, sdf: Tensor, *, deform: float = 1.0) -> None:
        super().__init__()
        if sdf.shape != (len(grid.vertices),) or not 0 <= deform <= 1:
            raise ValueError(f"dmtet: expected {len(grid.vertices)} SDF values and deform in [0, 1], got {tuple(sdf.shape)} and {deform}")
        self.deform = deform
        self._use(grid, sdf.detach().to(grid.vertices.dtype))

    def _use(self, grid: TetGrid, sdf: Tensor) -> None:
        self.grid = grid
        self.sdf = nn.Parameter(sdf.clone())
        self.offset = nn.Parameter(torch.zeros(len(sdf), 3, dtype=sdf.dtype, device=sdf.device))
        none = torch.zeros(0, 4, dtype=torch.int64)
        self.register_buffer("rest", grid.vertices.to(sdf.device))
        self.register_buffer("reach", grid.reach.to(sdf.device), persistent=False)
        self.register_buffer("grid_side", grid.side)
        self.register_buffer("grid_cells", torch.tensor(grid.cells or (0, 0, 0)))
        self.register_buffer("grid_tets", none if grid.listed is None else grid.listed)

    # ---- what it can start from; `cells`, `lower`, `upper` as in TetGrid.kuhn ----

    @classmethod
    def from_sphere(cls, radius: float, cells: Cells = 64, lower: Corner = -0.55, upper: Corner = 0.55, centre: Corner = 0.0) -> DMTet:
        """A sphere, with its exact SDF."""
        return cls.from_ellipsoid(radius, cells, lower, upper, centre)

    @classmethod
    def from_ellipsoid(cls, radii: Corner, cells: Cells = 64, lower: Corner = -0.55, upper: Corner = 0.55, centre: Corner = 0.0) -> DMTet:
        """An ellipsoid with half axes `radii` along x, y, z round `centre`."""
        grid = TetGrid.kuhn(cells, lower, upper)
        return cls(grid, start.ellipsoid(grid, radii, centre))

    @classmethod
    def from_occupancy(cls, occupancy: Occupancy, cells: Cells = 64, lower: Corner = -0.55, upper: Corner = 0.55) -> DMTet:
        """Where a logit is positive.

        occupancy  logits (X, Y, Z) at the centres of the X x Y x Z cells that fill the box, interpolated linearly; or a function from
                   points (P, 3) float32 to logits (P,), called for some 65536 points at a time
        raises     EmptySurface where all logits have one sign
        """
        grid = TetGrid.kuhn(cells, lower, upper)
        return cls(grid, start.occupancy(grid, occupancy))

    @classmethod
    def from_sdf(cls, sdf: Callable[[Tensor], Tensor], cells: Cells = 64, lower: Corner = -0.55, upper: Corner = 0.55) -> DMTet:
        """A signed distance that another shape has, as `Volume.signed` of a NeuS: (P,), negative inside, at points (P, 3).

        raises  EmptySurface where it has one sign at all vertices
        """
        grid = TetGrid.kuhn(cells, lower, upper)
        return cls(grid, start.distance(grid, sdf))

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], *, deform: float = 1.0) -> DMTet:
        """The shape of a `state_dict`, grid and all: subdivided shapes have their own sizes."""
        cells = tuple(state["grid_cells"].tolist())
        listed = state["grid_tets"].cpu() if not any(cells) else None
        grid = TetGrid(state["rest"].cpu(), state["grid_side"].cpu(), cells=cells if any(cells) else None, listed=listed)
        shape = cls(grid, state["sdf"], deform=deform)
        shape.load_state_dict(state)
        return shape

    # ---- the surface ----

    def positions(self) -> Tensor:
        """Moved grid vertices (N, 3); no offset, however large, can fold a tet."""
        return self.rest + self.deform * self.reach[:, None] * self.offset / (1 + self.offset.square().sum(1, keepdim=True)).sqrt()

    def field(self) -> Tensor:
        """The SDF (N,) with boundary vertices held on their side."""
        return self.grid.hold(self.sdf)

    def surface(self) -> tuple[Tensor, Tensor]:
        """Vertices (M, 3), with gradients, and faces (F, 3) int64, counter-clockwise from outside; always closed.

        raises  EmptySurface when there is none
        """
        vertices, faces, _ = marching_tetrahedra(self.positions(), self.field(), self.grid)
        if not len(faces):
            sign = "positive (outside)" if bool((self.sdf > 0).all()) else "negative (inside)"
            raise EmptySurface(f"dmtet: the SDF is {sign} everywhere, so there is no surface; call recover() or lower the step size")
        return vertices, faces

    def mesh(self) -> Mesh:
        """The surface as it is, with vertex normals, on the CPU."""
        with torch.no_grad():
            vertices, faces = self.surface()
            return Mesh(vertices.float().cpu(), faces.cpu(), normals=area_normals(vertices, faces).float().cpu())

    def recover(self, radius: float | None = None) -> None:
        """Plant a small ball (2.5 grid spacings unless given) where the SDF is nearest to 0, if there is no surface."""
        with torch.no_grad():
            if len(crossed_edges(self.field(), self.grid)):
                return
            r = 2.5 * self.grid.spacing if radius is None else radius
            free = self.grid.side.to(self.sdf.device) == 0
            v = self.positions()
            seed = torch.where(free, self.sdf.abs(), torch.inf).argmin()
            ball = (v - v[seed]).norm(dim=1) - r
            self.sdf.copy_(torch.minimum(ball, self.sdf) if self.sdf[seed] > 0 else torch.maximum(-ball, self.sdf))

    # ---- growing ----

    def subdivide(self, rings: int = 1) -> Tensor:
        """Refine the grid round the surface, which stays the same; parameters are replaced, offsets start at 0 again.

        returns  parents (N', 2) int64: new vertex n is the midpoint of two old ones (of the same one twice if it was kept)
        """
        try:
            grid, sdf, parents = subdivide_surface(replace(self.grid, vertices=self.positions().detach().cpu()), self.field(), rings)
        except ValueError as error:
            raise EmptySurface(str(error)) from error
        self._use(grid, sdf)
        return parents

    def smooth_gradients(self, passes: int = 3) -> None:
        """Between `backward` and the optimizer's step: average the SDF's gradient over neighbours, so many times.

        Only ends of crossed edges have a gradient, each by itself, and a step by it leaves spikes and cavities behind, which no
        later gradient removes. Averaged, the surface moves as one, and its topology changes where it should (a Sobolev
        gradient; Nicolet et al. 2021, Large Steps in Inverse Rendering of Geometry, do this for meshes).
        """
        g = self.sdf.grad
        if g is None:
            return
        if self.grid.cells is not None:
            volume = g.view(1, 1, *(c + 1 for c in self.grid.cells))
            for _ in range(passes):
                volume = functional.avg_pool3d(volume, 3, stride=1, padding=1)
            self.sdf.grad = volume.reshape(-1)
            return
        a, b = self.grid.edges.to(g.device).unbind(1)
        count = torch.ones_like(g).index_add(0, a, torch.ones_like(g[a])).index_add(0, b, torch.ones_like(g[b]))
        for _ in range(passes):
            g = g.index_add(0, a, g[b]).index_add(0, b, g[a]) / count
        self.sdf.grad = g

    # ---- regularisers ----

    def sign_loss(self) -> Tensor:
        """Sign changes penalised, with the SDF in units of the grid's spacing: no floating bits, no cavities nobody sees."""
        s = self.field()
        return sign_loss(s / self.grid.spacing, crossed_edges(s, self.grid))


def sign_loss(sdf: Tensor, ends: Tensor) -> Tensor:
    """Mean over crossed edges (a, b) of BCE(sigmoid(s_a), [s_b > 0]) + BCE(sigmoid(s_b), [s_a > 0]); 0 without any.

    sdf (N,); ends (M, 2) edges; those with equal signs count for nothing. Munkberg et al. 2022 (arXiv:2111.12503), Eq. 2
    """
    a, b = sdf[ends[:, 0]], sdf[ends[:, 1]]
    crossed = (a > 0) != (b > 0)
    a, b = a[crossed], b[crossed]
    bce = functional.binary_cross_entropy_with_logits
    total = bce(a, (b > 0).to(a), reduction="sum") + bce(b, (a > 0).to(b), reduction="sum")
    return total / max(len(a), 1)


def normal_consistency(vertices: Tensor, faces: Tensor, normals: Tensor | None = None) -> Tensor:
    """Mean of 1 - n_a . n_b over the edges of a closed mesh, n its vertex normals (`area_normals`, if there are none yet): 0 when
    flat, at most 2."""
    n = area_normals(vertices, faces) if normals is None else normals
    pairs = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    return (1 - (n[pairs[:, 0]] * n[pairs[:, 1]]).sum(1)).mean()


def area_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """(M, 3) unit normals with gradients, the mean of the faces' weighted by area; 0 where that is 0 (with a gradient of 0)."""
    t = vertices[faces]
    normal = torch.linalg.cross(t[:, 1] - t[:, 0], t[:, 2] - t[:, 0])
    total = torch.zeros_like(vertices)
    for i in range(3):
        total = total.index_add(0, faces[:, i], normal)
    length = total.square().sum(1, keepdim=True)
    return total * torch.where(length > 0, length.clamp(min=torch.finfo(length.dtype).tiny).rsqrt(), 0)
