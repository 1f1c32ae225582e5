# SPDX-License-Identifier: Apache-2.0
"""How good are lifts of objects nobody trained on? `bozzetto evaluate` prints the answer beside honest baselines.

Two groups: furniture of the validation side, and procedural families held out, with seeds of their own. Each object has one picture from
a random camera (`shots.shoot`), which is lifted from its PNG by the command line's own code, the elevation estimated. Every model is
turned so that its picture's camera agrees with the true one's axes (so a wrong elevation does not tilt the shape against its picture;
it is reported apart), then aligned by scale and translation (`metrics.align`), judged on its surface and in its volume, and drawn in eight
views round the true vertical axis, 40 degrees apart, none of them the picture's. The truth's colours there are its base colours times the
mean level of the picture's light. Colours are also judged alone, where the picture does not show them (`evaluate.colours`), and the side
behind by how far it is a second front (`evaluate.two_faced`). A model that fails counts as an empty one: IoU, F-score and normals 0,
Chamfer 1, blank views, grey.

Each result is kept in `results.jsonl` under a digest of settings, weights and code, so that a run goes on where it was stopped.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import bozzetto
from bozzetto.data.objects import Packed
from bozzetto.data.renders import Drawable
from bozzetto.errors import InputError
from bozzetto.evaluate import baselines, report
from bozzetto.evaluate.baselines import Bank, Candidate, Key, code_digest
from bozzetto.evaluate.colours import chroma_distance, colours, hidden_colour, hidden_from, one_colour
from bozzetto.evaluate.metrics import Solid, geometry, psnr, sharpness, solid, ssim
from bozzetto.evaluate.shots import Model, Shot, drawn, moved, novel_cameras, shoot, triangles
from bozzetto.evaluate.two_faced import two_faced
from bozzetto.fit import guesses
from bozzetto.fit.asset import Asset
from bozzetto.fit.run import peak_gb
from bozzetto.fit.source import Source
from bozzetto.verbs.lift import lift as lift_picture
from bozzetto.verbs.lift import recipe_of
from bozzetto.workers import end_with_parent
from bozzetto_objects import FAMILIES, HELD_OUT_FAMILIES

OFFSETS = tuple(math.radians(40.0 * k) for k in range(1, 9))
SHEET = tuple(math.radians(x) for x in (0.0, 90.0, 180.0))  # front, side, behind, as the picture sees it
FRESH = 500_000  # first seed of the held-out families: training and its validation use smaller ones
DECISIVE = (
    *("recipes", "fit", "verbs", "formats", "priors", "shapes", "render", "evaluate", "data", "../bozzetto_objects"),
    *("image.py", "pixels.py", "matting", "frustum.py"),
)
"""whose code decides a result"""
EMPTY = {"chamfer": 1.0, "f_score": 0.0, "iou": 0.0, "normals": 0.0}


@dataclass(frozen=True)
class Task:
    """One object to lift and judge; travels between processes."""

    group: str
    name: str
    source: str
    key: Key
    objects: Path
    out: Path
    preset: str
    recipe: str
    prior: Path | None
    seed: int
    identity: str

    @property
    def row(self) -> Path:
        """Its row of the contact sheet."""
        return self.out / "rows" / f"{hashlib.sha256((self.source + self.identity).encode()).hexdigest()[:16]}.png"


def evaluate_lifting(
    objects: Path,
    out: Path,
    count: int,
    preset: str = "draft",
    recipe: str = "guess",
    prior: Path | None = None,
    seed: int = 0,
    workers: int = 1,
) -> str:
    """Lift and judge; a Markdown report, which is also written to `out/table.md`, beside `sheet_*.png`.

    objects   packed objects; their validation side is used, never `heldout`
    count     objects of each group, or as many as there are
    recipe    as `bozzetto.lift` has it; prior: the folder of weights that it reads, or None for the embedded ones
    workers   processes; times and memory are those of lifts side by side
    raises    InputError before the slow work, for objects, weights or a folder that cannot be used
    """
    Packed(objects)
    if recipe_of(recipe).needs == ("first_guess",):
        _, weights = guesses.load(str(prior or "mini"))
    else:
        from bozzetto.priors import loading

        loading.load(prior or "mini")
        weights = f"{guesses.load('mini')[1]} {loading.digest(prior or 'mini')}"
    if count < 1:
        raise InputError(f"--count {count}: expected at least 1")
    try:
        (out / "rows").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); choose another --out") from None
    settings = {
        "format": 2,
        "recipe": recipe,
        "preset": asdict(recipe_of(recipe).presets[preset]),
        "prior": weights,
        "seed": seed,
        "baselines": [getattr(baselines, k) for k in ("PERSPECTIVE", "INFLATE", "INFLATE_POWER", "EXTRUDE", "SEEDS_EACH", "LEVEL")],
        "code": code_digest(*DECISIVE),
    }
    identity = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    tasks = [
        Task(group, name, source, key, objects, out, preset, recipe, prior, seed, identity)
        for group, name, source, key in chosen(objects, count)
    ]
    known = {row["source"]: row for row in _kept(out / "results.jsonl") if row["identity"] == identity}
    todo = [t for t in tasks if t.source not in known or not t.row.is_file()]
    if todo:
        _bank(objects, out)  # once, before the workers
    for n, (task, row) in enumerate(_done(todo, workers)):
        _keep(out / "results.jsonl", row)
        known[task.source] = row
        print(f"{n + 1} of {len(todo)}: {report.line(row)}", file=sys.stderr, flush=True)
    rows = [known[t.source] for t in tasks]
    report.sheets(out, [(t.group, t.row) for t in tasks])
    flags = f"--objects {objects} --count {count} --preset {preset} --recipe {recipe} --seed {seed}"
    title = f"`bozzetto evaluate {flags}`, weights {settings['prior']}"
    text = report.table(rows, f"{title}, code {settings['code']}, bozzetto {bozzetto.__version__}, torch {torch.__version__}")
    (out / "table.md").write_text(text + "\n")
    return text


def chosen(objects: Path, count: int) -> list[tuple[str, str, str, Key]]:
    """(group, name, source, key) of the objects that are judged: spread over the validation side, and the held-out families in turn."""
    packed = Packed(objects)
    side = packed.indices("validation")
    if not side:
        raise InputError(f"{objects}: no object is on the validation side; pack more, or other ones")
    picked = [side[k * len(side) // count] for k in range(count)] if count < len(side) else side
    found: list[tuple[str, str, str, Key]] = [("furniture", packed.rows[i]["name"], packed.rows[i]["source"], i) for i in picked]
    families = [f for f in HELD_OUT_FAMILIES if f in FAMILIES]
    for k in range(count):
        family, number = families[k % len(families)], FRESH + k // len(families)
        found.append(("held-out families", family, f"procedural/{family}/{number}", (family, number)))
    return found


def _kept(path: Path) -> Iterator[dict[str, Any]]:
    for text in path.read_text().splitlines() if path.is_file() else []:
        try:
            yield json.loads(text)
        except ValueError:  # the line that a kill cut short
            continue


def _keep(path: Path, row: dict[str, Any]) -> None:
    with path.open("a+b") as stream:
        if stream.tell() > 0:
            stream.seek(-1, 2)
            if stream.read(1) != b"\n":
                stream.write(b"\n")
        stream.write(json.dumps(row).encode() + b"\n")


def _done(tasks: list[Task], workers: int) -> Iterator[tuple[Task, dict[str, Any]]]:
    if workers <= 1 or len(tasks) <= 1:
        yield from ((t, measure(t)) for t in tasks)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=spawn, initializer=end_with_parent) as pool:
        yield from zip(tasks, pool.map(measure, tasks), strict=True)


@lru_cache(maxsize=1)
def _bank(objects: Path, out: Path) -> Bank:
    """Kept beside the objects, for every run to find; in `out` where that folder may not be written."""
    return baselines.bank(objects, (objects if os.access(objects, os.W_OK) else out) / "bank")


# ---- one object ----


def measure(task: Task) -> dict[str, Any]:
    """Lift one object's picture and judge lift and baselines; the row that is kept. Writes the row of the contact sheet, too."""
    d = baselines.load(task.objects, task.key)
    shot = shoot(d, np.random.default_rng([task.seed, zlib.crc32(task.source.encode())]))
    truth = solid(d.vertices, d.faces)
    hidden, wanted_colours = hidden_from(shot, d, truth), colours(d, truth, shot.level)
    row: dict[str, Any] = {"identity": task.identity, "group": task.group, "name": task.name, "source": task.source, "failed": {}}
    with tempfile.TemporaryDirectory(prefix="bozzetto-evaluate-") as work:
        path = Path(work) / "picture.png"
        Image.fromarray(shot.picture).save(path)
        offers = _offers(task, path, row, shot)
        candidates: dict[str, Candidate | None] = {}
        for name, offer in offers.items():
            try:
                candidates[name] = offer()
            except Exception as error:  # whatever it was, it is counted and reported
                candidates[name], row["failed"][name] = None, f"{type(error).__name__}: {error}"
        rgb, alpha = _cut_out(path, shot)
    azimuths = [shot.azimuth + x for x in OFFSETS]
    cameras = novel_cameras(azimuths, shot.elevation)
    wanted = drawn(d, cameras, level=shot.level)
    both_sides = novel_cameras([shot.azimuth, shot.azimuth + math.pi], shot.elevation)
    sides = drawn(d, both_sides, level=shot.level)
    row["truth_sharpness"] = sharpness(wanted)
    row["hidden_points"] = int(hidden.sum())
    flat = [chroma_distance(np.asarray(c), wanted_colours[hidden]) for c in (one_colour(shot), np.full(3, 0.5))]
    row["one_colour"], grey = (float(x.mean()) if len(x) else math.nan for x in flat)
    row["methods"], placed = {}, {}
    for name, candidate in candidates.items():
        scores, views, turned = EMPTY | {"hidden_colour": grey}, torch.zeros_like(wanted), torch.zeros_like(sides)
        if candidate is not None:
            try:
                scores, placed[name] = _place(candidate, shot, truth, wanted_colours, hidden)
                views, turned = (drawn(placed[name], c, level=baselines.LEVEL) for c in (cameras, both_sides))
            except Exception as error:  # as above
                scores, row["failed"][name] = EMPTY | {"hidden_colour": grey}, f"{type(error).__name__}: {error}"
        row["methods"][name] = {**scores, **_compare(views, wanted), "two_faced": two_faced(turned, sides)}
    row["methods"]["copied"] = _compare(baselines.copied(rgb, alpha, sides[0]).expand_as(wanted), wanted)
    row["methods"]["mean picture"] = _compare(_bank(task.objects, task.out).mean(azimuths, shot.elevation), wanted)
    _draw_row(task, row, shot, d, placed)
    return row


