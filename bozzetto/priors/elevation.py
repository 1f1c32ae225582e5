# SPDX-License-Identifier: Apache-2.0
"""How far above the horizon a picture was taken from, by what a view-conditioned prior imagines beside it (One-2-3-45, arXiv:2306.16928).

The prior draws four views near the picture's, 10 degrees up, down, left and right of it: relative poses, for which the picture's
own elevation need not be known. But where these four cameras stand *is* a matter of that elevation: near the pole a step in
azimuth is a short one. So the elevation is the one at which points, triangulated from two views, fall where the other two show
them. It is weakly seen, 0.09 px a degree at 256 px for an object of radius 0.4; distance and scale are not seen at all.

Differs from the released code. Matches come from dense optical flow, checked forwards and backwards, instead of LoFTR, and a point is
one that all four views show: all are triangulated from up and down, and each view's error counts alike. There, errors weighted by
confidence are summed over three starts, each triangulating from a view and the next; it gives up only where a pair of views has no
match at all, where fewer than FEWEST of our tracks give the horizon. Grids here include their upper ends (150 and +10 degrees).
A prior that reads the absolute elevation (Stable-Zero123) is drawn at 0 and answers with that prejudice.

The other way asks the prior nothing but how likely pictures are: a rough shape, turned to each of several elevations, is drawn from
other sides, and the elevation wins at which the prior tells the noise in those drawings best: DDPM's bound of a likelihood
(arXiv:2006.11239, Eq. 14), since a shape that leans does not look like objects do. Large levels alone say it: they see the layout.

Letters: N points, four views in the order up, down, left, right; polar = 90 degrees - elevation; angles in radians.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from bozzetto.camera import Camera, orbit
from bozzetto.priors.prior import Prior, Reference
from bozzetto.priors.sampling import Sampler, sample, start

DEGREE = math.pi / 180
STEP = 10 * DEGREE  # between the picture and its neighbours
COARSE, FINE = range(30, 151, 10), range(-10, 11)  # degrees of polar angle; of correction
FOV = 2 * math.atan(128 / 280)  # of Zero-1-to-3's training renders
DISTANCE = 1.2  # any: it is not seen
SHARES = (0.6, 0.7, 0.8)  # of the noise levels, 1 the largest, at which likelihoods are compared; smaller ones saw no tilt when tried
FEWEST = 20  # tracks below which the answer is the horizon


@dataclass(frozen=True)
class Estimate:
    """elevation in radians; error in pixels, the mean by which points miss there; num_tracks, 0 where too few were found."""

    elevation: float
    error: float
    num_tracks: int


def nearby(elevation: float, *, size: int, fov: float = FOV, azimuth: float = 0.0, distance: float = DISTANCE) -> Camera:
    """The four cameras beside one at this elevation: up, down, left (smaller azimuth), right."""
    azimuths = [azimuth + STEP * a for a in (0, 0, -1, 1)]
    return orbit(azimuths, [elevation + STEP * e for e in (1, -1, 0, 0)], distance, size=size, fov=fov)


def triangulate(cameras: Camera, pixels: Tensor) -> Tensor:
    """The points (N, 3) nearest to the rays through pixels (V, N, 2), V >= 2, least squares; float64."""
    origin = cameras.position.double()[:, None]
    direction = cameras.unproject(pixels.double(), torch.ones_like(pixels[..., 0]).double()) - origin
    direction = direction / direction.norm(dim=-1, keepdim=True)
    across = torch.eye(3, dtype=torch.float64) - direction[..., None] * direction[..., None, :]  # takes the part beside a ray
    return torch.linalg.solve(across.sum(0), (across @ origin[..., None]).sum(0))[..., 0]


def reprojection_error(pixels: Tensor, elevation: float, *, size: int, fov: float = FOV, distance: float = DISTANCE) -> float:
    """Mean distance, pixels, over the four views and all points, after triangulation from the first two views.

    pixels  (4, N, 2), one point's places in the four views
    """
    cameras = nearby(elevation, size=size, fov=fov, distance=distance)
    found, _ = cameras.project(triangulate(cameras[[0, 1]], pixels[:2]))
    return float((found - pixels.double()).norm(dim=-1).mean())


def estimate_from_tracks(pixels: Tensor, *, size: int, fov: float = FOV) -> Estimate:
    """The elevation of least error on a grid of 1 degree within 70 of the horizon, searched by tens first; pixels as above.

    Fewer than FEWEST points give the horizon; the released code gives up at none alone.
    """
    if pixels.shape[1] < FEWEST:
        return Estimate(0.0, math.inf, 0)

    def best(polars: list[int]) -> tuple[float, int]:
        return min((reprojection_error(pixels, (90 - p) * DEGREE, size=size, fov=fov), p) for p in polars)

    _, coarse = best(list(COARSE))
    error, polar = best([coarse + d for d in FINE])
    return Estimate((90 - polar) * DEGREE, error, pixels.shape[1])


def tracks(rgb: Tensor, background: float = 1.0) -> Tensor:
    """Where the object's points are in four views (4, S, S, 3), sRGB in [0, 1]: pixels (4, N, 2), N may be 0.

    Each point starts at a pixel centre of the first view, is followed by dense optical flow to each other view, and is kept if
    the flow back ends within 1 px of where it began (the released code's match radius) and no view shows background there.
    """
    grey = [(255 * picture.clamp(0, 1).mean(-1)).round().byte().cpu().numpy() for picture in rgb]
    solid = ((rgb - background).abs().amax(-1) > 0.02).cpu().numpy()
    rows, columns = np.nonzero(solid[0])
    start = np.stack([columns, rows], -1).astype(np.float32)  # here the centre of a pixel is a whole number
    places, kept = [start], np.ones(len(start), bool)
    for k in range(1, len(grey)):
        forth, back = _flow(grey[0], grey[k]), _flow(grey[k], grey[0])
        there = start + forth[rows, columns]
        returned = there + _sampled(back, there)
        kept &= (np.linalg.norm(returned - start, axis=-1) < 1) & (_sampled(solid[k].astype(np.float32), there) > 0.5)
        places.append(there)
    return torch.from_numpy(np.stack(places)[:, kept]).double() + 0.5


def _flow(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(S, S, 2), pixels from a to b."""
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    method.setFinestScale(0)
    return method.calc(a, b, None)


def _sampled(field: np.ndarray, at: np.ndarray) -> np.ndarray:
    """A field (S, S, ...) at places (N, 2), bilinear, 0 outside."""
    if not len(at):
        return np.zeros((0, *field.shape[2:]), np.float32)
    columns, rows = at[:, None, 0].astype(np.float32), at[:, None, 1].astype(np.float32)
    out = [
        cv2.remap(field, columns[i : i + 30_000], rows[i : i + 30_000], cv2.INTER_LINEAR)[:, 0]  # remap's sides end at 32767
        for i in range(0, len(at), 30_000)
    ]
    return np.concatenate(out)


def draw_nearby(prior: Prior, rgb: Tensor, *, generator: torch.Generator, steps: int = 50, guidance: float = 3.0) -> Tensor:
    """The four views beside a picture (1, H, W, 3), as the prior imagines them: (4, S, S, 3), sRGB in [0, 1].

    Published: DDIM, 50 steps, guidance 3. All four start from the same noise, which keeps them alike.
    """
    side = rgb.shape[1]
    here = orbit([0.0], [0.0], DISTANCE, size=side, fov=FOV)
    cond = prior.condition(Reference(rgb, here), nearby(0.0, size=side))
    noise = start(prior, 1, generator=generator).to(rgb.device).expand(4, *prior.shape)
    sampler = Sampler(min(steps, len(prior.denoiser.sigmas)), guidance, 0.0)
    made = sample(prior, cond, noise=noise, sampler=sampler, generator=generator)
    return prior.decode(made)


def estimate_elevation(prior: Prior, rgb: Tensor, *, generator: torch.Generator, steps: int = 50, guidance: float = 3.0) -> Estimate:
    """The elevation that a picture (1, H, W, 3), sRGB over the prior's background, was taken from."""
    views = draw_nearby(prior, rgb, generator=generator, steps=steps, guidance=guidance)
    return estimate_from_tracks(tracks(views, prior.background), size=views.shape[1])


Look = tuple[Reference, Camera, Tensor]
"""the picture and its camera, V other cameras, and the rough shape seen from them: (V, H, W, 3) sRGB over the prior's background"""


@torch.no_grad()
def misfits(prior: Prior, looks: Sequence[Look], *, generator: torch.Generator, shares: Sequence[float] = SHARES) -> Tensor:
    """How badly the prior tells the noise in each candidate's pictures, (K,) float64: the less, the likelier they are.

    looks    of K candidates, the same number of views each; all of them get the same noise
    returns  mean squared error of the noise over views and levels, each level counted alike
    """
    ladder = prior.denoiser.sigmas.double().cpu()
    places = (torch.tensor(shares, dtype=torch.float64) * (len(ladder) - 1)).round().long()
    total: list[float] = []
    noise: Tensor | None = None
    for reference, cameras, pictures in looks:
        x0 = prior.encode_pictures(pictures)
        cond = prior.condition(prior.encode_reference(reference), cameras)
        if noise is None:
            noise = torch.randn(len(places), *x0.shape, generator=generator, device=generator.device).to(x0)
        errors = []
        for sigma, n in zip(ladder[places].tolist(), noise, strict=True):
            denoised = prior.denoiser.denoise(x0 + sigma * n, sigma, cond)
            errors.append(((denoised - x0) / sigma).square().mean().double())  # that of the noise
        total.append(float(torch.stack(errors).mean()))
    return torch.tensor(total, dtype=torch.float64)


def least(places: Sequence[float], values: Tensor) -> float:
    """Where values (K,) at evenly spaced places are least: of a parabola through the lowest and its neighbours, or the end itself."""
    k = int(values.argmin())
    if k in (0, len(values) - 1):
        return places[k]
    a, b, c = (float(v) for v in values[k - 1 : k + 2])
    return places[k] + (places[k + 1] - places[k]) * (a - c) / (2 * (a - 2 * b + c))
