# SPDX-License-Identifier: Apache-2.0
"""`save`: a prior as a folder in diffusers' layout, which `loading.load` reads; all of it or nothing."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from bozzetto.errors import InputError
from bozzetto.priors import components
from bozzetto.priors.codec import Codec, KLCodec, LinearCodec
from bozzetto.priors.schedule import NoiseSchedule
from bozzetto.priors.zero123 import Zero123


def save(prior: Zero123, folder: str | Path) -> None:
    """Write the folder that `load` reads, in the layout of diffusers' community pipeline, dtypes as they are; all or nothing.

    raises  InputError where something is at `folder` already, or nothing can be written there
    """
    folder = Path(folder)
    check_free(folder)
    networks: dict[str, tuple[nn.Module, dict[str, Any], str]] = {
        "unet": (prior.unet, components.config_of(prior.unet), components.STEMS[0]),
        "vae": (*codec_files(prior.codec), components.STEMS[0]),
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
    write_folder(folder, networks, index, prior.schedule, prior.kind)


def write_folder(
    folder: Path,
    networks: Mapping[str, tuple[nn.Module, dict[str, Any], str]],
    index: dict[str, Any],
    schedule: NoiseSchedule,
    kind: str,
    copied: Mapping[str, Path] | None = None,
) -> None:
    """A folder in diffusers' layout; all or nothing.

    networks  by their folders: each with its settings, and the stem of its file's name
    index     model_index.json
    copied    folders to copy, by name
    """
    from safetensors.torch import save_file

    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, source in (copied or {}).items():
            shutil.copytree(source, made / name)
        for name, (network, config, stem) in networks.items():
            (made / name).mkdir()
            _write(made / name / "config.json", config)
            state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
            save_file(state, made / name / f"{stem}.safetensors", metadata={"format": "pt"})
        (made / "scheduler").mkdir()
        _write(made / "scheduler" / "scheduler_config.json", schedule.config())
        _write(made / "bozzetto.json", {"kind": kind})
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


def codec_files(codec: Codec) -> tuple[nn.Module, dict[str, Any]]:
    """The network of `vae/` and its settings."""
    if isinstance(codec, KLCodec):
        return codec.vae, components.config_of(codec.vae)
    assert isinstance(codec, LinearCodec)
    return codec, {"_class_name": type(codec).__name__, **asdict(codec.settings)}


def _write(path: Path, settings: dict[str, Any]) -> None:
    path.write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")
