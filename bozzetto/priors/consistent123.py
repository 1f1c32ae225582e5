# SPDX-License-Identifier: Apache-2.0
"""Consistent123 (Weng et al. 2023, arXiv:2310.08092): the views of Zero-1-to-3, drawn together, as many as wanted.

The picture itself lies beside the V views that are drawn, clean and seen from where it was taken. In the shared self-attention every
view looks at the picture instead of at itself; behind it an attention of its own (`joint.add_attention`, whose last layer begins as zeros)
looks across the views. The base is frozen: only what is added is trained. Guidance fades from the largest level to the smallest
(`guidance.progressive`).

    V = 1 is Zero-1-to-3 with shared attention; the answers change places with the views; the number of views is free in use

No code and no weights were published. Differs, where the paper does not say: the picture's own row has the step of the smallest level,
which is what a clean latent is at, and sees itself alone; without a picture (guidance's other branch) self-attention is the base's own.

Letters: B samples, V views, C channels, h w latent cells, D width of cross-attention.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bozzetto.camera import Camera, orbit
from bozzetto.files import replacing
from bozzetto.priors import components
from bozzetto.priors.joint import Group, JointPrior, JointUNet, LookAcross, add_attention
from bozzetto.priors.latent import ConditionedUNet
from bozzetto.priors.prior import Condition, Hinting, Reference
from bozzetto.priors.zero123 import EncodedReference, Zero123, spherical

VIEWS = 8  # drawn together in training (Sec. 4)
FOV = math.radians(49.1)  # of Zero-1-to-3's training renders


class LookAtPicture:
    """A processor for self-attention: all rows of an object look at its first, the picture's. `Group.shared` turns it off."""

    def __init__(self, group: SharedGroup) -> None:
        from diffusers.models.attention_processor import AttnProcessor2_0

        self.group, self.plain = group, AttnProcessor2_0()

    def __call__(self, attn: nn.Module, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **rest: Any) -> Tensor:
        if self.group.shared:
            rows = self.group.views
            encoder_hidden_states = hidden_states[::rows].repeat_interleave(rows, 0)
        made: Tensor = self.plain(attn, hidden_states, encoder_hidden_states, **rest)
        return made


class SharedGroup(Group):
    """What the attentions look up: views counts the picture, too; shared is whether there is one."""

    shared: bool = False


class LookAcrossViews(LookAcross):
    """Across the V views, the picture's row left as it is."""

    group: SharedGroup

    def __call__(self, attn: nn.Module, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **rest: Any) -> Tensor:
        if not self.group.shared:
            return super().__call__(attn, hidden_states, encoder_hidden_states, **rest)
        rows, tokens, width = hidden_states.shape
        each = hidden_states.view(-1, self.group.views, tokens, width)
        drawn = each[:, 1:].reshape(len(each), -1, width)
        made = self.plain(attn, drawn, encoder_hidden_states, **rest).view(len(each), -1, tokens, width)
        return torch.cat([torch.zeros_like(each[:, :1]), made], 1).view(rows, tokens, width)


class SharedUNet(JointUNet):
    """`JointUNet` with the picture beside the views: one more condition, `picture` (1 or B, 1, C, h, w), its latent as x0, whose token
    and image latent are the first of V + 1."""

    group: SharedGroup

    def __init__(self, unet: nn.Module) -> None:
        super().__init__(unet)
        self.group = SharedGroup()
        add_attention(unet, LookAcrossViews(self.group))

    def look_at_picture(self) -> None:
        """Let self-attention be the shared one."""
        processors: dict[str, Any] = dict(self.unet.attn_processors)
        looking = LookAtPicture(self.group)
        self.unet.set_attn_processor({name: looking if "attn1" in name else own for name, own in processors.items()})

    def forward(self, x_t: Tensor, step: Tensor, picture: Tensor | None = None, **cond: Tensor | None) -> Tensor:  # type: ignore[override]
        self.group.shared = picture is not None
        if picture is None:
            return super().forward(x_t, step, **cond)
        b, v, *cell = x_t.shape
        self.group.views = v + 1
        rows = torch.cat([picture.to(x_t).expand(b, 1, *cell), x_t], 1).flatten(0, 1)
        steps = torch.cat([torch.zeros_like(step)[:, None], step[:, None].expand(b, v)], 1).flatten()
        flat = {name: None if y is None else y.expand(b, v + 1, *y.shape[2:]).flatten(0, 1) for name, y in cond.items()}
        return ConditionedUNet.forward(self, rows, steps, **flat).view(b, v + 1, *cell)[:, 1:]


