# SPDX-License-Identifier: Apache-2.0
"""The recipe of six views and their normals: its framing, under a prior that knows the object, and with a checkpoint as published."""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from torch import Tensor

from bozzetto import lift
from bozzetto.camera import Camera
from bozzetto.errors import InputError
from bozzetto.fit.clean import tidy
from bozzetto.fit.drawings import Drawing, draw_framed
from bozzetto.fit.finish import Finish
from bozzetto.fit.framed import Framed
from bozzetto.fit.fused import Fusing
from bozzetto.fit.recipe import Job, Priors
from bozzetto.fit.run import Run
from bozzetto.fit.solid import Solid
from bozzetto.fit.source import Source
from bozzetto.frustum import DEPTH_RANGE, Frustum, cell_centres
from bozzetto.mesh import vertex_normals
from bozzetto.priors import domains, load
from bozzetto.priors.exact import Exact
from bozzetto.priors.plan import Asked
from bozzetto.priors.wonder3d import Wonder3D
from bozzetto.recipes import RECIPES, wonder3d
from bozzetto.render.mesh import render_surface
from tests.test_cli import CHAIR, run
from tests.twins import wonder3d as twin

AZIMUTH, ELEVATION, SIDE = 0.5, math.radians(25), 48
BOXES = (((0.0, 0.0, -0.12), (0.36, 0.6, 0.18)), ((0.06, -0.2, 0.12), (0.24, 0.2, 0.32)), ((-0.22, 0.14, -0.06), (0.2, 0.14, 0.14)))
MOVED = torch.tensor([0.07, -0.09, 0.05])
RED, GREEN, BLUE = (torch.tensor(c) for c in ([0.85, 0.15, 0.1], [0.15, 0.7, 0.2], [0.1, 0.2, 0.85]))
TINY = wonder3d.Wonder3D(
    Drawing(steps=3, batch=1), Fusing(by="dmtet", steps=4, picture=32, cells=14, colours=8), finish=Finish(faces=400, texture=64)
)


@pytest.fixture(autouse=True)
def sums_in_a_fixed_order() -> Any:
    """As `bozzetto.lift` has it."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def inside(x: Tensor) -> Tensor:
    """Of three boxes that are no mirror image of themselves from any side, off the origin."""
    return torch.stack([((x - MOVED - torch.tensor(c)).abs() < torch.tensor(s) / 2).all(-1) for c, s in BOXES]).any(0)


def colour(x: Tensor, n: Tensor) -> Tensor:
    """By place: red towards +x, green a wing, blue behind."""
    y = x - MOVED
    return torch.where(y[:, 2:] > -0.03, GREEN, torch.where(y[:, :1] > 0, RED, BLUE))


@dataclass(frozen=True)
class Known:
    """The object as a crop's frame has it: vertices (N, 3), faces, and how to go back to where its colours are said."""

    vertices: Tensor
    faces: Tensor
    centre: Tensor
    unit: float

    def seen(self, cameras: Camera) -> Any:
        """From cameras of the crop's frame."""
        where = lambda x, n: colour(x * self.unit + self.centre, n)  # noqa: E731
        return render_surface(self.vertices, self.faces, vertex_normals(self.vertices, self.faces), cameras, where)


def pictured(deep: float | None = None) -> tuple[Source, Known, Solid]:
    """Its picture, itself in the frame of the picture's crop, and a first guess that is right but for its colours, all grey; or the
    outline, so deep to both sides."""
    parts = [trimesh.creation.box(s).apply_translation(c).subdivide().subdivide() for c, s in BOXES]
    mesh = trimesh.util.concatenate(parts)
    vertices, faces = torch.tensor(mesh.vertices).float() + MOVED, torch.tensor(mesh.faces).long()
    camera = Frustum.of(AZIMUTH, ELEVATION, wonder3d.FLAT, 256).camera
    shot = Known(vertices, faces, torch.zeros(3), 1.0).seen(camera)
    rgb = (shot.rgb[0] / shot.alpha[0].clamp(min=1e-3)).clamp(0, 1)
    source = Source("boxes.png", rgb, shot.alpha[0, ..., 0], rgb, "0")
    left, top, side = source.crop(256).box
    right, up = camera.c2w[0, :, 0].float(), camera.c2w[0, :, 1].float()
    centre, unit = (right * (left + side / 2 - 128) - up * (top + side / 2 - 128)) / 256, side / 256
    at = Frustum.of(AZIMUTH, ELEVATION, wonder3d.FLAT).points(cell_centres(64, 64, 64).reshape(-1, 3)).view(64, 64, 64, 3)
    solid = inside(at * unit + centre)
    if deep is not None:
        t = (torch.arange(64) + 0.5) / 32 * DEPTH_RANGE - DEPTH_RANGE
        solid = solid.any(0) & (t.abs() < deep)[:, None, None]
    guess = Solid(solid * 6.0 - 3.0, torch.full((3, 12, 32, 32), 0.5), torch.ones(1, 64, 64), AZIMUTH, ELEVATION, 0.4)
    return source, Known((vertices - centre) / unit, faces, centre, unit), guess


