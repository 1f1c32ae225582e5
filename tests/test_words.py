# SPDX-License-Identifier: Apache-2.0
"""From words to a picture: the best of several drawings is taken, by CLIP and by whether it shows one whole object."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bozzetto import lift
from bozzetto.errors import InputError
from bozzetto.fit.asset import CANDIDATES, FILES
from bozzetto.fit.finish import Finish
from bozzetto.priors.clip import Clip
from bozzetto.recipes import guess
from bozzetto.verbs import words
from bozzetto.verbs.draw import draw
from bozzetto.verbs.words import CUT_OFF, IN_PARTS, NOTHING, drawn, looked_at
from tests.test_cli import run

SMALL = guess.Guess(cells=16, steps=4, picture=64, finish=Finish(faces=500, texture=64))


def disc(*places: tuple[int, int], radius: int = 14, colour: tuple[float, float, float] = (0.8, 0.2, 0.1)) -> Tensor:
    """(96, 96, 3): discs on white, about (row, column)."""
    rows, columns = torch.arange(96.0)[:, None], torch.arange(96.0)[None]
    inside = torch.stack([(rows - r).square() + (columns - c).square() < radius**2 for r, c in places]).any(0)
    return torch.where(inside[..., None], torch.tensor(colour), torch.ones(3))


@pytest.mark.parametrize(
    ("picture", "flaws"),
    [
        (disc((40, 52)), ()),
        (disc((40, 5)), (CUT_OFF,)),
        (disc((30, 25), (60, 70)), (IN_PARTS,)),
        (disc((20, 5), (70, 80)), (CUT_OFF, IN_PARTS)),
        (disc((40, 52)) * 0 + 1, (NOTHING,)),
    ],
)
def test_what_is_wrong_with_a_drawing(picture: Tensor, flaws: tuple[str, ...]) -> None:
    source, found = looked_at(picture)
    assert found == flaws and (source is None) == (flaws == (NOTHING,))


class Judge:
    """Who says what it was told to."""

    def __init__(self, *says: float) -> None:
        self.says = says

    def similarity(self, pictures: Tensor, text: str) -> Tensor:
        return torch.tensor(self.says)


def choose(monkeypatch: pytest.MonkeyPatch, says: tuple[float, ...], *pictures: Tensor) -> words.Chosen:
    monkeypatch.setattr(words, "draw", lambda text, **how: torch.stack(pictures))
    monkeypatch.setattr(Clip, "read", lambda *_: Judge(*says))
    return drawn("a red ball", count=len(pictures), seed=5)


def test_the_nearest_to_the_text_of_those_without_a_flaw_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, other, cut, nothing = disc((40, 52)), disc((50, 50)), disc((40, 5)), torch.ones(96, 96, 3)
    made = choose(monkeypatch, (0.2, 0.4, 0.9, 0.95), whole, other, cut, nothing)
    told = made.record["drawn"]
    assert told["taken"] == 1 and told["of"] == 4 and made.source.name == "a red ball" and made.source.warnings == ()
    assert told["candidates"][2] == {"seed": 7, "similarity": 0.9, "flaws": [CUT_OFF]} and told["candidates"][3]["flaws"] == [NOTHING]
    flawed = choose(monkeypatch, (0.2, 0.4, 0.9), disc((20, 5), (70, 80)), disc((30, 25), (60, 70)), nothing)
    assert flawed.record["drawn"]["taken"] == 1 and IN_PARTS in flawed.source.warnings[0] and "--seed" in flawed.source.warnings[0]
    with pytest.raises(InputError, match="none of 2 drawings shows an object"):
        choose(monkeypatch, (0.2, 0.4), nothing, nothing)


def test_the_sheet_shows_all_of_them_and_frames_the_one_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = choose(monkeypatch, tuple(0.1 * k for k in range(6)), *(disc((40, 40 + 3 * k)) for k in range(6)))
    (tmp_path / CANDIDATES).write_bytes(made.files[CANDIDATES])
    sheet = np.asarray(Image.open(tmp_path / CANDIDATES))
    tall, wide = words.TILE + words.STRIP, words.TILE
    assert sheet.shape == (2 * tall, 4 * wide, 3)
    corners = [[sheet[r * tall + 1, c * wide + 1].tolist() for c in range(4)] for r in range(2)]
    framed = [[x == [30, 130, 60] for x in row] for row in corners]
    assert framed == [[False] * 4, [False, True, False, False]]


def test_a_lift_from_words_takes_the_drawing_that_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record names a seed, under which `bozzetto draw` draws the very picture."""
    asset = lift(text="a red chair", out=tmp_path / "chair", settings=SMALL, seed=1, best_of=2)
    told = json.loads((tmp_path / "chair" / "asset.json").read_text())["drawn"]
    assert {*FILES, CANDIDATES} == {p.name for p in (tmp_path / "chair").iterdir()}
    assert told["of"] == 2 and [c["seed"] for c in told["candidates"]] == [1, 2]
    taken = told["candidates"][told["taken"]]
    same = draw("a red chair", seed=taken["seed"])[0]
    torch.testing.assert_close(asset.source.shown, same, rtol=0, atol=1e-4)  # 16 bits
    assert taken["similarity"] == pytest.approx(float(Clip.read().similarity(same[None], "a red chair")), abs=1e-3)


def test_what_is_of_no_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, says in (
        (["--text", "a red chair", "--best-of", "0"], "--best-of 0: expected 1 to 64 pictures"),
        (["examples/teapot.png", "--best-of", "3"], "--best-of 3: says of how many pictures of a --text alone one is taken"),
        (["--text", "a chair", "--prior", f"clip={tmp_path}"], "holds no config.json"),
    ):
        code, said = run(capsys, monkeypatch, "lift", *flags, "--out", tmp_path / "out")
        assert code == 2 and says in said and said.count("\n") == 1 and not (tmp_path / "out").exists()
