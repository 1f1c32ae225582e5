# SPDX-License-Identifier: Apache-2.0
"""LoRA (Hu et al. 2021, arXiv:2106.09685): a weight learns by a product of two thin matrices that is added to it.

    W' = W + (alpha / r) B A,    A (r, k) drawn at random,  B (d, r) zeros at the start

so that a network starts as it was, and what it learnt is r (d + k) numbers a layer. A convolution's A has its kernel, its B is 1 x 1.
The layers are peft's; what is here copies the prior (`tuned`), draws A by our generator, and reads and writes the file.

The file is diffusers': `pytorch_lora_weights.safetensors`, its tensors named `unet.<layer>.lora_A.weight` and `lora_B`, peft's settings
in its metadata; `StableDiffusionPipeline.load_lora_weights` reads it. Read are those files, what `save_lora_adapter` writes (without
`unet.`), and the names of diffusers before 0.22. Reading is strict, as everywhere: a tensor that fits no layer is refused.

Letters: r rank, d outputs, k inputs of a layer.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bozzetto.errors import InputError
from bozzetto.files import replacing
from bozzetto.priors.tuned import Tunable, Tuned, add_camera, copied

FILE = "pytorch_lora_weights.safetensors"
METADATA = "lora_adapter_metadata"  # diffusers' name
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "q", "k", "v", "out")
"""the projections of attention in diffusers' networks, and in the small ones of `diffusion.network`"""
PREFIX = "unet."


@dataclass(frozen=True)
class LoRA:
    """How much may change.

    rank    r
    alpha   scale of the update, divided by r; None is r, so that the update is B A
    layers  names, or ends of names, of linear layers and convolutions
    """

    rank: int = 4
    alpha: float | None = None
    layers: tuple[str, ...] = ATTENTION

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


def adapted(prior: Tunable, settings: LoRA = LoRA(), *, camera: bool = False, generator: torch.Generator) -> Tuned:
    """A copy of a prior's denoiser that learns a low-rank update, in float32; at the start it answers exactly as the prior.

    camera     with labels of cameras (`tuned.camera_label`), whose embedding trains, too
    generator  draws A ~ N(0, 1 / r**2), as diffusers does
    raises     ValueError as `tuned.copied`, or where the network has none of the layers; InputError where peft is missing
    """
    check_installed()
    from peft import LoraConfig, inject_adapter_in_model

    denoiser = copied(prior)
    network: Any = denoiser.network
    scale = settings.rank * settings.scale
    config = LoraConfig(r=settings.rank, lora_alpha=scale, target_modules=list(settings.layers))
    with torch.random.fork_rng(devices=[]):  # peft draws from the global generator; drawn again below
        inject_adapter_in_model(config, network)
    with torch.no_grad():
        for name, p in network.named_parameters():
            if p.requires_grad:
                p.data = p.data.float()  # a half-precision prior's update would lose its small steps
                if ".lora_A." in name:
                    p.copy_(torch.randn(p.shape, generator=generator, device=generator.device) / settings.rank)
    if camera:
        add_camera(network, generator)
    return Tuned(denoiser)


def check_installed() -> None:
    """raises InputError with what to type where peft is missing"""
    if importlib.util.find_spec("peft") is None:
        raise InputError("a low-rank update needs peft; install it: pip install 'bozzetto[priors]'")


def save(tuned: Tuned, folder: str | Path) -> Path:
    """Write what `adapted` learnt as diffusers does; returns the file.

    raises  ValueError for a copy with camera labels, which no file of diffusers' holds, or without a low-rank update
    """
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import save_file

    network = tuned.network
    if any("lora_" not in name for name in tuned.weights) or not tuned.weights:
        raise ValueError("tuned: expected a low-rank update and nothing else, got other weights that train")
    found = {k: v.detach().cpu().contiguous() for k, v in get_peft_model_state_dict(network).items()}
    layers = sorted({k.split(".lora_")[0].removeprefix(PREFIX) for k in found})
    known = network.peft_config["default"]
    said = {"r": known.r, "lora_alpha": known.lora_alpha, "target_modules": layers}
    about = {METADATA: json.dumps({PREFIX + k: v for k, v in said.items()}, sort_keys=True)}
    path = Path(folder) / FILE
    with replacing(path) as part:
        save_file(found, part, metadata=about)  # one entry: the library writes several in an order that changes
    return path


