# SPDX-License-Identifier: Apache-2.0
"""Training of a small triplane transformer: TripoSR's layout (`priors.triposr`) on our own objects, the first guess's twin.

Objects, pictures and truth are the first guess's, and the scores have its definitions, so that their curves can be compared at equal
time (docs/notebook.md). The frame is the field's (`training.field_points`). Beginning, losses and optimiser are ours: LRM and TripoSR
render their fields and compare pictures; here points are told what is there, which takes much less arithmetic.

Letters: B pictures, N points, F features a plane; D h w as in `training.field_points`.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from bozzetto.data.objects import Packed
from bozzetto.data.renders import MARGIN
from bozzetto.frustum import cell_centres
from bozzetto.priors.first_guess import LEVEL
from bozzetto.priors.solid import solid
from bozzetto.priors.triposr import RATIO, TripoSR, TripoSRConfig, ViTConfig
from bozzetto.priors.triposr_files import save
from bozzetto.training.field_points import BEHIND, BOX, NEAR, SCALE, SIDE, Pictures, held_out, to_field
from bozzetto.training.first_guess import cell_chamfer
from bozzetto.training.loop import LoopSettings, train

CONFIG = TripoSRConfig(
    vit=ViTConfig(width=96, layers=3, heads=2, hidden=384, patch=8, side=SIDE),
    picture=SIDE,
    plane=12,
    channels=96,
    heads=2,
    layers=3,
    features=16,
    neurons=48,
    hidden=3,
)
SHARP = 3.0  # of cross-attention at the beginning: keys' weights in queries'


@dataclass(frozen=True)
class Settings:
    """`python -m bozzetto.training.triplane --objects FOLDER --out FOLDER`"""

    objects: Path
    """packed objects, as `bozzetto data` writes them; what is carved of them is kept in its folder `carved`"""
    out: Path
    """the run's folder: state, curve, logs; resumed if it is there"""
    procedural: float = 0.6
    """share of procedural objects"""
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(samples=40_000, batch=16, warmup=60, cooldown=0.3, validate_every=2000))


class Twin(nn.Module):
    """(B, 64, 64, 3) pictures and (B, N, 3) points to (B, N, 4): the logit of being inside, and r, g, b before their sigmoid. The logit
    is the raw density, moved so that the field's surface is where a first guess is cut: at LEVEL. With gradients, which `Triplane.raw`
    has not."""

    def __init__(self, model: TripoSR) -> None:
        super().__init__()
        self.model = model
        self.shift = math.log(model.config.threshold) - model.config.bias - LEVEL  # raw density of probability 1/2

    def forward(self, picture: Tensor, points: Tensor) -> Tensor:
        return self.read(self.model(picture), points)

    def read(self, planes: Tensor, points: Tensor) -> Tensor:
        """Of planes (B, 3, F, H, W) that the model has made."""
        u = (points / self.model.config.radius).to(planes)
        at = torch.stack([u[..., [0, 1]], u[..., [0, 2]], u[..., [1, 2]]], 1).flatten(0, 1)[:, None]
        read = F.grid_sample(planes.flatten(0, 1), at, align_corners=False)[:, :, 0]  # (3 B, F, N)
        raw: Tensor = self.model.decoder.layers(read.unflatten(0, (-1, 3)).flatten(1, 2).mT)
        return raw - raw.new_tensor([self.shift, 0, 0, 0])


def begin(config: TripoSRConfig, seed: int) -> Twin:
    """With initial weights: tokens of planes and of the picture begin as the same sines of where they are, and cross-attention asks for
    what is alike, so that a plane's token looks from the first step at the part of the picture that shows it; a line of sight's end is not
    seen, so that the plane (x, y) looks at columns and (x, z) at rows. The field begins as mostly empty."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # noqa: TID251 — layers draw their initial weights from the global state
        model = TripoSR(config)
    vit, cells = config.vit, config.vit.side // config.vit.patch
    at = (torch.arange(config.plane) + 0.5) / config.plane * 2 - 1
    row, column = torch.meshgrid(at, at, indexing="ij")
    none = torch.full_like(row, torch.nan)
    planes = [(column, row, none), (column, none, row), (none, column, row)]  # x, y, z
    # a picture's half side, at the origin's depth, in halves of the box
    at = ((torch.arange(cells) + 0.5) / cells * 2 - 1) * SCALE * (1 - 2 * MARGIN) / RATIO / 2 / config.radius
    down, right = torch.meshgrid(at, at, indexing="ij")
    with torch.no_grad():
        table = torch.stack([sines(torch.stack(p, -1), config.channels) for p in planes])
        # as large as TripoSR's begin, since they are added to what the blocks say
        model.tokenizer.embeddings.copy_(table.permute(0, 3, 1, 2) * (2 / config.channels) ** 0.5)
        where = sines(torch.stack([torch.full_like(down, torch.nan), right, -down], -1), vit.width)
        model.image_tokenizer.model.embeddings.position_embeddings[0, 1:] = where.flatten(0, 1)
        if vit.width == config.channels:
            for block in model.backbone.transformer_blocks:
                cross = block.get_submodule("attn2")
                keys, queries = cross.get_parameter("to_k.weight"), cross.get_parameter("to_q.weight")
                keys.copy_(SHARP * queries)
        twin, last = Twin(model), model.decoder.layers[-1]
        assert isinstance(last, nn.Linear)
        last.bias[0] = twin.shift - 1.5
    return twin


def sines(places: Tensor, width: int) -> Tensor:
    """(..., width) of places (..., 3) in [-1, 1]: sines and cosines of octaves of each coordinate, a sixth of the width each; zeros where a
    coordinate is nan."""
    octaves = torch.pi / 2 * 2 ** torch.linspace(0, 4, -(-width // 6))
    angles = places[..., None] * octaves
    return torch.cat([angles.sin(), angles.cos()], -1).nan_to_num().flatten(-2)[..., :width]


def loss(network: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of being inside at the three kinds of points, Dice behind the silhouette, and colours on the surface."""
    raw: Tensor = network(batch["picture"], batch["points"]).float()
    target = batch["target"]
    logits = raw[:, : target.shape[1], 0]
    cross = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    box, behind, near = (x.mean() for x in cross.split([BOX, BEHIND, NEAR], 1))
    p, t = (x[:, BOX : BOX + BEHIND] for x in (torch.sigmoid(logits), target))
    dice = 1 - (2 * (p * t).sum(1) / (p.square().sum(1) + t.square().sum(1)).clamp(min=1e-6)).mean()
    colour = (torch.sigmoid(raw[:, target.shape[1] :, 1:]) - batch["colour"]).abs().mean()
    total = 3 * behind + box + near + dice + colour
    return total, {"total": total, "behind": behind, "box": box, "near": near, "dice": dice, "colour": colour}


