# SPDX-License-Identifier: Apache-2.0
"""A scene as posed pictures: COLMAP's folders and `transforms.json` (NeRF-synthetic, instant-ngp, nerfstudio), read into one thing.

A COLMAP scene holds `images/` and a model in `sparse/0/`, `sparse/` or itself, or in one of these below `colmap/` or `dense/`. A scene
of the others holds `transforms_train.json` (and `_test`), or one `transforms.json`; transparency is kept. Pictures are taken as they
lie in their files, as all of these do that write poses, whatever EXIF says of their orientation; those of distorted lenses are
undistorted here. Without a list of its own, every eighth picture in order of names is held back. Frames without their picture are
left out, if they are the fewer. Nothing is trained and tested on the same picture.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from bozzetto import image
from bozzetto.brief import brief
from bozzetto.camera import Camera, from_colmap
from bozzetto.errors import InputError
from bozzetto.formats import colmap, transforms

HOLD = 8  # every eighth picture is held back, where the scene has no test list
SUFFIXES = ("", ".png", ".jpg", ".jpeg", ".webp", ".PNG", ".JPG", ".JPEG")


@brief
@dataclass(frozen=True)
class Scene:
    """V pictures, of which sizes may differ.

    pictures  (H, W, 3 or 4) uint8 each, sRGB, not premultiplied; all have alpha or none has
    cameras   one of V = 1 each, in the scene's own frame and unit
    held      for each, is it held back from training
    warnings  a sentence each about what is odd
    points, colours  (N, 3) world and (N, 3) in [0, 1] of a reconstruction; N = 0 without one
    """

    pictures: list[Tensor]
    cameras: list[Camera]
    held: list[bool]
    points: Tensor
    colours: Tensor
    warnings: tuple[str, ...] = ()

    @property
    def has_alpha(self) -> bool:
        return self.pictures[0].shape[2] == 4

    def digest(self) -> str:
        """SHA-256 over pixels, cameras and points."""
        h = hashlib.sha256(repr(self.held).encode())
        for p, c in zip(self.pictures, self.cameras, strict=True):
            for t in (p, c.c2w, c.K):
                h.update(t.contiguous().numpy().tobytes())
        h.update(self.points.numpy().tobytes() + self.colours.numpy().tobytes())
        return h.hexdigest()


def load(folder: str | Path, size: int = image.WORK_SIDE) -> Scene:
    """Read a scene's folder.

    size    pixels of a picture's longer side: larger ones are shrunk to it as they are read, their cameras with them
    raises  InputError for what is missing, damaged, of different sizes or channels, or too little (3 pictures at least)
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one with a COLMAP model and images/, or with transforms.json")
    if any((folder / name).is_file() for name in ("transforms_train.json", "transforms.json")):
        scene = _nerf(folder, size)
    else:
        roots = [folder, folder / "colmap", folder / "dense", folder / "dense" / "0"]  # COLMAP's, nerfstudio's, its reconstructor's
        models = [f for root in roots for f in (root / "sparse" / "0", root / "sparse", root)]
        model = next((f for f in models if any((f / f"cameras{s}").is_file() for s in (".bin", ".txt"))), None)
        if model is None:
            raise InputError(f"{folder}: holds neither transforms.json nor sparse/0/cameras.bin; give such a scene")
        scene = _colmap(folder, model, size)
    if len(scene.pictures) < 3 or all(scene.held) or not any(scene.held):
        raise InputError(f"{folder}: {len(scene.pictures)} pictures are too few to train on some and test on others; give at least 3")
    if len({p.shape[2] for p in scene.pictures}) > 1:
        raise InputError(f"{folder}: some pictures have transparency and some have none; save all of them alike")
    return scene


def _nerf(folder: Path, most: int) -> Scene:
    split = (folder / "transforms_train.json").is_file()
    files = (
        [(folder / "transforms_train.json", False), (folder / "transforms_test.json", True)]
        if split
        else [(folder / "transforms.json", False)]
    )
    pictures, cameras, held, names, missing = [], [], [], [], []
    for path, is_test in files:
        if not path.is_file():
            continue
        for frame in transforms.read(path):
            source = _find(folder, frame.name)
            if source is None:
                missing.append(frame.name)
                continue
            picture, size = _picture(source, most)
            lens = frame.lens(size)
            if lens is None:
                took = f"{frame.said.get('w', size[1]):g} x {frame.said.get('h', size[0]):g}"
                raise InputError(f"{source}: has {size[1]} x {size[0]} pixels, {path.name} says {took}; give the original pictures")
            camera = Camera(torch.from_numpy(frame.c2w)[None], torch.from_numpy(lens[0])[None], size)
            picture, camera = _straight(picture, camera, lens[1])
            pictures.append(picture)
            cameras.append(camera)
            held.append(is_test)
            names.append(frame.name)
    warnings = _left_out(files[0][0], missing, len(names))
    if not any(held):
        for rank, i in enumerate(np.argsort(names, kind="stable")):
            held[i] = rank % HOLD == 0
    return Scene(pictures, cameras, held, torch.zeros(0, 3), torch.zeros(0, 3), warnings)


