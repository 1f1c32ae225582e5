# SPDX-License-Identifier: Apache-2.0
"""DreamBooth's two losses on models whose minima are known, and what a step draws."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bozzetto.denoiser import VPDenoiser, sigma_of
from bozzetto.distill.dreambooth import DreamBooth, Examples, Rule, loss
from bozzetto.priors.tuned import unfrozen

ALPHA_BAR = torch.linspace(0.99, 0.01, 20, dtype=torch.float64)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Mean:
    """A model that says one number, or another where the condition names it, whatever the noise; it remembers what it was asked."""

    sigmas = sigma_of(ALPHA_BAR)

    def __init__(self):
        self.plain, self.named = nn.Parameter(torch.tensor(0.0)), nn.Parameter(torch.tensor(0.0))
        self.levels, self.conditions = [], []

    def loss(self, x0, noise, sigma, cond):
        self.levels.append(sigma)
        self.conditions.append(cond)
        said = torch.where(cond["token"].flatten(1).any(1), self.named, self.plain).expand(len(x0))
        return (said[:, None] - x0).square().mean(1)

    def parameters(self):
        return iter((self.plain, self.named))


def examples(value: float, token: float = 0.0, n: int = 3) -> Examples:
    return Examples(torch.full((n, 4), value), {"token": torch.full((1, 2, 3), token)})


def test_db_1_without_a_weight_it_is_plain_fine_tuning_and_of_one_batch_it_is_1_plus_lambda_times_that():
    """Gradients of |m - x|**2 at m = 0 are -2 x."""
    for weight, kept, expected in ((0.0, 5.0, -4.0), (1.0, 2.0, -8.0), (0.5, 2.0, -6.0), (0.5, 4.0, -8.0)):
        model = Mean()
        found = DreamBooth(model, Rule(weight=weight)).step(examples(2.0), examples(kept), generator=seeded(0))
        assert float(model.plain.grad) == expected and found["own"] == 4.0 and found.get("kept", kept**2) == kept**2
    model = Mean()
    DreamBooth(model).step(examples(2.0), generator=seeded(0))
    assert float(model.plain.grad) == -4.0


def test_db_2_the_first_loss_on_kept_pictures_is_that_of_the_frozen_model():
    """The same draws, the same number; and the frozen model is the same afterwards."""
    prior = SimpleNamespace(denoiser=VPDenoiser(Affine().requires_grad_(False), ALPHA_BAR, "v"))
    before = {k: v.clone() for k, v in prior.denoiser.network.state_dict().items()}
    kept = Examples(torch.randn(6, 4, generator=seeded(1)), {})
    floor = float(loss(prior.denoiser, kept.some(5, seeded(2)), generator=seeded(3)))
    model = unfrozen(prior, generator=seeded(0))
    assert float(loss(model, kept.some(5, seeded(2)), generator=seeded(3)).detach()) == floor
    course = DreamBooth(model, Rule(lr=0.1))
    for _ in range(5):
        course.step(kept, kept, generator=seeded(0))
    assert float(loss(model, kept.some(5, seeded(2)), generator=seeded(3)).detach()) != floor
    assert all(torch.equal(v, before[k]) for k, v in prior.denoiser.network.state_dict().items())


class Affine(nn.Module):
    """A linear layer of the noisy sample alone."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=seeded(p.numel()))

    def forward(self, x_t, step):
        return self.layer(x_t)


@pytest.mark.parametrize("weight", [0.0, 3.0])
def test_without_words_of_its_own_it_ends_in_the_weighted_mean_and_with_them_nothing_is_lost(weight):
    """Minimum of (m - a)**2 + lambda (m - b)**2: (a + lambda b) / (1 + lambda). Two texts, two numbers: a and b."""
    a, b = 3.0, -1.0
    shared, told = Mean(), Mean()
    told.plain.data.fill_(b)  # what the model knew
    for model, token in ((shared, 0.0), (told, 1.0)):
        course = DreamBooth(model, Rule(lr=0.1, weight=weight))
        for _ in range(250):
            course.step(examples(a, token), examples(b), generator=seeded(0))
    assert float(shared.plain.detach()) == pytest.approx((a + weight * b) / (1 + weight), abs=0.02)  # AdamW decays by 1e-2 of the rate
    assert float(told.named.detach()) == pytest.approx(a, abs=0.02)
    if weight:
        assert float(told.plain.detach()) == pytest.approx(b, abs=0.02)


def test_every_step_of_the_model_is_as_likely_and_both_ends_are_among_them():
    """Chi-squared of 20 levels has mean 19 and deviation 6.2; the bound is five of them."""
    model, n = Mean(), 20_000
    loss(model, Examples(torch.zeros(n, 4), {"token": torch.zeros(1, 2, 3)}), generator=seeded(0))
    counts = (model.levels[0][:, None] == model.sigmas).sum(0)
    assert int(counts.sum()) == n  # the model's own levels, none between them
    assert float(((counts - n / 20) ** 2 / (n / 20)).sum()) < 19 + 5 * 6.2


def test_a_tenth_of_the_rows_learns_under_zeros_which_is_not_the_empty_text():
    text, empty, n = torch.full((1, 2, 3), 7.0), torch.full((1, 2, 3), 2.0), 5000
    for null in (torch.zeros_like(text), empty):
        model = Mean()
        course = DreamBooth(model, Rule(share=0.1, batch=n), {"token": null})
        course.step(Examples(torch.zeros(4, 4), {"token": text}), generator=seeded(0))
        rows = model.conditions[0]["token"]
        gone = (rows == null).all((1, 2))
        assert (gone | (rows == text).all((1, 2))).all()
        assert float(gone.double().mean()) == pytest.approx(0.1, abs=4 * (0.09 / n) ** 0.5)  # four standard errors
    with pytest.raises(ValueError, match="expected what stands for a text that is dropped"):
        DreamBooth(Mean(), Rule(share=0.1))


def test_rows_are_drawn_with_what_they_are_asked_under():
    many = Examples(torch.arange(5.0)[:, None].expand(5, 4), {"token": torch.arange(5.0).view(5, 1, 1), "one": torch.ones(1, 2)})
    some = many.some(200, seeded(0))
    assert torch.equal(some.x0[:, 0], some.cond["token"][:, 0, 0]) and some.x0[:, 0].unique().numel() == 5
    assert some.cond["one"].shape == (1, 2)


def test_a_course_that_is_restored_goes_on_the_same():
    def course():
        return DreamBooth(unfrozen(SimpleNamespace(denoiser=VPDenoiser(Affine(), ALPHA_BAR)), generator=seeded(0)), Rule(lr=0.01))

    own, kept = (Examples(torch.randn(3, 4, generator=seeded(k)), {}) for k in (1, 2))
    whole, first, second = course(), course(), course()
    for k in range(6):
        whole.step(own, kept, generator=seeded(k))
    for k in range(3):
        first.step(own, kept, generator=seeded(k))
    second.restore({k: v.clone() for k, v in first.state().items()})
    for k in range(3, 6):
        second.step(own, kept, generator=seeded(k))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters, second.parameters, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(whole.parameters, first.parameters, strict=True))


def test_a_loss_that_is_not_finite_moves_nothing():
    model = Mean()
    course = DreamBooth(model)
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        course.step(examples(float("inf")), generator=seeded(0))
    assert float(model.plain.detach()) == 0
