# SPDX-License-Identifier: Apache-2.0
"""`load`: a prior from a folder, embedded or published (`saving` writes one).

Most folders are diffusers': `model_index.json`, one folder for each network, `scheduler/`, and perhaps the sidecar `bozzetto.json`,
whose `kind` says what the weights cannot: Zero-1-to-3 and Stable-Zero123 have the same tensors and read different pose codes.
Both published ports of Zero-1-to-3 to diffusers are read; legacy `.ckpt` files go through `bozzetto convert` first.

A folder may hold no prior but what was learnt on one (`priors.learnt`): the other is loaded, and changed.

A new prior joins by one row of LAYOUTS. Names of published ones (`priors.published`) are looked up on this disk alone.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import torch

from bozzetto.errors import InputError
from bozzetto.priors import instruct, learnt, published, sweetdreamer, syncdreamer, triposr_files, unconditional, zero123
from bozzetto.priors.components import read_json
from bozzetto.priors.deepfloyd import DeepFloyd
from bozzetto.priors.instruct import InstructPix2Pix
from bozzetto.priors.mvdream import MVDream
from bozzetto.priors.prior import Prior
from bozzetto.priors.sweetdreamer import SweetDreamer
from bozzetto.priors.text2image import TextToImage
from bozzetto.priors.unconditional import PicturePrior
from bozzetto.priors.wonder3d import Wonder3D
from bozzetto.priors.zero123 import Zero123

MINI = Path(__file__).parent / "mini"
"""the embedded priors"""
NAMES = {"mini": "zero123", **{name: name for name in unconditional.NAMES}}
"""embedded priors by their short names, and their folders in MINI"""
TEXT = "text-to-image"
MANIFOLD = ((TEXT, "zero123-mini"), (instruct.EXTENDED, "zero123-mini"), (instruct.EXTENDED, TEXT))
"""kinds that may be asked for where a folder says another: the backbone is trained for views and for text, and either may be extended"""
WEIGHTS = (".safetensors", ".ckpt", ".bin")
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
Role = Literal["views", "text", "multiview", "normals", "coordinates", "edits", "pictures"]
TOLD: tuple[Role, ...] = ("text", "multiview")
"""what draws from words alone"""
P = TypeVar("P")


class Layout(NamedTuple):
    """How one kind of prior lies in a folder.

    prior       the class; its `read(folder, kind, *, text, dtype, device)` opens the folder
    role        what it draws: an object from other sides, what it is told in words, that from several sides together, an object from other
                sides with its normals, where the points of what it is told lie, what it is told to change, or pictures of a kind
    reads_text  whether it has a text tower, which may lie elsewhere
    pipelines   the `_class_name`s in model_index.json that say this kind, where the weights are of no other
    """

    prior: Any
    role: Role
    reads_text: bool = False
    pipelines: tuple[str, ...] = ()


LAYOUTS: dict[str, Layout] = {
    **{kind: Layout(Zero123, "views") for kind in zero123.KINDS},
    syncdreamer.KIND: Layout(syncdreamer.SyncDreamer, "views"),
    TEXT: Layout(TextToImage, "text", reads_text=True, pipelines=("StableDiffusionPipeline",)),
    "instruct-pix2pix": Layout(InstructPix2Pix, "edits", reads_text=True, pipelines=("StableDiffusionInstructPix2PixPipeline",)),
    instruct.EXTENDED: Layout(InstructPix2Pix, "edits", reads_text=True),
    "wonder3d": Layout(Wonder3D, "normals", pipelines=("MVDiffusionImagePipeline",)),
    "sweetdreamer": Layout(SweetDreamer, "coordinates", reads_text=True),
    "mvdream": Layout(MVDream, "multiview", reads_text=True, pipelines=("MVDreamPipeline",)),
    "deepfloyd-if": Layout(DeepFloyd, "text", reads_text=True, pipelines=("IFPipeline",)),
    **{kind: Layout(PicturePrior, "pictures") for kind in unconditional.KINDS},
}
"""by kind"""


def dtype_on(device: str, precision: str = "auto") -> torch.dtype:
    """What networks compute in: `auto` is float16 on CUDA, as published models are run, and float32 elsewhere; or a name of PRECISIONS.

    raises  ValueError for another name
    """
    if precision == "auto":
        return torch.float16 if device.startswith("cuda") else torch.float32
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected auto, fp32, fp16 or bf16, got {precision!r}")
    return PRECISIONS[precision]


def load(
    name_or_folder: str | Path,
    kind: str | None = None,
    *,
    text: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    offload: bool = False,
) -> Prior:
    """The prior in a folder, the embedded one of that name (`mini`, `digits-ddpm`), or the published one that was fetched under that
    name (`zero123-xl`), frozen and in eval mode.

    kind    one of LAYOUTS, where the folder does not say it; "text-to-image" asks `mini`, and what `training.backbone` wrote, in words
    text    folder of text_encoder/ and tokenizer/, those that a text-to-image prior was trained under; by default the folder
            itself, or what the embedded prior was trained under
    dtype   float32, float16 or bfloat16, of all networks; pictures, latents and conditions stay float32
    device  where they compute; "meta" gives an outline, sizes without numbers, for `plan`
    offload keep them in the machine's memory, and have their layers on the device for as long as they compute (`LatentPrior.offload`)
    raises  InputError, one sentence, for a folder that is not there, incomplete, damaged, pickled or of another kind, before
            any large file is read where that can be known; ValueError for another dtype
    """
    return load_as(Prior, name_or_folder, kind, text=text, dtype=dtype, device=device, offload=offload)  # type: ignore[type-abstract]


def load_as(
    wanted: type[P],
    name_or_folder: str | Path,
    kind: str | None = None,
    *,
    role: Role | tuple[Role, ...] | None = None,
    text: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    offload: bool = False,
) -> P:
    """As `load`, for a caller that can use one class of priors alone, or those of some roles; raises InputError, too, where it is
    another's folder."""
    if dtype not in PRECISIONS.values():
        raise ValueError(f"dtype: expected one of {tuple(PRECISIONS.values())}, got {dtype}")
    if str(name_or_folder) == "mini" and role == "edits" and not Path(name_or_folder).exists():
        name_or_folder = "mini/instruct"  # what the embedded prior learnt of edits
    folder, changes = _folder(name_or_folder), list[learnt.Change]()
    while (change := learnt.read(folder)) is not None:
        changes.append(change)
        folder = _base(change, [c.folder for c in changes])
        name_or_folder, kind, text = change.base, kind or change.kind, text or change.towers
    if triposr_files.is_folder(folder):
        raise InputError(f"{name_or_folder}: TripoSR is what a lift begins with, no diffusion prior; give it as --guess")
    if _is_published(str(name_or_folder)):
        kind = kind or published.find(str(name_or_folder)).kind
    kind = _kind(folder, kind, is_told=text is not None or "text" in _roles(role))
    layout = LAYOUTS[kind]
    if not _fits(layout, wanted, role):
        usable = ", ".join(k for k, v in LAYOUTS.items() if _fits(v, wanted, role))
        raise InputError(f"{name_or_folder}: a prior of kind {kind} has no use here; give one of kind {usable}")
    if text is not None and not layout.reads_text:
        raise InputError(f"{name_or_folder}: a prior of kind {kind} reads no text; leave the text tower's folder out")
    check_offload(device, offload)
    if offload and not hasattr(layout.prior, "offload"):
        raise InputError(f"{name_or_folder}: a prior of kind {kind} has no large networks to keep elsewhere; leave --offload out")
    towers = published.place(text or (MINI / "clip" if folder.parent == MINI else folder)) if layout.reads_text else None
    found: Any = layout.prior.read(folder, kind, text=towers, dtype=dtype, device="cpu" if offload else device)
    for change in reversed(changes):
        change.apply(found)
    if offload:
        found.offload(device)
    made: P = found
    return made


