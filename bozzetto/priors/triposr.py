# SPDX-License-Identifier: Apache-2.0
"""TripoSR (Tochilkin et al. 2024, arXiv:2403.02151): from one picture to a triplane field, in one pass; after LRM (arXiv:2311.04400).

A DINO ViT turns the picture into tokens; a table of learnt tokens, one for each cell of three planes, looks at itself and at them in
transformer blocks; a transposed convolution doubles the planes' sides, and `priors.triplane` reads them. Nothing is said of the
camera or of the scale.

Letters: B pictures, T = (picture / patch)^2 + 1 picture tokens, C channels, P cells along a plane's side, K = 3 P^2 triplane tokens,
F features a plane.

Modules bear the names of the published state dict. Differs from the released code: the ViT is that of transformers 5, whose tensors
have other names (`triposr_files.our_name`), but its position table is stretched as transformers 4 stretched it, under which the weights
were trained; the field is float32 in half precision, too, because its density is an exponential.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bozzetto.errors import InputError
from bozzetto.priors.plan import LIBRARIES
from bozzetto.priors.triplane import Triplane

PARAMETERS = 419_275_628  # of the published model
RATIO = 0.85  # of the square's side: the longer side of the object
GREY = 0.5  # behind the object
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


@dataclass(frozen=True)
class ViTConfig:
    """Sizes of the picture's network; those of facebook/dino-vitb16 (Caron et al. 2021, arXiv:2104.14294)."""

    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    """of the MLP"""
    patch: int = 16
    """pixels a side"""
    side: int = 224
    """pixels a side of the pictures for which the position table was learnt"""


@dataclass(frozen=True)
class TripoSRConfig:
    """Sizes and constants; the defaults are the published ones."""

    vit: ViTConfig = field(default_factory=ViTConfig)
    picture: int = 512
    """pixels a side that the network sees"""
    plane: int = 32
    """cells a side of a plane of tokens; planes of features have twice as many"""
    channels: int = 1024
    """of a token; a multiple of `groups`"""
    heads: int = 16
    layers: int = 16
    groups: int = 32
    """of the one normalisation before the blocks"""
    features: int = 40
    neurons: int = 64
    """of the decoder"""
    hidden: int = 9
    """the decoder's hidden layers"""
    radius: float = 0.87
    bias: float = -1.0
    threshold: float = 25.0


class CutOut(Protocol):
    """A picture whose object is cut out, as `fit.source.Source` has it."""

    @property
    def name(self) -> str: ...
    @property
    def rgb(self) -> Tensor:
        """(H, W, 3) sRGB in [0, 1], not premultiplied."""
        ...

    @property
    def alpha(self) -> Tensor:
        """(H, W) in [0, 1]."""
        ...


