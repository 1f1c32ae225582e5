# SPDX-License-Identifier: Apache-2.0
"""A number and a colour at each point of a box: an encoding, and two small networks on it.

The encoding is a hash grid (Müller et al. 2022, arXiv:2201.05989) or frequencies (NeRF, arXiv:2003.08934, Eq. 4); the networks' inputs are
its features below the point itself. What the number means is a medium's business: a signed distance (`neus`) or a density (`density`).

Geometric initialisation (Atzmon & Lipman 2020, arXiv:1911.10414): a layer of rectifiers along directions d_i adds up to a cone,
4 / H sum of relu(d_i . u) = |u|, so that the number begins as the signed distance of a sphere. Differs: the H directions are evenly
spread, not drawn (at width 64 |u| comes out within 1.5 %, where drawn ones have a standard error of 18 %), and later layers begin as
identities, which leave positive numbers as they are, so that depth changes nothing.

Letters: N points x, u = (x - centre) / unit in [-1, 1] along the box's longest side; H neurons a layer. Numbers are kept as rows, (C, N).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bozzetto.kernels.hashgrid import Levels, encode, slope

SHARPNESS = 100.0  # of the softplus, as published: nearly a rectifier, with second derivatives


class HashGrid(nn.Module):
    """Entries begin within 1e-4 of 0, as published.

    first  levels that are open from the start
    """

    def __init__(self, levels: Levels = Levels(), *, first: int = 4, generator: torch.Generator) -> None:
        super().__init__()
        self.levels, self.features, self.first, self.active = levels, levels.features, first, levels.count
        self.table = nn.Parameter((2 * torch.rand(levels.entries, 2, generator=generator) - 1) * 1e-4)

    def forward(self, u: Tensor) -> Tensor:
        """Features (2 L, N) of u (N, 3); 0 where a level is not open."""
        return encode((u + 1) / 2, self.table, self.levels, self.active)

    def slope(self, u: Tensor, weights: Tensor) -> Tensor:
        """(N, 3): the gradient by u of the features' sum, weighted by weights (2 L, N)."""
        return slope((u + 1) / 2, self.table, weights, self.levels, self.active) / 2

    def open(self, share: float) -> None:
        """Of the levels beyond the first ones, that share in [0, 1]; the others' entries have no gradient."""
        self.active = self.first + round(min(max(share, 0.0), 1.0) * max(self.levels.count - self.first, 0))

    @property
    def finest(self) -> float:
        """Side of a cell of the finest open level, of u."""
        return 2 / float(self.levels.scales[self.active - 1])


