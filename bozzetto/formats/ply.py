# SPDX-License-Identifier: Apache-2.0
"""Gaussians on disk: the `.ply` of 3D Gaussian Splatting's own code, read and written bit for bit, and `.splat` for viewers.

The `.ply`: binary, little endian, float32: x y z nx ny nz (0), f_dc_0..2 (degree 0 of red, green, blue), f_rest_0..44 (the other
harmonics, all of red first), opacity (a logit), scale_0..2 (logarithms), rot_0..3 (w, x, y, z). Files with fewer harmonics are read
too, and get zeros. `.splat`: 32 bytes each, no harmonics, the most visible first. `.spz`: Niantic's packed format, by gsply.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bozzetto.errors import InputError
from bozzetto.kernels import harmonics
from bozzetto.shapes.gaussians import Gaussians

REST = 45
FIELDS = (
    *("x", "y", "z", "nx", "ny", "nz"),
    *(f"f_dc_{i}" for i in range(3)),
    *(f"f_rest_{i}" for i in range(REST)),
    "opacity",
    *(f"scale_{i}" for i in range(3)),
    *(f"rot_{i}" for i in range(4)),
)
TYPES = {"float": "<f4", "float32": "<f4", "double": "<f8", "uchar": "u1", "uint8": "u1", "char": "i1", "int8": "i1"}
TYPES |= {"short": "<i2", "int16": "<i2", "ushort": "<u2", "uint16": "<u2", "int": "<i4", "int32": "<i4", "uint": "<u4", "uint32": "<u4"}
MAX_HEADER = 1 << 16
OPAQUE, FLAT = 30.0, -30.0  # for a logit or logarithm that is infinite: nothing that is drawn tells them from it


def _warn(sentence: str) -> None:
    print(f"warning: {sentence}", file=sys.stderr)


def to_ply(g: Gaussians) -> bytes:
    """The content of a `.ply`."""
    n = len(g)
    table = np.zeros((n, len(FIELDS)), "<f4")
    with torch.no_grad():
        table[:, :3] = g.means.cpu()
        table[:, 6:9] = g.sh0[:, 0].cpu()
        table[:, 9 : 9 + REST] = g.sh.mT.reshape(n, REST).cpu()
        table[:, 54] = g.logit_opacities.cpu()
        table[:, 55:58] = g.log_scales.cpu()
        table[:, 58:] = g.quats.cpu()
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {n}", *(f"property float {name}" for name in FIELDS), "end_header"]
    return ("\n".join(head) + "\n").encode() + table.tobytes()


def from_ply(path: str | Path, *, warn: Callable[[str], None] = _warn) -> Gaussians:
    """Gaussians of a `.ply`; properties may stand in any order, and unknown ones are ignored.

    Infinities that editors write have a meaning: an opacity is opaque or nothing, a scale of minus infinity is flat. A Gaussian with
    any other, with a NaN or without a rotation cannot be drawn: it is left out, and `warn` gets a sentence with the count.

    raises  InputError for a file that cannot be read, is no binary little-endian PLY, lacks a property, ends early or holds
            nothing that can be drawn
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a .ply of Gaussians") from None
    table = _table(path, data)
    names = table.dtype.names or ()
    missing = [name for name in FIELDS if name not in names and not name.startswith(("n", "f_rest"))]
    if missing:
        raise InputError(f"{path}: holds no Gaussians ({', '.join(missing[:4])} missing); give a .ply of 3D Gaussian Splatting")
    rest = sum(name.startswith("f_rest_") for name in names)
    if rest not in (0, 9, 24, 45) or any(f"f_rest_{i}" not in names for i in range(rest)):
        raise InputError(f"{path}: holds {rest} higher harmonics, expected f_rest_0 to 8, 23 or 44, or none")
    if not len(table):
        raise InputError(f"{path}: holds no Gaussians (0 vertices); give another file")

    def columns(*fields: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([table[f].astype(np.float32) for f in fields], -1))

    sh = torch.zeros(len(table), 15, 3)
    if rest:
        sh[:, : rest // 3] = columns(*(f"f_rest_{i}" for i in range(rest))).view(len(table), 3, rest // 3).mT
    parts = (
        columns("x", "y", "z"),
        columns("scale_0", "scale_1", "scale_2"),
        columns("rot_0", "rot_1", "rot_2", "rot_3"),
        columns("opacity")[:, 0],
        columns("f_dc_0", "f_dc_1", "f_dc_2")[:, None],
        sh,
    )
    scales, opacity = parts[1], parts[3]
    scales[scales == -math.inf] = FLAT
    opacity[opacity == math.inf], opacity[opacity == -math.inf] = OPAQUE, -OPAQUE
    good = torch.stack([torch.isfinite(p).view(len(table), -1).all(1) for p in parts]).all(0) & (parts[2] != 0).any(1)
    if not good.all():
        lost = int((~good).sum())
        what = (
            f"{lost} of {len(table)} Gaussians hold a number that is not finite, or no rotation (the first is {int((~good).nonzero()[0])})"
        )
        if not good.any():
            raise InputError(f"{path}: {what}; export it again")
        warn(f"{path}: {what}; they are left out")
    g = Gaussians(*(p[good] for p in parts))
    g.degree = {0: 0, 9: 1, 24: 2, 45: 3}[rest]
    return g


def to_splat(g: Gaussians) -> bytes:
    """The content of a `.splat`: position and scales as float32, colour and opacity, then rotation, as bytes."""
    record = np.dtype([("position", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("rotation", "u1", 4)])
    with torch.no_grad():
        order = torch.argsort(-(g.scales.prod(-1) * g.opacities), stable=True)
        table = np.zeros(len(g), record)
        table["position"], table["scale"] = g.means[order].numpy(), g.scales[order].numpy()
        rgb = 0.5 + g.sh0[:, 0] * float(harmonics.basis(torch.zeros(3), 0))
        rgba = torch.cat([rgb, g.opacities[:, None]], -1)[order]
        table["rgba"] = (rgba.clamp(0, 1) * 255).round().numpy()
        quats = torch.nn.functional.normalize(g.quats, dim=-1)[order]
        table["rotation"] = (quats * 128 + 128).clamp(0, 255).round().numpy()
    return table.tobytes()


def to_spz(g: Gaussians) -> bytes:
    """The content of a `.spz`, version 3 (gzip), which most viewers read: positions in 24 bits, the rest in 8, rotations in 32.

    Frames stay as they are, as in the `.ply`. Harmonics beyond -1 to 1 are cut off, those above `g.degree` left out.
    raises  InputError without gsply
    """
    library = spz_library()
    # Steps of a power of two, as fine as 23 bits allow for the farthest Gaussian, and no finer than the scales' own 8 bits deserve.
    reach = max(float(g.means.detach().abs().max()), 1e-9)
    bits = max(1, min(16, 22 - math.ceil(math.log2(reach))))
    count = (g.degree + 1) ** 2 - 1
    with torch.no_grad():
        quats = torch.nn.functional.normalize(g.quats, dim=-1)
        parts = (g.means, g.log_scales, quats, g.logit_opacities, g.sh0[:, 0], g.sh[:, :count])
        arrays = [p.detach().cpu().numpy() for p in parts]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.spz"
        library.write_spz(path, library.GSData.from_arrays(*arrays, format="ply"), version=3, fractional_bits=bits)
        data = bytearray(path.read_bytes())
    data[4:8] = bytes(4)  # gzip's time of writing: the same Gaussians are the same bytes
    return bytes(data)


def spz_library() -> Any:
    """gsply; raises InputError where it is not installed"""
    try:
        import gsply
    except ImportError:
        raise InputError("writing .spz needs gsply; pip install 'bozzetto[spz]'") from None
    return gsply


def _table(path: str | Path, data: bytes) -> np.ndarray:
    eol = next((e for e in (b"\r\n", b"\n", b"\r") if data[3:].startswith(e)), b"\n")  # one throughout: the body may begin with any byte
    stop = eol + b"end_header" + eol
    end = data.find(stop, 0, MAX_HEADER)
    if not data.startswith(b"ply" + eol) or end < 0:
        raise InputError(f"{path}: is no PLY file; give a .ply of Gaussians")
    end += len(eol)
    lines = [line.split() for line in data[:end].decode("ascii", "replace").splitlines()]
    if ["format", "binary_little_endian", "1.0"] not in lines:
        raise InputError(f"{path}: is not a binary little-endian PLY; export it again as such")
    elements = [line for line in lines if line[:1] == ["element"]]
    if not elements or len(elements[0]) != 3 or elements[0][1] != "vertex" or not elements[0][2].isdecimal():
        raise InputError(f"{path}: its first element is not `vertex`; give a .ply of Gaussians")
    last = lines.index(elements[1]) if len(elements) > 1 else len(lines)
    fields: list[tuple[str, str]] = []
    for line in lines[lines.index(elements[0]) + 1 : last]:
        if line[:1] == ["property"]:
            if len(line) != 3 or line[1] not in TYPES or line[2] in dict(fields):
                raise InputError(f"{path}: cannot read `{' '.join(line)}`; give a .ply of Gaussians")
            fields.append((line[2], TYPES[line[1]]))
    if not fields:
        raise InputError(f"{path}: its vertices have no properties; give a .ply of Gaussians")
    record, n = np.dtype(fields), int(elements[0][2])
    body = memoryview(data)[end + len(stop) - len(eol) :]
    if n * record.itemsize > len(body):
        raise InputError(f"{path}: ends early ({len(body)} of {n * record.itemsize} bytes); copy or download it again")
    return np.frombuffer(body, record, n)
