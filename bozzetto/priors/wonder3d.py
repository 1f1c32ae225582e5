# SPDX-License-Identifier: Apache-2.0
"""Wonder3D (Long et al. 2023, arXiv:2310.15008): six views of a pictured object, and the normals of each, in one sample.

    p(normals, colours | y) = f(y, pi_1..6, s),    s in {normals (1, 0), colours (0, 1)}, the domain switch

A network for single pictures draws all twelve, each told its view and domain by one label. Two attentions join them: over the six views of
a domain, in place of self-attention, and over both domains of a view, a layer of its own (`joint.add_attention`). The object's picture
lies beside each noisy latent, and its CLIP embedding is the one token of cross-attention.

The views stand at 0, 45, 90, 180, -90 and -45 degrees round the *picture's* up axis, so that the picture's elevation need not be known,
and are orthographic. Normals are in the picture's axes (`priors.domains`). No other cameras can be asked for: the six poses of the
labels are fixed numbers, rounded to float16 in training. Their authors call them a mistake that became a name: they are the change of
polar angle and of azimuth, from the front, of the ring as it stands in a tilted world (issues 72 and 123 of the released code).

Differs from the released code: halves of a guided batch need no order, since domains lie inside a sample; labels are float32. As there,
the picture's latent is scaled, unlike Zero-1-to-3's; the null leaves view and domain told.

Letters: B samples, C channels of a latent, h w its cells, L tokens, D their width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bozzetto.camera import Camera, level_ring, orbit
from bozzetto.errors import InputError
from bozzetto.priors import components, domains
from bozzetto.priors.codec import Codec
from bozzetto.priors.components import read_json
from bozzetto.priors.joint import Group, JointPrior, JointUNet, add_attention, blocks, look_across, view_by_view
from bozzetto.priors.latent import resized
from bozzetto.priors.prior import Condition, Hinting, Reference
from bozzetto.priors.sampling import Sampler
from bozzetto.priors.schedule import NoiseSchedule, read_schedule
from bozzetto.priors.zero123 import CLIP_MEAN, CLIP_STD
from bozzetto.views import Views

TURNS = tuple(math.radians(a) for a in (0, 45, 90, 180, -90, -45))
"""of the views, counter-clockwise seen from above: front, front right, right, back, left, front left"""
POSES = ((0.0, 0.0), (-0.2362, 0.8125), (-0.1686, 1.6934), (0.522, 3.1406), (0.6904, 4.8359), (0.3733, 5.5859))
"""changes of polar angle and azimuth that are their names, radians"""
WIDTH = 1.35
"""of the pictures in training, in diagonals of the object's box"""
TOGETHER = 2 * len(TURNS)


def labels() -> Tensor:
    """(12, 10) float32: sine and cosine of elevation 0, the pose and the switch, of six views of normals, then of colours."""
    switched = [[0.0, *pose, *switch] for switch in ((1.0, 0.0), (0.0, 1.0)) for pose in POSES]
    angles = torch.tensor(switched).half().double()
    return torch.cat([angles.sin(), angles.cos()], 1).float()


class LookAtOtherDomain:
    """A processor for diffusers' `Attention`: a view's tokens of both domains are looked at together.

    Rows are sample by sample, normals before colours, view by view; `group` says how many views.
    """

    def __init__(self, group: Group) -> None:
        from diffusers.models.attention_processor import AttnProcessor2_0

        self.group, self.plain = group, AttnProcessor2_0()

    def __call__(self, attn: nn.Module, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **rest: Any) -> Tensor:
        v, (rows, tokens, width) = self.group.views, hidden_states.shape
        together = hidden_states.reshape(-1, 2, v, tokens, width).transpose(1, 2).reshape(-1, 2 * tokens, width)
        made: Tensor = self.plain(attn, together, encoder_hidden_states, **rest)
        return made.reshape(-1, v, 2, tokens, width).transpose(1, 2).reshape(rows, tokens, width)


