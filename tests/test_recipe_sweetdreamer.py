# SPDX-License-Identifier: Apache-2.0
"""The recipe `sweetdreamer`, its term and its box: what the prior is asked, small published layouts, exact priors, kills."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from bozzetto import lift
from bozzetto.distill.sds import Levels, Ramp
from bozzetto.errors import InputError
from bozzetto.fit.aligned import Aligned, MovingBox
from bozzetto.fit.finish import Finish
from bozzetto.fit.fog import begun
from bozzetto.fit.framed import Framed
from bozzetto.fit.loop import optimise
from bozzetto.fit.recipe import Priors
from bozzetto.fit.run import Run
from bozzetto.fit.sculpt import Coarse
from bozzetto.priors import load
from bozzetto.priors.coordinates import TURN, Box, coordinate_map
from bozzetto.priors.exact import Exact
from bozzetto.priors.exact_maps import ExactMaps
from bozzetto.priors.hint import FRAME
from bozzetto.recipes import RECIPES
from bozzetto.recipes.sweetdreamer import SweetDreamer
from bozzetto.shapes.dmtet import DMTet
from bozzetto.shapes.shape import Step
from bozzetto.shapes.tets import Course, Tets
from tests.test_cli import CHAIR
from tests.twins import sweetdreamer as twin
from tests.twins.block import CENTRE, ELEVATION, SIZE, BlockJob, guess, picture, truth
from tests.twins.text import text_folder

TINY = SweetDreamer(
    coarse=Coarse(steps=4, picture=24, around=16, levels=5, sections=6), steps=4, picture=32, cells=10, colours=8, finish=Finish(300, 64)
)
SHIFT = torch.tensor([0.1, -0.15, 0.05])  # of a shape off the origin


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    at = tmp_path_factory.mktemp("published")
    return {"text": text_folder(at / "sd", "2.1"), "coordinates": twin.write(at / "sweetdreamer")}


def shape() -> Tets:
    """An ellipsoid with three half axes, off the origin."""
    return Tets(DMTet.from_ellipsoid([0.3, 0.2, 0.12], 20, [-0.6] * 3, [0.6] * 3, SHIFT.tolist()), Course(0.3, smooth=2))


def framed(vertices: Tensor) -> Framed:
    """Pictures of a camera two units from the shape's centre."""
    low, high = vertices.amin(0), vertices.amax(0)
    nothing = torch.zeros(16, 16, 3)
    width = FRAME * float((high - low).max())
    return Framed(((low + high) / 2).double(), vertices, torch.zeros(0, 3).long(), 0.3, 0.2, 2.0, width, nothing, nothing[..., 0])


def term(prior: Any, vertices: Tensor, **more: Any) -> Aligned:
    around = lambda step: (torch.tensor([0.4, 2.9]), torch.tensor([0.1, -0.3]))  # noqa: E731
    box = more.pop("box", MovingBox(vertices))
    return Aligned(prior, framed(vertices), around, Levels(), 1.0, 21.0, 24, text="a stone", box=box, **more)


# ---- the box ----


def test_the_box_is_a_moving_average_without_gradients():
    first, then = torch.tensor([[-1.0, -1, -1], [1, 1, 1]]), torch.tensor([[-2.0, -1, -1], [1, 3, 1]]).requires_grad_()
    box = MovingBox(first, 0.25)
    for _ in range(3):
        box.look(then)
    left = 0.75**3
    expected = Box.of(torch.tensor([-2 + left, -1, -1]), torch.tensor([1, 3 - 2 * left, 1]))
    now = box.now()
    torch.testing.assert_close(now.centre, expected.centre, rtol=0, atol=1e-7)
    torch.testing.assert_close(now.half, expected.half, rtol=0, atol=1e-7)
    assert not now.half.requires_grad
    assert MovingBox(first, is_isotropic=True).now().half.tolist() == pytest.approx([1.1] * 3)
    at_once = MovingBox(first, 1.0)
    at_once.look(then)
    assert at_once.corners[1].tolist() == [1.0, 3.0, 1.0]


