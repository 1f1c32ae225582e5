# SPDX-License-Identifier: Apache-2.0
"""How good the reconstructor's solids are, on objects that nobody trained on: `python -m bozzetto.evaluate.reconstruction`.

Of each object one picture, from anywhere round it; and eight views at One-2-3-45's poses round that picture's camera: true ones, rendered,
and those that the embedded prior draws of the picture, under its own first guess. Beside the network stand the visual hull of the same
views, which it begins with, and the first guess of the picture alone. Scores are `evaluate.metrics`', after alignment by scale and
translation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bozzetto.camera import orbit
from bozzetto.data.objects import Packed
from bozzetto.data.renders import Drawable, drawable, random_lights, render
from bozzetto.evaluate.metrics import geometry, solid
from bozzetto.evaluate.shots import shoot
from bozzetto.fit.drawings import Drawing
from bozzetto.fit.eight import Eight
from bozzetto.fit.framed import Framed
from bozzetto.fit.posed import Cube, cube_round, surface
from bozzetto.fit.solid import Solid
from bozzetto.fit.source import Source
from bozzetto.priors import first_guess, reconstructor
from bozzetto.priors.hint import FRAME
from bozzetto.priors.loading import MINI, load_for
from bozzetto.priors.reconstructor import Posed, Reconstructor, around

SIZE = 128  # pixels of each view
FOV = 0.6  # of the true views, radians
Shape = tuple[Tensor, Tensor]
"""vertices (N, 3) and faces (F, 3)"""


@dataclass(frozen=True)
class Settings:
    """`python -m bozzetto.evaluate.reconstruction`"""

    objects: Path = Path("data/objects")
    """packed objects, of which the validation side is taken"""
    count: int = 16
    """objects, evenly from the list"""
    network: str = "mini"
    """a folder of weights, or the embedded ones"""
    cells: int = 80
    """of the lattice"""
    samples: int = 3
    """drawings of each view"""
    doubt: int = 1
    """of them may be wrong where they show background"""
    seed: int = 0


def true_views(d: Drawable, azimuth: float, elevation: float, rng: np.random.Generator, size: int = SIZE) -> Posed:
    """Eight renderings at the paper's poses round a camera; the object's box is in the centre, as a prior's pictures have it."""
    a, e = around(azimuth, elevation)
    cameras = orbit(a, e, FRAME / 2 / math.tan(FOV / 2), size=size, fov=FOV)
    lights, _ = random_lights(rng, cameras[[0]])
    views = render(d, cameras, lights)
    return Posed(torch.cat([views.rgb, views.alpha], -1).movedim(-1, 1), cameras)


@torch.no_grad()
def solid_of(network: Reconstructor, posed: Posed, cells: int, cube: Cube | None = None, *, variance: bool = True) -> Shape:
    """Its surface in the pictures' frame; the cube is the hull's unless it is known."""
    cube = cube_round(posed.rgba[:, 3], posed.cameras) if cube is None else cube
    there = Posed(posed.rgba, cube.cameras(posed.cameras), posed.doubt)
    field = network.fields([there], variance=variance)[0]
    vertices, faces = surface(network, field, cells, variance=variance)
    return cube.back(vertices), faces


def scores_of(d: Drawable, made: dict[str, Callable[[], Shape]]) -> dict[str, dict[str, float]]:
    """Of each shape; one without a surface has a Chamfer of 1 and no overlap."""
    truth, found = solid(d.vertices, d.faces), {}
    for name, make in made.items():
        vertices, faces = make()
        found[name] = {"chamfer": 1.0, "f_score": 0.0, "iou": 0.0, "normals": 0.0}
        if len(faces):
            found[name] = geometry(solid(vertices.numpy(), faces.numpy()), truth)[0]
    return found


def measured(d: Drawable, rng: np.random.Generator, s: Settings, networks: dict[str, Reconstructor]) -> dict[str, dict[str, float]]:
    """All rows of one object."""
    shot = shoot(d, rng)
    rgb, alpha = shot.floats()
    source = Source.of(torch.cat([rgb, alpha[..., None]], -1))
    guess = Solid.guess(source, first_guess.load(MINI / "first_guess"), shot.azimuth, shot.elevation)
    rough = guess.surface()
    true = true_views(d, shot.azimuth, shot.elevation, rng)
    made: dict[str, Callable[[], Shape]] = {"first guess": lambda: rough or (torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long))}
    for name, network in networks.items():
        made[f"{name}, true views"] = lambda network=network: solid_of(network, true, s.cells)  # type: ignore[misc]
    made["network, mean alone, true views"] = lambda: solid_of(networks["network"], true, s.cells, variance=False)
    if rough is not None:
        framed = Framed.of(source, guess.frustum.camera, *rough, SIZE)
        eight = Eight(load_for("views", "mini"), framed, guess.colours, Drawing(batch=8))
        drawn = eight.sources(eight.drawn(s.samples, 0, s.seed, lambda stage, share: None), 0, SIZE)
        cube = Cube(torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64), FRAME / framed.width)
        posed = Posed(drawn.rgba, drawn.cameras, s.doubt)
        for name, network in networks.items():
            made[f"{name}, drawn views"] = lambda network=network: solid_of(network, posed, s.cells, cube)  # type: ignore[misc]
    return scores_of(d, made)


def main(settings: Settings) -> None:
    """Print the table."""
    packed = Packed(settings.objects)
    indices = packed.indices("validation")
    picked = [indices[k * len(indices) // settings.count] for k in range(settings.count)]
    weights = MINI / "reconstructor" if settings.network == "mini" else settings.network
    networks = {"hull": Reconstructor().eval(), "network": reconstructor.load(weights)}
    rows: dict[str, list[dict[str, float]]] = {}
    for k, i in enumerate(picked):
        for name, scores in measured(drawable(packed[i]), np.random.default_rng([settings.seed, k]), settings, networks).items():
            rows.setdefault(name, []).append(scores)
    print(f"{settings.count} validation objects; Chamfer: median (mean); F at 0.05, IoU, normals: mean (median)\n")
    print("| | Chamfer ↓ | F at 0.05 ↑ | IoU ↑ | normals ↑ |\n| --- | ---: | ---: | ---: | ---: |")
    for name, found in rows.items():
        columns = {key: np.array([x[key] for x in found]) for key in found[0]}
        cells = [f"{np.median(columns['chamfer']):.4f} ({columns['chamfer'].mean():.4f})"]
        cells += [f"{columns[key].mean():.3f} ({np.median(columns[key]):.3f})" for key in ("f_score", "iou", "normals")]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings))
