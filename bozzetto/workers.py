# SPDX-License-Identifier: Apache-2.0
"""Processes that work for another end when it is gone, however it went.

A parent that is killed, or runs out of memory, says nothing to its children: those of a pool would wait for work for ever, and
those of a DataLoader hang on a queue that nobody reads.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import wait


def end_with_parent(*_: object) -> None:
    """From here on this process ends at its parent's death: a pool's `initializer`, a DataLoader's `worker_init_fn`.

    Nothing is polled, and no signal is asked for (Linux sends its own when the thread that began the process ends, alive or not):
    a thread waits for the end of a pipe that multiprocessing lets the parent alone hold open. Elsewhere than in a process of
    multiprocessing's nothing happens.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), daemon=True, name="bozzetto-parent").start()


def _watch(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)  # what has begun is of no use to anybody, and cleaning up may wait for the dead
