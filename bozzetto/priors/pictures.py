# SPDX-License-Identifier: Apache-2.0
"""Generative models of small pictures, about a million weights each: a DDPM and an NCSN of digits and a DDPM of emoji
are embedded, and a weak DDPM of digits for `guidance.autoguidance`; runs of `training.pictures` made them.

`load("digits-ddpm")`, or `load` of a run's folder `model`, gives a `Denoiser` of pictures in [-1, 1] (DDPM) or [0, 1] (NCSN), for
every sampler of the package. What is embedded lies in `mini/NAME`: config.json, model.safetensors (float16) and the card, README.md,
with data, seed, steps and measurements.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from bozzetto.denoiser import ScoreDenoiser, VPDenoiser
from bozzetto.diffusion.network import UNet
from bozzetto.diffusion.schedules import alpha_bar, cosine_betas
from bozzetto.errors import InputError
from bozzetto.files import replacing, write_atomically
from bozzetto.scores.ladder import geometric
from bozzetto.scores.network import NCSN

FOLDER = Path(__file__).parent / "mini"
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


def load(name: str | Path) -> tuple[VPDenoiser | ScoreDenoiser, Config]:
    """One of `NAMES`, or a folder that `save` wrote; float32, ready to ask. `.network` of it is the network itself.

    raises  InputError, one sentence, for a missing, truncated or mis-shaped file
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = FOLDER / name if str(name) in NAMES else Path(name)
    try:
        raw: dict[str, Any] = json.loads((folder / "config.json").read_text())
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
        config = Config(**settings)
        network = build(config, generator=torch.Generator())
        network.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"{folder}: not one of the small models ({first}); names are {', '.join(NAMES)}") from None
    network.eval().requires_grad_(False)
    if config.kind == "ncsn":
        return ScoreDenoiser(network, config.sigmas), config
    return VPDenoiser(network, config.alpha_bar, config.prediction), config


def save(network: UNet | NCSN, config: Config, folder: str | Path) -> None:
    """Write the folder that `load` reads, float16, each file by rename."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "model.safetensors") as part:
        save_file({k: v.detach().half().contiguous() for k, v in network.state_dict().items()}, part)
    write_atomically(folder / "config.json", (json.dumps(asdict(config), indent=1) + "\n").encode())
