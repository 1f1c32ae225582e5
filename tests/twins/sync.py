# SPDX-License-Identifier: Apache-2.0
"""SyncDreamer, small and with random weights, on tensors under the released code's names, with its geometry in loops and float64: what its
checkpoint holds, and what one joint step of it computes, in the order in which the released code computes it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.twins import ldm
from tests.twins import zero123 as base

VIEWS = 16
U = {**base.U, "attention_resolutions": [4, 2, 1], "channel_mult": [1, 1, 2, 2]}
TIME, WIDTH, FEATURES, VOLUME, FRUSTUM = 16, 8, 8, (8, 16, 16, 24), (8, 16, 24, 32)
CELLS, DEPTHS = 8, 8  # of the lattices, which no tensor says; published 32 and 48


def poses() -> np.ndarray:
    """(16, 3, 4) world to camera, x right, y down, z forward, as the released table has it: 30 degrees up, 1.5 away, first on +x."""
    e, made = math.radians(30), []
    for k in range(VIEWS):
        a = 2 * math.pi * k / VIEWS
        right = [-math.sin(a), math.cos(a), 0]
        down = [math.sin(e) * math.cos(a), math.sin(e) * math.sin(a), -math.cos(e)]
        ahead = [-math.cos(e) * math.cos(a), -math.cos(e) * math.sin(a), -math.sin(e)]
        made.append(np.concatenate([np.array([right, down, ahead]), [[0], [0], [1.5]]], 1))
    return np.stack(made)


def intrinsics(side: int) -> np.ndarray:
    """(3, 3) of pictures `side` pixels wide."""
    s = side / 256
    return np.array([[280 * s, 0, 128 * s], [0, 280 * s, 128 * s], [0, 0, 1]])


def corners(*places: np.ndarray, size: tuple[int, ...]):
    """Of points between the cells of a lattice: each corner's weight (M,), zero outside the lattice, and its indices."""
    for steps in np.ndindex(*[2] * len(places)):
        at = [np.floor(x).astype(int) + step for x, step in zip(places, steps, strict=True)]
        weight = np.prod([1 - abs(x - i) for x, i in zip(places, at, strict=True)], 0)
        inside = np.all([(i >= 0) & (i < n) for i, n in zip(at, size, strict=True)], 0)
        yield weight * inside, tuple(np.clip(i, 0, n - 1) for i, n in zip(at, size, strict=True))


def between(values: np.ndarray, *places: np.ndarray) -> np.ndarray:
    """(C, M) of values (C, ...) on a lattice at indices, one array (M,) an axis; linear, zeros outside."""
    return sum(weight * values[(slice(None), *at)] for weight, at in corners(*places, size=values.shape[1:]))


def unprojected(features: Tensor, cells: int, shift: float = 0.0) -> Tensor:
    """(B, V F, N, N, N) of (B, V, F, h, w): vertices are looked up `shift` of a cell before where the intrinsics say."""
    b, v, f, side, _ = features.shape
    line, K, P = np.linspace(-0.5, 0.5, cells), intrinsics(side), poses()
    points = np.array([[line[ix], line[iy], line[iz], 1.0] for iz, iy, ix in np.ndindex(cells, cells, cells)]).T
    made = torch.zeros(b, v, f, cells**3, dtype=torch.float64)
    for s, n in np.ndindex(b, v):
        u = K @ P[n] @ points
        made[s, n] = torch.from_numpy(between(features[s, n].double().numpy(), u[1] / u[2] - shift, u[0] / u[2] - shift))
    return made.view(b, v * f, cells, cells, cells)


def looked_through(volume: Tensor, view: int, side: int, depths: int) -> Tensor:
    """(C, D, h, w) of one volume (C, N, N, N), axes z, y, x over [-1/2, 1/2]."""
    back = np.linalg.inv(np.concatenate([intrinsics(side) @ poses()[view], [[0, 0, 0, 1]]]))
    along = np.linspace(1.5 - 0.86603, 1.5 + 0.86603, depths)
    pixels = np.array([[i * along[d], j * along[d], along[d], 1.0] for d, j, i in np.ndindex(depths, side, side)]).T
    x, y, z = ((back @ pixels)[:3] + 0.5) * (volume.shape[-1] - 1)
    return torch.from_numpy(between(volume.double().numpy(), z, y, x)).view(-1, depths, side, side)


# ---- networks ----


def norm(w: ldm.Weights, name: str, x: Tensor) -> Tensor:
    c = x.shape[1]
    return F.group_norm(x, 8, w(f"{name}.weight", c, offset=1.0), w(f"{name}.bias", c))


