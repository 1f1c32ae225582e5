# SPDX-License-Identifier: Apache-2.0
"""`load`: a prior from a folder in diffusers' layout, embedded or published; `save`: such a folder.

A folder holds `model_index.json`, one folder for each network, `scheduler/`, and perhaps the sidecar `bozzetto.json`, whose
`kind` says what the weights cannot: Zero-1-to-3 and Stable-Zero123 have the same tensors and read different pose codes.
Both published ports of Zero-1-to-3 to diffusers are read; legacy `.ckpt` files go through `bozzetto convert` first.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bozzetto.errors import InputError
from bozzetto.priors import components
from bozzetto.priors.components import read_json
from bozzetto.priors.hint import PLANES
from bozzetto.priors.schedule import Schedule, read_schedule
from bozzetto.priors.text2image import TextToImage
from bozzetto.priors.zero123 import KINDS, Zero123

MINI = Path(__file__).parent / "mini"
NAMES = {"mini": "zero123"}
"""embedded priors by their short name"""
PROJECTIONS = {"cc_projection": "projection", "clip_camera_projection": "proj"}
"""the two ports' folders for the projection, and how their linear layer is called"""
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def dtype_on(device: str, precision: str = "auto") -> torch.dtype:
    """What networks compute in: `auto` is float16 on CUDA, as published models are run, and float32 elsewhere; or a dtype's name."""
    if precision == "auto":
        return torch.float16 if device.startswith("cuda") else torch.float32
    return {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}[precision]


def load(
    name_or_folder: str | Path,
    kind: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Zero123:
    """The prior in a folder, or the embedded one of that name (`mini`, `mini/zero123`), frozen and in eval mode.

    kind    one of zero123.KINDS, where the folder's bozzetto.json does not say it
    dtype   float32, float16 or bfloat16, of all networks; pictures, latents and conditions stay float32
    raises  InputError, one sentence, for a folder that is not there, incomplete, damaged, pickled or of another kind, before
            any large file is read where that can be known; ValueError for another dtype
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected one of {DTYPES}, got {dtype}")
    folder = _folder(name_or_folder)
    kind = _kind(folder, kind)
    check_installed()
    head = _head(folder)
    schedule = read_schedule(folder / "scheduler")
    if kind != "zero123-mini" and schedule != Schedule():
        raise InputError(
            f"{folder}/scheduler: expected the noise levels of {kind}, {Schedule()}, got {schedule}; "
            "correct the file, or say kind zero123-mini if the weights were really trained so"
        )
    projection = components.linear(folder / head, dtype, device, (PROJECTIONS[head], *PROJECTIONS.values()))
    settings = [read_json(folder / name / "config.json") for name in ("unet", "vae", "image_encoder")]
    embed = settings[2].get("projection_dim", 512)
    check_sizes(folder, kind, settings[0], settings[1], embed, (projection.in_features, projection.out_features))
    unet = components.unet(folder / "unet", dtype, device)
    vae = components.vae(folder / "vae", dtype, device)
    vision = components.vision(folder / "image_encoder", dtype, device)
    return Zero123(unet, vae, vision, projection, schedule, kind).eval()


def load_text(
    name_or_folder: str | Path,
    text: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> TextToImage:
    """The same weights told in words: the embedded prior (`mini`), or a folder that `training.backbone` wrote; frozen, in eval mode.

    text    folder of text_encoder/ and tokenizer/, those that the weights were trained under; by default the folder itself, or
            what the embedded prior was trained under
    raises  as `load`
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected one of {DTYPES}, got {dtype}")
    folder = _folder(name_or_folder)
    towers = MINI / "clip" if text is None and folder.parent == MINI else Path(text or folder)
    for part in ("text_encoder", "tokenizer"):
        if not (towers / part).is_dir():
            raise InputError(
                f"{towers}: {part}/ is missing; give the folder of the text tower that the weights were trained under (--towers)"
            )
    check_installed()
    schedule = read_schedule(folder / "scheduler")
    tower = components.text(towers / "text_encoder", dtype, device)
    config: Any = tower.config
    tokenizer = components.tokenizer(towers / "tokenizer", config.max_position_embeddings, config.vocab_size)
    unet, vae = (read_json(folder / name / "config.json") for name in ("unet", "vae"))
    sizes = {
        "cross_attention_dim of the U-Net": (unet.get("cross_attention_dim"), "the text tower's hidden_size", config.hidden_size),
        "out_channels of the U-Net": (unet.get("out_channels"), "the channels of a latent", vae.get("latent_channels", 4)),
    }
    for what, (found, why, expected) in sizes.items():
        if found != expected:
            raise InputError(
                f"{folder}: {what} should be {expected} ({why}), got {found}; these weights were not trained under this text tower"
            )
    return TextToImage(
        components.unet(folder / "unet", dtype, device), components.vae(folder / "vae", dtype, device), tower, tokenizer, schedule
    ).eval()


def digest(name_or_folder: str | Path) -> str:
    """The first 16 hex digits of the SHA-256 of all weights and settings of a folder: which prior made an asset."""
    folder, whole = _folder(name_or_folder), hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".safetensors") and p.is_file()):
        whole.update(str(path.relative_to(folder)).encode())
        with path.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()[:16]


