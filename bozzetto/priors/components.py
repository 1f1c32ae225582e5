# SPDX-License-Identifier: Apache-2.0
"""One network from one folder of a published checkpoint: strict, and nothing that the folder holds is ever run.

The class is ours, never one that a file names; only the settings that the class knows reach it; weights are safetensors, read
one tensor at a time into the wanted dtype on the wanted device. Each mistake is one sentence (`InputError`).
diffusers' and transformers' own loaders are not used: they fall back to pickles, only warn of missing tensors, and may ask the
network for files and for code.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bozzetto.errors import InputError
from bozzetto.priors.codec import Codec, CodecConfig, KLCodec, LinearCodec

STEMS = ("diffusion_pytorch_model", "model")  # diffusers' and transformers' names
WINDOW = 64 << 20  # bytes read before a file is closed and opened again: what was read of one that is mapped is in memory until then
N = TypeVar("N", bound=nn.Module)
PICKLES = ("*.bin", "*.ckpt", "*.pt", "*.pth", "*.pkl")


def check_installed() -> None:
    """raises InputError with what to type where diffusers or transformers is missing"""
    if not all(importlib.util.find_spec(name) for name in ("diffusers", "transformers")):
        raise InputError("diffusion priors need diffusers and transformers; install them: pip install 'bozzetto[priors]'")


def read_json(path: Path) -> dict[str, Any]:
    """raises InputError where the file is missing, not JSON or not an object"""
    check_link(path)
    if not path.is_file():
        raise InputError(f"{path.parent}: {path.name} is missing; fetch the whole folder again")
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin with a mark
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({one_line(error)}); fetch it again") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected an object of settings, found a {type(found).__name__}; fetch it again")
    return found


def check_link(path: Path) -> None:
    """raises InputError where a link leads nowhere, as in a hub's folder that was copied without its blobs"""
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path}: is a link to a file that is not there; copy the folder with what its links lead to (cp -rL)")


class Tensors:
    """The tensors of a folder, by name; shapes are known at once, values are read when asked for.

    raises  InputError for a folder without safetensors, or with a truncated or corrupted one
    """

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self.folder = folder
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._path: dict[str, Path] = {}
        self._open: dict[Path, Any] = {}
        self._read = 0
        for path in _files(folder):
            try:
                file = safe_open(path, framework="pt")
                for name in file.keys():  # noqa: SIM118  # not a dict
                    self.shapes[name] = tuple(file.get_slice(name).get_shape())
                    self._path[name] = path
            except (SafetensorError, OSError, ValueError) as error:
                raise InputError(f"{path}: not a whole safetensors file ({one_line(error)}); fetch it again") from None

    def read(self, name: str, dtype: torch.dtype, device: str | torch.device) -> Tensor:
        """Of the meta device it has the shape alone; raises InputError for numbers that are not finite, in the file or in dtype."""
        if torch.device(device).type == "meta":
            return torch.empty(self.shapes[name], dtype=dtype, device=device)
        from safetensors import safe_open

        path = self._path[name]
        if path not in self._open:
            self._open[path] = safe_open(path, framework="pt")
        kept: Tensor = self._open[path].get_tensor(name)
        self._read += kept.nbytes
        if self._read > WINDOW:
            self._open, self._read = {}, 0
        tensor = kept.to(device, dtype)
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{self.folder}: {name} is not finite as {str(dtype)[6:]}; fetch it again, or load it as float32")
        return tensor


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder.parent}: {folder.name}/ is missing; point to the folder that holds model_index.json and all its parts")
    incomplete = None
    for stem in STEMS:
        for variant in ("", ".fp16", ".bf16"):  # full precision where it is there
            if (folder / f"{stem}{variant}.safetensors").is_file():
                return [folder / f"{stem}{variant}.safetensors"]
            index = folder / f"{stem}.safetensors.index{variant}.json"
            if index.is_file():
                shards = read_json(index).get("weight_map")
                names = sorted({str(v) for v in shards.values()}) if isinstance(shards, dict) else []
                if names and all(Path(n).name == n and (folder / n).is_file() for n in names):
                    return [folder / n for n in names]
                incomplete = incomplete or index
    for link in sorted(folder.glob("*.safetensors")):
        check_link(link)
    if incomplete:
        raise InputError(f"{incomplete}: names files that are not in the folder; fetch the whole folder again")
    pickles = sorted(p.name for pattern in PICKLES for p in folder.glob(pattern))
    if pickles:
        raise InputError(
            f"{folder}: only pickled weights ({pickles[0]}), which are never opened here; fetch the .safetensors of this folder"
        )
    raise InputError(f"{folder}: no weights ({STEMS[0]}.safetensors or {STEMS[1]}.safetensors); fetch the whole folder again")


