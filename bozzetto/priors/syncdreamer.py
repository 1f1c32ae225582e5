# SPDX-License-Identifier: Apache-2.0
"""SyncDreamer (Liu et al. 2023, arXiv:2309.03453): sixteen views of the object in a picture that agree with each other.

Zero-1-to-3's U-Net draws every view, and ten `DepthTransformer`s behind its blocks look into what the view sees of a volume that all noisy
views make together (`priors.sync_volume`). The views stand 30 degrees above the object, 22.5 degrees apart, the first at the picture's
azimuth; the picture's elevation is told. The volume is made once a step, from all views; the U-Net then takes the views in turns of
`SyncUNet.batch`, so that its memory is that of a turn: turns change nothing but rounding.

Differs from the released code: the last step of sampling goes to level 0 where that one stops at the first level of training (sigma .03);
the picture's latent is the mode of its posterior, not a draw; in guidance's other branch the volume is not made, but zeros, of one depth
where there are D, which look alike. As there, that branch has zeros *after* the projection, although training dropped CLIP's embedding
before it, if it dropped anything: the released settings say no.

Letters: B samples, V = 16 views, C channels, h w latent cells, D width of cross-attention.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bozzetto.camera import Camera
from bozzetto.errors import InputError
from bozzetto.priors import components
from bozzetto.priors.components import read_json
from bozzetto.priors.joint import JointPrior, view_by_view
from bozzetto.priors.latent import ConditionedUNet
from bozzetto.priors.prior import Condition, Hinting, Reference
from bozzetto.priors.sampling import Sampler
from bozzetto.priors.sync_volume import ELEVATION, DepthTransformer, Volume, VolumeConfig, ring
from bozzetto.priors.zero123 import EncodedReference, Zero123, moved, spherical

KIND = "syncdreamer"
BATCH = 4  # views in a turn, as the released code has it
PARTS = ("volume", "conditions")  # folders of what Zero-1-to-3 has not


class Behind:
    """A hook behind a block of the U-Net: what its activations find in the frustums that `seen` holds, added to them."""

    def __init__(self, layer: DepthTransformer, seen: dict[int, Tensor]) -> None:
        self.layer, self.seen = layer, seen

    def __call__(self, block: nn.Module, given: Any, made: Any) -> Any:
        x = made[0] if isinstance(made, tuple) else made
        y = self.layer(x, self.seen[x.shape[-1]])
        return (y, *made[1:]) if isinstance(made, tuple) else y


def hooked(unet: Any) -> list[nn.Module]:
    """The blocks of a U-Net that are hooked, in the order of the released names: the middle, then each block on the way up, but for those
    of the coarsest level. What stands behind a level's last block there stands behind its upsampler, at the next level's size."""
    places = [unet.mid_block]
    for level in unet.up_blocks[1:]:
        blocks = list(getattr(level, "attentions", level.resnets))
        places += [*blocks[:-1], level.upsamplers[0]] if level.upsamplers else blocks
    return places


def layers(unet: Any, config: VolumeConfig) -> nn.ModuleList:
    """A `DepthTransformer` for each of `hooked`; attention is twice as wide as what it looks at."""
    widths, contexts = list(reversed(unet.config.block_out_channels)), list(reversed(config.frustum))
    sizes = [(widths[0], contexts[0])]
    for level, width in enumerate(widths[1:], 1):
        is_last = level == len(widths) - 1
        sizes += [(width, contexts[level])] * (unet.config.layers_per_block + is_last)
        sizes += [] if is_last else [(width, contexts[level + 1])]
    return nn.ModuleList(DepthTransformer(width, 2 * context, context) for width, context in sizes)


class SyncUNet(ConditionedUNet):
    """A U-Net as `VPDenoiser` calls it, for V views a sample that share a volume.

    unet        Zero-1-to-3's; it is hooked: ask it no more by itself
    conditions  of `layers`
    """

    batch: int = BATCH
    volume: Volume

    def __init__(self, unet: nn.Module, volume: Volume, conditions: nn.ModuleList) -> None:
        super().__init__(unet)
        self.volume, self.conditions = volume, conditions
        self._seen: dict[int, Tensor] = {}
        for block, layer in zip(hooked(unet), conditions, strict=True):
            assert isinstance(layer, DepthTransformer)
            block.register_forward_hook(Behind(layer, self._seen))

    def forward(  # type: ignore[override]  # of several views, and with another condition
        self,
        x_t: Tensor,
        step: Tensor,
        token: Tensor | None = None,
        image_latent: Tensor | None = None,
        pose: Tensor | None = None,
    ) -> Tensor:
        """x_t (B, V, C, h, w); step (B,); token (1 or B, 1 or V, L, D); image_latent (1 or B, 1 or V, C, h, w); pose (1 or B, V, 4), how
        each view stands to the picture, without which there is no volume, but zeros; returns (B, V, C, h, w), dtype of x_t."""
        b, v = x_t.shape[:2]
        looks = self._looks(x_t, step, pose)
        made = []
        for start in range(0, v, self.batch):
            some = range(start, min(start + self.batch, v))
            self._seen.update(looks(list(some)))
            beside = (None if y is None else view_by_view(y[:, some] if y.shape[1] > 1 else y, b, len(some)) for y in (token, image_latent))
            drawn = super().forward(x_t[:, some].flatten(0, 1), step.repeat_interleave(len(some)), *beside)
            made.append(drawn.unflatten(0, (b, len(some))))
        self._seen.clear()
        return torch.cat(made, 1)

    def _looks(self, x_t: Tensor, step: Tensor, pose: Tensor | None) -> Callable[[Sequence[int]], dict[int, Tensor]]:
        """A function from some views' numbers to what they look through."""
        b, c, weight = len(x_t), self.volume.config, next(self.volume.parameters())
        if pose is None:
            sides = [c.size >> level for level in range(len(c.frustum))]

            def nothing(some: Sequence[int]) -> dict[int, Tensor]:
                return {s: weight.new_zeros(b * len(some), width, 1, s, s) for s, width in zip(sides, c.frustum, strict=True)}

            return nothing
        where = pose.to(weight).expand(b, -1, -1)
        time = self.volume.time(step)
        fused = self.volume.synchronise(x_t.to(weight), time, where)
        return lambda some: self.volume.frustums(fused, time, where, some)


