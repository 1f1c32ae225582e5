# SPDX-License-Identifier: Apache-2.0
"""A prior whose answers are exact: all it knows is a finite bank of objects, and what it says of them is Bayes' rule.

A picture is that of one object of the bank, under a Gaussian window of standard deviation h (Parzen 1962), so that

    D(x; sigma) = sum_i r_i (h**2 x + sigma**2 y_i) / (h**2 + sigma**2),    r_i ~ w_i exp(-|x - y_i|**2 / (2 (h**2 + sigma**2)))

with y_i the encoded rendering of object i at the cameras that are asked for, and w_i what a picture or a text says of it. No network
stands in between: what a recipe does under this prior, it does because of its loss. Three kinds of knowledge are one setting each:

    one view, its camera known     what Zero-1-to-3 knows: each view is asked for by itself, and may answer with another object
    one view, its camera unknown   what a text-to-image model knows: y_i are renderings of all objects from all stored cameras
    V views together               what MVDream and SyncDreamer know: the views of an answer are of one object
    their normals and colours      what Wonder3D knows (`priors.domains`): V pictures, half of them normals, are of one object

Objects stand as the bank has them: an azimuth is the object's own, where Zero-1-to-3 only knows that from one picture to the next.

Letters: N objects, M stored cameras, B samples, V pictures of one sample, K windows of a condition, S pixels a side.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.denoiser import Adapted, each, sigma_of
from bozzetto.priors.domains import normals_to_pictures, to_pictures
from bozzetto.priors.latent import resized
from bozzetto.priors.prior import Condition, Hinting, Reference
from bozzetto.priors.sampling import Sampler
from bozzetto.priors.schedule import NoiseSchedule
from bozzetto.scores import parzen
from bozzetto.views import Views

Render = Callable[[Camera], Views]
"""An object of the bank, as some cameras see it: `lambda cameras: render_mesh(mesh, cameras)`"""

SMALL_WORDS = {"a", "an", "and", "in", "of", "on", "the", "with"}
REMEMBERED = 64  # cameras whose renderings are kept, the latest asked for


@dataclass(frozen=True)
class Flaws:
    """What is wrong with each rendering of the bank, as young networks are wrong."""

    blur: float = 0.0
    """standard deviation of a Gaussian filter, pixels"""
    bias: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """added to every colour, sRGB"""
    disagreement: float = 0.0
    """standard deviation of stains, sRGB, a quarter of the picture wide, which are others in each camera: views do not agree"""


class Exact:
    """A bank of objects as a `Prior`.

    bank           N functions that render
    cameras        M stored ones, which stand for a camera that is not said. A joint prior's go round in a ring: its M groups of V begin
                   at each of them, and take every (M / V)-th, so that a group is evenly round the object
    captions       of the objects; a text leaves those objects that have most of its words. By default nothing is said of any
    size           S
    width          h of the windows, in x0's unit: x0 is a picture in [-1, 1]
    picture_width  standard deviation of a known picture's pixels round the object's, in the same unit; h by default. It says how far
                   a picture decides between objects, none of which need be its own
    knows_cameras  False: a camera that is said is not listened to
    together       views; 1 is one at a time
    flaws          of the renderings, but not of those that a known picture is compared with
    with_normals   a sample has the views' normals and then their colours, V = 2 `together` pictures, and as many cameras
    raises         ValueError for an empty bank, other than N captions, M that `together` does not divide, or normals that do not stand
                   on white
    """

    uses_hint = False

    def __init__(
        self,
        bank: Sequence[Render],
        cameras: Camera,
        captions: Sequence[str] | None = None,
        *,
        size: int = 32,
        width: float = 0.1,
        picture_width: float | None = None,
        knows_cameras: bool = True,
        together: int = 1,
        flaws: Flaws = Flaws(),
        background: float = 1.0,
        with_normals: bool = False,
    ) -> None:
        captions = [""] * len(bank) if captions is None else captions
        if not bank or len(captions) != len(bank):
            raise ValueError(f"bank: expected objects and a caption for each, got {len(bank)} and {len(captions)} captions")
        if together < 1 or len(cameras) % together:
            raise ValueError(f"cameras: expected a multiple of {together} of them, got {len(cameras)}")
        if with_normals and background != 1:
            raise ValueError(f"background: normals stand on white, 1, got {background}")
        self.bank, self.size, self.background, self.with_normals = list(bank), size, background, with_normals
        self.together = 2 * together if with_normals else together
        self.words = [_words(caption) for caption in captions]
        self.width, self.picture_width = width, width if picture_width is None else picture_width
        self.knows_cameras, self.flaws = knows_cameras, flaws
        self.shape: tuple[int, ...] = (3, size, size) if self.together == 1 else (self.together, 3, size, size)
        self.sampler = Sampler(50, 1.0, 1.0)
        # Stable Diffusion's levels: shares of them mean what they mean for the published priors
        self.denoiser = Adapted(self._denoised, sigma_of(NoiseSchedule().alpha_bar()))
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()
        m, self.cameras = len(cameras), cameras.resized(size)
        groups = [(k + v * (m // together)) % m for k in range(m) for v in [*range(together)] * (1 + with_normals)]
        self._stored = self.windows(self.cameras[groups]).transpose(0, 1).flatten(0, 1)[None]  # (1, N M, ...), object by object

    def views(self, reference: Reference | None = None) -> Camera | None:
        """Of a joint prior the first group of stored cameras, turned about z so that its first stands where the reference's does; with
        normals all of them twice."""
        if self.together == 1:
            return None
        times = 1 + self.with_normals
        group = self.cameras[[*range(0, len(self.cameras), times * len(self.cameras) // self.together)] * times]
        if reference is None:
            return group
        azimuth = [math.atan2(float(c.position[0, 1]), float(c.position[0, 0])) for c in (reference.cameras, group)]
        return _turned(group, azimuth[0] - azimuth[1])

    def encode(self, views: Views, *, generator: torch.Generator | None = None) -> Tensor:
        if not self.with_normals:
            return self.encode_pictures(views.over(self.background))
        self._check(views.cameras)
        return self.encode_pictures(to_pictures(views, self.together))

    def encode_pictures(self, rgb: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """As `Prior.encode_pictures`: 2 rgb - 1; there is no posterior to draw from."""
        x0 = 2 * resized(rgb.float(), self.size).movedim(-1, 1) - 1
        if len(x0) % self.together:
            raise ValueError(f"rgb: expected a multiple of {self.together} pictures, got {len(x0)}")
        return x0.view(-1, *self.shape)

    def decode(self, x0: Tensor) -> Tensor:
        return (x0.float().reshape(-1, 3, self.size, self.size) / 2 + 0.5).clamp(0, 1).movedim(1, -1)

    def encode_reference(self, reference: Reference) -> Tensor:
        """(B, N): log-likelihood of each picture under each object, seen from the picture's camera, up to a constant."""
        pictures = 2 * resized(reference.rgb.float(), self.size).movedim(-1, 1) - 1
        known = self._rendered(reference.cameras)  # (1 or B, N, 3, S, S)
        off = (pictures[:, None] - known).double().square().flatten(2).sum(-1)
        return -off / (2 * self.picture_width**2)

    def condition(
        self, reference: Any = None, cameras: Camera | None = None, text: str | None = None, hint: Hinting | None = None
    ) -> Condition:
        """`windows` (1 or B, K, ...), the y_i, and `log_weights` (1 or B, K), the log w_i, up to a constant.

        Without a reference and a text all objects weigh alike. Without cameras K is N M, and every stored camera, or
        group of them, weighs alike.
        """
        windows = self._stored if cameras is None or not self.knows_cameras else self.windows(cameras)
        logs = torch.zeros(1, len(self.bank), dtype=torch.float64)
        if reference is not None:
            logs = logs + (self.encode_reference(reference) if isinstance(reference, Reference) else reference)
            if cameras is not None and len(logs) not in (1, len(cameras) // self.together):
                raise ValueError(f"cameras: expected {len(logs) * self.together} for {len(logs)} pictures, got {len(cameras)}")
        if text is not None:
            logs = logs + self._said(text)
        return {"windows": windows, "log_weights": logs.repeat_interleave(windows.shape[1] // len(self.bank), 1)}

    def windows(self, cameras: Camera) -> Tensor:
        """(B, N, 3, S, S) of B cameras, or (B, N, V, 3, S, S) of B V: the bank's encoded renderings, flaws and all."""
        self._check(cameras)
        y = self._flawed(self._rendered(cameras), cameras)
        if self.with_normals:
            half, whole = self.together // 2, self.together
            for k in (k for k in range(len(cameras)) if k % whole < half):
                normals = self._seen(cameras[k].resized(self.size), cameras[k - k % whole])
                y[k] = self._flawed(normals[None], cameras[k], is_normal=True)[0]
        return y if self.together == 1 else y.unflatten(0, (-1, self.together)).transpose(1, 2)

    def _check(self, cameras: Camera) -> None:
        if len(cameras) % self.together:
            raise ValueError(f"cameras: expected a multiple of {self.together} of them, got {len(cameras)}")

    def _denoised(self, x: Tensor, sigma: Tensor | float, cond: Condition) -> Tensor:
        y, s = cond["windows"].double().flatten(2), each(sigma, x.double()).view(-1, 1)
        made = parzen.denoised(x.double().flatten(1), y, s, self.width, cond["log_weights"])
        return made.view_as(x).to(x)

    def _said(self, text: str) -> Tensor:
        """(1, N): 0 for the objects that have most of a text's words, -inf for the others."""
        found = torch.tensor([len(_words(text) & words) for words in self.words])
        return torch.where(found == found.max(), 0.0, -torch.inf)[None].double()

    def _rendered(self, cameras: Camera) -> Tensor:
        """(V, N, 3, S, S) float32, each camera by itself."""
        return torch.stack([self._seen(cameras[k].resized(self.size)) for k in range(len(cameras))])

    @torch.no_grad()
    def _seen(self, camera: Camera, front: Camera | None = None) -> Tensor:
        """(N, 3, S, S) of one camera, kept for the next time; with a front, of the normals in its axes."""
        key = _key(camera) + (b"" if front is None else _key(front))
        if key not in self._kept:
            self._kept[key] = self._drawn(camera) if front is None else self._drawn_normals(camera, front)
            if len(self._kept) > REMEMBERED:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _drawn(self, camera: Camera) -> Tensor:
        """(N, 3, S, S) of one camera: each object as x0."""
        pictures = torch.cat([render(camera).over(self.background) for render in self.bank])
        return 2 * pictures.clamp(0, 1).float().movedim(-1, 1) - 1

    def _drawn_normals(self, camera: Camera, front: Camera) -> Tensor:
        """As `_drawn`."""
        pictures = torch.cat([normals_to_pictures(render(camera), front) for render in self.bank])
        return 2 * pictures.float().movedim(-1, 1) - 1

    def _flawed(self, y: Tensor, cameras: Camera, is_normal: bool = False) -> Tensor:
        """y (V, N, 3, S, S), its flaws drawn by object and camera, so that one camera is always answered alike; normals have no bias."""
        f = self.flaws
        if f.blur:
            y = _blurred(y.flatten(0, 1), f.blur).view_as(y)
        if any(f.bias) and not is_normal:
            y = y + 2 * torch.tensor(f.bias).view(3, 1, 1)
        if f.disagreement:
            stains = []
            for k in range(len(cameras)):
                generator = torch.Generator().manual_seed(zlib.crc32(_key(cameras[k].resized(self.size)) + b"normal" * is_normal))
                coarse = torch.randn(len(self.bank), 3, 4, 4, generator=generator)
                stains.append(F.interpolate(coarse, (self.size, self.size), mode="nearest"))
            y = y + 2 * f.disagreement * torch.stack(stains)
        return y


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower())) - SMALL_WORDS


def _key(camera: Camera) -> bytes:
    """What makes a camera, to nine digits: resizing one and back leaves rounding."""
    numbers = torch.cat([camera.c2w.double().flatten(), camera.K.double().flatten()])
    return (numbers * 1e9).round().long().numpy().tobytes() + bytes([camera.is_orthographic])


def _turned(cameras: Camera, angle: float) -> Camera:
    """The cameras turned about z by an angle, radians."""
    c, s = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    return replace(cameras, c2w=turn @ cameras.c2w.double())


def _blurred(x: Tensor, std: float) -> Tensor:
    """Pictures (B, C, S, S) under a Gaussian filter, the border carried on."""
    reach = math.ceil(3 * std)
    at = torch.arange(-reach, reach + 1, dtype=x.dtype)
    kernel = torch.softmax(-(at**2) / (2 * std**2), 0)
    flat = F.pad(x.flatten(0, 1)[:, None], (reach,) * 4, mode="replicate")
    flat = F.conv2d(F.conv2d(flat, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return flat.view_as(x)