def test_the_term_keeps_its_box_and_looks_every_so_often():
    made = shape()
    vertices = made.surface()[0].detach()
    prior = ExactMaps([lambda cameras: truth(cameras)], [Box.of(-SIZE / 2, SIZE / 2)], framed(vertices).ring(4), size=16)
    pull = term(prior, vertices / 2, every=3, box=MovingBox(vertices / 2, 1.0))
    before = pull.state()["corners"].clone()
    for number in range(3):
        assert torch.equal(pull.state()["corners"], before)
        pull.update(made, Step(number, 6, torch.Generator()))
    seen = pull.state()["corners"]
    torch.testing.assert_close(seen[1] - seen[0], 2 * (before[1] - before[0]), rtol=0, atol=1e-6)
    again = term(prior, vertices)
    again.restore(pull.state())
    assert torch.equal(again.box.now().half, pull.box.now().half)


# ---- what is asked ----


def test_maps_and_cameras_are_of_the_shape_in_sides_of_it(published: dict[str, Path]):
    """Whatever the shape's place and size: its maps fill the box, its cameras stand 1.4 to 1.6 sides away, the null has them, too."""
    made, prior = shape(), load(published["coordinates"])
    vertices = made.surface()[0].detach()
    pull = term(prior, vertices, sides="told")
    asked = pull.ask(made, Step(0, 10, torch.Generator().manual_seed(0)))
    assert asked.x0.shape == (2, 4, 8, 8) and asked.x0.requires_grad
    far = asked.cameras.position.norm(dim=-1)
    assert bool(((far > 1.4) & (far < 1.6)).all())
    assert asked.null is not None and torch.equal(asked.null["camera"], asked.cond["camera"])
    assert torch.equal(asked.null["token"], prior.condition()["token"])
    told = [prior.condition(text=f"a stone, {side} view")["token"] for side in ("front", "back")]
    torch.testing.assert_close(asked.cond["token"], torch.cat(told), rtol=0, atol=1e-5)
    low, high = vertices.amin(0), vertices.amax(0)
    with torch.no_grad():
        moved = asked.cameras.c2w.clone()
        moved[:, :, 3] = moved[:, :, 3] * float((high - low).max()) + ((low + high) / 2).double()
        whole = coordinate_map(made.render(replace(asked.cameras, c2w=moved)), Box.of(low, high), 8)
    assert float(((low + high) / 2 - SHIFT).abs().max()) < 0.02
    torch.testing.assert_close(asked.x0.detach(), whole, rtol=0, atol=1e-4)  # float32, over a side of .24
    one = [asked.x0[k, :3].detach().abs().amax() for k in (0, 1)]
    assert all(0.4 < float(x) <= 1 for x in one)


def test_a_mirrored_map_pulls_elsewhere():
    """Under the exact prior of itself a shape stays; under its mirror image, or its own a quarter turn away, it is pulled."""
    vertices = shape().surface()[0].detach()
    corners = torch.stack([vertices.amin(0), vertices.amax(0)])
    side, middle = float((corners[1] - corners[0]).max()), corners.mean(0).double()

    def own(cameras: Any) -> Any:
        """The shape as a bank has it: centred, its longest side 1."""
        at = cameras.c2w.clone()
        at[:, :, 3] = at[:, :, 3] * side + middle
        with torch.no_grad():
            views = shape().render(replace(cameras, c2w=at))
        return replace(views, depth=views.depth / side, cameras=cameras)

    box = Box.of((corners[0] - middle) / side, (corners[1] - middle) / side)
    axes = {
        "right": torch.eye(3),
        "mirrored": torch.diag(torch.tensor([1.0, -1.0, 1.0])),
        "a quarter turn": TURN.float(),
    }
    pulled = {}
    for name, wrong in axes.items():
        distort = lambda m, wrong=wrong: torch.cat([torch.einsum("ij,njhw->nihw", wrong, m[:, :3]), m[:, 3:]], 1)  # noqa: E731
        prior, made = ExactMaps([own], [box], framed(vertices).ring(4), size=24, distort=distort), shape()
        made.begin(Step(0, 10, torch.Generator()))
        (loss,) = term(prior, vertices)(made, Step(0, 10, torch.Generator().manual_seed(0))).values()
        loss.value.backward()
        pulled[name] = float(made.dmtet.sdf.grad.norm())
    # what is left of the right one is the window's own noise, h = .1, where the others are off by the size of the shape
    assert pulled["right"] < 0.03 * min(pulled["mirrored"], pulled["a quarter turn"]), pulled