class SyncDreamer(JointPrior):
    """SyncDreamer as a `Prior` of views that are drawn together.

    base        Zero-1-to-3, whose parts it takes; it is changed: ask it no more by itself
    volume      whose latents are as large as the U-Net's
    conditions  of `layers`
    """

    sampler = Sampler(50, 2.0, 1.0)

    def __init__(self, base: Zero123, volume: Volume, conditions: nn.ModuleList) -> None:
        super().__init__(base.unet, base.codec, base.schedule, volume.config.views, lambda unet: SyncUNet(unet, volume, conditions))
        self.image_encoder, self.projection = base.image_encoder, base.projection
        self.volume, self.conditions = volume, conditions
        self._encoded = base.encode_reference  # its networks are parts of this one already
        self.eval()

    @classmethod
    def read(cls, folder: Path, kind: str, *, text: Path | None, dtype: torch.dtype, device: str | torch.device) -> SyncDreamer:
        """The prior in a folder; see `loading.load`."""
        components.check_installed()
        for part in PARTS:
            if not (folder / part).is_dir():
                raise InputError(f"{folder}: {part}/ is missing, so this is not a whole SyncDreamer; convert its checkpoint again")
        known: dict[str, Any] = components.tuples(components.settings(folder / "volume", set(VolumeConfig.__dataclass_fields__)))
        volume = components.component(folder / "volume", lambda: Volume(VolumeConfig(**known)), dtype, device)
        check_fits(folder, volume.config, read_json(folder / "unet" / "config.json"))
        base = Zero123.read(folder, "zero123", text=None, dtype=dtype, device=device)
        conditions = components.component(folder / "conditions", lambda: layers(base.unet, volume.config), dtype, device)
        return cls(base, volume, conditions)

    def views(self, reference: Reference | None = None) -> Camera:
        """The sixteen, round an object whose longest side is 1, the first at the reference's azimuth."""
        azimuth = 0.0 if reference is None else float(spherical(reference.cameras)[1][0])
        return ring(self.together, self.size, azimuth)

    def encode_reference(self, reference: Reference) -> EncodedReference:
        return self._encoded(reference)

    def condition(
        self,
        reference: Reference | EncodedReference | None = None,
        cameras: Camera | None = None,
        text: str | None = None,
        hint: Hinting | None = None,
    ) -> Condition:
        """As `Prior.condition`: image_latent (B, 1, C, h, w), token (B, V, 1, D) and pose (B, V, 4), float32, of B pictures.

        Of a picture's camera azimuth and elevation count. It draws from `views` alone, so that cameras may be left out; others are
        refused, by their direction.
        """
        if text is not None:
            raise ValueError(f"text: this prior reads pictures, not text, got {text!r}; leave it out")
        width = self.projection.out_features
        if reference is None:
            latent = torch.zeros(1, *self.shape[1:], device=self.projection.weight.device)[:, None]
            return {"image_latent": latent, "token": latent.new_zeros(1, 1, 1, width)}
        seen = self.encode_reference(reference) if isinstance(reference, Reference) else reference
        b, (polar, azimuth, _) = len(seen.embedding), spherical(seen.cameras)
        if cameras is not None:
            self._check(cameras, azimuth.expand(b))
        turns = 2 * math.pi / self.together * torch.arange(self.together, dtype=torch.float64, device=polar.device)
        down = (math.pi / 2 - ELEVATION - polar).expand(b)[:, None].expand(b, self.together)
        pose = moved(down, turns.expand_as(down), torch.zeros_like(down)).to(seen.embedding)
        told = torch.cat([seen.embedding[:, None].expand(-1, self.together, -1), pose], -1)
        token = self.projection(told.to(self.projection.weight)).to(seen.embedding)
        return {"image_latent": seen.latent[:, None], "token": token[:, :, None], "pose": pose}

    def fullest(self) -> Condition:
        """As `LatentPrior.fullest`: the null makes no volume."""
        null = self.condition()
        return {**null, "pose": null["token"].new_zeros(1, self.together, self.volume.config.pose)}

    def _check(self, cameras: Camera, azimuths: Tensor) -> None:
        if len(cameras) != self.together * len(azimuths):
            raise ValueError(f"cameras: expected {self.together} for each of {len(azimuths)} pictures, got {len(cameras)}")
        own = torch.cat([ring(self.together, 8, float(a)).position for a in azimuths])
        if (F.normalize(cameras.position.double().cpu(), dim=-1) - F.normalize(own, dim=-1)).abs().max() > 1e-3:
            raise ValueError("cameras: this prior draws from sixteen of its own, those of `views(reference)`; got others")


def check_fits(where: object, config: VolumeConfig, unet: dict[str, Any]) -> None:
    """raises InputError, about `where`, where a volume and a U-Net, by its settings, do not belong together"""
    levels = unet.get("block_out_channels", (320, 640, 1280, 1280))
    sizes = {
        "cells of a frustum": (config.size, "the U-Net's sample_size", unet.get("sample_size")),
        "channels of a view": (config.channels, "the U-Net's out_channels", unet.get("out_channels", 4)),
        "levels of the frustums": (len(config.frustum), "the U-Net's", len(levels) if isinstance(levels, list | tuple) else levels),
        "numbers of a pose": (config.pose, "Zero-1-to-3's", 4),
    }
    for what, (found, whose, expected) in sizes.items():
        if found != expected:
            raise InputError(f"{where}: {what} should be {expected} ({whose}), got {found}; this is not a whole SyncDreamer")
