# SPDX-License-Identifier: Apache-2.0
"""A text-to-image prior learns one object from a few pictures: `bozzetto learn`. DreamBooth (arXiv:2208.12242), `distill.dreambooth`; or
textual inversion (arXiv:2208.01618), `priors.inversion`, which learns a word and has the second stage alone.

Stages: the prior as it is draws pictures of the class, which it shall go on to draw so; then it learns both,
step by step. All of it goes on after a kill, to the same weights.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bozzetto import __version__, image
from bozzetto.brief import brief
from bozzetto.distill.dreambooth import DreamBooth, Examples, Rule
from bozzetto.errors import InputError
from bozzetto.fit.drawings import Drawing, sample_views
from bozzetto.fit.run import Progress, Run, check_device, check_writable
from bozzetto.fit.source import Source
from bozzetto.fit.teaching import examples_of, taught
from bozzetto.priors import learnt, loading, lora
from bozzetto.priors.inversion import LR, Inversion
from bozzetto.priors.lora import LoRA
from bozzetto.priors.text2image import TextToImage
from bozzetto.priors.tuned import Tuned, unfrozen
from bozzetto.verbs.batch import pictures_in
from bozzetto.verbs.settings import LearnSettings

IDENTIFIER = "sks"  # the paper's [V], as its reimplementations write it: a token that means nothing yet
LOW_RANK, ALL = 1e-4, 5e-6  # learning rates for Stable Diffusion: of LoRA, and of the paper
SMALL = 10  # times as much for the embedded prior, which learns little at Stable Diffusion's rate (docs/learn.md)
CHUNK = 8  # pictures of the class a stage
THING = "object"  # what a word begins as, where nobody says it


@brief
@dataclass(frozen=True)
class Encoded:
    """x0 (N, C, h, w) of pictures."""

    x0: Tensor


def learn(
    text: str,
    pictures: Sequence[str | Path],
    out: str | Path,
    how: LearnSettings = LearnSettings(),
    *,
    prior: str | Path = "mini",
    towers: Path | None = None,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "auto",
    resume: bool = False,
    progress: Progress | None = None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> bool:
    """Teach a prior what a text means; `out` is then a folder for --prior, of what was learnt alone (`priors.learnt`).

    text      such as "a sks chair": the class, and a word that means nothing yet
    pictures  files, or folders of them
    towers    folder of the text tower, where `prior` is not embedded (`loading.load`)
    precision what frozen networks compute in; `auto` is bf16 on CUDA, whose range gradients need, and fp32 elsewhere
    warn      gets a sentence for what is passed over
    returns   whether it is complete: Ctrl-C ends it early, and `resume` goes on
    raises    InputError, before anything is written, for texts, pictures, settings, a prior or a folder that cannot be used
    """
    out = Path(out)
    is_word = how.method == "textual-inversion"
    class_text = _class_text(text, how)
    files = [f for given in map(Path, pictures) for f in (pictures_in(given, warn) if given.is_dir() else [given])]
    if not files:
        raise InputError(f'no pictures given; try: bozzetto learn "{text}" PICTURES/ --out learnt')
    check_device(device)
    _check_free(out, resume)
    precision = "bf16" if precision == "auto" and device.startswith("cuda") else precision
    drawer = loading.load_as(TextToImage, prior, role="text", text=towers, dtype=loading.dtype_on(device, precision), device=device)
    for said in (text, class_text):
        if said and (excess := drawer.excess(said)):
            raise InputError(f"the text is {excess} tokens longer than this prior reads; say it in fewer words")
    shown = torch.stack([_shown(f, drawer, how.whole, warn) for f in files])
    base = _named(prior)
    about = {"text": text, **vars(how), "class_text": class_text, "seed": seed, "device": torch.device(device).type, "precision": precision}
    record: dict[str, Any] = {"base": base, "base_kind": loading.TEXT, "base_digest": loading.digest(prior)}
    record |= {"towers": None if towers is None else str(towers.resolve())}
    record |= {**about, "pictures": hashlib.sha256(shown.numpy().tobytes()).hexdigest()}
    if _is_done(out, record, resume):
        return True
    run = Run(out, record, resume=resume, progress=progress)
    with run.interruptible():
        generator, kept = torch.Generator().manual_seed(seed), None
        tuned: Tuned | Inversion
        if is_word:
            tuned = Inversion(drawer, _word(text), class_text or THING)
            own = examples_of(tuned, text, shown, generator=generator)
        else:
            own = Examples(drawer.encode_pictures(shown), drawer.condition(text=text))
            kept = None if class_text is None else _class(drawer, class_text, how.class_count, seed, run)
            if run.must_stop():
                return False
            tuned = unfrozen(drawer, generator=generator) if how.full else lora.adapted(drawer, LoRA(how.rank), generator=generator)
        course = DreamBooth(tuned, rule_of(how, prior))
        found = taught(course, own, kept, "learn", steps=how.steps, run=run, generator=generator)
        if run.interrupted:
            return False
        made = {"seen": len(files), "losses": found, "versions": {"bozzetto": __version__, "torch": torch.__version__}}
        try:
            learnt.save(tuned, out, {**record, **made})
        except OSError as error:
            raise InputError(f"{out}: cannot be written ({error.strerror}); free some space and go on with --resume") from None
        run.finish()
    return True


def rule_of(how: LearnSettings, prior: str | Path) -> Rule:
    """With the learning rate that suits what learns, where none is said."""
    usual = LR if how.method == "textual-inversion" else (ALL if how.full else LOW_RANK) * (SMALL if str(prior) in loading.NAMES else 1)
    return Rule(usual if how.lr is None else how.lr, how.weight, how.batch)


def _class(drawer: TextToImage, text: str, count: int, seed: int, run: Run) -> Examples:
    """What the prior draws of the class, CHUNK by CHUNK; picture k takes seed + k. Ctrl-C ends it after a chunk."""
    cond, made = drawer.condition(text=text), list[Tensor]()
    for start in range(0, count, CHUNK):

        def draw(start: int = start) -> Encoded:
            some = min(CHUNK, count - start)

            def told(stage: str, share: float) -> None:
                run.progress("class", (start + some * share) / count)

            return Encoded(drawer.encode_pictures(sample_views(drawer, lambda _: cond, some, Drawing(), seed + start, told)))

        made.append(run.stage(f"class{start}", draw, Encoded).x0)
        if run.must_stop():
            break
    return Examples(torch.cat(made), cond)


def _shown(path: Path, drawer: TextToImage, whole: bool, warn: Callable[[str], None]) -> Tensor:
    """(S, S, 3) over the prior's background, S its size: the object as a lift crops it, or the picture's middle square."""
    if not whole:
        source = Source.load(path)
        for sentence in source.warnings:
            warn(sentence)
        crop = source.crop(drawer.size)
        return crop.rgb + (1 - crop.alpha[..., None]) * drawer.background
    picture = image.load(path)
    rgb = picture.rgb
    if picture.alpha is not None:
        rgb = rgb * picture.alpha[..., None] + (1 - picture.alpha[..., None]) * drawer.background
    height, width, _ = rgb.shape
    side = min(height, width)
    return image.resample(rgb, ((width - side) / 2, (height - side) / 2, side), drawer.size).clamp(0, 1)


def _class_text(text: str, how: LearnSettings) -> str | None:
    """What the class is called; None where it is not preserved. Settings are checked here, too."""
    if not text.strip():
        raise InputError('no text given; try: bozzetto learn "a sks chair" PICTURES/ --out learnt')
    limits = {"--steps": (how.steps, 1, 1_000_000), "--class-count": (how.class_count, 0, 10_000), "--batch": (how.batch, 1, 1024)}
    limits["--rank"] = (how.rank, 1, 1024)
    for flag, (value, low, high) in limits.items():
        if not low <= value <= high:
            raise InputError(f"{flag} {value}: expected a whole number from {low} to {high}")
    for flag, number in (("--lr", how.lr or 0.0), ("--weight", how.weight)):
        if not 0 <= number < float("inf"):
            raise InputError(f"{flag} {number}: expected a finite number, 0 or more")
    if how.method == "textual-inversion":
        _word(text)
        return how.class_text
    if not how.class_count or not how.weight:
        return None
    if how.class_text is not None:
        return how.class_text
    words = text.split()
    others = [word for word in words if word != IDENTIFIER]
    if others == words or not others:
        raise InputError(
            f'"{text}": say what kind of thing it is with --class-text, such as "a chair", or name it by the word {IDENTIFIER}; '
            "--class-count 0 does without"
        )
    return " ".join(others)


def _word(text: str) -> str:
    """The one in angle brackets."""
    if len(found := re.findall(r"<[^<>\s]+>", text)) != 1:
        raise InputError(f'"{text}": write the word that is to be learnt in angle brackets, once, such as "a <mine>"')
    return str(found[0])


def _check_free(out: Path, resume: bool) -> None:
    """raises InputError where the folder holds something that is no run, or a finished one that would be written over"""
    check_writable(out)
    there = {f.name for f in out.iterdir()} if out.is_dir() else set()
    if there and ".run" not in there and not (resume and learnt.RECORD in there):
        raise InputError(f"{out}: is there already; choose another --out, or remove it first")


def _is_done(out: Path, record: dict[str, Any], resume: bool) -> bool:
    """Whether the folder holds the same, complete; raises InputError where it holds another, complete."""
    if not resume or (out / ".run").exists():
        return False
    try:
        found = json.loads((out / learnt.RECORD).read_text())
    except (OSError, ValueError):
        return False
    if any(found.get(k) != v for k, v in json.loads(json.dumps(record)).items()):
        raise InputError(f"{out}: is complete, and was learnt otherwise; choose another --out")
    return True


def _named(prior: str | Path) -> str:
    """The base as a record says it: its path in full, or its name where it is no folder here."""
    return str(Path(prior).resolve()) if Path(prior).is_dir() else str(prior)
