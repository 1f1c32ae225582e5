# SPDX-License-Identifier: Apache-2.0
"""`LatentPrior`: what all latent diffusion models (arXiv:2112.10752) share, a U-Net on the latents of a codec.

A prior is this and its `condition`: Zero-1-to-3, text-to-image and their kin differ in what stands beside the noisy latent, and
in the tokens that cross-attention looks at.

Letters: B samples, C channels of a latent, h w its cells, L tokens, D the width of cross-attention.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bozzetto.camera import Camera
from bozzetto.denoiser import Generators, VPDenoiser
from bozzetto.diffusion.samplers import Watch
from bozzetto.priors import sampling
from bozzetto.priors.codec import Codec
from bozzetto.priors.prior import Condition, Reference
from bozzetto.priors.sampling import PUBLISHED, Sampler
from bozzetto.priors.schedule import NoiseSchedule
from bozzetto.views import Views

LABEL = 16  # numbers that say a camera: its camera-to-world matrix (4, 4), row by row


class ConditionedUNet(nn.Module):
    """A U-Net as `VPDenoiser` calls it: conditions are channels beside the noisy latent, and tokens for cross-attention.

    Of its input channels the first C are the noisy latent, the next C, if there are any, a picture's latent, and whatever is left
    the hint. What is absent is zeros, as in training.
    """

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet: Any = unet  # diffusers' UNet2DConditionModel, which has no types that hold

    @property
    def hint_channels(self) -> int:
        """0 for a network that takes no hint."""
        return max(0, int(self.unet.config.in_channels - 2 * self.unet.config.out_channels))

    def forward(
        self,
        x_t: Tensor,
        step: Tensor,
        token: Tensor | None = None,
        image_latent: Tensor | None = None,
        hint: Tensor | None = None,
        camera: Tensor | None = None,
    ) -> Tensor:
        """x_t (B, C, h, w); step (B,); token (1 or B, L, D); image_latent (1 or B, C, h, w); hint (1 or B, `hint_channels`, h, w);
        camera (1 or B, E), for a network that has learnt what cameras are: zeros where unknown; returns (B, C, h, w), dtype of x_t.

        raises  ValueError for a camera that the network has no embedding of
        """
        config, (b, c, h, w) = self.unet.config, x_t.shape
        widths = (min(c, config.in_channels - c), self.hint_channels)
        beside = [x_t.new_zeros(1, n, h, w) if y is None else y for y, n in zip((image_latent, hint), widths, strict=True) if n]
        token = x_t.new_zeros(1, 1, config.cross_attention_dim) if token is None else token
        x = torch.cat([x_t, *(y.to(x_t).expand(b, -1, -1, -1) for y in beside)], 1).to(next(self.unet.parameters()).dtype)
        label = self._label(camera, b, x.device)
        made: Tensor = self.unet(x, step, encoder_hidden_states=token.to(x).expand(b, -1, -1), class_labels=label).sample
        return made.to(x_t.dtype)

    def _label(self, camera: Tensor | None, count: int, device: torch.device) -> Tensor | None:
        if self.unet.class_embedding is None:
            if camera is not None:
                raise ValueError("camera: this network has no embedding of cameras; leave it out, or tune one with camera=True")
            return None
        first = getattr(self.unet.class_embedding, "linear_1", self.unet.class_embedding)  # of two layers, or one alone
        if camera is None:
            camera = torch.zeros(1, first.in_features)
        return camera.to(device, first.weight.dtype).expand(count, -1)  # a tuned copy's is float32, beside a U-Net that may not be


class LatentPrior(nn.Module):
    """A latent diffusion model as a `Prior`, but for `condition`.

    unet      diffusers' UNet2DConditionModel: C channels out, and in what `ConditionedUNet` says
    codec     with C channels
    schedule  of the noise in training
    network   what the U-Net is asked through
    """

    background: float = 1.0
    sampler: Sampler = PUBLISHED
    denoiser: VPDenoiser

    def __init__(
        self, unet: nn.Module, codec: Codec, schedule: NoiseSchedule, network: Callable[[nn.Module], ConditionedUNet] = ConditionedUNet
    ) -> None:
        super().__init__()
        self.codec, self.schedule = codec, schedule
        self.denoiser = VPDenoiser(network(unet), schedule.alpha_bar(), schedule.prediction)

    @property
    def network(self) -> ConditionedUNet:
        """What the denoiser asks."""
        network: Any = self.denoiser.network
        return network

    @property
    def unet(self) -> Any:
        return self.network.unet

    def offload(self, device: str | torch.device) -> None:
        """All but the codec stays in the machine's memory, and goes to the device layer by layer, each for as long as it computes:
        diffusers' group offloading. The codec stays on the device, as its gradients need its weights twice."""
        from diffusers.hooks import apply_group_offloading

        self.codec.to(device)
        for part in (self.unet, *self.children()):
            if part not in (self.denoiser, self.codec) and any(part.children()):  # a lone layer computes where it is
                apply_group_offloading(part, torch.device(device), offload_type="leaf_level")

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, h, w) of x0."""
        config = self.unet.config
        return int(config.out_channels), int(config.sample_size), int(config.sample_size)

    @property
    def size(self) -> int:
        """Side of the pictures that it draws, pixels."""
        return self.codec.cell * int(self.unet.config.sample_size)

    @property
    def uses_hint(self) -> bool:
        return False

    def views(self, reference: Reference | None = None) -> Camera | None:
        """None: it draws any camera by itself."""
        return None

    def encode(self, views: Views, *, generator: torch.Generator | None = None) -> Tensor:
        return self.encode_pictures(views.over(self.background).clamp(0, 1).float(), generator=generator)

    def encode_pictures(self, rgb: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return self.codec.encode(resized(rgb, self.size), generator)

    def decode(self, x0: Tensor) -> Tensor:
        return self.codec.decode(x0)

    def condition(self) -> Condition:
        """The null; each prior says more."""
        raise NotImplementedError

    def fullest(self) -> Condition:
        """What is asked under where most is computed, for `plan`: its sizes are true, its numbers are not."""
        return self.condition()

    def sample(
        self, cond: Condition, *, count: int = 1, sampler: Sampler | None = None, generator: Generators, watch: Watch | None = None
    ) -> Tensor:
        """`sampling.sample`: x0 (count, C, h, w) under a condition."""
        return sampling.sample(self, cond, count=count, sampler=sampler, generator=generator, watch=watch)


def resized(rgb: Tensor, size: int) -> Tensor:
    """Pictures (B, H, W, 3) at (size, size), bilinear and antialiased; as they are where they have that size.

    raises  ValueError for another shape
    """
    if rgb.ndim != 4 or rgb.shape[-1] != 3:
        raise ValueError(f"rgb: expected pictures (B, H, W, 3), got {tuple(rgb.shape)}")
    if rgb.shape[1:3] == (size, size):
        return rgb
    return F.interpolate(rgb.movedim(-1, 1), (size, size), mode="bilinear", antialias=True).movedim(1, -1)
