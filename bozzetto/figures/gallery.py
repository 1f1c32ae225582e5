# SPDX-License-Identifier: Apache-2.0
"""`bozzetto figures`: the notes' figures, drawn again from the package's own functions, each from fixed seeds into one folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bozzetto.errors import InputError
from bozzetto.figures import diffusion, langevin, matching, style
from bozzetto.priors.unconditional import NAMES

FIGURES: dict[str, Callable[[Any], Any]] = {
    "manifold": matching.on_a_manifold,
    "parzen": matching.parzen_windows,
    "low-density": matching.low_density,
    "signal-to-noise": langevin.signal_to_noise,
    "mode-weights": langevin.mode_weights,
    "sgld": langevin.posterior,
    "levels": diffusion.levels,
    "inpainting": diffusion.inpainting,
    "sampler-steps": diffusion.sampler_steps,
}
FULL: dict[str, Callable[[Any], Any]] = {f"sheet-{name}": partial(diffusion.sheet, name=name) for name in NAMES}


def draw_all(out: Path, *, names: tuple[str, ...] = (), is_full: bool = False) -> list[Path]:
    """Draw the named figures, or all, into a folder; returns the files.

    raises  InputError for a name that there is not, and where matplotlib is missing
    """
    known = FIGURES | FULL
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"there is no figure {unknown[0]!r}; there are {', '.join(known)}")
    plt = style.pyplot()
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for name in names or (*FIGURES, *(FULL if is_full else ())):
        started = time.monotonic()
        figure = known[name](plt)
        files.append(out / f"{name}.png")
        style.save(figure, files[-1])
        plt.close(figure)
        print(f"{files[-1]}: {time.monotonic() - started:.0f} s, {files[-1].stat().st_size / 1000:.0f} kB", flush=True)
    return files
