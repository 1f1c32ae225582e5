# SPDX-License-Identifier: Apache-2.0
"""Packed objects made small enough to carry: fewer triangles, smaller textures, one archive.

`python -m bozzetto.data.decimated data/objects course/objects.tar.xz` takes the training and the validation side, never the one
held out. Objects are welded by position, collapsed (`render.collapse`) and given back their materials, normals and texture
coordinates by looking for the nearest point of the old surface that faces the same way. Meant for pictures of 128 pixels a side.
"""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial import cKDTree

from bozzetto.data.objects import Object, Packed, pack
from bozzetto.errors import InputError
from bozzetto.files import replacing
from bozzetto.render.collapse import collapse

TRIANGLES, TEXELS = 3000, 64
SIDES = ("train", "validation")
CELLS = (10000, 256, 128, 96, 64, 48)  # a unit's parts that vertices are welded within, until the collapse gets on
LOST = 0.01  # share of the surface that may go: less is not seen in a contact sheet
TURNED = 0.1  # object units that a face turned by 60 degrees is further away, when the old surface is searched
MEGABYTES = 24.0  # with the checkout's 40 it makes 64, what is often the most that may be sent along


def decimated(o: Object, triangles: int = TRIANGLES, texels: int = TEXELS) -> Object:
    """The object with about `triangles` faces and textures of at most `texels` a side, and its numbers rounded so that they compress.

    Its box is again centred and of longest side 1. Faces without extent are dropped. Where parts would be lost (flowers that do not
    collapse leave nothing to their pot), it gets twice the faces, or four times.
    """
    if len(o.faces) <= triangles:
        keep = _area(o.vertices[o.faces]) > 0
        return _rounded(replace(o, faces=o.faces[keep], normals=o.normals[keep], material=o.material[keep], uv=o.uv[keep]), texels)
    for most in (triangles, 2 * triangles, 4 * triangles):
        for cells in CELLS:
            v, f = collapse(*_welded(o.vertices, o.faces, cells), most)
            if len(f) <= 1.1 * most:
                break
        f = f[_area(v[f]) > 0]
        if lost(o.vertices[o.faces], v[f]) < LOST:
            break
    material, normals, uv = _dressed(o, v[f])
    return _rounded(replace(o, vertices=v, faces=f.astype(np.int32), material=material, normals=normals, uv=uv), texels)


def lost(old: np.ndarray, new: np.ndarray, within: float = 0.02) -> float:
    """Share of the old surface's area that is further than `within` from the new one; corners (F, 3, 3) and (G, 3, 3)."""
    rng = np.random.default_rng(0)
    there = cKDTree(_scattered(new, 40_000, rng)[0])
    far = there.query(_scattered(old, 4_000, rng)[0][-4_000:], distance_upper_bound=within)[0]
    return float(np.isinf(far).mean())


def small(source: Packed, archive: Path, *, triangles: int = TRIANGLES, texels: int = TEXELS, megabytes: float = MEGABYTES) -> int:
    """Write an archive of what may be trained and tuned on; returns its bytes.

    raises InputError where it came out larger than `megabytes` (MiB), and leaves nothing then
    """
    rows = [r for r in source.rows if r["side"] in SIDES]
    side, weight = ({r["source"]: r[key] for r in rows} for key in ("side", "weight"))

    def made() -> Iterator[Object]:
        for i, row in enumerate(source.rows):
            if row["side"] in SIDES:
                yield decimated(source[i], triangles, texels)

    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, replacing(archive) as part:
        pack(made(), folder, side=lambda o: side[o.source], weight=lambda o: weight[o.source])
        with tarfile.open(part, "w:xz", preset=9) as tar:
            for file in sorted(Path(folder).iterdir()):
                tar.add(file, file.name, filter=_nameless)
        size = part.stat().st_size
        if size > megabytes * 2**20:
            raise InputError(f"{archive}: {size / 2**20:.1f} MiB, more than {megabytes:g}; give fewer --triangles or --texels")
    return size


def unpacked(archive: Path, folder: Path) -> Packed:
    """The archive's objects, unpacked into a folder."""
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except (OSError, EOFError, tarfile.TarError) as error:
        raise InputError(f"{archive}: cannot be unpacked ({error}); make it anew: make course-pack") from None
    return Packed(folder)


def _nameless(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """The same objects make the same archive, whoever packs them and when."""
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    return info


def _area(corners: np.ndarray) -> np.ndarray:
    """(F,) twice the areas of triangles (F, 3, 3)."""
    return np.linalg.norm(_across(corners), axis=1)


def _across(corners: np.ndarray) -> np.ndarray:
    p = corners.astype(np.float64)
    return np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])


