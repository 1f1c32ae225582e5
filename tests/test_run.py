# SPDX-License-Identifier: Apache-2.0
"""A run's folder belongs to one run at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bozzetto.errors import InputError
from bozzetto.files import Lock, Taken
from bozzetto.fit.run import Run

ROOT = Path(__file__).parent.parent
HOLDS = """
import sys, torch
from bozzetto.fit.run import Run
run = Run(sys.argv[1], {"picture": "first"})
run.stage("shape", lambda: {"x": torch.ones(3)}, dict)
print("at work", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def other(tmp_path):
    """Another process whose run, with a stage done, is at work in tmp_path / "out"."""
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "out")]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "at work\n"
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_run_in_one_folder_is_refused_and_takes_nothing_from_the_first(tmp_path, other, resume):
    before = {p.name: p.read_bytes() for p in (tmp_path / "out" / ".run").iterdir()}
    with pytest.raises(InputError, match="another run is at work there; wait for its end, or choose another --out"):
        Run(tmp_path / "out", {"picture": "second"}, resume=resume)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out" / ".run").iterdir()} == before and len(before) == 3
    Run(tmp_path / "elsewhere", {"picture": "second"})


def test_a_killed_runs_folder_is_free_and_what_it_did_is_not_taken_for_anothers(tmp_path, other):
    other.kill()
    other.wait()
    run = Run(tmp_path / "out", {"picture": "second"})
    assert not run.stage("shape", lambda: {"x": torch.zeros(3)}, dict)["x"].any()


@pytest.mark.parametrize("how", ["finished", "failed", "refused"])
def test_a_run_that_ended_holds_nothing(tmp_path, how):
    first = Run(tmp_path, {"a": 1})
    if how == "refused":
        del first  # as a killed one
        with pytest.raises(InputError, match="other a"):
            Run(tmp_path, {"a": 2}, resume=True)
    else:
        with pytest.raises(FloatingPointError), first.interruptible():
            if how == "finished":
                first.finish()
                assert not (tmp_path / ".run").exists()
            raise FloatingPointError
    assert not (tmp_path / ".run" / "lock").exists()
    Run(tmp_path, {"a": 1}, resume=how != "finished")


def test_a_lock_is_held_once_and_again_after_it_is_released(tmp_path):
    held = Lock(tmp_path / "lock")
    with pytest.raises(Taken):
        Lock(tmp_path / "lock")
    held.release()
    held.release()
    assert not (tmp_path / "lock").exists()
    Lock(tmp_path / "lock").release()


def test_a_lock_on_a_file_that_went_away_is_no_lock(tmp_path, monkeypatch):
    """The holder may let go between another's opening and locking: what that one locked is then nobody's file."""
    from bozzetto import files

    held, lock = Lock(tmp_path / "lock"), files._lock

    def released_first(file: int) -> None:
        held.release()
        lock(file)

    monkeypatch.setattr(files, "_lock", released_first)
    second = Lock(tmp_path / "lock")
    monkeypatch.undo()
    with pytest.raises(Taken):
        Lock(tmp_path / "lock")
    second.release()
