# SPDX-License-Identifier: Apache-2.0
"""Signed distance to triangles that need not be closed: distance to the nearest, sign by the generalised winding number.

Jacobson et al. 2013, Robust Inside-Outside Segmentation using Generalized Winding Numbers; far groups of triangles act as one
dipole (Barill et al. 2018, Fast Winding Numbers for Soups and Clouds, first order). No gradients.

Letters: P points q, F triangles in the order of a space-filling curve; a complete binary tree with L leaves, node k with children
2k and 2k + 1, leaf j at L + j; each node has a box, the sum N of its area vectors and their centre c.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bozzetto.kernels import pool
from bozzetto.kernels.pool import njit

LEAF = 4  # triangles in a leaf, about
FAR = 2.0  # a node is a dipole for points farther from its centre than so many radii: error of the winding number < 3e-2


def signed_distance(points: Tensor, vertices: Tensor, faces: Tensor) -> Tensor:
    """Distance (P,) float64 to the nearest triangle, negative where the winding number exceeds 1/2.

    points (P, 3), vertices (N, 3), faces (F, 3) counter-clockwise from outside, F at least 1
    """
    distance = unsigned_distance(points, vertices, faces)
    return torch.where(winding_number(points, vertices, faces) > 0.5, -distance, distance)


def unsigned_distance(points: Tensor, vertices: Tensor, faces: Tensor) -> Tensor:
    """Distance (P,) float64 to the nearest point of any triangle; exact."""
    q, tree = np.ascontiguousarray(points.detach().cpu().double().numpy()), _Tree(vertices, faces)
    out = np.empty(len(q))
    pool.run(_distance, len(q), q, tree.corners, tree.box, out, grain=512)
    return torch.from_numpy(out).to(points.device)


def winding_number(points: Tensor, vertices: Tensor, faces: Tensor) -> Tensor:
    """How often (P,) float64 the surface turns round each point: 1 inside a closed mesh, 0 outside, between them near holes."""
    q, tree = np.ascontiguousarray(points.detach().cpu().double().numpy()), _Tree(vertices, faces)
    number = np.empty(len(q))
    pool.run(_winding, len(q), q, tree.corners, tree.box, tree.dipole, number, grain=512)
    return torch.from_numpy(number).to(points.device)


class _Tree:
    """Sorted corners (F, 3, 3), boxes (2L, 2, 3), dipoles (2L, 6): area vector and centre."""

    def __init__(self, vertices: Tensor, faces: Tensor) -> None:
        if faces.ndim != 2 or faces.shape[1] != 3 or not len(faces):
            raise ValueError(f"winding: expected faces (F, 3), at least one, got {tuple(faces.shape)}")
        corners = vertices.detach().cpu().double().numpy()[faces.cpu().numpy()]
        centre = corners.mean(1)
        low = centre.min(0)
        grid = ((centre - low) / max(float((centre.max(0) - low).max()), 1e-300) * 1023).astype(np.int64)
        code = np.zeros(len(centre), np.int64)
        for bit in range(10):
            for axis in range(3):
                code |= (grid[:, axis] >> bit & 1) << (3 * bit + axis)
        self.corners = np.ascontiguousarray(corners[np.argsort(code, kind="stable")])
        leaves = 1 << max(int(np.ceil(np.log2(len(centre) / LEAF))), 0)
        self.box, self.dipole = np.empty((2 * leaves, 2, 3)), np.zeros((2 * leaves, 6))
        _aggregate(self.corners, self.box, self.dipole)


@njit
def _aggregate(corners, box, dipole):
    leaves, n = len(box) // 2, len(corners)
    area = np.zeros(2 * leaves)
    for k in range(2 * leaves - 1, 0, -1):
        box[k, 0], box[k, 1] = np.inf, -np.inf
        if k >= leaves:
            for f in range(n * (k - leaves) // leaves, n * (k - leaves + 1) // leaves):
                c = corners[f]
                normal = 0.5 * _cross(c[1] - c[0], c[2] - c[0])
                size = np.sqrt(np.dot(normal, normal))
                area[k] += size
                for x in range(3):
                    dipole[k, x] += normal[x]
                    dipole[k, 3 + x] += size * (c[0, x] + c[1, x] + c[2, x]) / 3
                    for i in range(3):
                        box[k, 0, x] = min(box[k, 0, x], c[i, x])
                        box[k, 1, x] = max(box[k, 1, x], c[i, x])
        else:
            area[k] = area[2 * k] + area[2 * k + 1]
            for x in range(3):
                box[k, 0, x] = min(box[2 * k, 0, x], box[2 * k + 1, 0, x])
                box[k, 1, x] = max(box[2 * k, 1, x], box[2 * k + 1, 1, x])
            dipole[k] = dipole[2 * k] + dipole[2 * k + 1]
    for k in range(1, 2 * leaves):
        for x in range(3):
            dipole[k, 3 + x] = dipole[k, 3 + x] / area[k] if area[k] > 0 else 0.5 * (box[k, 0, x] + box[k, 1, x])


@njit
def _cross(a, b):
    return np.array((a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]))


@njit
def _winding(lo, hi, points, corners, box, dipole, out):
    leaves, n = len(box) // 2, len(corners)
    stack = np.empty(64, np.int64)
    for p in range(lo, hi):
        x, y, z = points[p, 0], points[p, 1], points[p, 2]
        total, depth = 0.0, 1
        stack[0] = 1
        while depth:
            depth -= 1
            k = stack[depth]
            cx, cy, cz = dipole[k, 3], dipole[k, 4], dipole[k, 5]
            dx, dy, dz = cx - x, cy - y, cz - z
            d2 = dx * dx + dy * dy + dz * dz
            rx = max(box[k, 1, 0] - cx, cx - box[k, 0, 0])
            ry = max(box[k, 1, 1] - cy, cy - box[k, 0, 1])
            rz = max(box[k, 1, 2] - cz, cz - box[k, 0, 2])
            if d2 > FAR * FAR * (rx * rx + ry * ry + rz * rz):
                total += (dipole[k, 0] * dx + dipole[k, 1] * dy + dipole[k, 2] * dz) / (d2 * np.sqrt(d2))
            elif k < leaves:
                stack[depth], stack[depth + 1] = 2 * k, 2 * k + 1
                depth += 2
            else:
                for f in range(n * (k - leaves) // leaves, n * (k - leaves + 1) // leaves):
                    ax, ay, az = corners[f, 0, 0] - x, corners[f, 0, 1] - y, corners[f, 0, 2] - z
                    bx, by, bz = corners[f, 1, 0] - x, corners[f, 1, 1] - y, corners[f, 1, 2] - z
                    ex, ey, ez = corners[f, 2, 0] - x, corners[f, 2, 1] - y, corners[f, 2, 2] - z
                    la, lb, le = (
                        np.sqrt(ax * ax + ay * ay + az * az),
                        np.sqrt(bx * bx + by * by + bz * bz),
                        np.sqrt(ex * ex + ey * ey + ez * ez),
                    )
                    det = ax * (by * ez - bz * ey) + ay * (bz * ex - bx * ez) + az * (bx * ey - by * ex)
                    ab, be, ea = ax * bx + ay * by + az * bz, bx * ex + by * ey + bz * ez, ex * ax + ey * ay + ez * az
                    total += 2 * np.arctan2(det, la * lb * le + ab * le + be * la + ea * lb)
        out[p] = total / (4 * np.pi)


@njit
def _distance(lo, hi, points, corners, box, out):
    leaves, n = len(box) // 2, len(corners)
    stack, bound = np.empty(64, np.int64), np.empty(64)
    for p in range(lo, hi):
        q = points[p]
        best, depth = np.inf, 1
        stack[0], bound[0] = 1, 0.0
        while depth:
            depth -= 1
            k = stack[depth]
            if bound[depth] >= best:
                continue
            if k >= leaves:
                for f in range(n * (k - leaves) // leaves, n * (k - leaves + 1) // leaves):
                    best = min(best, _triangle(q, corners[f]))
                continue
            a, b = _to_box(q, box[2 * k]), _to_box(q, box[2 * k + 1])
            near = 2 * k if a <= b else 2 * k + 1
            stack[depth], bound[depth] = 4 * k + 1 - near, max(a, b)  # the farther child waits
            stack[depth + 1], bound[depth + 1] = near, min(a, b)
            depth += 2
        out[p] = np.sqrt(best)


@njit
def _to_box(q, box):
    total = 0.0
    for x in range(3):
        d = max(max(box[0, x] - q[x], q[x] - box[1, x]), 0.0)
        total += d * d
    return total


@njit
def _triangle(q, c):
    """Squared distance to a triangle: to its plane if q projects into it, else to the nearest edge."""
    e0x, e0y, e0z = c[1, 0] - c[0, 0], c[1, 1] - c[0, 1], c[1, 2] - c[0, 2]
    e1x, e1y, e1z = c[2, 0] - c[1, 0], c[2, 1] - c[1, 1], c[2, 2] - c[1, 2]
    e2x, e2y, e2z = c[0, 0] - c[2, 0], c[0, 1] - c[2, 1], c[0, 2] - c[2, 2]
    d0x, d0y, d0z = q[0] - c[0, 0], q[1] - c[0, 1], q[2] - c[0, 2]
    d1x, d1y, d1z = q[0] - c[1, 0], q[1] - c[1, 1], q[2] - c[1, 2]
    d2x, d2y, d2z = q[0] - c[2, 0], q[1] - c[2, 1], q[2] - c[2, 2]
    nx, ny, nz = e2y * e0z - e2z * e0y, e2z * e0x - e2x * e0z, e2x * e0y - e2y * e0x
    s0 = (ny * e0z - nz * e0y) * d0x + (nz * e0x - nx * e0z) * d0y + (nx * e0y - ny * e0x) * d0z
    s1 = (ny * e1z - nz * e1y) * d1x + (nz * e1x - nx * e1z) * d1y + (nx * e1y - ny * e1x) * d1z
    s2 = (ny * e2z - nz * e2y) * d2x + (nz * e2x - nx * e2z) * d2y + (nx * e2y - ny * e2x) * d2z
    nn = nx * nx + ny * ny + nz * nz
    if nn > 0 and (s0 >= 0) == (s1 >= 0) and (s1 >= 0) == (s2 >= 0):
        h = nx * d0x + ny * d0y + nz * d0z
        return h * h / nn
    return min(_segment(d0x, d0y, d0z, e0x, e0y, e0z), min(_segment(d1x, d1y, d1z, e1x, e1y, e1z), _segment(d2x, d2y, d2z, e2x, e2y, e2z)))


@njit
def _segment(dx, dy, dz, ex, ey, ez):
    ee = ex * ex + ey * ey + ez * ez
    t = min(max((dx * ex + dy * ey + dz * ez) / ee, 0.0), 1.0) if ee > 0 else 0.0
    x, y, z = dx - t * ex, dy - t * ey, dz - t * ez
    return x * x + y * y + z * z
