# SPDX-License-Identifier: Apache-2.0
"""What is hidden takes its colours from the picture; and the measure of how wrong they are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh
from scipy.ndimage import distance_transform_edt

from bozzetto import image
from bozzetto.camera import Camera
from bozzetto.data.renders import Drawable
from bozzetto.evaluate.colours import chroma_distance, colours, hidden_colour, hidden_from, one_colour
from bozzetto.evaluate.metrics import bare, solid
from bozzetto.evaluate.shots import Shot, shoot
from bozzetto.fit.clean import Clean
from bozzetto.fit.paint import Colours, paint
from bozzetto.fit.source import Source
from bozzetto.frustum import Frustum
from bozzetto.mesh import Mesh, vertex_normals
from bozzetto.render.bake import seen
from bozzetto.render.extend import extend
from bozzetto.render.hidden import MOST, Taught, looked_up, sure, taught
from bozzetto.render.mesh import render_mesh

CAMERA = Frustum.of(0.0, math.radians(15), 0.3, 512).camera
RED, BLUE = torch.tensor([0.75, 0.12, 0.1]), torch.tensor([0.1, 0.2, 0.7])


def body() -> tuple[torch.Tensor, torch.Tensor]:
    """A lopsided pear, off the centre, some 0.7 picture widths high."""
    ball = trimesh.creation.icosphere(subdivisions=4, radius=1.0)
    x = np.asarray(ball.vertices)
    wide = 0.24 + 0.08 * (x[:, 2:] < 0) * x[:, 2:] ** 2
    pear = x * np.concatenate([wide, 0.8 * wide, np.full_like(wide, 0.35)], 1) + [0.05, 0.06, 0.02]
    return torch.from_numpy(pear).float(), torch.from_numpy(np.asarray(ball.faces)).long()


def dull(true: Colours) -> Colours:
    """What a regression makes of colours: three quarters of the way to grey."""
    return lambda x, n: 0.5 + 0.25 * (true(x, n) - 0.5)


def pictured(true: Colours, rim: float = 0.0) -> tuple[Source, dict[str, torch.Tensor]]:
    """The pear's picture, of its own colours, and what `paint` needs; the outermost `rim` pixels are white."""
    vertices, faces = body()
    normals = vertex_normals(vertices, faces)
    views = render_mesh(Mesh(vertices, faces, normals), CAMERA)
    alpha = views.alpha[0, ..., 0]
    j, i = (alpha > 0).nonzero().T
    at = CAMERA.unproject(torch.stack([i, j], 1).double()[None] + 0.5, views.depth[0, j, i, 0].double()[None])[0].float()
    rgb = torch.ones(512, 512, 3)
    rgb[j, i] = true(at, views.normal[0, j, i])
    if rim:
        rgb[torch.from_numpy(distance_transform_edt(alpha.numpy() > 0.99) <= rim)] = 1.0
    low, high = vertices.amin(0), vertices.amax(0)
    centre, scale = (low + high) / 2, 1 / (high - low).max()
    clean = Clean((vertices - centre) * scale, faces, centre, scale)
    return Source("pear", rgb, alpha, rgb, ""), clean


