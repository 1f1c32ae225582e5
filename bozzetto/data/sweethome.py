# SPDX-License-Identifier: Apache-2.0
"""Sweet Home 3D's furniture libraries as objects to learn from.

`python -m bozzetto.data.sweethome LIBRARY_FOLDER OUT_FOLDER` packs every usable model of the `.sh3f` files in a folder.
The files' frame is y up, front +z; ours is (x, y, z)_ours = (z, x, y)_file. Their units mean nothing: the box is stretched
to the catalogue's width, height and depth, axis by axis. Kd is a display value, or linear where Ka says so (see `_colour`);
beside a texture it is ignored.
"""

from __future__ import annotations

import io
import sys
import time
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from bozzetto.data import split
from bozzetto.data.catalogue import Entry, entries, libraries
from bozzetto.data.obj import Material, Obj, read_mtl, read_obj
from bozzetto.data.objects import Object, pack
from bozzetto.data.surface import distinct, finished, from_y_up, srgb
from bozzetto.errors import InputError

__all__ = ["Entry", "Facts", "entries", "load", "load_all", "load_with_facts", "usable", "weight"]

GREY = (0.5, 0.5, 0.5)
MISSING = Material()  # grey 0.8, for a material that no file defines


@dataclass(frozen=True)
class Facts:
    """What `usable` must know and an `Object` does not say, as found in the file: shares of its triangles, 0 to 1."""

    transparent: float
    cards: float
    triangles: int


def load(library: str | Path | zipfile.ZipFile, entry: Entry, *, texture_size: int = 256) -> Object:
    """One model; texture_size: longest side that its textures are reduced to. Raises InputError for a file without faces."""
    return load_with_facts(library, entry, texture_size=texture_size)[0]


def load_with_facts(library: str | Path | zipfile.ZipFile, entry: Entry, *, texture_size: int = 256) -> tuple[Object, Facts]:
    """The same, with what was found on the way."""
    if not isinstance(library, zipfile.ZipFile):
        with zipfile.ZipFile(library) as archive:
            return load_with_facts(archive, entry, texture_size=texture_size)
    folder = _Folder(library, entry.model)
    try:
        obj = read_obj(library.read(entry.model))
    except KeyError as error:
        raise InputError(f"{library.filename}: {entry.model} is missing; get the library again") from error
    defined: dict[str, Material] = {}
    for name in obj.libraries:
        defined = read_mtl(folder.read(name) or b"") | defined
    materials = [defined.get(name, MISSING) for name in obj.materials]
    images = [_picture(folder, m, texture_size) for m in materials]
    uv, material = _uv(obj, images)
    materials, images = materials * 2, images + [None] * len(images)  # the second half: textured, but a face has no uv

    points = _placed(obj.v, obj.position, entry)
    keep = distinct(points, obj.position, material) if len(obj.position) else np.zeros(0, bool)
    if not keep.any():
        raise InputError(f"{entry.source}: {entry.model} holds no triangle; leave it out")
    alpha = np.array([m.alpha for m in materials])[material]
    is_card = np.array([i is not None and i.shape[2] == 4 for i in images])[material]
    facts = Facts(float((alpha[keep] < 1).mean()), float(is_card[keep].mean()), int(keep.sum()))
    solid = keep & (alpha >= 0.3)  # a pane is dropped, a lampshade becomes opaque
    for m, image in enumerate(images):
        if image is not None and image.shape[2] == 4:
            mine = np.flatnonzero(solid & (material == m))
            solid[mine] = _covered(image, uv[mine])
    if solid.any():
        keep = solid
    o = finished(
        points,
        obj.position[keep],
        material[keep],
        np.array([_colour(m, i) for m, i in zip(materials, images, strict=True)], np.float32),
        [None if i is None else np.ascontiguousarray(i[..., :3]) for i in images],
        uv=uv[keep],
        normals=_normals(obj, entry)[keep] if len(obj.vn) else None,
        group=obj.smoothing[keep],
        name=entry.name,
        source=entry.source,
        credit=entry.credit,
    )
    return o, facts


def usable(entry: Entry, o: Object, facts: Facts) -> bool:
    """Whether a model teaches something in 3D: not a sheet, not of glass, not of leaf cards, not a banknote.

    This keeps 738 of the 820 models of furniture 1.8.
    """
    return _slimness(entry) > 0.05 and facts.transparent < 0.3 and facts.triangles >= 50 and facts.cards < 0.5 and o.name != "banknote"


def weight(entry: Entry) -> float:
    """How often to draw it: 1; slim things (5 to 10 %: doors, windows, screens) half; the 32 plugs as often as 4 things together."""
    slim = 0.5 if _slimness(entry) < 0.1 else 1.0
    return min(slim, 4 / 32) if split.key(entry.family, entry.stem).endswith(":plug") else slim


def load_all(paths: list[Path], *, texture_size: int = 256) -> Iterator[tuple[Entry, Object]]:
    """Every usable model of these libraries, one at a time; what cannot be read is named in a warning and left out."""
    for path in paths:
        with zipfile.ZipFile(path) as archive:
            for entry in entries(path):
                try:
                    o, facts = load_with_facts(archive, entry, texture_size=texture_size)
                except (InputError, ValueError) as error:
                    warnings.warn(f"{entry.source}: skipped ({error})", stacklevel=2)
                    continue
                if usable(entry, o, facts):
                    yield entry, o


def _slimness(entry: Entry) -> float:
    return min(entry.size) / max(entry.size)


