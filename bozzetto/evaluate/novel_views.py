# SPDX-License-Identifier: Apache-2.0
"""`python -m bozzetto.evaluate.novel_views`: views of objects that nobody trained on, as a prior draws them, against honest baselines.

Every object of a validation album is shown once and asked for from other sides. Beside the prior (with and without its hint; one
sample, and the mean of four) stand: the picture itself, copied; the mean of the training pictures at that pose; the training object
whose picture is nearest, turned alike; and the first guess, rendered. Scores: PSNR over the union of what either shows, sharpness as
a share of the truth's, and how far two drawn views of one object disagree about the points of its surface that both show.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.data.objects import Packed
from bozzetto.data.renders import render
from bozzetto.evaluate.metrics import sharpness
from bozzetto.priors import loading
from bozzetto.priors.sampling import SMALL, Sampler
from bozzetto.priors.zero123 import Zero123
from bozzetto.training import album
from bozzetto.training.backbone import PAPER, Encoded, drawn, pixel_psnr
from bozzetto.training.codec import album_pictures

VIEWS = (2, 5)  # of each object, asked for from its view 0


@dataclass(frozen=True)
class Settings:
    """Flags of the command."""

    objects: Path
    """packed objects, those that the albums were drawn from"""
    album: Path
    """the training album, for the baselines"""
    validation: Path
    """the album of objects that nobody trained on"""
    latents: Path
    """that album's latents"""
    prior: Path
    """a folder, or an embedded prior's name"""
    out: Path = Path("novel-views.png")
    """a sheet of some objects: picture, rendered guess, one sample without and with the hint, truth"""
    samples: int = 4
    steps: int = SMALL.steps
    guidance: float = SMALL.guidance
    eta: float = SMALL.eta
    seed: int = 0
    limit: int = 0
    """objects, the first of each group; 0 is all"""


def masked(rgb: Tensor) -> Tensor:
    """(..., 3) over white to (..., 4): alpha is 1 where a picture is not paper. What is pale inside an object is lost alike for all."""
    alpha = (rgb < PAPER).any(-1, keepdim=True).to(rgb)
    return torch.cat([rgb * alpha, alpha], -1)


@dataclass(frozen=True)
class Pair:
    """One question: object k seen from view 0, wanted from view v."""

    k: int
    v: int


def nearest_training(pictures: Tensor, bank: Tensor, batch: int = 64) -> list[tuple[int, int]]:
    """For pictures (B, H, W, 4), the object and view of the album (N, V, h, w, 4) with the least squared difference."""
    views, side = bank.shape[1], bank.shape[2]
    small = F.adaptive_avg_pool2d(pictures.movedim(-1, 1), side).movedim(1, -1)
    flat, found = bank.flatten(0, 1).flatten(1), []
    for x in small.flatten(1).split(batch):
        best = torch.cdist(x, flat).argmin(1)
        found += [divmod(int(b), views) for b in best]
    return found


def mean_at_pose(azimuth: float, elevation: float, poses: Tensor, bank: Tensor, width: float = 0.2) -> Tensor:
    """The training pictures' mean (h, w, 4), weighted by how near their cameras' directions are to one; radians."""

    def direction(a: Tensor, e: Tensor) -> Tensor:
        return torch.stack([e.cos() * a.cos(), e.cos() * a.sin(), e.sin()], -1)

    here = direction(torch.tensor(azimuth), torch.tensor(elevation))
    angle = torch.acos((direction(poses[..., 0], poses[..., 1]) @ here).clamp(-1, 1)).flatten()
    weight = torch.exp(-((angle / width) ** 2) / 2)
    return (weight[:, None] * bank.flatten(0, 1).flatten(1)).sum(0).div(weight.sum()).view(bank.shape[2:])


def disagreement(first: Tensor, second: Tensor, points: tuple[Tensor, Tensor], second_camera: Camera) -> float:
    """Mean difference of colour (L1, sRGB) of two pictures (H, W, 3) at the points of the true surface that both show.

    points  of each view (H, W, 3), NaN where it shows nothing; NaN if there are fewer than 30 in common
    """
    a, b = points
    here = ~a[..., 0].isnan()
    pixel, _ = second_camera.project(a[here].double())
    u = pixel[0].floor().long()  # pixel k covers [k, k + 1)
    h, w = b.shape[:2]
    inside = (u[:, 0] >= 0) & (u[:, 0] < w) & (u[:, 1] >= 0) & (u[:, 1] < h)
    u, colours, where = u[inside], first[here][inside], a[here][inside]
    other = b[u[:, 1], u[:, 0]]
    same = ((other - where).norm(dim=-1) < 0.03).nan_to_num() > 0
    if int(same.sum()) < 30:
        return float("nan")
    return float((colours[same] - second[u[same, 1], u[same, 0]]).abs().mean())


