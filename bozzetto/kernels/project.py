# SPDX-License-Identifier: Apache-2.0
"""Gaussians in space to ellipses in the picture, with gradients: elliptical weighted averaging.

Zwicker et al. 2001, EWA Volume Splatting; Kerbl et al. 2023, 3D Gaussian Splatting (arXiv:2308.04079), Sec. 4. The covariance of
the ellipse is that of the Gaussian under the camera's linearisation at its mean, plus EPS px^2 on the diagonal. With `antialiased`,
opacities are to be multiplied by sqrt(det before / det after) (Mip-Splatting, arXiv:2311.16493, Sec. 4.2, box filter left out).

Letters: V views, N Gaussians; W, T rotation and translation of w2c; t = W mu + T; u, v = t_x / t_z, t_y / t_z;
J = [[f_x / t_z, 0, -f_x u / t_z], [0, f_y / t_z, -f_y v / t_z]]; R, S rotation of the quaternion and diagonal of the scales;
A = J W R S (2, 3), cov = A A^T + EPS I; conic = its inverse, as (a, b, c): a dx^2 + 2 b dx dy + c dy^2.
In J alone u and v are clamped to the picture and 15 % of its width on each side (the paper's 1.3 tan(fov / 2) where the principal
point is the centre): far outside the linearisation is worthless. Differs from the released code, which drops what depends on t_z
through a clamped u: here it is the derivative. All arithmetic is float64, whatever is stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bozzetto.kernels import pool
from bozzetto.kernels.pool import njit
from bozzetto.kernels.rasterize import as_array

EPS = 0.3  # px^2: the paper's low-pass filter
NEAR = 0.01  # units of the world: nearer means are not drawn, nor are those behind
REACH = 3  # standard deviations within which a Gaussian is said to be in the picture
MARGIN = 0.15  # of the picture's width and height, beyond which J is clamped
BLOCK = 1024  # Gaussians whose gradients to the camera are summed first: the same sums for any number of threads


def project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    w2c: Tensor,
    K: Tensor,
    size: tuple[int, int],
    *,
    antialiased: bool = False,
    near: float = NEAR,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where and how large each Gaussian is in each view.

    means, quats, scales  (N, 3), (N, 4) as (w, x, y, z) of any length but 0, (N, 3) > 0; float32 or float64, one for all
    w2c        (V, 3, 4), world to camera, OpenCV axes (x right, y down, looking along +z)
    K          (V, 3, 3) in pixels
    returns    xy (V, N, 2) in pixels (column, row); conic (V, N, 3); depth (V, N) along the axis; factor (V, N) for opacities, 1 unless
               `antialiased`. A Gaussian that is not drawn has conic 0, and no gradient
    """
    return tuple(_Project.apply(means, quats, scales, w2c, K, size, antialiased, near))


