# SPDX-License-Identifier: Apache-2.0
"""Stable Diffusion's layout, small, with random weights, under the embedded text tower; and CLIP's, both towers in one file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from bozzetto.priors.clip import Clip
from bozzetto.priors.loading import MINI
from tests.twins import zero123 as twin


def text_folder(folder: Path, version: str = "1.5") -> Path:
    """Stable Diffusion's layout, small, its U-Net random, under the embedded text tower. Version 2.1 says v, and has linear projections."""
    from diffusers import DDIMScheduler

    parts, is_second = twin.port_parts(), version == "2.1"
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(1)
        unet = twin.small_unet(4, 4, 128, linear=is_second)
    if is_second:
        parts["scheduler"] = DDIMScheduler.from_config(parts["scheduler"].config, prediction_type="v_prediction")
    for name, part in {"unet": unet, "vae": parts["vae"], "scheduler": parts["scheduler"]}.items():
        part.save_pretrained(folder / name)
    for name in ("text_encoder", "tokenizer"):
        shutil.copytree(MINI / "clip" / name, folder / name)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    return folder


def clip_folder(folder: Path) -> Any:
    """transformers' CLIPModel, small and random, under the embedded tokenizer; returns the model that the folder holds."""
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    words = Clip.read().text_encoder.config
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 16}
    ends = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
    text = CLIPTextConfig(**sizes, **ends, vocab_size=words.vocab_size, max_position_embeddings=24)
    vision = CLIPVisionConfig(**sizes, image_size=32, patch_size=8)
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(3)
        model = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)).eval()
    model.save_pretrained(folder)
    shutil.copy(MINI / "clip" / "tokenizer" / "tokenizer.json", folder)
    return model
