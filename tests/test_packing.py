# SPDX-License-Identifier: Apache-2.0
"""Dataclasses of tensors on disk and back."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from bozzetto.fit.packing import pack, unpack
from bozzetto.fit.run import Run


@dataclass(frozen=True)
class Part:
    x: Tensor
    count: int
    share: float


@dataclass(frozen=True)
class Whole:
    part: Part
    faces: Tensor
    losses: dict[str, float] = field(default_factory=dict)
    state: dict[str, Tensor] = field(default_factory=dict)
    maybe: Tensor | None = None


def whole(**kw):
    part = Part(torch.randn(3, 2, generator=torch.Generator().manual_seed(0)), 7, 0.1 + 0.2)
    return Whole(part, torch.arange(6).view(2, 3), {"a.b": 1 / 3, "c": 2.0}, {"deep.name": torch.ones(2)}, **kw)


def same(a, b):
    assert torch.equal(a.part.x, b.part.x) and (a.part.count, a.part.share) == (b.part.count, b.part.share)
    assert torch.equal(a.faces, b.faces) and a.faces.dtype == b.faces.dtype and a.losses == b.losses
    assert a.state.keys() == b.state.keys() and all(torch.equal(a.state[k], b.state[k]) for k in a.state)
    assert (a.maybe is None) == (b.maybe is None) and (a.maybe is None or torch.equal(a.maybe, b.maybe))


@pytest.mark.parametrize("maybe", [None, torch.tensor(2.0)])
def test_names_are_dotted_and_nothing_is_lost(maybe):
    value = whole(maybe=maybe)
    names = {"part.x", "part.count", "part.share", "faces", "losses.a.b", "losses.c", "state.deep.name"}
    assert pack(value).keys() == names | ({"maybe"} if maybe is not None else set())
    same(unpack(Whole, pack(value)), value)


def test_a_stage_gives_the_same_made_or_read(tmp_path):
    made = Run(tmp_path, {}).stage("s", whole, Whole)
    again = Run(tmp_path, {}, resume=True)

    def never():
        raise AssertionError("made again")

    same(again.stage("s", never, Whole), made)
    assert isinstance(made.part.count, int) and isinstance(made.part.share, float)


def test_what_no_file_can_hold_is_refused():
    @dataclass
    class Odd:
        name: str

    with pytest.raises(TypeError, match=r"Odd\.name"):
        pack(Odd("x"))
