# SPDX-License-Identifier: Apache-2.0
"""A lift through Gaussians instead of a DMTet: `bozzetto lift --shape gaussians`.

1. guess    the solid behind the picture: recipe `guess`
2. shape    a flat Gaussian on each vertex of the guess's surface, in the picture's colours where it shows it, else in the guess's;
            each step they are drawn from the picture's camera and held to the picture (colours and mask), and from one of many cameras
            all round and held to the guess, so coloured (colours, mask, depth)
3. fuse     their depths, seen from those cameras, become one closed surface: `bozzetto mesh`'s own code
4. clean, texture  as in `guess`

Tang et al. 2023, DreamGaussian (arXiv:2309.16653): a few hundred steps on Gaussians, its learning rates, then a mesh whose texture is
made afterwards. Differs: the hidden side comes from the first guess, not from score distillation, so the Gaussians begin on its surface
and neither multiply nor vanish; the mesh comes from fused depths, not from the density; harmonics stay at degree 0, as there.
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
from bozzetto.errors import InputError
from bozzetto.mesh import vertex_normals
from bozzetto.priors.first_guess import FirstGuess
from bozzetto.priors.hint import carried
from bozzetto.recipes import guess as first
from bozzetto.recipes.asset import SPLAT, Source
from bozzetto.recipes.paint import paint
from bozzetto.recipes.run import Run, Tensors
from bozzetto.recipes.settings import Unused, Within
from bozzetto.recipes.splat import gaussians_of, order_of, tensors_of
from bozzetto.recipes.splat_mesh import SplatMesh, look, sphere, surface
from bozzetto.render.clean import taubin
from bozzetto.render.mesh import render_surface
from bozzetto.shapes.gaussians import ADAM_EPS, Gaussians
from bozzetto.shapes.splat_files import to_ply
from bozzetto.views import Views

RATES = {"means": 1e-3, "log_scales": 5e-3, "quats": 5e-3, "logit_opacities": 5e-2, "sh0": 1e-2}  # DreamGaussian's
FINAL_MEANS = 2e-5  # as there: the rate falls log-linearly from the one to the other
FIRST_OPACITY = 0.9  # they are a surface already
UNUSED = ("steps", "picture", "lr", "mask_weight", "keep_weight", "smooth_weight", "sign_weight")  # of `guess`
SMOOTH = 20  # rounds: fused depths are as rough as their pixels, which a DMTet's field is not
FLAT = 0.2  # thickness of a Gaussian, over its width
LOSSES = ("rgb", "mask", "guess_rgb", "guess_mask", "guess_depth", "keep")


@dataclass(frozen=True)
class FromGaussians:
    """Lift by the first guess, as Gaussians."""

    guess: Annotated[first.Guess, Unused(*UNUSED)] = first.PRESETS["standard"]
    """of the clean mesh and its texture; `cells` is that of the surface on whose vertices Gaussians begin"""
    steps: Annotated[int, Within(1, 100_000)] = 300
    """optimisation steps; DreamGaussian takes 500"""
    picture: Annotated[int, Within(32, 1024)] = 256
    """pixels a side of the view that is matched"""
    around: Annotated[int, Within(32, 1024)] = 160
    """pixels a side of the views that are held to the guess"""
    rgb_weight: Annotated[float, Within(0, 1e6)] = 1.0
    """the picture's colours, mean absolute difference"""
    mask_weight: Annotated[float, Within(0, 1e6)] = 4.0
    """the picture's silhouette, mean squared difference"""
    guess_rgb_weight: Annotated[float, Within(0, 1e6)] = 0.2
    """the guess's colours from all round"""
    guess_mask_weight: Annotated[float, Within(0, 1e6)] = 1.0
    """the guess's silhouettes"""
    guess_depth_weight: Annotated[float, Within(0, 1e6)] = 1.0
    """the guess's depths, mean absolute difference in crop widths"""
    keep_weight: Annotated[float, Within(0, 1e6)] = 0.02
    """how much the Gaussians stay where they began, squared grid cells"""
    mesh: Annotated[SplatMesh, Unused("faces", "texture", "floater")] = field(
        default_factory=lambda: SplatMesh(cells=112, views=40, picture=288)
    )
    """lattice and views of the fused surface"""
    front: Annotated[int, Within(0, 100)] = 4
    """how many views the picture's own counts as when depths are fused: its outline is known"""


