# SPDX-License-Identifier: Apache-2.0
"""Triangles to pictures and back: `python -m benchmarks.rasterize --size 256`.

A bumpy ball of about 20 000 faces, one view, attributes of three channels. Beside our kernels stands the same algorithm in
vectorised PyTorch with autograd (it looks for silhouettes on the nearer face only, which is less work), and PyTorch3D and
nvdiffrast where they are installed. Wall time; and processor time, which says more on a busy machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks import machine, measure, milliseconds
from bozzetto.camera import orbit
from bozzetto.kernels import pool
from bozzetto.kernels.antialias import antialias, edges
from bozzetto.kernels.interpolate import interpolate
from bozzetto.kernels.rasterize import rasterize


def bumpy_ball(num_faces: int) -> tuple[Tensor, Tensor]:
    """Rings of longitude and latitude, (N, 3) float32 and (F, 3)."""
    n = max(3, round((num_faces / 2) ** 0.5))
    lat, lon = torch.meshgrid(torch.linspace(-1.57, 1.57, n + 1), torch.arange(n) * (2 * torch.pi / n), indexing="ij")
    d = torch.stack([lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()], -1).reshape(-1, 3)
    bumps = torch.sin(7 * d[:, :1]) * torch.sin(5 * d[:, 1:2] + 1) * torch.cos(6 * d[:, 2:])
    i, j = torch.meshgrid(torch.arange(n) * n, torch.arange(n), indexing="ij")
    a, b, c, e = (i + j).reshape(-1), (i + (j + 1) % n).reshape(-1), (i + n + (j + 1) % n).reshape(-1), (i + n + j).reshape(-1)
    return 0.5 * d * (1 + 0.1 * bumps), torch.cat([torch.stack([a, b, c], -1), torch.stack([a, c, e], -1)])


def torch_rasterize(clip: Tensor, faces: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Face of each pixel (-1: none) and its depth, over the list of all pairs of a face and a pixel in its box; all w > 0."""
    p = clip[0].detach().double()
    xy = (p[:, :2] / p[:, 3:] + 1) * (size / 2)
    corner = xy[faces]
    low = (corner.amin(1) - 0.5).ceil().long().clamp(min=0)
    extent = (((corner.amax(1) - 0.5).floor().long().clamp(max=size - 1) - low) + 1).clamp(min=0)
    count = extent.prod(-1)
    f = torch.repeat_interleave(torch.arange(len(faces), device=count.device), count)
    k = torch.arange(len(f), device=f.device) - torch.repeat_interleave(count.cumsum(0) - count, count)
    c, r = low[f, 0] + k % extent[f, 0], low[f, 1] + k // extent[f, 0]
    e = _edge_functions(p[faces[f]], c, r, size)
    total = e.sum(-1)
    z = (e * p[:, 2][faces[f]]).sum(-1) / (e * p[:, 3][faces[f]]).sum(-1)
    inside = ((e * total.sign()[:, None]) >= 0).all(-1) & (z.abs() <= 1)
    f, at, z = f[inside], (r * size + c)[inside], z[inside]
    depth = torch.full((size * size,), 2.0, dtype=torch.float64, device=z.device).scatter_reduce(0, at, z, "amin")
    wins = z == depth[at]
    face = torch.full((size * size,), len(faces), device=z.device).scatter_reduce(0, at[wins], f[wins], "amin")
    return torch.where(face < len(faces), face, -1), depth


def _edge_functions(p: Tensor, c: Tensor, r: Tensor, size: int) -> Tensor:
    """a_0, a_1, a_2 of points (n, 3, 4) at pixel centres."""
    centre = ((torch.stack([c, r], -1) * 2 + 1) / size - 1).to(p)
    q = p[..., :2] - centre[:, None] * p[..., 3:]
    i, j = q.roll(-1, 1), q.roll(-2, 1)
    return i[..., 0] * j[..., 1] - i[..., 1] * j[..., 0]


