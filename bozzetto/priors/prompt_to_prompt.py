# SPDX-License-Identifier: Apache-2.0
"""Prompt-to-Prompt (Hertz et al. 2022, arXiv:2208.01626): a picture drawn again under another text, what was not said anew staying.

Two texts are sampled from one noise. Where the source's words look is where the target's words look, for the first share of the steps:
of the maps M = softmax(Q K' / sqrt(d)) of a cross-attention, (N, L) cells by tokens, the target's become

    M* = c ((1 - a) M + a M_source A)

with A (L, L) which source token each target token stands for, a (L,) how much of it, c (L,) the tokens' weights. Word swaps (a = 1),
added words (a = 0 at the new ones) and re-weighting (A = I, c) are values of these: `replaced`, `refined`, `Words.weighed`. Maps of
self-attention are copied for a share of the steps where a layer has few cells; a blend leaves the source's latent where neither text's
chosen words look. Only the conditional half of guidance is controlled.

Letters: L tokens of a text, N cells of a layer, H heads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.denoiser import Adapted, noise_like
from bozzetto.diffusion.guidance import classifier_free
from bozzetto.diffusion.samplers import ddim, ddim_inversion
from bozzetto.diffusion.schedules import spaced, to_zero
from bozzetto.priors.text2image import TextToImage


@dataclass(frozen=True)
class Words:
    """A, a and c of two texts."""

    stands_for: Tensor
    share: Tensor
    weight: Tensor

    def weighed(self, prior: TextToImage, text: str, word: str, by: float) -> Words:
        """The same with a word of the target's text at `by` times its weight."""
        weight = self.weight.clone()
        weight[tokens_of(prior, text, word)] *= by
        return replace(self, weight=weight)

    def mapped(self, source: Tensor, target: Tensor) -> Tensor:
        """M* (..., L) of maps of both texts."""
        return ((1 - self.share) * target + self.share * (source @ self.stands_for)) * self.weight


@dataclass(frozen=True)
class Blend:
    """Where the picture may change: where these words of either text look.

    source, target  tokens (indices), as `tokens_of` finds them
    threshold       of their maps, the largest being 1; strictly more is inside
    start           share of the steps from which it is applied
    cells           of the layers whose maps are read: 16 x 16 of Stable Diffusion
    """

    source: list[int]
    target: list[int]
    threshold: float = 0.3
    start: float = 0.2
    cells: int = 256


@dataclass(frozen=True)
class Control:
    """How the target follows the source.

    words  of cross-attention
    cross  share of the steps in which its maps are the source's
    own    share of the steps in which self-attention's maps are
    cells  most cells of a layer whose self-attention is copied
    blend  where the picture may change; everywhere without one
    """

    words: Words
    cross: float = 0.8
    own: float = 0.4
    cells: int = 256
    blend: Blend | None = None


def tokens_of(prior: TextToImage, text: str, word: str) -> list[int]:
    """Which tokens of a text a word of it is; raises ValueError where it is none of its words."""
    places = _words(prior, text)
    if not (found := [t for w, tokens in places if w == word for t in tokens]):
        raise ValueError(f"word: expected one of {', '.join(w for w, _ in places)}, got {word!r}")
    return found


def replaced(prior: TextToImage, source: str, target: str) -> Words:
    """Of texts of as many words, some of which are others. A word of other tokens shares its map among them.

    raises  ValueError for texts of different lengths
    """
    ours, theirs = _words(prior, source), _words(prior, target)
    if len(ours) != len(theirs):
        raise ValueError(f"target: expected {len(ours)} words, as the source has, got {len(theirs)}; use `refined`")
    length = prior.tokenizer.truncation["max_length"]
    A, i, j = torch.zeros(length, length), 0, 0
    for (_, a), (_, b) in zip(ours, theirs, strict=True):
        while i < a[0]:  # the beginning of text
            A[i, j] = 1
            i, j = i + 1, j + 1
        if len(a) == len(b):
            A[a, b] = 1
        else:
            A[a[0] : a[-1] + 1, b[0] : b[-1] + 1] = 1 / len(b)
        i, j = a[-1] + 1, b[-1] + 1
    while i < length and j < length:  # the end of text and what pads it
        A[i, j] = 1
        i, j = i + 1, j + 1
    A[i:, -1] = 1  # tokens that the longer source has more, so that every row adds up to 1
    return Words(A, torch.ones(length), torch.ones(length))


