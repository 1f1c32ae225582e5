# SPDX-License-Identifier: Apache-2.0
"""Objects to training pictures: random cameras, light and colours, and the exact solid behind each picture.

A picture is always the *crop* that `bozzetto.image.crop` would cut: the object's box centred, its longest side filling
1 - 2 margin of the square. Instead of rendering large and resampling, the camera is aimed and zoomed so that the crop is
what it sees. What lies behind such a picture is measured in the coordinates of `bozzetto.frustum`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from bozzetto.camera import Camera, look_at, orbit
from bozzetto.data.objects import Object
from bozzetto.frustum import DEPTH_RANGE, Frustum
from bozzetto.kernels import pool
from bozzetto.kernels.carve import carve, sample_frustum
from bozzetto.kernels.deferred import albedos, shade
from bozzetto.kernels.rasterize import rasterize_arrays
from bozzetto.views import Views

MARGIN = 0.1  # of the crop, on each side of the object's longest side; the lifting crop uses the same
GRID = 96  # carved cells a side
EXTENT = 0.54  # carved grids run over [-0.54, 0.54]^3: the unit box and two cells of air


@dataclass(frozen=True)
class Drawable:
    """An `Object` with its textures end to end, as the shading kernel reads them."""

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    material: np.ndarray
    colours: np.ndarray
    uv: np.ndarray
    texels: np.ndarray
    offset: np.ndarray
    shape: np.ndarray

    def surface(self) -> tuple[np.ndarray, ...]:
        """What the shading kernels take to find a base colour."""
        return self.material, self.colours, self.uv, self.texels, self.offset, self.shape


def drawable(obj: Object) -> Drawable:
    """Flatten an object's textures; nothing else is copied."""
    offset, shape = np.full(len(obj.colours), -1, np.int64), np.ones((len(obj.colours), 2), np.int64)
    parts, count = [], 0
    for m, texture in enumerate(obj.textures):
        if texture is not None:
            offset[m], shape[m] = count, texture.shape[:2]
            parts.append(texture.reshape(-1, 3))
            count += len(parts[-1])
    texels = (np.concatenate(parts) if parts else np.zeros((1, 3), np.uint8)).astype(np.float32) / 255
    f32 = np.float32
    return Drawable(
        np.ascontiguousarray(obj.vertices, f32),
        np.ascontiguousarray(obj.faces, np.int32),
        np.ascontiguousarray(obj.normals, f32),
        np.ascontiguousarray(obj.material, np.int16),
        np.ascontiguousarray(obj.colours, f32),
        np.ascontiguousarray(obj.uv, f32),
        texels,
        offset,
        shape,
    )


# Flat white light: what a picture of base colours is rendered with.
UNLIT = np.array([[0, 0, 1, 0, 1, 0, 1, 0]], np.float64)


def render(obj: Object | Drawable, cameras: Camera, lights: np.ndarray = UNLIT, supersample: int = 2) -> Views:
    """Pictures of an object; lights (L, 8) as `kernels.deferred.shade`, or (V, L, 8) one set a camera.

    Averaged over `supersample`^2 pixels. No gradients; see `render.mesh` for those.
    """
    d = obj if isinstance(obj, Drawable) else drawable(obj)
    s, (h, w), count = supersample, cameras.size, len(cameras)
    big = cameras.resized((h * s, w * s))
    M = big.clip_matrix().numpy()
    eyes = cameras.c2w[:, :, 2].numpy()
    out = [np.zeros((count, h, w, c), np.float32) for c in (3, 1, 1, 3)]
    homogeneous = np.concatenate([d.vertices, np.ones((len(d.vertices), 1), np.float32)], 1)
    for v in range(count):
        rast = np.zeros((h * s, w * s, 4), np.float32)
        rasterize_arrays(homogeneous @ M[v].T.astype(np.float32), d.faces, rast)
        rgb, alpha, normal = (
            np.zeros((h * s, w * s, 3), np.float32),
            np.zeros((h * s, w * s), np.float32),
            np.zeros((h * s, w * s, 3), np.float32),
        )
        light = np.ascontiguousarray(lights[v] if lights.ndim == 3 else lights, np.float64)
        pool.run(shade, h * s, rast, d.normals, *d.surface(), eyes[v], light, rgb, alpha, normal, grain=64)
        depth = cameras.depth_of(rast[..., 2]) * alpha
        a = _box(alpha[..., None], s)
        out[0][v], out[1][v] = _box(rgb, s), a
        out[2][v] = _box(depth[..., None], s) / np.maximum(a, 1e-6)
        n = _box(normal, s)
        out[3][v] = n / np.maximum(np.linalg.norm(n, axis=-1, keepdims=True), 1e-6)
    rgb, alpha, depth, normal = (torch.from_numpy(x) for x in out)
    return Views(rgb, alpha, depth, normal, cameras)


