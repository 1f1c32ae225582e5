# SPDX-License-Identifier: Apache-2.0
"""How wrong the colours are of what the picture does not show.

Points of the true surface (`metrics.Solid`: what is visible from outside) that the picture's camera does not see are compared with the
model's nearest surface point after alignment. Colours are those that pictures for judging have (`shots.drawn`): a `Drawable`'s base
colours under even light, a `Mesh`'s texture as it is. The distance is that of CIE Lab's a and b, so that brightness, which the
picture's light has a part in, does not count; the yardstick is one colour everywhere, the mean of the pixels that the object covers whole.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree

from bozzetto import image
from bozzetto.data.renders import Drawable, render
from bozzetto.evaluate.metrics import Solid
from bozzetto.evaluate.shots import Model, Shot
from bozzetto.kernels import pool
from bozzetto.kernels.deferred import albedos
from bozzetto.kernels.texture import texture

SLACK = 0.01  # longest sides by which a point may lie behind what the picture sees, beside the slope within a pixel


def chroma_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distances (P,) of sRGB colours (P, 3) and (P, 3) or (3,) in CIE Lab's a and b."""
    return np.linalg.norm(image.lab(a)[..., 1:] - image.lab(b)[..., 1:], axis=-1)


def one_colour(shot: Shot) -> np.ndarray:
    """Mean sRGB (3,) of the pixels that the object covers whole, or of the most covered ones where no pixel is."""
    alpha = shot.picture[..., 3]
    return shot.picture[alpha == alpha.max()][:, :3].mean(0) / 255


def hidden_from(shot: Shot, d: Drawable, truth: Solid) -> np.ndarray:
    """(P,) bool: which points of the true surface lie behind what the picture's camera sees in their pixel."""
    h, w = shot.camera.size
    depth = render(d, shot.camera, supersample=1).depth[0, ..., 0].numpy()
    pixel, z = (x[0].numpy() for x in shot.camera.project(torch.from_numpy(truth.points)))
    i, j = np.floor(pixel).astype(np.int64).T
    inside = (i >= 0) & (i < w) & (j >= 0) & (j < h)
    front = np.where(inside, depth[j.clip(0, h - 1), i.clip(0, w - 1)], 0)
    eye = shot.camera.position[0].numpy() - truth.points
    cosine = np.abs((truth.normals * eye).sum(1)) / np.linalg.norm(eye, axis=1)
    slope = np.sqrt((1 - cosine**2).clip(0)) / cosine.clip(0.1)
    return (front > 0) & (z > front + SLACK / truth.scale + 1.5 * z / float(shot.camera.K[0, 0, 0]) * slope)


def colours(model: Model, s: Solid, level: float = 1.0) -> np.ndarray:
    """sRGB (P, 3) at a solid's points; level: linear brightness of a `Drawable`'s base colours. Grey for a mesh without a texture."""
    if isinstance(model, Drawable):
        base = np.empty((len(s.face), 3))
        pool.run(albedos, len(base), s.face, s.bary, *model.surface(), base, grain=4096)
        linear = np.where(base <= 0.04045, base / 12.92, ((base + 0.055) / 1.055) ** 2.4) * level
        return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clip(0, 1) ** (1 / 2.4) - 0.055)
    if model.texture is None or model.uv is None:
        return np.full((len(s.face), 3), 0.5)
    weight = torch.from_numpy(np.concatenate([s.bary, 1 - s.bary.sum(1, keepdims=True)], 1))
    uv = (model.uv[model.faces[torch.from_numpy(s.face).long()]] * weight[..., None]).sum(1)
    return texture(model.texture[None], uv.float()[None, None], mode="clamp")[0, 0].double().numpy()


def hidden_colour(mine: Solid, own: np.ndarray, truth: Solid, wanted: np.ndarray, hidden: np.ndarray, s: float, t: np.ndarray) -> float:
    """Mean chroma distance at the truth's hidden points; NaN where there is none.

    mine, own      the model's solid and its colours (P, 3) there; truth, wanted likewise
    hidden         (P,) of the truth's points
    s, t           scale and translation (3,) that align the model
    """
    if not hidden.any():
        return float("nan")
    nearest = cKDTree(s * mine.points + t).query(truth.points[hidden])[1]
    return float(chroma_distance(own[nearest], wanted[hidden]).mean())