def _offers(task: Task, path: Path, row: dict[str, Any], shot: Shot) -> dict[str, Callable[[], Candidate]]:
    """What makes each model; the lift notes its time, memory and elevation in the row."""

    def lift() -> Candidate:
        started = time.monotonic()
        _forget_peak()
        asset = lift_picture(path, path.parent / "asset", preset=task.preset, recipe=task.recipe, prior=task.prior, seed=task.seed)
        if not asset.is_complete:
            raise KeyboardInterrupt
        row["seconds"], row["peak_gb"] = round(time.monotonic() - started, 2), round(peak_gb() or math.nan, 3)
        row["elevation_error_deg"] = round(math.degrees(_elevation(asset) - shot.elevation), 2)
        return Candidate(asset.mesh, asset.camera.c2w[0, :, :3].numpy())

    return {
        "lift": lift,
        "inflated": lambda: baselines.inflated(*_cut_out(path, shot)),
        "extruded": lambda: baselines.extruded(*_cut_out(path, shot)),
        "nearest": lambda: _bank(task.objects, task.out).nearest(*_cut_out(path, shot)),
    }


def _cut_out(path: Path, shot: Shot) -> tuple[Tensor, Tensor]:
    """Colours and alpha as a lift reads them; as they were drawn where it refuses them."""
    try:
        source = Source.load(path)
    except InputError:
        return shot.floats()
    return source.rgb, source.alpha


