# SPDX-License-Identifier: Apache-2.0
"""A course for a GPU that is there for a quarter of an hour: `make course`, or `python -m bozzetto.training.course --out FOLDER`.

It needs no network and no compiler, only the checkout and the archive that `make course-pack` wrote where there was a network. It trains
the first guess for as long as it was told, on pictures that all cores but two draw, and leaves in OUT what is worth keeping: `prior/`,
`curve.jsonl`, `samples.png`, then `gpu.md`, the kernels' tests and times on that GPU. OUT holds a readable prior from the first minute
on, whatever happens later. The rates follow the clock (`training.deadline`); a picture is used several times (`training.replay`).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bozzetto.errors import InputError

if TYPE_CHECKING:
    from bozzetto.training.deadline import Deadline

# What each package is for. Without one of the first the course cannot run; without one of the others it leaves something out.
NEEDED = {
    "torch": "trains",
    "numpy": "holds the objects",
    "numba": "draws the pictures",
    "scipy": "is imported with the priors",
    "PIL": "writes pictures",
    "safetensors": "reads objects and weights",
    "accelerate": "places the network",
}
OPTIONAL = {
    "tensorboard": "no TensorBoard log, the numbers are in curve.jsonl",
    "pytest": "the kernels' tests on CUDA are left out",
    "hypothesis": "the kernels' tests on CUDA are left out",
    "gsplat": "its rows of the table say so",
    "nvdiffrast": "its rows of the table say so",
}
CHUNK = 16  # samples that a worker hands over at once
FILL = 4  # batches of samples that must be drawn before training begins


def missing(names: Sequence[str]) -> list[str]:
    """Which of these packages cannot be found."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def check_packages() -> None:
    """Say what is missing and what follows from it.

    raises InputError, one sentence that names every package without which nothing goes
    """
    if lacking := missing(list(NEEDED)):
        reasons = ", ".join(f"{name} ({NEEDED[name]})" for name in lacking)
        raise InputError(f"missing: {reasons}; install what is missing, or bring its wheels where there is no network")
    for name in missing(list(OPTIONAL)):
        print(f"without {name}: {OPTIONAL[name]}", flush=True)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """argparse, since tyro is not among what a GPU machine has."""
    p = argparse.ArgumentParser(prog="course", description="Train the first guess and time the kernels on one GPU, by the clock.")
    p.add_argument("--objects", type=Path, default=Path("course/objects.tar.xz"), help="what `make course-pack` wrote, or packed objects")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--minutes", type=float, default=9.0, help="all in all: it ends by itself before they are over")
    p.add_argument("--tail", type=float, help="seconds kept for tests and table; by default a quarter of the time, at most 90")
    p.add_argument("--start", default="mini", help="weights to begin from: mini (the embedded ones), a folder, or none")
    p.add_argument("--widths", type=int, nargs=4, help="channels of a network of another shape, which begins from nothing")
    p.add_argument("--batch", type=int, default=256)
    p.add_argument("--lr", type=float, default=0.02, help="of matrices; from nothing or for a short time")
    p.add_argument("--reuse", type=float, default=8.0, help="uses of a drawn picture on average, at most")
    p.add_argument("--pool-gb", type=float, help="memory of the device for pictures; by default 24 on a GPU, 1 on a CPU")
    p.add_argument("--workers", type=int, help="processes that draw; by default the cores but two")
    p.add_argument("--precision", choices=("auto", "bf16", "no"), default="auto")
    p.add_argument("--compile", action="store_true", help="needs a C compiler, and its first steps take a minute")
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args(arguments)
    a.tail = min(90.0, a.minutes * 15) if a.tail is None else a.tail
    if a.minutes * 60 <= a.tail or a.batch < 1 or a.reuse <= 0:
        p.error(f"--minutes {a.minutes:g}: more than --tail {a.tail:g} seconds, with a --batch and a --reuse above 0")
    return a


def main(arguments: Sequence[str] | None = None, clock: Callable[[], float] = time.monotonic) -> int:
    """0: all done. 1: training failed, OUT holds what there was. 2: nothing could begin. 143: stopped by a signal, OUT holds a prior."""
    begun = clock()
    a = parsed(arguments)
    guard = threading.Timer(a.minutes * 60, _give_up, (a.out,))
    guard.daemon = True
    if clock is time.monotonic:
        guard.start()
    try:
        check_packages()
        if not a.objects.exists():
            raise InputError(f"{a.objects}: not there; where Debian's packages can be fetched: make course-pack")
        if (a.out / "curve.jsonl").exists():
            raise InputError(f"{a.out}: holds a course already; give another --out, and --start {a.out / 'prior'} to go on from it")
        with tempfile.TemporaryDirectory(prefix="course-", ignore_cleanup_errors=True) as scratch:
            return _course(a, Path(scratch), begun, clock)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        guard.cancel()


