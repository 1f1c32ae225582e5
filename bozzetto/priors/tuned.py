# SPDX-License-Identifier: Apache-2.0
"""`Tuned`: a copy of a prior's denoiser of which some weights train, all of them (`unfrozen`) or a low-rank update (`lora.adapted`).

A copy shares every frozen weight with its prior, tensor by tensor, and adds modules of its own beside them. So the prior is never
touched: while the copy trains, and after it is gone, it answers bit for bit as before, and both can be asked in one step, as variational
score distillation does (ProlificDreamer, arXiv:2305.16213).

Camera labels, as threestudio's port of ProlificDreamer has them: the camera-to-world matrix through two linear layers, added to the
embedding of time, and zeros for an unknown camera, which a share of the training rows get (`dropped`). Here the second layer starts as
zeros, so that the copy starts as the prior; there its first answers are noise.

Letters: B samples, V cameras.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bozzetto.camera import Camera
from bozzetto.denoiser import Denoiser, VPDenoiser
from bozzetto.priors.latent import LABEL, ConditionedUNet
from bozzetto.priors.prior import Condition


class Tuned:
    """A denoiser that learns: `denoiser.Trainable`, with a state for the checkpoints of a run.

    denoiser  whose parameters train where they require a gradient
    """

    def __init__(self, denoiser: VPDenoiser) -> None:
        self.denoiser, self.sigmas = denoiser, denoiser.sigmas
        network: Any = denoiser.network
        self.network = network
        self.weights: dict[str, nn.Parameter] = {name: p for name, p in network.named_parameters() if p.requires_grad}
        """what trains, by the network's names"""

    def denoise(self, x: Tensor, sigma: Tensor | float, cond: Any = None) -> Tensor:
        return self.denoiser.denoise(x, sigma, cond)

    def loss(self, x0: Tensor, noise: Tensor, sigma: Tensor | float, cond: Any = None) -> Tensor:
        """(B,), of what its network predicts: `VPDenoiser.loss`."""
        return self.denoiser.loss(x0, noise, sigma, cond)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Those that train."""
        return iter(self.weights.values())

    def state(self) -> dict[str, Tensor]:
        """Copies of the weights that train, by name."""
        return {name: p.detach().clone() for name, p in self.weights.items()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`; raises ValueError for another's."""
        if state.keys() != self.weights.keys():
            odd = sorted(state.keys() ^ self.weights.keys())
            raise ValueError(f"state: expected the {len(self.weights)} weights that train, {len(odd)} differ, {odd[0]} among them")
        for name, p in self.weights.items():
            p.copy_(state[name])


class Tunable(Protocol):
    """What is asked of a prior."""

    @property
    def denoiser(self) -> Denoiser: ...


def unfrozen(prior: Tunable, *, camera: bool = False, generator: torch.Generator) -> Tuned:
    """A copy of which all weights train, in float32: DreamBooth's own way, and DreamCraft3D's in place of LoRA.

    camera  with labels of cameras; its embedding is drawn by the generator
    raises  ValueError as `copied`
    """
    denoiser = copied(prior)
    network: Any = copy.deepcopy(denoiser.network)
    denoiser.network = network.float().requires_grad_(True)
    if camera:
        add_camera(network, generator)
    return Tuned(denoiser)


def copied(prior: Tunable) -> VPDenoiser:
    """A prior's denoiser again, of modules of its own that hold the prior's very parameters.

    raises  ValueError for a denoiser that is no `VPDenoiser` of a network
    """
    denoiser = prior.denoiser
    if not isinstance(denoiser, VPDenoiser) or not isinstance(denoiser.network, nn.Module):
        raise ValueError(f"prior: expected one whose denoiser is a VPDenoiser of a network, got {type(denoiser).__name__}")
    kept: dict[int, Any] = {id(t): t for t in [*denoiser.parameters(), *denoiser.buffers()]}
    return copy.deepcopy(denoiser, kept)


def add_camera(network: Any, generator: torch.Generator) -> None:
    """Give a network the embedding that reads `camera_label`, in the place of a class embedding.

    raises  ValueError where it has one already, or is no latent diffusion model's U-Net
    """
    if not isinstance(network, ConditionedUNet) or network.unet.class_embedding is not None:
        raise ValueError("camera: only a U-Net without a class embedding takes labels of cameras; leave them out")
    from diffusers.models.embeddings import TimestepEmbedding

    wide, where = network.unet.time_embedding.linear_2.out_features, next(network.parameters()).device
    with torch.device("meta"):
        made = TimestepEmbedding(LABEL, wide)
    made = made.to_empty(device=where).float()
    with torch.no_grad():
        bound = LABEL**-0.5  # as PyTorch's linear layers are drawn
        for p in (made.linear_1.weight, made.linear_1.bias):
            p.copy_(torch.rand(p.shape, generator=generator, device=generator.device) * 2 * bound - bound)
        for p in made.linear_2.parameters():
            p.zero_()
    network.unet.class_embedding = made


def camera_label(cameras: Camera | None) -> Tensor:
    """What a condition holds as `camera`: (V, LABEL) float32, the camera-to-world matrices (4, 4), row by row; (1, LABEL) zeros where
    the camera is unknown."""
    if cameras is None:
        return torch.zeros(1, LABEL)
    bottom = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64, device=cameras.c2w.device).expand(len(cameras), 1, 4)
    return torch.cat([cameras.c2w.double(), bottom], 1).flatten(1).float()


def dropped(cond: Condition, null: Condition, share: float, count: int, *, generator: torch.Generator) -> Condition:
    """A condition of `count` rows of which a share, drawn at random, is unknown: there the tensors that `null` names are the null's.

    null    zeros of a text prior's `token`, as DreamCraft3D trains; or `prior.condition()`, the empty text; zeros of `camera`
    share   in [0, 1], of the rows; one draw decides for all tensors of a row
    """
    lost = torch.rand(count, generator=generator, device=generator.device) < share
    made = dict(cond)
    for name, empty in null.items():
        rows = cond[name].expand(count, *cond[name].shape[1:])
        made[name] = torch.where(lost.view(-1, *[1] * (rows.ndim - 1)).to(rows.device), empty.to(rows), rows)
    return made
