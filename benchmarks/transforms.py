# SPDX-License-Identifier: Apache-2.0
"""Cameras as NeRF-synthetic's `transforms.json` has them; `bozzetto.formats.transforms` reads it."""

from __future__ import annotations

import math
from typing import Any

import torch

from bozzetto.camera import Camera


def to_nerf_synthetic(camera: Camera) -> dict[str, Any]:
    """The content of the file (OpenGL axes, as ours; one field of view, centred, for all)."""
    f = camera.K[:, 0, 0]
    plain = torch.zeros_like(camera.K)
    plain[:, 0, 0] = plain[:, 1, 1] = f[0]
    plain[:, 0, 2], plain[:, 1, 2], plain[:, 2, 2] = camera.size[1] / 2, camera.size[0] / 2, 1
    if camera.is_orthographic or not torch.allclose(camera.K, plain):
        raise ValueError("transforms.json holds one field of view for all cameras, with square pixels, centred, and no orthographic ones")
    bottom = torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    frames = [{"file_path": f"r_{i}", "transform_matrix": torch.cat([m.cpu(), bottom]).tolist()} for i, m in enumerate(camera.c2w.double())]
    return {"camera_angle_x": 2 * math.atan(camera.size[1] / 2 / float(f[0])), "frames": frames}
