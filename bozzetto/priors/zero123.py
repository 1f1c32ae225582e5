# SPDX-License-Identifier: Apache-2.0
"""Zero-1-to-3 (arXiv:2303.11328): novel views of the object in a picture, from a latent diffusion model.

The picture reaches the U-Net on two ways: its latent is laid beside the noisy one, channel by channel, and one token, a linear
projection of its CLIP embedding and the relative pose, is what cross-attention looks at. Zero123-XL is the same model after
longer training; Stable-Zero123 replaces the change of distance by the picture's own polar angle.

Letters: B pictures, V views; polar = 90 degrees - elevation, azimuth a, distance r of a camera; T (V, 4) the pose code.

Differs from the released code: all weights may have any size, so that small ones load too; the mode of the codec's
posterior stands for a draw from it unless a generator is given. As there, the null condition is zeros *after* the projection,
although training drops the embedding before it (`dropped`). CLIP sees what the original showed it: bicubic without
antialiasing; the second diffusers port shows it an antialiased picture, and its embeddings differ a little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bozzetto.camera import Camera
from bozzetto.denoiser import VPDenoiser
from bozzetto.priors import codec
from bozzetto.priors.hint import Hint
from bozzetto.priors.prior import Condition, Reference
from bozzetto.priors.schedule import Schedule

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of OpenAI's CLIP

PoseCode = Callable[[Camera, Camera], Tensor]
"""(reference, targets) to T (V, 4) float64"""


def spherical(cameras: Camera) -> tuple[Tensor, Tensor, Tensor]:
    """Polar angle from +z, azimuth from +x counter-clockwise seen from above (radians), and distance of the centres, (V,) each."""
    x, y, z = cameras.position.double().unbind(-1)
    return torch.atan2(torch.hypot(x, y), z), torch.atan2(y, x), cameras.position.double().norm(dim=-1)


def relative_pose(reference: Camera, target: Camera) -> Tensor:
    """T = [delta polar, sin delta azimuth, cos delta azimuth, delta distance], (V, 4) float64; radians and object units.

    Turning both cameras about z changes nothing; nor does roll, nor moving a camera's target: only centres count.
    source  Zero-1-to-3, Sec. 3.2, and its released code
    """
    (polar, azimuth, distance), (polar_t, azimuth_t, distance_t) = spherical(reference), spherical(target)
    turn = azimuth_t - azimuth
    return torch.stack([polar_t - polar, turn.sin(), turn.cos(), distance_t - distance], -1)


def stable_pose(reference: Camera, target: Camera) -> Tensor:
    """T of Stable-Zero123: the last number is the reference's polar angle, not a change of distance."""
    T = relative_pose(reference, target)
    return torch.cat([T[:, :3], spherical(reference)[0].expand(len(T))[:, None]], -1)


def pose_projection(embed_dim: int, token_dim: int) -> nn.Linear:
    """The linear map of [embedding, T] (..., embed_dim + 4) to a token, as training starts it: [I | 0], so that poses do not matter yet."""
    projection = nn.Linear(embed_dim + 4, token_dim)
    with torch.no_grad():
        nn.init.eye_(projection.weight)
        projection.weight[:, embed_dim:] = 0
        nn.init.zeros_(projection.bias)
    return projection


def clip_pixels(rgb: Tensor, size: int) -> Tensor:
    """Pictures (B, H, W, 3) in [0, 1] as CLIP's vision tower is fed them, (B, 3, size, size).

    Bicubic with aligned corners and without antialiasing, as kornia's resize in the released code. It is linear and its weights
    sum to 1, so that resizing [-1, 1] first, as there, and [0, 1] here give the same.
    """
    x = F.interpolate(rgb.movedim(-1, 1), (size, size), mode="bicubic", align_corners=True, antialias=False)
    return (x - x.new_tensor(CLIP_MEAN).view(3, 1, 1)) / x.new_tensor(CLIP_STD).view(3, 1, 1)


KINDS: dict[str, PoseCode] = {
    "zero123": relative_pose,
    "zero123-xl": relative_pose,
    "stable-zero123": stable_pose,
    "zero123-mini": relative_pose,  # of any size and schedule, perhaps hinted; the others have the published schedule
}
"""What the weights do not say: their tensors have the same names and shapes."""


@dataclass(frozen=True)
class Seen:
    """A reference after the frozen networks.

    embedding  (B, E) of CLIP's vision tower, projected, not normalised
    latent     (B, C, h, w), the mode of the codec's posterior, *not* scaled as x0 is
    cameras    B of them, or one for all
    """

    embedding: Tensor
    latent: Tensor
    cameras: Camera


def dropped(seen: Seen, *, generator: torch.Generator) -> Seen:
    """A training batch with each condition zeroed alone in 5% of the rows, and both in another 5%: what guidance needs.

    The embedding is dropped before the projection, so that the pose stays.
    source  the released code: u < .10 drops the embedding, .05 <= u < .15 the latent
    """
    u = torch.rand(len(seen.embedding), generator=generator, device=generator.device).to(seen.embedding.device)
    keep_embedding, keep_latent = u >= 0.10, (u < 0.05) | (u >= 0.15)
    return replace(seen, embedding=seen.embedding * keep_embedding[:, None], latent=seen.latent * keep_latent[:, None, None, None])


