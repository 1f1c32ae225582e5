# SPDX-License-Identifier: Apache-2.0
"""How long lifts take by each recipe, and how much memory: `python -m benchmarks.recipes`.

Each row is `bozzetto lift` in a process of its own, with the embedded priors, after a draft by `guess` that compiles the kernels. CPU
seconds are the whole process's, imports among them, which a busy machine disturbs less than the wall's; memory is its largest resident.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks import machine

EXAMPLES = Path(__file__).parent.parent / "examples"
TEXTS = {"wooden-chair": "a wooden chair", "teapot": "a teapot"}
RECIPES = ("dreamcraft3d", "magic123", "consistent123")


class Taken(NamedTuple):
    wall: float
    cpu: float
    peak_gb: float


def lifted(picture: Path, recipe: str, preset: str, text: str | None, out: Path, more: list[str]) -> Taken:
    """One lift; stops the benchmark with what it said where it fails."""
    words = [
        sys.executable,
        "-m",
        "bozzetto.cli",
        "lift",
        str(picture),
        "--recipe",
        recipe,
        "--preset",
        preset,
        "--quiet",
        "--out",
        str(out),
    ]
    words += [*(("--text", text) if text else ()), *(w for x in more for w in ("--set", x))]
    with tempfile.TemporaryFile("w+") as said:
        started = time.perf_counter()
        process = subprocess.Popen(words, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)  # of this child alone
        wall = time.perf_counter() - started
        if os.waitstatus_to_exitcode(status):
            said.seek(0)
            raise SystemExit(f"{' '.join(words)}: {said.read()}")
    unit = 1024**3 if sys.platform == "darwin" else 1024**2  # bytes there, kilobytes elsewhere
    return Taken(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / unit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", nargs="+", default=list(TEXTS), help="names of examples/")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--preset", default="draft")
    parser.add_argument("--set", action="append", default=[], help="a setting of the lifts, such as steps=4, to try this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        lifted(EXAMPLES / f"{args.pictures[0]}.png", "guess", "draft", None, out / "first", [])
        print(f"| preset `{args.preset}` | picture | wall, s | CPU, s | memory, GB |")
        print("| --- | --- | ---: | ---: | ---: |")
        for recipe in args.recipes:
            for name in args.pictures:
                took = lifted(EXAMPLES / f"{name}.png", recipe, args.preset, TEXTS.get(name), out / f"{recipe}-{name}", args.set)
                print(f"| `{recipe}` | {name} | {took.wall:.0f} | {took.cpu:.0f} | {took.peak_gb:.2f} |", flush=True)
    print(f"\n{machine('torch', 'numba')}; {os.environ.get('OMP_NUM_THREADS', 'all')} threads")


if __name__ == "__main__":
    main()
