# SPDX-License-Identifier: Apache-2.0
"""Training of the first guess: which objects, which loss, which score. `make train` runs it; anyone can rerun it.

Sample i is a function of i: which object (`training.stream`), which camera, light and colours. Most batches are of pictures of
64 pixels a side, four times as cheap, the rest of 128. A run whose folder holds no state begins from the weights of its last
validation, if there are any, or from those that `--start` names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn
from torch.utils.data import Dataset

from bozzetto.data.carved import CarvedFiles
from bozzetto.data.objects import Object, Packed
from bozzetto.data.renders import Carved, Drawable, draw_sample, drawable
from bozzetto.frustum import DEPTH_RANGE
from bozzetto.priors.first_guess import LEVEL, FirstGuess, FirstGuessConfig, Guess, load, save
from bozzetto.priors.loading import MINI
from bozzetto.priors.solid import solid
from bozzetto.training.loop import LoopSettings, samples_seen, train
from bozzetto.training.stream import WINDOW, Stream
from bozzetto_objects import FAMILIES, HELD_OUT_FAMILIES, make


@dataclass(frozen=True)
class Settings:
    """`python -m bozzetto.training.first_guess --objects FOLDER --out FOLDER`"""

    objects: Path
    """packed objects, as `bozzetto data` writes them; what is carved of them is kept in its folder `carved`"""
    out: Path
    """the run's folder: state, curve, logs; resumed if it is there"""
    small: float = 0.75
    """share of the batches that are of 64 pixels, not 128: half of the time"""
    procedural: float = 0.6
    """share of procedural objects"""
    start: Path | None = None
    """a first guess's folder to begin from where OUT holds neither state nor prior; `mini` is the embedded one"""
    loop: LoopSettings = field(default_factory=LoopSettings)


