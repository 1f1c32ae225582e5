# SPDX-License-Identifier: Apache-2.0
"""Novel views of a picture's object, as a view-conditioned prior draws them: `bozzetto views`. Zero-1-to-3 (arXiv:2303.11328), Sec. 3.

Cameras stand on a ring round the object at the picture's own distance. Each view is sampled by itself (DDIM), so that they agree
with the picture, not with one another; the recipe `zero123` makes one object of what the prior knows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from bozzetto import image
from bozzetto.camera import Camera, orbit
from bozzetto.errors import InputError
from bozzetto.files import write_atomically
from bozzetto.priors.hint import FRAME, Hint, carried, hint
from bozzetto.priors.prior import Condition, Prior, Reference
from bozzetto.priors.sampling import Sampler, sample
from bozzetto.recipes.asset import Source, png
from bozzetto.recipes.guess import Colours
from bozzetto.recipes.run import Progress, check_device, check_writable
from bozzetto.recipes.settings import Within


@dataclass(frozen=True)
class NovelViews:
    """A ring of views."""

    count: int = 8
    elevation_deg: float | None = None
    """of the ring; None is the picture's own"""
    steps: Annotated[int | None, Within(1, 1000)] = None
    """of the sampler, a view; None is 50, the released demo's, or 8 for the embedded prior, which more do not improve"""
    guidance: Annotated[float | None, Within(-100, 100)] = None
    """None is 3, the paper's, or 1 for the embedded prior, whose colours a stronger pull burns"""
    eta: Annotated[float | None, Within(0, 1)] = None
    """noise drawn anew at each step: 0 draws none; None is 1, the released demo's, or 0.3 for the embedded prior"""
    batch: Annotated[int, Within(1, 1024)] = 4
    """views sampled together"""
    size: int = 256
    """pixels a side of what the prior is shown; it draws at its own size"""

    def sampler(self, prior: Prior) -> Sampler:
        """What is set, and for the rest what suits the prior."""
        own = prior.sampler
        return own._replace(**{name: value for name in own._fields if (value := getattr(self, name)) is not None})


FOV = math.radians(49.1)  # of Zero-1-to-3's training renders
DISTANCE = 1.2  # theirs were 1.5 to 2.2; no pose code sees a distance that stays


def ring(settings: NovelViews, elevation: float, azimuth: float = 0.0) -> Camera:
    """The cameras to draw, beginning beside the picture's and going round counter-clockwise; radians."""
    up = elevation if settings.elevation_deg is None else math.radians(settings.elevation_deg)
    turns = [azimuth + 2 * math.pi * (k + 1) / (settings.count + 1) for k in range(settings.count)]
    return orbit(turns, up, DISTANCE, size=settings.size, fov=FOV)


@dataclass(frozen=True)
class Framed:
    """An object of a rough shape as a prior's pictures show it: its box's centre in their middle, FRAME times its longest side wide.

    centre           (3,) of the box, in the crop's frame; vertices (N, 3) are relative to it, faces (F, 3)
    azimuth, elevation, distance  of the picture's camera round it, radians and object units
    width            of pictures at the centre, object units
    rgb, alpha       (S, S, 3) premultiplied and (S, S): the picture, so framed
    """

    centre: Tensor
    vertices: Tensor
    faces: Tensor
    azimuth: float
    elevation: float
    distance: float
    width: float
    rgb: Tensor
    alpha: Tensor

    @classmethod
    def of(cls, source: Source, camera: Camera, vertices: Tensor, faces: Tensor, size: int) -> Framed:
        """camera is that of the crop; vertices (N, 3) in its frame."""
        low, high = vertices.amin(0).double(), vertices.amax(0).double()
        centre, width = (low + high) / 2, FRAME * float((high - low).max())
        back = camera.position[0] - centre
        distance = float(back.norm())
        crop = image.crop(source.rgb, source.alpha, camera.size[0])
        at, depth = camera.project(centre[None])
        side = width * float(camera.K[0, 0, 0]) / float(depth[0, 0])
        box = (float(at[0, 0, 0]) - side / 2, float(at[0, 0, 1]) - side / 2, side)
        pixels = image.resample(torch.cat([crop.rgb, crop.alpha[..., None]], -1), box, size).clamp(0, 1)
        azimuth, elevation = math.atan2(float(back[1]), float(back[0])), math.asin(float(back[2]) / distance)
        moved = (vertices.double() - centre).float()
        return cls(centre, moved, faces, azimuth, elevation, distance, width, pixels[..., :3].contiguous(), pixels[..., 3].contiguous())

    def cameras(self, azimuth: Sequence[float] | Tensor, elevation: Sequence[float] | Tensor) -> Camera:
        """Cameras like the picture's from elsewhere, relative to the centre; radians."""
        fov = 2 * math.atan(self.width / self.distance / 2)
        return orbit(azimuth, elevation, self.distance, size=self.alpha.shape[0], fov=fov)

    def ring(self, settings: NovelViews) -> Camera:
        """The cameras of `ring`, like the picture's."""
        up = self.elevation if settings.elevation_deg is None else math.radians(settings.elevation_deg)
        turns = [self.azimuth + 2 * math.pi * (k + 1) / (settings.count + 1) for k in range(settings.count)]
        return self.cameras(turns, [up] * settings.count)

    def reference(self, background: float) -> Reference:
        """The picture, for the prior to look at."""
        shown = self.rgb + (1 - self.alpha[..., None]) * background
        return Reference(shown[None], self.cameras([self.azimuth], [self.elevation]))

    def hint(self, cameras: Camera, guessed: Colours) -> Hint:
        """The rough shape from there, with the picture's pixels where it shows them; guessed colours are of the crop's frame."""
        middle = self.centre.float()
        seen_from = self.cameras([self.azimuth], [self.elevation])
        colour = carried(self.rgb, self.alpha, seen_from, self.vertices, self.faces, lambda x, n: guessed(x + middle, n))
        return hint(self.vertices, self.faces, cameras, colour)

    def leaning(self, before: Camera, after: Camera) -> Framed:
        """The same object and picture if the picture's camera were `after` and not `before`: cameras of the crop, at one distance from
        its origin, with which everything turns."""
        turn = after.c2w[0, :, :3] @ before.c2w[0, :, :3].mT
        a, e = self.azimuth, self.elevation
        back = turn @ torch.tensor([math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)], dtype=torch.float64)
        azimuth, elevation = math.atan2(float(back[1]), float(back[0])), math.asin(min(max(float(back[2]), -1.0), 1.0))
        vertices = (self.vertices.double() @ turn.mT).float()
        return replace(self, centre=turn @ self.centre, vertices=vertices, azimuth=azimuth, elevation=elevation)

    def placed(self, cameras: Camera) -> Camera:
        """The same cameras in the crop's frame."""
        c2w = cameras.c2w.clone()
        c2w[:, :, 3] += self.centre
        return replace(cameras, c2w=c2w)