class Update(NamedTuple):
    """One layer's: A (r, k, ...), B (d, r, ...), and what their product is multiplied by."""

    A: Tensor
    B: Tensor
    scale: float

    def delta(self) -> Tensor:
        """(d, k, ...) float32, shaped as the layer's weight."""
        product = self.B.float().flatten(1) @ self.A.float().flatten(1)
        return self.scale * product.view(len(self.B), *self.A.shape[1:])


def read(path: Path) -> dict[str, Update]:
    """The updates in a file of diffusers' or peft's, by the U-Net's names of layers.

    raises  InputError for what is missing, damaged, or holds more than a U-Net's low-rank update
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"{path}: no such file; give the folder that holds it")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
            about = json.loads((file.metadata() or {}).get(METADATA, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({' '.join(str(error).split())[:120]}); fetch it again") from None
    if not all(".lora_A." in k or ".lora_B." in k for k in tensors):
        from diffusers.utils import convert_unet_state_dict_to_peft

        tensors = convert_unet_state_dict_to_peft(tensors)
    if any(k.startswith("text_encoder") for k in tensors):
        raise InputError(f"{path}: changes the text tower, too, which is not read; give an update of the U-Net alone")
    tensors = {k.removeprefix(PREFIX): v for k, v in tensors.items()}
    pairs = {layer: tuple(f"{layer}.lora_{m}.weight" for m in "AB") for layer in (k.rsplit(".lora_", 1)[0] for k in tensors)}
    if odd := sorted(tensors.keys() ^ {name for pair in pairs.values() for name in pair}):
        raise InputError(f"{path}: {odd[0]} is no part of a U-Net's low-rank update; give a file that holds one and nothing else")
    settings = {k.removeprefix(PREFIX): v for k, v in about.items()} if isinstance(about, dict) else {}
    if any(settings.get(name) for name in ("use_dora", "use_rslora", "lora_bias")):
        raise InputError(f"{path}: is a variant of LoRA (DoRA, rsLoRA or with bias), which is not read; give a plain one")
    return {layer: Update(tensors[a], tensors[b], _scale(layer, len(tensors[a]), settings)) for layer, (a, b) in pairs.items()}


def _scale(layer: str, rank: int, settings: Mapping[str, Any]) -> float:
    """alpha / r: 1 where a file does not say it, as for diffusers."""
    said = settings.get("alpha_pattern") or {}
    ends = {pattern.removeprefix("^"): alpha for pattern, alpha in said.items()}
    alpha = next((a for end, a in ends.items() if f".{layer}".endswith(f".{end}")), settings.get("lora_alpha", rank))
    return float(alpha) / rank


@torch.no_grad()
def merge(where: Path, unet: nn.Module, updates: Mapping[str, Update]) -> None:
    """Add updates to a U-Net's weights, in float32, and round to what they were.

    raises  InputError, about `where`, before anything is added, where a layer is missing or of another shape
    """
    layers = dict(unet.named_modules())
    for name, update in updates.items():
        weight = getattr(layers.get(name), "weight", None)
        made = (len(update.B), *update.A.shape[1:])
        if not isinstance(weight, Tensor) or tuple(weight.shape) != made or update.B.flatten(1).shape[1] != len(update.A):
            found = "no such layer" if weight is None else f"{list(weight.shape)}"
            raise InputError(f"{where}: {name} should have a weight {list(made)}, got {found}; it was learnt on another prior")
    for name, update in updates.items():
        old: Any = layers[name].weight
        old.copy_(old.float() + update.delta().to(old.device))
