# SPDX-License-Identifier: Apache-2.0
"""The loop on a shape of one number, whose course is known in closed form."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bozzetto.fit.loop import Loss, optimise, own
from bozzetto.fit.run import Run
from bozzetto.shapes.colours import ColourGrid

ROOT = Path(__file__).parent.parent


class Number(nn.Module):
    """x, moved by plain gradient descent."""

    def __init__(self, x=2.0, rate=0.1):
        super().__init__()
        self.x, self.rate = nn.Parameter(torch.tensor(x)), rate
        self.begun = []

    def begin(self, step):
        self.begun.append(step.number)
        self.zero_grad()

    def move(self, step):
        with torch.no_grad():
            self.x -= self.rate * self.x.grad

    def losses(self, step):
        return {"size": self.x.square() / 2, "other": self.x * 100}

    def state(self):
        return {"x": self.x.detach().clone()}

    def restore(self, state):
        self.x.data.copy_(state["x"])


class Follower:
    """A term that learns: a running mean of what it saw, that pulls."""

    def __init__(self):
        self.mean = torch.zeros(())

    def __call__(self, shape, step):
        noise = torch.randn((), generator=step.generator)
        return {"follow": Loss(0.5, (shape.x - self.mean - noise).square())}

    def update(self, shape, step):
        self.mean = 0.9 * self.mean + 0.1 * shape.x.detach()

    def state(self):
        return {"mean": self.mean}

    def restore(self, state):
        self.mean = state["mean"]


def test_it_is_gradient_descent_on_the_weighted_sum():
    """x' = x - rate (3 x + 2 (x - 1)): towards .4, by a half each step."""
    shape = Number()
    pull = lambda s, step: {"pull": Loss(1.0, (s.x - 1).square())}  # noqa: E731
    said = optimise(shape, [own({"size": 3.0}), pull], Run(None, {}), "move", steps=7)
    assert float(shape.x) == pytest.approx(0.4 + 1.6 * 0.5**7, abs=1e-6)
    before = 0.4 + 1.6 * 0.5**6
    assert said == pytest.approx({"size": before**2 / 2, "pull": (before - 1) ** 2}, abs=1e-6)  # unweighted, of the last step
    assert shape.begun == list(range(7))


def test_killed_at_any_step_and_resumed_it_ends_in_the_same_bytes(tmp_path):
    whole, follower = Number(), Follower()
    optimise(whole, [follower], Run(None, {}), "move", steps=20, seed=5, every=4)
    for at in (1, 4, 7, 19):

        class Killed(Exception):
            pass

        def kill(stage, share, at=at):
            if round(share * 20) == at:
                raise Killed

        folder = tmp_path / str(at)
        run = Run(folder, {}, progress=kill)
        with pytest.raises(Killed), run.interruptible():
            optimise(Number(), [Follower()], run, "move", steps=20, seed=5, every=4)
        again, other = Number(), Follower()
        run = Run(folder, {}, resume=True)
        with run.interruptible():
            optimise(again, [other], run, "move", steps=20, seed=5, every=4)
        assert torch.equal(again.x, whole.x) and torch.equal(other.mean, follower.mean)
        assert again.begun[0] == (at - 1) // 4 * 4  # from the last checkpoint, not from the beginning


def test_ctrl_c_keeps_the_very_step(tmp_path):
    run = Run(tmp_path, {})

    def stop(stage, share):
        run.interrupted = share >= 0.35

    run.progress = stop
    optimise(Number(), [own({"size": 1.0})], run, "move", steps=20)
    assert int(run.restore("move")["step"]) == 7


def test_what_runs_away_says_where():
    bad = lambda s, step: {"bad": Loss(1.0, s.x * (math.inf if step.number == 3 else 1.0))}  # noqa: E731
    with pytest.raises(FloatingPointError, match="stage move, step 3"):
        optimise(Number(), [bad], Run(None, {}), "move", steps=5)


def test_two_losses_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two of them name a loss size"):
        optimise(Number(), [own({"size": 1.0}), own({"size": 2.0})], Run(None, {}), "move", steps=1)


def test_a_seed_decides_what_is_random():
    def end(seed):
        shape = Number()
        optimise(shape, [Follower()], Run(None, {}), "move", steps=5, seed=seed)
        return float(shape.x)

    assert end(1) == end(1) != end(2)


def test_a_grey_grid_is_the_grid_of_grey():
    low, high = torch.full((3,), -0.5), torch.full((3,), 0.25)
    made, of = ColourGrid.grey(-0.5, 0.25, 4), ColourGrid.of(lambda x, n: torch.full_like(x, 0.5), low, high, 4)
    assert all(torch.equal(x, y) for x, y in zip(made.state_dict().values(), of.state_dict().values(), strict=True))


def test_the_readmes_distillation_runs_and_moves_shape_and_colours():
    """Two of its steps."""
    code = next(block for block in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S) if "optimise(" in block)
    assert "steps=100)" in code
    names: dict[str, Any] = {}
    exec(compile(code.replace("steps=100)", "steps=2)"), "README.md", "exec"), names)
    moved = names["shape"]
    assert float((moved.dmtet.sdf - moved.home).abs().max()) > 0
    assert float((moved.colours.logits != 0).float().mean()) > 0.01 and bool(torch.isfinite(moved.colours.logits).all())
