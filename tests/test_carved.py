# SPDX-License-Identifier: Apache-2.0
"""Carved objects on disk: the same to the bit, made once, made again when torn, never a reason to stop."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bozzetto.data import carved
from bozzetto.data.carved import CarvedFiles, name, packed, unpack
from bozzetto.data.objects import pack
from bozzetto.data.renders import GRID, Carved, Drawable, carve_object, drawable
from bozzetto_objects import FAMILIES, make

FAMILY = next(iter(FAMILIES))


@pytest.fixture(scope="module")
def mug():
    d = drawable(make(FAMILY, 3))
    return d, carve_object(d)


def same(a: Carved, b: Carved) -> bool:
    pairs = [(a.inside, b.inside), (a.face, b.face), (a.bary, b.bary)]
    return all(x.dtype == y.dtype and x.shape == y.shape and (x == y).all() for x, y in pairs)


@pytest.fixture
def counted(monkeypatch, mug):
    """How often something was carved; nothing is, the answer is the mug's."""
    calls: list[Drawable] = []

    def carve(d: Drawable) -> Carved:
        calls.append(d)
        return mug[1]

    monkeypatch.setattr(carved, "carve_object", carve)
    return calls


def test_what_is_read_is_what_was_carved_to_the_bit(mug, tmp_path):
    d, truth = mug
    assert truth.inside.any() and len(truth.face) == 4096
    assert same(unpack(packed(truth)), truth)
    assert same(CarvedFiles(tmp_path / "a", 10)(d), truth)
    assert same(CarvedFiles(tmp_path / "a", 10)(d), truth)
    few = Carved(np.zeros((GRID,) * 3, np.uint8), np.zeros(0, np.int32), np.zeros((0, 2), np.float32))
    assert same(unpack(packed(few)), few)  # nothing solid, no point


def test_an_object_is_carved_once_whoever_asks(counted, mug, tmp_path):
    d = mug[0]
    for files in (CarvedFiles(tmp_path, 10), CarvedFiles(tmp_path, 10)):
        for _ in range(2):
            files(replace(d, colours=d.colours + 1))  # colours are not carved
    assert len(counted) == 1 and [p.suffix for p in tmp_path.iterdir()] == [".carved"]


def test_other_triangles_and_other_code_are_carved_anew(counted, monkeypatch, mug, tmp_path):
    d, files = mug[0], CarvedFiles(tmp_path, 10)
    turned = replace(d, faces=np.ascontiguousarray(d.faces[:, ::-1]))
    for other in (d, replace(d, vertices=d.vertices + np.float32(1e-6)), turned):
        files(other)
    assert len(counted) == 3 and len({name(d), name(turned)}) == 2
    monkeypatch.setattr(carved, "_code", lambda: b"another")
    files(d)
    assert len(counted) == 4


@pytest.mark.parametrize("fault", ["empty", "cut", "bit", "short", "folder"])
def test_a_file_that_is_not_whole_is_made_again(counted, mug, tmp_path, fault):
    d, files = mug[0], CarvedFiles(tmp_path, 10)
    path = tmp_path / f"{name(d)}.carved"
    files(d)
    whole = path.read_bytes()
    if fault == "folder":  # cannot be replaced, either
        path.unlink()
        path.mkdir()
    else:
        middle = len(whole) // 2
        torn = {
            "empty": b"",
            "cut": whole[:middle],
            "bit": whole[:middle] + bytes([whole[middle] ^ 8]) + whole[middle + 1 :],
            "short": carved.zlib.compress(b"\0" * (carved.INSIDE - 1)),
        }
        path.write_bytes(torn[fault])
    assert same(files(d), mug[1]) and len(counted) == 2
    assert fault == "folder" or path.read_bytes() == whole
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # no half file is left


def test_the_oldest_go_and_what_was_read_lately_stays(counted, monkeypatch, mug, tmp_path):
    monkeypatch.setattr(carved, "EVERY", 1)
    d, files = mug[0], CarvedFiles(tmp_path, 3)
    versions = [replace(d, vertices=d.vertices * np.float32(1 - k / 100)) for k in range(5)]
    paths = [tmp_path / f"{name(v)}.carved" for v in versions]
    for k in range(3):
        files(versions[k])
        os.utime(paths[k], (1e9 + k, 1e9 + k))
    torn = tmp_path / ".left.by.a.kill"
    torn.write_bytes(b"")
    os.utime(torn, (1e9, 1e9))
    files(versions[0])  # read: now the youngest
    files(versions[3])
    assert [p.exists() for p in paths] == [True, False, True, True, False] and not torn.exists()
    files(versions[4])
    assert [p.exists() for p in paths] == [True, False, False, True, True]


def test_where_nothing_can_be_kept_objects_are_carved_all_the_same(counted, mug, tmp_path):
    (tmp_path / "file").write_text("mine")
    files = CarvedFiles(tmp_path / "file" / "carved", 10)
    assert same(files(mug[0]), mug[1]) and same(files(mug[0]), mug[1]) and len(counted) == 2


def _work(folder: Path, d: Drawable, ready: object, out: object) -> None:
    ready.wait()  # type: ignore[attr-defined]
    out.put(packed(CarvedFiles(folder, 10)(d)))  # type: ignore[attr-defined]


def test_two_processes_at_once_write_one_whole_file(mug, tmp_path):
    d, truth = mug
    context = multiprocessing.get_context("spawn")
    ready, out = context.Barrier(2), context.Queue()
    both = [context.Process(target=_work, args=(tmp_path, d, ready, out)) for _ in range(2)]
    for process in both:
        process.start()
    assert [out.get(timeout=300) for _ in both] == [packed(truth)] * 2
    for process in both:
        process.join()
    assert [p.name for p in tmp_path.iterdir()] == [f"{name(d)}.carved"]
    assert same(unpack((tmp_path / f"{name(d)}.carved").read_bytes()), truth)


def test_training_keeps_carved_objects_beside_the_packed_ones_and_draws_the_same(monkeypatch, tmp_path):
    """Also with workers: they are spawned, so what draws must survive pickling."""
    from bozzetto.training.first_guess import Pictures

    pack([make(FAMILY, k) for k in range(2)], tmp_path)

    def pictures() -> Pictures:
        return Pictures(tmp_path, seed=0, batch=4, small=0.5, procedural=0.5, depths=8)

    first = [pictures()[i] for i in range(3)]
    kept = list((tmp_path / "carved").iterdir())
    assert kept

    def never(d: Drawable) -> Carved:
        raise AssertionError("carved twice")

    monkeypatch.setattr(carved, "carve_object", never)
    again = pickle.loads(pickle.dumps(pictures()))
    for i, sample in enumerate(first):
        assert all((again[i][k] == v).all() for k, v in sample.items())
