# SPDX-License-Identifier: Apache-2.0
"""A network says which region is the object (`u2net`), the classical search where it ends.

Where the background was followed nearly everywhere outside the region, the picture is a calm one and the classical object is taken
whole: it keeps the wire legs that a network of 320 pixels loses. Elsewhere the network looks again, at the region and what is
round it; GrabCut's colour models decide where the mean of both looks is unsure, and thin parts that stand before
a piece of calm background are kept. Either outline is then unmixed at full size.

Letters: R the network's region (H, W) bool, s how sure it is (H, W) in [0, 1], M the background that was followed.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch

from bozzetto.matting.classical import Ground, clean, follow, grabcut, outlined, shrunk, standing_out
from bozzetto.matting.u2net import saliency

SURE, SURELY_NOT = 0.9, 0.1  # s of what is no longer in question
STRAY = 0.1  # of R: how much may stand out elsewhere before a calm background,
HOPELESS = 3.0  # and how much while it was followed at half size only, so that following it further is worth the time; noise: 2.2
MISSED = 0.05  # of what the network is sure of: how much may have been taken for background
SEEN_THROUGH, PAPER = 0.6, 1.0  # and how much before a background of one smooth colour, which is within so many tolerances of it
UNSURE = (0.2, 0.8)  # s where colours decide; a wider band lets shadows in and bites paws off in photographs
MARGIN = 0.15  # of the region's longer side, round it, for the second look
PART = 0.2  # of the largest part's area: smaller ones apart from it are other things


def search(rgb: np.ndarray) -> tuple[np.ndarray | None, str]:
    """Alpha (H, W) float32 of a picture (H, W, 3), sRGB in [0, 1], None where no object is found; and what decided it.

    returns  "classical" where the classical object was taken whole, or the network saw none; "network" elsewhere
    """
    small = shrunk(rgb)
    s = look(small)
    R = s > 0.5
    ground = follow(small, lambda M: not R.any() or stray(M, s) < HOPELESS)
    if not R.any() or is_calm(ground, s):
        solid = standing_out(ground)
        solid = supported(solid, s) if R.any() else solid
        return outlined(rgb, solid), "classical"
    s = again(small, s)
    return outlined(rgb, clean(near_by(ground, s)), calm=False), "network"


def look(rgb: np.ndarray) -> np.ndarray:
    """s at the picture's size, (H, W), stretched to [0, 1]; as it is where the network is sure of nothing."""
    seen = saliency(torch.from_numpy(np.ascontiguousarray(rgb))).numpy()
    if seen.max() > 0.5:
        seen = (seen - seen.min()) / (seen.max() - seen.min())
    return cv2.resize(seen, rgb.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def again(rgb: np.ndarray, s: np.ndarray) -> np.ndarray:
    """The mean of s and of a second look, at the region alone: there the network sees finer, and less that distracts."""
    x, y, w, h = cv2.boundingRect((s > 0.3).astype(np.uint8))
    margin = int(MARGIN * max(w, h))
    box = np.s_[max(y - margin, 0) : y + h + margin, max(x - margin, 0) : x + w + margin]
    if min(s[box].shape) < 16:
        return s
    closer = np.zeros_like(s)
    closer[box] = look(rgb[box])
    return (s + closer) / 2


def is_calm(ground: Ground, s: np.ndarray) -> bool:
    """Whether the background was followed nearly all round the region, and into it only where one looks through.

    A network fills the gaps of a bunk bed or a tree. Before paper or a studio's wall it may: the colour there is that of the
    background all round, continued. In a photograph it is the search that went astray.
    """
    core = s > SURE
    missed = (core & ground.M).sum() / max(core.sum(), 1)
    if stray(ground.M, s) >= STRAY:
        return False
    return bool(missed < MISSED or (missed < SEEN_THROUGH and unlike_paper(ground, s) < PAPER))


def unlike_paper(ground: Ground, s: np.ndarray) -> float:
    """How far the followed background is from one smooth colour: of all its pixels, the tolerance that nine tenths are within.

    The colour is a quadratic over the picture, fitted where the network sees nothing; distances in units of `tau`.
    """
    h, w = ground.M.shape
    v, u = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j].astype(np.float32)
    terms = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], -1)
    away = ground.M & (s < SURELY_NOT)
    step = max(1, int(away.sum()) // 5000)
    fit, *_ = np.linalg.lstsq(terms[away][::step], ground.lab[away][::step], rcond=None)
    off = np.linalg.norm(ground.lab[ground.M] - terms[ground.M] @ fit, axis=-1)
    return float(np.percentile(off, 90) / ground.tau) if len(off) else np.inf


def stray(M: np.ndarray, s: np.ndarray) -> float:
    """How much stands out where the network sees nothing, thin parts aside, relative to the region."""
    R, r = s > 0.5, max(2, max(M.shape) // 128)
    away = (s < SURELY_NOT) & (cv2.dilate(R.astype(np.uint8), square(2 * r + 1)) == 0)
    return float(cv2.morphologyEx((away & ~M).astype(np.uint8), cv2.MORPH_OPEN, square(2 * r + 1)).sum() / max(R.sum(), 1))


def supported(solid: np.ndarray, s: np.ndarray) -> np.ndarray:
    """The parts of an object in which the network sees something, too."""
    count, labels = cv2.connectedComponents(solid.astype(np.uint8), connectivity=8)
    seen = np.zeros(count, bool)
    seen[np.unique(labels[s > 0.5])] = True
    seen[0] = False
    return seen[labels] if seen.any() else solid


def near_by(ground: Ground, s: np.ndarray) -> np.ndarray:
    """The object in an uncalm picture, (H, W) bool: GrabCut where the network is unsure, and thin parts that touch it."""
    R = main_parts(s > 0.5)
    if not R.any():
        return R
    state = np.where(s > UNSURE[0], cv2.GC_PR_BGD, cv2.GC_BGD).astype(np.uint8)
    state[R] = np.where(s[R] > UNSURE[1], cv2.GC_FGD, cv2.GC_PR_FGD)
    solid = main_parts(grabcut(ground.lab, state, 2))
    return solid | thin_parts(ground.M, solid)


def thin_parts(M: np.ndarray, solid: np.ndarray) -> np.ndarray:
    """What stands out of followed background on both sides, a few pixels wide, and touches the object: wires, poles, legs."""
    out = (~M).astype(np.uint8)
    thin = (out & (1 - cv2.morphologyEx(out, cv2.MORPH_OPEN, square(7)))).astype(np.uint8)
    beside = cv2.blur(M.astype(np.float32), (15, 15))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(thin, connectivity=8)
    touching = np.unique(labels[cv2.dilate(solid.astype(np.uint8), square(5)) > 0])
    kept = np.zeros(count, bool)
    for k in touching[touching > 0]:
        part = labels == k
        kept[k] = stats[k, cv2.CC_STAT_AREA] >= 12 and beside[part & ~solid].mean() > 0.5 if (part & ~solid).any() else False
    return kept[labels]


def main_parts(solid: np.ndarray) -> np.ndarray:
    """The largest part, and those not much smaller."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(solid.astype(np.uint8), connectivity=8)
    if count < 3:
        return solid
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    return (areas >= PART * areas.max())[labels]


def square(side: int) -> np.ndarray:
    return np.ones((side, side), np.uint8)
