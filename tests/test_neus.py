# SPDX-License-Identifier: Apache-2.0
"""Fields and the two media that show them: NS-7, NS-8, exact normals, whole pictures, and NeuS handed on to DMTet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from bozzetto.camera import orbit
from bozzetto.evaluate.metrics import chamfer
from bozzetto.kernels.hashgrid import Levels
from bozzetto.shapes import volume as room
from bozzetto.shapes.density import Blob, Density, density
from bozzetto.shapes.dmtet import DMTet, EmptySurface
from bozzetto.shapes.field import Field, Frequencies, HashGrid
from bozzetto.shapes.neus import SignedDistance, neus
from bozzetto.shapes.shape import Step
from bozzetto.shapes.volume import Course, Volume

CENTRE, RADIUS = torch.tensor([0.1, -0.12, 0.07]), 0.22
LOWER, UPPER = (-0.4, -0.5, -0.3), (0.5, 0.3, 0.45)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def step(seed=0):
    return Step(5, 10, seeded(seed))


def points(n, seed=0, reach=1.0):
    return reach * (2 * torch.rand(n, 3, generator=seeded(seed)) - 1)


def encoding(name):
    return Frequencies(3) if name == "frequencies" else HashGrid(Levels(4, 4, 1.6, 9), generator=seeded(1))


def noisy(name, is_smooth=False):
    """A field far from where it begins."""
    field = Field(encoding(name), LOWER, UPPER, width=16, depth=2, is_smooth=is_smooth, base=Blob(), generator=seeded(2))
    with torch.no_grad():
        for p in field.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=seeded(3)))
    return field


# ---- fields ----


@pytest.mark.parametrize("name", ["hash grid", "frequencies"])
@pytest.mark.parametrize("depth", [1, 3])
def test_ns_8_the_number_begins_as_the_distance_of_a_sphere_and_the_error_falls_with_the_width(name, depth):
    errors = []
    for width in (32, 64, 256):
        field = Field(encoding(name), [-1, -1, -1], [1, 1, 1], width=width, depth=depth, generator=seeded(4))
        field.number.become_sphere(0.5)
        directions = torch.nn.functional.normalize(torch.randn(400, 3, generator=seeded(5)), dim=1)
        found = torch.stack([field.value(r * directions).detach() - (r - 0.5) for r in (0.25, 0.5, 1.0)])
        errors.append(float(found.abs().max()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2] and errors[2] < 4e-3  # the entries' first 1e-4 are in it


def test_ns_8_in_units_of_the_object_wherever_the_box_is():
    made = neus(LOWER, UPPER, radius=0.2, generator=seeded())
    middle = (torch.tensor(LOWER) + torch.tensor(UPPER)) / 2
    x = middle + points(300, reach=0.35)
    value, gradient = made.field.value_and_gradient(x)
    torch.testing.assert_close(value, (x - middle).norm(dim=1) - 0.2, rtol=0, atol=8e-3)  # 1.5 % of the largest |u|
    assert (gradient.norm(dim=1) - 1).abs().mean() < 0.1


@pytest.mark.parametrize("name", ["hash grid", "frequencies"])
def test_gradients_of_the_number_are_those_of_autograd_and_of_finite_differences(name):
    field = noisy(name).double()
    x = points(50, 6, 0.3).double()
    value, gradient = field.value_and_gradient(x)
    at = x.clone().requires_grad_()
    torch.testing.assert_close(value, field.value(at), rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, torch.autograd.grad(field.value(at).sum(), at)[0], rtol=1e-10, atol=1e-12)
    shift = 1e-6 * torch.eye(3, dtype=torch.float64)
    with torch.no_grad():
        by_differences = torch.stack([(field.value(x + s) - field.value(x - s)) / 2e-6 for s in shift], 1)
        apart = (field.value_and_gradient(x)[1] - by_differences).norm(dim=1)
    assert apart.median() < 1e-6 and (apart > 1e-4).float().mean() < 0.1  # a few lie within 1e-6 of a face or a rectifier's corner


@pytest.mark.parametrize("name", ["hash grid", "frequencies"])
def test_losses_on_the_gradient_reach_every_parameter_as_finite_differences_say(name):
    field = noisy(name, is_smooth=True).double()
    x = points(20, 7, 0.3).double()

    def loss():
        return (field.value_and_gradient(x)[1].norm(dim=1) - 1).square().mean()

    parameters = list(field.number.parameters()) + list(field.encoding.parameters())
    made = torch.autograd.grad(loss(), parameters, allow_unused=True)
    for k, (p, g) in enumerate(zip(parameters, made, strict=True)):
        way = torch.randn(p.shape, generator=seeded(8 + k), dtype=torch.float64)
        with torch.no_grad():
            p.add_(1e-5 * way)
            high = loss()
            p.sub_(2e-5 * way)
            low = loss()
            p.add_(1e-5 * way)
        expected = 0.0 if g is None else float((g * way).sum())
        torch.testing.assert_close(float(high - low) / 2e-5, expected, rtol=1e-5, atol=1e-7)


def test_levels_and_bands_open_from_the_coarsest():
    grid, waves = HashGrid(Levels(6, 4, 1.6, 9), first=2, generator=seeded()), Frequencies(6, first=2)
    u = points(10)
    for share, count in ((0.0, 2), (0.5, 4), (1.0, 6), (2.0, 6)):
        for e, rows in ((grid, 2), (waves, 6)):
            e.open(share)
            assert e.active == count
            found = e(u)
            assert (found[rows * count :] == 0).all() and (found[: rows * count].abs().sum(1) > 0).all()
    grid.open(0.0)
    coarse = grid.finest
    grid.open(1.0)
    assert math.isclose(coarse, 2 / (4 * 1.6 - 1)) and math.isclose(grid.finest, 2 / (4 * 1.6**5 - 1))


# ---- NeuS's terms ----


@dataclass
class Exact:
    """A field that is a formula, its gradient by central differences; what `SignedDistance.losses` asks of one."""

    f: object
    unit: float = 1.0
    cell: float = 0.05

    @property
    def encoding(self):
        return SimpleNamespace(finest=self.cell)

    def value_and_gradient(self, x):
        d = 1e-5 * torch.eye(3, dtype=x.dtype)
        return self.f(x), torch.stack([(self.f(x + s) - self.f(x - s)) / 2e-5 for s in d], 1)


def box(x):
    q = (x - CENTRE.double()).abs() - torch.tensor([0.3, 0.2, 0.4], dtype=x.dtype)
    return q.clamp(min=0).norm(dim=1) + q.amax(1).clamp(max=0)


def torus(x):
    return torch.stack([x[:, :2].norm(dim=1) - 0.5, x[:, 2]], 1).norm(dim=1) - 0.2


SOLIDS = {"sphere": lambda x: (x - CENTRE.double()).norm(dim=1) - 0.4, "box": box, "torus": torus}


@pytest.mark.parametrize("name", SOLIDS)
def test_ns_7_the_eikonal_term_is_zero_for_signed_distances(name):
    x = points(4000, 9).double()
    if name == "box":
        q = (x - CENTRE.double()).abs() - torch.tensor([0.3, 0.2, 0.4], dtype=x.dtype)
        x = x[(q.sort(1).values.diff(dim=1).abs() > 1e-3).all(1) & (q.abs() > 1e-3).all(1)]  # where no two faces are equally near
    medium = SignedDistance()
    assert float(medium.losses(Exact(SOLIDS[name]), x, step())["eikonal"]) < 1e-8
    for factor in (0.5, 1.7):
        found = medium.losses(Exact(lambda x, k=factor: k * SOLIDS[name](x)), x, step())["eikonal"]
        torch.testing.assert_close(float(found), (factor - 1) ** 2, rtol=1e-5, atol=0)


def test_curvature_is_zero_on_a_plane_and_two_thirds_of_cell_over_radius_squared_on_a_sphere():
    """Normals at two points eps apart differ by eps / r across the radius: two of three directions in the mean."""
    n = torch.tensor([0.48, -0.6, 0.64], dtype=torch.float64)
    medium = SignedDistance()
    assert float(medium.losses(Exact(lambda x: x @ n - 0.1), points(4000, 10).double(), step())["curvature"]) < 1e-9
    ball = torch.nn.functional.normalize(torch.randn(40000, 3, generator=seeded(11), dtype=torch.float64), dim=1)
    found = medium.losses(Exact(lambda x: x.norm(dim=1) - 0.4, cell=0.01), 0.4 * ball, step())["curvature"]
    # A hundredth of second order in eps / r; four standard errors of 10000 draws, whose deviation is 0.45 of the mean.
    torch.testing.assert_close(float(found), 2 / 3 * (0.01 / 0.4) ** 2, rtol=0.01 + 4 * 0.45 / 100, atol=0)


# ---- whole pictures ----


class Ball(torch.nn.Module):
    """A field that is a sphere off the middle, redder towards +y."""

    def __init__(self, scale=1.0, shift=0.0):
        super().__init__()
        self.encoding = HashGrid(Levels(1, 2, 1.0, 3), generator=seeded())
        self.lower, self.upper = torch.tensor(LOWER), torch.tensor(UPPER)
        self.radius, self.scale, self.shift = torch.nn.Parameter(torch.tensor(RADIUS)), scale, shift

    def inputs(self, x):
        return x, x.T

    def value(self, x):
        return self.scale * ((x - CENTRE).norm(dim=1) - self.radius) + self.shift

    def value_of(self, u, inputs):
        return self.value(u)

    def colour_of(self, inputs):
        return torch.stack([inputs[1] + 0.5, 0 * inputs[1] + 0.3, 0 * inputs[1] + 0.2], 1)

    def value_and_gradient(self, x):
        return self.value(x), self.scale * torch.nn.functional.normalize(x - CENTRE, dim=1)


def ball(medium, **kw):
    made = Volume(Ball(**kw), medium, sections=24)
    made.update_occupancy()
    return made


CAMERAS = orbit([0.3, 2.0, 4.4], [0.2, 0.7, -0.4], 2.2, size=(40, 48), fov=0.5)
MEDIA = {
    "neus": lambda: ball(SignedDistance(2000.0)),
    "density": lambda: ball(Density("exp", 20.0, 1.0), scale=-2000.0, shift=math.log(20.0)),
}


def truth(cameras):
    """Depth along the axis of the nearer crossing with the ball, NaN beside it; normals there; and how near rays pass to its middle."""
    o, d = (x.float() for x in cameras.rays())
    b, c = ((o - CENTRE) * d).sum(-1), (o - CENTRE).square().sum(-1) - RADIUS**2
    t = -b - (b * b - c).sqrt()
    along = -torch.einsum("vhwi,vi->vhw", d, cameras.c2w[:, :, 2].float())
    return t * along, (o + t[..., None] * d - CENTRE) / RADIUS, (c - b * b + RADIUS**2).clamp(min=0).sqrt()


@pytest.mark.parametrize("medium", MEDIA)
@pytest.mark.parametrize("is_orthographic", [False, True])
def test_ns_5_a_ball_is_seen_where_it_is(medium, is_orthographic):
    cameras = orbit([0.3, 2.0, 4.4], [0.2, 0.7, -0.4], 2.2, size=(40, 48), ortho_scale=1.2) if is_orthographic else CAMERAS
    with torch.no_grad():
        views = MEDIA[medium]().render(cameras)
    depth, normal, miss = truth(cameras)
    inside, outside = miss < RADIUS - 0.01, miss > RADIUS + 0.01
    assert 0.08 < inside.float().mean() < 0.3
    assert (views.alpha[..., 0][inside] > 0.99).all() and (views.alpha[..., 0][outside] < 0.01).all()
    off = (views.depth[..., 0] - depth)[inside].abs()
    most, mean = (0.01, 1.5e-3) if medium == "neus" else (0.015, 6e-3)  # a density begins to be opaque a little behind its level
    assert off.max() < most and off.mean() < mean
    assert (views.normal - normal)[inside].norm(dim=-1).mean() < 0.02
    on = cameras.unproject(cameras.pixel_centres().expand(3, -1, -1, -1), depth.double().nan_to_num())[..., 1].float()
    torch.testing.assert_close(views.rgb[..., 0][inside], (on + 0.5)[inside], rtol=0, atol=0.015)
    assert (views.rgb[..., 0][inside] - (0.5 - on)[inside]).abs().max() > 0.2  # the control: a mirrored axis


@pytest.mark.parametrize("medium", MEDIA)
def test_passing_over_empty_cells_changes_nothing_that_is_seen(medium):
    shape = MEDIA[medium]()
    with torch.no_grad():
        fast = shape.render(CAMERAS)
        assert shape.occupied.float().mean() < 0.1
        shape.occupied.fill_(True)
        shape.steps = 400
        slow = shape.render(CAMERAS)
    far = (truth(CAMERAS)[2] - RADIUS).abs() > 2e-3  # at the very rim a thousandth of a unit decides
    for name in ("alpha", "rgb", "depth"):
        a, b = ((getattr(x, name) * x.alpha)[far] for x in (fast, slow))  # where nearly nothing is seen, its depth is nobody's
        assert (a - b).abs().max() < 0.02 and (a - b).abs().mean() < 1e-3, name


@pytest.mark.parametrize("medium", MEDIA)
def test_pictures_in_parts_have_the_same_gradients(medium, monkeypatch):
    """Rendered again in the backward pass, some rays at a time, against all at once; and the silhouette's area grows with the radius."""
    camera = CAMERAS[1].resized((24, 28))

    def made(chunk):
        monkeypatch.setattr(room, "CHUNK", chunk)
        shape = MEDIA[medium]()
        if medium == "neus":
            shape.medium.exponent.data.fill_(math.log(60.0) / 10)
            shape.update_occupancy()
        alpha = shape.render(camera, "alpha").alpha
        alpha.sum().backward()
        return alpha.detach(), shape.field.radius.grad

    whole, parts = made(10000), made(100)
    torch.testing.assert_close(parts[0], whole[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(parts[1], whole[1], rtol=1e-4, atol=0)
    assert whole[1] > 0
    if medium == "neus":  # a disc's circumference is smeared over many pixels: dA / dr = 2 A / r of the opaque disc, nearly
        area = math.pi * float(camera.K[0, 0, 0]) ** 2 * RADIUS**2 / (2.2**2 - RADIUS**2)
        torch.testing.assert_close(float(whole[1]), 2 * area / RADIUS, rtol=0.15, atol=0)


def test_rays_that_see_nothing_have_zeros_and_a_graph():
    shape = MEDIA["neus"]()
    away = orbit([0.3], [0.2], 2.2, size=8, fov=0.2)
    o, d = (x.reshape(-1, 3).float() for x in away.rays())
    seen = shape.trace(o, -d)
    assert all((x == 0).all() for x in seen)
    seen.alpha.sum().backward()


def test_a_field_of_one_side_has_no_surface():
    shape = ball(SignedDistance(), shift=5.0)
    with pytest.raises(EmptySurface, match="one side"):
        shape.surface()
    with pytest.raises(EmptySurface, match="one sign"):
        DMTet.from_sdf(shape.signed, 16, LOWER, UPPER)


# ---- on to other shapes ----


def spread(vertices, faces, n=20000):
    """Points (n, 3) float64 evenly over a surface."""
    corner = vertices[faces].double()
    area = torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]).norm(dim=1)
    face = torch.multinomial(area, n, replacement=True, generator=seeded(12))
    u = torch.rand(n, 2, generator=seeded(13), dtype=torch.float64)
    u = torch.where(u.sum(1, keepdim=True) > 1, 1 - u, u)
    return (corner[face] * torch.cat([u, 1 - u.sum(1, keepdim=True)], 1)[..., None]).sum(1).numpy()


