# SPDX-License-Identifier: Apache-2.0
"""Codecs: pictures to the x0 of a prior, and back. diffusers' KL autoencoder, adapted here once; and the embedded priors' own.

A KL autoencoder is what Stable Diffusion has. At this project's budget it is a bad choice: after 90,000 pictures it had 21 dB where
principal components of 8 x 8 patches have 27 (`docs/priors.md`), because each of its stages must first learn to hand the picture on.
In `LinearCodec` what encodes *is* the principal components: linear, so that distillation's gradient is that of a fixed basis. What
decodes adds to the linear picture what a network of residual blocks finds missing: edges that patches cut.

Letters: B pictures, C channels of a latent, H W pixels, h w cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Codec(nn.Module):
    """Pictures to latents and back: a codec is `posterior` and `picture`, and the three numbers that go with them."""

    @property
    def channels(self) -> int:
        """C of a latent."""
        raise NotImplementedError

    @property
    def cell(self) -> int:
        """Pixels a side of one of its cells."""
        raise NotImplementedError

    @property
    def scaling_factor(self) -> float:
        """What latents are multiplied by to be x0, of about unit variance."""
        raise NotImplementedError

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean, which is the mode, and standard deviation of the latents (B, C, h, w) of pictures (B, 3, H, W) in [-1, 1]."""
        raise NotImplementedError

    def picture(self, z: Tensor) -> Tensor:
        """(B, 3, H, W), about [-1, 1], of latents (B, C, h, w)."""
        raise NotImplementedError

    def latent(self, rgb: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latents (B, C, H / cell, W / cell) float32, not scaled, of pictures (B, H, W, 3), sRGB in [0, 1]; differentiable.

        Drawn from the posterior with a generator, else its mode.
        """
        mean, std = self.posterior((2 * rgb.movedim(-1, 1) - 1).to(*self._home))
        z = mean.float()
        if generator is not None:
            z = z + std.float() * torch.randn(z.shape, generator=generator, device=generator.device).to(z)
        return z.to(rgb.device)

    def encode(self, rgb: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """x0: `latent`, scaled."""
        return self.latent(rgb, generator) * self.scaling_factor

    def decode(self, x0: Tensor) -> Tensor:
        """Pictures (B, H, W, 3) float32, sRGB in [0, 1], of x0 (B, C, h, w)."""
        made = self.picture((x0 / self.scaling_factor).to(*self._home)).to(x0.device)
        return (made.float() / 2 + 0.5).clamp(0, 1).movedim(1, -1)

    @property
    def _home(self) -> tuple[torch.device, torch.dtype]:
        """Where, and in what, its network computes."""
        first = next(self.parameters())
        return first.device, first.dtype


class KLCodec(Codec):
    """diffusers' AutoencoderKL as a `Codec`; it takes one picture after another ("slicing"), and so the memory of one."""

    vae: Any  # its library has no types that hold

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = vae
        self.vae.enable_slicing()

    @property
    def channels(self) -> int:
        return int(self.vae.config.latent_channels)

    @property
    def cell(self) -> int:
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def scaling_factor(self) -> float:
        return float(self.vae.config.scaling_factor)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = self.vae.encode(x).latent_dist
        return found.mode(), found.std

    def picture(self, z: Tensor) -> Tensor:
        made: Tensor = self.vae.decode(z).sample
        return made


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


class LinearCodec(Codec):
    """A linear transform in; the same, and what a network adds to it, out."""

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
    def channels(self) -> int:
        return self.settings.latent_channels

    @property
    def cell(self) -> int:
        return self.settings.cell

    @property
    def scaling_factor(self) -> float:
        return self.settings.scaling_factor

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

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Without spread."""
        z = self.analysis(x)
        return z, torch.zeros_like(z)

    def picture(self, z: Tensor) -> Tensor:
        y = F.pixel_shuffle(self.split(self.coarse(z)), 2)
        linear: Tensor = self.synthesis(z)
        return linear + F.pixel_shuffle(self.out(self.fine(y)), self.settings.cell // 2)
