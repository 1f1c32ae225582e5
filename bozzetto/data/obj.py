# SPDX-License-Identifier: Apache-2.0
"""Wavefront OBJ and MTL: text to arrays, polygons to triangles, smoothing to normals.

Written for files as they are found, not for the format: all four index forms mixed in one file, negative indices, lines
and two-corner faces (skipped), concave polygons (ear clipping, which is the fan from corner 0 where the polygon is
convex), names with spaces. Compiled, because 331 MB of text take plain Python minutes. Not read: curves, vertex colours,
`o` and `g`, every MTL line but Ka, Kd, d and map_Kd.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bozzetto.kernels.pool import njit


@dataclass(frozen=True)
class Obj:
    """What an OBJ file says, triangulated.

    v, vt, vn   (N, 3), (T, 2), (K, 3) float64, as written (vt: v = 0 is the bottom row)
    position, texcoord, normal   (F, 3) int32 into v, vt, vn; -1 where a corner has none; position is always valid
    material    (F,) int32 into `materials`
    smoothing   (F,) int32: 0 for `s off`, the group's number, -1 where the file has said nothing yet
    materials   names in order of use; "" before any `usemtl`
    libraries   what the `mtllib` lines name
    """

    v: np.ndarray
    vt: np.ndarray
    vn: np.ndarray
    position: np.ndarray
    texcoord: np.ndarray
    normal: np.ndarray
    material: np.ndarray
    smoothing: np.ndarray
    materials: tuple[str, ...]
    libraries: tuple[str, ...]


@dataclass(frozen=True)
class Material:
    """One `newmtl`: Ka and Kd as written, alpha is `d`, map_kd a path as written, or ""."""

    ka: tuple[float, ...] = (0.0, 0.0, 0.0)
    kd: tuple[float, ...] = (0.8, 0.8, 0.8)
    alpha: float = 1.0
    map_kd: str = ""


def read_obj(data: bytes) -> Obj:
    """The content of an OBJ file. Faces whose vertices are missing or not numbers are dropped; nothing is raised."""
    if b"\\\n" in data or b"\\\r\n" in data:
        data = data.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ")
    text = np.frombuffer(data + b"\n", np.uint8)
    empty2, empty1 = np.empty((0, 3)), np.empty(0, np.int32)
    count = _scan(text, False, empty2, empty2, empty2, empty2.astype(np.int32), empty1, np.empty((0, 4), np.int64))
    v, vt, vn = np.empty((count[0], 3)), np.empty((count[1], 3)), np.empty((count[2], 3))
    corner, start, event = np.empty((count[4], 3), np.int32), np.empty(count[3] + 1, np.int32), np.empty((count[5], 4), np.int64)
    _scan(text, True, v, vt, vn, corner, start, event)
    good = np.asarray(np.isfinite(v).all(1))
    tri, face = _triangulate(start, corner, np.where(good[:, None], v, 0.0))
    position = corner[tri, 0]
    keep = np.asarray(((position >= 0) & (position < len(v))).all(1))
    keep[keep] = good[position[keep]].all(1)
    tri, face = tri[keep], face[keep]

    names: dict[str, int] = {}
    libraries: list[str] = []
    of_face, group = np.zeros(count[3], np.int32), np.full(count[3], -1, np.int32)
    names[""] = 0
    for kind, a, b, f in event.tolist():
        words = data[a:b].decode("latin-1").strip()
        if kind == 1:
            of_face[f:] = names.setdefault(words, len(names))
        elif kind == 2:
            libraries.append(words)
        else:
            group[f:] = int(words) if words.isdigit() else 0
    used, material = np.unique(of_face[face], return_inverse=True)
    spelled = list(names)
    return Obj(
        v, vt[:, :2], vn, corner[tri, 0], _within(corner[tri, 1], len(vt)), _within(corner[tri, 2], len(vn)),
        material.astype(np.int32).reshape(-1), group[face], tuple(spelled[i] for i in used), tuple(libraries),
    )  # fmt: skip


def read_mtl(data: bytes) -> dict[str, Material]:
    """The content of an MTL file, by name; of two materials with one name the first counts."""
    found: dict[str, Material] = {}
    name, fields = "", dict[str, Any]()
    for line in [*data.decode("latin-1").splitlines(), "newmtl"]:
        word, rest, *_ = [*line.split(None, 1), "", ""]
        word, rest = word.lower(), rest.strip()
        if word == "newmtl":
            found.setdefault(name, Material(**fields))
            name, fields = rest, {}
        elif word in ("ka", "kd", "d"):
            try:
                numbers = [float(x) for x in rest.split() if x != "-halo"][:3]
            except ValueError:
                continue  # "Kd spectral file.rfl" and the like
            if word == "d" and numbers:
                fields["alpha"] = numbers[0]
            elif numbers:
                fields[word] = tuple(numbers if len(numbers) == 3 else numbers[:1] * 3)
        elif word == "map_kd" and rest:
            fields["map_kd"] = rest
    del found[""]
    return found


def crease_normals(position: np.ndarray, faces: np.ndarray, group: np.ndarray, crease: float = np.pi / 3) -> np.ndarray:
    """Unit normals (F, 3, 3) float32: at each corner, faces of its smoothing group within the crease angle, by area.

    position (N, 3), equal points merged; faces (F, 3); group (F,), 0 flat. A neighbour that is wound the other way counts
    with its normal turned round: a third of found models are wound carelessly.
    """
    p = position[faces].astype(np.float64)
    big = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])
    out = np.empty((len(faces), 3, 3))
    _crease(faces.astype(np.int32), len(position), big, group.astype(np.int32), float(np.cos(crease)), out)
    return out.astype(np.float32)


def _within(index: np.ndarray, n: int) -> np.ndarray:
    return np.where(index < n, index, -1)


@njit
def _space(c):
    return c == 32 or c == 9 or c == 13


@njit
def _number(b, i, end):
    """A decimal number at or after i: value (NaN if there is none) and where it stopped."""
    while i < end and _space(b[i]):
        i += 1
    sign, mantissa, digits, exponent, seen = 1.0, np.int64(0), 0, 0, False
    if i < end and (b[i] == 45 or b[i] == 43):
        sign = -1.0 if b[i] == 45 else 1.0
        i += 1
    point = False
    while i < end and (48 <= b[i] <= 57 or (b[i] == 46 and not point)):
        if b[i] == 46:
            point = True
        else:
            seen = True
            if digits < 18:  # more do not fit into 63 bits, nor matter
                mantissa = mantissa * 10 + (b[i] - 48)
                digits += mantissa > 0
                exponent -= point
            else:
                exponent += not point
        i += 1
    if not seen:
        return np.nan, i
    if i + 1 < end and (b[i] == 101 or b[i] == 69):
        j, s, e = i + 1, 1, 0
        if b[j] == 45 or b[j] == 43:
            s = -1 if b[j] == 45 else 1
            j += 1
        while j < end and 48 <= b[j] <= 57:
            e = min(e * 10 + (b[j] - 48), 1000)
            j += 1
        exponent += s * e
        i = j
    value = float(mantissa)
    return sign * (value / 10.0**-exponent if exponent < 0 else value * 10.0**exponent), i


@njit
def _index(b, i, end, count):
    """An index at i, exactly: 0-based, relative to `count` if negative, -1 if absent; and where it stopped."""
    negative = i < end and b[i] == 45
    i += negative
    value = 0
    while i < end and 48 <= b[i] <= 57:
        value = min(value * 10 + (b[i] - 48), 2147483647)
        i += 1
    while i < end and b[i] != 47 and not _space(b[i]):  # 1.0 or rubbish: to the next slash or space
        i += 1
    if value == 0:
        return -1, i
    return (max(count - value, -1) if negative else value - 1), i


@njit
def _scan(b, fill, v, vt, vn, corner, start, event):
    """Walk over the text: count (six numbers: v, vt, vn, faces, corners, events), and with `fill` write as well."""
    n = np.zeros(6, np.int64)
    i, size = 0, len(b)
    if fill:
        start[0] = 0
    while i < size:
        end = i
        while b[end] != 10 and b[end] != 13:
            end += 1
        while i < end and _space(b[i]):
            i += 1
        word = i
        while i < end and not _space(b[i]):
            i += 1
        length = i - word
        if length == 1 and b[word] == 118:  # v
            if fill:
                for k in range(3):
                    v[n[0], k], i = _number(b, i, end)
            n[0] += 1
        elif length == 2 and b[word] == 118 and (b[word + 1] == 116 or b[word + 1] == 110):  # vt, vn
            is_vn = b[word + 1] == 110
            if fill:
                for k in range(3 if is_vn else 2):
                    x, i = _number(b, i, end)
                    if is_vn:
                        vn[n[2], k] = x
                    else:
                        vt[n[1], k] = x
            n[2 if is_vn else 1] += 1
        elif (length == 1 and b[word] == 102) or (length == 2 and b[word] == 102 and b[word + 1] == 111):  # f, fo
            first = n[4]
            while True:
                while i < end and _space(b[i]):
                    i += 1
                if i >= end or b[i] == 35:
                    break
                for k in range(3):
                    x = -1
                    if k == 0 or (i < end and b[i] == 47):
                        x, i = _index(b, i + (k > 0), end, n[k])
                    if fill and n[4] < len(corner):
                        corner[n[4], k] = x
                while i < end and not _space(b[i]):
                    i += 1
                n[4] += 1
            if n[4] - first < 3:
                n[4] = first
            else:
                n[3] += 1
                if fill:
                    start[n[3]] = n[4]
        else:
            kind = 0
            if length == 6 and b[word] == 117 and b[word + 1] == 115 and b[word + 3] == 109:  # usemtl
                kind = 1
            elif length == 6 and b[word] == 109 and b[word + 1] == 116 and b[word + 3] == 108:  # mtllib
                kind = 2
            elif length == 1 and b[word] == 115:  # s
                kind = 3
            if kind:
                if fill:
                    event[n[5], 0], event[n[5], 1], event[n[5], 2], event[n[5], 3] = kind, i, end, n[3]
                n[5] += 1
        i = end + 1
    return n


@njit
def _triangulate(start, corner, v):
    """Corner indices (F, 3) of triangles, and each one's polygon; n corners make n - 2."""
    count = len(corner) - 2 * (len(start) - 1)
    tri, face = np.empty((count, 3), np.int32), np.empty(count, np.int32)
    t = 0
    for f in range(len(start) - 1):
        s, n = start[f], start[f + 1] - start[f]
        face[t : t + n - 2] = f
        valid = n > 3
        for k in range(n):
            valid = valid and 0 <= corner[s + k, 0] < len(v)
        if not valid:
            for k in range(n - 2):
                tri[t, 0], tri[t, 1], tri[t, 2] = s, s + k + 1, s + k + 2
                t += 1
            continue
        normal = np.zeros(3)  # Newell
        for k in range(n):
            a, b = v[corner[s + k, 0]], v[corner[s + (k + 1) % n, 0]]
            normal[0] += (a[1] - b[1]) * (a[2] + b[2])
            normal[1] += (a[2] - b[2]) * (a[0] + b[0])
            normal[2] += (a[0] - b[0]) * (a[1] + b[1])
        axis = np.argmax(np.abs(normal))
        sign = 1.0 if normal[axis] >= 0 else -1.0
        flat, left = np.empty((n, 2)), np.arange(n)
        for k in range(n):
            flat[k, 0] = v[corner[s + k, 0], (axis + 1) % 3] * sign
            flat[k, 1] = v[corner[s + k, 0], (axis + 2) % 3]
        m = n
        while m > 3:
            ear = 1
            for k in range(m):
                c = (k + 1) % m
                if _is_ear(flat, left, m, c):
                    ear = c
                    break
            tri[t, 0], tri[t, 1], tri[t, 2] = s + left[(ear - 1) % m], s + left[ear], s + left[(ear + 1) % m]
            t += 1
            for k in range(ear, m - 1):
                left[k] = left[k + 1]
            m -= 1
        tri[t, 0], tri[t, 1], tri[t, 2] = s + left[0], s + left[1], s + left[2]
        t += 1
    return tri, face