@pytest.mark.parametrize("cells", [16, 32])
def test_neus_goes_on_as_dmtet_with_the_same_surface(cells):
    """SDF values of the field at the grid's vertices: both surfaces are nearer to one another than a cell, and it is no mirror image."""
    made = neus(LOWER, UPPER, radius=0.25, generator=seeded())
    with torch.no_grad():
        bumps = torch.randn(made.field.encoding.table.shape, generator=seeded(14))
        made.field.encoding.table.add_(0.02 * bumps)
        made.field.number.weights[0][:, 3:].normal_(0, 0.3, generator=seeded(15))
        made.field.encoding.open(0.0)  # four levels, 39 vertices an axis
    made.lattice = 96
    dmtet = DMTet.from_sdf(made.signed, cells, LOWER, UPPER)
    cell = max(b - a for a, b in zip(LOWER, UPPER, strict=True)) / cells
    ours, theirs = spread(*made.surface()), spread(*(x.detach() for x in dmtet.surface()))
    assert chamfer(ours, theirs) < 0.35 * cell + 0.003  # and what two samples of one surface are apart
    assert chamfer(ours * [1, -1, 1], theirs) > cell
    at = dmtet.grid.vertices
    near = made.signed(at).abs() < dmtet.grid.spacing
    torch.testing.assert_close(dmtet.sdf.detach()[near], made.signed(at)[near])  # in units of length, as they were


