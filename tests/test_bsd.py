# SPDX-License-Identifier: Apache-2.0
"""Bootstrapped score distillation: closed forms of Gaussian priors, and the terms that learn, in the loop under an exact prior."""

from __future__ import annotations

import itertools

import pytest
import torch

from bozzetto.denoiser import Adapted
from bozzetto.distill.bsd import Refresh, norms_apart, refreshed
from bozzetto.distill.sds import Levels, Ramp, sds
from bozzetto.distill.vsd import Learner, vsd_gradient
from bozzetto.fit.learning import Bootstrapped, Variational
from bozzetto.fit.loop import Learning, optimise
from bozzetto.fit.run import Run
from bozzetto.fit.terms import Pull
from bozzetto.priors.exact import Exact
from bozzetto.shapes.shape import Step
from tests.twins.bank import BANK, CAPTIONS, ring
from tests.twins.canvas import Canvas, framed
from tests.twins.worlds import F64, Fitted, seeded

M, S = 1.2, 0.49


def gaussian(mean, variance):
    def denoise(x, sigma, cond):
        s2 = torch.as_tensor(sigma, dtype=F64).view(-1, *[1] * (x.ndim - 1)) ** 2
        return (variance * x + s2 * mean) / (variance + s2)

    return Adapted(denoise, torch.logspace(-2.5, 1.2, 1000, dtype=F64))


# ---- closed forms ----


def test_bsd_3_a_refresh_contracts_towards_the_prior():
    """E r(x) = m + sqrt(S / (S + sigma^2)) (x - m), variance sigma^2 S / (S + sigma^2); five standard errors of 20,000, and the
    sampler's error, 1 % of the spread. t' at 0 is no change, t' at 1 a fresh draw."""
    n, x, prior = 20_000, -0.8, gaussian(M, S)
    for share in (0.001, 0.4, 0.7, 1.0):
        made = refreshed(prior, torch.full((n, 1), x, dtype=F64), share, steps=1000, generator=seeded(1))
        sigma2 = float(prior.sigmas[max(int(1000 * share), 1) - 1]) ** 2
        keeps, variance = (S / (S + sigma2)) ** 0.5, sigma2 * S / (S + sigma2)
        assert abs(float(made.mean()) - (M + keeps * (x - M))) < 5 * (variance / n) ** 0.5 + 0.01 * S**0.5
        assert abs(float(made.var()) - variance) < 5 * variance * (2 / n) ** 0.5 + 0.01 * S
    assert keeps < 0.05 and variance > 0.99 * S  # the last was a fresh draw


def test_bsd_3_rounds_of_refreshing_and_fitting_contract_by_their_factor():
    """Particles that are replaced by their refreshed selves come nearer to m by sqrt(S / (S + sigma^2)) a round, and to S."""
    prior, n, g = gaussian(M, S), 20_000, seeded(2)
    x = -2 + 0.1 * torch.randn(n, 1, generator=g, dtype=F64)
    sigma2 = float(prior.sigmas[599]) ** 2
    keeps = (S / (S + sigma2)) ** 0.5
    mean, variance = -2.0, 0.01
    for _ in range(4):
        x = refreshed(prior, x, 0.6, steps=1000, generator=g)
        mean, variance = M + keeps * (mean - M), keeps**2 * variance + sigma2 * S / (S + sigma2)
        assert abs(float(x.mean()) - mean) < 0.02 and abs(float(x.var()) - variance) < 0.02
    assert abs(variance - S) < 0.2 * S


def test_a_refresh_takes_the_released_codes_steps():
    """int(25 t / 1000) of 25 steps, one at least: at t = .5 of 1000 levels 12, from the level of the 12th from below."""
    asked = []
    prior = gaussian(M, S)
    watched = Adapted(lambda x, s, c: asked.append(float(s)) or prior.denoise(x, s), prior.sigmas)
    for share, count, first in ((0.5, 12, 479), (0.2, 5, 199), (0.0, 1, 39), (1.0, 25, 999)):
        asked.clear()
        refreshed(watched, torch.zeros(1, 1, dtype=F64), share, generator=seeded(3))
        assert len(asked) == count and asked[0] == pytest.approx(float(prior.sigmas[first]))
    with pytest.raises(ValueError, match="share"):
        refreshed(prior, torch.zeros(1, 1, dtype=F64), 1.2, generator=seeded(3))


