# SPDX-License-Identifier: Apache-2.0
"""The cost volume the obvious way: one point, one view, one channel at a time, in float64."""

from __future__ import annotations

import math

import numpy as np

from bozzetto.camera import NEAR, Camera


def unproject(maps: np.ndarray, camera: Camera, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `priors.cost_volume.unproject`, of perspective cameras."""
    views, channels, rows, columns = maps.shape
    height, width = camera.size
    values, counts = np.zeros((views, len(points), channels)), np.zeros((views, len(points)), bool)
    for v in range(views):
        c2w, K = camera.c2w[v].numpy(), camera.K[v].numpy()
        for n, point in enumerate(points):
            x, y, z = c2w[:, :3].T @ (point - c2w[:, 3])
            depth = -z
            if depth == 0:
                continue
            u, w = K[0, 0] * x / depth + K[0, 2], -K[1, 1] * y / depth + K[1, 2]
            counts[v, n] = depth > NEAR and 0 <= u <= width and 0 <= w <= height
            column = min(max(u / width * columns - 0.5, 0), columns - 1)
            row = min(max(w / height * rows - 0.5, 0), rows - 1)
            j, i = math.floor(column), math.floor(row)
            a, b = column - j, row - i
            for c in range(channels):
                for r, s in ((i, 1 - b), (i + 1, b)):
                    for k, t in ((j, 1 - a), (j + 1, a)):
                        if s * t:
                            values[v, n, c] += s * t * maps[v, c, r, k]
    return values, counts


def mean_and_variance(values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `priors.cost_volume.mean_and_variance`."""
    views, points, channels = values.shape
    mean, variance = np.zeros((points, channels)), np.zeros((points, channels))
    for n in range(points):
        told = [values[v, n] for v in range(views) if counts[v, n]]
        if told:
            mean[n] = sum(told) / len(told)
            variance[n] = sum((x - mean[n]) ** 2 for x in told) / len(told)
    return mean, variance


def outline_distance(inside: np.ndarray) -> np.ndarray:
    """Of a sharp outline (h, w) bool: to the nearest pixel across it, less half a pixel, negative inside."""
    made = np.zeros(inside.shape)
    for i, j in np.ndindex(*inside.shape):
        other = np.argwhere(inside != inside[i, j])
        away = min(math.hypot(i - r, j - c) for r, c in other) - 0.5
        made[i, j] = -away if inside[i, j] else away
    return made
