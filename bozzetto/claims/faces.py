# SPDX-License-Identifier: Apache-2.0
"""Two-faced shapes: what a prior of single views does to an object with one face, and what one of several views together does.

DreamFusion (arXiv:2209.14988) and MVDream (arXiv:2308.16512) name the cause: a text-to-image model finds each view likely by
itself, and photographs show the front. All variants distil the same head (`claims.head`), from the same starts.
"""

from __future__ import annotations

from functools import lru_cache

from bozzetto.claims.claim import Beats, Claim, Scores
from bozzetto.claims.head import Around, all_round, apart, coloured, faces_of, from_the_front, head, off, ring, together
from bozzetto.priors.exact import Exact
from bozzetto.shapes.tets import Tets

STEPS = 200


@lru_cache(maxsize=8)
def shapes(seed: int, steps: int = STEPS) -> dict[str, Tets]:
    """The head as each way colours it."""
    bank, even, photographs = [head()], ring(all_round(24)), ring(from_the_front(24, 25.0))
    ways: dict[str, tuple[Exact, Around]] = {
        "together": (Exact(bank, even, knows_cameras=False, together=4), together()),
        "by itself, photographs of the front": (Exact(bank, photographs, knows_cameras=False), apart(4)),
        "by itself, from all round": (Exact(bank, even, knows_cameras=False), apart(4)),
        "by itself, camera known": (Exact(bank, even), apart(4)),
        "together, all of the front": (Exact(bank, photographs, knows_cameras=False, together=4), together()),
    }
    return {name: coloured([(prior, 1.0, around)], seed, steps) for name, (prior, around) in ways.items()}


def distance(seed: int) -> Scores:
    """How far each is from the head, which may look in any direction."""
    return {name: off(shape, is_turned=True) for name, shape in shapes(seed).items()}


def faces(seed: int) -> Scores:
    """How many faces there are too many or too few, by the red round the equator."""
    return {name: abs(faces_of(shape) - 1) for name, shape in shapes(seed).items()}


CLAIMS = (
    Claim(
        "two-faces",
        method="SDS",
        source="arXiv:2209.14988, Sec. 5; arXiv:2308.16512, Sec. 1",
        says="A prior that finds each view likely by itself gives an object several faces; one of several views together gives it one.",
        metric="faces too many or too few",
        better="lower",
        run=faces,
        must=(Beats("together", "by itself, photographs of the front"), Beats("together", "by itself, from all round")),
        control=Beats("together", "together, all of the front"),
        seconds=75,
        remark="Told where the camera is, a prior of single views makes one face, too (`by itself, camera known`): what Zero-1-to-3 knows. "
        "The control draws its views together, but from photographs of the front alone.",
    ),
    Claim(
        "two-faces-distance",
        method="SDS",
        source="arXiv:2308.16512, Sec. 1",
        says="And its colours are nearer to the object's from all sides.",
        metric="rms difference of colours, of the best turn",
        better="lower",
        run=distance,
        must=(Beats("together", "by itself, photographs of the front"), Beats("together", "by itself, from all round")),
        control=Beats("together", "together, all of the front"),
        seconds=1,
    ),
)
