# SPDX-License-Identifier: Apache-2.0
"""Gaussian splatting, forward and backward, beside a vectorised PyTorch twin: `python -m benchmarks.splat --size 256`.

The scene: Gaussians uniform in [-1, 1]^3, sigma .02 to .06, opacity .1 to .9. The twin blends the same ellipses over the list of all
(Gaussian, pixel) pairs where alpha is drawn; the list is made beforehand and not timed. It also blends what lies behind a finished
pixel, as ours do in the comparison of pictures, before anything is timed. gsplat is timed where a GPU and the package are there.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmarks import machine, measure, milliseconds
from bozzetto.camera import focal
from bozzetto.kernels import pool
from bozzetto.kernels.blend import MIN_ALPHA, TOP, blend
from bozzetto.kernels.project import project
from bozzetto.kernels.splat import splat
from bozzetto.kernels.tiles import boxes


def scene(n: int, size: int) -> tuple[Tensor, ...]:
    """means, quats, scales, opacities, colours, w2c, K; the camera is 4 away and sees [-1, 1]^3 whole."""
    g = torch.Generator().manual_seed(0)
    means, quats = torch.rand(n, 3, generator=g) * 2 - 1, torch.randn(n, 4, generator=g)
    scales, opacities = torch.rand(n, 3, generator=g) * 0.04 + 0.02, torch.rand(n, generator=g) * 0.8 + 0.1
    f = focal(0.79, size)
    w2c, K = torch.eye(3, 4)[None], torch.tensor([[[f, 0, size / 2], [0, f, size / 2], [0, 0, 1]]])
    w2c[0, 2, 3] = 4
    return means, quats, scales, opacities, torch.rand(n, 3, generator=g), w2c, K


def pairs(xy: Tensor, conic: Tensor, depth: Tensor, opacities: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """All (Gaussian, pixel) pairs in which alpha is drawn, by pixel and then from near to far; and where each pixel begins."""
    n = len(xy)
    ellipse, box = np.empty((n, 8), np.float32), np.empty((n, 4), np.int32)
    boxes(0, n, xy.numpy(), conic.numpy(), opacities.numpy(), MIN_ALPHA, size, size, ellipse, box)
    gaussian, pixel = [], []
    for i in torch.argsort(depth).tolist():
        x0, x1, y0, y1 = box[i]
        row, column = np.mgrid[y0:y1, x0:x1]
        dx, dy = column + 0.5 - ellipse[i, 0], row + 0.5 - ellipse[i, 1]
        power = -0.5 * (ellipse[i, 2] * dx * dx + ellipse[i, 4] * dy * dy) - ellipse[i, 3] * dx * dy
        at = (row * size + column)[power >= ellipse[i, 6]] if x1 > x0 else np.empty(0, int)
        pixel.append(at)
        gaussian.append(np.full(len(at), i))
    where = torch.from_numpy(np.concatenate(pixel))
    order = torch.argsort(where, stable=True)
    where = where[order]
    first = torch.searchsorted(where, torch.arange(size * size))
    return torch.from_numpy(np.concatenate(gaussian))[order], where, first


def torch_blend(
    xy: Tensor, conic: Tensor, opacities: Tensor, colours: Tensor, which: Tensor, where: Tensor, first: Tensor, size: int
) -> Tensor:
    """(size^2, 3): transmittance by a running sum of log(1 - alpha), from which each pixel's start is taken away."""
    d = torch.stack([where % size, where // size], -1) + 0.5 - xy[which]
    a, b, c = conic[which].unbind(-1)
    power = -0.5 * (a * d[:, 0] ** 2 + c * d[:, 1] ** 2) - b * d[:, 0] * d[:, 1]
    alpha = (opacities[which] * power.exp()).clamp(max=TOP)
    log = torch.log1p(-alpha).double()  # a sum over all pixels: float32 would lose the last ones
    before = torch.cumsum(log, 0) - log
    start = before[first.clamp(max=len(where) - 1)]
    weight = alpha * (before - start[where]).exp().to(alpha)
    return colours.new_zeros(size * size, 3).index_add(0, where, weight[:, None] * colours[which])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs="+", default=[256, 512], help="pixels on a side")
    parser.add_argument("--gaussians", type=int, nargs="+", default=[10000, 50000])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument(
        "--pairs", type=int, default=20_000_000, help="the twin is left out above this: each takes about 200 bytes; 0 leaves it out"
    )
    parser.add_argument("--seconds", type=float, default=10, help="at most, for each cell")
    args = parser.parse_args()
    print("milliseconds of CPU time: median ± spread; the wall clock where it says so\n")
    print("| | blend | and backward | all | and backward | all, 2 threads, wall | PyTorch blend | and backward | PyTorch / ours |")
    print("|---|---|---|---|---|---|---|---|---|")
    for size in args.size:
        for n in args.gaussians:
            s = scene(n, size)
            pool.set_num_threads(1)
            torch.set_num_threads(1)
            with torch.no_grad():
                xy, conic, depth, _ = project(*s[:3], *s[5:], (size, size))
            leaves = [t.clone().requires_grad_() for t in (xy, conic, s[3][None], s[4][None])]
            whole = [t.clone().requires_grad_() for t in s[:5]]
            lists = pairs(xy[0], conic[0], depth[0], s[3], size) if args.pairs else ()

            def ours(x: list[Tensor] = leaves, depth: Tensor = depth, size: int = size) -> Tensor:
                return blend(x[0], x[1], depth, x[2], x[3], (size, size))[0]

            def everything(x: list[Tensor] = whole, s: tuple[Tensor, ...] = s, size: int = size) -> Tensor:
                return splat(*x, *s[5:], (size, size)).rgb

            def twin(x: list[Tensor] = leaves, lists: tuple[Tensor, ...] = lists, size: int = size) -> Tensor:
                return torch_blend(*(t[0] for t in x), *lists, size)

            has_twin = bool(lists) and len(lists[0]) <= args.pairs
            if has_twin:
                with torch.no_grad():
                    whole_picture = blend(xy, conic, depth, s[3][None], s[4][None], (size, size), min_transmittance=0.0)[0][0]
                    difference = float((twin().view(size, size, 3) - whole_picture).abs().max())
                assert difference < 1e-4, f"ours and the twin differ by {difference}"

            def both(fn: Callable[[], Tensor], inputs: list[Tensor]) -> Callable[[], object]:
                return lambda: torch.autograd.grad(fn().square().sum(), inputs)

            def cpu(fn: Callable[[], object]) -> tuple[float, float]:
                return measure(fn, repeats=args.repeats, seconds=args.seconds, clock=time.process_time)

            results = [cpu(ours), cpu(both(ours, leaves)), cpu(everything), cpu(both(everything, whole))]
            pool.set_num_threads(2)
            results.append(measure(both(everything, whole), repeats=args.repeats, seconds=args.seconds))
            pool.set_num_threads(1)
            cells = [milliseconds(r) for r in results]
            if has_twin:
                peer = [cpu(twin), cpu(both(twin, leaves))]
                cells += [*map(milliseconds, peer), f"{peer[1][0] / results[1][0]:.1f}"]
            print("| " + " | ".join([f"{n} at {size}²", *cells, *[""] * (8 - len(cells))]) + " |", flush=True)
            if torch.cuda.is_available() and importlib.util.find_spec("gsplat"):
                gpu, rest = [t.detach().cuda().requires_grad_() for t in whole], [t.cuda() for t in s[5:]]

                def on_gpu(x: list[Tensor] = gpu, rest: list[Tensor] = rest, size: int = size) -> None:
                    torch.autograd.grad(splat(*x, *rest, (size, size)).rgb.square().sum(), x)
                    torch.cuda.synchronize()

                print(f"| gsplat on {torch.cuda.get_device_name()}, and backward, wall: {milliseconds(measure(on_gpu))} |")
    print(f"\n{machine('torch', 'numba', 'numpy')}")


if __name__ == "__main__":
    main()
