# SPDX-License-Identifier: Apache-2.0
"""An album through the frozen codec and image tower: what a training step of the backbone needs, a few kilobytes a view.

`python -m bozzetto.training.latents --album FOLDER --vae FOLDER --towers FOLDER --out FOLDER` writes a file for each chunk;
files that are there are kept, so it may follow an album that is still being drawn.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bozzetto.files import replacing
from bozzetto.priors import components
from bozzetto.priors.codec import Codec
from bozzetto.priors.zero123 import clip_pixels


@dataclass(frozen=True)
class Settings:
    """`python -m bozzetto.training.latents ...`"""

    album: Path
    vae: Path
    """`vae/` of a codec's run"""
    towers: Path
    """a run of `training.towers`"""
    out: Path


@torch.inference_mode()
def encoded(codec: Codec, rgb: Tensor, batch: int = 32) -> Tensor:
    """Modes of the latents (N, C, h, w) float16, not scaled, of uint8 pictures (N, H, W, 3)."""
    parts, device = [], next(codec.parameters()).device
    for chunk in rgb.split(batch):
        x = (chunk.to(device).movedim(-1, 1).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16):
            parts.append(codec.posterior(x)[0].half().cpu())
    return torch.cat(parts).contiguous()


def over_white(pictures: Tensor) -> Tensor:
    """uint8 (..., 4) premultiplied to (..., 3)."""
    return (pictures[..., :3].int() + 255 - pictures[..., 3:].int()).clamp(max=255).to(torch.uint8)


@torch.inference_mode()
def embedded(vision: Any, rgb: Tensor, batch: int = 64) -> Tensor:
    """The image tower's embeddings (N, E) float16 of uint8 pictures (N, H, W, 3), as `Zero123.encode_reference` makes them."""
    size = vision.config.image_size
    return torch.cat(
        [vision(pixel_values=clip_pixels(x.to(vision.device).float() / 255, size)).image_embeds.half().cpu() for x in rgb.split(batch)]
    )


def main(settings: Settings) -> None:
    """Encode the chunks that have not been."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    device = "cuda" if torch.cuda.is_available() else "cpu"
    codec = components.codec(settings.vae, torch.float32, device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    vision: Any = components.vision(settings.towers / "image_encoder", torch.float32, device)
    settings.out.mkdir(parents=True, exist_ok=True)
    paths = sorted(settings.album.glob("chunk_*.safetensors"))
    begun = time.monotonic()
    for k, path in enumerate(paths):
        if (settings.out / path.name).exists():
            continue
        with safe_open(path, "pt") as file:
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
            about = file.metadata()
        pictures, hint = over_white(held.pop("pictures")), held.pop("hint")
        for name, rgb in (("latents", pictures), ("hint", hint)):
            flat = encoded(codec, rgb.flatten(0, -4))
            held[name] = flat.view(*rgb.shape[:-3], *flat.shape[1:])
        held["embedding"] = embedded(vision, pictures.flatten(0, 1)).view(*pictures.shape[:2], -1)
        with replacing(settings.out / path.name) as part:
            save_file(held, part, metadata=about)
        print(f"{path.name}: {k + 1} of {len(paths)}, {(time.monotonic() - begun) / 60:.1f} min", flush=True)


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings))
