# SPDX-License-Identifier: Apache-2.0
"""Recipe `zero123`: the first guess, then what Zero-1-to-3 (arXiv:2303.11328) finds likely from every other side.

1. guess     the solid behind the picture, and a DMTet that meets its silhouette: recipe `guess`
2. distill   shape and colours moved by score distillation (arXiv:2209.14988) in views round the object, each under the picture
             and its relative pose, while the picture's own view is held to the picture. Views begin near the picture's and
             spread; halfway the grid is subdivided, and in the last third only colours move
3. clean, texture as there, hidden texels from the distilled colours

Distillation settings are threestudio's for Zero-1-to-3 (levels, guidance 3, weights of distillation and colours); its NeRF is an SDF on
DMTet's grid with a grid of colours here, which needs a few hundred steps instead of thousands, as the guess has done the rest. The
mask weighs ten times what it does there: a mesh's outline has a gradient at its edge alone. Views end at 60 degrees, not at 80. The
picture's losses are means over pixels, the distillation's a sum over latents, as there: its weight is meant for 32 x 32 x 4 of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bozzetto import image
from bozzetto.camera import Camera
from bozzetto.diffusion.guidance import classifier_free
from bozzetto.distill.sds import Levels, Schedule, sds
from bozzetto.frustum import frustum_camera
from bozzetto.priors.first_guess import FirstGuess
from bozzetto.priors.prior import Prior
from bozzetto.recipes import guess as first
from bozzetto.recipes.asset import Source
from bozzetto.recipes.novel_views import Framed
from bozzetto.recipes.paint import paint
from bozzetto.recipes.run import Run, Tensors
from bozzetto.recipes.settings import Within
from bozzetto.render.mesh import render_surface
from bozzetto.shapes.dmtet import DMTet, area_normals, normal_consistency
from bozzetto.shapes.uniform_adam import UniformAdam
from bozzetto.views import Views

FIRST = first.Guess(steps=60)
SHOWN = 512  # pixels a side at which the prior is shown the picture; it resizes to its own


def levels_of(steps: int) -> Levels:
    """threestudio's: falling over the first third of the steps (200 of 600)."""
    return Levels(Schedule(0.4, 0.2, 0, steps // 3), Schedule(0.85, 0.5, 0, steps // 3))


@dataclass(frozen=True)
class Zero123:
    """Lift by the first guess and distillation."""

    guess: first.Guess = FIRST
    """of the first stage, the clean mesh and its texture"""
    steps: Annotated[int, Within(1, 100_000)] = 300
    """of distillation"""
    views: Annotated[int, Within(1, 64)] = 2
    """distilled a step"""
    picture: Annotated[int, Within(32, 1024)] = 128
    """pixels a side of what is rendered; the prior resizes it to its own"""
    guidance: Annotated[float, Within(-100, 100)] = 3.0
    """1 follows the picture, more does so harder"""
    levels: Levels = field(default_factory=lambda: levels_of(300))
    lowest_deg: Annotated[float, Within(-90, 90)] = -10.0
    """least elevation of the distilled views"""
    highest_deg: Annotated[float, Within(-90, 90)] = 60.0
    """greatest elevation of the distilled views"""
    near_deg: Annotated[float, Within(0, 180)] = 60.0
    """azimuth of the first views, either side of the picture's; after two fifths of the steps they come from all round"""
    lr: Annotated[float, Within(0, 1)] = 0.5
    """largest step of a distance, in grid cells"""
    colour_lr: Annotated[float, Within(0, 10)] = 0.05
    """step of the colours' logits"""
    colours: Annotated[int, Within(2, 256)] = 64
    """cells a side of the grid of colours"""
    distill_weight: Annotated[float, Within(0, 1e6)] = 0.1
    """what the prior finds likely, summed over latents"""
    rgb_weight: Annotated[float, Within(0, 1e6)] = 500.0
    """the picture's colours, mean squared difference"""
    mask_weight: Annotated[float, Within(0, 1e6)] = 500.0
    """the picture's silhouette, mean squared difference"""
    keep_weight: Annotated[float, Within(0, 1e6)] = 0.02
    """how much the field stays with the guess, squared grid cells"""
    smooth_weight: Annotated[float, Within(0, 1e6)] = 1.0
    """normals of neighbouring vertices alike"""
    sign_weight: Annotated[float, Within(0, 1e6)] = 0.01
    """against floating bits and cavities"""
    still: Annotated[float, Within(0, 1)] = 0.67
    """share of the steps after which the shape stays as it is"""


PRESETS = {
    "draft": Zero123(guess=first.PRESETS["draft"], steps=60, levels=levels_of(60)),
    "standard": Zero123(),
    "fine": Zero123(guess=replace(first.PRESETS["fine"], steps=100), steps=800, levels=levels_of(800), views=4, picture=256, colours=128),
}
LOSSES = ("rgb", "mask", "keep", "smooth", "sign")


class ColourGrid(nn.Module):
    """sRGB colours over a box, trilinear: `grid(points)`.

    logits        (3, n, n, n), z first; the sigmoid keeps colours in (0, 1)
    lower, upper  (3,), the box; points outside take the border's colour
    """

    lower: Tensor
    upper: Tensor

    def __init__(self, logits: Tensor, lower: Tensor, upper: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits.clone())
        self.register_buffer("lower", lower)
        self.register_buffer("upper", upper)

    @classmethod
    def of(cls, colours: first.Colours, lower: Tensor, upper: Tensor, n: int) -> ColourGrid:
        """The grid that agrees with a function at its cells' centres."""
        centres = (torch.arange(n) + 0.5) / n
        z, y, x = torch.meshgrid(centres, centres, centres, indexing="ij")
        at = lower + (upper - lower) * torch.stack([x, y, z], -1).reshape(-1, 3).to(lower)
        made = colours(at, torch.zeros_like(at)).clamp(0.01, 0.99)
        return cls(torch.logit(made).T.reshape(3, n, n, n).float(), lower.float(), upper.float())

    def forward(self, points: Tensor) -> Tensor:
        """Points (N, 3) to sRGB (N, 3)."""
        where = 2 * (points - self.lower) / (self.upper - self.lower) - 1
        found = F.grid_sample(self.logits[None], where[None, :, None, None].to(self.logits), align_corners=False, padding_mode="border")
        return torch.sigmoid(found[0, :, :, 0, 0].T)


def lift(
    source: Source,
    network: FirstGuess,
    prior: Prior,
    settings: Zero123,
    run: Run,
    *,
    azimuth: float = 0.0,
    elevation: float | None = None,
    seed: int = 0,
) -> first.Lifted:
    """Picture to textured mesh; azimuth and elevation of the picture in radians, None to take the network's estimate."""
    guess = run.stage("guess", lambda: first.predict(source, network))
    camera, e, p = first.view_of(guess, azimuth, elevation)
    shape = run.stage("shape", lambda: first.fit(source, guess, camera, p, settings.guess, run))
    made = run.stage("distill", lambda: distill(source, guess, shape, prior, (azimuth, e, p), settings, run, seed))
    clean = run.stage("clean", lambda: first.tidy(made, settings.guess))
    grid = ColourGrid(made["colour.logits"], made["colour.lower"], made["colour.upper"]).requires_grad_(False)
    textured = run.stage("texture", lambda: paint(source, lambda x, n: grid(x), clean, camera, settings.guess.texture, drawn=True))
    losses = {k: round(float(v), 6) for k, v in zip(LOSSES, made["losses"], strict=True)}
    measured: dict[str, Any] = {"elevation_deg": round(math.degrees(e), 2), "perspective": round(p, 4), "losses": losses}
    return first.finished(textured, clean, camera, measured)


def distill(
    source: Source,
    guess: Tensors,
    shape: Tensors,
    prior: Prior,
    view: tuple[float, float, float],
    settings: Zero123,
    run: Run,
    seed: int,
) -> Tensors:
    """The surface and the colours that the prior and the picture agree on; view is (azimuth, elevation, p) of the picture."""
    azimuth, elevation, p = view
    size = settings.picture
    camera = frustum_camera(azimuth, elevation, p, size)
    crop = image.crop(source.rgb, source.alpha, size)
    guessed = first.colours_of(guess, camera.resized(512), p)
    framed = Framed.of(source, camera.resized(512), shape["vertices"], shape["faces"], SHOWN)  # as the prior's pictures show objects
    seen = prior.encode_reference(framed.reference(prior.background))
    guided = classifier_free(prior.denoiser, prior.condition(), settings.guidance)
    dmtet = DMTet.from_state(_named("dmtet", shape))
    start = dmtet.sdf.detach().clone()
    lower, upper = shape["vertices"].amin(0), shape["vertices"].amax(0)
    margin = 0.1 * (upper - lower).max()
    colours = ColourGrid.of(guessed, lower - margin, upper + margin, settings.colours)
    generator = torch.Generator().manual_seed(seed)
    bend, tint = _optimisers(dmtet, colours)
    step, losses = 0, torch.zeros(len(LOSSES))
    kept = run.restore("distill")
    if kept is not None:
        step, start = int(kept["step"]), kept["start"]
        dmtet = DMTet.from_state(_named("dmtet", kept))
        colours.logits.data.copy_(kept["colour"])
        generator.set_state(kept["generator"])
        bend, tint = _optimisers(dmtet, colours)
        first.load_moments(bend, _named("bend", kept))
        first.load_moments(tint, _named("tint", kept))
    weights = torch.tensor([getattr(settings, f"{k}_weight") for k in LOSSES])
    begun = step
    while step < settings.steps and not run.must_stop():
        if step % 25 == 0 and step > begun:
            parts = {"dmtet": dmtet.state_dict(), "bend": first.moments(bend), "tint": first.moments(tint)}
            now = {"colour": colours.logits, "generator": generator.get_state(), "start": start, "step": torch.tensor(step)}
            run.checkpoint("distill", {**now, **{f"{part}.{k}": v for part, x in parts.items() for k, v in x.items()}})
        if step == settings.steps // 2:  # a checkpoint of this very step was taken before it
            start = start[dmtet.subdivide()].mean(1)
            bend, tint = _optimisers(dmtet, colours)
        moves = step < settings.still * settings.steps
        bend.param_groups[0]["lr"], tint.param_groups[0]["lr"] = settings.lr * dmtet.grid.spacing, settings.colour_lr
        bend.zero_grad()
        tint.zero_grad()
        cameras = framed.cameras(*_around(framed.azimuth, step / settings.steps, settings, generator)).resized(size)
        vertices, faces = dmtet.surface()
        if not moves:
            vertices = vertices.detach()
        drawn = render_surface(
            vertices, faces, area_normals(vertices, faces), _joined(camera, framed.placed(cameras)), lambda x, n: colours(x)
        )
        losses = _losses(drawn, crop, dmtet, start, vertices, faces)
        x0 = prior.encode(drawn[1:])
        sigma = settings.levels.draw(guided, settings.views, step, generator=generator)
        cond = prior.condition(seen, cameras, hint=lambda c: framed.hint(c, guessed))
        pull = sds(guided, x0, sigma, cond, generator=generator)
        total = (weights * losses).sum() + settings.distill_weight * pull.to(losses)
        if not torch.isfinite(total):
            raise FloatingPointError(f"stage distill, step {step}: the loss is {float(total)}")
        total.backward()
        if moves:  # the surface as one: only its rim has a gradient in each view
            dmtet.smooth_gradients(5)
            bend.step()
            dmtet.recover()
        tint.step()
        step += 1
        run.progress("distill", step / settings.steps)
    with torch.no_grad():
        vertices, faces = dmtet.surface()
    kept_colours = {f"colour.{k}": v for k, v in colours.state_dict().items()}
    return {"vertices": vertices.float(), "faces": faces, "losses": losses.detach(), **kept_colours}


def _optimisers(dmtet: DMTet, colours: ColourGrid) -> tuple[UniformAdam, torch.optim.Adam]:
    """Of the SDF, whose step must be as smooth as its gradient, and of the colours. Vertices of the grid stay where they are."""
    dmtet.offset.requires_grad_(False)
    return UniformAdam([dmtet.sdf]), torch.optim.Adam([colours.logits], betas=(0.9, 0.99))


def _named(prefix: str, tensors: Tensors) -> Tensors:
    """Those whose name begins so, without it."""
    return {k.removeprefix(f"{prefix}."): v for k, v in tensors.items() if k.startswith(f"{prefix}.")}


def _around(azimuth: float, share: float, settings: Zero123, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Azimuths and elevations to distil after a share of the steps: evenly over azimuths, which spread from the picture's, and over
    the sine of elevations. Distances are the picture's: no pose code has a change of distance."""
    u = torch.rand(2, settings.views, generator=generator, dtype=torch.float64)
    reach = math.radians(settings.near_deg + (180 - settings.near_deg) * min(share / 0.4, 1.0))
    low, high = (math.sin(math.radians(x)) for x in (settings.lowest_deg, settings.highest_deg))
    return azimuth + reach * (2 * u[0] - 1), torch.asin(low + (high - low) * u[1])


def _joined(a: Camera, b: Camera) -> Camera:
    return replace(a, c2w=torch.cat([a.c2w, b.c2w]), K=torch.cat([a.K, b.K]))


def _losses(drawn: Views, crop: image.Crop, dmtet: DMTet, start: Tensor, vertices: Tensor, faces: Tensor) -> Tensor:
    """The picture's view held to the picture, and the shape's own regularisers, in the order of LOSSES."""
    rgb, alpha = drawn.rgb[0], drawn.alpha[0, ..., 0]
    shown = ((rgb - crop.rgb).square() * crop.alpha[..., None]).mean()
    keep = ((dmtet.sdf - start) / dmtet.grid.spacing).square().mean()
    return torch.stack([shown, (alpha - crop.alpha).square().mean(), keep, normal_consistency(vertices, faces), dmtet.sign_loss()])
