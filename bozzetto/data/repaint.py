# SPDX-License-Identifier: Apache-2.0
"""Objects as an instruction would have them: painted in one colour, made of another material, with a ball on top.

Rendered before and after, with one camera, they are true pairs of an edit: InstructPix2Pix's (arXiv:2211.09800) are drawn by a model,
these measure it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bozzetto.data.captions import COLOURS
from bozzetto.data.objects import Object
from bozzetto.data.renders import Drawable

GREY = np.array([0.2126, 0.7152, 0.0722])  # luminance of linear sRGB
KEPT = 0.5  # how much of the difference of light and dark parts, in the logarithm, paint leaves
LIMITS = (0.55, 1.6)  # of what remains of it
SLICES, RINGS = 14, 9  # of a ball


@dataclass(frozen=True)
class Finish:
    """What a material looks like: base colour, sRGB in [0, 1]; factors on ambient and direct light; strength and exponent of highlights."""

    rgb: tuple[float, float, float]
    diffuse: float
    highlight: float
    exponent: float


MATERIALS = {
    "gold": Finish((0.83, 0.62, 0.16), 0.75, 0.7, 18),
    "steel": Finish((0.62, 0.64, 0.67), 0.65, 0.9, 25),
    "copper": Finish((0.72, 0.40, 0.24), 0.75, 0.6, 18),
    "wood": Finish((0.62, 0.42, 0.24), 1.0, 0.05, 6),
    "clay": Finish((0.71, 0.40, 0.29), 1.0, 0.0, 1),
    "stone": Finish((0.55, 0.54, 0.51), 0.95, 0.0, 1),
    "rubber": Finish((0.13, 0.13, 0.14), 1.0, 0.12, 8),
    "marble": Finish((0.92, 0.91, 0.89), 1.0, 0.3, 50),
}
"""by the words of instructions"""


def named(colour: str) -> np.ndarray:
    """(3,) sRGB in [0, 1]: what a basic colour term asks for, the first of its samples."""
    return np.array(COLOURS[colour][0], np.float64) / 255


def painted(d: Drawable, rgb: np.ndarray) -> Drawable:
    """All materials in one colour (3,), sRGB in [0, 1]; what was lighter or darker than the rest remains so, by half."""
    target = _linear(np.asarray(rgb, np.float64))
    plain, texels = _linear(d.colours) @ GREY, _linear(d.texels) @ GREY
    light = [
        float(texels[d.offset[m] : d.offset[m] + d.shape[m].prod()].mean()) if d.offset[m] >= 0 else float(plain[m])
        for m in range(len(plain))
    ]
    corners = d.vertices[d.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    share = np.bincount(d.material, area, len(plain))
    mean = float(np.average(light, weights=share)) + 0.01  # black has contrast, too, but not without end

    def paint(y: np.ndarray) -> np.ndarray:
        return _encoded(np.clip(((y + 0.01) / mean) ** KEPT, *LIMITS)[:, None] * target)

    return replace(d, colours=paint(plain), texels=paint(texels))


def made_of(d: Drawable, lights: np.ndarray, finish: Finish) -> tuple[Drawable, np.ndarray]:
    """The object and the lights (L, 8) on it, `kernels.deferred.shade`, when it is of a material."""
    lit = lights.copy()
    lit[:, 3:5] *= finish.diffuse
    lit[:, 5], lit[:, 6] = 0.0, max(finish.exponent, 1.0)
    lit[0, 5] = finish.highlight
    return painted(d, np.array(finish.rgb)), lit


def with_ball(obj: Object, radius: float, rgb: np.ndarray) -> tuple[Object, int]:
    """The object with a ball of a colour (3,) on its highest point, centred and scaled anew; and how many faces, the last, the ball has.

    radius  in the object's units; the new material is the last one
    """
    top = obj.vertices[np.argmax(obj.vertices[:, 2])].astype(np.float64)
    u, v = np.meshgrid(np.linspace(0, 2 * np.pi, SLICES, endpoint=False), np.linspace(0, np.pi, RINGS))
    normal = np.stack([np.cos(u) * np.sin(v), np.sin(u) * np.sin(v), np.cos(v)], -1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(RINGS - 1), np.arange(SLICES), indexing="ij")
    a, b = (i * SLICES + j).ravel(), (i * SLICES + (j + 1) % SLICES).ravel()
    faces = np.concatenate([np.stack([a, a + SLICES, b + SLICES], 1), np.stack([a, b + SLICES, b], 1)])
    vertices = np.concatenate([obj.vertices, normal * radius + top + np.array([0, 0, 0.9 * radius])])
    low, high = vertices.min(0), vertices.max(0)
    vertices = (vertices - (low + high) / 2) / (high - low).max()
    count, f32 = len(faces), np.float32
    whole = replace(
        obj,
        vertices=vertices.astype(f32),
        faces=np.concatenate([obj.faces, faces + len(obj.vertices)]).astype(np.int32),
        normals=np.concatenate([obj.normals, normal[faces]]).astype(f32),
        material=np.concatenate([obj.material, np.full(count, len(obj.colours))]).astype(np.int16),
        colours=np.concatenate([obj.colours, np.asarray(rgb)[None]]).astype(f32),
        uv=np.concatenate([obj.uv, np.zeros((count, 3, 2))]).astype(f32),
        textures=(*obj.textures, None),
    )
    return whole, count


def without(d: Drawable, count: int) -> Drawable:
    """The object less its last faces."""
    return replace(d, faces=d.faces[:-count], normals=d.normals[:-count], material=d.material[:-count], uv=d.uv[:-count])


def _linear(c: np.ndarray) -> np.ndarray:
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def _encoded(c: np.ndarray) -> np.ndarray:
    c = np.clip(c, 0, 1)
    return np.ascontiguousarray(np.where(c <= 0.0031308, 12.92 * c, 1.055 * c ** (1 / 2.4) - 0.055), np.float32)
