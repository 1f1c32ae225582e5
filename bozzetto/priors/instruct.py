# SPDX-License-Identifier: Apache-2.0
"""InstructPix2Pix (Brooks, Holynski & Efros 2022, arXiv:2211.09800): a picture changed as an instruction says.

A text-to-image model that reads a picture, too: its latent stands beside the noisy one (eight input channels), the instruction takes the
caption's place. Both conditions have a null, and a scale each (Eq. 3, `guidance.dual`):

    e(0, 0) + S_I (e(I, 0) - e(0, 0)) + S_T (e(I, T) - e(I, 0))

The picture's latent is the mode of the codec's posterior and not scaled, while what is denoised is; its null is zeros, not a black
picture; the text's is the empty text. Sampling is Euler's ancestral one, which is DDIM with all of its noise (check DDIM-5).

Training (`training.instruct`) begins with a text-to-image model whose U-Net gets the channels it lacks, as zeros: `widened`. What was
learnt so lies in a folder of `priors.learnt`, on a base read as kind EXTENDED.

Letters: B pictures, H W pixels, C channels of a latent.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bozzetto.camera import Camera
from bozzetto.denoiser import Generators, noise_like
from bozzetto.diffusion.guidance import dual
from bozzetto.diffusion.samplers import Watch
from bozzetto.errors import InputError
from bozzetto.priors import sampling
from bozzetto.priors.components import read_json
from bozzetto.priors.latent import resized
from bozzetto.priors.prior import Condition, Hinting, Reference
from bozzetto.priors.sampling import Sampler
from bozzetto.priors.text2image import TextToImage

STEP = 64  # pixels: sides are multiples of it
SMALL = 256  # pixels: a prior that draws fewer is held less hard to its conditions, and edits the object alone
EXTENDED = "text-to-image-extended"
"""the kind of a text-to-image model that is to read a picture, too"""


class InstructPix2Pix(TextToImage):
    """As `TextToImage`, with a U-Net of 2 C channels in."""

    sampler = Sampler(100, 7.5, 1.0)  # of the paper's figures
    image_scale = 1.5

    @classmethod
    def read(cls, folder: Path, kind: str, *, text: Path | None, dtype: torch.dtype, device: str | torch.device) -> InstructPix2Pix:
        """The prior in a folder; see `loading.load`. raises InputError, too, for a U-Net that reads no picture"""
        unet = read_json(folder / "unet" / "config.json")
        if kind == EXTENDED:
            extended: Any = super().read(folder, kind, text=text, dtype=dtype, device=device)
            extended.network.unet = widened(extended.unet)
            if extended.size < SMALL:
                extended.sampler, extended.image_scale = Sampler(20, 2.0, 1.0), 1.0
            whole: InstructPix2Pix = extended
            return whole
        given, wanted = unet.get("in_channels", 4), 2 * unet.get("out_channels", 4)
        if given != wanted:
            raise InputError(
                f"{folder}: in_channels of the U-Net should be {wanted}, a latent and a picture's, got {given}; it edits nothing"
            )
        made: Any = super().read(folder, kind, text=text, dtype=dtype, device=device)
        found: InstructPix2Pix = made
        return found

    def encode_reference(self, reference: Reference) -> Tensor:
        """Latents (B, C, h, w) of pictures at the prior's size: the posterior's mode, not scaled."""
        with torch.no_grad():
            return self.codec.latent(resized(reference.rgb.float(), self.size))

    @torch.no_grad()
    def condition(
        self,
        reference: Reference | Tensor | None = None,
        cameras: Camera | None = None,
        text: str | None = None,
        hint: Hinting | None = None,
    ) -> Condition:
        """As `Prior.condition`: token (1, L, D) of an instruction, image_latent (1 or B, C, h, w) of the picture that it is about; where
        this is absent there is none, and the network sees zeros. What cameras see is said by the picture; they only say how many."""
        told = dict(super().condition(text=text))
        latent = self.encode_reference(reference) if isinstance(reference, Reference) else reference
        if latent is None:
            return told
        if cameras is not None and len(latent) not in (1, len(cameras)):
            raise ValueError(f"cameras: expected {len(latent)} of them, one a picture, or one picture for all; got {len(cameras)}")
        return {**told, "image_latent": latent}

    @torch.no_grad()
    def edited(
        self,
        rgb: Tensor,
        text: str,
        *,
        image_scale: float,
        sampler: Sampler | None = None,
        generator: Generators,
        watch: Watch | None = None,
    ) -> Tensor:
        """Pictures (B, H, W, 3) sRGB in [0, 1] as an instruction says; of the same size.

        rgb          sides that are multiples of the codec's cell and of what the U-Net halves: `fitted` makes them so
        image_scale  S_I, how much the result is the picture's, 1 to 1.5; `sampler.guidance` is S_T, how much the instruction's, 5 to 10
        generator    one, or one a picture
        raises       ValueError for sides that are no multiples of the codec's cell
        """
        b, height, width = rgb.shape[:3]
        cell = self.codec.cell
        if height % cell or width % cell:
            raise ValueError(f"rgb: expected sides that are multiples of {cell}, got {height} x {width}")
        how = sampler or self.sampler
        latent = self.codec.latent(rgb.float())
        both = self.condition(latent, text=text)
        guided = dual(self.denoiser, self.condition(), self.condition(latent), image_scale, how.guidance)
        noise = noise_like(torch.zeros(b, self.shape[0], height // cell, width // cell), generator)
        return self.decode(sampling.descend(self.denoiser.sigmas, guided, noise, both, how, generator, watch))


def widened(unet: Any, reads: slice | None = None) -> nn.Module:
    """A text-to-image model's U-Net with 2 C channels in: those of the noisy latent as they were, bias and all, and zeros for the
    picture's latent, so that it answers as before whatever the picture is (Brooks et al., Sec. 3.2).

    reads  channels of its own that have learnt to read a picture, to begin the picture's with; else zeros
    """
    from diffusers import UNet2DConditionModel

    old, channels = unet.conv_in, int(unet.config.out_channels)
    first = old.weight.detach()[:, :channels]
    picture = torch.zeros_like(first) if reads is None else old.weight.detach()[:, reads]
    known = {k: v for k, v in dict(unet.config).items() if not k.startswith("_")} | {"in_channels": 2 * channels}
    with torch.device("meta"):
        made: Any = UNet2DConditionModel(**known)
    state = unet.state_dict() | {"conv_in.weight": torch.cat([first, picture], 1)}
    made.load_state_dict(state, assign=True)
    found: nn.Module = made.eval().requires_grad_(False)
    return found


def fitted(rgb: Tensor, size: int) -> Tensor:
    """A picture (H, W, 3) at sides that are multiples of STEP, the longer one about `size`: scaled to cover, then cut round its middle.

    As the released command has it: the longer side goes to `size`, the shorter is rounded up to a multiple, both are rounded down
    """
    height, width = rgb.shape[:2]
    scale = size / max(height, width)
    scale = math.ceil(min(height, width) * scale / STEP) * STEP / min(height, width)
    tall, wide = (int(side * scale) // STEP * STEP for side in (height, width))
    cover = max(tall / height, wide / width)
    shape = max(round(height * cover), tall), max(round(width * cover), wide)
    larger = F.interpolate(rgb.movedim(-1, 0)[None].float(), shape, mode="bicubic", antialias=True)[0].movedim(0, -1).clamp(0, 1)
    top, left = (shape[0] - tall) // 2, (shape[1] - wide) // 2
    return larger[top : top + tall, left : left + wide]