PRESETS = {
    "draft": FromGaussians(
        guess=first.PRESETS["draft"], steps=120, picture=192, around=128, mesh=SplatMesh(cells=80, views=28, picture=192)
    ),
    "standard": FromGaussians(),
    "fine": FromGaussians(
        guess=first.PRESETS["fine"], steps=500, picture=384, around=224, mesh=SplatMesh(cells=144, views=56, picture=384)
    ),
}


def lift(
    source: Source,
    network: FirstGuess,
    settings: FromGaussians,
    run: Run,
    *,
    azimuth: float = 0.0,
    elevation: float | None = None,
    seed: int = 0,
) -> first.Lifted:
    """Picture to textured mesh, and the Gaussians themselves as SPLAT; azimuth and elevation of the picture in radians, None to take
    the network's estimate."""
    guess = run.stage("guess", lambda: first.predict(source, network))
    camera, e, p = first.view_of(guess, azimuth, elevation)
    colours = first.colours_of(guess, camera, p)
    made = run.stage("shape", lambda: fit(source, guess, camera, p, settings, run, seed))
    g = gaussians_of(made)
    fused = run.stage("fuse", lambda: fuse(g, camera, settings, run))
    clean = run.stage("clean", lambda: first.tidy(fused, settings.guess))
    textured = run.stage("texture", lambda: paint(source, colours, clean, camera, settings.guess.texture))
    losses = {k: round(float(v), 6) for k, v in zip(LOSSES, made["losses"], strict=True)}
    measured: dict[str, Any] = {"elevation_deg": round(math.degrees(e), 2), "perspective": round(p, 4), "losses": losses}
    lifted = first.finished(textured, clean, camera, {**measured, "gaussians": len(g)})
    return replace(lifted, files={SPLAT: to_ply(moved(g, clean["centre"], float(clean["scale"])))})


# ---- shape ----


def begin(vertices: Tensor, faces: Tensor, colours: first.Colours) -> Gaussians:
    """A disc on each vertex (N, 3), across the surface's normal, all as wide as their mean spacing."""
    normals = vertex_normals(vertices, faces)
    corners = vertices[faces]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1).sum() / 2
    g = Gaussians.from_points(vertices, colours(vertices, normals).clamp(0, 1))
    width = float((area / len(vertices)).sqrt())
    up = normals * torch.where(normals[:, 2:] < 0, -1.0, 1.0)  # a disc has two like sides; this one's half-way vector to z has a length
    with torch.no_grad():
        g.log_scales[:] = torch.tensor([width, width, FLAT * width]).log()
        g.quats[:] = F.normalize(torch.stack([1 + up[:, 2], -up[:, 1], up[:, 0], torch.zeros(len(up))], 1), dim=1)
        g.logit_opacities.fill_(math.log(FIRST_OPACITY / (1 - FIRST_OPACITY)))
    g.degree = 0
    return g


