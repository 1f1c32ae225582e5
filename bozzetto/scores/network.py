# SPDX-License-Identifier: Apache-2.0
"""The noise-conditional score network of NCSN: a RefineNet with dilations, conditional on the level by its normalisation alone.

One network for all levels. Source: Song & Ermon 2019 (arXiv:1907.05600), App. A; RefineNet: Lin et al. 2017 (arXiv:1611.06612).
The paper has 4 cascades with 1, 2, 2, 2 times 128 channels (64 for digits), dilations 1, 1, 2, 4; picture sides divide by 2 patch.

Letters: B pictures, C channels, H W pixels, L levels, level 0 the largest sigma.
Differs from the released code: InstanceNorm++ adds alpha * m^ after the scale gamma, as the paper writes it; there gamma
multiplies both. The 1 / sigma of NCSNv2 is an option.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConditionalInstanceNorm(nn.Module):
    """InstanceNorm++: y = gamma (x - mu) / s + beta + alpha (mu - m) / v, a row (gamma, alpha, beta) for each level.

    mu, s are a channel's mean and deviation in one picture; m, v the mean and deviation of mu over channels. Without the last
    term a picture's channel means, its colours, would be erased.
    """

    def __init__(self, C: int, L: int, *, generator: torch.Generator | None) -> None:
        super().__init__()
        self.gamma = nn.Parameter(1 + 0.02 * torch.randn(L, C, generator=generator))
        self.alpha = nn.Parameter(1 + 0.02 * torch.randn(L, C, generator=generator))
        self.beta = nn.Parameter(torch.zeros(L, C))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """x (B, C, H, W), level (B,) int64; shape of x."""
        mu = x.mean((2, 3))
        spread = mu.var(1, keepdim=True, unbiased=x.shape[1] > 1)
        means = (mu - mu.mean(1, keepdim=True)) / (spread + 1e-5).sqrt()  # 1e-5 as in all its kin: a flat picture has no spread
        gamma, alpha, beta = self.gamma[level], self.alpha[level], self.beta[level]
        return F.instance_norm(x) * gamma[..., None, None] + (beta + alpha * means)[..., None, None]


def _conv(inputs: int, outputs: int, size: int = 3, dilation: int = 1, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=dilation * (size // 2), dilation=dilation, bias=bias)


class Block(nn.Module):
    """Residual: norm, ELU, convolution, twice; widened and dilated, or halved by mean pooling."""

    def __init__(self, inputs: int, outputs: int, L: int, dilation: int, is_halved: bool, generator: torch.Generator | None) -> None:
        super().__init__()
        self.norm_1 = ConditionalInstanceNorm(inputs, L, generator=generator)
        self.norm_2 = ConditionalInstanceNorm(outputs, L, generator=generator)
        self.conv_1, self.conv_2 = _conv(inputs, outputs, dilation=dilation), _conv(outputs, outputs, dilation=dilation)
        self.shortcut = _conv(inputs, outputs, 1) if inputs != outputs or is_halved else nn.Identity()
        self.is_halved = is_halved

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        h = self.conv_1(F.elu(self.norm_1(x, level)))
        h = self.conv_2(F.elu(self.norm_2(h, level)))
        total = h + self.shortcut(x)
        return F.avg_pool2d(total, 2) if self.is_halved else total


class Unit(nn.Module):
    """RefineNet's residual convolution unit, twice: norm, ELU, convolution, two times over, added to its input."""

    def __init__(self, C: int, L: int, generator: torch.Generator | None) -> None:
        super().__init__()
        self.norms = nn.ModuleList(ConditionalInstanceNorm(C, L, generator=generator) for _ in range(4))
        self.convs = nn.ModuleList(_conv(C, C, bias=False) for _ in range(4))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        for i in (0, 2):
            h = self.convs[i](F.elu(self.norms[i](x, level)))
            x = x + self.convs[i + 1](F.elu(self.norms[i + 1](h, level)))
        return x