def test_a_density_goes_on_as_dmtet_by_its_level():
    made = MEDIA["density"]()
    dmtet = DMTet.from_occupancy(lambda x: -made.signed(x), 24, LOWER, UPPER)
    with torch.no_grad():
        vertices, _ = dmtet.surface()
    assert ((vertices - CENTRE).norm(dim=1) - RADIUS).abs().max() < 4e-3  # second order in the cell, 0.04


# ---- the density ----


@pytest.mark.parametrize("activation", ["softplus", "exp"])
def test_fog_lets_through_what_its_density_says(activation):
    """The field's number is constant: exp(-s length) is left on every ray, s = activation(r) / unit."""
    medium = Density(activation, unit=0.5)
    s = (math.log1p(math.exp(0.4)) if activation == "softplus" else math.exp(0.4)) / 0.5
    shape = ball(medium, scale=0.0, shift=0.4)
    o, d = torch.tensor([[-2.0, 0, 0], [0.1, 0.1, 2.0]]), torch.tensor([[1.0, 0, 0], [0, 0, -1.0]])
    with torch.no_grad():
        alpha = shape.trace(o, d, "alpha").alpha
    torch.testing.assert_close(alpha, 1 - torch.exp(-s * torch.tensor([0.9, 0.75])), rtol=0.02, atol=0)  # whole steps, no parts of one
    assert float(medium.signed(medium._surface * torch.ones(1))) == 0
    torch.testing.assert_close(medium.density(torch.tensor([medium._surface])), torch.tensor([20.0]))


def test_a_blob_is_highest_in_the_middle_and_falls_to_nothing_at_its_radius():
    u = torch.tensor([[0.0, 0, 0], [0.25, 0, 0], [0, -0.5, 0], [1, 0, 0]])
    torch.testing.assert_close(Blob(10.0, 0.5)(u), torch.tensor([10.0, 5, 0, -10]), rtol=0, atol=1e-4)
    made = density(course=Course(open=0), generator=seeded())
    with torch.no_grad():
        values = made.medium.density(made.field.value(made.field.unit * u))
    assert values[0] > 100 * values[2] > 1e4 * values[3]


def test_an_unknown_activation_is_named():
    with pytest.raises(ValueError, match="'softplus' or 'exp', got 'relu'"):
        Density("relu")
