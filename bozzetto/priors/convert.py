# SPDX-License-Identifier: Apache-2.0
"""Legacy checkpoints of Zero-1-to-3 and SyncDreamer (`.ckpt`) to a folder that `load` reads; nothing in them is ever run. Those of MVDream
go through here to `mvdream_files`.

The file is read with torch's weights-only unpickler. Lightning files may hold the *class* of a callback as a key: an empty
class of ours stands under each of these names (`checkpoint.CALLBACKS`), a list that no file can lengthen. Every tensor must be accounted
for: used once, or known to be of no use. Averaged weights (`model_ema.`) are taken where there are any, as the authors' demo
does, unless the configuration says `use_ema: false`.

SyncDreamer's is a Zero-1-to-3, and networks that it has besides. Its cameras lie in the file, too; they must be ours.

Papers: Zero-1-to-3 (arXiv:2303.11328), Zero123-XL (arXiv:2307.05663), Stable-Zero123 (released 2023-12, weights only), SyncDreamer
(arXiv:2309.03453).
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bozzetto.camera import to_opencv
from bozzetto.errors import InputError
from bozzetto.priors import ldm, mvdream_files
from bozzetto.priors.checkpoint import read_checkpoint
from bozzetto.priors.codec import KLCodec
from bozzetto.priors.components import STEMS, check_installed, fill
from bozzetto.priors.ldm import unet_settings, vae_settings
from bozzetto.priors.saving import check_free, save
from bozzetto.priors.schedule import NoiseSchedule
from bozzetto.priors.sync_volume import Volume, VolumeConfig, ring
from bozzetto.priors.syncdreamer import KIND as SYNC
from bozzetto.priors.syncdreamer import PARTS, check_fits, layers
from bozzetto.priors.zero123 import KINDS, Zero123, check_sizes

USELESS = re.compile(  # schedule buffers, the text half of CLIP, the autoencoder's training loss
    r"(betas|alphas|alphas_cumprod|alphas_cumprod_prev|sqrt_\w+|log_one_minus_\w+|posterior_\w+|lvlb_weights|logvar|scale_factor"
    r"|first_stage_model\.loss\..+|model_ema\..+|cond_stage_model\.(mean|std)"
    r"|cond_stage_model\.model\.((positional_embedding|text_projection|logit_scale)|(token_embedding|ln_final|transformer)\..+))"
)
HEADS = ("num_heads", "num_head_channels")  # how many, or how wide
PUBLISHED: dict[str, Any] = {  # sd-objaverse-finetune-c_concat-256.yaml, the same for all published checkpoints
    **ldm.STABLE_DIFFUSION,
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

    kind    one of zero123.KINDS, "syncdreamer" or "mvdream"
    config  the YAML that the checkpoint was trained with, where it is not the published one
    half    write float16, half the size, instead of float32
    tokenizer  of mvdream, whose checkpoint holds none: a folder with tokenizer/, or the name of a fetched prior
    raises  InputError, one sentence: unreadable, holding code, incomplete, or not of this kind
    """
    ckpt, out = Path(ckpt), Path(out)
    if kind not in (*KINDS, SYNC, mvdream_files.KIND):
        raise InputError(f"--kind {kind}: expected one of {', '.join((*KINDS, SYNC, mvdream_files.KIND))}")
    check_free(out)
    check_installed()
    if kind == mvdream_files.KIND:
        sizes = mvdream_files.PUBLISHED if config is None else read_config(Path(config), mvdream_files.PUBLISHED)
        mvdream_files.convert(ckpt, out, sizes, tokenizer, torch.float16 if half else torch.float32)
        return
    if tokenizer is not None:
        raise InputError(f"--tokenizer {tokenizer}: a checkpoint of kind {kind} reads no text; leave it out")
    settings = PUBLISHED if config is None else read_config(Path(config))
    state, dtype = read_checkpoint(ckpt), torch.float16 if half else torch.float32
    if kind == SYNC:
        _save_sync(*assemble_sync(ckpt, state, settings, dtype), out)
    else:
        save(assemble(ckpt, state, settings, kind, dtype), out)


def read_config(path: Path, published: dict[str, Any] = PUBLISHED) -> dict[str, Any]:
    """The parts of a latent-diffusion YAML that shape the networks, laid out as `published`; heads as they are counted there. What
    SyncDreamer's says nothing of is as there."""
    import yaml  # type: ignore[import-untyped]  # comes with transformers

    try:
        params = yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["params"]
        first = params["first_stage_config"]["params"]["ddconfig"] if "view_num" not in params else published["vae"]  # SyncDreamer's
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
            f"{where}: {len(unknown)} tensors do not belong to what --kind says, such as {unknown[0]}; give another, or its --config"
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