def save(prior: Zero123, folder: str | Path) -> None:
    """Write the folder that `load` reads, in the layout of diffusers' community pipeline, dtypes as they are; all or nothing.

    raises  InputError where something is at `folder` already, or nothing can be written there
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    check_free(folder)
    networks: dict[str, tuple[nn.Module, dict[str, Any], str]] = {
        "unet": (prior.unet, _config(prior.unet), components.STEMS[0]),
        "vae": (prior.vae, _config(prior.vae), components.STEMS[0]),
        "image_encoder": (prior.image_encoder, prior.image_encoder.config.to_dict(), components.STEMS[1]),
        "cc_projection": (nn.ModuleDict({"projection": prior.projection}), {"_class_name": "CCProjection"}, components.STEMS[0]),
    }
    index = {
        "_class_name": "Zero1to3StableDiffusionPipeline",
        "cc_projection": ["pipeline_zero1to3", "CCProjection"],
        "feature_extractor": [None, None],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, (network, config, stem) in networks.items():
            (made / name).mkdir()
            _write(made / name / "config.json", config)
            state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
            save_file(state, made / name / f"{stem}.safetensors", metadata={"format": "pt"})
        (made / "scheduler").mkdir()
        _write(made / "scheduler" / "scheduler_config.json", prior.schedule.config())
        _write(made / "bozzetto.json", {"kind": prior.kind})
        _write(made / "model_index.json", index)
        made.chmod(0o755)  # mkdtemp's folders are for their owner alone
        made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def check_free(folder: Path) -> None:
    """raises InputError unless `folder` can be written and overwrites nothing"""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is there already; choose another place, or remove it first")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another place") from None


def check_installed() -> None:
    """raises InputError with what to type where diffusers or transformers is missing"""
    if not all(importlib.util.find_spec(name) for name in ("diffusers", "transformers")):
        raise InputError("diffusion priors need diffusers and transformers; install them: pip install 'bozzetto[priors]'")


def _folder(name_or_folder: str | Path) -> Path:
    """A folder on disk, or the embedded one of that name."""
    name = str(name_or_folder)
    first, _, rest = name.partition("/")
    if first == "mini" and "/" not in rest and rest not in (".", "..") and not Path(name).exists():
        folder = MINI / (rest or NAMES["mini"])
        if not (folder / "model_index.json").is_file():
            raise InputError(f"{name}: this version embeds no such diffusion prior; give a folder of weights in diffusers' layout")
        return folder
    folder = Path(name_or_folder)
    if folder.is_file():
        raise InputError(f"{folder}: is a file; give a folder in diffusers' layout (bozzetto convert makes one from a .ckpt)")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one that holds model_index.json, or the name of an embedded prior (mini)")
    if not (folder / "model_index.json").is_file() and (folder / "snapshots").is_dir():
        return _snapshot(folder)
    return folder


def _snapshot(folder: Path) -> Path:
    """Of the hub's own folder (`models--owner--name`): what `main` stands for, or the only one."""
    found = sorted(f for f in (folder / "snapshots").iterdir() if f.is_dir())
    main = folder / "refs" / "main"
    named = [f for f in found if main.is_file() and f.name == main.read_text(errors="replace").strip()]
    if len(named or found) != 1:
        raise InputError(f"{folder / 'snapshots'}: holds {len(found)} versions and none is main; give the folder of one of them")
    return (named or found)[0]