def cropped(source: Source) -> tuple[image.Crop, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Surface and crop for asking `looked_up` itself: the crop is placed as the picture is."""
    vertices, faces = body()
    normals = vertex_normals(vertices, faces)
    views = render_mesh(Mesh(vertices, faces, normals), CAMERA)
    whole = image.Crop(source.rgb * source.alpha[..., None], source.alpha, (0, 0, 512))
    return whole, vertices, faces, normals, views.depth[0, ..., 0], views.normal[0]


def found(source: Source, guessed: Colours) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Looked-up colours of the vertices that are hidden for certain, their places and normals."""
    crop, vertices, _, normals, depth, normal = cropped(source)
    known = taught(CAMERA, depth, normal, crop.rgb, crop.alpha, guessed)
    size = float((vertices.amax(0) - vertices.amin(0)).norm())
    away = ((CAMERA.position[0].float() - vertices) * normals).sum(1) < -0.3
    x, n = vertices[away], normals[away]
    return looked_up(x, n, guessed(x, n), known, size), x, n


def plain(colour: torch.Tensor) -> Colours:
    return lambda x, n: colour.expand(len(x), 3)


def striped(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    """Bands 0.15 high."""
    return torch.where(((x[:, 2] / 0.15).floor() % 2 == 0)[:, None], RED, BLUE)


def two_toned(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    return torch.where(x[:, 2:] > 0.05, RED, BLUE)


def off(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    return chroma_distance(a.numpy().astype(np.float64), b.numpy().astype(np.float64))


def test_a_red_objects_hidden_side_is_the_pictures_red():
    """The guess is dull; all teaching pixels are one red, and a weighted mean of equal colours is that colour."""
    colour, x, n = found(*(lambda s: (s, dull(plain(RED))))(pictured(plain(RED))[0]))
    assert len(x) > 200
    assert off(colour, RED.expand(len(x), 3)).max() < 1.0  # lightness is half the guess's: clamping to sRGB moves a and b a little
    assert off(dull(plain(RED))(x, n), RED.expand(len(x), 3)).min() > 30  # the control: the guess itself


def test_a_grey_object_stays_grey_though_the_guess_is_violet():
    grey = torch.tensor([0.5, 0.5, 0.5])
    source, _ = pictured(plain(grey))
    colour, x, _ = found(source, plain(torch.tensor([0.5, 0.42, 0.55])))
    assert off(colour, grey.expand(len(x), 3)).max() < 0.1


@pytest.mark.parametrize(("true", "near"), [(two_toned, 0.05), (striped, 0.04)])
def test_stripes_and_two_tones_go_round_as_the_dull_guess_says(true, near):
    source, _ = pictured(true)
    colour, x, n = found(source, dull(true))
    away = (x[:, 2] - 0.05).abs() if true is two_toned else ((x[:, 2] / 0.15) - (x[:, 2] / 0.15).round()).abs() * 0.15
    inside = away > near  # from a change of colour
    assert off(colour, true(x, n))[inside.numpy()].max() < 3.0
    assert off(RED.expand(len(x), 3) / 2 + BLUE / 2, true(x, n)).min() > 20  # the control: their mean everywhere


def _old(source: Source, guessed: Colours) -> tuple[torch.Tensor, torch.Tensor]:
    """The rule before: the guess, plus its error in the picture continued over the surface."""
    crop, vertices, faces, normals, depth, _ = cropped(source)
    colour, weight = seen(vertices, normals, CAMERA, depth, crop.rgb, crop.alpha)
    away = ((CAMERA.position[0].float() - vertices) * normals).sum(1) < -0.3
    return (guessed(vertices, normals) + extend(faces, colour - guessed(vertices, normals), weight))[away], vertices[away]


def test_a_white_rim_does_not_reach_the_hidden_side():
    source, _ = pictured(plain(RED), rim=4.0)
    colour, x, _ = found(source, dull(plain(RED)))
    wanted = RED.expand(len(x), 3)
    assert off(colour, wanted).max() < 1.0
    assert np.median(off(_old(source, dull(plain(RED)))[0].clamp(0, 1), wanted)) > 10  # the control: it turns pink all round


def test_painted_textures_have_it_too_and_the_same_bytes_twice():
    source, clean = pictured(plain(RED), rim=3.0)
    crop = image.crop(source.rgb, source.alpha, 512)
    side = crop.box[2] / 512
    K = CAMERA.K.clone()
    K[:, :2, 2] -= torch.tensor(crop.box[:2], dtype=torch.float64)
    K[:, :2] /= side
    camera = Camera(CAMERA.c2w, K, CAMERA.size)  # sees the crop, as a recipe's camera does
    one, two = (paint(source, dull(plain(RED)), clean, camera, 128) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(vars(one).values(), vars(two).values(), strict=True))
    hidden = one.texture[one.confidence == 0]
    distance = off(hidden, RED.expand(len(hidden), 3))
    assert np.quantile(distance, 0.9) < 3.0 and len(hidden) > 1000


def test_thin_parts_teach_by_their_middle_and_wide_ones_inside_their_border():
    alpha = np.zeros((64, 64))
    alpha[4:40, 4:40] = 1
    alpha[40:62, 20:25] = 1  # a leg, five pixels wide
    good = sure(alpha)
    assert good[10:34, 10:34].all() and not good[4:8].any() and not good[4:40, 4:8].any()
    assert good[50:58, 22].all() and not good[46:60, 20].any() and not good[46:60, 24].any()
    assert not (good & (alpha < 1)).any()


def test_colours_without_any_teacher_are_the_guess():
    none = torch.zeros(0, 3)
    x = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(looked_up(x, x, x, Taught(none, none, none, none), 1.0), x)
    ones = torch.ones(512, 512, 3)
    known = taught(CAMERA, ones[..., 0], ones, ones, ones[..., 0], dull(plain(RED)))
    assert MOST / 2 < len(known.points) <= MOST


# ---- Lab and the measure ----


def test_lab_of_known_colours_and_back():
    """White, grey and sRGB's primaries: Lindbloom's values for D65."""
    rgb = np.array([[1.0, 1, 1], [0.5, 0.5, 0.5], [1, 0, 0], [0, 0, 1], [0, 0, 0]])
    wanted = [[100, 0, 0], [53.39, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86], [0, 0, 0]]
    np.testing.assert_allclose(image.lab(rgb), wanted, atol=0.05)  # four digits of the matrix
    some = np.random.default_rng(0).random((100, 3))
    np.testing.assert_allclose(image.from_lab(image.lab(some)), some, atol=1e-9)
    assert chroma_distance(rgb[2], rgb[3]) == pytest.approx(math.hypot(80.09 - 79.19, 67.20 + 107.86), abs=0.1)
    assert chroma_distance(rgb[0], rgb[1]) == pytest.approx(0, abs=1e-9)  # brightness does not count


def box_shot() -> tuple[Drawable, Shot]:
    d = bare(*(np.asarray(x) for x in (trimesh.creation.box((1, 0.8, 0.6)).vertices, trimesh.creation.box((1, 0.8, 0.6)).faces)))
    return d, shoot(d, np.random.default_rng(3))


def test_half_of_a_box_is_hidden_and_equal_colours_are_at_no_distance():
    d, shot = box_shot()
    truth = solid(d.vertices, d.faces)
    hidden = hidden_from(shot, d, truth)
    eye = shot.camera.position[0].numpy() - truth.points
    facing = (truth.normals * eye).sum(1) / np.linalg.norm(eye, axis=1)
    assert (hidden == (facing < 0))[np.abs(facing) > 0.1].mean() > 0.99  # a box hides what faces away, but for its edges
    wanted = colours(d, truth)
    np.testing.assert_allclose(wanted, 0.5, atol=1e-6)
    same = hidden_colour(truth, wanted, truth, wanted, hidden, 1.0, np.zeros(3))
    assert same == pytest.approx(0, abs=1e-9)
    assert math.isnan(hidden_colour(truth, wanted, truth, wanted, hidden & False, 1.0, np.zeros(3)))


def test_a_model_of_the_pictures_mean_colour_is_as_far_as_one_colour_is():
    """The ratio is 1 whatever the truth's colours; and a shift between the two is undone by the alignment."""
    d, shot = box_shot()
    truth = solid(d.vertices, d.faces)
    hidden = hidden_from(shot, d, truth)
    wanted = np.random.default_rng(0).random((len(truth.points), 3))
    flat = one_colour(shot)
    uv = torch.zeros(len(d.vertices), 2)
    mesh = Mesh(
        torch.from_numpy(d.vertices) + 0.2, torch.from_numpy(d.faces).long(), uv=uv, texture=torch.from_numpy(flat).float().expand(4, 4, 3)
    )
    mine = solid(mesh.vertices.numpy(), d.faces)
    own = colours(mesh, mine)
    measured = hidden_colour(mine, own, truth, wanted, hidden, 1.0, np.full(3, -0.2))
    assert measured == pytest.approx(float(chroma_distance(flat, wanted[hidden]).mean()), rel=1e-5)  # a float32 texture


def test_base_colours_are_those_of_the_light():
    d, _ = box_shot()
    truth = solid(d.vertices, d.faces)
    dark = colours(d, truth, level=0.5)  # linear
    expected = 1.055 * (((0.5 + 0.055) / 1.055) ** 2.4 * 0.5) ** (1 / 2.4) - 0.055
    np.testing.assert_allclose(dark, expected, atol=1e-6)
