# SPDX-License-Identifier: Apache-2.0
"""Latent diffusion, its autoencoder and OpenAI's CLIP, on tensors under their legacy names: what a Zero-1-to-3 `.ckpt` computes.

Plain functions of a `Weights`; the first pass makes random weights, so that a checkpoint's names and shapes come from here and
from nowhere else.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


class Weights:
    """Tensors by name, drawn when they are first asked for: about 1/sqrt(fan-in), norms about 1, biases about 0."""

    def __init__(self, seed: int) -> None:
        self.state: dict[str, Tensor] = {}
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, name: str, *shape: int, offset: float = 0.0) -> Tensor:
        if name not in self.state:
            spread = 0.1 if len(shape) == 1 else 1 / math.sqrt(math.prod(shape[1:]))
            self.state[name] = offset + spread * torch.randn(*shape, generator=self._generator)
        assert self.state[name].shape == shape
        return self.state[name]

    def linear(self, name: str, x: Tensor, out: int, bias: bool = True) -> Tensor:
        return F.linear(x, self(f"{name}.weight", out, x.shape[-1]), self(f"{name}.bias", out) if bias else None)

    def conv(self, name: str, x: Tensor, out: int, k: int = 3, stride: int = 1, pad: int | None = None, bias: bool = True) -> Tensor:
        weight = self(f"{name}.weight", out, x.shape[1], k, k)
        return F.conv2d(x, weight, self(f"{name}.bias", out) if bias else None, stride, k // 2 if pad is None else pad)

    def group_norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        c = x.shape[1]
        return F.group_norm(x, 32, self(f"{name}.weight", c, offset=1.0), self(f"{name}.bias", c), eps)

    def layer_norm(self, name: str, x: Tensor) -> Tensor:
        c = x.shape[-1]
        return F.layer_norm(x, (c,), self(f"{name}.weight", c, offset=1.0), self(f"{name}.bias", c))


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """(B, N, C), (B, M, C), (B, M, C): softmax attention in `heads` equal parts of the channels."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    shares = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
    return (shares @ v).transpose(1, 2).flatten(2)


# ---- U-Net ----


def unet(w: Weights, x: Tensor, t: Tensor, context: Tensor, u: dict, camera: Tensor | None = None, views: int = 1) -> Tensor:
    """x (B, in, h, w), t (B,), context (B, M, D); u as the configuration's unet_config.params. MVDream's: camera (B, camera_dim), and
    `views` samples beside one another look at each other."""
    p, ch = "model.diffusion_model.", u["model_channels"]
    half = ch // 2
    angle = t[:, None].float() * torch.exp(-math.log(10000) * torch.arange(half) / half)
    emb = w.linear(p + "time_embed.0", torch.cat([angle.cos(), angle.sin()], -1), 4 * ch)
    emb = w.linear(p + "time_embed.2", F.silu(emb), 4 * ch)
    if camera is not None:
        emb = emb + w.linear(p + "camera_embed.2", F.silu(w.linear(p + "camera_embed.0", camera, 4 * ch)), 4 * ch)

    def transformer(name: str, h: Tensor) -> Tensor:
        heads = u["num_heads"] if "num_heads" in u else h.shape[1] // u["num_head_channels"]
        return _transformer(w, name, h, context, heads, views, is_linear=bool(u.get("use_linear_in_transformer")))

    h = w.conv(p + "input_blocks.0.0", x, ch)
    skips, index, last = [h], 1, len(u["channel_mult"]) - 1
    for level, mult in enumerate(u["channel_mult"]):
        for _ in range(u["num_res_blocks"]):
            h = _res(w, f"{p}input_blocks.{index}.0", h, emb, ch * mult)
            if 2**level in u["attention_resolutions"]:
                h = transformer(f"{p}input_blocks.{index}.1", h)
            skips, index = [*skips, h], index + 1
        if level < last:
            h = w.conv(f"{p}input_blocks.{index}.0.op", h, ch * mult, stride=2)
            skips, index = [*skips, h], index + 1
    h = _res(w, p + "middle_block.0", h, emb, h.shape[1])
    h = transformer(p + "middle_block.1", h)
    h = _res(w, p + "middle_block.2", h, emb, h.shape[1])
    index = 0
    for level in range(last, -1, -1):
        for block in range(u["num_res_blocks"] + 1):
            h = _res(w, f"{p}output_blocks.{index}.0", torch.cat([h, skips.pop()], 1), emb, ch * u["channel_mult"][level])
            attends = 2**level in u["attention_resolutions"]
            if attends:
                h = transformer(f"{p}output_blocks.{index}.1", h)
            if level and block == u["num_res_blocks"]:
                h = w.conv(f"{p}output_blocks.{index}.{1 + attends}.conv", F.interpolate(h, scale_factor=2), h.shape[1])
            index += 1
    return w.conv(p + "out.2", F.silu(w.group_norm(p + "out.0", h, 1e-5)), u["out_channels"])