def _box(x: np.ndarray, s: int) -> np.ndarray:
    if s == 1:
        return x
    total = np.zeros_like(x[::s, ::s])
    for i in range(s):
        for j in range(s):
            total += x[i::s, j::s]
    return total * np.float32(1 / s**2)


@dataclass(frozen=True)
class Carved:
    """What of an object's box is solid, and points all over its outside.

    inside  (GRID, GRID, GRID) uint8, 1 inside, over [-EXTENT, EXTENT]^3
    face    (P,) int32, the triangle each surface point lies on; bary (P, 2) float32, where on it
    """

    inside: np.ndarray
    face: np.ndarray
    bary: np.ndarray


def carve_object(d: Drawable, *, views: int = 48, points: int = 4096, seed: int = 0) -> Carved:
    """Carve an object's solid from depth maps all round it: right for open meshes, inner walls and flipped faces.

    Half a cell of slack: sheets stay one cell thick, solids grow by half a cell. Surface points are drawn evenly from
    the pixels that the maps see, so inner walls have none.
    """
    size = int(3.4 * GRID)  # a pixel is just over half a cell
    k = np.arange(views) + 0.5
    elevation = np.arcsin(1 - 2 * k / views)  # Fibonacci sphere
    azimuth = np.pi * (1 + 5**0.5) * k
    radius = 2.0
    cameras = orbit(torch.from_numpy(azimuth), torch.from_numpy(elevation), radius, size=size, ortho_scale=2 * EXTENT * 3**0.5)
    c2w = cameras.c2w.numpy()
    half = EXTENT * 3**0.5  # the maps hold the box's corners
    M = cameras.clip_matrix().numpy().astype(np.float32)
    homogeneous = np.concatenate([d.vertices, np.ones((len(d.vertices), 1), np.float32)], 1)
    depth = np.full((views, size, size), np.inf, np.float32)
    hits = []
    for v in range(views):
        rast = np.zeros((size, size, 4), np.float32)
        rasterize_arrays(homogeneous @ M[v].T, d.faces, rast)
        seen = rast[..., 3] > 0
        depth[v][seen] = cameras.depth_of(rast[..., 2][seen]) - radius
        hits.append(rast[seen][:, [3, 0, 1]])
    # Slack sideways as well as in depth: at each corner of pixels the nearest of the 4 x 4 round it, one pixel all round
    # the four that a point there may lie between. Sheets seen edge-on and steep surfaces keep their half cell.
    for _ in range(3):
        depth = np.minimum(depth[:, 1:], depth[:, :-1])
        depth = np.minimum(depth[:, :, 1:], depth[:, :, :-1])
    half *= 1 - 3 / size
    inside = np.zeros((GRID, GRID, GRID), np.uint8)
    axes = [np.ascontiguousarray(a) for a in (c2w[:, :, 0], -c2w[:, :, 1], -c2w[:, :, 2])]
    pool.run(carve, GRID, depth, *axes, EXTENT, half, EXTENT / GRID, inside)
    hit = np.concatenate(hits)
    pick = np.random.default_rng(seed).integers(0, max(len(hit), 1), points) if len(hit) else np.zeros(0, np.int64)
    return Carved(inside, hit[pick, 0].astype(np.int32) - 1, np.ascontiguousarray(hit[pick, 1:], np.float32))


