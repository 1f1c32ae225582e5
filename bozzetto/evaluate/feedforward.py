# SPDX-License-Identifier: Apache-2.0
"""The first guess and its twin, a triplane transformer of TripoSR's layout, side by side: three tables.

    python -m bozzetto.evaluate.feedforward --objects data/objects --twin runs/triplane/model [--prior FOLDER] [--count 32]

1. Cells: the fixed validation pictures of 64 pixels that both trainings report (`training.triplane.score`), in the known frame, before
   any fitting, behind the picture's silhouette. Silhouettes inflated and extruded stand beside them (`baselines`), in front and behind in
   the picture's own colours.
2. Surfaces: pictures as `bozzetto evaluate` takes them, each network's mesh in its own frame, aligned by scale and translation, judged as
   lifts are (`metrics.geometry`). The first guess is asked at 64 pixels as the twin is, and as a lift asks it. The twin's field is also
   cut to the silhouette, as the first guess's is, under the perspective that is taken for every silhouette.
3. Time: the first table's IoU after so many CPU minutes of training, of both runs' `curve.jsonl`. The first guess's has no times: each
   of its samples, of 64 pixels up to 150,000, counts as `--ratio` of what one of the twin's took on average. Its rate was at its top all
   that time (docs/notebook.md).
"""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from bozzetto.data.objects import Packed
from bozzetto.evaluate import baselines, curve
from bozzetto.evaluate.baselines import EXTRUDE, INFLATE, INFLATE_POWER, PERSPECTIVE, Candidate
from bozzetto.evaluate.lifting import EMPTY, chosen
from bozzetto.evaluate.metrics import solid as judged
from bozzetto.evaluate.shots import shoot
from bozzetto.fit.solid import Solid
from bozzetto.fit.source import Source
from bozzetto.frustum import cell_centres
from bozzetto.mesh import Mesh
from bozzetto.priors import first_guess, triposr_files
from bozzetto.priors.first_guess import LEVEL
from bozzetto.priors.loading import MINI
from bozzetto.priors.solid import solid
from bozzetto.priors.triposr import prepare
from bozzetto.shapes.dmtet import EmptySurface
from bozzetto.training.field_points import DEPTHS, SIDE, held_out
from bozzetto.training.first_guess import carved_files
from bozzetto.training.first_guess import score as score_first_guess
from bozzetto.training.triplane import Twin, cell_scores, frustum_logits, score

AXES = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])  # of a field's picture: right is +y, up +z, back +x
STEEP = 100.0  # logits a width of the crop, of a silhouette's field, so that its edge is as sharp as a cell

Row = dict[str, float]


@dataclass(frozen=True)
class Settings:
    """Flags of the command."""

    objects: Path
    """packed objects"""
    twin: Path
    """what `python -m bozzetto.training.triplane` wrote as OUT/model"""
    prior: Path = MINI / "first_guess"
    count: int = 32
    """objects of each group in the second table; 0 leaves it out"""
    ratio: float = 0.68
    """CPU time of the first guess's training for a sample of 64 pixels, drawn and all, in that of the twin's"""


# ---- cells ----


