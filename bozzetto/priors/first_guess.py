# SPDX-License-Identifier: Apache-2.0
"""The embedded shape prior: from one picture to the solid behind it, in one pass.

A U-Net reads the crop and predicts, for each 2 x 2 block of pixels, the occupancy of `depths` cells along its ray: the
frustum grid of `bozzetto.frustum`, which is aligned with the picture, so that what the picture shows is copied and
only what it hides must be imagined. An occupancy that is unsure smears the surface, so the depth at which each ray enters
the solid and how thick it is there are predicted, too: what the occupancy expects, corrected. Beside them a coarse grid of
colours for what is not seen, and two numbers about the camera: its elevation and its perspective p. Kin of the feed-forward
half of One-2-3-45 (arXiv:2306.16928) and of DMTet's initial field (arXiv:2111.04276), with the volume laid along the rays.

Letters: B pictures, S pixels a side, D depths.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bozzetto.frustum import DEPTH_RANGE
from bozzetto.priors import small

LEVEL = -1.0  # logit above which a cell counts as solid: the network is calibrated, and IoU is best below 1/2 (tuned on validation)


@dataclass(frozen=True)
class FirstGuessConfig:
    """The network's shape; written beside the weights, from which it is built again."""

    widths: tuple[int, int, int, int] = (32, 64, 128, 192)
    """channels at 1/2, 1/4, 1/8 and 1/16 of the picture"""
    blocks: tuple[int, int, int] = (2, 3, 3)
    """residual blocks on the way down at 1/4, 1/8 and 1/16"""
    depths: int = 64
    colour_depths: int = 12
    heads: int = 6


@dataclass(frozen=True)
class Guess:
    """What lies behind B pictures.

    occupancy  (B, D, S/2, S/2) logits; depth d covers t in DEPTH_RANGE * (2 [d, d + 1] / D - 1)
    surface    (B, 2, S/2, S/2): where the ray enters the solid, in cells from the first one's near face, and how thick it is there
    colour     (B, 3, d, S/4, S/4) sRGB in [0, 1], over the same frustum, coarser
    view       (B, 2): elevation in radians, p
    """

    occupancy: Tensor
    surface: Tensor
    colour: Tensor
    view: Tensor

    def colour_at(self, points: Tensor) -> Tensor:
        """Colours (B, N, 3) at frustum coordinates (B, N, 3)."""
        return colour_at(self.colour, points)


def colour_at(colour: Tensor, points: Tensor) -> Tensor:
    """Of a colour grid (B, 3, d, h, w) over the frustum, at its coordinates (B, N, 3): (B, N, 3), trilinear; outside, the border's."""
    u, v, t = points.unbind(-1)
    grid = torch.stack([2 * u - 1, 2 * v - 1, t / DEPTH_RANGE], -1)[:, :, None, None]
    found = F.grid_sample(colour.float(), grid.to(colour.device).float(), align_corners=False, padding_mode="border")
    return found[..., 0, 0].mT