def _elevation(asset: Asset) -> float:
    return math.asin(max(-1.0, min(1.0, float(asset.camera.c2w[0, 2, 2]))))


def _place(candidate: Candidate, shot: Shot, truth: Solid, wanted: np.ndarray, hidden: np.ndarray) -> tuple[dict[str, float], Model]:
    """Scores of the geometry and of the hidden colours, and the model where the truth is."""
    model = moved(candidate.model, shot.camera.c2w[0, :, :3].numpy() @ candidate.axes.T)
    mine = solid(*triangles(model))
    scores, scale, translation = geometry(mine, truth)
    scores["hidden_colour"] = hidden_colour(mine, colours(model, mine, baselines.LEVEL), truth, wanted, hidden, scale, translation)
    return scores, moved(model, np.eye(3), scale, translation)


def _compare(views: Tensor, wanted: Tensor) -> dict[str, float]:
    sharp = sharpness(views)
    return {"psnr": psnr(views, wanted), "ssim": ssim(views, wanted), "sharpness": 0.0 if math.isnan(sharp) else sharp}


def _draw_row(task: Task, row: dict[str, Any], shot: Shot, d: Drawable, placed: dict[str, Model]) -> None:
    """Picture; truth and lift from the front, the side and behind; the best baseline from the side."""
    cameras = novel_cameras([shot.azimuth + x for x in SHEET], shot.elevation)
    best = min((m for m in placed if m != "lift"), key=lambda m: row["methods"][m]["chamfer"], default=None)
    blank = torch.zeros(3, *cameras.size, 4)
    views = [*drawn(d, cameras, lit=True), *(drawn(placed["lift"], cameras, lit=True) if "lift" in placed else blank)]
    views.append(drawn(placed[best], cameras[1], lit=True)[0] if best else blank[0])
    report.draw_row(task.row, shot.picture, views, report.line(row), best or "none")


# ---- memory ----


def _forget_peak() -> None:
    """Linux keeps the most memory a process has had; writing 5 here starts it anew. Elsewhere the peak is that of the whole run."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return
