# SPDX-License-Identifier: Apache-2.0
"""Legacy checkpoints of Zero-1-to-3 (`.ckpt`) to a folder that `load` reads; nothing in them is ever run. Those of MVDream go through
here to `mvdream_files`.

The file is read with torch's weights-only unpickler. Lightning files may hold the *class* of a callback as a key: an empty
class of ours stands under each of these names (`checkpoint.CALLBACKS`), a list that no file can lengthen. Every tensor must be accounted
for: used once, or known to be of no use. Averaged weights (`model_ema.`) are taken where there are any, as the authors' demo
does, unless the configuration says `use_ema: false`.

Papers: Zero-1-to-3 (arXiv:2303.11328), Zero123-XL (arXiv:2307.05663), Stable-Zero123 (released 2023-12, weights only).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bozzetto.errors import InputError
from bozzetto.priors import ldm, mvdream_files
from bozzetto.priors.checkpoint import read_checkpoint
from bozzetto.priors.codec import KLCodec
from bozzetto.priors.components import check_installed, fill
from bozzetto.priors.ldm import unet_settings, vae_settings
from bozzetto.priors.loading import check_free, save
from bozzetto.priors.schedule import NoiseSchedule
from bozzetto.priors.zero123 import KINDS, Zero123, check_sizes

USELESS = re.compile(  # schedule buffers, the text half of CLIP, the autoencoder's training loss
    r"(betas|alphas_cumprod|alphas_cumprod_prev|sqrt_\w+|log_one_minus_\w+|posterior_\w+|lvlb_weights|logvar|scale_factor"
    r"|first_stage_model\.loss\..+|model_ema\..+|cond_stage_model\.(mean|std)"
    r"|cond_stage_model\.model\.((positional_embedding|text_projection|logit_scale)|(token_embedding|ln_final|transformer)\..+))"
)
HEADS = ("num_heads", "num_head_channels")  # how many, or how wide
PUBLISHED: dict[str, Any] = {  # sd-objaverse-finetune-c_concat-256.yaml, the same for all published checkpoints
    "linear_start": 0.00085,
    "linear_end": 0.012,
    "timesteps": 1000,
    "scale_factor": 0.18215,
    "unet": {
        "image_size": 32,
        "in_channels": 8,
        "out_channels": 4,
        "model_channels": 320,
        "attention_resolutions": [4, 2, 1],
        "num_res_blocks": 2,
        "channel_mult": [1, 2, 4, 4],
        "num_heads": 8,
        "context_dim": 768,
    },
    "vae": {"z_channels": 4, "in_channels": 3, "out_ch": 3, "ch": 128, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2},
}


def convert(
    ckpt: str | Path,
    out: str | Path,
    kind: str,
    config: str | Path | None = None,
    *,
    half: bool = False,
    tokenizer: str | Path | None = None,
) -> None:
    """Write `out`, a folder in diffusers' layout, from a legacy checkpoint; all or nothing.

    kind    one of zero123.KINDS, or mvdream
    config  the YAML that the checkpoint was trained with, where it is not the published one
    half    write float16, half the size, instead of float32
    tokenizer  of mvdream, whose checkpoint holds none: a folder with tokenizer/, or the name of a fetched prior
    raises  InputError, one sentence: unreadable, holding code, incomplete, or not of this kind
    """
    ckpt, out = Path(ckpt), Path(out)
    if kind not in (*KINDS, mvdream_files.KIND):
        raise InputError(f"--kind {kind}: expected one of {', '.join((*KINDS, mvdream_files.KIND))}")
    check_free(out)
    check_installed()
    if kind == mvdream_files.KIND:
        sizes = mvdream_files.PUBLISHED if config is None else read_config(Path(config), mvdream_files.PUBLISHED)
        mvdream_files.convert(ckpt, out, sizes, tokenizer, torch.float16 if half else torch.float32)
        return
    if tokenizer is not None:
        raise InputError(f"--tokenizer {tokenizer}: a checkpoint of kind {kind} reads no text; leave it out")
    settings = PUBLISHED if config is None else read_config(Path(config))
    state = read_checkpoint(ckpt)
    save(assemble(ckpt, state, settings, kind, torch.float16 if half else torch.float32), out)


def read_config(path: Path, published: dict[str, Any] = PUBLISHED) -> dict[str, Any]:
    """The parts of a latent-diffusion YAML that shape the networks, laid out as `published`; heads as they are counted there."""
    import yaml  # type: ignore[import-untyped]  # comes with transformers

    try:
        params = yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["params"]
        first = params["first_stage_config"]["params"]["ddconfig"]
        said = params["unet_config"]["params"]
        heads = next((k for k in HEADS if k in said), HEADS[0])
        unet = {k: said[k] for k in (*published["unet"].keys() - set(HEADS), heads)}
        found = {k: params.get(k, published[k]) for k in ("linear_start", "linear_end", "timesteps", "scale_factor")}
        vae = {k: first[k] for k in published["vae"]}
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror}); check the path of --config") from None
    except KeyError as error:
        raise InputError(f"{path}: {error} is missing; give the YAML that the checkpoint was trained with") from None
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, AttributeError):
        raise InputError(f"{path}: is not a latent-diffusion configuration; give the YAML that the checkpoint was trained with") from None
    return {**found, "unet": unet, "vae": vae, "use_ema": bool(params.get("use_ema", True))}


def assemble(where: Path, state: dict[str, Tensor], settings: dict[str, Any], kind: str, dtype: torch.dtype) -> Zero123:
    """The prior whose tensors are in `state`, by their legacy names.

    raises  InputError, about `where`, for tensors that are missing, left over, mis-shaped or do not belong to the settings
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    u, v = settings["unet"], settings["vae"]
    schedule = NoiseSchedule(settings["linear_start"], settings["linear_end"], "scaled_linear", settings["timesteps"])
    if kind != "zero123-mini" and schedule != NoiseSchedule():
        raise InputError(
            f"--config: {kind} was trained with {NoiseSchedule()}, it says {schedule}; give the right one, or --kind zero123-mini"
        )
    stored = state.get("alphas_cumprod")
    if stored is not None and (stored.shape != (schedule.steps,) or not torch.allclose(stored.double(), schedule.alpha_bar(), rtol=1e-3)):
        raise InputError(f"{where}: its noise levels are not those of the configuration ({schedule}); give its own with --config")
    sources: dict[str, dict[str, Tensor]] = {"unet": {}, "vae": {}, "vision": {}, "projection": {}}
    averaged = settings.get("use_ema", True) and any(k.startswith("model_ema.") for k in state)
    unknown = []
    for name, tensor in state.items():
        made: dict[str, Tensor] = {}
        if rest := _after(name, "model.diffusion_model."):
            if new := ldm.unet_name(rest, len(u["channel_mult"]), u["num_res_blocks"]):
                made = {new: _averaged(where, state, rest) if averaged else tensor}
            part = "unet"
        elif (rest := _after(name, "first_stage_model.")) and not rest.startswith("loss."):
            if new := ldm.vae_name(rest, len(v["ch_mult"])):
                made = {new: ldm.vae_tensor(new, tensor)}
            part = "vae"
        elif rest := _after(name, "cond_stage_model.model.visual."):
            made, part = ldm.vision_tensors(rest, tensor), "vision"
        elif rest := _after(name, "cc_projection."):
            made, part = {rest: tensor}, "projection"
        elif USELESS.fullmatch(name):
            continue
        if not made:
            unknown.append(name)
            continue
        sources[part].update(made)
    if unknown:
        raise InputError(
            f"{where}: {len(unknown)} tensors do not belong to Zero-1-to-3, such as {unknown[0]}; give another, or its --config"
        )

    def filled(part: str, what: str, build: Any) -> nn.Module:
        tensors = sources[part]
        shapes = {k: tuple(t.shape) for k, t in tensors.items()}
        return fill(Path(f"{where} ({what})"), build, shapes, lambda k: tensors[k].to(dtype))

    projection = sources["projection"].get("weight", torch.empty(0))
    if projection.ndim != 2:
        raise InputError(f"{where}: cc_projection.weight is missing, so this is not Zero-1-to-3; give another checkpoint")
    rows, columns = projection.shape
    unet, vae, vision = unet_settings(u), vae_settings(v, settings["scale_factor"]), _vision_settings(where, sources["vision"])
    check_sizes(where, kind, unet, vae, vision["projection_dim"], (columns, rows))
    clip = CLIPVisionConfig(**vision, attn_implementation="sdpa")
    return Zero123(
        filled("unet", "U-Net", lambda: UNet2DConditionModel(**unet)),
        KLCodec(filled("vae", "autoencoder", lambda: AutoencoderKL(**vae))),
        filled("vision", "CLIP", lambda: CLIPVisionModelWithProjection(clip)),
        filled("projection", "cc_projection", lambda: nn.Linear(columns, rows)),  # type: ignore[arg-type]
        schedule,
        kind,
    )