def torch_render(attributes: Tensor, clip: Tensor, faces: Tensor, size: int, beside: Tensor) -> Tensor:
    """(size^2, C): rasterised, interpolated and antialiased, differentiable in attributes and clip."""
    face, depth = torch_rasterize(clip, faces, size)
    seen = (face >= 0).nonzero()[:, 0]
    tri = faces[face[seen]]
    a = _edge_functions(clip[0][tri], seen % size, seen // size, size)
    colour = attributes.new_zeros(size * size, attributes.shape[1])
    colour = colour.index_put((seen,), ((a / a.sum(-1, keepdim=True))[..., None] * attributes[tri]).sum(1))
    out, p = colour, clip[0][:, [0, 1, 3]]
    grid = torch.arange(size * size, device=face.device).view(size, size)
    for down in (0, 1):
        first, second = (grid[:-1] if down else grid[:, :-1]).flatten(), (grid[1:] if down else grid[:, 1:]).flatten()
        differ = face[first] != face[second]
        first, second = first[differ], second[differ]
        near = torch.where(depth[first] <= depth[second], face[first], face[second])
        X, Y = (first % size * 2 + 1) / size - 1, (first // size * 2 + 1) / size - 1
        for k in range(3):
            i, j = faces[near][:, (k + 1) % 3], faces[near][:, (k + 2) % 3]
            line = torch.linalg.cross(p[i], p[j])
            other = beside[near, k].long().clamp(min=0)
            same = (line * p[faces[near][:, k]]).sum(-1) * (line * p[faces[other // 3, other % 3]]).sum(-1) > 0
            e1 = line[:, 0] * X + line[:, 1] * Y + line[:, 2]
            e2 = e1 + line[:, down] * (2 / size)
            steep = line[:, 0].abs() >= line[:, 1].abs()
            hit = ((same | (beside[near, k] < 0)) & (e1 * e2 < 0) & (steep if down == 0 else ~steep)).nonzero()[:, 0]
            m = (0.5 - e1[hit] / (e1[hit] - e2[hit]))[:, None]
            step = colour[second[hit]] - colour[first[hit]]
            out = out.index_add(0, first[hit], m.clamp(min=0) * step).index_add(0, second[hit], m.clamp(max=0) * step)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256, help="pixels on a side")
    parser.add_argument("--faces", type=int, default=20000)
    parser.add_argument("--repeats", type=int, default=30)
    args = parser.parse_args()
    v, faces = bumpy_ball(args.faces)
    clip = orbit([0.3], [0.4], 1.6, fov=0.7, size=args.size).clip(v).requires_grad_()
    A = torch.rand(len(v), 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    beside, size = edges(faces), (args.size, args.size)
    rast = rasterize(clip, faces, size)
    colour = interpolate(A, rast, clip, faces).detach().requires_grad_()

    def ours() -> Tensor:
        r = rasterize(clip, faces, size)
        return antialias(interpolate(A, r, clip, faces), r, clip, faces, beside)

    def both(fn: Callable[[], Tensor], *inputs: Tensor) -> Callable[[], object]:
        return lambda: torch.autograd.grad(fn().square().sum(), inputs)

    def slow() -> Tensor:
        return torch_render(A, clip, faces, args.size, beside)

    rows: list[tuple[str, Callable[[], object], Callable[[], object] | None]] = [
        ("rasterize", lambda: rasterize(clip, faces, size), lambda: torch_rasterize(clip, faces, args.size)),
        ("interpolate", lambda: interpolate(A, rast, clip, faces), None),
        ("interpolate, forward + backward", both(lambda: interpolate(A, rast, clip, faces), A, clip), None),
        ("antialias", lambda: antialias(colour, rast, clip, faces, beside), None),
        ("antialias, forward + backward", both(lambda: antialias(colour, rast, clip, faces, beside), colour, clip), None),
        ("edges (once a topology)", lambda: edges(faces), None),
        ("all three", lambda: ours().detach(), lambda: slow().detach()),
        ("all three, forward + backward", both(ours, A, clip), both(slow, A, clip)),
    ]
    print(f"{len(faces)} faces, {args.size} x {args.size}, {int((rast[..., 3] > 0).sum())} pixels covered, milliseconds: median ± spread\n")
    print("| | ours, 1 thread | ours, 2 threads | ours, 1 thread, CPU time | PyTorch twin, 1 thread | twin / ours, CPU time |")
    print("|---|---|---|---|---|---|")
    for name, fn, peer in rows:
        cells = []
        for threads in (1, 2):
            pool.set_num_threads(threads)
            torch.set_num_threads(threads)
            cells.append(milliseconds(measure(fn, repeats=args.repeats)))
        pool.set_num_threads(1)
        torch.set_num_threads(1)
        cpu = measure(fn, repeats=args.repeats, clock=time.process_time)
        cells.append(milliseconds(cpu))
        if peer:
            cells.append(milliseconds(measure(peer, repeats=args.repeats)))
            cells.append(f"{measure(peer, repeats=args.repeats, clock=time.process_time)[0] / cpu[0]:.0f}")
        print("| " + " | ".join([name, *cells, *[""] * (5 - len(cells))]) + " |")
    if importlib.util.find_spec("pytorch3d"):
        from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
        from pytorch3d.structures import Meshes

        ndc = -clip.detach()[0, :, :3] / clip.detach()[0, :, 3:]  # its x runs left, its y up
        mesh = Meshes([torch.cat([ndc[:, :2], clip.detach()[0, :, 3:]], 1)], [faces])
        result = measure(lambda: rasterize_meshes(mesh, args.size, 0.0, 1, perspective_correct=True), repeats=3)
        print(f"| rasterize, PyTorch3D on the CPU | {milliseconds(result)} | | | | |")
    if torch.cuda.is_available() and importlib.util.find_spec("nvdiffrast"):
        a, c, t = A.detach().cuda().requires_grad_(), clip.detach().cuda().requires_grad_(), faces.cuda()

        def gpu() -> None:
            r = rasterize(c, t, size)
            torch.autograd.grad(antialias(interpolate(a, r, c, t), r, c, t).square().sum(), (a, c))
            torch.cuda.synchronize()

        print(f"| all three, forward + backward, nvdiffrast on {torch.cuda.get_device_name()} | {milliseconds(measure(gpu))} | | | | |")
    print(f"\n{machine('torch', 'numba', 'numpy')}")


if __name__ == "__main__":
    main()
