# SPDX-License-Identifier: Apache-2.0
"""Prints docs/checks.md: each check that has an ID, what it asserts, and the error that it measured.

    python -m tests.checks > docs/checks.md

The error is the largest that `assert_close` or `approx` saw in the test, and the share of its tolerance that it took up. Where
that is a bound of statistics, mostly five standard errors, the test states it; exact equalities and inequalities have no error.
Add -m "not slow" for a short run.
"""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

FILES = [
    "schedules",
    "samplers",
    "guidance",
    "losses",
    "ddpm",
    "improved",
    "matching",
    "parzen",
    "langevin",
    "wasserstein",
    "frechet",
    "ema",
    "ladder",
    "ncsn",
    "inpainting",
    "likelihood",
    "codec",
    "camera",
    "rasterize",
    "antialias",
    "texture",
    "bake",
    "marching",
    "dmtet",
    "dmtet_networks",
    "surface_losses",
    "splat",
    "gaussians",
    "hashgrid",
    "volume",
    "neus",
    "sds",
    "vsd",
    "bsd",
    "lora",
    "dreambooth",
    "reference",
    "zero123",
    "elevation",
    "loading",
    "convert",
    "metrics",
    "boundary",
    "hybrid",
    "triplane",
    "triposr",
    "backbone",
    "instruct",
    "pairs",
    "language",
    "retouched",
    "drawn_pairs",
    "edited",
    "real_pictures",
    "prompt_to_prompt",
    "sweetdreamer",
    "joint",
    "together",
    "mvdream",
    "wonder3d",
    "fused",
    "cost_volume",
    "consistent123_views",
    "sync_volume",
    "syncdreamer",
]
ApproxScalar: Any = type(pytest.approx(0.0))
ID = re.compile(r"test_([a-z]+\d?[a-z]?)_(\d+)_(\w+)$")


class Recorder:
    """A pytest plugin that notes errors, tolerances and outcomes of each test."""

    def __init__(self) -> None:
        self.now = ""
        self.errors: dict[str, list[tuple[float, float]]] = {}
        self.rows: dict[str, tuple[str, int, str, str]] = {}
        self.outcomes: dict[str, set[str]] = {}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if ID.match(item.originalname)]

    def pytest_runtest_setup(self, item: Any) -> None:
        name = item.originalname
        found = ID.match(name)
        self.now = name if found else ""
        if found:
            words = (item.function.__doc__ or "").strip().split("\n")[0]
            title = found[3].replace("_", " ")
            self.rows[name] = (found[1].upper(), int(found[2]), f"{title}. {words}".rstrip(". ") + ".", Path(item.fspath).name)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" and self.now:
            self.outcomes.setdefault(self.now, set()).add(report.outcome)

    def note(self, error: float, tolerance: float) -> None:
        if self.now:
            self.errors.setdefault(self.now, []).append((error, tolerance))


def run(more: list[str]) -> Recorder:
    recorder = Recorder()
    close, equal = torch.testing.assert_close, ApproxScalar.__eq__

    def noted_close(actual: Any, expected: Any, **choices: Any) -> None:
        close(actual, expected, **choices)
        a, b = torch.as_tensor(actual).detach().double(), torch.as_tensor(expected).detach().double()
        off = (a - b).abs()
        if not off.numel():
            return
        allowed = choices.get("atol", 1e-7) + choices.get("rtol", 1e-7) * b.abs()
        worst = int((off / allowed.clamp(min=1e-300)).argmax())
        recorder.note(float(off.flatten()[worst]), float(allowed.expand_as(off).flatten()[worst]))

    def noted_equal(self: Any, actual: Any) -> bool:
        with contextlib.suppress(TypeError, ValueError):
            recorder.note(abs(float(actual) - float(self.expected)), float(self.tolerance))
        return equal(self, actual)

    torch.testing.assert_close, ApproxScalar.__eq__ = noted_close, noted_equal
    with contextlib.redirect_stdout(sys.stderr):
        pytest.main(["-q", *(f"tests/test_{name}.py" for name in FILES), *more], plugins=[recorder])
    torch.testing.assert_close, ApproxScalar.__eq__ = close, equal
    return recorder


def table(recorder: Recorder) -> str:
    lines = [
        "# Checks",
        "",
        "Those with an ID, printed by `python -m tests.checks > docs/checks.md`. The error is the largest seen, beside the share of its",
        "tolerance; many are bounds of statistics, five standard errors mostly. A dash stands for an exact equality or an inequality.",
        "",
        "| check | asserts | file | error | of its tolerance |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, (kind, number, text, file) in sorted(recorder.rows.items(), key=lambda row: row[1]):
        noted = [(e, t) for e, t in recorder.errors.get(name, []) if t > 0]
        error, tolerance = max(noted, key=lambda pair: pair[0] / pair[1], default=(0.0, 0.0))
        measured = f"{error:.1e} | {error / tolerance:.0%}" if noted else "– | –"
        state = "" if recorder.outcomes.get(name) == {"passed"} else " **fails**"
        lines.append(f"| {kind}-{number} | {text[0].upper()}{text[1:].replace('|', chr(92) + '|')}{state} | `{file}` | {measured} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(run(sys.argv[1:])))
