# SPDX-License-Identifier: Apache-2.0
"""The recipe of views drawn together by a Zero-1-to-3: with a checkpoint as published, and with the embedded prior, which it doubts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from bozzetto import lift
from bozzetto.fit.doubted import Doubt
from bozzetto.fit.drawings import Drawing
from bozzetto.fit.finish import Finish
from bozzetto.fit.fused import Fusing
from bozzetto.fit.silhouette import Silhouette
from bozzetto.priors import load
from bozzetto.priors.latent import ConditionedUNet
from bozzetto.recipes import RECIPES, consistent123_views
from tests.test_cli import CHAIR
from tests.twins import zero123 as twin

TINY = consistent123_views.Consistent123Views(
    views=3,
    drawing=Drawing(steps=2, batch=1),
    fusing=Fusing(by="dmtet", steps=4, picture=32, cells=14, colours=8),
    doubt=Doubt(guess=Silhouette(cells=16, steps=4, picture=64)),
    finish=Finish(faces=400, texture=64),
)
STAGES = ["guess", "views", "fuse", "clean", "texture"]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = twin.write_port(tmp_path_factory.mktemp("zero123") / "published", twin.port_parts(), 1)
    (folder / "bozzetto.json").write_text(json.dumps({"kind": "zero123-xl"}))
    return folder


def test_it_runs_through_all_stages_with_a_checkpoint_in_the_published_layout(published: Path, tmp_path: Path):
    asset = lift(CHAIR, tmp_path, recipe="consistent123-views", settings=TINY, prior=published, seed=3)
    told = json.loads((tmp_path / "asset.json").read_text())
    assert asset.is_complete and list(told["seconds"]) == STAGES and "rgb" in told["losses"]
    assert Image.open(tmp_path / "views.png").size == (3 * 16, 16)
    written = trimesh.load(tmp_path / "asset.glb", force="mesh", process=False)
    assert np.isfinite(written.vertices).all() and asset.mesh.texture is not None


def test_the_embedded_prior_is_doubted(published: Path):
    mini, large = load("mini"), load(published)
    for name in ("consistent123-views", "syncdreamer"):
        doubt = RECIPES[name].presets["standard"].doubt
        assert doubt.of(mini) and not doubt.of(large)
        assert replace(doubt, drawn="doubted").of(large) and not replace(doubt, drawn="believed").of(mini)


@pytest.mark.slow
def test_the_embedded_prior_only_carves(tmp_path: Path):
    lift(CHAIR, tmp_path, recipe="consistent123-views", settings=TINY, seed=3)
    told = json.loads((tmp_path / "asset.json").read_text())
    assert list(told["seconds"]) == STAGES and "mask" in told["losses"] and "rgb" not in told["losses"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_killed_in_any_stage_and_resumed_it_ends_in_the_same_bytes(published: Path, tmp_path: Path, stage: str):
    def lifted(folder: Path, resume: bool = False, progress: Any = None) -> Any:
        made = lift(CHAIR, folder, recipe="consistent123-views", settings=TINY, prior=published, resume=resume, progress=progress)
        return made.mesh

    def kill(now: str, share: float) -> None:
        if now == stage and (share >= 0.5 or stage in ("guess", "clean", "texture")):
            raise KeyboardInterrupt

    whole = lifted(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        lifted(tmp_path / "killed", progress=kill)
    again = lifted(tmp_path / "killed", resume=True)
    assert torch.equal(again.vertices, whole.vertices) and torch.equal(again.texture, whole.texture)
    for name in ("asset.glb", "views.png"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_it_asks_what_it_says(published: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[int] = []
    true_forward = ConditionedUNet.forward

    def forward(self: ConditionedUNet, x_t: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        if not x_t.is_meta:
            asked.append(len(x_t))
        return true_forward(self, x_t, *rest, **more)

    monkeypatch.setattr(ConditionedUNet, "forward", forward)
    settings = replace(TINY, drawing=Drawing(steps=2, guidance=3.0, batch=1))
    lift(CHAIR, recipe="consistent123-views", settings=settings, prior=published)
    told = RECIPES["consistent123-views"].asks
    assert told is not None
    said = told(settings, {"views": load(published)})["views"]
    assert said.calls >= sum(asked) == 2 * (2 * 3 + 1)  # of guidance's two ways the null has no picture beside it
    assert said.batch == max(asked)
