# SPDX-License-Identifier: Apache-2.0
"""TripoSR's folder: `config.yaml` and `model.safetensors` (or `model.ckpt`), as published, to a `TripoSR`; strict, and nothing is run.

The YAML names classes; the names are compared with those that are built here and never imported. A setting with which another
network was trained is refused. What the file leaves to code (the ViT's sizes, which are DINO ViT-B/16's) stands in `ViTConfig`; a
small network of ours says these sizes in `image_tokenizer`, under `ViTConfig`'s names.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bozzetto.errors import InputError
from bozzetto.files import replacing, write_atomically
from bozzetto.priors import components
from bozzetto.priors.checkpoint import read_checkpoint
from bozzetto.priors.published import place
from bozzetto.priors.triposr import TripoSR, TripoSRConfig, ViTConfig

CONFIG, WEIGHTS, CHECKPOINT = "config.yaml", "model.safetensors", "model.ckpt"
CLASSES = {
    "image_tokenizer": "DINOSingleImageTokenizer",
    "tokenizer": "Triplane1DTokenizer",
    "backbone": "Transformer1D",
    "post_processor": "TriplaneUpsampleNetwork",
    "decoder": "NeRFMLP",
    "renderer": "TriplaneNeRFRenderer",
}
FIXED: dict[tuple[str, str], Any] = {  # what is built here and nothing else; absent is as good
    ("image_tokenizer", "pretrained_model_name_or_path"): "facebook/dino-vitb16",
    ("backbone", "activation_fn"): "geglu",
    ("backbone", "attention_bias"): False,
    ("backbone", "norm_type"): "layer_norm",
    ("decoder", "activation"): "silu",
    ("renderer", "feature_reduction"): "concat",
    ("renderer", "density_activation"): "exp",
    ("renderer", "color_activation"): "sigmoid",
}
NAMES = (  # of the ViT's tensors: those of transformers 4, which are published, and of transformers 5; the first that fits
    (r"\.encoder\.layer\.", ".layers."),
    (r"\.attention\.attention\.(query|key|value)\.", lambda m: f".attention.{m[1][0]}_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(\.layers\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
)
MOST = 100_000  # of any size in a configuration: a damaged file must not ask for more memory than there is


def is_folder(folder: str | Path) -> bool:
    """Whether a folder is TripoSR's, or a kin's of the same layout: by its files alone."""
    folder = Path(folder)
    if not (folder / CONFIG).is_file() or not any((folder / name).is_file() for name in (WEIGHTS, CHECKPOINT)):
        return False
    return "cond_image_size" in (folder / CONFIG).read_text(encoding="utf-8", errors="replace")


def load(folder: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> TripoSR:
    """The network in a folder, or what was fetched as `triposr`, frozen, in eval mode; the weights are in memory once (a `.ckpt` is
    mapped from disk).

    dtype   of the network's weights and arithmetic: float32, or float16 on CUDA; pictures and the field stay float32
    raises  InputError, one sentence, for a folder that is not there or not TripoSR's, for missing, damaged, pickled or foreign weights
            and for settings of another network
    """
    folder = place(folder)
    components.check_installed()
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one that holds {CONFIG} and {WEIGHTS}, as TripoSR is published")
    config = read_config(folder / CONFIG)
    if not (folder / WEIGHTS).is_file() and (folder / CHECKPOINT).is_file():
        state = read_checkpoint(folder / CHECKPOINT)
        names = _ours(folder, list(state))
        shapes = {ours: tuple(state[theirs].shape) for ours, theirs in names.items()}

        def read(name: str) -> Tensor:
            tensor = state[names[name]].to(device, dtype)
            if not bool(torch.isfinite(tensor).all()):
                raise InputError(f"{folder}: {name} is not finite as {str(dtype)[6:]}; fetch it again, or load it as float32")
            return tensor
    else:
        tensors = components.Tensors(folder)
        names = _ours(folder, list(tensors.shapes))
        shapes = {ours: tensors.shapes[theirs] for ours, theirs in names.items()}

        def read(name: str) -> Tensor:
            return tensors.read(names[name], dtype, device)

    return components.fill(folder, lambda: TripoSR(config), shapes, read)


def save(network: TripoSR, folder: str | Path) -> None:
    """Write the folder that `load` reads: weights as float16, sizes as YAML (JSON is YAML), each file by rename."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS) as part:
        save_file({k: v.detach().half().contiguous() for k, v in network.state_dict().items()}, part)
    write_atomically(folder / CONFIG, (json.dumps(settings_of(network.config), indent=1) + "\n").encode())


def settings_of(config: TripoSRConfig) -> dict[str, Any]:
    """What CONFIG says of a network's sizes."""
    c = config
    return {
        "cond_image_size": c.picture,
        "image_tokenizer": asdict(c.vit),
        "tokenizer": {"plane_size": c.plane, "num_channels": c.channels},
        "backbone": {
            "num_attention_heads": c.heads,
            "attention_head_dim": c.channels // c.heads,
            "num_layers": c.layers,
            "norm_num_groups": c.groups,
        },
        "post_processor": {"out_channels": c.features},
        "decoder": {"n_neurons": c.neurons, "n_hidden_layers": c.hidden},
        "renderer": {"radius": c.radius, "density_bias": c.bias},
    }


