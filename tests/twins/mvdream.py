# SPDX-License-Identifier: Apache-2.0
"""Published MVDream, small and with random weights, in its two layouts, and what its released code computes (by `twins.ldm`)."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from bozzetto.priors.convert import convert
from bozzetto.priors.loading import MINI
from tests.twins import ldm
from tests.twins.zero123 import LINEAR, V

VIEWS = 4
U = {
    "image_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "attention_resolutions": [2, 1],
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "num_head_channels": 16,
    "use_linear_in_transformer": True,
    "context_dim": 64,
    "camera_dim": 16,
}
WORDS = {"vocabulary": 1500, "width": 64, "layers": 3}  # under the embedded tokenizer, which reads 24 tokens
LENGTH = 24


def camera(elevation: float, azimuth: float) -> np.ndarray:
    """(4, 4), degrees: the released `get_camera`, of a camera at unit distance, in axes whose y is up, and the flip to z up."""
    e, a = math.radians(elevation), math.radians(azimuth)
    back = np.array([math.cos(e) * math.sin(a), math.sin(e), math.cos(e) * math.cos(a)])
    right = np.cross(-back, [0, 1, 0])
    right /= np.linalg.norm(right)
    c2w = np.eye(4)
    c2w[:3] = np.stack([right, np.cross(right, -back), back, back], 1)
    return np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]) @ c2w


def predicted(w: ldm.Weights, x_t: Tensor, t: int, ids: list[int], cameras: Tensor | None) -> Tensor:
    """The predicted noise (B, V, C, h, w) of x_t; cameras (V, 16), or None for pictures that have none."""
    b, views = x_t.shape[:2]
    context = ldm.words(w, torch.tensor([ids]), **WORDS).expand(b * views, -1, -1)
    label = None if cameras is None else cameras.repeat(b, 1)
    return ldm.unet(w, x_t.flatten(0, 1), torch.full((b * views,), t), context, U, label, views).view_as(x_t)


def checkpoint(seed: int = 0) -> tuple[ldm.Weights, dict[str, Tensor]]:
    """Weights, and the tensors of the published file: with the last block of the text tower, and what else lies there."""
    w = ldm.Weights(seed)
    x_t = torch.zeros(1, VIEWS, 4, U["image_size"], U["image_size"])
    predicted(w, x_t, 0, [0] * LENGTH, torch.zeros(VIEWS, 16))
    ldm.encode(w, torch.zeros(1, 3, 16, 16), V)
    ldm.decode(w, x_t[0, :1], V)
    betas = torch.linspace(LINEAR[0] ** 0.5, LINEAR[1] ** 0.5, LINEAR[2]) ** 2
    more = {"betas": betas, "sqrt_alphas_cumprod": betas, "cond_stage_model.model.logit_scale": torch.tensor(1.0)}
    return w, {**w.state, **more, "cond_stage_model.model.text_projection": torch.zeros(64, 64)}


def write(folder: Path, state: dict[str, Tensor]) -> tuple[Path, Path]:
    """The `.pt`, a plain dictionary, and its YAML."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "sd-v2.1-base-4view.pt")
    params = dict(zip(("linear_start", "linear_end", "timesteps"), LINEAR, strict=True))
    params |= {"scale_factor": 0.18215, "unet_config": {"params": U}, "first_stage_config": {"params": {"ddconfig": V}}}
    (folder / "config.yaml").write_text(json.dumps({"model": {"params": params}}))  # JSON is YAML
    return folder / "sd-v2.1-base-4view.pt", folder / "config.yaml"


def converted(folder: Path) -> tuple[ldm.Weights, Path]:
    """Weights, and the folder that `bozzetto convert` makes of their file."""
    w, state = checkpoint()
    ckpt, config = write(folder, state)
    convert(ckpt, folder / "made", "mvdream", config, tokenizer=MINI / "clip")
    return w, folder / "made"


def port(folder: Path, made: Path, w: ldm.Weights) -> Path:
    """The port to diffusers: the U-Net under the names and settings that it had, all else as `made` has it."""
    for part in ("vae", "text_encoder", "tokenizer", "scheduler"):
        shutil.copytree(made / part, folder / part)
    prefix = "model.diffusion_model."
    state = {k.removeprefix(prefix): v.contiguous() for k, v in w.state.items() if k.startswith(prefix)}
    (folder / "unet").mkdir()
    save_file(state, folder / "unet" / "diffusion_pytorch_model.safetensors")
    settings: dict[str, Any] = {"_class_name": "MultiViewUNetModel", "transformer_depth": 1, "use_checkpoint": False, **U}
    del settings["use_linear_in_transformer"]  # the port leaves it out
    (folder / "unet" / "config.json").write_text(json.dumps(settings))
    index = {"_class_name": "MVDreamPipeline", "unet": ["mv_unet", "MultiViewUNetModel"], "image_encoder": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
