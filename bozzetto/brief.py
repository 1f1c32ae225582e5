# SPDX-License-Identifier: Apache-2.0
"""`@brief`: a dataclass of tensors says the shapes of what it holds, not the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")
LONG = 60  # characters that a value may take


def brief(cls: type[T]) -> type[T]:
    """For a dataclass: `Mesh(vertices=float32 (5002, 3), faces=int64 (10000, 3), uv=None)`. Fields that begin with _ are left out."""
    cls.__repr__ = _repr  # type: ignore[method-assign]
    return cls


def _repr(self: Any) -> str:
    parts = (f"{f.name}={_said(getattr(self, f.name))}" for f in fields(self) if not f.name.startswith("_"))
    return f"{type(self).__name__}({', '.join(parts)})"


def _said(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if is_dataclass(value) and not isinstance(value, type):
        return repr(value)
    text = repr(value)
    if len(text) <= LONG:
        return text
    if isinstance(value, Mapping):
        return f"{{{', '.join(map(str, value))}}}" if len(", ".join(map(str, value))) <= 2 * LONG else f"{len(value)} items"
    return f"{len(value)} items" if isinstance(value, Sequence) and not isinstance(value, str) else text[: LONG - 3] + "..."
