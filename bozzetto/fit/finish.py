# SPDX-License-Identifier: Apache-2.0
"""The last two stages of every lift: a surface becomes a clean mesh of a given size, and gets its texture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

from torch import Tensor

from bozzetto.brief import brief
from bozzetto.camera import Camera, orbit
from bozzetto.fit.clean import Clean, tidy
from bozzetto.fit.paint import colour, paint
from bozzetto.fit.run import Run
from bozzetto.fit.settings import Within
from bozzetto.fit.solid import Colours
from bozzetto.fit.source import Source
from bozzetto.mesh import Mesh


@dataclass(frozen=True)
class Finish:
    """What is made of a lifted surface."""

    faces: Annotated[int, Within(100, 1_000_000)] = 30_000
    """of the finished mesh, at most"""
    texture: Annotated[int, Within(64, 4096)] = 1024
    """texels a side"""


@brief
@dataclass(frozen=True)
class Lifted:
    """What a recipe returns: a textured mesh, the picture's camera in the mesh's frame, or one in front of it where there is no picture,
    numbers to report, further files by name."""

    mesh: Mesh
    camera: Camera
    measured: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)


class Surfaced(Protocol):
    """Anything with a surface in the crop's frame: vertices (N, 3), faces (F, 3)."""

    @property
    def vertices(self) -> Tensor: ...
    @property
    def faces(self) -> Tensor: ...


def finish(
    source: Source | None,
    surface: Surfaced,
    colours: Callable[[Clean], Colours],
    camera: Camera | None,
    settings: Finish,
    run: Run,
    told: Mapping[str, Any],
    *,
    drawn: bool = False,
    files: Callable[[Clean], dict[str, bytes]] = lambda clean: {},
) -> Lifted:
    """Stages `clean` and `texture`.

    source     None for a lift that starts from a text; its frame stands for the crop's then
    colours    for what the picture does not show, in the crop's frame, once the clean mesh is known
    camera     of the crop, 512 pixels a side; None without a picture
    told       numbers for the asset's report; those under `losses` by name
    drawn      the colours are a prior's, with details of their own: they are taken as they are (`paint`)
    files      further ones, by name, once the clean mesh is known
    """
    clean = run.stage("clean", lambda: tidy(surface.vertices, surface.faces, settings.faces), Clean)

    def textured() -> Mesh:
        if source is None or camera is None:
            return colour(colours(clean), clean, settings.texture)
        return paint(source, colours(clean), clean, camera, settings.texture, drawn=drawn)

    mesh = run.stage("texture", textured, Mesh)
    losses = {k: round(v, 6) for k, v in told.get("losses", {}).items()}
    seen_from = orbit([0.0], [0.25], 2.6, size=512, fov=0.55) if camera is None else clean.camera(camera)
    return Lifted(mesh, seen_from, {**told, "losses": losses}, files(clean))
