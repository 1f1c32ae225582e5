# SPDX-License-Identifier: Apache-2.0
"""Settings that a verb's function takes and its flags offer: stated once, imported by both. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from bozzetto.errors import InputError

S = TypeVar("S")

VIEWS = 8  # of `bozzetto views`
EDIT_SIZE, EDIT_IMAGE = 512, 1.5  # of `bozzetto edit`: pixels of the longer side; the paper's weight of the picture, of a model's views
EDIT_VIEWS = 8  # of a model, edited
EDIT_PRIOR = "mini"
CHOSEN_AMONG = 8, 4  # drawings of which `bozzetto lift --text` takes one: by the embedded prior, by another


def settings_of(kind: type[S], flags: Any, **more: Any) -> S:
    """Settings of a kind from flags that inherit some of its fields; those that no flag offers keep their defaults."""
    return kind(**{f.name: getattr(flags, f.name) for f in fields(kind) if hasattr(flags, f.name)}, **more)  # type: ignore[arg-type]


def priors_of(given: tuple[str, ...]) -> Any:
    """What `--prior` was given as `bozzetto.lift` takes it: one folder, or folders by need; raises InputError for several without names."""
    from bozzetto.fit.recipe import Extra, Need

    names = (*get_args(Need), *get_args(Extra))
    by_need = {need: folder for need, _, folder in (x.partition("=") for x in given) if need in names and folder}
    if len(given) > 1 and len(by_need) < len(given):
        raise InputError(f"--prior {' '.join(given)}: of several, each needs its name, NEED=FOLDER, once; names are {', '.join(names)}")
    return by_need or (Path(given[0]) if given else None)


@dataclass(frozen=True)
class SplatSettings:
    """Of `bozzetto splat`; defaults as published unless a reason stands beside them."""

    steps: int = 7_000
    """of one picture each; 30000 is the published number, at which all its other times are counted"""
    size: int = 800
    """pixels of a picture's longer side; larger pictures are shrunk to it; published 1600: a CPU's patience"""
    strategy: Literal["densify", "mcmc"] = "densify"
    """how Gaussians multiply: as first published, or by Markov chain Monte Carlo"""
    start: Literal["auto", "points", "random"] = "auto"
    """from the reconstruction's points or random ones; auto: points where there are any"""
    points: int = 10_000
    """random points to start from; published 100000: a CPU's patience"""
    max_count: int = 200_000
    """Gaussians at most; published without limit: a CPU's patience"""
    degree: int = 3
    """of the colours' change with direction, 0 to 3; grows by one each 1000 published steps"""
    antialiased: bool = False
    """thin Gaussians keep their brightness when seen from afar"""


@dataclass(frozen=True)
class MeshSettings:
    """Of `bozzetto mesh`."""

    cells: int = 128
    """of the lattice, along the longest side"""
    faces: int = 60_000
    """of the model, at most"""
    texture: int = 1024
    """texels a side"""


@dataclass(frozen=True)
class ReconstructSettings:
    """Of `bozzetto reconstruct`."""

    cells: int = 80
    """of the lattice, along the longest side"""
    views: int = 32
    """pictures that are used, at most, evenly from the list; 8 all round will do"""
    faces: int = 30_000
    """of the model, at most"""
    texture: int = 1024
    """texels a side"""


@dataclass(frozen=True)
class EditSettings:
    """Of `bozzetto edit`."""

    count: int = 1
    """edits of a picture, side by side in the one file; edit k takes seed + k"""
    views: int = EDIT_VIEWS
    """of a model, that are edited"""
    together: bool = False
    """of a model: each view looks at all others while it is edited, which takes more memory"""
    guidance: float | None = None
    """more holds harder to the instruction; 5 to 10 are usual, and 7.5 the default"""
    image_guidance: float | None = None
    """more holds harder to the picture; 1 to 1.5 are usual; by default 1.5, or 1 for a picture by a prior of small ones"""
    steps: int | None = None
    """of the sampler; by default 100"""
    size: int | None = None
    """pixels of a picture's longer side, about, by default 512, or of a model's views, by default the prior's; multiples of 64"""


@dataclass(frozen=True)
class ShapeSettings:
    """Of `bozzetto shape`."""

    cells: int = 28
    """of the lattice, along the longest side, before it is refined; the embedded networks know 20 to 28"""
    points: int = 3_500
    """that the network sees, of more at random; the embedded one knows 1000 to 3500"""
    faces: int = 30_000
    """of the model, at most"""
    texture: int = 1024
    """texels a side, where points have colours"""


@dataclass(frozen=True)
class LearnSettings:
    """Of `bozzetto learn`."""

    method: Literal["dreambooth", "textual-inversion"] = "dreambooth"
    """what learns: the network; or one word of the text alone, in angle brackets, "a <mine>": a file of a few kilobytes"""
    class_text: str | None = None
    """the kind of thing alone, "a chair", which the prior shall go on to draw as before, by default the text without the word sks; or what
    the word begins as"""
    class_count: int = 100
    """pictures of it that the prior draws first, to hold on to; 0 does without"""
    weight: float = 1.0
    """of the kind, against the pictures"""
    rank: int = 4
    """of the update of each layer (LoRA): more can say more"""
    full: bool = False
    """let all weights of the network learn, not an update of low rank: a folder a hundred times as large"""
    steps: int = 500
    """of learning"""
    batch: int = 1
    """pictures of each sort a step"""
    lr: float | None = None
    """learning rate; by default 1e-4, or 5e-6 with --full, ten times as much for the embedded prior"""
    whole: bool = False
    """learn the pictures as they are, their middle square; by default the object is cut out, as for a lift"""


@dataclass(frozen=True)
class ClaimsSettings:
    """What `bozzetto claims` can be told."""

    seeds: int = 3
    """runs of each"""
    objects: Path = Path("data/objects")
    """packed objects, for claims that need them"""
    write: Path | None = None
    """write the page of all results that are there, docs/claims.md"""
    list: bool = False
    """name them, and what each says"""
    quiet: bool = False
    """no progress display"""
