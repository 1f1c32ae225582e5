# SPDX-License-Identifier: Apache-2.0
"""The quarter of an hour on a GPU: what it carries, how its rates follow the clock, what it leaves however it ends."""

from __future__ import annotations

import json
import os
import signal
import sys
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from bozzetto.data.decimated import decimated, small, unpacked
from bozzetto.data.objects import Packed, pack
from bozzetto.data.renders import carve_object, drawable
from bozzetto.errors import InputError
from bozzetto.priors.first_guess import FirstGuess, FirstGuessConfig, colour_at, load, save
from bozzetto.training import course, first_guess, gpu_report, replay
from bozzetto.training.deadline import Deadline
from bozzetto.training.loop import LoopSettings, train
from bozzetto_objects import make

TINY = FirstGuessConfig(widths=(8, 16, 24, 48), blocks=(1, 1, 2), depths=8, colour_depths=4)


class Clock:
    """Moves on by `step` each time it is read."""

    def __init__(self, step: float = 0.0) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def batch_of(count: int, size: int = 32, depths: int = 8) -> dict[str, Tensor]:
    """Shaped like training data."""
    g = torch.Generator().manual_seed(size)
    half = size // 2
    return {
        "picture": torch.rand(count, 4, size, size, generator=g),
        "occupancy": (255 * torch.rand(count, depths, half, half, generator=g)).to(torch.uint8),
        "points": torch.rand(count, 16, 3, generator=g),
        "colour": torch.rand(count, 16, 3, generator=g),
        "view": torch.rand(count, 2, generator=g),
    }


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """A folder of packed objects, two of each side but one, named by their sides."""
    folder = tmp_path_factory.mktemp("objects")
    made = [("train", "teapot"), ("validation", "car"), ("heldout", "mug"), ("train", "chair"), ("validation", "table")]
    pack((replace(make(f, 3), name=s, source=f"{s}/{f}") for s, f in made), folder, side=lambda o: o.name, weight=lambda o: len(o.name))
    return Packed(folder)


@pytest.fixture(scope="module")
def archive(objects, tmp_path_factory):
    path = tmp_path_factory.mktemp("course") / "objects.tar.xz"
    small(objects, path, triangles=600)
    return path


# ---- what is carried ----


def test_the_archive_holds_no_object_that_is_held_out(objects, archive, tmp_path):
    there = unpacked(archive, tmp_path)
    assert sorted(r["source"] for r in there.rows) == sorted(r["source"] for r in objects.rows if r["side"] != "heldout")
    assert {r["side"] for r in there.rows} == {"train", "validation"}
    assert all(r["weight"] == len(r["name"]) for r in there.rows)
    with tarfile.open(archive) as tar:
        assert not [n for n in tar.getnames() if "heldout" in n or "mug" in n]


def test_an_archive_that_is_too_large_is_refused_and_not_left(objects, tmp_path):
    with pytest.raises(InputError, match=r"MiB, more than 0\.01; give fewer --triangles"):
        small(objects, tmp_path / "a.tar.xz", megabytes=0.01)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "torn.tar.xz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpacked(tmp_path / "torn.tar.xz", tmp_path)


def test_decimated_objects_keep_their_solid_their_colours_and_their_box():
    whole = make("teapot", 3)
    o = decimated(whole, 1000)
    assert len(whole.faces) > 1500 and len(o.faces) <= 1100
    box = o.vertices.min(0), o.vertices.max(0)
    np.testing.assert_allclose(box[0] + box[1], 0, atol=2 * 2**-14)  # rounded to 2^-14
    assert abs((box[1] - box[0]).max() - 1) < 2 * 2**-14
    np.testing.assert_allclose(np.linalg.norm(o.normals, axis=2), 1, atol=1e-5)
    a, b = (carve_object(drawable(x)).inside > 0 for x in (whole, o))
    assert (a & b).sum() / (a | b).sum() > 0.93  # a cell at the border either way
    assert set(np.unique(o.material)) <= set(np.unique(whole.material))

    def areas(x):
        corners = x.vertices[x.faces]
        area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
        return np.bincount(x.material, area, len(whole.colours)) / area.sum()

    np.testing.assert_allclose(areas(o), areas(whole), atol=0.05)  # of each material as much as before


def test_a_few_faces_stay_as_they_are():
    cube = make("table", 3)
    o = decimated(cube, 10**6)
    assert len(o.faces) == len(cube.faces) and (o.material == cube.material).all()
    assert np.abs(np.ptp(o.vertices[o.faces], 1) - np.ptp(cube.vertices[cube.faces], 1)).max() < 3e-4


# ---- the clock ----


