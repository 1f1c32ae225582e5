# SPDX-License-Identifier: Apache-2.0
"""What a run takes, told before it is spent: memory from above, time about.

A prior is opened on torch's meta device (`loading.load(..., device="meta")`), where tensors have sizes and no numbers, so that none of
its weights is read. It is asked there as the run will ask it, and each operation is looked at: FLOP of products, and bytes that are
alive at once. Time is FLOP / rate + operations x delay; rate and delay are this machine's, measured once a process in a third of a second.

Attention is counted as it is computed, without its matrix (FlashAttention, arXiv:2205.14135); where gradients are asked for, with it.
"""

from __future__ import annotations

import functools
import statistics
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bozzetto import memory
from bozzetto.camera import orbit
from bozzetto.errors import InputError
from bozzetto.priors.latent import LatentPrior
from bozzetto.views import Views

GB = 1e9
LIBRARIES = 0.9e9
"""bytes that Python, torch, diffusers and transformers take before any weight; measured .6 to .75"""
SLACK = 1.4
"""times what is alive at once in each kind of call, all kinds together: allocators keep what was freed in other sizes; measured 1.3"""
CONTEXT = 0.6e9
"""bytes of a GPU that CUDA and its libraries take; not measured here"""
REFERENCE = 50e9
"""`speed("cpu").rate` of the machine on which `Plan.rest` was measured"""

clock: Callable[[], float] = time.perf_counter
"""by which this machine's speed is measured; `benchmarks.plans` takes the processor's time"""


class Count(NamedTuple):
    """What some work takes.

    flop        of products: two for a multiplication and its addition
    operations  of torch
    working     bytes alive at once at most, apart from what was there before
    """

    flop: float = 0.0
    operations: float = 0.0
    working: float = 0.0


class Asked(NamedTuple):
    """What a run asks of a diffusion prior.

    calls    denoised samples; guidance asks for each of them twice
    batch    samples in a call
    decoded  pictures decoded
    pulled   pictures encoded with their gradients, as score distillation does
    taught   samples from which the network, or a change of it, learns
    """

    calls: float = 0
    batch: int = 1
    decoded: float = 0
    pulled: float = 0
    taught: float = 0

    def and_then(self, other: Asked) -> Asked:
        """Both, one after the other."""
        return Asked(
            self.calls + other.calls,
            max(self.batch, other.batch),
            self.decoded + other.decoded,
            self.pulled + other.pulled,
            self.taught + other.taught,
        )


class Speed(NamedTuple):
    """FLOP a second of layers, and seconds that each operation takes beside."""

    rate: float
    delay: float