def test_bsd_4_the_structure_loss_sees_lengths_alone():
    x = torch.randn(3, 4, 5, generator=seeded(4), dtype=F64)
    turn = torch.linalg.qr(torch.randn(20, 20, generator=seeded(5), dtype=F64)).Q
    turned = (x.flatten(1) @ turn).view_as(x)
    assert float(norms_apart(x, turned)) < 1e-24
    assert float(norms_apart(x, 3 * x)) == pytest.approx(4 * float(x.square().sum()))
    assert norms_apart(x, x.roll(1, 0)) > 1e-3  # lengths of other samples: the control


def test_refreshes_come_when_the_released_code_has_them():
    """Of 5000 steps 1000 teach, 8 pictures each 200; what cannot be is refused."""
    refresh = Refresh()
    learning = [n for n in range(5000) if refresh.is_learning(n)]
    assert len(learning) == 1000 and learning[:2] == [0, 1] and learning[200] == 1000
    assert sum(refresh.is_due(n) for n in learning) == 5 * 8
    with pytest.raises(ValueError, match="learning < every"):
        Refresh(every=100, learning=100)
    with pytest.raises(ValueError, match="'frozen' or 'current'"):
        Refresh(refresh_from="thawed")


# ---- as terms of a fit ----


def around(views=2):
    def draw(step):
        return 6.28 * torch.rand(views, generator=step.generator, dtype=F64), torch.full((views,), 0.3, dtype=F64)

    return draw


PRIOR = Exact(BANK, ring(8), CAPTIONS, size=16, width=0.3)
HALF = Levels(Ramp(0.3, 0.3), Ramp(0.6, 0.6))


def pull(kind, **more):
    return kind(PRIOR, framed(), around(), HALF, 1.0, 1.0, 16, text="red box", **more)


def learner(start=0.0):
    return Learner(Fitted((3, 16, 16), start))


def no_label(cameras):
    return None


def canvas(seed=0):
    return Canvas(torch.rand(16, 16, 3, generator=seeded(seed)))


def gradient(term, number=0, seed=6):
    shape, step = canvas(), Step(number, 100, seeded(seed))
    losses = term(shape, step)
    sum(x.weight * x.value for x in losses.values()).backward()
    return shape.rgb.grad.clone()


def test_variational_is_vsd_of_the_views_that_pull_would_ask_for():
    own = learner(0.2)
    term = pull(Variational, own=own, labelled=no_label)
    assert isinstance(term, Learning) and not isinstance(pull(Pull), Learning)
    got = gradient(term)
    shape, g = canvas(), seeded(6)
    cameras = framed().cameras(*around()(Step(0, 100, g)))
    x0 = PRIOR.encode(shape.render(cameras))
    sigma = HALF.draw(PRIOR.denoiser, 2, 0, generator=g)
    want = vsd_gradient(PRIOR.denoiser, own.denoiser, x0.detach(), sigma, PRIOR.condition(None, cameras, "red box"), generator=g)
    torch.testing.assert_close(got, want.mean(0).movedim(0, -1) * 2, rtol=1e-4, atol=1e-6)


def test_bsd_1_a_booth_that_is_the_prior_is_vsd():
    got = gradient(pull(Bootstrapped, own=learner(0.2), labelled=no_label, booth=Frozen()), number=300)
    torch.testing.assert_close(got, gradient(pull(Variational, own=learner(0.2), labelled=no_label)), rtol=0, atol=0)


class Frozen:
    """The prior in the booth's place: a learner that never learns."""

    denoiser = PRIOR.denoiser


def test_bsd_2_a_booth_that_is_phi_has_no_gradient():
    same, other = learner(0.2), learner(-0.3)
    booth = Adapted(lambda x, s, cond: same.denoiser.denoise(x, s, None), PRIOR.denoiser.sigmas)
    term = pull(Bootstrapped, own=same, labelled=no_label, booth=same)
    term._base = booth  # asked without the prior's condition, as phi is
    assert float(gradient(term, number=300).abs().max()) == 0
    term.own = other
    assert float(gradient(term, number=300).abs().max()) > 1e-3  # the control


def test_the_picture_is_drawn_to_the_object_and_phi_follows_it():
    """One particle under one camera ends as a draw of the prior, .3 from the object, while phi, of one number a pixel, runs after it."""
    own = Learner(Fitted((3, 16, 16)))
    own.optimiser = torch.optim.Adam(own.parameters, lr=0.05)
    one = lambda step: (torch.zeros(1, dtype=F64), torch.full((1,), 0.3, dtype=F64))  # noqa: E731
    term = Variational(PRIOR, framed(), one, HALF, 0.5, 1.0, 16, text="red box", own=own, labelled=no_label)
    shape, cameras = canvas(), framed().cameras([0.0], [0.3])
    optimise(shape, [term], Run(None, {}), "fit", steps=150, seed=1)
    truth = PRIOR.condition(None, cameras, "red box")["windows"][0, 0]
    before, after = (float((PRIOR.encode(s.render(cameras))[0].detach() - truth).square().mean()) for s in (canvas(), shape))
    assert before > 1 and after < 0.3
    assert float((own.denoiser.mean.detach() - truth).square().mean()) < 0.5 * float(truth.square().mean())  # it began at 0


