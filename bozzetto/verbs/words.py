# SPDX-License-Identifier: Apache-2.0
"""From words to the picture that a lift starts from: several are drawn, and the best is taken.

Best is the one that CLIP finds nearest to the text (arXiv:2103.00020) among those that show one whole object: a lift makes one thing of
one picture, and of a thing that the border cuts off it makes what is left. Where none does, the least bad is taken, and that is said.

Letters: N drawings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.errors import InputError
from bozzetto.fit.asset import CANDIDATES, png
from bozzetto.fit.run import Progress
from bozzetto.fit.source import Source
from bozzetto.image import touches_border
from bozzetto.priors import loading
from bozzetto.priors.clip import Clip
from bozzetto.verbs.draw import draw
from bozzetto.verbs.settings import CHOSEN_AMONG

WHOLE = 0.98  # share of an object's pixels in its largest part, from which it is one object and crumbs
CUT_OFF, IN_PARTS, NOTHING = "cut off by the border", "in several parts", "no object found"
TILE, STRIP = 192, 28  # pixels of the sheet: a drawing, and the words below it


@dataclass(frozen=True)
class Chosen:
    """The picture that was taken.

    record  how many were drawn, which is it, the similarity and the flaws of each
    files   CANDIDATES: all of them, with their scores
    """

    source: Source
    record: dict[str, Any]
    files: dict[str, bytes]


def drawn(
    text: str,
    *,
    count: int | None = None,
    prior: str = "mini",
    clip: str = "mini",
    seed: int = 0,
    device: str = "cpu",
    precision: str = "auto",
    offload: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> Chosen:
    """A picture of what a text says; drawing k takes seed + k.

    count   N; by default 8 by the embedded prior, 4 by another
    prior   of text: embedded, a folder, or a fetched one's name
    clip    who judges: the embedded towers, or a folder of CLIP's
    others  as `draw` has them
    raises  InputError for a text or prior that cannot be used, or where no drawing shows an object
    """
    n = CHOSEN_AMONG[prior != "mini"] if count is None else count
    if not 1 <= n <= 64:
        raise InputError(f"--best-of {n}: expected 1 to 64 pictures")
    judge = Clip.read(clip, device)
    how: dict[str, Any] = {"device": device, "precision": precision, "offload": offload, "progress": progress, "tell": tell}
    pictures = draw(text, count=n, prior=prior, seed=seed, **how)
    if len(pictures) != n:
        raise InputError(f"--prior text={prior}: draws several views together; give it to --recipe mvdream")
    likeness = [round(x, 4) for x in judge.similarity(pictures, text).tolist()]
    sources, flaws = zip(*(looked_at(picture) for picture in pictures), strict=True)
    able = [k for k in range(n) if sources[k] is not None]
    if not able:
        raise InputError(f'"{text}": none of {n} drawings shows an object; try another --seed, or other words')
    best = min(able, key=lambda k: (len(flaws[k]), -likeness[k]))
    source: Source = sources[best]
    if flaws[best]:
        said = f'"{text}": each of {n} drawings has a flaw, and the one taken is {" and ".join(flaws[best])}; try another --seed'
        source = replace(source, warnings=(said,))
    record = {
        "of": n,
        "taken": best,
        "why": "nearest to the text by CLIP, of those with the fewest flaws",
        "prior": loading.digest(prior),
        "clip": clip if clip == "mini" else loading.digest(clip),
        "candidates": [{"seed": seed + k, "similarity": likeness[k], "flaws": list(flaws[k])} for k in range(n)],
    }
    return Chosen(replace(source, name=text), {"drawn": record}, {CANDIDATES: png(sheet(pictures, likeness, flaws, best))})


def looked_at(picture: Tensor) -> tuple[Source | None, tuple[str, ...]]:
    """A drawing (H, W, 3) with its object cut out, if there is one, and what is wrong with it."""
    try:
        source = Source.of(picture)
    except InputError:
        return None, (NOTHING,)
    _, _, parts, _ = cv2.connectedComponentsWithStats((source.alpha > 0.5).numpy().astype(np.uint8), connectivity=8)
    sizes = parts[1:, cv2.CC_STAT_AREA]
    is_flawed = {CUT_OFF: touches_border(source.alpha), IN_PARTS: sizes.max() < WHOLE * sizes.sum()}
    return source, tuple(flaw for flaw, is_so in is_flawed.items() if is_so)


def sheet(pictures: Tensor, likeness: list[float], flaws: tuple[tuple[str, ...], ...], best: int) -> Tensor:
    """(H, W, 3): the drawings, four in a row, with their scores and flaws below; the one taken has a frame."""
    from PIL import Image, ImageDraw

    tiles = []
    for k, picture in enumerate(pictures):
        small = F.interpolate(picture.movedim(-1, 0)[None], (TILE, TILE), mode="bilinear", antialias=True)[0].movedim(0, -1)
        tile = Image.fromarray((F.pad(small, (0, 0, 0, 0, 0, STRIP), value=1.0) * 255).round().to(torch.uint8).numpy())
        pen = ImageDraw.Draw(tile)
        pen.text((4, TILE + 1), f"{k}: {likeness[k]:.3f}" + (", taken" if k == best else ""), fill=(0, 0, 0))
        pen.text((4, TILE + 13), "; ".join(flaws[k]), fill=(160, 30, 30))
        if k == best:
            pen.rectangle((0, 0, TILE - 1, TILE + STRIP - 1), outline=(30, 130, 60), width=3)
        tiles.append(torch.from_numpy(np.asarray(tile).copy()).float() / 255)
    tiles += [torch.ones_like(tiles[0])] * (-len(tiles) % min(4, len(tiles)))
    wide = min(4, len(tiles))
    return torch.cat([torch.cat(tiles[k : k + wide], 1) for k in range(0, len(tiles), wide)])
