# SPDX-License-Identifier: Apache-2.0
"""The object before a calm background, without anything learnt.

The background grows inwards from the picture's border as long as colours change slowly (so it follows gradients, soft shadows and
a floor), jumps into the gaps that the object encloses, GrabCut decides what is left in doubt, and each pixel of the outline is unmixed
between the object's colour inside and the background's outside. It is deterministic.

Colours are compared in CIELAB (lightness 0 to 100), so a distance of 2.3 is just visible.

Letters: M is background (H, W) bool, B background colour, F object colour, r radius in pixels, tau tolerance in CIELAB units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from bozzetto.matting.edge import push_pull, unmix

WORK = 512  # pixels, longer side while searching: a wire leg is still two pixels wide, and the search takes a second
TAU = 4.0  # CIELAB; nearly twice the just visible difference: above soft shadows' slopes and JPEG, below a grey wire on a grey floor
CHROMA = 1.5  # how much more a difference of hue counts than one of lightness, because shadows change lightness only
WEIGHTS = np.array([1, CHROMA, CHROMA], np.float32)


@dataclass(frozen=True)
class Ground:
    """How far the background was followed.

    lab  (H, W, 3) float32, calmed CIELAB with WEIGHTS, longer side at most WORK
    M    (H, W) bool, what surely is background
    tau  tolerance of this picture, for its noise
    """

    lab: np.ndarray
    M: np.ndarray
    tau: float


def search(rgb: np.ndarray) -> np.ndarray | None:
    """Alpha (H, W) float32 of a picture (H, W, 3), sRGB in [0, 1]; None where no object stands out."""
    return outlined(rgb, standing_out(follow(shrunk(rgb))))


def shrunk(rgb: np.ndarray) -> np.ndarray:
    """The picture at the size of the search, its longer side at most WORK."""
    h, w = rgb.shape[:2]
    scale = min(1.0, WORK / max(h, w))
    return cv2.resize(rgb, (max(8, round(w * scale)), max(8, round(h * scale))), interpolation=cv2.INTER_AREA) if scale < 1 else rgb


def follow(small: np.ndarray, is_worth_it: Callable[[np.ndarray], bool] = lambda _: True) -> Ground:
    """Grow the background of a picture (H, W, 3) from its border, into gaps and over soft edges.

    is_worth_it  asked with a coarse M, before the slow part; where it says no, M is grown a few pixels towards edges and left at that
    """
    lab, noise = _calm(cv2.cvtColor(small, cv2.COLOR_RGB2LAB) * WEIGHTS)
    tau = max(TAU, 3 * noise)
    M = _from_afar(lab, _seeds(lab, tau), tau)  # several times faster than from the border
    if not is_worth_it(M):
        return Ground(lab, _grow(lab, M, tau, rounds=8), tau)
    M = _grow(lab, M, tau)
    for _ in range(3):  # a gap behind a gap behind a gap
        gaps = _gaps(lab, M, 1.25 * tau)
        if not gaps.any():
            break
        M = _grow(lab, M | gaps, tau)
    M = _grow(lab, M, _ringing(lab, M, tau, noise))
    return Ground(lab, M | _between(lab, M, tau), tau)


def standing_out(ground: Ground) -> np.ndarray:
    """The object before it, (H, W) bool, cleaned of specks and pin holes."""
    M = ground.M
    if M.mean() < 0.3:  # growth was stopped soon: the background is no calm one (or the object fills the picture)
        M = _patterned(ground.lab, M)
    return clean(_decide(ground.lab, M, ground.tau))


def outlined(rgb: np.ndarray, solid: np.ndarray, *, calm: bool = True) -> np.ndarray | None:
    """Alpha at the picture's size for an object found at that of the search; None for next to nothing, or nearly everything.

    calm  whether the background is one whose colour is known well enough to unmix more than the outline's own pixels
    """
    if not 0.001 < solid.mean() < 0.98:
        return None
    h, w = rgb.shape[:2]
    scale = min(1.0, WORK / max(h, w))
    if scale < 1:
        solid = cv2.resize(solid.astype(np.float32), (w, h), interpolation=cv2.INTER_LINEAR) > 0.5
    reach = 1 if scale == 1 else round(1 / scale)
    return unmix(rgb, solid, inner=reach + 2 if calm else reach, outer=reach)


def _calm(lab: np.ndarray) -> tuple[np.ndarray, float]:
    """The picture with its noise smoothed, edges kept; and the noise's standard deviation that is left, in CIELAB units."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)  # Immerkaer 1996: blind to edges and gradients; its norm is 6
    frame = np.ones(lab.shape[:2], bool)
    b = max(3, min(frame.shape) // 12)
    frame[b:-b, b:-b] = False
    residual = cv2.filter2D(lab, cv2.CV_32F, kernel)[frame] / 6
    sigma = 1.4826 * np.median(np.abs(residual), axis=0)  # from the median absolute value, for a normal distribution
    strength = float(np.sqrt((sigma**2).sum()))
    if strength < 1.5:
        return lab, strength
    calm = cv2.bilateralFilter(lab, 9, sigmaColor=3 * strength, sigmaSpace=2.0)
    calm = cv2.bilateralFilter(calm, 9, sigmaColor=1.5 * strength, sigmaSpace=2.0)
    left = ((calm - cv2.blur(calm, (9, 9))) ** 2).sum(-1)[frame]
    return calm, float(np.sqrt(np.median(left) / 0.79))  # chi-squared with 3 degrees of freedom: median 0.79 times its mean


def _seeds(lab: np.ndarray, tau: float) -> np.ndarray:
    """Border pixels whose colour is found on two sides of the picture: an object cut off by one side is not background."""
    h, w = lab.shape[:2]
    t = 2
    sides = [lab[:t].reshape(-1, 3), lab[-t:].reshape(-1, 3), lab[:, :t].reshape(-1, 3), lab[:, -t:].reshape(-1, 3)]
    M = np.zeros((h, w), bool)
    regions: list[Any] = [np.s_[:t], np.s_[-t:], np.s_[:, :t], np.s_[:, -t:]]
    for k, region in enumerate(regions):
        found = np.zeros(len(sides[k]), int)
        for side in sides:
            sample = side[:: max(1, len(side) // 128)]
            near = ((sides[k][:, None] - sample[None]) ** 2).sum(-1) < (2.5 * tau) ** 2
            found += near.mean(1) > 0.02
        M[region] |= (found >= 2).reshape(M[region].shape)
    border = np.zeros((h, w), bool)
    for region in regions:
        border[region] = True
    return M if M.sum() > 0.3 * border.sum() else border


def _step(lab: np.ndarray) -> np.ndarray:
    """Change of colour from one pixel to the next, (H, W)."""
    return np.sqrt(sum((cv2.Sobel(lab, cv2.CV_32F, *d, ksize=3, scale=1 / 8) ** 2).sum(-1) for d in ((1, 0), (0, 1))))


def _mean(lab: np.ndarray, M: np.ndarray, r: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean colour of the pixels of M in a square of radius r, and their share of it."""
    w = M.astype(np.float32)
    sums = cv2.blur(np.dstack([lab * w[..., None], w]), (2 * r + 1, 2 * r + 1), borderType=cv2.BORDER_CONSTANT)
    return sums[..., :3] / np.maximum(sums[..., 3:], 1e-6), sums[..., 3]


def _grow(lab: np.ndarray, M: np.ndarray, tau: float | np.ndarray, r: int = 4, rounds: int | None = None) -> np.ndarray:
    """Add to M what resembles the mean of M close by and is not on an edge, until nothing does (or so many rounds are over)."""
    flat = np.ascontiguousarray(lab).reshape(-1, 3)
    limit = (np.maximum(tau - _step(lab), 0) ** 2).ravel()
    known = np.zeros((*M.shape, 4), np.float32)  # colours and count of M; what is not at its edge costs nothing below
    known[M] = np.concatenate([lab[M], np.ones((int(M.sum()), 1), np.float32)], 1)
    M = M.copy()
    for _ in range(sum(lab.shape[:2]) if rounds is None else rounds):
        sums = cv2.blur(known, (2 * r + 1, 2 * r + 1), borderType=cv2.BORDER_CONSTANT)
        edge = np.flatnonzero(~M & (sums[..., 3] > 0.08))
        near = sums.reshape(-1, 4)[edge]
        difference = flat[edge] - near[:, :3] / np.maximum(near[:, 3:], 1e-6)
        new = edge[np.einsum("ik,ik->i", difference, difference) < limit[edge]]
        if len(new) < 8:
            break
        M.reshape(-1)[new] = True
        known.reshape(-1, 4)[new, :3] = flat[new]
        known.reshape(-1, 4)[new, 3] = 1
    return M


def _from_afar(lab: np.ndarray, M: np.ndarray, tau: float) -> np.ndarray:
    """Where `_grow` would come to, seen at half the size, of which two pixels along every edge are not believed."""
    h, w = M.shape
    half = (max(1, w // 2), max(1, h // 2))
    coarse = _grow(
        cv2.resize(lab, half, interpolation=cv2.INTER_AREA), cv2.resize(M.astype(np.uint8), half, interpolation=cv2.INTER_NEAREST) > 0, tau
    )
    coarse = cv2.erode(coarse.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=1)
    start = (cv2.resize(coarse, (w, h), interpolation=cv2.INTER_NEAREST) > 0) & (_step(lab) < tau)
    B, _ = _mean(lab, start, 4)
    return (start & (((lab - B) ** 2).sum(-1) < tau**2)) | M


def _gaps(lab: np.ndarray, M: np.ndarray, tau: float) -> np.ndarray:
    """Calm areas enclosed by the object that show the background around: same chroma, not lighter, perhaps in shadow."""
    flat = ~M & (_step(lab) < tau / 3)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(flat.astype(np.uint8), connectivity=4)
    reach = max(M.shape) / 7  # pixels of object between a gap and the background outside
    B = push_pull(lab, M.astype(np.float32))
    away = cv2.distanceTransform((~M).astype(np.uint8), cv2.DIST_L2, 3)
    depth = cv2.distanceTransform(flat.astype(np.uint8), cv2.DIST_L2, 3)
    gaps = np.zeros_like(M)
    for k in range(1, count):
        x, y, w, h, area = stats[k]
        if area < max(25, 2e-4 * M.size):
            continue
        box = np.s_[y : y + h, x : x + w]
        part = labels[box] == k
        if away[box][part].min() > reach or depth[box][part].max() < max(1.5, max(M.shape) / 128):  # the calm inside of a wire is no gap
            continue
        difference = (lab[box] - B[box])[part]
        d = np.median(difference, axis=0)
        if -2.5 * tau < d[0] < tau and np.hypot(d[1], d[2]) < 1.2 * tau and np.abs(difference - d).mean() < 0.75 * tau:
            gaps[box] |= part
    return gaps


def _ringing(lab: np.ndarray, M: np.ndarray, tau: float, noise: float) -> np.ndarray:
    """A tolerance (H, W), wider beside strong edges if the picture shows that JPEG or WebP smeared them over blocks of 8 pixels.

    The smear is measured 3 to 8 pixels away from what is surely object: a clean picture shows the background undisturbed there.
    """
    B = push_pull(lab, M.astype(np.float32))
    distance = np.where(M, 0, np.sqrt(((lab - B) ** 2).sum(-1))).astype(np.float32)
    sure = cv2.erode((distance > 5 * tau).astype(np.uint8), np.ones((3, 3), np.uint8))
    away = cv2.distanceTransform(1 - sure, cv2.DIST_L2, 3)
    ring = (away > 4) & (away < 9)
    if not sure.any() or not ring.any():
        return np.full(M.shape, tau, np.float32)
    far = push_pull(lab, (M & (away > 10)).astype(np.float32))
    smear = float(np.percentile(np.sqrt(((lab - far) ** 2).sum(-1))[ring], 75)) - 3 * noise
    contrast = cv2.dilate(distance, np.ones((17, 17), np.uint8))
    return (0.18 * contrast).clip(tau, max(tau, 4 * smear))


def _between(lab: np.ndarray, M: np.ndarray, tau: float) -> np.ndarray:
    """Pixels whose colour lies between two background colours beside them: a horizon, the edge of a carpet."""
    big = np.float32(1e4)
    kernel = np.ones((7, 7), np.uint8)
    low = cv2.erode(np.where(M[..., None], lab, big), kernel)
    high = cv2.dilate(np.where(M[..., None], lab, -big), kernel)
    return ~M & ((lab > low - tau / 2) & (lab < high + tau / 2)).all(-1)


def _patterned(lab: np.ndarray, M: np.ndarray) -> np.ndarray:
    """Background of many colours, told from the object by GrabCut's colour models alone: a last resort."""
    t = max(2, round(0.04 * max(M.shape)))
    state = np.full(M.shape, cv2.GC_PR_BGD, np.uint8)
    state[2 * t : -2 * t, 2 * t : -2 * t] = cv2.GC_PR_FGD
    state[M] = cv2.GC_PR_BGD
    state[:t], state[-t:], state[:, :t], state[:, -t:] = cv2.GC_BGD, cv2.GC_BGD, cv2.GC_BGD, cv2.GC_BGD
    return ~grabcut(lab, state, 5)


def _decide(lab: np.ndarray, M: np.ndarray, tau: float) -> np.ndarray:
    """GrabCut over what neither grew as background nor stands out clearly; returns the object, (H, W) bool."""
    B = push_pull(lab, M.astype(np.float32))
    distance = np.sqrt(((lab - B) ** 2).sum(-1))
    kernel = np.ones((3, 3), np.uint8)
    state = np.full(M.shape, cv2.GC_PR_BGD, np.uint8)
    state[~M] = cv2.GC_PR_FGD
    state[cv2.erode(M.astype(np.uint8), kernel, iterations=2, borderValue=1) > 0] = cv2.GC_BGD
    state[~M & (distance > 2 * tau)] = cv2.GC_FGD
    return grabcut(lab, state, 2)


def grabcut(lab: np.ndarray, state: np.ndarray, rounds: int) -> np.ndarray:
    """The object, (H, W) bool, from OpenCV's four states; a state without object or background is returned as it is."""
    if len(np.unique(state % 2)) == 2:
        usual = np.array([2.55, 1, 1], np.float32) / WEIGHTS  # OpenCV's bytes of CIELAB
        small = (lab * usual + np.array([0, 128, 128], np.float32)).clip(0, 255).round().astype(np.uint8)
        cv2.setRNGSeed(0)  # its colour models start from a random draw
        state, _, _ = cv2.grabCut(small, state.copy(), None, np.zeros((1, 65)), np.zeros((1, 65)), rounds, cv2.GC_INIT_WITH_MASK)
    return state % 2 == 1  # GC_FGD and GC_PR_FGD are odd


def clean(solid: np.ndarray) -> np.ndarray:
    """Drop specks (less than 0.3 % of the largest part) and fill pin holes (less than 0.02 % of the picture)."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(solid.astype(np.uint8), connectivity=8)
    if count > 1:
        areas = stats[:, cv2.CC_STAT_AREA].copy()
        areas[0] = 0
        solid = (areas >= max(0.003 * areas.max(), 12))[labels]
    count, labels, stats, _ = cv2.connectedComponentsWithStats((~solid).astype(np.uint8), connectivity=4)
    return solid | (stats[:, cv2.CC_STAT_AREA] < max(12, 2e-4 * solid.size))[labels] & ~solid
