# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole: written under another name in the same folder, then renamed. Nobody ever sees half of one.

And a folder that one process at a time works in: `Lock`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


@contextlib.contextmanager
def replacing(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """A name to write to within; it becomes `path` at the end, or goes where something was raised.

    shared  several processes may write this path at once: each has a name of its own. Otherwise the name is always the same, so
            that what a killed process left is written over
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part" if shared else f".{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, data: bytes, *, shared: bool = False) -> None:
    """All of a file at once, as `replacing`."""
    with replacing(path, shared=shared) as part:
        part.write_bytes(data)


class Taken(Exception):
    """Another process, or another `Lock` of this one, holds it."""


class Lock:
    """An advisory lock on a file that is made for it and goes with it; the system gives back what a dead process held.

    Where a file system knows no locks, every lock is granted.
    raises  Taken; OSError where the file cannot be made
    """

    def __init__(self, path: Path) -> None:
        self._path, self._owner = path, os.getpid()
        self._file: int | None = None
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _lock(file)
                is_ours = os.path.samestat(os.fstat(file), os.stat(path))
            except (BlockingIOError, PermissionError):
                os.close(file)
                raise Taken from None
            except FileNotFoundError:
                is_ours = False
            except OSError:  # no locks here
                is_ours = True
            if is_ours:
                self._file = file
                return
            os.close(file)  # its holder let go, and took the file away, after we had opened it

    def release(self) -> None:
        """Let go; a second time, or in a forked child, nothing."""
        if self._file is None or os.getpid() != self._owner:
            return
        if sys.platform != "win32":  # there no file goes that is open
            self._path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                fcntl.flock(self._file, fcntl.LOCK_UN)
        os.close(self._file)
        self._file = None
        if sys.platform == "win32":
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def __del__(self) -> None:
        self.release()


def _lock(file: int) -> None:
    if sys.platform == "win32":
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
