# SPDX-License-Identifier: Apache-2.0
"""What a lift leaves: `Asset`, and its files."""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto import image
from bozzetto.brief import brief
from bozzetto.camera import Camera, orbit, to_gltf
from bozzetto.errors import InputError
from bozzetto.files import write_atomically
from bozzetto.fit.source import GREY, Source
from bozzetto.formats.gltf import save as save_glb
from bozzetto.mesh import Mesh
from bozzetto.render.mesh import headlight, render_mesh

SPLAT = "asset.ply"  # beside FILES, where the asset was made of Gaussians
EDITS = ("edit.png", "edits.png")  # where it was edited: which texels were changed, and the views
CANDIDATES = "candidates.png"  # where its picture was chosen among drawn ones
OF_PICTURE = ("confidence.png", "mask.png")  # of a lift that starts from a text there are none
FILES = ("asset.glb", "asset.json", *OF_PICTURE, "sheet.png", "turntable.webp")
SIZE, FRAMES = 256, 36  # pixels of each picture in the sheet and in the turntable; pictures once round


@brief
@dataclass(frozen=True)
class Asset:
    """A finished model.

    mesh      textured, in the asset's frame: box centred, longest side 1; its front is where the picture was taken from
    camera    the picture's, in the same frame, looking at the crop (V = 1); without a picture one in front
    picture   what it was made from; None where that was a text
    record    settings, seed, versions: enough to make it again; goes into the GLB, so it holds no times
    measured  timings, losses, memory: goes into asset.json
    files     content of further files, by name
    keeps_pixels  the texture is written without loss, however large
    """

    mesh: Mesh
    camera: Camera
    picture: Source | None
    record: dict[str, Any]
    measured: dict[str, Any] = field(default_factory=dict)
    is_complete: bool = True
    files: dict[str, bytes] = field(default_factory=dict)
    keeps_pixels: bool = False

    @property
    def source(self) -> Source:
        """The picture; raises ValueError for an asset that was made from a text."""
        if self.picture is None:
            raise ValueError("asset: it was made from a text; there is no picture")
        return self.picture

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was said of the picture."""
        return () if self.picture is None else self.picture.warnings

    def write(self, folder: str | Path) -> None:
        """All files of FILES and `files`, each by rename, the GLB last: where it is, everything is. What an older lift left there and
        this one does not write goes.

        raises  InputError where the folder cannot be written
        """
        folder = Path(folder)
        files: dict[str, bytes] = {
            **self.files,
            "turntable.webp": _turntable(_centred(self.mesh)),
            "sheet.png": png(contact_sheet(self)),
        }
        name = str(self.record["source"])
        if self.picture is not None:
            name = Path(self.picture.name).stem
            files["mask.png"] = png(self.picture.alpha[..., None])
            files["confidence.png"] = png((self.mesh.confidence if self.mesh.confidence is not None else torch.ones(1, 1))[..., None])
        files["asset.json"] = (json.dumps(self.description(), indent=1, ensure_ascii=False) + "\n").encode()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for file, data in files.items():
                write_atomically(folder / file, data)
            for file in {SPLAT, CANDIDATES, *EDITS, *OF_PICTURE} - files.keys():
                (folder / file).unlink(missing_ok=True)
            save_glb(self.mesh, folder / "asset.glb", name=name, extras=self.record, lossless=self.keeps_pixels)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error.strerror}); free some space or choose another --out") from None

    def description(self) -> dict[str, Any]:
        """The content of asset.json; the camera in the GLB's frame (up +Y, front +Z, OpenGL axes)."""
        c2w = self.camera.c2w[0]
        pose = torch.cat([to_gltf(c2w.mT).mT, torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)])
        K = self.camera.K[0]
        view = {
            "camera_to_world": [[round(x, 9) for x in row] for row in pose.tolist()],
            "yfov": round(2 * math.atan(self.camera.size[0] / 2 / float(K[1, 1])), 9),
            "aspect": self.camera.size[1] / self.camera.size[0],
        }
        counts = {"vertices": len(self.mesh.vertices), "faces": len(self.mesh.faces)}
        return {
            **self.record,
            "complete": self.is_complete,
            **({} if self.picture is None else {"matting": self.picture.matting}),
            "warnings": list(self.warnings),
            "camera": view,
            **counts,
            **self.measured,
        }