def _find(folder: Path, name: str) -> Path | None:
    """A picture by the name that a file has for it, perhaps without its suffix, perhaps with the backslashes of another system."""
    names = (name, name.replace("\\", "/"))
    return next((path for n in names for suffix in SUFFIXES if (path := folder / (n + suffix)).is_file()), None)


def _left_out(source: Path, missing: list[str], there: int) -> tuple[str, ...]:
    """What is said of pictures that `source` names and that are not there.

    raises  InputError where they are more than the others
    """
    if not missing:
        return ()
    whole = f"{len(missing)} of {len(missing) + there} pictures that it names are missing (the first is {missing[0]})"
    if len(missing) > there:
        raise InputError(f"{source}: {whole}; put them there")
    return (f"{source}: {whole}; these frames are left out",)


def _colmap(folder: Path, model: Path, most: int) -> Scene:
    found = colmap.read(model)
    root = model.parent.parent if model.parent.name == "sparse" else model.parent if model.name == "sparse" else model
    where = next((f for f in (root / "images", folder / "images") if f.is_dir()), folder)
    pictures, cameras, missing, held = [], [], [], list[bool]()
    for shot in found.shots:
        lens, source = found.lenses[shot.lens], _find(where, shot.name)
        if source is None:
            missing.append(shot.name)
            continue
        picture, size = _picture(source, most)
        if size != lens.size:
            took = f"{lens.size[1]} x {lens.size[0]}"
            raise InputError(f"{source}: has {size[1]} x {size[0]} pixels, its camera took {took}; give the original pictures")
        K = torch.from_numpy(lens.K)[None]
        quat, t = torch.from_numpy(shot.quat)[None], torch.from_numpy(shot.translation)[None]
        picture, camera = _straight(picture, from_colmap(quat, t, K, size), lens.distortion)
        pictures.append(picture)
        cameras.append(camera)
        held.append(len(held) % HOLD == 0)
    warnings = _left_out(model, missing, len(pictures))
    return Scene(pictures, cameras, held, torch.from_numpy(found.points).float(), torch.from_numpy(found.colours).float(), warnings)


def _straight(picture: Tensor, camera: Camera, distortion: np.ndarray) -> tuple[Tensor, Camera]:
    """The picture without distortion and its pinhole; the camera is the file's, whose picture may have been shrunk when read."""
    camera = camera.resized((picture.shape[0], picture.shape[1]))
    if distortion.any():
        picture, new = undistorted(picture, camera.K[0].numpy(), distortion)
        camera = Camera(camera.c2w, torch.from_numpy(new)[None], camera.size)
    return picture, camera


def undistorted(picture: Tensor, K: np.ndarray, distortion: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """The picture as a pinhole would have taken it, cut to what was seen everywhere, and that pinhole's K.

    picture (H, W, C) uint8; K (3, 3) with pixel centres at +1/2; distortion (k1, k2, p1, p2), and k3 where it is known
    """
    half = np.zeros((3, 3))
    half[:2, 2] = 0.5  # OpenCV's pixel centres are whole numbers
    h, w = picture.shape[:2]
    new, _ = cv2.getOptimalNewCameraMatrix(K - half, distortion, (w, h), 0)
    maps = cv2.initUndistortRectifyMap(K - half, distortion, np.eye(3), new, (w, h), cv2.CV_32FC1)
    pixels = cv2.remap(picture.numpy(), *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return torch.from_numpy(pixels), new + half


def _picture(path: Path, most: int) -> tuple[Tensor, tuple[int, int]]:
    """Pixels as uint8, as they lie in the file, and the file's size."""
    rgb, alpha, size = image.read_pixels(path, upright=False, most=most)
    both = rgb if alpha is None else np.concatenate([rgb, alpha[..., None]], -1)
    return torch.from_numpy((both * 255).round().clip(0, 255).astype(np.uint8)), (int(size[0]), int(size[1]))
