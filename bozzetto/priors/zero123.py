# SPDX-License-Identifier: Apache-2.0
"""Zero-1-to-3 (arXiv:2303.11328): novel views of the object in a picture, from a latent diffusion model.

The picture reaches the U-Net on two ways: its latent is laid beside the noisy one, channel by channel, and one token, a linear
projection of its CLIP embedding and the relative pose, is what cross-attention looks at. Zero123-XL is the same model after
longer training; Stable-Zero123 replaces the change of distance by the picture's own polar angle.

Letters: B pictures, V views; polar = 90 degrees - elevation, azimuth a, distance r of a camera; T (V, 4) the pose code.

Differs from the released code: all weights may have any size, so that small ones load too; the mode of the codec's
posterior stands for a draw from it unless a generator is given. As there, the null condition is zeros *after* the projection,
although training drops the embedding before it (`training.backbone.Rows`). CLIP sees what the original showed it: bicubic without
antialiasing; the second diffusers port shows it an antialiased picture, and its embeddings differ a little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bozzetto.camera import Camera
from bozzetto.errors import InputError
from bozzetto.priors import components
from bozzetto.priors.codec import Codec
from bozzetto.priors.components import read_json
from bozzetto.priors.hint import PLANES
from bozzetto.priors.latent import LatentPrior, resized
from bozzetto.priors.prior import Condition, Hinting, Reference
from bozzetto.priors.sampling import PUBLISHED, SMALL
from bozzetto.priors.schedule import NoiseSchedule, read_schedule

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
    return moved(polar_t - polar, azimuth_t - azimuth, distance_t - distance)


def moved(polar: Tensor, azimuth: Tensor, distance: Tensor) -> Tensor:
    """T (..., 4) of changes (...) in polar angle, azimuth (radians) and distance."""
    return torch.stack([polar, azimuth.sin(), azimuth.cos(), distance], -1)


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


BESIDE = "joint"
PROJECTIONS = {"cc_projection": "projection", "clip_camera_projection": "proj"}
"""the folders of the projection in the two ports to diffusers, and what its linear layer is called there"""


@dataclass(frozen=True)
class EncodedReference:
    """A reference after the frozen networks.

    embedding  (B, E) of CLIP's vision tower, projected, not normalised
    latent     (B, C, h, w), the mode of the codec's posterior, *not* scaled as x0 is
    cameras    B of them, or one for all
    """

    embedding: Tensor
    latent: Tensor
    cameras: Camera


class Zero123(LatentPrior):
    """Zero-1-to-3 and its kin as a `Prior`.

    unet           diffusers' UNet2DConditionModel: 2 C channels in, or 3 C + PLANES to take a hint, and C out
    codec          with C channels
    image_encoder  transformers' CLIPVisionModelWithProjection, embeddings of size E
    projection     Linear(E + 4, D), D the width of the U-Net's cross-attention
    schedule       of the noise in training
    kind           one of KINDS, which says the pose code
    beside         folder of what lets its views look at each other (`priors.consistent123`), if its own has one
    """

    image_encoder: Any  # its library has no types that hold
    beside: Path | None = None

    def __init__(
        self,
        unet: nn.Module,
        codec: Codec,
        image_encoder: nn.Module,
        projection: nn.Linear,
        schedule: NoiseSchedule = NoiseSchedule(),
        kind: str = "zero123",
    ) -> None:
        super().__init__(unet, codec, schedule)
        self.image_encoder, self.projection = image_encoder, projection
        self.kind, self.pose = kind, KINDS[kind]
        self.sampler = SMALL if kind == "zero123-mini" else PUBLISHED

    @classmethod
    def read(cls, folder: Path, kind: str, *, text: Path | None, dtype: torch.dtype, device: str | torch.device) -> Zero123:
        """The prior in a folder, of one of KINDS; see `loading.load`."""
        components.check_installed()
        head = projection_folder(folder)
        schedule = read_schedule(folder / "scheduler")
        if kind != "zero123-mini" and schedule != NoiseSchedule():
            raise InputError(
                f"{folder}/scheduler: expected the noise levels of {kind}, {NoiseSchedule()}, got {schedule}; "
                "correct the file, or say kind zero123-mini if the weights were really trained so"
            )
        projection = components.linear(folder / head, dtype, device, (PROJECTIONS[head], *PROJECTIONS.values()))
        settings = [read_json(folder / name / "config.json") for name in ("unet", "vae", "image_encoder")]
        embed = settings[2].get("projection_dim", 512)
        check_sizes(folder, kind, settings[0], settings[1], embed, (projection.in_features, projection.out_features))
        unet = components.unet(folder / "unet", dtype, device)
        codec = components.codec(folder / "vae", dtype, device)
        vision = components.vision(folder / "image_encoder", dtype, device)
        prior = cls(unet, codec, vision, projection, schedule, kind).eval()
        prior.beside = folder / BESIDE if (folder / BESIDE).is_dir() else None
        return prior

    @property
    def uses_hint(self) -> bool:
        return self.network.hint_channels > 0

    @torch.no_grad()
    def encode_reference(self, reference: Reference) -> EncodedReference:
        rgb = reference.rgb
        pixels = clip_pixels(rgb.float(), self.image_encoder.config.image_size)
        embedding = self.image_encoder(pixel_values=pixels.to(self.image_encoder.device, self.image_encoder.dtype)).image_embeds
        return EncodedReference(embedding.float().to(rgb.device), self.codec.latent(resized(rgb, self.size)), reference.cameras)

    def condition(
        self,
        reference: Reference | EncodedReference | None = None,
        cameras: Camera | None = None,
        text: str | None = None,
        hint: Hinting | None = None,
    ) -> Condition:
        """As `Prior.condition`: image_latent (V, C, h, w), token (V, 1, D), float32; and hint (V, C + PLANES, h, w) where it uses one.

        Without cameras the token is zeros (the pose has no null of its own); without a reference there is no relative pose
        either, and both are zeros, whatever the cameras.
        """
        if text is not None:
            raise ValueError(f"text: this prior reads pictures, not text, got {text!r}; leave it out")
        rough: dict[str, Tensor] = {}
        if hint is not None and cameras is not None and self.uses_hint:
            drawn = hint(cameras)
            rgb = self.encode_pictures(drawn.over(self.background).clamp(0, 1).float())
            rough["hint"] = torch.cat([rgb, drawn.cells(rgb.shape[-1]).to(rgb)], 1)
        seen = self.encode_reference(reference) if isinstance(reference, Reference) else reference
        width = self.projection.out_features
        if seen is None:
            latent = torch.zeros(1, *self.shape, device=self.projection.weight.device)
            return {"image_latent": latent, "token": latent.new_zeros(1, 1, width), **rough}
        if cameras is None:
            return {"image_latent": seen.latent, "token": seen.embedding.new_zeros(len(seen.embedding), 1, width)}
        views = len(cameras)
        if len(seen.embedding) not in (1, views):
            raise ValueError(f"cameras: expected {len(seen.embedding)} of them, one a picture, or one picture for all; got {views}")
        T = self.pose(seen.cameras, cameras).to(seen.embedding)
        token = self.projection(torch.cat([seen.embedding.expand(views, -1), T], -1).to(self.projection.weight))
        return {"image_latent": seen.latent.expand(views, -1, -1, -1), "token": token.to(seen.embedding)[:, None], **rough}


def projection_folder(folder: Path) -> str:
    """Which of PROJECTIONS a folder holds; raises InputError where it holds none."""
    for name in PROJECTIONS:
        if (folder / name).is_dir():
            return name
    known = " or ".join(f"{n}/" for n in PROJECTIONS)
    raise InputError(f"{folder}: {known} is missing, so this is not a whole Zero-1-to-3; fetch the folder again, or give another")


def check_sizes(where: object, kind: str, unet: dict[str, Any], vae: dict[str, Any], embed: Any, projection: tuple[int, int]) -> None:
    """The networks fit together, by their settings (diffusers' and transformers' names and defaults).

    embed       of CLIP's vision tower
    projection  inputs and outputs
    raises      InputError, about `where`
    """
    side, channels, width = unet.get("sample_size"), vae.get("latent_channels", 4), unet.get("cross_attention_dim", 1280)
    if not all(isinstance(n, int) and n > 0 for n in (side, channels, width, embed)):
        raise InputError(
            f"{where}: sample_size, latent_channels, cross_attention_dim or projection_dim is no whole number; fetch its settings again"
        )
    hinted = kind == "zero123-mini" and unet.get("in_channels") == 3 * channels + PLANES
    wanted = 3 * channels + PLANES if hinted else 2 * channels
    sizes = {
        "in_channels of the U-Net": (unet.get("in_channels", 4), f"twice the {channels} channels of a latent", wanted),
        "out_channels of the U-Net": (unet.get("out_channels", 4), "the channels of a latent", channels),
        "outputs of the projection": (projection[1], "the U-Net's cross_attention_dim", width),
        "inputs of the projection": (projection[0], "CLIP's projection_dim, and 4 for the pose", embed + 4),
    }
    for what, (found, why, expected) in sizes.items():
        if found != expected:
            raise InputError(f"{where}: {what} should be {expected} ({why}) for {kind}, got {found}; this is not a whole Zero-1-to-3")
