# SPDX-License-Identifier: Apache-2.0
"""COLMAP's reconstructions, text and binary: cameras, images and points (https://colmap.github.io/format.html).

Models PINHOLE, SIMPLE_PINHOLE, SIMPLE_RADIAL and OPENCV; others are refused. World-to-camera, OpenCV axes, converted in `camera.py`.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bozzetto.errors import InputError

MODELS = {0: ("SIMPLE_PINHOLE", 3), 1: ("PINHOLE", 4), 2: ("SIMPLE_RADIAL", 4), 4: ("OPENCV", 8)}
OTHER = {
    3: "RADIAL",
    5: "OPENCV_FISHEYE",
    6: "FULL_OPENCV",
    7: "FOV",
    8: "SIMPLE_RADIAL_FISHEYE",
    9: "RADIAL_FISHEYE",
    10: "THIN_PRISM_FISHEYE",
}
PARAMETERS = dict(MODELS.values())
NUMBERS = re.compile(r"[\d.eE+\-\s]*")


@dataclass(frozen=True)
class Lens:
    """One camera: size (height, width), K (3, 3), distortion (k1, k2, p1, p2), all 0 for a pinhole."""

    size: tuple[int, int]
    K: np.ndarray
    distortion: np.ndarray


@dataclass(frozen=True)
class Shot:
    """One image: its file's name, the key of its lens, and world to camera as a quaternion (w, x, y, z) and a translation."""

    name: str
    lens: int
    quat: np.ndarray
    translation: np.ndarray


@dataclass(frozen=True)
class Reconstruction:
    """lenses by key; shots sorted by name; points (N, 3) and their colours (N, 3) in [0, 1]."""

    lenses: dict[int, Lens]
    shots: list[Shot]
    points: np.ndarray
    colours: np.ndarray


def read(folder: Path) -> Reconstruction:
    """A model's folder, with cameras, images and points3D as .bin or .txt; points may be missing.

    raises  InputError for files that are missing, end early or make no sense, and for camera models that are not supported
    """
    suffix = next((s for s in (".bin", ".txt") if (folder / f"cameras{s}").is_file()), None)
    if suffix is None:
        raise InputError(f"{folder}: holds neither cameras.bin nor cameras.txt; give the folder of a COLMAP model")
    read_lenses, read_shots, read_points = (
        (_lenses_bin, _shots_bin, _points_bin) if suffix == ".bin" else (_lenses_txt, _shots_txt, _points_txt)
    )
    lenses = _parsed(folder / f"cameras{suffix}", read_lenses)
    shots = sorted(_parsed(folder / f"images{suffix}", read_shots), key=lambda s: s.name)
    points = folder / f"points3D{suffix}"
    table = _parsed(points, read_points) if points.is_file() else np.zeros((0, 6))
    for shot in shots:
        if shot.lens not in lenses:
            raise InputError(f"{folder}: image {shot.name} names camera {shot.lens}, which is not there; export the model again")
    numbers = [
        table,
        *(s.translation for s in shots),
        *(lens.K for lens in lenses.values()),
        *(lens.distortion for lens in lenses.values()),
    ]
    if not all(np.isfinite(a).all() for a in numbers) or not all(0 < np.linalg.norm(s.quat) < np.inf for s in shots):
        raise InputError(f"{folder}: holds numbers that are not finite, or a rotation of length 0; export the model again")
    return Reconstruction(lenses, shots, table[:, :3], table[:, 3:] / 255)


def _parsed(path: Path, parse):  # type: ignore[no-untyped-def]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); export the COLMAP model again") from None
    try:
        return parse(path, data)
    except (struct.error, IndexError):
        raise InputError(f"{path}: ends early, or is no such file; export the COLMAP model again") from None
    except (ValueError, OverflowError):
        raise InputError(f"{path}: holds something that is not a number where one belongs; export the COLMAP model again") from None


