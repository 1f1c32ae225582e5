# SPDX-License-Identifier: Apache-2.0
"""A picture changed as an instruction says, by InstructPix2Pix: `bozzetto edit`. `bozzetto lift` takes its PNG."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bozzetto import image
from bozzetto.errors import InputError
from bozzetto.fit.asset import check_png, save_png
from bozzetto.fit.drawings import Drawing
from bozzetto.fit.run import Progress, check_device
from bozzetto.priors import loading
from bozzetto.priors.instruct import fitted
from bozzetto.verbs import plan
from bozzetto.verbs.settings import EDIT_IMAGE, EDIT_SIZE


def edit_picture(path: str | Path, text: str, out: Path, *, size: int = EDIT_SIZE, progress: Progress | None = None, **how: Any) -> Path:
    """Edit a picture into one PNG, several side by side; returns its path. `how` is as `edit` has it.

    size    pixels of the longer side, about; sides are multiples of 64, what lies beyond is cut off
    raises  InputError, before anything is drawn, for a picture, text, prior or file that cannot be used
    """
    if not 64 <= size <= 2048:
        raise InputError(f"--size {size}: expected 64 to 2048 pixels")
    check_png(out)
    shown = image.load(path)
    rgb = shown.rgb if shown.alpha is None else shown.rgb * shown.alpha[..., None] + 1 - shown.alpha[..., None]
    made = edit(fitted(rgb, size), text, progress=progress, **how)
    save_png(torch.cat([*made], 1), out)
    return out


def edit(
    rgb: Tensor,
    text: str,
    *,
    count: int = 1,
    steps: int | None = None,
    guidance: float | None = None,
    image_guidance: float = EDIT_IMAGE,
    prior: str | Path = "instruct-pix2pix",
    seed: int = 0,
    device: str = "cpu",
    precision: str = "auto",
    offload: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> Tensor:
    """`count` edits (N, H, W, 3), sRGB in [0, 1], of one picture (H, W, 3), whose sides are multiples of 64. Edit k takes seed + k.

    steps           of the sampler; by default 100, the paper's
    guidance        S_T: more holds harder to the instruction; 5 to 10 are usual, and 7.5 the default
    image_guidance  S_I: more holds harder to the picture; 1 to 1.5 are usual
    others          as `verbs.draw.draw` has them
    raises          InputError, before anything is drawn, for a text or prior that cannot be used, or too little memory
    """
    if not text.strip():
        raise InputError('no instruction given; try: bozzetto edit chair.png "paint it blue"')
    if not 1 <= count <= 64 or (steps is not None and not 1 <= steps <= 1000):
        raise InputError(f"--count {count}, --steps {steps}: expected 1 to 64 pictures and 1 to 1000 steps")
    check_device(device)
    dtype = loading.dtype_on(device, precision)
    drawing = Drawing(steps, guidance, batch=1)
    planned = plan.for_drawing("edits", prior, drawing, count, None, None, device, precision, offload)
    editor: Any = loading.load_for("edits", prior, dtype=dtype, device=device, offload=offload)
    if excess := editor.excess(text):
        raise InputError(f"the instruction is {excess} tokens longer than this prior reads; say it in fewer words")
    if tell is not None:
        tell(planned.sentence())
    how, made = drawing.sampler(editor), []
    for k in range(count):

        def watch(step: int, x: Tensor, denoised: Tensor, k: int = k) -> None:
            if progress:
                progress("edits", (k + (step + 1) / how.steps) / count)

        generator = torch.Generator().manual_seed(seed + k)
        made.append(editor.edited(rgb[None], text, image_scale=image_guidance, sampler=how, generator=generator, watch=watch).cpu())
    return torch.cat(made)
