# SPDX-License-Identifier: Apache-2.0
"""Meshes as files: GLB (glTF 2.0, written here), and what trimesh reads. The one border at which axes turn.

Written here because the bytes are the contract: the same mesh gives the same file, the Khronos validator has nothing to
say about it, and the metadata sits where the standard wants it (`asset.extras`). Files appear whole or not at all.
"""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bozzetto.camera import from_gltf, to_gltf
from bozzetto.errors import InputError
from bozzetto.files import write_atomically
from bozzetto.mesh import Mesh, vertex_normals

PNG_LIMIT = 3 * 2**20  # bytes: above it the texture is a JPEG of quality 95, a tenth of the size
ROUGHNESS = 0.8  # lights in a picture are baked into its colours; a duller surface adds fewer of its own
GREY = 0.8  # linear base colour where there is no texture
ARRAY, ELEMENTS = 34962, 34963  # bufferView targets
FLOAT, USHORT, UINT = 5126, 5123, 5125  # component types
LINEAR, TRILINEAR, CLAMP = 9729, 9987, 33071


def save(mesh: Mesh, path: str | Path, *, extras: dict[str, Any] | None = None, name: str = "bozzetto", lossless: bool = False) -> None:
    """Write a GLB: one mesh, one material (no metal, roughness ROUGHNESS), the texture inside.

    extras  goes to `asset.extras`; whatever JSON holds, keys sorted
    lossless  the texture is a PNG, however large
    raises  ValueError for a mesh without faces, with an index or a number that is none, or extras that JSON cannot hold
    """
    _check(mesh)
    normals = vertex_normals(mesh.vertices, mesh.faces) if mesh.normals is None else mesh.normals
    pieces: list[bytes] = []
    views: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []

    def view(data: bytes, target: int | None) -> int:
        views.append({"buffer": 0, "byteOffset": sum(map(len, pieces)), "byteLength": len(data)} | ({"target": target} if target else {}))
        pieces.append(data + bytes(-len(data) % 4))
        return len(views) - 1

    def accessor(array: np.ndarray, kind: str, component: int, target: int, bounds: bool = False) -> int:
        entry = {"bufferView": view(array.tobytes(), target), "componentType": component, "count": len(array), "type": kind}
        if bounds:
            entry |= {"min": array.min(0).tolist(), "max": array.max(0).tolist()}
        accessors.append(entry)
        return len(accessors) - 1

    attributes = {
        "POSITION": accessor(_little(to_gltf(mesh.vertices)), "VEC3", FLOAT, ARRAY, bounds=True),
        "NORMAL": accessor(_little(to_gltf(torch.nn.functional.normalize(normals, dim=1))), "VEC3", FLOAT, ARRAY),
    }
    if mesh.uv is not None:
        attributes["TEXCOORD_0"] = accessor(_little(mesh.uv), "VEC2", FLOAT, ARRAY)
    is_short = len(mesh.vertices) < 65535  # the last one means "restart"
    flat = mesh.faces.cpu().numpy().reshape(-1).astype("<u2" if is_short else "<u4")
    indices = accessor(flat, "SCALAR", USHORT if is_short else UINT, ELEMENTS)
    look: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": ROUGHNESS}
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "bozzetto"} | ({"extras": extras} if extras else {}),
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name}],
        "meshes": [{"name": name, "primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}],
        "materials": [{"name": name, "pbrMetallicRoughness": look}],
    }
    if mesh.texture is not None and mesh.uv is not None:
        data, kind = _encode(mesh.texture, lossless)
        document["images"] = [{"bufferView": view(data, None), "mimeType": kind, "name": name}]
        document["samplers"] = [{"magFilter": LINEAR, "minFilter": TRILINEAR, "wrapS": CLAMP, "wrapT": CLAMP}]
        document["textures"] = [{"sampler": 0, "source": 0}]
        look["baseColorTexture"] = {"index": 0}
    else:
        look["baseColorFactor"] = [GREY, GREY, GREY, 1.0]
    body = b"".join(pieces)
    document |= {"accessors": accessors, "bufferViews": views, "buffers": [{"byteLength": len(body)}]}
    try:
        head = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError) as e:
        raise ValueError(f"save: extras must be what JSON holds: {e}") from e
    head += b" " * (-len(head) % 4)
    chunks = struct.pack("<I4s", len(head), b"JSON") + head + struct.pack("<I4s", len(body), b"BIN\0") + body
    _write(Path(path), struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)


