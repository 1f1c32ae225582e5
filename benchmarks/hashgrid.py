# SPDX-License-Identifier: Apache-2.0
"""Hash grids read and written: `python -m benchmarks.hashgrid`.

16 levels of two features, random points. Beside our kernels stand the same formulas in vectorised PyTorch with autograd: "PyTorch" as
they run on CUDA, each corner's entries gathered by `index_select`, whose gradient is the fastest that was found; "embeddings" with one
embedding a level, as re-implementations have it. Processor time of one thread each, which says more on a busy machine.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import machine, measure, milliseconds
from bozzetto.kernels import pool
from bozzetto.kernels.hashgrid import Levels, encode, encode_in_torch, slope
from bozzetto.kernels.trilinear import PRIMES


def embedded(points: Tensor, table: Tensor, levels: Levels) -> Tensor:
    """`encode` with an embedding a level, written the ordinary way: (N, 8, 3) corners, their numbers, their rows, weighted and summed."""
    corners = torch.tensor(list(itertools.product((0, 1), repeat=3)))
    found = []
    for level, scale in enumerate(levels.scales.tolist()):
        rows = table[int(levels.offsets[level]) : int(levels.offsets[level + 1])]
        resolution = int(levels.resolutions[level])
        p = points * scale + 0.5
        low = p.detach().floor()
        f, corner = (p - low)[:, None], low.long()[:, None] + corners
        if resolution**3 <= len(rows):
            i, j, k = corner.clamp(max=resolution - 1).unbind(-1)
            number = i + resolution * (j + resolution * k)
        else:
            i, j, k = (corner * torch.tensor(PRIMES)).unbind(-1)
            number = (i ^ j ^ k) & (len(rows) - 1)
        weight = torch.where(corners.bool(), f, 1 - f).prod(-1)
        found.append((weight[..., None] * F.embedding(number, rows)).sum(1))
    return torch.cat(found, 1).T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--log2-entries", type=int, default=14, help="of a level at most")
    parser.add_argument("--growth", type=float, default=1.447)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    levels = Levels(16, 16, args.growth, args.log2_entries)
    g = torch.Generator().manual_seed(0)
    x = torch.rand(args.points, 3, generator=g).requires_grad_()
    table = torch.randn(levels.entries, 2, generator=g).requires_grad_()
    weights = torch.randn(levels.features, args.points, generator=g)
    pool.set_num_threads(1)
    torch.set_num_threads(1)

    def forward(read: Callable[..., Tensor]) -> Callable[[], object]:
        return lambda: read(x.detach(), table.detach(), levels)

    def backward(read: Callable[..., Tensor], *to: Tensor) -> Callable[[], object]:
        at, rows = (t if any(t is leaf for leaf in to) else t.detach() for t in (x, table))
        return lambda: torch.autograd.grad(read(at, rows, levels), to, weights)

    def on_slopes(read: Callable[..., Tensor] | None) -> Callable[[], object]:
        def run() -> object:
            if read is None:
                normal = slope(x.detach(), table, weights, levels)
            else:
                normal = torch.autograd.grad(read(x, table, levels), x, weights, create_graph=True)[0]
            return torch.autograd.grad((normal.norm(dim=1) - 1).square().mean(), table)

        return run

    rows = [
        ("forward", *(forward(f) for f in (encode, encode_in_torch, embedded))),
        ("forward and backward, to entries", *(backward(f, table) for f in (encode, encode_in_torch, embedded))),
        ("forward and backward, to entries and points", *(backward(f, table, x) for f in (encode, encode_in_torch, embedded))),
        ("slopes, and a loss on them back to entries", *(on_slopes(f) for f in (None, encode_in_torch, embedded))),
    ]
    print(f"{args.points} points, 16 levels of at most 2^{args.log2_entries} entries, CPU milliseconds of one thread: median ± spread\n")
    print("| | ours | PyTorch | PyTorch, embeddings | PyTorch / ours | embeddings / ours |")
    print("|---|---|---|---|---|---|")
    for name, *fns in rows:
        times = [measure(f, repeats=args.repeats, clock=time.process_time) for f in fns]
        ratios = [f"{t[0] / times[0][0]:.1f}" for t in times[1:]]
        print("| " + " | ".join([name, *(milliseconds(t) for t in times), *ratios]) + " |", flush=True)
    print(f"\n{machine('torch', 'numba')}")


if __name__ == "__main__":
    main()
