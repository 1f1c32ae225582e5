# SPDX-License-Identifier: Apache-2.0
"""One loop that trains every embedded prior: resumable after a kill, the same on a CPU, one GPU or many.

The data are a function of the sample's index, so where a run stands is one number, and resuming continues the very
sequence. All state (weights, their moving average, the optimiser's moments) is one safetensors file, written by rename.
Accelerate places the network and the batches; nothing here knows a device. A run with a `Deadline` ends by the clock instead.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from bozzetto.files import replacing
from bozzetto.training.deadline import Deadline
from bozzetto.training.muon import Muon
from bozzetto.workers import end_with_parent


@dataclass(frozen=True)
class LoopSettings:
    """How long and how fast."""

    samples: int = 1_000_000
    """training pictures in all; a resumed run counts those it has seen"""
    batch: int = 32
    lr: float = 0.02
    """step of the orthogonalised matrices (Muon); vectors get `vector_lr`; 0 gives `vector_lr` to all: Adam"""
    vector_lr: float = 1e-3
    warmup: int = 200
    """steps"""
    cooldown: float = 0.2
    """last share of the samples, over which the rates fall linearly to nothing"""
    ema: float = 0.998
    """decay a step of the moving average of the weights, reached gradually"""
    seed: int = 0
    save_every: float = 300.0
    """seconds between checkpoints; below 0 keeps none"""
    validate_every: int = 20_000
    """samples"""
    workers: int = 1
    mixed_precision: Literal["auto", "bf16", "no"] = "auto"
    """auto is bf16 where the hardware computes in it"""


def rate(settings: LoopSettings, samples: int, begun: int = 0) -> float:
    """The learning rates' factor in [0, 1] after so many samples: warm-up from where the run was begun, plateau, linear cooldown."""
    up = ((samples - begun) / settings.batch + 1) / max(settings.warmup, 1)
    down = (settings.samples - samples) / max(settings.cooldown * settings.samples, 1)
    return max(0.0, min(1.0, up, down))


def precision(asked: str) -> str:
    """What Accelerate is told: `auto` is bf16 on a GPU or a CPU that has it. A CPU that has not emulates it, ten times slower."""
    if asked != "auto":
        return asked
    has_it = torch.cuda.is_bf16_supported(including_emulation=False) if torch.cuda.is_available() else _cpu_has_bf16()
    return "bf16" if has_it else "no"