@dataclass(frozen=True)
class Plan:
    """What a run takes.

    ram         bytes of the process at most, from above
    vram        bytes of the device at most, from above; 0 on a CPU
    weights     bytes of the networks, wherever they are
    flop, operations  of the networks
    rest        seconds of everything else, on the machine of REFERENCE; None where they were not measured
    device, dtype     where and in what the networks compute
    """

    ram: float = LIBRARIES
    vram: float = 0.0
    weights: float = 0.0
    flop: float = 0.0
    operations: float = 0.0
    rest: float | None = 0.0
    device: str = "cpu"
    dtype: torch.dtype = torch.float32

    def plus(self, prior: Any, asked: Asked, *, is_offloaded: bool = False) -> Plan:
        """The same with a diffusion prior.

        prior         on the meta device
        is_offloaded  its networks but the codec wait in the machine's memory
        """
        b = asked.batch
        x = torch.empty(b, *prior.shape, device="meta")
        with torch.no_grad():
            cond = prior.fullest() if isinstance(prior, LatentPrior) else prior.condition()
            call, decode = count(lambda: prior.denoiser.denoise(x, 1.0, cond)), count(lambda: prior.decode(x))
        pull = count(lambda: _pull(prior, b)) if asked.pulled else Count()
        lesson = count(lambda: _teach(prior, x, cond)) if asked.taught else Count()
        times, counts = (asked.calls / b, asked.decoded / b, asked.pulled / b, asked.taught / b), (call, decode, pull, lesson)
        flop, operations = (sum(n * c[k] for n, c in zip(times, counts, strict=True)) for k in (0, 1))
        working = SLACK * sum(c.working for c in counts)
        weights, codec = size_of(prior), size_of(getattr(prior, "codec", None))
        ram, vram = weights + working, 0.0
        if self.has_memory:
            ram, vram = (weights if is_offloaded else 0.0), (codec if is_offloaded else weights) + working + (0 if self.vram else CONTEXT)
        return replace(
            self,
            ram=self.ram + ram,
            vram=self.vram + vram,
            weights=self.weights + weights,
            flop=self.flop + flop,
            operations=self.operations + operations,
        )

    @property
    def has_memory(self) -> bool:
        """Whether the device has memory of its own."""
        return self.device.startswith("cuda")

    @property
    def seconds(self) -> float | None:
        """On this machine; None where it was not measured."""
        if self.rest is None:
            return None
        networks = 0.0
        if self.flop:
            here = speed(self.device, self.dtype)
            networks = self.flop / here.rate + self.operations * here.delay
        return networks + (self.rest * REFERENCE / speed("cpu", torch.float32).rate if self.rest else 0.0)

    def sentence(self) -> str:
        """What a person is told before the work."""
        seconds = self.seconds
        needed = f"needs about {self._memory()}"
        return f"{needed}; how long was not measured" if seconds is None else f"{needed} and {duration(seconds)} on this machine"

    def lacking(self) -> str:
        """What there is too little of, in words; empty where the run fits."""
        total, available = memory.machine()
        if available is not None and self.ram > (there := available + memory.resident()):
            return f"needs about {_gb(self.ram)} of memory, and {_gb(there)} of {_gb(total or there)} are free"
        if self.has_memory:
            free, total = torch.cuda.mem_get_info(self.device)
            if self.vram > (there := free + torch.cuda.memory_reserved(self.device)):
                return f"needs about {_gb(self.vram)} of {self.device}'s memory, and {_gb(there)} of {_gb(total)} are free"
        return ""

    def _memory(self) -> str:
        return (
            f"{_gb(self.vram)} of {self.device}'s memory, {_gb(self.ram)} of this machine's," if self.vram else f"{_gb(self.ram)} of memory"
        )


def agreed(make: Callable[..., Plan], smaller: Iterable[tuple[str, Mapping[str, Any]]]) -> Plan:
    """What `make` plans, where this machine has it.

    smaller  choices that need less, as flags and as arguments of `make`; each is added to those before it
    raises   InputError that names the first of them that fits, or says that none does
    """
    plan = make()
    if not (lacking := plan.lacking()):
        return plan
    flags: list[str] = []
    how: dict[str, Any] = {}
    for flag, arguments in smaller:
        flags.append(flag)
        how |= arguments
        less = make(**how)
        if not less.lacking():
            raise InputError(f"{lacking}; with {' '.join(flags)} it needs {less._memory()}")
    tried = f", not even with {' '.join(flags)}" if flags else ""
    raise InputError(f"{lacking}, which does not suffice{tried}; close other programs, or take a machine with more")