def png(picture: Tensor) -> bytes:
    """(H, W, 1 or 3) in [0, 1] as PNG."""
    from PIL import Image

    pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def save_png(picture: Tensor, out: Path) -> None:
    """`png`, whole or not at all; raises InputError where it cannot be written"""
    try:
        write_atomically(out, png(picture))
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); choose another --out") from None


def check_png(out: Path) -> None:
    """raises InputError where no picture can be written there, before the slow work"""
    if out.suffix.lower() != ".png" or out.is_dir() or not out.parent.is_dir():
        raise InputError(f"{out}: expected a .png file in a folder that is there; choose another --out")


def _turntable(mesh: Mesh) -> bytes:
    """An animated WebP, once round."""
    ring = [orbit([2 * math.pi * k / FRAMES], [0.25], 2.6, size=2 * SIZE, fov=0.55) for k in range(FRAMES)]
    return image.animation([torch.from_numpy(_look(mesh, cameras, lit=True)[0]) / 255 for cameras in ring])


def _centred(mesh: Mesh) -> Mesh:
    """In the asset's frame, for showing; another tool's model may stand anywhere."""
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    middle, side = (low + high) / 2, float((high - low).max())
    if abs(side - 1) < 0.01 and float(middle.abs().max()) < 0.01:
        return mesh
    return replace(mesh, vertices=(mesh.vertices - middle) / max(side, 1e-12))


def _look(mesh: Mesh, cameras: Camera, *, lit: bool, normals: bool = False) -> np.ndarray:
    """uint8 (V, H/2, W/2, 3) over light grey, averaged from twice the size."""
    views = render_mesh(mesh, cameras, headlight(cameras) if lit else None)
    grey = torch.tensor(GREY)
    rgb = views.over(grey)
    if normals:  # camera frame: right, up, towards the eye
        local = torch.einsum("vhwi,vij->vhwj", views.normal, cameras.c2w[:, :, :3].to(views.normal))
        rgb = (0.5 + 0.5 * local) * views.alpha + (1 - views.alpha) * grey
    small = F.avg_pool2d(rgb.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    return (small.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def contact_sheet(asset: Asset) -> Tensor:
    """Picture and mask, the picture's own view again, if there is one; then eight views all round and their normals: (H, W, 3)."""
    azimuths = [2 * math.pi * k / 8 for k in range(8)]
    cameras, mesh = orbit(azimuths, [0.25] * 8, 2.6, size=2 * SIZE, fov=0.55), _centred(asset.mesh)
    rounds = [torch.from_numpy(_look(mesh, cameras, lit=lit, normals=not lit)) / 255 for lit in (True, False)]
    rows = [] if asset.picture is None else [_compared(asset.picture, asset)]
    for pictures in rounds:
        rows += [torch.cat(list(pictures[:4]), 1), torch.cat(list(pictures[4:]), 1)]
    return torch.cat(rows, 0)


def _compared(source: Source, asset: Asset) -> Tensor:
    """A row of the sheet: picture, mask, and the picture's own view in colours and normals."""
    crop = image.crop(source.shown, source.alpha, SIZE)
    whole = image.resample(torch.cat([source.shown, torch.ones_like(source.alpha)[..., None]], -1), crop.box, SIZE)
    shown = whole[..., :3] + (1 - whole[..., 3:]) * GREY
    mask = crop.alpha[..., None].expand(-1, -1, 3)
    again = torch.from_numpy(_look(asset.mesh, asset.camera.resized(2 * SIZE), lit=False)[0]) / 255
    shape = torch.from_numpy(_look(asset.mesh, asset.camera.resized(2 * SIZE), lit=False, normals=True)[0]) / 255
    return torch.cat([shown, mask, again, shape], 1)
