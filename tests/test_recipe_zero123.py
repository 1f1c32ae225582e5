# SPDX-License-Identifier: Apache-2.0
"""The recipe under a prior that knows the object: what it cannot see in the picture, it learns from the score alone."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import trimesh

from bozzetto.denoiser import Adapted
from bozzetto.distill.sds import Levels, Ramp
from bozzetto.errors import InputError
from bozzetto.fit.run import Run
from bozzetto.fit.source import Source
from bozzetto.frustum import frustum_camera
from bozzetto.mesh import vertex_normals
from bozzetto.priors.loading import MINI
from bozzetto.priors.sampling import PUBLISHED
from bozzetto.recipes import guess as first
from bozzetto.recipes import zero123
from bozzetto.render.mesh import render_surface
from bozzetto.verbs.lift import lift
from tests.twins import zero123 as twin

CHAIR = Path(__file__).parent.parent / "examples" / "wooden-chair.png"
ELEVATION, P, SIDE = math.radians(20), 0.4, 32
RED, BLUE = torch.tensor([0.85, 0.15, 0.1]), torch.tensor([0.1, 0.2, 0.85])


def truth(cameras):
    """A block, half as deep as it is wide, red in front (+x) and blue behind."""
    box = trimesh.creation.box((0.35, 0.7, 0.5)).subdivide().subdivide()
    vertices, faces = torch.tensor(box.vertices).float(), torch.tensor(box.faces).long()
    colour = lambda x, n: torch.where(x[:, :1] > 0, RED, BLUE)  # noqa: E731
    return render_surface(vertices, faces, vertex_normals(vertices, faces), cameras, colour)


class Oracle:
    """A prior whose data are the object's own pictures: one point for each camera, and grey for none."""

    background, size, shape, sampler, uses_hint = 1.0, SIDE, (3, SIDE, SIDE), PUBLISHED, False

    def __init__(self):
        self.asked = 0
        self.denoiser = Adapted(self.denoise, torch.logspace(-1.5, 1.2, 1000, dtype=torch.float64))

    def denoise(self, x, sigma, cond):
        self.asked += 1
        assert not x.requires_grad
        return cond["x0"].to(x).expand_as(x)

    def encode(self, views, *, generator=None):
        return self.encode_pictures(views.over(1.0).clamp(0, 1).float())

    def encode_pictures(self, rgb, *, generator=None):
        return F.interpolate(2 * rgb.movedim(-1, 1) - 1, (SIDE, SIDE), mode="area")

    def encode_reference(self, reference):
        return reference

    def condition(self, reference=None, cameras=None, text=None, hint=None):
        if cameras is None:
            return {"x0": torch.zeros(1, 3, SIDE, SIDE)}
        return {"x0": self.encode_pictures(truth(cameras).over(1.0))}


@pytest.fixture(scope="module")
def source():
    views = truth(frustum_camera(0.0, ELEVATION, P, 256))
    rgb = views.rgb[0] / views.alpha[0].clamp(min=1e-3)
    return Source("block.png", rgb.clamp(0, 1), views.alpha[0, ..., 0], rgb, "0")


SETTINGS = replace(
    zero123.PRESETS["draft"],
    guess=replace(first.PRESETS["draft"], steps=20, cells=32, texture=256),
    steps=120,
    picture=64,
    guidance=1.0,
    levels=Levels(Ramp(0.3, 0.3), Ramp(0.7, 0.7)),
    colours=32,
)


@pytest.fixture(autouse=True)
def sums_in_a_fixed_order():
    """As `lift_picture` has it."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def too_deep(monkeypatch):
    """In the network's place: a guess that is twice as deep as the block, and red all over. No weights matter here."""
    from bozzetto.frustum import DEPTH_RANGE, from_frustum

    depth, row, column = torch.meshgrid(*(torch.arange(64) + 0.5 for _ in range(3)), indexing="ij")
    where = torch.stack([column / 64, row / 64, (depth / 32 - 1) * DEPTH_RANGE], -1).reshape(-1, 3)
    at = from_frustum(where, frustum_camera(0.0, ELEVATION, P, 64), P).reshape(64, 64, 64, 3)
    solid = (at.abs() < torch.tensor([0.35, 0.35, 0.25])).all(-1)
    guess = {"occupancy": solid * 6.0 - 3.0, "colour": RED.view(3, 1, 1, 1).repeat(1, 12, 32, 32), "view": torch.tensor([ELEVATION, P])}
    monkeypatch.setattr(first, "predict", lambda source, network: guess)


def run(source, folder, settings=SETTINGS, **kw):
    return zero123.lift(source, None, Oracle(), settings, Run(folder, {"test": 1}, **kw), elevation=ELEVATION, seed=3)


def judged(lifted):
    """Mean squared error and mean colour of the back, against the truth seen from behind, and the model's depth over its width."""
    from bozzetto.render.mesh import render_mesh

    views = render_mesh(lifted.mesh, replace(lifted.camera, c2w=turned(lifted.camera.c2w)).resized(96))
    seen = views.alpha[0, ..., 0] > 0.9
    size = lifted.mesh.vertices.amax(0) - lifted.mesh.vertices.amin(0)
    return views.rgb[0][seen].mean(0), float(size[0] / size[1])


