# SPDX-License-Identifier: Apache-2.0
"""Gaussians fitted to pictures of procedural objects, and how the held-back pictures come out: `python -m benchmarks.splat_fit`.

Pictures from a sphere of directions with transparency, none of them both trained on and tested on. "no growth" starts from the same
random points and never has more of them; "mean picture" is the mean of the training pictures over white. With `--scenes` the pictures are
those of folders (`benchmarks.scenes` path-traces three), and rows may be ablations: "no split", "no clone", "isotropic", "no SH", and
"start on surface" from points of the true surface instead of random ones, as a reconstruction would give them.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import machine, opensplat, scenes
from bozzetto.camera import orbit
from bozzetto.data.renders import render
from bozzetto.formats.scene import HOLD, Scene, load
from bozzetto.verbs.splat import Splat, over, splat_scene
from bozzetto_objects import make


def pictures(family: str, seed: int, views: int, size: int) -> Scene:
    """Views from the upper half and a little below, spread by the golden angle."""
    azimuth = [2.399963 * i for i in range(views)]
    elevation = [math.asin(-0.2 + 1.1 * (i + 0.5) / views) for i in range(views)]
    cameras = orbit(azimuth, elevation, 2.4, size=size, fov=0.75)
    v = render(make(family, seed), cameras)
    rgba = torch.cat([v.rgb / v.alpha.clamp(min=1e-6), v.alpha], -1).clamp(0, 1)
    held = [(7 * i) % HOLD == 0 for i in range(views)]
    stored = (rgba * 255).round().to(torch.uint8)
    return Scene(list(stored), [cameras[i] for i in range(views)], held, torch.zeros(0, 3), torch.zeros(0, 3))


def mean_picture(scene: Scene) -> float:
    """Mean PSNR of the mean training picture."""
    white = torch.ones(3)
    whole = [over(torch.cat([p[..., :3] * p[..., 3:], p[..., 3:]], -1), white) for p in (q.float() / 255 for q in scene.pictures)]
    mean = torch.stack([p for p, held in zip(whole, scene.held, strict=True) if not held]).mean(0)
    values = [-10 * math.log10(float((mean - p).square().mean())) for p, held in zip(whole, scene.held, strict=True) if held]
    return sum(values) / len(values)


def with_points(scene: Scene, name: str, count: int) -> Scene:
    """The scene as if a reconstruction had found `count` points of its true surface, evenly by area, all mid grey."""
    vertices, faces = scenes.truth(name)
    corner = vertices[faces]
    area = torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]).norm(dim=1)
    generator = torch.Generator().manual_seed(0)
    face = torch.multinomial(area, count, replacement=True, generator=generator)
    u = torch.rand(count, 2, generator=generator)
    u = torch.where(u.sum(1, keepdim=True) > 1, 1 - u, u)
    weight = torch.cat([u, 1 - u.sum(1, keepdim=True)], 1)
    return replace(scene, points=(corner[face] * weight[..., None]).sum(1), colours=torch.full((count, 3), 0.5))


def line(name: str, row: str, m: dict[str, float]) -> str:
    """One row of the table."""
    return f"| {name} | {row} | {m['psnr']:.2f} | {m['ssim']:.3f} | {m['gaussians']} | {m['seconds']:.0f} | {m['cpu']:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", nargs="+", default=["bicycle", "teapot", "house"])
    parser.add_argument("--scenes", type=Path, nargs="+", default=[], help="folders of scenes, instead of families")
    parser.add_argument("--views", type=int, default=100)
    parser.add_argument("--size", type=int, default=200)
    parser.add_argument("--steps", type=int, default=7000)
    parser.add_argument("--points", type=int, default=5000)
    parser.add_argument("--opensplat", type=Path, help="OpenSplat's program: a row of its fit on the CPU beside ours")
    parser.add_argument("--rows", nargs="+", default=["densify", "no growth", "mcmc"])
    args = parser.parse_args()
    plain = Splat(steps=args.steps, points=args.points)
    settings = {
        "densify": plain,
        "no growth": replace(plain, max_count=args.points),
        "mcmc": replace(plain, strategy="mcmc", max_count=4 * args.points),
        "no split": replace(plain, grow=("clone",)),
        "no clone": replace(plain, grow=("split",)),
        "isotropic": replace(plain, is_isotropic=True),
        "no SH": replace(plain, degree=0),
        "start on surface": plain,
    }
    subjects = [(f.name, load(f)) for f in args.scenes] or [(f, pictures(f, 1, args.views, args.size)) for f in args.family]
    held, count = sum(subjects[0][1].held), len(subjects[0][1].held)
    size = "x".join(map(str, subjects[0][1].cameras[0].size))
    print(f"{count} pictures of {size}, {held} of them held back, {args.steps} steps from {args.points} random points\n")
    print("| object | | PSNR, dB | SSIM | Gaussians | seconds | of them CPU |")
    print("|---|---|---|---|---|---|---|")
    for name, scene in subjects:
        print(f"| {name} | mean picture | {mean_picture(scene):.2f} | | | | |", flush=True)
        for row in args.rows:
            source = with_points(scene, name, args.points) if row == "start on surface" else scene
            with tempfile.TemporaryDirectory() as folder:
                before = time.process_time()
                m = splat_scene(source, Path(folder) / "scene.ply", settings[row]).metrics
            print(line(name, row, m | {"cpu": time.process_time() - before}), flush=True)
        if args.opensplat:
            print(line(name, "OpenSplat", opensplat.fitted(args.opensplat, scene, plain)), flush=True)
    print(f"\n{machine('torch', 'numba')}")


if __name__ == "__main__":
    main()
