# SPDX-License-Identifier: Apache-2.0
"""Slow twins of the triangle kernels: float64, loops, other formulas than the kernels', gradients by torch's autograd.

A pixel centre (X, Y) in a face means lambda >= 0 in sum(lambda_k (x_k, y_k, w_k)) = (X, Y, 1); then b = lambda / sum(lambda),
and z / w = sum(lambda_k z_k). A line through p_i, p_j is the determinant of (x, y, w) of both and (X, Y, 1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bozzetto.kernels.antialias import EDGE_ON, STEPS


def centre(c: int, r: int, w: int, h: int) -> Tensor:
    """(X, Y, 1) of a pixel centre."""
    return torch.tensor([(2 * c + 1) / w - 1, (2 * r + 1) / h - 1, 1.0], dtype=torch.float64)


def rasterize(clip: Tensor, faces: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H, W, 4) float64, all faces against all pixels."""
    h, w = size
    pixels = torch.stack([centre(c, r, w, h) for r in range(h) for c in range(w)], 1)
    out = torch.zeros(len(clip), h * w, 4, dtype=torch.float64)
    for b, p in enumerate(clip.detach().double()):
        nearest = torch.full((h * w,), math.inf, dtype=torch.float64)
        for f, face in enumerate(faces.tolist()):
            M = p[face][:, [0, 1, 3]].T
            if not 0 < torch.linalg.det(M).abs() < math.inf:
                continue
            lam = torch.linalg.solve(M, pixels)
            z = (lam * p[face][:, 2:3]).sum(0)
            wins = (lam >= 0).all(0) & (z.abs() <= 1) & (z < nearest)
            nearest[wins] = z[wins]
            out[b, wins] = torch.stack([lam[0] / lam.sum(0), lam[1] / lam.sum(0), z, torch.full_like(z, f + 1)], -1)[wins]
    return out.view(len(clip), h, w, 4)


def interpolate(attributes: Tensor, rast: Tensor, clip: Tensor, faces: Tensor, attribute_faces: Tensor | None = None) -> Tensor:
    own = faces if attribute_faces is None else attribute_faces
    b, h, w, _ = rast.shape
    rows = []
    for n in range(b):
        A = attributes if attributes.ndim == 2 else attributes[n]
        for r in range(h):
            for c in range(w):
                f = int(rast[n, r, c, 3]) - 1
                if f < 0:
                    rows.append(A.new_zeros(A.shape[1]))
                    continue
                lam = torch.linalg.solve(clip[n, faces[f]][:, [0, 1, 3]].T, centre(c, r, w, h))
                rows.append(lam @ A[own[f]] / lam.sum())
    return torch.stack(rows).view(b, h, w, -1)


def neighbours(faces: Tensor) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """The (face, corner) that lie opposite each edge, by its two vertices in order; faces that hold a vertex twice left out."""
    beside: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for f, face in enumerate(faces.tolist()):
        if len(set(face)) == 3:
            for k in range(3):
                i, j = sorted((face[(k + 1) % 3], face[(k + 2) % 3]))
                beside.setdefault((i, j), []).append((f, k))
    return beside


def antialias(colour: Tensor, rast: Tensor, clip: Tensor, faces: Tensor) -> Tensor:
    """Pair by pair; `rast` of either twin or kernel."""
    _, h, w, _ = colour.shape
    beside = neighbours(faces)
    out = colour.clone()
    for n, p in enumerate(clip[..., [0, 1, 3]]):
        for r in range(h):
            for c in range(w):
                for r2, c2 in ((r, c + 1), (r + 1, c)):
                    if r2 >= h or c2 >= w or rast[n, r, c, 3] == rast[n, r2, c2, 3]:
                        continue
                    end = silhouette(rast[n], p, faces, beside, (r, c), (r2, c2))
                    if end is None:
                        continue
                    first, second = centre(c, r, w, h), centre(c2, r2, w, h)
                    e1, e2 = line(p, *end, first), line(p, *end, second)
                    m = 0.5 - (e1 / (e1 - e2)).clamp(0, 1)
                    step = colour[n, r2, c2] - colour[n, r, c]
                    out[n, r, c] += m.clamp(min=0) * step
                    out[n, r2, c2] += m.clamp(max=0) * step  # towards the first: -m times minus the step
    return out


def line(p: Tensor, i: int, j: int, at: Tensor) -> Tensor:
    return torch.linalg.det(torch.stack([p[i], p[j], at]))


