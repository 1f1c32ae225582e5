# SPDX-License-Identifier: Apache-2.0
"""What measures MVDream's claims: agreement of neighbouring views, on balls whose views are known; and the claims of one seed."""

from __future__ import annotations

import torch

from bozzetto.claims import mvdream
from bozzetto.claims.head import all_round, ring
from bozzetto.claims.novel_views import rendered


def test_views_of_one_ball_agree_and_those_of_two_or_in_another_order_do_not() -> None:
    cameras = ring(all_round(mvdream.V))
    one, other = (rendered(kind)(cameras).over(1.0)[None] for kind in (0, 2))
    mixed = torch.cat([one[:, :2], other[:, 2:]], 1)
    turned = one[:, [0, 3, 2, 1]]  # as if azimuth's sign were the other
    right = mvdream.disagreement(one, cameras)
    assert right < 0.08  # edges between colours, a pixel wide
    assert min(mvdream.disagreement(x, cameras) for x in (mixed, turned)) > 2 * right


def test_of_one_seed_they_hold_and_their_controls_lose() -> None:
    for claim in mvdream.CLAIMS:
        scores = [claim.run(0)]
        assert all(rule.judged(scores, claim.better).is_met for rule in (*claim.must, claim.control)), claim.name