def evaluate(settings: Settings) -> str:
    """Draw everything, write the sheet, and return the table in Markdown."""
    prior = loading.load_as(Zero123, settings.prior)
    data, packed = Encoded.of(settings.latents), Packed(settings.objects)
    truth_all = album_pictures(settings.validation).view(len(data.about), album.VIEWS, album.SIZE, album.SIZE, 4)
    held = album.unseen(packed)
    bank, poses = _bank(settings.album)
    furniture = sum(not row["source"].startswith("procedural/") for row in data.about)
    groups = {"furniture": range(furniture), "held-out families": range(furniture, len(data.about))}
    tables, rows = [], []
    for name, members in groups.items():
        chosen = list(members)[: settings.limit or None]
        pairs = [Pair(k, v) for k in chosen for v in VIEWS]
        pictures = _candidates(prior, settings, data, truth_all, bank, poses, pairs, packed)
        truth = torch.stack([truth_all[p.k, p.v].float() / 255 for p in pairs])
        on_white = truth[..., :3] + 1 - truth[..., 3:]
        cameras = {k: album.pose(held[k], np.random.default_rng([62, k]), augment=False) for k in chosen}
        true_sharpness = sharpness(masked(on_white))
        lines = []
        for title, made in {"the truth": on_white, **pictures}.items():
            agree = [_agreement(made[2 * i], made[2 * i + 1], cameras[k]) for i, k in enumerate(chosen)]
            score = 100.0 if title == "the truth" else pixel_psnr(made, on_white)
            share = sharpness(masked(made)) / true_sharpness
            lines.append(f"| {title} | {'' if title == 'the truth' else f'{score:.2f}'} | {share:.2f} | {np.nanmean(agree):.3f} |")
        head = f"| {name}, {len(chosen)} objects, {len(pairs)} views | PSNR dB | sharpness | disagreement |\n| --- | ---: | ---: | ---: |\n"
        tables.append(head + "\n".join(lines))
        for i in range(0, len(pairs), max(2, len(pairs) // 8)):
            picture = truth_all[pairs[i].k, 0].float() / 255
            shown = [pictures[t][i] for t in ("first guess, rendered", "one sample, no hint", "one sample, with the hint")]
            rows.append(torch.cat([picture[..., :3] + 1 - picture[..., 3:], *shown, on_white[i]], 1))
    from PIL import Image

    half = (len(rows) + 1) // 2
    rows += [torch.ones_like(rows[0])] * (2 * half - len(rows))
    sheet = torch.cat([torch.cat(rows[:half], 0), torch.cat(rows[half:], 0)], 1)
    Image.fromarray((sheet.clamp(0, 1) * 255).byte().numpy()).save(settings.out)
    return "\n\n".join(tables)


def _candidates(
    prior: Zero123, settings: Settings, data: Encoded, truth: Tensor, bank: Tensor, poses: Tensor, pairs: list[Pair], packed: Packed
) -> dict[str, Tensor]:
    """Pictures (B, H, W, 3) over white of every way to answer."""
    scale = prior.codec.scaling_factor
    side = truth.shape[2]
    seen = torch.stack([truth[p.k, 0].float() / 255 for p in pairs])
    near = nearest_training(seen, bank)
    drawer = album.Settings(settings.objects, Path())

    def turned(i: int) -> Tensor:
        """The nearest training object, from as far round as was asked."""
        (k, v), p = near[i], pairs[i]
        posed = album.pose(*album.chosen(drawer, packed, k))
        azimuth = posed.azimuth[v] + float(data.azimuth[p.k, p.v] - data.azimuth[p.k, 0])
        camera = album.frame_cameras([azimuth], [float(data.elevation[p.k, p.v])], posed.p, posed.width, side)
        views = render(posed.shape, camera, posed.lights)
        return views.over(1.0)[0]

    def mean(p: Pair) -> Tensor:
        x = mean_at_pose(float(data.azimuth[p.k, p.v]), float(data.elevation[p.k, p.v]), poses, bank)
        x = F.interpolate(x.movedim(-1, 0)[None], (side, side), mode="bilinear")[0].movedim(0, -1)
        return x[..., :3] + 1 - x[..., 3:]

    hints = _hint_pictures(settings.validation)
    out = {
        "the picture, copied": seen[..., :3] + 1 - seen[..., 3:],
        "mean training picture at that pose": torch.stack([mean(p) for p in pairs]),
        "nearest training object": torch.stack([turned(i) for i in range(len(pairs))]),
        "first guess, rendered": torch.stack([hints[p.k, p.v].float() / 255 for p in pairs]),
    }
    batch = {
        "x0": torch.stack([data.latents[p.k, p.v].float() for p in pairs]) * scale,
        "image": torch.stack([data.latents[p.k, 0].float() for p in pairs]),
        "embedding": torch.stack([data.embedding[p.k, 0].float() for p in pairs]),
        "pose": torch.stack([data.pose(p.k, 0, p.v) for p in pairs]),
        "hint": torch.stack([torch.cat([data.hint[p.k, 0, p.v].float() * scale, data.planes[p.k, 0, p.v].float()]) for p in pairs]),
    }
    with torch.no_grad():
        out["the truth, through the codec"] = _decoded(prior, batch["x0"])
        for label, here in (("no hint", {**batch, "hint": torch.zeros_like(batch["hint"])}), ("with the hint", batch)):
            begun = time.monotonic()
            drawings = []
            for s in range(settings.samples):
                parts = []
                for start in range(0, len(pairs), 32):
                    some = {key: value[start : start + 32] for key, value in here.items()}
                    seed = settings.seed + 1000 * s + start
                    parts.append(drawn(prior, some, Sampler(settings.steps, settings.guidance, settings.eta), seed=seed))
                drawings.append(_decoded(prior, torch.cat(parts)))
            print(f"{label}: {settings.samples} x {len(pairs)} views in {time.monotonic() - begun:.0f} s", flush=True)
            out[f"one sample, {label}"] = drawings[0]
            out[f"mean of {settings.samples}, {label}"] = torch.stack(drawings).mean(0)
    return out


def _decoded(prior: Zero123, x0: Tensor) -> Tensor:
    return torch.cat([prior.decode(part) for part in x0.split(32)])


def _agreement(first: Tensor, second: Tensor, posed: album.Posed) -> float:
    """`disagreement` of an object's two views of VIEWS."""
    cameras = album.frame_cameras(posed.azimuth[list(VIEWS)], posed.elevation[list(VIEWS)], posed.p, posed.width, album.SIZE)
    views = render(posed.shape, cameras, supersample=1)
    points = cameras.unproject(cameras.pixel_centres().expand(2, -1, -1, -1).reshape(2, -1, 2), views.depth.reshape(2, -1).double())
    points = points.view(2, album.SIZE, album.SIZE, 3)
    points = torch.where(views.alpha > 0.5, points, torch.full_like(points, math.nan))
    return disagreement(first, second, (points[0], points[1]), cameras[[1]])


def _bank(folder: Path, side: int = 32) -> tuple[Tensor, Tensor]:
    """An album's pictures (N, V, side, side, 4) in [0, 1], small, and their azimuths and elevations (N, V, 2)."""
    from safetensors import safe_open

    pictures, poses = [], []
    for path in sorted(folder.glob("chunk_*.safetensors")):
        with safe_open(path, "pt") as file:
            large = file.get_tensor("pictures")
            small = F.adaptive_avg_pool2d(large.flatten(0, 1).movedim(-1, 1).float() / 255, side)
            pictures.append(small.movedim(1, -1).reshape(*large.shape[:2], side, side, 4))
            poses.append(torch.stack([file.get_tensor("azimuth"), file.get_tensor("elevation")], -1))
    return torch.cat(pictures), torch.cat(poses)


def _hint_pictures(folder: Path) -> Tensor:
    """(N, V, H, W, 3) uint8: the guess behind each object's first view, rendered into all."""
    from safetensors import safe_open

    parts = []
    for path in sorted(folder.glob("chunk_*.safetensors")):
        with safe_open(path, "pt") as file:
            parts.append(file.get_slice("hint")[:, 0])
    return torch.cat(parts)


if __name__ == "__main__":
    import tyro

    print(evaluate(tyro.cli(Settings)))
