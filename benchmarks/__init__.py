# SPDX-License-Identifier: Apache-2.0
"""Timing shared by the benchmarks: each runs alone, `python -m benchmarks.rasterize`, and prints one Markdown table."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from typing import Any

from bozzetto import doctor

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported: threads that spin slow down all others


def measure(
    fn: Callable[[], Any], *, repeats: int = 30, seconds: float = 10, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float]:
    """Median and spread (the middle half's width) of the seconds that fn takes, after two calls to warm up.

    `clock` may be `time.process_time`: processor time summed over threads, which a busy machine disturbs less. Stops early
    after `seconds`, but not before three calls.
    """
    times: list[float] = []
    for _ in range(2):
        fn()
    end = time.perf_counter() + seconds
    while len(times) < repeats and (len(times) < 3 or time.perf_counter() < end):
        before = clock()
        fn()
        times.append(clock() - before)
    return spread(times)


def spread(times: list[float]) -> tuple[float, float]:
    """Their median, and the middle half's width."""
    times, n = sorted(times), len(times)
    return times[n // 2], times[(3 * n) // 4] - times[n // 4]


def milliseconds(result: tuple[float, float]) -> str:
    """One cell of a table."""
    return f"{result[0] * 1e3:.2f} ± {result[1] * 1e3:.2f}"


def machine(*packages: str) -> str:
    """The processor, its cores and load, and the versions of what was timed."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as lines:
            name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in packages)
    return f"{name}, {doctor.cores()} cores, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, {versions}"
