# SPDX-License-Identifier: Apache-2.0
"""What measures the experiments on drawn sets of views, where the answer is known; and the cheap ones themselves."""

from __future__ import annotations

import math

import pytest
import torch

from bozzetto.claims import syncdreamer, wonder3d
from bozzetto.claims.head import RADIUS, all_round, ring
from bozzetto.fit.sculpt import Sculpture


def test_views_of_one_ball_leave_its_colours_and_of_two_balls_neither():
    cameras = ring(all_round(16))
    pictures = [syncdreamer.rendered(k)(cameras).over(1.0) for k in (1, 3)]
    angle = torch.linspace(0, 2 * math.pi, 60)[:-1]
    points = RADIUS * torch.stack([angle.cos(), angle.sin(), 0 * angle], 1)
    truth = [syncdreamer.coloured(k, points) for k in (1, 3)]
    off = lambda made, k: float((made - truth[k]).square().mean().sqrt())  # noqa: E731
    one = syncdreamer.painted(pictures[0], cameras, points)
    assert off(one, 0) < 0.06 < 0.2 < off(one, 1)  # borders of colours run together within a pixel
    both = torch.where((torch.arange(16) % 2 > 0).view(16, 1, 1, 1), *pictures)
    assert min(off(syncdreamer.painted(both, cameras, points), k) for k in (0, 1)) > 0.12
    front = points[points[:, 0] > 0.2 * RADIUS]
    assert torch.equal(syncdreamer.coloured(0, front), syncdreamer.coloured(4, front))  # what the picture shows of them is the same


def test_sixteen_views_together_disagree_less_than_half_as_much():
    made, left = syncdreamer.agreeing(0), syncdreamer.between(0)
    assert made[syncdreamer.TOGETHER] < 0.3 < 0.6 < made[syncdreamer.CLOCKWISE] and made[syncdreamer.ALONE] == pytest.approx(1)
    assert left[syncdreamer.TOGETHER] < 0.5 * min(left[syncdreamer.ALONE], left[syncdreamer.CLOCKWISE])


def test_a_lump_is_nowhere_off_itself_and_its_views_are_drawn_of_it():
    lump, right, wrong = wonder3d.drawn(0)
    own = Sculpture(lump.vertices, lump.faces, {}, {})
    assert lump.off(own, right.views.cameras) == 0
    moved = Sculpture(lump.vertices * torch.tensor([1.0, -1.0, 1.0]), lump.faces.flip(1), {}, {})
    assert lump.off(moved, right.views.cameras) > 30
    truth, on = lump(right.views.cameras), right.views.alpha[..., 0] > 0.99
    cosine = lambda drawn: (drawn.views.normal * truth.normal).sum(-1)  # noqa: E731
    assert float(cosine(right)[on].mean()) > 0.95  # stained, but of this lump, in the world
    assert float(cosine(wrong)[0][on[0]].mean()) > 0.95 > 0.5 > float(cosine(wrong)[3][on[3]].mean())  # the front's alone
    stained = (right.views.rgb - truth.rgb)[on].std()
    assert 0.5 * wonder3d.STAINS < float(stained) < 1.5 * wonder3d.STAINS


def test_a_spoilt_view_still_looks_at_its_camera():
    _, right, _ = wonder3d.drawn(0)
    spoilt = wonder3d.spoilt(right, [2])
    same = [k for k in range(6) if torch.equal(spoilt.views.normal[k], right.views.normal[k])]
    assert same == [0, 1, 3, 4, 5] and torch.equal(spoilt.views.alpha, right.views.alpha)
    towards = right.views.cameras.c2w[2, :, 2].float()
    torch.testing.assert_close(spoilt.views.normal[2] @ towards, right.views.normal[2] @ towards, rtol=0, atol=1e-5)