class Frequencies(nn.Module):
    """Sines and cosines of 2^b pi u, b < bands.

    first  bands that are open from the start
    """

    factors: Tensor

    def __init__(self, bands: int = 6, *, first: int = 6) -> None:
        super().__init__()
        self.bands, self.features, self.first, self.active = bands, 6 * bands, first, bands
        self.register_buffer("factors", math.pi * 2.0 ** torch.arange(bands), persistent=False)

    def _phase(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """(bands, 3, N); and which bands are open (bands, 1, 1)."""
        is_open = (torch.arange(self.bands, device=u.device) < self.active).to(u)
        return self.factors.to(u)[:, None, None] * u.T, is_open[:, None, None]

    def forward(self, u: Tensor) -> Tensor:
        """Features (6 bands, N), as `HashGrid`."""
        phase, is_open = self._phase(u)
        return (torch.stack([phase.sin(), phase.cos()], 1) * is_open[:, None]).reshape(self.features, -1)

    def slope(self, u: Tensor, weights: Tensor) -> Tensor:
        """As `HashGrid`."""
        phase, is_open = self._phase(u)
        w = weights.view(self.bands, 2, 3, -1)
        return ((w[:, 0] * phase.cos() - w[:, 1] * phase.sin()) * (is_open * self.factors.to(u)[:, None, None])).sum(0).T

    def open(self, share: float) -> None:
        """As `HashGrid`."""
        self.active = self.first + round(min(max(share, 0.0), 1.0) * max(self.bands - self.first, 0))

    @property
    def finest(self) -> float:
        """A quarter of the shortest open wave, of u."""
        return 0.5 / 2 ** (self.active - 1)


class Perceptron(nn.Module):
    """Layers of `sizes` neurons, from rows (C, N) to rows, rectified between them.

    is_smooth  softplus instead of rectifiers, as NeuS has it: gradients without jumps, at several times the price
    """

    def __init__(self, sizes: list[int], *, is_smooth: bool = False, generator: torch.Generator) -> None:
        super().__init__()
        pairs = list(zip(sizes[1:], sizes[:-1], strict=True))
        self.is_smooth = is_smooth
        self.weights = nn.ParameterList(torch.randn(out, into, generator=generator) * math.sqrt(2 / into) for out, into in pairs)
        self.biases = nn.ParameterList(torch.zeros(out) for out, _ in pairs)

    def forward(self, x: Tensor) -> Tensor:
        """Rows to rows."""
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if i > 0:
                x = F.softplus(x, SHARPNESS) if self.is_smooth else x.relu_()
            x = torch.addmm(bias[:, None], weight, x)
        return x

    @torch.no_grad()
    def become_sphere(self, radius: float, unit: float = 1.0) -> None:
        """The signed distance of a sphere round 0, of the first three rows alone, in units of which `unit` is one."""
        first, last = self.weights[0], self.weights[-1]
        for weight, bias in zip(self.weights, self.biases, strict=True):
            nn.init.eye_(weight)
            bias.zero_()
        first.zero_()[:, :3] = _directions(len(first)).to(first)
        last.fill_(4 * unit / len(first))
        self.biases[-1].fill_(-radius * unit)


def _directions(count: int) -> Tensor:
    """(count, 3), evenly over the sphere (Fibonacci)."""
    k = torch.arange(count, dtype=torch.float64) + 0.5
    z, turn = 1 - 2 * k / count, math.pi * (1 + 5**0.5) * k
    across = (1 - z * z).sqrt()
    return torch.stack([across * turn.cos(), across * turn.sin(), z], 1)


class Field(nn.Module):
    """The number `value` and the colour at points of a box.

    lower, upper  (3,), the box
    encoding  of u
    width, depth  of the hidden layers of the number's network; the colour's has as wide ones, two of them
    is_smooth     softplus in the number's network
    base      added to the number, a function of u (N, 3) with values (N,)
    """

    lower: Tensor
    upper: Tensor
    centre: Tensor

    def __init__(
        self,
        encoding: HashGrid | Frequencies,
        lower: Sequence[float],
        upper: Sequence[float],
        *,
        width: int = 64,
        depth: int = 1,
        is_smooth: bool = False,
        base: Callable[[Tensor], Tensor] | None = None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        low, high = torch.tensor(lower, dtype=torch.float32), torch.tensor(upper, dtype=torch.float32)
        self.register_buffer("lower", low, persistent=False)
        self.register_buffer("upper", high, persistent=False)
        self.register_buffer("centre", (low + high) / 2, persistent=False)
        self.unit = float((high - low).max()) / 2
        self.encoding, self.base = encoding, base
        inputs = 3 + encoding.features
        self.number = Perceptron([inputs, *[width] * depth, 1], is_smooth=is_smooth, generator=generator)
        self.tint = Perceptron([inputs, width, width, 3], generator=generator)

    def inputs(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Of points (N, 3): u (N, 3), and the rows (3 + C, N) that both networks read."""
        u = (points - self.centre) / self.unit
        return u, torch.cat([u.T, self.encoding(u)])

    def value(self, points: Tensor) -> Tensor:
        """(N,) at points (N, 3)."""
        return self.value_of(*self.inputs(points))

    def value_of(self, u: Tensor, inputs: Tensor) -> Tensor:
        """(N,) of what `inputs` gave."""
        made = self.number(inputs)[0]
        return made if self.base is None else made + self.base(u)

    def colour_of(self, inputs: Tensor) -> Tensor:
        """(N, 3) sRGB in (0, 1)."""
        return self.tint(inputs).sigmoid().T

    def colour(self, points: Tensor, normals: Tensor | None = None) -> Tensor:
        """(N, 3) sRGB at points (N, 3), from every side alike: what `render_surface` and a texture ask."""
        return self.colour_of(self.inputs(points)[1])

    def value_and_gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """(N,), and its gradient by the points (N, 3), which has gradients by the parameters; points themselves get none."""
        is_learnt = torch.is_grad_enabled()
        u = ((points - self.centre) / self.unit).detach()
        features = self.encoding(u)
        with torch.enable_grad():
            features = features if features.requires_grad else features.requires_grad_()
            at = u.clone().requires_grad_()
            value = self.value_of(at, torch.cat([at.T, features]))
            direct, weights = torch.autograd.grad(value.sum(), (at, features), create_graph=is_learnt)
        gradient = (direct + self.encoding.slope(u, weights)) / self.unit
        return (value if is_learnt else value.detach()), gradient
