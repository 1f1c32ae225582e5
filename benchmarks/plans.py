# SPDX-License-Identifier: Apache-2.0
"""What was planned against what was taken: `python -m benchmarks.plans [NAME ...]`; without names the drafts and the drawings.

NAME is RECIPE/PRESET, `views` or `draw` (all by the embedded priors), or a published prior, of which random weights of the real sizes are
written to a temporary folder (up to 5 GB) and asked for one picture in two steps. Each row is a process of its own, which has compiled
what it needs before. CPU seconds are compared, and the machine's speed is measured in them, before and after: with OMP_NUM_THREADS=1
NUMBA_NUM_THREADS=1 a busy machine disturbs them less. `rest` is what a row of `verbs.plan.COSTS` says: seconds apart from diffusion priors,
at the reference's speed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine, published
from bozzetto.fit.run import peak_gb
from bozzetto.priors import plan
from bozzetto.recipes import RECIPES
from bozzetto.verbs.draw import draw
from bozzetto.verbs.lift import lift
from bozzetto.verbs.plan import for_drawing, for_lift
from bozzetto.verbs.views import Drawing, NovelViews, picture_to_views

PICTURE = Path(__file__).parent.parent / "examples" / "wooden-chair.png"
USUAL = [*(f"{name}/draft" for name in RECIPES), "views", "draw"]


def row(name: str, folder: str) -> dict[str, float]:
    """One row, in this process. `folder` holds a published prior's weights."""
    recipe, _, preset = name.partition("/")
    two, kind = Drawing(steps=2), "zero123-xl" if folder and name == "zero123-xl" else None
    prior: Any = folder or "mini"

    def run() -> None:
        if preset:
            lift(PICTURE, recipe=recipe, preset=preset)
        elif name in ("views", "zero123-xl"):
            settings = NovelViews(count=1 if folder else 8, drawing=two if folder else Drawing())
            with tempfile.TemporaryDirectory() as out:
                picture_to_views(PICTURE, Path(out) / "views", settings, prior=prior, kind=kind)
        else:
            draw("a red chair", prior=prior, **({"steps": 2} if folder else {"count": 4}))

    if preset:
        planned = for_lift(RECIPES[recipe], preset, RECIPES[recipe].presets[preset], {})
    elif name in ("views", "zero123-xl"):
        planned = for_drawing("views", prior, two if folder else Drawing(), 1 if folder else 8, kind)
    else:
        planned = for_drawing("text", prior, Drawing(2, 3.0) if folder else Drawing(50, 3.0), 1 if folder else 4, "text-to-image")
    if not folder:
        lift(PICTURE, preset="draft") if preset else None  # kernels compile at first use
    plan.clock = time.process_time
    before = plan.speed("cpu", torch.float32)
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    plan.speed.cache_clear()
    after = plan.speed("cpu", torch.float32)
    rate, delay = ((a + b) / 2 for a, b in zip(before, after, strict=True))
    networks = planned.flop / rate + planned.operations * delay
    whole = networks + (planned.rest or 0) * plan.REFERENCE / rate
    told = {"planned_s": whole, "cpu_s": cpu, "ratio": whole / cpu, "wall_s": wall, "rate": rate / 1e9}
    told |= {"rest_s": (cpu - networks) * rate / plan.REFERENCE}
    return told | {"planned_gb": planned.ram / 1e9, "peak_gb": (peak_gb() or 0) * 1024**3 / 1e9, "weights_gb": planned.weights / 1e9}


def main(names: list[str]) -> None:
    print(machine("torch", "diffusers", "transformers"), f"\n{torch.get_num_threads()} threads\n")
    print("| run | planned, s | CPU, s | ratio | wall, s | GFLOP/s | rest, s | planned, GB | peak, GB | weights, GB |")
    print("|---|" + "---:|" * 9)
    for name in names or USUAL:
        with tempfile.TemporaryDirectory() as folder:
            weights = str(published.write(name, Path(folder))) if name in published.NAMES else ""
            command = [sys.executable, "-m", "benchmarks.plans", "--row", name, weights]
            told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in told.values()) + " |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--row"]:
        print(json.dumps(row(*sys.argv[2:4])))
    else:
        main(sys.argv[1:])
