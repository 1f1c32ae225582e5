# SPDX-License-Identifier: Apache-2.0
"""Text-to-image: pictures of objects from a latent diffusion model conditioned on text.

The states of CLIP's text tower, one a token, are what the U-Net's cross-attention looks at (Rombach et al. 2022, arXiv:2112.10752);
the null is the empty text, as in training. The embedded prior's U-Net is the one that draws novel views: where those have the
picture's latent and the hint beside the noisy latent, a text has zeros, as its rows had in training (`training.backbone`).

Letters: C channels, h w latent cells, L tokens, D the width of cross-attention.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bozzetto.camera import Camera
from bozzetto.errors import InputError
from bozzetto.priors import components, tokens
from bozzetto.priors.codec import Codec
from bozzetto.priors.components import read_json
from bozzetto.priors.latent import LatentPrior
from bozzetto.priors.prior import Condition, Hinting, Reference
from bozzetto.priors.schedule import NoiseSchedule, read_schedule


class TextToImage(LatentPrior):
    """A text-to-image model as a `Prior`.

    unet          diffusers' UNet2DConditionModel: C channels out, C or more in, cross-attention of width D
    codec         with C channels
    text_encoder  transformers' CLIPTextModelWithProjection of width D
    tokenizer     a tokenizers.Tokenizer that pads and cuts to what text_encoder reads
    schedule      of the noise in training
    """

    text_encoder: Any  # their libraries have no types that hold
    tokenizer: Any

    def __init__(self, unet: nn.Module, codec: Codec, text_encoder: nn.Module, tokenizer: Any, schedule: NoiseSchedule) -> None:
        super().__init__(unet, codec, schedule)
        self.text_encoder, self.tokenizer = text_encoder, tokenizer

    @classmethod
    def read(cls, folder: Path, kind: str, *, text: Path | None, dtype: torch.dtype, device: str | torch.device) -> TextToImage:
        """The prior in a folder; `text`, by default the same, holds text_encoder/ and tokenizer/. See `loading.load`."""
        components.check_installed()
        schedule = read_schedule(folder / "scheduler")
        config, vae = (read_json(folder / name / "config.json") for name in ("unet", "vae"))
        tower, tokenizer = read_tower(folder, text or folder, config, dtype, device)
        if (found := config.get("out_channels")) != (expected := vae.get("latent_channels", 4)):
            raise InputError(
                f"{folder}: out_channels of the U-Net should be {expected} (the channels of a latent), got {found}; "
                "these weights were not trained under this codec"
            )
        networks = components.unet(folder / "unet", dtype, device), components.codec(folder / "vae", dtype, device)
        return cls(*networks, tower, tokenizer, schedule).eval()

    def excess(self, text: str) -> int:
        """How many of a text's tokens are not read, beyond the tower's length."""
        return excess(self.tokenizer, text)

    def encode_reference(self, reference: Reference) -> Any:
        """raises ValueError: it reads no pictures"""
        raise ValueError("reference: this prior reads text, not pictures; leave it out")

    @torch.no_grad()
    def condition(
        self, reference: None = None, cameras: Camera | None = None, text: str | None = None, hint: Hinting | None = None
    ) -> Condition:
        """As `Prior.condition`: token (1, L, D) float32, for any number of cameras, since its texts name no side; a text that is
        longer than the tower reads is cut.

        raises  ValueError for a reference
        """
        if reference is not None:
            self.encode_reference(reference)
        return {"token": states(self.text_encoder, self.tokenizer, text or "")}


def read_tower(folder: Path, towers: Path, unet: dict[str, Any], dtype: torch.dtype, device: str | torch.device) -> tuple[nn.Module, Any]:
    """CLIP's text tower and its tokenizer in a folder `towers`, for a prior in `folder` whose U-Net has these settings.

    raises  InputError where a part is missing, or has another width than the U-Net looks at
    """
    for part in ("text_encoder", "tokenizer"):
        if not (towers / part).is_dir():
            raise InputError(
                f"{towers}: {part}/ is missing; give the folder of the text tower that the weights were trained under (--towers)"
            )
    tower = components.text(towers / "text_encoder", dtype, device)
    config: Any = tower.config
    tokenizer = tokens.tokenizer(towers / "tokenizer", config.max_position_embeddings, config.vocab_size)
    if (found := unet.get("cross_attention_dim")) != config.hidden_size:
        raise InputError(
            f"{folder}: cross_attention_dim of the U-Net should be {config.hidden_size} (the text tower's hidden_size), got {found}; "
            "these weights were not trained under this text tower"
        )
    return tower, tokenizer


def states(tower: Any, tokenizer: Any, text: str) -> Tensor:
    """(1, L, D) float32 of a text, which is cut where the tower reads no further."""
    ids = torch.tensor([tokenizer.encode(text).ids], device=tower.device)
    made: Tensor = tower(input_ids=ids).last_hidden_state.float()
    return made


def excess(tokenizer: Any, text: str) -> int:
    """How many of a text's tokens are not read, beyond the tower's length."""
    said = tokenizer.encode(text, add_special_tokens=False)
    told = sum(sum(part.attention_mask) for part in (said, *said.overflowing))
    read = tokenizer.truncation["max_length"] - tokenizer.num_special_tokens_to_add(is_pair=False)
    return max(0, told - int(read))
