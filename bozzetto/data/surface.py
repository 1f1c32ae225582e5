# SPDX-License-Identifier: Apache-2.0
"""From raw triangles of any source to an `Object`: duplicates out, normals made, triangles turned outwards, box scaled to 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bozzetto.data.obj import crease_normals
from bozzetto.data.objects import Object


def from_y_up(vectors: np.ndarray) -> np.ndarray:
    """Points or normals (..., 3) of a file with y up and its front to +z (glTF, most OBJ) in our frame: z up, front +x."""
    return vectors[..., [2, 0, 1]]


def srgb(linear: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1], encoded (IEC 61966-2-1)."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055)


def linear(encoded: np.ndarray) -> np.ndarray:
    """The inverse of `srgb`."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def distinct(points: np.ndarray, faces: np.ndarray, material: np.ndarray) -> np.ndarray:
    """(F,) bool: the triangles with an area, and of those on the same three points with one material only the first.

    Back-to-back copies fight for the same pixels and count twice under transparency; two materials on one triangle stay.
    """
    same = _merged(points)[faces]
    p = points[faces].astype(np.float64)
    area = np.linalg.norm(np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]), axis=1)
    keep = area > 1e-12 * np.square(np.ptp(points, axis=0).max(initial=0))  # of the box; below it no direction is left in float32
    keep &= (same[:, 0] != same[:, 1]) & (same[:, 1] != same[:, 2]) & (same[:, 2] != same[:, 0])
    rows = np.column_stack([np.sort(same, axis=1), material]).astype(np.int64)
    candidates = np.flatnonzero(keep)
    first = _first_of_each(rows[candidates])
    keep[:] = False
    keep[candidates[first]] = True
    return keep


def finished(
    points: np.ndarray,
    faces: np.ndarray,
    material: np.ndarray,
    colours: np.ndarray,
    textures: Sequence[np.ndarray | None],
    *,
    uv: np.ndarray | None = None,
    normals: np.ndarray | None = None,
    group: np.ndarray | None = None,
    name: str,
    source: str,
    credit: str = "",
) -> Object:
    """The object of these triangles; what they do not use is left out.

    points    (N, 3) in our frame, any scale and place; faces (F, 3), material (F,), uv (F, 3, 2) with v = 0 the top row
    normals   (F, 3, 3), zero or not a number where the source has none; group (F,) smoothing groups for those, 0 flat
    raises    ValueError without triangles or for a box without extent
    """
    if not len(faces):
        raise ValueError("finished: expected at least one triangle")
    used, index = np.unique(faces, return_inverse=True)
    p = points[used].astype(np.float64)
    extent = np.ptp(p, axis=0)
    if not extent.max() > 0:
        raise ValueError("finished: all points are one")
    p = ((p - (p.min(0) + p.max(0)) / 2) / extent.max()).astype(np.float32)
    f = index.reshape(-1, 3).astype(np.int32)
    group = np.full(len(f), -1, np.int32) if group is None else group
    made = crease_normals(p, _merged(p)[f], group)
    if normals is not None:
        length = np.linalg.norm(normals, axis=2, keepdims=True)
        given = np.isfinite(length) & (length > 1e-6)
        made = np.where(given, normals / np.where(given, length, 1), made).astype(np.float32)
    uv = np.zeros((*f.shape, 2), np.float32) if uv is None else uv.astype(np.float32)

    q = p[f].astype(np.float64)
    across = np.cross(q[:, 1] - q[:, 0], q[:, 2] - q[:, 0])
    wrong = np.einsum("fi,fi->f", across, made.sum(1, dtype=np.float64)) < 0  # given normals know the outside better than winding
    across[wrong] *= -1
    if np.einsum("fi,fi->", q.mean(1), across) < 0:  # six times the volume is negative: inside out
        wrong, made = ~wrong, -made
    flip = np.where(wrong[:, None], [0, 2, 1], [0, 1, 2])
    row = np.arange(len(f))[:, None]
    kept, m = np.unique(material, return_inverse=True)
    return Object(
        vertices=p,
        faces=f[row, flip],
        normals=np.ascontiguousarray(made[row, flip]),
        material=m.reshape(-1).astype(np.int16),
        colours=np.ascontiguousarray(colours[kept], np.float32),
        uv=uv[row, flip],
        textures=tuple(textures[k] for k in kept),
        name=name,
        source=source,
        credit=credit,
    )


def _merged(points: np.ndarray) -> np.ndarray:
    """(N,) int32: the first index of the same point, so that seams of uv or normals do not cut the surface."""
    p = np.ascontiguousarray(points, np.float32) + np.float32(0)  # -0 is 0
    order = np.lexsort(p.T)
    new = np.ones(len(p), bool)
    new[1:] = (p[order[1:]] != p[order[:-1]]).any(1)
    first = np.empty(len(p), np.int32)
    first[order] = order[np.flatnonzero(new)][np.cumsum(new) - 1]
    return first


def _first_of_each(rows: np.ndarray) -> np.ndarray:
    """Indices, ascending, of rows that no earlier row equals."""
    order = np.lexsort(rows.T)
    new = np.ones(len(rows), bool)
    new[1:] = (rows[order[1:]] != rows[order[:-1]]).any(1)
    return np.sort(order[new])  # lexsort is stable: the first of each run is the earliest
