# SPDX-License-Identifier: Apache-2.0
"""Scenes read from COLMAP's and NeRF-synthetic's folders: round trips, refusals, fuzzing."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.transforms import to_nerf_synthetic
from bozzetto.camera import Camera, orbit
from bozzetto.errors import InputError
from bozzetto.formats import colmap
from bozzetto.formats.scene import load, undistorted
from tests.twins.cameras import to_colmap

N = 9
SIZE = (20, 30)
POINTS = np.random.default_rng(1).normal(size=(4, 3))
RGB = np.array([[255, 0, 10], [1, 2, 3], [0, 0, 0], [9, 8, 7]])


def cameras() -> Camera:
    c = orbit([0.7 * i for i in range(N)], 0.3, 3.0, size=SIZE, fov=0.8)
    c.K[:, 0, 2] += 1.5  # off the centre
    return c


def write_pictures(folder: Path, names: list[str], channels: int = 3, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for i, name in enumerate(names):
        p = np.random.default_rng(i).integers(0, 256, (*size, channels), dtype=np.uint8)
        Image.fromarray(p).save(folder / name)
        pictures.append(p)
    return pictures


def texts(model: str = "PINHOLE", parameters: str | None = None) -> dict[str, str]:
    c = cameras()
    K = c.K[0]
    given = parameters or f"{float(K[0, 0])!r} {float(K[1, 1])!r} {float(K[0, 2])!r} {float(K[1, 2])!r}"
    q, t = to_colmap(c)
    images = "".join(f"{i + 1} {' '.join(map(repr, q[i].tolist() + t[i].tolist()))} 1 im {i}.png\n1.0 2.0 -1\n" for i in range(N))
    points = "".join(f"{i} {' '.join(map(repr, POINTS[i].tolist()))} {RGB[i, 0]} {RGB[i, 1]} {RGB[i, 2]} 0.5 1 2\n" for i in range(4))
    return {"cameras.txt": f"# comment\n1 {model} {SIZE[1]} {SIZE[0]} {given}\n", "images.txt": "# x\n" + images, "points3D.txt": points}


def binaries() -> dict[str, bytes]:
    c = cameras()
    K, (q, t) = c.K[0], to_colmap(c)
    lens = struct.pack("<QiiQQ4d", 1, 1, 1, SIZE[1], SIZE[0], K[0, 0], K[1, 1], K[0, 2], K[1, 2])
    images = struct.pack("<Q", N)
    for i in range(N):
        images += struct.pack("<i7di", i + 1, *q[i].tolist(), *t[i].tolist(), 1) + f"im {i}.png".encode() + b"\0"
        images += struct.pack("<Q", 2) + struct.pack("<ddq", 1, 2, -1) * 2
    points = struct.pack("<Q", 4)
    for i in range(4):
        points += struct.pack("<Q3d3BdQ", i, *POINTS[i], *RGB[i].tolist(), 0.5, 1) + struct.pack("<ii", 1, 2)
    return {"cameras.bin": lens, "images.bin": images, "points3D.bin": points}


def write_colmap(folder: Path, files: dict[str, Any], pictures: bool = True) -> Path:
    model = folder / "sparse" / "0"
    model.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (model / name).write_bytes(content.encode() if isinstance(content, str) else content)
    if pictures:
        write_pictures(folder / "images", [f"im {i}.png" for i in range(N)])
    return folder


@pytest.mark.parametrize("files", [texts, binaries])
def test_colmap_text_and_binary_give_the_cameras_pictures_and_points_back(tmp_path, files):
    scene = load(write_colmap(tmp_path, files()))
    expected = cameras()
    for i in range(N):
        torch.testing.assert_close(scene.cameras[i].c2w[0], expected.c2w[i], rtol=0, atol=1e-12)
        torch.testing.assert_close(scene.cameras[i].K[0], expected.K[i], rtol=1e-14, atol=0)
        assert (scene.pictures[i].numpy() == np.array(Image.open(tmp_path / "images" / f"im {i}.png"))).all()
    assert scene.held == [True] + [False] * 7 + [True]
    np.testing.assert_allclose(scene.points.numpy(), POINTS, rtol=1e-6)
    np.testing.assert_allclose(scene.colours.numpy() * 255, RGB, atol=1e-4)
    assert not scene.has_alpha


@pytest.mark.parametrize("points", ["", "\n", "1 2 3\n", "1.5 2e1 -1 -3 4 17 8 9 -1 1 2 3\n"])
def test_every_image_of_a_text_model_is_read_with_or_without_its_line_of_points(tmp_path, points):
    files = texts()
    files["images.txt"] = files["images.txt"].replace("1.0 2.0 -1\n", points)
    found = colmap.read(write_colmap(tmp_path, files, pictures=False) / "sparse" / "0")
    assert [s.name for s in found.shots] == [f"im {i}.png" for i in range(N)]


def test_an_image_whose_name_is_a_number_is_no_line_of_points(tmp_path):
    files = texts()
    for i in range(N):
        files["images.txt"] = files["images.txt"].replace(f"im {i}.png\n1.0 2.0 -1\n", f"00{i}\n")
    found = colmap.read(write_colmap(tmp_path, files, pictures=False) / "sparse" / "0")
    assert [s.name for s in found.shots] == [f"00{i}" for i in range(N)]


@pytest.mark.parametrize("orientation", [3, 6])
def test_colmap_pictures_lie_as_in_the_file_whatever_exif_says(tmp_path, orientation):
    for name, text in texts().items():
        (tmp_path / "sparse" / "0").mkdir(parents=True, exist_ok=True)
        (tmp_path / "sparse" / "0" / name).write_text(text)
    names = [f"im {i}.png" for i in range(N)]
    pictures = write_pictures(tmp_path / "images", names)
    exif = Image.Exif()
    exif[274] = orientation
    for name, pixels in zip(names, pictures, strict=True):
        Image.fromarray(pixels).save(tmp_path / "images" / name, exif=exif)
    assert all((a.numpy() == b).all() for a, b in zip(load(tmp_path).pictures, pictures, strict=True))


def test_nerf_synthetic_gives_cameras_pictures_and_alpha_back(tmp_path):
    c = orbit([0.7 * i for i in range(N)], 0.3, 3.0, size=SIZE, fov=0.8)
    pictures = write_pictures(tmp_path, [f"r_{i}.png" for i in range(N)], 4)
    (tmp_path / "transforms.json").write_text(json.dumps(to_nerf_synthetic(c)))
    scene = load(tmp_path)
    assert scene.has_alpha and sum(scene.held) == 2
    for i in range(N):
        torch.testing.assert_close(scene.cameras[i].c2w[0], c.c2w[i], rtol=0, atol=1e-9)
        torch.testing.assert_close(scene.cameras[i].K[0], c.K[i], rtol=1e-12, atol=1e-12)
        assert (scene.pictures[i].numpy() == pictures[i]).all()
    whole = to_nerf_synthetic(c)
    (tmp_path / "transforms.json").unlink()
    (tmp_path / "transforms_train.json").write_text(json.dumps({**whole, "frames": whole["frames"][:6]}))
    (tmp_path / "transforms_test.json").write_text(json.dumps({**whole, "frames": whole["frames"][6:]}))
    assert load(tmp_path).held == [False] * 6 + [True] * 3


@pytest.mark.parametrize("kind", ["colmap", "transforms"])
def test_pictures_are_shrunk_to_a_size_and_their_cameras_with_them(tmp_path, kind):
    """Four fifths of 20 x 30; the mean colour stays, to rounding, and a size beyond the pictures' changes nothing."""
    if kind == "colmap":
        write_colmap(tmp_path, texts())
    else:
        write_pictures(tmp_path, [f"r_{i}.png" for i in range(N)], 4)
        (tmp_path / "transforms.json").write_text(
            json.dumps(to_nerf_synthetic(orbit([0.7 * i for i in range(N)], 0.3, 3.0, size=SIZE, fov=0.8)))
        )
    whole, small = load(tmp_path), load(tmp_path, 24)
    assert load(tmp_path, 30).digest() == whole.digest() != small.digest()
    for p, q, c, d in zip(whole.pictures, small.pictures, whole.cameras, small.cameras, strict=True):
        assert q.shape[:2] == d.size == (16, 24)
        torch.testing.assert_close(d.K[0, :2], 0.8 * c.K[0, :2], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(d.c2w, c.c2w, rtol=0, atol=0)
        if kind == "colmap":  # with alpha, colours are weighted by it
            torch.testing.assert_close(q.float().mean((0, 1)), p.float().mean((0, 1)), rtol=0, atol=0.5)


@pytest.mark.parametrize("distortion", [(0.4, 0, 0, 0), (-0.2, 0.05, 0.004, -0.006)])
def test_an_undistorted_picture_shows_along_each_ray_what_the_lens_saw(distortion):
    """A picture is a smooth function of the ray; distortion as COLMAP writes it: x' = x (1 + k1 r^2 + k2 r^4) + tangential terms."""
    h, w = 60, 80
    K = np.array([[70.0, 0, 41], [0, 72, 29], [0, 0, 1]])
    k1, k2, p1, p2 = distortion

    def colour(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.stack([127 + 100 * np.sin(3 * x + 1), 127 + 100 * np.cos(2 * y - x), 127 + 80 * np.sin(2 * x + 3 * y)], -1)

    column, row = np.meshgrid(np.arange(w) + 0.5, np.arange(h) + 0.5)
    seen = np.stack([(column - K[0, 2]) / K[0, 0], (row - K[1, 2]) / K[1, 1]], -1)
    ray = seen.copy()
    for _ in range(100):  # the ray that the lens bends to this pixel, by fixed point
        x, y = ray[..., 0], ray[..., 1]
        r2 = x * x + y * y
        bent = np.stack([2 * p1 * x * y + p2 * (r2 + 2 * x * x), 2 * p2 * x * y + p1 * (r2 + 2 * y * y)], -1)
        ray = (seen - bent) / (1 + k1 * r2 + k2 * r2 * r2)[..., None]
    picture = torch.from_numpy(colour(ray[..., 0], ray[..., 1]).round().astype(np.uint8))
    flat, new = undistorted(picture, K, np.array([k1, k2, p1, p2]))
    expected = colour((column - new[0, 2]) / new[0, 0], (row - new[1, 2]) / new[1, 1])
    error = np.abs(flat.numpy() - expected)
    assert np.median(error) < 1 and error[2:-2, 2:-2].max() < 4  # rounding, bilinear interpolation; half a pixel aside would be 3 to 4
    shifted = colour((column + 0.5 - new[0, 2]) / new[0, 0], (row + 0.5 - new[1, 2]) / new[1, 1])
    assert np.median(np.abs(flat.numpy() - shifted)) > 2 * np.median(error)
    assert not np.allclose(picture.numpy(), expected, atol=8), "the lens did bend"


def test_models_are_mapped_to_their_parameters(tmp_path):
    cases = {
        "SIMPLE_PINHOLE": ("30 15 10", (30, 30, 15, 10), (0, 0, 0, 0)),
        "SIMPLE_RADIAL": ("30 15 10 0.1", (30, 30, 15, 10), (0.1, 0, 0, 0)),
        "OPENCV": ("30 31 15 10 .1 .2 .3 .4", (30, 31, 15, 10), (0.1, 0.2, 0.3, 0.4)),
    }
    for i, (model, (numbers, pinhole, distortion)) in enumerate(cases.items()):
        folder = write_colmap(tmp_path / str(i), texts(model, numbers), pictures=False) / "sparse" / "0"
        lens = colmap.read(folder).lenses[1]
        assert (lens.K[0, 0], lens.K[1, 1], lens.K[0, 2], lens.K[1, 2]) == pinhole and tuple(lens.distortion) == distortion


def test_what_is_wrong_with_a_scene_is_said_in_one_sentence(tmp_path):
    t, b = texts(), binaries()
    bad_pose = t["images.txt"].replace("1 ", "1 nan ", 1)
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "neither"),
        ({k: v for k, v in t.items() if k != "images.txt"}, "cannot be read"),
        (texts("OPENCV_FISHEYE", "1 2 3 4 5 6 7 8"), "OPENCV_FISHEYE"),
        (texts("PINHOLE", "1 2 3"), "3 numbers"),
        (texts("PINHOLE", "-1 2 3 4"), "positive focal"),
        ({**t, "images.txt": "1 hello\n\n"}, "not a number"),
        ({**t, "images.txt": bad_pose}, "images"),
        ({**t, "images.txt": ""}, "too few"),
        ({**t, "cameras.txt": t["cameras.txt"].replace("\n1 ", "\n2 ")}, "names camera 1"),
        ({**b, "images.bin": b["images.bin"][:-1]}, "ends early"),
        ({**b, "cameras.bin": b["cameras.bin"][:30]}, "ends early"),
        ({**b, "cameras.bin": b["cameras.bin"].replace(struct.pack("<ii", 1, 1), struct.pack("<ii", 1, 5))}, "OPENCV_FISHEYE"),
        ({**b, "points3D.bin": b["points3D.bin"][:-1]}, "ends early"),
    ]
    for i, (files, words) in enumerate(cases):
        folder = write_colmap(tmp_path / str(i), files)
        with pytest.raises(InputError, match=words) as caught:
            load(folder)
        assert "\n" not in str(caught.value)
    folder = write_colmap(tmp_path / "pictures", t)
    gone = [folder / "images" / f"im {i}.png" for i in (3, 1, 5, 6, 7)]
    for path in gone:
        path.unlink()
    with pytest.raises(InputError, match=r"5 of 9 pictures that it names are missing \(the first is im 1\.png\); put them there"):
        load(folder)
    write_pictures(folder / "images", [path.name for path in gone[1:]])
    write_pictures(folder / "images", ["im 3.png"], size=(24, 30))
    with pytest.raises(InputError, match="30 x 24 pixels"):
        load(folder)
    write_pictures(folder / "images", ["im 3.png"], channels=4)
    with pytest.raises(InputError, match="some pictures have transparency"):
        load(folder)
    with pytest.raises(InputError, match="no such folder"):
        load(tmp_path / "nowhere")


