# SPDX-License-Identifier: Apache-2.0
"""Pairs drawn by Prompt-to-Prompt and sifted by CLIP, as InstructPix2Pix's training data were made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bozzetto.data.instructions import Triple, write_lines
from bozzetto.errors import InputError
from bozzetto.priors import loading
from bozzetto.priors.clip import Clip
from bozzetto.priors.text2image import TextToImage
from bozzetto.training import drawn_pairs
from bozzetto.training.drawn_pairs import Settings, Sieve, by_grammar, drawn, read_lines, similarities
from bozzetto.training.instruct import Encoded
from bozzetto.training.pairs import Pairs

BLUE = Triple("a photo of a red chair", "make it blue", "a photo of a blue chair", "blue", "recolour")
SHORT = Settings(Path("-"), tries=2, steps=3, guidance=(2.0, 3.0))


@pytest.fixture(scope="module")
def prior() -> TextToImage:
    return loading.load_as(TextToImage, "mini", loading.TEXT)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip.read()


def test_ip_6_what_is_as_much_as_a_threshold_passes_and_the_best_by_direction_stay():
    scores = torch.tensor(
        [
            [0.75, 0.2, 0.2, 0.2],  # each just as much
            [0.749, 0.9, 0.9, 0.9],
            [0.9, 0.199, 0.9, 0.9],
            [0.9, 0.9, 0.199, 0.9],
            [0.9, 0.9, 0.9, 0.0],  # no change at all
            [0.8, 0.3, 0.3, 0.6],
            [0.8, 0.3, 0.3, 0.4],
        ],
        dtype=torch.float64,
    )
    assert Sieve().kept(scores, 4) == [5, 6, 0] and Sieve().kept(scores, 2) == [5, 6]
    assert Sieve().kept(scores[1:5], 4) == []


def test_thresholds_found_anew_refuse_a_tenth_of_true_pairs_by_each():
    """Of a grid of known scores: the tenth part of 0, 1/100, ..., 1 is .1; the captions share the smaller of theirs."""
    grid = torch.linspace(0, 1, 101, dtype=torch.float64)
    found = Sieve.like(torch.stack([grid, grid + 1, grid + 0.5, -grid], 1))
    assert found == pytest.approx((0.1, 0.6, -0.9))
    assert len(found._replace(captions=0.0, direction=-2.0).kept(torch.stack([grid, grid + 1, grid + 0.5, -grid], 1), 200)) == 91


def test_ip_8_all_steps_shared_leave_the_picture_and_none_leaves_two_by_one_noise(prior: TextToImage, monkeypatch: pytest.MonkeyPatch):
    """P2P-1 and 2 on the generator: with p = 1 and the same words nothing changes; p = 0 draws the texts apart, from one noise."""

    def fixed(p: float):
        class Rng:
            def uniform(self, low: float, high: float) -> float:
                return p if (low, high) == (0.1, 0.9) else 2.0

        monkeypatch.setattr(drawn_pairs.np.random, "default_rng", lambda seed: Rng())

    fixed(1.0)
    (before, after), *_ = drawn(prior, replace(BLUE, edited=BLUE.caption), SHORT, 0)
    assert torch.equal(before, after)
    (kept, blue), *_ = drawn(prior, BLUE, SHORT, 0)
    fixed(0.0)
    (alone, free), *_ = drawn(prior, BLUE, SHORT, 0)
    assert (kept - alone).abs().max() < 1e-5  # the source follows nobody
    assert 0 < float((blue - kept).abs().mean()) < float((free - alone).abs().mean())
    assert [int(p * (100 + 1)) for p in (0.1, 0.5, 0.9)] == [10, 50, 90]  # of a hundred steps


def test_a_pair_is_a_function_of_seed_and_number(prior: TextToImage):
    first, second = drawn(prior, BLUE, SHORT, 3)
    again = list(drawn(prior, BLUE, replace(SHORT, tries=1), 3))
    assert torch.equal(first[0], again[0][0]) and torch.equal(first[1], again[0][1])
    assert not torch.equal(first[0], second[0]) and not torch.equal(first[0], next(drawn(prior, BLUE, SHORT, 4))[0])


def test_similarities_of_pictures_and_words(clip: Clip):
    """Red and blue pictures: the change goes where the captions go; turned round in pictures alone, the other way."""
    red, blue = (torch.tensor(c).expand(1, 64, 64, 3).clone() for c in ([0.8, 0.1, 0.1], [0.1, 0.1, 0.8]))
    for x in (red, blue):
        x[:, :16], x[:, 48:], x[:, :, :16], x[:, :, 48:] = 1.0, 1.0, 1.0, 1.0
    there, back, still = (similarities(clip, a, b, [BLUE])[0] for a, b in ((red, blue), (blue, red), (red, red)))
    assert there[3] > 0.1 > -0.1 > back[3] and there[3] == pytest.approx(-float(back[3]), abs=1e-5)
    assert still[0] == pytest.approx(1, abs=1e-5) and still[3] == 0 and there[0] < 1
    assert there[1] > back[1] and there[2] > back[2]  # red before and blue after fit their captions better


def test_triples_are_of_all_kinds_and_read_back(tmp_path: Path):
    said = by_grammar(10, 0)
    assert {t.kind for t in said} == {"recolour", "material", "part added", "part removed", "noun"} and said == by_grammar(10, 0)
    write_lines(said, tmp_path / "t.jsonl")
    assert [(t.caption, t.instruction, t.edited) for t in read_lines(tmp_path / "t.jsonl")] == [
        (t.caption, t.instruction, t.edited) for t in said
    ]
    (tmp_path / "t.jsonl").write_text('{"prompt": "a\\n##\\n", "completion": "b"}\n')
    with pytest.raises(InputError, match="line 1 is no triple"):
        read_lines(tmp_path / "t.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        read_lines(tmp_path / "none.jsonl")


def test_a_run_writes_chunks_that_training_reads_and_goes_on_where_it_was(tmp_path: Path, prior: TextToImage):
    settings = replace(SHORT, out=tmp_path, count=2, keep=1, no_sieve=True)
    drawn_pairs.main(settings)
    pairs = Pairs.of(tmp_path)
    assert pairs.made == "drawn" and len(pairs.said) == 2 and pairs.before.shape == pairs.after.shape and (pairs.mask == 255).all()
    assert Encoded.of(pairs, prior).before.shape[0] == 2
    path = tmp_path / "pairs_0000.safetensors"
    stood = path.stat().st_mtime_ns
    drawn_pairs.main(settings)
    assert path.stat().st_mtime_ns == stood
    with pytest.raises(InputError, match="--guidance LOW HIGH"):
        drawn_pairs.main(replace(settings, guidance=(3.0, 2.0)))
