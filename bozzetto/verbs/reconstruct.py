# SPDX-License-Identifier: Apache-2.0
"""Posed pictures of one object to a textured mesh in one pass of a network: `bozzetto reconstruct` (`priors.reconstructor`).

1. cut       the object in each picture: its transparency, else a search (`matting`); the square round it
2. look      the cube round the outlines' visual hull, and what the network finds in the pictures
3. surface   its signed distance on a lattice, by marching tetrahedra
4. clean     floaters off, smoothed, decimated, box centred, longest side 1: as `lift` does
5. texture   unwrapped; each texel blends the pictures that see it, by the network's weights; what none sees is continued

All pictures are used, those too that `bozzetto splat` would hold back.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.errors import InputError
from bozzetto.fit.clean import tidy
from bozzetto.fit.paint import colour
from bozzetto.fit.posed import cropped, cube_round, joined, painter, surface
from bozzetto.fit.run import Progress
from bozzetto.formats.gltf import save as save_glb
from bozzetto.formats.scene import Scene, load
from bozzetto.image import Picture, cuts_out
from bozzetto.matting import Method, cut_out, foreground
from bozzetto.mesh import Mesh
from bozzetto.priors import reconstructor
from bozzetto.priors.loading import MINI
from bozzetto.priors.reconstructor import Posed, Reconstructor
from bozzetto.verbs.settings import ReconstructSettings

FEWEST = 4  # views that the network was taught with, at least


@dataclass(frozen=True)
class Reconstruct(ReconstructSettings):
    """All settings of a reconstruction."""

    size: int = 128
    """pixels a side at which the network sees each object; a multiple of 4"""
    colours: int = 512
    """pixels a side from which colours are taken"""


@dataclass(frozen=True)
class Result:
    """The mesh in the asset's frame; how many pictures were used; what is odd about the scene, a sentence each."""

    mesh: Mesh
    views: int
    warnings: tuple[str, ...] = ()


def reconstruct(
    scene: Path | Scene,
    out: Path,
    settings: Reconstruct = Reconstruct(),
    *,
    network: str | Path = "mini",
    matting: Method = "auto",
    progress: Progress | None = None,
) -> Result:
    """A scene's folder (COLMAP or transforms.json) to a GLB.

    network  a folder of weights, or `mini`, the embedded ones
    raises   InputError, before anything is written, for what cannot be read or written, settings out of range, pictures in which no
             object is found, or outlines that have nothing in common
    """
    if out.suffix.lower() != ".glb":
        raise InputError(f"--out {out}: expected a name that ends in .glb")
    for name, low in (("cells", 8), ("views", FEWEST), ("faces", 4), ("texture", 16)):
        if getattr(settings, name) < low:
            raise InputError(f"--{name} {getattr(settings, name)}: expected a whole number of at least {low}")
    weights = reconstructor.load(MINI / "reconstructor" if str(network) == "mini" else network)
    found = scene if isinstance(scene, Scene) else load(scene)
    where = "scene" if isinstance(scene, Scene) else str(scene)
    if len(found.pictures) < FEWEST:
        raise InputError(f"{where}: {len(found.pictures)} pictures are too few to see a shape; give at least {FEWEST}")
    say = progress or (lambda stage, share: None)
    mesh, views = mesh_of(picked(found, settings.views), weights, settings, where=where, matting=matting, progress=say)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        save_glb(mesh, out, name=out.stem)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); free some space or choose another --out") from None
    return Result(mesh, views, found.warnings)


def picked(scene: Scene, most: int) -> list[tuple[Tensor, Camera]]:
    """At most so many pictures (H, W, 3 or 4) uint8 and their cameras, evenly from the list."""
    n = min(most, len(scene.pictures))
    at = [i * len(scene.pictures) // n for i in range(n)]
    return [(scene.pictures[i], scene.cameras[i]) for i in at]


def mesh_of(
    pictures: list[tuple[Tensor, Camera]],
    network: Reconstructor,
    s: Reconstruct = Reconstruct(),
    *,
    where: str = "scene",
    matting: Method = "auto",
    progress: Progress = lambda stage, share: None,
) -> tuple[Mesh, int]:
    """The whole course; with how many pictures were used."""
    cut: list[tuple[Tensor, Camera]] = []
    for k, (pixels, camera) in enumerate(pictures):
        progress("cut", k / len(pictures))
        cut.append(cropped(premultiplied(pixels, f"{where}, picture {k + 1} of {len(pictures)}", matting), camera, s.colours))
    fine = joined(cut)
    small = F.interpolate(fine.rgba, (s.size, s.size), mode="area")
    progress("look", 0)
    cube = cube_round(small[:, 3], fine.cameras.resized(s.size))
    with torch.no_grad():
        field = network.field(Posed(small, cube.cameras(fine.cameras.resized(s.size))))
    vertices, faces = surface(network, field, s.cells, lambda share: progress("surface", share))
    if not len(faces):
        raise InputError(f"{where}: nothing solid was found inside the outlines; are these poses and pictures of one scene?")
    progress("clean", 0)
    clean = tidy(vertices, faces, s.faces)
    progress("texture", 0)
    return colour(painter(network, field, clean.in_crop(clean.vertices), clean.faces, fine.rgba), clean, s.texture), len(cut)


def premultiplied(pixels: Tensor, name: str, matting: Method) -> Tensor:
    """(H, W, 4) in [0, 1] of pixels (H, W, 3 or 4) uint8: the object alone.

    raises  InputError where none is found
    """
    values = pixels.float() / 255
    alpha = values[..., 3] if values.shape[2] == 4 and cuts_out(values[..., 3]) else None
    picture = Picture(values[..., :3].contiguous(), alpha, Path(name), (values.shape[0], values.shape[1]))
    found = cut_out(picture, method=matting).alpha
    if not (found > 0.5).any():
        raise InputError(f"{name}: no object found (alpha is nowhere above one half); leave that picture out")
    return torch.cat([foreground(picture, found) * found[..., None], found[..., None]], -1)
