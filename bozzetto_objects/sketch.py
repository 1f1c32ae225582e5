# SPDX-License-Identifier: Apache-2.0
"""`Sketch`: parts and what they are made of, collected piece by piece and finished as an `Object`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from bozzetto.data.objects import Object
from bozzetto.kernels.pool import njit
from bozzetto_objects.materials import Material
from bozzetto_objects.solids import Array, Part

Rng = np.random.Generator
Paint = tuple[Callable[[Part], Array], Material]


class Sketch:
    """An object in the making, in any unit and place; front +x, z up.

    noun  what it is, in one or two words
    """

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self.parts: list[Part] = []
        self.which: list[Array] = []
        self.materials: list[Material] = []

    def add(self, part: Part | Iterable[Part], material: Material, *paint: Paint) -> None:
        """Put in one part or several; each `paint` gives the faces that pass its test, (F,) truths, another material."""
        for p in (part,) if isinstance(part, Part) else part:
            which = np.full(len(p.faces), self._index(material), np.int16)
            for test, other in paint:
                which[test(p)] = self._index(other)
            self.parts.append(p)
            self.which.append(which)

    def merge(self, other: Sketch, change: Callable[..., Part]) -> None:
        """Put in all of another sketch, each part changed first: a wheel on a car."""
        table = np.array([self._index(m) for m in other.materials], np.int16)
        self.parts += [change(p) for p in other.parts]
        self.which += [table[w] for w in other.which]

    def _index(self, material: Material) -> int:
        for i, m in enumerate(self.materials):
            if m is material:
                return i
        self.materials.append(material)
        return len(self.materials) - 1

    def bounds(self) -> Array:
        """(2, 3): the lowest and highest corner so far."""
        v = np.concatenate([p.vertices for p in self.parts])
        return np.stack([v.min(0), v.max(0)])

    def finish(self, source: str) -> Object:
        """The `Object`: centred, scaled, with normals, and with each pattern at its own size on each part."""
        low, high = self.bounds()
        size = float((high - low).max())
        vertices, faces, crease, uvs = [], [], [], []
        offset = 0
        for part, which in zip(self.parts, self.which, strict=True):
            v = (part.vertices - (low + high) / 2) / size
            vertices.append(v)
            faces.append(part.faces + offset)
            crease.append(np.full(len(part.faces), part.crease))
            uvs.append(self._lay(part, which, size))
            offset += len(v)
        used = [bool((np.concatenate(self.which) == i).any()) for i in range(len(self.materials))]
        table = np.cumsum(used) - 1
        materials = [m for m, u in zip(self.materials, used, strict=True) if u]
        which = table[np.concatenate(self.which)].astype(np.int16)
        return Object(
            vertices=np.concatenate(vertices).astype(np.float32),
            faces=np.concatenate(faces).astype(np.int32),
            normals=corner_normals(np.concatenate(vertices), np.concatenate(faces), np.concatenate(crease)).astype(np.float32),
            material=which,
            colours=np.stack([m.colour for m in materials]).astype(np.float32),
            uv=np.concatenate(uvs).astype(np.float32),
            textures=tuple(m.texture for m in materials),
            name=f"{self._adjective()} {self.noun}".strip(),
            source=source,
        )

    def _adjective(self) -> str:
        """What the material with the largest area looks like."""
        area = np.zeros(len(self.materials))
        for part, which in zip(self.parts, self.which, strict=True):
            a, b, c = (part.vertices[part.faces[:, k]] for k in range(3))
            np.add.at(area, which, np.linalg.norm(np.cross(b - a, c - a), axis=1))
        return self.materials[int(area.argmax())].word

    def _lay(self, part: Part, which: Array, size: float) -> Array:
        """Texture coordinates of one part: whole tiles round it, so that a pattern meets itself."""
        uv = np.zeros_like(part.uv)
        for i in np.unique(which):
            m = self.materials[i]
            if m.texture is None:
                continue
            mine = which == i
            if m.tiles is None:
                uv[mine] = part.uv[mine] * np.array([1, -0.99]) + np.array([0, 0.995])  # v grows downwards, and stays inside
                continue
            u, v = _unit_lengths(part) * m.tiles / (size if m.is_relative else 1.0)
            uv[mine] = part.uv[mine] * np.array([max(round(u), 1) if u > 0.5 else u, -v])
        return uv


def _unit_lengths(part: Part) -> Array:
    """How long one unit of u and of v is on the part, on average over its area."""
    p, q = part.vertices[part.faces], part.uv
    e1, e2 = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]
    a, b = q[:, 1] - q[:, 0], q[:, 2] - q[:, 0]
    det = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    area = np.linalg.norm(np.cross(e1, e2), axis=1) * (np.abs(det) > 1e-9)
    inverse = 1 / np.where(np.abs(det) > 1e-9, det, 1.0)[:, None]
    du = np.linalg.norm((e1 * b[:, 1:] - e2 * a[:, 1:]) * inverse, axis=1)
    dv = np.linalg.norm((e2 * a[:, :1] - e1 * b[:, :1]) * inverse, axis=1)
    return np.array([(du * area).sum(), (dv * area).sum()]) / max(area.sum(), 1e-12)


def corner_normals(vertices: Array, faces: Array, crease: Array) -> Array:
    """(F, 3, 3) unit normals: at each corner the mean, by area, of the faces there that turn from its own by less than crease (F,)."""
    at = faces.ravel()
    order = np.argsort(at, kind="stable")
    count = np.bincount(at, minlength=len(vertices))
    out = np.empty((len(faces), 3, 3))
    _gather(vertices, faces, np.cos(crease), order, np.concatenate([[0], np.cumsum(count)]), out)
    return out


@njit
def _gather(vertices, faces, cosine, order, first, out):
    """`order[first[v]:first[v + 1]]` are the corners at vertex v."""
    n = len(faces)
    cross, unit = np.empty((n, 3)), np.zeros((n, 3))
    for f in range(n):
        a, b, c = vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]]
        e, g = b - a, c - a
        x, y, z = e[1] * g[2] - e[2] * g[1], e[2] * g[0] - e[0] * g[2], e[0] * g[1] - e[1] * g[0]
        size = np.sqrt(x * x + y * y + z * z)
        cross[f, 0], cross[f, 1], cross[f, 2] = x, y, z
        if size > 1e-14:
            unit[f, 0], unit[f, 1], unit[f, 2] = x / size, y / size, z / size
    for v in range(len(first) - 1):
        for i in range(first[v], first[v + 1]):
            f, x, y, z = order[i] // 3, 0.0, 0.0, 0.0
            ux, uy, uz = unit[f, 0], unit[f, 1], unit[f, 2]
            is_flat = ux == 0 and uy == 0 and uz == 0  # a face without area takes what its neighbours have
            for j in range(first[v], first[v + 1]):
                g = order[j] // 3
                if is_flat or ux * unit[g, 0] + uy * unit[g, 1] + uz * unit[g, 2] > cosine[f]:
                    x, y, z = x + cross[g, 0], y + cross[g, 1], z + cross[g, 2]
            size = np.sqrt(x * x + y * y + z * z)
            if size < 1e-14:
                x, y, z, size = ux, uy, uz if not is_flat else 1.0, 1.0
            k = order[i] % 3
            out[f, k, 0], out[f, k, 1], out[f, k, 2] = x / size, y / size, z / size


# ---- drawing lots ----


def pick(rng: Rng, options: Sequence, weights: Sequence[float] | None = None):
    """One of the options, whatever they are."""
    p = None if weights is None else np.asarray(weights, float) / np.sum(weights)
    return options[int(rng.choice(len(options), p=p))]


def chance(rng: Rng, p: float) -> bool:
    """True so often."""
    return bool(rng.random() < p)


def sectors(count: int) -> Callable[[Part], Array]:
    """A test for `paint`: every other sector about z, of so many."""
    return lambda part: np.floor((np.arctan2(part.centres[:, 1], part.centres[:, 0]) + np.pi + 1e-3) / (2 * np.pi) * count) % 2 == 0
