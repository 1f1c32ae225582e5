# SPDX-License-Identifier: Apache-2.0
"""Hybrid guidance: a prior of views, in the right place and blurred, with a text prior, sharp and placeless.

Magic123 (arXiv:2306.17843) and DreamCraft3D (arXiv:2310.16818) add the two. The prior of views stands for Zero-1-to-3:
it knows the camera, and its pictures are blurred by two pixels of 32. The text prior knows photographs of the front, and no camera.
The head is that of `claims.head`.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from bozzetto.camera import Camera
from bozzetto.claims.claim import Beats, Claim, Scores
from bozzetto.claims.head import all_round, apart, coloured, from_the_front, head, off, ring, sharpness
from bozzetto.priors.exact import Exact, Flaws
from bozzetto.priors.prior import Condition
from bozzetto.shapes.tets import Tets

STEPS = 150
SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)
"""weight of the prior of views; the text's is the rest"""


class Mirrored(Exact):
    """Asked at azimuth a it answers for -a: a sign that ports of Zero-1-to-3 have wrong."""

    def condition(self, reference: object = None, cameras: Camera | None = None, text: str | None = None, hint: object = None) -> Condition:
        if cameras is not None:
            at = cameras.position
            cameras = ring(torch.atan2(-at[:, 1], at[:, 0]))
        return super().condition(reference, cameras, text)


@lru_cache(maxsize=8)
def shapes(seed: int, steps: int = STEPS) -> dict[str, Tets]:
    """The head under each share, and under equal shares with the azimuth's sign flipped."""
    bank, flaws = [head()], Flaws(blur=2.0)
    even = ring(all_round(1))
    views, wrong = Exact(bank, even, flaws=flaws), Mirrored(bank, even, flaws=flaws)
    text = Exact(bank, ring(from_the_front(48, 25.0)), knows_cameras=False)
    ways = {_name(share): [(views, share, apart(2)), (text, 1 - share, apart(2))] for share in SHARES}
    ways["half and half, azimuth's sign flipped"] = [(wrong, 0.5, apart(2)), (text, 0.5, apart(2))]
    return {name: coloured(pulls, seed, steps) for name, pulls in ways.items()}


def distance(seed: int) -> Scores:
    """How far each is from the head, over all sides."""
    return {name: off(shape) for name, shape in shapes(seed).items()}


def detail(seed: int) -> Scores:
    """How sharp each is."""
    return {name: sharpness(shape) for name, shape in shapes(seed).items()}


def _name(share: float) -> str:
    return {1.0: "views alone", 0.5: "half and half", 0.0: "text alone"}.get(share, f"{share:.0%} views")


CLAIMS = (
    Claim(
        "hybrid-detail",
        method="Magic123, DreamCraft3D",
        source="arXiv:2306.17843, Sec. 3.3; arXiv:2310.16818, Sec. 4.1",
        says="Adding a 2D prior to a 3D one that is blurred adds detail.",
        metric="squared differences of neighbouring pixels, as a share of the object's",
        better="higher",
        run=detail,
        must=(Beats("half and half", "views alone"), Beats("text alone", "half and half")),
        control=Beats("half and half", "half and half, azimuth's sign flipped"),
        seconds=75,
        remark="Detail alone does not say that it is in the right place: see the next.",
    ),
    Claim(
        "hybrid-place",
        method="Magic123, DreamCraft3D",
        source="arXiv:2306.17843, Fig. 3",
        says="The 3D prior keeps things in their place: between the two there is a best mix.",
        metric="rms difference of colours over all sides",
        better="lower",
        run=distance,
        must=(Beats("75% views", "text alone"), Beats("75% views", "views alone")),
        control=Beats("half and half", "half and half, azimuth's sign flipped"),
        seconds=1,
    ),
)
