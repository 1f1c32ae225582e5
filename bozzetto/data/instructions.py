# SPDX-License-Identifier: Apache-2.0
"""What InstructPix2Pix (arXiv:2211.09800) asks a language model for: a caption, an instruction, and the caption afterwards.

Here a grammar says them over the captions of `data.captions`; `data.language` asks a model. Either way they are written as the paper's
fine-tuning data were,

    caption "\\n##\\n" instruction "\\n%%\\n" edited caption "\\nEND"

up to the first mark the prompt, the rest the completion, and read back strictly: what has no marks, or changes nothing, is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from bozzetto.data.captions import COLOURS
from bozzetto.data.repaint import MATERIALS
from bozzetto.files import write_atomically

ASKS, SAYS, ENDS = "\n##\n", "\n%%\n", "\nEND"
Kind = Literal["recolour", "material", "part added", "part removed", "noun"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ADJECTIVES = {"gold": "golden", "wood": "wooden"}  # others are their own
SAID: dict[Kind, tuple[str, ...]] = {
    "recolour": ("make it {asked}", "paint it {asked}", "turn it {asked}", "change its colour to {asked}", "make the {noun} {asked}"),
    "material": ("make it out of {asked}", "turn it into {asked}", "make it {adjective}", "make the {noun} {adjective}"),
    "part added": ("put {article} {asked} ball on top", "add {article} {asked} ball", "put {article} {asked} ball on it"),
    "part removed": ("remove the ball", "take the ball away", "remove the {asked} ball"),
    "noun": ("turn it into {article} {asked}", "make it {article} {asked}", "replace the {noun} by {article} {asked}"),
}


@dataclass(frozen=True)
class Triple:
    """caption, instruction and edited caption; what is asked for (a colour, a material, a ball's colour, a noun); kind is "" where a
    language model wrote it."""

    caption: str
    instruction: str
    edited: str
    asked: str = ""
    kind: Kind | Literal[""] = ""

    @property
    def prompt(self) -> str:
        return self.caption + ASKS

    @property
    def completion(self) -> str:
        return self.instruction + SAYS + self.edited + ENDS


def triple(kind: Kind, noun: str, colours: list[str], rng: np.random.Generator, nouns: Iterable[str] = ()) -> Triple:
    """What may be said of an object of a noun that shows these colours; nothing is asked for that is there already.

    nouns   what "noun" may turn it into
    raises  ValueError where there is nothing left to ask for
    """
    offered = {"material": list(MATERIALS), "noun": sorted(set(nouns) - {noun})}.get(kind, [c for c in COLOURS if c not in colours])
    if not offered:
        raise ValueError(f"nouns: expected another than {noun!r} among them")
    asked = str(rng.choice(offered))
    adjective = ADJECTIVES.get(asked, asked)
    template = str(rng.choice(SAID[kind]))
    words = {"asked": asked, "noun": noun, "adjective": adjective, "article": _article(asked)}
    plain = " ".join([*(" and ".join(colours).split()), noun])
    ball = f"{plain} with {_article(asked)} {asked} ball on top"
    captions = {
        "recolour": (plain, f"{asked} {noun}"),
        "material": (plain, f"{adjective} {noun}"),
        "part added": (plain, ball),
        "part removed": (ball, plain),
        "noun": (plain, plain[: len(plain) - len(noun)] + asked),
    }
    before, after = (f"a photo of {_article(text)} {text}" for text in captions[kind])
    return Triple(before, template.format(**words), after, asked, kind)


def parsed(caption: str, completion: str) -> Triple | None:
    """A triple of what a language model went on to write after a caption; None where it is not one: no marks, more than one of either,
    no end, something empty or of several lines, or a caption that is as it was but for case and punctuation."""
    text, end, _ = completion.partition(ENDS)
    parts = text.split(SAYS)
    if not end or len(parts) != 2 or ASKS in text:
        return None
    instruction, edited = (part.strip() for part in parts)
    if not instruction or not edited or "\n" in instruction + edited or _bare(edited) == _bare(caption):
        return None
    return Triple(caption, instruction, edited)


def write_lines(triples: Iterable[Triple], path: Path) -> None:
    """Fine-tuning data, JSON lines of prompt and completion, as servers of language models take them."""
    lines = [json.dumps({"prompt": t.prompt, "completion": t.completion}, ensure_ascii=False) for t in triples]
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def _article(text: str) -> str:
    return "an" if text[:1] in "aeiou" else "a"


def _bare(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()