class Consistent123(JointPrior):
    """A Zero-1-to-3 that draws V views together, as a `Prior` of views.

    base      whose weights it shares; it is changed: ask it no more by itself. What it has `beside` it is read
    together  V
    shared    self-attention looks at the picture; else it stays the base's own
    fades     scale and power to which guidance fades from the base's own scale; None where it is the same at all levels
    """

    def __init__(self, base: Zero123, together: int = VIEWS, *, shared: bool = True, fades: tuple[float, float] | None = None) -> None:
        super().__init__(base.unet, base.codec, base.schedule, together, SharedUNet)
        self.base = base
        network: Any = self.network
        if shared:
            network.look_at_picture()
        if base.beside is not None:
            read(self, base.beside)
        self.sampler = base.sampler._replace(fades=fades)
        self.eval()

    @property
    def uses_hint(self) -> bool:
        return self.base.uses_hint

    def views(self, reference: Reference | None = None) -> Camera | None:
        """V cameras on a ring round the object, beginning beside the reference's (front, level) and going round counter-clockwise; any
        others may be asked for."""
        polar, azimuth, distance = (math.pi / 2, 0.0, 1.5) if reference is None else (float(x[0]) for x in spherical(reference.cameras))
        turns = [azimuth + 2 * math.pi * (k + 1) / (self.together + 1) for k in range(self.together)]
        ring = orbit(turns, math.pi / 2 - polar, distance, size=self.size, fov=FOV)
        return ring if reference is None else replace(ring, K=reference.cameras.resized(self.size).K[:1].expand_as(ring.K))

    def encode_reference(self, reference: Reference) -> EncodedReference:
        return self.base.encode_reference(reference)

    def condition(
        self,
        reference: Reference | EncodedReference | None = None,
        cameras: Camera | None = None,
        text: str | None = None,
        hint: Hinting | None = None,
    ) -> Condition:
        """As `Prior.condition`, for B V cameras of B pictures or of one: those of `Zero123.condition`, object by object with the
        picture's own first; and `picture`."""
        if isinstance(reference, Reference):
            reference = self.encode_reference(reference)
        plain = self.base.condition(reference, cameras, text, hint)
        if reference is None or cameras is None:
            return {name: y[None] if len(y) == 1 else self._grouped(y) for name, y in plain.items()}
        own = self.base.condition(reference, reference.cameras)
        views = {name: self._grouped(y) for name, y in plain.items()}
        made = {}
        for name, y in views.items():
            first = own[name][:, None] if name in own else torch.zeros_like(y[:1, :1])  # the picture needs no hint
            made[name] = torch.cat([first.expand(len(y), *first.shape[1:]), y], 1)
        return made | {"picture": own["image_latent"][:, None] * self.codec.scaling_factor}

    def _grouped(self, y: Tensor) -> Tensor:
        if len(y) % self.together:
            raise ValueError(f"cameras: expected a multiple of {self.together} of them, got {len(y)}")
        return y.unflatten(0, (-1, self.together))


def save(prior: Consistent123, folder: Path) -> None:
    """Write the added weights into a folder, as `read` takes them, in float16."""
    from safetensors.torch import save_file

    state = {name: p.detach().half().cpu().contiguous() for name, p in prior.unet.state_dict().items() if "joint_mid" in name}
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / f"{components.STEMS[1]}.safetensors") as part:
        save_file(state, part, metadata={"format": "pt"})


def read(prior: Consistent123, folder: Path) -> None:
    """Fill the added attentions from a folder; raises InputError unless names and shapes agree."""
    tensors, state = components.Tensors(folder), prior.unet.state_dict()
    added = {name: tuple(p.shape) for name, p in state.items() if "joint_mid" in name}
    components.check(folder, added, tensors.shapes)
    with torch.no_grad():
        for name in added:
            state[name].copy_(tensors.read(name, state[name].dtype, state[name].device))