def crop_camera(
    vertices: np.ndarray, azimuth: float, elevation: float, distance: float, size: int, margin: float = MARGIN
) -> tuple[Camera, float]:
    """The camera at a pose whose picture is the crop of these vertices, and p = S / depth of the object's centre.

    vertices (N, 3) in the world; angles in radians; distance from the origin in object units; p is 0.. about 1
    """
    a, e = azimuth, elevation
    position = distance * np.array([math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)])
    target = np.zeros(3)
    for _ in range(4):  # aim at the middle of what is seen; converges fast
        c2w = look_at(torch.from_numpy(position)[None], torch.from_numpy(target)[None])[0].numpy()
        local = (vertices - position) @ c2w[:, :3]
        depth = np.maximum(-local[:, 2], 1e-3)
        x, y = local[:, 0] / depth, local[:, 1] / depth
        box = np.array([x.min(), x.max(), y.min(), y.max()])
        cx, cy = (box[0] + box[1]) / 2, (box[2] + box[3]) / 2
        centre = float(np.dot(position, c2w[:, 2]))
        target = position + centre * (c2w[:, :3] @ np.array([cx, cy, -1.0]))
    side = max(box[1] - box[0], box[3] - box[2]) / (1 - 2 * margin)  # S / depth, since x = X / depth
    K = np.eye(3)
    K[0, 0] = K[1, 1] = size / side
    K[0, 2] = K[1, 2] = size / 2
    return Camera(torch.from_numpy(c2w)[None], torch.from_numpy(K)[None], (size, size)), float(side)


def frustum_occupancy(carved: Carved, camera: Camera, p: float, stretch: np.ndarray, seen: np.ndarray, depths: int) -> np.ndarray:
    """How solid each frustum cell is, (n, n, depths) float32 in [0, 1].

    stretch  (3,) object to world, a negative sign mirrors; seen (n, n) bool, pixels that show the object: others are empty
    """
    cells = len(seen)
    c2w = camera.c2w[0].numpy()
    centre_depth = float(np.dot(c2w[:, 3], c2w[:, 2]))
    S = p * centre_depth
    origin = c2w[:, 3] - centre_depth * c2w[:, 2]  # on the axis, at the depth of the object's centre
    right, down, forward = c2w[:, 0] / stretch, -c2w[:, 1] / stretch, -c2w[:, 2] / stretch
    dt = 2 * DEPTH_RANGE / depths
    out = np.zeros((cells, cells, depths), np.float32)
    start = origin / stretch - DEPTH_RANGE * S * forward
    pool.run(
        sample_frustum,
        cells,
        start,
        right * S / cells,
        down * S / cells,
        forward * S * dt,
        1 - p * DEPTH_RANGE,
        p * dt,
        carved.inside,
        EXTENT,
        seen,
        out,
        grain=16,
    )
    return out


def random_lights(rng: np.random.Generator, camera: Camera) -> tuple[np.ndarray, float]:
    """A key light over the photographer's shoulder, perhaps a fill, an ambient floor; and the mean diffuse level."""
    c2w = camera.c2w[0].numpy()
    ambient = rng.uniform(0.3, 0.75)
    lights = np.zeros((2, 8))
    for k, strength in enumerate((rng.uniform(0.3, 0.8), rng.uniform(0, 0.3))):
        d = c2w[:, :3] @ np.array([rng.normal(0, 0.8), rng.normal(0.6, 0.6), rng.uniform(0.2, 1.2)]) + np.array([0, 0, rng.uniform(0, 0.6)])
        lights[k, :3] = d / np.linalg.norm(d)
        lights[k, 3] = strength
    lights[0, 4] = ambient
    if rng.random() < 0.6:
        lights[0, 5], lights[0, 6] = rng.uniform(0.03, 0.4), rng.uniform(6, 60)
    return lights, ambient + 0.5 * lights[:, 3].sum()


