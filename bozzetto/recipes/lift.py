# SPDX-License-Identifier: Apache-2.0
"""From a picture's path to an asset's folder: what `bozzetto lift` does for each picture."""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch

from bozzetto import __version__
from bozzetto.errors import InputError
from bozzetto.matting import Method
from bozzetto.priors import first_guess
from bozzetto.priors.loading import MINI
from bozzetto.recipes import guess, lift_gaussians, views, zero123
from bozzetto.recipes.asset import Asset, Source
from bozzetto.recipes.run import Progress, Run, check_device, check_writable, peak_gb

RECIPES: dict[str, Any] = {"guess": guess, "views": views, "zero123": zero123}
"""modules with PRESETS, by the names of `--recipe`"""
Settings = guess.Guess | lift_gaussians.FromGaussians | views.FromViews | zero123.Zero123
"""of a recipe; their class says which"""


def presets(recipe: str, shape: Literal["mesh", "gaussians"] = "mesh") -> dict[str, Settings]:
    """A recipe's settings by the names of `--preset`; of recipe `guess`, those of the shape that it moves."""
    return (RECIPES[recipe] if shape == "mesh" else lift_gaussians).PRESETS


class AlreadyDone(Exception):
    """What `resume` is asked to finish is finished."""


def lift_picture(
    path: Path,
    out: Path,
    *,
    preset: str = "standard",
    settings: Settings | None = None,
    recipe: str = "guess",
    shape: Literal["mesh", "gaussians"] = "mesh",
    prior: Path | None = None,
    kind: str | None = None,
    mask: Path | None = None,
    matting: Method = "auto",
    azimuth: float = 0.0,
    elevation: float | None = None,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "auto",
    resume: bool = False,
    progress: Progress | None = None,
) -> Asset:
    """Lift one picture and write its asset; angles in radians.

    settings  the recipe's own, in place of the preset's: `replace(guess.PRESETS["draft"], faces=2000)`
    recipe  `guess` reads `prior` as a first guess's folder, `views` and `zero123` as that of Zero-1-to-3 or its kin, after the
            embedded guess
    shape   what the guess is moved as: `mesh` (DMTet), or `gaussians`, which also leaves a splat; the latter with recipe `guess` only
    prior   folder of weights, or None for the embedded ones
    precision  what a diffusion prior computes in (`priors.loading.dtype_on`)
    kind    what the folder's weights are, where it does not say so itself (`priors.loading.load`)
    raises  InputError, before anything is written, for a picture, mask, prior or folder that cannot be used, or a kind that the
            recipe has no use for; ValueError for another recipe or preset, or settings of another; AlreadyDone where `resume` finds
            the same asset complete
    """
    if recipe not in RECIPES:
        raise ValueError(f"recipe: expected one of {', '.join(RECIPES)}, got {recipe!r}")
    if kind is not None and recipe == "guess":
        raise InputError(f"--kind {kind}: only --recipe views and zero123 have a use for it; add one or leave it out")
    if shape != "mesh" and recipe != "guess":
        raise InputError(f"--shape {shape}: only --recipe guess can do it; leave out one of the two")
    started = time.monotonic()
    check_device(device)
    source = Source.load(path, mask, matting)
    guesses = MINI if prior is None or recipe != "guess" else prior
    folder = guesses / "first_guess" if (guesses / "first_guess").is_dir() else guesses
    network = first_guess.load(folder, device=device if recipe == "guess" else "cpu")
    if preset not in presets(recipe, shape):
        raise ValueError(f"preset: expected one of {', '.join(presets(recipe, shape))}, got {preset!r}")
    of_preset = presets(recipe, shape)[preset]
    settings = of_preset if settings is None else settings
    if type(settings) is not type(of_preset):
        raise ValueError(f"settings: expected {type(of_preset).__name__}, got {type(settings).__name__}")
    made_of = {"source": source.name, "digest": source.digest, "prior": first_guess.digest(folder)}
    if recipe != "guess":
        diffusion, made_of["diffusion_prior"] = _diffusion(prior, kind, device, precision)
        made_of |= {"kind": diffusion.kind, "precision": precision}
    check_writable(out)
    settings_record = {"recipe": recipe, "shape": shape, "preset": preset, **asdict(settings), "azimuth": azimuth, "elevation": elevation}
    record = {"generator": "bozzetto", **made_of, "seed": seed, "device": torch.device(device).type, "settings": settings_record}
    if resume and _is_done(out, record):
        raise AlreadyDone
    run = Run(out, record, resume=resume, progress=progress)
    with run.interruptible(), _reproducible(device):
        if isinstance(settings, zero123.Zero123):
            lifted = zero123.lift(source, network, diffusion, settings, run, azimuth=azimuth, elevation=elevation, seed=seed)
        elif isinstance(settings, views.FromViews):
            lifted = views.lift(source, network, diffusion, settings, run, azimuth=azimuth, elevation=elevation, seed=seed)
        elif isinstance(settings, lift_gaussians.FromGaussians):
            lifted = lift_gaussians.lift(source, network, settings, run, azimuth=azimuth, elevation=elevation, seed=seed)
        else:
            lifted = guess.lift(source, network, settings, run, azimuth=azimuth, elevation=elevation)
        peak = peak_gb()
        timings = {k: round(v, 2) for k, v in run.timings.items()}
        total, most = round(time.monotonic() - started, 2), None if peak is None else round(peak, 2)
        measured = {**lifted.measured, "seconds": timings, "total_seconds": total, "peak_gb": most}
        versions = {"bozzetto": __version__, "torch": torch.__version__}
        made_by = {**record, "versions": versions}
        asset = Asset(lifted.mesh, lifted.camera, source, made_by, measured, is_complete=not run.interrupted, files=lifted.files)
        asset.write(out)
        run.finish()
    return asset


@functools.lru_cache(maxsize=1)  # many pictures, one prior: gigabytes to read, and to hash
def _diffusion(prior: Path | None, kind: str | None, device: str, precision: str) -> tuple[Any, str]:
    """The prior (latents stay float32), and the digest of its weights."""
    from bozzetto.priors import loading
    from bozzetto.priors.zero123 import Zero123

    dtype = loading.dtype_on(device, precision)
    return loading.load_as(Zero123, prior or "mini", kind, dtype=dtype, device=device), loading.digest(prior or "mini")


def _is_done(out: Path, record: dict[str, Any]) -> bool:
    """Whether the folder holds a complete asset of this version, made of and with the same."""
    try:
        found = json.loads((out / "asset.json").read_text())
    except (OSError, ValueError):
        return False
    wanted = {**json.loads(json.dumps(record)), "complete": True}
    is_same = all(found.get(k) == v for k, v in wanted.items()) and found.get("versions", {}).get("bozzetto") == __version__
    return is_same and (out / "asset.glb").is_file() and not (out / ".run").exists()


@contextlib.contextmanager
def _reproducible(device: str) -> Iterator[None]:
    """Sums in a fixed order: on a CPU, gathers' gradients are otherwise added by whichever thread comes first.

    Some of a codec's gradients have no such form on CUDA; there the rest is ordered, and PyTorch warns.
    """
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=device != "cpu")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