def check_offload(device: str | torch.device, offload: bool) -> None:
    """raises InputError where there is nothing to keep elsewhere, or what moves it is missing"""
    if offload and torch.device(device).type == "cpu":
        raise InputError("--offload: with --device cpu the networks are in the machine's memory already; leave it out")
    if offload and not importlib.util.find_spec("accelerate"):  # diffusers' hooks call it
        raise InputError("--offload needs accelerate; install it: pip install accelerate")


def load_for(
    role: Role | tuple[Role, ...],
    name_or_folder: str | Path,
    kind: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    *,
    offload: bool = False,
    text: str | Path | None = None,
) -> Prior:
    """As `load`, for a caller to whom it matters what the prior draws, and not which one it is."""
    return load_as(Prior, name_or_folder, kind, role=role, text=text, dtype=dtype, device=device, offload=offload)  # type: ignore[type-abstract]


def _fits(layout: Layout, wanted: Any, role: Role | tuple[Role, ...] | None) -> bool:
    return (wanted is Prior or issubclass(layout.prior, wanted)) and (role is None or layout.role in _roles(role))


def _roles(role: Role | tuple[Role, ...] | None) -> tuple[Role, ...]:
    return (role,) if isinstance(role, str) else role or ()


def digest(name_or_folder: str | Path) -> str:
    """The first 16 hex digits of the SHA-256 of all weights and settings of a folder: which prior made an asset."""
    folder, whole = _folder(name_or_folder), hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".yaml", *WEIGHTS) and p.is_file()):
        whole.update(str(path.relative_to(folder)).encode())
        with path.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()[:16]


