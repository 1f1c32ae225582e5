# SPDX-License-Identifier: Apache-2.0
"""Colours and coverage along an object's outline, where the picture shows object and background mixed.

source  the pyramid of `push_pull`: Gortler, Grzeszczuk, Szeliski & Cohen 1996
"""

from __future__ import annotations

import cv2
import numpy as np


def push_pull(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Fill in (H, W, C) where weight (H, W) is small, from the nearest pixels that have weight, by a pyramid (Gortler 1996)."""
    h, w = weight.shape
    here = np.minimum(weight, 1)[..., None]
    mean = values * (weight > 0)[..., None]
    if min(h, w) <= 2 or (weight >= 1).all():
        total = float(weight.sum())
        rest = (values * weight[..., None]).sum((0, 1)) / total if total > 0 else values.mean((0, 1))
        return (here * mean + (1 - here) * rest).astype(np.float32)
    size = ((w + 1) // 2, (h + 1) // 2)
    sums = cv2.pyrDown(np.dstack([values * weight[..., None], weight]), dstsize=size)
    coarse_weight = np.maximum(sums[..., -1], 0)
    coarse = push_pull(sums[..., :-1] / np.maximum(coarse_weight, 1e-30)[..., None], np.where(coarse_weight > 1e-30, 4 * coarse_weight, 0))
    return (here * mean + (1 - here) * cv2.resize(coarse, (w, h), interpolation=cv2.INTER_LINEAR)).astype(np.float32)


def unmix(rgb: np.ndarray, solid: np.ndarray, *, inner: int, outer: int) -> np.ndarray:
    """Alpha along the outline from I = alpha F + (1 - alpha) B, in a band of `inner` pixels inside and `outer` outside."""
    s = solid.astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    core = cv2.erode(s, kernel, iterations=inner, borderValue=1)
    thin = (s > 0) & (cv2.dilate(core, kernel, iterations=inner + 1) == 0)
    outside = cv2.dilate(s, kernel, iterations=outer) == 0
    if not outside.any():
        return s.astype(np.float32)
    B = push_pull(rgb, outside.astype(np.float32))
    distance = np.sqrt(((rgb - B) ** 2).sum(-1))
    crest = cv2.dilate(np.where(solid, distance, 0), np.ones((2 * inner + 1, 2 * inner + 1), np.uint8))
    purest = thin & (distance >= 0.9 * crest)  # a leg thinner than the band has no core: its most distinct pixels are its colour
    F = push_pull(rgb, ((core > 0) | purest).astype(np.float32))
    axis = F - B
    length2 = (axis**2).sum(-1)
    along = ((rgb - B) * axis).sum(-1) / np.maximum(length2, 1e-8)
    off = np.sqrt(((rgb - B - along[..., None] * axis) ** 2).sum(-1))
    trust = length2 / (length2 + 0.05**2) * np.exp(-((off / (0.35 * np.sqrt(length2) + 0.02)) ** 2))  # is it a mixture of the two?
    guess = cv2.GaussianBlur(s.astype(np.float32), (0, 0), 0.7)
    alpha = trust * along.clip(0, 1) + (1 - trust) * guess
    alpha = np.where(alpha > 0.95, 1, np.where(alpha < 0.05, 0, alpha))
    alpha = np.where((core > 0) | purest, 1, np.where(outside, 0, alpha))
    return alpha.astype(np.float32)