def _res(w: Weights, name: str, x: Tensor, emb: Tensor, out: int) -> Tensor:
    h = w.conv(f"{name}.in_layers.2", F.silu(w.group_norm(f"{name}.in_layers.0", x, 1e-5)), out)
    h = h + w.linear(f"{name}.emb_layers.1", F.silu(emb), out)[:, :, None, None]
    h = w.conv(f"{name}.out_layers.3", F.silu(w.group_norm(f"{name}.out_layers.0", h, 1e-5)), out)
    return h + (x if x.shape[1] == out else w.conv(f"{name}.skip_connection", x, out, 1))


def _transformer(w: Weights, name: str, x: Tensor, context: Tensor, heads: int, views: int = 1, is_linear: bool = False) -> Tensor:
    c, (height, width) = x.shape[1], x.shape[-2:]
    h = w.group_norm(f"{name}.norm", x, 1e-6)
    h = w.linear(f"{name}.proj_in", h.flatten(2).mT, c) if is_linear else w.conv(f"{name}.proj_in", h, c, 1).flatten(2).mT
    b = f"{name}.transformer_blocks.0"
    for norm, attn in (("norm1", "attn1"), ("norm2", "attn2")):
        y = w.layer_norm(f"{b}.{norm}", h)
        if attn == "attn1":  # tokens of all views beside one another
            y = torch.cat([y[k::views] for k in range(views)], 1)
        seen = y if attn == "attn1" else context
        q, k, v = w.linear(f"{b}.{attn}.to_q", y, c, False), *(w.linear(f"{b}.{attn}.to_{n}", seen, c, False) for n in "kv")
        made = w.linear(f"{b}.{attn}.to_out.0", attend(q, k, v, heads), c)
        if attn == "attn1":
            made = torch.stack(made.chunk(views, 1), 1).flatten(0, 1)
        h = h + made
    value, gate = w.linear(f"{b}.ff.net.0.proj", w.layer_norm(f"{b}.norm3", h), 8 * c).chunk(2, -1)
    h = h + w.linear(f"{b}.ff.net.2", value * F.gelu(gate), c)
    if is_linear:
        return x + w.linear(f"{name}.proj_out", h, c).mT.unflatten(2, (height, width))
    return x + w.conv(f"{name}.proj_out", h.mT.unflatten(2, (height, width)), c, 1)


# ---- autoencoder ----


def encode(w: Weights, pixels: Tensor, v: dict) -> Tensor:
    """The mean of the posterior, (B, z, h, w), of pixels (B, 3, H, W) in [-1, 1]; v as the configuration's ddconfig."""
    p = "first_stage_model."
    h = w.conv(p + "encoder.conv_in", pixels, v["ch"])
    for level, mult in enumerate(v["ch_mult"]):
        for block in range(v["num_res_blocks"]):
            h = _vae_res(w, f"{p}encoder.down.{level}.block.{block}", h, v["ch"] * mult)
        if level < len(v["ch_mult"]) - 1:
            h = w.conv(f"{p}encoder.down.{level}.downsample.conv", F.pad(h, (0, 1, 0, 1)), h.shape[1], stride=2, pad=0)
    h = _vae_mid(w, p + "encoder.mid", h)
    h = w.conv(p + "encoder.conv_out", F.silu(w.group_norm(p + "encoder.norm_out", h, 1e-6)), 2 * v["z_channels"])
    return w.conv(p + "quant_conv", h, 2 * v["z_channels"], 1).chunk(2, 1)[0]


def decode(w: Weights, z: Tensor, v: dict) -> Tensor:
    """Pixels (B, 3, H, W), about [-1, 1], of unscaled latents."""
    p = "first_stage_model."
    h = w.conv(p + "decoder.conv_in", w.conv(p + "post_quant_conv", z, v["z_channels"], 1), v["ch"] * v["ch_mult"][-1])
    h = _vae_mid(w, p + "decoder.mid", h)
    for level in range(len(v["ch_mult"]) - 1, -1, -1):
        for block in range(v["num_res_blocks"] + 1):
            h = _vae_res(w, f"{p}decoder.up.{level}.block.{block}", h, v["ch"] * v["ch_mult"][level])
        if level:
            h = w.conv(f"{p}decoder.up.{level}.upsample.conv", F.interpolate(h, scale_factor=2), h.shape[1])
    return w.conv(p + "decoder.conv_out", F.silu(w.group_norm(p + "decoder.norm_out", h, 1e-6)), v["out_ch"])


