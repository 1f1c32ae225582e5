# SPDX-License-Identifier: Apache-2.0
"""Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598): a learnt condition, strengthened; and what that costs.

World: three Gaussians in the plane that overlap, one a class, so that what a sample's class is, and how sure, is known. A network is
told the class, or, for a share of its samples in training, nothing; guidance leads away from what it says of nothing.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from bozzetto.claims.claim import Beats, Claim, Scores
from bozzetto.denoiser import Adapted, Denoiser, EDMDenoiser, noise_like
from bozzetto.diffusion.guidance import classifier_free
from bozzetto.diffusion.losses import denoising_loss, edm_weight
from bozzetto.diffusion.samplers import heun
from bozzetto.diffusion.schedules import karras
from bozzetto.figures.worlds import Mixture, fit, network
from bozzetto.scores.wasserstein import directions, sliced_wasserstein

K, SPREAD = 3, 1.0  # classes; the data's deviation, a coordinate
LOW, HIGH = 0.02, 10.0  # noise levels
DROPPED = 0.15  # of conditions in training
GUIDED = 3.0


def world() -> Mixture:
    angle = torch.arange(K) * (2 * math.pi / K)
    return Mixture(torch.ones(K), 1.1 * torch.stack([angle.cos(), angle.sin()], 1), torch.full((K,), 0.7))


def of_class(kind: int) -> Mixture:
    whole = world()
    return Mixture(torch.ones(1), whole.means[[kind]], whole.stds[[kind]])


def told(kind: int) -> dict[str, Tensor]:
    """The condition: one of K ones; zeros are "nothing"."""
    return {"kind": torch.eye(K)[[kind]]}


NOTHING = {"kind": torch.zeros(1, K)}


def trained(seed: int, dropped: float, steps: int) -> Denoiser:
    """Denoising, the condition left out for a share of the samples."""
    data, generator = world(), torch.Generator().manual_seed(seed)
    net = network(3 + K, 96, generator=generator)

    def ask(x: Tensor, time: Tensor, kind: Tensor) -> Tensor:
        made: Tensor = net(torch.cat([2 * x.float(), 2 * time[:, None], kind.expand(len(x), -1)], 1))
        return made[:, :2]

    denoiser = EDMDenoiser(ask, SPREAD, (LOW, HIGH))

    def loss() -> Tensor:
        kinds = torch.randint(K, (192,), generator=generator)
        x0 = (data.means[kinds] + data.stds[kinds, None] * noise_like(data.means[kinds], generator)).float()
        is_told = torch.rand(len(x0), generator=generator) >= dropped
        sigma = LOW * (HIGH / LOW) ** torch.rand(len(x0), generator=generator)
        cond = {"kind": torch.eye(K)[kinds] * is_told[:, None]}
        return denoising_loss(denoiser, x0, noise_like(x0, generator), sigma, edm_weight(sigma, SPREAD), cond).mean()

    fit(net, loss, steps, 3e-3)
    fit(net, loss, steps // 2, 3e-4)
    net.requires_grad_(False)
    return denoiser


def exact() -> Denoiser:
    """What a perfect network would say."""
    whole, classes = world(), [of_class(k) for k in range(K)]

    def ask(x: Tensor, sigma: Any, cond: dict[str, Tensor]) -> Tensor:
        kind = cond["kind"]
        return classes[int(kind.argmax())].denoise(x, sigma) if bool(kind.any()) else whole.denoise(x, sigma)

    return Adapted(ask, whole.sigmas)


@lru_cache(maxsize=8)
def samples(seed: int, steps: int = 2500, count: int = 500) -> dict[str, list[Tensor]]:
    """Of each way, `count` samples (count, 2) of each class."""
    honest, whole = trained(seed, DROPPED, steps), trained(seed, 0.0, steps)
    ways = {
        "not guided": (honest, 0),
        f"guided {GUIDED:g}": (classifier_free(honest, NOTHING, GUIDED), 0),
        f"guided {GUIDED:g}, exact": (classifier_free(exact(), NOTHING, GUIDED), 0),
        f"guided {GUIDED:g}, trained without dropout": (classifier_free(whole, NOTHING, GUIDED), 0),
        "guided -1": (classifier_free(honest, NOTHING, -1.0), 0),
        "not guided, wrong class": (honest, 1),
    }
    generator = torch.Generator().manual_seed(1000 + seed)
    found: dict[str, list[Tensor]] = {name: [] for name in ways}
    for kind in range(K):
        x = HIGH * noise_like(torch.zeros(count, 2, dtype=torch.float64), generator)
        for name, (denoiser, shift) in ways.items():
            found[name].append(heun(denoiser, x, karras(20, LOW, HIGH), told((kind + shift) % K)))
        found.setdefault("the data", []).append(of_class(kind).draw(count, generator=generator))
    return found


def unsureness(seed: int) -> Scores:
    """-log p(class | x), Bayes' with the true densities."""
    classes = [of_class(k) for k in range(K)]

    def of(x: Tensor, kind: int) -> float:
        return -float(torch.stack([c.log_density(x) for c in classes], 1).log_softmax(1)[:, kind].mean())

    return {name: sum(of(x, k) for k, x in enumerate(made)) / K for name, made in samples(seed).items()}


def _distance(seed: int, truth: list[Tensor]) -> Scores:
    theta = directions(64, 2, generator=torch.Generator().manual_seed(2000 + seed))
    return {
        name: sum(sliced_wasserstein(x, t, theta) for x, t in zip(made, truth, strict=True)) / K for name, made in samples(seed).items()
    }


def to_data(seed: int) -> Scores:
    generator = torch.Generator().manual_seed(3000 + seed)
    return _distance(seed, [of_class(k).draw(2000, generator=generator) for k in range(K)])


def to_exact(seed: int) -> Scores:
    return _distance(seed, samples(seed)[f"guided {GUIDED:g}, exact"])


_CLAIM = Claim(
    "cfg-surer",
    method="Classifier-free guidance",
    source="arXiv:2207.12598, Sec. 3.2 and Fig. 1",
    says="Guided samples belong more surely to the class they were asked for.",
    metric="-log p(class | sample), nats",
    better="lower",
    run=unsureness,
    must=(Beats("guided 3", "not guided"),),
    control=Beats("guided 3", "guided -1"),
    seconds=30,
    remark="Sureness alone is cheap: what leaves the data on the right side is sure, too, so a network without dropout is as "
    "sure; see the next two.",
)
CLAIMS = (
    _CLAIM,
    replace(
        _CLAIM,
        name="cfg-cost",
        says="Guidance pays for it in variety: its samples are farther from the class's own law.",
        metric="sliced Wasserstein distance to the class's data",
        run=to_data,
        must=(Beats("not guided", "guided 3"), Beats("not guided", "guided 3, exact")),
        control=Beats("not guided", "not guided, wrong class"),
        seconds=1,
        remark="Exact scores, guided, are far, too: guidance samples another law than the class's (check CFG-4).",
    ),
    replace(
        _CLAIM,
        name="cfg-dropout",
        source="arXiv:2207.12598, Alg. 1",
        says="One network that was sometimes told nothing guides as the two exact models do; one that never was does not.",
        metric="sliced Wasserstein distance to what exact scores, guided by 3, draw",
        run=to_exact,
        must=(Beats("guided 3", "not guided"),),
        control=Beats("guided 3", "guided 3, trained without dropout"),
        seconds=1,
        remark="Often told as: without dropout guidance does nothing. Here it does too much: to a network that never saw zeros for a class "
        "they are the mean of the three, and it is led away from that instead of from all data.",
    ),
)
