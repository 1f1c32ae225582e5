# SPDX-License-Identifier: Apache-2.0
"""InstructPix2Pix's own pairs (Brooks, Holynski & Efros 2022, arXiv:2211.09800, Sec. 3.1): drawn by a text-to-image model, held together
by Prompt-to-Prompt, and sifted by CLIP.

1. triples  caption, instruction, edited caption: by the grammar, or a file of `prompt` and `completion` lines that a language model wrote
2. draw     `tries` pairs of each: one noise for both texts, a share p of the steps with the source's attention, p even in [.1, .9], a
            scale of guidance even in `guidance`; all of them the seed's
3. sift     four similarities of CLIP: of both pictures, of each picture and its caption, and how far the pictures changed as the captions
            did (directional); a pair that has less than a threshold in any is refused, and the best `keep` by the last one stay

The paper's thresholds are those of CLIP ViT-L/14. With `--like FOLDER` they are found anew for another CLIP: what SHARE of true pairs,
rendered by `training.pairs`, has less is refused. The released generator copies self-attention; `own` is its share, of p.

`python -m bozzetto.training.drawn_pairs --out FOLDER` writes the chunks that `training.instruct` reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bozzetto.data.captions import COLOURS
from bozzetto.data.instructions import ASKS, KINDS, Triple, parsed, triple, write_lines
from bozzetto.errors import InputError
from bozzetto.priors import loading
from bozzetto.priors.clip import Clip
from bozzetto.priors.latent import resized
from bozzetto.priors.prompt_to_prompt import Control, prompt_to_prompt, refined
from bozzetto.priors.text2image import TextToImage
from bozzetto.training.album import SIZE
from bozzetto.training.pairs import CHUNK, Pairs

SHARE = 0.1  # of true pairs that a threshold found anew refuses
NOUNS = (
    "armchair",
    "bed",
    "boat",
    "bookcase",
    "bottle",
    "box",
    "car",
    "chair",
    "cup",
    "desk",
    "lamp",
    "mug",
    "sofa",
    "stool",
    "table",
    "vase",
)


class Sieve(NamedTuple):
    """Least similarities, each met by what is as much: of the pictures, of a picture and its caption, of the changes."""

    pictures: float = 0.75
    captions: float = 0.2
    direction: float = 0.2

    @classmethod
    def like(cls, scores: Tensor) -> Sieve:
        """Of similarities (N, 4) of pairs that are true: what SHARE of them has less than."""
        low = scores.double().quantile(SHARE, 0).tolist()
        return cls(low[0], min(low[1:3]), low[3])

    def kept(self, scores: Tensor, most: int) -> list[int]:
        """Which of similarities (N, 4) pass, the best by direction first, at most so many."""
        least = scores.new_tensor([self.pictures, self.captions, self.captions, self.direction])
        passed = (scores >= least).all(1).nonzero()[:, 0].tolist()
        return sorted(passed, key=lambda k: -float(scores[k, 3]))[:most]


def similarities(clip: Clip, before: Tensor, after: Tensor, said: list[Triple]) -> Tensor:
    """(N, 4) of pictures (N, H, W, 3) in [0, 1]: both pictures; before and its caption; after and its; directional."""
    shown, made = clip.shown(before), clip.shown(after)
    captions, edited = clip.told([t.caption for t in said]), clip.told([t.edited for t in said])
    turned = torch.nn.functional.cosine_similarity(made - shown, edited - captions, dim=-1)
    return torch.stack([(shown * made).sum(1), (shown * captions).sum(1), (made * edited).sum(1), turned], 1)


@dataclass(frozen=True)
class Settings:
    """`python -m bozzetto.training.drawn_pairs --out FOLDER`"""

    out: Path
    """the folder of pairs; chunks that are there are kept"""
    lines: Path | None = None
    """triples, JSON lines of prompt and completion; without it the grammar's, which are written to OUT/triples.jsonl"""
    count: int = 640
    """of the grammar's triples"""
    prior: str = "mini"
    """a text-to-image model: embedded, fetched, or a folder"""
    clip: str = "mini"
    """who sifts: the embedded towers, or a folder of CLIP's"""
    like: Path | None = None
    """rendered pairs, by which the thresholds are found anew; without them the paper's"""
    no_sieve: bool = False
    """keep the first of each triple's pairs, whatever CLIP says: what the sieve is worth"""
    tries: int = 8
    """pairs of a triple; the paper's are 100"""
    keep: int = 4
    """of them, at most"""
    steps: int = 20
    """of the sampler; the paper's are 100"""
    guidance: tuple[float, float] = (7.5, 15.0)
    """its scale is drawn between these"""
    own: float = 1.0
    """share of p for which self-attention is copied, too"""
    seed: int = 0