def _give_up(out: Path) -> None:
    print(f"course: the time is over and something still hangs; {out} holds the last prior", flush=True)
    os._exit(3)


def _course(a: argparse.Namespace, scratch: Path, begun: float, clock: Callable[[], float]) -> int:
    from bozzetto.training.deadline import Deadline
    from bozzetto.training.gpu_report import report

    def left() -> float:
        return a.minutes * 60 - (clock() - begun)

    stops: list[Deadline] = []
    with _signals(stops):
        run = Run(a, scratch)
        deadline = Deadline(left() - a.tail, clock=clock)
        stops.append(deadline)
        failure = run.train(deadline, clock() - begun)
    print(run.summary(), flush=True)
    if deadline.stopped:
        print(f"course: stopped by a signal; {a.out / 'prior'} is readable", flush=True)
        return 143
    report(a.out / "gpu.md", run.facts(), left)
    state = f"training failed ({failure})" if failure else "done"
    there = ", ".join(sorted(f.name for f in a.out.iterdir()))
    print(f"course: {state} after {clock() - begun:.0f} s; {a.out} holds {there}", flush=True)
    return 1 if failure else 0


class _signals:
    """While inside, SIGTERM and SIGINT end the run at its next step, or at once before it has begun and when they come twice."""

    def __init__(self, stops: list[Deadline]) -> None:
        self.stops, self.before = stops, {}  # type: list[Deadline], dict[int, Any]

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self.before = {s: signal.signal(s, self._stop) for s in (signal.SIGTERM, signal.SIGINT)}

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, _: object) -> None:
        if not self.stops or self.stops[0].stopped:
            raise SystemExit(128 + number)
        self.stops[0].stop()


