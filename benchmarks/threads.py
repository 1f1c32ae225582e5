# SPDX-License-Identifier: Apache-2.0
"""What a second core is worth: `python -m benchmarks.threads`.

Each kernel on one thread and on several, in turns, so that a drift of the machine hits both alike; wall time. The target is
1.8 times as fast on two threads. It needs a quiet machine: the load stands below the table, and the last column, processor
time on several threads over that on one, says what sharing itself costs, quiet or not.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks import machine, milliseconds, spread
from benchmarks.rasterize import bumpy_ball
from benchmarks.splat import scene
from bozzetto.camera import orbit
from bozzetto.data.objects import Object
from bozzetto.data.renders import carve_object, drawable
from bozzetto.kernels import pool
from bozzetto.kernels.antialias import antialias, edges
from bozzetto.kernels.interpolate import interpolate
from bozzetto.kernels.marching import marching_tetrahedra
from bozzetto.kernels.rasterize import rasterize
from bozzetto.kernels.splat import splat
from bozzetto.kernels.texture import texture
from bozzetto.shapes.tetgrid import TetGrid
from bozzetto_objects import make

Op = Callable[[], object]


def triangles(faces: int, size: int, views: int) -> dict[str, Op]:
    """The four operations of the mesh renderer over a bumpy ball."""
    v, f = bumpy_ball(faces)
    cameras = orbit([0.3 + k for k in range(views)], [0.4] * views, 1.6, fov=0.7, size=size)
    clip = cameras.clip(v).requires_grad_()
    g = torch.Generator().manual_seed(0)
    A, uv = torch.rand(len(v), 3, generator=g).requires_grad_(), torch.rand(views, size, size, 2, generator=g)
    image = torch.rand(1, 512, 512, 3, generator=g).requires_grad_()
    rast, beside = rasterize(clip, f, (size, size)), edges(f)
    colour = interpolate(A, rast, clip, f).detach().requires_grad_()
    return {
        "rasterize": lambda: rasterize(clip, f, (size, size)),
        "interpolate and backward": _both(lambda: interpolate(A, rast, clip, f), A, clip),
        "texture and backward": _both(lambda: texture(image, uv), image),
        "antialias and backward": _both(lambda: antialias(colour, rast, clip, f, beside), colour, clip),
    }


def surfaces(cells: int) -> dict[str, Op]:
    """Marching tetrahedra over a ball, on a lattice and on its tets listed."""
    grid = TetGrid.kuhn(cells, -1, 1)
    listed = TetGrid(grid.vertices, grid.side, listed=grid.tets)
    listed.lists()
    x, sdf = grid.vertices.clone().requires_grad_(), (grid.vertices.norm(dim=1) - 0.6).requires_grad_()
    return {
        f"marching tetrahedra, {name}, and backward": _both(lambda g=g: marching_tetrahedra(x, sdf, g)[0], x, sdf)  # type: ignore[misc]
        for name, g in (("lattice", grid), ("lists", listed))
    }


def splats(count: int, size: int) -> dict[str, Op]:
    """Gaussians, projected, sorted and blended."""
    s = scene(count, size)
    leaves = [t.clone().requires_grad_() for t in s[:5]]
    return {
        "splat": lambda: splat(*(t.detach() for t in leaves), *s[5:], (size, size)).rgb,
        "splat and backward": _both(lambda: splat(*leaves, *s[5:], (size, size)).rgb, *leaves),
    }


def carving() -> dict[str, Op]:
    """A training object carved from 48 depth maps."""
    obj: Object = make("mug", 3)
    d = drawable(obj)
    return {"carve an object": lambda: carve_object(d)}


def _both(fn: Callable[[], Tensor], *inputs: Tensor) -> Op:
    return lambda: torch.autograd.grad(fn().square().sum(), inputs)


def turns(fn: Op, threads: int, repeats: int, seconds: float) -> tuple[list[float], list[float], list[float], list[float]]:
    """Seconds on the wall and of processor time, of one thread and of several: fn called in turns, after two calls of each."""
    wall: tuple[list[float], list[float]] = ([], [])
    cpu: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + seconds
    for k in range(-2, repeats):
        if k >= 3 and time.perf_counter() > end:
            break
        for which, n in enumerate((1, threads)):
            pool.set_num_threads(n)
            torch.set_num_threads(n)
            fn()  # the pool's threads start here
            before, used = time.perf_counter(), time.process_time()
            fn()
            if k >= 0:
                wall[which].append(time.perf_counter() - before)
                cpu[which].append(time.process_time() - used)
    return (*wall, *cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="against one")
    parser.add_argument("--size", type=int, default=512, help="pixels a side")
    parser.add_argument("--faces", type=int, default=20000)
    parser.add_argument("--views", type=int, default=2, help="pictures of the mesh at a time")
    parser.add_argument("--gaussians", type=int, default=50000)
    parser.add_argument("--cells", type=int, default=64, help="of the lattice, a side")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10, help="at most, for each row")
    args = parser.parse_args()
    ops = {
        **triangles(args.faces, args.size, args.views),
        **surfaces(args.cells),
        **splats(args.gaussians, args.size),
        **carving(),
    }
    print(f"{args.faces} faces in {args.views} views and {args.gaussians} Gaussians, {args.size} x {args.size}; {args.cells}³ x 6 tets\n")
    print(f"| | 1 thread, ms | {args.threads} threads, ms | times as fast | CPU time, {args.threads} threads / 1 |")
    print("|---|---|---|---|---|")
    for name, fn in ops.items():
        *wall, one, several = map(spread, turns(fn, args.threads, args.repeats, args.seconds))
        cells = [*map(milliseconds, wall), f"{wall[0][0] / wall[1][0]:.2f}", f"{several[0] / one[0]:.2f}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print(f"\n{machine('torch', 'numba', 'numpy')}")


if __name__ == "__main__":
    main()
