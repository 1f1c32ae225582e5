# SPDX-License-Identifier: Apache-2.0
"""Dataclasses of tensors as named tensors, and back: what a stage of a run hands on is typed in code, and one safetensors file on disk.

Fields may be tensors, numbers (0-dimensional float64 on disk), None where their type allows it (absent on disk), dicts of tensors or
numbers by name, or such dataclasses again. Names of parts are joined by dots: `state.sdf`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
T = TypeVar("T")


def pack(value: Any) -> Tensors:
    """Named tensors of a dataclass, or of a dict of tensors.

    raises  TypeError for a field that is none of these
    """
    parts = value if isinstance(value, Mapping) else {f.name: getattr(value, f.name) for f in fields(value)}
    out: Tensors = {}
    for name, part in parts.items():
        if isinstance(part, Tensor):
            out[name] = part
        elif isinstance(part, bool | int | float):
            out[name] = torch.tensor(float(part), dtype=torch.float64)
        elif isinstance(part, Mapping) or is_dataclass(part):
            out |= {f"{name}.{k}": v for k, v in pack(part).items()}
        elif part is not None:
            raise TypeError(f"{type(value).__name__}.{name}: expected a tensor, a number or a dataclass of them, got {type(part).__name__}")
    return out


def unpack(kind: type[T], tensors: Tensors) -> T:
    """The inverse of `pack`, for a dataclass (or dict) of that type."""
    if not is_dataclass(kind):
        return tensors  # type: ignore[return-value]
    made: dict[str, Any] = {}
    for name, hint in _hints(kind).items():
        if name in tensors:
            made[name] = _number(hint, tensors[name])
            continue
        inner = below(name, tensors)
        if get_origin(hint) is dict:
            made[name] = {k: _number(get_args(hint)[1], v) for k, v in inner.items()}
        elif inner:
            made[name] = unpack(hint, inner)
        elif type(None) in get_args(hint):
            made[name] = None
    return kind(**made)


def below(prefix: str, tensors: Tensors) -> Tensors:
    """Those whose name begins with the prefix and a dot, without these."""
    return {k.removeprefix(f"{prefix}."): v for k, v in tensors.items() if k.startswith(f"{prefix}.")}


def _number(hint: Any, tensor: Tensor) -> Any:
    kinds = set(get_args(hint) or [hint]) & {bool, int, float}  # `float | None` is a float where it is there
    return kinds.pop()(tensor.item()) if len(kinds) == 1 else tensor


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in fields(kind)}
