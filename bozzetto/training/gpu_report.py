# SPDX-License-Identifier: Apache-2.0
"""`gpu.md`: which machine it was, what the training came to, whether the kernels agree with the CPU there, and how fast they are.

Tests and table run as programs of their own, with a limit: what hangs or crashes there costs its lines, not the course.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bozzetto.files import write_atomically

ROOT = Path(__file__).parents[2]
RESERVE = 10.0  # seconds that are left to write and to leave


def report(path: Path, facts: dict[str, str], left: Callable[[], float]) -> None:
    """Write the page, and again after each part that came in; `left` are the seconds until it must be done."""
    lines = [f"# {machine()['GPU']}", "", *_table(machine()), "", "## Training", "", *_table(facts)]
    write_atomically(path, ("\n".join(lines) + "\n").encode())
    parts: list[tuple[str, list[str], float]] = [
        ("Kernels on CUDA against the CPU", ["-m", "pytest", "tests/test_cuda.py", "-q", "-rs", "-p", "no:cacheprovider"], 0.5),
        ("Times", ["-m", "benchmarks.gpu", "--seconds", f"{max(0.1, min(1.0, left() / 90)):.2f}"], 1.0),
    ]
    for title, command, share in parts:
        seconds = share * (left() - RESERVE)
        said = run(command, seconds) if seconds > 1 else "no time was left"
        lines += ["", f"## {title}", "", said]
        write_atomically(path, ("\n".join(lines) + "\n").encode())
        print(said, flush=True)


def run(command: list[str], seconds: float) -> str:
    """What a Python program printed within so many seconds, or one sentence why there is nothing."""
    if not (ROOT / "benchmarks").is_dir():
        return "not run: bozzetto is not in a checkout, with tests/ and benchmarks/ beside it"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    try:
        both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, timeout=seconds, text=True, **both)  # type: ignore[call-overload]
    except subprocess.TimeoutExpired as late:
        printed = late.stdout.decode(errors="replace") if isinstance(late.stdout, bytes) else late.stdout or ""
        return f"{printed.strip()}\n\nstopped after {seconds:.0f} s, not done".strip()
    printed = done.stdout.strip()
    return printed if done.returncode == 0 else f"{_end(printed)}\n\nended with code {done.returncode}"


def machine() -> dict[str, str]:
    """GPU, driver and versions, as far as they can be found out."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    driver = "unknown"
    if shutil.which("nvidia-smi"):
        try:
            asked = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
            driver = subprocess.run(asked, capture_output=True, text=True, timeout=10).stdout.splitlines()[0]
        except (OSError, IndexError, subprocess.TimeoutExpired):
            pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, CUDA {torch.version.cuda or 'none'}"
    return {"GPU": gpu, "driver, memory": driver, "cores": str(cores), "versions": versions}


def _table(rows: dict[str, str]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows.items())]


def _end(text: str, lines: int = 25) -> str:
    return "\n".join(text.splitlines()[-lines:])
