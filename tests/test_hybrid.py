# SPDX-License-Identifier: Apache-2.0
"""Several pulls in one run: what each is told, how much it weighs in which view and step, and when."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
import trimesh

from bozzetto.camera import orbit
from bozzetto.denoiser import Adapted
from bozzetto.distill.sds import Levels, Ramp
from bozzetto.fit.framed import Framed
from bozzetto.fit.loop import Loss, When, optimise
from bozzetto.fit.prompts import SIDES, Prompts, decay
from bozzetto.fit.run import Run
from bozzetto.fit.terms import Pull
from bozzetto.shapes.colours import ColourGrid
from bozzetto.shapes.painted import Painted
from bozzetto.shapes.shape import Step
from tests.twins.block import CENTRE, FRUSTUM, Oracle, picture


def box():
    """Vertices in [-1, 1]^3 and faces."""
    made = trimesh.creation.box([2.0, 2.0, 2.0]).subdivide().subdivide()
    return torch.tensor(made.vertices).float(), torch.tensor(made.faces).long()


class Words:
    """A text prior whose condition is one number a side."""

    def condition(self, reference=None, cameras=None, text=None, hint=None):
        return {"token": torch.tensor([[float(next(i for i, side in enumerate(SIDES) if f"{side} view" in text))]])}


def told(*degrees, up=0.0, perp_neg=True):
    prompts = Prompts(Words(), "a red chair", perp_neg)
    azimuth = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return prompts(azimuth, torch.full_like(azimuth, math.radians(up)))


def test_each_side_is_told_by_its_name():
    cond = told(0, 44, 46, 90, 134, 136, 180, 270, -44, 350, perp_neg=False).cond["token"][:, 0]
    assert cond.tolist() == [0, 0, 1, 1, 1, 2, 2, 1, 0, 0]
    assert told(0, 180, up=61, perp_neg=False).cond["token"][:, 0].tolist() == [3, 3]
    assert not told(0, perp_neg=False).negatives


def test_between_two_sides_their_conditions_are_mixed_and_the_same_left_and_right():
    at = torch.tensor([0, 45, 89.999, 90.001, 135, 180.0])
    cond = told(*at.tolist()).cond["token"][:, 0]
    torch.testing.assert_close(cond, torch.tensor([0, 0.5, 1, 1, 1.5, 2]), atol=1e-4, rtol=0)
    torch.testing.assert_close(told(*(-at).tolist()).cond["token"][:, 0], cond)
    above = told(20, up=70)
    assert above.cond["token"].tolist() == [[3.0]] and all(float(w) == 0 for _, w in above.negatives)


def test_perp_neg_keeps_the_front_out_of_every_view_but_the_front():
    """f_fs(1) = 0: the front view is not kept from being one; the back is, most of all."""
    (first, w1), (second, w2) = told(0, 60, 120, 180).negatives
    assert first["token"][:, 0].tolist() == [0, 0, 1, 1] and second["token"][:, 0].tolist() == [1, 1, 0, 0]
    r = torch.tensor([1, 1 / 3, 2 / 3, 0], dtype=torch.float64)
    torch.testing.assert_close(w1, torch.cat([decay("fs", r[:2]), decay("sb", r[2:])]))
    torch.testing.assert_close(w2, torch.cat([decay("sf", 1 - r[:2]), decay("fsb", r[2:])]))
    assert abs(float(w1[0])) < 1e-3 and abs(float(decay("sb", torch.tensor(1.0)))) < 1e-3
    assert float(w2[3]) > float(w2[2]) > 1


class Still:
    """A shape whose pictures are the block's, with a gradient."""

    def __init__(self):
        self.grey = torch.tensor(0.5, requires_grad=True)
        self.asked = []

    def render(self, cameras, only=None):
        from tests.twins.block import truth

        self.asked.append(only)
        views = truth(cameras, CENTRE)
        return type(views)(views.alpha * self.grey, views.alpha, views.depth, views.normal, cameras)

    def losses(self, step):
        return {}

    def begin(self, step):
        self.grey.grad = None

    def move(self, step):
        pass

    def state(self):
        return {}

    def restore(self, state):
        pass


def framed():
    vertices, faces = box()
    return Framed.of(picture(), FRUSTUM.camera, vertices * 0.35 + CENTRE, faces, 64)


def pull(**kw):
    f = framed()
    how = dict(levels=Levels(Ramp(0.5, 0.5), Ramp(0.5, 0.5)), weight=1.0, guidance=1.0, size=32)
    return f, Pull(Oracle(), f, **{**how, **kw})


def steps(n=1, of=1):
    return Step(n - 1, of, torch.Generator().manual_seed(0))


