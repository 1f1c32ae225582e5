# SPDX-License-Identifier: Apache-2.0
"""Training of what lets the embedded prior's views look at each other: Consistent123's added attention (arXiv:2310.08092), on a frozen
Zero-1-to-3.

A sample is V views of one object at one level, under one picture of it. Only `attn_joint_mid` and `norm_joint_mid` of each block are
trained; a batch in ten is asked under nothing, for guidance. Sample i is a function of i, noise and all.

`python -m bozzetto.training.together --latents FOLDER --validation FOLDER --out FOLDER` writes OUT/prior/model.safetensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from bozzetto.priors import loading
from bozzetto.priors.consistent123 import Consistent123, save
from bozzetto.priors.hint import PLANES
from bozzetto.priors.joint import blocks
from bozzetto.priors.prior import Condition
from bozzetto.priors.zero123 import Zero123, moved
from bozzetto.training.backbone import Encoded
from bozzetto.training.loop import LoopSettings, train

NULL_EVERY = 10  # of this many batches, one is asked under nothing


@dataclass(frozen=True)
class Settings:
    """`python -m bozzetto.training.together ...`"""

    latents: Path
    """of `training.latents`"""
    validation: Path
    """latents of objects that nobody trains on"""
    out: Path
    """the run's folder"""
    base: str = "mini"
    """the Zero-1-to-3 that it is trained on, as the latents' codec and towers are"""
    views: int = 4
    """of a sample"""
    shared: bool = True
    """self-attention looks at the picture, as in the paper; else it stays the base's own"""
    loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(samples=40_000, batch=8, lr=0.01, cooldown=0.4, ema=0.998, workers=0, validate_every=4_000)
    )


class Grouped(Dataset[dict[str, Tensor]]):
    """Sample i: V latents of an object, their noise and level, and what they are asked under."""

    def __init__(self, data: Encoded, scale: float, views: int, seed: int, batch: int) -> None:
        self.data, self.scale, self.views, self.seed, self.batch = data, scale, views, seed, batch

    def __len__(self) -> int:
        return 1 << 40

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        group = self.group(np.random.default_rng([self.seed, 84, i]))
        return group | {"is_null": torch.tensor(i // self.batch % NULL_EVERY == NULL_EVERY - 1)}

    def group(self, rng: np.random.Generator, *, hinted: bool | None = None) -> dict[str, Tensor]:
        """hinted: whether to show the hints, or as it falls."""
        data, v = self.data, self.views
        n, count, channels, h, w = data.latents.shape
        k, seen = int(rng.integers(n)), int(rng.integers(data.hint.shape[1]))
        shown = float(rng.random()) < 0.7 if hinted is None else hinted
        others = rng.permutation([j for j in range(count) if j != seen])[:v].tolist()
        hint = torch.zeros(v, channels + PLANES, h, w)
        if shown:
            hint = torch.cat([data.hint[k, seen, others].float() * self.scale, data.planes[k, seen, others].float()], 1)
        return {
            "x0": data.latents[k, others].float() * self.scale,
            "noise": torch.from_numpy(rng.standard_normal((v, channels, h, w), np.float32)),
            "k": torch.tensor(int(rng.integers(1000))),
            "image": data.latents[k, seen].float(),
            "embedding": data.embedding[k, seen].float(),
            "pose": torch.stack([data.pose(k, seen, j) for j in others]),
            "hint": hint,
        }


class Added(nn.Module):
    """What is trained, of a prior that is not: `prior` is no submodule, so that its frozen weights are in no optimiser and no file."""

    def __init__(self, prior: Consistent123) -> None:
        super().__init__()
        prior.requires_grad_(False)
        added = [nn.ModuleList([block.norm_joint_mid, block.attn_joint_mid]) for block in blocks(prior.unet)]
        self.added = nn.ModuleList(added).requires_grad_(True)
        self.__dict__["prior"] = prior

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """(B,) losses of a batch of `Grouped`."""
        prior: Consistent123 = self.__dict__["prior"]
        return prior.denoiser.loss(batch["x0"], batch["noise"], prior.denoiser.sigmas[batch["k"].cpu()], asked(prior, batch))


def asked(prior: Consistent123, batch: dict[str, Tensor]) -> Condition:
    """What a batch of `Grouped` is asked under: as `Consistent123.condition` has it."""
    if "is_null" in batch and bool(batch["is_null"][0]):
        return prior.condition()
    b, v = batch["x0"].shape[:2]
    own = moved(torch.zeros(b, 1), torch.zeros(b, 1), torch.zeros(b, 1))
    pose = torch.cat([own.to(batch["pose"]), batch["pose"]], 1)
    embedding = batch["embedding"][:, None].expand(-1, v + 1, -1)
    return {
        "token": prior.base.projection(torch.cat([embedding, pose], -1))[:, :, None],
        "image_latent": batch["image"][:, None],
        "hint": torch.cat([torch.zeros_like(batch["hint"][:, :1]), batch["hint"]], 1),
        "picture": batch["image"][:, None] * prior.codec.scaling_factor,
    }


def apart(base: Zero123, batch: dict[str, Tensor]) -> Tensor:
    """(B V,) losses of the base by itself, of the same views under the same noise."""
    v = batch["x0"].shape[1]
    token = base.projection(torch.cat([batch["embedding"][:, None].expand(-1, v, -1), batch["pose"]], -1)).flatten(0, 1)[:, None]
    image = batch["image"][:, None].expand(-1, v, *batch["image"].shape[1:]).flatten(0, 1)
    cond = {"image_latent": image, "token": token, "hint": batch["hint"].flatten(0, 1)}
    sigma = base.denoiser.sigmas[batch["k"].repeat_interleave(v)]
    return base.denoiser.loss(batch["x0"].flatten(0, 1), batch["noise"].flatten(0, 1), sigma, cond)


def fixed(groups: Grouped, count: int, *, hinted: bool) -> list[dict[str, Tensor]]:
    """Batches of eight that are the same at each validation, levels spread evenly."""
    made = [groups.group(np.random.default_rng([85, i]), hinted=hinted) | {"k": torch.tensor(i * 997 % 1000)} for i in range(count)]
    return [{key: torch.stack([m[key] for m in made[i : i + 8]]) for key in made[0]} for i in range(0, count, 8)]


def main(settings: Settings) -> None:
    """Train; after each validation the added weights stand in OUT/prior."""
    loaded, alone = (loading.load_as(Zero123, settings.base) for _ in range(2))
    network = Added(Consistent123(loaded, settings.views, shared=settings.shared))
    scale = loaded.codec.scaling_factor
    groups = Grouped(Encoded.of(settings.latents), scale, settings.views, settings.loop.seed, settings.loop.batch)
    held = Grouped(Encoded.of(settings.validation), scale, settings.views, 0, 8)
    batches = {name: fixed(held, 128, hinted=name == "hinted") for name in ("hinted", "plain")}
    with torch.no_grad():
        base = {name: float(torch.cat([apart(alone, b) for b in some]).mean()) for name, some in batches.items()}
    print("the base by itself  " + "  ".join(f"{name} {value:.4f}" for name, value in base.items()), flush=True)

    def loss(net: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        total = net(batch).float().mean()
        return total, {"total": total}

    @torch.no_grad()
    def validate(average: nn.Module) -> dict[str, float]:
        trained: Any = average
        save(trained.prior, settings.out / "prior")
        return {f"{name}_loss": float(torch.cat([average(b) for b in some]).mean()) for name, some in batches.items()}

    train(network, groups, loss, settings.out, settings.loop, validate)


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings))
