# SPDX-License-Identifier: Apache-2.0
"""A field as a `Shape`: rendered along rays through a medium, which says what the field's number means; moved by Adam.

Two media are here: NeuS's signed distance (`neus`) and a density (`density`, a NeRF). All else they share: cells that are known to be
empty are passed over (Müller et al. 2022, arXiv:2201.05989, Sec. E), the rest of a ray is looked at in equal steps without gradients,
and then in finer sections where most was seen, with gradients. Colours are asked only where something shows. Whole pictures are
rendered some rays at a time, and with gradients each part is rendered again in the backward pass, so that memory does not grow with them.

Letters: R rays o + t d; S steps a ray at most, n sections, P places where the field is asked; M points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bozzetto.camera import Camera
from bozzetto.kernels.march import march, resample
from bozzetto.kernels.marching import marching_tetrahedra
from bozzetto.render.volume import weighed
from bozzetto.shapes.field import Field
from bozzetto.shapes.shape import Only, Step, Tensors, load_moments, moments
from bozzetto.shapes.start import EmptySurface
from bozzetto.shapes.tetgrid import TetGrid
from bozzetto.views import Views

FAINT = 1e-4  # weights below are not asked for colours
SPARE = 0.1  # of the fine sections, spread evenly over what is not empty
CHUNK = 2048  # rays rendered at a time
POINTS_OF_LOSSES = 2048
TAUGHT = 4096  # points at which a step teaches colours
POINTS = 1 << 16  # asked at a time, without gradients


class Medium(Protocol):
    """What a field's number means; an `nn.Module`."""

    noise: float
    """how far from the middles of cells occupancy is measured, in cells"""

    def begin(self, share: float) -> None:
        """Of the run that is done, in [0, 1]; 1 unless it is being optimised."""
        ...

    def seen(self, values: Tensor, before: Tensor) -> Tensor:
        """What to remember of cells, from the field's values in them and what was remembered; both (M,)."""
        ...

    def occupied(self, kept: Tensor, reach: float) -> Tensor:
        """Which cells (M,) may stop light; reach is from a cell's middle to its corner."""
        ...

    def propose(self, values: Tensor, width: Tensor) -> Tensor:
        """Absorption (R, S) of steps of a length (R, 1), from the values at their middles."""
        ...

    def places(self, ends: Tensor) -> Tensor:
        """Where on a ray to ask the field (R, P), for sections between ends (R, n + 1)."""
        ...

    def absorption(self, values: Tensor, ends: Tensor) -> Tensor:
        """Of the sections (R, n), with gradients, from the values at the places."""
        ...

    def shared(self, weights: Tensor) -> Tensor:
        """Weights of the places (R, P) from those of the sections (R, n)."""
        ...

    def outward(self, gradient: Tensor) -> Tensor:
        """(M, 3) of any length, given the gradient of the number."""
        ...

    def signed(self, values: Tensor) -> Tensor:
        """Negative inside, 0 on the surface."""
        ...

    def wanted(self, sdf: Tensor) -> Tensor:
        """The values (M,) of a field that is a solid with this signed distance; the reverse of `signed`, nearly."""
        ...

    def losses(self, field: Field, points: Tensor, step: Step) -> dict[str, Tensor]:
        """Regularisers, at points (M, 3) that rays have lately asked."""
        ...


@dataclass(frozen=True)
class Course:
    """How a field is optimised.

    table_lr, net_lr  steps of Adam, for the encoding's entries and for all else
    warm     share of the steps over which the rates rise from a hundredth
    fall     what is left of them at the end, as a factor
    open     share of the steps over which the encoding's levels open; 0 has them open from the start
    every    steps between two looks at which cells are empty
    """

    table_lr: float = 1e-2
    net_lr: float = 5e-3
    warm: float = 0.02
    fall: float = 0.1
    open: float = 0.5
    every: int = 16


class Traced(NamedTuple):
    """What rays see. rgb (R, 3) premultiplied sRGB, alpha (R,), distance (R,) along the ray in the mean, 0 where nothing is;
    normal (R, 3) the mean of unit vectors, or zeros if it was not asked for."""

    rgb: Tensor
    alpha: Tensor
    distance: Tensor
    normal: Tensor


