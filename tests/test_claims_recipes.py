# SPDX-License-Identifier: Apache-2.0
"""What the claims of whole recipes are made of: a similarity in CLIP's place, the wrong order, and a boost whose models are exact."""

from __future__ import annotations

import pytest
import torch

from bozzetto.claims import boundary, dreamcraft
from bozzetto.claims import head as world
from bozzetto.priors.exact import Exact
from bozzetto.shapes.shape import Step


@pytest.fixture(scope="module")
def text():
    return Exact([world.head()], world.ring(world.all_round(4)), knows_cameras=False)


class Coloured:
    """A shape with the head's own colours."""

    def render(self, cameras, only=None):
        return world.head()(cameras)


def test_a_head_is_more_like_its_pictures_than_a_grey_one(text):
    assert boundary.similarity(text, Coloured()) > boundary.similarity(text, world.noise(0)) + 0.3


def test_c2_1_backwards_the_priors_change_places_at_the_boundary():
    right, wrong = (kind(None, None, None, reached=10) for kind in (boundary.CaseAware, boundary.Backwards))
    step = Step(60, 110, torch.Generator())
    assert right.weights(step) == wrong.weights(step)[::-1] and right.weights(step)[0] == pytest.approx(0.6065, abs=1e-3)
    wrong.reached = None
    assert wrong.weights(step) == (1.0, 0.0)


def test_bsd_2_a_boost_that_knows_the_renderings_pulls_nowhere(text):
    boost, shape = dreamcraft.Boost(text), world.noise(0)

    def pulled(number):
        shape.begin(Step(number, 40, torch.Generator()))
        loss = boost(shape, Step(number, 40, torch.Generator().manual_seed(number)))["bsd"]
        (loss.weight * loss.value).backward()
        return float(shape.colours.logits.grad.abs().max())

    assert pulled(0) == 0 and boost.kept.shape == (12, 3, 32, 32)  # a refresh teaches, and leaves the shape
    improved = pulled(1)
    boost.kept = text.encode(shape.render(world.ring(world.all_round(12)), "colour")).detach()
    assert pulled(1) < 1e-6 < 1e-3 * improved
