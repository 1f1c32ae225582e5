# SPDX-License-Identifier: Apache-2.0
"""How well the first guess alone does, before any fitting, at each size it is asked at and at their average: one table.

    python -m bozzetto.evaluate.scales --objects data/objects [--prior FOLDER] [--sizes 64 128] [--side train]

Fixed pictures of 128 pixels, plain and mirrored, as `recipes.guess` asks; the mean IoU of cells behind the silhouette, the guess cut
at LEVEL. `--side train` takes pictures of training furniture in the same way, without augmentation, to tell whether it overfits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.data.carved import CarvedFiles
from bozzetto.data.objects import Packed
from bozzetto.data.renders import draw_sample, drawable
from bozzetto.priors.first_guess import LEVEL, FirstGuess, load
from bozzetto.priors.loading import MINI
from bozzetto.training.first_guess import as_batch, carved_files, validation_samples

SIDE = 128  # of the pictures, pixels


@dataclass(frozen=True)
class Settings:
    """Flags of the command."""

    objects: Path
    """packed objects"""
    prior: Path = MINI / "first_guess"
    sizes: tuple[int, ...] = (64, 128)
    """pixels a side at which the network is asked, multiples of 16"""
    side: str = "validation"
    """validation, or train for as many pictures of training furniture"""


def occupancy_at(network: FirstGuess, pictures: Tensor, size: int) -> Tensor:
    """Logits (B, D, SIDE/2, SIDE/2) of pictures (B, 4, SIDE, SIDE) shown at another size, the mean of plain and mirrored."""
    shown = F.interpolate(pictures, (size, size), mode="bilinear", antialias=True) if size != SIDE else pictures
    with torch.no_grad():
        made = network(torch.cat([shown, shown.flip(-1)])).occupancy.float()
    b = len(pictures)
    return F.interpolate((made[:b] + made[b:].flip(-1)) / 2, (SIDE // 2, SIDE // 2), mode="bilinear")


def scores(network: FirstGuess, samples: list[dict[str, Tensor]], sizes: tuple[int, ...]) -> list[float]:
    """Mean IoU over samples at each size, and last that of the sizes' average."""
    rows = []
    for k in range(0, len(samples), 16):
        pictures, occupancy = (torch.stack([s[key] for s in samples[k : k + 16]]) for key in ("picture", "occupancy"))
        answers = [occupancy_at(network, pictures, size) for size in sizes]
        seen, truth = F.avg_pool2d(pictures[:, 3:], 2) > 0, occupancy > 127
        for answer in (*answers, torch.stack(answers).mean(0)):
            mine = (answer > LEVEL) & seen
            rows.append((mine & truth).sum((1, 2, 3)) / (mine | truth).sum((1, 2, 3)).clamp(min=1))
    n = len(sizes) + 1
    return [float(torch.cat(rows[i::n]).mean()) for i in range(n)]


def training_samples(packed: Packed, carved: CarvedFiles, depths: int) -> dict[str, list[dict[str, Tensor]]]:
    """Pictures of training furniture, drawn as validation's are."""
    indices = packed.indices("train")[:: max(len(packed.indices("train")) // 68, 1)]
    made = []
    for i in indices:
        d = drawable(packed[i])
        made.append(as_batch(draw_sample(d, carved(d), np.random.default_rng([7, i]), size=SIDE, depths=depths, augment=False)))
    return {"training furniture": made}


def main(settings: Settings) -> None:
    """Print the table."""
    network, packed = load(settings.prior), Packed(settings.objects)
    depths = network.config.depths
    carved = carved_files(settings.objects)
    groups = training_samples(packed, carved, depths) if settings.side == "train" else validation_samples(packed, carved, SIDE, depths)
    columns = {f"{name} ({len(samples)})": scores(network, samples, settings.sizes) for name, samples in groups.items()}
    print("| asked at | " + " | ".join(columns) + " |")
    print("| --- |" + " ---: |" * len(columns))
    for i, name in enumerate([*(f"{s} pixels" for s in settings.sizes), "all, averaged"]):
        print(f"| {name} | " + " | ".join(f"{column[i]:.3f}" for column in columns.values()) + " |")


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings))
