# SPDX-License-Identifier: Apache-2.0
"""Objects seen from all round, drawn once: what view-conditioned priors and CLIP's towers are trained on.

An album is a folder of chunks, one safetensors file for each CHUNK objects, chunk k a function of k alone: an album that was cut
short goes on where it was. Every object stands as a prior's pictures show it (`FRAME`), in one light and one set of colours, and
is seen by VIEWS cameras on one sphere, like the picture's in the recipes. The first GUESSED views also serve as the picture that
is lifted: the embedded first guess is asked what lies behind each, and the answer is drawn into all the other views as a hint.

`python -m bozzetto.training.album --objects FOLDER --out FOLDER` draws it; `training.latents` encodes it.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bozzetto import image
from bozzetto.camera import Camera, orbit
from bozzetto.data.captions import colours_of, noun_of
from bozzetto.data.objects import Object, Packed
from bozzetto.data.procedural import FAMILIES, HELD_OUT_FAMILIES, make
from bozzetto.data.renders import Drawable, drawable, random_lights, recoloured, render
from bozzetto.files import replacing
from bozzetto.frustum import frustum_camera
from bozzetto.priors.first_guess import FirstGuess
from bozzetto.priors.hint import FRAME, PLANES, carried, hint
from bozzetto.priors.solid import solid
from bozzetto.recipes.guess import Colours, rough_surface
from bozzetto.recipes.guess import colours_of as guessed_colours
from bozzetto.recipes.run import Tensors

SIZE, CELLS = 128, 16  # pixels a side of pictures, cells a side of hints' planes
VIEWS, GUESSED = 10, 2
CHUNK = 32


@dataclass(frozen=True)
class Settings:
    """`python -m bozzetto.training.album --objects FOLDER --out FOLDER`"""

    objects: Path
    """packed objects, as `bozzetto data` writes them"""
    out: Path
    """the album's folder; chunks that are there are kept"""
    count: int = 4800
    """objects, procedural ones and repetitions with other colours and proportions included"""
    validation: bool = False
    """draw the objects that nobody trains on instead, each once and as it is: validation furniture, and the families held out"""
    procedural: float = 0.6
    """share of procedural objects"""
    seed: int = 0


@dataclass(frozen=True)
class Posed:
    """An object as it is drawn: its arrays, the noun for captions, where it is from, and its cameras.

    azimuth, elevation  (VIEWS,) radians; p is S / distance, S the pictures' width at the object's centre
    """

    shape: Drawable
    noun: str
    source: str
    azimuth: np.ndarray
    elevation: np.ndarray
    p: float
    width: float
    lights: np.ndarray


def pose(obj: Object, rng: np.random.Generator, *, augment: bool = True) -> Posed:
    """Colours, proportions, light and cameras for one object; all that is drawn comes from rng."""
    d, stretch = drawable(obj), np.ones(3, np.float32)
    if augment:
        stretch = np.exp(rng.uniform(-0.22, 0.22, 3)).astype(np.float32)
        stretch[1] *= rng.choice((-1, 1))
        d = recoloured(d, rng) if rng.random() < 0.7 else d
    vertices = d.vertices * stretch
    low, high = vertices.min(0), vertices.max(0)
    scale = 1 / float((high - low).max())
    vertices, normals = (vertices - (low + high) / 2) * scale, d.normals / stretch
    pictures = np.array([math.radians(rng.uniform(-35, 35) if rng.random() < 0.3 else rng.uniform(-180, 180)) for _ in range(GUESSED)])
    azimuth = np.concatenate([pictures, rng.uniform(-math.pi, math.pi, VIEWS - GUESSED)])
    low_sine, high_sine = math.sin(math.radians(-10)), math.sin(math.radians(70))
    elevation = np.arcsin(rng.uniform(low_sine, high_sine, VIEWS))
    elevation[:GUESSED] = np.radians(rng.triangular(-10, 15, 60, GUESSED))
    p = 2 * math.tan(math.radians(rng.uniform(15, 50)) / 2)
    width = FRAME * (rng.uniform(0.87, 1.15) if augment else 1.0)
    lights, _ = random_lights(rng, orbit([float(azimuth[0])], [float(elevation[0])], 2.0, size=8, fov=1.0))
    return Posed(
        Drawable(vertices.astype(np.float32), d.faces, normals.astype(np.float32), *d.surface()),
        noun_of(obj.name),
        obj.source,
        azimuth,
        elevation,
        p,
        width,
        lights,
    )