def _kind(folder: Path, kind: str | None) -> str:
    index = read_json(folder / "model_index.json")
    side = read_json(folder / "bozzetto.json") if (folder / "bozzetto.json").is_file() else {}
    choices = ", ".join(KINDS)
    for said, where in ((kind, "kind"), (side.get("kind"), f"{folder}/bozzetto.json: kind")):
        if said is not None and str(said) not in KINDS:
            raise InputError(f"{where} {said!r} is not known; expected one of {choices}")
    if kind and side.get("kind", kind) != kind:
        raise InputError(f"{folder}: kind {kind} was asked for, but its bozzetto.json says {side['kind']}; change one of them")
    if found := kind or side.get("kind"):
        return str(found)
    _head(folder)  # a folder of something else is told so first
    raise InputError(
        f"{folder}: a {index.get('_class_name', 'folder')} may be Zero-1-to-3 or Stable-Zero123, whose weights look the same; say its kind "
        f'({choices}), or write it beside model_index.json as bozzetto.json: {{"kind": "zero123-xl"}}'
    )


def _head(folder: Path) -> str:
    """The folder of the projection."""
    for name in PROJECTIONS:
        if (folder / name).is_dir():
            return name
    known = " or ".join(f"{n}/" for n in PROJECTIONS)
    raise InputError(f"{folder}: {known} is missing, so this is not a whole Zero-1-to-3; fetch the folder again, or give another")


def check_sizes(where: object, kind: str, unet: dict[str, Any], vae: dict[str, Any], embed: Any, projection: tuple[int, int]) -> None:
    """The networks fit together, by their settings (diffusers' and transformers' names and defaults).

    embed       of CLIP's vision tower
    projection  inputs and outputs
    raises      InputError, about `where`
    """
    side, channels, width = unet.get("sample_size"), vae.get("latent_channels", 4), unet.get("cross_attention_dim", 1280)
    if not all(isinstance(n, int) and n > 0 for n in (side, channels, width, embed)):
        raise InputError(
            f"{where}: sample_size, latent_channels, cross_attention_dim or projection_dim is no whole number; fetch its settings again"
        )
    hinted = kind == "zero123-mini" and unet.get("in_channels") == 3 * channels + PLANES
    wanted = 3 * channels + PLANES if hinted else 2 * channels
    sizes = {
        "in_channels of the U-Net": (unet.get("in_channels", 4), f"twice the {channels} channels of a latent", wanted),
        "out_channels of the U-Net": (unet.get("out_channels", 4), "the channels of a latent", channels),
        "outputs of the projection": (projection[1], "the U-Net's cross_attention_dim", width),
        "inputs of the projection": (projection[0], "CLIP's projection_dim, and 4 for the pose", embed + 4),
    }
    for what, (found, why, expected) in sizes.items():
        if found != expected:
            raise InputError(f"{where}: {what} should be {expected} ({why}) for {kind}, got {found}; this is not a whole Zero-1-to-3")


def _config(network: Any) -> dict[str, Any]:
    """The settings of a diffusers model as JSON holds them; keys that begin with _ are about a file, but for the class."""
    kept = {k: v for k, v in dict(network.config).items() if not k.startswith("_")}
    return {"_class_name": type(network).__name__, **kept}


def _write(path: Path, settings: dict[str, Any]) -> None:
    path.write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")
