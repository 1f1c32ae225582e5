# SPDX-License-Identifier: Apache-2.0
"""MVDream (Shi et al. 2023, arXiv:2308.16512): four views of an object together, from cameras a quarter turn apart, of a text.

Stable Diffusion's U-Net with two changes. Self-attention looks at the tokens of all views (`joint.look_across`), by the weights that it
had; and each view's camera is added to its time embedding: two layers read the camera-to-world matrix, row by row, its translation brought
to length 1, so that distance and field of view say nothing. Three in ten of its training batches were single pictures without a camera, to
which nothing is added: so a sample of one view under no camera is drawn as Stable Diffusion would, bit for bit.

Its frame is ours: z up, cameras in OpenGL's axes, and the front at +x, which is azimuth 90 of the released `get_camera`. The port to
diffusers lays cameras out anew, and an elevation has the other sign there; only matrices reach the network, and those agree.

Letters: B samples, V views, C channels, h w latent cells, L tokens, D the width of cross-attention.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bozzetto.camera import Camera, orbit
from bozzetto.errors import InputError
from bozzetto.priors import components, ldm
from bozzetto.priors.codec import Codec
from bozzetto.priors.components import read_json
from bozzetto.priors.joint import JointPrior, JointUNet, look_across
from bozzetto.priors.latent import LABEL
from bozzetto.priors.prior import Condition, Hinting, Reference
from bozzetto.priors.sampling import Sampler
from bozzetto.priors.schedule import NoiseSchedule, read_schedule
from bozzetto.priors.text2image import excess, read_tower, states

V = 4  # drawn together by the published ones


class Switch:
    """A hook on the embedding of cameras: off, its output is zeros, which is not the embedding of zeros."""

    is_on = True

    def __call__(self, embedding: nn.Module, inputs: Any, made: Tensor) -> Tensor:
        return made if self.is_on else torch.zeros_like(made)


class MultiViewUNet(JointUNet):
    """A U-Net with an embedding of cameras, whose self-attention looks at all views; without a camera nothing is added."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__(unet)
        look_across(self)
        self.switch = Switch()
        self.unet.class_embedding.register_forward_hook(self.switch)

    def _label(self, camera: Tensor | None, count: int, device: torch.device) -> Tensor | None:
        self.switch.is_on = camera is not None
        label = super()._label(camera, count, device)
        return None if label is None else label.to(self.unet.dtype)


