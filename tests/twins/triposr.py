# SPDX-License-Identifier: Apache-2.0
"""TripoSR by its description, slowly: numpy in float64, one sum at a time; small random weights under the published names.

Nothing of `bozzetto.priors.triposr` is used: sizes are plain numbers, attention is a softmax a head, cubic and linear interpolation
are matrices, the transposed convolution and the planes' bilinear reading are loops.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from scipy.special import erf
from torch import Tensor

Arrays = dict[str, np.ndarray]
# sizes of a small one: picture, patch, table's cells a side; ViT width, layers, heads, MLP; planes, channels, heads, layers; the rest
S, PATCH, M, VW, VL, VH, VM = 64, 16, 2, 48, 2, 3, 96
P, C, H, L, F, N, HIDDEN, RADIUS, BIAS = 8, 64, 4, 2, 8, 16, 3, 0.87, -1.0

CONFIG = f"""
cond_image_size: {S}
image_tokenizer_cls: tsr.models.tokenizers.image.DINOSingleImageTokenizer
image_tokenizer:
  pretrained_model_name_or_path: "none"
  width: {VW}
  layers: {VL}
  heads: {VH}
  hidden: {VM}
  patch: {PATCH}
  side: {M * PATCH}
tokenizer_cls: tsr.models.tokenizers.triplane.Triplane1DTokenizer
tokenizer:
  plane_size: {P}
  num_channels: {C}
