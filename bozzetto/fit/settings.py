# SPDX-License-Identifier: Apache-2.0
"""Settings of recipes by name: `--set mask_weight=50` changes one, `bozzetto settings` lists them.

A recipe's settings are a frozen dataclass beside the code that reads them; presets are values of it. A field's annotation
says what it may hold (`Annotated[int, Within(1, 64)]`, `Literal["one", "other"]`), the string below it what it means. A
setting of a part (`guess: Silhouette`) has a dotted name, `guess.steps`; its last word alone will do where no other setting
has it.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from bozzetto.errors import InputError

S = TypeVar("S")


@dataclass(frozen=True)
class Within:
    """In an annotation: numbers from low to high, both allowed."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Setting:
    """One that can be changed.

    name     dotted
    kind     int, float, or str for one of its choices
    within   its limits, or None: any finite number
    may_lack  whether it may be None, written `none`
    meaning  one line, or ""
    choices  the words that it may be, or none for a number
    """

    name: str
    kind: type
    within: Within | None
    may_lack: bool
    meaning: str
    choices: tuple[str, ...] = ()

    @property
    def limits(self) -> str:
        """What it may be, in words."""
        return " or ".join(self.choices) or str(self.within or "any number")

    def read(self, text: str) -> Any:
        """The value that a person wrote; raises InputError where it is none."""
        if self.may_lack and text.lower() == "none":
            return None
        if self.choices:
            if text not in self.choices:
                raise InputError(f"--set {self.name}={text}: expected {self.limits}")
            return text
        try:
            value = self.kind(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or (self.within and not self.within.low <= value <= self.within.high):
            what = "a whole number" if self.kind is int else "a number"
            limits = f" {self.within}" if self.within else ""
            raise InputError(f"--set {self.name}={text}: expected {what}{limits}{' or none' if self.may_lack else ''}")
        return value


def listed(kind: type, prefix: str = "") -> Iterator[Setting]:
    """All settings of a dataclass, parts' settings in their place."""
    hints, meanings = get_type_hints(kind, include_extras=True), _meanings(kind)
    for field in fields(kind):
        hint, marks = hints[field.name], []
        if get_origin(hint) is Annotated:
            hint, *marks = get_args(hint)
        name = prefix + field.name
        if is_dataclass(hint):
            assert isinstance(hint, type)
            yield from listed(hint, name + ".")
            continue
        if get_origin(hint) is Literal:
            yield Setting(name, str, None, False, meanings.get(field.name, ""), get_args(hint))
            continue
        may_lack = NoneType in get_args(hint)
        base = next(a for a in (get_args(hint) or (hint,)) if a is not NoneType)
        if base not in (int, float):
            raise TypeError(f"{kind.__name__}.{field.name}: expected a number, words or a dataclass of them, got {base}")
        yield Setting(name, base, next((m for m in marks if isinstance(m, Within)), None), may_lack, meanings.get(field.name, ""))


def changed(settings: S, changes: Sequence[str]) -> S:
    """Settings with some `name=value` in place of theirs; of two for one name, the later holds.

    raises  InputError for a name that is none of theirs, with the nearest, or a value that does not fit
    """
    known = {s.name: s for s in listed(type(settings))}
    tree: dict[str, Any] = {}
    for change in changes:
        name, equals, text = change.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise InputError(f"--set {change}: expected NAME=VALUE, such as {next(iter(known))}={value_of(settings, next(iter(known)))}")
        if name not in known:
            alike = [k for k in known if k.split(".")[-1] == name]
            if len(alike) != 1:
                near = alike or difflib.get_close_matches(name, known, 1, 0.0)
                raise InputError(f"--set {change}: there is no such setting; did you mean {' or '.join(near)}?")
            name = alike[0]
        *parts, last = name.split(".")
        branch = tree
        for part in parts:
            branch = branch.setdefault(part, {})
        branch[last] = known[name].read(text.strip())
    try:
        return _replaced(settings, tree)
    except ValueError as error:  # two settings that do not fit together
        raise InputError(f"--set {' '.join(changes)}: {error}") from None


def value_of(settings: Any, name: str) -> Any:
    """The value of a dotted name."""
    for part in name.split("."):
        settings = getattr(settings, part)
    return settings


def show(presets: Mapping[str, Any]) -> None:
    """Print what there is to change in some presets of one recipe: a table with a row for each setting."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("setting", *presets):
        table.add_column(column, no_wrap=True)
    table.add_column("meaning")
    for s in listed(type(next(iter(presets.values())))):
        values = [str(value_of(preset, s.name)).lower() for preset in presets.values()]
        limits = f"{s.limits}{', or none' if s.may_lack else ''}"
        table.add_row(s.name, *values, f"{s.meaning}; {limits}" if s.meaning else limits)
    Console().print(table)


def _replaced(settings: Any, tree: dict[str, Any]) -> Any:
    return replace(settings, **{k: _replaced(getattr(settings, k), v) if isinstance(v, dict) else v for k, v in tree.items()})


@cache
def _meanings(kind: type) -> dict[str, str]:
    """The strings below the fields of a dataclass, by field; those it inherits, too. Kept: its source is parsed for them."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    out = {name: meaning for base in kind.__bases__ if is_dataclass(base) for name, meaning in _meanings(base).items()}
    for above, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(above, ast.AnnAssign) and isinstance(above.target, ast.Name) and isinstance(below, ast.Expr):
            out[above.target.id] = " ".join(ast.literal_eval(below.value).split())
    return out
