# SPDX-License-Identifier: Apache-2.0
"""Recipe `syncdreamer`: where its cameras stand, what it asks for, and what becomes of views that agree, by priors whose answers are known
and by a small checkpoint in the published layout."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bozzetto import lift
from bozzetto.denoiser import VPDenoiser
from bozzetto.errors import InputError
from bozzetto.fit.drawings import Drawing
from bozzetto.fit.finish import Finish
from bozzetto.fit.framed import Framed
from bozzetto.fit.fused import Fusing
from bozzetto.fit.recipe import Priors
from bozzetto.fit.run import Run
from bozzetto.image import load as load_picture
from bozzetto.priors import load
from bozzetto.priors.prior import Prior
from bozzetto.priors.sync_volume import ring
from bozzetto.recipes import syncdreamer
from bozzetto.recipes.syncdreamer import RECIPE, SyncDreamer, cameras_around, drawn, framed_for
from tests.contracts.test_priors import converted
from tests.test_cli import CHAIR
from tests.twins import sync as twin
from tests.twins.block import BLUE, CENTRE, ELEVATION, BlockJob, Oracle, exact, guess, picture

FUSING = Fusing(by="dmtet", steps=4, picture=24, at_once=4, cells=12, colours=8)
TINY = SyncDreamer(Drawing(steps=3), size=64, fusing=FUSING, finish=Finish(faces=400, texture=64))


def job(prior: Prior, settings: SyncDreamer, run: Run, deep: float = 2.0) -> BlockJob:
    return BlockJob(picture(), Priors(None, prior), settings, run, 0.0, ELEVATION, 3, solid=guess(deep, trimmed=True))


# ---- the frame ----


class Ring:
    """A joint prior's cameras, and nothing else."""

    background, size = 1.0, 32

    def views(self, reference=None):
        azimuth = 0.0 if reference is None else math.atan2(*(float(x) for x in reference.cameras.position[0, [1, 0]]))
        return ring(16, 32, azimuth)


def test_a_joint_priors_cameras_stand_in_the_crops_frame_as_round_an_object_of_size_one():
    """A lopsided cloud of points, off the centre: it is in each picture where it is when moved and scaled to the unit box."""
    cloud = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)).double()
    points = cloud * torch.tensor([0.5, 0.3, 0.4]) + torch.tensor([0.1, -0.2, 0.05])
    camera = guess().frustum.camera
    framed = Framed.of(picture(), camera, points.float(), torch.zeros(0, 3, dtype=torch.long), 64)
    placed = framed.placed(cameras_around(framed, Ring()))
    unit = (points - (points.amax(0) + points.amin(0)) / 2) / (points.amax(0) - points.amin(0)).max()
    wanted = ring(16, 32, framed.azimuth).project(unit)[0]
    assert (placed.project(points)[0] - wanted).abs().max() < 1e-4  # the framed points are float32
    assert abs(framed.azimuth) > 0.01  # the box's centre is beside the axis, so that the ring is turned
    other = ring(16, 32, -framed.azimuth).project(unit)[0]
    assert (other - wanted).abs().max() > 0.1
    assert (placed.project(points)[0] - ring(16, 32, framed.azimuth).project(unit * torch.tensor([1, -1, 1]))[0]).abs().max() > 1


def test_a_prior_of_single_views_draws_from_the_pictures_distance_through_its_lens():
    prior: Any = Oracle()
    framed = framed_for(job(prior, TINY, Run(None, {})), guess(trimmed=True))
    around = cameras_around(framed, prior)
    assert len(around) == 16 and torch.allclose(around.position.norm(dim=1), torch.tensor(framed.distance).double())
    assert torch.allclose(torch.asin(around.position[:, 2] / framed.distance), torch.tensor(math.radians(30)).double())
    assert torch.equal(around.K[0], framed.reference(1.0).cameras.K[0])


def test_a_ball_of_size_one_is_as_wide_as_the_released_crop():
    """198 of 256 pixels where the released command makes every outline 200."""
    half = 280 * math.tan(math.asin(0.5 / 1.5))
    assert 2 * half == pytest.approx(198, abs=0.1)
    around = ring(1, 256)
    assert float(around.K[0, 0, 0]) == pytest.approx(280)
    framed = framed_for(job(exact(), TINY, Run(None, {})), guess(trimmed=True))
    assert framed.width / framed.longest == pytest.approx(1.5 * 256 / 280)


def test_the_picture_is_one_view_more():
    prior = exact()
    at = job(prior, TINY, Run(None, {}))
    framed = framed_for(at, at.guess())
    around = cameras_around(framed, prior)
    drawings = syncdreamer.draw(at, framed, around, at.guess().colours)
    placed = framed.placed(around.resized(48))
    made = drawn(at, at.guess(), drawings, placed)
    assert len(made.views.cameras) == 17 and made.weight.tolist() == [1.0] * 17 and not made.has_normals
    assert (made.views.rgb <= made.views.alpha + 1e-6).all()  # premultiplied
    assert torch.equal(made.views.cameras.c2w[-1], at.guess().frustum.camera.c2w[0])
    alone = drawn(replace(at, settings=replace(TINY, own=0.0)), at.guess(), drawings, placed)
    assert len(alone.views.cameras) == 16


# ---- through all stages ----