def _welded(vertices: np.ndarray, faces: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices of one cell become its first; faces that lose a corner, and doubles, go."""
    _, first, which = np.unique(np.rint(vertices * cells).astype(np.int64), axis=0, return_index=True, return_inverse=True)
    f = which.reshape(-1)[faces.astype(np.int64)]
    f = f[(f[:, 0] != f[:, 1]) & (f[:, 1] != f[:, 2]) & (f[:, 2] != f[:, 0])]
    _, kept = np.unique(np.sort(f, axis=1), axis=0, return_index=True)
    return vertices[first], f[np.sort(kept)]


def _dressed(o: Object, corners: np.ndarray, samples: int = 40_000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """material, normals and uv of new faces with corners (G, 3, 3), from the old surface."""
    old, across = o.vertices[o.faces].astype(np.float64), _across(o.vertices[o.faces])
    points, chosen, bary = _scattered(old, samples, np.random.default_rng(0))
    facing = across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-30)
    tree = cKDTree(np.concatenate([points, TURNED * facing[chosen]], 1))
    normal = _across(corners) / _area(corners)[:, None]
    middle = corners.mean(1)
    face = chosen[tree.query(np.concatenate([middle, TURNED * normal], 1))[1]]
    inner = 0.8 * corners + 0.2 * middle[:, None]
    near = tree.query(np.concatenate([inner, np.repeat(TURNED * normal[:, None], 3, 1)], 2))[1]  # (G, 3)
    shading = np.einsum("gck,gckd->gcd", bary[near], o.normals[chosen[near]].astype(np.float64))
    shading /= np.maximum(np.linalg.norm(shading, axis=2, keepdims=True), 1e-6)
    creased = (shading * normal[:, None]).sum(2) < 0.5
    shading[creased] = np.repeat(normal[:, None], 3, 1)[creased]
    found = np.einsum("gck,gckd->gcd", bary[near], o.uv[chosen[near]].astype(np.float64))
    # Across a seam the found ones belong apart: there the middle's old face is laid on.
    plane = _affine(old[face], o.uv[face].astype(np.float64), corners.astype(np.float64))
    torn = np.abs(found - plane).max((1, 2)) > 0.25
    torn |= (o.material[chosen[near]] != o.material[face][:, None]).any(1)
    return o.material[face], shading.astype(np.float32), np.where(torn[:, None, None], plane, found).astype(np.float32)


def _scattered(corners: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points evenly over triangles (F, 3, 3): where, on which, at which weights of its corners. The middle of each comes first."""
    area = _area(corners)
    real = np.flatnonzero(area > 0)
    chosen = np.concatenate([real, rng.choice(real, count, p=area[real] / area[real].sum())])
    bary = np.concatenate([np.full((len(real), 3), 1 / 3), rng.dirichlet((1, 1, 1), count)])
    return np.einsum("sk,skd->sd", bary, corners[chosen].astype(np.float64)), chosen, bary


def _affine(triangle: np.ndarray, values: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(G, 3, 2): what the linear function through values (G, 3, 2) at a triangle's corners (G, 3, 3) is at points (G, 3, 3)."""
    edges = triangle[:, 1:] - triangle[:, :1]
    at = (points - triangle[:, :1]) @ np.linalg.pinv(edges, rcond=1e-6)
    return values[:, :1] + np.clip(at, -50, 50) @ (values[:, 1:] - values[:, :1])


def _rounded(o: Object, texels: int) -> Object:
    low, high = o.vertices[o.faces].min((0, 1)), o.vertices[o.faces].max((0, 1))
    v = (o.vertices - (low + high) / 2) / (high - low).max()
    used = np.unique(o.faces)
    place = np.zeros(len(v), np.int32)
    place[used] = np.arange(len(used))
    normals = np.rint(o.normals * 24)
    length = np.linalg.norm(normals, axis=2, keepdims=True)
    textures = tuple(None if t is None else _shrunk(t, texels) for t in o.textures)
    painted = np.array([t is not None for t in textures])[o.material]
    uv = o.uv - np.floor(o.uv.min(1, keepdims=True))  # textures wrap
    return replace(
        o,
        vertices=(np.rint(v[used] * 2**14) / 2**14).astype(np.float32),
        faces=place[o.faces],
        normals=(normals / np.maximum(length, 1)).astype(np.float32),
        uv=(np.rint(uv * 512) / 512 * painted[:, None, None]).astype(np.float32),
        textures=textures,
    )


def _shrunk(texture: np.ndarray, texels: int) -> np.ndarray:
    h, w = texture.shape[:2]
    size = min(w, texels), min(h, texels)
    return texture if size == (w, h) else np.asarray(Image.fromarray(texture).resize(size, Image.Resampling.BOX))


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objects", type=Path)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--triangles", type=int, default=TRIANGLES)
    parser.add_argument("--texels", type=int, default=TEXELS)
    parser.add_argument("--megabytes", type=float, default=MEGABYTES, help="MiB that the archive may have")
    a = parser.parse_args()
    try:
        size = small(Packed(a.objects), a.archive, triangles=a.triangles, texels=a.texels, megabytes=a.megabytes)
    except InputError as error:
        parser.exit(2, f"error: {error}\n")
    print(f"{a.archive}: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
