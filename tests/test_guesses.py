# SPDX-License-Identifier: Apache-2.0
"""What a lift begins with, by the flag that a user gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bozzetto import lift, load
from bozzetto.errors import InputError
from bozzetto.fit import guesses
from bozzetto.fit.around import Around
from bozzetto.fit.finish import Finish
from bozzetto.fit.silhouette import Silhouette
from bozzetto.fit.source import Source
from bozzetto.priors.loading import MINI
from bozzetto.recipes import RECIPES
from bozzetto.recipes.guess import Guess
from bozzetto.recipes.zero123 import Zero123
from tests.test_cli import CHAIR, refused, run
from tests.twins import triposr as twin

SMALL = Finish(500, 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small TripoSR with random weights, whose density passes the threshold here and there."""
    state = twin.random_state()
    state["decoder.layers.6.bias"][0] = 4.0
    return twin.write(tmp_path_factory.mktemp("guesses") / "small", state)


@pytest.mark.slow
def test_a_lift_begins_with_triposr_and_ends_in_the_same_numbers_again(folder: Path, tmp_path: Path):
    few = RECIPES["guess"].presets["draft"]
    asset = lift(CHAIR, tmp_path / "out", guess=folder, settings=few)
    told = json.loads((tmp_path / "out" / "asset.json").read_text())
    assert told["prior"] == digest_of(folder) != guesses.load("mini")[1]
    assert 0 < told["guess_iou"] <= 1 and asset.is_complete
    again = lift(CHAIR, settings=few, prior={"first_guess": folder})
    torch.testing.assert_close(again.mesh.vertices, asset.mesh.vertices, rtol=0, atol=0)


def digest_of(folder: Path) -> str:
    return guesses.load(str(folder))[1]


@pytest.mark.slow
def test_distillation_begins_with_triposr_as_well(folder: Path):
    """What the prior pulls on is TripoSR's solid: after a step it is near that, and far from what the embedded guess begins with."""
    tiny = Zero123(guess=Silhouette(cells=24, steps=2, picture=64), steps=1, around=Around(views=1), picture=32, colours=16, finish=SMALL)
    made, plain = (lift(CHAIR, recipe="zero123", settings=tiny, guess=g) for g in (str(folder), None))
    begun = lift(CHAIR, settings=Guess(cells=24, steps=2, picture=64, finish=SMALL), guess=str(folder))
    ends = [torch.stack([x.mesh.vertices.amin(0), x.mesh.vertices.amax(0)]) for x in (made, begun, plain)]
    assert (ends[0] - ends[1]).abs().max() < 0.05 < (ends[0] - ends[2]).abs().max()


def test_the_digest_of_a_guess_is_of_its_weights(folder: Path, tmp_path: Path):
    state = twin.random_state()
    state["decoder.layers.6.bias"][0] = 4.5
    assert (
        digest_of(folder) != digest_of(twin.write(tmp_path / "other", state)) != digest_of(twin.write(tmp_path / "ckpt", state, ckpt=True))
    )


def test_the_embedded_guess_by_its_name_and_by_its_folder():
    source = Source.load(CHAIR)
    by_name, by_folder = (guesses.load(x)[0](source, 0.0, None) for x in ("mini", str(MINI / "first_guess")))
    assert torch.equal(by_name.occupancy, by_folder.occupancy) and by_name.fit is None and not by_name.is_drawn


def test_what_is_no_guess_is_refused(folder: Path, tmp_path: Path, capsys, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    refused(capsys, monkeypatch, out, "fetch it first: bozzetto fetch triposr", CHAIR, "--guess", "triposr")
    refused(capsys, monkeypatch, out, "no such folder", CHAIR, "--guess", tmp_path / "nowhere")
    refused(capsys, monkeypatch, out, "holds no first guess", CHAIR, "--guess", MINI / "zero123")
    refused(capsys, monkeypatch, out, "leave one of them out", CHAIR, "--guess", folder, "--prior", f"first_guess={folder}")
    code, said = run(capsys, monkeypatch, "views", CHAIR, "--prior", folder, "--out", out)
    assert code == 2 and "give it as --guess" in said
    with pytest.raises(InputError, match="no diffusion prior; give it as --guess"):
        load(folder)