def turned(c2w):
    half = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=c2w.dtype))
    return half @ c2w


@pytest.mark.xfail(reason="failed since hidden colours are looked up; begins .41 from blue, its end is to be measured", strict=False)
def test_the_hidden_side_is_what_the_prior_knows(source, tmp_path):
    """The guess has a red back and is as deep as wide, where the truth is blue and half as deep; the score alone must tell.

    In 150 steps colours arrive, and the depth has begun to fall (7 % of the way): only the outline of each view moves the shape.
    """
    purple, before = judged(run(source, tmp_path / "a", replace(SETTINGS, steps=0)))
    blue, after = judged(run(source, tmp_path / "b", replace(SETTINGS, steps=150, lr=1.0, keep_weight=0.0, still=1.0)))
    # (the picture shows the top's blue half, and what is seen is continued over what is not: the back is purple at first)
    assert (blue - BLUE).norm() < 0.7 * (purple - BLUE).norm(), (purple, blue)
    assert before > 0.9 and 0.45 < after < before - 0.015, (before, after)


def test_killed_and_resumed_it_ends_in_the_same_numbers(source, tmp_path):
    settings = replace(SETTINGS, steps=50)  # the checkpoint falls on the step that subdivides
    whole = run(source, tmp_path / "whole", settings)

    class Killed(Exception):
        pass

    def kill(stage, share):
        if stage == "distill" and share > 0.55:
            raise Killed

    with pytest.raises(Killed):
        run(source, tmp_path / "killed", settings, progress=kill)
    assert (tmp_path / "killed" / ".run" / "distill.partial").is_file()
    again = run(source, tmp_path / "killed", settings, resume=True)
    assert torch.equal(whole.mesh.vertices, again.mesh.vertices) and torch.equal(whole.mesh.texture, again.mesh.texture)


def test_seeds_give_other_runs_and_one_seed_the_same(source, tmp_path):
    settings = replace(SETTINGS, steps=10)

    def vertices(seed, name):
        return zero123.lift(source, None, Oracle(), settings, Run(tmp_path / name, {}), elevation=ELEVATION, seed=seed).mesh.texture

    assert torch.equal(vertices(0, "a"), vertices(0, "b"))
    assert not torch.equal(vertices(0, "c"), vertices(1, "d"))


def test_views_spread_from_the_pictures_side():
    g = torch.Generator().manual_seed(0)
    many = replace(SETTINGS, views=500)
    for share, reach in ((0.0, 60), (0.2, 120), (0.5, 180)):
        azimuth, elevation = zero123._around(0.3, share, many, g)
        off = torch.rad2deg(azimuth - 0.3)
        assert off.abs().max() <= reach + 1e-6 and off.abs().max() > 0.95 * reach
        up = torch.rad2deg(elevation)
        assert up.min() >= -10.001 and up.max() <= 60.001


def test_a_grid_of_colours_agrees_with_its_function():
    low, high = torch.tensor([-1.0, -0.5, -0.5]), torch.tensor([1.0, 0.5, 0.7])
    f = lambda x, n: (x - low) / (high - low) * 0.6 + 0.2  # noqa: E731 — linear, and so nearly is its logit between cells
    grid = zero123.ColourGrid.of(f, low, high, 32)
    inside = low + (high - low) * (0.05 + 0.9 * torch.rand(200, 3, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(grid(inside), f(inside, None), atol=2e-3, rtol=0)


# ---- by the command line's own code, with networks of random weights in a published layout ----


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = twin.write_port(tmp_path_factory.mktemp("published"), twin.port_parts(), 1)
    (folder / "bozzetto.json").write_text('{"kind": "zero123"}')
    return folder


def test_lift_takes_published_weights_and_ends_in_the_same_bytes(weights, tmp_path, monkeypatch):
    monkeypatch.setitem(zero123.PRESETS, "draft", replace(SETTINGS, steps=6, guidance=3.0))
    made = []
    for name in ("a", "b"):
        asset = lift(CHAIR, tmp_path / name, preset="draft", recipe="zero123", prior=weights, seed=1)
        assert asset.is_complete and asset.record["diffusion_prior"] and asset.record["settings"]["guidance"] == 3.0
        made.append((tmp_path / name / "asset.glb").read_bytes())
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prior": Path("mini/none")}, "embeds no such diffusion prior"),
        ({"recipe": "guess", "kind": "zero123"}, "add one or leave it out"),
        ({"prior": Path("nowhere")}, "no such folder"),
        ({"prior": MINI / "first_guess"}, "model_index.json"),
        ({"prior": "weights", "kind": "stable-zero123"}, "kind"),
    ],
)
def test_priors_that_do_not_fit_are_refused_before_anything_is_written(weights, tmp_path, options, words):
    options = {k: weights if v == "weights" else v for k, v in options.items()}
    with pytest.raises(InputError, match=words):
        lift(CHAIR, tmp_path / "out", preset="draft", **{"recipe": "zero123", **options})
    assert not (tmp_path / "out").exists()
