# SPDX-License-Identifier: Apache-2.0
"""What measures the experiments on exact priors, where the answer is known; and the experiments themselves, shortened."""

from __future__ import annotations

import math

import pytest
import torch

from bozzetto.claims import faces, hybrid, variational
from bozzetto.claims import head as world
from bozzetto.shapes.colours import ColourGrid
from bozzetto.shapes.tets import Course, Tets


def painted(colour):
    box = torch.tensor([-0.5] * 3), torch.tensor([0.5] * 3)
    return Tets(world.ball(20), Course(0.1, smooth=1, still=0.0, colour_lr=0.05), ColourGrid.of(colour, *box, 96))


def turned(angle):
    c, s = math.cos(angle), math.sin(angle)
    R = torch.tensor([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
    return lambda x, n: world.colours(x @ R.T)


def two_faced(x, n):
    return torch.where(x[:, :1] > 0, world.colours(x), world.colours(x * torch.tensor([-1.0, -1.0, 1.0])))


def test_a_head_has_one_face_and_a_two_faced_one_two():
    right, wrong = painted(world.colours), painted(two_faced)
    blank = painted(lambda x, n: world.SKIN.expand(len(x), 3))
    assert [world.faces_of(shape) for shape in (right, wrong, blank)] == pytest.approx([1, 2, 0], abs=0.07)  # the grid's cells
    assert world.sharpness(right) == pytest.approx(1, abs=0.15) and world.sharpness(blank) < 0.3
    assert world.off(right) < 0.04 < 0.1 < min(world.off(wrong), world.off(blank))


def test_a_head_that_looks_elsewhere_is_the_same_head_and_its_mirror_image_is_not():
    aside = painted(turned(math.pi / 2))
    assert world.off(aside) > 0.1 and world.off(aside, is_turned=True) < 0.04
    mirrored = painted(lambda x, n: world.colours(x * torch.tensor([1.0, -1.0, 1.0])))
    assert world.off(mirrored, is_turned=True) > 0.06  # the ear is on the other side


def test_photographs_are_from_the_front_mostly():
    azimuth = torch.rad2deg(world.from_the_front(1000, 25.0))
    assert float(azimuth.std()) == pytest.approx(25, rel=0.01) and float(azimuth.mean().abs()) < 1e-9
    assert float((azimuth.abs() < 25).double().mean()) == pytest.approx(0.6827, abs=2e-3)


def test_transport_counts_what_is_missing():
    y = torch.arange(4.0)[:, None] * torch.ones(4, 3)
    assert variational.transported(y.repeat(2, 1)[torch.randperm(8, generator=torch.Generator().manual_seed(0))], y) == 0
    # three of the first and one of the second for one of each: moved by 0, 1, 2 and 2
    assert variational.transported(y[[0, 0, 0, 1]], y) == pytest.approx(((0 + 1 + 4 + 4) / 4) ** 0.5)


def test_points_of_sds_collapse_those_of_vsd_are_spread_as_the_prior_and_a_phi_that_never_learns_is_worst():
    ends = variational.clouds(0, steps=300, count=64)
    variance = {name: float(x.var(0).sum()) for name, x in ends.items()}
    truth = variance["the prior's own draws"]
    assert variance["SDS"] < 0.3 * truth
    assert 0.6 * truth < variance["VSD, the points' score known"] < 1.4 * truth


@pytest.mark.slow
def test_pictures_under_vsd_are_nearer_the_banks_law_and_a_stale_phi_runs_away():
    off = {name: variational.transported(x.flatten(1), variational.bank().condition()["windows"][0].flatten(1))
           for name, x in variational.sheets(0, steps=150).items()}  # fmt: skip
    assert off["VSD, levels falling"] < min(off["SDS"], off["SDS, levels falling"])
    assert off["VSD, levels falling, phi stale"] > 3 * off["SDS"]


@pytest.mark.slow
def test_one_view_at_a_time_makes_faces_or_none_and_views_together_make_one():
    made = {name: world.faces_of(shape) for name, shape in faces.shapes(0, steps=120).items()}
    assert made["together"] == pytest.approx(1, abs=0.3) and made["by itself, camera known"] == pytest.approx(1, abs=0.3)
    assert made["by itself, photographs of the front"] > 1.7 and made["by itself, from all round"] < 0.3


@pytest.mark.slow
def test_hybrid_guidance_trades_place_for_detail():
    made = hybrid.shapes(0, steps=100)
    detail = [world.sharpness(made[name]) for name in ("views alone", "half and half", "text alone")]
    assert detail == sorted(detail)
    place = [world.off(made[name]) for name in ("75% views", "text alone")]
    assert place[0] < place[1]
    assert world.off(made["half and half"]) < world.off(made["half and half, azimuth's sign flipped"])
