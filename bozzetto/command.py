# SPDX-License-Identifier: Apache-2.0
"""The command line as one of the verbs' flags (`flags`): `parsed`. A mistake is a sentence, with the nearest flag or verb that
there is; what types do not say is checked by the functions below."""

from __future__ import annotations

import difflib
import io
import math
import os
import sys
from contextlib import redirect_stderr
from pathlib import Path
from typing import Annotated, Any, get_args

import tyro

from bozzetto import flags
from bozzetto.errors import InputError

RECIPES = tuple(sorted(p.stem.replace("_", "-") for p in (Path(__file__).parent / "recipes").glob("[a-z]*.py")))  # none is imported

Verb = (
    Annotated[flags.Lift, tyro.conf.subcommand("lift")]
    | Annotated[flags.Settings, tyro.conf.subcommand("settings")]
    | Annotated[flags.Splat, tyro.conf.subcommand("splat")]
    | Annotated[flags.Mesh, tyro.conf.subcommand("mesh")]
    | Annotated[flags.Reconstruct, tyro.conf.subcommand("reconstruct")]
    | Annotated[flags.Shape, tyro.conf.subcommand("shape")]
    | Annotated[flags.View, tyro.conf.subcommand("view")]
    | Annotated[flags.Views, tyro.conf.subcommand("views")]
    | Annotated[flags.Draw, tyro.conf.subcommand("draw")]
    | Annotated[flags.Edit, tyro.conf.subcommand("edit")]
    | Annotated[flags.Learn, tyro.conf.subcommand("learn")]
    | Annotated[flags.Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[flags.Data, tyro.conf.subcommand("data")]
    | Annotated[flags.Convert, tyro.conf.subcommand("convert")]
    | Annotated[flags.Fetch, tyro.conf.subcommand("fetch")]
    | Annotated[flags.Figures, tyro.conf.subcommand("figures")]
    | Annotated[flags.Claims, tyro.conf.subcommand("claims")]
    | Annotated[flags.Doctor, tyro.conf.subcommand("doctor")]
)


def parsed() -> Any:
    """The command line as one of `Verb`. What tyro puts into a box of many lines becomes a sentence; help stays as it is."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(
                Verb, prog="bozzetto", description="One picture in, a textured 3D model out.", config=(tyro.conf.FlagCreatePairsOff,)
            )
    except BrokenPipeError:  # of `bozzetto lift --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except SystemExit:
        if said.getvalue():
            print(f"error: {_sentence(said.getvalue())}", file=sys.stderr)
        raise


def _sentence(box: str) -> str:
    """The first part of tyro's box below its title, the nearest flag that it found or the nearest verb, and where to read on."""
    parts: list[list[str]] = [[]]
    for line in (line.strip("│╰╯ ") for line in box.strip().splitlines()[1:]):
        if set(line) <= {"─", "-"}:  # a rule; of hyphens where the terminal knows no more
            parts.append([])
        else:
            parts[-1].append(line)
    parts = [part for part in parts if part]
    head = " ".join(parts[0]).rstrip(".").replace(". Expected", ", expected")
    meant = [line.split()[0] for part in parts[1:] for line in part if line.startswith("--")]
    if not meant and sys.argv[1:]:
        meant = difflib.get_close_matches(sys.argv[1], [verb.__origin__.__name__.lower() for verb in get_args(Verb)], 1)
    is_unknown = head.startswith("Unrecognized") and meant
    return f"{head[0].lower()}{head[1:]}; " + (f"did you mean {meant[0]}?" if is_unknown else "see bozzetto --help")


def check_seed(seed: int, bits: int = 63) -> None:
    """raises InputError for one that is too large or negative"""
    if not 0 <= seed < 2**bits:
        raise InputError(f"--seed {seed}: expected a whole number from 0 to 2^{bits} - 1")


def check_finite(args: Any, *names: str) -> None:
    """raises InputError where one of these flags is not a finite number"""
    for name in names:
        if (value := getattr(args, name)) is not None and not math.isfinite(value):
            raise InputError(f"--{name.replace('_', '-')} {value}: expected a finite number")


def check_degrees(args: Any, limit: int, *names: str) -> None:
    """raises InputError where one of these flags is an angle beyond the limit, or none at all"""
    for name in names:
        if (value := getattr(args, name)) is not None and not abs(value) <= limit:
            raise InputError(f"--{name.replace('_', '-')} {value}: expected a number from -{limit} to {limit}")


def check_recipe(name: str) -> None:
    """raises InputError for one that is not there"""
    if name not in RECIPES:
        near = difflib.get_close_matches(name.lower(), RECIPES, 1)
        there = f"did you mean {near[0]}?" if near else f"there are {', '.join(RECIPES)}"
        raise InputError(f"--recipe {name}: there is no such recipe; {there}")


def say(line: object) -> None:
    """To standard output, at once. Where nothing can be written there, one sentence says so and what follows is dropped: the files
    count."""
    try:
        print(line, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise InputError(f"standard output cannot be written ({error.strerror}); what was to be made is there: {line}") from None


def warn(sentence: str) -> None:
    """To standard error."""
    print(f"warning: {sentence}", file=sys.stderr)
