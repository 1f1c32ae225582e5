# SPDX-License-Identifier: Apache-2.0
"""nvdiffrast behind our four functions, where tensors are on CUDA and a user has installed it. Not run here: no GPU.

Its licence allows non-commercial use only, so Bozzetto never installs or needs it; without it, CUDA tensors are copied to the
CPU kernels and back. Its picture has y up and row 0 at the bottom, ours y down and row 0 at the top: both put row 0 at
y = -1 in memory, so nothing is flipped. Its texture's first row is v = 0, as ours.

Differs from our kernels: its rast carries the gradient of the barycentrics, so it must not be detached; it looks for
silhouettes on the nearer face only; its sums run in no fixed order; it works in float32.
"""

from __future__ import annotations

import functools
import importlib.util
from typing import Any

import torch
from torch import Tensor


def is_usable(tensor: Tensor) -> bool:
    """Is this tensor on CUDA, and nvdiffrast installed?"""
    return tensor.is_cuda and importlib.util.find_spec("nvdiffrast") is not None


@functools.cache
def _context(device: torch.device) -> Any:
    import nvdiffrast.torch as dr

    return dr.RasterizeCudaContext(device=device)


def rasterize(clip: Tensor, faces: Tensor, size: tuple[int, int]) -> Tensor:
    """As `kernels.rasterize.rasterize`, but with a graph behind it."""
    import nvdiffrast.torch as dr

    rast: Tensor = dr.rasterize(_context(clip.device), clip.float().contiguous(), faces.int().contiguous(), list(size))[0]
    return rast


def interpolate(attributes: Tensor, rast: Tensor, clip: Tensor, faces: Tensor) -> Tensor:
    """As `kernels.interpolate.interpolate`; `faces` are the attributes' own."""
    import nvdiffrast.torch as dr

    if clip.requires_grad and torch.is_grad_enabled() and not rast.requires_grad:
        raise ValueError("interpolate: clip needs a gradient, but nvdiffrast's rast was detached from it; keep rast's graph")
    out: Tensor = dr.interpolate(attributes.float().contiguous(), rast, faces.int().contiguous())[0]
    return out.to(attributes.dtype)


def texture(image: Tensor, uv: Tensor, mode: str) -> Tensor:
    """As `kernels.texture.texture`."""
    import nvdiffrast.torch as dr

    out: Tensor = dr.texture(image.float().contiguous(), uv.float().contiguous(), filter_mode="linear", boundary_mode=mode)
    return out.to(image.dtype)


def antialias(colour: Tensor, rast: Tensor, clip: Tensor, faces: Tensor) -> Tensor:
    """As `kernels.antialias.antialias`."""
    import nvdiffrast.torch as dr

    out: Tensor = dr.antialias(colour.float().contiguous(), rast.detach(), clip.float().contiguous(), faces.int().contiguous())
    return out.to(colour.dtype)