def _lens(path: Path, key: int, model: str, width: int, height: int, p: list[float]) -> Lens:
    if model not in PARAMETERS:
        known = ", ".join(sorted(PARAMETERS))
        raise InputError(f"{path}: camera {key} has the model {model}, known are {known}; undistort the pictures with COLMAP first")
    if len(p) != PARAMETERS[model]:
        raise InputError(f"{path}: camera {key} has {len(p)} numbers, a {model} has {PARAMETERS[model]}; export the model again")
    K, distortion = np.eye(3), np.zeros(4)
    if model in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL"):
        K[0, 0], K[1, 1], K[0, 2], K[1, 2] = p[0], p[0], p[1], p[2]
        distortion[0] = p[3] if model == "SIMPLE_RADIAL" else 0
    else:
        K[0, 0], K[1, 1], K[0, 2], K[1, 2] = p[:4]
        distortion[:] = p[4:] if model == "OPENCV" else 0
    if not (K[0, 0] > 0 and K[1, 1] > 0 and 0 < width < 1 << 16 and 0 < height < 1 << 16):
        raise InputError(f"{path}: camera {key} has no positive focal length and size; export the model again")
    return Lens((height, width), K, distortion)


def _lines(data: bytes) -> list[str]:
    return [line for line in data.decode("utf-8", "replace").splitlines() if not line.startswith("#")]


def _lenses_txt(path: Path, data: bytes) -> dict[int, Lens]:
    lenses = {}
    for line in _lines(data):
        if words := line.split():
            lenses[int(words[0])] = _lens(path, int(words[0]), words[1], int(words[2]), int(words[3]), [float(x) for x in words[4:]])
    return lenses


def _shots_txt(path: Path, data: bytes) -> list[Shot]:
    """A line each, and COLMAP's second, which lists points and may be empty, where it is there: other tools leave it out."""
    shots, is_after_shot = [], False
    for line in _lines(data):
        if not line.strip() or (is_after_shot and NUMBERS.fullmatch(line) and len(line.split()) % 3 == 0):
            is_after_shot = False
            continue
        words = line.split(maxsplit=9)
        numbers = np.array([float(x) for x in words[1:8]])
        shots.append(Shot(words[9].strip(), int(words[8]), numbers[:4], numbers[4:]))
        is_after_shot = True
    return shots


def _points_txt(path: Path, data: bytes) -> np.ndarray:
    rows = [[float(x) for x in line.split()[1:7]] for line in _lines(data) if line.strip()]
    if any(len(row) != 6 for row in rows):
        raise IndexError
    return np.array(rows, np.float64).reshape(-1, 6)


def _lenses_bin(path: Path, data: bytes) -> dict[int, Lens]:
    (count,), at, lenses = struct.unpack_from("<Q", data), 8, {}
    for _ in range(count):
        key, model, width, height = struct.unpack_from("<iiQQ", data, at)
        at += 24
        name, num = MODELS.get(model, (OTHER.get(model, f"number {model}"), 0))
        lenses[key] = _lens(path, key, name, width, height, list(struct.unpack_from(f"<{num}d", data, at)))
        at += 8 * num
    return lenses


def _shots_bin(path: Path, data: bytes) -> list[Shot]:
    (count,), at, shots = struct.unpack_from("<Q", data), 8, []
    for _ in range(count):
        _, *pose, lens = struct.unpack_from("<i7di", data, at)
        at += 64
        end = data.find(b"\0", at)
        if end < 0:
            raise IndexError
        name, at = data[at:end].decode("utf-8", "replace"), end + 1
        (num,) = struct.unpack_from("<Q", data, at)
        at += 8 + 24 * num
        if at > len(data):
            raise IndexError
        shots.append(Shot(name, lens, np.array(pose[:4]), np.array(pose[4:])))
    return shots


def _points_bin(path: Path, data: bytes) -> np.ndarray:
    (count,), at, rows = struct.unpack_from("<Q", data), 8, []
    for _ in range(count):
        _, x, y, z, r, g, b, _ = struct.unpack_from("<Q3d3Bd", data, at)
        (track,) = struct.unpack_from("<Q", data, at + 43)
        at += 51 + 8 * track
        if at > len(data):
            raise IndexError
        rows.append((x, y, z, r, g, b))
    return np.array(rows, np.float64).reshape(-1, 6)