def refined(prior: TextToImage, source: str, target: str) -> Words:
    """Of texts that share words: those of the source are found in the target by the longest alignment (Needleman and Wunsch; match 1,
    mismatch -1, gap 0), and new ones look where they like."""
    a, b = (prior.tokenizer.encode(text).ids for text in (source, target))
    score = np.zeros((len(a) + 1, len(b) + 1))
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            score[i, j] = max(score[i - 1, j], score[i, j - 1], score[i - 1, j - 1] + (1 if x == y else -1))
    A, share, i, j = torch.zeros(len(a), len(b)), torch.zeros(len(b)), len(a), len(b)
    while i and j:
        if score[i, j] == score[i, j - 1]:  # a new word, where that is as good: the source's words stay together
            j -= 1
        elif score[i, j] == score[i - 1, j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            if a[i] == b[j]:
                A[i, j] = share[j] = 1
    return Words(A, share, torch.ones(len(b)))


def _words(prior: TextToImage, text: str) -> list[tuple[str, list[int]]]:
    """Words of a text and their tokens, in order."""
    encoded, found, at = prior.tokenizer.encode(text), [], 0
    for word in text.split():
        begin = text.index(word, at)
        at = begin + len(word)
        tokens = [
            k
            for k, ((low, high), is_read) in enumerate(zip(encoded.offsets, encoded.attention_mask, strict=True))
            if is_read and low < high and low < at and high > begin
        ]
        if tokens:
            found.append((word, tokens))
    return found


@dataclass
class _State:
    """Of one run: which step, whether the maps are controlled, and what the words' maps have been so far."""

    control: Control
    steps: int
    step: int = 0
    is_on: bool = False
    maps: list[Tensor] = field(default_factory=list)

    def follows(self, share: float) -> bool:
        """As released: of steps + 1 rows of a table."""
        return self.step < int(share * (self.steps + 1))


class _Attention:
    """diffusers' attention with its maps in the open, batch [source, target]; without the norms and masks that Stable Diffusion's U-Nets
    do not have."""

    def __init__(self, state: _State) -> None:
        self.state = state

    def __call__(self, attn: Any, x: Tensor, encoder_hidden_states: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
        seen = x if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (attn.head_to_batch_dim(layer(y)) for layer, y in ((attn.to_q, x), (attn.to_k, seen), (attn.to_v, seen)))
        maps = attn.get_attention_scores(q, k)
        if self.state.is_on:
            maps = self._controlled(maps, encoder_hidden_states is not None)
        y: Tensor = attn.to_out[1](attn.to_out[0](attn.batch_to_head_dim(torch.bmm(maps, v))))
        return y / attn.rescale_output_factor

    def _controlled(self, maps: Tensor, is_cross: bool) -> Tensor:
        s, how = self.state, self.state.control
        source, target = maps.unflatten(0, (2, -1))
        if is_cross:
            if s.follows(how.cross):
                words = how.words
                target = Words(*(t.to(maps) for t in (words.stands_for, words.share, words.weight))).mapped(source, target)
            if how.blend is not None and source.shape[1] == how.blend.cells:
                s.maps.append(torch.stack([source, target]).mean(1))  # over heads
        elif s.follows(how.own) and source.shape[1] <= how.cells:
            target = source
        return torch.cat([source, target])


@contextlib.contextmanager
def _in_the_open(unet: Any, state: _State) -> Iterator[None]:
    """The U-Net's attention by `_Attention`, and as it was afterwards."""
    before = unet.attn_processors
    unet.set_attn_processor(_Attention(state))
    try:
        yield
    finally:
        unet.set_attn_processor(before)


@torch.no_grad()
def prompt_to_prompt(
    prior: TextToImage,
    source: str,
    target: str,
    control: Control,
    *,
    steps: int = 50,
    guidance: float = 7.5,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Pictures (H, W, 3) of both texts, sRGB in [0, 1]: the source as it is drawn by itself, and the target that follows it.

    noise   (1, C, h, w) of unit variance, by default the generator's; of a real picture `noise_of` it
    raises  ValueError without noise and generator
    """
    if noise is None:
        if generator is None:
            raise ValueError("noise: expected it, or a generator to draw it")
        noise = noise_like(torch.zeros(1, *prior.shape), generator)
    state = _State(control, steps)
    told, null = (torch.cat([prior.condition(text=t)["token"] for t in texts]) for texts in ((source, target), ("", "")))
    base = prior.denoiser

    def denoise(x: Tensor, sigma: Tensor | float, cond: Any) -> Tensor:
        state.is_on = cond["token"] is told
        return base.denoise(x, sigma, cond)

    def after(step: int, x: Tensor) -> Tensor:
        state.step = step + 1
        blend = control.blend
        if blend is None or not state.maps or state.step <= int(blend.start * steps):
            return x
        inside = mask(torch.stack(state.maps), blend, (x.shape[-2], x.shape[-1])).to(x)
        return torch.stack([x[0], x[0] + inside * (x[1] - x[0])])

    guided = classifier_free(Adapted(denoise, base.sigmas), {"token": null}, guidance)
    sigmas = to_zero(base.sigmas[spaced(len(base.sigmas), steps)])
    with _in_the_open(prior.unet, state):
        x = noise.expand(2, -1, -1, -1) * float((1 + sigmas[0] ** 2).sqrt())
        x0 = ddim(guided, x, sigmas, {"token": told}, change=after)
    first, second = prior.decode(x0)
    return first, second


@torch.no_grad()
def noise_of(prior: TextToImage, rgb: Tensor, text: str, *, steps: int = 50) -> Tensor:
    """(1, C, h, w), the noise from which a prior draws a real picture under a text that says what it shows: `prompt_to_prompt`'s `noise`.

    By DDIM inversion under the text alone (Sec. 5 of the paper), so that as many steps without guidance come back to the picture, to
    O(1 / steps); guidance leads away from it, the farther the stronger it is.

    rgb  (H, W, 3), sRGB in [0, 1], over the prior's background
    """
    levels = prior.denoiser.sigmas
    sigmas = to_zero(levels[spaced(len(levels), steps)])
    x = ddim_inversion(prior.denoiser, prior.encode_pictures(rgb[None].float()), sigmas, prior.condition(text=text))
    return x / float((1 + sigmas[0] ** 2).sqrt())


def mask(maps: Tensor, blend: Blend, size: tuple[int, int]) -> Tensor:
    """(h, w) bool of the latent's cells where a text's chosen words look, of maps (layers and steps, 2, N, L) as both texts have them."""
    side = round(maps.shape[2] ** 0.5)
    both = [maps[:, k][..., tokens].sum(-1).mean(0).view(1, 1, side, -1) for k, tokens in enumerate((blend.source, blend.target))]
    seen = F.interpolate(F.max_pool2d(torch.cat(both), 3, stride=1, padding=1), size)[:, 0]
    inside: Tensor = (seen / seen.amax((1, 2), keepdim=True).clamp(min=1e-12) > blend.threshold).any(0)
    return inside
