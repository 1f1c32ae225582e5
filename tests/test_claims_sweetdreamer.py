# SPDX-License-Identifier: Apache-2.0
"""What SweetDreamer's claims are measured by: bumps of a head, and how much two solids share."""

from __future__ import annotations

import pytest

from bozzetto.claims import sweetdreamer as world
from bozzetto.shapes.tets import Course, Tets


def still(dmtet):
    return Tets(dmtet, Course(0.1))


def test_a_head_has_two_bumps_and_a_ball_has_none():
    assert world.bumps(still(world.head_of(world.balls, 32))) == 2
    assert world.bumps(still(world.head_of(lambda p: p.norm(dim=1) - world.RADIUS, 20))) == 0


def test_two_solids_share_what_lies_in_both():
    def block(thick):
        return world.plate_of(lambda p: (p.abs() - p.new_tensor([thick, 0.3, 0.3])).amax(1), 12)

    assert world.iou(still(block(0.06)), block(0.06), is_upright=False) == pytest.approx(1)
    # a lattice of .02 rounds edges, and pixels of a hundredth round outlines alike
    assert world.iou(still(block(0.03)), block(0.06), is_upright=False) == pytest.approx(0.5, abs=0.02)
    assert world.iou(still(block(0.03)), block(0.06), is_upright=True) == pytest.approx(0.5, abs=0.06)


def test_a_plate_is_cut_from_its_block():
    block, plate = still(world.plate_of(lambda p: world.plate(p, is_block=True), 8)), world.plate_of(world.plate, 16)
    assert 0.55 < world.iou(block, plate, is_upright=False) < 0.7  # by hand: .0363 of .0596, had the lattice no cells
