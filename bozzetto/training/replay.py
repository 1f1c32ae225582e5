# SPDX-License-Identifier: Apache-2.0
"""Pictures drawn by many processes, kept on the device and used several times: for a GPU that learns faster than CPUs draw.

Worker processes draw chunks of pictures; a pool on the device holds the latest of them; every batch is drawn at random from the whole
pool, mirrored and with its colour channels exchanged at random. A picture is used `reuse` times on average at most: where the
workers are too slow for that, the GPU waits.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bozzetto.training.deadline import Deadline
from bozzetto.training.stream import Stream
from bozzetto.workers import end_with_parent

VIEWS = 4  # pictures of an object in a row: making or reading it costs as much as drawing one or two

Batch = dict[str, Tensor]


class InARow:
    """A stream whose object is the same for `VIEWS` samples in a row: which one is a function of i alone, as before."""

    def __init__(self, stream: Stream[Any], seed: int) -> None:
        self.stream, self.seed = stream, seed

    def draw(self, i: int, rng: np.random.Generator) -> Any:
        first = i - i % VIEWS
        return self.stream.draw(first, np.random.default_rng([self.seed, 2, first]))


class Feed:
    """Chunks of samples from `first` on, in whatever order the workers are done with them.

    Read by a thread, so that whoever trains never waits for a worker. They travel through pipes as NumPy arrays: shared memory
    is small in many containers. An exception of a worker's is raised by `ready`.
    """

    def __init__(self, data: Dataset[Batch], chunk: int, workers: int, first: int = 0) -> None:
        self.chunks: queue.Queue[Any] = queue.Queue(maxsize=128)
        self.error: Exception | None = None
        self.stopped = threading.Event()
        loader: DataLoader[Any] = DataLoader(
            data,
            chunk,
            sampler=range(first, 1 << 40),
            num_workers=workers,
            collate_fn=_stacked,
            multiprocessing_context="spawn" if workers else None,
            worker_init_fn=end_with_parent,
            in_order=False,
        )
        with _one_thread():
            chunks = iter(loader)  # starts the workers
        self.thread = threading.Thread(target=self._read, args=(chunks,), daemon=True)
        self.thread.start()

    def ready(self, seconds: float) -> list[Batch]:
        """All chunks that are there; if there is none, the first that comes within so many seconds."""
        found: list[Any] = []
        try:
            while True:
                found.append(self.chunks.get(timeout=0 if found else seconds) if seconds else self.chunks.get_nowait())
        except queue.Empty:
            pass
        if not found and self.error is not None:
            raise RuntimeError(f"the drawing of pictures failed: {self.error}") from self.error
        return [{k: torch.from_numpy(v) for k, v in chunk.items()} for chunk in found]

    def close(self) -> None:
        """Stop the workers; waits some seconds for them."""
        self.stopped.set()
        for _ in range(50):
            with contextlib.suppress(queue.Empty):
                while True:  # it may stand before a full queue
                    self.chunks.get_nowait()
            self.thread.join(timeout=0.2)
            if not self.thread.is_alive():
                return

    def _read(self, chunks: Iterator[Any]) -> None:
        try:
            for chunk in chunks:
                self.chunks.put(chunk)
                if self.stopped.is_set():
                    return
        except Exception as error:
            self.error = error


class Pool:
    """The latest samples, by size of their pictures, on one device.

    gigabytes  that it may take; sizes share them evenly (there are two)
    """

    def __init__(self, gigabytes: float, device: torch.device, generator: torch.Generator) -> None:
        self.bytes, self.device, self.generator = gigabytes * 1e9 / 2, device, generator
        self.rings: dict[int, Batch] = {}
        self.added: dict[int, int] = {}

    def __len__(self) -> int:
        """Samples that were ever added."""
        return sum(self.added.values())

    def add(self, chunk: Batch) -> None:
        """Samples of one size take the places of the oldest."""
        size, count = chunk["picture"].shape[-1], len(chunk["picture"])
        if size not in self.rings:
            one = sum(v[0].numel() * v.element_size() for v in chunk.values())
            room = max(count, int(self.bytes / one))
            self.rings[size] = {k: torch.empty(room, *v.shape[1:], dtype=v.dtype, device=self.device) for k, v in chunk.items()}
            self.added[size] = 0
        room = len(self.rings[size]["picture"])
        at = (torch.arange(count) + self.added[size]).remainder(room).to(self.device)
        for key, ring in self.rings[size].items():
            ring[at] = chunk[key].to(self.device)
        self.added[size] += count

    def draw(self, count: int) -> Batch:
        """A batch of one size, a size as often as it was added."""
        sizes = sorted(self.added)
        shares = torch.tensor([float(self.added[s]) for s in sizes])
        size = sizes[int(torch.multinomial(shares, 1, generator=self.generator))]
        held = min(self.added[size], len(self.rings[size]["picture"]))
        at = torch.randint(held, (count,), generator=self.generator).to(self.device)
        return {k: ring[at] for k, ring in self.rings[size].items()}


class Replay(Iterator[Batch]):
    """Batches for `training.loop` until the deadline.

    fill   samples that must be there before the first batch
    reuse  uses of a sample on average, at most
    used   training samples given out so far
    """

    def __init__(
        self, ready: Callable[[float], list[Batch]], pool: Pool, deadline: Deadline, *, batch: int, reuse: float, fill: int
    ) -> None:
        self.ready, self.pool, self.deadline = ready, pool, deadline
        self.batch, self.reuse, self.fill, self.used = batch, reuse, fill, 0

    def gather(self, seconds: float) -> None:
        """Put into the pool what the workers have made; wait so long where they have nothing."""
        for chunk in self.ready(seconds):
            self.pool.add(chunk)

    def may_draw(self) -> bool:
        return len(self.pool) >= self.fill and self.used + self.batch <= self.reuse * len(self.pool)

    def __next__(self) -> Batch:
        self.gather(0)
        while not self.may_draw():
            if self.deadline.share() >= 1:
                raise StopIteration
            self.gather(0.5)
        self.used += self.batch
        return varied(self.pool.draw(self.batch), self.pool.generator)


def varied(batch: Batch, generator: torch.Generator) -> Batch:
    """Half of the samples mirrored, half of them with their colour channels in another order: the truth behind them alike."""
    count, device = len(batch["picture"]), batch["picture"].device
    mirror = (torch.rand(count, generator=generator) < 0.5).to(device)
    orders = torch.tensor(list(permutations(range(3))))
    which = torch.randint(len(orders), (count,), generator=generator) * (torch.rand(count, generator=generator) < 0.5)
    order = orders[which].to(device)
    picture, points = _flipped(batch["picture"], mirror), batch["points"].clone()
    rgb = picture[:, :3].gather(1, order[:, :, None, None].expand_as(picture[:, :3]))
    points[..., 0] = torch.where(mirror[:, None], 1 - points[..., 0], points[..., 0])
    return batch | {
        "picture": torch.cat([rgb, picture[:, 3:]], 1),
        "occupancy": _flipped(batch["occupancy"], mirror),
        "points": points,
        "colour": batch["colour"].gather(2, order[:, None].expand_as(batch["colour"])),
    }


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Processes started within compute with one thread each: there are as many of them as cores."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    yield
    del os.environ["OMP_NUM_THREADS"]
    if before is not None:
        os.environ["OMP_NUM_THREADS"] = before


def _flipped(x: Tensor, mirror: Tensor) -> Tensor:
    return torch.where(mirror.view(-1, 1, 1, 1), x.flip(-1), x)


def _stacked(samples: list[Batch]) -> dict[str, np.ndarray]:
    return {k: np.stack([s[k].numpy() for s in samples]) for k in samples[0]}