def conv(w: ldm.Weights, name: str, x: Tensor, out: int, k: int = 3, stride: int = 1, bias: bool = True) -> Tensor:
    """Of pictures or volumes."""
    dims = x.ndim - 2
    weight = w(f"{name}.weight", out, x.shape[1], *[k] * dims)
    apply = F.conv2d if dims == 2 else F.conv3d
    return apply(x, weight, w(f"{name}.bias", out) if bias else None, stride, k // 2)


def told(w: ldm.Weights, name: str, y: Tensor, x: Tensor) -> Tensor:
    """x with numbers (B, n) added by a layer of size 1."""
    return x + conv(w, name, y.view(*y.shape, *[1] * (x.ndim - 2)), x.shape[1], 1)


def block(w: ldm.Weights, name: str, x: Tensor, out: int, t: Tensor, pose: Tensor | None, stride: int = 1) -> Tensor:
    """Of the volume's network, without a pose, or of the frustum's; stride 0 is upwards."""
    x = told(w, f"{name}.t_conv", t, x)
    if pose is not None:
        x = told(w, f"{name}.v_conv", pose, x)
    x = F.silu(norm(w, f"{name}.{'bn' if stride else 'norm'}", x))
    if stride:
        return conv(w, f"{name}.conv", x, out, 3, stride)
    weight, bias = w(f"{name}.conv.weight", x.shape[1], out, 3, 3, 3), w(f"{name}.conv.bias", out)
    return F.conv_transpose3d(x, weight, bias, stride=2, padding=1, output_padding=1)


def encoded(w: ldm.Weights, x: Tensor, t: Tensor, pose: Tensor) -> Tensor:
    p = "spatial_volume.target_encoder."
    x = conv(w, p + "init_conv", x, WIDTH)
    for k in range(3):
        y = told(w, f"{p}out_conv{k}.view_embed", pose, told(w, f"{p}out_conv{k}.time_embed", t, x))
        y = conv(w, f"{p}out_conv{k}.conv.2", F.silu(norm(w, f"{p}out_conv{k}.conv.0", y)), WIDTH)
        x = x + conv(w, f"{p}out_conv{k}.conv.5", F.silu(norm(w, f"{p}out_conv{k}.conv.3", y)), WIDTH)
    return conv(w, p + "final_out.2", F.silu(norm(w, p + "final_out.0", x)), FEATURES)


def spatial(w: ldm.Weights, x: Tensor, t: Tensor) -> Tensor:
    p, (d0, d1, d2, d3) = "spatial_volume.spatial_volume_feats.", VOLUME
    first = block(w, p + "conv0", conv(w, p + "init_conv", x, d0), d0, t, None)
    kept, x = [first], first
    for n, d in ((1, d1), (3, d2), (5, d3)):
        x = block(w, f"{p}conv{n}", x, d, t, None, 2)
        for half in (0, 1):
            x = block(w, f"{p}conv{n + 1}_{half}", x, d, t, None)
        kept.append(x)
    x = kept[2] + block(w, p + "conv7", kept[3], d2, t, None, 0)
    x = kept[1] + block(w, p + "conv8", x, d1, t, None, 0)
    return kept[0] + block(w, p + "conv9", x, d0, t, None, 0)


def frustum(w: ldm.Weights, x: Tensor, t: Tensor, pose: Tensor) -> dict[int, Tensor]:
    """By the cells a side."""
    p, (d0, d1, d2, d3) = "spatial_volume.frustum_volume_feats.", FRUSTUM
    kept = [conv(w, p + "conv0", x, d0)]
    for n, d in ((1, d1), (3, d2), (5, d3)):
        kept.append(block(w, f"{p}conv{n + 1}", block(w, f"{p}conv{n}", kept[-1], d, t, pose, 2), d, t, pose))
    for k, d in enumerate((d2, d1, d0)):
        kept[2 - k] = kept[2 - k] + block(w, f"{p}up{k}", kept[3 - k], d, t, pose, 0)
    return {y.shape[-1]: y for y in kept}


def depth_transformer(w: ldm.Weights, name: str, x: Tensor, context: Tensor) -> Tensor:
    p, c = f"model.diffusion_model.{name}.", context.shape[1]
    inner, (b, dim, height, width) = 2 * c, x.shape
    y = F.silu(norm(w, p + "proj_in.1", conv(w, p + "proj_in.0", x, inner, 1)))
    seen = F.relu(norm(w, p + "proj_context.1", conv(w, p + "proj_context.0", context, c, 1, bias=False)))
    q = conv(w, p + "depth_attn.to_q", y, inner, 1, bias=False).view(b, 4, -1, 1, height, width)
    k, v = (conv(w, f"{p}depth_attn.to_{n}", seen, inner, 1, bias=False).view(b, 4, -1, context.shape[2], height, width) for n in "kv")
    shares = ((q * k).sum(2, keepdim=True) / math.sqrt(inner / 4)).softmax(3)
    y = conv(w, p + "depth_attn.to_out", (v * shares).sum(3).view(b, inner, height, width), inner, 1, bias=False)
    y = conv(w, p + "proj_out.2", F.relu(norm(w, p + "proj_out.0", y)), inner, bias=False)
    return x + conv(w, p + "proj_out.5", F.relu(norm(w, p + "proj_out.3", y)), dim, bias=False)


def behind(w: ldm.Weights, seen: dict[int, Tensor]):
    """For `ldm.unet`: what follows the middle and the fourth to the twelfth output block."""
    after = {"middle_block": "middle_conditions"} | {f"output_blocks.{k + 3}": f"output_conditions.{k}" for k in range(9)}
    return lambda name, h: depth_transformer(w, after[name], h, seen[h.shape[-1]]) if name in after else h


def joint_noise(w: ldm.Weights, pixels: Tensor, elevation: float, x_t: Tensor, t: int, scale: float = 1.0) -> Tensor:
    """Noise (16, 4, h, w) that is predicted of x_t (16, 4, h, w), under a picture (1, 3, H, W) in [-1, 1] and its elevation, radians;
    guided by `scale`."""
    turn = 2 * math.pi * torch.arange(VIEWS) / VIEWS
    pose = torch.stack([torch.full((VIEWS,), elevation - math.radians(30)), turn.sin(), turn.cos(), torch.zeros(VIEWS)], -1)
    angle = t * torch.exp(-math.log(10000) * torch.arange(TIME // 2) / (TIME // 2))
    time = w.linear("time_embed.0", torch.cat([angle.cos(), angle.sin()])[None], TIME)
    time = w.linear("time_embed.2", F.silu(time), TIME)
    features = torch.stack([encoded(w, x_t[n : n + 1], time, pose[n : n + 1])[0] for n in range(VIEWS)])
    volume = spatial(w, unprojected(features[None], CELLS).float(), time)
    embedding, latent = ldm.clip(w, base.clip_input(pixels), **base.CLIP), ldm.encode(w, pixels, base.V)
    made = []
    for n in range(VIEWS):
        seen = frustum(w, looked_through(volume[0], n, U["image_size"], DEPTHS)[None].float(), time, pose[n : n + 1])
        token = w.linear("cc_projection", torch.cat([embedding, pose[n : n + 1]], -1), U["context_dim"])[:, None]
        one, step = x_t[n : n + 1], torch.tensor([t])
        noise = ldm.unet(w, torch.cat([one, latent], 1), step, token, U, then=behind(w, seen))
        if scale != 1:
            empty = behind(w, {k: 0 * y for k, y in seen.items()})
            none = ldm.unet(w, torch.cat([one, 0 * latent], 1), step, 0 * token, U, then=empty)
            noise = none + scale * (noise - none)
        made.append(noise[0])
    return torch.stack(made)


def checkpoint(seed: int = 0) -> tuple[ldm.Weights, dict[str, Tensor]]:
    """Weights, and the `state_dict` of a Lightning file with what else lies there."""
    w, side = ldm.Weights(seed), U["image_size"]
    with torch.no_grad():
        x = torch.zeros(VIEWS, 4, side, side)
        joint_noise(w, torch.zeros(1, 3, base.SIDE, base.SIDE), 0.0, x, 0)
        ldm.decode(w, x[:1], base.V)
    state = {k.replace("cond_stage_model.", "clip_image_encoder."): v for k, v in w.state.items()}
    betas = torch.linspace(base.LINEAR[0] ** 0.5, base.LINEAR[1] ** 0.5, base.LINEAR[2]) ** 2
    state |= {"betas": betas, "alphas": 1 - betas, "alphas_cumprod": (1 - betas).cumprod(0), "posterior_variance": betas}
    azimuth = (2 * math.pi * torch.arange(VIEWS) / VIEWS + math.pi) % (2 * math.pi) - math.pi
    state |= {"azimuth": azimuth, "poses": torch.from_numpy(poses()).float()}
    state["Ks"] = torch.from_numpy(intrinsics(base.SIDE)).float().repeat(VIEWS, 1, 1)
    return w, state | {"clip_image_encoder.model.token_embedding.weight": torch.zeros(7, 3)}


def written(folder: Path, state: dict[str, Tensor]) -> tuple[Path, Path]:
    """A `.ckpt`, and a YAML of what is not as published."""
    ckpt, config = base.write_original(folder, state)
    said = json.loads(config.read_text())
    said["model"]["params"]["unet_config"]["params"] = U
    config.write_text(json.dumps(said))
    return ckpt, config


def small_lattices(folder: Path) -> Path:
    """A converted folder, whose lattices are made as small as the twin's."""
    path = folder / "volume" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "cells": CELLS, "depths": DEPTHS}))
    return folder


def folder(at: Path, state: dict[str, Tensor] | None = None) -> Path:
    """A SyncDreamer as `bozzetto convert` writes it, small and with random weights."""
    from bozzetto.priors.convert import convert

    at.mkdir()
    ckpt, config = written(at, state or checkpoint()[1])
    convert(ckpt, at / "made", "syncdreamer", config)
    return small_lattices(at / "made")
