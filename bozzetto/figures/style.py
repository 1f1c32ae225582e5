# SPDX-License-Identifier: Apache-2.0
"""How every figure looks, and how it is written: matplotlib, imported at first use, and PNG with a palette, which is small."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bozzetto.errors import InputError
from bozzetto.files import replacing

INK, FAINT, PAPER = "#22313f", "#c9d1d9", "#ffffff"
BLUE, RED, GREEN, GOLD, VIOLET, TEAL = "#2a6fbb", "#d1495b", "#3c8d5a", "#e0a030", "#7a5195", "#2ba3a3"
COLOURS = (BLUE, RED, GREEN, GOLD, VIOLET, TEAL, "#8c6d4f", INK)

RC = {
    "figure.dpi": 110,
    "figure.facecolor": PAPER,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": "cycler('color', ['" + "','".join(COLOURS) + "'])",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "grid.color": "#e4e8ec",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


def pyplot() -> Any:
    """`matplotlib.pyplot`, without a screen, in this style. raises InputError where matplotlib is not installed"""
    try:
        import matplotlib
    except ImportError:
        raise InputError("the figures need matplotlib; pip install 'bozzetto[figures]'") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcdefaults()
    matplotlib.rcParams.update(RC)
    return plt


def field(axes: Any) -> None:
    """Axes of a map of the plane: square units, no ticks, a thin frame."""
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(FAINT)


def picture(axes: Any, values: np.ndarray, title: str = "") -> None:
    """One picture (H, W) or (H, W, 3) in [0, 1], frameless, its pixels visible."""
    axes.imshow(values, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    if title:
        axes.set_title(title, loc="center", fontsize=8, pad=3)


def save(figure: Any, path: Path, colours: int = 255) -> None:
    """PNG by rename; the same figure, the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.12, metadata={"Software": None})
    figure.clear()
    with replacing(path) as part, Image.open(buffer) as drawn:
        drawn.convert("RGB").quantize(colours, dither=Image.Dither.NONE).save(part, format="PNG", optimize=True)