def fresh(**refresh):
    booth = Learner(Booth((3, 16, 16)), dropped=0.0)
    settings = Refresh(**{"every": 10, "learning": 4, "each": 2, "keep": 3, "steps": 4, "guidance": 1.0, **refresh})
    return pull(Bootstrapped, own=learner(), labelled=no_label, booth=booth, refresh=settings)


class Booth(Fitted):
    """A Gaussian in the booth's place, which knows nothing of the prior's conditions."""

    def denoise(self, x, sigma, cond=None):
        return super().denoise(x, sigma, None)


def test_a_bootstrapped_run_rests_teaches_and_pulls_in_turn():
    term, shape, moves = fresh(), canvas(), []
    before = [shape.rgb.detach().clone()]

    def watched(s, step):
        if step.number:
            moves.append(not torch.equal(s.rgb, before[0]))
            before[0] = s.rgb.detach().clone()
        return {}

    optimise(shape, [watched, term], Run(None, {}), "fit", steps=21, seed=2)
    assert moves == [n % 10 >= 4 for n in range(20)]
    assert len(term._kept) == 3 and all(x0.shape == (1, 3, 16, 16) for x0, _ in term._kept)
    assert all(cond["windows"].shape[:2] == (1, 4) for _, cond in term._kept)  # each with its own view's condition


@pytest.mark.parametrize("source", ["frozen", "current"])
def test_pictures_are_improved_by_the_prior_or_by_the_model_under_training(source):
    term, asked = fresh(refresh_from=source), {"frozen": 0, "current": 0}

    def counted(name, denoiser):
        def denoise(x, sigma, cond):
            asked[name] += 1
            return denoiser.denoise(x, sigma, cond)

        return Adapted(denoise, denoiser.sigmas)

    booth = term.booth.denoiser
    term.prior = Exact(BANK, ring(8), CAPTIONS, size=16, width=0.3)
    term.prior.denoiser, term.booth.denoiser = counted("frozen", PRIOR.denoiser), counted("current", booth)
    term(canvas(), Step(0, 100, seeded(7)))
    assert asked == {"frozen": 0, "current": 0} | {source: 2}  # int(4 steps x .6 of the levels) of the sampler
    kept = term._kept[0][0]
    if source == "frozen":  # ... of boxes as they are
        windows = PRIOR.condition(text="red box", cameras=ring(1))["windows"]
        assert kept.shape == windows[:, 0].shape and torch.isfinite(kept).all()


@pytest.mark.parametrize("kind", ["variational", "bootstrapped"])
def test_killed_and_resumed_they_end_in_the_same_bytes(kind, tmp_path):
    def run(folder, killed_at=None, resume=False):
        term = fresh() if kind == "bootstrapped" else pull(Variational, own=learner(), labelled=no_label)
        shape = canvas()

        def kill(stage, share):
            if killed_at is not None and share * 14 >= killed_at:
                raise InterruptedError

        run = Run(folder, {"test": 1}, progress=kill, resume=resume)
        optimise(shape, [term], run, "fit", steps=14, seed=3, every=2)
        return shape.rgb.detach()

    whole = run(tmp_path / "whole")
    for at in (3, 9, 13):  # while it teaches, while it pulls, while it teaches again
        with pytest.raises(InterruptedError):
            run(tmp_path / f"{at}", killed_at=at)
        assert torch.equal(run(tmp_path / f"{at}", resume=True), whole)


# ---- several priors ----


def fixed_point(shares, priors, sigma, steps=4000, rate=0.05):
    """Where descent on a weighted sum of `sds` ends; a noise and its mirror, since these denoisers are affine."""
    x, mirrored = torch.zeros(2, 1, dtype=F64), torch.tensor([[1.0], [-1.0]], dtype=F64)
    for _ in range(steps):
        x = x - rate * sum(w * (x - d.denoise(x + sigma * mirrored, sigma)) / sigma for w, d in zip(shares, priors, strict=True)).mean()
    return float(x[0])


