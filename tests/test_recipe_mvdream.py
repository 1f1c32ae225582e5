# SPDX-License-Identifier: Apache-2.0
"""Recipe `mvdream`: from a text to an object, by an exact joint prior and by a checkpoint in the published layout; killed and resumed."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from bozzetto import lift
from bozzetto.camera import orbit
from bozzetto.denoiser import VPDenoiser
from bozzetto.errors import InputError
from bozzetto.fit.finish import Finish
from bozzetto.fit.fog import Fog
from bozzetto.fit.recipe import Job, Priors
from bozzetto.fit.run import Run
from bozzetto.fit.together import Groups
from bozzetto.mesh import Mesh
from bozzetto.priors import load
from bozzetto.priors.exact import Exact
from bozzetto.priors.mvdream import MVDream as Prior
from bozzetto.recipes import mvdream
from bozzetto.recipes.mvdream import RECIPE
from bozzetto.render.mesh import render_mesh
from tests.twins import mvdream as twin
from tests.twins.bank import BANK, CAPTIONS, COLOURS, SIZES, ring

TINY = replace(
    RECIPE.presets["draft"],
    fog=Fog(steps=4, size=16, levels=5, sections=6),
    groups=Groups(count=2),
    steps=4,
    picture=16,
    cells=10,
    colours=8,
    finish=Finish(300, 256),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return twin.converted(tmp_path_factory.mktemp("mvdream"))[1]


def test_a_checkpoint_in_the_published_layout_goes_through_all_stages_and_is_asked_as_told(folder: Path, tmp_path: Path, monkeypatch):
    """To a GLB of finite numbers; the prior is asked for exactly what `asks` says, under the text and its suffix."""
    calls, encoded, said, told = [], [], [], []
    denoise, encode, condition = VPDenoiser.denoise, Prior.encode_pictures, Prior.condition
    monkeypatch.setattr(VPDenoiser, "denoise", lambda self, x, *a: (x.is_meta or calls.append(len(x)), denoise(self, x, *a))[1])
    monkeypatch.setattr(Prior, "encode_pictures", lambda self, x, **k: (x.is_meta or encoded.append(len(x)), encode(self, x, **k))[1])
    monkeypatch.setattr(Prior, "condition", lambda self, *a, **k: (said.append(k.get("text")), condition(self, *a, **k))[1])
    how = {"recipe": "mvdream", "settings": TINY, "prior": folder, "text": "an owl", "seed": 3}
    asset = lift(out=tmp_path / "out", progress=lambda stage, share: told.append(stage), **how)
    found = json.loads((tmp_path / "out" / "asset.json").read_text())
    assert asset.is_complete and found["text"] == found["source"] == "an owl" and found["multiview_prior"] and found["peak_gb"] > 0
    assert list(found["seconds"]) == list(RECIPE.stages) and set(told) == set(RECIPE.stages)
    asked = mvdream.asks(TINY, {})["multiview"]
    assert sum(calls) == asked.calls == 32 and sum(encoded) == 4 * asked.pulled == 64 and max(calls) == asked.batch
    assert {t for t in said if t} == {"an owl, 3d asset", mvdream.AWAY}
    written = trimesh.load(tmp_path / "out" / "asset.glb", force="mesh", process=False)
    assert np.isfinite(written.vertices).all() and np.isfinite(written.visual.uv).all() and bool(torch.isfinite(asset.mesh.texture).all())


def run(folder: Path, where: Path | None, resume: bool = False, progress=None) -> Mesh:
    """With a checkpoint of each of the long stages."""
    settings = replace(TINY, groups=Groups(), fog=replace(TINY.fog, steps=27), steps=27)
    state = Run(where, {}, resume=resume, progress=progress)
    return RECIPE.lift(Job(None, Priors(multiview=load(folder)), settings, state, seed=3, text="an owl")).mesh


@pytest.fixture(scope="module")
def whole(folder: Path) -> Mesh:
    return run(folder, None)


@pytest.mark.slow
@pytest.mark.parametrize("stage", RECIPE.stages)
def test_killed_in_any_stage_and_resumed_it_ends_in_the_same_bytes(stage: str, folder: Path, whole: Mesh, tmp_path: Path):
    def kill(now: str, share: float) -> None:
        if now == stage and share >= 0.95:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path, progress=kill)
    assert stage not in ("coarse", "fine") or (tmp_path / ".run" / f"{stage}.partial").exists()
    again = run(folder, tmp_path, resume=True)
    assert torch.equal(again.vertices, whole.vertices) and torch.equal(again.texture, whole.texture)


def seen(mesh: Mesh) -> Tensor:
    """(2, 3): mean colours from the front and from behind."""
    views = render_mesh(mesh, orbit([0.0, math.pi], [0.2] * 2, 2.6, size=32, fov=0.5))
    return views.rgb.sum((1, 2)) / views.alpha.sum((1, 2))


@pytest.mark.slow
@pytest.mark.parametrize(("text", "index"), [("a red box", 0), ("a green box", 1)])
def test_an_exact_prior_makes_the_object_that_is_told_of_its_front_in_front(text: str, index: int):
    """Of four boxes, each of two colours: from fog to the box of the caption, and not turned, since the prior knows its cameras."""
    prior = Exact(BANK, ring(8), CAPTIONS, size=16, together=4, background=0.5)
    fog = Fog(steps=120, size=16, levels=6, sections=8)
    settings = replace(TINY, fog=fog, groups=Groups(), guidance=2.0, stray=0.0, steps=30, cells=16)
    mesh = RECIPE.lift(Job(None, Priors(multiview=prior), settings, Run(None, {}), seed=1, text=text)).mesh
    off = torch.cdist(seen(mesh), torch.tensor([COLOURS[k][side] for k in range(4) for side in range(2)]))
    assert off.argmin(1).tolist() == [2 * index, 2 * index + 1], off
    size = mesh.vertices.amax(0) - mesh.vertices.amin(0)
    assert int(size.argmax()) == SIZES[index].index(max(SIZES[index]))


def test_without_weights_it_says_which(tmp_path: Path):
    with pytest.raises(InputError, match=r"no prior of need multiview is embedded; give the folder of one.*bozzetto fetch mvdream"):
        lift(text="an owl", recipe="mvdream", out=tmp_path / "out")
    with pytest.raises(InputError, match="has no use here; give one of kind mvdream"):
        lift(text="an owl", recipe="mvdream", prior="mini")
    assert not (tmp_path / "out").exists()
