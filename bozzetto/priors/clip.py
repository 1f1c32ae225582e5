# SPDX-License-Identifier: Apache-2.0
"""CLIP as a judge: how far a picture shows what a text says (Radford et al. 2021, arXiv:2103.00020). Not a `Prior`: it draws nothing.

Letters: B pictures, D the width that both towers share.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bozzetto.errors import InputError
from bozzetto.priors import components
from bozzetto.priors.components import read_json
from bozzetto.priors.tokens import tokenizer
from bozzetto.priors.zero123 import clip_pixels

MINI = Path(__file__).parent / "mini"
SIZES = ("hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps")
OF_PICTURES, OF_TEXTS = (
    ("num_channels", "image_size", "patch_size"),
    ("vocab_size", "max_position_embeddings", "bos_token_id", "eos_token_id"),
)


@dataclass(frozen=True)
class Clip:
    """Both towers, frozen.

    image_encoder, text_encoder  transformers' CLIPVisionModelWithProjection and CLIPTextModelWithProjection
    tokenizer                    a tokenizers.Tokenizer that pads and cuts to what text_encoder reads
    """

    image_encoder: Any
    text_encoder: Any
    tokenizer: Any

    @classmethod
    def read(cls, folder: str | Path = "mini", device: str | torch.device = "cpu") -> Clip:
        """The embedded towers, or a folder of transformers' CLIPModel as published: config.json, model.safetensors, tokenizer.json.

        raises  InputError, one sentence, for a folder that is not there or not CLIP's
        """
        components.check_installed()
        if str(folder) == "mini":
            pictures = components.vision(MINI / "zero123" / "image_encoder", torch.float32, device)
            texts: Any = components.text(MINI / "clip" / "text_encoder", torch.float32, device)
            tokens = MINI / "clip" / "tokenizer"
        else:
            folder = tokens = Path(folder)
            if not (folder / "config.json").is_file():
                raise InputError(f"{folder}: holds no config.json; give a folder of CLIP's, both towers in one file")
            pictures, texts = (_tower(folder, which, device) for which in ("vision", "text"))
        config = texts.config
        return cls(pictures, texts, tokenizer(tokens, config.max_position_embeddings, config.vocab_size))

    @torch.no_grad()
    def similarity(self, rgb: Tensor, text: str) -> Tensor:
        """(B,): cosines between pictures (B, H, W, 3), sRGB in [0, 1], and a text."""
        return (self.shown(rgb) @ self.told([text]).T)[:, 0]

    @torch.no_grad()
    def shown(self, rgb: Tensor) -> Tensor:
        """(B, D): unit embeddings of pictures (B, H, W, 3), sRGB in [0, 1]."""
        pixels = clip_pixels(rgb.float(), self.image_encoder.config.image_size).to(self.image_encoder.device)
        return F.normalize(self.image_encoder(pixel_values=pixels).image_embeds.float(), dim=-1).cpu()

    @torch.no_grad()
    def told(self, texts: list[str]) -> Tensor:
        """(B, D): unit embeddings of texts."""
        ids = torch.tensor([self.tokenizer.encode(text).ids for text in texts], device=self.text_encoder.device)
        return F.normalize(self.text_encoder(input_ids=ids).text_embeds.float(), dim=-1).cpu()

    def directional(self, before: Tensor, after: Tensor, caption: list[str], edited: list[str]) -> Tensor:
        """(B,): `directional` of pictures (B, H, W, 3) and of their captions."""
        return directional(self.shown(before), self.shown(after), self.told(caption), self.told(edited))


def directional(before: Tensor, after: Tensor, caption: Tensor, edited: Tensor) -> Tensor:
    """(B,): cosines between how pictures changed and how their captions did, of unit embeddings (B, D); 0 where either did not.

    source  Gal et al. 2021, StyleGAN-NADA (arXiv:2108.00946); InstructPix2Pix's filter (arXiv:2211.09800)
    """
    return F.cosine_similarity(after - before, edited - caption, dim=-1)


def _tower(folder: Path, which: str, device: str | torch.device) -> nn.Module:
    """One of a CLIPModel's two, from the file that holds both."""
    import transformers

    title = which.title()
    config, model = getattr(transformers, f"CLIP{title}Config"), getattr(transformers, f"CLIP{title}ModelWithProjection")
    found = read_json(folder / "config.json")
    said = found.get(f"{which}_config")
    if not isinstance(said, dict):
        raise InputError(f"{folder}/config.json: says nothing of a {which} tower; give a folder of CLIP's, both towers in one file")
    names = (*SIZES, *(OF_PICTURES if which == "vision" else OF_TEXTS))
    known = {k: v for k, v in {"projection_dim": found.get("projection_dim", 512), **said}.items() if k in names}
    ours = (f"{which}_model.", "visual_projection." if which == "vision" else "text_projection.")

    def rename(name: str) -> str | None:
        return name if name.startswith(ours) and not name.endswith(".position_ids") else None

    build = lambda: model(config(**known, attn_implementation="sdpa"))  # noqa: E731
    return components.component(folder, build, torch.float32, device, rename)