def settings(folder: Path, allowed: set[str]) -> dict[str, Any]:
    """`config.json` of a component, without what the class does not know."""
    return {k: v for k, v in read_json(folder / "config.json").items() if k in allowed}


def config_of(network: Any) -> dict[str, Any]:
    """The settings of a diffusers model as JSON holds them; keys that begin with _ are about a file, but for the class."""
    kept = {k: v for k, v in dict(network.config).items() if not k.startswith("_")}
    return {"_class_name": type(network).__name__, **kept}


def tuples(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with tuples where JSON has lists, as our dataclasses hold them."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}


def component(
    folder: Path,
    build: Callable[[], N],
    dtype: torch.dtype,
    device: str | torch.device,
    rename: Callable[[str], str | None] = lambda name: name,
) -> N:
    """The network that `build` makes, with the folder's weights; `rename` is as `fill`'s names, None for a tensor to ignore."""
    tensors = Tensors(folder)
    names = {new: old for old in tensors.shapes if (new := rename(old)) is not None}
    shapes = {new: tensors.shapes[old] for new, old in names.items()}
    return fill(folder, build, shapes, lambda new: tensors.read(names[new], dtype, device))


def fill(where: Path, build: Callable[[], N], shapes: dict[str, tuple[int, ...]], read: Callable[[str], Tensor]) -> N:
    """A network with weights from a file, frozen, in eval mode.

    build   makes the network on the meta device: no memory, nothing random drawn
    shapes  of the file's tensors, by the network's names
    read    a tensor by that name
    raises  InputError, about `where`, unless the file's tensors are exactly the network's, in name and shape
    """
    try:
        with torch.device("meta"):
            network = build()
    except Exception as error:  # whatever a library says of settings that it cannot use; some of its classes have no other base
        raise InputError(f"{where}: no network can be built from its settings ({one_line(error)}); fetch them again") from None
    check(where, {k: tuple(v.shape) for k, v in network.state_dict().items()}, shapes)
    state = {name: read(name) for name in shapes}
    network.load_state_dict(state, assign=True)
    for module in network.modules():
        table = getattr(module, "position_ids", None)
        if isinstance(table, Tensor):  # CLIP's, which is in no file
            module.position_ids = torch.arange(table.shape[-1], device=next(iter(state.values())).device)[None]
    is_outline = next(iter(state.values())).is_meta
    assert all(t.is_meta == is_outline for t in [*network.parameters(), *network.buffers()])
    return network.eval().requires_grad_(False)


def check(where: Path, expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> None:
    """raises InputError, one sentence, unless names and shapes agree"""
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    shaped = sorted(k for k in expected.keys() & found.keys() if expected[k] != found[k])
    if not (missing or extra or shaped):
        return
    wrong = f"{len(missing)} missing, {len(extra)} unknown, {len(shaped)} of another shape"
    first = (missing + extra + shaped)[0]
    shapes = f" {list(found[first])} instead of {list(expected[first])}" if first in shaped else ""
    raise InputError(f"{where}: expected {len(expected)} tensors, {wrong}: {first}{shapes}; weights and settings do not belong together")


def unet(folder: Path, dtype: torch.dtype, device: str | torch.device) -> nn.Module:
    """diffusers' UNet2DConditionModel."""
    from diffusers import UNet2DConditionModel

    known = unet_settings(folder)
    return component(folder, lambda: UNet2DConditionModel(**known), dtype, device)


def unet_settings(folder: Path) -> dict[str, Any]:
    """Those of its `config.json` that UNet2DConditionModel knows."""
    from diffusers import UNet2DConditionModel

    return settings(folder, _arguments(UNet2DConditionModel))


def codec(folder: Path, dtype: torch.dtype, device: str | torch.device) -> Codec:
    """The codec in `vae/`: diffusers' AutoencoderKL, whose attention may bear the names of diffusers before 0.18, or a LinearCodec."""
    if read_json(folder / "config.json").get("_class_name") == LinearCodec.__name__:
        config: dict[str, Any] = tuples(settings(folder, {f.name for f in fields(CodecConfig)}))
        return component(folder, lambda: LinearCodec(CodecConfig(**config)), dtype, device)
    from diffusers import AutoencoderKL

    old = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

    def rename(name: str) -> str:
        return ".".join(old.get(part, part) for part in name.split(".")) if ".attentions." in name else name

    known = settings(folder, _arguments(AutoencoderKL))
    return KLCodec(component(folder, lambda: AutoencoderKL(**known), dtype, device, rename)).eval()


def vision(folder: Path, dtype: torch.dtype, device: str | torch.device) -> nn.Module:
    """transformers' CLIPVisionModelWithProjection. Its settings are listed here: others choose kernels and may fetch them."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    sizes = {"hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads", "num_channels"}
    known = settings(folder, sizes | {"image_size", "patch_size", "hidden_act", "layer_norm_eps"})

    def build() -> nn.Module:
        return CLIPVisionModelWithProjection(CLIPVisionConfig(**known, attn_implementation="sdpa"))

    return component(folder, build, dtype, device, lambda name: None if name.endswith(".position_ids") else name)


def text(folder: Path, dtype: torch.dtype, device: str | torch.device) -> nn.Module:
    """transformers' CLIPTextModelWithProjection; its settings are listed here, as `vision`'s are.

    Stable Diffusion's towers are CLIPTextModels, which have no projection (an identity stands there); transformers 5 writes these without
    the prefix that those of version 4 have.
    """
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    has_projection = "text_projection.weight" in Tensors(folder).shapes

    sizes = {"vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads"}
    known = settings(folder, sizes | {"max_position_embeddings", "hidden_act", "layer_norm_eps", "bos_token_id", "eos_token_id"})

    def build() -> nn.Module:
        network = CLIPTextModelWithProjection(CLIPTextConfig(**known, attn_implementation="sdpa"))
        network.text_projection = network.text_projection if has_projection else nn.Identity()
        return network

    def rename(name: str) -> str | None:
        if name.endswith("position_ids"):
            return None
        return name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}"

    return component(folder, build, dtype, device, rename)


def t5(folder: Path, dtype: torch.dtype, device: str | torch.device) -> nn.Module:
    """transformers' T5EncoderModel; its settings are listed here, as `vision`'s are.

    In float16 the last layer of each block stays float32, as transformers has it: its sums are beyond what float16 holds.
    """
    from transformers import T5Config, T5EncoderModel

    sizes = {"vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads"}
    sizes |= {"relative_attention_num_buckets", "relative_attention_max_distance"}
    known = settings(folder, sizes | {"feed_forward_proj", "layer_norm_epsilon"})
    tensors = Tensors(folder)
    names = {name: name for name in tensors.shapes}
    tables = ("shared.weight", "encoder.embed_tokens.weight")  # one table by two names, of which a file may hold either or both
    for name, other in (tables, tables[::-1]):
        if other in tensors.shapes:
            names.setdefault(name, other)
    names |= {name: names[tables[0]] for name in tables if name in names}

    @cache
    def read(name: str) -> Tensor:
        wide = dtype == torch.float16 and name.endswith(".wo.weight")
        return tensors.read(name, torch.float32 if wide else dtype, device)

    def build() -> nn.Module:
        return T5EncoderModel(T5Config(**known, attn_implementation="sdpa"))

    return fill(folder, build, {new: tensors.shapes[old] for new, old in names.items()}, lambda name: read(names[name]))


def linear(folder: Path, dtype: torch.dtype, device: str | torch.device, names: tuple[str, ...]) -> nn.Linear:
    """One linear layer whose size is its file's; `names` are the module's names in use, as in `projection.weight`."""
    tensors = Tensors(folder)
    name = next((n for n in names if f"{n}.weight" in tensors.shapes), names[0])
    shape = tensors.shapes.get(f"{name}.weight", (0, 0))
    if len(shape) != 2:
        raise InputError(f"{folder}: {name}.weight should be a matrix, got shape {list(shape)}; fetch it again")
    check(folder, {f"{name}.weight": shape, f"{name}.bias": shape[:1]}, tensors.shapes)
    layer = nn.Linear(shape[1], shape[0], device="meta")
    layer.load_state_dict({n: tensors.read(f"{name}.{n}", dtype, device) for n in ("weight", "bias")}, assign=True)
    return layer.eval().requires_grad_(False)


def _arguments(cls: type) -> set[str]:
    return set(inspect.signature(cls.__init__).parameters) - {"self"}  # type: ignore[misc]


def one_line(error: Exception) -> str:
    """An error's text on one line, not too long."""
    text = " ".join(str(error).split())
    return text if len(text) < 160 else text[:157] + "..."