def placed(known: Known, framing: Framed) -> Known:
    """The object as such a prior draws it: where the picture shows it, and the middle of its own depth in the middle."""
    back = framing.cameras([framing.azimuth], [framing.elevation]).c2w[0, :, 2].float()
    middle = (known.vertices.amin(0) + known.vertices.amax(0)) / 2
    centre = framing.centre.float()
    origin = centre + back * ((middle - centre) @ back)
    return replace(known, vertices=known.vertices - origin, centre=known.centre + origin * known.unit)


class Ring(Exact):
    """A bank of the object and its mirror image, between which the picture decides, drawn as Wonder3D draws: six views of the ring, normals
    and colours."""

    views = Wonder3D.views  # type: ignore[assignment]

    def __init__(self, known: Known, framing: Framed) -> None:
        self.size = SIDE
        true = placed(known, framing)
        mirrored = replace(true, vertices=true.vertices * torch.tensor([1.0, -1.0, 1.0]), faces=true.faces.flip(1))
        cameras = self.views()[range(6)]  # type: ignore[call-arg]
        super().__init__([mirrored.seen, true.seen], cameras, size=SIDE, width=0.02, together=6, with_normals=True)


class Own(Ring):
    """Its normals in each camera's own axes, the mistake to make."""

    def windows(self, cameras: Camera) -> Tensor:
        y = super().windows(cameras)
        views = [self.bank[n](cameras[range(6)]) for n in range(2)]
        y[:, :, :6] = torch.stack([2 * torch.cat([domains.to_pictures(x[[k, k]], 2)[:1] for k in range(6)]) - 1 for x in views]).movedim(
            -1, 2
        )
        return y


@dataclass(frozen=True)
class Guessed(Job):  # type: ignore[type-arg]
    """A lift whose guess is known."""

    solid: Solid | None = None

    def guess(self) -> Solid:
        return self.run.stage("guess", lambda: self.solid, Solid)


def framed(source: Source, guess: Solid, size: int = SIDE, share: float = wonder3d.SHARE) -> Framed:
    solid = replace(guess, p=wonder3d.FLAT)
    rough = solid.surface()
    assert rough is not None
    return wonder3d.framed(source, solid, rough, size, share)


def job(settings: Any, run: Run, prior: Any = Ring, deep: float | None = None) -> Any:
    """prior: one, or a class of those above."""
    source, known, guess = pictured(deep)
    made = prior(known, framed(source, guess)) if isinstance(prior, type) else prior
    return Guessed(source, Priors(normals=made), settings, run, AZIMUTH, ELEVATION, 3, solid=guess)


# ---- where the pictures lie ----


