# SPDX-License-Identifier: Apache-2.0
"""True pairs of edits: an object rendered as it is and as an instruction would have it, by one camera in one light.

InstructPix2Pix (arXiv:2211.09800) has no such pairs: its are drawn by a model (`training.drawn_pairs`). These measure what either
has learnt, and train where asked to. A chunk's file says its source, and no file holds both kinds.

`python -m bozzetto.training.pairs --objects FOLDER --out FOLDER` renders them; chunks that are there are kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bozzetto.data.captions import colours_of
from bozzetto.data.instructions import Kind, Triple, triple
from bozzetto.data.objects import Object, Packed
from bozzetto.data.renders import Drawable, render
from bozzetto.data.repaint import MATERIALS, made_of, named, painted, with_ball, without
from bozzetto.files import replacing
from bozzetto.training import album
from bozzetto.training.album import SIZE, Posed, frame_cameras, pose

KINDS: tuple[Kind, ...] = ("recolour", "recolour", "material", "material", "part")  # type: ignore[assignment]  # of one object
CHUNK = 64  # objects


@dataclass(frozen=True)
class Settings:
    """`python -m bozzetto.training.pairs --objects FOLDER --out FOLDER`"""

    objects: Path
    """packed objects, as `bozzetto data` writes them"""
    out: Path
    """the folder of pairs; chunks that are there are kept"""
    count: int = 1920
    """objects, five pairs each"""
    validation: bool = False
    """the objects that nobody trains on instead, each once, as they are"""
    seed: int = 0


@dataclass(frozen=True)
class Pairs:
    """Pairs in memory.

    before, after  (N, S, S, 3) uint8, over white
    mask           (N, S, S) uint8, where the edit may change the picture: the object before or after
    said           N triples
    source         N names of the objects, or what they were drawn from
    made           "rendered" or "drawn"
    """

    before: Tensor
    after: Tensor
    mask: Tensor
    said: list[Triple]
    source: list[str]
    made: Literal["rendered", "drawn"]

    @classmethod
    def of(cls, folder: Path) -> Pairs:
        """All chunks of a folder; raises ValueError where they are not of one kind, FileNotFoundError where there are none."""
        from safetensors import safe_open

        parts: dict[str, list[Tensor]] = {name: [] for name in ("before", "after", "mask")}
        rows: list[dict[str, Any]] = []
        kinds: set[str] = set()
        for path in sorted(folder.glob("pairs_*.safetensors")):
            with safe_open(path, "pt") as file:
                for name, held in parts.items():
                    held.append(file.get_tensor(name))
                rows += json.loads(file.metadata()["about"])
                kinds.add(file.metadata()["made"])
        if not rows:
            raise FileNotFoundError(f"{folder}: no pairs_*.safetensors; write them with bozzetto.training.pairs")
        if len(kinds) > 1:
            raise ValueError(f"{folder}: holds rendered and drawn pairs; keep each in a folder of its own")
        said = [Triple(**{k: v for k, v in row.items() if k != "source"}) for row in rows]
        made: Any = kinds.pop()
        before, after, mask = (torch.cat(part) for part in parts.values())
        return cls(before, after, mask, said, [row["source"] for row in rows], made)

    def save(self, path: Path) -> None:
        """One chunk's file."""
        from safetensors.torch import save_file

        about = json.dumps([asdict(t) | {"source": s} for t, s in zip(self.said, self.source, strict=True)])
        tensors = {"before": self.before, "after": self.after, "mask": self.mask}
        with replacing(path) as part:
            save_file({k: v.contiguous() for k, v in tensors.items()}, part, metadata={"about": about, "made": self.made})


def pairs_of(obj: Object, rng: np.random.Generator, *, augment: bool = True) -> Iterator[tuple[Tensor, Tensor, Triple]]:
    """Pictures (SIZE, SIZE, 4) premultiplied before and after, and what was said: one pair for each of KINDS."""
    still = pose(obj, rng, augment=augment)
    for view, kind in enumerate(KINDS):
        if str(kind) == "part":
            yield _ball(obj, rng, augment=augment)
            continue
        before = _seen(still, still.shape, still.lights, view)
        said = triple(kind, still.noun, colours_of(before[..., :3].numpy(), before[..., 3].numpy()), rng)
        if kind == "recolour":
            made, lights = painted(still.shape, named(said.asked)), still.lights
        else:
            made, lights = made_of(still.shape, still.lights, MATERIALS[said.asked])
        yield before, _seen(still, made, lights, view), said


def _ball(obj: Object, rng: np.random.Generator, *, augment: bool) -> tuple[Tensor, Tensor, Triple]:
    """A ball put on top, or taken away; framed so that both fit."""
    whole, count = with_ball(obj, float(rng.uniform(0.1, 0.17)), np.zeros(3))
    still = pose(whole, rng, augment=augment)
    less = without(still.shape, count)
    plain = _seen(still, less, still.lights, 0)
    kind: Kind = "part added" if rng.random() < 0.5 else "part removed"
    said = triple(kind, still.noun, colours_of(plain[..., :3].numpy(), plain[..., 3].numpy()), rng)
    colours = still.shape.colours.copy()
    colours[-1] = named(said.asked)
    topped = _seen(still, replace(still.shape, colours=colours), still.lights, 0)
    return (plain, topped, said) if kind == "part added" else (topped, plain, said)


def _seen(still: Posed, shape: Drawable, lights: np.ndarray, view: int) -> Tensor:
    """(SIZE, SIZE, 4) premultiplied."""
    camera = frame_cameras(still.azimuth[view : view + 1], still.elevation[view : view + 1], still.p, still.width, SIZE)
    views = render(shape, camera, lights)
    return torch.cat([views.rgb, views.alpha], -1)[0]


def together(made: list[tuple[Tensor, Tensor, Triple]], source: list[str]) -> Pairs:
    """Rendered pairs, over white."""

    def stacked(which: int) -> tuple[Tensor, Tensor]:
        x = torch.stack([torch.as_tensor(m[which]) for m in made])
        return ((x[..., :3] + 1 - x[..., 3:]).clamp(0, 1) * 255).round().to(torch.uint8), x[..., 3]

    (before, a), (after, b) = stacked(0), stacked(1)
    return Pairs(before, after, (torch.maximum(a, b) * 255).round().to(torch.uint8), [m[2] for m in made], source, "rendered")


def main(settings: Settings) -> None:
    """Render the chunks that are missing."""
    packed = Packed(settings.objects)
    settings.out.mkdir(parents=True, exist_ok=True)
    held = album.unseen(packed) if settings.validation else []
    chosen = album.Settings(settings.objects, settings.out, seed=settings.seed + 1)  # other objects, colours and poses than the album's
    count = len(held) if held else settings.count
    for c in range(math.ceil(count / CHUNK)):
        path = settings.out / f"pairs_{c:04d}.safetensors"
        if path.exists():
            continue
        made: list[tuple[Tensor, Tensor, Triple]] = []
        source: list[str] = []
        for k in range(c * CHUNK, min((c + 1) * CHUNK, count)):
            obj, rng = (held[k], np.random.default_rng([63, k])) if held else album.chosen(chosen, packed, k)
            some = list(pairs_of(obj, rng, augment=not held))
            made, source = made + some, source + [obj.source] * len(some)
        together(made, source).save(path)
        print(f"{path.name}: {len(made)} pairs", flush=True)


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings))
