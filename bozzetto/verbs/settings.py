# SPDX-License-Identifier: Apache-2.0
"""Settings that a verb's function takes and its flags offer: stated once, imported by both. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

S = TypeVar("S")


def settings_of(kind: type[S], flags: Any, **more: Any) -> S:
    """Settings of a kind from flags that inherit some of its fields; those that no flag offers keep their defaults."""
    return kind(**{f.name: getattr(flags, f.name) for f in fields(kind) if hasattr(flags, f.name)}, **more)  # type: ignore[arg-type]


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
