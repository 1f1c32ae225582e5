# SPDX-License-Identifier: Apache-2.0
"""SyncDreamer's volume (Liu et al. 2023, arXiv:2309.03453, Sec. 3.3): what sixteen noisy views know of each other.

    x_t of each view --ViewEncoder--> features --unproject--> a cube's vertices, views side by side --UNet3d--> volume
    volume --frustum_points--> what one view looks through --UNet3d--> its levels --DepthTransformer--> that view's U-Net

The volume is made once a step, of all views; a view asks it for its own frustum. Views stand side by side in its channels, so that it
knows them by their place: view 0 must be the one at the picture's azimuth, and the others must follow counter-clockwise.

What the released code does and the paper does not say: pixel (i, j) of a w-wide grid of features is looked up at i = u, where u = 0 is
the grid's left *border*, so that all is half a cell off (the centre of the cube lands on cell w / 2, the middle is (w - 1) / 2). Weights
have learnt with it; `half_pixel` is the right rule, for new ones. A cube's axes are (z, y, x) in a tensor. No vertex is behind a camera,
since half of the cube's diagonal is shorter than the distance, so that the released code's least depth of 1e-4 is not needed here.

Letters: B samples, V views of each, n of them asked for, C channels, h w cells of a latent, N vertices of the cube along each axis,
D depths of a frustum, T and P numbers of the time and of a pose, F features of a cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bozzetto.camera import Camera, orbit

ELEVATION, DISTANCE = math.radians(30), 1.5
FOV = 2 * math.atan(128 / 280)  # a focal length of 280 pixels, of 256
HALF, REACH = 0.5, 0.86603  # of the cube's side; of a frustum's depths, before and behind the centre: sqrt(3) / 2
GROUPS = 8  # of all norms
HEADS = 4


def ring(views: int, size: int, azimuth: float = 0.0) -> Camera:
    """The cameras that are drawn from, round an object whose longest side is 1: the first at an azimuth, the others on counter-clockwise;
    radians, `size` pixels a side."""
    return orbit([azimuth + 2 * math.pi * k / views for k in range(views)], ELEVATION, DISTANCE, size=size, fov=FOV)


@dataclass(frozen=True)
class VolumeConfig:
    """Sizes of a `Volume`; the defaults are the published ones.

    views, channels, size  V, C, and cells of a latent a side, which are a frustum's, too
    time, pose         T, P
    width, features    of the encoder's layers, and F
    volume, frustum    channels of both networks, level by level
    cells, depths      N, D; they and `size` are multiples of 8
    half_pixel         whether features are looked up where they are, or half a cell off as published
    raises             ValueError for other multiples
    """

    views: int = 16
    channels: int = 4
    size: int = 32
    time: int = 256
    pose: int = 4
    width: int = 16
    features: int = 16
    volume: tuple[int, ...] = (64, 128, 256, 512)
    frustum: tuple[int, ...] = (64, 128, 256, 512)
    cells: int = 32
    depths: int = 48
    half_pixel: bool = False

    def __post_init__(self) -> None:
        if any(n % 8 for n in (self.size, self.cells, self.depths)):
            raise ValueError(f"volume: expected multiples of 8, got size {self.size}, cells {self.cells}, depths {self.depths}")

    @property
    def cameras(self) -> Camera:
        """In the volume's frame, whose azimuth 0 is the picture's; a pixel is a cell of a latent."""
        return ring(self.views, self.size)


def looked_up(cameras: Camera, points: Tensor, half_pixel: bool) -> Tensor:
    """Where points (M, 3) are in pictures of the cameras, (V, M, 2), x then y, as `grid_sample` with aligned corners counts: the centres
    of the first and last pixel are -1 and 1."""
    pixels, _ = cameras.project(points)
    return (pixels - 0.5 * half_pixel) / ((cameras.size[0] - 1) / 2) - 1


def vertices(cells: int) -> Tensor:
    """Of the cube, (N, N, N, 3) float64, the world's (x, y, z) at [z, y, x]."""
    line = torch.linspace(-HALF, HALF, cells, dtype=torch.float64)
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    return torch.stack([x, y, z], -1)


def unproject(features: Tensor, cameras: Camera, cells: int, half_pixel: bool) -> Tensor:
    """What each view shows of each vertex, (B, V F, N, N, N), of features (B, V, F, h, w); zeros outside a picture."""
    b = len(features)
    at = looked_up(cameras, vertices(cells).view(-1, 3), half_pixel).float().to(features.device)
    seen = F.grid_sample(features.flatten(0, 1).float(), at.repeat(b, 1, 1)[:, None], align_corners=True)
    return seen.view(b, -1, cells, cells, cells).to(features.dtype)


