# SPDX-License-Identifier: Apache-2.0
"""Training of InstructPix2Pix (Brooks, Holynski & Efros 2022, arXiv:2211.09800): a text-to-image model learns to read a picture, too.

    E || eps - e(z_t, t, E(c_I), c_T) ||^2,    z the latent of the picture afterwards, scaled; E(c_I) that of the one before, not scaled

in whatever the base predicts. The U-Net begins as the base: what it gets for the picture's latent are zeros (`priors.instruct.widened`).
One number u, even in [0, 1), says what a sample loses: the text alone below .05, both below .10, the picture alone below .15; drawn apart,
both would be lost more rarely than either. Before and after are flipped together.

The embedded backbone has channels that read a rendering of the wanted view, its hint; `begin = "hint"` gives the picture's channels these
instead of zeros, which the paper's base had not. Sample i is a function of i, noise and all.

`python -m bozzetto.training.instruct --pairs FOLDER --validation FOLDER --out FOLDER` writes OUT/prior, a folder for `--prior`.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from bozzetto.diffusion.losses import prediction_loss
from bozzetto.errors import InputError
from bozzetto.files import replacing, write_atomically
from bozzetto.priors import learnt, loading
from bozzetto.priors.instruct import EXTENDED, InstructPix2Pix, widened
from bozzetto.priors.latent import resized
from bozzetto.priors.text2image import TextToImage
from bozzetto.training.deadline import Deadline
from bozzetto.training.loop import LoopSettings, train
from bozzetto.training.pairs import Pairs

LOSES_TEXT, LOSES_PICTURE = (0.0, 0.10), (0.05, 0.15)
SOME = (
    "conv_in.",
    "down_blocks.0.",
    "up_blocks.2.",
    "conv_norm_out.",
    "conv_out.",
    ".attn1.",
    ".attn2.",
    ".proj_in.",
    ".proj_out.",
    ".norm",
)
"""parts of the names of weights that train where not all do: the ends of the U-Net, and attention; a quarter of the embedded one"""


@dataclass(frozen=True)
class Settings:
    """`python -m bozzetto.training.instruct --pairs FOLDER --validation FOLDER --out FOLDER`"""

    pairs: Path
    """of `training.drawn_pairs`, or with --rendered of `training.pairs`"""
    validation: Path
    """rendered pairs of objects that nobody trains on"""
    out: Path
    """the run's folder; `OUT/prior` is what was learnt"""
    rendered: bool = False
    """train on rendered pairs, which are true, and of which the paper has none"""
    base: str = "mini"
    """a text-to-image model: embedded, fetched, or a folder"""
    begin: Literal["zeros", "hint"] = "zeros"
    """what the picture's channels begin with; "hint" for the embedded base alone"""
    some: bool = False
    """train attention and the ends of the U-Net alone: a file of 3 MB for the embedded base"""
    minutes: float | None = None
    """end by the clock, after so many, whatever number of samples that is"""
    loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(samples=60_000, batch=32, lr=0.01, cooldown=0.5, ema=0.995, workers=0, validate_every=6_000)
    )


def loses(u: float) -> tuple[bool, bool]:
    """Whether a sample of u in [0, 1) loses its text, and its picture."""
    text, picture = (low <= u < high for low, high in (LOSES_TEXT, LOSES_PICTURE))
    return text, picture


@dataclass(frozen=True)
class Encoded:
    """Pairs as the codec sees them, and each again flipped.

    before  (N, 2, C, h, w) float16, the posterior's mode, not scaled; after the same, a sample, scaled
    texts   what is said, each once, the empty one first; said (N,) int64 which of them
    """

    before: Tensor
    after: Tensor
    texts: list[str]
    said: Tensor

    @classmethod
    def of(cls, pairs: Pairs, prior: TextToImage, seed: int = 0) -> Encoded:
        generator = torch.Generator().manual_seed(seed)
        befores: list[Tensor] = []
        afters: list[Tensor] = []
        for before, after in zip(pairs.before.split(64), pairs.after.split(64), strict=True):
            for x, made, codec in ((before, befores, prior.codec.latent), (after, afters, lambda y: prior.codec.encode(y, generator))):
                both = torch.stack([x, x.flip(2)], 1).flatten(0, 1).float() / 255
                with torch.no_grad():
                    z = codec(resized(both, prior.size))
                made.append(z.view(len(x), 2, *z.shape[1:]).half())
        texts = ["", *sorted({t.instruction for t in pairs.said} - {""})]
        said = torch.tensor([texts.index(t.instruction) for t in pairs.said])
        return cls(torch.cat(befores), torch.cat(afters), texts, said)