@torch.no_grad()
def score(network: Twin, groups: dict[str, list[dict[str, Tensor]]]) -> dict[str, float]:
    """Means over each group, as `first_guess.score` has them: IoU and Chamfer in the cells of its frustum, whose perspective is
    told, behind the silhouette; and the colour error. `free`: IoU without the silhouette's help."""
    network.eval()
    out: dict[str, float] = {}
    for name, samples in groups.items():
        rows = []
        for s in samples:
            p, coverage, truth = s["view"][1], F.avg_pool2d(s["picture"][3:], 2), s["occupancy"] > 127
            planes = network.model(s["seen"][None])
            logits = frustum_logits(network, planes, p, truth.shape)
            found = torch.sigmoid(network.read(planes, to_field(s["points"], p)[None])[0, :, 1:]).cpu()
            scores = cell_scores(logits, coverage, truth)
            scores["colour"] = float((found - s["colour"]).abs().mean())
            scores["free"] = overlap(logits > LEVEL, truth)
            rows.append(scores)
        out |= {f"{name}_{key}_64": float(np.mean([r[key] for r in rows])) for key in rows[0]}
    network.train()
    return out


def cell_scores(logits: Tensor, coverage: Tensor, truth: Tensor) -> dict[str, float]:
    """IoU and Chamfer (in sides of the crop) of logits (D, h, w), solid above LEVEL, behind a silhouette (1, h, w)."""
    return {"iou": overlap((logits > LEVEL) & (coverage > 0), truth), "chamfer": cell_chamfer(solid(logits, coverage) > 0, truth)}


def overlap(mine: Tensor, truth: Tensor) -> float:
    """Intersection over union."""
    return float((mine & truth).sum() / (mine | truth).sum().clamp(min=1))


def frustum_logits(network: Twin, planes: Tensor, p: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(D, h, w) at the centres of a frustum's cells, of one picture's planes (1, 3, F, H, W); outside of the box nothing is."""
    at = to_field(cell_centres(*shape), p)
    inside = (at.abs() <= network.model.config.radius).all(-1)
    logits = torch.full(shape, -20.0)
    logits[inside] = network.read(planes, at[inside][None])[0, :, 0].float().cpu()
    return logits


class Clock:
    """CPU seconds that training has taken, over all processes of a run: what its curve says, and what was used since. What was trained
    between the last validation and the state that the run goes on from counts as the samples before."""

    def __init__(self, out: Path) -> None:
        curve, state = out / "curve.jsonl", out / "state.safetensors"
        self.before, self.begun = 0.0, time.process_time()
        if curve.is_file() and state.is_file():
            last = json.loads(curve.read_text().splitlines()[-1])
            with safe_open(state, "pt") as file:
                self.before = float(last["seconds"]) * int(file.metadata()["samples"]) / int(last["samples"])

    def seconds(self) -> float:
        return self.before + time.process_time() - self.begun

    def without(self, seconds: float) -> None:
        """That was no training."""
        self.before -= seconds


def main(settings: Settings) -> None:
    """Train, then write the averaged weights as `OUT/model`, in TripoSR's layout."""
    network = begin(CONFIG, settings.loop.seed)
    pictures = Pictures(settings.objects, seed=settings.loop.seed, procedural=settings.procedural)
    groups = held_out(Packed(settings.objects), pictures.carved)
    clock = Clock(settings.out)

    def validate(average: nn.Module) -> dict[str, float]:
        assert isinstance(average, Twin)
        seconds, begun = clock.seconds(), time.process_time()
        save(average.model, settings.out / "model")
        scores = score(average, groups)
        clock.without(time.process_time() - begun)
        return {"seconds": seconds} | scores

    average = train(network, pictures, loss, settings.out, settings.loop, validate)
    assert isinstance(average, Twin)
    save(average.model, settings.out / "model")


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings))
