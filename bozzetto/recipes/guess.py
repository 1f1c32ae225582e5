# SPDX-License-Identifier: Apache-2.0
"""Recipe `guess`: the first guess made to agree with the picture. No generative prior: fast, and every other recipe's start.

1. guess    the solid behind the picture, from the embedded network, asked at two scales, plain and mirrored
2. shape    a DMTet from its occupancy, moved until the picture's silhouette is met while the hidden side stays with the
            guess; coarse, then once subdivided round the surface
3. clean    floaters off, smoothed, decimated, box centred and scaled to 1
4. texture  unwrapped; texels that the picture shows get its pixels, the others colours of the picture that the guess helps
            to find (`render.hidden`)

Kin: One-2-3-45 (arXiv:2306.16928) for the feed-forward start, DMTet (arXiv:2111.04276) and nvdiffrec (arXiv:2111.12503)
for the optimisation. The camera is that of the crop, looking at its centre: `bozzetto.frustum`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto import image
from bozzetto.camera import Camera
from bozzetto.frustum import DEPTH_RANGE, from_frustum, frustum_camera, to_frustum
from bozzetto.kernels.antialias import antialias
from bozzetto.kernels.rasterize import rasterize
from bozzetto.mesh import Mesh
from bozzetto.priors.first_guess import FirstGuess, colour_at
from bozzetto.priors.solid import EMPTY, solid
from bozzetto.recipes.asset import Source
from bozzetto.recipes.paint import Colours as Colours
from bozzetto.recipes.paint import paint
from bozzetto.recipes.run import Run, Tensors
from bozzetto.recipes.settings import Within
from bozzetto.render.clean import decimate, remove_floaters, taubin
from bozzetto.shapes.dmtet import DMTet, EmptySurface, normal_consistency

SCALES = (64, 128)  # pixels a side at which the prior is asked


@dataclass(frozen=True)
class Guess:
    """Lift by the first guess alone."""

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
    faces: Annotated[int, Within(100, 1_000_000)] = 30_000
    """of the finished mesh, at most"""
    texture: Annotated[int, Within(64, 4096)] = 1024
    """texels a side"""


PRESETS = {
    "draft": Guess(cells=40, steps=40, picture=192, faces=10_000),
    "standard": Guess(),
    "fine": Guess(cells=72, steps=300, picture=384, faces=60_000),
}


@dataclass(frozen=True)
class Lifted:
    """What a recipe hands to the asset: a textured mesh, the picture's camera in its frame, numbers to report, further files by name."""

    mesh: Mesh
    camera: Camera
    measured: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)


def lift(source: Source, prior: FirstGuess, settings: Guess, run: Run, *, azimuth: float = 0.0, elevation: float | None = None) -> Lifted:
    """Picture to textured mesh.

    azimuth    of the picture, radians; 0 makes the side that the picture shows the front
    elevation  of the picture, radians, or None to take the network's estimate
    """
    guess = run.stage("guess", lambda: predict(source, prior))
    camera, e, p = view_of(guess, azimuth, elevation)
    shape = run.stage("shape", lambda: fit(source, guess, camera, p, settings, run))
    clean = run.stage("clean", lambda: tidy(shape, settings))
    textured = run.stage("texture", lambda: paint(source, colours_of(guess, camera, p), clean, camera, settings.texture))
    losses = {k: round(float(v), 6) for k, v in zip(LOSSES, shape["losses"], strict=True)}
    return finished(textured, clean, camera, {"elevation_deg": round(math.degrees(e), 2), "perspective": round(p, 4), "losses": losses})


def view_of(guess: Tensors, azimuth: float, elevation: float | None) -> tuple[Camera, float, float]:
    """The picture's camera (512 pixels a side), elevation in radians and perspective p, as guessed or as given."""
    e, p = (float(x) for x in guess["view"])
    e = min(max(e, math.radians(-20)), math.radians(75)) if elevation is None else elevation
    p = min(max(p, 0.05), 1.2)
    return frustum_camera(azimuth, e, p, 512), e, p


def finished(textured: Tensors, clean: Tensors, camera: Camera, measured: dict[str, Any]) -> Lifted:
    """The last stage's tensors as a mesh, and the picture's camera in its frame."""
    mesh = Mesh(textured["vertices"], textured["faces"], textured["normals"], textured["uv"], textured["texture"], textured["confidence"])
    centre, scale = clean["centre"].double(), float(clean["scale"])
    c2w = torch.cat([camera.c2w[:, :, :3], ((camera.c2w[:, :, 3] - centre) * scale)[..., None]], -1)
    return Lifted(mesh, replace(camera, c2w=c2w), measured)


