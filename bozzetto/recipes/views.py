# SPDX-License-Identifier: Apache-2.0
"""Recipe `views`: the first guess, seen from all round as a view-conditioned prior draws it, and a shape that meets the drawings.

1. guess    the solid behind the picture: recipe `guess`
2. views    a ring of views and some from above, each drawn by the prior (DDIM) under the picture, its pose, and where the prior takes
            one the guess rendered there (`priors.hint`); a few samples each, whose difference says how far a drawing is to be trusted
3. carve    what lies outside the drawings' outlines is taken from the guess, as far as they are trusted
4. shape    a DMTet from what is left, moved until the picture's silhouette is met
5. clean, texture  as there; texels that the picture does not show get the drawings' colours, then the guess's

Kin: One-2-3-45 (arXiv:2306.16928), which reconstructs from Zero-1-to-3's views by a network; here the network came first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.frustum import DEPTH_RANGE, from_frustum
from bozzetto.mesh import Mesh, vertex_normals
from bozzetto.priors.first_guess import FirstGuess
from bozzetto.priors.prior import Prior
from bozzetto.priors.solid import WIRE, agree_with_silhouette, width_of
from bozzetto.recipes import guess as first
from bozzetto.recipes.asset import Source
from bozzetto.recipes.novel_views import Framed, NovelViews, draw_framed
from bozzetto.recipes.paint import paint
from bozzetto.recipes.run import Run, Tensors
from bozzetto.recipes.settings import Unused, Within
from bozzetto.render.bake import blend, seen
from bozzetto.render.mesh import render_mesh

DRAWING = NovelViews(batch=9)


@dataclass(frozen=True)
class FromViews:
    """Lift by the first guess and drawn views."""

    guess: first.Guess = first.PRESETS["standard"]
    """of the shape, the clean mesh and its texture"""
    ring: Annotated[int, Within(1, 64)] = 7
    """views all round at the picture's elevation, the picture itself left out"""
    above: Annotated[int, Within(0, 64)] = 2
    """views from above, either side of the back"""
    above_deg: Annotated[float, Within(-90, 90)] = 50.0
    """elevation of those"""
    samples: Annotated[int, Within(1, 64)] = 3
    """drawings of each view; their mean is used where they agree"""
    drawing: Annotated[NovelViews, Unused("count", "elevation_deg", "size")] = DRAWING
    size: Annotated[int, Within(32, 1024)] = 128
    """pixels a side at which picture and guess are shown to the prior; at least as many as it draws"""
    carve: Annotated[float, Within(0, 100)] = 0.6
    """logits that a cell loses for each drawing that is sure to see past it; the embedded prior is not to be trusted with more"""


PRESETS = {
    "draft": FromViews(guess=first.PRESETS["draft"]),
    "standard": FromViews(),
    "fine": FromViews(guess=first.PRESETS["fine"], ring=11, above=4, samples=4),
}
PAPER, INK = 0.985, 0.93  # drawn pixels above the one in all colours are background, those below the other in any are object


def lift(
    source: Source,
    network: FirstGuess,
    prior: Prior,
    settings: FromViews,
    run: Run,
    *,
    azimuth: float = 0.0,
    elevation: float | None = None,
    seed: int = 0,
) -> first.Lifted:
    """Picture to textured mesh; azimuth and elevation of the picture in radians, None to take the network's estimate."""
    guess = run.stage("guess", lambda: first.predict(source, network))
    camera, e, p = first.view_of(guess, azimuth, elevation)
    guessed = first.colours_of(guess, camera, p)
    rough = first.rough_surface(guess, camera, p)
    measured: dict[str, Any] = {"elevation_deg": round(math.degrees(e), 2), "perspective": round(p, 4)}
    solid_guess, colours = guess, guessed
    if rough is not None:  # an empty field has nothing to look at; the ball that stands in for it is kept as it is
        framed = Framed.of(source, camera, *rough, max(settings.size, prior.size))
        cameras = around(framed, settings)
        made = run.stage("views", lambda: draw(framed, prior, cameras, guessed, settings, run, seed))
        placed = framed.placed(cameras.resized(made["pictures"].shape[1]))
        solid_guess = {**guess, "occupancy": carved(guess, camera, p, made, placed, settings.carve)}
        measured["trust"] = round(float(made["trust"].mean()), 4)
    shape = run.stage("shape", lambda: first.fit(source, solid_guess, camera, p, settings.guess, run))
    clean = run.stage("clean", lambda: first.tidy(shape, settings.guess))
    if rough is not None:
        colours = from_drawings(made, placed, clean, guessed)
    textured = run.stage("texture", lambda: paint(source, colours, clean, camera, settings.guess.texture, drawn=True))
    losses = {k: round(float(v), 6) for k, v in zip(first.LOSSES, shape["losses"], strict=True)}
    return first.finished(textured, clean, camera, {**measured, "losses": losses})