def depth_and_back(lifted: Any) -> tuple[float, torch.Tensor]:
    """How deep it is for its width, and the mean colour of what faces away from the picture."""
    mesh = lifted.mesh
    size = mesh.vertices.amax(0) - mesh.vertices.amin(0)
    back = (mesh.normals[:, 0] < -0.9) & (mesh.vertices[:, 0] < 0)
    texels = (mesh.uv[back] * mesh.texture.shape[0]).long().clamp(0, mesh.texture.shape[0] - 1)
    return float(size[0] / size[1]), mesh.texture[texels[:, 1], texels[:, 0]].mean(0)


@pytest.mark.slow
def test_views_that_agree_mend_a_guess_that_is_twice_too_deep_and_red_behind(tmp_path: Path):
    fusing = Fusing(by="dmtet", steps=60, picture=48, at_once=6, cells=20, colours=24, kept_mask=syncdreamer.SURE)
    settings = replace(TINY, fusing=fusing, finish=Finish(3000, 128))
    made = RECIPE.lift(job(exact(), settings, Run(None, {})))
    deep, back = depth_and_back(made)
    assert 0.45 < deep < 0.75  # the guess has 1, the truth .5: sixty small steps undo more than half of what is between
    assert float((back - BLUE).abs().max()) < 0.15  # the guess is red
    sheet = tmp_path / "views.png"
    sheet.write_bytes(made.files["views.png"])
    assert load_picture(sheet).rgb.shape == (4 * 48, 4 * 48, 3)


@pytest.fixture
def in_order() -> Iterator[None]:
    """Sums in a fixed order, as `bozzetto.lift` has them: threads add in any."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.usefixtures("in_order")
@pytest.mark.parametrize("stage", [pytest.param(s, marks=() if s == "fuse" else pytest.mark.slow) for s in RECIPE.stages])
def test_killed_in_any_stage_and_resumed_it_ends_in_the_same_bytes(stage: str, tmp_path: Path):
    prior = exact()

    def run(folder: Path, resume: bool = False, progress: Any = None) -> Any:
        return RECIPE.lift(job(prior, TINY, Run(folder, {}, resume=resume, progress=progress)))

    def kill(now: str, share: float) -> None:
        if now == stage and share >= 0.5:
            raise KeyboardInterrupt

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", progress=kill)
    again = run(tmp_path / "killed", resume=True)
    assert torch.equal(again.mesh.vertices, whole.mesh.vertices) and torch.equal(again.mesh.texture, whole.mesh.texture)
    assert again.files == whole.files


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_it_asks_for_exactly_what_it_says(guidance: float):
    settings = replace(TINY, drawing=Drawing(steps=3, guidance=guidance, batch=5))
    for prior, views in ((exact(), 1), (Oracle(), 16)):
        found: Any = prior
        asked, denoise = [0], found.denoiser.denoise
        found.denoiser.denoise = lambda x, sigma, cond=None, n=asked, f=denoise: n.__setitem__(0, n[0] + len(x)) or f(x, sigma, cond)
        said = RECIPE.asks(settings, {"views": found})["views"]  # type: ignore[misc]
        at = job(found, settings, Run(None, {}))
        framed = framed_for(at, at.guess())
        made = syncdreamer.draw(at, framed, cameras_around(framed, found), at.guess().colours)
        assert asked[0] == said.calls == views * 3 * (1 if guidance == 1 else 2)
        assert (said.decoded, said.batch) == (views, min(5, views)) and len(made.pictures) == 16


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["syncdreamer", "zero123"])
def test_a_checkpoint_in_the_published_layout_goes_through_all_stages(kind: str, tmp_path: Path, monkeypatch):
    folder = twin.folder(tmp_path / "at") if kind == "syncdreamer" else converted(tmp_path / "at")
    shapes: set[tuple[int, ...]] = set()
    denoise = VPDenoiser.denoise

    def asking(self, x, sigma, cond=None):
        if x.device.type == "cpu":
            shapes.add(tuple(x.shape[1:]))
        return denoise(self, x, sigma, cond)

    monkeypatch.setattr(VPDenoiser, "denoise", asking)
    said: list[str] = []
    asset = lift(CHAIR, tmp_path / "out", recipe="syncdreamer", settings=TINY, prior=folder, seed=3, tell=said.append)
    assert asset.is_complete and (tmp_path / "out" / "views.png").is_file() and (tmp_path / "out" / "asset.glb").is_file()
    assert shapes == {(16, 4, 8, 8) if kind == "syncdreamer" else (4, 8, 8)} and "GB of memory" in said[0]
    assert asset.mesh.texture is not None and bool(torch.isfinite(asset.mesh.texture).all())


def test_what_draws_views_together_is_refused_where_they_are_asked_for_one_by_one(tmp_path: Path):
    folder = twin.folder(tmp_path / "at")
    for name in ("views", "zero123"):
        with pytest.raises(InputError, match=f"draws 16 views together, and recipe {name} asks for them one by one; give it to --recipe"):
            lift(CHAIR, recipe=name, prior=folder)
    from bozzetto.verbs.plan import for_drawing

    with pytest.raises(InputError, match="and bozzetto views asks for them one by one"):
        for_drawing("views", folder, Drawing(), 8)
    assert RECIPE.joint and load(folder).views() is not None


def test_every_preset_says_what_it_takes():
    assert set(RECIPE.presets) == {"draft", "standard", "fine"} and sum(RECIPE.stages.values()) == pytest.approx(1)
    assert CENTRE.abs().max() > 0.05  # what is lifted here stands off the centre of its crop
