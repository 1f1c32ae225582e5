# SPDX-License-Identifier: Apache-2.0
"""`NoiseSchedule`: how noise was added in training, as a diffusers folder says it (`scheduler/scheduler_config.json`).

Only what decides the noise levels is kept; which sampler the folder names is the sampler's business. A missing key is refused
where the defaults differ from one scheduler class to the next, since a wrong one changes every level.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from bozzetto.diffusion.schedules import alpha_bar, cosine_betas, linear_betas, scaled_linear_betas, zero_terminal_snr
from bozzetto.errors import InputError
from bozzetto.priors.components import read_json

PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}  # diffusers' names to `VPDenoiser`'s
SHAPES = ("linear", "scaled_linear", "squaredcos_cap_v2")
KEYS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")


@dataclass(frozen=True)
class NoiseSchedule:
    """steps of noising; beta between start and end, "linear" or "scaled_linear" (linear in its root); what is predicted.

    shape        also "squaredcos_cap_v2": the cosine schedule, which start and end say nothing about
    is_rescaled  shifted so that the last step is noise alone (Lin et al. 2023, arXiv:2305.08891, Alg. 1)
    """

    start: float = 0.00085
    end: float = 0.012
    shape: str = "scaled_linear"
    steps: int = 1000
    prediction: str = "eps"
    is_rescaled: bool = False

    def alpha_bar(self) -> Tensor:
        """(steps,) float64, descending, in (0, 1); the exact 0 of a rescaled schedule enters as 2**-24, as diffusers has it."""
        if self.shape == "squaredcos_cap_v2":
            betas = cosine_betas(self.steps)
        else:
            betas = (scaled_linear_betas if self.shape == "scaled_linear" else linear_betas)(self.steps, self.start, self.end)
        signal = alpha_bar(betas)
        return zero_terminal_snr(signal) if self.is_rescaled else signal

    def config(self) -> dict[str, Any]:
        """As diffusers' DDIMScheduler writes it, offset and ends as Stable Diffusion has them."""
        return {
            "_class_name": "DDIMScheduler",
            "num_train_timesteps": self.steps,
            "beta_start": self.start,
            "beta_end": self.end,
            "beta_schedule": self.shape,
            "prediction_type": {v: k for k, v in PREDICTIONS.items()}[self.prediction],
            "rescale_betas_zero_snr": self.is_rescaled,
            "clip_sample": False,
            "set_alpha_to_one": False,
            "steps_offset": 1,
        }


def read_schedule(folder: Path) -> NoiseSchedule:
    """raises InputError for a missing key, or what no `NoiseSchedule` says"""
    if not folder.is_dir():
        raise InputError(f"{folder.parent}: {folder.name}/ is missing; point to the folder that holds model_index.json and all its parts")
    path = folder / "scheduler_config.json"
    raw = read_json(path)
    missing = [k for k in KEYS if k not in raw]
    if missing:
        raise InputError(f"{path}: {missing[0]} is missing, and its default differs between schedulers; add it")
    steps, start, end, shape = (raw[k] for k in KEYS)
    prediction = str(raw.get("prediction_type", "epsilon"))  # folders older than the key: every scheduler's default
    numbers = all(isinstance(n, int | float) and not isinstance(n, bool) for n in (steps, start, end))
    if not numbers or not 0 < start <= end < 1 or not 1 <= steps <= 100_000 or int(steps) != steps:
        raise InputError(f"{path}: expected 0 < beta_start <= beta_end < 1 and whole num_train_timesteps, got {start}, {end}, {steps}")
    if shape not in SHAPES or prediction not in PREDICTIONS or raw.get("trained_betas"):
        raise InputError(
            f"{path}: only betas of {', '.join(SHAPES)} with {', '.join(PREDICTIONS)} are read, got {shape}, {prediction}"
            f"{' and trained_betas' if raw.get('trained_betas') else ''}"
        )
    rescaled = bool(raw.get("rescale_betas_zero_snr", False))
    return NoiseSchedule(float(start), float(end), shape, int(steps), PREDICTIONS[prediction], rescaled)
