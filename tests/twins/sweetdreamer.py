# SPDX-License-Identifier: Apache-2.0
"""SweetDreamer's network, small and random, in the layout that its authors' code reads; and what that code computes, in float64.

The U-Net is diffusers' own without a class embedding, opened by its own loader; the three layers that read a camera are applied as they
are, unfolded, and what they make is added to the embedding of time.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bozzetto.priors.loading import MINI
from tests.twins.zero123 import alphas_cumprod, port_parts, small_unet

HIDDEN, WIDE = 24, 64  # WIDE is four times the U-Net's first width
WEIGHTS = "diffusion_pytorch_model.safetensors"
LAYERS = "camera_embedding.models"


def layers(seed: int = 5) -> nn.Sequential:
    """Linear, BatchNorm, Linear; statistics as if trained, and nothing at its start value."""
    made = nn.Sequential(nn.Linear(12, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.Linear(HIDDEN, WIDE))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in made.state_dict().items():
            if name.endswith("running_var") or name == "1.weight":
                tensor.uniform_(0.3, 2.0, generator=generator)
            elif tensor.is_floating_point():
                tensor.normal_(0, 0.5, generator=generator)
            else:
                tensor.fill_(700)
    return made.eval()


def write(folder: Path) -> Path:
    """unet/ as the authors' class writes it; scheduler/, text_encoder/ and tokenizer/ beside it, as of Stable Diffusion 2.1-base."""
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(4)
        unet = small_unet(4, 4, 128, linear=True)
    unet.save_pretrained(folder / "unet")
    weights, config = folder / "unet" / WEIGHTS, folder / "unet" / "config.json"
    save_file(load_file(weights) | {f"{LAYERS}.{k}": v for k, v in layers().state_dict().items()}, weights)
    settings = json.loads(config.read_text()) | {"_class_name": "MyUNet2DConditionModel", "addition_embed_type": "camera"}
    config.write_text(json.dumps(settings))
    port_parts()["scheduler"].save_pretrained(folder / "scheduler")
    for name in ("text_encoder", "tokenizer"):
        shutil.copytree(MINI / "clip" / name, folder / name)
    return folder


def noise(folder: Path, x_t: Tensor, t: int, token: Tensor, c2w: Tensor) -> Tensor:
    """The predicted noise (B, 4, h, w) float64 of x_t at step t, under tokens (1, L, D) and cameras (B, 3, 4) of the front at +x."""
    from diffusers import UNet2DConditionModel

    kept = load_file(folder / "unet" / WEIGHTS)
    settings: dict[str, Any] = json.loads((folder / "unet" / "config.json").read_text())
    plain = {k: v for k, v in settings.items() if k != "addition_embed_type" and not k.startswith("_")}
    unet, camera = UNet2DConditionModel(**plain), layers(0)
    camera.load_state_dict({k.removeprefix(f"{LAYERS}."): v for k, v in kept.items() if k.startswith(LAYERS)})
    unet.load_state_dict({k: v for k, v in kept.items() if not k.startswith(LAYERS)})
    told = torch.empty(len(c2w), 3, 4, dtype=torch.float64)
    for row, (axis, sign) in enumerate(((1, 1), (0, -1), (2, 1))):  # x takes y, y takes -x, z stays
        told[:, row] = sign * c2w[:, axis].double()
    with torch.no_grad():
        added = camera.double()(told.flatten(1))
        unet.double().eval().time_embedding.register_forward_hook(lambda module, inputs, output: output + added)
        made: Tensor = unet(x_t.double(), t, encoder_hidden_states=token.double().expand(len(x_t), -1, -1)).sample
    return made


def clean(folder: Path, x: Tensor, t: int, token: Tensor, c2w: Tensor) -> Tensor:
    """E[x0 | x] of x = x0 + sigma noise at the level of step t, from that noise."""
    a = alphas_cumprod()[t]
    x_t = x.double() * a.sqrt()
    return (x_t - (1 - a).sqrt() * noise(folder, x_t, t, token, c2w)) / a.sqrt()