class _Folder:
    """The folder of a model inside the zip; names are found whatever their case, slashes or lost folders."""

    def __init__(self, archive: zipfile.ZipFile, model: str) -> None:
        self.archive = archive
        prefix = model.rpartition("/")[0]
        self.names = {n[len(prefix) :].lstrip("/").lower(): n for n in archive.namelist() if n.startswith(prefix)}

    def read(self, name: str) -> bytes | None:
        path = name.strip().strip('"').replace("\\", "/").lower()
        while path.startswith("./"):
            path = path[2:]
        for candidate in (path, PurePosixPath(path).name, PurePosixPath(path.split(" ")[-1]).name):  # the last: options come first
            if found := self.names.get(candidate):
                return self.archive.read(found)
        return None


def _picture(folder: _Folder, material: Material, texture_size: int) -> np.ndarray | None:
    """(h, w, 3) or, if its alpha is ever below 0.5, (h, w, 4) uint8; None if the material has no readable texture."""
    if not material.map_kd or (data := folder.read(material.map_kd)) is None:
        return None
    try:
        with Image.open(io.BytesIO(data)) as opened:
            image = opened.convert("RGBA")
    except (OSError, ValueError):
        return None
    if max(image.size) > texture_size:
        s = texture_size / max(image.size)
        image = image.resize((max(1, round(image.width * s)), max(1, round(image.height * s))), Image.Resampling.LANCZOS)
    pixels = np.asarray(image)
    opaque = pixels[..., 3] >= 128
    if opaque.all() or not opaque.any():
        return np.ascontiguousarray(pixels[..., :3])
    filled = pixels.copy()
    filled[~opaque, :3] = pixels[opaque, :3].mean(0).round()  # what shows round a leaf is leaf-coloured, not the hidden black
    return filled


def _colour(material: Material, image: np.ndarray | None) -> tuple[float, ...]:
    """A texture's mean; else Kd, or grey where a lost texture has left Kd black.

    Ka = 1 is the mark of Blender's newer exporter, whose Kd is linear (the older one's, with Ka = 0, is what the screen shows).
    Measured against 25 icons: median error 0.05 in sRGB with the conversion, 0.23 without; 97 icons with Ka = 0 say the opposite.
    """
    if image is not None:
        return tuple(image[..., :3].reshape(-1, 3).mean(0) / 255)
    kd = np.clip(material.kd, 0, 1)
    if material.map_kd and kd.max() == 0:
        return GREY
    return tuple(srgb(kd) if min(material.ka) >= 0.95 else kd)


def _uv(obj: Obj, images: list[np.ndarray | None]) -> tuple[np.ndarray, np.ndarray]:
    """Texture coordinates (F, 3, 2) with v = 0 at the top, and materials, moved to the second half where uv are lacking."""
    uv = np.zeros((*obj.position.shape, 2), np.float32)
    has_uv = (obj.texcoord >= 0).all(1)
    if len(obj.vt):
        uv[has_uv] = np.nan_to_num(obj.vt[obj.texcoord[has_uv]] * [1, -1] + [0, 1], posinf=0, neginf=0)
    textured = np.array([i is not None for i in images], bool)[obj.material]
    uv[~textured] = 0
    return uv, obj.material + len(images) * (textured & ~has_uv)


def _covered(image: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """(F,) bool: triangles at least half of which pass the alpha test, by 28 samples each."""
    n = 6
    i, j = np.array([(i, j) for i in range(n + 1) for j in range(n + 1 - i)]).T
    b = (np.column_stack([i, j, n - i - j]) + 1 / 3) / (n + 1)
    h, w = image.shape[:2]
    p = np.einsum("sk,fkc->fsc", b, uv.astype(np.float64)) % 1
    x, y = (p[..., 0] * w).astype(int).clip(0, w - 1), (p[..., 1] * h).astype(int).clip(0, h - 1)
    return (image[y, x, 3] >= 128).mean(1) >= 0.5


def _matrix(entry: Entry) -> np.ndarray:
    return np.eye(3) if entry.rotation is None else np.array(entry.rotation).reshape(3, 3)


def _scale(v: np.ndarray, position: np.ndarray, entry: Entry) -> np.ndarray:
    """Per axis of the file: what stretches the box of the rotated faces to the catalogue's size."""
    p = v[np.unique(position)] @ _matrix(entry).T
    extent = np.ptp(p, axis=0)
    return np.where(extent > 0, np.array(entry.size) / np.where(extent > 0, extent, 1), 1.0)


def _placed(v: np.ndarray, position: np.ndarray, entry: Entry) -> np.ndarray:
    """(N, 3) float64 in our frame, in centimetres."""
    if not len(position):
        return v
    return from_y_up(np.nan_to_num(v @ _matrix(entry).T) * _scale(v, position, entry))


def _normals(obj: Obj, entry: Entry) -> np.ndarray:
    """(F, 3, 3) in our frame, zero where the file has none; stretched inversely to the points."""
    n = from_y_up(obj.vn @ _matrix(entry).T / _scale(obj.v, obj.position, entry))
    return np.where(obj.normal[..., None] >= 0, n[obj.normal], 0.0)


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("usage: python -m bozzetto.data.sweethome LIBRARY_FOLDER OUT_FOLDER", file=sys.stderr)
        return 2
    start = time.perf_counter()
    try:
        paths = libraries(arguments[0])
        catalogue = {e.source: e for path in paths for e in entries(path)}
        packed = pack(
            (o for _, o in load_all(paths)),
            arguments[1],
            side=lambda o: catalogue[o.source].side,
            weight=lambda o: weight(catalogue[o.source]),
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    counts = ", ".join(f"{len(packed.indices(s))} {s}" for s in split.SIDES)
    print(f"{len(packed)} of {len(catalogue)} models usable: {counts}; {time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
