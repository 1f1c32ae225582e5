# SPDX-License-Identifier: Apache-2.0
"""Joint priors: V views of one object in one sample, drawn by a latent diffusion model whose attention looks across views.

The U-Net itself is one that draws pictures one by one: views lie beside one another in its batch, object by object, and share their
noise level. Two ways let them see each other, and both leave a sample of one view bit for bit what it was:

    `look_across`    self-attention over the tokens of all views, (B V, L, D) as (B, V L, D), by its own weights: MVDream
                     (arXiv:2308.16512), Wonder3D (arXiv:2310.15008)
    `add_attention`  an attention of its own in every block, between self- and cross-attention, whose last layer begins as zeros: so does
                     what it adds. Wonder3D's (under its published names) looks across domains, Consistent123's (arXiv:2310.08092) views

Every condition of a joint prior has a dimension for views, of 1 where they share it: `token` (1 or B, 1 or V, L, D).

Letters: B samples, V views, C channels, h w latent cells, L tokens, D their width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from bozzetto.priors.codec import Codec
from bozzetto.priors.latent import ConditionedUNet, LatentPrior
from bozzetto.priors.schedule import NoiseSchedule
from bozzetto.views import Views


class Group:
    """How many views lie beside one another in the call that a network is in: what its attentions need to know."""

    views: int = 1


class LookAcross:
    """A processor for diffusers' `Attention`: the tokens of all views of an object are looked at together.

    All else that an attention does, it does token by token, so that the rest is diffusers' own.
    """

    def __init__(self, group: Group) -> None:
        from diffusers.models.attention_processor import AttnProcessor2_0

        self.group, self.plain = group, AttnProcessor2_0()

    def __call__(self, attn: nn.Module, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **rest: Any) -> Tensor:
        rows, tokens, width = hidden_states.shape
        together = hidden_states.reshape(rows // self.group.views, self.group.views * tokens, width)
        made: Tensor = self.plain(attn, together, encoder_hidden_states, **rest)
        return made.reshape(rows, tokens, width)


class JointUNet(ConditionedUNet):
    """A U-Net as `VPDenoiser` calls it, for V views a sample: `ConditionedUNet`, but that x_t is (B, V, C, h, w), and so are conditions.

    `group` is what its attentions look up.
    """

    def __init__(self, unet: nn.Module) -> None:
        super().__init__(unet)
        self.group = Group()

    def forward(self, x_t: Tensor, step: Tensor, **cond: Tensor | None) -> Tensor:  # type: ignore[override]  # the same names
        """x_t (B, V, C, h, w); step (B,); each condition (1 or B, 1 or V, ...), as of `ConditionedUNet` for one view; returns
        (B, V, C, h, w), dtype of x_t."""
        b, self.group.views = x_t.shape[:2]
        v = self.group.views
        flat = {name: None if y is None else view_by_view(y, b, v) for name, y in cond.items()}
        return super().forward(x_t.flatten(0, 1), step.repeat_interleave(v), **flat).view_as(x_t)


def view_by_view(y: Tensor, b: int, v: int) -> Tensor:
    """(B V, ...) of (1 or B, 1 or V, ...)."""
    return y.expand(b, v, *y.shape[2:]).flatten(0, 1)


class JointPrior(LatentPrior):
    """A latent diffusion model of V views together as a `Prior`, but for `condition` and `views`.

    unet      diffusers' UNet2DConditionModel
    codec     with its channels
    schedule  of the noise in training
    together  V
    network   what the U-Net is asked through
    """

    null_keeps: tuple[str, ...] = ()
    """names of the conditions that guidance's null keeps (`sampling.null_of`)"""

    def __init__(
        self,
        unet: nn.Module,
        codec: Codec,
        schedule: NoiseSchedule,
        together: int,
        network: Callable[[nn.Module], ConditionedUNet] = JointUNet,
    ) -> None:
        super().__init__(unet, codec, schedule, network)
        self.together = together

    @property
    def shape(self) -> tuple[int, ...]:
        """(V, C, h, w) of x0."""
        return self.together, *super().shape

    def encode(self, views: Views, *, generator: torch.Generator | None = None) -> Tensor:
        return self.encode_pictures(views.over(self.background).clamp(0, 1).float(), generator=generator)

    def encode_pictures(self, rgb: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """As `Prior.encode_pictures`; raises ValueError where V does not divide the pictures."""
        if len(rgb) % self.together:
            raise ValueError(f"rgb: expected a multiple of {self.together} pictures, got {len(rgb)}")
        return super().encode_pictures(rgb, generator=generator).unflatten(0, (-1, self.together))

    def decode(self, x0: Tensor) -> Tensor:
        return super().decode(x0.flatten(0, 1))


def look_across(network: JointUNet) -> None:
    """Let every self-attention of a network look at all views."""
    network.unet.set_attn_processor(_across(network.unet, network.group))


@contextlib.contextmanager
def looking_across(unet: Any, views: int) -> Iterator[None]:
    """Within: every self-attention of a U-Net that draws pictures one by one looks at all of so many, a batch being of multiples of them;
    by its own weights, without training. It is as it was afterwards."""
    group = Group()
    group.views, before = views, unet.attn_processors
    unet.set_attn_processor(_across(unet, group))
    try:
        yield
    finally:
        unet.set_attn_processor(before)


def _across(unet: Any, group: Group) -> dict[str, Any]:
    """Its processors, those of self-attention in place of its own."""
    return {name: LookAcross(group) if name.endswith("attn1.processor") else p for name, p in unet.attn_processors.items()}


def blocks(unet: nn.Module) -> list[Any]:
    """The transformer blocks of a U-Net, in the order of their names: diffusers' `BasicTransformerBlock`."""
    from diffusers.models.attention import BasicTransformerBlock

    return [module for _, module in sorted(unet.named_modules()) if isinstance(module, BasicTransformerBlock)]


def add_attention(unet: nn.Module, processor: Any) -> None:
    """Give every transformer block of Stable Diffusion's kind an attention between its two, `attn_joint_mid` behind `norm_joint_mid`,
    those of Wonder3D's released code. It begins as the self-attention is, but for its last layer, which is zeros: it changes nothing yet.

    processor  of the added attentions, shared by them
    raises     ValueError for blocks of another kind
    """
    from diffusers.models.attention_processor import Attention

    for block in blocks(unet):
        if block.norm_type != "layer_norm" or block.only_cross_attention:
            raise ValueError(f"unet: expected blocks of Stable Diffusion's kind, got one with norm_type {block.norm_type}")
        like, weight = block.attn1, block.attn1.to_q.weight
        with torch.device(weight.device):
            added = Attention(like.query_dim, heads=like.heads, dim_head=like.inner_dim // like.heads, processor=processor)
            norm = nn.LayerNorm(like.query_dim)
        norm.load_state_dict(block.norm1.state_dict())
        added.load_state_dict(like.state_dict())
        nn.init.zeros_(added.to_out[0].weight)
        nn.init.zeros_(added.to_out[0].bias)
        block.norm_joint_mid, block.attn_joint_mid = norm.to(weight.dtype), added.to(weight.dtype)
        block.__class__ = _longer()


def _longer() -> type[nn.Module]:
    """A transformer block with a third attention; its base is imported where it is needed, which takes seconds."""
    from diffusers.models.attention import BasicTransformerBlock

    class JointBlock(BasicTransformerBlock):
        def forward(self, hidden_states: Tensor, *_: Any, encoder_hidden_states: Tensor | None = None, **__: Any) -> Tensor:
            x = hidden_states
            x = x + self.attn1(self.norm1(x))
            x = x + self.attn_joint_mid(self.norm_joint_mid(x))
            x = x + self.attn2(self.norm2(x), encoder_hidden_states=encoder_hidden_states)
            return x + self.ff(self.norm3(x))

    return JointBlock