def fit(source: Source, guess: Tensors, camera: Camera, p: float, settings: FromGaussians, run: Run, seed: int) -> Tensors:
    """Gaussians that look like the picture from its side and like the guess from the others, by name, and the last losses.

    raises  InputError where the guess has nothing solid
    """
    h = 1 / settings.guess.cells
    rough = first.rough_surface(guess, camera, p, h)
    if rough is None:
        raise InputError(f"{source.name}: the first guess has nothing solid here; use --shape mesh")
    whole = image.crop(source.rgb, source.alpha, camera.size[0])  # what the picture shows of the guess keeps its colours all round
    known = carried(whole.rgb, whole.alpha, camera, *rough, first.colours_of(guess, camera, p))

    def colours(points: Tensor, normals: Tensor) -> Tensor:
        return known(points, normals)[0]

    g = begin(*rough, colours)
    home = g.means.detach().clone()
    cameras = sphere(g, replace(settings.mesh, picture=settings.around))
    targets = render_surface(*rough, vertex_normals(*rough), cameras, colours)
    crop = image.crop(source.rgb, source.alpha, settings.picture)
    view = camera.resized(settings.picture)
    weights = torch.tensor([getattr(settings, f"{k}_weight") for k in LOSSES])
    step, losses = 0, torch.zeros(len(LOSSES))
    kept = run.restore("shape")
    if kept is not None:
        g, step = gaussians_of(kept), int(kept["step"])
        g.degree = 0
    optimiser = torch.optim.Adam([{"params": [getattr(g, k)], "lr": v, "name": k} for k, v in RATES.items()], eps=ADAM_EPS)
    if kept is not None:
        first.load_moments(optimiser, {k: v for k, v in kept.items() if k.startswith("adam.")})
    begun = step
    while step < settings.steps and not run.must_stop():
        if step % 25 == 0 and step > begun:
            run.checkpoint("shape", {**tensors_of(g), "step": torch.tensor(step), **first.moments(optimiser)})
        optimiser.param_groups[0]["lr"] = RATES["means"] * (FINAL_MEANS / RATES["means"]) ** (step / settings.steps)
        optimiser.zero_grad()
        n = len(cameras)
        k = order_of(n, step // n, seed % 2**31)[step % n]
        losses = torch.stack([*_shown(g, crop, view), *_guessed(g, targets, k), ((g.means - home) / h).square().mean()])
        total = (weights * losses).sum()
        if not torch.isfinite(total):
            raise FloatingPointError(f"stage shape, step {step}: the loss is {float(total)}")
        total.backward()
        optimiser.step()
        step += 1
        run.progress("shape", step / settings.steps)
    return {**tensors_of(g), "losses": losses.detach()}


def _shown(g: Gaussians, crop: image.Crop, view: Camera) -> tuple[Tensor, Tensor]:
    """The picture's view held to the picture: premultiplied colours, so that no background is chosen, and coverage."""
    drawn = g.draw(view)
    return (drawn.rgb[0] - crop.rgb).abs().mean(), (drawn.alpha[0, ..., 0] - crop.alpha).square().mean()


def _guessed(g: Gaussians, targets: Views, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k-th view all round held to the guess; depths in object units, where both have something."""
    drawn = g.draw(targets.cameras[k], geometry=True)
    assert drawn.depth is not None
    both = (targets.alpha[k] > 0.99) & (drawn.alpha[0].detach() > 0.5)
    off = torch.where(both, (drawn.depth[0] - targets.depth[k]).abs(), 0).mean()
    return (drawn.rgb[0] - targets.rgb[k]).abs().mean(), (drawn.alpha[0] - targets.alpha[k]).square().mean(), off


def fuse(g: Gaussians, camera: Camera, settings: FromGaussians, run: Run) -> Tensors:
    """Vertices (N, 3) and faces (F, 3) of what the Gaussians are from all round and from the picture's side."""
    around = sphere(g, settings.mesh)
    own = camera.resized(settings.mesh.picture)
    times = settings.front
    cameras = replace(around, c2w=torch.cat([around.c2w, own.c2w.repeat(times, 1, 1)]), K=torch.cat([around.K, own.K.repeat(times, 1, 1)]))
    looks = look(g, cameras, lambda share: run.progress("fuse", share), median=False)  # a median is one disc's: stairs where it is slanted
    vertices, faces = surface(looks, settings.mesh, is_object=True)
    return {"vertices": taubin(vertices.float(), faces, SMOOTH), "faces": faces}


def moved(g: Gaussians, centre: Tensor, scale: float) -> Gaussians:
    """x -> (x - centre) scale, as the mesh was."""
    t = tensors_of(g)
    return gaussians_of({**t, "means": (t["means"] - centre) * scale, "log_scales": t["log_scales"] + math.log(scale)})
