# SPDX-License-Identifier: Apache-2.0
"""U2-Net by its paper's figures, slowly: numpy in float64, blocks by recursion, convolutions by shifting the picture."""

from __future__ import annotations

import numpy as np

HEIGHTS = {"down1": 7, "down2": 6, "down3": 5, "down4": 4, "up4": 4, "up3": 5, "up2": 6, "up1": 7}  # down5, down6, up5: RSU-4F


def fused(x: np.ndarray, state: dict[str, np.ndarray]) -> np.ndarray:
    """(3, H, W), normalised, to (H, W) in [0, 1]; `state` holds float64 arrays under the names of `matting.u2net.U2Net`."""

    def deeper(x: np.ndarray, k: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Decoded features of level k and of all below it, finest first."""
        here = block(x if k == 1 else pool(x), f"down{k}", state)
        if k == 6:
            return here, [here]
        below, features = deeper(here, k + 1)
        decoded = block(np.concatenate([stretch(below, here.shape[1:]), here]), f"up{k}", state)
        return decoded, [decoded, *features]

    _, features = deeper(x, 1)
    maps = [stretch(conv(f, state, f"heads.{k}"), x.shape[1:]) for k, f in enumerate(features)]
    return 1 / (1 + np.exp(-conv(np.concatenate(maps), state, "fuse")[0]))


def block(x: np.ndarray, name: str, state: dict[str, np.ndarray]) -> np.ndarray:
    dilated, L = name not in HEIGHTS, HEIGHTS.get(name, 4)
    first = layer(x, state, f"blocks.{name}.first")

    def inner(x: np.ndarray, k: int) -> np.ndarray:
        if k == L - 1:
            return layer(x, state, f"blocks.{name}.bottom", 8 if dilated else 2)
        rate = 2**k if dilated else 1
        here = layer(pool(x) if k and not dilated else x, state, f"blocks.{name}.down.{k}", rate)
        below = stretch(inner(here, k + 1), here.shape[1:])
        return layer(np.concatenate([below, here]), state, f"blocks.{name}.up.{L - 2 - k}", rate)

    return first + inner(first, 0)


def layer(x: np.ndarray, state: dict[str, np.ndarray], name: str, rate: int = 1) -> np.ndarray:
    return np.maximum(conv(x, state, name, rate), 0)


def conv(x: np.ndarray, state: dict[str, np.ndarray], name: str, rate: int = 1) -> np.ndarray:
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    r = weight.shape[2] // 2 * rate
    padded = np.pad(x, ((0, 0), (r, r), (r, r)))
    out = np.zeros((len(weight), *x.shape[1:])) + bias[:, None, None]
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            shifted = padded[:, i * rate : i * rate + x.shape[1], j * rate : j * rate + x.shape[2]]
            out += np.tensordot(weight[:, :, i, j], shifted, 1)
    return out


def pool(x: np.ndarray) -> np.ndarray:
    h, w = x.shape[1:]
    x = np.pad(x, ((0, 0), (0, h % 2), (0, w % 2)), constant_values=-np.inf)
    return x.reshape(len(x), (h + 1) // 2, 2, (w + 1) // 2, 2).max((2, 4))


def stretch(x: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Bilinear, pixels' centres at one half, the border repeated."""
    for axis, n in ((1, size[0]), (2, size[1])):
        at = ((np.arange(n) + 0.5) * x.shape[axis] / n - 0.5).clip(0, x.shape[axis] - 1)
        low = np.floor(at).astype(int)
        high, t = np.minimum(low + 1, x.shape[axis] - 1), (at - low).reshape((-1, 1) if axis == 1 else (-1,))
        x = np.take(x, low, axis) * (1 - t) + np.take(x, high, axis) * t
    return x
