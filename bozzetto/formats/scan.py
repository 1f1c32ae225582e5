# SPDX-License-Identifier: Apache-2.0
"""Point clouds and voxel grids of other programs: `.ply`, `.xyz`, `.npy`, `.binvox`.

`.ply` is read by trimesh: a cloud, or a mesh's vertices, with their colours; `.xyz` (`.txt`) is a line of numbers for each point, `.npy`
an array (N, 3). Six numbers are a place and a colour (0 to 255, or 0 to 1), or a place and a normal where they are of length 1. Normals
are not needed, and not kept. An array of three axes is voxels, x first, full above one half, each a cube of side 1; `.binvox` (Min's)
says where its grid lies, and lets y run fastest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bozzetto.brief import brief
from bozzetto.errors import InputError

KINDS = (".ply", ".xyz", ".txt", ".npy", ".binvox")
LARGEST = 128  # voxels a side
MEND = "give points (.ply, .xyz, .npy) or voxels (.npy, .binvox)"


@brief
@dataclass(frozen=True)
class Points:
    """places (N, 3) float64 as the file has them; colours (N, 3) float32, sRGB in [0, 1], or None."""

    places: np.ndarray
    colours: np.ndarray | None = None


@brief
@dataclass(frozen=True)
class Voxels:
    """full (X, Y, Z) bool; voxel (i, j, k) is the cube from corner + side (i, j, k)."""

    full: np.ndarray
    corner: np.ndarray
    side: float


def load(path: str | Path) -> Points | Voxels:
    """What is in a file.

    raises  InputError, one sentence, for a file that cannot be read, or holds neither points nor voxels
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise InputError(f"{path}: cannot read {kind or 'a file without suffix'}; {MEND}")
    if not path.is_file():
        raise InputError(f"{path}: no such file; {MEND}")
    try:
        made = {".ply": _ply, ".npy": _npy, ".binvox": _binvox}.get(kind, _xyz)(path)
    except InputError:
        raise
    except Exception as error:  # a stranger's file may fail in any of the parsers, in any way
        said = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{path}: cannot be read as {kind[1:]} ({said}); export it again") from error
    if isinstance(made, Voxels):
        if not made.full.any() or made.full.all():
            raise InputError(f"{path}: all voxels are {'full' if made.full.any() else 'empty'}, so there is no surface; export it again")
        if max(made.full.shape) > LARGEST:
            raise InputError(f"{path}: {' x '.join(map(str, made.full.shape))} voxels are too many; give at most {LARGEST} a side")
        return made
    good = np.isfinite(made.places).all(1)
    return Points(made.places[good], None if made.colours is None else made.colours[good])


def _ply(path: Path) -> Points:
    import trimesh

    loaded = trimesh.load(path, process=False)
    places = np.asarray(loaded.vertices, np.float64)
    rgba = None
    if isinstance(loaded, trimesh.PointCloud):
        rgba = loaded.colors
    elif loaded.visual.kind == "vertex":
        rgba = loaded.visual.vertex_colors
    has_colours = rgba is not None and len(rgba) == len(places) > 0
    return Points(places, np.asarray(rgba, np.float32)[:, :3] / 255 if has_colours else None)


def _xyz(path: Path) -> Points:
    text = path.read_text(encoding="utf-8", errors="replace").replace(",", " ").replace(";", " ")
    return _columns(path, np.loadtxt(text.splitlines(), ndmin=2, comments=("#", "//")))


def _npy(path: Path) -> Points | Voxels:
    array = np.load(path, allow_pickle=False)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{path}: holds {array.dtype}, not numbers; {MEND}")
    if array.ndim == 3:
        return Voxels(array > 0.5, np.zeros(3), 1.0)
    if array.ndim != 2:
        raise InputError(f"{path}: holds an array {array.shape}, expected points (N, 3) or voxels (X, Y, Z)")
    return _columns(path, array.astype(np.float64))


def _columns(path: Path, table: np.ndarray) -> Points:
    if table.shape[1] not in (3, 6):
        raise InputError(f"{path}: has {table.shape[1]} numbers a point; expected 3, or 6 with a colour or a normal")
    places, more = table[:, :3], table[:, 3:]
    if not more.size or np.allclose(np.linalg.norm(more, axis=1), 1, atol=1e-2):
        return Points(places)
    return Points(places, (more / (255 if more.max() > 1 else 1)).clip(0, 1).astype(np.float32))


def _binvox(path: Path) -> Voxels:
    head, found, body = path.read_bytes().partition(b"data\n")
    words = {line.split()[0]: line.split()[1:] for line in head.decode("ascii", "replace").splitlines() if line.strip()}
    if not found or "dim" not in words:
        raise InputError(f"{path}: is no binvox file; {MEND}")
    depth, width, height = (int(n) for n in words["dim"])  # x, z, y: the last runs fastest
    runs = np.frombuffer(body[: len(body) // 2 * 2], np.uint8).reshape(-1, 2)
    values = np.repeat(runs[:, 0] > 0, runs[:, 1])
    if len(values) != depth * width * height:
        raise InputError(f"{path}: holds {len(values)} voxels of {depth * width * height}; copy or download it again")
    corner = np.array([float(n) for n in words.get("translate", ["0"] * 3)])
    side = float(words.get("scale", ["1"])[0]) / max(depth, width, height)
    return Voxels(values.reshape(depth, width, height).transpose(0, 2, 1), corner, side)
