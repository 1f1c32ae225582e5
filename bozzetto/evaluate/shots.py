# SPDX-License-Identifier: Apache-2.0
"""Pictures for judging: the one that is lifted, and those from round about, of truths and of models alike.

Truths are `Drawable`s, lifts and silhouettes are `Mesh`es; both are drawn in base colours under even light, with 2 x 2 samples a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.camera import Camera, orbit
from bozzetto.data.renders import Drawable, crop_camera, random_lights, render
from bozzetto.mesh import Mesh
from bozzetto.render.mesh import headlight, render_mesh

Model = Mesh | Drawable

ELEVATION, FOV = (-5.0, 40.0), (20.0, 50.0)  # degrees; uniform
FRONTAL = 60.0  # degrees; half of the pictures are within this of the front
NOVEL_DISTANCE, NOVEL_RADIUS = 2.5, 0.75  # object units: novel views see a ball of this radius round the object's centre


@dataclass(frozen=True)
class Shot:
    """A picture of an object, and all that its taker knows.

    picture    (S, S, 4) uint8, sRGB, not premultiplied, and alpha
    camera     its camera, in the object's frame; p = S / depth of `bozzetto.frustum`
    azimuth, elevation  radians
    level      mean brightness of the light, linear: base colours times this are the colours that a lift can know
    """

    picture: np.ndarray
    camera: Camera
    p: float
    azimuth: float
    elevation: float
    level: float

    def floats(self) -> tuple[Tensor, Tensor]:
        """rgb (S, S, 3) and alpha (S, S), float32 in [0, 1], as `bozzetto.image.load` gives them."""
        x = torch.from_numpy(self.picture).float() / 255
        return x[..., :3], x[..., 3]


def shoot(d: Drawable, rng: np.random.Generator, size: int = 512) -> Shot:
    """A random picture of an object, framed as a crop; everything that is drawn comes from `rng`."""
    azimuth = math.radians(rng.uniform(-FRONTAL, FRONTAL) if rng.random() < 0.5 else rng.uniform(-180, 180))
    elevation, fov = math.radians(rng.uniform(*ELEVATION)), math.radians(rng.uniform(*FOV))
    radius = float(np.linalg.norm(d.vertices, axis=1).max())
    camera, p = crop_camera(d.vertices, azimuth, elevation, max(radius / math.sin(fov / 2), 1.3 * radius), size)
    lights, level = random_lights(rng, camera)
    views = render(d, camera, lights)
    alpha = views.alpha[0]
    rgba = torch.cat([views.rgb[0] / alpha.clamp(min=1e-6), alpha], -1)
    return Shot((rgba.clamp(0, 1) * 255).round().to(torch.uint8).numpy(), camera, p, azimuth, elevation, level)


def novel_cameras(azimuths: Sequence[float], elevation: float, size: int = 128) -> Camera:
    """Views round an object of longest side 1 at the origin, all framed alike; radians."""
    fov = 2 * math.asin(NOVEL_RADIUS / NOVEL_DISTANCE)
    return orbit(list(azimuths), [elevation] * len(azimuths), NOVEL_DISTANCE, size=size, fov=fov)


def drawn(model: Model, cameras: Camera, *, level: float = 1.0, lit: bool = False) -> Tensor:
    """(V, H, W, 4) premultiplied sRGB and alpha.

    level  linear brightness of a `Drawable`'s base colours; a Mesh's texture is taken as it is
    lit    with a light from the camera's side instead, for looking at shapes
    """
    if isinstance(model, Drawable):
        light = np.tile(np.array([[0, 0, 1, 0, level, 0, 1, 0]], np.float64), (len(cameras), 1, 1))
        if lit:
            axes = cameras.c2w.numpy()
            light[:, 0, :3] = axes[:, :, 2] + 0.5 * axes[:, :, 1] - 0.3 * axes[:, :, 0]
            light[:, 0, :3] /= np.linalg.norm(light[:, 0, :3], axis=1, keepdims=True)
            light[:, 0, 3], light[:, 0, 4] = 0.6 * level, 0.55 * level  # as `headlight`
        views = render(model, cameras, light)
        return torch.cat([views.rgb, views.alpha], -1)
    height, width = cameras.size
    big = cameras.resized((2 * height, 2 * width))
    with torch.no_grad():
        views = render_mesh(model, big, headlight(big) if lit else None)
    both = torch.cat([views.rgb, views.alpha], -1).clamp(0, 1)
    return F.avg_pool2d(both.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


def moved(model: Model, rotation: np.ndarray, scale: float = 1.0, translation: np.ndarray | None = None) -> Model:
    """The model with each point x at scale * rotation x + translation; rotation (3, 3), translation (3,)."""
    R = np.asarray(rotation, np.float64)
    t = np.zeros(3) if translation is None else np.asarray(translation, np.float64)
    if isinstance(model, Drawable):
        vertices = np.ascontiguousarray(model.vertices @ (scale * R.T) + t, np.float32)
        return replace(model, vertices=vertices, normals=np.ascontiguousarray(model.normals @ R.T, np.float32))
    turn = torch.from_numpy(R.T.copy())
    vertices = (model.vertices.double() @ turn * scale + torch.from_numpy(t)).float()
    normals = None if model.normals is None else (model.normals.double() @ turn).float()
    return replace(model, vertices=vertices, normals=normals)


def triangles(model: Model) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (N, 3) and faces (F, 3)."""
    if isinstance(model, Drawable):
        return model.vertices, model.faces
    return model.vertices.numpy(), model.faces.numpy()
