# SPDX-License-Identifier: Apache-2.0
"""Solids without watertight meshes: space carving by depth maps, and reading the carved grid back.

Kutulakos & Seitz 2000, A Theory of Shape by Space Carving, with depth instead of colour: a cell is outside if any view
sees *past* it. Open meshes, inverted faces and inner walls do not matter; whatever no view can look into is inside.
"""

from __future__ import annotations

import numpy as np

from bozzetto.kernels.pool import njit


@njit
def carve(lo, hi, depth, right, down, forward, extent, half, slack, inside):
    """Planes x = lo..hi of a cubic grid over [-extent, extent]^3.

    depth    (V, S, S) orthographic distance maps over [-half, half]^2 through the origin, +inf where nothing is hit,
             measured along `forward` from the plane through the origin
    right, down, forward  (V, 3) unit axes of the pictures in the world
    slack    how far in front of a surface still counts as on it, object units: half a cell keeps thin sheets one cell thick
    inside   (n, n, n) uint8, set to 1 or 0
    """
    n, size = inside.shape[0], depth.shape[1]
    cell, scale = 2 * extent / n, size / (2 * half)
    for i in range(lo, hi):
        x = (i + 0.5) * cell - extent
        for j in range(n):
            y = (j + 0.5) * cell - extent
            for k in range(n):
                z = (k + 0.5) * cell - extent
                solid = 1
                for v in range(len(depth)):
                    c = int(np.floor((x * right[v, 0] + y * right[v, 1] + z * right[v, 2] + half) * scale))
                    r = int(np.floor((x * down[v, 0] + y * down[v, 1] + z * down[v, 2] + half) * scale))
                    if c < 0 or r < 0 or c >= size or r >= size:
                        solid = 0
                        break
                    if x * forward[v, 0] + y * forward[v, 1] + z * forward[v, 2] < depth[v, r, c] - slack:
                        solid = 0
                        break
                inside[i, j, k] = solid


@njit
def sample_grid(lo, hi, points, grid, extent, out):
    """Trilinear reads of a cubic grid (n, n, n) uint8 of 0 and 1 over [-extent, extent]^3, cell centres; 0 outside."""
    n = grid.shape[0]
    scale = n / (2 * extent)
    for p in range(lo, hi):
        x = (points[p, 0] + extent) * scale - 0.5
        y = (points[p, 1] + extent) * scale - 0.5
        z = (points[p, 2] + extent) * scale - 0.5
        if not (x > 0 and y > 0 and z > 0 and x < n - 1 and y < n - 1 and z < n - 1):
            out[p] = 0.0
            continue
        i, j, k = int(x), int(y), int(z)
        s, t, u = x - i, y - j, z - k
        c00 = (1 - s) * grid[i, j, k] + s * grid[i + 1, j, k]
        c10 = (1 - s) * grid[i, j + 1, k] + s * grid[i + 1, j + 1, k]
        c01 = (1 - s) * grid[i, j, k + 1] + s * grid[i + 1, j, k + 1]
        c11 = (1 - s) * grid[i, j + 1, k + 1] + s * grid[i + 1, j + 1, k + 1]
        out[p] = (1 - u) * ((1 - t) * c00 + t * c10) + u * ((1 - t) * c01 + t * c11)


@njit
def sample_frustum(lo, hi, origin, d_column, d_row, d_depth, near_scale, d_scale, grid, extent, seen, out):
    """Rows lo..hi of a frustum grid (H, W, D) read from a carved grid: the solid behind each pixel.

    With columns, rows and depths counted from cell centres, and columns and rows from the middle of the picture, the point
    of a cell is origin + (near_scale + d_scale k) (c d_column + r d_row) + k d_depth, in the grid's frame.
    """
    n = grid.shape[0]
    scale = n / (2 * extent)
    height, width, depth = out.shape
    for r in range(lo, hi):
        for c in range(width):
            if not seen[r, c]:
                continue
            ux = (c + 0.5 - width / 2) * d_column[0] + (r + 0.5 - height / 2) * d_row[0]
            uy = (c + 0.5 - width / 2) * d_column[1] + (r + 0.5 - height / 2) * d_row[1]
            uz = (c + 0.5 - width / 2) * d_column[2] + (r + 0.5 - height / 2) * d_row[2]
            for k in range(depth):
                total = 0.0
                for sub in range(2):  # the mean of two depths: a sheet thinner than a cell still shows
                    at = k + 0.25 + 0.5 * sub
                    m = near_scale + d_scale * at
                    x = (origin[0] + m * ux + at * d_depth[0] + extent) * scale - 0.5
                    y = (origin[1] + m * uy + at * d_depth[1] + extent) * scale - 0.5
                    z = (origin[2] + m * uz + at * d_depth[2] + extent) * scale - 0.5
                    if not (x > 0 and y > 0 and z > 0 and x < n - 1 and y < n - 1 and z < n - 1):
                        continue
                    i, j, q = int(x), int(y), int(z)
                    s, t, u = x - i, y - j, z - q
                    c00 = (1 - s) * grid[i, j, q] + s * grid[i + 1, j, q]
                    c10 = (1 - s) * grid[i, j + 1, q] + s * grid[i + 1, j + 1, q]
                    c01 = (1 - s) * grid[i, j, q + 1] + s * grid[i + 1, j, q + 1]
                    c11 = (1 - s) * grid[i, j + 1, q + 1] + s * grid[i + 1, j + 1, q + 1]
                    total += (1 - u) * ((1 - t) * c00 + t * c10) + u * ((1 - t) * c01 + t * c11)
                out[r, c, k] = 0.5 * total
