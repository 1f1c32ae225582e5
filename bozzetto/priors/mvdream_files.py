# SPDX-License-Identifier: Apache-2.0
"""MVDream's published checkpoints (`.pt`) to a folder that `load` reads: a plain dictionary of tensors under latent diffusion's names.

Two were published, from Stable Diffusion 2.1 (OpenCLIP's text tower, of which the last block is not used) and from 1.5 (OpenAI's, under
transformers' names). Neither holds its tokenizer. Every tensor must be accounted for: used once, or known to be of no use.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bozzetto.errors import InputError
from bozzetto.priors import components, ldm, published
from bozzetto.priors.checkpoint import read_checkpoint
from bozzetto.priors.codec import KLCodec
from bozzetto.priors.components import STEMS, fill
from bozzetto.priors.saving import codec_files, write_folder
from bozzetto.priors.schedule import NoiseSchedule

KIND = "mvdream"
TOKENIZER = "stable-diffusion-2.1-base"
HEAD = 64  # width of a head of the text towers
USELESS = re.compile(  # schedule buffers, what CLIP compares texts with pictures by
    r"(betas|alphas_cumprod|alphas_cumprod_prev|sqrt_\w+|log_one_minus_\w+|posterior_\w+|lvlb_weights|logvar|scale_factor"
    r"|first_stage_model\.loss\..+|cond_stage_model\.model\.(text_projection|logit_scale|attn_mask)"
    r"|cond_stage_model\.transformer\.text_model\.embeddings\.position_ids)"
)
PUBLISHED: dict[str, Any] = {  # sd-v2-base.yaml
    **ldm.STABLE_DIFFUSION,
    "unet": {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 320,
        "attention_resolutions": [4, 2, 1],
        "num_res_blocks": 2,
        "channel_mult": [1, 2, 4, 4],
        "num_head_channels": 64,
        "context_dim": 1024,
        "camera_dim": 16,
    },
}
INDEX = {
    "_class_name": "MVDreamPipeline",
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def convert(ckpt: Path, out: Path, settings: dict[str, Any], tokenizer: str | Path | None, dtype: torch.dtype) -> None:
    """Write `out` from a checkpoint; all or nothing.

    settings   as `PUBLISHED`
    tokenizer  folder with tokenizer/, or the name of a fetched prior; by default TOKENIZER
    raises     InputError, one sentence, for a checkpoint or tokenizer that cannot be used
    """
    words = _tokenizer(tokenizer)
    schedule = NoiseSchedule(settings["linear_start"], settings["linear_end"], "scaled_linear", settings["timesteps"])
    unet, codec, tower = assemble(ckpt, read_checkpoint(ckpt), settings, dtype)
    networks = {
        "unet": (unet, components.config_of(unet), STEMS[0]),
        "vae": (*codec_files(codec), STEMS[0]),
        "text_encoder": (tower, tower.config.to_dict(), STEMS[1]),
    }
    write_folder(out, networks, INDEX, schedule, KIND, {"tokenizer": words})


def _tokenizer(given: str | Path | None) -> Path:
    where = TOKENIZER if given is None else given
    wanted = f"give --tokenizer, a folder with tokenizer/ as Stable Diffusion 2.1's (bozzetto fetch {TOKENIZER})"
    try:
        found = published.place(where) / "tokenizer"
    except InputError as error:
        raise InputError(f"the checkpoint holds no tokenizer, and {error}; or {wanted}") from None
    if not found.is_dir():
        raise InputError(f"{where}: holds no tokenizer/; {wanted}")
    return found


def assemble(where: Path, state: dict[str, Tensor], settings: dict[str, Any], dtype: torch.dtype) -> tuple[nn.Module, KLCodec, Any]:
    """U-Net, codec and text tower whose tensors are in `state`, by their legacy names.

    raises  InputError, about `where`, for tensors that are missing, left over, mis-shaped or do not belong to the settings
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    u, v = settings["unet"], settings["vae"]
    sources: dict[str, dict[str, Tensor]] = {"unet": {}, "vae": {}, "text": {}}
    unknown = []
    for name, tensor in state.items():
        if USELESS.fullmatch(name):
            continue
        part, made = _named(name, tensor, u, v)
        if made:
            sources[part].update(made)
        else:
            unknown.append(name)
    if unknown:
        raise InputError(f"{where}: {len(unknown)} tensors do not belong to MVDream, such as {unknown[0]}; give another, or its --config")
    is_open = not any(name.startswith("cond_stage_model.transformer.") for name in state)
    text = _text_settings(where, sources["text"], is_open)
    last = f"text_model.encoder.layers.{text['num_hidden_layers']}."
    sources["text"] = {k: t for k, t in sources["text"].items() if not k.startswith(last)}  # OpenCLIP's last block is not asked
    linear = any(k.endswith(".proj_in.weight") and t.ndim == 2 for k, t in sources["unet"].items())
    unet, vae = {**ldm.unet_settings(u), "use_linear_projection": linear}, ldm.vae_settings(v, settings["scale_factor"])
    if unet["cross_attention_dim"] != text["hidden_size"]:
        widths = f"looks at {unet['cross_attention_dim']} numbers, its text tower has {text['hidden_size']}"
        raise InputError(f"{where}: the U-Net {widths}; give its own --config")

    def filled(part: str, what: str, build: Any) -> nn.Module:
        tensors = sources[part]
        shapes = {k: tuple(t.shape) for k, t in tensors.items()}
        return fill(Path(f"{where} ({what})"), build, shapes, lambda k: tensors[k].to(dtype))

    def tower() -> nn.Module:
        made = CLIPTextModelWithProjection(CLIPTextConfig(**text, attn_implementation="sdpa"))
        made.text_projection = nn.Identity()
        return made

    return (
        filled("unet", "U-Net", lambda: UNet2DConditionModel(**unet)),
        KLCodec(filled("vae", "autoencoder", lambda: AutoencoderKL(**vae))),
        filled("text", "text tower", tower),
    )