@njit
def _turn(a, b, c):
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


@njit
def _is_ear(flat, left, m, c):
    p, q, r = flat[left[(c - 1) % m]], flat[left[c]], flat[left[(c + 1) % m]]
    if not _turn(p, q, r) > 0:
        return False
    for k in range(m):
        if k == c or k == (c - 1) % m or k == (c + 1) % m:
            continue
        x = flat[left[k]]
        same = (x[0] == p[0] and x[1] == p[1]) or (x[0] == q[0] and x[1] == q[1]) or (x[0] == r[0] and x[1] == r[1])
        if not same and _turn(p, q, x) >= 0 and _turn(q, r, x) >= 0 and _turn(r, p, x) >= 0:
            return False
    return True


@njit
def _crease(faces, num_vertices, big, group, cos, out):
    """big (F, 3): unit normal times twice the area."""
    start = np.zeros(num_vertices + 1, np.int64)
    for f in range(len(faces)):
        for k in range(3):
            start[faces[f, k] + 1] += 1
    for i in range(num_vertices):
        start[i + 1] += start[i]
    fill, around = start[:-1].copy(), np.empty(3 * len(faces), np.int32)
    unit = np.zeros_like(big)
    for f in range(len(faces)):
        length = np.sqrt(big[f, 0] ** 2 + big[f, 1] ** 2 + big[f, 2] ** 2)
        if length > 0:
            unit[f] = big[f] / length
        else:
            unit[f, 2] = 1.0
        for k in range(3):
            around[fill[faces[f, k]]] = f
            fill[faces[f, k]] += 1
    for f in range(len(faces)):
        for k in range(3):
            x, y, z = 0.0, 0.0, 0.0
            if group[f] != 0:
                for j in range(start[faces[f, k]], start[faces[f, k] + 1]):
                    g = around[j]
                    if group[g] == group[f]:
                        d = unit[f, 0] * unit[g, 0] + unit[f, 1] * unit[g, 1] + unit[f, 2] * unit[g, 2]
                        if abs(d) >= cos:
                            s = 1.0 if d > 0 else -1.0
                            x, y, z = x + s * big[g, 0], y + s * big[g, 1], z + s * big[g, 2]
            length = np.sqrt(x * x + y * y + z * z)
            if length > 0:
                out[f, k, 0], out[f, k, 1], out[f, k, 2] = x / length, y / length, z / length
            else:
                out[f, k] = unit[f]
