# SPDX-License-Identifier: Apache-2.0
"""How well is the object cut out? Renders of the validation side before made-up backgrounds, each way of matting: one table.

    python -m bozzetto.evaluate.masks --objects data/objects [--count 64] [--out FOLDER]

Each object is drawn off the centre, half of them at 512 pixels and half at 1024, before four backgrounds with a soft shadow under it:
plain, graded, textured (stripes, tiles, grain) and cluttered (a wall and a floor of such patterns, and a dozen smaller objects of the
*training* side standing about). Some pictures get noise or go through JPEG. The truth is the render's own alpha.

IoU         of alpha > 0.5, mean over pictures; a picture in which nothing is found counts 0
edge F      harmonic mean of precision and recall of outline pixels, found within 0.4 % of the side
thin        share of those pixels found which belong to parts where no square of 3 x 3 pixels fits
CPU s       of the process, for a picture of 1024 pixels, one mask
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bozzetto import matting
from bozzetto.data.objects import Packed
from bozzetto.data.renders import crop_camera, drawable, random_lights, render
from bozzetto.errors import InputError
from bozzetto.image import Picture
from bozzetto.matting.u2net import saliency

KINDS = ("plain", "graded", "textured", "cluttered")
CLUTTER = 12  # smaller objects in a picture
REACH = 0.004  # of the side: how far an outline may be off


@dataclass(frozen=True)
class Settings:
    """Flags of the command."""

    objects: Path
    """packed objects"""
    count: int = 64
    """objects, spread over the validation side"""
    methods: tuple[str, ...] = ("classical", "network", "auto")
    """of classical, network, auto, rembg"""
    kinds: tuple[str, ...] = KINDS
    """backgrounds"""
    out: Path | None = None
    """folder for the pictures, each with its masks beside it"""
    seed: int = 0
    """of cameras, places and backgrounds"""


@dataclass(frozen=True)
class Sample:
    """A composited picture (H, W, 3) float32 in [0, 1], of 8-bit values, and its object's true alpha (H, W)."""

    name: str
    kind: str
    rgb: np.ndarray
    alpha: np.ndarray


# ---- pictures ----


def samples(packed: Packed, index: int, seed: int = 0, *, size: int = 512, kinds: tuple[str, ...] = KINDS) -> list[Sample]:
    """One object in one pose and place, before each kind of background; the same for the same seed and index."""
    rng = np.random.default_rng([seed, index])
    rgb, alpha = placed(packed, index, rng, size, rng.uniform(0.5, 0.8))
    made = []
    for kind in kinds:
        rng = np.random.default_rng([seed, index, KINDS.index(kind)])
        behind = background(kind, size, rng)
        if kind == "cluttered":
            behind = cluttered(packed, behind, rng)
        behind = behind * (1 - shadow(alpha, rng))[..., None]
        mixed = developed(rgb + (1 - alpha[..., None]) * behind, rng)
        made.append(Sample(packed.rows[index]["source"], kind, mixed, alpha))
    return made


