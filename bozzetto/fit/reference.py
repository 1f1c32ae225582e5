# SPDX-License-Identifier: Apache-2.0
"""The picture's own view beyond its colours: depth and normals against an estimate (`fit.estimates`), smooth normals, an eroded mask.
DreamCraft3D (arXiv:2310.16818), Eq. 3 and 4; Magic123 (arXiv:2306.17843), Sec. 3.1.

    depth    1 - rho(d, d^)        Pearson's correlation over the pixels that both know: it sees past every factor and shift
    normal   mean of 1 - cos(n, n^)
    smooth   mean |n - blur(n)|**2

Papers differ by factors: DreamCraft3D's text has -rho and -cos, which have the same gradients; Magic123's code half of both, (1 - rho) / 2
and (1 - cos) / 2: take half the weight. The paper's text says cov / (sigma sigma) with sigma "the variance"; deviations are meant.

Letters: S pixels a side; d (S, S) depth; n (S, S, 3) normals; N pixels of a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.camera import Camera, in_camera
from bozzetto.fit.estimates import Estimate
from bozzetto.fit.loop import Loss
from bozzetto.image import Crop
from bozzetto.shapes.shape import Shape, Step
from bozzetto.views import Views

FLAT = 1e-5  # of a depth's size: a deviation below is rounding of float32 (6e-8), times some hundred


def correlation(depth: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """Pearson's rho, a scalar in [-1, 1], of two maps (...) over a mask (...).

    Its gradient by depth is (z^ - rho z) / (N sigma), with z of mean 0 and deviation 1: it moves neither the mean of the depth nor its
    scale. Where one of the two is flat, or there are fewer than two pixels, rho is 0 and has no gradient.
    """
    a, b = depth[mask], wanted[mask]
    if len(a) < 2 or _is_flat(a) or _is_flat(b):
        return depth.new_zeros(()) * depth[:0].sum()
    a, b = a - a.mean(), b - b.mean()
    return (a @ b) / (a.norm() * b.norm())


def _is_flat(x: Tensor) -> bool:
    return float(x.detach().std(correction=0)) <= FLAT * float(x.detach().square().mean().sqrt())


def depth_loss(depth: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """1 - rho, in [0, 2]; 1 where nothing can be said."""
    return 1 - correlation(depth, wanted, mask)


def normal_loss(normal: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """Mean of 1 - cos, in [0, 2], over a mask (...) of vectors (..., 3) in one frame, of any length; those of none do not count.

    Its gradient by a normal is -(w - cos n) / (N |n|), with unit w and n: across the normal, never along it.
    """
    lengths = normal.norm(dim=-1), wanted.norm(dim=-1)
    known = mask & (lengths[0] > 1e-3) & (lengths[1] > 1e-3)
    if not known.any():
        return normal.new_zeros(()) * normal[:0].sum()
    return (1 - F.cosine_similarity(normal[known], wanted[known], dim=-1)).mean()


def blurred(normal: Tensor, side: int = 9) -> Tensor:
    """(S, S, 3) convolved with a Gaussian of side x side pixels, mirrored at the borders; its sigma by torchvision's rule."""
    sigma = 0.15 * side + 0.35
    at = torch.arange(side, dtype=normal.dtype, device=normal.device) - side // 2
    weights = (-(at**2) / (2 * sigma**2)).exp()
    weights = weights / weights.sum()
    x = F.pad(normal.movedim(-1, 0)[:, None], [side // 2] * 4, mode="reflect")
    return F.conv2d(F.conv2d(x, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))[:, 0].movedim(0, -1)


def smoothness(normal: Tensor, side: int = 9, *, follow: bool = False) -> Tensor:
    """Mean squared difference from the blurred map, Magic123's L_n.

    follow  let the gradient reach the blurred map, too, as the released code does; the paper stops it there
    """
    target = blurred(normal, side)
    return (normal - (target if follow else target.detach())).square().mean()


def variation(normal: Tensor) -> Tensor:
    """Mean squared difference of neighbours, down and across: what Magic123's released code adds to `smoothness`."""
    return (normal[1:] - normal[:-1]).square().mean() + (normal[:, 1:] - normal[:, :-1]).square().mean()


def eroded(mask: Tensor, side: int = 9) -> Tensor:
    """(S, S) bool: where a square of side x side pixels fits into a mask; side // 2 pixels go from each edge but the picture's own."""
    outside = (~mask).float()[None, None]
    return F.max_pool2d(outside, side, stride=1, padding=side // 2)[0, 0] == 0


def absolute_inside(side: int = 9) -> Callable[[Views, Crop], Tensor]:
    """For `Shown.colours`: mean absolute difference of colours over the eroded mask, DreamCraft3D's in its last stage; the outline's own
    mixture of object and background is left out."""

    def colours(views: Views, crop: Crop) -> Tensor:
        inside = eroded(crop.alpha > 0.5, side)
        return torch.where(inside[..., None], (views.rgb[0] - crop.rgb).abs(), 0).mean()

    return colours


@dataclass(frozen=True)
class Relief:
    """The picture's own view compared with an estimate: losses `depth`, `normal` and `normal_smooth`, those whose weight is not 0.

    estimate  of the crop; its size is that of the view
    camera    of the crop
    """

    estimate: Estimate
    camera: Camera
    depth: float = 0.0
    normal: float = 0.0
    smooth: float = 0.0

    def __post_init__(self) -> None:
        lacking = [k for k in ("depth", "normal") if getattr(self, k) and getattr(self.estimate, k) is None]
        if lacking:
            raise ValueError(f"estimate: it knows no {lacking[0]}; set that weight to 0, or ask another estimator")

    def __call__(self, shape: Shape, step: Step) -> Mapping[str, Loss]:
        e, camera = self.estimate, self.camera.resized(len(self.estimate.mask))
        views = shape.render(camera)
        both = e.mask & (views.alpha[0, ..., 0].detach() > 0.5)
        losses = {}
        if self.depth and e.depth is not None:
            losses["depth"] = Loss(self.depth, depth_loss(views.depth[0, ..., 0], e.depth, both))
        if self.normal and e.normal is not None:
            losses["normal"] = Loss(self.normal, normal_loss(in_camera(views.normal[0], camera), e.normal, both))
        if self.smooth:
            losses["normal_smooth"] = Loss(self.smooth, smoothness(views.normal[0]))
        return losses
