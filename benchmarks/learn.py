# SPDX-License-Identifier: Apache-2.0
"""What `bozzetto learn` does to the embedded prior: `python -m benchmarks.learn --out out/learn`.

Four pictures of one object made by rule, of a family that the prior never saw, are learnt; four from other sides are held back. The
loss, of what the network predicts, is over 400 draws that are the same in all rows: of the pictures held back, under the text that was
learnt, and of drawings of the class by the prior as it was, with other seeds than it was held to, under the class's text. Below: what
each draws of both texts, `drawings.png` in --out.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bozzetto.camera import orbit
from bozzetto.data.renders import render
from bozzetto.distill.dreambooth import Examples, loss
from bozzetto.files import write_atomically
from bozzetto.fit.asset import png
from bozzetto.fit.drawings import Drawing, sample_views
from bozzetto.priors import load
from bozzetto.verbs.learn import learn
from bozzetto.verbs.settings import LearnSettings
from bozzetto_objects import make

TEXT, CLASS = "a sks mug", "a mug"
SIDES, ELEVATION = (0, 100, 190, 280, 45, 145, 235, 325), 20  # degrees; the last four are held back
DRAWS = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--seed", type=int, default=7, help="of the object")
    parser.add_argument("--out", type=Path, default=Path("out/learn"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    cameras = orbit([math.radians(a) for a in SIDES], math.radians(ELEVATION), 2.2, size=128, fov=math.radians(35))
    pictures = render(make("mug", given.seed), cameras).over(1.0)
    plain = load("mini", "text-to-image")
    back = plain.encode_pictures(pictures[4:])
    kept = plain.encode_pictures(drawn(plain, CLASS, 24, seed=1000))
    rows, shown = [("as it was", plain)], [torch.cat([*pictures[:4]], 1)]
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for k, picture in enumerate(pictures[:4]):
            files.append(Path(folder) / f"{k}.png")
            write_atomically(files[-1], png(picture))
        for weight in (1.0, 0.0):
            out = Path(folder) / f"weight-{weight:g}"
            learn(TEXT, files, out, LearnSettings(steps=given.steps, weight=weight, class_count=48, lr=given.lr, whole=True))
            rows.append((f"learnt, lambda = {weight:g}", load(out)))
    print(f'| {given.steps} steps | held back, under "{TEXT}" | drawings, under "{CLASS}" |')
    print("| --- | ---: | ---: |")
    for name, prior in rows:
        print(f"| {name} | {mean_loss(prior, back, TEXT):.3f} | {mean_loss(prior, kept, CLASS):.3f} |", flush=True)
        shown.append(torch.cat([*drawn(prior, TEXT, 4, seed=0)], 1))
        shown.append(torch.cat([*drawn(prior, CLASS, 4, seed=0)], 1))
    write_atomically(given.out / "drawings.png", png(torch.cat(shown)))


@torch.no_grad()
def mean_loss(prior: Any, x0: Tensor, text: str) -> float:
    """Over DRAWS levels and noises that depend on nothing but their number."""
    generator = torch.Generator().manual_seed(0)
    some = Examples(x0, prior.condition(text=text)).some(DRAWS, generator)
    parts = [Examples(some.x0[i : i + 50], some.cond) for i in range(0, DRAWS, 50)]
    return sum(float(loss(prior.denoiser, part, generator=generator)) for part in parts) / len(parts)


def drawn(prior: Any, text: str, count: int, seed: int) -> Tensor:
    """Pictures (V, S, S, 3), as `bozzetto draw` makes them."""
    cond = prior.condition(text=text)
    return sample_views(prior, lambda _: cond, count, Drawing(30, 3.0), seed)


if __name__ == "__main__":
    main()
