# SPDX-License-Identifier: Apache-2.0
"""Training of DMTet's networks: `python -m bozzetto.training.dmtet_networks --reads points --objects data/objects --out runs/shape-points`.

L = l_cd L_cd + l_n L_n + l_G L_G + l_sdf L_sdf + l_def L_def (Shen et al. 2021, arXiv:2111.04276, Eq. 8). The published weights, 500,
1e-6, 10, .4 and 1, belong to sums over points that are not all given; those below are of means, and bring the parts to one order of size.
L_sdf is asked at places all round instead of at the grid's vertices alone, of distances within a band, and with it the cross-entropy of
being inside, since what counts is where the sign changes. The encoder's first distance has the same loss: it then knows early which side
is out. The first part of the samples has L_sdf alone, by which a network learns fastest; then surfaces are judged.

Letters: B samples, P places, Q points of the surface.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from bozzetto.data.objects import Packed
from bozzetto.data.renders import drawable
from bozzetto.priors import dmtet
from bozzetto.priors.dmtet import DMTetConfig, DMTetNetworks, grid_of, subdivide
from bozzetto.priors.loading import MINI
from bozzetto.priors.point_voxel import Field
from bozzetto.shapes.start import EmptySurface
from bozzetto.training.first_guess import carved_files
from bozzetto.training.loop import LoopSettings, train
from bozzetto.training.scenes import Known
from bozzetto.training.solids import NEAR, Reads, Solids, solid_sample
from bozzetto.training.surface_losses import (
    Critic,
    adversary_loss,
    bent,
    chamfer_and_normals,
    critic_loss,
    patches,
    scattered,
)
from bozzetto_objects import HELD_OUT_FAMILIES, make

BAND, SOFT = 0.06, 0.02  # distances beyond some of the band are not told apart; of the logistic by which a distance says what is inside
CHAMFER, NORMAL, ADVERSARY, DEFORM = 20.0, 0.1, 0.02, 0.01
SPACING = (0.04, 0.05)  # of the grid, before it is subdivided
POINTS, PATCHES = 3000, 12  # of a surface, judged


@dataclass(frozen=True)
class Settings:
    """`python -m bozzetto.training.dmtet_networks --objects FOLDER --out FOLDER`"""

    objects: Path
    """packed objects, as `bozzetto data` writes them; what is carved of them is kept in its folder `carved`"""
    out: Path
    """the run's folder: state, curve, logs; resumed if it is there"""
    reads: Literal["points", "voxels"] = "points"
    """what is given"""
    procedural: float = 0.3
    """share of procedural objects"""
    judged: int = 3000
    """samples from which on surfaces are judged, too"""
    adversary: bool = True
    """judge surfaces by the discriminator as well; without, what it is worth can be measured"""
    start: Path | None = None
    """networks' folder to begin from where OUT has no state; `mini` for the embedded ones"""
    loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(
            samples=6000, batch=4, lr=0.01, warmup=50, cooldown=0.5, ema=0.99, validate_every=500, workers=0, mixed_precision="no"
        )
    )


