# SPDX-License-Identifier: Apache-2.0
"""Training of the codec of the embedded diffusion priors: 128-pixel pictures to 16 x 16 x 8 latents and back.

A KL autoencoder (Rombach et al. 2022, arXiv:2112.10752) in diffusers' layout, narrow at the top, without attention, so that what
it learns on 64-pixel crops, at four times the speed, holds for whole pictures. The loss is L1 on pixels and on their
differences at three scales: edges count without a network to judge them. The bar is the best linear codec of the same size,
principal components of 8 x 8 patches.

Objects, cameras, light and colours are those of the first guess's training; half of the backgrounds are white.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from bozzetto.data.objects import Packed
from bozzetto.data.procedural import FAMILIES, HELD_OUT_FAMILIES, make
from bozzetto.data.renders import Drawable, crop_camera, drawable, random_lights, recoloured, render
from bozzetto.training.loop import LoopSettings, train
from bozzetto.training.stream import Stream

SIZE = 128
WIDTHS = (16, 32, 64, 64)
CHANNELS = 8  # of a latent


@dataclass(frozen=True)
class Settings:
    """`python -m bozzetto.training.autoencoder --objects FOLDER --out FOLDER`"""

    objects: Path
    """packed objects, as `bozzetto data pack` writes them"""
    out: Path
    """the run's folder: state, curve, logs; resumed if it is there"""
    crops_until: int = 300_000
    """samples that are 64-pixel crops, before whole pictures"""
    procedural: float = 0.6
    """share of procedural objects"""
    kl: float = 1e-4
    """weight of the KL divergence, a mean over the latent's numbers"""
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(samples=400_000, lr=0.01, cooldown=0.5, ema=0.998))