@pytest.mark.parametrize("share", [0.75, 0.5])
def test_the_front_view_lies_on_the_picture(share: float):
    source, known, guess = pictured()
    solid = replace(guess, p=wonder3d.FLAT)
    framing = framed(source, guess, 128, share)
    drawn = Wonder3D.views(SimpleNamespace(size=128), framing.reference(1.0))  # type: ignore[arg-type]
    ring = framing.placed(drawn)[range(6)]
    views = known.seen(ring)
    front, shown = views.alpha[0, ..., 0], framing.alpha

    def overlap(a: Tensor, b: Tensor) -> float:
        return float(torch.minimum(a, b).sum() / torch.maximum(a, b).sum())

    assert overlap(front, shown) > 0.97
    assert float(((views.rgb[0] - framing.rgb).abs() * shown[..., None]).mean()) < 0.02
    sides = [int((shown > 0.5).any(k).sum()) for k in (0, 1)]
    # the reach of the boxes is what makes the pictures so wide with the published share, the outline with a smaller one
    reach = 2 * float(torch.hypot(*((known.vertices - framing.centre.float()) @ ring.c2w[0, :, :3].float()).T[[0, 2]]).max())
    assert framing.width == pytest.approx(reach / 0.9 if share == 0.75 else max(sides) / 128 * framing.width / share, rel=0.03)
    assert all(float(edge.max()) == 0 for a in views.alpha for edge in (a[0], a[-1], a[:, 0], a[:, -1]))  # nothing is cut off
    # controls: Zero-1-to-3's width, the middle of the crop for that of the box, the view from behind
    others = Framed.of(source, solid.frustum.camera, *solid.surface(), 128).alpha, shown.roll((3, 0), (0, 1)), shown.flip(1)
    assert all(overlap(front, other) < overlap(front, shown) - 0.01 for other in others)
    assert overlap(known.seen(drawn[0]).alpha[0, ..., 0], shown) < 0.9


def test_what_is_drawn_is_the_object_from_all_sides_in_the_crops_frame():
    """Colours and normals of drawn pixels against the object's own, seen by the cameras that the recipe gives them."""
    source, known, guess = pictured()
    framing = framed(source, guess)
    prior = Ring(known, framing)
    ring = prior.views(framing.reference(1.0))  # type: ignore[arg-type]
    pictures = draw_framed(framing, prior, ring, guess.colours, Drawing(steps=10, batch=1))
    views = domains.to_views(pictures, framing.placed(ring))

    def agreement(cameras: Camera) -> tuple[float, float, float]:
        """Shares of pixels with the right colour and the right normal, and the worst overlap of an outline."""
        truth = known.seen(cameras[range(6)])
        a, b = truth.alpha[..., 0], views.alpha[..., 0]
        inner = (a > 0.99) & (b > 0.99)
        off = (views.rgb - truth.rgb)[inner].norm(dim=-1), 1 - (views.normal * truth.normal)[inner].sum(-1)
        worst = (torch.minimum(a, b).sum((1, 2)) / torch.maximum(a, b).sum((1, 2))).min()
        return float((off[0] < 0.1).float().mean()), float((off[1] < 0.05).float().mean()), float(worst)

    placed = framing.placed(ring)
    colours, normals, outline = agreement(placed)
    assert colours > 0.87 and normals > 0.98 and outline > 0.94  # .90, .995, .95; colours change within a pixel
    for wrong in (ring, placed[[0, 5, 4, 3, 2, 1] * 2]):  # controls: round the crop's middle, and clockwise
        colours, normals, outline = agreement(wrong)
        assert colours < 0.75 and normals < 0.6 and outline < 0.75
    assert wonder3d.sheet(pictures).shape == (2 * SIDE, 6 * SIDE, 3)


# ---- the whole ----


def surface_off(mesh: Any, known: Known) -> float:
    """Mean distance of a mesh's vertices, in the asset's frame, from the true boxes, as a share of the longest side."""
    true = known.vertices
    low, high = true.amin(0), true.amax(0)
    unit = (high - low).max()
    x = (mesh.vertices * unit + (low + high) / 2) * known.unit + known.centre - MOVED
    off = []
    for c, s in BOXES:
        q = (x - torch.tensor(c)).abs() - torch.tensor(s) / 2
        off.append(q.clamp(min=0).norm(dim=1) + q.amax(1).clamp(max=0))
    return float(torch.stack(off).amin(0).abs().mean() / (unit * known.unit))


LIFTED = replace(TINY, fusing=Fusing(by="dmtet", steps=60, picture=SIDE, cells=28, colours=32), finish=Finish(faces=4000, texture=256))


