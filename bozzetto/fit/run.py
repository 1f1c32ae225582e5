# SPDX-License-Identifier: Apache-2.0
"""A run: stages whose results are kept, so that a kill costs one stage at most, and resuming ends in the same bytes.

A stage is a function from nothing to a dataclass of tensors. Its result is one safetensors file in the run's folder, written by
rename; a stage whose file is there is not run again. Long stages save their own state every so often with `checkpoint`.
A run without a folder is the same in memory, and keeps nothing.
The first Ctrl-C asks a stage that is a long loop to finish with what it has (`must_stop`); the second stops at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from bozzetto import __version__
from bozzetto.errors import InputError
from bozzetto.files import Lock, Taken, replacing, write_atomically
from bozzetto.fit.packing import Tensors, pack, unpack

LOCK = "lock"
T = TypeVar("T")
Progress = Callable[[str, float], None]
"""(stage, share of it done in [0, 1])"""


class Run:
    """One lift, on disk or in memory.

    folder    where outputs go; the state lies in `folder/.run` until the run is complete; None keeps nothing
    identity  what must be the same for a resumed run: settings, seed, hashes of the inputs
    resume    continue what is in the folder; otherwise begin anew
    raises    InputError where the folder cannot be written, another run is at work there, or it holds one of another version or
              other settings

    One run at a time holds a folder, from here to `finish` or the end of `interruptible`: two would take each other's stages for
    their own.
    """

    def __init__(
        self, folder: str | Path | None, identity: dict[str, Any], *, resume: bool = False, progress: Progress | None = None
    ) -> None:
        self.folder = Path(os.devnull if folder is None else folder)
        self.state = self.folder / ".run"
        self.is_kept = folder is not None
        self.progress: Progress = progress or (lambda stage, share: None)
        self.interrupted = self.is_cut = False
        self.timings: dict[str, float] = {}
        if not self.is_kept:
            return
        record = json.dumps({"version": __version__, **identity}, sort_keys=True, indent=1)
        known = self.state / "run.json"
        self._lock = self._taken()
        try:
            if resume and known.is_file():
                self._check(known.read_text(), record)
            else:
                self._begin(known, record)
        except InputError:
            self._lock.release()
            raise

    def _taken(self) -> Lock:
        try:
            while True:
                self.state.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):  # the run before took its folder away in between
                    return Lock(self.state / LOCK)
        except Taken:
            raise InputError(f"{self.folder}: another run is at work there; wait for its end, or choose another --out") from None
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be written ({error.strerror}); choose another --out") from None

    def _check(self, found: str, expected: str) -> None:
        try:
            old, new = json.loads(found), json.loads(expected)
        except ValueError:
            raise InputError(f"{self.state}/run.json: not readable; start again without --resume") from None
        if old.get("version") != new["version"]:
            raise InputError(
                f"{self.folder}: was begun by version {old.get('version')}, this is {new['version']}; start again without --resume"
            )
        changed = _differing(old, new)
        if changed:
            raise InputError(f"{self.folder}: was begun with other {', '.join(changed)}; give the same, or start again without --resume")

    def _begin(self, known: Path, record: str) -> None:
        try:
            self._clear()
            write_atomically(known, record.encode())
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be written ({error.strerror}); choose another --out") from None

    def stage(self, name: str, make: Callable[[], T], kind: type[T]) -> T:
        """The result of a stage: from its file, or made and kept. Not kept once a stage was cut short, so that resuming finishes it.

        kind    of the result: a dataclass that `packing` reads
        raises  FloatingPointError for a result that holds NaN or infinity
        """
        path = self.state / f"{name}.safetensors"
        if path.is_file():
            with contextlib.suppress(SafetensorError):  # a torn disk: make it again
                return unpack(kind, load_file(path))
        started = time.monotonic()
        self.progress(name, 0.0)
        made = {k: v.detach().contiguous() for k, v in pack(make()).items()}
        for key, value in made.items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise FloatingPointError(f"stage {name}: {key} holds NaN or infinity")
        if not self.is_cut and self.is_kept:
            self._save(path, made)
            (self.state / f"{name}.partial").unlink(missing_ok=True)
        self.timings[name] = time.monotonic() - started
        self.progress(name, 1.0)
        return unpack(kind, made)

    def must_stop(self) -> bool:
        """Whether Ctrl-C asks a stage's loop to end here. Its result, and what is made of it, is then not kept."""
        self.is_cut |= self.interrupted
        return self.interrupted

    def checkpoint(self, name: str, tensors: Tensors) -> None:
        """Keep the state of an unfinished stage."""
        if not self.is_kept:
            return
        self._save(self.state / f"{name}.partial", tensors)

    def restore(self, name: str) -> Tensors | None:
        """What `checkpoint` kept last, or None."""
        path = self.state / f"{name}.partial"
        if path.is_file():
            with contextlib.suppress(SafetensorError):
                return load_file(path)
        return None

    def finish(self) -> None:
        """All outputs are written: remove the state. An interrupted run keeps it, for resuming."""
        if not self.interrupted and self.is_kept:
            self._clear()
            self._lock.release()
            with contextlib.suppress(OSError):  # the next run has begun there
                self.state.rmdir()

    def _clear(self) -> None:
        for old in self.state.glob("*"):
            if old.name != LOCK:
                old.unlink()

    def _save(self, path: Path, tensors: Tensors) -> None:
        try:
            with replacing(path) as part:
                save_file({k: v.detach().contiguous() for k, v in tensors.items()}, part)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path.parent}: cannot be written ({error}); free some space and go on with --resume") from None

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within: the first Ctrl-C sets `interrupted`, the second raises KeyboardInterrupt. The folder is free afterwards."""
        try:
            with self._heeding():
                yield
        finally:
            if self.is_kept:
                self._lock.release()

    @contextlib.contextmanager
    def _heeding(self) -> Iterator[None]:
        def handle(signum: int, frame: FrameType | None) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True

        try:
            before = signal.signal(signal.SIGINT, handle)
        except ValueError:  # not the main thread: whoever calls handles Ctrl-C
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def peak_gb() -> float | None:
    """Most resident memory that this process has had; None where the system does not say.

    From /proc where there is one: it can be begun anew there, which `evaluate` does for each lift.
    """
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(x.split()[1]) for x in lines if x.startswith("VmHWM")) / 1024**2
    try:
        import resource
    except ImportError:
        return None
    unit = 1024**3 if sys.platform == "darwin" else 1024**2  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def check_device(device: str) -> None:
    """raises InputError where torch cannot use it"""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError):  # torch built without it says so by an assertion
        raise InputError(f"--device {device}: this machine has none that torch can use; bozzetto doctor says which there are") from None


def check_writable(out: Path) -> None:
    """Before the slow work: the folder can be made and written, and is no file."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give a folder to --out")
    parent = out
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"{out}: cannot be written; choose another --out")


def _differing(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of what two records do not share."""
    names: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            names += _differing(a, b, f"{prefix}{key}.")
        elif a != b:
            names.append(prefix + key)
    return names