def prepare(rgb: Tensor, alpha: Tensor, ratio: float = RATIO, name: str = "picture") -> Tensor:
    """The object in the middle of a grey square: (n, n, 3) float32 in [0, 1], as the released script makes its input.

    rgb, alpha  (H, W, 3) and (H, W) in [0, 1], not premultiplied
    ratio       the longer side of the object's box to the square's side n
    returns     a picture of bytes / 255. As released: the box is that of all alpha > 0 without its last row and column, odd paddings are
                longer below and on the right, n is rounded down, and so is every byte: grey is 127
    raises      InputError where less than two rows or columns show the object
    """
    a, colour = (np.round(x.detach().cpu().double().numpy() * 255).astype(np.uint8) for x in (alpha, rgb))
    rows, columns = np.nonzero(a.any(1))[0], np.nonzero(a.any(0))[0]
    if len(rows) == 0 or min(np.ptp(rows), np.ptp(columns)) < 1:
        raise InputError(f"{name}: the object is not two pixels wide and high; give a larger picture of it")
    box = np.s_[rows[0] : rows[-1], columns[0] : columns[-1]]
    a, colour = a[box], colour[box]
    longer = max(a.shape)
    n = int(longer / ratio)
    # two paddings, as there: to a square and then to n; each rounds by itself
    top, left = ((longer - side) // 2 + (n - longer) // 2 for side in a.shape)
    around = ((top, n - a.shape[0] - top), (left, n - a.shape[1] - left))
    unit = np.float32(255)
    share = np.pad(a, around).astype(np.float32)[..., None] / unit
    mixed = np.pad(colour, (*around, (0, 0))).astype(np.float32) / unit * share + (1 - share) * np.float32(GREY)
    return torch.from_numpy((mixed * unit).astype(np.uint8).astype(np.float32) / unit)


def stretched(table: Tensor, cells: int, legacy: bool = True) -> Tensor:
    """Position rows (1, cells^2 + 1, C) of a table (1, m^2 + 1, C): the class token's first, the others bicubic (a = -3/4).

    legacy  as transformers did until 4.40: by the factor (cells + 0.1) / m, so that rows drift by a tenth of a cell across the picture.
            Otherwise from border to border, as transformers 5 does. The table itself where cells = m
    """
    m = round((table.shape[1] - 1) ** 0.5)
    if cells == m:
        return table
    plane = table[:, 1:].unflatten(1, (m, m)).permute(0, 3, 1, 2)
    at_least = plane.to(torch.promote_types(plane.dtype, torch.float32))
    how = {"scale_factor": (cells + 0.1) / m} if legacy else {"size": (cells, cells)}
    rows = F.interpolate(at_least, mode="bicubic", align_corners=False, **how)
    return torch.cat([table[:, :1], rows.flatten(2).mT.to(table)], 1)


class ImageTokenizer(nn.Module):
    """Pictures (B, 3, S, S) in [0, 1] to tokens (B, T, C), the class token's first: the last layer's, normalised."""

    def __init__(self, config: TripoSRConfig) -> None:
        super().__init__()
        from transformers import ViTConfig as Sizes
        from transformers import ViTModel

        vit = config.vit
        sizes = Sizes(
            hidden_size=vit.width,
            num_hidden_layers=vit.layers,
            num_attention_heads=vit.heads,
            intermediate_size=vit.hidden,
            patch_size=vit.patch,
            image_size=vit.side,
            layer_norm_eps=1e-12,
            attn_implementation="sdpa",
        )
        self.model = ViTModel(sizes)  # with the pooler, which the file has and nobody uses
        self.legacy = True  # how the position table is stretched

    def forward(self, pictures: Tensor) -> Tensor:
        mean, std = (pictures.new_tensor(x).view(3, 1, 1) for x in (MEAN, STD))
        embeddings = self.model.embeddings
        x = embeddings.patch_embeddings((pictures - mean) / std)
        cells = round(x.shape[1] ** 0.5)
        x = torch.cat([embeddings.cls_token.expand(len(x), -1, -1), x], 1)
        x = x + stretched(embeddings.position_embeddings, cells, self.legacy)
        for layer in self.model.layers:
            x = layer(x)
        out: Tensor = self.model.layernorm(x)
        return out


class TriplaneTokenizer(nn.Module):
    """The table of learnt tokens, (3, C, P, P): planes (x, y), (x, z), (y, z); rows are the second coordinate's."""

    def __init__(self, config: TripoSRConfig) -> None:
        super().__init__()
        shape = (3, config.channels, config.plane, config.plane)
        self.embeddings = nn.Parameter(torch.zeros(shape))

    def forward(self) -> Tensor:
        """(C, K): plane by plane, row by row."""
        return self.embeddings.movedim(1, 0).flatten(1)

    def planes(self, tokens: Tensor) -> Tensor:
        """(B, 3, C, P, P) of tokens (B, C, K): the inverse."""
        return tokens.unflatten(2, (3, *self.embeddings.shape[2:])).movedim(2, 1)


class Backbone(nn.Module):
    """Triplane tokens (B, C, K) that have seen picture tokens (B, T, C'); what is computed is added to what came in.

    A block is self-attention, cross-attention, a gated MLP (GEGLU), each after a layer normalisation and added to its own input.
    """

    def __init__(self, config: TripoSRConfig) -> None:
        super().__init__()
        from diffusers.models.attention import BasicTransformerBlock

        c = config.channels
        self.norm = nn.GroupNorm(config.groups, c, eps=1e-6)
        self.proj_in, self.proj_out = nn.Linear(c, c), nn.Linear(c, c)
        self.transformer_blocks = nn.ModuleList(
            BasicTransformerBlock(c, config.heads, c // config.heads, cross_attention_dim=config.vit.width, activation_fn="geglu")
            for _ in range(config.layers)
        )

    def forward(self, tokens: Tensor, picture: Tensor) -> Tensor:
        x = self.proj_in(self.norm(tokens).mT)
        for block in self.transformer_blocks:
            x = block(x, encoder_hidden_states=picture)
        return tokens + self.proj_out(x).mT


class Upsampler(nn.Module):
    """Planes (B, 3, C, P, P) to (B, 3, F, 2 P, 2 P): each cell becomes four, by itself."""

    def __init__(self, config: TripoSRConfig) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(config.channels, config.features, 2, stride=2)

    def forward(self, planes: Tensor) -> Tensor:
        out: Tensor = self.upsample(planes.flatten(0, 1))
        return out.unflatten(0, planes.shape[:2])


class Decoder(nn.Module):
    """The field's network, 3 F features to raw (d, r, g, b); `triplane.Triplane` computes it."""

    def __init__(self, config: TripoSRConfig) -> None:
        super().__init__()
        widths = [3 * config.features, *[config.neurons] * config.hidden, 4]
        layers = [m for a, b in pairwise(widths) for m in (nn.Linear(a, b), nn.SiLU())]
        self.layers = nn.Sequential(*layers[:-1])

    def weights(self, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
        """Weight and bias of each layer."""
        return [(m.weight.detach().to(dtype), m.bias.detach().to(dtype)) for m in self.layers if isinstance(m, nn.Linear)]


class TripoSR(nn.Module):
    """The network. `priors.triposr_files.load` reads its weights."""

    def __init__(self, config: TripoSRConfig = TripoSRConfig()) -> None:
        super().__init__()
        self.config = config
        self.image_tokenizer = ImageTokenizer(config)
        self.tokenizer = TriplaneTokenizer(config)
        self.backbone = Backbone(config)
        self.post_processor = Upsampler(config)
        self.decoder = Decoder(config)

    def forward(self, pictures: Tensor) -> Tensor:
        """Planes (B, 3, F, 2 P, 2 P) of pictures (B, S, S, 3), sRGB in [0, 1], on grey, of any size: bilinear with antialiasing to
        the network's. A picture that is on grey already begins here; others are prepared first."""
        size, weights = self.config.picture, self.tokenizer.embeddings
        at_least = pictures.to(weights.device, torch.promote_types(weights.dtype, torch.float32)).movedim(-1, 1)
        seen = F.interpolate(at_least, (size, size), mode="bilinear", align_corners=False, antialias=True)
        picture = self.image_tokenizer(seen.to(weights.dtype))
        tokens = self.backbone(self.tokenizer().expand(len(pictures), -1, -1), picture)
        planes: Tensor = self.post_processor(self.tokenizer.planes(tokens))
        return planes

    def field(self, planes: Tensor) -> Triplane:
        """The field of one picture's planes (3, F, 2 P, 2 P); float32 unless they are float64."""
        c, dtype = self.config, torch.promote_types(planes.dtype, torch.float32)
        return Triplane(planes.to(dtype), self.decoder.weights(dtype), c.radius, c.bias, c.threshold)

    @torch.no_grad()
    def solid(self, picture: CutOut) -> Triplane:
        """What is behind a picture, as a `triplane.Field`.

        Its frame: right-handed, z up, and the picture looks along -x, from +x; its right is +y, its up +z. So its axes are those of
        docs/conventions.md at azimuth 0, no axis swapped and no sign changed: up is +z, front +x. But the box is [-radius, radius]^3
        about the origin, the object's size and place in it are not known, and neither are the camera's distance, its field of view
        or its elevation, of which the network has its own idea and says nothing (the released preview looks from (1.9, 0, 0) with a
        vertical field of view of 40 degrees): fit them to the picture's mask before anything is compared with the picture.

        raises  InputError for an object less than two pixels wide or high
        """
        prepared = prepare(picture.rgb, picture.alpha, name=picture.name)
        return self.field(self(prepared[None])[0])


class Costs(NamedTuple):
    """What a picture takes, from the sizes of the layers alone.

    parameters  of all networks
    weights     bytes of them
    network     FLOP from picture to planes, two for a multiplication and its addition, matrix products alone
    vertex      FLOP for one vertex of a lattice; what share of the R^3 is computed depends on the object
    peak        bytes of the process, from above: libraries, weights, and the larger of the network's and the lattice's working memory
    """

    parameters: int
    weights: int
    network: float
    vertex: float
    peak: float


def costs(config: TripoSRConfig = TripoSRConfig(), resolution: int = 256, dtype: torch.dtype = torch.float32) -> Costs:
    """Of one picture and a mesh of `resolution` vertices a side, on a CPU; no weight is needed."""
    with torch.device("meta"):
        parameters = sum(p.numel() for p in TripoSR(config).parameters())
    vit, c, size = config.vit, config.channels, dtype.itemsize
    t, k = (config.picture // vit.patch) ** 2 + 1, 3 * config.plane**2
    layer = t * vit.width * (4 * vit.width + 2 * vit.hidden) + 2 * t * t * vit.width
    block = k * c * (4 + 2 + 12) * c + 2 * t * vit.width * c + 2 * k * (k + t) * c
    ends = 2 * k * c * c + 4 * k * c * config.features + t * 3 * vit.patch**2 * vit.width
    network = 2.0 * (vit.layers * layer + config.layers * block + ends)
    vertex = 2.0 * config.neurons * (config.neurons * (config.hidden - 1) + 1)
    weights = parameters * size
    # of a token: what came in, its norm, the gated MLP's 8 C, their halves' activation and product, the result; on a lattice: d, density,
    # three coordinates, and the bytes and numbers of what is marked
    working = max(size * (24 * k * c + 8 * t * vit.hidden), 40.0 * resolution**3 + 16.0 * config.neurons * resolution**2)
    return Costs(parameters, weights, network, vertex, LIBRARIES + weights + working)