def recoloured(d: Drawable, rng: np.random.Generator) -> Drawable:
    """New colours for some materials: drawn anew where plain, channels and contrast changed where textured."""
    colours, texels = d.colours.copy(), d.texels
    fresh = rng.random(len(colours)) < 0.5
    lightness, saturation, hue = rng.uniform(0.1, 1, len(colours)), rng.beta(1, 1.5, len(colours)), rng.random(len(colours))
    wheel = np.clip(np.abs((hue[:, None] * 6 + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    drawn = lightness[:, None] * (1 - saturation[:, None] * (1 - wheel))
    colours[fresh] = drawn[fresh]
    if len(texels) > 1 and rng.random() < 0.7:
        texels = texels[:, rng.permutation(3)]
        mean = texels.mean(0)
        texels = np.clip((texels - mean) * rng.uniform(0.6, 1.3) + mean * rng.uniform(0.6, 1.3, 3), 0, 1)
        texels = np.ascontiguousarray(texels, np.float32)
    return Drawable(d.vertices, d.faces, d.normals, d.material, np.ascontiguousarray(colours, np.float32), d.uv, texels, d.offset, d.shape)


@dataclass(frozen=True)
class Pose:
    """Where training pictures are taken from: uniform over these ranges, degrees and object units."""

    elevation: tuple[float, float] = (-10, 60)
    fov: tuple[float, float] = (15, 60)
    frontal: float = 0.3
    """share of pictures within 35 degrees of the front, as drawings are"""


@dataclass(frozen=True)
class Sample:
    """One training picture with what lies behind it.

    picture    (4, size, size) float32: premultiplied sRGB and alpha
    occupancy  (size / 2, size / 2, depths) uint8, 0..255
    points     (P, 3) float32 frustum coordinates of surface points, colour (P, 3) their sRGB under even light
    view       (2,) float32: elevation in radians, p
    """

    picture: np.ndarray
    occupancy: np.ndarray
    points: np.ndarray
    colour: np.ndarray
    view: np.ndarray


def draw_sample(
    d: Drawable,
    carved: Carved,
    rng: np.random.Generator,
    *,
    size: int,
    depths: int,
    points: int = 512,
    pose: Pose = Pose(),
    augment: bool = True,
) -> Sample:
    """A random picture of an object and the truth behind it; everything that is drawn comes from `rng`."""
    e = math.radians(rng.triangular(pose.elevation[0], min(15.0, pose.elevation[1]), pose.elevation[1]))
    a = math.radians(rng.uniform(-35, 35) if rng.random() < pose.frontal else rng.uniform(-180, 180))
    fov = math.radians(rng.uniform(*pose.fov))
    stretch = np.ones(3)
    if augment:
        stretch = np.exp(rng.uniform(-0.22, 0.22, 3))
        stretch[1] *= rng.choice((-1, 1))
        d = recoloured(d, rng) if rng.random() < 0.7 else d
    vertices = d.vertices * stretch.astype(np.float32)
    normals = d.normals / stretch.astype(np.float32)
    radius = float(np.linalg.norm(vertices, axis=1).max())
    camera, p = crop_camera(vertices, a, e, max(radius / math.sin(fov / 2), 1.3 * radius), size)
    lights, level = random_lights(rng, camera)
    placed = Drawable(vertices, d.faces, normals, *d.surface())
    views = render(placed, camera, lights)
    picture = torch.cat([views.rgb, views.alpha], -1)[0].permute(2, 0, 1).numpy()
    seen = picture[3].reshape(size // 2, 2, size // 2, 2).max((1, 3)) > 0
    solid = frustum_occupancy(carved, camera, p, stretch, seen, depths)
    pick = rng.integers(0, len(carved.face), points)
    face, bary = carved.face[pick], carved.bary[pick]
    base = np.empty((points, 3))
    pool.run(albedos, points, face, bary, *d.surface(), base, grain=4096)
    weights = np.concatenate([bary, 1 - bary.sum(1, keepdims=True)], 1)
    where = Frustum(camera).coordinates(torch.from_numpy((vertices[d.faces[face]] * weights[:, :, None]).sum(1))).numpy()
    linear = np.where(base <= 0.04045, base / 12.92, ((base + 0.055) / 1.055) ** 2.4) * level
    colour = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.minimum(linear, 1) ** (1 / 2.4) - 0.055)
    f32 = np.float32
    return Sample(picture, np.rint(solid * 255).astype(np.uint8), where.astype(f32), colour.astype(f32), np.array([e, p], f32))
