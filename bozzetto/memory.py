# SPDX-License-Identifier: Apache-2.0
"""Memory of this machine and of this process, in bytes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def machine(root: Path = Path("/")) -> tuple[int | None, int | None]:
    """Total and available: the machine's, or less where a control group of this process allows less. None where neither is known.

    root  where /proc and /sys are
    """
    total = available = None
    try:
        lines = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines())
        total, available = (int(lines[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError, IndexError):
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for allowed, used in _groups(root):
        left = max(allowed - used, 0)
        total = allowed if total is None else min(total, allowed)
        available = left if available is None else min(available, left)
    return total, available


def resident() -> int:
    """Of this process now; 0 where the system does not say."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(x.split()[1]) for x in lines if x.startswith("VmRSS")) * 1024
    return 0


def _groups(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use of each control group that holds this process and has a limit, of version 2 and of version 1, from the inside out."""
    try:
        lines = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        lines = []
    within = {controllers: path.strip("/") for _, controllers, path in (x for x in lines if len(x) == 3)}
    for at, controllers, limit, usage, cached in (
        ("sys/fs/cgroup", "", "memory.max", "memory.current", "inactive_file"),
        ("sys/fs/cgroup/memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        top = root / at
        inside = top / within.get(controllers, "")  # in a container it may be a name of outside, which is not here; its limit is the top's
        for group in (inside, *inside.parents):
            if not group.is_relative_to(top):
                break
            with contextlib.suppress(OSError, ValueError):  # no such group, or "max"
                allowed, used = (int((group / name).read_text()) for name in (limit, usage))
                with contextlib.suppress(OSError):  # files that were read and are let go first
                    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                    used -= int(stat.get(cached, 0))
                yield allowed, used
