# SPDX-License-Identifier: Apache-2.0
"""Wonder3D, small and with random weights, as it was published; and one call of its network, written from the equations in float64.

Every picture is a tensor of its own: nothing is batched, so that nothing can be reshaped wrongly. Which others a picture looks at is a
list: at its self-attention all of its domain, at the cross-domain attention the same view of both domains.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.twins import zero123

VIEWS, WIDTHS, HEADS, GROUPS, CELLS = 6, (16, 32), 4, 8, 8
KINDS_OF_BLOCKS = ("down_block_types", "up_block_types")
State = dict[str, Tensor]
POSES = [(0, 0), (-0.2362, 0.8125), (-0.1686, 1.6934), (0.5220, 3.1406), (0.6904, 4.8359), (0.3733, 5.5859)]


def joint_names(unet: State) -> list[str]:
    """Prefixes of the transformer blocks."""
    return sorted({name.split(".attn1.")[0] for name in unet if ".attn1." in name})


def parts(seed: int = 0) -> dict[str, Any]:
    """Libraries' own networks, and the U-Net's state with the layers of the released code."""
    from diffusers import UNet2DConditionModel

    made = zero123.port_parts(seed)
    g = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(seed + 1)
        like = zero123.small_unet(8, 4, 24, WIDTHS).config
        made["unet"] = UNet2DConditionModel.from_config(like, class_embed_type="projection", projection_class_embeddings_input_dim=10)
    state = {k: v.detach().clone() for k, v in made["unet"].state_dict().items()}
    for block in joint_names(state):
        width = len(state[f"{block}.norm1.weight"])
        for layer in ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight"):
            state[f"{block}.attn_joint_mid.{layer}"] = torch.randn(width, width, generator=g) / width**0.5
        state[f"{block}.attn_joint_mid.to_out.0.bias"] = 0.1 * torch.randn(width, generator=g)
        state[f"{block}.norm_joint_mid.weight"] = 1 + 0.1 * torch.randn(width, generator=g)
        state[f"{block}.norm_joint_mid.bias"] = 0.1 * torch.randn(width, generator=g)
    made["state"] = state
    return made


def settings(unet: Any) -> dict[str, Any]:
    """`unet/config.json` as the released code wrote it: its own class, its names of blocks, and what stock networks have not."""
    stock = {k: v for k, v in dict(unet.config).items() if not k.startswith("_")}
    blocks = {k: [name.replace("Block2D", "BlockMV2D") if "Attn" in name else name for name in stock[k]] for k in KINDS_OF_BLOCKS}
    own: dict[str, Any] = {"num_views": VIEWS, "cd_attention_mid": True, "cd_attention_last": False, "multiview_attention": True}
    own |= {"sparse_mv_attention": False, "mvcd_attention": False, "mid_block_type": "UNetMidBlockMV2DCrossAttn"}
    return {"_class_name": "UNetMV2DConditionModel", "_diffusers_version": "0.19.3", **stock, **blocks, **own}


def write(folder: Path, made: dict[str, Any], *, pickled: bool = True) -> Path:
    """The published folder: pickles, unless safetensors are asked for."""
    from safetensors.torch import save_file

    states = {"unet": made["state"], "vae": made["vae"].state_dict(), "image_encoder": made["image_encoder"].state_dict()}
    configs = {"unet": settings(made["unet"]), "vae": dict(made["vae"].config), "image_encoder": made["image_encoder"].config.to_dict()}
    for part, state in states.items():
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(configs[part], default=str))
        stem = {True: ("pytorch_model", "diffusion_pytorch_model"), False: ("model", "diffusion_pytorch_model")}[pickled]
        name = stem[part != "image_encoder"]
        if pickled:
            torch.save(state, folder / part / f"{name}.bin")
        else:
            save_file({k: v.contiguous() for k, v in state.items()}, folder / part / f"{name}.safetensors")
    made["scheduler"].save_pretrained(folder / "scheduler")
    index = {"_class_name": "MVDiffusionImagePipeline", "unet": ["mvdiffusion.models.unet_mv2d_condition", "UNetMV2DConditionModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


# ---- one call of the network ----


class Calculation:
    """The U-Net's layers by name, in float64."""

    def __init__(self, state: State) -> None:
        self.w = {k: v.double() for k, v in state.items()}

    def linear(self, name: str, x: Tensor) -> Tensor:
        bias = self.w.get(f"{name}.bias")
        y = torch.einsum("...i,oi->...o", x, self.w[f"{name}.weight"].reshape(-1, x.shape[-1]))
        return y if bias is None else y + bias

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.w[f"{name}.weight"]
        return F.conv2d(x[None], weight, self.w[f"{name}.bias"], stride, weight.shape[-1] // 2)[0]

    def group_norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        groups = x.reshape(GROUPS, -1)
        y = ((groups - groups.mean(1, keepdim=True)) / (groups.var(1, correction=0, keepdim=True) + eps).sqrt()).reshape(x.shape)
        return y * self.w[f"{name}.weight"][:, None, None] + self.w[f"{name}.bias"][:, None, None]

    def layer_norm(self, name: str, x: Tensor) -> Tensor:
        y = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        return y * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def attention(self, name: str, x: Tensor, looked_at: Sequence[Tensor]) -> Tensor:
        """softmax(q k / sqrt d) v over the tokens of everything that is looked at, head by head."""
        keys = [row for y in looked_at for row in self.linear(f"{name}.to_k", y)]
        values = [row for y in looked_at for row in self.linear(f"{name}.to_v", y)]
        q, k, v = self.linear(f"{name}.to_q", x), torch.stack(keys), torch.stack(values)
        heads, d = [], q.shape[1] // HEADS
        for h in range(HEADS):
            part = slice(h * d, (h + 1) * d)
            e = torch.exp(q[:, part] @ k[:, part].T / math.sqrt(d))
            heads.append((e / e.sum(1, keepdim=True)) @ v[:, part])
        return self.linear(f"{name}.to_out.0", torch.cat(heads, 1))

    def resnet(self, name: str, x: Tensor, time: Tensor) -> Tensor:
        y = self.conv(f"{name}.conv1", F.silu(self.group_norm(f"{name}.norm1", x, 1e-5)))
        y = y + self.linear(f"{name}.time_emb_proj", F.silu(time))[:, None, None]
        y = self.conv(f"{name}.conv2", F.silu(self.group_norm(f"{name}.norm2", y, 1e-5)))
        return y + (self.conv(f"{name}.conv_shortcut", x) if f"{name}.conv_shortcut.weight" in self.w else x)

    def transformers(self, name: str, xs: list[Tensor], token: Tensor, exchange: bool) -> list[Tensor]:
        """One attention layer, all twelve pictures; `exchange` makes the control: domains' halves exchanged at the joint attention."""
        block, n = f"{name}.transformer_blocks.0", len(xs)
        flat = [self.conv(f"{name}.proj_in", self.group_norm(f"{name}.norm", x, 1e-6)).flatten(1).T for x in xs]
        normed = [self.layer_norm(f"{block}.norm1", h) for h in flat]
        same_domain = [[j for j in range(n) if j // VIEWS == i // VIEWS] for i in range(n)]
        flat = [h + self.attention(f"{block}.attn1", normed[i], [normed[j] for j in same_domain[i]]) for i, h in enumerate(flat)]
        normed = [self.layer_norm(f"{block}.norm_joint_mid", h) for h in flat]
        # the control pairs neighbours, as chunks of a batch in another order would
        same_view = [[j for j in range(n) if (j // 2 == i // 2 if exchange else j % VIEWS == i % VIEWS)] for i in range(n)]
        flat = [h + self.attention(f"{block}.attn_joint_mid", normed[i], [normed[j] for j in same_view[i]]) for i, h in enumerate(flat)]
        flat = [h + self.attention(f"{block}.attn2", self.layer_norm(f"{block}.norm2", h), [token]) for h in flat]
        out = []
        for x, h in zip(xs, flat, strict=True):
            a, gate = self.linear(f"{block}.ff.net.0.proj", self.layer_norm(f"{block}.norm3", h)).chunk(2, -1)
            h = h + self.linear(f"{block}.ff.net.2", a * F.gelu(gate))
            out.append(x + self.conv(f"{name}.proj_out", h.T.reshape(x.shape)))
        return out

    def noise(self, xs: list[Tensor], step: float, token: Tensor, labels: list[Tensor], exchange: bool = False) -> list[Tensor]:
        half = WIDTHS[0] // 2
        angle = step * torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float64) / half)
        wave = torch.cat([angle.cos(), angle.sin()])
        time = self.linear("time_embedding.linear_2", F.silu(self.linear("time_embedding.linear_1", wave)))
        named = [self.linear("class_embedding.linear_2", F.silu(self.linear("class_embedding.linear_1", y))) for y in labels]
        times = [time + y for y in named]

        def each_resnet(name: str, xs: list[Tensor]) -> list[Tensor]:
            return [self.resnet(name, x, t) for x, t in zip(xs, times, strict=True)]

        def attend(name: str, xs: list[Tensor]) -> list[Tensor]:
            return self.transformers(name, xs, token, exchange)

        xs = [self.conv("conv_in", x) for x in xs]
        kept = [xs]
        kept.append(xs := attend("down_blocks.0.attentions.0", each_resnet("down_blocks.0.resnets.0", xs)))
        kept.append(xs := [self.conv("down_blocks.0.downsamplers.0.conv", x, 2) for x in xs])
        kept.append(xs := each_resnet("down_blocks.1.resnets.0", xs))
        xs = attend("mid_block.attentions.0", each_resnet("mid_block.resnets.0", xs))
        xs = each_resnet("mid_block.resnets.1", xs)

        def joined(xs: list[Tensor]) -> list[Tensor]:
            return [torch.cat([x, y]) for x, y in zip(xs, kept.pop(), strict=True)]

        for k in range(2):
            xs = each_resnet(f"up_blocks.0.resnets.{k}", joined(xs))
        xs = [self.conv("up_blocks.0.upsamplers.0.conv", x.repeat_interleave(2, 1).repeat_interleave(2, 2)) for x in xs]
        for k in range(2):
            xs = attend(f"up_blocks.1.attentions.{k}", each_resnet(f"up_blocks.1.resnets.{k}", joined(xs)))
        return [self.conv("conv_out", F.silu(self.group_norm("conv_norm_out", x, 1e-5))) for x in xs]


def label(view: int, is_colour: bool) -> Tensor:
    """Ten numbers, from five that were rounded to float16."""
    five = [0.0, *POSES[view], float(not is_colour), float(is_colour)]
    rounded = [float(torch.tensor(x, dtype=torch.float16)) for x in five]
    return torch.tensor([math.sin(x) for x in rounded] + [math.cos(x) for x in rounded], dtype=torch.float64)


def clip_input(pixels: Tensor) -> Tensor:
    """(1, 3, n, n) of a picture (3, H, W) in [0, 1], by Pillow, channel by channel, unrounded."""
    from PIL import Image

    side, mean, std = zero123.CLIP_SIDE, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    small = [Image.fromarray(c.float().numpy(), "F").resize((side, side), Image.Resampling.BICUBIC) for c in pixels]
    channels = [(torch.from_numpy(np.array(c)).clamp(0, 1) - m) / s for c, m, s in zip(small, mean, std, strict=True)]
    return torch.stack(channels)[None]


@torch.no_grad()
def noise(
    made: dict[str, Any],
    picture: Tensor | None,
    x_t: Tensor,
    step: float,
    *,
    factor: float = 0.18215,
    exchange: bool = False,
    colours_first: bool = False,
) -> Tensor:
    """What the published network says of twelve noisy latents (12, 4, h, w), normals first, of a picture (3, H, W) in [0, 1] or of none.

    The controls: another factor of the picture's latent, joint attention between other pictures, labels' halves exchanged.
    """
    if picture is None:
        latent, token = torch.zeros(4, CELLS, CELLS), torch.zeros(1, 24)
    else:
        latent = made["vae"].encode(2 * picture[None].float() - 1).latent_dist.mode()[0] * factor
        token = made["image_encoder"](clip_input(picture)).image_embeds
    labels = [label(i % VIEWS, (i >= VIEWS) != colours_first) for i in range(2 * VIEWS)]
    xs = [torch.cat([x, latent]).double() for x in x_t]
    return torch.stack(Calculation(made["state"]).noise(xs, step, token.double(), labels, exchange))