class Pictures(Dataset[dict[str, Tensor]]):
    """Sample i of the training stream, as a dict of tensors."""

    def __init__(self, objects: Path, *, seed: int, batch: int, small: float, procedural: float, depths: int) -> None:
        self.carved = carved_files(objects)
        self.objects = Stream(objects, procedural, self._prepared)
        self.seed, self.batch, self.small, self.depths = seed, batch, small, depths

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, i])
        d, carved = self.objects.draw(i, rng)
        is_small = np.random.default_rng([self.seed, 1, i // self.batch]).random() < self.small  # a batch has one size
        size = 64 if is_small else 128
        return as_batch(draw_sample(d, carved, rng, size=size, depths=self.depths))

    def _prepared(self, obj: Object) -> tuple[Drawable, Carved]:
        d = drawable(obj)
        return d, self.carved(d)

    def __len__(self) -> int:
        return 1 << 40


def carved_files(objects: Path) -> CarvedFiles:
    """Beside packed objects, with room for all of them and for the procedural ones of three windows: some 250 MB."""
    return CarvedFiles(objects / "carved", len(Packed(objects)) + 3 * WINDOW)


def as_batch(sample: Any) -> dict[str, Tensor]:
    """A `Sample` as tensors, the occupancy depth first: (D, S/2, S/2)."""
    made = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in vars(sample).items()}
    made["occupancy"] = made["occupancy"].permute(2, 0, 1).contiguous()
    return made


def loss(network: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy and Dice over the cells behind the silhouette, its projection, surfaces, colours and camera."""
    guess: Guess = network(batch["picture"])
    logits, truth = guess.occupancy.float(), batch["occupancy"].float() / 255
    coverage = F.avg_pool2d(batch["picture"][:, 3:], 2)
    seen = (coverage > 0).float()
    count = seen.sum().clamp(min=1)
    cross = (F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * seen).sum() / (count * logits.shape[1])
    p = torch.sigmoid(logits) * seen
    inside = (p * truth).sum((1, 2, 3))
    dice = 1 - (2 * inside / (p.square().sum((1, 2, 3)) + truth.square().sum((1, 2, 3))).clamp(min=1e-6)).mean()
    # A pixel that shows the object has something behind it: 1 - prod(1 - p) against its coverage.
    empty = -F.softplus(logits).sum(1, keepdim=True)
    full = torch.log(-torch.expm1(empty.clamp(max=-1e-4)))
    column = -((coverage * full + (1 - coverage) * empty) * seen).sum() / count
    surface = surface_loss(guess.surface, truth, coverage)
    colour = (guess.colour_at(batch["points"]) - batch["colour"]).abs().mean()
    view = F.smooth_l1_loss(guess.view, batch["view"], beta=0.1)
    total = 5 * cross + dice + 0.1 * column + surface + colour + view
    return total, {"total": total, "cross": cross, "dice": dice, "column": column, "surface": surface, "colour": colour, "view": view}


def surface_of(occupancy: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 2, h, w) as `Guess.surface`, of a true occupancy (B, D, h, w) in [0, 1], and where there is any: (B, 1, h, w) bool.

    A cell that is filled in part is filled at the far end where the solid begins, at the near end where it ends.
    """
    solid = occupancy >= 0.5
    exists = solid.any(1, keepdim=True)
    first = solid.float().argmax(1, keepdim=True)
    depth = torch.arange(solid.shape[1], device=solid.device).view(1, -1, 1, 1)
    after = ~solid & (depth > first)
    end = torch.where(after.any(1, keepdim=True), after.float().argmax(1, keepdim=True), solid.shape[1])
    run = (depth >= first - 1) & (depth <= end)  # with the cells on either side, which may be less than half full
    thick = (occupancy * run).sum(1, keepdim=True)
    before = torch.where(first > 0, occupancy.gather(1, (first - 1).clamp(min=0)), 0)
    return torch.cat([first + 1 - occupancy.gather(1, first) - before, thick], 1), exists


def surface_loss(surface: Tensor, truth: Tensor, coverage: Tensor) -> Tensor:
    """Mean distances, in eighths of the grid's depth: of the front; of it after the best shift of each picture, since how far away the
    whole is matters less than its shape; of its slopes, so that flat faces are flat; and of the thickness (half the weight).

    surface (B, 2, h, w) in cells; truth (B, D, h, w) in [0, 1]; coverage (B, 1, h, w) in [0, 1]
    """
    wanted, exists = surface_of(truth)
    use = (exists & (coverage > 0.5)).to(surface)
    error = (surface - wanted) * 8 / truth.shape[1]
    front, count = error[:, :1], use.sum((1, 2, 3)).clamp(min=1)
    shift = (front.detach() * use).sum((1, 2, 3)) / count
    shape = ((front - shift.view(-1, 1, 1, 1)).abs() * use).sum((1, 2, 3)) / count
    slopes = surface.new_zeros(len(surface))
    for step in (1, 2, 4):
        for axis in (2, 3):
            n = front.shape[axis] - step
            both = use.narrow(axis, 0, n) * use.narrow(axis, step, n)
            rise = (front.narrow(axis, step, n) - front.narrow(axis, 0, n)).abs()
            slopes = slopes + (rise * both).sum((1, 2, 3)) / both.sum((1, 2, 3)).clamp(min=1) / 6
    off = ((front.abs() + 0.5 * error[:, 1:].abs()) * use).sum((1, 2, 3)) / count
    return (off + shape + 2 * slopes).mean()


def validation_samples(packed: Packed, carved: CarvedFiles, size: int, depths: int) -> dict[str, list[dict[str, Tensor]]]:
    """Fixed pictures of objects nobody trains on: validation furniture, and the families held out."""
    groups: dict[str, list[dict[str, Tensor]]] = {"furniture": [], "families": []}
    for i in packed.indices("validation"):
        d = drawable(packed[i])
        groups["furniture"].append(
            as_batch(draw_sample(d, carved(d), np.random.default_rng([7, i]), size=size, depths=depths, augment=False))
        )
    families = [f for f in HELD_OUT_FAMILIES if f in FAMILIES]
    for k in range(48):
        d = drawable(make(families[k % len(families)], k))
        groups["families"].append(
            as_batch(draw_sample(d, carved(d), np.random.default_rng([8, k]), size=size, depths=depths, augment=False))
        )
    return groups


@torch.no_grad()
def score(network: nn.Module, groups: dict[str, list[dict[str, Tensor]]]) -> dict[str, float]:
    """Means over each group: occupancy IoU (truth cut at 1/2, the guess at LEVEL); Chamfer of the solid that a lift begins with
    (`cell_chamfer`); how far off, in 64ths of the depth, the front surface is, its shape after the best shift of each picture, and the
    thickness; colour error, elevation error in degrees, error of p."""
    network.eval()
    device = next(network.parameters()).device
    out: dict[str, float] = {}
    for name, samples in groups.items():
        rows = []
        for k in range(0, len(samples), 16):
            batch = {key: torch.stack([s[key] for s in samples[k : k + 16]]).to(device) for key in samples[0]}
            guess = network(batch["picture"])
            coverage = F.avg_pool2d(batch["picture"][:, 3:], 2)
            mine, truth = (guess.occupancy > LEVEL) & (coverage > 0), batch["occupancy"] > 127
            iou = (mine & truth).sum((1, 2, 3)) / (mine | truth).sum((1, 2, 3)).clamp(min=1)
            solids = [solid(*x) > 0 for x in zip(guess.occupancy.float().cpu(), coverage.cpu(), strict=True)]
            far = torch.tensor([cell_chamfer(a, b) for a, b in zip(solids, truth.cpu(), strict=True)], device=device)
            wanted, exists = surface_of(batch["occupancy"].float() / 255)
            error = (guess.surface - wanted) * 64 / truth.shape[1]
            use = exists & (coverage > 0.5)
            shift = torch.where(use, error[:, :1], torch.nan).flatten(1).nanmedian(1).values.nan_to_num()
            error = torch.cat([error[:, :1], error[:, :1] - shift.view(-1, 1, 1, 1), error[:, 1:]], 1).abs() * use
            front, shape, thick = (error.sum((2, 3)) / use.sum((2, 3)).clamp(min=1)).unbind(1)
            colour = (guess.colour_at(batch["points"]) - batch["colour"]).abs().mean((1, 2))
            tilt = (guess.view[:, 0] - batch["view"][:, 0]).abs().rad2deg()
            rows.append(torch.stack([iou, far, front, shape, thick, colour, tilt, (guess.view[:, 1] - batch["view"][:, 1]).abs()]))
        mean = torch.cat(rows, 1).mean(1).tolist()
        keys = ("iou", "chamfer", "front", "shape", "thick", "colour", "elevation", "p")
        out |= {f"{name}_{key}": value for key, value in zip(keys, mean, strict=True)}
    network.train()
    return out


def cell_chamfer(mine: Tensor, truth: Tensor) -> float:
    """Mean of the two directions of distances between the surface cells of two solids (D, h, w) bool, in sides of the crop.

    The frustum is taken for a box, as deep as it is at the object's centre; without a cell the distance is 1.
    """
    sampling = (2 * DEPTH_RANGE / truth.shape[0], 1 / truth.shape[1], 1 / truth.shape[2])
    surfaces = [x & ~ndimage.binary_erosion(np.pad(x, 1))[1:-1, 1:-1, 1:-1] for x in (mine.numpy(), truth.numpy())]
    if not all(x.any() for x in surfaces):
        return 1.0
    there, back = (ndimage.distance_transform_edt(~x, sampling) for x in reversed(surfaces))
    return float(there[surfaces[0]].mean() + back[surfaces[1]].mean()) / 2


@torch.no_grad()
def contact_sheet(network: nn.Module, samples: list[dict[str, Tensor]]) -> Tensor:
    """(3, H, W): for each of some pictures, the picture, the truth from the side, the guess from the side."""
    network.eval()
    rows = []
    for s in samples[:12]:
        p = torch.sigmoid(network(s["picture"][None].to(next(network.parameters()).device)).occupancy.float())[0].cpu()
        n = s["picture"].shape[-1]
        seen = F.avg_pool2d(s["picture"][3:], 2) > 0
        sides = [F.interpolate((v * seen).amax(2).T[None, None], (n, n))[0].expand(3, -1, -1) for v in (s["occupancy"].float() / 255, p)]
        rows.append(torch.cat([s["picture"][:3] + 1 - s["picture"][3:], *sides], 2))
    network.train()
    half = len(rows) // 2
    return torch.cat([torch.cat(rows[:half], 1), torch.cat(rows[half : 2 * half], 1)], 2)


def main(settings: Settings) -> None:
    """Train, then write the averaged weights as `OUT/prior`."""
    config = FirstGuessConfig()
    with torch.random.fork_rng():
        torch.manual_seed(settings.loop.seed)  # noqa: TID251 — layers draw their initial weights from the global state
        network = FirstGuess(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    begun = 0
    if not (settings.out / "state.safetensors").exists() and (start := first_weights(settings)) is not None:
        network.load_state_dict(load(start).state_dict())
        begun = samples_seen(start)
        print(f"no state in {settings.out}: beginning from {start}, {begun} samples", flush=True)
    pictures = Pictures(
        settings.objects,
        seed=settings.loop.seed,
        batch=settings.loop.batch,
        small=settings.small,
        procedural=settings.procedural,
        depths=config.depths,
    )
    packed = Packed(settings.objects)
    groups = {size: validation_samples(packed, pictures.carved, size, config.depths) for size in (64, 128)}

    def validate(average: nn.Module) -> dict[str, float]:
        save(average, settings.out / "prior")  # type: ignore[arg-type]
        return {f"{k}_{size}": v for size in groups for k, v in score(average, groups[size]).items()}

    sheet = groups[128]["furniture"][::6] + groups[128]["families"][::6]
    average = train(network, pictures, loss, settings.out, settings.loop, validate, lambda n: contact_sheet(n, sheet), begun)
    save(average, settings.out / "prior")  # type: ignore[arg-type]


def first_weights(settings: Settings) -> Path | None:
    """The prior that a run without a state begins from, if any."""
    if (settings.out / "prior" / "model.safetensors").is_file():
        return settings.out / "prior"
    return MINI / "first_guess" if str(settings.start) == "mini" else settings.start


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings))
