# SPDX-License-Identifier: Apache-2.0
"""What an evaluation says: Markdown tables, one line against the best baseline, and contact sheets."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from bozzetto.evaluate.two_faced import rate
from bozzetto.files import write_atomically

MODELS = ("lift", "inflated", "extruded", "nearest")
PICTURES = ("copied", "mean picture")
HEAD = (
    "| | Chamfer ↓ | F at 0.05 ↑ | IoU ↑ | normals ↑ | PSNR, dB ↑ | SSIM ↑ | sharpness | hidden colour ↓ | two faces ↓ |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
)
ROWS_A_SHEET, PAPER, HEIGHT = 10, 0.93, 128


def line(row: dict[str, Any]) -> str:
    """One object in one line."""
    methods = row["methods"]
    best = min((m for m in MODELS if m != "lift"), key=lambda m: methods[m]["chamfer"])
    mine, other = methods["lift"], methods[best]
    text = f"{row['name']}: Chamfer {mine['chamfer']:.3f} ({best} {other['chamfer']:.3f}), IoU {mine['iou']:.2f} ({other['iou']:.2f})"
    return text + (f", LIFT FAILED: {row['failed']['lift']}" if "lift" in row["failed"] else "")


def table(rows: Sequence[dict[str, Any]], title: str) -> str:
    """The whole report; groups apart, in the order of the rows."""
    parts = [title]
    for group in dict.fromkeys(row["group"] for row in rows):
        parts.append(_group(group, [row for row in rows if row["group"] == group]))
    return "\n\n".join(parts)


def _group(group: str, rows: list[dict[str, Any]]) -> str:
    truth = np.array([row["truth_sharpness"] for row in rows], np.float64)
    one = np.array([row["one_colour"] for row in rows], np.float64)

    def values(method: str, metric: str) -> np.ndarray:
        return np.array([row["methods"][method][metric] for row in rows], np.float64)

    def sharp(method: str) -> float:
        """Ratio of the means, since plain objects have no gradient to divide by."""
        known = np.isfinite(truth)
        return float(values(method, "sharpness")[known].mean() / truth[known].mean()) if truth[known].sum() > 0 else math.nan

    lines = [f"### {group}: {len(rows)} objects", "", HEAD]
    for method in (*MODELS, *PICTURES):
        views = f"{_both(values(method, 'psnr'), '.2f')} | {np.nanmean(values(method, 'ssim')):.3f} | {sharp(method):.2f}"
        if method in PICTURES:
            lines.append(f"| {method} | | | | | {views} | | |")
            continue
        c = values(method, "chamfer")
        shape = f"**{np.median(c):.4f}** ({c.mean():.4f}) | {values(method, 'f_score').mean():.3f} | {_both(values(method, 'iou'), '.3f')}"
        hue, faces = _both(values(method, "hidden_colour"), ".2f"), _faces(values(method, "two_faced"))
        lines.append(f"| {method} | {shape} | {values(method, 'normals').mean():.3f} | {views} | {hue} | {faces} |")
    lines.append(f"| one colour | | | | | | | | {_both(one, '.2f')} | |")
    lines += [
        "",
        "Chamfer: median (mean). IoU, PSNR: mean (median). Sharpness: mean gradient inside the mask, as a ratio to the truth's. "
        "Hidden colour: distance in CIE Lab's a and b at points of the true surface that the picture does not show, mean over an object's "
        'points, then mean (median) over objects; "one colour" is the mean of the picture\'s wholly covered pixels everywhere. '
        "Two faces: share of the objects, of those whose own two sides differ, whose side behind is more a second front than not; "
        "and the mean score, 0 as the truth, 1 a copy of the front.",
    ]

    chamfers = {m: float(np.median(values(m, "chamfer"))) for m in MODELS}
    ious = {m: float(values(m, "iou").mean()) for m in MODELS}
    psnrs = {m: float(np.nanmean(values(m, "psnr"))) for m in (*MODELS, *PICTURES)}
    c = min((m for m in chamfers if m != "lift"), key=chamfers.__getitem__)
    hues = values("lift", "hidden_colour")
    ratios = float(np.nanmean(hues) / np.nanmean(one)), float(np.nanmedian(hues) / np.nanmedian(one))
    i = max((m for m in ious if m != "lift"), key=ious.__getitem__)
    p = max((m for m in psnrs if m != "lift"), key=psnrs.__getitem__)
    failures = {m: [row for row in rows if m in row["failed"]] for m in MODELS}
    timed = [row for row in rows if "seconds" in row]
    if timed:
        seconds, peak = [row["seconds"] for row in timed], max(row["peak_gb"] for row in timed)
        tilt = np.abs([row["elevation_error_deg"] for row in timed])
        lines.append(
            f"A lift took {np.median(seconds):.1f} s (median; at most {max(seconds):.1f}) and {peak:.2f} GB at most; "
            f"its elevation is off by {np.median(tilt):.1f} degrees (median; mean {tilt.mean():.1f})."
        )
    failed = ", ".join(f"{m} {len(x)}" for m, x in failures.items() if x) or "none"
    lines.append(f"Failed, and counted as empty: {failed}.")
    lines += [f"- {m}, {row['source']}: {row['failed'][m]}" for m, found in failures.items() for row in found]
    lines += [
        "",
        f"**{group}, lift against the best baseline**: median Chamfer {100 * (chamfers['lift'] / chamfers[c] - 1):+.0f} % ({c}), "
        f"mean IoU x {ious['lift'] / max(ious[i], 1e-9):.2f} ({i}), mean PSNR {psnrs['lift'] - psnrs[p]:+.2f} dB ({p}), "
        f"sharpness {sharp('lift'):.2f} of the truth's, hidden colour x {ratios[0]:.2f} of one colour everywhere "
        f"(ratio of means; of medians x {ratios[1]:.2f}).",
    ]
    return "\n".join(lines)


def _faces(scores: np.ndarray) -> str:
    """Rate (mean score) of how many."""
    known = scores[np.isfinite(scores)]
    return f"**{rate(torch.from_numpy(known)):.0%}** ({known.mean():.2f}) of {len(known)}" if len(known) else "–"


def _both(x: np.ndarray, form: str) -> str:
    return f"**{np.nanmean(x):{form}}** ({np.nanmedian(x):{form}})"


# ---- contact sheets ----


def draw_row(path: Path, picture: np.ndarray, views: Sequence[Tensor], caption: str, best: str) -> None:
    """Picture (S, S, 4) uint8 and premultiplied views (128, 128, 4), side by side, under a caption."""
    paper = Image.new("RGBA", picture.shape[1::-1], (round(255 * PAPER),) * 3 + (255,))
    first = Image.alpha_composite(paper, Image.fromarray(picture)).convert("RGB").resize((HEIGHT, HEIGHT), Image.Resampling.BOX)
    tiles = [np.asarray(first)]
    for view in views:
        rgb = (view[..., :3] + (1 - view[..., 3:]) * PAPER).clamp(0, 1)
        tiles.append((rgb * 255).round().byte().numpy())
    whole = Image.new("RGB", (HEIGHT * len(tiles), HEIGHT + 14), (255, 255, 255))
    whole.paste(Image.fromarray(np.concatenate(tiles, 1)), (0, 14))
    draw = ImageDraw.Draw(whole)
    draw.text((3, 1), caption[:150], fill=(0, 0, 0))
    draw.text((HEIGHT * (len(tiles) - 1) + 3, HEIGHT), best, fill=(90, 90, 90))
    _write(path, whole)


def sheets(out: Path, rows: Sequence[tuple[str, Path]]) -> None:
    """`sheet_<group>_<n>.png`: picture, truth from the front, the side and behind, the lift likewise, the best baseline's side."""
    for old in out.glob("sheet_*.png"):
        old.unlink()
    for group in dict.fromkeys(g for g, _ in rows):
        files = [f for g, f in rows if g == group]
        for n in range(0, len(files), ROWS_A_SHEET):
            pictures = [np.asarray(Image.open(f)) for f in files[n : n + ROWS_A_SHEET]]
            name = f"sheet_{group.replace(' ', '_').replace('-', '_')}_{n // ROWS_A_SHEET + 1}.png"
            _write(out / name, Image.fromarray(np.concatenate(pictures, 0)))


def _write(path: Path, picture: Image.Image) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())