def frame_cameras(azimuth: Any, elevation: Any, p: float, width: float, size: int) -> Camera:
    """Cameras whose pictures are `width` wide at the origin, at the distance that p = width / distance says."""
    return orbit(azimuth, elevation, width / p, size=size, fov=2 * math.atan(p / 2))


def draw_object(posed: Posed) -> Tensor:
    """(VIEWS, SIZE, SIZE, 4) float32: premultiplied sRGB and alpha."""
    cameras = frame_cameras(posed.azimuth, posed.elevation, posed.p, posed.width, SIZE)
    views = render(posed.shape, cameras, posed.lights)
    return torch.cat([views.rgb, views.alpha], -1)


@torch.no_grad()
def guesses(network: FirstGuess, pictures: Tensor, cameras: list[Camera], size: int = 64) -> list[tuple[Tensor, Tensor, Colours] | None]:
    """For pictures (B, H, W, 4) and the camera of each: vertices and faces in the cameras' world, and their hidden colours.

    None where there is nothing to see or to find.
    """
    crops = [_cropped(x, size) for x in pictures]
    batch = torch.stack(
        [torch.zeros(4, size, size) if c is None else torch.cat([c.rgb, c.alpha[..., None]], -1).movedim(-1, 0) for c in crops]
    )
    answer = network(batch.to(next(network.parameters()).device))
    out: list[tuple[Tensor, Tensor, Colours] | None] = []
    for k, crop in enumerate(crops):
        if crop is None:
            out.append(None)
            continue
        camera = cameras[k]
        coverage = torch.nn.functional.avg_pool2d(batch[k, 3:], 2)
        found: Tensors = {
            "occupancy": solid(answer.occupancy[k].float().cpu(), coverage),
            "colour": answer.colour[k].float().cpu(),
            "view": answer.view[k].float().cpu(),
        }
        # The crop's camera stands where the picture's does and looks through the middle of the crop, at the origin's depth.
        left, top, side = crop.box
        distance = float(camera.position.norm())
        middle = torch.tensor([[left + side / 2, top + side / 2]], dtype=torch.float64)
        target = camera.unproject(middle[None], torch.tensor([[distance]], dtype=torch.float64))[0, 0]
        back = camera.position[0] - target
        far = float(back.norm())
        scale = side * distance / float(camera.K[0, 0, 0])
        p = scale / far
        azimuth, elevation = math.atan2(float(back[1]), float(back[0])), math.asin(float(back[2]) / far)
        aimed = frustum_camera(azimuth, elevation, p, 512)
        rough = rough_surface(found, aimed, p)
        if rough is None:
            out.append(None)
            continue
        vertices, faces = rough
        colours = guessed_colours(found, aimed, p)
        place = target.float()

        def hidden(x: Tensor, n: Tensor, colours: Colours = colours, place: Tensor = place, scale: float = scale) -> Tensor:
            return colours((x - place) / scale, n)

        out.append((vertices * scale + place, faces, hidden))
    return out


def _cropped(picture: Tensor, size: int) -> image.Crop | None:
    if not (picture[..., 3] > 0.5).any():
        return None
    return image.crop(picture[..., :3], picture[..., 3], size, premultiplied=True)