def in_picture(xy: Tensor, conic: Tensor, size: tuple[int, int]) -> Tensor:
    """(V, N) bool, of `project`: does the square of ceil(REACH standard deviations of its long axis) px round the middle touch the picture?

    What the released code calls radii > 0, and gsplat too, which counts pixels as here, where the former counts whole tiles.
    """
    p = as_array(xy)
    q, out = as_array(conic, p.dtype), np.zeros(p.shape[:2], np.bool_)
    pool.run(_touching, p.shape[1], p, q, float(size[0]), float(size[1]), out, grain=BLOCK)
    return torch.from_numpy(out).to(xy.device)


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, means: Tensor, quats: Tensor, scales: Tensor, w2c: Tensor, K: Tensor, size: tuple[int, int], *rest: Any):
        antialiased, near = rest
        m, q, s = as_array(means), as_array(quats, as_array(means).dtype), as_array(scales, as_array(means).dtype)
        pose, k = as_array(w2c, np.float64), as_array(K, np.float64)
        v, n = len(pose), len(m)
        out = [np.zeros(shape, m.dtype) for shape in ((v, n, 2), (v, n, 3), (v, n), (v, n))]
        pool.run(_forward, n, m, q, s, pose, k, size[0], size[1], antialiased, near, *out, grain=BLOCK)
        ctx.save_for_backward(means, quats, scales, w2c)
        ctx.rest = (k, size, antialiased, out[1])
        return tuple(torch.from_numpy(a).to(means.device) for a in out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        means, quats, scales, w2c = ctx.saved_tensors
        k, size, antialiased, conic = ctx.rest
        m = as_array(means)
        q, s, pose = as_array(quats, m.dtype), as_array(scales, m.dtype), as_array(w2c, np.float64)
        n, blocks = len(m), -(-len(m) // BLOCK)
        d_means, d_quats, d_scales = np.zeros((n, 3), m.dtype), np.zeros((n, 4), m.dtype), np.zeros((n, 3), m.dtype)
        d_pose = np.zeros((blocks, len(pose), 3, 4))
        g = [as_array(x, m.dtype) for x in grads]
        pool.run(_backward, blocks, m, q, s, pose, k, size[0], size[1], antialiased, conic, *g, d_means, d_quats, d_scales, d_pose)
        to = [torch.from_numpy(d).to(means.device) for d in (d_means, d_quats, d_scales)]
        return *to, torch.from_numpy(d_pose.sum(0)).to(w2c), None, None, None, None


@njit
def _turn(q, R):
    """R (3, 3) of a quaternion of any length; returns 1 / length."""
    w, x, y, z = np.float64(q[0]), np.float64(q[1]), np.float64(q[2]), np.float64(q[3])
    n = 1 / np.sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = w * n, x * n, y * n, z * n
    R[0, 0], R[0, 1], R[0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
    R[1, 0], R[1, 1], R[1, 2] = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
    R[2, 0], R[2, 1], R[2, 2] = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)
    return n


@njit
def _ellipse(mean, R, scale, W, K, h, w, J, B, A):
    """J, B = J W and A = B R S filled; returns t, the clamped u and v, and whether each was clamped."""
    x = W[0, 0] * mean[0] + W[0, 1] * mean[1] + W[0, 2] * mean[2] + W[0, 3]
    y = W[1, 0] * mean[0] + W[1, 1] * mean[1] + W[1, 2] * mean[2] + W[1, 3]
    z = W[2, 0] * mean[0] + W[2, 1] * mean[1] + W[2, 2] * mean[2] + W[2, 3]
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    u = min(max(x / z, (-MARGIN * w - cx) / fx), ((1 + MARGIN) * w - cx) / fx)
    v = min(max(y / z, (-MARGIN * h - cy) / fy), ((1 + MARGIN) * h - cy) / fy)
    J[0], J[1], J[2], J[3] = fx / z, -fx * u / z, fy / z, -fy * v / z
    for j in range(3):
        B[0, j] = J[0] * W[0, j] + J[1] * W[2, j]
        B[1, j] = J[2] * W[1, j] + J[3] * W[2, j]
    for i in range(2):
        for j in range(3):
            A[i, j] = (B[i, 0] * R[0, j] + B[i, 1] * R[1, j] + B[i, 2] * R[2, j]) * scale[j]
    return x, y, z, u, v, u != x / z, v != y / z


@njit
def _forward(lo, hi, means, quats, scales, w2c, K, h, w, antialiased, near, xy, conic, depth, factor):
    R, J, B, A = np.empty((3, 3)), np.empty(4), np.empty((2, 3)), np.empty((2, 3))
    for i in range(lo, hi):
        _turn(quats[i], R)
        for p in range(len(w2c)):
            W, k = w2c[p], K[p]
            z = W[2, 0] * means[i, 0] + W[2, 1] * means[i, 1] + W[2, 2] * means[i, 2] + W[2, 3]
            if not z > near:  # also when not a number
                continue
            x, y, z, _, _, _, _ = _ellipse(means[i], R, scales[i], W, k, h, w, J, B, A)
            a = A[0, 0] ** 2 + A[0, 1] ** 2 + A[0, 2] ** 2
            b = A[0, 0] * A[1, 0] + A[0, 1] * A[1, 1] + A[0, 2] * A[1, 2]
            c = A[1, 0] ** 2 + A[1, 1] ** 2 + A[1, 2] ** 2
            det = (a + EPS) * (c + EPS) - b * b
            if not 0 < det < np.inf:
                continue
            xy[p, i, 0], xy[p, i, 1], depth[p, i] = k[0, 0] * x / z + k[0, 2], k[1, 1] * y / z + k[1, 2], z
            conic[p, i, 0], conic[p, i, 1], conic[p, i, 2] = (c + EPS) / det, -b / det, (a + EPS) / det
            factor[p, i] = np.sqrt(max(a * c - b * b, 0.0) / det) if antialiased else 1.0


@njit
def _touching(lo, hi, xy, conic, h, w, out):
    for i in range(lo, hi):
        for p in range(len(xy)):
            a, b, c = np.float64(conic[p, i, 0]), np.float64(conic[p, i, 1]), np.float64(conic[p, i, 2])
            if a > 0:
                det = max(a * c - b * b, 1e-30)  # of float32 numbers it may be rounded away: then the Gaussian is a very long one
                middle = (a + c) / (2 * det)
                longest = middle + np.sqrt(max(middle * middle - 1 / det, 0.1))  # the floor is the released code's
                r = np.ceil(REACH * np.sqrt(longest))
                out[p, i] = xy[p, i, 0] + r > 0 and xy[p, i, 0] - r < w and xy[p, i, 1] + r > 0 and xy[p, i, 1] - r < h


@njit
def _backward(
    lo, hi, means, quats, scales, w2c, K, h, w, antialiased, conic, g_xy, g_conic, g_depth, g_factor, d_means, d_quats, d_scales, d_pose
):
    R, J, B, A = np.empty((3, 3)), np.empty(4), np.empty((2, 3)), np.empty((2, 3))
    dA, dB, dR, dM, dq, ds = np.empty((2, 3)), np.empty((2, 3)), np.empty((3, 3)), np.empty(3), np.empty(4), np.empty(3)
    for block in range(lo, hi):
        for i in range(block * BLOCK, min((block + 1) * BLOCK, len(means))):
            inverse = _turn(quats[i], R)
            dR[:], dM[:], ds[:] = 0, 0, 0
            for p in range(len(w2c)):
                if conic[p, i, 0] == 0:
                    continue
                W, k, dW = w2c[p], K[p], d_pose[block, p]
                x, y, z, u, v, far_x, far_y = _ellipse(means[i], R, scales[i], W, k, h, w, J, B, A)
                a = A[0, 0] ** 2 + A[0, 1] ** 2 + A[0, 2] ** 2
                b = A[0, 0] * A[1, 0] + A[0, 1] * A[1, 1] + A[0, 2] * A[1, 2]
                c = A[1, 0] ** 2 + A[1, 1] ** 2 + A[1, 2] ** 2
                det = (a + EPS) * (c + EPS) - b * b
                Ca, Cb, Cc = (c + EPS) / det, -b / det, (a + EPS) / det
                # d cov = -conic (d conic) conic; off-diagonal entries are named once in (a, b, c), hence the halves
                Ga, Gb, Gc = np.float64(g_conic[p, i, 0]), 0.5 * g_conic[p, i, 1], np.float64(g_conic[p, i, 2])
                P, Q, S, T = Ca * Ga + Cb * Gb, Ca * Gb + Cb * Gc, Cb * Ga + Cc * Gb, Cb * Gb + Cc * Gc
                da, db, dc = -(P * Ca + Q * Cb), -(P * Cb + Q * Cc), -(S * Cb + T * Cc)
                if antialiased:
                    ratio = max(a * c - b * b, 0.0) / det
                    if ratio > 0:  # the root's slope is infinite at 0: a flat Gaussian seen edge-on gets none
                        f = 0.5 * g_factor[p, i] / np.sqrt(ratio)
                        da += f * (c / det - ratio * Ca)
                        db += f * (-b / det - ratio * Cb)
                        dc += f * (a / det - ratio * Cc)
                for j in range(3):
                    dA[0, j] = 2 * (da * A[0, j] + db * A[1, j])
                    dA[1, j] = 2 * (db * A[0, j] + dc * A[1, j])
                for j in range(3):
                    column0, column1, s = dA[0, j], dA[1, j], np.float64(scales[i, j])
                    for m in range(3):
                        dRS = B[0, m] * column0 + B[1, m] * column1
                        ds[j] += R[m, j] * dRS
                        dR[m, j] += dRS * s
                for m in range(3):
                    for e in range(2):
                        dB[e, m] = dA[e, 0] * R[m, 0] * scales[i, 0] + dA[e, 1] * R[m, 1] * scales[i, 1] + dA[e, 2] * R[m, 2] * scales[i, 2]
                dJ0 = dB[0, 0] * W[0, 0] + dB[0, 1] * W[0, 1] + dB[0, 2] * W[0, 2]
                dJ1 = dB[0, 0] * W[2, 0] + dB[0, 1] * W[2, 1] + dB[0, 2] * W[2, 2]
                dJ2 = dB[1, 0] * W[1, 0] + dB[1, 1] * W[1, 1] + dB[1, 2] * W[1, 2]
                dJ3 = dB[1, 0] * W[2, 0] + dB[1, 1] * W[2, 1] + dB[1, 2] * W[2, 2]
                fx, fy = k[0, 0], k[1, 1]
                gx, gy = np.float64(g_xy[p, i, 0]), np.float64(g_xy[p, i, 1])
                dz = (-fx * dJ0 + fx * u * dJ1 - fy * dJ2 + fy * v * dJ3) / (z * z)
                dz += g_depth[p, i] - (fx * x * gx + fy * y * gy) / (z * z)
                dx, dy = fx * gx / z, fy * gy / z
                if not far_x:
                    dx -= fx * dJ1 / (z * z)
                    dz += fx * dJ1 * x / (z * z * z)
                if not far_y:
                    dy -= fy * dJ3 / (z * z)
                    dz += fy * dJ3 * y / (z * z * z)
                for m in range(3):
                    dW[0, m] += dx * means[i, m] + J[0] * dB[0, m]
                    dW[1, m] += dy * means[i, m] + J[2] * dB[1, m]
                    dW[2, m] += dz * means[i, m] + J[1] * dB[0, m] + J[3] * dB[1, m]
                    dM[m] += W[0, m] * dx + W[1, m] * dy + W[2, m] * dz
                dW[0, 3] += dx
                dW[1, 3] += dy
                dW[2, 3] += dz
            qw, qx, qy, qz = quats[i, 0] * inverse, quats[i, 1] * inverse, quats[i, 2] * inverse, quats[i, 3] * inverse
            dq[0] = 2 * (qx * (dR[2, 1] - dR[1, 2]) + qy * (dR[0, 2] - dR[2, 0]) + qz * (dR[1, 0] - dR[0, 1]))
            dq[1] = 2 * (qy * (dR[0, 1] + dR[1, 0]) + qz * (dR[0, 2] + dR[2, 0]) + qw * (dR[2, 1] - dR[1, 2])) - 4 * qx * (
                dR[1, 1] + dR[2, 2]
            )
            dq[2] = 2 * (qx * (dR[0, 1] + dR[1, 0]) + qz * (dR[1, 2] + dR[2, 1]) + qw * (dR[0, 2] - dR[2, 0])) - 4 * qy * (
                dR[0, 0] + dR[2, 2]
            )
            dq[3] = 2 * (qx * (dR[0, 2] + dR[2, 0]) + qy * (dR[1, 2] + dR[2, 1]) + qw * (dR[1, 0] - dR[0, 1])) - 4 * qz * (
                dR[0, 0] + dR[1, 1]
            )
            along = dq[0] * qw + dq[1] * qx + dq[2] * qy + dq[3] * qz  # a quaternion's length does nothing
            d_quats[i, 0], d_quats[i, 1] = (dq[0] - along * qw) * inverse, (dq[1] - along * qx) * inverse
            d_quats[i, 2], d_quats[i, 3] = (dq[2] - along * qy) * inverse, (dq[3] - along * qz) * inverse
            for m in range(3):
                d_means[i, m], d_scales[i, m] = dM[m], ds[m]
