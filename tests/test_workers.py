# SPDX-License-Identifier: Apache-2.0
"""Whatever a killed process had working for it is gone, too: pools and loaders, each as the package begins it."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def busy(_: object) -> None:
    """Says who works, and works for ever."""
    os.write(1, f"{os.getpid()}\n".encode())
    threading.Event().wait()


class Endless:
    """A dataset whose every sample is work without end."""

    def __getitem__(self, i: int) -> None:
        busy(i)

    def __len__(self) -> int:
        return 8


PARENTS = {
    "a pool of lifts": """
from bozzetto.evaluate import lifting
lifting.measure = busy
list(lifting._done(["a", "b"], 2))
""",
    "the workers of a course": """
from bozzetto.training.replay import Feed
Feed(Endless(), 1, 2).thread.join()
""",
    "the workers of a training": """
from types import SimpleNamespace
from bozzetto.training.loop import LoopSettings, _loader
list(_loader(Endless(), LoopSettings(samples=8, batch=1, workers=2), 0, SimpleNamespace(num_processes=1, process_index=0)))
""",
}


@pytest.mark.parametrize("what, how", [*((what, signal.SIGKILL) for what in PARENTS), ("a pool of lifts", signal.SIGTERM)])
def test_killed_it_leaves_nobody_at_work(what, how):
    """All of them hold the parent's standard output: it ends with the last of them."""
    program = f"from tests.test_workers import Endless, busy\n{PARENTS[what]}"
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    try:
        assert len({*workers, parent.pid}) == 3
        parent.send_signal(how)
        assert parent.communicate(timeout=60)[0] == "" and parent.returncode == -how
    finally:
        for pid in workers:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def test_every_pool_and_every_loader_of_the_package_ends_with_its_parent():
    """Wherever one is made, with the argument by which its workers heed."""
    needed = {"ProcessPoolExecutor": "initializer", "DataLoader": "worker_init_fn"}
    found = set()
    for path in (p for package in ("bozzetto", "bozzetto_objects") for p in (ROOT / package).rglob("*.py")):
        text = path.read_text()
        assert not re.search(r"(multiprocessing|mp|context|spawn)\.(Pool|Process)\(|os\.fork\(", text), (
            f"{path}: such a process does not heed"
        )
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and (name := ast.unparse(node.func).split(".")[-1]) in needed:
                found.add((path.name, next((ast.unparse(k.value) for k in node.keywords if k.arg == needed[name]), None)))
    assert found == {(name, "end_with_parent") for name in ("lifting.py", "replay.py", "loop.py")}