class Run:
    """The training of the first guess, from the archive to OUT."""

    def __init__(self, a: argparse.Namespace, scratch: Path) -> None:
        import torch

        from bozzetto.data.decimated import unpacked
        from bozzetto.data.objects import Packed
        from bozzetto.kernels import pool
        from bozzetto.priors.first_guess import load, save
        from bozzetto.priors.loading import MINI
        from bozzetto.training import first_guess, replay
        from bozzetto.training.loop import samples_seen

        self.a, self.on_gpu = a, torch.cuda.is_available()
        self.device = torch.device("cuda" if self.on_gpu else "cpu")
        print(f"{torch.cuda.get_device_name() if self.on_gpu else 'no GPU: on the CPU, slowly'}; torch {torch.__version__}", flush=True)
        a.out.mkdir(parents=True, exist_ok=True)
        start = None if a.widths or a.start == "none" else MINI / "first_guess" if a.start == "mini" else Path(a.start)
        self.start, self.begun = start, samples_seen(start) if start else 0
        network = load(start).requires_grad_(True).train() if start else _from_nothing(a)
        save(network, a.out / "prior")
        self.network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        folder = scratch
        if a.objects.is_dir():
            folder = a.objects
        else:
            unpacked(a.objects, scratch)
        depths = network.config.depths
        pictures = first_guess.Pictures(folder, seed=a.seed, batch=CHUNK, small=0.75, procedural=0.6, depths=depths)
        pictures[0]  # compiles the kernels once, not once a worker
        pictures.objects = replay.InARow(pictures.objects, a.seed)  # type: ignore[assignment]
        self.workers = max(1, pool.num_threads() - 2) if a.workers is None else a.workers
        self.feed = replay.Feed(pictures, CHUNK, self.workers, self.begun - self.begun % CHUNK)
        gigabytes = a.pool_gb or (24.0 if self.on_gpu else 1.0)
        self.pool = replay.Pool(gigabytes, self.device, torch.Generator().manual_seed(a.seed))
        self.groups: dict[int, dict[str, list[Any]]] = {}

        def draw() -> None:
            packed = Packed(folder)
            self.groups = {size: first_guess.validation_samples(packed, pictures.carved, size, depths) for size in (64, 128)}

        self.drawing = threading.Thread(target=draw, daemon=True)  # twenty seconds that training need not wait for
        self.drawing.start()
        self.batches: replay.Replay | None = None
        self.scores: dict[str, float] = {}
        self.before: dict[str, float] = {}
        self.seconds = 0.0

    def train(self, deadline: Deadline, waited: float) -> str:
        """Until the deadline; returns what went wrong, or nothing."""
        from bozzetto.training import first_guess
        from bozzetto.training.loop import LoopSettings, train
        from bozzetto.training.replay import Replay

        a, began = self.a, time.monotonic()
        self.batches = Replay(self.feed.ready, self.pool, deadline, batch=a.batch, reuse=a.reuse, fill=FILL * a.batch)
        settings = LoopSettings(batch=a.batch, lr=a.lr, seed=a.seed, save_every=-1.0, workers=self.workers, mixed_precision=a.precision)
        if a.compile:
            self.network.compile()
        print(f"training begins {waited:.0f} s after the start, for {deadline.seconds:.0f} s; {self.workers} workers draw", flush=True)
        failure = ""
        try:
            train(
                self.network, self.batches, first_guess.loss, a.out, settings, lambda n: self.look(n, deadline), None, self.begun, deadline
            )
        except (FloatingPointError, RuntimeError) as error:  # numbers that run away, a full GPU, a dead worker
            failure = str(error).splitlines()[0]
            print(f"training failed: {failure}", flush=True)
        self.seconds = time.monotonic() - began
        self.feed.close()
        return failure

    def look(self, average: Any, deadline: Deadline) -> dict[str, float]:
        """Save the averaged weights, then judge them, unless there is no time for it."""
        from bozzetto.priors.first_guess import load, save
        from bozzetto.training import first_guess

        save(average, self.a.out / "prior")
        assert self.batches is not None
        spent = {"share": deadline.share(), "drawn": float(len(self.pool)), "uses": self.batches.used / max(len(self.pool), 1)}
        if deadline.share() >= 1 and not deadline.stopped:
            self.drawing.join(timeout=10)  # a slow machine may still be at it; earlier on, training goes before
        if deadline.stopped or not self.groups:
            return spent

        def judged(network: Any) -> dict[str, float]:
            return {f"{k}_{size}": v for size, group in self.groups.items() for k, v in first_guess.score(network, group).items()}

        if self.start and not self.before:
            self.before = judged(load(self.start, device=self.device))
        self.scores = judged(average)
        shown = self.groups[128]["furniture"][::6] + self.groups[128]["families"][::6]
        if len(shown) > 1:
            _write_png(first_guess.contact_sheet(average, shown), self.a.out / "samples.png")
        return spent | self.scores

    def facts(self) -> dict[str, str]:
        """What `gpu.md` says of the training."""
        assert self.batches is not None
        seconds = max(self.seconds, 1e-9)
        return {
            "training": f"{self.seconds:.0f} s, batches of {self.a.batch}, begun from "
            + (f"{self.begun} samples" if self.begun else "nothing"),
            "samples trained": f"{self.batches.used}, {self.batches.used / seconds:.0f} a second",
            "pictures drawn": f"{len(self.pool)} by {self.workers} workers, {len(self.pool) / seconds:.0f} a second",
            "uses of a picture": f"{self.batches.used / max(len(self.pool), 1):.1f} on average, at most {self.a.reuse:g}",
            "scores": ", ".join(f"{k} {v:.4f}" for k, v in self.scores.items() if "iou" in k) or "none",
            "of the weights it began from": ", ".join(f"{k} {v:.4f}" for k, v in self.before.items() if "iou" in k) or "none",
        }

    def summary(self) -> str:
        return "; ".join(f"{name}: {value}" for name, value in self.facts().items())


def _from_nothing(a: argparse.Namespace) -> Any:
    """A network whose weights are drawn."""
    import torch

    from bozzetto.priors.first_guess import FirstGuess, FirstGuessConfig

    with torch.random.fork_rng():
        torch.manual_seed(a.seed)  # noqa: TID251 — layers draw their initial weights from the global state
        return FirstGuess(FirstGuessConfig(widths=tuple(a.widths)) if a.widths else FirstGuessConfig())


def _write_png(sheet: Any, path: Path) -> None:
    from PIL import Image

    from bozzetto.files import replacing

    with replacing(path) as part:
        Image.fromarray((sheet.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()).save(part, format="PNG")


if __name__ == "__main__":
    sys.exit(main())
