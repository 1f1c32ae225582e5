# SPDX-License-Identifier: Apache-2.0
"""A model learns from pictures in a stage of a run, which goes on after a kill, to the same weights: of `bozzetto learn`, and the stage
`invert` of a recipe, in which a text prior learns a word from the picture (`priors.inversion`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from bozzetto.distill.dreambooth import DreamBooth, Examples, Rule
from bozzetto.errors import InputError
from bozzetto.fit.packing import below
from bozzetto.fit.recipe import Job
from bozzetto.fit.run import Run
from bozzetto.priors.inversion import LR, TEXTS, Inversion, knowing, varied
from bozzetto.priors.text2image import TextToImage

S = TypeVar("S")
EVERY = 50  # steps between two checkpoints
VARIED = 32  # pictures that a word is learnt from
WORD = "<picture>"  # of the stage `invert`


def taught(
    course: DreamBooth, own: Examples, kept: Examples | None, stage: str, *, steps: int, run: Run, generator: torch.Generator
) -> dict[str, float]:
    """The course takes its steps; returns the losses, averaged over about the last EVERY of them. Ctrl-C ends it early."""
    number, mean = 0, dict[str, float]()

    def keep() -> None:
        flat = {f"course.{k}": v for k, v in course.state().items()}
        flat |= {f"mean.{k}": torch.tensor(v, dtype=torch.float64) for k, v in mean.items()}
        run.checkpoint(stage, {**flat, "generator": generator.get_state(), "step": torch.tensor(number)})

    if (state := run.restore(stage)) is not None:
        number, mean = int(state["step"]), {k: float(v) for k, v in below("mean", state).items()}
        generator.set_state(state["generator"])
        course.restore(below("course", state))
    while number < steps and not run.must_stop():
        for name, value in course.step(own, kept, generator=generator).items():
            mean[name] = value + (mean.get(name, value) - value) * (1 - 1 / EVERY)
        number += 1
        if number % EVERY == 0 and number < steps:
            keep()
        run.progress(stage, number / steps)
    if run.interrupted:
        keep()
    return dict(sorted(mean.items()))


def examples_of(model: Inversion, text: str, pictures: Tensor, *, generator: torch.Generator) -> Examples:
    """What a word is learnt from: parts of pictures (N, S, S, 3), each under a text that holds `text`, which has the word."""
    x0 = model.prior.encode_pictures(varied(pictures, VARIED, generator=generator))
    told = torch.cat([model.ids(form.format(text)) for form in TEXTS])
    return Examples(x0, {"ids": told[torch.randint(len(TEXTS), (VARIED,), generator=generator)]})


@dataclass(frozen=True)
class Word:
    """row (D,)."""

    row: Tensor


def inverted(job: Job[S], steps: int) -> Job[S]:
    """Stage `invert`: the job under a word that its prior of text learns from the picture, where it begins as the job's own words.

    raises  InputError for a prior whose text tower is not CLIP's
    """
    prior: Any = job.text_prior
    if not isinstance(prior, TextToImage):
        raise InputError(
            f"--set invert={steps}: only a latent text-to-image prior learns words; give one (--prior text=FOLDER), or invert=0"
        )

    def learn() -> Word:
        draw, crop = torch.Generator().manual_seed(job.seed), job.source.crop(prior.size)
        model = Inversion(prior, WORD, job.words)
        shown = (crop.rgb + (1 - crop.alpha[..., None]) * prior.background)[None]
        own = examples_of(model, WORD, shown, generator=draw)
        taught(DreamBooth(model, Rule(LR)), own, None, "invert", steps=steps, run=job.run, generator=draw)
        return Word(model.row)

    row = job.run.stage("invert", learn, Word).row
    return replace(job, priors=replace(job.priors, text=knowing(prior, WORD, row)), text=WORD)
