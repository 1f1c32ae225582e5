# SPDX-License-Identifier: Apache-2.0
"""The two-face score on balls that are painted by rule, and a lift's table."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from bozzetto.evaluate.shots import novel_cameras
from bozzetto.evaluate.two_faced import likeness, rate, two_faced
from bozzetto.render.mesh import render_surface
from bozzetto.shapes.dmtet import DMTet

SKIN = torch.tensor([0.75, 0.75, 0.7])


def face(u, toward):
    """Colours (N, 3) of unit vectors u: a face towards azimuth `toward` with one green cheek, so that it is not its own mirror image."""
    c, s = math.cos(toward), math.sin(toward)
    x, y, z = u[:, 0] * c + u[:, 1] * s, -u[:, 0] * s + u[:, 1] * c, u[:, 2]
    rgb = SKIN.repeat(len(u), 1)
    on = (x > 0) & (y.square() + z.square() < 0.3)
    rgb[on] = torch.tensor([0.9, 0.2, 0.15])
    rgb[on & (y > 0.1)] = torch.tensor([0.1, 0.5, 0.25])
    rgb[on & (z > 0.25)] = torch.tensor([0.05, 0.05, 0.1])
    return rgb


def seen(colour, azimuth=0.3):
    """From the front and from behind, (2, 64, 64, 4)."""
    with torch.no_grad():
        vertices, faces = DMTet.from_sphere(0.4, 28, -0.5, 0.5).surface()
    cameras = novel_cameras([azimuth, azimuth + math.pi], 0.0, 64)
    views = render_surface(vertices, faces, F.normalize(vertices, dim=1), cameras, lambda x, n: colour(F.normalize(x, dim=1)))
    return torch.cat([views.rgb, views.alpha], -1)


def one(u):
    return face(u, 0.3)


def two(u):
    return torch.where((u[:, :1] * math.cos(0.3) + u[:, 1:2] * math.sin(0.3)) > 0, one(u), face(u, 0.3 + math.pi))


def through(u):
    """The front's colours seen through the ball: behind stands its mirror image."""
    c, s = math.cos(0.3), math.sin(0.3)
    ahead = u[:, 0] * c + u[:, 1] * s
    back = torch.stack([u[:, 0] - 2 * ahead * c, u[:, 1] - 2 * ahead * s, u[:, 2]], 1)
    return torch.where(ahead[:, None] > 0, one(u), one(back))


def plain(u):
    return torch.where((u[:, :1] * math.cos(0.3) + u[:, 1:2] * math.sin(0.3)) > -0.02, one(u), SKIN.expand(len(u), 3))


def test_a_copy_of_the_front_scores_1_and_a_plain_back_0():
    truth = seen(one)
    assert two_faced(seen(two), truth) == pytest.approx(1, abs=0.01)  # a pixel at the rim of the face may fall either way
    assert two_faced(seen(plain), truth) == two_faced(truth, truth) == 0
    assert likeness(truth[0], truth[1]) == 0  # one colour behind


def test_a_mirrored_front_is_no_copy():
    truth, mirrored = seen(one), seen(through)
    found = likeness(mirrored[0], mirrored[1])
    flipped = likeness(mirrored[0], mirrored[1].flip(1))
    assert flipped > 0.99 and found < 0.75
    assert two_faced(mirrored, truth) == pytest.approx(found)  # the cheeks have changed places; the rest of the face is there
    assert two_faced(mirrored[[0, 1]].clone().index_copy(0, torch.tensor([1]), mirrored[1:].flip(2)), truth) > 0.99


def test_the_score_is_what_is_left_of_the_truths_own_likeness():
    """Pictures a and t a + sqrt(1 - t^2) b with a, b uncorrelated have r = t, whatever their brightness and contrast."""
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 32 * 32, 3, generator=g, dtype=torch.float64)
    a, b = (x - x.mean(0) for x in (a, b))
    b = b - a * (a * b).sum() / a.square().sum()
    a, b = (x / x.std() for x in (a, b))

    def pair(t, gain=0.1):
        back = (t * a + math.sqrt(1 - t * t) * b) * gain + 0.4
        both = torch.stack([0.1 * a + 0.5, back]).view(2, 32, 32, 3)
        return torch.cat([both, torch.ones(2, 32, 32, 1)], -1)

    assert likeness(*pair(0.3)) == pytest.approx(0.3, abs=2e-3)
    for own, r in ((0.0, 0.6), (0.3, 0.65), (0.5, 0.2), (-0.4, 0.3)):
        assert two_faced(pair(r, 0.07), pair(own)) == pytest.approx(max((r - own) / (1 - own), 0), abs=5e-3)
    assert math.isnan(two_faced(pair(0.9), pair(0.85)))  # a truth that is alike from both sides
    flat = pair(0.0)
    flat[0, ..., :3] = 0.5
    assert math.isnan(two_faced(pair(1.0), flat))  # and one whose front is plain
    assert two_faced(torch.zeros(2, 32, 32, 4), pair(0.0)) == 0  # a failed lift


def test_the_rate_counts_scores_above_one_half_of_those_that_are_there():
    assert rate(torch.tensor([0.9, 0.5, 0.0, math.nan, 0.6])) == 0.5
    assert math.isnan(rate(torch.tensor([math.nan])))