def our_name(name: str) -> str:
    """A tensor's name in `TripoSR`, of its published one; names of transformers 5 stay."""
    if name.startswith("image_tokenizer."):
        for pattern, instead in NAMES:
            name = re.sub(pattern, instead, name)
    return name


def _ours(folder: Path, published: list[str]) -> dict[str, str]:
    """Published names by ours."""
    names = {our_name(name): name for name in published}
    if len(names) != len(published):
        raise InputError(f"{folder}: the weights hold a tensor of the picture's network under two names; fetch them again")
    return names


def read_config(path: Path) -> TripoSRConfig:
    """raises InputError for a file that is missing, damaged, or of a network that is not built here"""
    import yaml  # type: ignore[import-untyped]  # comes with transformers

    components.check_link(path)
    if not path.is_file():
        raise InputError(f"{path.parent}: {path.name} is missing; give a folder of TripoSR's {CONFIG} and {WEIGHTS}")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not readable as YAML ({' '.join(str(error).split())[:120]}); fetch it again") from None
    if not isinstance(found, dict) or "cond_image_size" not in found:
        raise InputError(f"{path}: is not TripoSR's configuration (no cond_image_size); give the folder as it is published")
    settings = _Settings(path, found)
    for section, known in CLASSES.items():
        said = found.get(f"{section}_cls")
        if said is not None and str(said).rsplit(".", 1)[-1] != known:
            raise InputError(f"{path}: {section} is a {said}, where TripoSR has a {known}; this is another network's folder")
    for (section, name), known in FIXED.items():
        if (said := settings.get(section, name, known)) != known and not (name.startswith("pretrained") and settings.is_ours):
            raise InputError(f"{path}: {section}.{name} is {said}, where TripoSR has {known}; this is another network's folder")
    return _config(path, settings)


def _config(path: Path, settings: _Settings) -> TripoSRConfig:
    usual = TripoSRConfig()
    vit = ViTConfig(**{f.name: settings.count("image_tokenizer", f.name, f.default) for f in fields(ViTConfig)})
    heads, each = settings.count("backbone", "num_attention_heads", usual.heads), settings.count("backbone", "attention_head_dim", 64)
    config = TripoSRConfig(
        vit,
        picture=settings.count("", "cond_image_size", usual.picture),
        plane=settings.count("tokenizer", "plane_size", usual.plane),
        channels=settings.count("tokenizer", "num_channels", usual.channels),
        heads=heads,
        layers=settings.count("backbone", "num_layers", usual.layers),
        groups=settings.count("backbone", "norm_num_groups", usual.groups),
        features=settings.count("post_processor", "out_channels", usual.features),
        neurons=settings.count("decoder", "n_neurons", usual.neurons),
        hidden=settings.count("decoder", "n_hidden_layers", usual.hidden),
        radius=settings.number("renderer", "radius", usual.radius),
        bias=settings.number("renderer", "density_bias", usual.bias),
    )
    agree = {
        "backbone.num_attention_heads x attention_head_dim": heads * each,
        "backbone.in_channels": settings.count("backbone", "in_channels", config.channels),
        "post_processor.in_channels": settings.count("post_processor", "in_channels", config.channels),
    }
    wrong = [f"{name} = {value}" for name, value in agree.items() if value != config.channels]
    if settings.count("decoder", "in_channels", 3 * config.features) != 3 * config.features:
        wrong.append("decoder.in_channels is not three times post_processor.out_channels")
    if settings.count("backbone", "cross_attention_dim", vit.width) != vit.width:
        wrong.append(f"backbone.cross_attention_dim is not {vit.width}, the ViT's width")
    if config.channels % config.groups or vit.width % vit.heads or config.picture % vit.patch or config.radius <= 0:
        wrong.append("sizes that do not divide one another")
    if wrong:
        raise InputError(f"{path}: its sizes contradict one another ({wrong[0]}); fetch it again")
    return config


@dataclass(frozen=True)
class _Settings:
    """What a YAML says, by section and name; `${section.name}` stands for another setting."""

    path: Path
    found: dict[str, Any]

    @property
    def is_ours(self) -> bool:
        """Whether it says the ViT's sizes, which no published file does."""
        section = self.found.get("image_tokenizer")
        return isinstance(section, dict) and any(f.name in section for f in fields(ViTConfig))

    def get(self, section: str, name: str, usual: Any, deep: int = 0) -> Any:
        inside = self.found.get(section, {}) if section else self.found
        if not isinstance(inside, dict):
            raise InputError(f"{self.path}: {section} should be a list of settings; fetch it again")
        value = inside.get(name, usual)
        link = re.fullmatch(r"\$\{(\w+)\.(\w+)\}", value) if isinstance(value, str) else None
        return self.get(link[1], link[2], None, deep + 1) if link and deep < 4 else value

    def count(self, section: str, name: str, usual: Any) -> int:
        value = self.get(section, name, usual)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST:
            raise InputError(
                f"{self.path}: {section}.{name} should be a positive number, got {value!r}; fetch it again".replace(": .", ": ")
            )
        return value

    def number(self, section: str, name: str, usual: float) -> float:
        value = self.get(section, name, usual)
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < MOST:
            raise InputError(f"{self.path}: {section}.{name} should be a number, got {value!r}; fetch it again")
        return float(value)