class Asked(nn.Module):
    """The networks and their critic: a sample at a time, its field, and its surface if that is judged."""

    def __init__(self, networks: DMTetNetworks, adversary: bool = True) -> None:
        super().__init__()
        self.networks = networks
        self.critic = Critic(networks.encode.read) if adversary else None

    def forward(self, row: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        field = self.networks.encode(row["given"])
        total, parts = self.volume(field, row)
        if row["surface"] > 0:
            try:
                more, judged = self.surface(field, row)
            except EmptySurface:  # of networks that have learnt nothing yet
                return total, parts
            total, parts = total + more, parts | judged
        return total, parts

    def volume(self, field: Field, row: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """L_sdf, of the first distance near the surface, too."""
        away, truth = self.networks.distance(field, row["places"])[0], row["distance"]
        near = (torch.tanh(away / BAND) - torch.tanh(truth / BAND)).abs().mean()
        cross = F.binary_cross_entropy_with_logits(-away / SOFT, (0.5 - truth / (2 * SOFT)).clamp(0, 1))
        if self.networks.config.reads == "voxels":  # nothing is learnt of their first distance
            return 2 * near + cross, {"near": near, "cross": cross}
        _, base = field.near(row["places"][:NEAR])
        first = (torch.tanh(base / BAND) - torch.tanh(truth[:NEAR] / BAND)).abs().mean()
        return 2 * near + cross + first, {"near": near, "cross": cross, "first": first}

    def surface(self, field: Field, row: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """L_cd and L_n of the last surface, L_def of both refinements, L_G; and L_D, whose gradient is the critic's alone."""
        generator = torch.Generator().manual_seed(int(row["seed"]))
        spacing = SPACING[0] + (SPACING[1] - SPACING[0]) * float(torch.rand((), generator=generator))
        coarse = self.networks.refine(0, field, self.networks.predict(field, grid_of(field.half, spacing)))
        fine = self.networks.refine(1, field, subdivide(coarse))
        points, normals = scattered(*self.networks.finish(field, fine), POINTS, generator)
        chamfer, bent_away = chamfer_and_normals(points, normals, row["on"], row["normals"])
        deform = coarse.offsets.norm(dim=1).mean() + fine.offsets.norm(dim=1).mean()
        total = CHAMFER * chamfer + NORMAL * bent_away + DEFORM * deform
        parts = {"cd": chamfer, "n": bent_away, "def": deform}
        if self.critic is not None and row["thick"].any():
            middles = bent(row["on"], row["normals"], row["thick"], PATCHES, generator)
            told = field.read(middles)[0].detach()
            made = patches(middles, points, normals)
            frozen = {k: p.detach() for k, p in self.critic.named_parameters()}
            fooled = adversary_loss(functional_call(self.critic, frozen, (made, told)))
            caught = critic_loss(self.critic(patches(middles, row["on"], row["normals"]), told), self.critic(made.detach(), told))
            total, parts = total + ADVERSARY * fooled + caught, parts | {"G": fooled, "D": caught}
        return total, parts


def loss(network: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Means over the batch of all parts that its samples have."""
    made = [network({k: v[b] for k, v in batch.items()}) for b in range(len(batch["distance"]))]
    total = torch.stack([t for t, _ in made]).mean()
    names = dict.fromkeys(name for _, parts in made for name in parts)
    return total, {"total": total} | {n: torch.stack([p[n] for _, p in made if n in p]).mean() for n in names}


Group = list[dict[str, Tensor]]


def held_out(objects: Path, reads: Reads, count: int = 12) -> dict[str, Group]:
    """Fixed samples of objects nobody trains on: validation furniture, and the families held out."""
    packed, carved = Packed(objects), carved_files(objects)
    indices = packed.indices("validation")
    furniture = [drawable(packed[indices[k * len(indices) // count]]) for k in range(count)]
    families = [drawable(make(HELD_OUT_FAMILIES[k % len(HELD_OUT_FAMILIES)], k)) for k in range(4)]

    def seen(k: int, known: Known) -> dict[str, Tensor]:
        return solid_sample(known, reads, np.random.default_rng([9, k]), augment=False)

    groups = {"furniture": furniture, "families": families}
    return {name: [seen(k, Known.of(d, carved(d))) for k, d in enumerate(found)] for name, found in groups.items()}


@torch.no_grad()
def score(networks: DMTetNetworks, groups: dict[str, Group]) -> dict[str, float]:
    """Means over each group: Chamfer (mean of both directions, longest sides) of the last surface and of the SDF's alone on the same grid;
    IoU at the sample's places; 1 without a surface."""
    networks.eval()
    out: dict[str, float] = {}
    for name, samples in groups.items():
        rows = []
        for k, s in enumerate(samples):
            field, generator = networks.encode(s["given"]), torch.Generator().manual_seed(k)
            away = networks.distance(field, s["places"])[0]
            mine, truth = away < 0, s["distance"] < 0
            row = {"chamfer": 1.0, "alone": 1.0, "iou": float((mine & truth).sum() / (mine | truth).sum().clamp(min=1))}
            with contextlib.suppress(EmptySurface):  # then the worst stands
                first = networks.predict(field, grid_of(field.half, SPACING[0]))
                made = {"alone": first.surface()[:2], "chamfer": networks(field, first.grid)}
                for key, (vertices, faces) in made.items():
                    points, normals = scattered(vertices, faces, 8000, generator)
                    row[key] = float(chamfer_and_normals(points, normals, s["on"], s["normals"])[0]) / 2
            rows.append(row)
        out |= {f"{name}_{key}": float(np.mean([r[key] for r in rows])) for key in rows[0]}
    networks.train()
    return out


def main(settings: Settings) -> None:
    """Train, writing the averaged weights as `OUT/prior` at each look."""
    with torch.random.fork_rng():
        torch.manual_seed(settings.loop.seed)  # noqa: TID251 — layers draw their initial weights from the global state
        network = Asked(DMTetNetworks(DMTetConfig(reads=settings.reads)), settings.adversary)
    if settings.start is not None and not (settings.out / "state.safetensors").exists():
        folder = MINI / f"shape_{settings.reads}" if str(settings.start) == "mini" else settings.start
        network.networks.load_state_dict(dmtet.load(folder).state_dict())
    loop = settings.loop
    data = Solids(
        settings.objects, settings.reads, seed=loop.seed, batch=loop.batch, procedural=settings.procedural, from_sample=settings.judged
    )
    groups = held_out(settings.objects, settings.reads)

    def validate(average: nn.Module) -> dict[str, float]:
        assert isinstance(average, Asked)
        dmtet.save(average.networks, settings.out / "prior")
        return score(average.networks, groups)

    train(network, data, loss, settings.out, loop, validate)


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings))
