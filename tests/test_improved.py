# SPDX-License-Identifier: Apache-2.0
"""Improved DDPM: respacing, learned variances, importance sampling."""

import math

import pytest
import torch

from bozzetto.diffusion.ddpm import bound_term, process, reverse
from bozzetto.diffusion.improved import LossHistory, hybrid_loss, no_losses, respaced, space_timesteps
from bozzetto.diffusion.schedules import linear_betas
from tests.twins.worlds import F64, seeded

P = process(linear_betas())


def network(x_t, k):
    return torch.sin(x_t) * torch.cos(k.double())[:, None]


def test_id_1_respacing_keeps_alpha_bar_and_keeping_all_changes_nothing():
    kept = space_timesteps(1000, [25])
    p, net = respaced(P, network, kept)
    torch.testing.assert_close(p.alpha_bar, P.alpha_bar[kept], rtol=1e-12, atol=0)
    x = torch.randn(25, 2, generator=seeded(), dtype=F64)
    torch.testing.assert_close(net(x, torch.arange(25)), network(x, kept), rtol=0, atol=0)
    same, _ = respaced(P, network, torch.arange(1000))
    for field in ("betas", "alpha_bar", "beta_tilde", "on_x0", "on_x_t"):
        torch.testing.assert_close(
            getattr(same, field), getattr(P, field), rtol=1e-8, atol=1e-15
        )  # 1 - ratio: beta of 1e-4 keeps 12 digits


def test_id_2_learned_variance_at_its_ends_is_small_and_beta_at_every_step():
    """Eq. 15: nu = 1 is log beta_t at t = 0 too. beta~_0 is 0, so the small end, and it alone, is that of the next step there."""
    k = torch.arange(1000)
    x = torch.randn(1000, 2, generator=seeded(1), dtype=F64)
    small = torch.cat([P.beta_tilde[1:2], P.beta_tilde[1:]])
    for output, want in [(-1.0, small), (0.0, (small * P.betas).sqrt()), (1.0, P.betas)]:
        mean, log_variance, _ = reverse(
            P, lambda x, k, o=output: torch.cat([network(x, k), torch.full_like(x, o)], 1), x, k, variance="learned"
        )
        torch.testing.assert_close(log_variance, want.log()[:, None].expand_as(x), rtol=1e-13, atol=1e-13)
        assert torch.equal(mean, reverse(P, network, x, k, variance="small")[0])
    assert abs(float(P.variances("large")[0].log() - P.betas[0].log())) > 0.6  # the fixed large variance is another at k = 0: beta~_1


def test_id_2_the_first_term_of_the_bound_under_the_large_end_is_that_of_beta_0():
    """With the right mean -log N(x0; x0, s2) is ln(2 pi s2) / 2 a dimension: s2 = beta_0 = 1e-4, not beta~_1 = 5.45e-5, .44 bit off."""
    g = seeded(6)
    x0, noise = (torch.randn(5, 2, generator=g, dtype=F64) for _ in range(2))
    first = torch.zeros(5, dtype=torch.int64)

    def knows(x, k):
        return torch.cat([noise, torch.ones_like(x)], 1)

    term = bound_term(P, knows, x0, noise, first, levels=None, variance="learned")
    torch.testing.assert_close(term, torch.full((5,), math.log(2 * math.pi * 1e-4), dtype=F64), rtol=1e-9, atol=0)
    loss = hybrid_loss(P, knows, x0, noise, first, levels=None)
    torch.testing.assert_close(loss, 0.001 * 1000 * term / (2 * math.log(2)), rtol=1e-12, atol=0)
    off = (term[0] - math.log(2 * math.pi * float(P.beta_tilde[1]))) / (2 * math.log(2))
    assert float(off) == pytest.approx(0.4374, abs=5e-5)  # bits a dimension, if beta~_1 stood there


