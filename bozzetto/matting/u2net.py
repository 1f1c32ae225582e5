# SPDX-License-Identifier: Apache-2.0
"""U2-Net-p, the network that says which region of a picture is its object: 1.13 M parameters, a picture of 320 pixels a side.

source  Qin, Zhang, Huang, Dehghan, Zaiane & Jagersand 2020, arXiv:2005.09007, Table 1 and Fig. 5: the small one, M = 16 and C_out = 64

The net is a U of blocks, each of which is a U itself (RSU-L, L layers high): down by halves to a dilated layer and up again, added to
the block's input layer. The deepest blocks (RSU-4F) keep their size and dilate instead. Six heads, one a level, are fused to one map.

Unlike the paper, batch normalisation is folded into the weights and biases that precede it, as in the published ONNX
(`training.u2netp` converts that), and only the fused map is computed. Weights: `priors/mini/u2netp` (float16 on disk).
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bozzetto.errors import InputError

WEIGHTS = Path(__file__).parent.parent / "priors" / "mini" / "u2netp" / "model.safetensors"
SIDE = 320  # pixels: what it was trained at
MIDDLE, OUT = 16, 64  # M and C_out of every block
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the pictures it was trained on, sRGB in [0, 1]

# name, L, channels in, dilated; encoder from the finest level down, decoder from the second deepest up
BLOCKS = (
    ("down1", 7, 3, False),
    ("down2", 6, OUT, False),
    ("down3", 5, OUT, False),
    ("down4", 4, OUT, False),
    ("down5", 4, OUT, True),
    ("down6", 4, OUT, True),
    ("up5", 4, 2 * OUT, True),
    ("up4", 4, 2 * OUT, False),
    ("up3", 5, 2 * OUT, False),
    ("up2", 6, 2 * OUT, False),
    ("up1", 7, 2 * OUT, False),
)


class Layer(nn.Conv2d):
    """3 x 3 convolution, batch normalisation (folded into it), ReLU."""

    def __init__(self, inputs: int, outputs: int, dilation: int = 1) -> None:
        super().__init__(inputs, outputs, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu_()


class RSU(nn.Module):
    """A residual U-block: (B, inputs, H, W) to (B, OUT, H, W).

    L        layers of its own U, the lowest of which is dilated and not pooled for
    dilated  RSU-4F: dilations 1, 2, 4, 8 in place of halving
    """

    def __init__(self, L: int, inputs: int, dilated: bool) -> None:
        super().__init__()
        self.dilated = dilated
        rates = [2**k if dilated else 1 for k in range(L - 1)]
        self.first = Layer(inputs, OUT)
        self.down = nn.ModuleList(Layer(MIDDLE if k else OUT, MIDDLE, rate) for k, rate in enumerate(rates))
        self.bottom = Layer(MIDDLE, MIDDLE, 2 ** (L - 1) if dilated else 2)
        self.up = nn.ModuleList(Layer(2 * MIDDLE, MIDDLE if k else OUT, rate) for k, rate in reversed(list(enumerate(rates))))

    def forward(self, x: Tensor) -> Tensor:
        x = first = self.first(x)
        kept: list[Tensor] = []
        for k, layer in enumerate(self.down):
            kept.append(layer(halved(x) if k and not self.dilated else x))
            x = kept[-1]
        x = self.bottom(x)
        for layer in self.up:
            beside = kept.pop()
            x = layer(torch.cat([enlarged(x, beside), beside], 1))
        return x + first


class U2Net(nn.Module):
    """(B, 3, H, W), normalised by MEAN and STD, to how sure it is of an object at each pixel: (B, 1, H, W) in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict({name: RSU(L, inputs, dilated) for name, L, inputs, dilated in BLOCKS})
        self.heads = nn.ModuleList(nn.Conv2d(OUT, 1, 3, padding=1) for _ in range(6))  # finest level first
        self.fuse = nn.Conv2d(6, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        levels: list[Tensor] = []
        for k in range(1, 7):
            levels.append(self.blocks[f"down{k}"](halved(levels[-1]) if levels else x))
        for k in range(5, 0, -1):  # each level gives way to its decoded self
            levels[k - 1] = self.blocks[f"up{k}"](torch.cat([enlarged(levels[k], levels[k - 1]), levels[k - 1]], 1))
        maps = [enlarged(head(level), x) for head, level in zip(self.heads, levels, strict=True)]
        return self.fuse(torch.cat(maps, 1)).sigmoid()


def halved(x: Tensor) -> Tensor:
    """Maxima of 2 x 2 pixels; an odd side is rounded up."""
    return F.max_pool2d(x, 2, ceil_mode=True)


def enlarged(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear, to the size of another."""
    return F.interpolate(x, like.shape[-2:], mode="bilinear")


@functools.lru_cache(maxsize=2)
def load(path: Path = WEIGHTS) -> U2Net:
    """The network with its weights, float32, ready to ask.

    raises  InputError, one sentence, for a missing, damaged or mis-shaped file
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    network = U2Net()
    try:
        network.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error).strip().splitlines()[0].rstrip(":")
        raise InputError(f"{path}: not the weights of U2-Net-p ({reason}); install bozzetto again, or use --matting classical") from None
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter faster
    return network.eval().requires_grad_(False)


@torch.no_grad()
def saliency(rgb: Tensor, network: U2Net | None = None) -> Tensor:
    """How sure the network is of an object at each pixel.

    rgb      (H, W, 3), sRGB in [0, 1]; shown to the network stretched to SIDE x SIDE, as it was trained
    returns  (SIDE, SIDE) float32 in [0, 1]
    """
    network = load() if network is None else network
    x = F.interpolate(rgb.permute(2, 0, 1)[None].float(), (SIDE, SIDE), mode="bilinear", antialias=True)
    x = (x - x.new_tensor(MEAN).view(3, 1, 1)) / x.new_tensor(STD).view(3, 1, 1)
    return network(x.contiguous(memory_format=torch.channels_last))[0, 0]
