# SPDX-License-Identifier: Apache-2.0
"""Gaussians to meshes: exact depths give back their sphere, an object its surface; the GLB passes the validator."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.transforms import to_nerf_synthetic
from bozzetto import cli
from bozzetto.camera import orbit
from bozzetto.data.renders import drawable, render
from bozzetto.errors import InputError
from bozzetto.evaluate.metrics import chamfer, solid
from bozzetto.formats.gltf import load
from bozzetto.formats.ply import to_ply
from bozzetto.formats.scene import Scene
from bozzetto.formats.scene import load as load_scene
from bozzetto.kernels.marching import marching_tetrahedra
from bozzetto.render.clean import is_watertight_manifold
from bozzetto.render.mesh import render_mesh
from bozzetto.shapes.fusion import BAND, fuse
from bozzetto.shapes.gaussians import Gaussians
from bozzetto.shapes.tetgrid import TetGrid
from bozzetto.verbs import mesh as recipe
from bozzetto.verbs.splat import Splat, splat_scene
from bozzetto_objects import make
from tests.twins.meshes import weld

QUICK = recipe.SplatMesh(cells=48, views=24, picture=160, faces=6000, texture=256)
GOLDEN = math.pi * (3 - 5**0.5)


def around(count: int, size: int, lowest: float = -1.0):
    """Cameras evenly over the sphere above a sine of the elevation."""
    up = [math.asin(lowest + (1 - lowest) * (i + 0.5) / count) for i in range(count)]
    return orbit([GOLDEN * i for i in range(count)], up, 2.5, size=size, fov=0.6)


def sphere_depth(cameras, radius: float):
    """Exact depth along the axis and coverage of a sphere round the origin."""
    origin, ray = cameras.rays()
    b, c = (origin * ray).sum(-1), origin.square().sum(-1) - radius**2
    inside = b * b - c
    along = -b - inside.clamp(min=0).sqrt()
    depth = along * -(ray * cameras.c2w[:, None, None, :, 2]).sum(-1)
    return torch.where(inside > 0, depth, 0).float(), (inside > 0).float()


@pytest.mark.parametrize("cells", [16, 32])
def test_exact_depths_give_back_the_sphere(cells):
    """Errors fall with the spacing: distances run along axes, so slanted views make them too long, and the band cuts the far ones off."""
    cameras, radius = around(20, 128), 0.4
    grid = TetGrid.kuhn(cells, -0.55, 0.55)
    sdf = fuse(grid, *sphere_depth(cameras, radius), cameras)
    vertices, faces, _ = marching_tetrahedra(grid.vertices, sdf, grid)
    assert is_watertight_manifold(vertices, faces)  # and so outward
    error = vertices.norm(dim=1) - radius
    assert float(error.abs().mean()) < 0.15 * grid.spacing and float(error.abs().max()) < 0.8 * grid.spacing
    far = vertices.norm(dim=1).max()
    assert float(far) < 0.45  # nothing floats
    inner = sdf[grid.vertices.norm(dim=1) < radius - 1.5 * BAND * grid.spacing]
    assert (inner == -BAND * grid.spacing).all()  # nobody sees there: solid


def test_what_was_never_in_a_picture_is_empty_and_what_is_hidden_is_solid():
    """One camera: behind the sphere it sees nothing, so the solid goes on to the lattice's end in the sphere's shadow."""
    camera = around(1, 96, 0.9999)  # from straight above
    grid = TetGrid.kuhn(24, [-0.5, -0.5, -0.5], [2.5, 0.5, 0.5])  # the far end is out of the picture
    sdf = fuse(grid, *sphere_depth(camera, 0.3), camera)
    x, y, z = grid.vertices.T
    free = grid.side == 0
    across = (x * x + y * y).sqrt()
    assert (sdf[free & (across < 0.2) & (z < 0.1)] < 0).all()
    assert (sdf[free & (across > 0.45)] > 0).all()
    assert (sdf[free & (x > 1.5)] > 0).all()
    with pytest.raises(ValueError, match="expected depth"):
        fuse(grid, torch.zeros(1, 4, 4), torch.zeros(1, 4, 4), camera)


def on_surface(family: str, seed: int, count: int) -> tuple[Gaussians, np.ndarray, np.ndarray]:
    """Opaque Gaussians all over an object's visible surface, each of the colour red + green x, blue; and the object."""
    d = drawable(make(family, seed))
    points = torch.from_numpy(solid(d.vertices, d.faces, points=count).points).float()
    g = Gaussians.from_points(points, torch.stack([points[:, 0] + 0.5, torch.full((count,), 0.2), points[:, 2] + 0.5], -1))
    with torch.no_grad():
        g.logit_opacities[:] = 4
    return g, d.vertices, d.faces


