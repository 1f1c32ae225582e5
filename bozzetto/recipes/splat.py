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
from bozzetto.camera import Camera
from bozzetto.errors import InputError
from bozzetto.files import write_atomically
from bozzetto.kernels import harmonics
from bozzetto.recipes.run import Run, Tensors
from bozzetto.recipes.scene import Scene, load
from bozzetto.render.ssim import ssim
from bozzetto.shapes.densify import MCMC_FIRST, Densify, Mcmc, Schedule, Strategy
from bozzetto.shapes.gaussians import NAMES, Gaussians, means_rate, scene_extent
from bozzetto.shapes.splat_files import spz_library, to_ply, to_splat, to_spz

PUBLISHED = 30_000  # steps that all published times are counted in
SEED_STRIDE = 1_000_003  # one order of pictures an epoch


@dataclass(frozen=True)
class Splat:
    """Settings; defaults as published unless a reason stands beside them."""

    steps: int = 7_000
    """steps of one picture each; published 30,000 (and 7,000 for a first look)"""
    size: int = 800
    """pixels of a picture's longer side at most; published 1,600: a CPU's patience"""
    strategy: Literal["densify", "mcmc"] = "densify"
    """how the number of Gaussians changes"""
    start: Literal["auto", "points", "random"] = "auto"
    """from the reconstruction's points or from random ones; auto: points where there are any"""
    points: int = 10_000
    """random points to start from; published 100,000: a CPU's patience"""
    max_count: int = 200_000
    """Gaussians at most; published without limit: a CPU's patience"""
    ssim_weight: float = 0.2
    """share of 1 - SSIM in the loss"""
    degree: int = 3
    """of the harmonics, 0 to 3; grows by one each 1,000 published steps"""
    antialiased: bool = False
    """opacities make up for the low-pass filter"""
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
    tell: Callable[[str], None] = lambda sentence: None,
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
        first = run.stage("begin", lambda: tensors_of(begin(source, settings, seed)))
        if not resume:
            tell(patience(gaussians_of(first), source, settings))
        done = run.stage("fit", lambda: fit(gaussians_of(first), source, settings, seed, run))
        g = gaussians_of(done)
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


def looked_at(c2w: Tensor) -> tuple[Tensor, float]:
    """The point (3,) nearest to all optical axes, and the mean distance of the cameras (V, 3, 4) from it."""
    p, d = c2w[:, :, 3], -c2w[:, :, 2]
    A = torch.eye(3, dtype=d.dtype) - d[:, :, None] * d[:, None]  # to the part across the axis
    centre = torch.linalg.lstsq(A.sum(0) + 1e-9 * torch.eye(3, dtype=d.dtype), (A @ p[..., None]).sum(0)).solution[:, 0]
    return centre, float((p - centre).norm(dim=-1).mean())


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


def fit(g: Gaussians, scene: Scene, s: Splat, seed: int, run: Run) -> Tensors:
    """The loop. Everything that a resumed run needs is in its checkpoints."""
    scale = s.steps / PUBLISHED
    train = [i for i, held in enumerate(scene.held) if not held]
    extent = scene_extent(Camera(torch.cat([scene.cameras[i].c2w for i in train]), torch.cat([scene.cameras[i].K for i in train]), (1, 1)))
    schedule = replace(Schedule().scaled(scale), max_count=s.max_count, do=s.grow)
    strategy: Strategy = (
        Densify(schedule, extent) if s.strategy == "densify" else Mcmc(replace(schedule, stop=round(25_000 * scale)), extent)
    )
    generator, optimiser, step = torch.Generator().manual_seed(seed + 1), g.optimiser(extent), 0
    if kept := run.restore("fit"):
        g, optimiser, step = _restored(kept, extent, strategy, generator)
    while step < s.steps and not run.must_stop():
        step += 1
        g.degree = min(s.degree, int((step - 1) / max(1, 1_000 * scale)))
        shrink = 4 if step <= 250 * scale else 2 if step <= 500 * scale else 1
        for group in optimiser.param_groups:
            if group["name"] == "means":
                group["lr"] = means_rate(step, s.steps, extent)
        rgba, camera = _view(scene, train[order_of(len(train), (step - 1) // len(train), seed)[(step - 1) % len(train)]], shrink)
        background = torch.rand(3, generator=generator) if scene.has_alpha else torch.zeros(3)
        drawn = g.draw(camera, background=background, antialiased=s.antialiased)
        if drawn.xy.requires_grad:
            drawn.xy.retain_grad()
        target = over(rgba, background)[None]
        loss = (1 - s.ssim_weight) * (drawn.rgb - target).abs().mean() + s.ssim_weight * (1 - ssim(drawn.rgb, target))
        if isinstance(strategy, Mcmc):
            loss = loss + strategy.regulariser(g)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"stage fit, step {step}: the loss is not finite")
        loss.backward()
        strategy.watch(drawn, camera.size)
        if s.is_isotropic and g.log_scales.grad is not None:  # they begin alike, and alike they stay
            g.log_scales.grad = g.log_scales.grad.mean(-1, keepdim=True).expand(-1, 3).contiguous()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        strategy.after_step(g, optimiser, step, generator=generator)
        if step % s.checkpoint_every == 0 or run.interrupted:
            run.checkpoint("fit", _checkpoint(g, optimiser, strategy, generator, step))
        run.progress("fit", step / s.steps)
    return tensors_of(g)


def order_of(n: int, epoch: int, seed: int) -> list[int]:
    """The order of the pictures in an epoch: a function of seed and epoch only."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed * SEED_STRIDE + epoch)).tolist()


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
    import io

    from PIL import Image

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
        pictures.append(Image.fromarray((rgb.clamp(0, 1) * 255).round().to(torch.uint8).numpy()))
    buffer = io.BytesIO()
    pictures[0].save(buffer, "WEBP", save_all=True, append_images=pictures[1:], duration=70, loop=0, quality=85, method=2)
    return buffer.getvalue()


def tensors_of(g: Gaussians) -> Tensors:
    """Copies of what is learnt, by name: what a stage keeps."""
    return {name: getattr(g, name).detach().clone() for name in NAMES}


def gaussians_of(t: Tensors) -> Gaussians:
    """The inverse of `tensors_of`; other names are ignored."""
    return Gaussians(*(t[name] for name in NAMES))


def _checkpoint(g: Gaussians, optimiser: torch.optim.Adam, strategy: Strategy, generator: torch.Generator, step: int) -> Tensors:
    tensors = tensors_of(g) | {f"strategy.{k}": v for k, v in strategy.state().items()}
    for group in optimiser.param_groups:
        tensors |= {f"{group['name']}.{k}": v for k, v in optimiser.state[group["params"][0]].items()}
    return tensors | {"generator": generator.get_state(), "progress": torch.tensor(step)}


def _restored(t: Tensors, extent: float, strategy: Strategy, generator: torch.Generator) -> tuple[Gaussians, torch.optim.Adam, int]:
    g = gaussians_of(t)
    optimiser = g.optimiser(extent)
    for name in NAMES:
        optimiser.state[getattr(g, name)] = {k: t[f"{name}.{k}"] for k in ("step", "exp_avg", "exp_avg_sq")}
    strategy.restore({k.removeprefix("strategy."): v for k, v in t.items() if k.startswith("strategy.")})
    generator.set_state(t["generator"])
    return g, optimiser, int(t["progress"])
