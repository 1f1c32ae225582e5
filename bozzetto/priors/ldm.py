# SPDX-License-Identifier: Apache-2.0
"""Names of the tensors in legacy latent-diffusion and OpenAI CLIP checkpoints, as diffusers and transformers call them, and settings.

`unet_name`, `vae_name`, `vision_tensors`, `text_tensors`, and for SyncDreamer `depth_name` and `volume_name`, say what becomes of each
tensor, one to one. Which level and block a U-Net's `input_blocks.N` is follows from the number of levels and of residual blocks in each;
the U-Net's attention keeps its names.

Letters: levels L, residual blocks n in each on the way down (n + 1 on the way up).
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

STABLE_DIFFUSION: dict[str, Any] = {  # of every released model that was trained on from Stable Diffusion 1 or 2
    "linear_start": 0.00085,
    "linear_end": 0.012,
    "timesteps": 1000,
    "scale_factor": 0.18215,
    "vae": {"z_channels": 4, "in_channels": 3, "out_ch": 3, "ch": 128, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2},
}
RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "camera_embed.0": "class_embedding.linear_1",  # MVDream's
    "camera_embed.2": "class_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
VISION = {
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",  # transformers' spelling
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}
TEXT = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
CLIP_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


VIEW_BLOCK = {"time_embed": "time", "view_embed": "pose", "conv.0": "norm_1", "conv.2": "conv_1", "conv.3": "norm_2", "conv.5": "conv_2"}
VIEW_ENDS = {"init_conv": "first", "final_out.0": "norm", "final_out.2": "last"}
BLOCK_3D = {"t_conv": "time", "v_conv": "pose", "bn": "norm", "norm": "norm", "conv": "conv"}


def unet_name(name: str, levels: int, blocks: int) -> str | None:
    """diffusers' name of a latent-diffusion U-Net's tensor (without `model.diffusion_model.`); None for an unknown one."""
    stem, _, leaf = name.rpartition(".")
    if stem in ENDS:
        return f"{ENDS[stem]}.{leaf}"
    if m := re.fullmatch(r"middle_block\.([012])\.(.+)", name):
        part = int(m[1])
        return f"mid_block.attentions.0.{m[2]}" if part == 1 else _resnet(f"mid_block.resnets.{part // 2}", m[2])
    if m := re.fullmatch(r"input_blocks\.(\d+)\.([01])\.(.+)", name):
        level, block = divmod(int(m[1]) - 1, blocks + 1)
        if level >= levels:
            return None
        if block == blocks:
            rest = m[3].removeprefix("op.")
            return f"down_blocks.{level}.downsamplers.0.conv.{rest}" if rest != m[3] and level < levels - 1 else None
        place = f"down_blocks.{level}"
    elif m := re.fullmatch(r"output_blocks\.(\d+)\.([012])\.(.+)", name):
        level, block = divmod(int(m[1]), blocks + 1)
        if level >= levels:
            return None
        place = f"up_blocks.{level}"
        if m[2] != "0" and m[3].startswith("conv."):
            return f"{place}.upsamplers.0.{m[3]}" if block == blocks and level < levels - 1 else None
    else:
        return None
    return _resnet(f"{place}.resnets.{block}", m[3]) if m[2] == "0" else f"{place}.attentions.{block}.{m[3]}"


def _resnet(place: str, rest: str) -> str | None:
    stem, _, leaf = rest.rpartition(".")
    return f"{place}.{RESNET[stem]}.{leaf}" if stem in RESNET else None


def depth_name(name: str) -> str | None:
    """Our name, in the order of `syncdreamer.hooked`, of a tensor that SyncDreamer's U-Net has besides (without `model.diffusion_model.`);
    None for one of another."""
    if m := re.fullmatch(r"middle_conditions\.(.+)", name):
        return f"0.{m[1]}"
    if m := re.fullmatch(r"output_conditions\.(\d+)\.(.+)", name):
        return f"{int(m[1]) + 1}.{m[2]}"
    return None


def volume_name(name: str) -> str | None:
    """Our name of a tensor of SyncDreamer's volume networks (`time_embed.`, `spatial_volume.`); None for one of another."""
    if re.fullmatch(r"time_embed\.[02]\.\w+", name):
        return name
    stem, _, leaf = name.rpartition(".")
    if m := re.fullmatch(r"spatial_volume\.target_encoder\.(.+)", stem):
        if at := re.fullmatch(r"out_conv(\d)\.(.+)", m[1]):
            return f"encoder.blocks.{at[1]}.{VIEW_BLOCK[at[2]]}.{leaf}" if at[2] in VIEW_BLOCK else None
        return f"encoder.{VIEW_ENDS[m[1]]}.{leaf}" if m[1] in VIEW_ENDS else None
    if not (m := re.fullmatch(r"spatial_volume\.(spatial|frustum)_volume_feats\.(\w+?)(?:\.(\w+))?", stem)):
        return None
    net, layer, part = m.groups()
    if part is None:
        return f"{net}.first.{leaf}" if layer == ("init_conv" if net == "spatial" else "conv0") else None
    if part not in BLOCK_3D:
        return None
    if up := re.fullmatch(r"up(\d)" if net == "frustum" else r"conv([789])", layer):
        return f"{net}.ups.{int(up[1]) - (0 if net == 'frustum' else 7)}.{BLOCK_3D[part]}.{leaf}"
    if not (at := re.fullmatch(r"conv([0-6])(?:_([01]))?", layer)):
        return None
    level, is_behind = divmod(int(at[1]) + 1, 2)  # odd ones lead to a level, even ones stand behind
    return f"{net}.levels.{level}.{int(at[2] or 0) + (is_behind if level else 0)}.{BLOCK_3D[part]}.{leaf}"


