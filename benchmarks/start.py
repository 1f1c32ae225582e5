# SPDX-License-Identifier: Apache-2.0
"""How long a first use takes, and later ones: `python -m benchmarks.start`.

Each row is a process of its own. `--help` must answer in half a second; a draft lift with an empty cache compiles every kernel
that a lift needs, and must not take 20 seconds longer than the same lift from the cache. Two first lifts at once share one
empty cache. All four must leave the same GLB.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine, spread

PICTURE = Path(__file__).parent.parent / "examples" / "wooden-chair.png"
COMMAND = [sys.executable, "-m", "bozzetto.cli"]


def timed(commands: list[list[str]], cache: Path) -> tuple[float, float]:
    """Seconds until all of some commands, started together, are done; and processor time of all."""
    env = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"} | {"BOZZETTO_CACHE": str(cache)}
    before, started = os.times(), time.perf_counter()
    running = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for command in commands]
    for process in running:
        _, said = process.communicate()
        if process.returncode:
            raise SystemExit(f"{' '.join(map(str, process.args))}: {said}")  # type: ignore[arg-type]
    seconds, after = time.perf_counter() - started, os.times()
    return seconds, after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--repeats", type=int, default=3, help="of what is quick: help, and lifts from the cache")
    parser.add_argument("--set", action="append", default=[], help="a setting of the lifts, such as steps=4, to try this file")
    args = parser.parse_args()
    rows: list[tuple[str, list[tuple[float, float]]]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache, shared = folder / "cache", folder / "shared"

        def lift(out: str) -> list[str]:
            words = ["lift", str(args.picture), "--preset", "draft", "--quiet", "--out", str(folder / out)]
            return [*COMMAND, *words, *(w for s in args.set for w in ("--set", s))]

        rows.append(("bozzetto --help", [timed([[*COMMAND, "--help"]], cache) for _ in range(args.repeats)]))
        assert not cache.exists(), "help compiled something"
        rows.append(("first lift, nothing compiled", [timed([lift("first")], cache)]))
        rows.append(("later lifts", [timed([lift("later")], cache) for _ in range(args.repeats)]))
        rows.append(("two first lifts at once, one cache", [timed([lift("a"), lift("b")], shared)]))
        made = {out: hashlib.sha256((folder / out / "asset.glb").read_bytes()).hexdigest() for out in ("first", "later", "a", "b")}
        assert len(set(made.values())) == 1, f"the GLBs differ: {made}"
        compiled = [p.stat().st_size for p in cache.rglob("*.nbc")]
    print("| | wall, s | CPU, s |")
    print("|---|---|---|")
    for label, times in rows:
        cells = [f"{m:.2f}" + (f" ± {s:.2f}" if len(times) > 1 else "") for m, s in (spread(list(t)) for t in zip(*times, strict=True))]
        print(f"| {label} | {' | '.join(cells)} |")
    (_, first), (_, later) = rows[1:3]
    wall, cpu = (first[0][k] - spread([t[k] for t in later])[0] for k in (0, 1))
    print(f"| so compiling takes | {wall:.2f} | {cpu:.2f} |")
    print(f"\n{len(compiled)} compiled functions, {sum(compiled) / 1e6:.1f} MB; the four GLBs are the same bytes.")
    print(machine("torch", "numba"))


if __name__ == "__main__":
    main()