class Rows(Dataset[dict[str, Tensor]]):
    """Sample i of training, a function of i."""

    def __init__(self, data: Encoded, steps: int, seed: int) -> None:
        self.data, self.steps, self.seed = data, steps, seed

    def __len__(self) -> int:
        return 1 << 40

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, 86, i])
        return self.row(int(rng.integers(len(self.data.said))), int(rng.integers(2)), rng, float(rng.random()))

    def row(self, k: int, flip: int, rng: np.random.Generator, u: float = 1.0) -> dict[str, Tensor]:
        """Pair k, flipped or not, at a level and under a noise that rng draws; without losses where u is not said."""
        before = self.data.before[k, flip].float()
        no_text, no_picture = loses(u)
        return {
            "x0": self.data.after[k, flip].float(),
            "noise": torch.from_numpy(rng.standard_normal(tuple(before.shape), np.float32)),
            "k": torch.tensor(int(rng.integers(self.steps))),
            "image": torch.zeros_like(before) if no_picture else before,
            "said": torch.tensor(0) if no_text else self.data.said[k],
        }


class Editor(nn.Module):
    """What is trained: a prior's U-Net, of which all weights are, or some."""

    def __init__(self, prior: InstructPix2Pix, *, some: bool = False) -> None:
        super().__init__()
        self.network, self.prediction = prior.network, prior.schedule.prediction
        for name, p in self.network.unet.named_parameters():
            p.requires_grad_(not some or any(part in name for part in SOME))

    def forward(self, batch: dict[str, Tensor], alpha_bar: Tensor, words: Tensor) -> Tensor:
        """(B,) losses of a batch of `Rows` under the text tower's states (B, L, D)."""
        cond = {"token": words, "image_latent": batch["image"]}
        return prediction_loss(self.network, batch["x0"], batch["noise"], batch["k"], alpha_bar, self.prediction, cond)


def started(settings: Settings) -> InstructPix2Pix:
    """The base, extended.

    raises  InputError where it has no hint to begin from
    """
    prior = loading.load_as(InstructPix2Pix, settings.base, EXTENDED)
    if settings.begin == "hint":
        base = loading.load_as(TextToImage, settings.base, loading.TEXT)
        c = base.shape[0]
        if base.network.hint_channels < c:
            raise InputError(f"--begin hint: {settings.base} reads no hint; leave it out")
        prior.network.unet = widened(base.unet, slice(2 * c, 3 * c))
    return prior


def save(unet: nn.Module, settings: Settings) -> None:
    """`OUT/prior`, in float16: the weights that train, and on what."""
    from safetensors.torch import save_file

    folder = settings.out / "prior"
    folder.mkdir(parents=True, exist_ok=True)
    some = {k: p.detach().half().contiguous() for k, p in unet.named_parameters() if p.requires_grad}
    with replacing(folder / learnt.PART) as part:
        save_file(some, part, metadata={"format": "pt"})
    record = {"kind": learnt.KIND, "base": settings.base, "base_kind": EXTENDED, "base_digest": loading.digest(settings.base)}
    write_atomically(folder / learnt.RECORD, (json.dumps(record, indent=1) + "\n").encode())


def main(settings: Settings) -> None:
    """Train; after each validation what was learnt stands in `OUT/prior`."""
    prior = started(settings)
    pairs, unseen = Pairs.of(settings.pairs), Pairs.of(settings.validation)
    if (pairs.made == "rendered") != settings.rendered:
        raise InputError(
            f"{settings.pairs}: holds {pairs.made} pairs; " + ("leave --rendered out" if settings.rendered else "add --rendered")
        )
    alpha_bar = prior.schedule.alpha_bar().float()
    data, held = Encoded.of(pairs, prior, settings.loop.seed), Encoded.of(unseen, prior)
    print(f"{len(pairs.said)} pairs, {len(data.texts)} texts", flush=True)

    @functools.cache
    def states(text: str) -> Tensor:
        return prior.condition(text=text)["token"].half()

    def words(said: Tensor, texts: list[str]) -> Tensor:
        return torch.cat([states(texts[int(k)]) for k in said.cpu()]).float().to(said.device)

    fixed: dict[str, dict[str, Tensor]] = {}
    rows = Rows(held, len(alpha_bar), 0)
    for name in ("recolour", "material", "part"):
        chosen = [k for k, t in enumerate(unseen.said) if t.kind.startswith(name)][:128]
        made = [
            rows.row(k, 0, np.random.default_rng([87, k])) | {"k": torch.tensor(j * 997 % len(alpha_bar))} for j, k in enumerate(chosen)
        ]
        fixed[name] = {key: torch.stack([m[key] for m in made]) for key in made[0]}

    def loss(net: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        total = net(batch, alpha_bar, words(batch["said"], data.texts)).float().mean()
        return total, {"total": total}

    @torch.no_grad()
    def validate(average: nn.Module) -> dict[str, float]:
        average.eval()
        trained: Any = average
        save(trained.network.unet, settings)
        device = next(average.parameters()).device
        here = {name: {k: v.to(device) for k, v in batch.items()} for name, batch in fixed.items()}
        return {f"{name}_loss": float(average(b, alpha_bar, words(b["said"], held.texts)).mean()) for name, b in here.items()}

    deadline = None if settings.minutes is None else Deadline(60 * settings.minutes, validations=8)
    editor = Editor(prior, some=settings.some)
    train(editor, Rows(data, len(alpha_bar), settings.loop.seed), loss, settings.out, settings.loop, validate, deadline=deadline)


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings))
