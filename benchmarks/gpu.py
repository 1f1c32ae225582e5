# SPDX-License-Identifier: Apache-2.0
"""The kernels and the first guess on one GPU: `python -m benchmarks.gpu`; `make course` runs it at its end.

Wall time with the GPU waited for. What a machine lacks has a row that says so. Without a GPU the CPU's rows are there alone.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Iterator
from unittest import mock

import torch
from torch import Tensor

from benchmarks import machine, measure, milliseconds
from benchmarks.rasterize import bumpy_ball, torch_render
from benchmarks.splat import pairs, scene, torch_blend
from bozzetto.camera import orbit
from bozzetto.kernels import gsplat, nvdiffrast, pool
from bozzetto.kernels.antialias import antialias, edges
from bozzetto.kernels.interpolate import interpolate
from bozzetto.kernels.project import project
from bozzetto.kernels.rasterize import rasterize
from bozzetto.kernels.splat import splat
from bozzetto.priors.first_guess import FirstGuess, load
from bozzetto.priors.loading import MINI

Row = tuple[str, str, Callable[[], object] | str]


def meshes(device: str, faces: int, size: int) -> Iterator[Row]:
    """Rasterise, interpolate, antialias, and back to attributes and positions."""
    v, f = bumpy_ball(faces)
    what = f"rasterise, interpolate, antialias, {len(f)} faces at {size}², and backward"

    def job(d: str) -> Callable[[], object]:
        clip = orbit([0.3], [0.4], 1.6, fov=0.7, size=size).clip(v).to(d).requires_grad_()
        a = torch.rand(len(v), 3, generator=torch.Generator().manual_seed(0)).to(d).requires_grad_()
        t = f.to(d)
        beside = edges(t)

        def run() -> None:
            r = rasterize(clip, t, (size, size))
            torch.autograd.grad(antialias(interpolate(a, r, clip, t), r, clip, t, beside).square().sum(), (a, clip))

        return run

    def twin(d: str) -> Callable[[], object]:
        clip = orbit([0.3], [0.4], 1.6, fov=0.7, size=size).clip(v).to(d).requires_grad_()
        a = torch.rand(len(v), 3, generator=torch.Generator().manual_seed(0)).to(d).requires_grad_()
        t = f.to(d)
        beside = edges(t)
        return lambda: torch.autograd.grad(torch_render(a, clip, t, size, beside).square().sum(), (a, clip))

    yield what, f"ours, CPU, {pool.num_threads()} threads", job("cpu")
    if device != "cpu":
        yield what, "ours, copied from the GPU and back", without(nvdiffrast, job(device))
        yield what, "PyTorch, GPU", twin(device)
        yield what, "nvdiffrast, GPU", job(device) if importlib.util.find_spec("nvdiffrast") else "not installed"


def gaussians(device: str, count: int, size: int) -> Iterator[Row]:
    """Splat, alone and back to all parameters."""
    s = scene(count, size)

    def job(d: str, backward: bool) -> Callable[[], object]:
        leaves, rest = [t.to(d).requires_grad_() for t in s[:5]], [t.to(d) for t in s[5:]]

        def run() -> None:
            rgb = splat(*leaves, *rest, (size, size)).rgb
            if backward:
                torch.autograd.grad(rgb.square().sum(), leaves)

        return run

    def twin(d: str) -> Callable[[], object]:
        with torch.no_grad():
            xy, conic, depth, _ = project(*s[:3], *s[5:], (size, size))
            lists = [t.to(d) for t in pairs(xy[0], conic[0], depth[0], s[3], size)]
        leaves = [t.to(d).requires_grad_() for t in (xy[0], conic[0], s[3], s[4])]
        return lambda: torch.autograd.grad(torch_blend(*leaves, *lists, size).square().sum(), leaves)

    for backward in (False, True):
        what = f"splat {count} Gaussians at {size}²" + ", and backward" * backward
        yield what, f"ours, CPU, {pool.num_threads()} threads", job("cpu", backward)
        if device != "cpu":
            yield what, "ours, copied from the GPU and back", without(gsplat, job(device, backward))
            if backward:
                yield what, "PyTorch, GPU: blending alone, its lists made before", twin(device)
            yield what, "gsplat, GPU", job(device, backward) if importlib.util.find_spec("gsplat") else "not installed"


def first_guess(device: str, batch: int) -> Iterator[Row]:
    """The embedded prior: asked, and asked for gradients; in bf16 on a GPU."""
    network: FirstGuess = load(MINI / "first_guess", device=device).requires_grad_(True).to(memory_format=torch.channels_last)
    for size in (64, 128):
        picture = torch.rand(batch, 4, size, size, generator=torch.Generator().manual_seed(0)).to(device)

        def run(backward: bool, picture: Tensor = picture) -> None:
            with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"), torch.set_grad_enabled(backward):
                guess = network(picture)
            if backward:
                (guess.occupancy.float().square().mean() + guess.colour.mean() + guess.view.sum()).backward()
                network.zero_grad()

        kind = "bf16, GPU" if device != "cpu" else "float32, CPU"
        yield f"first guess, {batch} pictures of {size}²", kind, lambda run=run: run(False)
        yield f"first guess, {batch} pictures of {size}², and backward", kind, lambda run=run: run(True)


def without(backend: object, fn: Callable[[], object]) -> Callable[[], object]:
    """The same while the backend seems not to be installed."""

    def run() -> None:
        with mock.patch.object(backend, "is_usable", lambda tensor: False):
            fn()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--faces", type=int, default=20000)
    parser.add_argument("--gaussians", type=int, default=50000)
    parser.add_argument("--batch", type=int, help="by default 256 on a GPU, 4 on a CPU")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each row")
    args = parser.parse_args()
    where = torch.cuda.get_device_name() if args.device != "cpu" else "no GPU"
    print(f"{where}; wall time in milliseconds: median ± spread\n\n| | by | ms |\n|---|---|---|")

    def waited(fn: Callable[[], object]) -> Callable[[], object]:
        def run() -> None:
            fn()
            if args.device != "cpu":
                torch.cuda.synchronize()

        return run

    rows = [
        lambda: meshes(args.device, args.faces, args.size),
        lambda: gaussians(args.device, args.gaussians, args.size),
        lambda: first_guess(args.device, args.batch or (4 if args.device == "cpu" else 256)),
    ]
    for group in rows:
        for what, by, fn in group():
            try:
                cell = fn if isinstance(fn, str) else milliseconds(measure(waited(fn), seconds=args.seconds))
            except (RuntimeError, ImportError, AttributeError) as error:  # a backend that is broken here costs its own row
                cell = f"failed: {str(error).splitlines()[0]}"
            print(f"| {what} | {by} | {cell} |", flush=True)
    print(f"\n{machine('torch', 'numba', 'numpy')}")


if __name__ == "__main__":
    main()