# ---- the recipe ----


def test_it_runs_through_all_stages_with_the_published_layouts(published: dict[str, Path], tmp_path: Path):
    out = tmp_path / "out"
    told: list[str] = []
    asset = lift(CHAIR, out, recipe="sweetdreamer", settings=TINY, prior=published, text="a wooden chair", seed=3, tell=told.append)
    record = json.loads((out / "asset.json").read_text())
    assert asset.is_complete and record["text"] == "a wooden chair" and len(told) == 1
    assert record["coordinates_prior"] != record["text_prior"]
    assert list(record["seconds"]) == ["guess", "geometry", "paint", "clean", "texture"]
    assert {"sds_2d", "sds_align", "sds_paint", "rgb", "mask", "sparse"} <= set(record["losses"])
    written = trimesh.load(out / "asset.glb", force="mesh", process=False)
    assert np.isfinite(written.vertices).all() and np.isfinite(written.visual.uv).all()
    with pytest.raises(InputError, match=r"no prior of need coordinates is embedded; give the folder of one, --prior coordinates=FOLDER$"):
        lift(CHAIR, recipe="sweetdreamer", settings=TINY)
    with pytest.raises(InputError, match="has no use here; give one of kind sweetdreamer"):
        lift(CHAIR, recipe="sweetdreamer", settings=TINY, prior={"coordinates": published["text"]})


def job_of(settings: SweetDreamer, priors: Priors, run: Run) -> BlockJob:
    return BlockJob(picture(), priors, settings, run, 0.0, ELEVATION, 3, "a red box", solid=guess())


def test_a_text_alone_begins_with_fog(published: dict[str, Path], tmp_path: Path):
    """No picture is drawn, none is asked for or compared with."""
    lift(None, tmp_path, recipe="sweetdreamer", settings=TINY, prior=published, text="a wooden chair", seed=3)
    record = json.loads((tmp_path / "asset.json").read_text())
    assert record["complete"] and record["source"] == "a wooden chair" and "digest" not in record
    assert list(record["seconds"]) == ["geometry", "paint", "clean", "texture"]
    assert {"sds_2d", "sds_align", "sds_paint"} <= set(record["losses"]) and not {"rgb", "mask"} & set(record["losses"])
    with pytest.raises(InputError, match="starts from a text"):
        lift(None, recipe="sweetdreamer", settings=TINY, prior=published)


@pytest.mark.slow
@pytest.mark.parametrize("has_picture", [True, False])
@pytest.mark.parametrize("stage", ["geometry", "paint"])
def test_killed_in_either_stage_and_resumed_it_ends_in_the_same_bytes(
    stage: str, has_picture: bool, published: dict[str, Path], tmp_path: Path
):
    priors = Priors(text=load("mini", "text-to-image"), coordinates=load(published["coordinates"]))

    def run(folder: Path, resume: bool = False, progress: Any = None) -> Any:
        job = job_of(TINY, priors, Run(folder, {}, resume=resume, progress=progress))
        return RECIPES["sweetdreamer"].lift(job if has_picture else replace(job, picture=None))

    def kill(now: str, share: float) -> None:
        if now == stage and share >= 0.5:
            raise KeyboardInterrupt

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", progress=kill)
    again = run(tmp_path / "killed", resume=True)
    assert torch.equal(again.mesh.vertices, whole.mesh.vertices) and torch.equal(again.mesh.texture, whole.mesh.texture)