def test_gaussians_on_a_teapot_give_the_teapot_and_its_colours(tmp_path, validate_gltf, monkeypatch, capsys):
    """Chamfer below the lattice's spacing (0.022), of which 0.007 is the sampling floor; scaled and moved back by the known box."""
    g, vertices, faces = on_surface("teapot", 1, 12000)
    mesh = recipe.mesh_of(g, around(24, 160), QUICK)
    (tmp_path / "pot.ply").write_bytes(to_ply(g))
    whole = weld(mesh)
    assert is_watertight_manifold(whole.vertices, whole.faces) and len(mesh.faces) <= QUICK.faces
    truth = solid(vertices, faces)
    got = solid(mesh.vertices.numpy(), mesh.faces.numpy())
    assert chamfer(got.points, truth.points) < 0.022
    views = render_mesh(mesh, around(3, 64))
    x = views.cameras.unproject(views.cameras.pixel_centres().expand(3, -1, -1, -1), views.depth[..., 0].double()).float()
    wanted = torch.stack([x[..., 0] + 0.5, torch.full_like(x[..., 0], 0.2), x[..., 2] + 0.5], -1).clamp(0, 1)
    assert float((views.rgb - wanted)[views.alpha[..., 0] > 0.99].abs().mean()) < 0.03
    monkeypatch.setattr(cli, "settings_of", lambda *_: QUICK)
    monkeypatch.setattr(sys, "argv", ["bozzetto", "mesh", str(tmp_path / "pot.ply"), "--quiet"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 0, capsys.readouterr().err
    issues = validate_gltf(tmp_path / "pot.glb")
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues
    file = load(tmp_path / "pot.glb")  # from cameras all round this time
    assert file.texture is not None and chamfer(solid(file.vertices.numpy(), file.faces.numpy()).points, truth.points) < 0.03


@pytest.mark.slow
def test_a_rendered_teapot_is_fitted_and_meshed(tmp_path):
    """Pictures to Gaussians to a mesh: Chamfer 0.007 was measured, which is the sampling floor of the measure."""
    cameras = around(40, 128, -0.2)
    d = drawable(make("teapot", 1))
    v = render(d, cameras)
    rgba = torch.cat([v.rgb / v.alpha.clamp(min=1e-6), v.alpha], -1).clamp(0, 1)
    pictures = list((rgba * 255).round().to(torch.uint8))
    scene = Scene(pictures, [cameras[i] for i in range(40)], [i % 8 == 0 for i in range(40)], torch.zeros(0, 3), torch.zeros(0, 3))
    g = splat_scene(scene, tmp_path / "pot.ply", Splat(steps=700, points=3000)).gaussians
    s = recipe.SplatMesh(cells=96, picture=256, faces=30_000)
    mesh = recipe.mesh_of(g, recipe.picked(scene, s), s)
    got, truth = solid(mesh.vertices.numpy(), mesh.faces.numpy()), solid(d.vertices, d.faces)
    assert chamfer(got.points, truth.points) < 0.012


def test_the_cameras_of_a_scene_are_spread_and_fit_its_shape(tmp_path):
    cameras = around(9, 20)
    for i in range(9):
        Image.fromarray(np.full((20, 20, 4), 99, np.uint8)).save(tmp_path / f"r_{i}.png")
    (tmp_path / "transforms.json").write_text(json.dumps(to_nerf_synthetic(cameras)))
    scene = load_scene(tmp_path)
    found = recipe.picked(scene, recipe.SplatMesh(views=4, picture=60))
    assert len(found) == 4 and found.size == (60, 60)
    assert len(recipe.picked(scene, recipe.SplatMesh())) == 9 - sum(scene.held)
    train = torch.cat([c.c2w for c, held in zip(scene.cameras, scene.held, strict=True) if not held])
    assert all((train == pose).all((1, 2)).any() for pose in found.c2w)  # never a held-back one


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["nowhere.ply"], "cannot be read"),
        (["faint.ply"], "no Gaussian is opaque enough"),
        (["faint.ply", "--out", "x.obj"], "ends in .glb"),
        (["faint.ply", "--cells", "2"], "--cells 2"),
        (["faint.ply", "--scene", "nowhere"], "no such folder"),
    ],
)
def test_what_cannot_be_meshed_gets_one_sentence_and_leaves_nothing(tmp_path, monkeypatch, capsys, flags, words):
    g = Gaussians.from_box(5, 0.5, generator=torch.Generator().manual_seed(0))
    (tmp_path / "faint.ply").write_bytes(to_ply(g))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bozzetto", "mesh", *flags])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    said = capsys.readouterr().err
    assert caught.value.code == 2 and words in said and said.count("\n") == 1
    assert [f.name for f in tmp_path.iterdir()] == ["faint.ply"]


def test_cameras_that_see_nothing_say_so():
    g = Gaussians.from_box(5, 0.1, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        g.means += 50
    with pytest.raises(InputError, match="no surface that these cameras see"):
        recipe.mesh_of(g, around(2, 16), QUICK)