def duration(seconds: float) -> str:
    """In words."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _gb(count: float) -> str:
    return f"{count / GB:.1f} GB"


def _pull(prior: Any, batch: int) -> None:
    """As score distillation encodes a rendering."""
    count_of = batch * (prior.shape[0] if len(prior.shape) == 4 else 1)
    with torch.enable_grad():
        rgb, alpha, depth, normal = (
            torch.empty(count_of, prior.size, prior.size, n, device="meta", requires_grad=True) for n in (3, 1, 1, 3)
        )
        cameras = orbit([0.0] * count_of, 0.0, 2.0, size=prior.size, fov=0.7)
        prior.encode(Views(rgb, alpha, depth, normal, cameras)).sum().backward()


def _teach(prior: Any, x: Tensor, cond: Any) -> None:
    """As what learns is taught: a sample, and back through all layers."""
    with torch.enable_grad():
        prior.denoiser.denoise(x.clone().requires_grad_(), 1.0, cond).sum().backward()


def size_of(network: object) -> int:
    """Bytes of all parameters and buffers; 0 of what is no network."""
    return sum(x.nbytes for x in (*network.parameters(), *network.buffers())) if isinstance(network, nn.Module) else 0


class _Attention(TorchFunctionMode):
    """Attention without its matrix, which the meta device would make."""

    flop = 0.0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention or torch.is_grad_enabled():
            return func(*args, **(kwargs or {}))
        q, k, v = (*args, *((kwargs or {}).get(name) for name in ("query", "key", "value")[len(args) :]))[:3]
        self.flop += 2.0 * q.shape[:-1].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1])
        return q.new_empty(*q.shape[:-1], v.shape[-1])


class _Alive(TorchDispatchMode):
    """Counts operations, FLOP, and the bytes of what they make for as long as it lives.

    Who multiplies may lay out anew what it reads and writes (oneDNN does): while it works, so much is alive beside.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flop, self.operations, self.now, self.most = 0.0, 0, 0, 0
        self.known: dict[int, tuple[int, Any]] = {}  # of a storage: its bytes, 0 if it was there before, and what tells its end

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        read = _tensors(args)
        for x in read:
            self._know(x, is_new=False)
        out = func(*args, **kwargs)
        made = _tensors((out,))
        for x in made:
            self._know(x, is_new=True)
        self.operations += 1
        beside = 0
        if func.overloadpacket in flop_registry:
            self.flop += flop_registry[func.overloadpacket](*args, **kwargs, out_val=out)
            beside = sum(x.nbytes for x in (*read, *made))
        self.most = max(self.most, self.now + beside)
        return out

    def _know(self, x: Tensor, is_new: bool) -> None:
        storage = x.untyped_storage()
        key = storage._cdata
        if key not in self.known:
            size = storage.nbytes() if is_new else 0
            self.now += size
            self.known[key] = size, weakref.ref(storage, lambda _: self._forget(key))

    def _forget(self, key: int) -> None:
        self.now -= self.known.pop(key)[0]


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """Those among values, and among lists of them."""
    return [x for value in values for x in (value if isinstance(value, list | tuple) else (value,)) if isinstance(x, Tensor)]


def count(work: Callable[[], object]) -> Count:
    """What `work` takes, done on tensors of the meta device."""
    with _Attention() as attention, _Alive() as alive:
        work()
    return Count(alive.flop + attention.flop, alive.operations, alive.most)


class _Block(nn.Module):
    """A layer of the kinds that the networks are made of: normalisation, convolution, attention over the cells."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.GroupNorm(8, width), nn.Conv2d(width, width, 3, padding=1)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = x + self.conv(F.silu(self.norm(x)))
        q, k, v = self.qkv(h.flatten(2).mT).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
        y: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return y


@functools.cache
@torch.no_grad()
def speed(device: str, dtype: torch.dtype) -> Speed:
    """Of a device, by two blocks: one so small that only its operations count, and one of an ordinary size."""
    counts, took = [], []
    for width, side in ((8, 2), (128, 16)):
        with torch.device("meta"):
            block = _Block(width).to(dtype)
            counts.append(count(functools.partial(block, torch.empty(1, width, side, side, dtype=dtype))))
        block = block.to_empty(device=device)
        for p in block.parameters():
            p.fill_(0.5 / width)
        took.append(_usual(functools.partial(block, torch.ones(1, width, side, side, device=device, dtype=dtype)), device))
    delay = took[0] / counts[0].operations
    return Speed(counts[1].flop / max(took[1] - delay * counts[1].operations, 0.1 * took[1]), delay)


def _usual(work: Callable[[], object], device: str, budget: float = 0.15) -> float:
    """Seconds of the median of some runs within a budget, after one that warms up."""

    def once() -> float:
        started = clock()
        work()
        if device != "cpu":
            torch.accelerator.synchronize(device)
        return clock() - started

    once()
    took, end = [once()], clock() + budget
    while clock() < end:
        took.append(once())
    return statistics.median(took)
