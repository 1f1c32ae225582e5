# SPDX-License-Identifier: Apache-2.0
"""Carved objects on disk: a training run that starts again reads what an earlier one carved.

A file is named by all that determines it: the object's triangles and the code that carves. So nothing is ever out of date,
any process may write it, and the oldest files can go. A file that cannot be read whole is carved again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import os
import zlib
from pathlib import Path

import numpy as np

from bozzetto import camera
from bozzetto.data import renders
from bozzetto.data.renders import GRID, Carved, Drawable, carve_object
from bozzetto.files import write_atomically
from bozzetto.kernels import carve, rasterize

INSIDE = GRID**3 // 8  # bytes of a grid, a bit a cell
EVERY = 64  # files written between two looks at how many there are


class CarvedFiles:
    """`carved(d)`: `carve_object(d)`, from its file if there is one.

    folder  made when something is first kept; where it cannot be written, objects are carved as if it were not there
    keep    files that stay; beyond them, those read longest ago go. Procedural objects never end, and come to some 60 KB each
    """

    def __init__(self, folder: str | Path, keep: int) -> None:
        self.folder, self.keep, self.written = Path(folder), keep, 0

    def __call__(self, d: Drawable) -> Carved:
        path = self.folder / f"{name(d)}.carved"
        with contextlib.suppress(OSError, ValueError, zlib.error):
            found = unpack(path.read_bytes())
            with contextlib.suppress(OSError):  # another's file
                os.utime(path)  # read just now
            return found
        made = carve_object(d)
        with contextlib.suppress(OSError):  # a full or foreign disk costs time, not the run
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, packed(made), shared=True)
            self.written += 1
            if (self.written - 1) % EVERY == 0:
                self._forget()
        return made

    def _forget(self) -> None:
        """The oldest beyond `keep` go, and what a killed process left half-written an hour ago."""
        ages: list[tuple[float, str]] = []
        for entry in os.scandir(self.folder):
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                ages.append((entry.stat().st_mtime, entry.path))
        whole = sorted(a for a in ages if a[1].endswith(".carved"))
        newest = whole[-1][0] if whole else 0.0
        torn = [a for a in ages if not a[1].endswith(".carved") and a[0] < newest - 3600]
        for _, path in whole[: max(0, len(whole) - self.keep)] + torn:
            Path(path).unlink(missing_ok=True)


def name(d: Drawable) -> str:
    """Digest of the triangles and of the code that carves them."""
    digest = hashlib.sha256(_code())
    for array in (d.vertices, d.faces):
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:40]


@functools.cache
def _code() -> bytes:
    """The source of what makes a carved object: changed code carves anew, and nobody has to think of a version."""
    numbers = f"{renders.GRID} {renders.EXTENT}"
    makers = (renders.carve_object, Carved, camera.orbit, camera.look_at, camera.Camera, carve, rasterize)
    return "\n".join([numbers, *(inspect.getsource(m) for m in makers)]).encode()


def packed(carved: Carved) -> bytes:
    """A carved object as bytes, compressed and with zlib's checksum; `unpack` is its inverse."""
    parts = (np.packbits(carved.inside), carved.face.astype("<i4"), carved.bary.astype("<f4"))
    return zlib.compress(b"".join(p.tobytes() for p in parts), 1)


def unpack(data: bytes) -> Carved:
    """raises ValueError or zlib.error unless it is whole, to the last byte"""
    raw = zlib.decompress(data)
    points, rest = divmod(len(raw) - INSIDE, 12)
    if points < 0 or rest:
        raise ValueError(f"carved: expected {INSIDE} bytes and 12 for each point, got {len(raw)}")
    inside = np.unpackbits(np.frombuffer(raw, np.uint8, INSIDE)).reshape(GRID, GRID, GRID)
    face = np.frombuffer(raw, "<i4", points, INSIDE).astype(np.int32)
    bary = np.frombuffer(raw, "<f4", 2 * points, INSIDE + 4 * points).astype(np.float32).reshape(points, 2)
    return Carved(inside, face, bary)