def load(path: str | Path) -> Mesh:
    """The triangles of a GLB, OBJ or PLY, all parts in one, with normals, uv and base colour where the file has them."""
    import trimesh

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a GLB, OBJ or PLY")
    if path.suffix.lower() not in (".glb", ".gltf", ".obj", ".ply"):
        raise InputError(f"{path}: cannot read {path.suffix or 'a file without suffix'}; give a GLB, OBJ or PLY")
    try:
        scene = trimesh.load_scene(path, process=False)
        nodes = [n for n in scene.graph.nodes_geometry if isinstance(scene.geometry[scene.graph[n][1]], trimesh.Trimesh)]
        if len(nodes) == 1:  # joining would forget the normals
            matrix, key = scene.graph[nodes[0]]
            loaded = scene.geometry[key]
            loaded = loaded if np.array_equal(matrix, np.eye(4)) else loaded.apply_transform(matrix)
        else:
            loaded = scene.to_mesh()
    except Exception as e:  # trimesh raises whatever its parsers do
        raise InputError(f"{path}: cannot be read as {path.suffix[1:].upper()} ({e}); export it again") from e
    if len(loaded.faces) == 0:
        raise InputError(f"{path}: no triangles found; give a surface, not points or lines")
    uv = getattr(loaded.visual, "uv", None)
    image = _image(loaded.visual) if uv is not None else None
    texture = None if image is None else torch.from_numpy(np.asarray(image.convert("RGB"), np.float32) / 255)
    normals = loaded.vertex_normals if "vertex_normals" in loaded._cache else None  # from the file, not guessed across seams
    return Mesh(
        from_gltf(torch.from_numpy(np.asarray(loaded.vertices, np.float32))),
        torch.from_numpy(np.asarray(loaded.faces, np.int64)),
        None if normals is None else from_gltf(torch.from_numpy(np.asarray(normals, np.float32))),
        None if uv is None else flip_v(torch.from_numpy(np.asarray(uv, np.float64))).float(),
        texture,
    )


def flip_v(uv: Tensor) -> Tensor:
    """(N, 2) with v = 0 at the top row (glTF, ours) to v = 0 at the bottom (OBJ, OpenGL, trimesh); its own inverse."""
    return torch.stack([uv[:, 0], 1 - uv[:, 1]], dim=1)


def _check(mesh: Mesh) -> None:
    f = mesh.faces
    if len(f) == 0 or int(f.min()) < 0 or int(f.max()) >= len(mesh.vertices):
        raise ValueError(f"save: expected faces that name the {len(mesh.vertices)} vertices, got {len(f)} faces")
    for field in ("vertices", "normals", "uv", "texture"):
        value = getattr(mesh, field)
        if value is not None and not torch.isfinite(value).all():
            raise ValueError(f"save: mesh.{field} holds numbers that are not finite")


def _little(array: Tensor) -> np.ndarray:
    return np.ascontiguousarray(array.detach().cpu().numpy().astype("<f4"))


def _encode(texture: Tensor, lossless: bool) -> tuple[bytes, str]:
    """PNG, exact to the byte, or JPEG where that would be large; and its MIME type."""
    png = _png(texture)
    if lossless or len(png) <= PNG_LIMIT:
        return png, "image/png"
    out = io.BytesIO()
    _bytes(texture).save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue(), "image/jpeg"


def _png(texture: Tensor) -> bytes:
    out = io.BytesIO()
    _bytes(texture).save(out, "PNG", compress_level=6)
    return out.getvalue()


def _bytes(texture: Tensor) -> Image.Image:
    return Image.fromarray((texture.detach().cpu().float().clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy())


def _image(visual: Any) -> Image.Image | None:
    material = getattr(visual, "material", None)
    found = getattr(material, "baseColorTexture", None)
    return found if found is not None else getattr(material, "image", None)


def _write(path: Path, data: bytes) -> None:
    try:
        write_atomically(path, data, shared=True)
    except FileNotFoundError as e:
        raise InputError(f"{path.parent}: no such folder; make it first") from e
