# SPDX-License-Identifier: Apache-2.0
"""Generative models of small pictures, about a million weights each: a DDPM and an NCSN of digits and a DDPM of emoji
are embedded, and a weak DDPM of digits for `guidance.autoguidance`; runs of `training.unconditional` made them.

`priors.load("digits-ddpm")`, or `load` of a run's folder `model`, is a `Prior` without conditions, whose x0 are the pictures
themselves, in [-1, 1] (DDPM) or [0, 1] (NCSN): its `denoiser` is for every sampler of the package. What is embedded lies in
`mini/NAME`: config.json, model.safetensors (float16) and the card, README.md, with data, seed, steps and measurements.

Letters: B pictures, C channels (1 is grey), S pixels a side.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bozzetto.camera import Camera
from bozzetto.denoiser import ScoreDenoiser, VPDenoiser
from bozzetto.diffusion.network import UNet
from bozzetto.diffusion.schedules import alpha_bar, cosine_betas
from bozzetto.errors import InputError
from bozzetto.priors.components import tuples
from bozzetto.priors.latent import resized
from bozzetto.priors.prior import Condition, Hinting, Reference
from bozzetto.priors.sampling import Sampler
from bozzetto.scores.ladder import geometric
from bozzetto.scores.network import NCSN
from bozzetto.views import Views

KINDS = ("ddpm", "ncsn")
NAMES = ("digits-ddpm", "digits-guide", "digits-ncsn", "emoji-ddpm")


@dataclass(frozen=True)
class Config:
    """What makes the network again.

    widths  DDPM: channels of each level; NCSN: filters of the first cascade alone
    T       steps of a DDPM, levels of an NCSN
    """

    kind: Literal["ddpm", "ncsn"]
    size: int
    channels: int
    widths: tuple[int, ...]
    blocks: int = 1
    patch: int = 2
    prediction: str = "v"

    @property
    def T(self) -> int:
        return 1000 if self.kind == "ddpm" else 10

    @property
    def alpha_bar(self) -> Tensor:
        """(T,) of a DDPM: the cosine schedule."""
        return alpha_bar(cosine_betas(self.T))

    @property
    def sigmas(self) -> Tensor:
        """(T,) of an NCSN, descending: 1 to .01, as in its paper."""
        return geometric(1.0, 0.01, self.T)


def build(config: Config, *, generator: torch.Generator | None = None) -> UNet | NCSN:
    """An untrained network. The first weights come from the generator."""
    if config.kind == "ncsn":
        return NCSN(config.channels, config.widths[0], config.T, config.sigmas, patch=config.patch, generator=generator)
    attend = (len(config.widths) - 1,)  # where the picture is smallest
    return UNet(config.channels, config.widths, config.blocks, attend, patch=config.patch, generator=generator)


class PicturePrior(nn.Module):
    """A DDPM or an NCSN of small pictures as a `Prior` that reads nothing.

    Grey ones are white ink on black paper, coloured ones stand on white. Sampled as other priors are an NCSN draws worse than by
    annealed Langevin dynamics, its paper's way, since its data are not of unit variance.
    """

    uses_hint: bool = False

    def __init__(self, network: UNet | NCSN, config: Config) -> None:
        super().__init__()
        self.config = config
        self.denoiser: VPDenoiser | ScoreDenoiser
        if config.kind == "ncsn":
            self.denoiser = ScoreDenoiser(network, config.sigmas)
        else:
            self.denoiser = VPDenoiser(network, config.alpha_bar, config.prediction)

    @classmethod
    def read(cls, folder: Path, kind: str, *, text: Path | None, dtype: torch.dtype, device: str | torch.device) -> PicturePrior:
        """What `save` wrote; see `loading.load`."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            config = Config(**tuples(json.loads((folder / "config.json").read_text())))
            network = build(config, generator=torch.Generator())
            network.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
        except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
            first = str(error).strip().splitlines()[0]
            raise InputError(f"{folder}: not one of the small models ({first}); names are {', '.join(NAMES)}") from None
        return cls(network, config).to(device, dtype).eval().requires_grad_(False)

    @property
    def network(self) -> UNet | NCSN:
        network: Any = self.denoiser.network
        return network

    @property
    def background(self) -> float:
        return 0.0 if self.config.channels == 1 else 1.0

    @property
    def size(self) -> int:
        return self.config.size

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, S, S)"""
        return self.config.channels, self.config.size, self.config.size

    @property
    def sampler(self) -> Sampler:
        return Sampler(min(100, self.config.T), 1.0, 1.0)

    def views(self, reference: Reference | None = None) -> Camera | None:
        """None: it knows no cameras."""
        return None

    def encode(self, views: Views, *, generator: torch.Generator | None = None) -> Tensor:
        return self.encode_pictures(views.over(self.background).clamp(0, 1).float(), generator=generator)

    def encode_pictures(self, rgb: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """As `Prior.encode_pictures`; there is no posterior to draw from."""
        x = resized(rgb.float(), self.size).movedim(-1, 1)
        x = x.mean(1, keepdim=True) if self.config.channels == 1 else x
        return 2 * x - 1 if self.config.kind == "ddpm" else x

    def decode(self, x0: Tensor) -> Tensor:
        x = x0.float() / 2 + 0.5 if self.config.kind == "ddpm" else x0.float()
        return x.clamp(0, 1).movedim(1, -1).expand(-1, -1, -1, 3)

    def encode_reference(self, reference: Reference) -> None:
        """raises ValueError: it reads no pictures"""
        raise ValueError("reference: this prior reads nothing; leave it out")

    def condition(
        self, reference: None = None, cameras: Camera | None = None, text: str | None = None, hint: Hinting | None = None
    ) -> Condition:
        """Nothing; raises ValueError for a reference or a text."""
        if reference is not None:
            self.encode_reference(reference)
        if text is not None:
            raise ValueError(f"text: this prior reads nothing, got {text!r}; leave it out")
        return {}


def kind_of(folder: Path) -> str | None:
    """One of KINDS that a folder's config.json says; None where it is no folder of these."""
    try:
        kind = json.loads((folder / "config.json").read_text())["kind"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return kind if kind in KINDS else None
