# SPDX-License-Identifier: Apache-2.0
"""One small thread pool for every kernel, and the place where compiled kernels are kept.

A kernel is an `@njit` function over a plain range, `f(start, stop, *arrays)`; `run` spreads the range over the cores.
Compiled code releases the interpreter lock, so threads suffice. Numba's own parallel layers are avoided: one resets
PyTorch's thread count and dies after `fork`, the other aborts when two threads call it.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

_lock = threading.Lock()
_executor: ThreadPoolExecutor | None = None


def _wanted() -> int:
    """OMP_NUM_THREADS where it is a number or begins with one ("4,2": nested levels), else the cores of this process."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if first.isdecimal() and int(first) > 0:
        return int(first)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS has none


_threads = _wanted()


def num_threads() -> int:
    """How many threads kernels use; the cores of this process, or OMP_NUM_THREADS, unless set."""
    return _threads


def set_num_threads(n: int) -> None:
    """Use n threads from now on. Results do not depend on it, to the bit."""
    global _threads, _executor
    if n < 1:
        raise ValueError(f"set_num_threads: expected at least 1, got {n}")
    with _lock:
        if _executor is not None:
            _executor.shutdown(wait=True)
        _threads, _executor = n, None


def run(kernel: Callable[..., Any], count: int, *args: Any, grain: int = 1) -> None:
    """Call `kernel(start, stop, *args)` over disjoint pieces of range(count), of at least `grain` each, on all threads.

    Returns when all are done; an exception in one is raised here. The caller sees to it that pieces write apart.
    """
    global _executor
    pieces = min(_threads, max(1, count // max(grain, 1)))
    if pieces <= 1:
        if count > 0:
            kernel(0, count, *args)
        return
    if count // max(grain, 1) >= 4 * _threads:
        pieces = 4 * _threads  # uneven work evens out
    with _lock:
        if _executor is None:
            _executor = ThreadPoolExecutor(_threads, thread_name_prefix="bozzetto-kernel")
        executor = _executor
    bounds = [count * i // pieces for i in range(pieces + 1)]
    list(executor.map(lambda piece: kernel(*piece, *args), pairwise(bounds)))


def cache_folder() -> Path:
    """Where compiled kernels are kept: BOZZETTO_CACHE, the user's cache folder, or (not writable) a temporary one."""
    home = os.environ.get("BOZZETTO_CACHE") or os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    for folder in (Path(home) / "bozzetto" / "kernels", Path(tempfile.gettempdir()) / f"bozzetto-{os.getuid()}" / "kernels"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    return Path(tempfile.mkdtemp(prefix="bozzetto-"))


os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_folder()))  # before Numba is imported: it fails at import otherwise

import numba  # noqa: E402

# cache: compiled once a machine. contract, nsz, arsp: fused multiply-adds and reciprocals, but never "no NaN, no infinity".
njit = partial(numba.njit, nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz"})
