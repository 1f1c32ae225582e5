# SPDX-License-Identifier: Apache-2.0
"""DeepFloyd IF's first stage: pictures of 64 x 64 pixels of what a text says, by diffusion of the pixels themselves.

Released 2023 (weights and code), after Imagen (Saharia et al. 2022, arXiv:2205.11487). x0 is the picture in [-1, 1]: there is no codec,
and a rendering's gradient reaches it through nothing but a resize. The states of T5's encoder, one a token, are what cross-attention
looks at; the null is the empty text. T5 is told which tokens are padding, the U-Net is not, as in the released pipeline.
Half of what the U-Net says is a learnt variance (arXiv:2102.09672, Sec. 3.1): E[x0 | x] does not need it.

Differs from diffusers' IFPipeline: captions are made lower case and stripped, never cleaned of addresses and mark-up; the learnt variance
plays no part in sampling; the later stages, 256 and 1024 pixels, are not here.

Letters: B pictures, S pixels a side, L tokens, D the width of T5's states.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bozzetto.camera import Camera
from bozzetto.denoiser import VPDenoiser
from bozzetto.errors import InputError
from bozzetto.priors import components, tokens
from bozzetto.priors.components import read_json
from bozzetto.priors.latent import ConditionedUNet, resized
from bozzetto.priors.prior import Condition, Hinting, Reference
from bozzetto.priors.sampling import Sampler
from bozzetto.priors.schedule import NoiseSchedule, read_schedule
from bozzetto.views import Views

LENGTH = 77  # tokens of a text in training; T5 itself would read more


class MeanUNet(ConditionedUNet):
    """What a U-Net says of the mean: its first channels, as many as x_t has. Those of the variance are dropped."""

    def forward(self, x_t: Tensor, step: Tensor, token: Tensor) -> Tensor:  # type: ignore[override]  # nothing stands beside x_t
        return super().forward(x_t, step, token)[:, : x_t.shape[1]]


class DeepFloyd(nn.Module):
    """DeepFloyd IF's first stage as a `Prior`.

    unet          diffusers' UNet2DConditionModel: 3 channels in, 3 or 6 out, told states of width D
    text_encoder  transformers' T5EncoderModel of width D
    tokenizer     a text to its tokens, as many as it takes, and the end (`tokens.pieces`)
    schedule      of the noise in training
    """

    background: float = 1.0
    uses_hint: bool = False
    sampler = Sampler(100, 7.0, 1.0, (0.95, 1.5))  # IFPipeline's steps and guidance, its folder's thresholding
    text_encoder: Any  # its library has no types that hold

    def __init__(self, unet: nn.Module, text_encoder: nn.Module, tokenizer: Callable[[str], list[int]], schedule: NoiseSchedule) -> None:
        super().__init__()
        self.text_encoder, self.tokenizer, self.schedule = text_encoder, tokenizer, schedule
        self.denoiser = VPDenoiser(MeanUNet(unet), schedule.alpha_bar(), schedule.prediction)

    @classmethod
    def read(cls, folder: Path, kind: str, *, text: Path | None, dtype: torch.dtype, device: str | torch.device) -> DeepFloyd:
        """The prior in a folder; `text`, by default the same, holds text_encoder/ and tokenizer/. See `loading.load`."""
        components.check_installed()
        towers = text or folder
        for part in ("text_encoder", "tokenizer"):
            if not (towers / part).is_dir():
                raise InputError(f"{towers}: {part}/ is missing; fetch it as well, or give the folder that holds both (--towers)")
        schedule = read_schedule(folder / "scheduler")
        unet, tower = read_json(folder / "unet" / "config.json"), read_json(towers / "text_encoder" / "config.json")
        side, width = unet.get("sample_size"), unet.get("encoder_hid_dim") or unet.get("cross_attention_dim")
        if not isinstance(side, int) or side < 1:
            raise InputError(f"{folder}: sample_size of the U-Net should be a number of pixels, got {side}; fetch its settings again")
        sizes = {
            "in_channels of the U-Net": (unet.get("in_channels", 4), "a picture's; a second stage has 6", (3,)),
            "out_channels of the U-Net": (unet.get("out_channels", 4), "a picture's, and perhaps its variance's", (6, 3)),
            "encoder_hid_dim of the U-Net": (width, "the text tower's d_model", (tower.get("d_model", 512),)),
        }
        for what, (found, why, expected) in sizes.items():
            if found not in expected:
                raise InputError(f"{folder}: {what} should be {expected[0]} ({why}), got {found}; this is no first stage of DeepFloyd IF")
        encoder: Any = components.t5(towers / "text_encoder", dtype, device)
        tokenizer = tokens.pieces(towers / "tokenizer", encoder.config.vocab_size, encoder.config.eos_token_id)
        return cls(components.unet(folder / "unet", dtype, device), encoder, tokenizer, schedule).eval()

    @property
    def size(self) -> int:
        """Side of the pictures that it draws, pixels."""
        network: Any = self.denoiser.network
        return int(network.unet.config.sample_size)

    @property
    def shape(self) -> tuple[int, ...]:
        """(3, S, S)"""
        return 3, self.size, self.size

    def views(self, reference: Reference | None = None) -> Camera | None:
        """None: it draws any camera by itself."""
        return None

    def encode(self, views: Views, *, generator: torch.Generator | None = None) -> Tensor:
        return self.encode_pictures(views.over(self.background).clamp(0, 1).float(), generator=generator)

    def encode_pictures(self, rgb: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """As `Prior.encode_pictures`; there is no posterior to draw from."""
        return 2 * resized(rgb.float(), self.size).movedim(-1, 1) - 1

    def decode(self, x0: Tensor) -> Tensor:
        return (x0.float() / 2 + 0.5).clamp(0, 1).movedim(1, -1)

    def excess(self, text: str) -> int:
        """How many of a text's tokens are not read, beyond what training had."""
        return max(0, len(self._told(text)) - LENGTH)

    def encode_reference(self, reference: Reference) -> None:
        """raises ValueError: it reads no pictures"""
        raise ValueError("reference: this prior reads text, not pictures; leave it out")

    @torch.no_grad()
    def condition(
        self, reference: None = None, cameras: Camera | None = None, text: str | None = None, hint: Hinting | None = None
    ) -> Condition:
        """As `Prior.condition`: token (1, L, D) float32, for any number of cameras, since its texts name no side; a text that is
        longer than training had is cut.

        raises  ValueError for a reference
        """
        if reference is not None:
            self.encode_reference(reference)
        told = self._told(text or "")
        told = [*told[: min(len(told), LENGTH) - 1], told[-1]]  # the end is kept
        padding = LENGTH - len(told)
        ids = torch.tensor([told + padding * [self.text_encoder.config.pad_token_id]], device=self.text_encoder.device)
        # transformers looks whether a mask hides anything at all, which an outline on the meta device cannot say
        mask = None if ids.is_meta else torch.tensor([len(told) * [1] + padding * [0]], device=ids.device)
        return {"token": self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()}

    def _told(self, text: str) -> list[int]:
        """A text's tokens and the end, from captions as training had them."""
        return self.tokenizer(text.lower().strip())
