# SPDX-License-Identifier: Apache-2.0
"""The progress that the command line shows: a bar over a verb's stages, with an estimate, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Mapping


class Bar:
    """A bar with an estimate on stderr, or silence; called as `Progress`."""

    def __init__(self, title: str, quiet: bool, weights: Mapping[str, float]) -> None:
        self.title, self.quiet = title, quiet or not sys.stderr.isatty()
        self.weights = weights

    def __enter__(self) -> Bar:
        if not self.quiet:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=1.0)
        return self

    def __call__(self, stage: str, share: float) -> None:
        if not self.quiet:
            done = 0.0
            for name, weight in self.weights.items():
                if name == stage:
                    break
                done += weight
            self.bar.update(self.task, completed=done + self.weights.get(stage, 0) * share, description=f"{self.title}: {stage}")

    def __exit__(self, *_: object) -> None:
        if not self.quiet:
            self.bar.stop()
