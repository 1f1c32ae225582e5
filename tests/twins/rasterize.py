# SPDX-License-Identifier: Apache-2.0
"""Slow twins of the triangle kernels: float64, loops, other formulas than the kernels', gradients by torch's autograd.

A pixel centre (X, Y) in a face means lambda >= 0 in sum(lambda_k (x_k, y_k, w_k)) = (X, Y, 1); then b = lambda / sum(lambda),
and z / w = sum(lambda_k z_k). A line through p_i, p_j is the determinant of (x, y, w) of both and (X, Y, 1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bozzetto.camera import orbit
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
    entry = None
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


def texture(image: Tensor, uv: Tensor, level: Tensor | None = None, mode: str = "wrap") -> Tensor:
    """Pixel by pixel. `level` (B, h, w) blends the pictures of a list of halves, given in place of the image."""
    b, h, w, _ = uv.shape
    pixels = []
    for n in range(b):
        for r in range(h):
            for c in range(w):
                if level is None:
                    pixels.append(bilinear(image[min(n, len(image) - 1)], uv[n, r, c], mode))
                else:
                    low = int(level[n, r, c])
                    high, t = min(low + 1, len(image) - 1), float(level[n, r, c]) - low
                    both = [bilinear(image[k][min(n, len(image[k]) - 1)], uv[n, r, c], mode) for k in (low, high)]
                    pixels.append((1 - t) * both[0] + t * both[1])
    return torch.stack(pixels).view(b, h, w, -1)


def bilinear(image: Tensor, uv: Tensor, mode: str) -> Tensor:
    if not bool(torch.isfinite(uv).all()):
        return image.new_zeros(image.shape[2])
    H, W, _ = image.shape
    x, y = uv[0] * W - 0.5, uv[1] * H - 0.5
    total = image.new_zeros(image.shape[2])
    for j in (math.floor(float(y)), math.floor(float(y)) + 1):
        for i in (math.floor(float(x)), math.floor(float(x)) + 1):
            at = (j % H, i % W) if mode == "wrap" else (min(max(j, 0), H - 1), min(max(i, 0), W - 1))
            total = total + (1 - (x - i).abs()) * (1 - (y - j).abs()) * image[at]
    return total


# ---- scenes ----


def ball(level: int) -> tuple[Tensor, Tensor]:
    """A unit octahedron, its faces split in four `level` times, on the sphere; counter-clockwise seen from outside."""
    v = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=torch.float64)
    f = torch.tensor([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])
    for _ in range(level):
        pairs = torch.stack([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]], 1).sort(-1).values
        unique, index = torch.unique(pairs.reshape(-1, 2), dim=0, return_inverse=True)
        mid = v[unique].mean(1)
        m = index.view(-1, 3) + len(v)
        v = torch.cat([v, mid / mid.norm(dim=-1, keepdim=True)])
        corner = [torch.stack([f[:, k], m[:, k], m[:, k - 1]], -1) for k in range(3)]
        f = torch.cat([*corner, m])
    return v, f


def scenes() -> dict[str, tuple[Tensor, Tensor, tuple[int, int]]]:
    """Clip-space vertices (B, N, 4) float64, faces and sizes: what breaks rasterisers."""
    g = torch.Generator().manual_seed(0)

    def points(b: int, n: int) -> Tensor:
        p = torch.randn(b, n, 4, generator=g, dtype=torch.float64)
        p[..., 2] *= 0.4
        p[..., 3] = 1 + torch.rand(b, n, generator=g, dtype=torch.float64)
        return p

    soup, tri = points(2, 12), torch.stack([torch.randperm(12, generator=g)[:3] for _ in range(8)])
    crossing = points(2, 12)
    crossing[:, ::2, 3] *= -0.5
    broken = points(1, 12)
    broken[0, 0, 0], broken[0, 1, 3], broken[0, 2, 1], broken[0, 3] = math.nan, math.nan, math.inf, 0
    flat = points(1, 6)
    flat[0, 2] = 0.5 * flat[0, 0] + 0.5 * flat[0, 1]  # a face without area
    v, f = ball(1)
    near = orbit([0.3, 2.0], [0.4, -1.1], 1.9, fov=0.9, size=(17, 23)).clip(v * 0.7)
    inside_out = torch.where(torch.rand(len(f), 1, generator=g) < 0.5, f, f.flip(1))
    torus_like = torch.cat([f[:20], f[10:26] + len(v)])  # open, in two pieces
    return {
        "soup": (soup, tri, (9, 7)),
        "one pixel": (soup * torch.tensor([0.3, 0.3, 1, 1], dtype=torch.float64), tri, (1, 1)),
        "one row": (soup, tri, (1, 19)),
        "no faces": (soup, tri[:0], (5, 4)),
        "all behind": (soup * torch.tensor([1, 1, 1, -1], dtype=torch.float64), tri, (6, 5)),
        "across the eye plane": (crossing, tri, (13, 11)),
        "no numbers": (broken, tri, (8, 9)),
        "degenerate": (flat, torch.tensor([[0, 1, 2], [3, 3, 4], [0, 4, 5], [4, 0, 3], [1, 1, 1]]), (11, 6)),
        "ball": (near, f, (17, 23)),
        "wound at random": (near, inside_out, (17, 23)),
        "open pieces": (torch.cat([near, near * torch.tensor([1, 1, 0.9, 1], dtype=torch.float64) + 0.1], 1), torus_like, (16, 21)),
        "three at an edge": (points(1, 5), torch.tensor([[0, 1, 2], [1, 0, 3], [0, 1, 4]]), (15, 15)),
    }
