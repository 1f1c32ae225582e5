# SPDX-License-Identifier: Apache-2.0
"""What a triplane transformer is trained on: pictures as TripoSR sees them, and points with what is there, in the field's frame.

Objects, cameras, colours, carved truth and held-out objects are the first guess's (`training.first_guess`); the truth is looked up in its
frustum grid. What differs is the frame. A field's is the picture's own, as LRM's (Hong et al. 2023, arXiv:2311.04400): +x to the
camera, +y to the picture's right, +z up in the picture. An object that is seen from above lies tilted in it, and nothing is said of
elevation, distance or focal length. The scale is that of the released preview (camera at 1.9, 40 degrees): the object fills its
picture as it fills the network's, so that its longer side has 1.18 units of the box's 1.74.

Letters: N points, D depths, h w rows and columns of the frustum grid; (u, v, t), S and p as in `bozzetto.frustum`.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from bozzetto.data.carved import CarvedFiles
from bozzetto.data.objects import Object, Packed
from bozzetto.data.renders import MARGIN, Carved, Drawable, Sample, draw_sample, drawable
from bozzetto.frustum import DEPTH_RANGE
from bozzetto.priors.triposr import GREY, RATIO, TripoSRConfig
from bozzetto.training.first_guess import carved_files, validation_samples
from bozzetto.training.stream import Stream

SIDE = 64  # pixels that the network sees
WIDE = 68  # pixels rendered, of which it sees the middle: there the object fills RATIO, as `prepare` has it
RADIUS = TripoSRConfig().radius
SCALE = 2 * 1.9 * math.tan(math.radians(20)) * RATIO / (1 - 2 * MARGIN)  # field units in S
DEPTHS = 64
BOX, BEHIND, NEAR, COLOURED = 160, 352, 256, 256  # points a sample: in the box, behind the silhouette, near and on the surface
SPREAD = 0.03  # of the points near the surface, in S


def to_field(points: Tensor, p: Tensor) -> Tensor:
    """Frustum coordinates (..., 3) at perspective p (...,) to the field's frame: towards the camera, right, up."""
    u, v, t = points.unbind(-1)
    wide = 1 + p * t
    return SCALE * torch.stack([-t, (u - 0.5) * wide, (0.5 - v) * wide], -1)


def to_frustum(points: Tensor, p: Tensor) -> Tensor:
    """The inverse of `to_field`."""
    x, y, z = (points / SCALE).unbind(-1)
    wide = 1 - p * x
    return torch.stack([0.5 + y / wide, 0.5 - z / wide, -x], -1)


class Pictures(Dataset[dict[str, Tensor]]):
    """Sample i of the training stream: picture (SIDE, SIDE, 3) on grey, points (N, 3) in the field's frame, target (N - COLOURED,) how
    solid it is there in [0, 1], colour (COLOURED, 3) of the last points, which are on the surface."""

    def __init__(self, objects: Path, *, seed: int, procedural: float) -> None:
        self.carved = carved_files(objects)
        self.objects = Stream(objects, procedural, self._prepared)
        self.seed = seed

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, i])
        d, carved = self.objects.draw(i, rng)
        return as_row(draw_sample(d, carved, rng, size=WIDE, depths=DEPTHS), rng)

    def _prepared(self, obj: Object) -> tuple[Drawable, Carved]:
        d = drawable(obj)
        return d, self.carved(d)

    def __len__(self) -> int:
        return 1 << 40


def on_grey(picture: np.ndarray) -> Tensor:
    """What the network sees, (SIDE, SIDE, 3), of a rendered picture (4, WIDE, WIDE), premultiplied."""
    cut = (WIDE - SIDE) // 2
    inner = picture[:, cut : WIDE - cut, cut : WIDE - cut]
    return torch.from_numpy(np.ascontiguousarray((inner[:3] + GREY * (1 - inner[3:])).transpose(1, 2, 0)))


def as_row(sample: Sample, rng: np.random.Generator) -> dict[str, Tensor]:
    """A `Sample` of WIDE pixels as `Pictures` has it."""
    p = torch.tensor(sample.view[1])
    box = to_frustum(torch.from_numpy(rng.uniform(-RADIUS, RADIUS, (BOX, 3)).astype(np.float32)), p)
    seen = np.argwhere(sample.occupancy.any(2))
    n = len(sample.occupancy)
    behind = np.empty((BEHIND, 3), np.float32)
    rows, columns = seen[rng.integers(0, len(seen), BEHIND)].T if len(seen) else rng.integers(0, n, (2, BEHIND))
    behind[:, 0], behind[:, 1] = (columns + rng.random(BEHIND)) / n, (rows + rng.random(BEHIND)) / n
    behind[:, 2] = rng.uniform(-RADIUS / SCALE, RADIUS / SCALE, BEHIND)
    pick = rng.integers(0, len(sample.points), NEAR + COLOURED)
    near, on = np.split(sample.points[pick], [NEAR])
    near = near + rng.normal(0, SPREAD, (NEAR, 3)).astype(np.float32)
    solid = torch.cat([box, torch.from_numpy(np.concatenate([behind, near]))])
    return {
        "picture": on_grey(sample.picture),
        "points": to_field(torch.cat([solid, torch.from_numpy(on)]), p),
        "target": looked_up(torch.from_numpy(sample.occupancy), solid),
        "colour": torch.from_numpy(sample.colour[pick[NEAR:]]),
    }


def looked_up(occupancy: Tensor, points: Tensor) -> Tensor:
    """(N,) in [0, 1]: of the cell (h, w, D) that each frustum coordinate (N, 3) is in; 0 outside of the grid."""
    h, w, depths = occupancy.shape
    u, v, t = points.unbind(-1)
    place = torch.stack([v * h, u * w, (t / DEPTH_RANGE + 1) / 2 * depths], -1).floor().long()
    inside = ((place >= 0) & (place < torch.tensor([h, w, depths]))).all(-1)
    row, column, depth = torch.where(inside[:, None], place, 0).unbind(-1)
    return occupancy[row, column, depth].float() / 255 * inside


def held_out(packed: Packed, carved: CarvedFiles) -> dict[str, list[dict[str, Tensor]]]:
    """The first guess's validation samples of SIDE pixels, each with what the network sees of the same scene as `seen`."""
    groups = validation_samples(packed, carved, SIDE, DEPTHS)
    wide = validation_samples(packed, carved, WIDE, DEPTHS)
    return {k: [s | {"seen": on_grey(w["picture"].numpy())} for s, w in zip(groups[k], wide[k], strict=True)] for k in groups}
