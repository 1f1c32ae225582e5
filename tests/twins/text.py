# SPDX-License-Identifier: Apache-2.0
"""Stable Diffusion's layout, small, with random weights, under the embedded text tower."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from bozzetto.priors.loading import MINI
from tests.twins import zero123 as twin


def text_folder(folder: Path) -> Path:
    """Stable Diffusion's layout, small, its U-Net random, under the embedded text tower."""
    parts = twin.port_parts()
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(1)
        unet = twin.small_unet(4, 4, 128)
    for name, part in {"unet": unet, "vae": parts["vae"], "scheduler": parts["scheduler"]}.items():
        part.save_pretrained(folder / name)
    for name in ("text_encoder", "tokenizer"):
        shutil.copytree(MINI / "clip" / name, folder / name)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    return folder
