# SPDX-License-Identifier: Apache-2.0
"""Prompt-to-Prompt of a real picture: the noise that it comes from, by DDIM inversion, and the way back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bozzetto.denoiser import Adapted, each, sigma_of
from bozzetto.priors import loading
from bozzetto.priors.prompt_to_prompt import Control, Words, noise_of, prompt_to_prompt
from bozzetto.priors.schedule import NoiseSchedule
from bozzetto.priors.text2image import TextToImage


def gaussian(mean: float, std: float) -> Any:
    """A prior under which x0 ~ N(mean, std^2) in each pixel; its text is the mean."""

    def denoise(x: torch.Tensor, sigma: torch.Tensor | float, cond: Any) -> torch.Tensor:
        level = each(sigma, x) ** 2
        return (std**2 * x + level * cond["mean"]) / (std**2 + level)

    denoiser = Adapted(denoise, sigma_of(NoiseSchedule().alpha_bar()))
    encode = lambda rgb: 2 * rgb.movedim(-1, 1).double() - 1  # noqa: E731
    return SimpleNamespace(denoiser=denoiser, encode_pictures=encode, condition=lambda text: {"mean": torch.tensor(mean)})


@pytest.mark.parametrize(("mean", "std"), [(0.3, 1.0), (-0.2, 0.5)])
def test_noise_of_a_gaussians_picture_is_its_closed_form(mean: float, std: float) -> None:
    """The flow carries x0 to m + (x0 - m) sqrt(1 + sigma^2 / s^2), to O(1 / steps): twice as many steps, half the error."""
    rgb = torch.rand(4, 4, 3, generator=torch.Generator().manual_seed(0))
    prior, x0 = gaussian(mean, std), 2 * rgb.movedim(-1, 0)[None].double() - 1
    sigma = float(prior.denoiser.sigmas.max())
    exact = (mean + (x0 - mean) * (1 + sigma**2 / std**2) ** 0.5) / (1 + sigma**2) ** 0.5
    off = [float((noise_of(prior, rgb, "", steps=n) - exact).abs().max()) for n in (50, 100, 200)]
    assert off[1] < 0.65 * off[0] and off[2] < 0.65 * off[1] and off[2] < 0.02, off
    mirrored = (mean - (x0 - mean) * (1 + sigma**2 / std**2) ** 0.5) / (1 + sigma**2) ** 0.5
    assert (noise_of(prior, rgb, "", steps=50) - mirrored).abs().max() > 0.5  # the control: a flipped sign


@pytest.mark.slow
def test_drawn_again_under_its_own_text_a_picture_comes_back_as_the_codec_leaves_it() -> None:
    """Of the embedded prior, which is no Gaussian: four times the steps, half the error, a fifth of another noise's."""
    prior = loading.load_as(TextToImage, "mini", "text-to-image")
    own = Words(*(make(prior.tokenizer.truncation["max_length"]) for make in (torch.eye, torch.ones, torch.ones)))
    rows, columns = torch.arange(float(prior.size))[:, None], torch.arange(float(prior.size))[None]
    inside = ((rows - 60).abs() < 30) & ((columns - 72).abs() < 22)
    rgb = torch.where(inside[..., None], torch.tensor([0.8, 0.2, 0.15]), torch.ones(3))
    kept = prior.decode(prior.encode_pictures(rgb[None]))[0]

    def off(steps: int, noise: torch.Tensor) -> float:
        again, _ = prompt_to_prompt(prior, "a red chair", "a blue chair", Control(own), steps=steps, guidance=1.0, noise=noise)
        return float((again - kept).abs().mean())

    few, many = (off(n, noise_of(prior, rgb, "a red chair", steps=n)) for n in (10, 40))
    other = off(10, torch.randn(1, *prior.shape, generator=torch.Generator().manual_seed(0)))
    assert many < 0.6 * few and many < 0.2 * other, (few, many, other)
