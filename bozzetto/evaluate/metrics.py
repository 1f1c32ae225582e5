# SPDX-License-Identifier: Apache-2.0
"""How far a model is from the truth: on the visible surface, in the volume, and in pictures of both.

Geometry, after alignment by scale and translation alone (the picture's camera has fixed the rotation):
- Chamfer: mean of the two directions of unsquared distances, in units of the truth's longest side (SyncDreamer, Wonder3D).
- F-score: harmonic mean of the shares of each set that lie nearer than tau to the other.
- IoU of the solids in 64^3 cells. Solids are carved from depth maps (`data.renders.carve_object`), truth and prediction alike, so
  that open meshes, flipped faces and inner walls do not matter; each grows by half a cell of its carving (1/178 of its longest side).
- Normal consistency: mean |n . n'| over nearest pairs, both directions (either sign: sources do not agree on the outside).
Points are drawn from the same depth maps, so inner walls have none; two independent samples of n points on area A are still
about sqrt(A / n) / 2 apart (0.007 here), which every row of a table contains.

Pictures: premultiplied RGBA, judged over the union of the two masks, never over empty paper. What one shows and the other does not is
judged before black and before white paper and averaged, so that no colour of an object blends in.

Letters: P points, s scale, t translation; a prediction's x becomes s x + t in the truth's frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor

from bozzetto.data.renders import EXTENT, Drawable, carve_object
from bozzetto.kernels import pool
from bozzetto.kernels.carve import sample_grid
from bozzetto.render import ssim as likeness

POINTS = 16384  # a surface: a sampling floor of 0.007 for area 3
TAU = 0.05  # of the F-score, longest sides; One-2-3-45's
CELLS = 64  # a side, for the IoU
ALIGN_POINTS, ALIGN_STEPS = 4096, 12


@dataclass(frozen=True)
class Solid:
    """What a model is judged by.

    points   (P, 3) float64, on the visible surface; normals (P, 3) float64 unit, of the triangle they lie on, either sign
    face     (P,) int32, that triangle; bary (P, 2) float32, weights of its first two corners
    inside   (n, n, n) uint8, the carved solid over [-EXTENT, EXTENT]^3 of its own frame: (x - centre) * scale
    """

    points: np.ndarray
    normals: np.ndarray
    face: np.ndarray
    bary: np.ndarray
    inside: np.ndarray
    centre: np.ndarray
    scale: float


def solid(vertices: np.ndarray, faces: np.ndarray, *, points: int = POINTS, seed: int = 0) -> Solid:
    """Carve a model: vertices (N, 3), faces (F, 3), any scale and place.

    raises  ValueError for a model without a visible surface
    """
    v = np.asarray(vertices, np.float64)
    used = v[np.unique(faces)] if len(faces) else v[:0]
    if not len(used) or not np.isfinite(used).all() or not np.ptp(used, axis=0).max() > 0:
        raise ValueError("solid: expected triangles with finite corners that are not all one point")
    low, high = used.min(0), used.max(0)
    centre, scale = (low + high) / 2, float(1 / (high - low).max())
    carved = carve_object(bare((v - centre) * scale, faces), points=points, seed=seed)
    if not len(carved.face):
        raise ValueError("solid: nothing of the model is visible")
    corner = v[np.asarray(faces)[carved.face]]
    weight = np.concatenate([carved.bary, 1 - carved.bary.sum(1, keepdims=True)], 1).astype(np.float64)
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-300)
    return Solid((corner * weight[:, :, None]).sum(1), normal, carved.face, carved.bary, carved.inside, centre, scale)


def bare(vertices: np.ndarray, faces: np.ndarray) -> Drawable:
    """Triangles of one grey material, for what needs geometry alone."""
    n = len(faces)
    one = np.full((1, 3), 0.5, np.float32)
    return Drawable(
        np.ascontiguousarray(vertices, np.float32),
        np.ascontiguousarray(faces, np.int32),
        np.zeros((n, 3, 3), np.float32),
        np.zeros(n, np.int16),
        one,
        np.zeros((n, 3, 2), np.float32),
        one,
        np.full(1, -1, np.int64),
        np.ones((1, 2), np.int64),
    )


# ---- surfaces ----


def chamfer(a: np.ndarray, b: np.ndarray) -> float:
    """Mean of the mean distances from points a (P, 3) to the nearest of b (Q, 3), and back; unsquared."""
    there, back, _, _ = _nearest(a, b)
    return float(there.mean() + back.mean()) / 2


def f_score(a: np.ndarray, b: np.ndarray, tau: float = TAU) -> float:
    """2 p r / (p + r): p the share of a within tau of b, r the share of b within tau of a; 0 if both are 0."""
    there, back, _, _ = _nearest(a, b)
    p, r = float((there < tau).mean()), float((back < tau).mean())
    return 2 * p * r / (p + r) if p + r > 0 else 0.0


def normal_consistency(a: np.ndarray, normals_a: np.ndarray, b: np.ndarray, normals_b: np.ndarray) -> float:
    """Mean of |n_a . n_b| between each point and the nearest of the other set, both directions averaged; in [0, 1]."""
    _, _, to_b, to_a = _nearest(a, b)
    there = np.abs((normals_a * normals_b[to_b]).sum(1)).mean()
    back = np.abs((normals_b * normals_a[to_a]).sum(1)).mean()
    return float(there + back) / 2


def _nearest(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Distances a to b and b to a, and which points those are."""
    there, to_b = cKDTree(b).query(a)
    back, to_a = cKDTree(a).query(b)
    return there, back, to_b, to_a


