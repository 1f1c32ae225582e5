# SPDX-License-Identifier: Apache-2.0
"""SweetDreamer's aligned prior (Li et al. 2023, arXiv:2310.02596): coordinate maps of objects, told in words, from a known camera.

It is Stable Diffusion 2.1's U-Net, tuned on maps in the place of latents: four channels, coordinates and mask, without a codec. Objects
stand in their canonical pose, so that what two cameras are shown agrees. The camera enters beside the time:

    emb = time(t) + W2 BatchNorm(W0 [TURN c2w] + b0) + b2

No activation stands in between, and a trained network's statistics are constants, so the three layers are one, folded when read:

    W = W2 diag(g / sqrt(v + e)) W0,    b = W2 (g / sqrt(v + e) (b0 - m) + beta) + b2

which is diffusers' `simple_projection` of a class label. Tuning needs the unfolded layers (they couple a batch), and is not here.

The network has learnt no unknown camera: guidance asks both ways under the same one, `condition(cameras=...)` being the null. The
authors published code, and so far no weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bozzetto.camera import Camera
from bozzetto.errors import InputError
from bozzetto.priors import components
from bozzetto.priors.codec import Codec
from bozzetto.priors.components import Tensors, read_json
from bozzetto.priors.coordinates import CHANNELS, UNIT, Box, camera_label, coordinate_map, picture
from bozzetto.priors.prior import Condition, Hinting
from bozzetto.priors.sampling import Sampler
from bozzetto.priors.schedule import read_schedule
from bozzetto.priors.text2image import TextToImage, read_tower
from bozzetto.views import Views

LABEL = 12
FOLDED, LAYERS = "class_embedding", "camera_embedding.models"
EPSILON = 1e-5  # of PyTorch's BatchNorm, which no file says


class MapCodec(Codec):
    """Maps are x0 as they are; only a picture to look at is made of them."""

    channels, cell, scaling_factor = CHANNELS, 1, 1.0

    def decode(self, x0: Tensor) -> Tensor:
        return picture(x0)


class SweetDreamer(TextToImage):
    """Coordinate maps (4, S, S) as x0. Pictures of them stand on grey, which is coordinate 0."""

    background = 0.5
    sampler = Sampler(50, 1.0, 1.0)  # how the authors draw maps is not said
    null_keeps = ("camera",)

    @classmethod
    def read(cls, folder: Path, kind: str, *, text: Path | None, dtype: torch.dtype, device: str | torch.device) -> SweetDreamer:
        """The prior in a folder of unet/, in the published layout; scheduler/, text_encoder/ and tokenizer/ of Stable Diffusion 2.1-base
        lie beside it, or all in `text`. See `loading.load`."""
        components.check_installed()
        towers = text or folder
        schedule = read_schedule((folder if (folder / "scheduler").is_dir() else towers) / "scheduler")
        config = read_json(folder / "unet" / "config.json")
        for name in ("in_channels", "out_channels"):
            if config.get(name, CHANNELS) != CHANNELS:
                raise InputError(f"{folder}: {name} of the U-Net should be {CHANNELS}, those of a coordinate map, got {config[name]}")
        tower, tokenizer = read_tower(folder, towers, config, dtype, device)
        return cls(read_unet(folder / "unet", dtype, device), MapCodec(), tower, tokenizer, schedule).eval()

    def encode(self, views: Views, *, generator: torch.Generator | None = None, box: Box = UNIT) -> Tensor:
        """As `Prior.encode`, of depth and coverage; `box` is the object's, in the frame of the views."""
        return coordinate_map(views, box, self.size)

    def encode_pictures(self, rgb: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """raises ValueError: colours do not say where a point lies"""
        raise ValueError("rgb: colours do not say coordinates; give views that have depth to `encode`")

    @torch.no_grad()
    def condition(
        self, reference: None = None, cameras: Camera | None = None, text: str | None = None, hint: Hinting | None = None
    ) -> Condition:
        """As `Prior.condition`: token (1, L, D) and, of V cameras round the object's centre in sides of the object, camera (V, 12). Their
        matrices are read and not changed. Without cameras the label is zeros, which no training has seen."""
        told = super().condition(reference, text=text)
        return told if cameras is None else {**told, "camera": camera_label(cameras)}


def is_folder(folder: Path) -> bool:
    """Whether a folder's U-Net has the layers that read a camera; raises InputError where it is damaged."""
    unet = folder / "unet"
    return unet.is_dir() and any(unet.glob("*.safetensors*")) and f"{LAYERS}.0.weight" in Tensors(unet).shapes


def read_unet(folder: Path, dtype: torch.dtype, device: str | torch.device) -> nn.Module:
    """diffusers' UNet2DConditionModel of a published folder, whose settings name a class and a kind of embedding that are the authors'.

    raises  InputError where a tensor is missing, unknown or of another shape, or a variance is negative
    """
    from diffusers import UNet2DConditionModel

    tensors = Tensors(folder)
    known = components.unet_settings(folder) | {"addition_embed_type": None, "class_embed_type": "simple_projection"}
    known["projection_class_embeddings_input_dim"] = LABEL
    layers = {name: shape for name, shape in tensors.shapes.items() if name.startswith(LAYERS)}
    hidden, wide = (tensors.shapes.get(name, (0,))[0] for name in (f"{LAYERS}.0.weight", "time_embedding.linear_2.weight"))
    expected: dict[str, tuple[int, ...]] = {"0.weight": (hidden, LABEL), "0.bias": (hidden,), "2.weight": (wide, hidden), "2.bias": (wide,)}
    expected |= {f"1.{name}": (hidden,) for name in ("weight", "bias", "running_mean", "running_var")} | {"1.num_batches_tracked": ()}
    components.check(folder, {f"{LAYERS}.{name}": shape for name, shape in expected.items()}, layers)
    shapes = {name: shape for name, shape in tensors.shapes.items() if name not in layers}
    shapes |= {f"{FOLDED}.weight": (wide, LABEL), f"{FOLDED}.bias": (wide,)}

    def read(name: str) -> Tensor:
        if name.startswith(FOLDED):
            weight, bias = folded(tensors)
            return (weight if name.endswith("weight") else bias).to(device, dtype)
        return tensors.read(name, dtype, device)

    return components.fill(folder, lambda: UNet2DConditionModel(**known), shapes, read)


def folded(tensors: Tensors) -> tuple[Tensor, Tensor]:
    """The weight (D, 12) and bias (D,), float64, of the three layers in eval mode; raises InputError for a negative variance."""

    def read(name: str) -> Tensor:
        return tensors.read(f"{LAYERS}.{name}", torch.float64, "cpu")

    variance: Any = read("1.running_var")
    if not bool((variance >= 0).all()):
        raise InputError(f"{tensors.folder}: {LAYERS}.1.running_var should not be negative; fetch it again")
    scale = read("1.weight") / (variance + EPSILON).sqrt()
    weight = read("2.weight") @ (scale[:, None] * read("0.weight"))
    bias = read("2.weight") @ (scale * (read("0.bias") - read("1.running_mean")) + read("1.bias")) + read("2.bias")
    return weight, bias