class CrossDomainUNet(JointUNet):
    """A `JointUNet` of V views in two domains; one without cross-domain attention gets it, and does not use it yet."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__(unet)
        look_across(self)
        across = LookAtOtherDomain(self.group)
        if not hasattr(blocks(unet)[0], "attn_joint_mid"):
            add_attention(unet, across)
        for block in blocks(unet):
            block.attn_joint_mid.set_processor(across)

    def forward(self, x_t: Tensor, step: Tensor, **cond: Tensor | None) -> Tensor:  # type: ignore[override]  # the same names
        """As `JointUNet`, for x_t (B, 2 V, C, h, w): each domain's views are a group of their own to self-attention."""
        b, both = x_t.shape[:2]
        halves = {k: None if y is None else view_by_view(y, b, both).unflatten(0, (2 * b, both // 2)) for k, y in cond.items()}
        domain_by_domain = x_t.unflatten(1, (2, both // 2)).flatten(0, 1)
        return super().forward(domain_by_domain, step.repeat_interleave(2), **halves).view_as(x_t)


@dataclass(frozen=True)
class EncodedPicture:
    """A reference after the frozen networks: embedding (B, D) of CLIP, projected; latent (B, C, h, w), scaled as x0 is."""

    embedding: Tensor
    latent: Tensor


class Wonder3D(JointPrior):
    """Wonder3D as a `Prior` of twelve pictures: those of `domains.to_pictures`, its views `TURNS`.

    unet           diffusers' UNet2DConditionModel: 2 C channels in, C out, labels of 10 numbers; with cross-domain attention or without
    codec          with C channels
    image_encoder  transformers' CLIPVisionModelWithProjection, embeddings as wide as the U-Net's cross-attention
    schedule       of the noise in training
    """

    image_encoder: Any  # its library has no types that hold
    sampler = Sampler(20, 1.0, 1.0)  # as its authors' examples; they know 3.0 as well

    def __init__(self, unet: nn.Module, codec: Codec, image_encoder: nn.Module, schedule: NoiseSchedule = NoiseSchedule()) -> None:
        super().__init__(unet, codec, schedule, TOGETHER, CrossDomainUNet)
        self.image_encoder = image_encoder

    @classmethod
    def read(cls, folder: Path, kind: str, *, text: Path | None, dtype: torch.dtype, device: str | torch.device) -> Wonder3D:
        """The prior in a folder of the published layout, its weights pickled or not; see `loading.load`.

        Weights that older versions of the released code wrote have other names for the same layers, which are read, too.
        """
        from diffusers import UNet2DConditionModel

        components.check_installed()
        schedule = read_schedule(folder / "scheduler")
        if schedule != NoiseSchedule():
            raise InputError(
                f"{folder}/scheduler: expected the noise levels of Wonder3D, {NoiseSchedule()}, got {schedule}; fetch it again"
            )
        check_settings(folder, *(read_json(folder / part / "config.json") for part in ("unet", "vae", "image_encoder")))
        known = {key: _stock(value) for key, value in components.unet_settings(folder / "unet").items()}

        def build() -> nn.Module:
            return CrossDomainUNet(UNet2DConditionModel(**known)).unet

        unet = components.component(folder / "unet", build, dtype, device, _named_now, pickled=True)
        codec = components.codec(folder / "vae", dtype, device, pickled=True)
        return cls(unet, codec, components.vision(folder / "image_encoder", dtype, device, pickled=True), schedule).eval()

    def views(self, reference: Reference | None = None) -> Camera:
        """Six orthographic cameras twice, each as wide as the reference's picture is at the origin's depth; without one, round the front
        of an object whose box has a diagonal of 1."""
        if reference is None:
            front = orbit([0.0], [0.0], 2.0, size=self.size, ortho_scale=WIDTH)
        else:
            front = orthographic(reference.cameras[0]).resized(self.size)
        return level_ring(front, TURNS * 2)

    def encode(self, views: Views, *, generator: torch.Generator | None = None) -> Tensor:
        """Of the first six of each twelve the normals, of the others the colours."""
        if len(views.rgb) % self.together:
            raise ValueError(f"views: expected a multiple of {self.together}, got {len(views.rgb)}")
        return self.encode_pictures(domains.to_pictures(views, self.together), generator=generator)

    @torch.no_grad()
    def encode_reference(self, reference: Reference) -> EncodedPicture:
        rgb = resized(reference.rgb.float(), self.size)
        pixels = clip_pixels(rgb, self.image_encoder.config.image_size)
        embedding = self.image_encoder(pixel_values=pixels.to(self.image_encoder.device, self.image_encoder.dtype)).image_embeds
        return EncodedPicture(embedding.float().to(rgb.device), self.codec.encode(rgb))

    def condition(
        self,
        reference: Reference | EncodedPicture | None = None,
        cameras: Camera | None = None,
        text: str | None = None,
        hint: Hinting | None = None,
    ) -> Condition:
        """As `Prior.condition`: image_latent (B, 1, C, h, w), token (B, 1, 1, D), camera (1, 12, 10), float32; of the null the first two
        are zeros. Cameras, 12 a picture, are those of `views`, and say nothing."""
        if text is not None:
            raise ValueError(f"text: this prior reads pictures, not text, got {text!r}; leave it out")
        seen = self.encode_reference(reference) if isinstance(reference, Reference) else reference
        count = 1 if seen is None else len(seen.embedding)
        if cameras is not None and (len(cameras) % TOGETHER or count not in (1, len(cameras) // TOGETHER)):
            raise ValueError(f"cameras: expected {count * TOGETHER} for {count} pictures, got {len(cameras)}")
        told = labels()[None]
        if seen is None:
            return {
                "image_latent": torch.zeros(1, 1, *self.shape[1:]),
                "token": torch.zeros(1, 1, 1, int(self.unet.config.cross_attention_dim)),
                "camera": told,
            }
        return {"image_latent": seen.latent[:, None], "token": seen.embedding[:, None, None], "camera": told}


def orthographic(camera: Camera) -> Camera:
    """A camera that looks past the origin as an orthographic one: the same picture at the origin's depth, and no nearer thing larger."""
    depth = 1.0 if camera.is_orthographic else float(camera.project(torch.zeros(1, 3, dtype=torch.float64))[1])
    K = camera.K.clone()
    K[:, :2, :2] /= depth
    return Camera(camera.c2w, K, camera.size, is_orthographic=True)


def clip_pixels(rgb: Tensor, size: int) -> Tensor:
    """Pictures (B, H, W, 3) in [0, 1] as CLIP's vision tower is fed them, (B, 3, size, size): bicubic and antialiased, as Pillow does it
    for transformers' CLIPImageProcessor, but that pixels are not rounded to bytes."""
    x = F.interpolate(rgb.movedim(-1, 1), (size, size), mode="bicubic", antialias=True).clamp(0, 1)
    return (x - x.new_tensor(CLIP_MEAN).view(3, 1, 1)) / x.new_tensor(CLIP_STD).view(3, 1, 1)


def check_settings(folder: Path, unet: dict[str, Any], vae: dict[str, Any], vision: dict[str, Any]) -> None:
    """raises InputError unless these are the settings of the published network's kind, and fit together"""
    channels = vae.get("latent_channels", 4)
    expected = {
        "in_channels": (2 * channels, "twice the channels of a latent"),
        "out_channels": (channels, "the channels of a latent"),
        "cross_attention_dim": (vision.get("projection_dim", 512), "the projection_dim of image_encoder/"),
        "class_embed_type": ("projection", "labels of views and domains"),
        "projection_class_embeddings_input_dim": (10, "sine and cosine of five numbers"),
        "num_views": (len(TURNS), "the views of its ring"),
        "cd_attention_mid": (True, "attention across domains, which the first stage of its training lacks"),
        "cd_attention_last": (False, "it stands in the middle of a block"),
        "multiview_attention": (True, "attention across views"),
        "sparse_mv_attention": (False, "attention across all views"),
        "mvcd_attention": (False, "attention across domains by itself"),
    }
    for name, (value, why) in expected.items():
        if (found := unet.get(name)) != value and not (found is None and value is False):
            raise InputError(f"{folder}/unet: {name} should be {value} ({why}), got {found}; this is not Wonder3D as it was published")


def _stock(value: Any) -> Any:
    """A setting of the released code's U-Net as diffusers' has it: names of blocks, which differ by their attention alone."""
    if isinstance(value, list):
        return tuple(_stock(x) for x in value)
    return value.replace("BlockMV2D", "Block2D") if isinstance(value, str) else value


def _named_now(name: str) -> str:
    """What older versions of the released code called `joint` stands last in a block, and what they called `joint_twice` in its middle."""
    for what in ("attn", "norm"):
        name = name.replace(f"{what}_joint.", f"{what}_joint_last.").replace(f"{what}_joint_twice.", f"{what}_joint_mid.")
    return name