def hints(network: FirstGuess, pictures: list[Tensor], posed: list[Posed]) -> tuple[Tensor, Tensor]:
    """Of several objects' pictures (VIEWS, SIZE, SIZE, 4) each: hint colours (B, GUESSED, VIEWS, SIZE, SIZE, 3) over white and
    planes (B, GUESSED, VIEWS, PLANES, CELLS, CELLS). A picture's hint in its own view is drawn as well; the first of two is white
    where nothing was found."""
    rgb = torch.ones(len(posed), GUESSED, VIEWS, SIZE, SIZE, 3)
    planes = torch.zeros(len(posed), GUESSED, VIEWS, PLANES, CELLS, CELLS)
    cameras = [frame_cameras(x.azimuth, x.elevation, x.p, x.width, SIZE) for x in posed]
    shown = torch.cat([x[:GUESSED] for x in pictures])
    found = guesses(network, shown, [c[j] for c in cameras for j in range(GUESSED)])
    for k, guess in enumerate(found):
        if guess is None:
            continue
        b, j = divmod(k, GUESSED)
        vertices, faces, hidden = guess
        drawn = hint(vertices, faces, cameras[b], carried(shown[k, ..., :3], shown[k, ..., 3], cameras[b][j], vertices, faces, hidden))
        rgb[b, j], planes[b, j] = drawn.over(1.0).clamp(0, 1), drawn.cells(CELLS)
    return rgb, planes


def unseen(packed: Packed) -> list[Object]:
    """Validation furniture, then twelve of each family held out."""
    families = [make(f, k) for k in range(12) for f in HELD_OUT_FAMILIES if f in FAMILIES]
    return [packed[i] for i in packed.indices("validation")] + families


def chosen(settings: Settings, packed: Packed, k: int) -> tuple[Object, np.random.Generator]:
    """Object k of a training album and the generator of all that is random about it."""
    rng = np.random.default_rng([settings.seed, 61, k])
    if rng.random() < settings.procedural:
        families = [f for f in FAMILIES if f not in HELD_OUT_FAMILIES]
        return make(families[k % len(families)], 1_000_000 + k), rng
    indices = packed.indices("train")
    weights = packed.weights(indices)
    return packed[indices[int(rng.choice(len(indices), p=weights / weights.sum()))]], rng


def draw_chunk(
    objects: list[tuple[Object, np.random.Generator]], network: FirstGuess, *, augment: bool = True
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of one chunk, as its file holds them."""
    posed = [pose(obj, rng, augment=augment) for obj, rng in objects]
    pictures = [draw_object(x) for x in posed]
    rgb, planes = hints(network, pictures, posed)
    about = [
        {"noun": x.noun, "source": x.source, "colours": colours_of(p[0, ..., :3].numpy(), p[0, ..., 3].numpy())}
        for x, p in zip(posed, pictures, strict=True)
    ]
    tensors = {
        "pictures": (torch.stack(pictures) * 255).round().to(torch.uint8),
        "hint": (rgb * 255).round().to(torch.uint8),
        "planes": planes.half(),
        "azimuth": torch.tensor(np.stack([x.azimuth for x in posed])).float(),
        "elevation": torch.tensor(np.stack([x.elevation for x in posed])).float(),
        "p": torch.tensor([x.p for x in posed]).float(),
        "width": torch.tensor([x.width for x in posed]).float(),
    }
    return tensors, {"about": json.dumps(about)}


def main(settings: Settings) -> None:
    """Draw the chunks that are missing."""
    from safetensors.torch import save_file

    from bozzetto.priors import first_guess
    from bozzetto.priors.loading import MINI

    network = first_guess.load(MINI / "first_guess")
    packed = Packed(settings.objects)
    settings.out.mkdir(parents=True, exist_ok=True)
    held = unseen(packed) if settings.validation else []
    count = len(held) if settings.validation else settings.count
    chunks = range(math.ceil(count / CHUNK))
    begun, done = time.monotonic(), 0
    for c in chunks:
        path = settings.out / f"chunk_{c:04d}.safetensors"
        if path.exists():
            continue
        members = range(c * CHUNK, min((c + 1) * CHUNK, count))
        objects = [(held[k], np.random.default_rng([62, k])) if held else chosen(settings, packed, k) for k in members]
        tensors, about = draw_chunk(objects, network, augment=not held)
        with replacing(path) as part:
            save_file(tensors, part, metadata=about)
        done += 1
        left = (time.monotonic() - begun) / done * (len(chunks) - c - 1) / 60
        print(f"chunk {c + 1} of {len(chunks)}, {left:.0f} min left", flush=True)


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings))