def align(points: np.ndarray, target: np.ndarray, *, steps: int = ALIGN_STEPS) -> tuple[float, np.ndarray]:
    """Scale s and translation t (3,) that bring points (P, 3) to target (Q, 3): s x + t. Deterministic.

    Begins with the boxes' centres and longest sides; then least squares over nearest pairs of both directions, with Horn's symmetric
    scale (1987: the ratio of spreads), since the one-sided estimate shrinks whatever does not fit. The best Chamfer met is kept.
    """
    p, q = _thinned(points), _thinned(target)
    side = np.ptp(p, axis=0).max()
    s = float(np.ptp(q, axis=0).max() / side) if side > 0 else 1.0
    t = (q.min(0) + q.max(0)) / 2 - s * (p.min(0) + p.max(0)) / 2
    tree = cKDTree(q)
    best, found = np.inf, (s, t)
    for _ in range(steps + 1):
        moved = s * p + t
        there, to_q = tree.query(moved)
        back, to_p = cKDTree(moved).query(q)
        distance = float(there.mean() + back.mean())
        if distance >= best * (1 - 1e-4) and np.isfinite(best):
            if distance < best:
                found = s, t
            break
        best, found = distance, (s, t)
        source, wanted = np.concatenate([p, p[to_p]]), np.concatenate([q[to_q], q])
        weight = np.concatenate([np.full(len(p), 1 / len(p)), np.full(len(q), 1 / len(q))])[:, None] / 2
        middle, aim = (weight * source).sum(0), (weight * wanted).sum(0)
        spread, reach = (weight * (source - middle) ** 2).sum(), (weight * (wanted - aim) ** 2).sum()
        s = float(np.sqrt(reach / spread)) if spread > 0 else s
        t = aim - s * middle
    return found