def sample_views(
    prior: Prior,
    condition: Callable[[list[int]], Condition],
    count: int,
    settings: NovelViews,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tensor:
    """`count` pictures (V, H, W, 3), sRGB in [0, 1], each by itself; view k has its own generator, seeded seed + k.

    condition  what a batch of views is asked under
    """
    sampler = settings.sampler(prior)
    made = []
    with torch.no_grad():
        for start in range(0, count, settings.batch):
            views = range(start, min(start + settings.batch, count))
            generators = [torch.Generator().manual_seed(seed + k) for k in views]

            def watch(step: int, x: Tensor, denoised: Tensor, start: int = start) -> None:
                if progress:
                    progress("views", (start + settings.batch * (step + 1) / sampler.steps) / count)

            cond = condition(list(views))
            made.append(prior.decode(sample(prior, cond, count=len(views), sampler=sampler, generator=generators, watch=watch)))
    return torch.cat(made).cpu()


def draw_framed(
    framed: Framed,
    prior: Prior,
    cameras: Camera,
    guessed: Colours,
    settings: NovelViews,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tensor:
    """Pictures (V, H, W, 3) from cameras relative to the object's centre; under a hint, where the prior uses one."""
    shown = framed.reference(prior.background)
    with torch.no_grad():
        whole = prior.condition(prior.encode_reference(shown), cameras, hint=lambda c: framed.hint(c, guessed))

    def some(views: list[int]) -> Condition:
        return {k: v if len(v) == 1 else v[views] for k, v in whole.items()}

    return sample_views(prior, some, len(cameras), settings, seed, progress)


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
    crop = image.crop(source.rgb, source.alpha, settings.size)
    shown = crop.rgb + (1 - crop.alpha[..., None]) * prior.background
    seen = prior.encode_reference(Reference(shown[None].float(), orbit([azimuth], elevation, DISTANCE, size=settings.size, fov=FOV)))
    pictures = sample_views(prior, lambda views: prior.condition(seen, cameras[views]), settings.count, settings, seed, progress)
    return pictures, cameras.resized(pictures.shape[1])


def write_views(folder: Path, source: Source, pictures: Tensor, cameras: Camera) -> None:
    """`view_000.png`, ...; `views.png`, all in one; `transforms.json` as NeRF-synthetic has it, so that `bozzetto splat` reads it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for k, picture in enumerate(pictures):
            write_atomically(folder / f"view_{k:03d}.png", png(picture))
        size = pictures.shape[1]
        crop = image.crop(source.rgb, source.alpha, size)
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
    progress: Progress | None = None,
) -> Path:
    """Draw the views of one picture into a folder; returns the sheet's path. The elevation is the first guess's where none is given.

    raises  InputError, before the slow work, for a picture, prior or settings that cannot be used
    """
    from bozzetto.priors import first_guess, loading
    from bozzetto.priors.zero123 import Zero123
    from bozzetto.recipes.guess import colours_of, predict, rough_surface, view_of

    if settings.count < 1 or (settings.steps is not None and not 1 <= settings.steps <= 1000):
        raise InputError(f"--count {settings.count}, --steps {settings.steps}: expected at least 1 view, and 1 to 1000 steps")
    check_device(device)
    source = Source.load(path, mask)
    check_writable(out)
    drawer = loading.load_as(Zero123, prior, kind, dtype=loading.dtype_on(device, precision), device=device)
    guess = predict(source, first_guess.load(loading.MINI / "first_guess")) if elevation is None or drawer.uses_hint else None
    camera, e, p = view_of(guess, 0.0, elevation) if guess else (None, elevation or 0.0, 0.0)
    rough = rough_surface(guess, camera, p) if guess and camera and drawer.uses_hint else None
    if rough is None or guess is None or camera is None:
        pictures, cameras = draw_views(source, drawer, e, settings, seed=seed, progress=progress)
    else:
        framed = Framed.of(source, camera, *rough, drawer.size)
        cameras = framed.ring(settings)
        pictures = draw_framed(framed, drawer, cameras, colours_of(guess, camera, p), settings, seed=seed, progress=progress)
    write_views(out, source, pictures, cameras)
    return out / "views.png"