def test_id_3_importance_weights_keep_the_mean_exactly():
    T = 7
    history = no_losses(T)
    g = seeded(2)
    torch.testing.assert_close(history.probabilities(), torch.full((T,), 1 / T, dtype=F64))
    for _ in range(10):
        assert float(history.probabilities().std()) < 1e-15  # even until all have ten
        history = history.seen(torch.arange(T), torch.rand(T, generator=g, dtype=F64) * torch.arange(1, T + 1))
    p = history.probabilities()
    loss = torch.rand(T, generator=g, dtype=F64)
    assert float((p * loss / (T * p)).sum()) == pytest.approx(float(loss.mean()), rel=1e-14)  # all k enumerated
    root = history.losses.square().mean(1).sqrt()
    torch.testing.assert_close(p, 0.999 * root / root.sum() + 0.001 / T, rtol=1e-13, atol=0)
    k, weight = history.draw(20_000, generator=seeded(3))
    torch.testing.assert_close(weight, 1 / (T * p[k]), rtol=1e-14, atol=0)
    share = torch.bincount(k, minlength=T).double() / 20_000
    assert ((share - p) / (p * (1 - p) / 20_000).sqrt()).tolist() == pytest.approx([0] * T, abs=5)


def test_id_3_history_forgets_the_oldest():
    history = no_losses(2, 3)
    for value in (1.0, 2.0, 3.0, 4.0):
        history = history.seen(torch.tensor([1]), torch.tensor([value]))
    assert history.losses[1].tolist() == [2.0, 3.0, 4.0] and history.counts.tolist() == [0, 3]
    assert isinstance(history, LossHistory)


def test_id_4_sections_keep_their_counts_and_their_ends():
    kept = space_timesteps(300, [10, 15, 20])
    assert len(kept) == 45 and bool((kept.diff() > 0).all())
    for start in (0, 100, 200):
        assert start in kept and start + 99 in kept
    assert space_timesteps(10, [3, 2]).tolist() == [0, 2, 4, 5, 9] and space_timesteps(5, [5]).tolist() == [0, 1, 2, 3, 4]
    assert len(space_timesteps(301, [10, 15, 20])) == 45


def test_id_4_the_released_example_is_met_step_by_step():
    """[10, 15, 20] of 300, as its docstring has it: the stride of the middle, 99 / 14, is added up and its half-way step falls to 149."""
    first = [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]
    middle = [100, 107, 114, 121, 128, 135, 142, 149, 157, 164, 171, 178, 185, 192, 199]
    last = [200, 205, 210, 216, 221, 226, 231, 236, 242, 247, 252, 257, 263, 268, 273, 278, 283, 289, 294, 299]
    assert space_timesteps(300, [10, 15, 20]).tolist() == first + middle + last
    assert 7 * (99 / 14) == 49.5 and round(49.5) == 50  # rounded from the product it would be 150
    assert space_timesteps(10, [1, 1]).tolist() == [0, 5]  # one step of a section is its first
    assert space_timesteps(10, [3]).tolist() == [0, 4, 9]  # a half that is exact goes to the even one


def test_hybrid_loss_trains_the_mean_by_the_simple_part_alone():
    g = seeded(4)
    x0, noise = (torch.randn(16, 2, generator=g, dtype=F64) for _ in range(2))
    k = torch.randint(1, 1000, (16,), generator=g)
    eps = torch.randn(16, 2, generator=g, dtype=F64, requires_grad=True)
    o = torch.zeros(16, 2, dtype=F64, requires_grad=True)

    def net(x, k):
        return torch.cat([eps, o], 1)

    loss = hybrid_loss(P, net, x0, noise, k, levels=None)
    terms = bound_term(P, net, x0, noise, k, levels=None, variance="learned")
    want = (eps - noise).square().mean(1) + 0.001 * 1000 * terms / (2 * math.log(2))
    torch.testing.assert_close(loss, want, rtol=1e-12, atol=0)
    loss.sum().backward()
    torch.testing.assert_close(eps.grad, (eps - noise).detach(), rtol=1e-12, atol=0)  # 2 / D (eps - noise), nothing of the bound
    assert float(o.grad.abs().min()) > 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: space_timesteps(10, [6, 1]), "section 0"),
        (lambda: space_timesteps(10, [0]), "1 to 10"),
        (lambda: respaced(P, network, torch.tensor([3, 2])), "ascending"),
        (lambda: respaced(P, network, torch.tensor([3, 1000])), "ascending"),
    ],
)
def test_wrong_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
