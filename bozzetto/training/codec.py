# SPDX-License-Identifier: Apache-2.0
"""Training of the codec of the embedded diffusion priors, on an album's pictures: 128 pixels to 16 x 16 x 12 latents and back.

What encodes is the best linear codec of its size, principal components of 8 x 8 patches, worked out at once: latents are known
before training begins, and priors on them may be trained beside what decodes. What decodes starts as its inverse, which is also
the bar. The loss is L1 on pixels and on their differences at three scales: edges count without a network to judge them. Latents are
shaken a little in training, so that a denoiser's small errors stay small. Most pictures stand on white, as priors see them, the
others on any colour.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from bozzetto.priors.codec import CodecConfig, LinearCodec
from bozzetto.render import ssim as likeness
from bozzetto.training.loop import LoopSettings, train


@dataclass(frozen=True)
class Settings:
    """`python -m bozzetto.training.codec --album FOLDER --validation FOLDER --out FOLDER`"""

    album: Path
    """of `training.album`"""
    validation: Path
    """an album of objects that nobody trains on"""
    out: Path
    """the run's folder; the codec is written to `OUT/vae`"""
    shake: float = 0.1
    """standard deviation of the noise on latents, in standard deviations of theirs"""
    loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(
            samples=80_000, lr=0.0, vector_lr=2e-3, cooldown=0.6, ema=0.99, workers=0, validate_every=10_000
        )
    )


def album_pictures(folder: Path, every: int = 1) -> Tensor:
    """(N, H, W, 4) uint8 premultiplied: every so many of an album's pictures, in memory."""
    from safetensors import safe_open

    parts = []
    for path in sorted(folder.glob("chunk_*.safetensors")):
        with safe_open(path, "pt") as file:
            parts.append(file.get_tensor("pictures").flatten(0, 1)[::every])
    return torch.cat(parts)


def on(pictures: Tensor, background: Tensor) -> Tensor:
    """uint8 (N, H, W, 4) over backgrounds (N, 3) in [0, 1]: (N, 3, H, W) in [-1, 1]."""
    x = pictures.float() / 255
    return ((x[..., :3] + (1 - x[..., 3:]) * background[:, None, None]).movedim(-1, 1) * 2 - 1).contiguous()


class Pictures(Dataset[dict[str, Tensor]]):
    """Sample i, a function of i: a picture (3, H, W) in [-1, 1], and the noise that shakes its latent."""

    def __init__(self, pictures: Tensor, cells: int, channels: int, seed: int) -> None:
        self.pictures, self.shape, self.seed = pictures, (channels, cells, cells), seed

    def __len__(self) -> int:
        return 1 << 40

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed((self.seed << 40) + i)
        k = int(torch.randint(len(self.pictures), (1,), generator=generator))
        colour = torch.rand(1, 3, generator=generator)
        white = torch.rand(1, generator=generator) < 0.7
        picture = on(self.pictures[k : k + 1], torch.ones(1, 3) if white else colour)[0]
        return {"picture": picture.flip(-1) if i % 2 else picture, "noise": torch.randn(self.shape, generator=generator)}


class Autoencoder(nn.Module):
    """The codec as training calls it."""

    def __init__(self, codec: LinearCodec) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, picture: Tensor, noise: Tensor) -> Tensor:
        """The reconstruction; noise (B, C, h, w) is added to the latent."""
        z = self.codec.analysis(picture)
        return self.codec.picture(z + noise.to(z))


