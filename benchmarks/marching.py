# SPDX-License-Identifier: Apache-2.0
"""Marching tetrahedra against vectorised PyTorch: `python -m benchmarks.marching`.

The peer is the usual form in plain PyTorch, as in kaolin: the tets that cross, their edges made unique in each call, vertices by
autograd; kaolin's own function is timed, too, where it can be imported. Processor time summed over threads, and wall time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks import machine, measure, milliseconds
from bozzetto.kernels import pool
from bozzetto.kernels.marching import marching_tetrahedra
from bozzetto.kernels.tets import CORNERS, COUNT, EDGES
from bozzetto.shapes.tetgrid import TetGrid, subdivide_surface

March = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def torch_marching(vertices: Tensor, sdf: Tensor, tets: Tensor) -> tuple[Tensor, Tensor]:
    """The peer: vertices (M, 3) with gradients and faces (F, 3), the same surface as ours."""
    with torch.no_grad():
        above = (sdf > 0)[tets]
        total = above.sum(1)
        valid = (total > 0) & (total < 4)
        pairs = tets[valid][:, torch.tensor(EDGES).reshape(-1)].reshape(-1, 2).sort(1).values
        edges, number = torch.unique(pairs, dim=0, return_inverse=True)
        crossed = (sdf[edges] > 0).sum(1) == 1
        new = torch.full((len(edges),), -1, dtype=torch.int64)
        new[crossed] = torch.arange(int(crossed.sum()))
        number = new[number].reshape(-1, 6)
        case = (above[valid] * torch.tensor([1, 2, 4, 8])).sum(1)
        count, corners = torch.from_numpy(COUNT)[case], torch.from_numpy(CORNERS.astype("int64"))[case]
        faces = torch.cat([number[count > k].gather(1, corners[count > k, k]) for k in range(2)])
        a, b = edges[crossed].unbind(1)
    va, vb, sa, sb = vertices[a], vertices[b], sdf[a][:, None], sdf[b][:, None]
    return (va * sb - vb * sa) / (sb - sa), faces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=64, help="cells a side")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=4, help="at most so many for each number")
    args = parser.parse_args()
    grid = TetGrid.kuhn(args.cells, -1, 1)
    centre = torch.tensor([0.013, 0.007, 0.003])

    def sphere(g: TetGrid) -> Tensor:
        return (g.vertices - centre).norm(dim=1) - 0.6

    fine = subdivide_surface(grid, sphere(grid)).grid
    print(machine("torch", "numba"), "\n")
    print("| grid | method | threads | forward, CPU ms | forward, ms | and backward, CPU ms | and backward, ms | PyTorch / this, CPU |")
    print("|---|---|---|---|---|---|---|---|")
    for name, g in ((f"{args.cells}³ × 6 tets", grid), (f"refined, {len(fine.tets) / 1e6:.2f} M tets", fine)):
        plain = TetGrid(g.vertices, g.side, listed=g.tets)
        plain.lists()
        ways: list[tuple[str, March, tuple[int, ...]]] = [("PyTorch, unique", lambda v, s, g=g: torch_marching(v, s, g.tets), (1, 2))]  # type: ignore[misc]
        try:
            from kaolin.ops.conversions import marching_tetrahedra as kaolin

            ways.append(("kaolin", lambda v, s, g=g: tuple(x[0] for x in kaolin(v[None], g.tets, s[None])), (1, 2)))  # type: ignore[misc]
        except ImportError:
            pass
        if g.cells is not None:
            ways.append(("ours, lattice", lambda v, s, g=g: marching_tetrahedra(v, s, g)[:2], (1, 2)))  # type: ignore[misc]
        ways.append(("ours, lists", lambda v, s, g=plain: marching_tetrahedra(v, s, g)[:2], (1, 2)))  # type: ignore[misc]
        vertices, sdf = g.vertices.clone().requires_grad_(), sphere(g).requires_grad_()
        expected = torch_marching(vertices, sdf, g.tets)
        peer: dict[int, float] = {}
        for method, march, threads in ways:
            got = march(vertices, sdf)
            assert len(got[0]) == len(expected[0]) and len(got[1]) == len(expected[1]), method
            weight = torch.ones_like(got[0])

            def both(march: March = march, v: Tensor = vertices, s: Tensor = sdf, w: Tensor = weight) -> None:
                torch.autograd.grad(march(v, s)[0], (v, s), w)

            for n in threads:
                pool.set_num_threads(n)
                torch.set_num_threads(n)
                cells = []
                for fn in (lambda march=march, v=vertices, s=sdf: march(v, s), both):
                    for clock in (time.process_time, time.perf_counter):
                        cells.append(measure(fn, repeats=args.repeats, seconds=args.seconds, clock=clock))
                peer.setdefault(n, cells[0][0])
                print(f"| {name} | {method} | {n} | {' | '.join(map(milliseconds, cells))} | {peer[n] / cells[0][0]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
