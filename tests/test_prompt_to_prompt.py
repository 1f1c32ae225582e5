# SPDX-License-Identifier: Apache-2.0
"""Prompt-to-Prompt (arXiv:2208.01626): its limits, bit for bit, on a small random Stable Diffusion; alignments of words by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import published as random_weights
from bozzetto.priors import load, loading
from bozzetto.priors.prompt_to_prompt import Blend, Control, Words, mask, prompt_to_prompt, refined, replaced, tokens_of
from bozzetto.priors.sampling import Sampler, sample
from bozzetto.priors.text2image import TextToImage

CHAIR, TABLE, RED = "a red chair", "a red table", "a shiny red chair"


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> TextToImage:
    """Small, random, and with a cross-attention that looks at some words more than at others."""
    folder: Path = random_weights.write("stable-diffusion-1.5", tmp_path_factory.mktemp("p2p") / "tiny", "tiny")
    made = loading.load_as(TextToImage, folder)
    for name, p in made.unet.named_parameters():
        if "attn" in name and ("to_k" in name or "to_q" in name or "to_v" in name):
            p.data *= 20
    return made


def own(prior: TextToImage) -> Words:
    """Each token stands for itself."""
    length = prior.tokenizer.truncation["max_length"]
    return Words(torch.eye(length), torch.ones(length), torch.ones(length))


def noise(prior: TextToImage) -> torch.Tensor:
    return torch.randn(1, *prior.shape, generator=torch.Generator().manual_seed(1))


def drawn(prior: TextToImage, source: str, target: str, control: Control) -> tuple[torch.Tensor, torch.Tensor]:
    return prompt_to_prompt(prior, source, target, control, steps=5, guidance=4.0, noise=noise(prior))


def alone(prior: TextToImage, text: str) -> torch.Tensor:
    made = sample(prior, prior.condition(text=text), noise=noise(prior), sampler=Sampler(5, 4.0, 0.0), generator=torch.Generator())
    return prior.decode(made)[0]


# ---- P2P-1, 2: the limits ----


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_p2p_1_one_text_twice_is_one_picture_twice(prior, share):
    first, second = drawn(prior, CHAIR, CHAIR, Control(own(prior), share, share))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)


def test_p2p_2_without_control_both_are_as_they_are_alone(prior):
    first, second = drawn(prior, CHAIR, TABLE, Control(own(prior), 0.0, 0.0))
    for made, text in ((first, CHAIR), (second, TABLE)):
        torch.testing.assert_close(made, alone(prior, text), rtol=0, atol=1e-4)
    assert (first - second).abs().max() > 1e-3


def test_the_source_is_drawn_as_it_is_alone_and_the_target_comes_nearer_to_it(prior):
    far = [drawn(prior, CHAIR, TABLE, Control(replaced(prior, CHAIR, TABLE), share, share)) for share in (0.0, 0.5, 1.0)]
    for source, _ in far:
        torch.testing.assert_close(source, alone(prior, CHAIR), rtol=0, atol=1e-4)
    apart = [float((target - source).abs().mean()) for source, target in far]
    assert apart[0] > apart[1] > apart[2] > 0  # values are the target's own to the end


def test_the_prior_is_afterwards_as_it_was(prior):
    before = alone(prior, CHAIR)
    drawn(prior, CHAIR, TABLE, Control(replaced(prior, CHAIR, TABLE)))
    torch.testing.assert_close(alone(prior, CHAIR), before, rtol=0, atol=0)


def test_the_unconditional_half_is_left_alone(prior):
    """At guidance 0 only the null is heard: what the control does to the other half is not."""
    made = [
        prompt_to_prompt(prior, CHAIR, TABLE, Control(words, 1.0, 1.0), steps=3, guidance=0.0, noise=noise(prior))[1]
        for words in (own(prior), replace(own(prior), weight=3 * own(prior).weight))
    ]
    torch.testing.assert_close(made[0], made[1], rtol=0, atol=0)


# ---- P2P-3, 4: maps ----


def test_p2p_3_rows_keep_their_sum_under_a_row_stochastic_replacement(prior):
    words, g = replaced(prior, "a red chair here", "a green armchair here"), torch.Generator().manual_seed(0)
    torch.testing.assert_close(words.stands_for.sum(1), torch.ones(len(words.share)))
    maps = torch.softmax(torch.randn(2, 6, len(words.share), generator=g), -1)
    torch.testing.assert_close(words.mapped(*maps).sum(-1), torch.ones(6))
    assert (words.mapped(*maps) - maps[0]).abs().max() > 1e-3


def test_p2p_4_a_weight_of_one_changes_nothing(prior):
    words, target = own(prior), alone(prior, CHAIR)
    same, more, less = (drawn(prior, CHAIR, CHAIR, Control(words.weighed(prior, CHAIR, "red", by), 1.0, 0.0))[1] for by in (1.0, 3.0, 0.0))
    torch.testing.assert_close(same, target, rtol=0, atol=1e-4)
    assert (more - target).abs().max() > 1e-3 and (less - target).abs().max() > 1e-3
    weighed = words.weighed(prior, CHAIR, "red", 3.0).weight
    assert weighed.nonzero().flatten().tolist() == list(range(len(weighed))) and set((weighed == 3).nonzero().flatten().tolist()) == set(
        tokens_of(prior, CHAIR, "red")
    )


# ---- P2P-5: the blend ----


def test_p2p_5_a_blends_threshold_at_its_ends_is_the_source_or_the_edit(prior):
    cells = prior.shape[1] * prior.shape[2]
    place = Blend(tokens_of(prior, CHAIR, "chair"), tokens_of(prior, TABLE, "table"), start=0.0, cells=cells)
    control = Control(replaced(prior, CHAIR, TABLE), 0.6, 0.0)
    plain = drawn(prior, CHAIR, TABLE, control)
    nowhere, everywhere = (drawn(prior, CHAIR, TABLE, replace(control, blend=replace(place, threshold=t))) for t in (1.0, -0.1))
    torch.testing.assert_close(nowhere[1], nowhere[0], rtol=0, atol=1e-6)  # strictly more than the largest is nowhere
    torch.testing.assert_close(everywhere[1], plain[1], rtol=0, atol=1e-6)
    assert (plain[1] - plain[0]).abs().max() > 1e-3


def test_a_blend_is_where_either_texts_words_look():
    maps = torch.zeros(1, 2, 64, 5)
    maps[0, 0, 9, 2] = 1.0  # row 1, column 1, by the source
    maps[0, 1, 54, 3] = 0.5  # row 6, column 6, by the target: its own largest
    inside = mask(maps, Blend([2], [3]), (16, 16))
    rows, columns = inside.nonzero().unbind(-1)
    assert inside.sum() == 2 * 36 and inside[:6, :6].all() and inside[10:, 10:].all()  # three cells by three, twice as fine
    assert not inside[rows.flip(0), 15 - columns.flip(0)].all()  # a mirrored one is elsewhere
    assert not mask(maps, Blend([4], [4]), (16, 16)).any()


# ---- which word is which ----


def test_a_words_tokens_are_found(prior):
    ids = prior.tokenizer.encode(CHAIR).ids
    chair = tokens_of(prior, CHAIR, "chair")
    assert [prior.tokenizer.id_to_token(ids[k]) for k in chair] == ["c", "h", "a", "i", "r</w>"]
    assert tokens_of(prior, CHAIR, "a")[0] == 1  # after the beginning of text
    with pytest.raises(ValueError, match=r"word: expected one of a, red, chair, got 'table'"):
        tokens_of(prior, CHAIR, "table")


def test_new_words_stand_for_nothing_and_old_ones_for_themselves(prior):
    words = refined(prior, CHAIR, RED)
    new = tokens_of(prior, RED, "shiny")
    assert set((words.share == 0).nonzero().flatten().tolist()) >= set(new) and words.stands_for[:, new].sum() == 0
    for word in ("red", "chair"):
        a, b = tokens_of(prior, CHAIR, word), tokens_of(prior, RED, word)
        assert (words.stands_for[a, b] == 1).all() and (words.share[b] == 1).all()
    same = refined(prior, CHAIR, CHAIR)
    assert torch.equal(same.stands_for, torch.eye(len(same.share))) and same.share.min() == 1


def test_a_swap_of_a_longer_word_shares_its_map(prior):
    target = "a red sofa"
    words = replaced(prior, CHAIR, target)
    old, new = tokens_of(prior, CHAIR, "chair"), tokens_of(prior, target, "sofa")
    torch.testing.assert_close(words.stands_for[old][:, new], torch.full((5, 4), 1 / 4))
    with pytest.raises(ValueError, match="target: expected 3 words, as the source has, got 4; use `refined`"):
        replaced(prior, CHAIR, RED)


def test_the_embedded_prior_draws_two_texts_as_well():
    prior = load("mini", "text-to-image")
    words = replaced(prior, "a red chair", "a blue chair")
    first, second = prompt_to_prompt(
        prior, "a red chair", "a blue chair", Control(words), steps=6, guidance=3.0, generator=torch.Generator().manual_seed(0)
    )
    assert first.shape == second.shape == (prior.size, prior.size, 3) and (first - second).abs().max() > 0.02
    assert torch.isfinite(second).all()
