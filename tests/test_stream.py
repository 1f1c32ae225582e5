# SPDX-License-Identifier: Apache-2.0
"""Sample i is a function of i, and nothing held out is ever drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bozzetto.data.objects import pack
from bozzetto.training.stream import Stream
from bozzetto_objects import FAMILIES, HELD_OUT_FAMILIES, make

FAMILIES_SEEN = [f for f in FAMILIES if f not in HELD_OUT_FAMILIES]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Three objects on the training side, one on each other, named by their sides."""
    folder = tmp_path_factory.mktemp("packed")
    sides = ["train", "train", "validation", "train", "heldout"]
    objects = [replace(make(FAMILIES_SEEN[k], k), name=side, source=f"{side}/{k}") for k, side in enumerate(sides)]
    pack(objects, folder, side=lambda o: o.name)
    return folder


def drawn(packed, count, procedural=0.5):
    stream = Stream(packed, procedural, lambda o: o.source)
    return [stream.draw(i, np.random.default_rng([0, i])) for i in range(count)]


def test_only_the_training_side_and_families_that_are_not_held_out(packed):
    sources = drawn(packed, 200)
    packed_ones = {s for s in sources if s.split("/")[0] in ("train", "validation", "heldout")}
    assert packed_ones == {"train/0", "train/1", "train/3"}
    families = {s.split("/")[1] for s in sources if s not in packed_ones}
    assert families and not families & set(HELD_OUT_FAMILIES)
    share = sum(s not in packed_ones for s in sources) / 200
    assert abs(share - 0.5) < 5 * (0.25 / 200) ** 0.5


def test_a_sample_is_a_function_of_its_index(packed):
    whole, stream = drawn(packed, 40), Stream(packed, 0.5, lambda o: o.source)
    for i in (37, 3, 12, 39):  # in any order, by another worker
        assert stream.draw(i, np.random.default_rng([0, i])) == whole[i]


def test_procedural_objects_come_from_a_window_that_moves_on(packed):
    def seeds(first):
        stream = Stream(packed, 1.0, lambda o: int(o.source.rsplit("/", 1)[1]))
        return [stream.draw(i, np.random.default_rng([0, i])) for i in range(first, first + 20)]

    early, late = seeds(0), seeds(10_000_000)
    assert max(early) < min(late) and min(early) >= 1000  # validation's seeds are below
