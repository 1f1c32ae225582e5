# SPDX-License-Identifier: Apache-2.0
"""Objects made by rule: families of furniture, vessels, vehicles, creatures, plants and things, endlessly varied.

`make("teapot", 7)` is the same object on every machine. A family is a function from a generator to a `Sketch`; to add
one, write it in the file of its theme and name it here.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

from bozzetto.data.objects import Object
from bozzetto.data.procedural import buildings, craft, creatures, figures, furniture, household, keepsakes, nature, things, treats, vehicles, vessels
from bozzetto.data.procedural.sketch import Sketch

FAMILIES: dict[str, Callable[[np.random.Generator], Sketch]] = {
    f.__name__: f
    for f in (
        furniture.chair, furniture.stool, furniture.sofa, furniture.armchair, furniture.table, furniture.bed,
        household.shelf, household.cabinet, household.dresser, household.lamp, household.clock,
        vessels.mug, vessels.teapot, vessels.bottle, vessels.vase, vessels.bowl, vessels.jug, vessels.pan, vessels.basket,
        nature.fruit, nature.vegetable, nature.mushroom, nature.tree, nature.plant, nature.cactus, nature.flower,
        vehicles.car, vehicles.truck, vehicles.bus, vehicles.train,
        craft.boat, craft.plane, craft.helicopter, craft.rocket, craft.bicycle,
        creatures.quadruped, creatures.bird, creatures.fish, creatures.bug,
        figures.teddy, figures.figure, figures.robot, figures.snowman, figures.monster,
        treats.cake, treats.ice_cream, treats.snack,
        buildings.house, buildings.tower,
        things.hat, things.shoe, things.tool, things.guitar, things.drum,
        keepsakes.letter, keepsakes.gift, keepsakes.lantern, keepsakes.balloon, keepsakes.umbrella, keepsakes.blocks,
    )
}
HELD_OUT_FAMILIES = ("mug", "boat", "quadruped", "stool")  # never trained on; their kin (teapot, car, bird, chair) are


def make(family: str, seed: int) -> Object:
    """The object of a family that belongs to a seed.

    raises  ValueError for a family that does not exist
    """
    if family not in FAMILIES:
        raise ValueError(f"make: no family {family!r}; there are {', '.join(sorted(FAMILIES))}")
    rng = np.random.default_rng([zlib.crc32(family.encode()), seed])
    return FAMILIES[family](rng).finish(f"procedural/{family}/{seed}")
