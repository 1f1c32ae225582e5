# SPDX-License-Identifier: Apache-2.0
"""Objects from any folder of GLB, glTF, OBJ or PLY files, nested as deep as it likes: an Objaverse folder is one.

The files' frame is y up, front +z, as glTF wants it; ours is (x, y, z)_ours = (z, x, y)_file. Each material keeps its own
texture: baseColorTexture times baseColorFactor (a linear factor, applied in linear light). Vertex colours, where there is
no texture, become a palette of materials, one a face; a GLB's are linear by its standard, an OBJ's and a PLY's are taken as sRGB. Not read:
normal maps, metalness, opacity, animation (the rest pose counts), points and lines.

`python -m bozzetto.data.folder FOLDER OUT_FOLDER` packs what can be read.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bozzetto.data import split
from bozzetto.data.objects import Object, pack
from bozzetto.data.surface import distinct, finished, from_y_up, linear, srgb
from bozzetto.errors import InputError

SUFFIXES = (".glb", ".gltf", ".obj", ".ply")
LEVELS = 8  # of each channel of a palette of vertex colours: at most 512 colours, each within 1/8 of what it stands for


def files(folder: str | Path) -> list[Path]:
    """The models of a folder and the folders in it, sorted. Raises InputError if there is no folder, or nothing in it."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; give one that holds .glb, .gltf, .obj or .ply files")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise InputError(f"{folder}: no .glb, .gltf, .obj or .ply file in it or in the folders below; give a folder that holds some")
    return found


def side(path: str | Path) -> str:
    """Where a file stands in the split: by its stem (an Objaverse file's is its uid), wherever the folder lies."""
    return split.side_of_file(Path(path).stem)


def load_all(folder: str | Path, *, texture_size: int = 256) -> Iterator[tuple[Path, Object]]:
    """Every readable model, one at a time; a broken file is named in a warning and left out."""
    for path in files(folder):
        try:
            o = load(path, source=f"folder/{path.relative_to(folder).as_posix()}", texture_size=texture_size)
        except Exception as error:  # a stranger's file may fail in any of trimesh's loaders, in any way
            warnings.warn(f"{path}: skipped ({type(error).__name__}: {error})", stacklevel=2)
            continue
        yield path, o


def load(path: str | Path, *, source: str = "", name: str = "", texture_size: int = 256) -> Object:
    """One model file.

    source        default "folder/<file name>"; name: default the file's stem in words
    texture_size  longest side that textures are reduced to
    raises        InputError for a file without triangles, trimesh's own errors for a broken one
    """
    import trimesh

    path = Path(path)
    scene = trimesh.load_scene(path, process=False)
    parts = []
    for node in scene.graph.nodes_geometry:  # not scene.dump(): its copies lose the file's normals
        matrix, key = scene.graph[node]
        if isinstance(mesh := scene.geometry[key], trimesh.Trimesh) and len(mesh.faces):
            parts.append(_part(mesh, matrix, texture_size, has_linear_colours=path.suffix.lower() in (".glb", ".gltf")))
    if not parts:
        raise InputError(f"{path}: no triangles in it; leave it out or export its surface as a mesh")
    start = np.cumsum([0] + [len(p.points) for p in parts])
    base = np.cumsum([0] + [len(p.colours) for p in parts])
    points = np.concatenate([p.points for p in parts])
    faces = np.concatenate([p.faces + s for p, s in zip(parts, start, strict=False)])
    material = np.concatenate([p.material + b for p, b in zip(parts, base, strict=False)])
    keep = distinct(points, faces, material)
    if not keep.any():
        raise InputError(f"{path}: no triangle in it has an area; leave it out")
    return finished(
        points,
        faces[keep],
        material[keep],
        np.concatenate([p.colours for p in parts]),
        [t for p in parts for t in p.textures],
        uv=np.concatenate([p.uv for p in parts])[keep],
        normals=np.concatenate([p.normals for p in parts])[keep],
        name=name or path.stem.replace("_", " ").replace("-", " ").lower(),
        source=source or f"folder/{path.name}",
    )


@dataclass(frozen=True)
class _Part:
    """One mesh of a scene in our frame; material counts from 0 in its own colours (M, 3) and textures."""

    points: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    material: np.ndarray
    colours: np.ndarray
    uv: np.ndarray
    textures: list[np.ndarray | None]