def assemble_sync(
    where: Path, state: dict[str, Tensor], settings: dict[str, Any], dtype: torch.dtype
) -> tuple[Zero123, dict[str, tuple[nn.Module, dict[str, Any]]]]:
    """As `assemble`, of SyncDreamer: its Zero-1-to-3, and the networks of `syncdreamer.PARTS` with their settings."""
    tensors: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    plain, cameras = {}, {}
    for name, tensor in state.items():
        if new := ldm.volume_name(name):
            tensors["volume"][new] = tensor
        elif new := ldm.depth_name(_after(name, "model.diffusion_model.")):
            tensors["conditions"][new] = tensor
        elif name in ("poses", "Ks", "azimuth"):
            cameras[name] = tensor
        else:
            plain[f"cond_stage_model.{rest}" if (rest := _after(name, "clip_image_encoder.")) else name] = tensor
    config = _volume_config(where, tensors["volume"], cameras, settings["unet"]["image_size"])
    check_fits(where, config, unet_settings(settings["unet"]))
    base = assemble(where, plain, settings, "zero123", dtype)
    _check_cameras(where, cameras, config, base.size)

    def filled(part: str, build: Any) -> nn.Module:
        shapes = {k: tuple(t.shape) for k, t in tensors[part].items()}
        return fill(Path(f"{where} ({part})"), build, shapes, lambda k: tensors[part][k].to(dtype))

    volume = filled("volume", lambda: Volume(config)), asdict(config)
    conditions: tuple[nn.Module, dict[str, Any]] = filled("conditions", lambda: layers(base.unet, config)), {}
    return base, dict(zip(PARTS, (volume, conditions), strict=True))


def _save_sync(base: Zero123, parts: dict[str, tuple[nn.Module, dict[str, Any]]], out: Path) -> None:
    """As `saving.save`, with the parts that it does not know."""
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as at:
        made = Path(at) / "made"
        save(base, made)
        for name, (network, config) in parts.items():
            (made / name).mkdir()
            (made / name / "config.json").write_text(json.dumps(config, indent=1) + "\n")
            state = {k: v.contiguous() for k, v in network.state_dict().items()}
            save_file(state, made / name / f"{STEMS[0]}.safetensors", metadata={"format": "pt"})
        (made / "bozzetto.json").write_text(json.dumps({"kind": SYNC}, indent=1) + "\n")
        made.rename(out)


def _volume_config(where: Path, tensors: dict[str, Tensor], cameras: dict[str, Tensor], size: int) -> VolumeConfig:
    """Sizes by the tensors; those of the cube's and the frustum's lattices, which no tensor says, are the published ones."""
    try:

        def widths(net: str) -> tuple[int, ...]:
            first = len(tensors[f"{net}.first.bias"])
            return (first, *(len(tensors[f"{net}.levels.{k}.0.conv.bias"]) for k in (1, 2, 3)))

        width, channels = tensors["encoder.first.weight"].shape[:2]
        return VolumeConfig(
            views=len(cameras["azimuth"]),
            channels=channels,
            size=size,
            time=len(tensors["time_embed.0.bias"]),
            pose=tensors["encoder.blocks.0.pose.weight"].shape[1],
            width=width,
            features=len(tensors["encoder.last.bias"]),
            volume=widths("spatial"),
            frustum=widths("frustum"),
        )
    except (KeyError, ValueError) as error:
        raise InputError(f"{where}: SyncDreamer's volume is missing or incomplete ({error}); download the checkpoint again") from None


def _check_cameras(where: Path, found: dict[str, Tensor], config: VolumeConfig, size: int) -> None:
    """raises InputError where a checkpoint's cameras are missing, or not those that the volume is made for"""
    ours = ring(config.views, size)
    w2c = to_opencv(ours.c2w)
    R = w2c[:, :, :3].mT
    turns = 2 * math.pi * torch.arange(config.views) / config.views
    wanted = {"poses": torch.cat([R, -R @ w2c[:, :, 3:]], 2), "Ks": ours.K, "azimuth": torch.zeros(config.views)}
    for name, expected in wanted.items():
        tensor = found.get(name)
        if tensor is not None and name == "azimuth":
            tensor = torch.sin((tensor - turns) / 2)  # whole turns apart
        if tensor is None or tensor.shape != expected.shape or not torch.allclose(tensor.double(), expected.double(), atol=1e-3):
            raise InputError(f"{where}: its cameras ({name}) are missing, or not SyncDreamer's; give the file that the authors published")


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
