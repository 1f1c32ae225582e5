# SPDX-License-Identifier: Apache-2.0
"""`transforms.json` as instant-ngp and nerfstudio write it: lenses in pixels, frame by frame, bent ones, pictures as they lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.transforms import to_nerf_synthetic
from bozzetto.camera import orbit
from bozzetto.formats.scene import load, undistorted

SIZE = (36, 48)  # height, width
LENS = {"fl_x": 55.0, "fl_y": 56.0, "cx": 31.0, "cy": 13.5, "w": 48, "h": 36}
K = [[55, 0, 31], [0, 56, 13.5], [0, 0, 1]]


def write(folder: Path, whole: dict[str, Any], *, each: dict[str, Any] | None = None, name: str = "images/{}.png", **saved: Any) -> Path:
    """A scene of five frames; `whole` for the file and `each` for the first frame stand in place of camera_angle_x."""
    frames = to_nerf_synthetic(orbit([0.7 * i for i in range(5)], 0.3, 3.0, size=SIZE, fov=0.8))["frames"]
    (folder / "images").mkdir(parents=True)
    for i, frame in enumerate(frames):
        frame["file_path"] = name.format(i)
        pixels = np.random.default_rng(i).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png", **saved)
    frames[0].update(each or {})
    (folder / "transforms.json").write_text(json.dumps({**whole, "frames": frames}))
    return folder


@pytest.mark.parametrize("more", [{}, {"camera_angle_x": 0.8229, "camera_angle_y": 0.63}, {"camera_model": "OPENCV", "k1": 0}])
def test_the_lens_is_the_files_in_pixels_off_the_centre_with_or_without_an_angle(tmp_path, more):
    scene = load(write(tmp_path / "s", {**more, **LENS}))
    assert all(c.K[0].tolist() == K and c.size == SIZE for c in scene.cameras)


def test_a_frames_own_lens_goes_before_the_files(tmp_path):
    scene = load(write(tmp_path / "s", LENS, each={"fl_x": 70.0, "cx": 20}))
    assert scene.cameras[0].K[0].tolist() == [[70, 0, 20], [0, 56, 13.5], [0, 0, 1]] and scene.cameras[1].K[0].tolist() == K
    alone = load(write(tmp_path / "t", {"fl_x": 50.0}))
    assert alone.cameras[0].K[0].tolist() == [[50, 0, 24], [0, 50, 18], [0, 0, 1]]  # square pixels, centred


def test_angles_give_each_axis_its_focal_length(tmp_path):
    scene = load(write(tmp_path / "s", {"camera_angle_x": np.pi / 2, "camera_angle_y": 2 * np.arctan(0.5)}))
    assert scene.cameras[0].K[0].diagonal().tolist() == pytest.approx([24, 36, 1], abs=1e-12)


def test_pictures_at_half_the_size_have_the_lens_at_half_the_size(tmp_path):
    twice = {key: 2 * value for key, value in LENS.items()}
    assert all(c.K[0].tolist() == K for c in load(write(tmp_path / "s", twice)).cameras)


def test_a_bent_lens_is_undistorted_as_opencv_does(tmp_path):
    bent = {"k1": 0.35, "k2": -0.1, "p1": 0.003, "p2": -0.002, "k3": 0.02}
    scene, plain = load(write(tmp_path / "s", {**LENS, **bent})), load(write(tmp_path / "t", LENS))
    for a, b, c in zip(scene.pictures, plain.pictures, scene.cameras, strict=True):
        flat, new = undistorted(b, np.array(K, float), np.array(list(bent.values())))
        assert torch.equal(a, flat) and not torch.equal(a, b) and torch.equal(c.K[0], torch.from_numpy(new))


@pytest.mark.parametrize("orientation", [3, 6])
def test_pictures_lie_as_in_the_file_whatever_exif_says(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    turned, plain = load(write(tmp_path / "s", LENS, exif=exif)), load(write(tmp_path / "t", LENS))
    assert all(torch.equal(a, b) for a, b in zip(turned.pictures, plain.pictures, strict=True))
