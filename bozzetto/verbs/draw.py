# SPDX-License-Identifier: Apache-2.0
"""Pictures of what a text says, as a text-to-image prior draws them: `bozzetto draw`. Its PNG is what `bozzetto lift` takes.

A prior that draws several views together draws a row of them each time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bozzetto.errors import InputError
from bozzetto.fit.asset import check_png, save_png
from bozzetto.fit.drawings import Drawing, sample_views
from bozzetto.fit.run import Progress, check_device
from bozzetto.priors import loading
from bozzetto.verbs import plan


def draw_text(text: str, out: Path, *, progress: Progress | None = None, **how: Any) -> Path:
    """Draw pictures into one PNG, side by side, or views of an object so and each object below the last; returns its path. `how` is as
    `draw` has it.

    raises    InputError, before anything is drawn, for a text, prior or file that cannot be used
    """
    check_png(out)
    pictures = draw(text, progress=progress, **how)
    count = how.get("count", 1)
    together = len(pictures) // count
    rows = pictures[None] if together == 1 else pictures.unflatten(0, (count, together))
    save_png(torch.cat([torch.cat([*row], 1) for row in rows]), out)
    return out


def draw(
    text: str,
    *,
    count: int = 1,
    steps: int | None = None,
    guidance: float | None = None,
    prior: str | Path = "mini",
    towers: Path | None = None,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "auto",
    offload: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> Tensor:
    """`count` pictures (V, H, W, 3), sRGB in [0, 1], of what a text says; of a prior of several views as many times those, object by
    object. Picture, or object, k takes seed + k, whatever the count.

    steps     of the sampler; by default what the prior wants
    guidance  1 is the text as it is, more holds to it harder; by default what the prior wants
    towers    folder of the text tower, where `prior` is not embedded (`loading.load`)
    offload   keep the networks in the machine's memory (`loading.load`)
    tell      is given a sentence before the slow work: how much memory and time it will take
    raises    InputError, before anything is drawn, for a text or prior that cannot be used, or too little memory
    """
    if not text.strip():
        raise InputError('no text given; try: bozzetto draw "a red chair"')
    if not 1 <= count <= 64 or (steps is not None and not 1 <= steps <= 1000):
        raise InputError(f"--count {count}, --steps {steps}: expected 1 to 64 pictures and 1 to 1000 steps")
    check_device(device)
    dtype = loading.dtype_on(device, precision)
    drawing = Drawing(steps, guidance)
    planned = plan.for_drawing(loading.TOLD, prior, drawing, count, None, towers, device, precision, offload)
    drawer: Any = loading.load_for(loading.TOLD, prior, text=towers, dtype=dtype, device=device, offload=offload)  # tells its `excess`
    text += getattr(drawer, "suffix", "")
    if excess := drawer.excess(text):
        raise InputError(f"the text is {excess} tokens longer than this prior reads; say it in fewer words")
    if tell is not None:
        tell(planned.sentence())
    condition = drawer.condition(cameras=drawer.views(), text=text)
    return sample_views(drawer, lambda _: condition, count, drawing, seed, progress)