class Pictures(Dataset[dict[str, Tensor]]):
    """Sample i of the training stream: a picture (3, S, S) in [-1, 1]."""

    def __init__(self, objects: Path, *, seed: int, crops_until: int, procedural: float) -> None:
        self.objects = Stream(objects, procedural, drawable)
        self.seed, self.crops_until = seed, crops_until

    def __len__(self) -> int:
        return 1 << 40

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        torch.set_num_threads(1)
        rng = np.random.default_rng([self.seed, i])
        picture = draw_picture(self.objects.draw(i, rng), rng)
        if i < self.crops_until:
            y, x = rng.integers(0, SIZE // 2 + 1, 2)
            picture = picture[:, y : y + SIZE // 2, x : x + SIZE // 2]
        return {"picture": picture.contiguous()}


def draw_picture(d: Drawable, rng: np.random.Generator, *, augment: bool = True) -> Tensor:
    """(3, SIZE, SIZE) in [-1, 1]: an object from anywhere, in random light, colours and on a random background."""
    fov = math.radians(rng.uniform(15, 60))
    azimuth, elevation = rng.uniform(-math.pi, math.pi), math.radians(rng.uniform(-20, 80))
    if augment and rng.random() < 0.5:
        d = recoloured(d, rng)
    radius = float(np.linalg.norm(d.vertices, axis=1).max())
    camera, _ = crop_camera(d.vertices, azimuth, elevation, max(radius / math.sin(fov / 2), 1.3 * radius), SIZE)
    lights, _ = random_lights(rng, camera)
    views = render(d, camera, lights)
    background = torch.ones(3) if rng.random() < 0.5 else torch.from_numpy(rng.random(3)).float()
    return views.over(background)[0].permute(2, 0, 1) * 2 - 1


class Codec(nn.Module):
    """diffusers' AutoencoderKL, called as training needs it: a picture to its reconstruction and its latent's moments."""

    def __init__(self) -> None:
        super().__init__()
        from diffusers import AutoencoderKL

        self.vae = AutoencoderKL(
            in_channels=3,
            out_channels=3,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=WIDTHS,
            layers_per_block=1,
            latent_channels=CHANNELS,
            norm_num_groups=8,
            sample_size=SIZE,
            mid_block_add_attention=False,
        )

    def forward(self, picture: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, S, S) in [-1, 1] and noise (B, C, S/8, S/8) to the reconstruction, mean and log variance."""
        posterior = self.vae.encode(picture).latent_dist
        z = posterior.mean + posterior.std * noise.to(posterior.mean)
        return self.vae.decode(z).sample, posterior.mean, posterior.logvar


def loss(network: nn.Module, batch: dict[str, Tensor], kl: float, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """L1, L1 of differences between neighbours at three scales, and the KL divergence from a unit Gaussian."""
    picture = batch["picture"]
    b, _, h, w = picture.shape
    noise = torch.randn(b, CHANNELS, h // 8, w // 8, generator=generator, device=generator.device).to(picture)
    made, mean, logvar = network(picture, noise)
    made, mean, logvar = made.float(), mean.float(), logvar.float()
    pixels, error = (made - picture).abs().mean(), made - picture
    edges = picture.new_zeros(())
    for _ in range(3):
        edges = edges + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        error = F.avg_pool2d(error, 2)
    divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    total = pixels + 0.5 * edges + kl * divergence
    return total, {"total": total, "pixels": pixels, "edges": edges, "kl": divergence}


def validation_pictures(packed: Packed) -> dict[str, Tensor]:
    """Fixed pictures (N, 3, SIZE, SIZE) of validation furniture and of the families held out."""
    groups = {
        "furniture": [(packed[i], [17, i]) for i in packed.indices("validation")],
        "families": [(make(f, k), [18, k]) for k in range(12) for f in HELD_OUT_FAMILIES if f in FAMILIES],
    }
    return {
        name: torch.stack([draw_picture(drawable(obj), np.random.default_rng(seed), augment=False) for obj, seed in members])
        for name, members in groups.items()
    }


def psnr(made: Tensor, picture: Tensor) -> float:
    """Mean over pictures (N, 3, H, W) in [-1, 1], dB, the whole picture."""
    error = ((made.clamp(-1, 1) - picture) / 2).square().flatten(1).mean(1)
    return float((-10 * error.clamp(min=1e-10).log10()).mean())


@torch.no_grad()
def reconstructed(network: nn.Module, pictures: Tensor) -> Tensor:
    """From the mode of the latent, in batches of 16."""
    device = next(network.parameters()).device
    parts = []
    for chunk in pictures.split(16):
        silent = torch.zeros(len(chunk), CHANNELS, *(n // 8 for n in chunk.shape[2:]), device=device)
        parts.append(network(chunk.to(device), silent)[0].float().cpu())
    return torch.cat(parts)


def principal_components(pictures: Tensor, patch: int = 8, channels: int = CHANNELS) -> tuple[Tensor, Tensor]:
    """The best linear codec of as many numbers: mean (3 p p) and basis (channels, 3 p p) of patches of pictures (N, 3, H, W)."""
    x = F.unfold(pictures, patch, stride=patch).mT.reshape(-1, 3 * patch * patch).double()
    mean = x.mean(0)
    _, vectors = torch.linalg.eigh((x - mean).T @ (x - mean))
    return mean, vectors[:, -channels:].T


def projected(pictures: Tensor, mean: Tensor, basis: Tensor, patch: int = 8) -> Tensor:
    """Pictures through the linear codec and back."""
    x = F.unfold(pictures, patch, stride=patch).mT.double()
    y = ((x - mean) @ basis.T) @ basis + mean
    return F.fold(y.float().mT, pictures.shape[2:], patch, stride=patch)


def scaling_factor(network: Codec, pictures: Tensor) -> float:
    """1 / standard deviation of latents, so that the diffusion sees unit variance (Rombach et al., Sec. G)."""
    with torch.no_grad():
        device = next(network.parameters()).device
        z = torch.cat([network.vae.encode(chunk.to(device)).latent_dist.mean.float().cpu() for chunk in pictures.split(16)])
    return float(1 / z.std())


def main(settings: Settings) -> None:
    """Train, then write the averaged weights as `OUT/vae`, float16."""
    with torch.random.fork_rng():
        torch.manual_seed(settings.loop.seed)  # noqa: TID251 — layers draw their initial weights from the global state
        network = Codec().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pictures = Pictures(settings.objects, seed=settings.loop.seed, crops_until=settings.crops_until, procedural=settings.procedural)
    whole = Pictures(settings.objects, seed=settings.loop.seed + 1, crops_until=0, procedural=settings.procedural)
    training = torch.stack([whole[i]["picture"] for i in range(384)])
    groups = validation_pictures(pictures.objects.packed)
    linear = {name: psnr(projected(x, *principal_components(training)), x) for name, x in groups.items()}
    print("the linear codec: " + "  ".join(f"{k} {v:.2f} dB" for k, v in linear.items()), flush=True)
    generator = torch.Generator().manual_seed(settings.loop.seed)

    def validate(average: nn.Module) -> dict[str, float]:
        average.eval()
        return {f"{name}_psnr": psnr(reconstructed(average, x), x) for name, x in groups.items()} | {
            f"{name}_psnr_linear": v for name, v in linear.items()
        }

    def sheet(average: nn.Module) -> Tensor:
        some = torch.cat([groups["furniture"][::12][:6], groups["families"][::8][:6]])
        return torch.cat([torch.cat([*some], 2), torch.cat([*reconstructed(average, some).clamp(-1, 1)], 2)], 1) / 2 + 0.5

    average = train(network, pictures, lambda n, b: loss(n, b, settings.kl, generator), settings.out, settings.loop, validate, sheet)
    assert isinstance(average, Codec)
    average.vae.register_to_config(scaling_factor=round(scaling_factor(average, training), 5))
    average.vae.half().save_pretrained(settings.out / "vae", safe_serialization=True)


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings))