def silhouette_cells(picture: Tensor, field: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Logits (D, h, w) of a solid made of a silhouette (4, 2 h, 2 w): field(distance to its edge, |t|) > 0, in widths of the crop."""
    inside = picture[3].numpy() > 0.5
    signed = np.where(inside, distance_transform_edt(inside) - 0.5, 0.5 - distance_transform_edt(~inside)) / len(inside)
    distance = F.avg_pool2d(torch.from_numpy(signed).float()[None], 2)
    t = cell_centres(DEPTHS, *distance.shape[1:])[..., 2].abs()
    return LEVEL + STEEP * field(distance.expand_as(t), t)


def inflated(d: Tensor, t: Tensor) -> Tensor:
    """As `baselines.inflated`."""
    return torch.where(d > 0, INFLATE * d.clamp(min=0) ** INFLATE_POWER, d) - t


def extruded(d: Tensor, t: Tensor) -> Tensor:
    """As `baselines.extruded`."""
    return torch.minimum(d, EXTRUDE - t)


def score_silhouettes(field: Callable[[Tensor, Tensor], Tensor], groups: dict[str, list[dict[str, Tensor]]]) -> Row:
    """As `training.triplane.score`; a surface point has the colour of the picture in front of it."""
    out: Row = {}
    for name, samples in groups.items():
        rows = []
        for s in samples:
            scores = cell_scores(silhouette_cells(s["picture"], field), F.avg_pool2d(s["picture"][3:], 2), s["occupancy"] > 127)
            found = F.grid_sample(s["picture"][None], 2 * s["points"][None, None, :, :2] - 1, align_corners=False, padding_mode="border")
            rgb, alpha = found[0, :3, 0].mT, found[0, 3:, 0].mT
            scores["colour"] = float((rgb / alpha.clamp(min=1e-3) - s["colour"]).abs().clamp(max=1).mean())
            rows.append(scores)
        out |= {f"{name}_{key}_64": float(np.mean([r[key] for r in rows])) for key in rows[0]}
    return out


def cells_table(network: first_guess.FirstGuess, twin: Twin, objects: Path) -> str:
    """The first table, in Markdown."""
    groups = held_out(Packed(objects), carved_files(objects))
    rows = {
        "first guess": {f"{k}_64": v for k, v in score_first_guess(network, groups).items()},
        "triplane twin": score(twin, groups),
        "silhouette inflated": score_silhouettes(inflated, groups),
        "silhouette extruded": score_silhouettes(extruded, groups),
    }
    columns = [f"{group}_{key}_64" for group in groups for key in ("iou", "chamfer", "colour")]
    return _table([c.removesuffix("_64").replace("_", " ") for c in columns], {k: [r[c] for c in columns] for k, r in rows.items()})


# ---- surfaces ----


def offers(source: Source, network: first_guess.FirstGuess, twin: Twin) -> dict[str, Callable[[], Candidate]]:
    """What makes each model of a picture."""
    return {
        "first guess, 64 pixels": lambda: _of_solid(at_64(source, network)),
        "first guess, as a lift asks it": lambda: _of_solid(Solid.guess(source, network)),
        "triplane twin": lambda: of_field(source, twin),
        "triplane twin, cut to the silhouette": lambda: _of_solid(cut(source, twin)),
        "silhouette inflated": lambda: baselines.inflated(source.rgb, source.alpha),
        "silhouette extruded": lambda: baselines.extruded(source.rgb, source.alpha),
    }


@torch.no_grad()
def at_64(source: Source, network: first_guess.FirstGuess) -> Solid:
    """The first guess's one answer at the twin's size."""
    picture = _crop(source)
    guess = network(picture[None])
    coverage = F.avg_pool2d(picture[3:], 2)
    e, p = guess.view[0].tolist()
    return Solid(solid(guess.occupancy[0].float(), coverage), guess.colour[0], coverage, 0.0, e, min(max(p, 0.05), 1.2))


def of_field(source: Source, twin: Twin) -> Candidate:
    """The field's own surface."""
    found = twin.model.solid(source).mesh(96)
    return Candidate(Mesh(found.vertices, found.faces), AXES)


@torch.no_grad()
def cut(source: Source, twin: Twin) -> Solid:
    """The field in the cells behind the picture."""
    coverage = F.avg_pool2d(_crop(source)[3:], 2)
    planes = twin.model(prepare(source.rgb, source.alpha)[None])
    logits = frustum_logits(twin, planes, torch.tensor(PERSPECTIVE), (DEPTHS, *coverage.shape[1:]))
    elevation = math.radians(baselines.ELEVATION_DEG)
    return Solid(solid(logits, coverage), torch.zeros(3, 1, 1, 1), coverage, 0.0, elevation, PERSPECTIVE)


def _crop(source: Source) -> Tensor:
    crop = source.crop(SIDE)
    return torch.cat([crop.rgb, crop.alpha[..., None]], -1).permute(2, 0, 1)


def _of_solid(made: Solid) -> Candidate:
    surface = made.surface()
    if surface is None:
        raise EmptySurface("nothing behind the picture is solid")
    return Candidate(Mesh(*surface), made.frustum.camera.c2w[0, :, :3].numpy())


def surfaces_table(network: first_guess.FirstGuess, twin: Twin, settings: Settings) -> str:
    """The second table, in Markdown: mean IoU, median and mean Chamfer, mean F-score. What makes no surface counts as in `lifting`."""
    found: dict[str, dict[str, list[Row]]] = {}
    for group, name, key_source, key in chosen(settings.objects, settings.count):
        d = baselines.load(settings.objects, key)
        shot = shoot(d, np.random.default_rng([0, zlib.crc32(key_source.encode())]))
        truth = judged(d.vertices, d.faces, points=4096)
        source = Source.of(Image.fromarray(shot.picture))
        for way, offer in offers(source, network, twin).items():
            try:
                scores = baselines.judge(offer(), shot.camera.c2w[0, :, :3].numpy(), truth)
            except (EmptySurface, ValueError):  # no surface
                scores = EMPTY
            found.setdefault(way, {}).setdefault(group, []).append(scores)
        print(name, file=sys.stderr, flush=True)
    rows = {way: [x for scores in groups.values() for x in _summary(scores)] for way, groups in found.items()}
    heads = [f"{group} {head}" for group in next(iter(found.values())) for head in ("IoU", "Chamfer, median", "Chamfer", "F-score")]
    return _table(heads, rows)


def _summary(scores: list[Row]) -> list[float]:
    iou, chamfer, f_score = (np.array([s[key] for s in scores]) for key in ("iou", "chamfer", "f_score"))
    return [float(iou.mean()), float(np.median(chamfer)), float(chamfer.mean()), float(f_score.mean())]


# ---- time ----

MINUTES = (5, 10, 20, 40, 80, 160)


def time_table(mine: list[Row], other: list[Row], ratio: float) -> str:
    """The third table, in Markdown: the last validation of each curve that was no later than each of MINUTES.

    mine     rows of the twin's curve, `seconds` among them; other: of the first guess's, whose samples take `ratio` of the twin's time
    """
    last = mine[-1]["seconds"]
    other = [r | {"seconds": ratio * last / mine[-1]["samples"] * r["samples"]} for r in other]
    lines = ["| CPU minutes |" + " samples | furniture IoU | families IoU |" * 2, "| ---: |" + " ---: |" * 6]
    for minutes in MINUTES:
        if minutes * 60 <= last:
            lines.append(f"| {minutes} | " + " | ".join(_at(rows, 60 * minutes) for rows in (mine, other)) + " |")
    lines.append(f"| {last / 60:.0f} | " + " | ".join(_at(rows, last) for rows in (mine, other)) + " |")
    return "\n".join(lines)


def _at(rows: list[Row], seconds: float) -> str:
    gone = [r for r in rows if r["seconds"] <= seconds]
    if not gone:
        return "– | – | –"
    r = gone[-1]
    return f"{int(r['samples']):,} | {r['furniture_iou_64']:.3f} | {r['families_iou_64']:.3f}"


def _table(columns: list[str], rows: dict[str, list[float]]) -> str:
    lines = ["| | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns)]
    return "\n".join([*lines, *(f"| {name} | " + " | ".join(f"{x:.3f}" for x in row) + " |" for name, row in rows.items())])


def main(settings: Settings) -> None:
    """Print them; the third where both curves are there."""
    network, twin = first_guess.load(settings.prior), Twin(triposr_files.load(settings.twin))
    mine, other = settings.twin.parent / "curve.jsonl", settings.prior / "curve.jsonl"
    print(cells_table(network, twin, settings.objects), flush=True)
    if settings.count > 0:
        print("\n" + surfaces_table(network, twin, settings), flush=True)
    if mine.is_file() and other.is_file():
        print("\n" + time_table(curve.read(mine), curve.read(other), settings.ratio))


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings))
