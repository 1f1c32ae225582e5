# SPDX-License-Identifier: Apache-2.0
"""Prompt-to-Prompt (Hertz et al. 2022, arXiv:2208.01626): one word of a text is changed, and the rest of the picture stays.

The embedded prior draws "a red chair" and the like from some noises, and the same with another colour: from the same noise alone, and
with the source's attention. The object's outline is to stay, and the asked colour to come all the same.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from bozzetto.claims.claim import Beats, Claim, Near, Scores
from bozzetto.fit.drawings import coverage
from bozzetto.priors import load
from bozzetto.priors.prompt_to_prompt import Control, prompt_to_prompt, replaced
from bozzetto.priors.text2image import TextToImage

COLOURS = {"red": (0.8, 0.1, 0.1), "blue": (0.1, 0.2, 0.8), "green": (0.1, 0.6, 0.2), "yellow": (0.9, 0.8, 0.1)}
SWAPS = (("red", "blue"), ("blue", "yellow"), ("green", "red"), ("yellow", "green"))
THINGS = ("chair", "mug")
STEPS, GUIDANCE = 8, 4.0
METHOD, AGAIN, OTHER, DEAF = "Prompt-to-Prompt", "the same noise, another text", "maps of another thing", "the new word at weight 0"
CROSS = "cross-attention alone"


@lru_cache(maxsize=4)
def pairs(seed: int) -> dict[str, list[tuple[Tensor, Tensor, str]]]:
    """Source, target and the asked colour, by each way."""
    prior: Any = load("mini", "text-to-image")
    found: dict[str, list[tuple[Tensor, Tensor, str]]] = {name: [] for name in (METHOD, AGAIN, CROSS, OTHER, DEAF)}
    for k, (thing, (old, new)) in enumerate((thing, swap) for thing in THINGS for swap in SWAPS):
        source, target = f"a {old} {thing}", f"a {new} {thing}"
        words = replaced(prior, source, target)
        ways = {METHOD: Control(words, 0.8, 0.4), AGAIN: Control(words, 0.0, 0.0), OTHER: Control(words, 0.8, 0.4)}
        ways[CROSS] = Control(words, 0.8, 0.0)
        ways[DEAF] = Control(words.weighed(prior, target, new, 0.0), 1.0, 0.4)
        for name, control in ways.items():
            other = f"a {old} {THINGS[1 - THINGS.index(thing)]}" if name == OTHER else source
            first, second = _drawn(prior, other, target, control, 1000 * seed + k)
            found[name].append((found[METHOD][k][0] if name == OTHER else first, second, new))
    return found


def _drawn(prior: TextToImage, source: str, target: str, control: Control, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return prompt_to_prompt(prior, source, target, control, steps=STEPS, guidance=GUIDANCE, generator=generator)


def outlines(seed: int) -> Scores:
    """IoU of what is drawn before and after."""
    return {name: _mean([_iou(a, b) for a, b, _ in made]) for name, made in pairs(seed).items()}


def colours(seed: int) -> Scores:
    """How much nearer to the asked colour the object's is than to any other's, in rms of RGB."""
    return {name: _mean([_nearer(b, new) for _, b, new in made]) for name, made in pairs(seed).items()} | {
        "the source": _mean([_nearer(a, new) for a, _, new in pairs(seed)[AGAIN]])
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _iou(a: Tensor, b: Tensor) -> float:
    one, other = (coverage(x[None], 1.0)[0] > 0.5 for x in (a, b))
    return float((one & other).sum() / (one | other).sum().clamp(min=1))


def _nearer(picture: Tensor, asked: str) -> float:
    inside = coverage(picture[None], 1.0)[0] > 0.5
    mean = picture[inside].mean(0) if inside.any() else torch.ones(3)
    away = {name: float((mean - torch.tensor(rgb)).square().mean().sqrt()) for name, rgb in COLOURS.items()}
    return min(d for name, d in away.items() if name != asked) - away[asked]


CLAIMS = (
    Claim(
        "words-outline",
        method="Prompt-to-Prompt",
        source="arXiv:2208.01626, Sec. 3 and Fig. 2",
        says="A word is swapped, and what it does not speak of stays, where the same noise under another text gives another picture.",
        metric="IoU of the object's outline before and after another colour was asked for",
        better="higher",
        run=outlines,
        must=(Beats(METHOD, AGAIN),),
        control=Beats(METHOD, OTHER),
        seconds=90,
        remark="Eight pairs of texts a seed, by the embedded prior, 8 steps. The control follows the maps of the other thing, from "
        "the same noise. `cross-attention alone` says how much is self-attention's, whose maps are copied for the first .4 of the steps.",
    ),
    Claim(
        "words-colour",
        method="Prompt-to-Prompt",
        source="arXiv:2208.01626, Sec. 4",
        says="And the swapped word is heard: the object gets the asked colour as it does when drawn anew.",
        metric="how much nearer the object's colour is to the asked one than to the nearest other, rms of RGB",
        better="higher",
        run=colours,
        must=(Near(METHOD, AGAIN, 0.25), Beats(METHOD, "the source")),
        control=Beats(METHOD, DEAF),
        seconds=1,
        remark="Attention says where, values say what: these are the target's own from the first step.",
    ),
)