class Refine(nn.Module):
    """One cascade: its inputs through units, brought to one size and summed; chained pooling; a last unit."""

    def __init__(self, inputs: tuple[int, ...], C: int, L: int, generator: torch.Generator | None) -> None:
        super().__init__()
        self.units = nn.ModuleList(Unit(c, L, generator) for c in inputs)
        self.norms = nn.ModuleList(ConditionalInstanceNorm(c, L, generator=generator) for c in inputs)
        self.fuse = nn.ModuleList(_conv(c, C) for c in inputs)
        self.pool_norms = nn.ModuleList(ConditionalInstanceNorm(C, L, generator=generator) for _ in range(2))
        self.pool_convs = nn.ModuleList(_conv(C, C, bias=False) for _ in range(2))
        self.last = Unit(C, L, generator)

    def forward(self, xs: list[Tensor], level: Tensor) -> Tensor:
        """The first of xs is the finest; the result has its size."""
        total: Tensor | None = None
        for x, unit, norm, conv in zip(xs, self.units, self.norms, self.fuse, strict=True):
            h = conv(norm(unit(x, level), level))
            h = F.interpolate(h, xs[0].shape[-2:], mode="bilinear", align_corners=True) if h.shape[-2:] != xs[0].shape[-2:] else h
            total = h if total is None else total + h
        assert total is not None
        x = F.elu(total)
        path = x
        for norm, conv in zip(self.pool_norms, self.pool_convs, strict=True):
            path = conv(F.avg_pool2d(norm(path, level), 5, 1, 2))
            x = x + path
        return self.last(x, level)


class NCSN(nn.Module):
    """s(x, level), what `ScoreDenoiser` takes.

    channels  of the pictures, values in [0, 1]; the network itself sees 2 x - 1
    C         filters of the first cascade; the others have 2 C
    sigmas    (L,) descending, only where the output is divided by sigma, as NCSNv2 has it; else L levels and no division
    patch     the network sees patch x patch pixels as channels: not the paper's, but it fits 4 C filters in the time of C
    """

    def __init__(
        self, channels: int, C: int, L: int, sigmas: Tensor | None = None, *, patch: int = 1, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.patch, channels = patch, channels * patch**2
        if sigmas is not None and len(sigmas) != L:
            raise ValueError(f"sigmas: expected one for each of {L} levels, got {len(sigmas)}")
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(L) if sigmas is None else 1 / sigmas.float(), persistent=False)
        self.first = _conv(channels, C)
        widths = (C, 2 * C, 2 * C, 2 * C)
        blocks = []
        for i, (inputs, outputs, dilation) in enumerate(zip((C, *widths), widths, (1, 1, 2, 4), strict=False)):
            blocks.append(Block(inputs, outputs, L, dilation, i == 1, generator))
            blocks.append(Block(outputs, outputs, L, dilation, False, generator))
        self.blocks = nn.ModuleList(blocks)
        self.refines = nn.ModuleList(
            Refine(inputs, out, L, generator)
            for inputs, out in [((2 * C,), 2 * C), ((2 * C, 2 * C), 2 * C), ((2 * C, 2 * C), C), ((C, C), C)]
        )
        self.norm = ConditionalInstanceNorm(C, L, generator=generator)
        self.last = _conv(C, channels)
        for conv in (m for m in self.modules() if isinstance(m, nn.Conv2d)):  # PyTorch's own initialisation, from our generator
            nn.init.kaiming_uniform_(conv.weight, math.sqrt(5), generator=generator)
            if conv.bias is not None:
                nn.init.uniform_(
                    conv.bias, -1 / math.sqrt(conv.weight[0].numel()), 1 / math.sqrt(conv.weight[0].numel()), generator=generator
                )

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """x (B, channels, H, W), H and W even; level (B,) int64, 0 the largest sigma; the score, shape of x."""
        divisor = 2 * self.patch
        if x.ndim != 4 or x.shape[-1] % divisor or x.shape[-2] % divisor or level.shape != x.shape[:1]:
            sides = "even sides" if divisor == 2 else f"sides that {divisor} divides"
            raise ValueError(f"x: expected (B, C, H, W) with {sides} and a level each, got {tuple(x.shape)} and {tuple(level.shape)}")
        h = self.first(F.pixel_unshuffle(2 * x - 1, self.patch))
        cascades = []
        for i in range(0, 8, 2):
            h = self.blocks[i + 1](self.blocks[i](h, level), level)
            cascades.append(h)
        h = self.refines[0]([cascades[3]], level)
        for refine, cascade in zip(list(self.refines)[1:], cascades[2::-1], strict=True):
            h = refine([cascade, h], level)
        return F.pixel_shuffle(self.last(F.elu(self.norm(h, level))), self.patch) * self.scale[level].view(-1, 1, 1, 1)
