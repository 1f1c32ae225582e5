# SPDX-License-Identifier: Apache-2.0
"""The second stage of most lifts: a DMTet from the guessed solid, moved until the picture's silhouette is met, while what no picture
shows stays with the guess; coarse, then once subdivided round the surface.

nvdiffrec (arXiv:2111.12503) for the optimisation and the sign loss; coverage moves vertices as in nvdiffrast.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor

from bozzetto.fit.loop import Term, optimise, own
from bozzetto.fit.run import Run
from bozzetto.fit.settings import Within
from bozzetto.fit.solid import Solid
from bozzetto.fit.source import Source
from bozzetto.fit.terms import Shown
from bozzetto.shapes.tets import Course, Tets

FALL = 0.2  # what is left of the rate at the end


@dataclass(frozen=True)
class Silhouette:
    """How a guess is made to meet the picture's silhouette."""

    cells: Annotated[int, Within(8, 128)] = 56
    """grid cells across the picture, before the subdivision"""
    steps: Annotated[int, Within(1, 100_000)] = 140
    """optimisation steps, half of them after the subdivision"""
    picture: Annotated[int, Within(32, 1024)] = 256
    """pixels a side of the view that is matched; half of it before the subdivision"""
    lr: Annotated[float, Within(0, 1)] = 0.05
    """step of the distances, in grid cells; falls to a fifth"""
    mask_weight: Annotated[float, Within(0, 1e6)] = 30.0
    """the picture's silhouette, mean squared difference"""
    keep_weight: Annotated[float, Within(0, 1e6)] = 0.1
    """how much the field stays with the guess, squared grid cells"""
    smooth_weight: Annotated[float, Within(0, 1e6)] = 6.0
    """normals of neighbouring vertices alike; scores are the same from 1.5 to 6, and surfaces look the better for it"""
    sign_weight: Annotated[float, Within(0, 1e6)] = 0.01
    """against floating bits and cavities"""


@dataclass(frozen=True)
class Surface:
    """A stage's surface: vertices (N, 3) and faces (F, 3) in the crop's frame, the last losses, and the DMTet's state by name."""

    vertices: Tensor
    faces: Tensor
    losses: dict[str, float] = field(default_factory=dict)
    dmtet: dict[str, Tensor] = field(default_factory=dict)


def meet_silhouette(source: Source, solid: Solid, settings: Silhouette, run: Run, stage: str = "shape") -> Surface:
    """The solid's surface, optimised until its rendered coverage is the picture's; the hidden side stays with the solid."""
    tets = Tets(solid.dmtet(1 / settings.cells), Course(settings.lr, fall=FALL))
    terms: list[Term] = [
        Shown(source, solid.frustum.camera, settings.picture, mask=settings.mask_weight, coarse=0.5),
        own({"keep": settings.keep_weight, "smooth": settings.smooth_weight, "sign": settings.sign_weight}),
    ]
    losses = optimise(tets, terms, run, stage, steps=settings.steps)
    with torch.no_grad():
        vertices, faces = tets.surface()
    return Surface(vertices.float(), faces, losses, dict(tets.dmtet.state_dict()))
