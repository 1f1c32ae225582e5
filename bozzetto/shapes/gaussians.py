# SPDX-License-Identifier: Apache-2.0
"""A shape made of Gaussians: what is learnt, how it is drawn, and what it starts from.

Kerbl et al. 2023 (arXiv:2308.04079). Stored are log_scales, logit_opacities and quaternions of any length; `shapes/densify.py`
changes how many Gaussians there are.

Letters: N Gaussians, K = 16 harmonics; `extent` is the scene's radius: the unit of position rates and of "small".
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from bozzetto.camera import Camera, to_opencv
from bozzetto.errors import InputError
from bozzetto.kernels import harmonics
from bozzetto.kernels.splat import Splats, splat
from bozzetto.views import Views

NAMES = ("means", "log_scales", "quats", "logit_opacities", "sh0", "sh")
RATES = {"means": 1.6e-4, "log_scales": 5e-3, "quats": 1e-3, "logit_opacities": 5e-2, "sh0": 2.5e-3, "sh": 2.5e-3 / 20}
FINAL_MEANS = 1.6e-6  # both times the scene's extent; the rate falls log-linearly from one to the other
ADAM_EPS = 1e-15
FIRST_OPACITY = 0.1
LEAST_SQUARE = 1e-7  # units of the world, squared: of the mean squared distance to neighbours, so that coincident points have a logarithm


class Gaussians(nn.Module):
    """N Gaussians.

    means            (N, 3), world
    log_scales       (N, 3), of the standard deviations
    quats            (N, 4), (w, x, y, z), of any length but 0
    logit_opacities  (N,)
    sh0, sh          (N, 1, 3) and (N, 15, 3), harmonics of degree 0, and of 1 to 3; `degree` says how many are in use
    """

    def __init__(self, means: Tensor, log_scales: Tensor, quats: Tensor, logit_opacities: Tensor, sh0: Tensor, sh: Tensor) -> None:
        super().__init__()
        n = len(means)
        given = dict(zip(NAMES, (means, log_scales, quats, logit_opacities, sh0, sh), strict=True))
        shapes = {"means": (n, 3), "log_scales": (n, 3), "quats": (n, 4), "logit_opacities": (n,), "sh0": (n, 1, 3), "sh": (n, 15, 3)}
        for name, tensor in given.items():
            if tuple(tensor.shape) != shapes[name]:
                raise ValueError(f"gaussians: expected {name} {shapes[name]}, got {tuple(tensor.shape)}")
            self.register_parameter(name, nn.Parameter(tensor.detach().clone().float()))
        self.degree = harmonics.DEGREE

    means: nn.Parameter
    log_scales: nn.Parameter
    quats: nn.Parameter
    logit_opacities: nn.Parameter
    sh0: nn.Parameter
    sh: nn.Parameter

    @classmethod
    def from_points(cls, points: Tensor, colours: Tensor) -> Gaussians:
        """One round Gaussian a point: as wide as the root mean square distance to its three nearest others, 3.2e-4 at least; opacity 0.1.

        points (N, 3), at least two; colours (N, 3) sRGB in [0, 1]
        """
        if len(points) < 2:
            raise InputError(f"{len(points)} points are too few to begin with; give at least 2, or start from random ones")
        near = cKDTree(points.double().numpy()).query(points.double().numpy(), k=min(4, len(points)))[0][:, 1:]
        width = torch.from_numpy((near**2).mean(1)).clamp(min=LEAST_SQUARE).sqrt().float()
        n = len(points)
        quats = torch.zeros(n, 4)
        quats[:, 0] = 1
        opacity = torch.logit(torch.full((n,), FIRST_OPACITY))
        sh0 = ((colours.float() - 0.5) / float(harmonics.basis(torch.zeros(3), 0)))[:, None]
        return cls(points.float(), width.log()[:, None].expand(n, 3), quats, opacity, sh0, torch.zeros(n, 15, 3))

    @classmethod
    def from_box(cls, count: int, half_side: float, *, generator: torch.Generator) -> Gaussians:
        """`count` random points in a cube round the origin with random colours: what the paper does without a reconstruction."""
        points = (2 * torch.rand(count, 3, generator=generator) - 1) * half_side
        return cls.from_points(points, torch.rand(count, 3, generator=generator))

    def __len__(self) -> int:
        return len(self.means)

    @property
    def scales(self) -> Tensor:
        """(N, 3) standard deviations."""
        return self.log_scales.exp()

    @property
    def opacities(self) -> Tensor:
        """(N,) in (0, 1)."""
        return self.logit_opacities.sigmoid()

    def draw(self, cameras: Camera, *, background: Tensor | None = None, antialiased: bool = False, geometry: bool = False) -> Splats:
        """Pictures and what densification wants to know; sRGB, gradients to all parameters. Perspective cameras only."""
        if cameras.is_orthographic:
            raise ValueError("gaussians: only perspective cameras can see Gaussians")
        c2w = to_opencv(cameras.c2w.double())
        R = c2w[:, :, :3].mT
        w2c = torch.cat([R, -R @ c2w[:, :, 3:]], 2)
        colours = torch.cat([self.sh0, self.sh[:, : (self.degree + 1) ** 2 - 1]], 1)
        return splat(
            self.means,
            self.quats,
            self.scales,
            self.opacities,
            colours,
            w2c,
            cameras.K.double(),
            cameras.size,
            background=background,
            antialiased=antialiased,
            geometry=geometry,
        )

    def render(self, cameras: Camera, *, only: str | None = None, antialiased: bool = False, median: bool = True) -> Views:
        """The shape as `Views`: premultiplied sRGB; the depth is the median where there is one and it is wanted, else the expected one.

        only  as `Shape.render`: of `alpha` and `colour`, depth and normals are zeros, and cost nothing
        """
        s = self.draw(cameras, antialiased=antialiased, geometry=only in (None, "depth"))
        if s.depth is None or s.normal is None:
            return Views(s.rgb, s.alpha, torch.zeros_like(s.alpha), torch.zeros_like(s.rgb), cameras)
        depth = s.depth if s.median is None or not median else torch.where(s.median > 0, s.median, s.depth)
        return Views(s.rgb, s.alpha, depth, s.normal, cameras)

    def tensors(self) -> dict[str, Tensor]:
        """Copies of what is learnt, by name; `Gaussians(**tensors)` is the inverse."""
        return {name: getattr(self, name).detach().clone() for name in NAMES}

    def moved(self, centre: Tensor, scale: float) -> Gaussians:
        """x -> (x - centre) scale, as a mesh is; `degree` is the highest again."""
        t = self.tensors()
        return Gaussians(**{**t, "means": (t["means"] - centre) * scale, "log_scales": t["log_scales"] + math.log(scale)})

    def groups(self, extent: float) -> Iterator[dict[str, object]]:
        """Adam's groups with the published rates; that of the means is times the scene's extent."""
        for name in NAMES:
            yield {"params": [getattr(self, name)], "lr": RATES[name] * (extent if name == "means" else 1), "name": name}

    def optimiser(self, extent: float) -> torch.optim.Adam:
        """Adam as published."""
        return torch.optim.Adam(list(self.groups(extent)), eps=ADAM_EPS)

    def replace_rows(self, optimiser: torch.optim.Adam, keep: Tensor, added: dict[str, Tensor] | None = None) -> None:
        """Keep the rows of an index or mask, then append; Adam's moments follow, and are 0 for what is new.

        keep    (N,) bool or (M,) int64; rows that come twice keep their moments
        added   by name, (A, ...) each
        """
        for group in optimiser.param_groups:
            name, old = group["name"], group["params"][0]
            new = old.detach()[keep]
            if added is not None:
                new = torch.cat([new, added[name].detach().to(new)])
            parameter = nn.Parameter(new.contiguous())
            if state := optimiser.state.pop(old, None):
                for moment in ("exp_avg", "exp_avg_sq"):
                    kept = state[moment][keep]
                    state[moment] = torch.cat([kept, kept.new_zeros(len(new) - len(kept), *kept.shape[1:])])
                optimiser.state[parameter] = state
            group["params"] = [parameter]
            setattr(self, name, parameter)


def means_rate(step: int, steps: int, extent: float) -> float:
    """The published rate of the means at a step: log-linear from 1.6e-4 to 1.6e-6, times the extent."""
    share = min(max(step / steps, 0.0), 1.0)
    return float(extent * RATES["means"] ** (1 - share) * FINAL_MEANS**share)


def scene_extent(cameras: Camera) -> float:
    """1.1 times the largest distance of a camera from the cameras' mean, as published."""
    position = cameras.position
    return 1.1 * max(float((position - position.mean(0)).norm(dim=-1).max()), 1e-6)
