# SPDX-License-Identifier: Apache-2.0
"""Posed pictures to Gaussians: 3D Gaussian Splatting, start to finish.

Kerbl et al. 2023 (arXiv:2308.04079); MCMC: arXiv:2404.09591. Stages: begin (points of the reconstruction, or random ones), fit (one
picture a step; L1 + SSIM; densification; harmonics and resolution warm up), then the held-back pictures are measured.

Differs from the released code: the published course of 30,000 steps is shrunk to `steps`; pictures with transparency are fitted
over a background that is drawn anew at each step, so that nothing is painted in front of it, and are measured over white.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto import __version__, image
from bozzetto.camera import Camera, looked_at
from bozzetto.errors import InputError
from bozzetto.files import write_atomically
from bozzetto.fit.loop import Loss, Term, optimise, own
from bozzetto.fit.run import Run
from bozzetto.fit.terms import order_of
from bozzetto.formats.ply import spz_library, to_ply, to_splat, to_spz
from bozzetto.formats.scene import Scene, load
from bozzetto.image import animation
from bozzetto.kernels import harmonics
from bozzetto.render.ssim import ssim
from bozzetto.shapes.densify import MCMC_FIRST, Densify, DensifySchedule, Mcmc, Strategy
from bozzetto.shapes.gaussians import Gaussians, scene_extent
from bozzetto.shapes.growing import PUBLISHED, Growing
from bozzetto.shapes.shape import Shape, Step
from bozzetto.verbs.settings import SplatSettings


@dataclass(frozen=True)
class Splat(SplatSettings):
    """All settings of a fit."""

    ssim_weight: float = 0.2
    """share of 1 - SSIM in the loss"""
    grow: tuple[Literal["clone", "split"], ...] = ("clone", "split")
    """what `densify` may do; for ablations"""
    is_isotropic: bool = False
    """all Gaussians round; for ablations"""
    checkpoint_every: int = 500
    """steps between two checkpoints"""


@dataclass(frozen=True)
class Result:
    """Gaussians, how the held-back pictures came out, and what was done; `is_complete` is False after Ctrl-C; the scene's warnings."""

    gaussians: Gaussians
    metrics: dict[str, Any]
    is_complete: bool
    warnings: tuple[str, ...] = ()