def test_what_is_wrong_with_transforms_is_said_in_one_sentence(tmp_path):
    good = to_nerf_synthetic(orbit([0.0, 1.0, 2.0], 0.3, 3.0, size=SIZE, fov=0.8))
    write_pictures(tmp_path, [f"r_{i}.png" for i in range(3)])
    skewed = json.loads(json.dumps(good))
    skewed["frames"][1]["transform_matrix"][0][0] += 0.1
    cases = [
        ("{", "is no JSON"),
        ("[]", "no list `frames`"),
        (json.dumps({**good, "camera_angle_x": 4}), "camera_angle_x of r_0 is 4, expected a number between 0 and pi"),
        (json.dumps({**good, "frames": []}), "no list `frames`"),
        (json.dumps({"frames": good["frames"]}), "no focal length for r_0; add fl_x .* or camera_angle_x"),
        (json.dumps({**good, "frames": [{"file_path": 3, "transform_matrix": np.eye(4).tolist()}]}), "frame 0 has no file_path"),
        (json.dumps({**good, "frames": [{"file_path": "r_0", "transform_matrix": [[1, 2], [3]]}]}), "transform_matrix of r_0"),
        (json.dumps(skewed), "r_1 is no rotation"),
        (json.dumps({**good, "fl_x": 0}), "fl_x of r_0 is 0, expected a number above 0"),
        (json.dumps({**good, "cx": "left"}), "cx of r_0 is not a finite number"),
        (json.dumps({**good, "camera_model": "OPENCV_FISHEYE"}), r"lens that is not known \(camera_model OPENCV_FISHEYE\)"),
        (json.dumps({**good, "is_fisheye": True}), "is_fisheye"),
        (json.dumps({**good, "w": SIZE[0], "h": SIZE[1]}), r"r_0.png: has 30 x 20 pixels, transforms.json says 20 x 30"),
        (json.dumps({**good, "frames": [*good["frames"], *({**good["frames"][0], "file_path": x} for x in "abcd")]}), "4 of 7 pictures"),
        (json.dumps({**good, "frames": good["frames"][:2]}), "too few"),
    ]
    for content, words in cases:
        (tmp_path / "transforms.json").write_text(content)
        with pytest.raises(InputError, match=words):
            load(tmp_path)


