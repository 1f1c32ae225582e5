# SPDX-License-Identifier: Apache-2.0
"""A picture changed as an instruction says, by InstructPix2Pix: `bozzetto edit`. `bozzetto lift` takes its PNG.

A prior of small pictures, such as what `training.instruct` makes of the embedded one, edits the object alone, cut out, before white; what
it changes is carried to the picture (`fit.retouched`), whose background stays as it is.
"""

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
from bozzetto.fit.retouched import retouched
from bozzetto.fit.run import Progress, check_device
from bozzetto.image import Picture
from bozzetto.matting import cut_out
from bozzetto.priors import loading
from bozzetto.priors.instruct import SMALL, fitted
from bozzetto.priors.latent import resized
from bozzetto.verbs import plan
from bozzetto.verbs.settings import EDIT_PRIOR, EDIT_SIZE

MARGIN = 0.18  # of its crop, on each side of the object: room for what is put on top


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
    image_guidance: float | None = None,
    prior: str | Path = EDIT_PRIOR,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "auto",
    offload: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> Tensor:
    """`count` edits (N, H, W, 3), sRGB in [0, 1], of one picture (H, W, 3), whose sides are multiples of 64. Edit k takes seed + k.

    steps           of the sampler; by default the prior's: 100, as in the paper, or 20 of a small one
    guidance        S_T: more holds harder to the instruction; 5 to 10 are usual, and 7.5 the default; 2 of a small prior
    image_guidance  S_I: more holds harder to the picture; 1 to 1.5 are usual; by default 1.5, or 1 for a prior of small pictures
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
    is_small = editor.size < SMALL
    alpha = cut_out(Picture(rgb, None, Path("the picture"), tuple(rgb.shape[:2]))).alpha if is_small else None  # type: ignore[arg-type]
    for k in range(count):

        def watch(step: int, x: Tensor, denoised: Tensor, k: int = k) -> None:
            if progress:
                progress("edits", (k + (step + 1) / how.steps) / count)

        generator = torch.Generator().manual_seed(seed + k)
        told: dict[str, Any] = {
            "image_scale": editor.image_scale if image_guidance is None else image_guidance,
            "sampler": how,
            "generator": generator,
            "watch": watch,
        }
        if alpha is None:
            made.append(editor.edited(rgb[None], text, **told).cpu())
        else:
            made.append(_in_small(editor, rgb, alpha, text, **told)[None])
    return torch.cat(made)


def _in_small(editor: Any, rgb: Tensor, alpha: Tensor, text: str, **told: Any) -> Tensor:
    """The picture (H, W, 3) with its object (alpha (H, W)) edited at the prior's size."""
    left, top, side = (round(x) for x in image.crop(rgb, alpha, editor.size, margin=MARGIN).box)
    height, width = alpha.shape
    pad = max(0, -left, -top, left + side - width, top + side - height)
    padded = torch.nn.functional.pad(torch.cat([rgb, alpha[..., None]], -1), (0, 0, pad, pad, pad, pad))
    box = (slice(top + pad, top + pad + side), slice(left + pad, left + pad + side))
    seen, solid = padded[box][..., :3], padded[box][..., 3]
    small = resized((seen * solid[..., None] + 1 - solid[..., None])[None], editor.size)
    after = editor.edited(small, text, **told).cpu()
    with torch.no_grad():
        before = editor.decode(editor.encode_pictures(small)).cpu()
    padded[box][..., :3] = retouched(seen, solid, before[0], after[0])
    whole: Tensor = padded[pad : pad + height, pad : pad + width, :3]
    return whole
