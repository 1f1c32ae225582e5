# SPDX-License-Identifier: Apache-2.0
"""What other systems lack: macOS has no sched_getaffinity and no /proc, Windows no resource."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bozzetto.fit import run
from bozzetto.kernels import pool


@pytest.mark.parametrize(("said", "threads"), [("3", 3), (" 2 ", 2), ("4,2", 4), ("", 7), ("0", 7), ("-1", 7), ("many", 7)])
def test_threads_are_those_asked_for_or_all_cores(monkeypatch, said, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(7)), raising=False)
    assert pool._wanted() == threads


def test_without_affinities_the_machines_cores_count(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert pool._wanted() == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)  # as Python may answer
    assert pool._wanted() == 1


def test_the_peak_of_memory_is_the_same_by_either_way_and_unknown_where_there_is_none(monkeypatch):
    """A block of 64 MB moves it; without /proc it comes from getrusage, in bytes on macOS."""
    block = bytearray(os.urandom(1)) * (64 << 20)
    first = run.peak_gb()
    assert first is not None and first > len(block) / 1024**3
    monkeypatch.setattr(Path, "read_text", _no_file)
    other = run.peak_gb()
    assert other == pytest.approx(first, rel=0.05)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert run.peak_gb() == pytest.approx(other / 1024, rel=0.05)  # the same number, read as bytes
    true_import = builtins.__import__

    def no_resource(name: str, *rest: object, **more: object) -> object:
        if name == "resource":
            raise ImportError(name)
        return true_import(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", no_resource)
    assert run.peak_gb() is None


def _no_file(path: Path, *_: object, **__: object) -> str:
    raise FileNotFoundError(path)


def test_all_that_a_lift_needs_can_be_imported_without_them():
    absent = "import os, sys; del os.sched_getaffinity; sys.modules['resource'] = None"
    done = subprocess.run(
        [sys.executable, "-c", f"{absent}; import bozzetto.verbs.lift, bozzetto.evaluate.lifting"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
