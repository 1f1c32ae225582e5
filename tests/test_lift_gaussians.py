# SPDX-License-Identifier: Apache-2.0
"""`bozzetto lift --recipe gaussians`: discs lie on the surface, each side follows whom it should, and a kill costs nothing."""

from __future__ import annotations

import json

import pytest
import torch

from bozzetto import image
from bozzetto.camera import orbit, rotations
from bozzetto.errors import InputError
from bozzetto.fit.asset import FILES, SPLAT
from bozzetto.fit.finish import Finish
from bozzetto.fit.recipe import Job, Priors
from bozzetto.fit.run import Run
from bozzetto.fit.solid import Solid
from bozzetto.fit.source import Source
from bozzetto.formats.gltf import load
from bozzetto.formats.ply import from_ply
from bozzetto.frustum import Frustum, cell_centres
from bozzetto.mesh import vertex_normals
from bozzetto.priors.solid import EMPTY
from bozzetto.recipes import gaussians as recipe
from bozzetto.recipes import guess
from bozzetto.render.clean import is_watertight_manifold
from bozzetto.render.mesh import render_mesh
from bozzetto.shapes.discs import on_surface
from bozzetto.shapes.gaussians import Gaussians
from bozzetto.verbs.lift import lift
from tests.twins.block import CHAIR, ELEVATION, RED, P
from tests.twins.meshes import weld

RADIUS, CELLS = 0.37, 24
SMALL = recipe.FromGaussians(
    cells=CELLS, steps=60, picture=96, around=64, lattice=48, views=16, fused=128, finish=Finish(faces=3000, texture=128)
)
FRUSTUM = Frustum.of(0.0, ELEVATION, P)
CAMERA = FRUSTUM.camera


def grey_ball() -> Solid:
    """A guess: a ball round the origin."""
    n = 48
    far = FRUSTUM.points(cell_centres(n, n, n).view(-1, 3)).norm(dim=1).view(n, n, n)
    occupancy = ((RADIUS - far) * 60).clamp(EMPTY, -EMPTY)
    return Solid(occupancy, torch.full((3, 12, 24, 24), 0.5), torch.ones(1, n, n), 0.0, ELEVATION, P)


def red_ball() -> Source:
    """Its picture, but red: the pixels whose ray comes nearer to the origin than RADIUS."""
    camera = CAMERA.resized(256)
    origin, ray = camera.rays()
    near = torch.linalg.cross(origin.expand_as(ray), ray, dim=-1).norm(dim=-1)[0]
    rgb = RED.expand(256, 256, 3)
    return Source("ball.png", rgb, (near < RADIUS).float(), rgb, "0")


@pytest.fixture(scope="module")
def rough():
    return grey_ball().surface(1 / CELLS)


def test_gaussians_begin_as_discs_along_the_surface(rough):
    """Their shortest axis is the normal, and seen from anywhere they close the surface: inside the outline nothing shines through."""
    g = on_surface(*rough, lambda x, n: torch.full_like(x, 0.5))
    assert len(g) == len(rough[0]) and g.degree == 0
    axis = rotations(g.quats.detach())[..., 2]
    assert (g.scales.argmin(-1) == 2).all()
    torch.testing.assert_close((axis * vertex_normals(*rough)).sum(-1).abs(), torch.ones(len(g)), rtol=0, atol=1e-5)
    cameras = orbit([0.3, 2.0, 4.4], [0.1, 0.9, -0.8], 2.5, size=96, fov=0.4)
    origin, ray = cameras.rays()
    inside = torch.linalg.cross(origin.expand_as(ray), ray, dim=-1).norm(dim=-1) < RADIUS - 2 / CELLS
    with torch.no_grad():
        views = g.render(cameras)
    assert float(views.alpha[..., 0][inside].min()) > 0.95
    torch.testing.assert_close(views.rgb[inside], 0.5 * views.alpha[inside].expand(-1, 3), rtol=0, atol=1e-4)


