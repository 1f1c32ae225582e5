# SPDX-License-Identifier: Apache-2.0
"""Folders of this project's own small networks: `config.json`, which says the network's shape, and `model.safetensors`, in float16."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from bozzetto.errors import InputError
from bozzetto.files import replacing, write_atomically
from bozzetto.priors.components import component, read_json, tuples

N = TypeVar("N", bound=nn.Module)


def load(folder: str | Path, build: Callable[[dict[str, Any]], N], device: str | torch.device, mend: str) -> N:
    """The network in a folder, in float32, frozen.

    build   makes it of its settings
    mend    what to give in place of a folder that is not there
    raises  InputError, one sentence, for a missing, truncated, pickled or mis-shaped file
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; {mend} one that holds config.json and model.safetensors")
    settings: dict[str, Any] = tuples(read_json(folder / "config.json"))
    return component(folder, lambda: build(settings), torch.float32, device)


def save(network: nn.Module, config: Any, folder: str | Path) -> None:
    """Write the folder that `load` reads, each file by rename; config is a dataclass."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "model.safetensors") as part:
        save_file({k: v.detach().half().contiguous() for k, v in network.state_dict().items()}, part)
    write_atomically(folder / "config.json", (json.dumps(asdict(config), indent=1) + "\n").encode())


def digest(folder: str | Path) -> str:
    """The first 16 hex digits of the SHA-256 of the weights: which network made an asset."""
    return hashlib.sha256((Path(folder) / "model.safetensors").read_bytes()).hexdigest()[:16]