def _vae_mid(w: Weights, name: str, h: Tensor) -> Tensor:
    c, (height, width) = h.shape[1], h.shape[-2:]
    h = _vae_res(w, f"{name}.block_1", h, c)
    y = w.group_norm(f"{name}.attn_1.norm", h, 1e-6)
    q, k, v = (w.conv(f"{name}.attn_1.{n}", y, c, 1).flatten(2).mT for n in "qkv")
    h = h + w.conv(f"{name}.attn_1.proj_out", attend(q, k, v, 1).mT.unflatten(2, (height, width)), c, 1)
    return _vae_res(w, f"{name}.block_2", h, c)


def _vae_res(w: Weights, name: str, x: Tensor, out: int) -> Tensor:
    h = w.conv(f"{name}.conv1", F.silu(w.group_norm(f"{name}.norm1", x, 1e-6)), out)
    h = w.conv(f"{name}.conv2", F.silu(w.group_norm(f"{name}.norm2", h, 1e-6)), out)
    return h + (x if x.shape[1] == out else w.conv(f"{name}.nin_shortcut", x, out, 1))


# ---- OpenCLIP's text tower, all but its last block ----


def words(w: Weights, ids: Tensor, *, vocabulary: int, width: int, layers: int) -> Tensor:
    """States (B, L, width) of tokens (B, L), each of which sees itself and those before it; normalised before the last block."""
    p = "cond_stage_model.model."
    x = w(p + "token_embedding.weight", vocabulary, width)[ids] + w(p + "positional_embedding", ids.shape[1], width)
    later = torch.ones(ids.shape[1], ids.shape[1]).triu(1).bool()
    for layer in range(layers):
        b = f"{p}transformer.resblocks.{layer}"
        y = w.layer_norm(f"{b}.ln_1", x)
        qkv = F.linear(y, w(f"{b}.attn.in_proj_weight", 3 * width, width), w(f"{b}.attn.in_proj_bias", 3 * width))
        q, k, v = (t.unflatten(-1, (width // 64, 64)).transpose(1, 2) for t in qkv.chunk(3, -1))
        shares = (q @ k.mT / 8).masked_fill(later, -torch.inf).softmax(-1)
        made = x + w.linear(f"{b}.attn.out_proj", (shares @ v).transpose(1, 2).flatten(2), width)
        y = w.linear(f"{b}.mlp.c_fc", w.layer_norm(f"{b}.ln_2", made), 4 * width)
        made = made + w.linear(f"{b}.mlp.c_proj", F.gelu(y), width)
        x = made if layer < layers - 1 else x
    return w.layer_norm(p + "ln_final", x)


# ---- OpenAI's vision tower ----


def clip(w: Weights, pixels: Tensor, *, width: int, patch: int, layers: int, out: int) -> Tensor:
    """Embeddings (B, out), not normalised, of preprocessed pixels (B, 3, S, S)."""
    p = "cond_stage_model.model.visual."
    x = w.conv(p + "conv1", pixels, width, patch, patch, 0, bias=False).flatten(2).mT
    x = torch.cat([w(p + "class_embedding", width).expand(len(x), 1, -1), x], 1)
    x = w.layer_norm(p + "ln_pre", x + w(p + "positional_embedding", x.shape[1], width))
    for layer in range(layers):
        b = f"{p}transformer.resblocks.{layer}"
        y = w.layer_norm(f"{b}.ln_1", x)
        qkv = F.linear(y, w(f"{b}.attn.in_proj_weight", 3 * width, width), w(f"{b}.attn.in_proj_bias", 3 * width))
        x = x + w.linear(f"{b}.attn.out_proj", attend(*qkv.chunk(3, -1), width // 64), width)
        y = w.linear(f"{b}.mlp.c_fc", w.layer_norm(f"{b}.ln_2", x), 4 * width)
        x = x + w.linear(f"{b}.mlp.c_proj", y * torch.sigmoid(1.702 * y), width)
    return w.layer_norm(p + "ln_post", x[:, 0]) @ w(p + "proj", width, out)