def frustum_points(cameras: Camera, depths: int, half_pixel: bool) -> Tensor:
    """World points (V, D, h, w, 3) float64 behind each pixel of each camera, at even depths along its axis round the world's origin."""
    at = cameras.pixel_centres() - 0.5 * (not half_pixel)
    depth = DISTANCE + torch.linspace(-REACH, REACH, depths, dtype=torch.float64)
    shape = (len(cameras), depths, *cameras.size)
    return cameras.unproject(at.expand(*shape, 2), depth.view(1, -1, 1, 1).expand(shape))


def look_through(volume: Tensor, cameras: Camera, depths: int, half_pixel: bool) -> Tensor:
    """What is in a volume (B, ., N, N, N) at `frustum_points` of n cameras, (B n, ., D, h, w), sample by sample; zeros outside the cube."""
    at = (frustum_points(cameras, depths, half_pixel) / HALF).float().to(volume.device)
    seen = F.grid_sample(volume.float().repeat_interleave(len(at), 0), at.repeat(len(volume), 1, 1, 1, 1), align_corners=True)
    return seen.to(volume.dtype)


class ViewBlock(nn.Module):
    """x (B, F, h, w), and what two convolutions make of it under a time (B, T) and a pose (B, P)."""

    def __init__(self, width: int, time: int, pose: int) -> None:
        super().__init__()
        self.time, self.pose = nn.Conv2d(time, width, 1), nn.Conv2d(pose, width, 1)
        self.norm_1, self.conv_1 = nn.GroupNorm(GROUPS, width), nn.Conv2d(width, width, 3, padding=1)
        self.norm_2, self.conv_2 = nn.GroupNorm(GROUPS, width), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor, pose: Tensor) -> Tensor:
        told = x + self.time(time[..., None, None]) + self.pose(pose[..., None, None])
        y: Tensor = x + self.conv_2(F.silu(self.norm_2(self.conv_1(F.silu(self.norm_1(told))))))
        return y


class ViewEncoder(nn.Module):
    """Noisy latents (B, C, h, w) to features (B, F, h, w)."""

    def __init__(self, config: VolumeConfig) -> None:
        super().__init__()
        width = config.width
        self.first = nn.Conv2d(config.channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(ViewBlock(width, config.time, config.pose) for _ in range(3))
        self.norm, self.last = nn.GroupNorm(GROUPS, width), nn.Conv2d(width, config.features, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor, pose: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x, time, pose)
        y: Tensor = self.last(F.silu(self.norm(x)))
        return y


class Block3d(nn.Module):
    """Norm, SiLU and a convolution, at a stride or upwards, of x (B, ., d, h, w) with a time (B, T), and perhaps a pose (B, P), added."""

    def __init__(self, inputs: int, outputs: int, time: int, pose: int = 0, stride: int = 1, *, up: bool = False) -> None:
        super().__init__()
        self.time, self.pose = nn.Conv3d(time, inputs, 1), nn.Conv3d(pose, inputs, 1) if pose else None
        self.norm = nn.GroupNorm(GROUPS, inputs)
        if up:
            self.conv: nn.Module = nn.ConvTranspose3d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)
        else:
            self.conv = nn.Conv3d(inputs, outputs, 3, stride, padding=1)

    def forward(self, x: Tensor, time: Tensor, pose: Tensor) -> Tensor:
        x = x + self.time(time[..., None, None, None])
        if self.pose is not None:
            x = x + self.pose(pose[..., None, None, None])
        y: Tensor = self.conv(F.silu(self.norm(x)))
        return y


