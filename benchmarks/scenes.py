# SPDX-License-Identifier: Apache-2.0
"""Three scenes to splat, path-traced: `python -m benchmarks.scenes --blender PYTHON --out data/scenes`.

PYTHON is an interpreter with bpy, Blender as a package (GPL; a program that is run here, no part of Bozzetto). Objects are our procedural
ones, textured, glazed, of metal, with spokes, legs, stems and ribs of a pixel or two. Each scene is a NeRF-synthetic folder: 100
training views and 20 test views of 200 x 200 pixels with transparency, no pose in both. What is there is not rendered again.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.transforms import to_nerf_synthetic
from bozzetto.camera import Camera, orbit
from bozzetto.data.objects import Object
from bozzetto_objects import make

FINISH = {"matt": (0.8, 0.0), "glazed": (0.3, 0.0), "metal": (0.4, 0.9)}  # roughness, metallic


@dataclass(frozen=True)
class Item:
    """An object of a scene: longest side `size`, its bottom at (x, y, z), turned by `turn` radians."""

    family: str
    seed: int
    finish: str
    size: float = 1.0
    at: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn: float = 0.0


SCENES = {
    "bicycle": [Item("bicycle", 0, "metal")],
    "tea": [
        Item("table", 2, "matt"),
        Item("teapot", 3, "glazed", 0.32, (-0.12, -0.1, 0.7305), 0.6),
        Item("cake", 4, "matt", 0.34, (0.14, 0.16, 0.7305), 2.0),
        Item("plant", 0, "matt", 0.42, (0.2, -0.2, 0.7305)),
    ],
    "picnic": [
        Item("umbrella", 4, "matt", 1.0),
        Item("basket", 2, "matt", 0.5, (0.42, 0.1, 0.0), 0.5),
        Item("lamp", 1, "metal", 0.7, (-0.35, 0.3, 0.0)),
        Item("teapot", 1, "glazed", 0.3, (-0.1, -0.42, 0.0), 1.0),
    ],
}


def placed(items: list[Item]) -> tuple[dict[str, np.ndarray], list[dict[str, object]], list[np.ndarray | None]]:
    """All items as arrays of one mesh (box centred, longest side 1), what each material is like, and its texture."""
    parts: dict[str, list[np.ndarray]] = {k: [] for k in ("vertices", "faces", "normals", "material", "uv")}
    materials: list[dict[str, object]] = []
    textures: list[np.ndarray | None] = []
    for item in items:
        o: Object = make(item.family, item.seed)
        c, s = math.cos(item.turn), math.sin(item.turn)
        R = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        v = o.vertices @ R.T * item.size
        before = sum(map(len, parts["vertices"]))
        parts["vertices"].append(v + np.array(item.at) - [0, 0, v[:, 2].min()])
        parts["faces"].append(o.faces + before)
        parts["normals"].append(o.normals @ R.T)
        parts["material"].append(o.material + len(materials))
        parts["uv"].append(o.uv)
        rough, metal = FINISH[item.finish]
        materials += [{"colour": [float(x) for x in colour], "roughness": rough, "metallic": metal} for colour in o.colours]
        textures += o.textures
    arrays = {k: np.concatenate(p) for k, p in parts.items()}
    low, high = arrays["vertices"].min(0), arrays["vertices"].max(0)
    arrays["vertices"] = (arrays["vertices"] - (low + high) / 2) / (high - low).max()
    return arrays, materials, textures


def cameras(count: int, size: int, turn: float) -> Camera:
    """Evenly over the sphere from 10 degrees below the horizon to 75 above, by the golden angle, begun at `turn`."""
    low, high = math.sin(math.radians(-10)), math.sin(math.radians(75))
    azimuth = [turn + math.pi * (3 - 5**0.5) * i for i in range(count)]
    elevation = [math.asin(low + (high - low) * (i + 0.5) / count) for i in range(count)]
    return orbit(azimuth, elevation, 2.6, size=size, fov=0.5)


def write(name: str, out: Path, blender: str, *, train: int, test: int, size: int, samples: int, threads: int) -> None:
    """One scene's pictures and cameras."""
    arrays, materials, textures = placed(SCENES[name])
    with tempfile.TemporaryDirectory() as work:
        for i, texture in enumerate(textures):
            materials[i]["texture"] = None
            if texture is not None:
                Image.fromarray(texture).save(Path(work) / f"{i}.png")
                materials[i]["texture"] = str(Path(work) / f"{i}.png")
        np.savez(Path(work) / "scene.npz", **arrays)
        views, angle = [], 0.0
        for side, count, turn in (("train", train, 0.0), ("test", test, 1.0)):
            (out / name / side).mkdir(parents=True, exist_ok=True)
            transforms = to_nerf_synthetic(cameras(count, size, turn))
            angle = transforms["camera_angle_x"]
            for frame in transforms["frames"]:
                frame["file_path"] = f"{side}/{frame['file_path']}"
                path = (out / name / f"{frame['file_path']}.png").resolve()
                views.append({"path": str(path), "pose": frame["transform_matrix"]})
            (out / name / f"transforms_{side}.json").write_text(json.dumps(transforms, indent=1))
        about = {"materials": materials, "views": views, "angle": angle, "size": size, "samples": samples, "threads": threads}
        (Path(work) / "scene.json").write_text(json.dumps(about))
        subprocess.run([blender, str(Path(__file__).with_name("path_trace.py")), work], check=True, stdout=subprocess.DEVNULL)


def truth(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The scene's own vertices (N, 3) and faces (F, 3), to judge a mesh by."""
    arrays = placed(SCENES[name])[0]
    return torch.from_numpy(arrays["vertices"]).float(), torch.from_numpy(arrays["faces"]).long()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blender", default=sys.executable, help="an interpreter that can import bpy")
    parser.add_argument("--out", type=Path, default=Path("data/scenes"))
    parser.add_argument("--scene", nargs="+", default=list(SCENES), choices=list(SCENES))
    parser.add_argument("--train", type=int, default=100)
    parser.add_argument("--test", type=int, default=20)
    parser.add_argument("--size", type=int, default=200)
    parser.add_argument("--samples", type=int, default=64, help="paths a pixel")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if subprocess.run([args.blender, "-c", "import bpy"], capture_output=True).returncode:
        raise SystemExit(f"error: {args.blender} cannot import bpy; pip install bpy into an interpreter and give it as --blender")
    for name in args.scene:
        size = {k: getattr(args, k) for k in ("train", "test", "size", "samples", "threads")}
        write(name, args.out, args.blender, **size)
        print(args.out / name, flush=True)


if __name__ == "__main__":
    main()
