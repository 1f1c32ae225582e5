# SPDX-License-Identifier: Apache-2.0
"""Score distillation by a joint prior in closed form (MV-4, 5, 7), and the cameras of its groups."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.denoiser import Adapted, each
from bozzetto.diffusion.guidance import classifier_free
from bozzetto.distill.sds import Levels, residual, sds, sds_gradient
from bozzetto.fit.together import Groups, Together
from bozzetto.shapes.shape import Step
from bozzetto.views import Views
from tests.twins.priors import Joint
from tests.twins.worlds import seeded

V, F64 = 4, torch.float64
SIGMAS = torch.logspace(-2, 2, 50, dtype=F64)


def gaussian(precision_of, means: dict[str, Tensor]) -> Adapted:
    """E[x0 | x] of x0 (V,) ~ N(means[cond], C), C + s**2 having the inverse precision_of(s)."""

    def denoised(x: Tensor, sigma, cond: str) -> Tensor:
        s = float(each(sigma, x).flatten()[0])
        return x - s**2 * (x - means[cond]) @ precision_of(s)

    return Adapted(denoised, SIGMAS)


def correlated(r: float):
    """Of V views of variance 1 and correlation r."""
    cov = (1 - r) * torch.eye(V, dtype=F64) + r
    return lambda s: torch.linalg.inv(cov + s**2 * torch.eye(V, dtype=F64))


MEANS = {"told": torch.tensor([0.3, -0.4, 0.8, 0.1], dtype=F64), "null": torch.tensor([0.0, 0.2, 0.1, -0.3], dtype=F64)}


@pytest.mark.parametrize("sigma", [0.05, 1.0, 12.0])
def test_mv_4_the_loss_of_x0_is_that_of_sds_over_alpha_sigma_without_rescale(sigma: float) -> None:
    """Half the squared distance to D, over the groups; against SDS weighted by 1 - alpha_bar. Rescaled, it is no multiple of that."""
    base, at = gaussian(correlated(0.5), MEANS), torch.full((2,), sigma, dtype=F64)
    x0 = torch.randn(2, V, generator=seeded(1), dtype=F64).requires_grad_()
    alpha, level = 1 / math.sqrt(1 + sigma**2), sigma / math.sqrt(1 + sigma**2)

    def gradient(phi: float, **how) -> Tensor:
        guided = classifier_free(base, "null", 5.0, rescale=phi, rescales="x0")
        (found,) = torch.autograd.grad(sds(guided, x0, at, "told", generator=seeded(2), **how), x0)
        return found

    made = gradient(0.0, weight=residual)
    x = x0.detach() + sigma * torch.randn(2, V, generator=seeded(2), dtype=F64)
    torch.testing.assert_close(made, (x0.detach() - classifier_free(base, "null", 5.0).denoise(x, at, "told")) / 2)
    torch.testing.assert_close(made, gradient(0.0) / (alpha * level))
    other = gradient(0.5, weight=residual)
    assert float(torch.cosine_similarity(made.flatten(), other.flatten(), 0)) < 1 - 1e-6  # at small levels the two spreads are nearly one


def test_mv_5_rescaled_by_one_a_group_has_the_spread_that_the_condition_alone_gives() -> None:
    x0 = torch.randn(3, V, 2, 5, generator=seeded(3), dtype=F64)
    means = {"told": torch.randn(V, 2, 5, generator=seeded(4), dtype=F64), "null": torch.zeros(V, 2, 5, dtype=F64)}
    base = Adapted(lambda x, sigma, cond: (x + 4 * means[cond]) / 5, SIGMAS)
    plain, strong = base.denoise(x0, 2.0, "told"), classifier_free(base, "null", 50.0).denoise(x0, 2.0, "told")
    spread = lambda x: x.flatten(1).std(1)  # noqa: E731  # of the views together, unbiased
    assert torch.all(spread(strong) > 5 * spread(plain))
    by = {phi: classifier_free(base, "null", 50.0, rescale=phi, rescales="x0").denoise(x0, 2.0, "told") for phi in (0.0, 0.5, 1.0)}
    torch.testing.assert_close(spread(by[1.0]), spread(plain))
    assert torch.equal(by[0.0], strong)
    torch.testing.assert_close(by[0.5], (by[1.0] + strong) / 2)
    one = by[1.0][:, 0].flatten(1).std(1) / plain[:, 0].flatten(1).std(1)
    assert float((one - 1).abs().max()) > 0.01  # not of each view by itself


@pytest.mark.parametrize("r", [0.0, 0.6])
@pytest.mark.parametrize("sigma", [0.01, 0.7])
def test_mv_7_an_observed_view_shifts_the_others_by_their_correlation(r: float, sigma: float) -> None:
    """One view is held a distance off its mean; SDS moves the others until its gradient by them is 0: at m + r / (1 + s**2) of that,
    which is r at the smallest levels. A prior that knows of no correlation leaves them at their means."""
    base, m, at = gaussian(correlated(r), MEANS), MEANS["told"], torch.full((1,), sigma, dtype=F64)
    off = 0.5

    def pulled(shift: float) -> Tensor:
        """The mean gradient: noise enters it linearly, so that it cancels against that of the same noise at the mean."""
        x0 = m + off * torch.tensor([1.0, shift, shift, shift], dtype=F64)
        found = [sds_gradient(base, x[None], at, "told", generator=seeded(5), weight=residual)[0] for x in (x0, m)]
        return (found[0] - found[1])[0]

    assert float(pulled(r / (1 + sigma**2))[1:].abs().max()) < 1e-12
    if r:
        assert float(pulled(0.0)[1:].abs().max()) > 1e-6  # they do move
        assert float(pulled(-r / (1 + sigma**2))[1:].abs().max()) > 1e-6
    wanted = r if sigma < 0.1 else r / 1.49
    assert r / (1 + sigma**2) == pytest.approx(wanted, abs=1e-4)


def expected_loss(base: Adapted, cov: Tensor, sigma: float) -> Tensor:
    """E |x0 - D(x0 + sigma n)|**2 of each view, (V,), exactly: D is linear in x where means are 0, so that its columns say all."""
    eye = torch.eye(len(cov), dtype=F64)
    d = base.denoise(eye, torch.full((len(cov),), sigma, dtype=F64), "zero").mT
    return ((d - eye) @ cov @ (d - eye).mT + sigma**2 * d @ d.mT).diagonal()


@pytest.mark.parametrize("sigma", [0.1, 0.8, 5.0])
@pytest.mark.parametrize("r", [0.0, 0.3, 0.9])
def test_sy_7_the_joint_loss_is_the_sum_of_the_views_own_and_less_only_where_the_others_enter(r: float, sigma: float) -> None:
    """Views of variance 1 and correlation r: seen alone each leaves s**2 / (1 + s**2); together they leave l s**2 / (l + s**2) for each
    eigenvalue l, 1 + (V - 1) r once and 1 - r for the rest: the same where r = 0, else less. A wrong r leaves more."""
    cov, zero = (1 - r) * torch.eye(V, dtype=F64) + r, {"zero": torch.zeros(V, dtype=F64)}
    alone = V * sigma**2 / (1 + sigma**2)
    values = torch.tensor([1 + (V - 1) * r] + [1 - r] * (V - 1), dtype=F64)
    together = float((values * sigma**2 / (values + sigma**2)).sum())
    assert float(expected_loss(gaussian(correlated(0.0), zero), cov, sigma).sum()) == pytest.approx(alone, rel=1e-12)
    found = expected_loss(gaussian(correlated(r), zero), cov, sigma)
    assert float(found.sum()) == pytest.approx(together, rel=1e-12) and torch.allclose(found, found.mean())
    assert (together < alone * (1 - 1e-6)) == (r > 0)
    other = 0.6 if r < 0.6 else 0.1
    assert float(expected_loss(gaussian(correlated(other), zero), cov, sigma).sum()) > together * (1 + 1e-6)


def step(number: int = 0, seed: int = 0) -> Step:
    return Step(number, 10, seeded(seed))


def test_a_group_goes_round_in_even_turns_and_shares_all_else() -> None:
    groups, found = Groups(count=3), []
    for seed in range(40):
        cameras = groups(V, 24, step(seed=seed))
        assert len(cameras) == 12 and cameras.size == (24, 24)
        p = cameras.position.view(3, V, 3)
        azimuth, distance = torch.atan2(p[..., 1], p[..., 0]), p.norm(dim=-1)
        elevation = torch.asin(p[..., 2] / distance)
        turn = (azimuth.diff(dim=1) + 2 * math.pi) % (2 * math.pi)
        torch.testing.assert_close(turn, torch.full_like(turn, math.pi / 2))
        focal = cameras.K[:, 0, 0].view(3, V)
        for shared in (elevation, distance, focal):
            torch.testing.assert_close(shared, shared[:, :1].expand(-1, V))
        found.append(torch.stack([azimuth[:, 0], elevation[:, 0], 2 * torch.atan(12 / focal[:, 0]), 24 * distance[:, 0] / focal[:, 0]]))
    azimuth, elevation, fov, width = torch.cat(found, 1)
    assert azimuth.min() < -2.5 and azimuth.max() > 2.5
    for drawn, low, high in ((elevation, 0.0, math.radians(30)), (fov, math.radians(15), math.radians(60)), (width, 0.8, 1.0)):
        span = high - low
        assert low - 1e-9 <= drawn.min() < low + 0.1 * span and high - 0.1 * span < drawn.max() <= high + 1e-9


class Empty:
    """A shape of nothing."""

    def render(self, cameras: Camera, only=None) -> Views:
        rgb, one = torch.zeros(len(cameras), *cameras.size, 3), torch.zeros(len(cameras), *cameras.size, 1)
        return Views(rgb.requires_grad_(), one, one, rgb, cameras)


def test_a_step_has_one_level_a_group_one_grey_and_the_null_knows_the_cameras() -> None:
    class Watched(Joint):
        def __init__(self) -> None:
            super().__init__()
            self.levels, self.asked = [], []
            plain = self.denoiser
            self.denoiser = Adapted(lambda x, s, c: (self.levels.append(s), plain.denoise(x, s, c))[1], plain.sigmas)

        def condition(self, reference=None, cameras=None, text=None, hint=None):
            self.asked.append((None if cameras is None else len(cameras), text))
            return super().condition(reference, None, text, hint)

    prior = Watched()
    term = Together(prior, Groups(count=2), Levels(), 0.1, 3.0, 0.5, 16, "an owl", "ugly", stray=0.4, name="joint")
    x0, cameras = term.seen(Empty(), step())
    grey = (x0.detach() / 2 + 0.5).flatten(1)
    assert x0.shape == (2, *Joint.shape) and len(cameras) == 8
    torch.testing.assert_close(grey, grey[:, :1].expand_as(grey))
    assert abs(float(grey[0, 0] - grey[1, 0])) > 0.01 and float((grey - 0.5).abs().max()) <= 0.4
    losses = term(Empty(), step())
    assert set(losses) == {"joint"} and losses["joint"].weight == 0.1
    assert prior.asked == [(8, "an owl"), (8, "ugly")]
    assert len(prior.levels) == 2 and all(bool((s == s[0]).all()) and len(s) == 2 for s in prior.levels)
    prior.asked.clear()
    Together(prior, Groups(), Levels(), 0.1, 3.0, 0.5, 16, "an owl")(Empty(), step())
    assert prior.asked == [(4, "an owl"), (4, None)]
    plain, _ = Together(prior, Groups(), Levels(), 0.1, 3.0, 0.5, 16, "an owl").seen(Empty(), step())
    assert float(plain.detach().abs().max()) < 1e-6  # the prior's own grey