class MVDream(JointPrior):
    """MVDream as a `Prior`.

    unet          diffusers' UNet2DConditionModel with an embedding of LABEL numbers, and cross-attention of width D
    codec         with C channels
    text_encoder  transformers' CLIPTextModelWithProjection of width D
    tokenizer     a tokenizers.Tokenizer that pads and cuts to what text_encoder reads
    schedule      of the noise in training
    suffix        what captions of renderings ended with in training: who asks for an object appends it
    """

    background = 0.5  # renderings stood on greys
    sampler = Sampler(50, 10.0, 0.0)  # of the released script
    suffix = ", 3d asset"
    null_keeps = ("camera",)
    text_encoder: Any  # their libraries have no types that hold
    tokenizer: Any

    def __init__(
        self, unet: nn.Module, codec: Codec, text_encoder: nn.Module, tokenizer: Any, schedule: NoiseSchedule, together: int = V
    ) -> None:
        super().__init__(unet, codec, schedule, together, MultiViewUNet)
        self.text_encoder, self.tokenizer = text_encoder, tokenizer

    @classmethod
    def read(cls, folder: Path, kind: str, *, text: Path | None, dtype: torch.dtype, device: str | torch.device) -> MVDream:
        """The prior in a folder that `mvdream_files.convert` wrote, or of the port to diffusers; see `loading.load`."""
        components.check_installed()
        schedule, found = read_schedule(folder / "scheduler"), read_json(folder / "unet" / "config.json")
        settings = port_settings(folder / "unet", found) if "model_channels" in found else found
        tower, tokenizer = read_tower(folder, text or folder, settings, dtype, device)
        if (label := settings.get("projection_class_embeddings_input_dim")) != LABEL:
            raise InputError(f"{folder}: MVDream's U-Net reads {LABEL} numbers of a camera, this one {label or 'none'}; give its folder")
        is_port, where = settings is not found, folder / "unet"
        unet = port_unet(where, settings, dtype, device) if is_port else components.unet(where, dtype, device)
        return cls(unet, components.codec(folder / "vae", dtype, device), tower, tokenizer, schedule).eval()

    def excess(self, text: str) -> int:
        """How many of a text's tokens are not read, beyond the tower's length."""
        return excess(self.tokenizer, text)

    def views(self, reference: Reference | None = None) -> Camera:
        """Cameras round the origin, from the front counter-clockwise: the released script's elevation, and the distance and field of view
        with which its authors looked at what they made, which the network is not told."""
        turns = [2 * math.pi * k / self.together for k in range(self.together)]
        return orbit(turns, [math.radians(15)] * self.together, 3.0, size=self.size, fov=math.radians(40))

    def encode_reference(self, reference: Reference) -> Any:
        """raises ValueError: it reads no pictures"""
        raise ValueError("reference: this prior reads text, not pictures; leave it out")

    @torch.no_grad()
    def condition(
        self, reference: None = None, cameras: Camera | None = None, text: str | None = None, hint: Hinting | None = None
    ) -> Condition:
        """As `Prior.condition`: token (1, 1, L, D) float32 and, of B V cameras, camera (B, V, LABEL).

        raises  ValueError for a reference, or cameras that V does not divide
        """
        if reference is not None:
            self.encode_reference(reference)
        told = {"token": states(self.text_encoder, self.tokenizer, text or "")[None]}
        if cameras is None:
            return told
        if len(cameras) % self.together:
            raise ValueError(f"cameras: expected a multiple of {self.together} of them, got {len(cameras)}")
        return {**told, "camera": labels(cameras).unflatten(0, (-1, self.together))}


def labels(cameras: Camera) -> Tensor:
    """(N, LABEL) float32 of N cameras: their camera-to-world matrices (4, 4), row by row, translations of length 1."""
    c2w = cameras.c2w.double()
    place = F.normalize(c2w[:, :, 3:], dim=1)
    last = c2w.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(c2w), 1, 4)
    return torch.cat([torch.cat([c2w[:, :, :3], place], 2), last], 1).flatten(1).float()


def port_settings(folder: Path, found: dict[str, Any]) -> dict[str, Any]:
    """Of diffusers' UNet2DConditionModel, from the port's, which are latent diffusion's; raises InputError where some are missing"""
    if found.get("ip_dim"):
        raise InputError(f"{folder}: reads a picture, too: this is ImageDream, which nothing here reads; give MVDream's folder")
    try:
        known = ldm.unet_settings(found)
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise InputError(f"{folder / 'config.json'}: is not of MVDream's U-Net ({error}); fetch it again") from None
    shapes = components.Tensors(folder).shapes
    return {**known, "use_linear_projection": any(n.endswith(".proj_in.weight") and len(s) == 2 for n, s in shapes.items())}


def port_unet(folder: Path, settings: dict[str, Any], dtype: torch.dtype, device: str | torch.device) -> nn.Module:
    """diffusers' UNet2DConditionModel from tensors under latent diffusion's names; raises InputError for a name that is none"""
    from diffusers import UNet2DConditionModel

    levels, blocks = len(settings["block_out_channels"]), settings["layers_per_block"]
    names = {name: ldm.unet_name(name, levels, blocks) for name in components.Tensors(folder).shapes}
    if strange := sorted(name for name, new in names.items() if new is None):
        raise InputError(f"{folder}: {len(strange)} tensors do not belong to MVDream's U-Net, such as {strange[0]}; fetch it again")
    return components.component(folder, lambda: UNet2DConditionModel(**settings), dtype, device, names.__getitem__)