def area(p: Tensor, face: list[int], h: int, w: int) -> tuple[float, bool]:
    """Twice the signed area, times all w; and whether the face has a width, from its longest edge to the corner opposite."""
    M = p[face].detach()
    det = float(torch.linalg.det(M))
    longest = 0.0
    for k in range(3):
        normal = torch.linalg.cross(M[(k + 1) % 3], M[(k + 2) % 3])
        longest = max(longest, float(normal[:2].abs().sum() * M[k, 2].abs()))
    return det, abs(det) > EDGE_ON * longest


def silhouette(rast: Tensor, p: Tensor, faces: Tensor, beside: dict, a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int] | None:
    """Walk over the mesh from the nearer pixel to the other; the edge where the surface ends, if it does and is steep enough."""
    h, w, _ = rast.shape
    id_a, id_b = int(rast[a][3]) - 1, int(rast[b][3]) - 1
    a_is_near = id_b < 0 or (id_a >= 0 and rast[a][2] <= rast[b][2])
    f, goal = (id_a, id_b) if a_is_near else (id_b, id_a)
    inside, outside = (centre(*x[::-1], w, h) for x in ((a, b) if a_is_near else (b, a)))
    entry, p = None, p.detach()
    for step in range(STEPS):
        face = faces[f].tolist()
        det, _ = area(p, face, h, w)
        s = 1 if det > 0 else -1
        crossed = []
        for k in range(3):
            i, j = face[(k + 1) % 3], face[(k + 2) % 3]
            e_in, e_out = s * float(line(p, i, j, inside)), s * float(line(p, i, j, outside))
            if k != entry and e_out < 0 and (e_in >= 0 or step == 0):
                crossed.append((max(e_in, 0) / (max(e_in, 0) - e_out), k, i, j))
            other = across(beside, f, k, i, j)  # an edge that leads to the goal ends nothing, wherever it is crossed
            if step == 0 and other and other[0] == goal and not is_end(p, faces, f, other, i, j, h, w):
                return None
        if not crossed:
            return None
        _, k, i, j = min(crossed)
        other = across(beside, f, k, i, j)
        if other is None or is_end(p, faces, f, other, i, j, h, w):
            normal = torch.linalg.cross(p[i], p[j])[:2].abs() / torch.tensor([w, h])
            return (i, j) if (normal[0] >= normal[1]) == (a[0] == b[0]) else None
        f, entry = other
        if f == goal:
            return None
    return None


def across(beside: dict, f: int, k: int, i: int, j: int) -> tuple[int, int] | None:
    around = beside.get((min(i, j), max(i, j)), [])
    if (f, k) not in around or len(around) == 1:
        return None
    return around[(around.index((f, k)) + 1) % len(around)]


def is_end(p: Tensor, faces: Tensor, f: int, other: tuple[int, int], i: int, j: int, h: int, w: int) -> bool:
    """Both faces on one side of the edge, or the other one without width."""
    _, has_width = area(p, faces[other[0]].tolist(), h, w)
    mine = next(v for v in faces[f].tolist() if v not in (i, j))
    return not has_width or float(line(p, i, j, p[mine]) * line(p, i, j, p[faces[other[0], other[1]]])) > 0


def texture(image: Tensor, uv: Tensor, mode: str = "wrap") -> Tensor:
    """Pixel by pixel."""
    b, h, w, _ = uv.shape
    pixels = [bilinear(image[min(n, len(image) - 1)], uv[n, r, c], mode) for n in range(b) for r in range(h) for c in range(w)]
    return torch.stack(pixels).view(b, h, w, -1)


def bilinear(image: Tensor, uv: Tensor, mode: str) -> Tensor:
    if not bool(torch.isfinite(uv).all()):
        return image.new_zeros(image.shape[2])
    H, W, _ = image.shape
    x, y = uv[0] * W - 0.5, uv[1] * H - 0.5
    total = image.new_zeros(image.shape[2])
    i0, j0 = math.floor(float(x.detach())), math.floor(float(y.detach()))
    for j in (j0, j0 + 1):
        for i in (i0, i0 + 1):
            at = (j % H, i % W) if mode == "wrap" else (min(max(j, 0), H - 1), min(max(i, 0), W - 1))
            total = total + (1 - (x - i).abs()) * (1 - (y - j).abs()) * image[at]
    return total
