# SPDX-License-Identifier: Apache-2.0
"""`python -m bozzetto.evaluate.elevation`: how far off is each way to tell how high a picture was taken from?

Objects that nobody trained on (`lifting.chosen`), one picture each. The first guess's network says an elevation with the shape;
`priors.elevation` has two more ways, which ask a view-conditioned prior: re-projection of what it draws beside the picture
(One-2-3-45), and the likelihood of the first guess, drawn from its sides and from behind as if the picture had been taken from each
of CANDIDATES. The second is also mixed with the first guess, as a likelihood with a prior. A constant stands beside them.
"""

from __future__ import annotations

import math
import tempfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bozzetto.evaluate import baselines
from bozzetto.evaluate.lifting import chosen
from bozzetto.evaluate.shots import ELEVATION, shoot
from bozzetto.fit.framed import Framed
from bozzetto.fit.solid import Solid
from bozzetto.fit.source import Source
from bozzetto.priors import first_guess, loading
from bozzetto.priors.elevation import DEGREE, Look, draw_nearby, estimate_from_tracks, least, misfits, tracks
from bozzetto.priors.prior import Prior

CANDIDATES = [10.0 * k for k in range(-1, 7)]  # degrees
TURNS = (90.0, 180.0, 270.0)  # degrees from the picture
SPREAD = 8.0  # degrees, of the first guess's errors on these pictures
STRENGTHS = (100.0, 1000.0, 10_000.0)  # by which misfits are multiplied to be negative log-likelihoods: not known, so tried


@dataclass(frozen=True)
class Settings:
    """Flags of the command."""

    objects: Path
    """packed objects, as `bozzetto data` writes them"""
    count: int = 12
    """objects of each group, furniture and held-out families"""
    prior: Path = Path("mini")
    steps: int = 20
    """of the sampler, for what is drawn beside the picture"""
    guidance: float = 1.0
    seed: int = 0


def candidates(guess: Solid, framed: Framed, background: float) -> list[Look]:
    """The guess as it would be drawn, for each of CANDIDATES as the picture's elevation; views by TURNS from the picture's own."""
    found = []
    for degrees in CANDIDATES:
        after = replace(guess, elevation=degrees * DEGREE)
        here = framed.leaning(guess.frustum.camera, after.frustum.camera)
        cameras = here.cameras([here.azimuth + t * DEGREE for t in TURNS], [here.elevation] * len(TURNS))
        pictures = here.hinting(after.colours)(cameras).over(background).clamp(0, 1)
        found.append((here.reference(background), cameras, pictures))
    return found


def mixed(guess: float, costs: Tensor, strength: float) -> float:
    """The elevation of least strength * cost + (elevation - guess)^2 / (2 SPREAD^2), degrees, costs between CANDIDATES being linear."""
    fine = np.arange(CANDIDATES[0] - 10, CANDIDATES[-1] + 10.25, 0.25)
    return float(fine[(strength * np.interp(fine, CANDIDATES, costs.numpy()) + (fine - guess) ** 2 / (2 * SPREAD**2)).argmin()])


def answers(source: Source, network: first_guess.FirstGuess, prior: Prior, settings: Settings) -> dict[str, float]:
    """What each way says, degrees; nothing where the guess is empty, so that there is no shape to ask about."""
    guess = Solid.guess(source, network)
    rough = guess.surface()
    if rough is None:
        return {}
    said = math.degrees(guess.elevation)
    found = {"first guess": said, "always the middle of the range": sum(ELEVATION) / 2}
    framed = Framed.of(source, guess.frustum.camera, *rough, 128)
    generator = torch.Generator().manual_seed(settings.seed)
    with torch.no_grad():
        shown = framed.reference(prior.background).rgb
        near = draw_nearby(prior, shown, generator=generator, steps=settings.steps, guidance=settings.guidance)
    seen = estimate_from_tracks(tracks(near, prior.background), size=near.shape[1], fov=2 * math.atan(framed.width / framed.distance / 2))
    # seen round the box's centre, as the prior's pictures are; the others round the crop's
    found["re-projection of drawn neighbours"] = math.degrees(seen.elevation - framed.elevation) + said
    costs = misfits(prior, candidates(guess, framed, prior.background), generator=generator)
    found["likelihood of the guess's sides and back"] = least(CANDIDATES, costs)
    for strength in STRENGTHS:
        found[f"the same and the first guess, strength {strength:.0f}"] = mixed(said, costs, strength)
    return found


def evaluate(settings: Settings) -> str:
    """Ask every way about every object; the table in Markdown."""
    network, prior = first_guess.load(loading.MINI / "first_guess"), loading.load(settings.prior)
    errors: dict[str, list[float]] = {}
    picked = chosen(settings.objects, settings.count)
    for _, name, source, key in picked:
        shot = shoot(baselines.load(settings.objects, key), np.random.default_rng([0, zlib.crc32(source.encode())]))
        with tempfile.TemporaryDirectory(prefix="bozzetto-elevation-") as work:
            path = Path(work) / "picture.png"
            Image.fromarray(shot.picture).save(path)
            said = answers(Source.load(path), network, prior, settings)
        for way, degrees in said.items():
            errors.setdefault(way, []).append(degrees - math.degrees(shot.elevation))
        print(f"{name}, {math.degrees(shot.elevation):.0f}: " + ", ".join(f"{way} {d:.0f}" for way, d in said.items()), flush=True)
    answered = len(next(iter(errors.values()), []))
    head = (
        f"| elevation, {answered} of {len(picked)} objects | error, degrees: median | mean | signed mean |\n| --- | ---: | ---: | ---: |\n"
    )
    return head + "\n".join(_row(way, np.array(x)) for way, x in errors.items())


def _row(way: str, x: np.ndarray) -> str:
    return f"| {way} | {np.median(np.abs(x)):.1f} | {np.abs(x).mean():.1f} | {x.mean():+.1f} |"


if __name__ == "__main__":
    import tyro

    print(evaluate(tyro.cli(Settings)))