def loss(network: nn.Module, batch: dict[str, Tensor], spread: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """L1 of pixels and of neighbours' differences at three scales; spread (C,) is how far latents are shaken."""
    error = network(batch["picture"], batch["noise"] * spread.to(batch["noise"])[:, None, None]).float() - batch["picture"]
    pixels, edges = error.abs().mean(), error.new_zeros(())
    for _ in range(3):
        edges = edges + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        error = F.avg_pool2d(error, 2)
    total = pixels + 0.5 * edges
    return total, {"total": total, "pixels": pixels, "edges": edges}


def psnr(made: Tensor, picture: Tensor) -> float:
    """Mean over pictures (N, 3, H, W) in [-1, 1], dB, the whole picture."""
    return float(likeness.psnr(made.clamp(-1, 1).movedim(1, -1) / 2, picture.movedim(1, -1) / 2).mean())


@torch.no_grad()
def reconstructed(codec: LinearCodec, pictures: Tensor) -> Tensor:
    """There and back, in batches of 32."""
    device = codec.analysis.weight.device
    return torch.cat([codec.picture(codec.analysis(x.to(device))).float().cpu() for x in pictures.split(32)])


def principal_components(pictures: Tensor, patch: int = 8, channels: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """The best linear codec of as many numbers: mean (3 p p), basis (channels, 3 p p) and the coefficients' standard deviations
    (channels,), largest first, float64, of patches of pictures (N, 3, H, W)."""
    x = F.unfold(pictures, patch, stride=patch).mT.reshape(-1, 3 * patch * patch).double()
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    return mean, vectors[:, -channels:].T.flip(0), values[-channels:].flip(0).clamp(min=0).sqrt()


def projected(pictures: Tensor, mean: Tensor, basis: Tensor, patch: int = 8) -> Tensor:
    """Pictures through the linear codec and back."""
    x = F.unfold(pictures, patch, stride=patch).mT.double()
    y = ((x - mean) @ basis.T) @ basis + mean
    return F.fold(y.float().mT, pictures.shape[2:], patch, stride=patch)


def save(codec: LinearCodec, folder: Path) -> None:
    """`config.json` and weights in float16, as `components.codec` reads them."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().half().contiguous() for k, v in codec.state_dict().items()}, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps({"_class_name": "LinearCodec", **asdict(codec.settings)}, indent=1) + "\n")


def main(settings: Settings) -> None:
    """Train, then write the averaged weights as `OUT/vae`."""
    pictures, unseen = album_pictures(settings.album), album_pictures(settings.validation, 7)
    few = on(pictures[:: max(1, len(pictures) // 1500)], torch.ones(1, 3))
    config = CodecConfig()
    mean, basis, std = principal_components(few, config.cell, config.latent_channels)
    with torch.random.fork_rng():
        torch.manual_seed(settings.loop.seed)  # noqa: TID251 — layers draw their initial weights from the global state
        codec = LinearCodec(config)
    codec.start(mean, basis, std)
    codec.analysis.requires_grad_(False)
    with torch.no_grad():
        z = torch.cat([codec.analysis(x) for x in few.split(32)])
    codec.settings = replace(config, scaling_factor=round(float(1 / z.std()), 5))
    save(codec, settings.out / "vae")
    spread = settings.shake * std.sqrt().float()
    groups = on(unseen, torch.ones(1, 3))
    linear = psnr(projected(groups, mean, basis), groups)
    print(f"the linear codec: {linear:.2f} dB; at the start: {psnr(reconstructed(codec, groups), groups):.2f} dB", flush=True)
    network = Autoencoder(codec).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    samples = Pictures(pictures, groups.shape[-1] // config.cell, config.latent_channels, settings.loop.seed)

    def validate(average: nn.Module) -> dict[str, float]:
        assert isinstance(average, Autoencoder)
        save(average.codec, settings.out / "vae")
        return {"psnr": psnr(reconstructed(average.codec, groups), groups), "psnr_linear": linear}

    def sheet(average: nn.Module) -> Tensor:
        assert isinstance(average, Autoencoder)
        some = groups[:: max(1, len(groups) // 12)][:12]
        return torch.cat([torch.cat([*some], 2), torch.cat([*reconstructed(average.codec, some).clamp(-1, 1)], 2)], 1) / 2 + 0.5

    average = train(network, samples, lambda n, b: loss(n, b, spread), settings.out, settings.loop, validate, sheet)
    assert isinstance(average, Autoencoder)
    save(average.codec, settings.out / "vae")


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings))