class UNet3d(nn.Module):
    """A U-Net of volumes, whose ways up add what the ways down had; each level has half the side of the one before.

    widths   channels of the levels
    repeats  blocks of a level behind the one that leads to it; the first level has one less
    """

    def __init__(self, inputs: int, widths: Sequence[int], time: int, pose: int = 0, *, repeats: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(inputs, widths[0], 3, padding=1)
        levels = [[Block3d(widths[0], widths[0], time, pose) for _ in range(repeats - 1)]]
        for before, width in pairwise(widths):
            rest = [Block3d(width, width, time, pose) for _ in range(repeats)]
            levels.append([Block3d(before, width, time, pose, 2), *rest])
        self.levels = nn.ModuleList(nn.ModuleList(level) for level in levels)
        self.ups = nn.ModuleList(Block3d(a, b, time, pose, up=True) for a, b in pairwise(reversed(widths)))

    def forward(self, x: Tensor, time: Tensor, pose: Tensor) -> list[Tensor]:
        """x (B, ., d, h, w) to all levels, the finest first; pose is not looked at by a network that was made without."""
        x, made = self.first(x), []
        for level in self.levels:
            for block in level:  # type: ignore[attr-defined]  # a ModuleList in a ModuleList
                x = block(x, time, pose)
            made.append(x)
        for k, up in enumerate(self.ups):
            made[-2 - k] = made[-2 - k] + up(made[-1 - k], time, pose)
        return made


class Volume(nn.Module):
    """All of the above, for views that stand on `config.cameras`."""

    def __init__(self, config: VolumeConfig = VolumeConfig()) -> None:
        super().__init__()
        self.config = c = config
        self.time_embed = nn.Sequential(nn.Linear(c.time, c.time), nn.SiLU(), nn.Linear(c.time, c.time))
        self.encoder = ViewEncoder(c)
        self.spatial = UNet3d(c.features * c.views, c.volume, c.time, repeats=2)
        self.frustum = UNet3d(c.volume[0], c.frustum, c.time, c.pose, repeats=1)

    def time(self, step: Tensor) -> Tensor:
        """(B, T) of the network's times (B,), whole or not."""
        from diffusers.models.embeddings import get_timestep_embedding

        waves = get_timestep_embedding(step, self.config.time, flip_sin_to_cos=True, downscale_freq_shift=0)
        y: Tensor = self.time_embed(waves.to(self.time_embed[0].weight))
        return y

    def synchronise(self, x_t: Tensor, time: Tensor, pose: Tensor) -> Tensor:
        """The volume (B, ., N, N, N) of all views' noisy latents (B, V, C, h, w), a time (B, T) and poses (B, V, P)."""
        b, v = x_t.shape[:2]
        features = self.encoder(x_t.flatten(0, 1), time.repeat_interleave(v, 0), pose.flatten(0, 1)).unflatten(0, (b, v))
        seen = unproject(features, self.config.cameras, self.config.cells, self.config.half_pixel)
        made: list[Tensor] = self.spatial(seen, time, pose)
        return made[0]

    def frustums(self, volume: Tensor, time: Tensor, pose: Tensor, views: Sequence[int]) -> dict[int, Tensor]:
        """What some views look through: by the cells a side of a level, (B n, ., D', h', w'), sample by sample.

        volume, time, pose  as `synchronise` has them
        """
        c = self.config
        seen = look_through(volume, c.cameras[views], c.depths, c.half_pixel)
        levels = self.frustum(seen, time.repeat_interleave(len(views), 0), pose[:, list(views)].flatten(0, 1))
        return {y.shape[-1]: y for y in levels}


class DepthAttention(nn.Module):
    """Each cell of x (B, ., h, w) looks at the depths behind it, context (B, ., D, h, w): 1 x 1 layers and a softmax over D."""

    def __init__(self, inner: int, context: int) -> None:
        super().__init__()
        self.to_q = nn.Conv2d(inner, inner, 1, bias=False)
        self.to_k, self.to_v = (nn.Conv3d(context, inner, 1, bias=False) for _ in range(2))
        self.to_out = nn.Conv2d(inner, inner, 1, bias=False)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = (f.unflatten(1, (HEADS, -1)) for f in (self.to_q(x), self.to_k(context), self.to_v(context)))
        shares = torch.einsum("bnchw,bncdhw->bndhw", q / math.sqrt(q.shape[2]), k).softmax(2)
        y: Tensor = self.to_out(torch.einsum("bndhw,bncdhw->bnchw", shares, v).flatten(1, 2))
        return y


class DepthTransformer(nn.Module):
    """A U-Net's activations (B, dim, h, w), and what they find in a frustum (B, context, D, h, w); begins as the identity.

    dim, inner, context  channels of the activations, of the attention and of the frustum
    """

    def __init__(self, dim: int, inner: int, context: int) -> None:
        super().__init__()
        self.proj_in = nn.Sequential(nn.Conv2d(dim, inner, 1), nn.GroupNorm(GROUPS, inner), nn.SiLU())
        self.proj_context = nn.Sequential(nn.Conv3d(context, context, 1, bias=False), nn.GroupNorm(GROUPS, context), nn.ReLU())
        self.depth_attn = DepthAttention(inner, context)
        last = nn.Conv2d(inner, dim, 3, padding=1, bias=False)
        nn.init.zeros_(last.weight)
        middle = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        norms = [nn.GroupNorm(GROUPS, inner) for _ in range(2)]
        self.proj_out = nn.Sequential(norms[0], nn.ReLU(), middle, norms[1], nn.ReLU(), last)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        y: Tensor = x + self.proj_out(self.depth_attn(self.proj_in(x), self.proj_context(context)))
        return y