def splat_scene(
    scene: str | Path | Scene,
    out: str | Path,
    settings: Splat = Splat(),
    *,
    seed: int = 0,
    resume: bool = False,
    spz: bool = False,
    progress: Callable[[str, float], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Result:
    """Fit a scene and write `out` (.ply), and beside it .splat, .json (settings, metrics), .webp (an orbit), and with `spz` .spz.

    tell    is given a sentence before the slow work of a run that begins: how long it will take at least
    raises  InputError for a scene that cannot be read, settings that make no sense, or an `out` that cannot be written
    """
    out = Path(out)
    _check(out, settings)
    if spz:
        spz_library()  # says what lacks before the slow work
    source = load(scene, settings.size) if not isinstance(scene, Scene) else scene
    record = {"settings": asdict(settings), "seed": seed, "scene": source.digest()}
    run = Run(out.parent / f".{out.stem}", record, resume=resume, progress=progress)
    started = time.monotonic()
    with run.interruptible():
        first = run.stage("begin", lambda: begin(source, settings, seed).tensors(), dict)
        if tell is not None and not resume:
            tell(patience(Gaussians(**first), source, settings))
        done = run.stage("fit", lambda: fit(Gaussians(**first), source, settings, seed, run).tensors(), dict)
        g = Gaussians(**done)
        g.degree = settings.degree
        metrics = measure(g, source, settings) | {"gaussians": len(g), "seconds": round(time.monotonic() - started, 1)}
        about = {"version": __version__, **record, "complete": not run.interrupted, **metrics}
        try:
            write_atomically(out.with_suffix(".splat"), to_splat(g))
            if spz:
                write_atomically(out.with_suffix(".spz"), to_spz(g))
            write_atomically(out.with_suffix(".webp"), orbit_video(g, source, settings))
            write_atomically(out.with_suffix(".json"), (json.dumps(about, indent=1) + "\n").encode())
            write_atomically(out, to_ply(g))  # last: where it is, everything is
        except OSError as error:
            raise InputError(f"{out}: cannot be written ({error.strerror}); free some space or choose another --out") from None
        run.finish()
        if not run.interrupted:
            with contextlib.suppress(OSError):  # the next run has begun there
                os.rmdir(run.folder)
    return Result(g, metrics, not run.interrupted, source.warnings)


def _check(out: Path, s: Splat) -> None:
    if out.suffix.lower() != ".ply":
        raise InputError(f"--out {out}: expected a name that ends in .ply")
    for name, low in (("steps", 1), ("size", image.MIN_SIDE), ("points", 2), ("max_count", 2), ("checkpoint_every", 1)):
        if getattr(s, name) < low:
            raise InputError(f"--{name.replace('_', '-')} {getattr(s, name)}: expected a whole number of at least {low}")
    if not 0 <= s.degree <= harmonics.DEGREE or not 0 <= s.ssim_weight <= 1:
        raise InputError(f"--degree {s.degree} --ssim-weight {s.ssim_weight}: expected a degree from 0 to 3 and a weight from 0 to 1")


def begin(scene: Scene, s: Splat, seed: int) -> Gaussians:
    """The reconstruction's points; or random ones in the cube that the cameras look into."""
    if s.start == "points" or (s.start == "auto" and len(scene.points)):
        if not len(scene.points):
            raise InputError("--start points: the scene has none; use --start random")
        return _narrowed(Gaussians.from_points(scene.points, scene.colours), s)
    centre, radius = looked_at(torch.cat([c.c2w for c in scene.cameras]))
    g = Gaussians.from_box(s.points, 0.5 * radius, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        g.means.add_(centre.float())
    return _narrowed(g, s)


def _narrowed(g: Gaussians, s: Splat) -> Gaussians:
    """As the strategy wants them to begin."""
    if s.strategy == "mcmc":
        opacity, width = MCMC_FIRST
        with torch.no_grad():
            g.logit_opacities.fill_(math.log(opacity / (1 - opacity)))
            g.log_scales.add_(math.log(width))
    return g


def patience(g: Gaussians, scene: Scene, s: Splat) -> str:
    """How long `fit` will take, in a sentence: a step with these Gaussians, timed; they become more, and so it is a bound from below."""
    rgba, camera = _view(scene, max(range(len(scene.held)), key=lambda i: math.prod(scene.cameras[i].size)), 1)
    took = []
    for _ in range(2):  # the first compiles
        began = time.monotonic()
        rgb = g.draw(camera, background=torch.zeros(3), antialiased=s.antialiased).rgb
        torch.autograd.grad((rgb - rgba[..., :3]).abs().mean() + ssim(rgb, rgba[None, ..., :3]), g.means)
        took.append(time.monotonic() - began)
    minutes, (h, w) = min(took) * s.steps / 60, camera.size
    long = f"{minutes / 60:.1f} hours" if minutes > 90 else f"{minutes:.0f} minutes" if minutes > 1.5 else "a minute"
    return f"{s.steps} steps on pictures of up to {w} x {h} pixels will take {long} at least; a smaller --size or fewer --steps take less"


def fit(g: Gaussians, scene: Scene, s: Splat, seed: int, run: Run) -> Gaussians:
    """The optimisation, one picture a step."""
    scale = s.steps / PUBLISHED
    train = [i for i, held in enumerate(scene.held) if not held]
    extent = scene_extent(Camera(torch.cat([scene.cameras[i].c2w for i in train]), torch.cat([scene.cameras[i].K for i in train]), (1, 1)))
    schedule = replace(DensifySchedule().scaled(scale), max_count=s.max_count, do=s.grow)
    mcmc = replace(schedule, stop=round(25_000 * scale))
    strategy: Strategy = Densify(schedule, extent) if s.strategy == "densify" else Mcmc(mcmc, extent)
    shape = Growing(g, strategy, extent, degree=s.degree, antialiased=s.antialiased, is_isotropic=s.is_isotropic)
    terms = [photographs(shape, scene, train, s, seed), own({"regulariser": 1.0})]
    optimise(shape, terms, run, "fit", steps=s.steps, seed=seed + 1, every=s.checkpoint_every)
    return shape.gaussians


def photographs(shape: Growing, scene: Scene, train: list[int], s: Splat, seed: int) -> Term:
    """One picture of the scene a step, coarse at first: losses `l1` and `ssim` (1 - SSIM)."""
    scale = s.steps / PUBLISHED

    def term(_: Shape, step: Step) -> dict[str, Loss]:
        k, done = step.number, step.number + 1
        shrink = 4 if done <= 250 * scale else 2 if done <= 500 * scale else 1
        rgba, camera = _view(scene, train[order_of(len(train), k // len(train), seed)[k % len(train)]], shrink)
        background = torch.rand(3, generator=step.generator) if scene.has_alpha else torch.zeros(3)
        drawn, target = shape.draw(camera, background)[None], over(rgba, background)[None]
        return {
            "l1": Loss(1 - s.ssim_weight, (drawn - target).abs().mean()),
            "ssim": Loss(s.ssim_weight, 1 - ssim(drawn, target)),
        }

    return term


def _view(scene: Scene, index: int, shrink: int) -> tuple[Tensor, Camera]:
    """Pixels (H, W, 4) premultiplied, and the camera; `shrink` times smaller, means of areas."""
    p = scene.pictures[index].float() / 255
    alpha = p[..., 3:] if p.shape[2] == 4 else torch.ones_like(p[..., :1])
    rgba, camera = torch.cat([p[..., :3] * alpha, alpha], -1), scene.cameras[index]
    if shrink > 1:
        h, w = (max(16, -(-x // shrink)) for x in camera.size)
        rgba = F.interpolate(rgba.permute(2, 0, 1)[None], (h, w), mode="area")[0].permute(1, 2, 0)
        camera = camera.resized((h, w))
    return rgba, camera


def over(rgba: Tensor, background: Tensor) -> Tensor:
    """(H, W, 3): premultiplied pixels (H, W, 4) over a colour (3,)."""
    return rgba[..., :3] + (1 - rgba[..., 3:]) * background


def measure(g: Gaussians, scene: Scene, s: Splat, *, background: tuple[float, float, float] | None = None) -> dict[str, Any]:
    """Mean PSNR (dB) and SSIM of the held-back pictures, over a background where they are transparent: white if none is given."""
    psnr, similarity = [], []
    behind = torch.tensor(background) if background else torch.full((3,), 1.0 if scene.has_alpha else 0.0)
    for i, held in enumerate(scene.held):
        if held:
            rgba, camera = _view(scene, i, 1)
            with torch.no_grad():
                rgb = g.draw(camera, background=behind, antialiased=s.antialiased).rgb.clamp(0, 1)
            target = over(rgba, behind)[None]
            psnr.append(-10 * math.log10(max(float((rgb - target).square().mean()), 1e-10)))
            similarity.append(float(ssim(rgb, target)))
    n = len(psnr)
    return {"held_back": n, "psnr": round(sum(psnr) / n, 3), "ssim": round(sum(similarity) / n, 4)}


def orbit_video(g: Gaussians, scene: Scene, s: Splat, frames: int = 36, size: int = 256) -> bytes:
    """An animated WebP: once round what the cameras look at, as high above it and as far away as they are in the mean."""
    c2w = torch.cat([c.c2w for c in scene.cameras])
    centre, radius = looked_at(c2w)
    up = F.normalize(c2w[:, :, 1].mean(0), dim=0)
    height = float(((c2w[:, :, 3] - centre) @ up).mean())
    across = F.normalize(torch.linalg.cross(up, c2w[0, :, 2]), dim=0)
    ahead, flat = torch.linalg.cross(across, up), math.sqrt(max(radius**2 - height**2, (0.2 * radius) ** 2))
    camera, pictures = scene.cameras[0], []
    zoom = size / max(camera.size)
    for k in range(frames):
        a = 2 * math.pi * k / frames
        back = flat * (math.cos(a) * ahead + math.sin(a) * across) + height * up
        b = F.normalize(back, dim=0)
        right = F.normalize(torch.linalg.cross(up, b), dim=0)
        pose = torch.stack([right, torch.linalg.cross(b, right), b, centre + back], -1)[None]
        view = Camera(pose, camera.K, camera.size).resized((round(camera.size[0] * zoom), round(camera.size[1] * zoom)))
        with torch.no_grad():
            rgb = g.draw(view, background=torch.full((3,), 0.93 if scene.has_alpha else 0.0), antialiased=s.antialiased).rgb[0]
        pictures.append(rgb)
    return animation(pictures)