# ---- 1. guess ----


def predict(source: Source, prior: FirstGuess) -> Tensors:
    """Occupancy logits (D, h, w), colours (3, d, h', w') and (elevation, p): the mean over the scales it was trained at, and mirrors.

    The coarser scale knows the whole better, the finer one the edges; the table is in docs/benchmarks.md.
    """
    device = next(prior.parameters()).device
    cells = SCALES[-1] // 2
    answers = []
    for size in SCALES:
        crop = image.crop(source.rgb, source.alpha, size)
        picture = torch.cat([crop.rgb, crop.alpha[..., None]], -1).permute(2, 0, 1)[None]
        with torch.no_grad():
            guess = prior(torch.cat([picture, picture.flip(-1)]).to(device))
        occupancy, colour = (((x[0] + x[1].flip(-1)) / 2).float().cpu() for x in (guess.occupancy, guess.colour))
        occupancy = F.interpolate(occupancy[None], (cells, cells), mode="bilinear")[0]
        colour = F.interpolate(colour, (cells // 2, cells // 2), mode="bilinear")
        answers.append((occupancy, colour, guess.view.float().cpu().mean(0)))
    occupancy, colour, view = (torch.stack(x).mean(0) for x in zip(*answers, strict=True))
    coverage = F.avg_pool2d(picture[:, 3:], 2)[0]
    return {"occupancy": solid(occupancy, coverage), "colour": colour, "view": view, "coverage": coverage}


def occupancy_at(occupancy: Tensor, points: Tensor, camera: Camera, p: float) -> Tensor:
    """Logits (N,) of a frustum grid (D, h, w) at world points (N, 3), trilinear; EMPTY outside."""
    u, v, t = to_frustum(points, camera, p).unbind(-1)
    where = torch.stack([2 * u - 1, 2 * v - 1, t / DEPTH_RANGE], -1)
    values = F.grid_sample((occupancy - EMPTY)[None, None], where[None, :, None, None].to(occupancy), align_corners=False)
    return values.reshape(-1) + EMPTY


# ---- 2. shape ----

LOSSES = ("mask", "keep", "smooth", "sign")


def fit(source: Source, guess: Tensors, camera: Camera, p: float, settings: Guess, run: Run) -> Tensors:
    """The surface that meets the picture: vertices, faces, the last losses, and the DMTet's own state as `dmtet.*`."""
    h = 1 / settings.cells
    target = image.crop(source.rgb, source.alpha, settings.picture)
    weights = torch.tensor([settings.mask_weight, settings.keep_weight, settings.smooth_weight, settings.sign_weight])
    half, losses, first = settings.steps // 2, torch.zeros(len(LOSSES)), 0
    kept = run.restore("shape")
    if kept is None:
        shape = _start(guess["occupancy"], camera, p, h)
        start = shape.sdf.detach().clone()
    else:
        first, start = int(kept.pop("step")), kept.pop("start")
        old = {k: kept.pop(k) for k in list(kept) if k.startswith("adam.")}
        shape = DMTet.from_state(kept)
    optimiser = torch.optim.Adam([{"params": [shape.sdf]}, {"params": [shape.offset]}])
    if kept is not None:
        load_moments(optimiser, old)
    for step in range(first, settings.steps):
        if run.must_stop():
            break
        if step % 25 == 0 and step > first:
            run.checkpoint("shape", {**shape.state_dict(), "start": start, "step": torch.tensor(step), **moments(optimiser)})
        if step == half:
            start = start[shape.subdivide()].mean(1)
            optimiser = torch.optim.Adam([{"params": [shape.sdf]}, {"params": [shape.offset]}])
        # Distances move by a share of a grid cell, offsets by a share of their reach; both calm down.
        fall = settings.lr * 0.2 ** (step / settings.steps)
        for group, unit in zip(optimiser.param_groups, (shape.grid.spacing, 1.0), strict=True):
            group["lr"] = fall * unit
        optimiser.zero_grad()
        losses = _losses(shape, start, target, camera, settings.picture if step >= half else settings.picture // 2)
        total = (weights * losses).sum()
        if not torch.isfinite(total):
            raise FloatingPointError(f"stage shape, step {step}: the loss is {float(total)}")
        total.backward()
        optimiser.step()
        shape.recover()
        run.progress("shape", (step + 1) / settings.steps)
    with torch.no_grad():
        vertices, faces = shape.surface()
    field = {f"dmtet.{k}": v for k, v in shape.state_dict().items()}
    return {"vertices": vertices.float(), "faces": faces, "losses": losses.detach(), **field}


def moments(optimiser: torch.optim.Optimizer) -> Tensors:
    """What an optimiser remembers, as named tensors for a checkpoint; `load_moments` is its inverse."""
    rows = optimiser.state_dict()["state"]
    return {f"adam.{i}.{k}": v for i, row in rows.items() for k, v in row.items()}


def load_moments(optimiser: torch.optim.Optimizer, kept: Tensors) -> None:
    state = optimiser.state_dict()
    for name, value in kept.items():
        _, i, k = name.split(".")
        state["state"].setdefault(int(i), {})[k] = value
    optimiser.load_state_dict(state)


def _losses(shape: DMTet, start: Tensor, target: image.Crop, camera: Camera, size: int) -> Tensor:
    vertices, faces = shape.surface()
    view = camera.resized(size)
    clip = view.clip(vertices)
    rast = rasterize(clip, faces, view.size)
    mask = (rast[..., 3:] > 0).to(vertices)
    alpha = antialias(mask, rast, clip, faces)[0, ..., 0]
    wanted = F.adaptive_avg_pool2d(target.alpha[None, None], size)[0, 0]
    keep = ((shape.sdf - start) / shape.grid.spacing).square().mean()
    return torch.stack([(alpha - wanted).square().mean(), keep, normal_consistency(vertices, faces), shape.sign_loss()])


def rough_surface(guess: Tensors, camera: Camera, p: float, h: float = 1 / 40) -> tuple[Tensor, Tensor] | None:
    """The guess as it is, unfitted: vertices (N, 3) and faces (F, 3) of the crop's frame, or None where nothing is solid."""
    with torch.no_grad():
        vertices, faces = _start(guess["occupancy"], camera, p, h).surface()
    return (vertices.float(), faces) if len(faces) else None


def _start(occupancy: Tensor, camera: Camera, p: float, h: float) -> DMTet:
    """The guess as a DMTet, on a grid of spacing h round all that may be solid; where nothing is, a ball to begin with."""
    full = occupancy > -1.5
    if not full.any():
        full = occupancy >= occupancy.max()
    d, height, width = occupancy.shape
    k, j, i = full.nonzero().T.float()
    where = torch.stack([(i + 0.5) / width, (j + 0.5) / height, ((k + 0.5) / d * 2 - 1) * DEPTH_RANGE], -1)
    points = from_frustum(where, camera, p)
    low = points.amin(0) - 2.5 * h  # two cells to spare
    nx, ny, nz = (int(n) for n in torch.ceil((points.amax(0) + 2.5 * h - low) / h))
    counts = (nx, ny, nz)
    lower, upper = low.tolist(), (low + h * torch.tensor(counts)).tolist()
    try:
        return DMTet.from_occupancy(lambda x: occupancy_at(occupancy, x, camera, p), counts, lower, upper)
    except EmptySurface:
        return DMTet.from_sphere(0.3, counts, lower, upper, [(a + b) / 2 for a, b in zip(lower, upper, strict=True)])


# ---- 3. clean ----


def tidy(shape: Tensors, settings: Guess) -> Tensors:
    """Floaters off, decimated, box centred, longest side 1; and the centre and scale that did it."""
    mesh = remove_floaters(Mesh(shape["vertices"], shape["faces"]))
    mesh = replace(mesh, vertices=taubin(mesh.vertices, mesh.faces, 6))
    mesh = decimate(mesh, settings.faces)
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    centre, scale = (low + high) / 2, 1 / (high - low).max()
    return {"vertices": (mesh.vertices - centre) * scale, "faces": mesh.faces, "centre": centre, "scale": scale}


# ---- 4. texture ----


def colours_of(guess: Tensors, camera: Camera, p: float) -> Colours:
    """The colours that the first guess has for what no picture shows."""
    return lambda x, n: colour_at(guess["colour"][None], to_frustum(x, camera, p)[None].float())[0]
