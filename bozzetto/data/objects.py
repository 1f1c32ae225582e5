# SPDX-License-Identifier: Apache-2.0
"""`Object`: one thing to learn from, as numpy arrays: triangles, materials, tiling textures, and where it came from.

`pack` keeps many of them in a folder (a safetensors file each and an index); `Packed` reads them back one at a time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from bozzetto.errors import InputError
from bozzetto.files import write_atomically

INDEX, FORMAT = "index.json", 1


@dataclass(frozen=True)
class Object:
    """World frame: z up, front +x, bounding box centred at the origin, longest side 1.

    vertices    (N, 3) float32
    faces       (F, 3) int32, counter-clockwise from outside where the source can tell; rendered from both sides
    normals     (F, 3, 3) float32, a unit normal for each corner (creases stay sharp)
    material    (F,) int16, below M
    colours     (M, 3) float32, sRGB in [0, 1]: the base colour where a material has no texture
    uv          (F, 3, 2) float32, v = 0 at the texture's top row, wraps outside [0, 1); zeros without textures
    textures    M entries: uint8 (h, w, 3) sRGB, or None
    name        what it is, in English, lower case ("rocking chair")
    source      where it is from: "Scopia/armchair2", "procedural/mug/17", "folder/path.glb"
    credit      what its licence asks to be said, or ""
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    material: np.ndarray
    colours: np.ndarray
    uv: np.ndarray
    textures: tuple[np.ndarray | None, ...]
    name: str
    source: str
    credit: str = ""


class Packed:
    """Objects that `pack` wrote, read one at a time (a millisecond each); nothing but the index is held in memory.

    rows      the index: a dict for each object with name, source, side, weight, credit, triangles, file
    raises    InputError for a folder without an index
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            index = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{folder}: no readable {INDEX} ({error}); pack objects into it first") from error
        if index.get("format") != FORMAT:
            raise InputError(f"{folder}: written in format {index.get('format')}, this version reads {FORMAT}; pack the objects again")
        self.rows: list[dict[str, Any]] = index["objects"]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Object:
        row = self.rows[i]
        arrays = load_file(self.folder / row["file"])
        textures = tuple(arrays.get(f"texture{m}") for m in range(len(arrays["colours"])))
        fixed = {k: arrays[k] for k in ("vertices", "faces", "normals", "material", "colours", "uv")}
        return Object(**fixed, textures=textures, name=row["name"], source=row["source"], credit=row["credit"])

    def __iter__(self) -> Iterator[Object]:
        return (self[i] for i in range(len(self)))

    def indices(self, side: str) -> list[int]:
        """Which objects are on a side of the split, in order."""
        return [i for i, row in enumerate(self.rows) if row["side"] == side]

    def weights(self, indices: Sequence[int]) -> np.ndarray:
        """(len(indices),) float64: how often each should be drawn, relative to 1."""
        return np.array([self.rows[i]["weight"] for i in indices], np.float64)


def pack(
    objects: Iterable[Object],
    folder: str | Path,
    *,
    side: Callable[[Object], str] = lambda _: "train",
    weight: Callable[[Object], float] = lambda _: 1.0,
) -> Packed:
    """Write objects into a folder, one safetensors file each, and an index.json last; an existing index is replaced.

    side, weight   asked once for each object, right after it was made
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    names: set[str] = set()
    for o in objects:
        file = re.sub(r"[^A-Za-z0-9.-]+", "_", o.source)[-120:] + ".safetensors"
        while file in names:  # two sources that differ in odd characters alone
            file = "x" + file
        names.add(file)
        arrays = {k: np.ascontiguousarray(getattr(o, k)) for k in ("vertices", "faces", "normals", "material", "colours", "uv")}
        arrays |= {f"texture{m}": np.ascontiguousarray(t) for m, t in enumerate(o.textures) if t is not None}
        write_atomically(folder / file, save(arrays), shared=True)
        rows.append(
            {
                "name": o.name,
                "source": o.source,
                "side": side(o),
                "weight": weight(o),
                "credit": o.credit,
                "triangles": len(o.faces),
                "file": file,
            }
        )
    text = json.dumps({"format": FORMAT, "objects": rows}, ensure_ascii=False, indent=1)
    write_atomically(folder / INDEX, text.encode(), shared=True)
    return Packed(folder)