def drawn(prior: TextToImage, said: Triple, settings: Settings, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """`tries` pairs of pictures (S, S, 3) of a triple; pair k depends on seed and k alone."""
    words = refined(prior, said.caption, said.edited)
    for k in range(settings.tries):
        rng, generator = np.random.default_rng([seed, k]), torch.Generator().manual_seed(1000 * seed + k)
        p, scale = float(rng.uniform(0.1, 0.9)), float(rng.uniform(*settings.guidance))
        control = Control(words, cross=p, own=settings.own * p)
        yield prompt_to_prompt(prior, said.caption, said.edited, control, steps=settings.steps, guidance=scale, generator=generator)


def read_lines(path: Path) -> list[Triple]:
    """Triples that were written by `instructions.write_lines`, or so by others.

    raises  InputError for a line that is none, by its number
    """
    made = []
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a file of JSON lines with prompt and completion") from None
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            found = parsed(row["prompt"].removesuffix(ASKS), row["completion"])
        except (ValueError, KeyError, TypeError, AttributeError):
            found = None
        if found is None:
            raise InputError(f"{path}: line {number} is no triple; it needs a prompt and a completion, as bozzetto.data.instructions says")
        made.append(found)
    return made


def by_grammar(count: int, seed: int) -> list[Triple]:
    """So many triples of all kinds, over captions of one colour and a noun."""
    rng, made = np.random.default_rng([seed, 88]), []
    for k in range(count):
        noun, colour = str(rng.choice(NOUNS)), str(rng.choice(list(COLOURS)))
        made.append(triple(KINDS[k % len(KINDS)], noun, [colour], rng, NOUNS))
    return made


def main(settings: Settings) -> None:
    """Draw the chunks that are missing, each of CHUNK triples."""
    low, high = settings.guidance
    if min(settings.tries, settings.keep, settings.steps, settings.count) < 1 or not low <= high:
        raise InputError("--tries, --keep, --steps, --count: expected at least 1; --guidance LOW HIGH: expected LOW not above HIGH")
    said = by_grammar(settings.count, settings.seed) if settings.lines is None else read_lines(settings.lines)
    prior, clip, sieve = loading.load_as(TextToImage, settings.prior, role="text"), Clip.read(settings.clip), Sieve()
    settings.out.mkdir(parents=True, exist_ok=True)
    write_lines(said, settings.out / "triples.jsonl")
    if settings.like is not None:
        true = Pairs.of(settings.like)
        sieve = Sieve.like(similarities(clip, true.before.float() / 255, true.after.float() / 255, true.said))
        print("thresholds like true pairs' " + "  ".join(f"{n} {v:.3f}" for n, v in sieve._asdict().items()), flush=True)
    for c, first in enumerate(range(0, len(said), CHUNK)):
        path = settings.out / f"pairs_{c:04d}.safetensors"
        if not path.exists():
            made = chunk(prior, clip, sieve, said[first : first + CHUNK], settings, first)
            made.save(path)
            tried = settings.tries * len(said[first : first + CHUNK])
            print(f"{path.name}: {len(made.said)} of {tried} pairs", flush=True)


def chunk(prior: TextToImage, clip: Clip, sieve: Sieve, said: list[Triple], settings: Settings, first: int) -> Pairs:
    """What is kept of some triples' pairs, at SIZE pixels; a drawn pair may change anywhere, so that its mask is full."""
    befores, afters, kept = [torch.zeros(0, SIZE, SIZE, 3)], [torch.zeros(0, SIZE, SIZE, 3)], list[Triple]()
    for j, t in enumerate(said):
        before, after = (torch.stack(x) for x in zip(*drawn(prior, t, settings, settings.seed + first + j), strict=True))
        if settings.no_sieve:
            which = list(range(min(settings.keep, len(before))))
        else:
            which = sieve.kept(similarities(clip, before, after, [t] * len(before)), settings.keep)
        befores.append(resized(before[which].clamp(0, 1), SIZE))
        afters.append(resized(after[which].clamp(0, 1), SIZE))
        kept += [t] * len(which)
    pictures = [(torch.cat(x) * 255).round().to(torch.uint8) for x in (befores, afters)]
    mask = torch.full(pictures[0].shape[:3], 255, dtype=torch.uint8)
    return Pairs(pictures[0], pictures[1], mask, kept, [settings.prior] * len(kept), "drawn")


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings))
