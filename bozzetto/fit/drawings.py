# SPDX-License-Identifier: Apache-2.0
"""Views of an object sampled from a prior, and what is read off them: outlines, colours, and how far each is to be trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.brief import brief
from bozzetto.camera import Camera
from bozzetto.fit.clean import Clean
from bozzetto.fit.framed import Framed
from bozzetto.fit.run import Progress
from bozzetto.fit.settings import Within
from bozzetto.fit.solid import Colours, Solid
from bozzetto.frustum import cell_centres
from bozzetto.mesh import Mesh, vertex_normals
from bozzetto.priors.plan import Asked
from bozzetto.priors.prior import Condition, Prior
from bozzetto.priors.sampling import Sampler, sample
from bozzetto.priors.solid import WIRE, agree_with_silhouette, width_of
from bozzetto.render.bake import blend, seen
from bozzetto.render.mesh import render_mesh

PAPER, INK = 0.985, 0.93  # drawn pixels above the one in all colours are background, those below the other in any are object


@dataclass(frozen=True)
class Drawing:
    """How views are drawn."""

    steps: Annotated[int | None, Within(1, 1000)] = None
    """of the sampler, a view; None is what the prior wants: 50, the released demo's, or 8 for the embedded prior, which more do not
    improve"""
    guidance: Annotated[float | None, Within(-100, 100)] = None
    """None is the prior's: 3, the paper's, or 1 for the embedded prior, whose colours a stronger one burns"""
    eta: Annotated[float | None, Within(0, 1)] = None
    """noise drawn anew at each step: 0 draws none; None is the prior's: 1, the released demo's, or 0.3 for the embedded one"""
    batch: Annotated[int, Within(1, 1024)] = 4
    """views sampled together"""

    def sampler(self, prior: Prior) -> Sampler:
        """What is set, and for the rest what suits the prior."""
        own = prior.sampler
        return own._replace(**{name: value for name in own._fields if (value := getattr(self, name, None)) is not None})

    def asked(self, prior: Prior, count: int) -> Asked:
        """What so many views ask of a prior."""
        steps, guidance, *_ = self.sampler(prior)
        return Asked(count * steps * (1 if guidance == 1 else 2), min(self.batch, count), decoded=count)


@torch.no_grad()
def sample_views(
    prior: Prior,
    condition: Callable[[list[int]], Condition],
    count: int,
    settings: Drawing,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tensor:
    """`count` pictures (V, H, W, 3), sRGB in [0, 1], sampled independently; view k has its own generator, seeded seed + k. Of a joint
    prior `count` groups of pictures.

    condition  the prior's condition for a batch of views, by their indices
    """
    sampler, made = settings.sampler(prior), []
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
    settings: Drawing,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tensor:
    """Pictures (V, H, W, 3) from cameras relative to the object's centre; under a hint, where the prior uses one.

    Of a joint prior as many objects' worth as there are cameras, and `settings.batch` counts those.
    """
    with torch.no_grad():
        seen_as = prior.encode_reference(framed.reference(prior.background))
        whole = prior.condition(seen_as, cameras, hint=framed.hinting(guessed))
    together = prior.shape[0] if len(prior.shape) == 4 else 1

    def some(samples: list[int]) -> Condition:
        return {k: v if len(v) == 1 else v[samples] for k, v in whole.items()}

    return sample_views(prior, some, len(cameras) // together, settings, seed, progress)


def draw_own(framed: Framed, prior: Prior, settings: Drawing, *, seed: int = 0, progress: Progress | None = None) -> Tensor:
    """Pictures (V, H, W, 3) of a joint prior that has cameras of its own: one sample, from `framed.own(prior)`."""
    reference = framed.reference(prior.background, framed.longest)
    with torch.no_grad():
        cond = prior.condition(prior.encode_reference(reference), prior.views(reference))
    return sample_views(prior, lambda _: cond, 1, settings, seed, progress)


@brief
@dataclass(frozen=True)
class Drawings:
    """pictures (V, H, W, 3) sRGB over the prior's background; alpha and trust (V, H, W) in [0, 1]."""

    pictures: Tensor
    alpha: Tensor
    trust: Tensor

    @classmethod
    def of(cls, samples: Tensor, background: float) -> Drawings:
        """The mean of samples (S, V, H, W, 3), trusted where they agree."""
        alphas = torch.stack([coverage(x, background) for x in samples])
        pictures = samples.mean(0)
        trust = 1 - (alphas.amax(0) - alphas.amin(0))
        return cls(pictures, alphas.mean(0), trust * trust_in_colours(pictures, background))


