# SPDX-License-Identifier: Apache-2.0
"""The codec of the embedded priors: a linear transform in, the same transform and a small network out.

A KL autoencoder in diffusers' layout is what Stable Diffusion has, and folders with one are read as such (`components.vae`). At
this project's budget it is a bad choice: after 90,000 pictures it had 21 dB where principal components of 8 x 8 patches have 27
(`docs/priors.md`), because each of its stages must first learn to hand the picture on. Here what encodes *is* the principal
components: linear, so that distillation's gradient is that of a fixed basis. What decodes adds to the linear picture what a network
of residual blocks finds missing: edges that patches cut.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class CodecConfig:
    """channels of a latent, pixels a side of its cells (a power of 2), widths of the decoder at the cells and at twice as many,
    residual blocks at each, and what latents are multiplied by to have unit variance."""

    latent_channels: int = 12
    cell: int = 8
    widths: tuple[int, int] = (128, 48)
    blocks: tuple[int, int] = (4, 3)
    scaling_factor: float = 1.0


class Block(nn.Module):
    """x + conv(silu(conv(silu(x)))), the second zero at first. Without norms: absolute colours pass."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        assert self.conv2.bias is not None
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.conv2(F.silu(self.conv1(F.silu(x))))
        return y


class Exactly:
    """A latent as diffusers' posteriors are asked for it; this one has no spread."""

    def __init__(self, mean: Tensor) -> None:
        self.mean, self.std = mean, torch.zeros_like(mean)

    def mode(self) -> Tensor:
        return self.mean


class Named(dict[str, Any]):
    """A dict whose keys are attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class LinearCodec(nn.Module):
    """Pictures (B, 3, H, W) in [-1, 1] to latents (B, C, H / cell, W / cell) and back; called as diffusers' AutoencoderKL is."""

    def __init__(self, config: CodecConfig = CodecConfig()) -> None:
        super().__init__()
        self.settings = config
        c, cell, (wide, fine) = config.latent_channels, config.cell, config.widths
        self.analysis = nn.Conv2d(3, c, cell, stride=cell)
        self.synthesis = nn.ConvTranspose2d(c, 3, 2 * cell, stride=cell, padding=cell // 2)  # twice as wide: patches may overlap
        self.coarse = nn.Sequential(nn.Conv2d(c, wide, 3, padding=1), *(Block(wide) for _ in range(config.blocks[0])))
        self.split = nn.Conv2d(wide, 4 * fine, 1)
        self.fine = nn.Sequential(*(Block(fine) for _ in range(config.blocks[1])))
        self.out = nn.Conv2d(fine, 3 * (cell // 2) ** 2, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    @property
    def config(self) -> Any:
        """As diffusers' models have it: a dict whose keys are attributes too."""
        return Named(asdict(self.settings))

    @property
    def dtype(self) -> torch.dtype:
        return self.analysis.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.analysis.weight.device

    @torch.no_grad()
    def start(self, mean: Tensor, basis: Tensor, std: Tensor) -> None:
        """Become the linear codec of a basis.

        mean (3 cell cell) and orthonormal basis (C, 3 cell cell) of patches as F.unfold orders them; std (C,) of their
        coefficients. Latent channels are divided by the root of it: fine detail counts, though not as much as what is large.
        """
        cell, half = self.settings.cell, self.settings.cell // 2
        inner = slice(half, half + cell)
        shape = (-1, 3, cell, cell)
        scale = std.clamp(min=1e-6).sqrt()
        self.analysis.weight.copy_((basis / scale[:, None]).reshape(shape))
        self.synthesis.weight.zero_()
        self.synthesis.weight[:, :, inner, inner] = (basis * scale[:, None]).reshape(shape).to(self.synthesis.weight)
        assert self.analysis.bias is not None and self.synthesis.bias is not None
        self.analysis.bias.copy_(-(basis @ mean) / scale)
        self.synthesis.bias.copy_(mean.reshape(3, -1).mean(1))  # one value a colour: patches' means hardly vary inside

    def encode(self, x: Tensor) -> Any:
        """An object with `latent_dist`, whose `mode()` is the latent."""
        return SimpleNamespace(latent_dist=Exactly(self.analysis(x)))

    def decode(self, z: Tensor) -> Any:
        """An object with `sample`, (B, 3, H, W)."""
        y = F.pixel_shuffle(self.split(self.coarse(z)), 2)
        return SimpleNamespace(sample=self.synthesis(z) + F.pixel_shuffle(self.out(self.fine(y)), self.settings.cell // 2))


def side(vae: Any, cells: int) -> int:
    """Pixels a side of the pictures whose latents have so many cells a side; of LinearCodec or diffusers' AutoencoderKL."""
    config = vae.config
    return int(cells) * (config.cell if "cell" in config else 2 ** (len(config.block_out_channels) - 1))


def posterior(vae: Any, rgb: Tensor, size: int) -> Any:
    """diffusers' DiagonalGaussianDistribution of pictures (B, H, W, 3), sRGB in [0, 1], resized to `size` where they are not."""
    x = rgb.movedim(-1, 1)
    if x.shape[-2:] != (size, size):
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
    return vae.encode((2 * x - 1).to(vae.device, vae.dtype)).latent_dist


def encoded(vae: Any, rgb: Tensor, size: int, generator: torch.Generator | None = None) -> Tensor:
    """x0 (B, C, h, w) float32 of pictures, as `Prior.encode` has it."""
    found = posterior(vae, rgb, size)
    x0: Tensor = found.mode().float()
    if generator is not None:
        noise = torch.randn(x0.shape, generator=generator, device=generator.device).to(x0)
        x0 = x0 + found.std.float() * noise
    return (x0 * vae.config.scaling_factor).to(rgb.device)


def decoded(vae: Any, x0: Tensor) -> Tensor:
    """Pictures (B, H, W, 3) of x0, as `Prior.decode` has it."""
    made: Tensor = vae.decode((x0 / vae.config.scaling_factor).to(vae.device, vae.dtype)).sample.to(x0.device)
    return (made.float() / 2 + 0.5).clamp(0, 1).movedim(1, -1)