def test_frames_without_a_picture_are_left_out_with_their_count(tmp_path):
    folder = write_colmap(tmp_path / "colmap", texts())
    plain = load(folder)
    (folder / "images" / "im 0.png").unlink()
    scene = load(folder)
    assert all(torch.equal(a, b) for a, b in zip(scene.pictures, plain.pictures[1:], strict=True))
    assert scene.held == [True] + [False] * 7 and not plain.warnings
    assert [w.split(": ")[1] for w in scene.warnings] == [
        "1 of 9 pictures that it names are missing (the first is im 0.png); these frames are left out"
    ]
    write_pictures(tmp_path, [f"r_{i}.png" for i in range(4, 9)])
    c = orbit([0.7 * i for i in range(N)], 0.3, 3.0, size=SIZE, fov=0.8)
    (tmp_path / "transforms.json").write_text(json.dumps(to_nerf_synthetic(c)))
    scene = load(tmp_path)
    assert [float(a.c2w[0, 0, 3]) for a in scene.cameras] == pytest.approx(c.c2w[4:, 0, 3].tolist())
    assert scene.held == [True] + [False] * 4 and "4 of 9 pictures that it names are missing (the first is r_0)" in scene.warnings[0]


@pytest.mark.parametrize("where", ["colmap/sparse/0", "colmap/sparse", "colmap", "dense/0/sparse", "dense/sparse", "sparse", "."])
@pytest.mark.parametrize("beside", [True, False])
def test_a_colmap_model_is_found_where_tools_put_it_with_the_pictures_beside_it_or_above(tmp_path, where, beside):
    model = tmp_path / where
    model.mkdir(parents=True, exist_ok=True)
    for name, text in texts().items():
        (model / name).write_text(text)
    root = tmp_path / where.removesuffix("/0" if where.endswith("sparse/0") else "").removesuffix("sparse")
    write_pictures((root if beside else tmp_path) / "images", [f"im {i}.png" for i in range(N)])
    assert len(load(tmp_path).pictures) == N