def test_mg_4_a_view_weighs_by_its_angle_to_the_picture():
    turns = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64) * math.pi
    f, term = pull(by_angle=True, around=lambda step: (turns, torch.zeros(4, dtype=torch.float64)))
    asked = term.ask(Still(), steps())
    expected = torch.acos(torch.cos(turns - f.azimuth) * math.cos(f.elevation)) / math.pi
    torch.testing.assert_close(asked.share, expected, atol=1e-6, rtol=0)
    weight = asked.weight(asked.sigma)
    torch.testing.assert_close(weight / weight[-1], expected.to(weight) / expected[-1].to(weight))
    _, here = pull(by_angle=True, around=lambda step: (torch.tensor([f.azimuth]), torch.tensor([f.elevation])))
    assert float(here.ask(Still(), steps()).share) == pytest.approx(0, abs=1e-3)


def test_a_prior_may_be_shown_normals_and_a_weight_may_move():
    shape = Still()
    _, term = pull(
        around=lambda step: (torch.zeros(1), torch.zeros(1)),
        shows=lambda step: "normal" if step.number % 4 else "colour",
        weight=Ramp(1.0, 3.0, 0, 8),
    )
    assert [term(shape, steps(n, 9))["distill"].weight for n in (1, 5, 9)] == [1.0, 2.0, 3.0]
    shape.asked.clear()
    x0 = {n: term.ask(shape, steps(n, 9)).x0 for n in (1, 2)}
    assert shape.asked == ["colour", None]
    seen = term.prior.decode(x0[2].detach())[0]
    front = seen[seen.shape[0] // 2, seen.shape[1] // 2]  # the block's front face looks along +x
    torch.testing.assert_close(front, torch.tensor([1.0, 0.5, 0.5]), atol=0.02, rtol=0)


def test_dc_6_alternating_and_accumulated_steps_by_stage():
    """NeRF, NeuS and texture take reference and guidance in turn; the geometry stage both, and the picture's colours each fourth step."""
    seen: Counter[str] = Counter()

    def term(name):
        def call(shape, step):
            seen[name] += 1
            return {name: Loss(1.0, shape.grey**2)}

        return call

    turns = [When(term("reference"), lambda s: s.number % 2 == 0), When(term("guidance"), lambda s: s.number % 2 == 1)]
    optimise(Still(), turns, Run(None, {}), "nerf", steps=100)
    assert seen == {"reference": 50, "guidance": 50}
    seen.clear()
    both = [term("mask"), term("guidance"), When(term("rgb"), lambda s: s.number % 4 == 0)]
    optimise(Still(), both, Run(None, {}), "geometry", steps=100)
    assert seen == {"mask": 100, "guidance": 100, "rgb": 25}
    with pytest.raises(ValueError, match="none has a loss in step 1"):
        optimise(Still(), turns[:1], Run(None, {}), "x", steps=4)


def test_dc_9_geometry_is_bit_identical_through_painting():
    vertices, faces = box()
    vertices = vertices * torch.tensor([0.2, 0.35, 0.25]) + CENTRE
    before = vertices.clone()
    grid = ColourGrid.of(lambda x, n: torch.full((len(x), 3), 0.3), vertices.amin(0) - 0.1, vertices.amax(0) + 0.1, 12)
    shape = Painted(vertices, faces, grid, 0.5)
    goal = torch.tensor([0.8, 0.2, 0.1])

    def red(shape, step):
        views = shape.render(orbit([0.3 * step.number], [0.3], 2.5, size=48, fov=0.6), "colour")
        return {"red": Loss(1.0, ((views.rgb - views.alpha * goal).square()).mean())}

    first = optimise(shape, [red], Run(None, {}), "paint", steps=1)
    last = optimise(shape, [red], Run(None, {}), "paint more", steps=40)
    assert last["red"] < 0.05 * first["red"]
    assert torch.equal(shape.surface()[0], before) and torch.equal(shape.vertices, before)
    even = shape.losses(steps())["even"]
    flat = F.mse_loss(shape.colours.logits[:, 1:], shape.colours.logits[:, :-1])
    assert float(even.detach()) > 0 and float(flat.detach()) >= 0


def test_mg_5_two_pulls_draw_noises_of_their_own():
    """Independent noises, as the formula has it: the variance of a sum of two is the sum of theirs, not more."""
    _, one = pull(around=lambda step: (torch.zeros(1), torch.zeros(1)), name="a")
    _, two = pull(around=lambda step: (torch.zeros(1), torch.zeros(1)), name="b")
    noises = []

    def noted(x, sigma, cond):
        noises.append(x.clone())
        return torch.zeros_like(x)

    for term in (one, two):
        term._base = Adapted(noted, Oracle().denoiser.sigmas)
    step = steps()
    for term in (one, two):
        term(Still(), step)
    x0 = one.ask(Still(), steps()).x0.detach()
    a, b = (x - x0 for x in noises)
    assert abs(float((a * b).sum() / (a.norm() * b.norm()))) < 0.1
