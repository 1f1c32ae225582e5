# SPDX-License-Identifier: Apache-2.0
"""`python -m bozzetto.evaluate.seeds`: do k seeds give k assets that agree where the picture shows them, and differ where it does not?

Objects that nobody trained on (`lifting.chosen`), one picture each, lifted k times, the seed alone changed. All pairs of an object's
assets are compared as they look from the picture's own camera, from its side and from behind, by PSNR over the union of their masks
and by the masks' IoU: high in front and low behind is what a generative prior should give; equal all round, a prior that imagines
nothing. How well each asset meets the picture itself stands beside it.
"""

from __future__ import annotations

import math
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bozzetto import image
from bozzetto.camera import Camera
from bozzetto.evaluate import baselines
from bozzetto.evaluate.lifting import chosen
from bozzetto.evaluate.metrics import psnr
from bozzetto.evaluate.shots import drawn, shoot
from bozzetto.fit.asset import Asset
from bozzetto.verbs.lift import lift

TURNS = {"the picture's view": 0.0, "its side": 90.0, "behind": 180.0}  # degrees round the vertical axis, from the picture's camera
SIZE = 128  # pixels a side in which assets are compared


@dataclass(frozen=True)
class Settings:
    """Flags of the command."""

    objects: Path
    """packed objects, as `bozzetto data` writes them"""
    count: int = 3
    """objects of each group, furniture and held-out families"""
    seeds: int = 3
    """lifts of each picture"""
    recipe: str = "views"
    """how they are lifted, as `bozzetto lift` has it"""
    preset: Literal["draft", "standard", "fine"] = "draft"
    out: Path | None = None
    """a sheet: a row an object, its picture, then each asset in front and from behind"""


def turned(camera: Camera, degrees: float) -> Camera:
    """A camera after a turn about the vertical axis through the origin, which an asset's frame has at its middle."""
    a = math.radians(degrees)
    turn = torch.tensor([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]], dtype=torch.float64)
    return replace(camera, c2w=turn @ camera.c2w)


def looks(asset: Asset, size: int = SIZE) -> Tensor:
    """(len(TURNS), size, size, 4), premultiplied sRGB and alpha, from the asset's own camera of the picture, turned."""
    return torch.cat([drawn(asset.mesh, turned(asset.camera.resized(size), d)) for d in TURNS.values()])


def iou(a: Tensor, b: Tensor) -> float:
    """Of two pictures' masks (H, W, 4), halfway; 1 for two that show nothing."""
    p, q = a[..., 3] > 0.5, b[..., 3] > 0.5
    union = int((p | q).sum())
    return int((p & q).sum()) / union if union else 1.0


def agreement(assets: Sequence[Tensor]) -> dict[str, tuple[float, float]]:
    """For each of TURNS the mean over all pairs of assets, as `looks` draws them, of PSNR (dB) and IoU.

    raises  ValueError for fewer than two assets
    """
    if len(assets) < 2:
        raise ValueError(f"assets: expected at least two to compare, got {len(assets)}")
    pairs = list(combinations(assets, 2))
    return {
        name: (float(np.mean([psnr(a[[k]], b[[k]]) for a, b in pairs])), float(np.mean([iou(a[k], b[k]) for a, b in pairs])))
        for k, name in enumerate(TURNS)
    }


def evaluate(settings: Settings) -> str:
    """Lift everything, write the sheet, and return the table in Markdown; objects that fail are named, not counted."""
    scores: dict[str, list[tuple[float, float]]] = {name: [] for name in TURNS}
    met: list[float] = []
    failed, rows = [], []
    for _, name, source, key in chosen(settings.objects, settings.count):
        d = baselines.load(settings.objects, key)
        shot = shoot(d, np.random.default_rng([0, zlib.crc32(source.encode())]))  # as `bozzetto evaluate --seed 0`
        with tempfile.TemporaryDirectory(prefix="bozzetto-seeds-") as work:
            path = Path(work) / "picture.png"
            Image.fromarray(shot.picture).save(path)
            try:
                assets = [
                    lift(path, Path(work) / f"{seed}", preset=settings.preset, recipe=settings.recipe, seed=seed)
                    for seed in range(settings.seeds)
                ]
            except Exception as error:  # whatever it was, it is reported
                failed.append(f"{name} ({type(error).__name__}: {error})")
                continue
        crop = image.crop(assets[0].source.rgb, assets[0].source.alpha, SIZE)
        wanted = torch.cat([crop.rgb, crop.alpha[..., None]], -1)[None].float()
        shown = [looks(asset) for asset in assets]
        for view, found in agreement(shown).items():
            scores[view].append(found)
        met += [psnr(x[:1], wanted) for x in shown]
        rows.append(torch.cat([wanted[0], *(x[0] for x in shown), *(x[-1] for x in shown)], 1))
        line = ", ".join(f"{view} {p[-1][0]:.1f} dB {p[-1][1]:.2f}" for view, p in scores.items())
        print(f"{name}: {line}", flush=True)
    if settings.out is not None and rows:
        sheet = torch.cat(rows, 0)
        paper = (sheet[..., :3] + 1 - sheet[..., 3:]).clamp(0, 1)
        Image.fromarray((paper * 255).byte().numpy()).save(settings.out)
    head = f"| recipe {settings.recipe}, {len(rows)} objects, {settings.seeds} seeds each | PSNR of two assets, dB | IoU of their masks |"
    lines = [head, "| --- | ---: | ---: |"]
    for view, found in scores.items():
        if found:
            p, q = np.mean(found, 0)
            lines.append(f"| {view} | {p:.2f} | {q:.3f} |")
    if met:
        lines.append(f"\nEach asset against the picture, in its view: {np.mean(met):.2f} dB. Failed: {'; '.join(failed) or 'none'}.")
    return "\n".join(lines)


if __name__ == "__main__":
    import tyro

    print(evaluate(tyro.cli(Settings)))