def test_names_with_backslashes_are_paths(tmp_path):
    files = texts()
    files["images.txt"] = files["images.txt"].replace(" im ", " left\\im ")
    folder = write_colmap(tmp_path / "colmap", files, pictures=False)
    write_pictures(folder / "images" / "left", [f"im {i}.png" for i in range(N)])
    assert len(load(folder).pictures) == N
    write_pictures(tmp_path / "images", [f"r_{i}.png" for i in range(N)])
    transforms = to_nerf_synthetic(orbit([0.7 * i for i in range(N)], 0.3, 3.0, size=SIZE, fov=0.8))
    for frame in transforms["frames"]:
        frame["file_path"] = ".\\images\\" + frame["file_path"]
    (tmp_path / "transforms.json").write_text(json.dumps(transforms))
    assert len(load(tmp_path).pictures) == N


@settings(max_examples=200)
@given(
    name=st.sampled_from(["cameras.bin", "images.bin", "points3D.bin", "cameras.txt", "images.txt", "points3D.txt"]),
    at=st.integers(0, 1200),
    what=st.binary(min_size=1, max_size=8),
    cut=st.integers(0, 2500),
)
def test_a_damaged_model_is_read_or_refused_never_a_crash(tmp_path_factory, name, at, what, cut):
    files: dict[str, Any] = binaries() if name.endswith(".bin") else {k: v.encode() for k, v in texts().items()}
    files[name] = (files[name][:at] + what + files[name][at + len(what) :])[:cut]
    folder = tmp_path_factory.getbasetemp() / f"fuzz{name[-4:]}"
    write_colmap(folder, files, pictures=False)
    try:
        found = colmap.read(folder / "sparse" / "0")
    except InputError:
        return
    assert all(np.isfinite(s.translation).all() for s in found.shots) and np.isfinite(found.points).all()