def _part(mesh: Any, matrix: np.ndarray, texture_size: int, *, has_linear_colours: bool) -> _Part:
    faces = np.asarray(mesh.faces, np.int64)
    points = from_y_up(np.asarray(mesh.vertices) @ matrix[:3, :3].T + matrix[:3, 3])
    if not np.isfinite(points).all():
        raise ValueError("a vertex is not a number")
    normals = np.zeros((*faces.shape, 3))
    if "vertex_normals" in mesh._cache.cache:  # as trimesh's own exporters ask: the property would compute them
        normals = from_y_up(np.asarray(mesh.vertex_normals) @ np.linalg.pinv(matrix[:3, :3]))[faces]  # rows: by the inverse transpose
    if np.linalg.det(matrix[:3, :3]) < 0:
        faces, normals = faces[:, [0, 2, 1]], normals[:, [0, 2, 1]]
    kind = mesh.visual.kind
    uv, factor, image = None, np.ones(3), None
    if kind == "texture":
        uv = getattr(mesh.visual, "uv", None)
        factor, image = _material(mesh.visual.material)
    if image is not None and uv is not None and len(uv) == len(mesh.vertices):
        texture = _texture(image, factor, texture_size)
        at = np.nan_to_num(np.asarray(uv, np.float64)[:, :2] * [1, -1] + [0, 1])[faces]  # trimesh counts v from the bottom row
        mean = texture.reshape(-1, 3).mean(0, keepdims=True) / 255
        return _Part(points, faces, normals, np.zeros(len(faces), np.int64), mean, at, [texture])
    colours = srgb(factor)[None]
    material = np.zeros(len(faces), np.int64)
    if (of_face := _colours_of_faces(mesh, faces)) is not None:
        of_face = srgb(of_face * factor) if has_linear_colours else of_face
        colours, material = _palette(of_face)
    return _Part(points, faces, normals, material, colours, np.zeros((*faces.shape, 2)), [None] * len(colours))


def _material(material: Any) -> tuple[np.ndarray, Image.Image | None]:
    """The base colour's linear factor (3,), and its picture. An OBJ's Kd is a display value, and idle beside a picture."""
    if hasattr(material, "baseColorTexture"):
        factor = np.ones(3) if material.baseColorFactor is None else np.asarray(material.baseColorFactor, np.float64)[:3] / 255
        return factor, material.baseColorTexture
    image = getattr(material, "image", None)
    return np.ones(3) if image is not None else linear(np.asarray(material.diffuse, np.float64)[:3] / 255), image


def _texture(image: Image.Image, factor: np.ndarray, texture_size: int) -> np.ndarray:
    """(h, w, 3) uint8 sRGB, times the factor in linear light, long side at most texture_size."""
    image = image.convert("RGB")
    if max(image.size) > texture_size:
        s = texture_size / max(image.size)
        image = image.resize((max(1, round(image.width * s)), max(1, round(image.height * s))), Image.Resampling.LANCZOS)
    pixels = np.asarray(image)
    return pixels.copy() if (factor == 1).all() else (srgb(linear(pixels / 255) * factor) * 255).round().astype(np.uint8)


def _colours_of_faces(mesh: Any, faces: np.ndarray) -> np.ndarray | None:
    """(F, 3) in [0, 1] as stored: a face's own colour or the mean of its corners'; None if the file has none."""
    visual = mesh.visual
    if visual.kind == "face":
        return np.asarray(visual.face_colors, np.float64)[:, :3] / 255
    if visual.kind == "vertex":
        stored = np.asarray(visual.vertex_colors)
    else:
        stored = np.asarray(getattr(visual, "vertex_attributes", {}).get("color", ()))
    if stored.ndim != 2 or len(stored) != len(mesh.vertices) or stored.shape[1] < 3:
        return None
    scale = np.iinfo(stored.dtype).max if stored.dtype.kind == "u" else 1.0
    return (stored[:, :3] / scale)[faces].mean(1)


def _palette(colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cells of the colour cube that occur, as the mean colour in each (M, 3), and each face's cell (F,)."""
    cell = (colours * LEVELS).astype(int).clip(0, LEVELS - 1) @ [LEVELS * LEVELS, LEVELS, 1]
    _, material, count = np.unique(cell, return_inverse=True, return_counts=True)
    material = material.reshape(-1)
    total = np.stack([np.bincount(material, colours[:, k]) for k in range(3)], 1)
    return total / count[:, None], material


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("usage: python -m bozzetto.data.folder FOLDER OUT_FOLDER", file=sys.stderr)
        return 2
    try:
        found = files(arguments[0])
        packed = pack((o for _, o in load_all(arguments[0])), arguments[1], side=lambda o: side(o.source))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    counts = ", ".join(f"{len(packed.indices(s))} {s}" for s in split.SIDES)
    print(f"{len(packed)} of {len(found)} files read: {counts}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