class Conditioned(nn.Module):
    """The U-Net as `VPDenoiser` calls it: noisy latent and picture's latent side by side, one token. Absent ones are zeros.

    A U-Net of 3 C + PLANES channels takes a hint beside them: the latent of the hint's colours, scaled as x0, and its planes.
    """

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet: Any = unet

    @property
    def hint_channels(self) -> int:
        """C + PLANES, or 0 for a network that takes no hint."""
        return int(self.unet.config.in_channels - 2 * self.unet.config.out_channels)

    def forward(
        self, x_t: Tensor, step: Tensor, image_latent: Tensor | None = None, token: Tensor | None = None, hint: Tensor | None = None
    ) -> Tensor:
        """x_t (B, C, h, w); step (B,); image_latent (1 or B, C, h, w); token (1 or B, L, D); hint (1 or B, C + PLANES, h, w);
        returns (B, C, h, w), dtype of x_t."""
        dtype, b = next(self.unet.parameters()).dtype, len(x_t)
        image_latent = torch.zeros_like(x_t) if image_latent is None else image_latent
        token = x_t.new_zeros(b, 1, self.unet.config.cross_attention_dim) if token is None else token
        beside = [image_latent]
        if self.hint_channels:
            beside.append(x_t.new_zeros(1, self.hint_channels, *x_t.shape[2:]) if hint is None else hint)
        x = torch.cat([x_t, *(y.to(x_t).expand(b, -1, -1, -1) for y in beside)], 1).to(dtype)
        made: Tensor = self.unet(x, step, encoder_hidden_states=token.to(x).expand(b, -1, -1)).sample
        return made.to(x_t.dtype)


class Zero123(nn.Module):
    """Zero-1-to-3 and its kin as a `Prior`.

    unet           diffusers' UNet2DConditionModel: 2 C channels in, or 3 C + PLANES to take a hint, and C out
    vae            diffusers' AutoencoderKL with C latent channels
    image_encoder  transformers' CLIPVisionModelWithProjection, embeddings of size E
    projection     Linear(E + 4, D), D the width of the U-Net's cross-attention
    schedule       of the noise in training
    kind           one of KINDS, which says the pose code
    """

    background: float = 1.0
    denoiser: VPDenoiser
    vae: Any  # networks whose libraries have no types that hold
    image_encoder: Any

    def __init__(
        self,
        unet: nn.Module,
        vae: nn.Module,
        image_encoder: nn.Module,
        projection: nn.Linear,
        schedule: Schedule = Schedule(),
        kind: str = "zero123",
    ) -> None:
        super().__init__()
        self.vae, self.image_encoder, self.projection = vae, image_encoder, projection
        self.schedule, self.kind, self.pose = schedule, kind, KINDS[kind]
        self.denoiser = VPDenoiser(Conditioned(unet), schedule.alpha_bar(), schedule.prediction)

    @property
    def unet(self) -> Any:
        network: Any = self.denoiser.network
        return network.unet

    @property
    def takes_hint(self) -> bool:
        """Whether `condition` uses a hint."""
        network: Any = self.denoiser.network
        return bool(network.hint_channels)

    @property
    def size(self) -> int:
        """Side of the pictures that it draws, pixels."""
        return codec.side(self.vae, self.unet.config.sample_size)

    def encode(self, rgb: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return codec.encoded(self.vae, rgb, self.size, generator)

    def decode(self, x0: Tensor) -> Tensor:
        return codec.decoded(self.vae, x0)

    @torch.no_grad()
    def look(self, reference: Reference) -> Seen:
        pixels = clip_pixels(reference.rgb.float(), self.image_encoder.config.image_size)
        embedding = self.image_encoder(pixel_values=pixels.to(self.image_encoder.device, self.image_encoder.dtype)).image_embeds
        latent = codec.posterior(self.vae, reference.rgb, self.size).mode()
        return Seen(embedding.float().to(reference.rgb.device), latent.float().to(reference.rgb.device), reference.cameras)

    def condition(
        self,
        reference: Reference | Seen | None = None,
        cameras: Camera | None = None,
        text: str | None = None,
        hint: Hint | None = None,
    ) -> Condition:
        """As `Prior.condition`: image_latent (V, C, h, w), token (V, 1, D), float32; and hint (V, C + PLANES, h, w) where one is given.

        Without cameras the token is zeros (the pose has no null of its own); without a reference there is no relative pose
        either, and all is zeros, whatever the cameras.

        hint    what `priors.hint.hint` drew for the same cameras
        raises  ValueError for a hint that this network cannot take
        """
        if hint is not None:
            if not self.takes_hint:
                raise ValueError("hint: this prior takes none; leave it out")
            rgb = self.encode(hint.over(self.background).clamp(0, 1).float())
            planes = hint.cells(rgb.shape[-1]).to(rgb)
            return {**self.condition(reference, cameras, text), "hint": torch.cat([rgb, planes], 1)}
        if text is not None:
            raise ValueError(f"text: this prior reads pictures, not text, got {text!r}; leave it out")
        seen = self.look(reference) if isinstance(reference, Reference) else reference
        width = self.projection.out_features
        if seen is None:
            side, like = self.unet.config.sample_size, self.projection.weight
            latent = like.new_zeros(1, self.unet.config.out_channels, side, side, dtype=torch.float32)
            return {"image_latent": latent, "token": latent.new_zeros(1, 1, width)}
        if cameras is None:
            return {"image_latent": seen.latent, "token": seen.embedding.new_zeros(len(seen.embedding), 1, width)}
        views = len(cameras)
        if len(seen.embedding) not in (1, views):
            raise ValueError(f"cameras: expected {len(seen.embedding)} of them, one a picture, or one picture for all; got {views}")
        T = self.pose(seen.cameras, cameras).to(seen.embedding)
        token = self.projection(torch.cat([seen.embedding.expand(views, -1), T], -1).to(self.projection.weight))
        return {"image_latent": seen.latent.expand(views, -1, -1, -1), "token": token.to(seen.embedding)[:, None]}
