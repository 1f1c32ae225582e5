# SPDX-License-Identifier: Apache-2.0
"""Guidance: functions from denoisers to a denoiser, so that every sampler and every loss takes what they return.

Scale g: uncond + g * (cond - uncond); g = 1 is plain conditioning, 0 is none. Papers that write 1 + w have g = 1 + w. As the
weights sum to 1, guiding denoised, eps, score or v is one and the same.

What guidance samples is *not* p(x | cond)**g p(x)**(1 - g): at each level it guides a blurred density (check CFG-4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from bozzetto.denoiser import Adapted, Denoiser, each, share_of


def classifier_free(denoiser: Denoiser, uncond: Any, g: float, *, rescale: float = 0.0, rescales: Literal["eps", "x0"] = "eps") -> Adapted:
    """uncond + g (cond - uncond), where cond is what the result is asked under.

    uncond   the learnt null condition
    rescale  in [0, 1]: how far the result goes back to the standard deviation that it has under cond alone, sample by sample, of a joint
             prior over all views; 0 is off
    rescales what does: eps (Lin et al. 2023, arXiv:2305.08891, Sec. 3.4), or x0 (MVDream, arXiv:2308.16512, Sec. 3.4)
    source   Ho & Salimans 2022 (arXiv:2207.12598)
    """
    if not 0 <= rescale <= 1:
        raise ValueError(f"rescale: expected a number in [0, 1], got {rescale}")

    def guided(x: Tensor, sigma: Tensor | float, cond: Any) -> Tensor:
        if not rescale or g == 1:
            return _sum(denoiser, x, sigma, [(uncond, 1 - g), (cond, g)])
        plain = denoiser.denoise(x, sigma, cond)
        denoised = (1 - g) * denoiser.denoise(x, sigma, uncond) + g * plain
        if rescales == "x0":
            return denoised * _back(denoised, plain)
        eps = x - denoised  # both times sigma, which cancels
        return x - eps * _back(eps, x - plain)

    def _back(strong: Tensor, plain: Tensor) -> Tensor:
        dims = tuple(range(1, plain.ndim))
        ratio = plain.std(dims, keepdim=True) / strong.std(dims, keepdim=True).clamp(min=1e-12)  # guards what is constant
        return 1 + rescale * (ratio - 1)

    return Adapted(guided, denoiser.sigmas)


def progressive(denoiser: Denoiser, uncond: Any, first: float, last: float, power: float = 1.0) -> Adapted:
    """`classifier_free` with a scale that falls as the noise does: last + (first - last) s**power, where s is the level's share of the
    denoiser's own, 1 the largest and 0 the smallest. Much of it lays out the shape, little of it leaves the texture its colours.

    source  Consistent123, Weng et al. 2023 (arXiv:2310.08092), Sec. 3.3; power 5 is Hunyuan3D-1's (arXiv:2411.02293)
    """

    def guided(x: Tensor, sigma: Tensor | float, cond: Any) -> Tensor:
        g = (last + (first - last) * share_of(denoiser, sigma) ** power).to(x).view(-1, *[1] * (x.ndim - 1))
        null = denoiser.denoise(x, sigma, uncond)
        return null + g * (denoiser.denoise(x, sigma, cond) - null)

    return Adapted(guided, denoiser.sigmas)


def dual(denoiser: Denoiser, none: Any, image: Any, image_scale: float, text_scale: float) -> Adapted:
    """Two conditions with a scale each: none + S_I (image - none) + S_T (cond - image), cond being image and text.

    none, image  both conditions null; the picture with the text's null
    source       InstructPix2Pix (arXiv:2211.09800), Eq. 3; the other order needs the text with the picture's null
    """
    weights = [1 - image_scale, image_scale - text_scale, text_scale]

    def guided(x: Tensor, sigma: Tensor | float, cond: Any) -> Tensor:
        return _sum(denoiser, x, sigma, list(zip([none, image, cond], weights, strict=True)))

    return Adapted(guided, denoiser.sigmas)


def perp_neg(denoiser: Denoiser, uncond: Any, negatives: Sequence[tuple[Any, Tensor | float]], g: float) -> Adapted:
    """Away from negative conditions, but only as far as they say something else than the condition: with d(c) = D(c) - D(uncond),

        D(uncond) + g (d(cond) - sum_i w_i p_i),    p_i = d(negative_i) less its part along d(cond), sample by sample

    A negative that says what the condition says does nothing, where subtracting it would take the condition back. Text-to-3D asks
    for "back view" so, with "front view" as a negative: half of what those two say is the object.

    negatives  conditions and their weights w_i >= 0, one number or (B,)
    source     Perp-Neg, Armandpour et al. 2023 (arXiv:2304.04968)
    """

    def guided(x: Tensor, sigma: Tensor | float, cond: Any) -> Tensor:
        null = denoiser.denoise(x, sigma, uncond)
        towards = (denoiser.denoise(x, sigma, cond) - null).flatten(1)
        total = towards
        for negative, weight in negatives:
            away = (denoiser.denoise(x, sigma, negative) - null).flatten(1)
            along = (away * towards).sum(1, keepdim=True) / towards.square().sum(1, keepdim=True).clamp(min=1e-30)  # d(cond) may be 0
            total = total - torch.as_tensor(weight, dtype=torch.float64).to(x).view(-1, 1) * (away - along * towards)
        return null + g * total.view_as(x)

    return Adapted(guided, denoiser.sigmas)


def autoguidance(denoiser: Denoiser, guide: Denoiser, g: float) -> Adapted:
    """guide + g (denoiser - guide): away from what a weaker model of the same data does, under the same condition.

    Both err alike where the data are hard, the guide more, so the difference points from the errors to the data; no condition is
    needed. Of two Gaussians, standard deviations s and S > s, the probability flow ends in one of S**(1 - g) s**g (check AG-1): a
    guide that is only broader, not worse, makes the result too narrow.

    guide   a smaller or less trained model, of the same samples
    source  Karras et al. 2024 (arXiv:2406.02507), Eq. 3 and Sec. 4
    """

    def guided(x: Tensor, sigma: Tensor | float, cond: Any) -> Tensor:
        if g == 1:
            return denoiser.denoise(x, sigma, cond)
        return torch.lerp(guide.denoise(x, sigma, cond), denoiser.denoise(x, sigma, cond), g)

    return Adapted(guided, denoiser.sigmas)


def limited(inside: Denoiser, outside: Denoiser, low: float = 0.0, high: float = math.inf) -> Adapted:
    """`inside` on levels low < sigma <= high, `outside` elsewhere: guidance where it helps, at one call a step elsewhere.

    source  Kynkäänniemi et al. 2024 (arXiv:2404.07724)
    """
    if not 0 <= low < high:
        raise ValueError(f"interval: expected 0 <= low < high, got {low} and {high}")

    def chosen(x: Tensor, sigma: Tensor | float, cond: Any) -> Tensor:
        s = each(sigma, x)
        is_inside = (s > low) & (s <= high)
        if bool(is_inside.all()):
            return inside.denoise(x, sigma, cond)
        if not bool(is_inside.any()):
            return outside.denoise(x, sigma, cond)
        return torch.where(is_inside, inside.denoise(x, sigma, cond), outside.denoise(x, sigma, cond))

    return Adapted(chosen, inside.sigmas)


def thresholded(denoiser: Denoiser, share: float, most: float) -> Adapted:
    """Dynamic thresholding, for x0 in [-1, 1]: where strong guidance leads beyond, values are cut at +-s and divided by s.

    share   in (0, 1): s is this quantile of |x0|, sample by sample, but 1 at the least, so that what lies within stays as it is
    most    s is no larger
    source  Saharia et al. 2022 (arXiv:2205.11487), Sec. 2.3; `most` is diffusers'
    """
    if not 0 < share < 1 <= most:
        raise ValueError(f"thresholding: expected a share in (0, 1) and most >= 1, got {share} and {most}")

    def cut(x: Tensor, sigma: Tensor | float, cond: Any) -> Tensor:
        x0 = denoiser.denoise(x, sigma, cond)
        s = x0.abs().flatten(1).quantile(share, 1).clamp(1, most).view(-1, *[1] * (x0.ndim - 1))
        return torch.minimum(torch.maximum(x0, -s), s) / s

    return Adapted(cut, denoiser.sigmas)


def classifier(denoiser: Denoiser, log_prob: Callable[[Tensor, Tensor | float], Tensor], g: float = 1.0) -> Adapted:
    """denoised + g sigma**2 grad log p(y | x): the score of p(x) p(y | x)**g, by Tweedie.

    log_prob  (x, sigma) to log p(y | x), (B,), differentiable in x: a classifier of *noisy* samples
    source    Dhariwal & Nichol 2021 (arXiv:2105.05233), Alg. 1 in this form
    """

    def guided(x: Tensor, sigma: Tensor | float, cond: Any) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(log_prob(leaf, sigma).sum(), leaf)
        return denoiser.denoise(x, sigma, cond) + g * each(sigma, x) ** 2 * gradient

    return Adapted(guided, denoiser.sigmas)


def _sum(denoiser: Denoiser, x: Tensor, sigma: Tensor | float, branches: Sequence[tuple[Any, float]]) -> Tensor:
    """Sum of weight * denoised over conditions; a branch of weight 0 costs no call, and weight 1 alone is exact."""
    total = None
    for cond, weight in branches:
        if weight != 0:
            part = weight * denoiser.denoise(x, sigma, cond)
            total = part if total is None else total + part
    assert total is not None, "weights sum to 1"
    return total