def _cpu_has_bf16() -> bool:
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def train(
    network: nn.Module,
    data: Dataset[Any] | Iterator[dict[str, Tensor]],
    loss: Callable[[nn.Module, Any], tuple[Tensor, dict[str, Tensor]]],
    folder: Path,
    settings: LoopSettings,
    validate: Callable[[nn.Module], dict[str, float]],
    sheet: Callable[[nn.Module], Tensor] | None = None,
    begun: int = 0,
    deadline: Deadline | None = None,
) -> nn.Module:
    """Train to `settings.samples`, resuming from `folder` if a run is there; returns the network with averaged weights.

    data      sample i is a function of i alone; or an iterator of whole batches, for a run with a deadline
    loss      (network, batch) to a scalar and named parts
    validate  (averaged network) to named numbers, logged to TensorBoard and to `curve.jsonl`
    sheet     (averaged network) to a picture (3, H, W) in [0, 1] for TensorBoard
    begun     samples that the network has seen when no run is there: averaged weights whose run is lost. They are counted, the
              average begins with the weights, and the rates warm up anew, since the optimiser's moments are gone
    deadline  says when the run validates and ends and what its rates are, instead of the number of samples
    """
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision=precision(settings.mixed_precision))
    folder.mkdir(parents=True, exist_ok=True)
    average = deepcopy(network)
    optimiser = Muon(network, settings.lr, settings.vector_lr)
    seen, begun = _resume(folder / "state.safetensors", network, average, optimiser) or (begun, begun)
    network, optimiser = accelerator.prepare(network, optimiser)
    average = average.to(accelerator.device)
    loader = data if isinstance(data, Iterator) else _loader(data, settings, seen, accelerator)
    writer = _writer(folder / "log") if accelerator.is_main_process else None
    (folder / "settings.json").write_text(json.dumps(asdict(settings), indent=1))
    saved, started, first, gone = time.monotonic(), time.monotonic(), seen, 0.0

    def look() -> None:
        scores = validate(average)
        with open(folder / "curve.jsonl", "a") as curve:
            curve.write(json.dumps({"samples": seen, **{k: round(v, 5) for k, v in scores.items()}}) + "\n")
        print("validation " + "  ".join(f"{k} {v:.4f}" for k, v in scores.items()), flush=True)
        if writer is not None:
            for name, value in scores.items():
                writer.add_scalar(f"validation/{name}", value, seen)
            if sheet is not None:
                writer.add_image("samples", sheet(average), seen)

    last = False
    for batch in loader:
        batch = {k: v.to(accelerator.device) for k, v in batch.items()}
        getattr(optimiser, "optimizer", optimiser).scale = (  # accelerate's wrapper keeps attributes to itself
            rate(settings, seen, begun) if deadline is None else deadline.rate()
        )
        total, parts = loss(network, batch)
        accelerator.backward(total)
        if not torch.isfinite(total):
            raise FloatingPointError(f"training loss is {float(total)} after {seen} samples; lower --loop.lr or resume from an older state")
        optimiser.step()
        optimiser.zero_grad()
        seen += settings.batch
        _average(average, accelerator.unwrap_model(network), seen // settings.batch, settings.ema)
        if deadline is None:
            last = seen + settings.batch > settings.samples
            due = seen // settings.validate_every != (seen - settings.batch) // settings.validate_every
        else:
            share = deadline.share()
            due, last, gone = deadline.is_due(gone, share), share >= 1, share
        if accelerator.is_main_process:
            if seen // settings.batch % 20 == 0:
                speed = (seen - first) / (time.monotonic() - started)
                left = (settings.samples - seen) / max(speed, 1e-9) if deadline is None else (1 - gone) * deadline.seconds
                print(
                    f"{seen:>9} samples  {speed:6.1f}/s  {left / 3600:5.1f} h left  "
                    + "  ".join(f"{k} {float(v.detach()):.4f}" for k, v in parts.items()),
                    flush=True,
                )
                if writer is not None:
                    for name, value in parts.items():
                        writer.add_scalar(f"loss/{name}", float(value.detach()), seen)
            if due or last:
                look()
            if settings.save_every >= 0 and (time.monotonic() - saved > settings.save_every or last):
                _save(folder / "state.safetensors", accelerator.unwrap_model(network), average, optimiser, seen, begun)
                saved = time.monotonic()
        if last:
            break
    if deadline is not None and not last and accelerator.is_main_process:
        look()  # the batches ended before the time did
    return average


def _loader(data: Dataset[Any], settings: LoopSettings, seen: int, accelerator: Any) -> Iterable[dict[str, Tensor]]:
    """Batches of the samples from `seen` on, this process's share of each."""
    share = settings.batch // accelerator.num_processes
    order = [
        i
        for start in range(seen + accelerator.process_index * share, settings.samples, settings.batch)
        for i in range(start, start + share)
    ]
    context = "spawn" if settings.workers else None  # fork after OpenMP hangs
    return DataLoader(
        data,
        share,
        sampler=order,
        num_workers=settings.workers,
        multiprocessing_context=context,
        worker_init_fn=end_with_parent,
        drop_last=True,
    )


def _writer(folder: Path) -> Any:
    """A TensorBoard log; None where TensorBoard is not installed: the curve holds the numbers all the same."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        print("no tensorboard: no log beside curve.jsonl", flush=True)
        return None
    return SummaryWriter(str(folder))


def samples_seen(prior: Path) -> int:
    """How many samples the weights in a prior's folder have seen: the last number of `curve.jsonl`, in that folder (as embedded ones
    have it) or beside it (as runs have it); 0 without one."""
    curve = next((c for c in (prior / "curve.jsonl", prior.parent / "curve.jsonl") if c.is_file()), None)
    lines = curve.read_text().splitlines() if curve else []
    return int(json.loads(lines[-1])["samples"]) if lines else 0


@torch.no_grad()
def _average(average: nn.Module, network: nn.Module, step: int, decay: float) -> None:
    d = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - d)


def _save(path: Path, network: nn.Module, average: nn.Module, optimiser: Any, seen: int, begun: int) -> None:
    from safetensors.torch import save_file

    state = {f"network.{k}": v for k, v in network.state_dict().items()} | {f"average.{k}": v for k, v in average.state_dict().items()}
    inner = getattr(optimiser, "optimizer", optimiser)
    state |= {f"optimiser.{k}": v for k, v in inner.moments().items()}
    with replacing(path) as part:
        save_file({k: v.contiguous() for k, v in state.items()}, part, metadata={"samples": str(seen), "begun": str(begun)})


def _resume(path: Path, network: nn.Module, average: nn.Module, optimiser: Muon) -> tuple[int, int] | None:
    """Samples seen, and those the run was begun with; None where no run is there."""
    if not path.exists():
        return None
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        state = {k: file.get_tensor(k) for k in sorted(file.keys())}
        seen, begun = (int(file.metadata().get(key, 0)) for key in ("samples", "begun"))
    network.load_state_dict({k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")})
    average.load_state_dict({k.removeprefix("average."): v for k, v in state.items() if k.startswith("average.")})
    optimiser.load_moments({k.removeprefix("optimiser."): v for k, v in state.items() if k.startswith("optimiser.")})
    return seen, begun