def _after(name: str, prefix: str) -> str:
    return name[len(prefix) :] if name.startswith(prefix) else ""


def _averaged(where: Path, state: dict[str, Tensor], rest: str) -> Tensor:
    """Lightning's EMA keeps a parameter under its name without dots."""
    name = "model_ema." + f"diffusion_model.{rest}".replace(".", "")
    if name not in state:
        raise InputError(f"{where}: has averaged weights, but not of {rest}; download it again")
    return state[name]


def _vision_settings(where: Path, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """OpenAI's vision tower says its sizes by its tensors; a head is 64 wide."""
    try:
        width, _, _, patch = tensors["vision_model.embeddings.patch_embedding.weight"].shape
        cells = len(tensors["vision_model.embeddings.position_embedding.weight"]) - 1
        return {
            "hidden_size": width,
            "intermediate_size": len(tensors["vision_model.encoder.layers.0.mlp.fc1.weight"]),
            "projection_dim": len(tensors["visual_projection.weight"]),
            "num_hidden_layers": sum(k.endswith(".mlp.fc1.weight") for k in tensors),
            "num_attention_heads": width // 64,
            "image_size": round(cells**0.5) * patch,
            "patch_size": patch,
            "hidden_act": "quick_gelu",
        }
    except (KeyError, ValueError) as error:
        raise InputError(f"{where}: CLIP's vision tower is missing or incomplete ({error}); download the checkpoint again") from None