backbone_cls: tsr.models.transformer.transformer_1d.Transformer1D
backbone:
  in_channels: ${{tokenizer.num_channels}}
  num_attention_heads: {H}
  attention_head_dim: {C // H}
  num_layers: {L}
  cross_attention_dim: {VW}
post_processor_cls: tsr.models.network_utils.TriplaneUpsampleNetwork
post_processor:
  in_channels: {C}
  out_channels: {F}
decoder_cls: tsr.models.network_utils.NeRFMLP
decoder:
  in_channels: {3 * F}
  n_neurons: {N}
  n_hidden_layers: {HIDDEN}
  activation: silu
renderer_cls: tsr.models.nerf_renderer.TriplaneNeRFRenderer
renderer:
  radius: {RADIUS}
  feature_reduction: concat
  density_activation: exp
  density_bias: {BIAS}
  num_samples_per_ray: 128
"""


def random_state(seed: int = 0) -> dict[str, Tensor]:
    """Weights under the published names (the ViT's of transformers 4), float32, large enough that every part shows."""
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, out: int, inner: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (out, inner)
        if bias:
            shapes[f"{name}.bias"] = (out,)

    def norm(name: str, width: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    vit = "image_tokenizer.model"
    shapes |= {f"{vit}.embeddings.cls_token": (1, 1, VW), f"{vit}.embeddings.position_embeddings": (1, M * M + 1, VW)}
    patch = f"{vit}.embeddings.patch_embeddings.projection"
    shapes |= {f"{patch}.weight": (VW, 3, PATCH, PATCH), f"{patch}.bias": (VW,)}
    for n in range(VL):
        at = f"{vit}.encoder.layer.{n}"
        for part in ("query", "key", "value"):
            linear(f"{at}.attention.attention.{part}", VW, VW)
        linear(f"{at}.attention.output.dense", VW, VW)
        linear(f"{at}.intermediate.dense", VM, VW)
        linear(f"{at}.output.dense", VW, VM)
        norm(f"{at}.layernorm_before", VW)
        norm(f"{at}.layernorm_after", VW)
    norm(f"{vit}.layernorm", VW)
    linear(f"{vit}.pooler.dense", VW, VW)
    shapes["tokenizer.embeddings"] = (3, C, P, P)
    norm("backbone.norm", C)
    linear("backbone.proj_in", C, C)
    linear("backbone.proj_out", C, C)
    for n in range(L):
        at = f"backbone.transformer_blocks.{n}"
        for k, inner in ((1, C), (2, VW)):
            linear(f"{at}.attn{k}.to_q", C, C, bias=False)
            linear(f"{at}.attn{k}.to_k", C, inner, bias=False)
            linear(f"{at}.attn{k}.to_v", C, inner, bias=False)
            linear(f"{at}.attn{k}.to_out.0", C, C)
        for k in (1, 2, 3):
            norm(f"{at}.norm{k}", C)
        linear(f"{at}.ff.net.0.proj", 8 * C, C)
        linear(f"{at}.ff.net.2", C, 4 * C)
    shapes |= {"post_processor.upsample.weight": (C, F, 2, 2), "post_processor.upsample.bias": (F,)}
    for k in range(HIDDEN + 1):
        linear(f"decoder.layers.{2 * k}", 4 if k == HIDDEN else N, 3 * F if k == 0 else N)
    generator, state = torch.Generator().manual_seed(seed), {}
    for name, shape in shapes.items():
        x = torch.randn(shape, generator=generator)
        inner = shape[0] if "upsample" in name else math.prod(shape[1:])
        spread = 2.0 if "decoder" in name and len(shape) > 1 else 1.0  # a decoder that bends
        scale = 0.3 if len(shape) == 1 or "embeddings" in name else spread / math.sqrt(inner)
        state[name] = scale * x + (1.0 if len(shape) == 1 and "norm" in name and name.endswith("weight") else 0.0)
    return state


def write(folder: Path, state: dict[str, Tensor], config: str = CONFIG, ckpt: bool = False) -> Path:
    """A folder as the published one."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(config)
    if ckpt:
        torch.save(state, folder / "model.ckpt")
    else:
        save_file(state, folder / "model.safetensors")
    return folder


# ---- from picture to planes ----


def prepared(rgb: np.ndarray, alpha: np.ndarray, ratio: float = 0.85) -> np.ndarray:
    """Bytes (H, W, 3) and (H, W) to a square of bytes on grey; pixel by pixel, in float32 as the script computes."""
    rows, columns = [i for i in range(len(alpha)) if alpha[i].any()], [j for j in range(alpha.shape[1]) if alpha[:, j].any()]
    height, width = rows[-1] - rows[0], columns[-1] - columns[0]  # the last row and column are lost
    side = max(height, width)
    n = int(side / ratio)
    top, left = (side - height) // 2 + (n - side) // 2, (side - width) // 2 + (n - side) // 2
    out = np.full((n, n, 3), 127, np.uint8)
    one, all_ = np.float32(1), np.float32(255)
    for i in range(height):
        for j in range(width):
            a = np.float32(alpha[rows[0] + i, columns[0] + j]) / all_
            for k in range(3):
                c = np.float32(rgb[rows[0] + i, columns[0] + j, k]) / all_
                out[top + i, left + j, k] = int((c * a + (one - a) * np.float32(0.5)) * all_)
    return out


def shrink(n: int, m: int) -> np.ndarray:
    """(m, n): bilinear with antialiasing, as a matrix: a tent as wide as a pixel of the result, at least of the source."""
    scale = n / m
    wide = max(scale, 1.0)
    out = np.zeros((m, n))
    for i in range(m):
        centre = (i + 0.5) * scale
        for j in range(max(int(centre - wide + 0.5), 0), min(int(centre + wide + 0.5), n)):
            out[i, j] = max(1 - abs(j + 0.5 - centre) / wide, 0.0)
        out[i] /= out[i].sum()
    return out


def cubic(n: int, m: int, factor: float) -> np.ndarray:
    """(m, n): Keys's cubic, a = -3/4, borders repeated; row i looks at (i + 1/2) / factor - 1/2."""
    out, a = np.zeros((m, n)), -0.75
    for i in range(m):
        x = (i + 0.5) / factor - 0.5
        for k in range(math.floor(x) - 1, math.floor(x) + 3):
            d = abs(x - k)
            near, far = (a + 2) * d**3 - (a + 3) * d**2 + 1, a * (d**3 - 5 * d**2 + 8 * d - 4)
            out[i, min(max(k, 0), n - 1)] += near if d <= 1 else far if d < 2 else 0.0
    return out


def positions(table: np.ndarray, cells: int, legacy: bool = True) -> np.ndarray:
    """(cells^2 + 1, C) of (m^2 + 1, C): by the factor (cells + .1) / m, or from border to border."""
    m = math.isqrt(len(table) - 1)
    if m == cells:
        return table
    rows = cubic(m, cells, (cells + 0.1) / m if legacy else cells / m)
    plane = np.einsum("ij,jkc,lk->ilc", rows, table[1:].reshape(m, m, -1), rows)
    return np.concatenate([table[:1], plane.reshape(cells * cells, -1)])


def normalised(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * weight + bias


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int) -> np.ndarray:
    out, w = np.zeros_like(q), q.shape[1] // heads
    for h in range(heads):
        part = np.s_[:, h * w : (h + 1) * w]
        score = q[part] @ k[part].T / math.sqrt(w)
        score = np.exp(score - score.max(1, keepdims=True))
        out[part] = score / score.sum(1, keepdims=True) @ v[part]
    return out


def gelu(x: np.ndarray) -> np.ndarray:
    return x * (1 + erf(x / math.sqrt(2))) / 2


def picture_tokens(w: Arrays, picture: np.ndarray, legacy: bool = True) -> np.ndarray:
    """(T, VW) of a picture (n, n, 3) in [0, 1]."""
    rows = shrink(len(picture), S)
    x = np.einsum("ij,jkc,lk->cil", rows, picture, rows)
    x = (x - np.array([0.485, 0.456, 0.406])[:, None, None]) / np.array([0.229, 0.224, 0.225])[:, None, None]
    at, cells = "image_tokenizer.model", S // PATCH
    kernel, bias = (w[f"{at}.embeddings.patch_embeddings.projection.{p}"] for p in ("weight", "bias"))
    tokens = [w[f"{at}.embeddings.cls_token"][0, 0]]
    for i in range(cells):
        for j in range(cells):
            patch = x[:, i * PATCH : (i + 1) * PATCH, j * PATCH : (j + 1) * PATCH]
            tokens.append((kernel * patch).sum((1, 2, 3)) + bias)
    y = np.stack(tokens) + positions(w[f"{at}.embeddings.position_embeddings"][0], cells, legacy)
    for n in range(VL):
        here = f"{at}.encoder.layer.{n}"

        def linear(z: np.ndarray, name: str, here: str = here) -> np.ndarray:
            return z @ w[f"{here}.{name}.weight"].T + w[f"{here}.{name}.bias"]

        z = normalised(y, w[f"{here}.layernorm_before.weight"], w[f"{here}.layernorm_before.bias"], 1e-12)
        q, k, v = (linear(z, f"attention.attention.{part}") for part in ("query", "key", "value"))
        y = y + linear(attention(q, k, v, VH), "attention.output.dense")
        z = normalised(y, w[f"{here}.layernorm_after.weight"], w[f"{here}.layernorm_after.bias"], 1e-12)
        y = y + linear(gelu(linear(z, "intermediate.dense")), "output.dense")
    return normalised(y, w[f"{at}.layernorm.weight"], w[f"{at}.layernorm.bias"], 1e-12)


def triplane_tokens(w: Arrays) -> np.ndarray:
    """(3 P^2, C), plane by plane and row by row."""
    return np.stack([w["tokenizer.embeddings"][n, :, i, j] for n in range(3) for i in range(P) for j in range(P)])


def backbone(w: Arrays, tokens: np.ndarray, picture: np.ndarray, groups: int = 32) -> np.ndarray:
    """Tokens (K, C) that have seen the picture's (T, VW)."""
    x = tokens.reshape(len(tokens), groups, -1)
    x = (x - x.mean((0, 2), keepdims=True)) / np.sqrt(x.var((0, 2), keepdims=True) + 1e-6)
    x = x.reshape(tokens.shape) * w["backbone.norm.weight"] + w["backbone.norm.bias"]
    x = x @ w["backbone.proj_in.weight"].T + w["backbone.proj_in.bias"]
    blocks = 1 + max(int(name.split(".")[2]) for name in w if name.startswith("backbone.transformer_blocks."))
    for n in range(blocks):
        at = f"backbone.transformer_blocks.{n}"
        for k in (1, 2):
            z = normalised(x, w[f"{at}.norm{k}.weight"], w[f"{at}.norm{k}.bias"], 1e-5)
            seen = z if k == 1 else picture
            q, key, v = (
                z @ w[f"{at}.attn{k}.to_q.weight"].T,
                seen @ w[f"{at}.attn{k}.to_k.weight"].T,
                seen @ w[f"{at}.attn{k}.to_v.weight"].T,
            )
            x = x + attention(q, key, v, H) @ w[f"{at}.attn{k}.to_out.0.weight"].T + w[f"{at}.attn{k}.to_out.0.bias"]
        z = normalised(x, w[f"{at}.norm3.weight"], w[f"{at}.norm3.bias"], 1e-5)
        z = z @ w[f"{at}.ff.net.0.proj.weight"].T + w[f"{at}.ff.net.0.proj.bias"]
        half = z.shape[1] // 2
        x = x + (z[:, :half] * gelu(z[:, half:])) @ w[f"{at}.ff.net.2.weight"].T + w[f"{at}.ff.net.2.bias"]
    return tokens + x @ w["backbone.proj_out.weight"].T + w["backbone.proj_out.bias"]


def planes(w: Arrays, tokens: np.ndarray) -> np.ndarray:
    """(3, F, 2 P, 2 P) of tokens (3 P^2, C)."""
    out = np.zeros((3, F, 2 * P, 2 * P))
    for n in range(3):
        for i in range(P):
            for j in range(P):
                cell = np.einsum("c,cfab->fab", tokens[(n * P + i) * P + j], w["post_processor.upsample.weight"])
                out[n, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = cell + w["post_processor.upsample.bias"][:, None, None]
    return out


# ---- the field ----


def bilinear(plane: np.ndarray, u: float, v: float) -> np.ndarray:
    """(F,) of (F, rows, columns) at u along columns and v along rows, in [-1, 1]; zeros outside."""
    rows, columns = plane.shape[1:]
    x, y = ((u + 1) * columns - 1) / 2, ((v + 1) * rows - 1) / 2
    out = np.zeros(len(plane))
    for i in (math.floor(y), math.floor(y) + 1):
        for j in (math.floor(x), math.floor(x) + 1):
            if 0 <= i < rows and 0 <= j < columns:
                out += (1 - abs(x - j)) * (1 - abs(y - i)) * plane[:, i, j]
    return out


def raw(w: Arrays, found: np.ndarray, points: np.ndarray, axes: tuple[tuple[int, int], ...] = ((0, 1), (0, 2), (1, 2))) -> np.ndarray:
    """(N, 4) at points (N, 3); `axes` are what the three planes are read at, their columns first."""
    layers = 1 + max(int(name.split(".")[2]) for name in w if name.startswith("decoder.layers.")) // 2
    out = []
    for p in points / RADIUS:
        h = np.concatenate([bilinear(plane, p[a], p[b]) for plane, (a, b) in zip(found, axes, strict=True)])
        for k in range(layers):
            h = w[f"decoder.layers.{2 * k}.weight"] @ h + w[f"decoder.layers.{2 * k}.bias"]
            h = h / (1 + np.exp(-h)) if k < layers - 1 else h
        out.append(h)
    return np.stack(out)


def density(raw: np.ndarray) -> np.ndarray:
    return np.exp(raw[:, 0] + BIAS)


def colour(raw: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-raw[:, 1:]))


def lattice(resolution: int) -> np.ndarray:
    """(R^3, 3), x slowest."""
    axis = [RADIUS * (2 * i / (resolution - 1) - 1) for i in range(resolution)]
    return np.array([(x, y, z) for x in axis for y in axis for z in axis])


def pictured(field: Arrays, found: np.ndarray, origin: np.ndarray, ray: np.ndarray, samples: int = 128) -> np.ndarray:
    """(3,) along one ray, over white; every step is 1 / samples long."""
    side, near, far = 0.999 * RADIUS, 0.0, math.inf
    for k in range(3):
        a, b = sorted(((side - origin[k]) / ray[k], (-side - origin[k]) / ray[k]))
        near, far = max(near, a), min(far, b)
    if far - near <= 0.01:
        return np.ones(3)
    out, passed = np.zeros(3), 1.0
    for s in range(samples):
        t = near + (far - near) * (s + 0.5) / samples
        r = raw(field, found, (origin + t * ray)[None])
        alpha = 1 - math.exp(-density(r)[0] / samples)
        out += passed * alpha * colour(r)[0]
        passed *= 1 - alpha
    return out + passed
