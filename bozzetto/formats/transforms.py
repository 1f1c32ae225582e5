# SPDX-License-Identifier: Apache-2.0
"""`transforms.json` in the dialects that are met: NeRF-synthetic's, instant-ngp's and nerfstudio's, read into poses and lenses.

Poses are camera to world, OpenGL axes, as ours. NeRF-synthetic knows one `camera_angle_x`; instant-ngp and nerfstudio write `fl_x`,
`fl_y`, `cx`, `cy` in pixels of a picture of `w` x `h` and a distortion `k1`, `k2`, `k3`, `p1`, `p2` of OpenCV's, each for the whole
file or for a frame, which goes before. What a file says of its lens is used or refused, never passed over.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bozzetto.camera import focal
from bozzetto.errors import InputError

LENSES = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")
BENT = ("k1", "k2", "p1", "p2", "k3")  # in OpenCV's order
OTHER = ("is_fisheye", "ftheta_p0", "latlong", "equirectangular", "k4")  # true or not 0: a lens that is none of LENSES


@dataclass(frozen=True)
class Frame:
    """One picture's name as the file has it, its pose (3, 4), and what is said of its lens, by the file's own words."""

    name: str
    c2w: np.ndarray
    said: dict[str, float]

    def lens(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray] | None:
        """K (3, 3) for a picture of `size` (height, width) and the distortion; None where the file was made for another shape.

        A picture that is smaller or larger all over, as those in `images_2` are, has the same lens.
        """
        said, (h, w) = self.said, size
        width, height = said.get("w", w), said.get("h", h)
        is_scaled = w != width and h != height and abs(w * height - h * width) <= max(w, h, width, height)  # rounded to whole pixels
        if (w, h) != (width, height) and not is_scaled:
            return None
        x, y = w / width, h / height
        fx = said["fl_x"] if "fl_x" in said else focal(said["camera_angle_x"], width)
        fy = said["fl_y"] if "fl_y" in said else focal(said["camera_angle_y"], height) if "camera_angle_y" in said else fx
        K = np.array([[fx * x, 0, said.get("cx", width / 2) * x], [0, fy * y, said.get("cy", height / 2) * y], [0, 0, 1]])
        return K, np.array([said.get(name, 0.0) for name in BENT])


def read(path: Path) -> list[Frame]:
    """The frames of a file, checked for all that is used.

    raises  InputError for what is no such file, a pose that is no rotation, or a lens that is not known
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a scene with transforms.json") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: is no JSON; write it again, as NeRF-synthetic, instant-ngp and nerfstudio do") from None
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames:
        raise InputError(f"{path}: has no list `frames`; give one as NeRF-synthetic, instant-ngp and nerfstudio write it")
    return [_frame(path, content, frame, number) for number, frame in enumerate(frames)]


def _frame(path: Path, content: dict[str, Any], frame: Any, number: int) -> Frame:
    name = frame.get("file_path") if isinstance(frame, dict) else None
    if not isinstance(name, str) or "\0" in name:
        raise InputError(f"{path}: frame {number} has no file_path; write the picture's name there")
    pose = _numbers(frame.get("transform_matrix"))
    if pose.shape not in ((4, 4), (3, 4)):
        raise InputError(f"{path}: the transform_matrix of {name} is not 4 x 4 finite numbers; export the poses again")
    R = pose[:3, :3]
    if not np.allclose(R @ R.T, np.eye(3), atol=1e-4) or np.linalg.det(R) < 0:
        raise InputError(f"{path}: the pose of {name} is no rotation; export it without scale")
    U, _, V = np.linalg.svd(R)  # files hold seven digits
    return Frame(name, np.concatenate([U @ V, pose[:3, 3:]], 1), _said(path, {**content, **frame}, name))


def _numbers(value: Any) -> np.ndarray:
    """Of finite numbers, or with one dimension of length 0."""
    try:
        array = np.array(value, np.float64)
    except (ValueError, TypeError, OverflowError):
        return np.zeros(0)
    return array if np.isfinite(array).all() else np.zeros(0)


def _said(path: Path, words: dict[str, Any], name: str) -> dict[str, float]:
    model = words.get("camera_model", LENSES[0])
    if model not in LENSES or any(words.get(key) not in (None, 0, False) for key in OTHER):
        kind = f"camera_model {model}" if model not in LENSES else next(key for key in OTHER if words.get(key))
        raise InputError(f"{path}: {name} was taken by a lens that is not known ({kind}); undistort the pictures first")
    said: dict[str, float] = {}
    for key in ("camera_angle_x", "camera_angle_y", "fl_x", "fl_y", "cx", "cy", "w", "h", *BENT):
        if words.get(key) is not None:
            value = _numbers(words[key])
            if value.shape != ():
                raise InputError(f"{path}: {key} of {name} is not a finite number; export the cameras again")
            said[key] = float(value)
    for key, value in said.items():
        is_angle = key.startswith("camera_angle")
        if (is_angle and not 0 < value < math.pi) or (key in ("fl_x", "fl_y", "w", "h") and not 0 < value < 1e9):
            ought = "between 0 and pi" if is_angle else "above 0"
            raise InputError(f"{path}: {key} of {name} is {value:g}, expected a number {ought}; export the cameras again")
    if "fl_x" not in said and "camera_angle_x" not in said:
        raise InputError(f"{path}: says no focal length for {name}; add fl_x (in pixels) or camera_angle_x (in radians)")
    return said
