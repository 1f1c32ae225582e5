# SPDX-License-Identifier: Apache-2.0
"""DreamCraft3D, Magic123 and Consistent123 (Lin), small: with checkpoints in the published layouts, killed in each stage, and measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from bozzetto import lift
from bozzetto.denoiser import VPDenoiser
from bozzetto.errors import InputError
from bozzetto.fit.around import Around
from bozzetto.fit.boundary import Boundary
from bozzetto.fit.finish import Finish
from bozzetto.fit.framed import Framed
from bozzetto.fit.prompts import SIDES
from bozzetto.fit.recipe import ANYTHING, Priors
from bozzetto.fit.reference import Relief
from bozzetto.fit.run import Run
from bozzetto.fit.sculpt import Coarse, Sculpture, distances, field_of, tets_of
from bozzetto.fit.source import Source
from bozzetto.priors import load
from bozzetto.priors.deepfloyd import MeanUNet
from bozzetto.priors.text2image import TextToImage
from bozzetto.recipes import RECIPES
from bozzetto.shapes.colours import ColourGrid
from bozzetto.shapes.shape import Step
from bozzetto.shapes.tets import Course
from tests.contracts.test_priors import converted
from tests.test_cli import CHAIR
from tests.test_estimates import written
from tests.twins import deepfloyd
from tests.twins.block import CENTRE, ELEVATION, SIZE, BlockJob, guess, picture
from tests.twins.text import clip_folder, text_folder

TINY = Coarse(steps=4, picture=24, around=16, levels=5, sections=6)
SMALL = {
    "dreamcraft3d": {"boost": 4},
    "magic123": {},
    "consistent123": {"boundary": Boundary(window=1, every=0.2, earliest=0.2, latest=0.5)},
}
STAGES = {"dreamcraft3d": ("coarse", "geometry", "boost"), "magic123": ("coarse", "fine"), "consistent123": ("coarse", "fine")}


def tiny(name: str):
    """Its settings, of four steps a stage."""
    return replace(
        RECIPES[name].presets["draft"], coarse=TINY, steps=4, picture=32, cells=10, colours=8, finish=Finish(300, 64), **SMALL[name]
    )


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> dict[str, Path]:
    """Each published layout, small, with random weights: Stable Diffusion 2.1, DeepFloyd IF's first stage, Zero123-XL; CLIP, Depth
    Anything."""
    at = tmp_path_factory.mktemp("published")
    clip_folder(at / "clip")
    folders = {"sd": text_folder(at / "sd", "2.1"), "if": deepfloyd.write(at / "if"), "zero123": converted(at / "zero123")}
    return {**folders, "clip": at / "clip", "depth": written(at / "depth", "depth_anything")}


def which(network) -> str:
    """Of those, whose network it is, or whose copy."""
    return "if" if isinstance(network, MeanUNet) else {4: "sd", 8: "zero123"}[network.unet.config.in_channels]


WITH = {
    "dreamcraft3d": ({"text": "if", "paint": "sd"}, {"coarse": {"if", "zero123"}, "geometry": {"if", "zero123"}, "boost": {"sd"}}),
    "magic123": ({"text": "sd"}, {"coarse": {"sd", "zero123"}, "fine": {"sd", "zero123"}}),
    "consistent123": ({"text": "sd", "clip": "clip"}, {"coarse": {"sd", "zero123"}, "fine": {"sd", "zero123"}}),
}


@pytest.mark.parametrize("name", ["dreamcraft3d", *(pytest.param(n, marks=pytest.mark.slow) for n in ("magic123", "consistent123"))])
def test_each_runs_through_all_stages_with_checkpoints_in_the_published_layouts(name: str, published, tmp_path: Path, monkeypatch):
    """To a GLB of finite numbers; every stage asks the priors that are its own, and once the geometry is done no bit of it changes."""
    given, expected = WITH[name]
    asked: dict[str, set[str]] = {}
    made: dict[str, Any] = {}
    compared: list[set[str]] = []
    under: list[str] = []
    denoise, stage, compare = VPDenoiser.denoise, Run.stage, Relief.__call__

    def asking(self, x, sigma, cond=None):
        if under:  # beforehand the plan asks their outlines
            asked.setdefault(under[-1], set()).add(which(self.network))
        return denoise(self, x, sigma, cond)

    def staged(self, name, make, kind):
        under.append(name)
        made[name] = stage(self, name, make, kind)
        return made[name]

    def comparing(self, shape, step):
        losses = compare(self, shape, step)
        compared.append(set(losses))
        return losses

    monkeypatch.setattr(VPDenoiser, "denoise", asking)
    monkeypatch.setattr(Run, "stage", staged)
    monkeypatch.setattr(Relief, "__call__", comparing)
    prior = {need: published[folder] for need, folder in {**given, "views": "zero123"}.items()}
    out, more = tmp_path / "out", dict[str, Any]()
    if name == "magic123":
        np.save(tmp_path / "normal.npy", np.broadcast_to(np.float32([0, 0, 1]), (*Source.load(CHAIR).alpha.shape, 3)))
        more = {"depth": published["depth"], "normal": tmp_path / "normal.npy"}
    asset = lift(CHAIR, out, recipe=name, settings=tiny(name), prior=prior, text="a wooden chair", seed=3, **more)
    told = json.loads((out / "asset.json").read_text())
    assert asset.is_complete and told["text"] == "a wooden chair" and told["peak_gb"] > 0
    assert asked == expected and list(expected) == [s for s in told["seconds"] if s in expected]
    digests = {"dreamcraft3d": {"paint_prior"}, "magic123": {"depth", "normal"}, "consistent123": {"clip"}}
    assert {"paint_prior", "depth", "normal", "clip"} & set(told) == digests[name] and told.get("paint_prior") != told["text_prior"]
    relief = {"dreamcraft3d": {"depth"}, "magic123": {"depth", "normal"}}
    assert compared if name in relief else not compared
    assert all(found == relief[name] for found in compared)

    *_, sculpted, last = [s for s in made if s in expected]
    if name == "dreamcraft3d":  # the last of its stages has colours alone to move
        assert torch.equal(made[last].vertices, made[sculpted].vertices) and torch.equal(made[last].faces, made[sculpted].faces)
        assert not torch.equal(made[last].colours["logits"], made[sculpted].colours["logits"])
    clean, mesh = made["clean"], asset.mesh
    assert torch.equal(mesh.vertices[mesh.faces], clean.vertices[clean.faces])  # DC-9; unwrapping repeats vertices, and keeps faces' order
    written = trimesh.load(out / "asset.glb", force="mesh", process=False)
    assert len(written.faces) == len(clean.faces) and np.isfinite(written.vertices).all() and np.isfinite(written.visual.uv).all()
    assert mesh.texture is not None and bool(torch.isfinite(mesh.texture).all())


def test_what_a_recipe_does_not_take_is_refused(published):
    with pytest.raises(InputError, match=r"paint=.* needs first_guess, text, views$"):
        lift(CHAIR, recipe="magic123", prior={"paint": published["sd"]})
    with pytest.raises(InputError, match=r"clay=.* needs first_guess, text, views, and may have paint$"):
        lift(CHAIR, recipe="dreamcraft3d", prior={"clay": published["sd"]})
    with pytest.raises(InputError, match="kind text-to-image was asked for, but"):
        lift(CHAIR, recipe="dreamcraft3d", prior={"paint": published["zero123"]})


@pytest.mark.slow
def test_magic123_asks_for_the_word_that_its_prior_has_learnt_from_the_picture(published, tmp_path: Path, monkeypatch):
    said: list[str] = []
    condition = TextToImage.condition
    monkeypatch.setattr(TextToImage, "condition", lambda self, *a, **k: said.append(k.get("text") or "") or condition(self, *a, **k))
    settings = replace(tiny("magic123"), invert=3)
    prior = {"text": published["sd"], "views": published["zero123"]}
    asset = lift(CHAIR, tmp_path / "out", recipe="magic123", settings=settings, prior=prior, text="a wooden chair", seed=3)
    assert asset.is_complete and asset.measured["text"] == "a wooden chair" and "invert" in asset.measured["seconds"]
    assert {x for x in said if x} == {f"<picture>, {side} view" for side in SIDES}
    with pytest.raises(InputError, match="only a latent text-to-image prior learns words"):
        lift(CHAIR, recipe="magic123", settings=settings, prior={**prior, "text": published["if"]})


QUICK = (("consistent123", "coarse"),)  # where most is kept: a field, and what was measured
EACH = [(n, s) for n, stages in STAGES.items() for s in stages]


@pytest.mark.parametrize(("name", "stage"), [pytest.param(*x, marks=() if x in QUICK else pytest.mark.slow) for x in EACH])
def test_killed_in_any_stage_and_resumed_it_ends_in_the_same_bytes(name: str, stage: str, tmp_path: Path):
    priors = Priors(None, load("mini"), load("mini", "text-to-image"))
    settings, recipe = tiny(name), RECIPES[name]

    def run(folder: Path, resume: bool = False, progress=None):
        job = BlockJob(
            picture(), priors, settings, Run(folder, {}, resume=resume, progress=progress), 0.0, ELEVATION, 3, "a red box", solid=guess()
        )
        return recipe.lift(job)

    def kill(now: str, share: float):
        if now == stage and share >= 0.5:
            raise KeyboardInterrupt

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", progress=kill)
    again = run(tmp_path / "killed", resume=True)
    assert torch.equal(again.mesh.vertices, whole.mesh.vertices) and torch.equal(again.mesh.texture, whole.mesh.texture)


@pytest.mark.parametrize("boost", [15, 40, 200])
def test_boosting_teaches_both_models_in_every_refresh_and_the_picture_has_its_turns(boost: int, monkeypatch):
    """Five refreshes, each of which improves a picture and teaches the booth; phi learns, and the picture counts, in between."""
    from bozzetto.recipes import dreamcraft3d

    seen, said = [], {}

    def optimise(shape, terms, run, stage, *, steps, seed):
        picture, pull, _ = terms
        refresh = pull.term.refresh
        for number in range(steps):
            step = Step(number, steps, torch.Generator())
            assert picture.is_on(step) != pull.is_on(step)
            is_learning = refresh.is_learning(number)
            seen.append((number // refresh.every, "picture" if picture.is_on(step) else "booth" if is_learning else "phi"))
            said["due"] = said.get("due", 0) + (is_learning and pull.is_on(step) and refresh.is_due(number))
        said["unknown"] = pull.term.unknown
        return {}

    monkeypatch.setattr(dreamcraft3d, "optimise", optimise)
    settings = replace(tiny("dreamcraft3d"), boost=boost)
    priors = Priors(None, load("mini"), load("mini", "text-to-image"))
    job = BlockJob(picture(), priors, settings, Run(None, {}), 0.0, ELEVATION, 3, "a red box", solid=guess())
    vertices, faces = guess().surface()
    grid = ColourGrid.of(lambda x, n: 0 * x + 0.5, vertices.amin(0), vertices.amax(0), 8)
    made = Sculpture(vertices, faces, {}, dict(grid.state_dict()))
    framed = Framed.of(job.source, guess().frustum.camera, vertices, faces, 64)
    dreamcraft3d.boost(job, guess(), framed, made)
    for n in range(5):
        kinds = [kind for k, kind in seen if k == n]
        assert {"picture", "phi", "booth"} == set(kinds) or (boost == 10 and "booth" in kinds)
        assert kinds.count("booth") == max(boost // 25, 1)
    assert said["due"] >= 5 and all(float(v.abs().max()) == 0 for v in said["unknown"].values()) and said["unknown"]


def test_a_field_begins_as_the_solid_in_both_media():
    solid = guess(1.0)
    rough = solid.surface()
    for is_density in (False, True):
        volume = field_of(solid, rough, TINY, is_density=is_density, seed=0)
        vertices, _ = tets_of(volume, 24, Course(0.1), 8).surface()
        off = ((vertices.detach() - CENTRE).abs() / SIZE * 2).amax(1)  # 1 on the block's faces
        assert float((off - 1).abs().mean()) < 0.12
        seen = volume.render(solid.frustum.camera.resized(48), "colour")
        wanted = picture(48).alpha
        assert float((seen.alpha[0, ..., 0] - wanted).abs().mean()) < 0.06
        red = seen.rgb[0].sum((0, 1)) / seen.alpha[0].sum()
        assert float(red[0]) > 0.6 and float(red[2]) < 0.3
    signed = distances(solid, CENTRE, 0.5)
    outside = CENTRE + torch.tensor([[0.0, 0.0, 0.45]])
    assert float(signed(CENTRE[None])) < 0 and float(signed(outside)) == pytest.approx(0.45 - float(SIZE[2]) / 2, abs=0.04)


def test_without_a_text_the_2d_prior_is_asked_for_an_object(tmp_path: Path):
    job = BlockJob(picture(), Priors(), None, Run(None, {}), solid=guess())
    assert job.words == ANYTHING and replace(job, text="a box").words == "a box"
    with pytest.raises(ValueError, match="name it among its needs"):
        _ = job.text_prior
    with pytest.raises(InputError, match="needs first_guess"):
        lift(CHAIR, recipe="guess", prior={"text": "mini"})


def test_cameras_are_those_of_the_recipe():
    assert RECIPES["magic123"].presets["draft"].hybrid.around == Around(views=1, lowest_deg=-45, highest_deg=45)
