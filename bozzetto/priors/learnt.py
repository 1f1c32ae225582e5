# SPDX-License-Identifier: Apache-2.0
"""A folder that holds no prior, but what was learnt on one: `bozzetto learn` writes it, `loading.load` reads it as any other.

    bozzetto.json                        {"kind": "learnt", "base": "mini", "base_kind": "text-to-image", "base_digest": "...", ...}
    pytorch_lora_weights.safetensors     a low-rank update (`priors.lora`), as diffusers has it; or
    unet/                                all weights of the U-Net, as diffusers has it; or
    some_weights.safetensors             a part of the U-Net's weights, by their names; or
    learned_embeds.safetensors           one word (`priors.inversion`), as diffusers has it

`base` is the name of an embedded or fetched prior, or the path of a folder, absolute or relative to this one; its digest, where it is
said, must be the same as when it was learnt. An update that came from elsewhere becomes a prior by such a bozzetto.json, without a
digest, written by hand beside it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bozzetto.errors import InputError
from bozzetto.files import replacing, write_atomically
from bozzetto.priors import components, inversion, lora
from bozzetto.priors.components import read_json
from bozzetto.priors.inversion import Inversion
from bozzetto.priors.latent import LatentPrior
from bozzetto.priors.text2image import TextToImage
from bozzetto.priors.tuned import Tuned

KIND, RECORD = "learnt", "bozzetto.json"
PART = "some_weights.safetensors"


@dataclass(frozen=True)
class Change:
    """What was learnt, and on what.

    folder  where it lies
    base    name or folder of the prior; kind and towers are as `loading.load` takes them
    digest  of the base, or None to take it as it is
    """

    folder: Path
    base: str
    kind: str
    digest: str | None = None
    towers: str | None = None

    def apply(self, prior: Any) -> None:
        """Change the prior: the update is added to its weights, or they give way to others, or it knows one word more.

        raises  InputError where it does not fit, or the prior has no U-Net
        """
        if not isinstance(prior, LatentPrior):
            raise InputError(f"{self.folder}: was learnt on a latent diffusion model, and {self.base} is none; correct its {RECORD}")
        if (self.folder / inversion.FILE).is_file():
            if not isinstance(prior, TextToImage):
                raise InputError(f"{self.folder}: holds a word, and {self.base} reads no texts by CLIP's tower; correct its {RECORD}")
            inversion.teach(prior, *inversion.read(self.folder / inversion.FILE))
            return
        if (self.folder / PART).is_file():
            self._replace(prior.unet)
            return
        if not (self.folder / "unet").is_dir():
            lora.merge(self.folder, prior.unet, lora.read(self.folder / lora.FILE))
            return
        old = prior.unet
        new = components.unet(self.folder / "unet", next(old.parameters()).dtype, next(old.parameters()).device)
        shapes = [{k: tuple(v.shape) for k, v in unet.state_dict().items()} for unet in (old, new)]
        components.check(self.folder / "unet", *shapes)
        old.load_state_dict(new.state_dict(), assign=True)  # the network may hold on to its parts, as SyncDreamer's does

    def _replace(self, unet: Any) -> None:
        """Some of a U-Net's weights by those of the file, rounded to what they were."""
        from safetensors import SafetensorError, safe_open

        own = unet.state_dict()
        try:
            with safe_open(self.folder / PART, "pt") as file:
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(f"{self.folder / PART}: not a whole safetensors file ({components.one_line(error)}); fetch it again") from None
        shapes = [{k: tuple(v.shape) for k, v in some.items()} for some in ({k: own[k] for k in found.keys() & own.keys()}, found)]
        components.check(self.folder / PART, *shapes)
        unet.load_state_dict({k: found[k].to(v) if k in found else v for k, v in own.items()}, assign=True)


def read(folder: Path) -> Change | None:
    """What a folder's record says; None where it is a prior of its own.

    raises  InputError for a record that says too little
    """
    if not (folder / RECORD).is_file() or (said := read_json(folder / RECORD)).get("kind") != KIND:
        return None
    base, kind, digest, towers = (said.get(k) for k in ("base", "base_kind", "base_digest", "towers"))
    if not all(isinstance(x, str) and x for x in (base, kind)) or not all(isinstance(x, str | None) for x in (digest, towers)):
        raise InputError(f"{folder}/{RECORD}: base and base_kind should say what it was learnt on; correct them, or learn it again")
    base, towers = (str(folder / x) if x is not None and (folder / x).is_dir() else x for x in (base, towers))
    return Change(folder, str(base), str(kind), digest, towers)


def save(tuned: Tuned | Inversion, folder: Path, record: dict[str, Any]) -> None:
    """Write what `read` reads into a folder that is there; each file whole, the record last, so that without it nothing counts.

    record  base, base_kind, base_digest, towers, and what else is worth knowing
    """
    from safetensors.torch import save_file

    if isinstance(tuned, Inversion):
        inversion.save(tuned.word, tuned.row, folder)
    elif any(".lora_" in name for name in tuned.weights):
        lora.save(tuned, folder)
    else:
        unet = tuned.network.unet
        (folder / "unet").mkdir(exist_ok=True)
        with replacing(folder / "unet" / f"{components.STEMS[0]}.safetensors") as part:
            save_file({k: v.detach().cpu().contiguous() for k, v in unet.state_dict().items()}, part, metadata={"format": "pt"})
        config = json.dumps(components.config_of(unet), indent=1, sort_keys=True)
        write_atomically(folder / "unet" / "config.json", (config + "\n").encode())
    write_atomically(folder / RECORD, (json.dumps({"kind": KIND, **record}, indent=1) + "\n").encode())
