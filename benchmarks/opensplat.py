# SPDX-License-Identifier: Apache-2.0
"""OpenSplat's CPU build (github.com/pierotofy/OpenSplat, AGPL) as a peer of `benchmarks.splat_fit`, run as a program of its own.

It gets the same training pictures, the same random points and the same course, shrunk to the same number of steps. It knows no
transparency: its pictures lie on the one background that it draws on, so that nothing has to be painted there, and its result is
measured over that colour, ours over white.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from bozzetto.formats.ply import from_ply
from bozzetto.formats.scene import Scene
from bozzetto.verbs.splat import PUBLISHED, Splat, begin, measure, over

BACKGROUND = (0.6130, 0.0101, 0.3984)  # Nerfstudio's, and its own


def project(folder: Path, scene: Scene, settings: Splat) -> None:
    """A Nerfstudio project of the training pictures, starting from the points that our fit starts from; all mid grey."""
    frames = []
    for i in (i for i, held in enumerate(scene.held) if not held):
        rgba, camera = scene.pictures[i].float() / 255, scene.cameras[i]
        flat = over(torch.cat([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], -1), torch.tensor(BACKGROUND))
        Image.fromarray((flat * 255).round().to(torch.uint8).numpy()).save(folder / f"{i:04d}.png")
        K, pose = camera.K[0], [*camera.c2w[0].tolist(), [0.0, 0.0, 0.0, 1.0]]
        lens = {"fl_x": float(K[0, 0]), "fl_y": float(K[1, 1]), "cx": float(K[0, 2]), "cy": float(K[1, 2])}
        frames.append({"file_path": f"{i:04d}.png", "w": camera.size[1], "h": camera.size[0], **lens, "transform_matrix": pose})
    points = begin(scene, settings, 0).means.detach()
    columns = [f"property float {axis}" for axis in "xyz"] + [f"property uchar {colour}" for colour in ("red", "green", "blue")]
    rows = [f"{x} {y} {z} 128 128 128" for x, y, z in points.tolist()]
    header = ["ply", "format ascii 1.0", f"element vertex {len(rows)}", *columns, "end_header"]
    (folder / "points.ply").write_text("\n".join([*header, *rows, ""]))
    record = {"camera_model": "OPENCV", "ply_file_path": "points.ply", "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(record))


def fitted(program: Path, scene: Scene, settings: Splat) -> dict[str, float]:
    """PSNR, SSIM and number of Gaussians of its fit, seconds and processor seconds.

    raises  SystemExit with its last words where the program fails
    """
    share = settings.steps / PUBLISHED
    course = {"--num-iters": settings.steps}
    published = {"--warmup-length": 500, "--refine-every": 100, "--sh-degree-interval": 1000, "--resolution-schedule": 250}
    course |= {flag: max(1, round(steps * share)) for flag, steps in published.items()}
    # It does not densify until all pictures were seen since opacities were reset: in a short course it never would.
    seen_twice = -(-2 * (len(scene.held) - sum(scene.held)) // course["--refine-every"])
    course["--reset-alpha-every"] = max(30, seen_twice)  # counted in refinements; published 30
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project(folder, scene, settings)
        words = [str(w) for flag in course.items() for w in flag]
        before, started = os.times(), time.perf_counter()
        done = subprocess.run(
            [program, folder, "--cpu", "--keep-crs", "--output", folder / "made.ply", *words], capture_output=True, text=True, cwd=folder
        )
        seconds, after = time.perf_counter() - started, os.times()
        if done.returncode:
            raise SystemExit(f"{program}: {(done.stderr or done.stdout)[-500:]}")
        g = from_ply(folder / "made.ply")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return measure(g, scene, settings, background=BACKGROUND) | {"gaussians": len(g), "seconds": seconds, "cpu": cpu}
