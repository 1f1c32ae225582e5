# SPDX-License-Identifier: Apache-2.0
"""`bozzetto claims`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from bozzetto.claims import all_claims, page, runs
from bozzetto.claims.claim import Claim
from bozzetto.errors import InputError
from bozzetto.files import write_atomically
from bozzetto.fit.run import Progress


class Asked(Protocol):
    """The flags: `flags.Claims`."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def seeds(self) -> int: ...
    @property
    def out(self) -> Path: ...
    @property
    def objects(self) -> Path: ...
    @property
    def write(self) -> Path | None: ...
    @property
    def list(self) -> bool: ...


def chosen(asked: Asked) -> list[Claim]:
    """Those that are asked for; raises InputError for a name that is none, or a number of seeds below 1"""
    known = all_claims()
    for name in asked.names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise InputError(f"{name}: there is no such claim; " + (f"did you mean {near[0]}?" if near else "see bozzetto claims --list"))
    if asked.seeds < 1:
        raise InputError(f"--seeds {asked.seeds}: expected at least 1")
    return [known[name] for name in asked.names] or list(known.values())


def claims(asked: Asked, which: Sequence[Claim], progress: Progress) -> str:
    """Runs them, and returns the table; with `write`, the page of all results that the folder holds is written, too.

    raises  InputError, before the slow work, for folders that cannot be used
    """
    if asked.list:
        return "\n".join(f"{c.name}: {c.says} ({c.method}; some {c.seconds:.0f} s a seed)" for c in which)
    results = runs.run(which, asked.out, asked.seeds, asked.objects, progress)
    if asked.write is not None:
        known = list(all_claims().values())
        write_atomically(asked.write, page.page(known, {c.name: runs.there(c, asked.out) for c in known}).encode())
    return page.table(which, results)
