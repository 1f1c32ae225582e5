# SPDX-License-Identifier: Apache-2.0
"""From a picture's path to an asset's folder: what `bozzetto lift` does for each picture."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch

from bozzetto import __version__
from bozzetto.errors import InputError
from bozzetto.priors import first_guess
from bozzetto.recipes import guess
from bozzetto.recipes.asset import Asset, Source
from bozzetto.recipes.run import Progress, Run

MINI = Path(__file__).parent.parent / "priors" / "mini"
"""the embedded priors"""


def lift_picture(
    path: Path,
    out: Path,
    *,
    preset: str = "standard",
    prior: Path | None = None,
    mask: Path | None = None,
    matting: Literal["classical", "rembg"] = "classical",
    azimuth: float = 0.0,
    elevation: float | None = None,
    seed: int = 0,
    device: str = "cpu",
    resume: bool = False,
    progress: Progress | None = None,
) -> Asset:
    """Lift one picture by the recipe `guess` and write its asset; angles in radians.

    raises  InputError, before anything is written, for a picture, mask, prior or folder that cannot be used
    """
    started = time.monotonic()
    settings = guess.PRESETS[preset]
    _check_device(device)
    source = Source.load(path, mask, matting)
    folder = (prior or MINI) / "first_guess" if ((prior or MINI) / "first_guess").is_dir() else (prior or MINI)
    network = first_guess.load(folder, device=device)
    _check_writable(out)
    settings_record = {"recipe": "guess", "preset": preset, **asdict(settings), "azimuth": azimuth, "elevation": elevation}
    made_of = {"source": source.name, "digest": source.digest, "prior": first_guess.digest(folder)}
    record = {"generator": "bozzetto", **made_of, "seed": seed, "settings": settings_record}
    run = Run(out, record, resume=resume, progress=progress)
    with run.interruptible(), _reproducible():
        lifted = guess.lift(source, network, settings, run, azimuth=azimuth, elevation=elevation)
        # resource counts kilobytes on Linux
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
        timings = {k: round(v, 2) for k, v in run.timings.items()}
        measured = {**lifted.measured, "seconds": timings, "total_seconds": round(time.monotonic() - started, 2), "peak_gb": round(peak, 2)}
        versions = {"bozzetto": __version__, "torch": torch.__version__}
        asset = Asset(lifted.mesh, lifted.camera, source, {**record, "versions": versions}, measured, is_complete=not run.interrupted)
        asset.write(out)
        run.finish()
    return asset


@contextlib.contextmanager
def _reproducible() -> Iterator[None]:
    """Sums in a fixed order: on a CPU, gathers' gradients are otherwise added by whichever thread comes first."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _check_device(device: str) -> None:
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError):  # torch built without it says so by an assertion
        raise InputError(f"--device {device}: this machine has none that torch can use; bozzetto doctor says which there are") from None


def _check_writable(out: Path) -> None:
    """Before the slow work: the folder can be made and written, and is no file."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give a folder to --out")
    parent = out
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"{out}: cannot be written; choose another --out")