def _folder(name_or_folder: str | Path) -> Path:
    """A folder on disk, or the embedded or fetched one of that name."""
    name = str(name_or_folder)
    if _is_published(name):
        return _fetched(name)
    first, _, rest = name.partition("/")
    if not Path(name).exists() and (name in NAMES or (first == "mini" and "/" not in rest and rest not in (".", ".."))):
        folder = MINI / (NAMES.get(name) or rest or NAMES["mini"])
        if not any((folder / f).is_file() for f in ("model_index.json", learnt.RECORD)) and not unconditional.kind_of(folder):
            raise InputError(f"{name}: this version embeds no such diffusion prior; give a folder of weights in diffusers' layout")
        return folder
    folder = Path(name_or_folder)
    if folder.is_file():
        raise InputError(f"{folder}: is a file; give a folder in diffusers' layout (bozzetto convert makes one from a .ckpt)")
    if not folder.is_dir():
        names = ", ".join(NAMES)
        raise InputError(
            f"{folder}: no such folder; give one that holds model_index.json, or the name of an embedded prior ({names}) "
            "or of a published one (bozzetto fetch --list)"
        )
    if not (folder / "model_index.json").is_file() and (folder / "snapshots").is_dir():
        return _snapshot(folder)
    return folder


def _base(change: learnt.Change, seen: list[Path]) -> Path:
    """The folder of the prior that a change was learnt on; raises InputError where it is gone, or has changed itself."""
    try:
        folder = _folder(change.base)
    except InputError as error:
        raise InputError(f"{change.folder}: was learnt on another prior, and that cannot be found ({error})") from None
    if any(folder.samefile(other) for other in seen):
        raise InputError(f"{change.folder}: was learnt on {change.base}, which was learnt on it; give its bozzetto.json the right base")
    if change.digest is not None and digest(folder) != change.digest:
        raise InputError(f"{change.folder}: was learnt on other weights than {change.base} holds now; put those back, or learn again")
    return folder


def _is_published(name: str) -> bool:
    """Whether it names a published prior; a folder of that name goes before."""
    return name in published.PUBLISHED and name not in NAMES and not Path(name).exists()


def _fetched(name: str) -> Path:
    """The folder of a published prior that is here and can be read as it is."""
    folder, prior = published.folder(name), published.find(name)
    if prior.kind is None:
        told = prior.then.format(folder=folder)
        raise InputError(
            f"{name}: cannot be read as it was published; " + (f"first: {told}" if told else f"what was fetched is in {folder}")
        )
    return folder


def _snapshot(folder: Path) -> Path:
    """Of the hub's own folder (`models--owner--name`): what `main` stands for, or the only one."""
    found = sorted(f for f in (folder / "snapshots").iterdir() if f.is_dir())
    main = folder / "refs" / "main"
    named = [f for f in found if main.is_file() and f.name == main.read_text(errors="replace").strip()]
    if len(named or found) != 1:
        raise InputError(f"{folder / 'snapshots'}: holds {len(found)} versions and none is main; give the folder of one of them")
    return (named or found)[0]


def _kind(folder: Path, kind: str | None, *, is_told: bool = False) -> str:
    """The kind that was asked for, or that the folder says; raises InputError where these differ, or none says it.

    is_told  a text tower was given: text-to-image, unless the folder says another kind with one
    """
    own, where, pipeline = unconditional.kind_of(folder), "config.json", "folder"
    if own is None and not (folder / "model_index.json").exists() and sweetdreamer.is_folder(folder):
        own, where = "sweetdreamer", "unet/"  # as its authors' code reads it, there is nothing else in the folder
    if own is None:
        pipeline, where = read_json(folder / "model_index.json").get("_class_name", "folder"), "bozzetto.json"
        own = read_json(folder / where).get("kind") if (folder / where).is_file() else None
    says = own or next((k for k, v in LAYOUTS.items() if pipeline in v.pipelines), None)
    if kind is None and is_told and not (str(says) in LAYOUTS and LAYOUTS[str(says)].reads_text):
        kind = TEXT
    for name, what in ((kind, "kind"), (own, f"{folder}/{where}: kind")):
        if name is not None and str(name) not in LAYOUTS:
            raise InputError(f"{what} {name!r} is not known; expected one of {', '.join(LAYOUTS)}")
    if kind and own and kind != own and (kind, own) not in MANIFOLD:
        raise InputError(f"{folder}: kind {kind} was asked for, but its {where} says {own}; change one of them")
    if found := kind or says:
        return str(found)
    zero123.projection_folder(folder)  # refuses a folder of something else by its own sentence first
    raise InputError(
        f"{folder}: a {pipeline} may be Zero-1-to-3 or Stable-Zero123, whose weights look the same; say its kind "
        f'({", ".join(zero123.KINDS)}), or write it beside model_index.json as bozzetto.json: {{"kind": "zero123-xl"}}'
    )