def coverage(pictures: Tensor, background: float) -> Tensor:
    """How far pixels (V, H, W) of pictures (V, H, W, 3) differ from the background: 0 is paper, 1 is object."""
    off = (pictures - background).abs().amax(-1)
    low, high = 1 - PAPER, 1 - INK
    return ((off - low) / (high - low)).clamp(0, 1)


def trust_in_colours(pictures: Tensor, background: float) -> Tensor:
    """Trust (V, 1, 1) in outlines read off colours: a pale object on a pale background has none."""
    off = (pictures - background).abs().amax(-1)
    vague = ((off > 1 - PAPER) & (off < 0.15)).sum((1, 2)) / (off > 1 - PAPER).sum((1, 2)).clamp(min=1)
    return (1 - 2 * vague).clamp(0, 1)[:, None, None]


def carve(solid: Solid, by: Tensor) -> Solid:
    """The solid with its occupancy logits lowered by (D, h, w).

    Gradients alone would hardly move the shape: in each view only its outline has a gradient. A column that the picture shows and that
    ends up empty keeps one bar, as in the guess. Wires stay as they were guessed: drawings hardly show them, and a leg that is cut in
    two is a floater.
    """
    left = agree_with_silhouette(solid.occupancy - by, solid.coverage)
    return replace(solid, occupancy=torch.where(width_of(solid.coverage) < WIRE, solid.occupancy, left))


def seen_past(solid: Solid, drawings: Drawings, cameras: Camera) -> Tensor:
    """(D, h, w): of how many drawings each cell is in the background, each counted as far as it is trusted there.

    cameras  of the drawings, in the crop's frame
    """
    d, h, w = solid.occupancy.shape
    pixels, _ = cameras.project(cells_of(solid))
    grid = (pixels / pixels.new_tensor(cameras.size[::-1]) * 2 - 1).float()[:, None]
    past = (drawings.trust * (1 - drawings.alpha))[:, None]
    return F.grid_sample(past, grid, align_corners=False, padding_mode="border")[:, 0, 0].sum(0).view(d, h, w)


def cells_of(solid: Solid) -> Tensor:
    """Centres (D h w, 3) of the solid's cells, in the crop's frame."""
    return solid.frustum.points(cell_centres(*solid.occupancy.shape).reshape(-1, 3))


def colours_from(drawings: Drawings, cameras: Camera, clean: Clean, guessed: Colours) -> Colours:
    """Colours of the crop's frame: the drawings', weighted by how squarely they see a point, the guess's where none does."""
    vertices = clean.in_crop(clean.vertices)
    mesh = Mesh(vertices, clean.faces, vertex_normals(vertices, clean.faces))
    depth = render_mesh(mesh, cameras).depth[..., 0]
    alpha = drawings.alpha
    rgb = drawings.pictures * alpha[..., None]

    def colours(points: Tensor, normals: Tensor) -> Tensor:
        looks = [
            seen(points, normals, cameras[[k]], depth[k], rgb[k], alpha[k], power=3.0, margin=1.0, tolerance=0.02)
            for k in range(len(alpha))
        ]
        colour, weight = blend(looks)
        share = (4 * weight).clamp(max=1)[:, None]
        return share * colour + (1 - share) * guessed(points, normals)

    return colours