def _named(name: str, tensor: Tensor, u: dict[str, Any], v: dict[str, Any]) -> tuple[str, dict[str, Tensor]]:
    """Which network a tensor is of, and its names there; none for an unknown one."""
    for prefix, part in (("model.diffusion_model.", "unet"), ("first_stage_model.", "vae"), ("cond_stage_model.", "text")):
        if not name.startswith(prefix):
            continue
        rest = name[len(prefix) :]
        if part == "unet":
            new = ldm.unet_name(rest, len(u["channel_mult"]), u["num_res_blocks"])
            return part, {new: tensor} if new else {}
        if part == "vae":
            new = ldm.vae_name(rest, len(v["ch_mult"]))
            return part, {new: ldm.vae_tensor(new, tensor)} if new else {}
        if rest.startswith("transformer.text_model."):
            return part, {rest.removeprefix("transformer."): tensor}
        return part, ldm.text_tensors(rest.removeprefix("model."), tensor) if rest.startswith("model.") else {}
    return "", {}


def _text_settings(where: Path, tensors: dict[str, Tensor], is_open: bool) -> dict[str, Any]:
    """Text towers say their sizes by their tensors; OpenCLIP's is used up to its last block but one."""
    try:
        vocabulary, width = tensors["text_model.embeddings.token_embedding.weight"].shape
        return {
            "vocab_size": vocabulary,
            "bos_token_id": vocabulary - 2,  # CLIP's last two words
            "eos_token_id": vocabulary - 1,
            "hidden_size": width,
            "max_position_embeddings": len(tensors["text_model.embeddings.position_embedding.weight"]),
            "intermediate_size": len(tensors["text_model.encoder.layers.0.mlp.fc1.weight"]),
            "num_hidden_layers": sum(k.endswith(".mlp.fc1.weight") for k in tensors) - is_open,
            "num_attention_heads": max(width // HEAD, 1),
            "hidden_act": "gelu" if is_open else "quick_gelu",
        }
    except (KeyError, ValueError) as error:
        raise InputError(f"{where}: its text tower is missing or incomplete ({error}); download the checkpoint again") from None
