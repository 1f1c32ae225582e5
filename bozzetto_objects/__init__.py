# SPDX-License-Identifier: Apache-2.0
"""Objects made by rule: families of furniture, vessels, vehicles, creatures, plants and things, endlessly varied.

`make("teapot", 7)` is the same object on every machine. This file is the door: `make`, `FAMILIES`, `HELD_OUT_FAMILIES`.
Of Bozzetto nothing is needed but what an `Object` is and the compiler of kernels. A family is a function from a generator to a
`Sketch`; to add one, write it in the file of its theme and name it here.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

from bozzetto.data.objects import Object
from bozzetto_objects.aircraft import helicopter, plane, rocket
from bozzetto_objects.animals import quadruped
from bozzetto_objects.boats import boat
from bozzetto_objects.bugs import bug
from bozzetto_objects.buildings import house, tower
from bozzetto_objects.cars import car
from bozzetto_objects.chairs import chair, stool
from bozzetto_objects.characters import monster, robot, snowman
from bozzetto_objects.clothes import hat, shoe
from bozzetto_objects.creatures import bird, fish
from bozzetto_objects.cycles import bicycle
from bozzetto_objects.figures import figure, teddy
from bozzetto_objects.furniture import armchair, bed, sofa, table
from bozzetto_objects.harvest import fruit, mushroom, vegetable
from bozzetto_objects.household import cabinet, clock, dresser, lamp, shelf
from bozzetto_objects.keepsakes import balloon, blocks, gift, lantern, umbrella
from bozzetto_objects.kitchen import basket, jug, pan
from bozzetto_objects.letters import letter
from bozzetto_objects.music import drum, guitar
from bozzetto_objects.nature import cactus, flower, plant, tree
from bozzetto_objects.sketch import Sketch
from bozzetto_objects.snacks import snack
from bozzetto_objects.tools import tool
from bozzetto_objects.treats import cake, ice_cream
from bozzetto_objects.vehicles import bus, train, truck
from bozzetto_objects.vessels import bottle, bowl, mug, teapot, vase

# fmt: off
FAMILIES: dict[str, Callable[[np.random.Generator], Sketch]] = {
    f.__name__: f
    for f in (
        chair, stool, sofa, armchair, table, bed, shelf, cabinet, dresser, lamp, clock,
        mug, teapot, bottle, vase, bowl, jug, pan, basket,
        fruit, vegetable, mushroom, tree, plant, cactus, flower,
        car, truck, bus, train, boat, plane, helicopter, rocket, bicycle,
        quadruped, bird, fish, bug, teddy, figure, robot, snowman, monster,
        cake, ice_cream, snack, house, tower,
        hat, shoe, tool, guitar, drum, letter, gift, lantern, balloon, umbrella, blocks,
    )
}
# fmt: on
HELD_OUT_FAMILIES = ("mug", "boat", "quadruped", "stool")  # never trained on; their kin (teapot, car, bird, chair) are


def make(family: str, seed: int) -> Object:
    """The object of a family that belongs to a seed.

    raises  ValueError for a family that does not exist, or a negative seed
    """
    if family not in FAMILIES:
        raise ValueError(f"make: no family {family!r}; there are {', '.join(sorted(FAMILIES))}")
    if seed < 0:
        raise ValueError(f"make: expected a seed of 0 or more, got {seed}")
    rng = np.random.default_rng([zlib.crc32(family.encode()), seed])
    return FAMILIES[family](rng).finish(f"procedural/{family}/{seed}")