def test_rates_follow_the_clock():
    clock = Clock()
    d = Deadline(100, warmup=0.1, cooldown=0.4, validations=4, clock=clock)
    rates = {}
    for now in (0.0, 5.0, 10.0, 50.0, 60.0, 80.0, 99.0, 100.0, 1000.0):
        clock.now = now
        rates[now] = d.rate()
    want = {0.0: 0, 5.0: 0.5, 10.0: 1, 50.0: 1, 60.0: 1, 80.0: 0.5, 99.0: 0.025, 100.0: 0, 1000.0: 0}
    assert rates == pytest.approx(want)
    assert d.is_due(0.49, 0.55) and not d.is_due(0.51, 0.55) and d.is_due(0.99, 1.0)
    d.stop()
    assert d.share() == 1 and d.rate() == 0


def test_a_run_with_a_deadline_ends_by_it_and_not_by_its_samples(tmp_path):
    """Adam's steps are the rates themselves while all gradients are 1."""
    clock = Clock()
    deadline = Deadline(20, warmup=0.25, cooldown=0.5, validations=2, clock=clock)
    network = torch.nn.Linear(1, 1, bias=False)
    weights = []

    def batches():
        while True:
            yield {"x": torch.ones(1)}

    def loss(network, batch):
        weights.append(float(network.weight.detach()))
        clock.now += 1
        return network.weight.sum(), {}

    settings = LoopSettings(samples=3, batch=4, lr=0.0, vector_lr=1.0, save_every=-1, mixed_precision="no")
    train(network, batches(), loss, tmp_path, settings, lambda n: {"zero": 0.0}, deadline=deadline)
    assert len(weights) == 20  # a second each
    steps = -np.diff(weights)
    # the rate is asked for before the second goes by
    np.testing.assert_allclose(steps, [min(1, k / 5, (20 - k) / 10) for k in range(19)], atol=1e-4)
    curve = [json.loads(line)["samples"] for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert curve == [40, 80] and not (tmp_path / "state.safetensors").exists()


# ---- pictures that are used several times ----


def test_a_mirrored_and_recoloured_batch_has_the_truth_of_its_pictures():
    batch = batch_of(64)
    made = replay.varied(batch, torch.Generator().manual_seed(0))
    flipped = (made["occupancy"] == batch["occupancy"].flip(-1)).flatten(1).all(1)
    same = (made["occupancy"] == batch["occupancy"]).flatten(1).all(1)
    assert (flipped ^ same).all() and 16 < flipped.sum() < 48
    g = torch.Generator().manual_seed(1)
    colour = torch.rand(64, 3, 4, 8, 8, generator=g)
    orders = set()
    for k in range(64):
        undo = made["picture"][k].flip(-1) if flipped[k] else made["picture"][k]
        order = [next(j for j in range(3) if torch.equal(undo[c], batch["picture"][k, j])) for c in range(3)]
        orders.add(tuple(order))
        assert sorted(order) == [0, 1, 2] and torch.equal(undo[3], batch["picture"][k, 3])
        assert torch.equal(made["colour"][k], batch["colour"][k][:, order])
    assert len(orders) == 6
    # A guess of colours, mirrored, says at the mirrored points what it said: u turns round, and nothing else.
    at = torch.where(flipped.view(-1, 1, 1, 1, 1), colour.flip(-1), colour)
    said = [colour_at(c, p) for c, p in ((colour, batch["points"]), (at, made["points"]))]
    torch.testing.assert_close(said[0], said[1], atol=1e-5, rtol=0)
    assert torch.equal(made["view"], batch["view"])


def test_the_pool_keeps_the_latest_and_draws_sizes_as_they_came():
    g = torch.Generator().manual_seed(0)
    chunk = batch_of(4, 32)
    one = sum(v[0].numel() * v.element_size() for v in chunk.values())
    pool = replay.Pool(2 * 6 * one / 1e9, torch.device("cpu"), g)  # six of the small ones
    for k in range(5):
        pool.add({key: torch.full_like(v, 10 * k) for key, v in chunk.items()})
    assert len(pool) == 20 and sorted(pool.rings[32]["view"][:, 0].tolist()) == [30, 30, 40, 40, 40, 40]
    big = batch_of(4, 64)
    pool.add(big)
    sizes = [pool.draw(2)["picture"].shape[-1] for _ in range(300)]
    assert abs(sizes.count(64) / 300 - 4 / 24) < 4 * (4 / 24 * 20 / 24 / 300) ** 0.5


def test_no_picture_is_used_more_often_than_was_said_and_a_dry_feed_ends_at_the_deadline():
    clock = Clock()
    chunks = [batch_of(8, 32) for _ in range(3)]

    def ready(seconds: float) -> list[dict[str, Tensor]]:
        clock.now += seconds
        return [chunks.pop()] if chunks else []

    pool = replay.Pool(1e-3, torch.device("cpu"), torch.Generator().manual_seed(0))
    batches = replay.Replay(ready, pool, Deadline(60, clock=clock), batch=4, reuse=2, fill=16)
    given = list(batches)
    assert len(given) == 12 and batches.used == 48 == 2 * len(pool) and 60 <= clock.now < 61


def test_an_object_is_the_same_for_some_samples_in_a_row():
    class Stream:
        def draw(self, i, rng):
            return i, rng.random()

    row = replay.InARow(Stream(), 5)  # type: ignore[arg-type]
    drawn = [row.draw(i, np.random.default_rng(i)) for i in range(3 * replay.VIEWS)]
    assert [drawn.count(d) for d in drawn] == [replay.VIEWS] * len(drawn) and len(set(drawn)) == 3
    assert row.draw(5, np.random.default_rng(9)) == drawn[5]  # by another worker


# ---- the whole ----


@pytest.fixture
def flags(archive, tmp_path, monkeypatch):
    """A course of a tiny network, with validation pictures of noise; its samples are real."""
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251 — layers draw from the global state
        save(FirstGuess(TINY), tmp_path / "start")
    group = batch_of(12, 64)
    samples = [{k: v[i] for k, v in group.items()} for i in range(12)]
    monkeypatch.setattr(first_guess, "validation_samples", lambda *_: {"furniture": samples, "families": samples})
    fixed = {"objects": archive, "out": tmp_path / "out", "start": tmp_path / "start", "batch": 4, "workers": 0, "precision": "no"}
    return [str(x) for k, v in fixed.items() for x in (f"--{k}", v)]


@pytest.mark.slow
def test_a_course_ends_by_its_clock_and_leaves_what_it_promises(flags, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(gpu_report, "run", lambda command, seconds: asked.append((command[1], seconds)) or "| a row |")
    assert course.main([*flags, "--minutes", "1.5", "--tail", "40"], clock=Clock(0.5)) == 0
    out = tmp_path / "out"
    assert load(out / "prior").config == TINY
    rows = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]
    assert len(rows) == 5 and rows[-1]["share"] == 1 and 0 < rows[-1]["uses"] <= 8 and "furniture_iou_64" in rows[0]
    assert (out / "samples.png").stat().st_size > 0
    page = (out / "gpu.md").read_text()
    assert "| of the weights it began from | furniture_iou_64 0." in page
    assert "| a row |" in page and "pictures drawn" in page and "uses of a picture" in page
    assert [name for name, _ in asked] == ["pytest", "benchmarks.gpu"] and all(0 < s < 60 for _, s in asked)
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("course: done after") and sum(p.is_file() for p in out.rglob("*")) <= 8


@pytest.mark.parametrize("how", ["signal", "loss"])
def test_a_course_that_is_killed_or_fails_leaves_a_readable_prior(flags, how, tmp_path, monkeypatch, capsys):
    real, steps = first_guess.loss, []

    def loss(network, batch):
        steps.append(1)
        if len(steps) == 3:
            if how == "loss":
                raise FloatingPointError("training loss is nan")
            os.kill(os.getpid(), signal.SIGTERM)
        return real(network, batch)

    monkeypatch.setattr(first_guess, "loss", loss)
    monkeypatch.setattr(gpu_report, "run", lambda *_: "")
    assert course.main([*flags, "--minutes", "600"]) == (143 if how == "signal" else 1)
    assert len(steps) == 3
    prior, start = load(tmp_path / "out" / "prior"), load(tmp_path / "start")
    moved = any(not torch.equal(a, b) for a, b in zip(prior.parameters(), start.parameters(), strict=True))
    assert moved == (how == "signal")
    said = capsys.readouterr().out
    assert ("stopped by a signal" if how == "signal" else "training failed (training loss is nan)") in said
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("lacking", [["numba"], ["accelerate", "numba"]])
def test_missing_packages_are_named_in_one_sentence(lacking, flags, tmp_path, monkeypatch, capsys):
    for name in lacking:
        monkeypatch.setitem(sys.modules, name, None)
    assert course.main(flags) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and all(f"{name} ({course.NEEDED[name]})" in said for name in lacking)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_what_can_be_done_without_is_said_and_done_without(flags, tmp_path, monkeypatch, capsys):
    for name in ("tensorboard", "pytest", "gsplat", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(gpu_report, "run", lambda *_: "")
    assert course.main([*flags, "--minutes", "0.5"], clock=Clock(0.5)) == 0
    said = capsys.readouterr().out
    assert "without tensorboard: no TensorBoard log" in said and "without gsplat: its rows" in said
    assert not (tmp_path / "out" / "log").exists() and (tmp_path / "out" / "curve.jsonl").exists()


def test_a_course_without_its_archive_says_how_to_make_it(tmp_path, capsys):
    assert course.main(["--objects", str(tmp_path / "none"), "--out", str(tmp_path)]) == 2
    assert "make course-pack" in capsys.readouterr().err
    (tmp_path / "curve.jsonl").touch()
    assert course.main(["--objects", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "holds a course already" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        course.main(["--out", str(tmp_path), "--minutes", "1", "--tail", "70"])


def test_a_part_of_the_report_that_hangs_or_fails_costs_its_lines_alone():
    assert gpu_report.run(["-c", "print('seen', flush=True); import time; time.sleep(60)"], 1.5).endswith("not done")
    assert gpu_report.run(["-c", "print('why'); raise SystemExit(3)"], 60) == "why\n\nended with code 3"