def around(framed: Framed, settings: FromViews) -> Camera:
    """The views to draw, relative to the object's centre: a ring, then those above, left and right of the back."""
    turns = [2 * math.pi * (k + 1) / (settings.ring + 1) for k in range(settings.ring)]
    over = [math.pi + (2 * (k + 0.5) / settings.above - 1) * 2 * math.pi / 3 for k in range(settings.above)]
    high = math.radians(settings.above_deg)
    azimuths = [framed.azimuth + t for t in turns + over]
    return framed.cameras(azimuths, [framed.elevation] * len(turns) + [max(high, framed.elevation)] * len(over))


def draw(framed: Framed, prior: Prior, cameras: Camera, guessed: first.Colours, settings: FromViews, run: Run, seed: int) -> Tensors:
    """pictures (V, H, W, 3) sRGB over the prior's background, alpha and trust (V, H, W), at the prior's size."""

    def sample(s: int) -> Tensor:
        def told(name: str, share: float) -> None:
            run.progress("views", (s + share) / settings.samples)

        return draw_framed(framed, prior, cameras, guessed, settings.drawing, seed=seed + 1000 * s, progress=told)

    drawn = torch.stack([sample(s) for s in range(settings.samples)])
    alphas = torch.stack([solid(x, prior.background) for x in drawn])
    pictures = drawn.mean(0)
    trust = 1 - (alphas.amax(0) - alphas.amin(0))
    return {"pictures": pictures, "alpha": alphas.mean(0), "trust": trust * _told(pictures, prior.background)}


def carved(guess: Tensors, camera: Camera, p: float, made: Tensors, cameras: Camera, weight: float) -> Tensor:
    """Occupancy logits (D, h, w), less `weight` for each drawing that sees past a cell, times its trust there.

    A shape that is moved by gradients alone would hardly follow: only its rim has one in each view. Columns that end up empty
    keep one bar, as in the guess: what the picture shows is somewhere. Wires stay as they were guessed: drawings hardly show
    them, and a leg that is carved in two is a floater.
    """
    occupancy = guess["occupancy"]
    d, h, w = occupancy.shape
    k, j, i = torch.meshgrid(torch.arange(d), torch.arange(h), torch.arange(w), indexing="ij")
    where = torch.stack([(i + 0.5) / w, (j + 0.5) / h, ((k + 0.5) / d * 2 - 1) * DEPTH_RANGE], -1).reshape(-1, 3)
    pixels, _ = cameras.project(from_frustum(where.float(), camera, p))
    grid = (pixels / pixels.new_tensor(cameras.size[::-1]) * 2 - 1).float()[:, None]
    past = (made["trust"] * (1 - made["alpha"]))[:, None]
    sure = F.grid_sample(past, grid, align_corners=False, padding_mode="border")[:, 0, 0].sum(0)
    left = agree_with_silhouette(occupancy - weight * sure.view(d, h, w), guess["coverage"])
    return torch.where(width_of(guess["coverage"]) < WIRE, occupancy, left)


def solid(pictures: Tensor, background: float) -> Tensor:
    """How far pixels (V, H, W) of pictures (V, H, W, 3) differ from the background: 0 is paper, 1 is object."""
    off = (pictures - background).abs().amax(-1)
    low, high = 1 - PAPER, 1 - INK
    return ((off - low) / (high - low)).clamp(0, 1)


def _told(pictures: Tensor, background: float) -> Tensor:
    """Trust (V, 1, 1) in outlines read off colours: a pale object on a pale background has none."""
    off = (pictures - background).abs().amax(-1)
    vague = ((off > 1 - PAPER) & (off < 0.15)).sum((1, 2)) / (off > 1 - PAPER).sum((1, 2)).clamp(min=1)
    return (1 - 2 * vague).clamp(0, 1)[:, None, None]


def from_drawings(made: Tensors, cameras: Camera, clean: Tensors, guessed: first.Colours) -> first.Colours:
    """Colours of the crop's frame: the drawings', weighted by how squarely they see a point, the guess's where none does."""
    vertices = clean["vertices"] / clean["scale"] + clean["centre"]
    mesh = Mesh(vertices, clean["faces"], vertex_normals(vertices, clean["faces"]))
    depth = render_mesh(mesh, cameras).depth[..., 0]
    alpha = made["alpha"]
    rgb = made["pictures"] * alpha[..., None]

    def colours(points: Tensor, normals: Tensor) -> Tensor:
        looks = [
            seen(points, normals, cameras[[k]], depth[k], rgb[k], alpha[k], power=3.0, margin=1.0, tolerance=0.02)
            for k in range(len(alpha))
        ]
        colour, weight = blend(looks)
        share = (4 * weight).clamp(max=1)[:, None]
        return share * colour + (1 - share) * guessed(points, normals)

    return colours