def _thinned(points: np.ndarray) -> np.ndarray:
    return points[:: max(len(points) // ALIGN_POINTS, 1)]  # they are drawn in random order


def volume_iou(prediction: Solid, truth: Solid, scale: float = 1.0, translation: np.ndarray | float = 0.0, cells: int = CELLS) -> float:
    """Intersection over union of two carved solids, the prediction's x at scale x + translation, in cells^3 round both of them."""
    t = np.broadcast_to(np.asarray(translation, np.float64), 3)
    corners = []
    for s, k, shift in ((truth, 1.0, np.zeros(3)), (prediction, scale, t)):
        reach = EXTENT / s.scale * k
        corners += [k * s.centre + shift - reach, k * s.centre + shift + reach]
    low, high = np.min(corners, 0), np.max(corners, 0)
    step = (high - low).max() / cells
    axes = [(low[i] + high[i]) / 2 + step * (np.arange(cells) + 0.5 - cells / 2) for i in range(3)]
    x = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    mine, wanted = _inside(prediction, (x - t) / scale), _inside(truth, x)
    union = int((mine | wanted).sum())
    return int((mine & wanted).sum()) / union if union else 0.0


def _inside(s: Solid, x: np.ndarray) -> np.ndarray:
    out = np.zeros(len(x))
    pool.run(sample_grid, len(x), np.ascontiguousarray((x - s.centre) * s.scale), s.inside, EXTENT, out, grain=16384)
    return out > 0.5


def geometry(prediction: Solid, truth: Solid) -> tuple[dict[str, float], float, np.ndarray]:
    """Chamfer, F-score, IoU and normal consistency in units of the truth's longest side; and the scale and translation used."""
    s, t = align(prediction.points, truth.points)
    unit = truth.scale
    a, b = (s * prediction.points + t) * unit, truth.points * unit
    scores = {
        "chamfer": chamfer(a, b),
        "f_score": f_score(a, b),
        "iou": volume_iou(prediction, truth, s, t),
        "normals": normal_consistency(a, prediction.normals, b, truth.normals),
    }
    return scores, s, t


# ---- pictures ----


def psnr(prediction: Tensor, truth: Tensor) -> float:
    """dB, the mean over V pictures (V, H, W, 4), premultiplied sRGB and alpha in [0, 1]; each over the union of the two masks.

    Equal pictures have 100 dB; those in which both show nothing do not count (NaN if none is left).
    """
    union = _union(prediction, truth)
    found = likeness.psnr(_over_both(prediction), _over_both(truth), union)
    return float(found[union.any(2).any(1)].mean())


def ssim(prediction: Tensor, truth: Tensor) -> float:
    """Structural similarity (Wang et al. 2004), mean over V pictures (V, H, W, 4) as for `psnr`, inside the union's bounding box.

    `render.ssim`'s window and constants, the mean over colours, over pixels of the box and over both papers.
    """
    scores = []
    for a, b, union in zip(_over_both(prediction), _over_both(truth), _union(prediction, truth), strict=True):
        if not union.any():
            continue
        rows, columns = union.any(1).nonzero()[:, 0], union.any(0).nonzero()[:, 0]
        index = likeness.similarity(a[None], b[None], border="replicate")[0]
        scores.append(index[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1].mean())
    return float(torch.stack(scores).mean()) if scores else float("nan")


def sharpness(pictures: Tensor) -> float:
    """Mean gradient magnitude per pixel inside the masks of V pictures (V, H, W, 4), two pixels from their edges, over all pictures.

    Root mean square over colours of central differences; blur lowers it. NaN where the masks are nowhere five pixels wide.
    """
    x = pictures.double()
    alpha = x[..., 3]
    solid = -F.max_pool2d(-(alpha > 0.99).double()[:, None], 5, 1, 2)[:, 0] > 0.5
    solid[:, :2] = solid[:, -2:] = solid[:, :, :2] = solid[:, :, -2:] = False  # max_pool2d pads with nothing, and nothing is not solid
    rgb = x[..., :3]
    dy, dx = torch.zeros_like(rgb), torch.zeros_like(rgb)
    dy[:, 1:-1] = (rgb[:, 2:] - rgb[:, :-2]) / 2
    dx[:, :, 1:-1] = (rgb[:, :, 2:] - rgb[:, :, :-2]) / 2
    magnitude = (dx.square() + dy.square()).mean(-1).sqrt()
    return float(magnitude[solid].mean())


def _over_both(pictures: Tensor) -> Tensor:
    """(V, H, W, 6) float64: pictures (V, H, W, 4) over black, then over white."""
    p = pictures.double()
    return torch.cat([p[..., :3], p[..., :3] + (1 - p[..., 3:])], -1)


def _union(a: Tensor, b: Tensor) -> Tensor:
    return (a[..., 3] > 0.5) | (b[..., 3] > 0.5)