def test_the_front_takes_the_picture_and_the_back_stays_with_the_guess(tmp_path):
    """A grey ball that the picture says is red: red in front, grey behind, and the fused surface is still the ball."""
    job = Job(red_ball(), Priors(), SMALL, Run(tmp_path, {}))
    g = Gaussians(**recipe.fit(job, grey_ball()).gaussians)
    g.degree = 0
    colour = {}
    for side, azimuth in (("front", 0.0), ("behind", 3.1416)):
        camera = Frustum.of(azimuth, ELEVATION if side == "front" else -ELEVATION, P, 96).camera
        with torch.no_grad():
            views = g.render(camera)
        middle = views.alpha[0, 36:60, 36:60]
        assert float(middle.min()) > 0.95
        colour[side] = (views.rgb[0, 36:60, 36:60] / middle).mean((0, 1))
    assert float((colour["front"] - RED).abs().max()) < 0.06
    assert float((colour["behind"] - 0.5).abs().max()) < 0.06
    fused = recipe.fuse(g, CAMERA, job)
    assert is_watertight_manifold(fused.vertices, fused.faces)
    error = fused.vertices.norm(dim=1) - RADIUS
    spacing = 2 * RADIUS / SMALL.lattice
    assert float(error.mean().abs()) < spacing and float(error.abs().quantile(0.99)) < 2.5 * spacing


@pytest.fixture(scope="module")
def chair(tmp_path_factory):
    """The example at small settings: (asset, folder)."""
    out = tmp_path_factory.mktemp("lift") / "chair"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(recipe.RECIPE.presets, "draft", SMALL)
        return lift(CHAIR, out, preset="draft", recipe="gaussians"), out


def test_the_asset_is_whole(chair, validate_gltf):
    """Valid, watertight, 2-manifold, in its budget; the splat stands where the mesh stands, and the picture's view is met."""
    asset, out = chair
    assert sorted(p.name for p in out.iterdir()) == sorted((*FILES, SPLAT))
    issues = validate_gltf(out / "asset.glb")
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues
    mesh = load(out / "asset.glb")
    whole = weld(mesh)
    assert mesh.texture is not None and len(mesh.faces) <= SMALL.finish.faces
    assert is_watertight_manifold(whole.vertices, whole.faces)
    g = from_ply(out / SPLAT)
    said = json.loads((out / "asset.json").read_text())
    assert said["gaussians"] == len(g) and said["settings"]["recipe"] == "gaussians"
    near = torch.cdist(whole.vertices.float(), g.means.detach()).amin(1)
    assert float(near.quantile(0.9)) < 2 / CELLS
    crop = image.crop(asset.source.rgb, asset.source.alpha, 128)
    wanted = crop.alpha > 0.5
    camera = asset.camera.resized(128)
    with torch.no_grad():
        drawn = {"mesh": render_mesh(asset.mesh, camera), "splat": g.render(camera)}
    for name, least in (("mesh", 0.75), ("splat", 0.9)):
        mine = drawn[name].alpha[0, ..., 0] > 0.5
        assert float((mine & wanted).sum() / (mine | wanted).sum()) > least, name
    shown = wanted & (drawn["splat"].alpha[0, ..., 0] > 0.9)
    assert float((drawn["splat"].rgb[0] - crop.rgb).abs()[shown].mean()) < 0.06


@pytest.mark.slow
def test_killed_and_resumed_it_ends_in_the_same_bytes_and_a_seed_is_a_file(chair, tmp_path, monkeypatch):
    _, out = chair
    monkeypatch.setitem(recipe.RECIPE.presets, "draft", SMALL)

    class Killed(Exception):
        pass

    def kill(stage: str, share: float) -> None:
        if stage == "shape" and share > 0.9:  # after a checkpoint
            raise Killed

    with pytest.raises(Killed):
        lift(CHAIR, tmp_path / "a", preset="draft", recipe="gaussians", progress=kill)
    assert not (tmp_path / "a" / "asset.glb").exists() and (tmp_path / "a" / ".run" / "shape.partial").is_file()
    with pytest.raises(InputError, match="other"):
        lift(CHAIR, tmp_path / "a", preset="draft", resume=True)  # as a mesh
    lift(CHAIR, tmp_path / "a", preset="draft", recipe="gaussians", resume=True)
    for name in ("asset.glb", SPLAT):
        assert (tmp_path / "a" / name).read_bytes() == (out / name).read_bytes()
    lift(CHAIR, tmp_path / "a", preset="draft", recipe="gaussians", seed=2**62 + 1)
    assert (tmp_path / "a" / SPLAT).read_bytes() != (out / SPLAT).read_bytes()
    tiny = guess.Guess(cells=16, steps=2, picture=64, finish=Finish(faces=500, texture=64))
    monkeypatch.setitem(guess.RECIPE.presets, "draft", tiny)
    lift(CHAIR, tmp_path / "a", preset="draft")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == sorted(FILES)  # the splat of another lift is gone


def test_a_guess_of_nothing_gets_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(Solid, "surface", lambda *a: None)
    with pytest.raises(InputError, match="nothing solid here; use --recipe guess"):
        recipe.fit(Job(red_ball(), Priors(), SMALL, Run(tmp_path, {})), grey_ball())
