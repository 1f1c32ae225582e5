# SPDX-License-Identifier: Apache-2.0
"""Normals and colours as pictures of one sample: what priors draw that know both (Wonder3D, arXiv:2310.15008).

A sample holds V cameras twice: V pictures of normals, then V of colours. All normals are in the axes of the *first* camera, the front,
x right, y up, z towards it, also those that the other cameras see. A pixel is (n + 1) / 2; both kinds stand on white.

Letters: B samples, V views, H W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.camera import Camera, in_camera, in_world
from bozzetto.views import Views

INK, PAPER = 1.1, 1.5  # lengths of 2 pixel - 1: up to the one it is object, from the other on paper; a normal has 1, white 1.73


def to_pictures(views: Views, together: int) -> Tensor:
    """Pictures (B `together`, H, W, 3) float32 in [0, 1] of as many views, sample by sample: 2 V = `together` of them make a sample, the
    first V by their normals, the others by their colours; differentiable."""
    rgb, halves = views.over(1.0).clamp(0, 1), []
    for start in range(0, len(rgb), together):
        middle, end = start + together // 2, start + together
        halves += [normals_to_pictures(views[start:middle], views.cameras[start]), rgb[middle:end]]
    return torch.cat(halves).float()


def normals_to_pictures(views: Views, front: Camera) -> Tensor:
    """Pictures (V, H, W, 3) in [0, 1] of the normals of V views, in the axes of a front camera."""
    return (in_camera(views.normal, front) + 1) / 2 * views.alpha + 1 - views.alpha


def to_views(pictures: Tensor, cameras: Camera) -> Views:
    """The V views that the pictures (2 V, H, W, 3) of one sample show; cameras are its 2 V. Depth is not known, and 0.

    Outlines are those of the normals, which no colour hides: white is no normal. Between INK and PAPER a pixel is mixed with white, which
    is taken out of both. It counts as inside from a third of it on: sooner where its normal looks away from (1, 1, 1), later where there.
    """
    count = len(pictures) // 2
    encoded = 2 * pictures[:count] - 1
    alpha = ((PAPER - encoded.norm(dim=-1, keepdim=True)) / (PAPER - INK)).clamp(0, 1)
    normal = in_world(F.normalize(encoded - (1 - alpha), dim=-1), cameras[0]) * (alpha > 0)
    rgb = (pictures[count:] - (1 - alpha)).clamp(min=0).minimum(alpha)
    return Views(rgb, alpha, torch.zeros_like(alpha), normal, cameras[range(count)])
