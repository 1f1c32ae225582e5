# SPDX-License-Identifier: Apache-2.0
"""Tensors of a pickled checkpoint (`.ckpt`), read without running anything that is in it."""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bozzetto.errors import InputError

CALLBACKS = tuple(
    f"{package}.callbacks.{name}"
    for package in ("pytorch_lightning", "lightning.pytorch")
    for name in ("model_checkpoint.ModelCheckpoint", "early_stopping.EarlyStopping", "lr_monitor.LearningRateMonitor")
)


class _Nothing:
    """What stands for a callback's class; it has no state and does nothing."""


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by name, mapped from disk where the file allows it.

    raises  InputError for what is missing, damaged, holds code or no tensors
    """
    from pickle import UnpicklingError

    if not path.is_file():
        raise InputError(f"{path}: no such file; give a .ckpt")
    stubs: list[Any] = [(_Nothing, name) for name in CALLBACKS]
    try:
        with torch.serialization.safe_globals(stubs), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is TorchScript, which the error says
            raw = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"holds {named[1]}, which could be code" if named else "is no checkpoint, or holds what could be code"
        raise InputError(f"{path}: {what}, and is not opened; give the file that the authors published") from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        line = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: is no whole checkpoint of tensors ({line}); download it again") from None
    state = raw.get("state_dict", raw) if isinstance(raw, dict) else {}
    if not isinstance(state, dict) or not any(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path}: holds no state_dict of tensors; give the file that the authors published")
    return {str(k): v for k, v in state.items() if isinstance(v, Tensor)}
