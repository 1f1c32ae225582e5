# SPDX-License-Identifier: Apache-2.0
"""A training run's validation scores over samples seen, as a Markdown table and as a drawing.

`python -m bozzetto.evaluate.curve RUN/curve.jsonl docs/pictures/first-guess-curve.svg`
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

COLUMNS = (
    "furniture_iou_64",
    "families_iou_64",
    "furniture_iou_128",
    "families_iou_128",
    "furniture_colour_128",
    "furniture_elevation_128",
)
DRAWN = {"furniture_iou_128": "#1f5fa8", "families_iou_128": "#b5541c"}
WIDTH, HEIGHT, PAD = 640, 320, 48


def read(path: Path) -> list[dict[str, float]]:
    """The rows of `curve.jsonl`, one for each validation; a sample count that was reached twice counts as it was last."""
    rows = {row["samples"]: row for row in map(json.loads, path.read_text().splitlines())}
    return [rows[n] for n in sorted(rows)]


def table(rows: list[dict[str, float]], most: int = 12) -> str:
    """Markdown, at most `most` rows evenly picked, the last one always."""
    picked = [rows[-1 - round(k * (len(rows) - 1) / max(most - 1, 1))] for k in reversed(range(most))] if len(rows) > most else rows
    head = "| samples | " + " | ".join(c.replace("_", " ") for c in COLUMNS) + " |"
    lines = [f"| {int(r['samples']):,} | " + " | ".join(f"{r[c]:.3f}" for c in COLUMNS) + " |" for r in picked]
    return "\n".join([head, "|" + " ---: |" * (len(COLUMNS) + 1), *lines])


def drawing(rows: list[dict[str, float]]) -> str:
    """SVG: intersection over union against samples, logarithmic."""
    low, high = math.log(rows[0]["samples"]), math.log(max(rows[-1]["samples"], rows[0]["samples"] + 1))
    top = max(0.1, math.ceil(10 * max(r[c] for r in rows for c in DRAWN)) / 10)

    def x(n: float) -> float:
        return PAD + (WIDTH - 2 * PAD) * (math.log(n) - low) / max(high - low, 1e-9)

    def y(v: float) -> float:
        return HEIGHT - PAD - (HEIGHT - 2 * PAD) * v / top

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">']
    out.append(f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>')
    for k in range(round(10 * top) + 1):
        at = y(k / 10)
        out.append(f'<path d="M{PAD} {at:.1f}H{WIDTH - PAD}" stroke="#ddd"/><text x="{PAD - 30}" y="{at + 4:.1f}">{k / 10:.1f}</text>')
    for r in (rows[0], rows[-1]):
        out.append(f'<text x="{x(r["samples"]) - 24:.1f}" y="{HEIGHT - PAD + 20}">{int(r["samples"]):,}</text>')
    for k, (name, colour) in enumerate(DRAWN.items()):
        points = " ".join(f"{x(r['samples']):.1f},{y(r[name]):.1f}" for r in rows)
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out.append(f'<text x="{PAD + 10}" y="{PAD + 16 * k}" fill="{colour}">{name.replace("_", " ")}</text>')
    out.append(f'<text x="{WIDTH / 2 - 60}" y="{HEIGHT - 10}">training pictures seen</text></svg>')
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: python -m bozzetto.evaluate.curve CURVE.jsonl OUT.svg")
    found = read(Path(sys.argv[1]))
    Path(sys.argv[2]).write_text(drawing(found))
    print(table(found))
