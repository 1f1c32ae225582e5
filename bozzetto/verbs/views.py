# SPDX-License-Identifier: Apache-2.0
"""Novel views of a picture's object, as a view-conditioned prior draws them: `bozzetto views`. Zero-1-to-3 (arXiv:2303.11328), Sec. 3.

Cameras stand on a ring round the object at the picture's own distance. Each view is sampled by itself (DDIM), so that they agree
with the picture, not with one another; the recipe `zero123` makes one object of what the prior knows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bozzetto.camera import Camera, orbit
from bozzetto.errors import InputError
from bozzetto.files import write_atomically
from bozzetto.fit import guesses
from bozzetto.fit.asset import png
from bozzetto.fit.drawings import Drawing, draw_framed, sample_views
from bozzetto.fit.framed import Framed
from bozzetto.fit.run import Progress, check_device, check_writable
from bozzetto.fit.source import Source
from bozzetto.priors.prior import Prior, Reference
from bozzetto.verbs.settings import VIEWS


@dataclass(frozen=True)
class NovelViews:
    """A ring of views."""

    count: int = VIEWS
    elevation_deg: float | None = None
    """of the ring; None is the picture's own"""
    drawing: Drawing = Drawing()
    size: int = 256
    """pixels a side of what the prior is shown; it draws at its own size"""

    @property
    def elevation(self) -> float | None:
        """Radians."""
        return None if self.elevation_deg is None else math.radians(self.elevation_deg)


FOV = math.radians(49.1)  # of Zero-1-to-3's training renders
DISTANCE = 1.2  # theirs were 1.5 to 2.2; no pose code sees a distance that stays


def ring(settings: NovelViews, elevation: float, azimuth: float = 0.0) -> Camera:
    """The cameras to draw, beginning beside the picture's and going round counter-clockwise; radians."""
    up = elevation if settings.elevation is None else settings.elevation
    turns = [azimuth + 2 * math.pi * (k + 1) / (settings.count + 1) for k in range(settings.count)]
    return orbit(turns, up, DISTANCE, size=settings.size, fov=FOV)


def draw_views(
    source: Source,
    prior: Prior,
    elevation: float,
    settings: NovelViews,
    *,
    seed: int = 0,
    azimuth: float = 0.0,
    progress: Progress | None = None,
) -> tuple[Tensor, Camera]:
    """Pictures (V, H, W, 3), sRGB in [0, 1] over the prior's background, and their cameras.

    elevation  of the picture, radians
    seed       view k has its own generator, seeded seed + k: it is the same in any ring of the same cameras
    """
    cameras = ring(settings, elevation, azimuth)
    crop = source.crop(settings.size)
    shown = crop.rgb + (1 - crop.alpha[..., None]) * prior.background
    seen = prior.encode_reference(Reference(shown[None].float(), orbit([azimuth], elevation, DISTANCE, size=settings.size, fov=FOV)))
    pictures = sample_views(prior, lambda views: prior.condition(seen, cameras[views]), settings.count, settings.drawing, seed, progress)
    return pictures, cameras.resized(pictures.shape[1])


def write_views(folder: Path, source: Source, pictures: Tensor, cameras: Camera) -> None:
    """`view_000.png`, ...; `views.png`, all in one; `transforms.json` as NeRF-synthetic has it, so that `bozzetto splat` reads it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for k, picture in enumerate(pictures):
            write_atomically(folder / f"view_{k:03d}.png", png(picture))
        size = pictures.shape[1]
        crop = source.crop(size)
        first = crop.rgb + 1 - crop.alpha[..., None]
        write_atomically(folder / "views.png", png(torch.cat([first, *pictures], 1)))
        bottom = torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
        frames = [{"file_path": f"view_{k:03d}", "transform_matrix": torch.cat([c, bottom]).tolist()} for k, c in enumerate(cameras.c2w)]
        width, focal = cameras.size[1], float(cameras.K[0, 0, 0])
        record = {"camera_angle_x": 2 * math.atan(width / 2 / focal), "frames": frames}
        write_atomically(folder / "transforms.json", (json.dumps(record, indent=1) + "\n").encode())
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another --out") from None


def picture_to_views(
    path: Path,
    out: Path,
    settings: NovelViews,
    *,
    prior: str | Path = "mini",
    kind: str | None = None,
    mask: Path | None = None,
    elevation: float | None = None,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "auto",
    offload: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> Path:
    """Draw the views of one picture into a folder; returns the sheet's path. The elevation is the first guess's where none is given.

    tell    is given a sentence before the slow work: how much memory and time it will take
    raises  InputError, before the slow work, for a picture, prior or settings that cannot be used, or too little memory
    """
    from bozzetto.priors import loading
    from bozzetto.verbs import plan

    steps = settings.drawing.steps
    if settings.count < 1 or (steps is not None and not 1 <= steps <= 1000):
        raise InputError(f"--count {settings.count}, --steps {steps}: expected at least 1 view, and 1 to 1000 steps")
    check_device(device)
    source = Source.load(path, mask)
    check_writable(out)
    planned = plan.for_drawing("views", prior, settings.drawing, settings.count, kind, None, device, precision, offload)
    drawer = loading.load_for("views", prior, kind, loading.dtype_on(device, precision), device, offload=offload)
    if tell is not None:
        tell(planned.sentence())
    if elevation is not None and not drawer.uses_hint:
        pictures, cameras = draw_views(source, drawer, elevation, settings, seed=seed, progress=progress)
    else:
        solid = guesses.load("mini")[0](source, 0.0, elevation)
        rough = solid.surface() if drawer.uses_hint else None
        if rough is None:
            pictures, cameras = draw_views(source, drawer, solid.elevation, settings, seed=seed, progress=progress)
        else:
            framed = Framed.of(source, solid.frustum.camera, *rough, drawer.size)
            cameras = framed.ring(settings.count, settings.elevation)
            pictures = draw_framed(framed, drawer, cameras, solid.colours, settings.drawing, seed=seed, progress=progress)
    write_views(out, source, pictures, cameras)
    return out / "views.png"
