# SPDX-License-Identifier: Apache-2.0
"""Whether the chequerboard that editors show for transparency was painted into a picture: read off the lines along its border."""

from __future__ import annotations

import numpy as np

INSET = 2  # pixels from the border
NEUTRAL = 0.06  # most between a grey pixel's channels: compression
FEW = 0.05  # share of a line's pixels, or squares, that may be otherwise
LEAST, SQUARES = 3, 6  # pixels of a square's side, squares on a line


def is_chequered(rgb: np.ndarray) -> bool:
    """Of (H, W, 3), sRGB in [0, 1]: at least three of the four lines are squares of two greys in turn. The fourth may cross the object."""
    lines = (rgb[INSET], rgb[-1 - INSET], rgb[:, INSET], rgb[:, -1 - INSET])
    return sum(_alternates(line) for line in lines) >= 3


def _alternates(line: np.ndarray) -> bool:
    """Of (N, 3): runs of two greys, all of one length."""
    if np.mean(np.ptp(line, axis=-1) > NEUTRAL) > FEW:
        return False
    value = line.mean(-1)
    low, high = np.percentile(value, [10, 90])
    if high - low < 0.02:
        return False
    is_light = value > (low + high) / 2
    off = np.minimum(np.abs(value - low), np.abs(value - high))
    if np.mean(off > 0.25 * (high - low)) > 2 * FEW:
        return False
    runs = np.diff(np.nonzero(np.diff(is_light))[0])  # without the first and last, which the border cuts
    side = np.median(runs) if len(runs) else 0
    return len(runs) >= SQUARES and side >= LEAST and float(np.mean(np.abs(runs - side) > 1)) <= FEW
