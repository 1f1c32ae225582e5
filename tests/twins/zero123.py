# SPDX-License-Identifier: Apache-2.0
"""Published Zero-1-to-3, small and with random weights, in its three layouts; and what its demo and its two ports compute.

The original is a checkpoint under legacy names, run by `twins.ldm`. The ports are diffusers and transformers objects written
by their own `save_pretrained` and read by their own `from_pretrained`. All take the same picture and pose, and answer with
the predicted noise.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.twins import ldm

LINEAR = (0.00085, 0.012, 1000)  # betas: linear in their root
U = {
    "image_size": 8,
    "in_channels": 8,
    "out_channels": 4,
    "model_channels": 32,
    "attention_resolutions": [2, 1],
    "num_res_blocks": 2,
    "channel_mult": [1, 2, 2],
    "num_heads": 4,
    "context_dim": 24,
}
V = {"z_channels": 4, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1}
CLIP = {"width": 128, "patch": 8, "layers": 2, "out": 24}
CLIP_SIDE, SIDE = 32, 16


def alphas_cumprod() -> Tensor:
    start, end, steps = LINEAR
    return (1 - torch.linspace(math.sqrt(start), math.sqrt(end), steps, dtype=torch.float64) ** 2).cumprod(0)


def pose_code(T: str, polar: float, turn: float, closer: float, reference_polar: float) -> Tensor:
    """(1, 4): plain numbers in, the code of `zero123` or of `stable-zero123` out."""
    last = closer if T == "zero123" else reference_polar
    return torch.tensor([[polar, math.sin(turn), math.cos(turn), last]])


def clip_input(pixels: Tensor) -> Tensor:
    """Preprocessing of the demo: (B, 3, H, W) in [-1, 1], bicubic (a = -3/4) with aligned corners, no antialias; written as weights."""

    def matrix(n: int) -> Tensor:
        m = torch.zeros(CLIP_SIDE, n, dtype=torch.float64)
        for i in range(CLIP_SIDE):
            x = i * (n - 1) / (CLIP_SIDE - 1)
            for k in range(math.floor(x) - 1, math.floor(x) + 3):
                d, a = abs(x - k), -0.75
                near = (a + 2) * d**3 - (a + 3) * d**2 + 1
                m[i, min(max(k, 0), n - 1)] += near if d <= 1 else a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0
        return m

    rows, columns = matrix(pixels.shape[-2]), matrix(pixels.shape[-1])
    x = (torch.einsum("ij,bcjk,lk->bcil", rows, pixels.double(), columns).float() + 1) / 2
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    return (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def original_noise(w: ldm.Weights, pixels: Tensor, T: Tensor, x_t: Tensor, t: int) -> Tensor:
    """The demo's network call: token from CLIP and pose, the picture's latent beside the noisy one, unscaled."""
    embedding = ldm.clip(w, clip_input(pixels), **CLIP)
    token = w.linear("cc_projection", torch.cat([embedding, T], -1), U["context_dim"])[:, None]
    concat = ldm.encode(w, pixels, V)
    return ldm.unet(w, torch.cat([x_t, concat], 1), torch.full((len(x_t),), t), token, U)


def original_checkpoint(seed: int = 0) -> tuple[ldm.Weights, dict[str, Tensor]]:
    """Weights, and the `state_dict` of a Lightning file: with averaged weights (which are the ones in use) and what else lies there."""
    w = ldm.Weights(seed)
    pixels, x_t = torch.zeros(1, 3, SIDE, SIDE), torch.zeros(1, 4, U["image_size"], U["image_size"])
    original_noise(w, pixels, torch.zeros(1, 4), x_t, 0)
    ldm.decode(w, x_t, V)
    state = dict(w.state)
    for name, tensor in w.state.items():
        if name.startswith("model."):
            state["model_ema." + name.removeprefix("model.").replace(".", "")] = tensor
            state[name] = tensor + 0.05 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(len(name)))
    state["model_ema.decay"], state["model_ema.num_updates"] = torch.tensor(0.9999), torch.tensor(7)
    betas = torch.linspace(LINEAR[0] ** 0.5, LINEAR[1] ** 0.5, LINEAR[2]) ** 2
    state |= {"betas": betas, "alphas_cumprod": (1 - betas).cumprod(0), "posterior_variance": betas, "logvar": 0 * betas}
    state |= {"cond_stage_model.mean": torch.zeros(3), "cond_stage_model.model.token_embedding.weight": torch.zeros(7, 3)}
    return w, state


def write_original(folder: Path, state: dict[str, Tensor]) -> tuple[Path, Path]:
    """A Lightning `.ckpt` and its YAML."""
    ckpt, config = folder / "105000.ckpt", folder / "config.yaml"
    torch.save({"state_dict": state, "epoch": 3, "global_step": 105000, "callbacks": {"ModelCheckpoint": {"best": None}}}, ckpt)
    params = {
        "linear_start": LINEAR[0],
        "linear_end": LINEAR[1],
        "timesteps": LINEAR[2],
        "scale_factor": 0.18215,
        "unet_config": {"params": U},
        "first_stage_config": {"params": {"embed_dim": 4, "ddconfig": V}},
    }
    config.write_text(json.dumps({"model": {"base_learning_rate": 1e-4, "params": params}}))  # JSON is YAML
    return ckpt, config


def small_unet(inputs: int, outputs: int, attended: int, widths: tuple[int, int] = (16, 32), *, linear: bool = False) -> Any:
    """diffusers' conditioned U-Net of two levels, on 8 x 8 cells; `attended` is the width of what cross-attention looks at."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        in_channels=inputs,
        out_channels=outputs,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=widths,
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=attended,
        attention_head_dim=4,
        use_linear_projection=linear,
    )