def test_dc_5_hybrid_guidance_with_mu_of_1_and_2_traces_sds_4():
    """DreamCraft3D: a text prior and mu times a view prior; sum lambda_i k_i m_i / sum lambda_i k_i, k_i = 1 / (S_i + sigma^2)."""
    sigma, laws = 1.3, ((-1.0, 0.2), (2.0, 0.8))
    k = [1 / (v + sigma**2) for _, v in laws]
    for mu in (1.0, 2.0):
        shares = (1.0, mu)
        want = sum(w * p * m for w, p, (m, _) in zip(shares, k, laws, strict=True)) / sum(w * p for w, p in zip(shares, k, strict=True))
        assert fixed_point(shares, [gaussian(*law) for law in laws], sigma) == pytest.approx(want, abs=1e-6)


def test_mg_5_one_noise_for_both_priors_has_the_same_mean_and_twice_the_covariance_more():
    """Of SDS gradients a_i noise + b_i, with a_i = S_i / (S_i + sigma^2): variance sum (w_i a_i)^2, and 2 w_1 w_2 a_1 a_2 if shared;
    five standard errors of 200,000."""
    n, x, sigma = 200_000, 0.4, 1.3
    laws, shares = ((-1.0, 0.2), (2.0, 0.8)), (1.0, 0.5)
    points, levels = torch.full((n, 1), x, dtype=F64, requires_grad=True), torch.full((n,), sigma, dtype=F64)

    def total(seeds):
        loss = sum(
            w * n * sds(gaussian(*law), points, levels, generator=seeded(seed), weight=lambda s: torch.ones_like(s))
            for w, law, seed in zip(shares, laws, seeds, strict=True)
        )
        (grad,) = torch.autograd.grad(loss, points)
        return grad

    apart, shared = total((8, 9)), total((8, 8))
    a = [w * v / (v + sigma**2) for w, (_, v) in zip(shares, laws, strict=True)]
    assert abs(float(apart.mean() - shared.mean())) < 5 * float(shared.std() + apart.std()) / n**0.5
    for got, want in ((apart, a[0] ** 2 + a[1] ** 2), (shared, (a[0] + a[1]) ** 2)):
        assert float(got.var()) == pytest.approx(want, rel=5 * (2 / n) ** 0.5)


def test_c2_2_weights_that_move_over_the_run_have_a_closed_course():
    """x' = x - r sum_i w_i(step) k_i' (x - m_i), k_i' = sigma / (S_i + sigma^2): a product of factors, step by step."""
    sigma, rate, laws = 1.3, 0.1, ((-1.0, 0.2), (2.0, 0.8))
    first, second = Ramp(1.0, 0.37, 5, 40), Ramp(0.0, 0.63, 5, 40)
    k = [sigma / (v + sigma**2) for _, v in laws]
    x, want = torch.zeros(2, 1, dtype=F64), 0.0
    mirrored = torch.tensor([[1.0], [-1.0]], dtype=F64)
    for step in range(60):
        shares = (first(step), second(step))
        pulls = [w * (x - gaussian(*law).denoise(x + sigma * mirrored, sigma)) / sigma for w, law in zip(shares, laws, strict=True)]
        x = x - rate * sum(pulls).mean()
        total = sum(w * p for w, p in zip(shares, k, strict=True))
        aim = sum(w * p * m for w, p, (m, _) in zip(shares, k, laws, strict=True)) / total
        want = aim + (1 - rate * total) * (want - aim)
        assert float(x[0]) == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("r", [0.0, 0.5, 0.9])
def test_mv_7_a_joint_prior_moves_the_views_that_are_not_seen(r):
    """Two views of N(m, S [[1, r], [r, 1]]), one held at a: by SDS at one level the other ends at m + r S / (S + sigma^2) (a - m), which
    is r (a - m) at small levels. A prior of each view by itself (r = 0) leaves it at its mean."""
    sigma, a = 0.4, 2.7
    cov = S * torch.tensor([[1.0, r], [r, 1.0]], dtype=F64)
    gain = cov @ torch.linalg.inv(cov + sigma**2 * torch.eye(2, dtype=F64))
    joint = Adapted(lambda x, s, c: M + ((x - M).flatten(1) @ gain.T).view_as(x), torch.ones(1))
    noises = torch.tensor(list(itertools.product([1.0, -1.0], repeat=2)), dtype=F64)  # their mean is 0, and this denoiser affine
    x = torch.full((1, 2), a, dtype=F64)
    for _ in range(3000):
        x[:, 1] -= 0.1 * (x - joint.denoise(x + sigma * noises, sigma)).mean(0)[1]
    assert float(x[0, 1]) == pytest.approx(M + r * S / (S + sigma**2) * (a - M), abs=1e-9)