def test_the_plan_is_what_is_asked(published: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    """Calls and encoded pictures of each prior, and the 2D prior's late start."""
    from bozzetto.priors.latent import ConditionedUNet

    asked: dict[bool, int] = {True: 0, False: 0}
    true = ConditionedUNet.forward

    def forward(self: ConditionedUNet, x_t: Tensor, *rest: Any, **more: Any) -> Tensor:
        asked[more.get("camera") is not None] += len(x_t)
        return true(self, x_t, *rest, **more)

    monkeypatch.setattr(ConditionedUNet, "forward", forward)
    priors = Priors(text=load(published["text"]), coordinates=load(published["coordinates"]))
    RECIPES["sweetdreamer"].lift(job_of(TINY, priors, Run(None, {})))
    asks = RECIPES["sweetdreamer"].asks
    assert asks is not None
    said = asks(TINY, {"text": priors.text, "coordinates": priors.coordinates})
    assert asked[True] == said["coordinates"].calls == 8 and asked[False] == said["text"].calls == 2 * 3 + 2 * 4


def block_maps() -> ExactMaps:
    """The block with its longest side 1, exactly."""
    side = float(SIZE.max())

    def scaled(cameras: Any) -> Any:
        views = truth(replace(cameras, c2w=cameras.c2w * torch.tensor([1.0, 1.0, 1.0, side], dtype=torch.float64)))
        return replace(views, depth=views.depth / side, cameras=cameras)

    ring = framed(torch.stack([-SIZE / 2, SIZE / 2])).ring(4)
    return ExactMaps([scaled], [Box.of(-SIZE / 2 / side, SIZE / 2 / side)], ring, size=16)


def test_it_runs_under_exact_priors():
    maps = block_maps()
    priors = Priors(text=Exact([truth], maps.cameras, size=16), coordinates=maps)
    made = RECIPES["sweetdreamer"].lift(job_of(TINY, priors, Run(None, {})))
    assert bool(torch.isfinite(made.mesh.vertices).all()) and made.measured["losses"]["sds_align"] > 0


def test_a_solid_that_is_too_deep_comes_nearer_to_the_maps():
    """The block's guess is twice as deep as the block: by the maps alone, from its sides, it is carved. The block itself, where its
    picture shows it, has the maps of a bank in which it is centred and its longest side 1."""
    maps, solid = block_maps(), guess()
    _, _, seen = begun(job_of(TINY, Priors(), Run(None, {})), solid, TINY.coarse)
    block = Tets(solid.dmtet(1 / 24), Course(0.3))
    centre = seen.centre.float()
    box = MovingBox(torch.stack([centre - SIZE / 2, centre + SIZE / 2]))
    sides = lambda step: (torch.tensor([1.4, -1.7]), torch.tensor([0.1, 0.3]))  # noqa: E731
    levels = Levels(Ramp(0.3, 0.3), Ramp(0.6, 0.6))
    align = Aligned(maps, seen, sides, levels, 1.0, 1.0, 16, text="a red box", box=box, every=1000)

    def off(shape: Any) -> float:
        """Mean squared difference from the block's maps."""
        with torch.no_grad():
            asked = align.ask(shape, Step(0, 1, torch.Generator().manual_seed(9)))
            return float((asked.x0 - maps.windows(asked.cameras)[:, 0]).square().mean())

    class Block:
        def render(self, cameras: Any, only: Any = None) -> Any:
            return truth(cameras, CENTRE)

    before = off(block)
    assert off(Block()) < 0.1 * before  # the guess's box, by which all is framed, is of whole voxels
    optimise(block, [align], Run(None, {}), "maps", steps=20, seed=0)
    assert off(block) < 0.9 * before