def port_parts(seed: int = 0) -> dict[str, Any]:
    """diffusers' and transformers' own objects, small, random."""
    from diffusers import AutoencoderKL, DDIMScheduler
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(seed)
        unet = small_unet(8, 4, 24)
        blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
        vae = AutoencoderKL(block_out_channels=(8, 16), norm_num_groups=8, latent_channels=4, scaling_factor=0.18215, **blocks)
        clip = CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            projection_dim=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=CLIP_SIDE,
            patch_size=8,
        )
        image_encoder = CLIPVisionModelWithProjection(clip)
        projection = torch.nn.Linear(28, 24)
    scheduler = DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return {"unet": unet.eval(), "vae": vae.eval(), "image_encoder": image_encoder.eval(), "scheduler": scheduler, "projection": projection}


def write_port(folder: Path, parts: dict[str, Any], layout: int) -> Path:
    """Port i or ii: `Zero1to3StableDiffusionPipeline` or `Zero123Pipeline`."""
    from safetensors.torch import save_file

    for name in ("unet", "vae", "image_encoder", "scheduler"):
        parts[name].save_pretrained(folder / name)
    head, layer = {1: ("cc_projection", "projection"), 2: ("clip_camera_projection", "proj")}[layout]
    (folder / head).mkdir(parents=True)
    state = {f"{layer}.{k}": v.detach() for k, v in parts["projection"].state_dict().items()}
    save_file(state, folder / head / "diffusion_pytorch_model.safetensors")
    sizes = {} if layout == 1 else {"embedding_dim": 24, "additional_embeddings": 4}
    (folder / head / "config.json").write_text(json.dumps({"_class_name": "CCProjection", **sizes}))
    index = {
        "_class_name": {1: "Zero1to3StableDiffusionPipeline", 2: "Zero123Pipeline"}[layout],
        head: [{1: "pipeline_zero1to3", 2: "zero123"}[layout], {1: "CCProjection", 2: "CLIPCameraProjection"}[layout]],
        "unet": ["diffusers", "UNet2DConditionModel"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def port_noise(folder: Path, layout: int, pixels: Tensor, T: Tensor, x_t: Tensor, t: int) -> Tensor:
    """A port's network call, its parts opened by their own libraries."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from safetensors.torch import load_file
    from transformers import CLIPVisionModelWithProjection

    local = {"local_files_only": True, "use_safetensors": True}
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", **local)
    vae = AutoencoderKL.from_pretrained(folder / "vae", **local)
    image_encoder = CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder", **local)
    head, layer = {1: ("cc_projection", "projection"), 2: ("clip_camera_projection", "proj")}[layout]
    state = load_file(folder / head / "diffusion_pytorch_model.safetensors")
    with torch.no_grad():
        embedding = image_encoder(clip_input(pixels)).image_embeds[:, None]
        token = F.linear(torch.cat([embedding, T[:, None]], -1), state[f"{layer}.weight"], state[f"{layer}.bias"])
        latent = vae.encode(pixels).latent_dist.mode()
        scaled = latent * vae.config.scaling_factor
        concat = scaled / vae.config.scaling_factor if layout == 2 else latent  # as the ports do
        return unet(torch.cat([x_t, concat], 1), t, encoder_hidden_states=token).sample
