# SPDX-License-Identifier: Apache-2.0
"""Which object sample i of a training run shows: furniture and procedural objects mixed, a function of i alone.

Procedural objects come from a window of seeds that moves on, so they have no end, and each is prepared once for some two dozen
pictures. Held-out families and all but the training side of packed objects never appear.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from bozzetto.data.objects import Object, Packed
from bozzetto_objects import FAMILIES, HELD_OUT_FAMILIES, make

WINDOW = 1500  # procedural objects in play at a time
REUSE = 24  # pictures of each, on average, before the window has moved past it

T = TypeVar("T")


class Stream(Generic[T]):
    """`stream.draw(i, rng)`: the prepared object of sample i.

    procedural  share of procedural objects
    prepare     what is made of an object once, and kept while it is in play
    """

    def __init__(self, objects: Path, procedural: float, prepare: Callable[[Object], T]) -> None:
        self.packed, self.procedural, self.prepare = Packed(objects), procedural, prepare
        self.indices = self.packed.indices("train")
        weights = self.packed.weights(self.indices)
        self.cumulative = np.cumsum(weights / weights.sum())
        self.families = [f for f in FAMILIES if f not in HELD_OUT_FAMILIES]
        self.kept: OrderedDict[Any, T] = OrderedDict()

    def draw(self, i: int, rng: np.random.Generator) -> T:
        """Draws from rng which object it is."""
        if rng.random() < self.procedural:
            window = i // int(WINDOW * REUSE / self.procedural)
            k = int(rng.integers(WINDOW))
            key: tuple[str, int] | int = (self.families[k % len(self.families)], 1000 + window * WINDOW + k)
        else:
            key = self.indices[int(np.searchsorted(self.cumulative, rng.random()))]
        if key not in self.kept:
            self.kept[key] = self.prepare(self.packed[key] if isinstance(key, int) else make(*key))
            if len(self.kept) > 2 * WINDOW:
                self.kept.popitem(last=False)
        self.kept.move_to_end(key)
        return self.kept[key]
