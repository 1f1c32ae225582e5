# SPDX-License-Identifier: Apache-2.0
"""A signal to oneself at a moment that is the same on every machine: as the n-th file of a name appears.

All that a lift or a fit keeps is written under another name and renamed (`files.replacing`), so that a name, a number, and "before"
or "after" choose a stage, a checkpoint, or an output. Armed in the child process of a test; nothing in the package knows of it.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path


def arm(*moments: str) -> None:
    """Each moment as "kill after shape.partial 2" (SIGKILL) or "interrupt before sheet.png" (SIGINT); no number is the first."""
    replace, seen = os.replace, dict.fromkeys(moments, 0)

    def watched(source: str | Path, target: str | Path) -> None:
        def heed(now: str) -> None:
            for moment in moments:
                what, when, name, nth = [*moment.split(), "1"][:4]
                if when == now and name == Path(target).name:
                    seen[moment] += 1
                    if seen[moment] == int(nth):
                        os.kill(os.getpid(), signal.SIGKILL if what == "kill" else signal.SIGINT)

        heed("before")
        replace(source, target)
        heed("after")

    os.replace = watched  # type: ignore[assignment]


LIFT = """
import sys
from tests.killing import arm
arm(*sys.argv.pop(1).split(", "))
from bozzetto import cli
cli.main()
"""
"""`python -c LIFT "kill before asset.glb" lift ...`"""