def vae_name(name: str, levels: int) -> str | None:
    """diffusers' name of a latent-diffusion autoencoder's tensor (without `first_stage_model.`); None for an unknown one."""
    side, _, rest = name.partition(".")
    if side in ("quant_conv", "post_quant_conv"):
        return name
    if side not in ("encoder", "decoder"):
        return None
    stem, _, leaf = rest.rpartition(".")
    if stem in ("conv_in", "conv_out", "norm_out"):
        return f"{side}.{stem.replace('norm_out', 'conv_norm_out')}.{leaf}"
    if m := re.fullmatch(r"mid\.block_([12])\.(.+)", stem):
        return f"{side}.mid_block.resnets.{int(m[1]) - 1}.{_shortcut(m[2])}.{leaf}"
    if m := re.fullmatch(r"mid\.attn_1\.(.+)", stem):
        return f"{side}.mid_block.attentions.0.{VAE_ATTENTION[m[1]]}.{leaf}" if m[1] in VAE_ATTENTION else None
    if not (m := re.fullmatch(r"(down|up)\.(\d+)\.(block\.(\d+)|downsample|upsample)\.(.+)", stem)):
        return None
    level = int(m[2]) if m[1] == "down" else levels - 1 - int(m[2])  # latent diffusion counts both from the picture
    place = f"{side}.{m[1]}_blocks.{level}"
    return f"{place}.resnets.{m[4]}.{_shortcut(m[5])}.{leaf}" if m[4] else f"{place}.{m[3]}rs.0.{m[5]}.{leaf}"


def _shortcut(part: str) -> str:
    return "conv_shortcut" if part == "nin_shortcut" else part


def vae_tensor(name: str, tensor: Tensor) -> Tensor:
    """Attention was made of 1 x 1 convolutions: (C, C, 1, 1) to the (C, C) of a linear layer; `name` is diffusers'."""
    return tensor[:, :, 0, 0] if ".attentions." in name and tensor.ndim == 4 else tensor


def vision_tensors(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """What becomes of a tensor of OpenAI's vision tower (name without `visual.`); none for an unknown one.

    The projection was multiplied from the right, and one matrix held queries, keys and values.
    """
    if name == "proj":
        return {"visual_projection.weight": tensor.T}
    if name in VISION:
        return {f"vision_model.{VISION[name]}": tensor}
    return _clip_block("vision_model", name, tensor)


def text_tensors(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """What becomes of a tensor of OpenCLIP's text tower (name without `cond_stage_model.model.`); none for an unknown one."""
    return {f"text_model.{TEXT[name]}": tensor} if name in TEXT else _clip_block("text_model", name, tensor)


def _clip_block(tower: str, name: str, tensor: Tensor) -> dict[str, Tensor]:
    if not (m := re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", name)):
        return {}
    layer = f"{tower}.encoder.layers.{m[1]}"
    if m[2] in ("attn.in_proj_weight", "attn.in_proj_bias"):
        thirds = tensor.chunk(3)
        return {f"{layer}.self_attn.{p}_proj.{m[2].rpartition('_')[2]}": t for p, t in zip("qkv", thirds, strict=True)}
    stem, _, leaf = m[2].rpartition(".")
    return {f"{layer}.{CLIP_BLOCK[stem]}.{leaf}": tensor} if stem in CLIP_BLOCK else {}


# ---- settings ----


def unet_settings(u: dict[str, Any]) -> dict[str, Any]:
    """Of diffusers' UNet2DConditionModel. Latent diffusion says at which reductions there is attention, diffusers which blocks have it."""
    levels, widths = len(u["channel_mult"]), tuple(u["model_channels"] * m for m in u["channel_mult"])
    attends = [2**i in u["attention_resolutions"] for i in range(levels)]
    known = {
        "sample_size": u["image_size"],
        "in_channels": u["in_channels"],
        "out_channels": u["out_channels"],
        "down_block_types": tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        "up_block_types": tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        "block_out_channels": widths,
        "layers_per_block": u["num_res_blocks"],
        "cross_attention_dim": u["context_dim"],
        # diffusers' name for the number of heads
        "attention_head_dim": tuple(w // u["num_head_channels"] for w in widths) if "num_head_channels" in u else u["num_heads"],
    }
    if "camera_dim" in u:  # MVDream's
        known |= {"class_embed_type": "projection", "projection_class_embeddings_input_dim": u["camera_dim"]}
    return known


def vae_settings(v: dict[str, Any], scale: float) -> dict[str, Any]:
    """Of diffusers' AutoencoderKL."""
    levels = len(v["ch_mult"])
    return {
        "in_channels": v["in_channels"],
        "out_channels": v["out_ch"],
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": tuple(v["ch"] * m for m in v["ch_mult"]),
        "layers_per_block": v["num_res_blocks"],
        "latent_channels": v["z_channels"],
        "scaling_factor": scale,
    }