def placed(packed: Packed, index: int, rng: np.random.Generator, size: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """An object somewhere in a picture of `size` pixels, its longer side `share` of it: premultiplied colours and alpha."""
    d = drawable(packed[index])
    side = max(16, round(share * size))
    elevation, azimuth = np.radians(rng.triangular(-5, 12, 45)), np.radians(rng.uniform(-180, 180))
    camera, _ = crop_camera(d.vertices, azimuth, elevation, rng.uniform(1.6, 3.5), side, margin=0.0)
    lights, _ = random_lights(rng, camera)
    views = render(d, camera, lights)
    h, w = (np.array([size, size]) - side) * rng.uniform(0.25, 0.75, 2)
    rgb, alpha = np.zeros((size, size, 3), np.float32), np.zeros((size, size), np.float32)
    box = np.s_[round(h) : round(h) + side, round(w) : round(w) + side]
    rgb[box], alpha[box] = views.rgb[0].numpy(), views.alpha[0, ..., 0].numpy()
    return rgb, alpha


def background(kind: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """(size, size, 3) in [0, 1]."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    a, b = colour(rng), colour(rng)
    if kind == "plain":
        return np.broadcast_to(a, (size, size, 3)).astype(np.float32)
    if kind == "graded":
        t, angle = rng.uniform(0.2, 0.6), rng.uniform(0, 2 * np.pi)
        along = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle)
        vignette = 1 - rng.uniform(0, 0.35) * ((x - 0.5) ** 2 + (y - 0.5) ** 2)
        return ((a + t * (along[..., None] + 0.5) * (b - a)) * vignette[..., None]).clip(0, 1).astype(np.float32)
    if kind == "textured":
        return pattern(size, a, b, rng)
    wall, floor = pattern(size, a, b, rng), pattern(size, colour(rng), colour(rng), rng)
    return np.where((y > rng.uniform(0.45, 0.75))[..., None], floor, wall)


def colour(rng: np.random.Generator) -> np.ndarray:
    """Mostly pale and dull, as rooms are."""
    grey = rng.uniform(0.15, 0.95)
    return (grey + rng.normal(0, 0.1, 3)).clip(0.02, 1).astype(np.float32)


def pattern(size: int, a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Stripes, tiles or grain between two colours, with some grain over each."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    cells, angle = rng.uniform(4, 24), rng.uniform(0, np.pi)
    u, v = cells * (x * np.cos(angle) + y * np.sin(angle)), cells * (y * np.cos(angle) - x * np.sin(angle))
    cloud = sum(
        cv2.resize(rng.standard_normal((n, n)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC) / n**0.5
        for n in (4, 8, 16, 32, 64)
    )
    grain = np.tanh(cloud * rng.uniform(0.5, 2)) / 2
    which = rng.integers(4)
    if which == 0:
        t = (np.floor(u) + np.floor(v)) % 2
    elif which == 1:
        t = (np.sin(np.pi * u + grain) > rng.uniform(-0.5, 0.5)).astype(np.float32)
    elif which == 2:
        t = 0.5 + 0.5 * np.sin(2 * np.pi * (u + 4 * grain))  # planks
    else:
        t = 0.5 + grain
    t = t * rng.uniform(0.3, 1) + grain * rng.uniform(0.1, 0.5)
    return (a + t[..., None] * (b - a)).clip(0, 1).astype(np.float32)


def cluttered(packed: Packed, behind: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Smaller objects of the training side before a background, some cut off by the border, perhaps a little out of focus."""
    size, train = len(behind), packed.indices("train")
    for index in rng.choice(train, CLUTTER, replace=False):
        share = rng.uniform(0.1, 0.3)
        rgb, alpha = placed(packed, int(index), rng, round(size * share) + 16, 0.95)
        x, y = (rng.uniform(-share / 2, 1 - share / 2, 2) * size).astype(int)
        far = np.array([[1, 0, x], [0, 1, y]], np.float32)
        rgb, alpha = (cv2.warpAffine(part, far, (size, size)) for part in (rgb, alpha))
        behind = rgb + (1 - alpha[..., None]) * behind * (1 - shadow(alpha, rng))[..., None]
    blur = rng.uniform(0, 0.003) * size
    return cv2.GaussianBlur(behind, (0, 0), blur) if blur > 0.5 else behind


def shadow(alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How much light a soft shadow under the object takes, (H, W) in [0, 1)."""
    rows, columns = np.nonzero(alpha > 0.5)
    if not len(rows):
        return np.zeros_like(alpha)
    size = len(alpha)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    across, height = max(float(np.ptp(columns)) / 2, 2.0), max(float(np.ptp(rows)), 2.0)
    dx, dy = rng.uniform(-0.15, 0.15) * across, 0.05 * height
    wide, tall = rng.uniform(0.8, 1.2) * across, rng.uniform(0.08, 0.2) * height
    away = ((x - columns.mean() - dx) / wide) ** 2 + ((y - rows.max() + dy) / tall) ** 2
    return (rng.uniform(0.1, 0.5) * np.exp(-away)).astype(np.float32)


def developed(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise on every third picture, JPEG on every third, 8 bits on all."""
    how = rng.integers(3)
    if how == 0:
        rgb = rgb + rng.uniform(0.005, 0.03) * rng.standard_normal(rgb.shape)
    pixels = (rgb.clip(0, 1) * 255).round().astype(np.uint8)
    if how == 1:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=int(rng.integers(75, 96)))
        pixels = np.asarray(Image.open(stream))
    return (pixels / np.float32(255)).astype(np.float32)


# ---- measures ----


def iou(found: np.ndarray, true: np.ndarray) -> float:
    """Of alpha > 0.5; two empty masks agree."""
    a, b = found > 0.5, true > 0.5
    return float((a & b).sum() / max((a | b).sum(), 1)) if (a | b).any() else 1.0


def edge_f(found: np.ndarray, true: np.ndarray) -> float:
    """Of the outlines' pixels, within REACH of the side."""
    a, b = outline(found), outline(true)
    if not a.any() or not b.any():
        return float(a.any() == b.any())
    reach = REACH * max(true.shape)
    precision, recall = (float((distance(other)[one] <= reach).mean()) for one, other in ((a, b), (b, a)))
    return 2 * precision * recall / max(precision + recall, 1e-9)


def outline(alpha: np.ndarray) -> np.ndarray:
    """Object pixels beside others, (H, W) bool."""
    solid = (alpha > 0.5).astype(np.uint8)
    return (solid > 0) & (cv2.erode(solid, np.ones((3, 3), np.uint8), borderValue=1) == 0)


def distance(of: np.ndarray) -> np.ndarray:
    return cv2.distanceTransform((~of).astype(np.uint8), cv2.DIST_L2, 5)


def thin_parts(alpha: np.ndarray) -> np.ndarray:
    """Object pixels no 3 x 3 square fits over, and not at the corners of parts where one does: (H, W) bool."""
    solid, kernel = (alpha > 0.5).astype(np.uint8), np.ones((3, 3), np.uint8)
    thick = cv2.dilate(cv2.morphologyEx(solid, cv2.MORPH_OPEN, kernel), kernel)
    return (solid > 0) & (thick == 0)


# ---- methods ----


def network_alone(picture: Picture) -> Tensor:
    """U2-Net-p's own map at the picture's size: what rembg's `u2netp` would give."""
    seen = saliency(picture.rgb).numpy()
    h, w = picture.rgb.shape[:2]
    return torch.from_numpy(cv2.resize(seen, (w, h), interpolation=cv2.INTER_LINEAR))


METHODS: dict[str, Callable[[Picture], Tensor]] = {
    "classical": lambda picture: matting.matte(picture, method="classical"),
    "network": network_alone,
    "auto": lambda picture: matting.matte(picture, method="auto"),
    "rembg": lambda picture: matting.matte(picture, method="rembg"),
}


@dataclass(frozen=True)
class Score:
    """Of one mask; thin is (found, all) pixels."""

    kind: str
    size: int
    iou: float
    edge_f: float
    thin: tuple[int, int]
    seconds: float


def judged(sample: Sample, method: Callable[[Picture], Tensor]) -> tuple[Score, np.ndarray]:
    """One mask with its score."""
    picture = Picture(torch.from_numpy(sample.rgb), None, Path(sample.name), sample.rgb.shape[:2])
    started = time.process_time()
    try:
        found = method(picture).numpy()
    except InputError as error:
        if "no object found" not in str(error):
            raise
        found = np.zeros_like(sample.alpha)
    seconds = time.process_time() - started
    thin = thin_parts(sample.alpha)
    counts = (int((thin & (found > 0.5)).sum()), int(thin.sum()))
    return Score(sample.kind, len(found), iou(found, sample.alpha), edge_f(found, sample.alpha), counts, seconds), found


def table(scores: dict[str, list[Score]], kinds: tuple[str, ...]) -> str:
    """Markdown."""
    heads = [*kinds, "all", "edge F", *(f"thin, {k}" for k in kinds), "CPU s"]
    lines = ["| | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for name, rows in scores.items():
        of = {kind: [r for r in rows if r.kind == kind] for kind in kinds}
        thin = [sum(r.thin[0] for r in of[k]) / max(sum(r.thin[1] for r in of[k]), 1) for k in kinds]
        large = [r.seconds for r in rows if r.size == 1024]
        means = [
            *(np.mean([r.iou for r in of[k]]) for k in kinds),
            np.mean([r.iou for r in rows]),
            np.mean([r.edge_f for r in rows]),
            *thin,
        ]
        cells = [f"{x:.3f}" for x in means] + [f"{np.mean(large):.2f}" if large else ""]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def strip(sample: Sample, masks: list[np.ndarray], side: int = 256) -> np.ndarray:
    """The picture, the truth and the masks, (side, n side, 3) uint8: masks cut the picture out over magenta."""
    magenta = np.array([1, 0, 1], np.float32)
    cells = [sample.rgb] + [m[..., None] * sample.rgb + (1 - m[..., None]) * magenta for m in (sample.alpha, *masks)]
    small = [cv2.resize(c, (side, side), interpolation=cv2.INTER_AREA) for c in cells]
    return (np.concatenate(small, 1).clip(0, 1) * 255).round().astype(np.uint8)


def chosen(packed: Packed, count: int) -> list[int]:
    """Objects spread over the validation side."""
    side = packed.indices("validation")
    if not side:
        raise InputError(f"{packed.folder}: no object is on the validation side; pack more, or other ones")
    return [side[k * len(side) // count] for k in range(count)] if count < len(side) else side


def main(settings: Settings) -> None:
    """Print the table."""
    for flag, values, known in (("--methods", settings.methods, tuple(METHODS)), ("--kinds", settings.kinds, KINDS)):
        if not set(values) <= set(known) or not values:
            raise InputError(f"{flag} {' '.join(values)}: expected some of {', '.join(known)}")
    packed = Packed(settings.objects)
    scores: dict[str, list[Score]] = {name: [] for name in settings.methods}
    if settings.out is not None:
        settings.out.mkdir(parents=True, exist_ok=True)
    for n, index in enumerate(chosen(packed, settings.count)):
        rows = []
        for sample in samples(packed, index, settings.seed, size=512 if n % 2 else 1024, kinds=settings.kinds):
            masks = []
            for name in settings.methods:
                score, mask = judged(sample, METHODS[name])
                scores[name].append(score)
                masks.append(mask)
            rows.append(strip(sample, masks))
        if settings.out is not None:
            Image.fromarray(np.concatenate(rows)).save(settings.out / f"{n:03d}.png")
        latest = " ".join(f"{name} {np.mean([r.iou for r in s[-len(settings.kinds) :]]):.3f}" for name, s in scores.items())
        print(f"{n + 1}: {packed.rows[index]['source']}: {latest}", file=sys.stderr, flush=True)
    print(f"{len(scores[settings.methods[0]])} pictures; IoU by background, outlines, thin parts by background, time\n")
    print(table(scores, settings.kinds))


if __name__ == "__main__":
    import tyro

    try:
        main(tyro.cli(Settings))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