class Residual(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))))))."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, inner), nn.Conv2d(inner, outer, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(8, outer), nn.Conv2d(outer, outer, 3, padding=1)
        self.skip = nn.Conv2d(inner, outer, 1) if inner != outer else nn.Identity()
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(nn.Module):
    """Every cell looks at every other: the back of a chair is where its seat ends."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.qkv, self.out = nn.GroupNorm(8, width), nn.Conv2d(width, 3 * width, 1), nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w).transpose(-1, -2).unbind(1)
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(-1, -2).reshape(b, c, h, w))


class FirstGuess(nn.Module):
    """(B, 4, S, S) premultiplied sRGB and alpha in [0, 1], S a multiple of 16, to a `Guess`."""

    def __init__(self, config: FirstGuessConfig = FirstGuessConfig()) -> None:
        super().__init__()
        self.config = config
        a, b, c, d = config.widths
        n1, n2, n3 = config.blocks
        self.stem = nn.Sequential(nn.Conv2d(6, a, 4, stride=2, padding=1), nn.SiLU(), nn.Conv2d(a, a, 3, padding=1), nn.SiLU())
        self.down1 = nn.Sequential(nn.Conv2d(a, b, 2, stride=2), *(Residual(b, b) for _ in range(n1)))
        self.down2 = nn.Sequential(nn.Conv2d(b, c, 2, stride=2), *(Residual(c, c) for _ in range(n2)), Attention(c, config.heads - 2))
        self.down3 = nn.Sequential(
            nn.Conv2d(c, d, 2, stride=2), Residual(d, d), Attention(d, config.heads), Residual(d, d), Attention(d, config.heads)
        )
        self.middle = nn.Sequential(*(Residual(d, d) for _ in range(n3 - 2)))
        self.up2, self.join2 = nn.Conv2d(d, c, 1), nn.Sequential(Residual(2 * c, c), Attention(c, config.heads - 2), Residual(c, c))
        self.up1, self.join1 = nn.Conv2d(c, b, 1), nn.Sequential(Residual(2 * b, b), Residual(b, b))
        self.head = nn.Sequential(nn.Conv2d(b + 4 * a, 2 * b, 1), Residual(2 * b, 2 * b), nn.GroupNorm(8, 2 * b), nn.SiLU())
        self.occupancy = nn.Conv2d(2 * b, 4 * config.depths, 1)
        self.surface = nn.Conv2d(2 * b, 4 * 2, 1)  # what the occupancy's medians are off by, in sixteenths of the depth
        self.colour = nn.Conv2d(2 * b, 3 * config.colour_depths, 1)
        self.view = nn.Sequential(nn.GroupNorm(8, d), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(d, 2))
        assert self.occupancy.bias is not None
        nn.init.constant_(self.occupancy.bias, -2.0)
        nn.init.zeros_(self.surface.weight)

    def forward(self, picture: Tensor) -> Guess:
        b, _, s, _ = picture.shape
        rows = torch.linspace(-1, 1, s, device=picture.device, dtype=picture.dtype)
        where = torch.stack([rows.view(1, -1).expand(s, s), rows.view(-1, 1).expand(s, s)]).expand(b, -1, -1, -1)
        grey = picture[:, :3] + 0.5 * (1 - picture[:, 3:])
        x0 = self.stem(torch.cat([2 * grey - 1, 2 * picture[:, 3:] - 1, where], 1))
        x1 = self.down1(x0)
        x2 = self.down2(x1)
        x3 = self.middle(self.down3(x2))
        y2 = self.join2(torch.cat([x2, F.interpolate(self.up2(x3), scale_factor=2.0)], 1))
        y1 = self.join1(torch.cat([x1, F.interpolate(self.up1(y2), scale_factor=2.0)], 1))
        y = self.head(torch.cat([y1, F.pixel_unshuffle(x0, 2)], 1))
        colour = torch.sigmoid(self.colour(y).float()).unflatten(1, (3, self.config.colour_depths))
        occupancy = F.pixel_shuffle(self.occupancy(y), 2)
        surface = medians(occupancy.detach()) + F.pixel_shuffle(self.surface(y), 2).float() * (self.config.depths / 16)
        return Guess(occupancy, surface, colour, self.view(x3).float())


def medians(occupancy: Tensor) -> Tensor:
    """(B, 2, h, w) from logits (B, D, h, w): the depth before which a ray has entered the solid as likely as not (given that it does
    enter), were cells independent, in cells; and the number of cells that the column is expected to fill, 1/2 at least."""
    logits = occupancy.float()
    entered = -torch.expm1(-F.softplus(logits).cumsum(1))  # 1 - prod(1 - p)
    half = entered[:, -1:] / 2
    cell = (entered < half).sum(1, keepdim=True).clamp(max=logits.shape[1] - 1)
    after = entered.gather(1, cell)
    before = torch.where(cell > 0, entered.gather(1, (cell - 1).clamp(min=0)), torch.zeros_like(after))
    front = cell + ((half - before) / (after - before).clamp(min=1e-9)).clamp(0, 1) - 0.5  # a full cell begins at its near face
    return torch.cat([front, torch.sigmoid(logits).sum(1, keepdim=True).clamp(min=0.5)], 1)


def load(folder: str | Path, *, device: str | torch.device = "cpu") -> FirstGuess:
    """The prior in a folder (`config.json`, `model.safetensors`), in float32, ready to ask.

    raises InputError, one sentence, for a missing, truncated, pickled or mis-shaped file
    """
    return small.load(folder, lambda settings: FirstGuess(FirstGuessConfig(**settings)), device, "point --guess at")


def save(network: FirstGuess, folder: str | Path) -> None:
    """Write the folder that `load` reads, float16, each file by rename."""
    small.save(network, network.config, folder)
