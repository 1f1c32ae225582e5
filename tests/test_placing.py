# SPDX-License-Identifier: Apache-2.0
"""A field of known shape, scale and camera is found again behind its picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
import trimesh
from torch import Tensor

from bozzetto.errors import InputError
from bozzetto.evaluate.metrics import align, chamfer
from bozzetto.fit.placing import Pose, drawn, find, place
from bozzetto.fit.recipe import Job, Priors
from bozzetto.fit.run import Run
from bozzetto.fit.source import Source
from bozzetto.kernels.marching import marching_tetrahedra
from bozzetto.priors.triplane import Surface
from bozzetto.recipes import RECIPES
from bozzetto.shapes.tetgrid import TetGrid

THRESHOLD = 25.0
BOXES = (  # centre, half sides, colour: a seat with a back, one arm and a lamp, none of it symmetric
    ((0.0, 0.0, 0.0), (0.30, 0.34, 0.08), (0.8, 0.2, 0.1)),
    ((-0.24, 0.0, 0.28), (0.06, 0.34, 0.24), (0.1, 0.5, 0.8)),
    ((0.04, 0.30, 0.16), (0.24, 0.05, 0.10), (0.9, 0.8, 0.1)),
    ((0.20, -0.22, -0.20), (0.06, 0.06, 0.16), (0.2, 0.7, 0.3)),
    ((-0.20, 0.24, -0.16), (0.07, 0.05, 0.12), (0.5, 0.2, 0.6)),
)


@dataclass
class Toy:
    """Boxes in a unit box of TripoSR's, `scale` times as large and moved: density falls by e in a hundredth."""

    scale: float
    middle: Tensor
    threshold: float = THRESHOLD

    @property
    def box(self) -> Tensor:
        return torch.tensor([[-0.87] * 3, [0.87] * 3])

    def distances(self, points: Tensor) -> Tensor:
        x = (points.double() - self.middle) / self.scale
        out = []
        for centre, half, _ in BOXES:
            q = (x - torch.tensor(centre)).abs() - torch.tensor(half)
            out.append(q.clamp(min=0).norm(dim=-1) + q.amax(-1).clamp(max=0))
        return torch.stack(out, -1) * self.scale

    def density(self, points: Tensor) -> Tensor:
        return (self.threshold * torch.exp(-self.distances(points).amin(-1) / 0.01)).float()

    def colour(self, points: Tensor) -> Tensor:
        return torch.tensor([c for _, _, c in BOXES])[self.distances(points).argmin(-1)]

    def mesh(self, resolution: int = 256) -> Surface:
        axis = torch.linspace(-0.87, 0.87, resolution, dtype=torch.float64)
        at = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).view(-1, 3)
        side = torch.zeros(1, dtype=torch.int8).expand(len(at))
        grid = TetGrid(at, side, cells=(resolution - 1,) * 3)
        vertices, faces, _ = marching_tetrahedra(at, self.distances(at).amin(-1), grid)
        return Surface(vertices, faces, self.colour(vertices))


def toy(seed: int) -> tuple[Toy, Pose, Source]:
    """At a random scale and place, with its picture from a random camera."""
    r = torch.rand(8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    field = Toy(0.7 + 0.7 * float(r[0]), (r[1:4] - 0.5) * 0.2)
    surface = field.mesh(96)
    pose = Pose(math.radians(50 * float(r[4]) - 25), math.radians(55 * float(r[5]) - 10), 0.2 + 0.6 * float(r[6]), 1.0, 0.0, 0.0)
    middle = (surface.vertices.amin(0) + surface.vertices.amax(0)) / 2
    pose = pose._replace(size=0.7 / float((surface.vertices - middle).abs().amax()) / 2)
    centred = surface._replace(vertices=(surface.vertices - middle).float())
    rgb, alpha = drawn(centred, pose, 512)
    shown = (rgb / alpha[..., None].clamp(min=1e-3)).clamp(0, 1)
    return field, pose, Source("toy.png", shown, alpha, shown, str(seed))


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))])
def test_the_camera_of_a_field_is_found_by_the_picture(seed: int):
    field, pose, source = toy(seed)
    found = find(field, source)
    assert found.iou >= 0.97
    for have, want in ((found.pose.turn, pose.turn), (found.pose.elevation, pose.elevation)):
        assert abs(have - want) < math.radians(2)


def test_a_known_elevation_is_kept_and_a_mirrored_picture_fits_no_pose():
    field, pose, source = toy(1)
    assert find(field, source, pose.elevation).pose.elevation == pose.elevation
    mirrored = Source("mirrored.png", source.rgb.flip(1), source.alpha.flip(1), source.shown.flip(1), "m")
    assert find(field, mirrored).iou < 0.95


def test_a_pose_goes_to_the_crop_and_back():
    pose, middle = Pose(0.3, 0.4, 0.5, 0.8, 0.1, -0.05), torch.tensor([0.1, 0.2, -0.3], dtype=torch.float64)
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(pose.to_field(pose.to_crop(x, middle, 1.2), middle, 1.2), x)
    u, v, t = pose.frustum(1.2).coordinates(pose.to_crop(middle[None], middle, 1.2))[0].tolist()
    assert (u - 0.5, 0.5 - v, t) == pytest.approx((0.1, -0.05, 0.0), abs=1e-9)  # right, up, and the depth where the frustum's unit is


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["guess", "gaussians"])
def test_a_lift_that_begins_with_a_field_has_its_shape_within_a_cell_and_its_colours(recipe: str):
    field, pose, source = toy(2)
    chosen = RECIPES[recipe]
    settings = chosen.presets["draft"]
    job = Job(source, Priors(lambda *how: place(field, *how)), settings, Run(None, {}), azimuth=math.radians(30))
    mesh = chosen.lift(job).mesh
    truth = field.mesh(128)
    turn = rotation(math.radians(30) - pose.turn)  # the field's frame but for the azimuth that was asked for
    wanted = trimesh.Trimesh((truth.vertices @ turn.mT).numpy(), truth.faces.numpy(), process=False)
    made = trimesh.Trimesh(mesh.vertices.double().numpy(), mesh.faces.numpy(), process=False)
    a, b = (trimesh.sample.sample_surface(m, 20_000, seed=0)[0] for m in (made, wanted))
    scale, move = align(a, b)
    cell = float((b.max(0) - b.min(0)).max()) / 0.8 / settings.cells / 2  # the grid is subdivided once
    assert chamfer(scale * a + move, b) < cell
    mirrored = a * [1, -1, 1]
    scale, move = align(mirrored, b)
    assert chamfer(scale * mirrored + move, b) > 2 * cell


def rotation(angle: float) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)


@pytest.mark.slow
def test_colours_of_the_hidden_side_are_the_fields():
    field, _, source = toy(0)
    solid = place(field, source)
    found = find(field, source)
    surface = field.mesh(64)
    at = found.pose.to_crop(surface.vertices, found.middle, 0.0).float()
    off = (solid.colours(at, at) - surface.colours).abs().amax(-1)
    assert float((off < 0.1).float().mean()) > 0.85  # edges between two colours are a cell wide
    assert solid.is_drawn and solid.fit is not None and solid.fit >= 0.97


def test_nothing_solid_is_one_sentence():
    field, _, source = toy(0)
    field.scale = 1e-3
    with pytest.raises(InputError, match="nothing solid here; use the embedded"):
        place(field, source)