@pytest.mark.slow
def test_an_object_that_the_prior_knows_gets_its_back(tmp_path: Path):
    """The guess is its outline, as deep as it is wide; the prior knows two objects, of which the picture tells one."""
    work = job(LIFTED, Run(tmp_path, {}), deep=0.4)
    made = wonder3d.lift(work)
    _, known, guess = pictured(0.4)
    rough = replace(guess, p=wonder3d.FLAT).surface()
    assert rough is not None
    begun = tidy(*rough, 4000)
    off = surface_off(made.mesh, known), surface_off(begun, known)
    # .054 and .109 of the longest side; what six outlines leave has a box that is .05 to .09 wider, which normals begin to take off
    assert off[0] < 0.065 and off[1] > 1.6 * off[0], off
    # the back is blue, which the picture does not show and the guess does not know
    mesh = made.mesh
    back = (mesh.normals[:, 0] < -0.9) & (mesh.vertices[:, 2] < -0.1)
    at = (mesh.uv[back] * 256).long().clamp(0, 255)
    assert (mesh.texture[at[:, 1], at[:, 0]].mean(0) - BLUE).norm() < 0.2
    sheet = np.asarray(Image.open(io.BytesIO(made.files["drawn.png"])))
    assert sheet.shape == (2 * SIDE, 6 * SIDE, 3)
    assert made.measured["perspective"] == wonder3d.FLAT
    # the control: normals in each camera's own axes agree with no surface
    own = wonder3d.lift(job(LIFTED, Run(None, {}), Own, deep=0.4))
    assert own.measured["losses"]["normal"] > 2 * made.measured["losses"]["normal"]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return twin.write(tmp_path_factory.mktemp("wonder3d") / "published", twin.parts())


def test_it_runs_through_all_stages_with_a_checkpoint_in_the_published_layout(published: Path, tmp_path: Path):
    out = tmp_path / "out"
    asset = lift(CHAIR, out, recipe="wonder3d", settings=TINY, prior=published, seed=3)
    told = json.loads((out / "asset.json").read_text())
    assert asset.is_complete and told["normals_prior"] and list(told["seconds"]) == ["guess", "views", "fuse", "clean", "texture"]
    assert Image.open(out / "drawn.png").size == (6 * 16, 2 * 16)
    written = trimesh.load(out / "asset.glb", force="mesh", process=False)
    assert np.isfinite(written.vertices).all() and asset.mesh.texture is not None and bool(torch.isfinite(asset.mesh.texture).all())


STAGES = ("guess", "views", "fuse", "clean", "texture")


@pytest.mark.parametrize("stage", [s if s == "views" else pytest.param(s, marks=pytest.mark.slow) for s in STAGES])
def test_killed_in_any_stage_and_resumed_it_ends_in_the_same_bytes(published: Path, tmp_path: Path, stage: str):
    prior = load(published)

    def lifted(folder: Path, resume: bool = False, progress: Any = None) -> Any:
        return wonder3d.lift(job(TINY, Run(folder, {}, resume=resume, progress=progress), prior))

    def kill(now: str, share: float) -> None:
        if now == stage and (share >= 0.5 or stage in ("clean", "texture")):
            raise KeyboardInterrupt

    whole = lifted(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        lifted(tmp_path / "killed", progress=kill)
    again = lifted(tmp_path / "killed", resume=True)
    assert torch.equal(again.mesh.vertices, whole.mesh.vertices) and torch.equal(again.mesh.texture, whole.mesh.texture)
    assert again.files == whole.files


def test_without_weights_it_says_which(tmp_path: Path, capsys: Any, monkeypatch: Any):
    with pytest.raises(InputError, match=r"no prior of need normals is embedded; .* --prior normals=FOLDER \(bozzetto fetch wonder3d\)"):
        lift(CHAIR, tmp_path / "out", recipe="wonder3d")
    assert not (tmp_path / "out").exists()
    code, said = run(capsys, monkeypatch, "lift", CHAIR, "--recipe", "wonder3d", "--out", tmp_path / "out")
    assert code == 2 and said.strip().count("\n") == 0 and "bozzetto fetch wonder3d" in said
    with pytest.raises(InputError, match="has no use here"):
        lift(CHAIR, recipe="wonder3d", prior="mini")


def test_it_asks_for_one_sample(published: Path):
    prior, recipe = load(published), RECIPES["wonder3d"]
    assert recipe.asks is not None
    for settings, calls in ((recipe.presets["standard"], 20), (recipe.presets["fine"], 50)):
        assert recipe.asks(settings, {"normals": prior}) == {"normals": Asked(calls, 1, 1)}
    guided = replace(recipe.presets["standard"], drawing=Drawing(guidance=3.0, batch=1))
    assert recipe.asks(guided, {"normals": prior}) == {"normals": Asked(40, 1, 1)}
