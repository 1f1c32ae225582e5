# SPDX-License-Identifier: Apache-2.0
"""The peer of the splatting benchmark, with a stand-in for the program: what it is given, and how its answer is measured."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import opensplat
from bozzetto.camera import Camera, orbit
from bozzetto.formats.ply import to_ply
from bozzetto.formats.scene import Scene
from bozzetto.shapes.gaussians import Gaussians
from bozzetto.verbs.splat import Splat, begin

QUICK = Splat(steps=300, points=50)


@pytest.fixture(scope="module")
def blobs() -> tuple[Gaussians, Scene]:
    """Opaque blobs, and nine of their pictures."""
    g = Gaussians.from_box(20, 0.4, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        g.log_scales[:], g.logit_opacities[:] = -2.4, 4.0
        cameras = orbit([0.7 * i for i in range(9)], 0.3, 2.2, size=24, fov=0.7)
        s = g.draw(cameras)
        straight = torch.cat([s.rgb / s.alpha.clamp(min=1e-6), s.alpha], -1).clamp(0, 1)
    stored = (straight * 255).round().to(torch.uint8)
    return g, Scene(list(stored), [cameras[i] for i in range(9)], [i == 4 for i in range(9)], torch.zeros(0, 3), torch.zeros(0, 3))


def test_the_project_holds_training_pictures_cameras_and_points(blobs, tmp_path):
    _, scene = blobs
    opensplat.project(tmp_path, scene, QUICK)
    record = json.loads((tmp_path / "transforms.json").read_text())
    assert [f["file_path"] for f in record["frames"]] == [f"{i:04d}.png" for i in range(9) if i != 4]
    for frame, i in zip(record["frames"], (i for i in range(9) if i != 4), strict=True):
        c2w, K = torch.tensor(frame["transform_matrix"], dtype=torch.float64)[None, :3], scene.cameras[i].K.clone()
        K[0, 0, 0], K[0, 1, 1], K[0, 0, 2], K[0, 1, 2] = (frame[k] for k in ("fl_x", "fl_y", "cx", "cy"))
        made = Camera(c2w, K, (frame["h"], frame["w"]))
        assert torch.equal(made.c2w, scene.cameras[i].c2w) and torch.equal(made.K, scene.cameras[i].K)
    corner = np.asarray(Image.open(tmp_path / "0000.png"))[0, 0] / 255
    np.testing.assert_allclose(corner, opensplat.BACKGROUND, atol=0.5 / 255)  # nothing of the blobs is there
    lines = (tmp_path / "points.ply").read_text().split("end_header\n")[1].splitlines()
    points = torch.tensor([[float(x) for x in line.split()[:3]] for line in lines])
    torch.testing.assert_close(points, begin(scene, QUICK, 0).means.detach(), rtol=0, atol=1e-6)


def program(folder: Path, does: str) -> Path:
    path = folder / "program"
    path.write_text(f"#!{sys.executable}\nimport shutil, sys\n{does}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return path


def test_its_gaussians_are_measured_on_its_background(blobs, tmp_path):
    g, scene = blobs
    (tmp_path / "true.ply").write_bytes(to_ply(g))
    copies = program(tmp_path, f"shutil.copy({str(tmp_path / 'true.ply')!r}, sys.argv[sys.argv.index('--output') + 1])")
    m = opensplat.fitted(copies, scene, QUICK)
    assert m["gaussians"] == 20 and m["psnr"] > 50  # pixels of 8 bits alone part them


def test_a_failure_says_its_last_words(blobs, tmp_path):
    with pytest.raises(SystemExit, match="no such flag"):
        opensplat.fitted(program(tmp_path, "sys.exit('no such flag')"), blobs[1], QUICK)
