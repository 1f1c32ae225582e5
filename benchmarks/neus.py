# SPDX-License-Identifier: Apache-2.0
"""A solid from 24 views, as NeuS and as a density on the same hash grid, in about equal time: `python -m benchmarks.neus`.

A procedural object with textures, drawn in its base colours from a sphere of directions; held-back views lie between. Both fields have the
same encoding, rays and course; the density is begun as a blob, NeuS as a ball. Surfaces are compared by Chamfer distance, the mean of both
directions between points of what can be seen from outside, in percent of the box's diagonal; the row "truth" is that of two samples of the
truth, which every other row contains. PSNR and SSIM of the held-back views are over the union of the masks. NeuS is then handed on to
a DMTet, and the two surfaces are compared.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks import machine
from bozzetto.camera import orbit
from bozzetto.data.objects import Object
from bozzetto.data.renders import render
from bozzetto.evaluate.metrics import chamfer, psnr, solid, ssim
from bozzetto.fit.loop import Term, optimise, own
from bozzetto.fit.rays import Rays
from bozzetto.fit.run import Run
from bozzetto.kernels.hashgrid import Levels
from bozzetto.shapes.density import density
from bozzetto.shapes.dmtet import DMTet
from bozzetto.shapes.field import HashGrid
from bozzetto.shapes.neus import neus
from bozzetto.shapes.volume import Course, Volume
from bozzetto.views import Views
from bozzetto_objects import make

POINTS = 100_000  # of each surface
WEIGHTS = {"rgb": 1.0, "mask": 0.1}
TERMS = {"neus": {"eikonal": 0.1, "curvature": 0.01}, "density": {"sparse": 0.0001}}


def taken(obj: Object, views: int, size: int, turn: float) -> Views:
    """From a little below the horizon to above, by the golden angle, begun at `turn`."""
    azimuth = [turn + math.pi * (3 - 5**0.5) * i for i in range(views)]
    elevation = [math.asin(-0.25 + 1.15 * (i + 0.5) / views) for i in range(views)]
    return render(obj, orbit(azimuth, elevation, 2.4, size=size, fov=0.6))


@torch.no_grad()
def drawn(shape: Volume, views: Views) -> Tensor:
    """(V, H, W, 4) of the same cameras."""
    return rgba(shape.render(views.cameras, "colour"))


def rgba(views: Views) -> Tensor:
    """(V, H, W, 4), premultiplied."""
    return torch.cat([views.rgb, views.alpha], -1)


@torch.no_grad()
def shown(shape: Volume, views: Views) -> list[Tensor]:
    """Two rows of pictures over white, (V, H, W, 3): colours and normals."""
    found = shape.render(views.cameras)
    return [found.over(1.0), (found.normal / 2 + 0.5) * found.alpha + 1 - found.alpha]


def write(rows: list[Tensor], path: Path) -> None:
    """As the file's name ends."""
    sheet = torch.cat([torch.cat(list(row), 1) for row in rows])
    Image.fromarray((255 * sheet.clamp(0, 1)).round().to(torch.uint8).numpy()).save(path)


@dataclass(frozen=True)
class Judge:
    """What a fit is compared with: held-back views, and points of the truth."""

    held: Views
    points: np.ndarray

    def apart(self, points: np.ndarray) -> float:
        """Chamfer distance to the truth, % of its box's diagonal."""
        return 100 * chamfer(points, self.points) / float(np.linalg.norm(np.ptp(self.points, axis=0)))


def points_on(vertices: np.ndarray, faces: np.ndarray, seed: int = 0) -> np.ndarray:
    """Of what can be seen of a surface from outside."""
    return solid(vertices, faces, points=POINTS, seed=seed).points


def fitted(kind: str, targets: Views, steps: int, rays: int, levels: Levels) -> tuple[Volume, str]:
    """The field, and what its fit took."""
    g = torch.Generator().manual_seed(0)
    shape = {"neus": neus, "density": density}[kind](encoding=HashGrid(levels, generator=g), course=Course(every=32), generator=g)
    wall, cpu = time.perf_counter(), time.process_time()
    terms: list[Term] = [Rays(targets, WEIGHTS, rays), own(TERMS[kind])]
    optimise(shape, terms, Run(None, {}, progress=said(kind, steps)), kind, steps=steps)
    shape.update_occupancy()
    return shape, f"{(time.perf_counter() - wall) / 60:.1f} | {(time.process_time() - cpu) / 60:.1f}"


def said(kind: str, steps: int) -> Callable[[str, float], None]:
    """Progress on stderr, a line each tenth of the way."""

    def progress(stage: str, share: float) -> None:
        n = round(share * steps)
        if n and n % max(steps // 10, 1) == 0:
            print(f"{kind}: step {n} of {steps}, {time.process_time():.0f} s of CPU", file=sys.stderr, flush=True)

    return progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", default="teapot")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--views", type=int, default=24)
    parser.add_argument("--held", type=int, default=8)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--rays", type=int, default=1024, help="a step")
    parser.add_argument("--steps", type=int, nargs=2, default=(6000, 6000), metavar=("NEUS", "DENSITY"))
    parser.add_argument("--pictures", type=Path, metavar="FILE", help="the held-back views, a row each of truth, colours and normals")
    args = parser.parse_args()
    obj = make(args.family, args.seed)
    targets, held = taken(obj, args.views, args.size, 0.0), taken(obj, args.held, args.size, 1.0)
    judge = Judge(held, points_on(obj.vertices, obj.faces))
    true, sheet = rgba(held), [held.over(1.0)]
    levels = Levels()
    print(f"{args.family} {args.seed}, {args.views} views of {args.size} x {args.size}, {args.held} held back; {args.rays} rays a step\n")
    print("| | steps | Chamfer, % of the diagonal | PSNR, dB | SSIM | minutes | of CPU |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    print(f"| truth | | {judge.apart(points_on(obj.vertices, obj.faces, seed=1)):.3f} | | | | |", flush=True)
    for kind, steps in zip(("neus", "density"), args.steps, strict=True):
        if not steps:
            continue
        shape, took = fitted(kind, targets, steps, args.rays, levels)
        vertices, faces = shape.surface()
        apart, picture = judge.apart(points_on(vertices.numpy(), faces.numpy())), drawn(shape, held)
        print(f"| {kind} | {steps} | {apart:.3f} | {psnr(picture, true):.2f} | {ssim(picture, true):.3f} | {took} |", flush=True)
        if args.pictures:
            sheet += shown(shape, held)
            write(sheet, args.pictures)
        if kind == "neus":
            dmtet = DMTet.from_sdf(shape.signed, 64)
            with torch.no_grad():
                corners, tris = (x.numpy() for x in dmtet.surface())
            handed = points_on(corners, tris)
            cells = chamfer(points_on(vertices.numpy(), faces.numpy()), handed) / (1.1 / 64)
            print(f"| its DMTet, 64 cells | | {judge.apart(handed):.3f} ({cells:.2f} of a cell from NeuS's) | | | | |", flush=True)
    print(f"\n{machine('torch', 'numba')}")


if __name__ == "__main__":
    main()
