# SPDX-License-Identifier: Apache-2.0
"""Training of the reconstructor: `python -m bozzetto.training.reconstructor --objects data/objects --out runs/reconstructor`.

The paper (One-2-3-45, arXiv:2306.16928; SparseNeuS, arXiv:2206.05737) renders the field and compares pictures. Our objects' solids are
known, so points are told how far the surface is, and surface points their colour: no rays, and much less arithmetic. The regulariser of
sparseness keeps its weight. One sample in five is asked without the variance, so that the network can do with the mean alone, and what the
variance adds can be measured on the same weights (`bozzetto claims`).

Letters: B objects, P points, Q surface points.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bozzetto.camera import Camera
from bozzetto.data.objects import Packed
from bozzetto.data.renders import drawable
from bozzetto.priors.cost_volume import hull_distance, sparseness
from bozzetto.priors.loading import MINI
from bozzetto.priors.reconstructor import Posed, Reconstructor, ReconstructorConfig, load, save
from bozzetto.training.loop import LoopSettings, train
from bozzetto.training.scenes import BY_SET, CUBE, Known, Scenes, scene
from bozzetto_objects import HELD_OUT_FAMILIES, make

BAND = 0.06  # distances beyond some of it are not told apart: what counts is where the surface is
SOFT = 0.02  # of the logistic by which a distance says how likely a point is inside: NeuS's 1 / s
SPARSE = 0.02  # the paper's weight
MEAN_ALONE = 0.2  # share of the batches


@dataclass(frozen=True)
class Settings:
    """`python -m bozzetto.training.reconstructor --objects FOLDER --out FOLDER`"""

    objects: Path
    """packed objects, as `bozzetto data` writes them; what is carved of them is kept in its folder `carved`"""
    out: Path
    """the run's folder: state, curve, logs; resumed if it is there"""
    procedural: float = 0.4
    """share of procedural objects"""
    start: Path | None = None
    """a network's folder to begin from where OUT has no state, `mini` for the embedded one; what it adds to the hull begins as nothing"""
    loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(samples=3000, batch=4, warmup=30, cooldown=0.4, ema=0.99, validate_every=600, workers=0)
    )


class Asked(nn.Module):
    """A batch of `Scenes` to distances (B, P), and colours (B, Q, 3) with whether anybody sees them (B, Q)."""

    def __init__(self, network: Reconstructor) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: dict[str, Tensor], variance: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        posed = [posed_of(batch, b) for b in range(len(batch["rgba"]))]
        fields = self.network.fields(posed, variance=variance)
        away = [self.network.distance(f, x, variance=variance) for f, x in zip(fields, batch["points"], strict=True)]
        colours = [self.network.colour(f, x, s)[0] for f, x, s in zip(fields, batch["on"], batch["seen"], strict=True)]
        return torch.stack(away), torch.stack(colours), batch["seen"].amax(1) > 0


def posed_of(batch: dict[str, Tensor], b: int) -> Posed:
    """Object b of a batch."""
    rgba = batch["rgba"][b]
    return Posed(rgba, Camera(batch["c2w"][b], batch["K"][b], (rgba.shape[-2], rgba.shape[-1])))


def loss(network: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Distances within a band, cross-entropy of being inside, colours where they are seen, sparseness in the cube."""
    # decided by the data, so that sample i is a function of i
    alone = float(batch["points"][0, -1, 0] * 1e4 % 1) < MEAN_ALONE
    away, colours, is_seen = network(batch, not alone)
    truth = batch["distance"]
    near = (torch.tanh(away / BAND) - torch.tanh(truth / BAND)).abs().mean()
    inside = (0.5 - truth / (2 * SOFT)).clamp(0, 1)
    cross = F.binary_cross_entropy_with_logits(-away / SOFT, inside)
    off = (colours - batch["colour"]).abs().mean(-1)
    colour = (off * is_seen).sum() / is_seen.sum().clamp(min=1)
    sparse = sparseness(away[:, -CUBE:])
    total = 2 * near + cross + colour + SPARSE * sparse
    return total, {"total": total, "near": near, "cross": cross, "colour": colour, "sparse": sparse}


Group = list[dict[str, Tensor]]


def held_out(packed: Packed, scenes: Scenes, *, size: int = 128, views: int = 8) -> dict[str, Group]:
    """Fixed pictures of objects nobody trains on: some of the validation furniture, and the families held out."""

    def seen(k: int, known: Known) -> dict[str, Tensor]:
        made = scene(known, np.random.default_rng([9, k]), views=views, size=size, augment=False)
        return made | {name: made[name][0] for name in BY_SET}

    furniture = [drawable(packed[i]) for i in packed.indices("validation")[::5]]
    families = [drawable(make(HELD_OUT_FAMILIES[k % len(HELD_OUT_FAMILIES)], k)) for k in range(8)]
    groups = {"furniture": furniture, "families": families}
    return {name: [seen(k, Known.of(d, scenes.carved(d))) for k, d in enumerate(found)] for name, found in groups.items()}


@torch.no_grad()
def score(network: Reconstructor, groups: dict[str, Group]) -> dict[str, float]:
    """Means over each group: IoU at random points of the object's box, of the network, of it without the variance, and of the visual
    hull; the mean error of distances near the surface; that of colours."""
    network.eval()
    out: dict[str, float] = {}
    for name, samples in groups.items():
        rows = []
        for s in samples:
            batch = {k: v[None] for k, v in s.items()}
            posed, points, inside = posed_of(batch, 0), s["points"], s["distance"] < 0
            row = {}
            for key, variance in (("iou", True), ("mean_alone", False)):
                field = network.fields([posed], variance=variance)[0]
                away = network.distance(field, points, variance=variance)
                row[key] = overlap(away < 0, inside)
                if variance:
                    row["off"] = float((torch.tanh(away / BAND) - torch.tanh(s["distance"] / BAND)).abs().mean())
                    row["hull"] = overlap(hull_distance(field.raw[:, -1], posed.cameras, points) < 0, inside)
                    is_seen = s["seen"].amax(0) > 0
                    found, _ = network.colour(field, s["on"], s["seen"])
                    row["colour"] = float((found - s["colour"])[is_seen].abs().mean())
            rows.append(row)
        out |= {f"{name}_{key}": float(np.mean([r[key] for r in rows])) for key in rows[0]}
    network.train()
    return out


def overlap(mine: Tensor, truth: Tensor) -> float:
    """Intersection over union."""
    return float((mine & truth).sum() / (mine | truth).sum().clamp(min=1))


def main(settings: Settings) -> None:
    """Train, then write the averaged weights as `OUT/prior`."""
    with torch.random.fork_rng():
        torch.manual_seed(settings.loop.seed)  # noqa: TID251 — layers draw their initial weights from the global state
        network = Asked(Reconstructor(ReconstructorConfig()))
    if settings.start is not None and not (settings.out / "state.safetensors").exists():
        network.network.load_state_dict(load(MINI / "reconstructor" if str(settings.start) == "mini" else settings.start).state_dict())
        for p in network.network.mlp[-1].parameters():
            nn.init.zeros_(p)
    scenes = Scenes(settings.objects, seed=settings.loop.seed, batch=settings.loop.batch, procedural=settings.procedural)
    groups = held_out(Packed(settings.objects), scenes)

    def validate(average: nn.Module) -> dict[str, float]:
        assert isinstance(average, Asked)
        save(average.network, settings.out / "prior")
        return score(average.network, groups)

    average = train(network, scenes, loss, settings.out, settings.loop, validate)
    assert isinstance(average, Asked)
    save(average.network, settings.out / "prior")


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings))
