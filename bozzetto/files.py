# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole: written under another name in the same folder, then renamed. Nobody ever sees half of one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


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
