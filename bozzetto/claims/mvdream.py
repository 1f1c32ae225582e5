# SPDX-License-Identifier: Apache-2.0
"""MVDream (Shi et al. 2023, arXiv:2308.16512): views drawn together agree on the object, and rescaled guidance does not saturate.

Agreement: five balls of one shape and different colours (`claims.novel_views`), and exact priors of them (`priors.exact`) that draw four
views a quarter turn apart, by as many calls each. Where two neighbouring views see the same point of the ball, their colours are compared.

Saturation: views of two pixels, Gaussian under a text and without one. Score distillation ends where guidance extrapolates the means
to (SDS-2); MVDream brings the spread of what it is pulled to half of the way back.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.claims.claim import Beats, Claim, Scores
from bozzetto.claims.head import RADIUS, all_round, from_the_front, ring
from bozzetto.claims.novel_views import PALETTE, rendered
from bozzetto.denoiser import Adapted, each
from bozzetto.diffusion.guidance import classifier_free
from bozzetto.distill.sds import Levels, Ramp, residual, sds
from bozzetto.priors.exact import Exact
from bozzetto.priors.sampling import Sampler, sample

V, GROUPS = 4, 6
HOW = Sampler(20, 1.0, 1.0)
GUIDANCE, STEPS = 50.0, 400


@lru_cache(maxsize=1)
def priors() -> dict[str, Exact]:
    """Of the balls: four views together, each by itself, and together, but of photographs of the front alone."""
    bank, even, photographs = [rendered(k) for k in range(len(PALETTE))], ring(all_round(8)), ring(from_the_front(8, 25.0))
    return {
        "together": Exact(bank, even, together=V),
        "each by itself": Exact(bank, even),
        "together, all of the front": Exact(bank, photographs, knows_cameras=False, together=V),
    }


@torch.no_grad()
def agreement(seed: int) -> Scores:
    """Root mean squared difference of colours between neighbouring views."""
    cameras, off = ring(all_round(V)), {}
    for name, prior in priors().items():
        generator, count = torch.Generator().manual_seed(seed), GROUPS * V // prior.together
        cond = {k: v.repeat(count // len(v), *[1] * (v.ndim - 1)) for k, v in prior.condition(cameras=cameras).items()}
        pictures = prior.decode(sample(prior, cond, count=count, sampler=HOW, generator=generator))
        off[name] = disagreement(pictures.unflatten(0, (GROUPS, V)), cameras)
    return off


def disagreement(pictures: Tensor, cameras: Camera) -> float:
    """Of groups of views (G, V, S, S, 3) of a ball: over the points of its front that both of two neighbours see well."""
    turn, rise = torch.meshgrid(all_round(180), torch.linspace(-0.8, 0.8, 17).double(), indexing="ij")
    u = torch.stack([turn.cos() * rise.cos(), turn.sin() * rise.cos(), rise.sin()], -1).view(-1, 3)
    at, _ = cameras.project(RADIUS * u)
    grid = (at / cameras.size[0] * 2 - 1).float()[:, None]
    facing = torch.einsum("pi,vi->vp", u, F.normalize(cameras.position.double(), dim=1)) > 0.45
    total, count = 0.0, 0
    for group in pictures:
        seen = F.grid_sample(group.movedim(-1, 1), grid, align_corners=False)[:, :, 0].movedim(1, -1)
        for k in range(len(group)):
            both = facing[k] & facing[k - 1]
            total += float((seen[k] - seen[k - 1])[both].square().mean(-1).sum())
            count += int(both.sum())
    return math.sqrt(total / count)


def saturation(seed: int) -> Scores:
    """How many times the spread of the text's own mean the renderings end with."""
    generator = torch.Generator().manual_seed(seed)
    means = {"told": torch.randn(1, V, 2, generator=generator), "null": torch.zeros(1, V, 2)}
    base = Adapted(lambda x, s, c: (x + each(s, x) ** 2 * means[c]) / (1 + each(s, x) ** 2), torch.logspace(-1.5, 1.2, 100).double())
    ways = {f"rescaled by {phi:g}": classifier_free(base, "null", GUIDANCE, rescale=phi, rescales="x0") for phi in (0.0, 0.5, 1.0)}
    ways["eps rescaled by 0.5"] = classifier_free(base, "null", GUIDANCE, rescale=0.5)
    levels = Levels(Ramp(0.98, 0.02, 0, STEPS * 4 // 5), Ramp(0.98, 0.5, 0, STEPS * 4 // 5))
    made = {}
    for name, guided in ways.items():
        draw, x0 = torch.Generator().manual_seed(seed), torch.zeros(1, V, 2, requires_grad=True)
        for step in range(STEPS):
            sigma = levels.draw(base, 1, step, generator=draw)
            (gradient,) = torch.autograd.grad(sds(guided, x0, sigma, "told", generator=draw, weight=residual), x0)
            x0 = (x0 - 0.1 * gradient).detach().requires_grad_()
        made[name] = abs(math.log(float(x0.detach().std() / means["told"].std())))
    return made


CLAIMS = (
    Claim(
        "views-agree",
        method="MVDream",
        source="arXiv:2308.16512, Sec. 1",
        says="Views that are drawn together are of one object: where two of them see one point, its colour is the same.",
        metric="rms difference of colours, sRGB",
        better="lower",
        run=agreement,
        must=(Beats("together", "each by itself"),),
        control=Beats("together", "together, all of the front"),
        seconds=10,
        remark="The same budget: as many views, by as many steps. The control draws its views together, but all of the front, and sets "
        "them a quarter turn apart.",
    ),
    Claim(
        "rescaled-guidance",
        method="MVDream",
        source="arXiv:2308.16512, Sec. 3.4",
        says="Guidance of 50 saturates; with the spread of x0 brought half of the way back it does so less.",
        metric="log of the spread over that of the text's mean",
        better="lower",
        run=saturation,
        must=(Beats("rescaled by 0.5", "rescaled by 0"), Beats("rescaled by 1", "rescaled by 0.5")),
        control=Beats("rescaled by 0.5", "eps rescaled by 0.5"),
        seconds=5,
        remark="The control rescales the noise, as samplers do, and not x0.",
    ),
)
