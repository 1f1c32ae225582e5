# SPDX-License-Identifier: Apache-2.0
"""DDPM's U-Net: residual blocks conditional on the step, attention at chosen sizes, skips from every block down to one up.

Source: Ho, Jain & Abbeel 2020 (arXiv:2006.11239), App. B; the layout is that of its released code, to the last parameter:
`UNet(3, (128, 256, 256, 256), blocks=2, attend=(1,), groups=32)` has the 35,746,307 of its CIFAR-10 model (check DDPM-9).

Letters: B pictures, C channels, H W pixels; level 0 is the finest, each further one half its size.
Differs from the released code: a kernel that starts at 0 is exactly 0, not 1e-10; no dropout; and optionally the network sees
p x p patches as channels, which makes the costly top p**2 times cheaper (Luhman & Luhman 2022, arXiv:2207.04316).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def embedding(k: Tensor, C: int) -> Tensor:
    """(B, C) float32 sines, then cosines, of steps k (B,), whole or not, at C / 2 wavelengths from 2 pi to 10,000 times that."""
    half = C // 2
    rates = torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half, device=k.device, dtype=torch.float32))
    angles = k.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


class Block(nn.Module):
    """Norm, swish, convolution, the step added to each channel; norm, swish, convolution from 0; all added to the input."""

    def __init__(self, inputs: int, outputs: int, time: int, groups: int) -> None:
        super().__init__()
        self.norm_1, self.conv_1 = nn.GroupNorm(groups, inputs, eps=1e-6), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(time, outputs)
        self.norm_2, self.conv_2 = nn.GroupNorm(groups, outputs, eps=1e-6), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv_1(F.silu(self.norm_1(x))) + self.time(F.silu(time))[:, :, None, None]
        return self.shortcut(x) + self.conv_2(F.silu(self.norm_2(h)))


class Attention(nn.Module):
    """Every pixel asks every other, one head, added to the input."""

    def __init__(self, C: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, C, eps=1e-6)
        self.q, self.k, self.v, self.out = (nn.Conv2d(C, C, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (part(h).flatten(2).mT for part in (self.q, self.k, self.v))  # (B, H W, C)
        return x + self.out(F.scaled_dot_product_attention(q, k, v).mT.reshape(x.shape))


class UNet(nn.Module):
    """(x_t, k) to a prediction, what `VPDenoiser` and `ddpm.reverse` take.

    channels  of the pictures, and of the prediction unless `outputs` says otherwise (twice as many for a learned variance)
    widths    channels of each level; patch * 2**(len(widths) - 1) divides the pictures' sides
    blocks    residual blocks a level on the way down; one more on the way up
    attend    levels with attention after each block; the middle always has it
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        blocks: int = 2,
        attend: Sequence[int] = (),
        *,
        groups: int = 8,
        patch: int = 1,
        outputs: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.patch, self.widths, time = patch, tuple(widths), 4 * widths[0]
        self.time = nn.Sequential(nn.Linear(widths[0], time), nn.SiLU(), nn.Linear(time, time))
        self.first = nn.Conv2d(channels * patch**2, widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips = [C := widths[0]]
        for level, width in enumerate(widths):
            for _ in range(blocks):
                self.down.append(self._stage(C, width, time, groups, level in attend))
                skips.append(C := width)
            if level < len(widths) - 1:
                self.down.append(nn.Conv2d(C, C, 3, stride=2))  # padded below and right, as TensorFlow does
                skips.append(C)
        self.middle = nn.ModuleList([Block(C, C, time, groups), Attention(C, groups), Block(C, C, time, groups)])
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up.append(self._stage(C + skips.pop(), width, time, groups, level in attend))
                C = width
            if level > 0:
                self.up.append(nn.Conv2d(C, C, 3, padding=1))
        self.norm = nn.GroupNorm(groups, C, eps=1e-6)
        self.last = nn.Conv2d(C, (outputs or channels) * patch**2, 3, padding=1)
        self._start(generator)

    @staticmethod
    def _stage(inputs: int, outputs: int, time: int, groups: int, is_attending: bool) -> nn.ModuleList:
        block = Block(inputs, outputs, time, groups)
        return nn.ModuleList([block, Attention(outputs, groups)] if is_attending else [block])

    @torch.no_grad()
    def _start(self, generator: torch.Generator | None) -> None:
        """Uniform kernels of variance 2 / (inputs + outputs), biases 0; what ends a residual, and the last, exactly 0."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                if not module.weight.is_meta:  # sizes alone are counted on the meta device
                    nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        for module in self.modules():
            if isinstance(module, (Block, Attention, UNet)):
                ending = module.conv_2 if isinstance(module, Block) else module.out if isinstance(module, Attention) else module.last
                nn.init.zeros_(ending.weight)

    def forward(self, x_t: Tensor, k: Tensor) -> Tensor:
        """x_t (B, C, H, W), k (B,) in [0, T), whole or not; ValueError for sides that do not halve."""
        divisor = self.patch * 2 ** (len(self.widths) - 1)
        if x_t.ndim != 4 or x_t.shape[-1] % divisor or x_t.shape[-2] % divisor or k.shape != x_t.shape[:1]:
            raise ValueError(
                f"x_t: expected (B, C, H, W), sides multiples of {divisor}, a step each; got {tuple(x_t.shape)}, {tuple(k.shape)}"
            )
        time = self.time(embedding(k, self.widths[0]).to(x_t))
        x = self.first(F.pixel_unshuffle(x_t, self.patch))
        skips = [x]
        for stage in self.down:
            x = stage(F.pad(x, (0, 1, 0, 1))) if isinstance(stage, nn.Conv2d) else _through(stage, x, time)
            skips.append(x)
        x = _through(self.middle, x, time)
        for stage in self.up:
            if isinstance(stage, nn.Conv2d):
                x = stage(F.interpolate(x, scale_factor=2.0))
            else:
                x = _through(stage, torch.cat([x, skips.pop()], 1), time)
        return F.pixel_shuffle(self.last(F.silu(self.norm(x))), self.patch)


def _through(stage: nn.Module, x: Tensor, time: Tensor) -> Tensor:
    for part in stage.children():
        x = part(x, time) if isinstance(part, Block) else part(x)
    return x