class Volume(nn.Module):
    """A field seen through a medium.

    field, medium  the parameters
    cells     of occupancy along an axis of the field's box; steps are half a cell long
    steps     S, on a ray at most
    sections  n, on a ray
    lattice   cells of `surface` along the longest side
    """

    _lower: Tensor
    _upper: Tensor
    kept: Tensor
    occupied: Tensor
    share: Tensor

    def __init__(
        self,
        field: Field,
        medium: Medium,
        course: Course = Course(),
        *,
        cells: int = 64,
        steps: int = 64,
        sections: int = 16,
        lattice: int = 128,
    ) -> None:
        super().__init__()
        self.field, self.medium, self.course = field, medium, course
        self.cells, self.steps, self.sections, self.lattice = cells, steps, sections, lattice
        self.register_buffer("_lower", field.lower, persistent=False)
        self.register_buffer("_upper", field.upper, persistent=False)
        self._step = float((field.upper - field.lower).max()) / cells / 2
        self.register_buffer("kept", torch.full((cells,) * 3, torch.inf))
        self.register_buffer("occupied", torch.ones((cells,) * 3, dtype=torch.bool))
        self.register_buffer("share", torch.ones((), dtype=torch.float64))  # of the run that is done
        self._asked = field.lower.new_zeros(0, 3)
        entries = list(field.encoding.parameters())
        rest = [p for name, p in self.named_parameters() if not name.startswith("field.encoding.")]
        groups = [{"params": p, "rate": r} for p, r in ((entries, course.table_lr), (rest, course.net_lr)) if p]
        self.optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15, fused=True)
        self.update_occupancy()

    # ---- a run ----

    def begin(self, step: Step) -> None:
        course = self.course
        self.share.fill_(step.share)
        self._progress()
        warmth = min(0.01 + 0.99 * step.share / max(course.warm, 1e-9), 1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = group["rate"] * warmth * course.fall**step.share
        if step.number % course.every == 0:
            self.update_occupancy(step.generator)
        self._asked = self._asked[:0]
        self.zero_grad()

    def _progress(self) -> None:
        share = float(self.share)
        self.field.encoding.open(share / self.course.open if self.course.open > 0 else 1.0)
        self.medium.begin(share)

    def move(self, step: Step) -> None:
        self.optimiser.step()

    def losses(self, step: Step) -> dict[str, Tensor]:
        """The medium's, at points that this step's rays have asked, and a third as many anywhere in the box."""
        share = torch.rand(POINTS_OF_LOSSES // 4, 3, generator=step.generator).to(self._lower)
        points = self._lower + (self._upper - self._lower) * share
        if len(self._asked):
            some = torch.randint(len(self._asked), (POINTS_OF_LOSSES * 3 // 4,), generator=step.generator)
            points = torch.cat([self._asked[some.to(points.device)], points])
        return self.medium.losses(self.field, points, step)

    @torch.no_grad()
    def update_occupancy(self, generator: torch.Generator | None = None) -> None:
        """Find out which cells are empty; `generator` draws where in each, or it is its middle."""
        middles = torch.stack(torch.meshgrid(*([torch.arange(self.cells) + 0.5] * 3), indexing="ij"), -1).view(-1, 3)
        if generator is not None and self.medium.noise > 0:
            middles = middles + self.medium.noise * (torch.rand(middles.shape, generator=generator) - 0.5)
        size = (self._upper - self._lower) / self.cells
        kept = self.medium.seen(self._values(self._lower + middles.to(size) * size), self.kept.view(-1))
        self.kept.copy_(kept.view_as(self.kept))
        self.occupied.copy_(self.medium.occupied(kept, float(size.norm()) / 2).view_as(self.occupied))

    def _values(self, points: Tensor) -> Tensor:
        return torch.cat([self.field.value(p) for p in points.split(POINTS)])

    # ---- what is seen ----

    def trace(self, origins: Tensor, directions: Tensor, only: Only | None = None, generator: torch.Generator | None = None) -> Traced:
        """What rays see, with gradients.

        origins, directions  (R, 3) float32; unit directions
        only       as `Shape.render`
        generator  draws where the steps lie; without it they lie in the middle
        """
        offset = torch.full((len(origins),), 0.5) if generator is None else torch.rand(len(origins), generator=generator)
        offset = offset.to(origins)
        t, width, count = march(origins, directions, self.occupied, self._lower, self._upper, self._step, self.steps, offset)
        hit = count.nonzero()[:, 0]
        o, d = origins[hit], directions[hit]
        ends = self._ends(o, d, t[hit], width[hit], count[hit], offset[hit])
        places = self.medium.places(ends)
        points = (o[:, None] + places[..., None] * d[:, None]).view(-1, 3)
        if torch.is_grad_enabled():
            self._asked = points.detach()
        u, inputs = self.field.inputs(points)
        w = self.medium.shared(weighed(self.medium.absorption(self.field.value_of(u, inputs).view(places.shape), ends)))
        alpha = w.sum(1)
        distance = (w * places).sum(1) / alpha.clamp(min=1e-30)
        rgb = normal = o.new_zeros(len(hit), 3)
        if only in (None, "colour"):
            some = (w > FAINT).view(-1).nonzero()[:, 0]
            ray, share = some // w.shape[1], w.reshape(-1)[some, None]
            rgb = rgb.index_add(0, ray, share * self.field.colour_of(inputs[:, some]))
            if only is None:
                outward = self.medium.outward(self.field.value_and_gradient(points[some])[1])
                normal = normal.index_add(0, ray, share * F.normalize(outward, dim=1))
        return Traced(*(x.new_zeros(len(origins), *x.shape[1:]).index_copy(0, hit, x) for x in (rgb, alpha, distance, normal)))

    @torch.no_grad()
    def _ends(self, o: Tensor, d: Tensor, t: Tensor, width: Tensor, count: Tensor, offset: Tensor) -> Tensor:
        """Ends of sections (R, n + 1), dense where equal steps find most."""
        most = int(count.max()) if len(count) else 1
        t = t[:, :most].contiguous()
        step = torch.arange(most, device=t.device)
        is_step = step < count[:, None]
        points = (o[:, None] + t[..., None] * d[:, None])[is_step]
        row = count.cumsum(0)[:, None] - count[:, None] + step.minimum(count[:, None] - 1)  # beyond the last one, the last one again
        values = self._values(points)[row] if len(points) else t
        weights = weighed(self.medium.propose(values, width[:, None]) * is_step)
        inner = (torch.arange(self.sections - 2, device=t.device) + offset[:, None]) / (self.sections - 2)
        shares = F.pad(F.pad(inner, (1, 0)), (0, 1), value=1.0)
        return resample(weights, t, width, count, shares, SPARE)

    def render(self, cameras: Camera, only: Only | None = None) -> Views:
        origins, directions = (x.reshape(-1, 3).to(self._lower) for x in cameras.rays())
        parts = []
        for o, d in zip(origins.split(CHUNK), directions.split(CHUNK), strict=True):
            if torch.is_grad_enabled():
                parts.append(checkpoint(self.trace, o, d, only, use_reentrant=False, preserve_rng_state=False))
            else:
                parts.append(self.trace(o, d, only))
        rgb, alpha, distance, normal = (torch.cat(x).view(len(cameras), *cameras.size, -1) for x in zip(*parts, strict=True))
        along = -torch.einsum("vhwi,vi->vhw", directions.view(rgb.shape), cameras.c2w[:, :, 2].to(directions))
        return Views(rgb, alpha, distance * along[..., None], F.normalize(normal, dim=-1), cameras)

    @torch.no_grad()
    def surface(self) -> tuple[Tensor, Tensor]:
        """By marching tetrahedra on a lattice."""
        grid = TetGrid.kuhn(self.lattice, self._lower.tolist(), self._upper.tolist())
        vertices, faces, _ = marching_tetrahedra(grid.vertices, grid.hold(self.signed(grid.vertices)), grid)
        if not len(faces):
            raise EmptySurface("volume: the field has one side everywhere; optimise it for longer, or begin with a larger solid")
        return vertices, faces

    @torch.no_grad()
    def signed(self, points: Tensor) -> Tensor:
        """(N,) at points (N, 3), negative inside and 0 on the surface: what `DMTet.from_sdf` takes."""
        return self.medium.signed(self._values(points))

    # ---- what is kept ----

    def state(self) -> Tensors:
        return self.state_dict() | moments(self.optimiser)

    def restore(self, state: Tensors) -> None:
        self.load_state_dict({k: v for k, v in state.items() if not k.startswith("adam.")})
        load_moments(self.optimiser, state)
        self._progress()


def imitate(
    volume: Volume,
    sdf: Callable[[Tensor], Tensor],
    colours: Callable[[Tensor, Tensor], Tensor],
    *,
    lessons: int = 100,
    generator: torch.Generator,
) -> None:
    """Make a field begin as a known solid: a first guess, or what another shape has become.

    The number is the solid's own, to which its network adds nothing at first; the colour's network is taught, and the encoding's entries
    stay as they are, since the number reads them, too.

    sdf      signed distance (M,) of points (M, 3), negative inside, differentiable; the field goes on asking it
    colours  of points and unit normals (M, 3), which are zeros here, to sRGB (M, 3): asked near the surface
    """
    field, medium = volume.field, volume.medium
    field.base = lambda u: medium.wanted(sdf(field.centre + field.unit * u))
    with torch.no_grad():
        field.number.weights[-1].zero_()
        field.number.biases[-1].zero_()
    optimiser = torch.optim.Adam(field.tint.parameters(), lr=1e-2)
    for _ in range(lessons):
        points = field.lower + (field.upper - field.lower) * torch.rand(4 * TAUGHT, 3, generator=generator)
        with torch.no_grad():
            near = points[sdf(points).abs().argsort()[:TAUGHT]]
            inputs, wanted = field.inputs(near)[1], colours(near, torch.zeros_like(near))
        optimiser.zero_grad()
        (field.colour_of(inputs) - wanted).square().mean().backward()
        optimiser.step()
    volume.zero_grad()
    volume.kept.fill_(torch.inf)
    volume.update_occupancy()
