# SPDX-License-Identifier: Apache-2.0
"""Text-to-image: pictures of objects from a latent diffusion model that is told in words what they show.

The states of CLIP's text tower, one a token, are what the U-Net's cross-attention looks at (Rombach et al. 2022, arXiv:2112.10752);
the null is the empty text, as in training. The embedded prior's U-Net is the one that draws novel views: where those have the
picture's latent and the hint beside the noisy latent, a text has zeros, as its rows had in training (`training.backbone`).

Letters: B pictures, C channels, h w latent cells, L tokens, D the width of cross-attention.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bozzetto.camera import Camera
from bozzetto.denoiser import VPDenoiser
from bozzetto.priors import codec
from bozzetto.priors.prior import Condition, Reference
from bozzetto.priors.schedule import Schedule


class Told(nn.Module):
    """A U-Net as `VPDenoiser` calls it, under a text alone: zeros in all channels beside the noisy latent."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet: Any = unet

    def forward(self, x_t: Tensor, step: Tensor, token: Tensor) -> Tensor:
        """x_t (B, C, h, w); step (B,); token (1 or B, L, D); returns (B, C, h, w), dtype of x_t."""
        b, c, h, w = x_t.shape
        x = torch.cat([x_t, x_t.new_zeros(b, self.unet.config.in_channels - c, h, w)], 1).to(next(self.unet.parameters()).dtype)
        made: Tensor = self.unet(x, step, encoder_hidden_states=token.to(x).expand(b, -1, -1)).sample
        return made.to(x_t.dtype)


class TextToImage(nn.Module):
    """A text-to-image model as a `Prior`.

    unet          diffusers' UNet2DConditionModel: C channels out, C or more in, cross-attention of width D
    vae           diffusers' AutoencoderKL or `codec.LinearCodec` with C latent channels
    text_encoder  transformers' CLIPTextModelWithProjection of width D
    tokenizer     a tokenizers.Tokenizer that pads and cuts to what text_encoder reads
    schedule      of the noise in training
    """

    background: float = 1.0
    takes_hint: bool = False
    denoiser: VPDenoiser
    vae: Any  # networks whose libraries have no types that hold
    text_encoder: Any
    tokenizer: Any

    def __init__(self, unet: nn.Module, vae: nn.Module, text_encoder: nn.Module, tokenizer: Any, schedule: Schedule) -> None:
        super().__init__()
        self.vae, self.text_encoder, self.tokenizer, self.schedule = vae, text_encoder, tokenizer, schedule
        self.denoiser = VPDenoiser(Told(unet), schedule.alpha_bar(), schedule.prediction)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, h, w) of x0."""
        config = self._unet.config
        return int(config.out_channels), int(config.sample_size), int(config.sample_size)

    @property
    def size(self) -> int:
        """Side of the pictures that it draws, pixels."""
        return codec.side(self.vae, self._unet.config.sample_size)

    def encode(self, rgb: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return codec.encoded(self.vae, rgb, self.size, generator)

    def decode(self, x0: Tensor) -> Tensor:
        return codec.decoded(self.vae, x0)

    def excess(self, text: str) -> int:
        """How many of a text's tokens are not read, beyond the tower's length."""
        said = self.tokenizer.encode(text, add_special_tokens=False)
        told = sum(sum(part.attention_mask) for part in (said, *said.overflowing))
        read = self.tokenizer.truncation["max_length"] - self.tokenizer.num_special_tokens_to_add(is_pair=False)
        return max(0, told - int(read))

    def look(self, reference: Reference) -> None:
        """raises ValueError: it looks at no picture"""
        raise ValueError("reference: this prior reads text, not pictures; leave it out")

    @torch.no_grad()
    def condition(self, reference: None = None, cameras: Camera | None = None, text: str | None = None) -> Condition:
        """As `Prior.condition`: token (1, L, D) float32, for any number of cameras, since its texts name no side; a text that is
        longer than the tower reads is cut.

        raises  ValueError for a reference
        """
        if reference is not None:
            self.look(reference)
        ids = torch.tensor([self.tokenizer.encode(text or "").ids], device=self.text_encoder.device)
        return {"token": self.text_encoder(input_ids=ids).last_hidden_state.float()}

    @property
    def _unet(self) -> Any:
        network: Any = self.denoiser.network
        return network.unet
