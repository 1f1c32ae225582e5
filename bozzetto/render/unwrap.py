# SPDX-License-Identifier: Apache-2.0
"""`unwrap`: texture coordinates for a closed surface, within a stated time at any number of faces.

xatlas (Young 2018-2024) cuts and flattens surfaces up to FACES_PER_SECOND * seconds faces, larger ones are projected
(`charts.project`): a rule over counts, so that the same mesh gives the same coordinates. xatlas runs in a process of its
own, which is ended if it takes longer than `seconds` after all, or crashes; then a warning is given and the projection
steps in. Left at its defaults, xatlas spends nearly all its time flattening a few large charts: 30 000 faces take 6 s,
60 000 up to 36 s. Capping a chart's area at 1/50 of the whole (or at 300 faces' worth) makes it linear, 15 000 faces a
second on one busy core.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import torch

from bozzetto.kernels.pool import njit
from bozzetto.mesh import Mesh, vertex_normals
from bozzetto.render import charts

FACES_PER_SECOND = 3000  # a fifth of what was measured: slow and busy machines keep the bound too
CHARTS, CHART_FACES = 50, 300  # at least so many charts; at most about so many faces in one
PADDING = 5  # texels of xatlas's own atlas, which comes out up to 1.6 times the resolution: at least 3 of ours


def unwrap(mesh: Mesh, *, seconds: float = 20.0, resolution: int = 1024) -> Mesh:
    """The same surface with uv; vertices on a seam stand once for each side, in the order of the originals' bits.

    mesh     with vertices shared between faces; its uv and texture, if any, are dropped
    seconds  a bound on one core of 2015 or later; the method is chosen by it, before any work
    returns  vertices (M, 3) with M >= N, normals (M, 3) those of the surface before it was cut, uv (M, 2) in [0, 1],
             charts at least 2 texels of `resolution` apart and free of overlap (`overlaps` counts)
    raises   ValueError for a mesh without faces or with a vertex that is not finite
    """
    if len(mesh.faces) == 0 or not torch.isfinite(mesh.vertices).all():
        raise ValueError(f"unwrap: expected finite vertices and at least one face, got {len(mesh.faces)} faces")
    vertices = np.ascontiguousarray(mesh.vertices.detach().cpu().numpy(), np.float32)
    faces = np.ascontiguousarray(mesh.faces.cpu().numpy(), np.int64)
    result = None
    if len(faces) <= FACES_PER_SECOND * seconds:
        result = _xatlas(vertices, faces, resolution, seconds)
        if result is not None and overlaps(result[2], result[1], resolution) > 0:
            result = None
    if result is None:
        *result, apart = charts.project(vertices, faces, resolution)
        if not apart:
            warnings.warn(f"unwrap: too many charts for 2 texels between them; use more than {resolution} texels or fewer faces", stacklevel=2)
    index, new_faces, uv = (torch.from_numpy(np.ascontiguousarray(x)) for x in result)
    normals = vertex_normals(mesh.vertices, mesh.faces) if mesh.normals is None else mesh.normals
    device = mesh.vertices.device
    index = index.to(device)
    return replace(
        mesh, vertices=mesh.vertices[index], faces=new_faces.to(device), normals=normals[index], uv=uv.to(device), texture=None, confidence=None
    )


def overlaps(uv: np.ndarray, faces: np.ndarray, resolution: int) -> int:
    """How many texel centres lie strictly inside more than one face; uv (N, 2), faces (F, 3)."""
    count = np.zeros((resolution, resolution), np.int32)
    _count(np.asarray(uv, np.float64) * resolution, np.asarray(faces, np.int64), count)
    return int((count > 1).sum())


@njit
def _count(p, faces, count):
    size = len(count)
    for f in range(len(faces)):
        x0, y0 = p[faces[f, 0], 0], p[faces[f, 0], 1]
        x1, y1 = p[faces[f, 1], 0], p[faces[f, 1], 1]
        x2, y2 = p[faces[f, 2], 0], p[faces[f, 2], 1]
        sign = 1.0 if (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0) > 0 else -1.0
        eps = 1e-6 * size  # float32 coordinates: a centre that close to an edge is on it
        for r in range(max(0, int(np.ceil(min(y0, y1, y2) - 0.5))), min(size - 1, int(np.floor(max(y0, y1, y2) - 0.5))) + 1):
            y = r + 0.5
            for c in range(max(0, int(np.ceil(min(x0, x1, x2) - 0.5))), min(size - 1, int(np.floor(max(x0, x1, x2) - 0.5))) + 1):
                x = c + 0.5
                if (
                    sign * ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) > eps
                    and sign * ((x2 - x1) * (y - y1) - (x - x1) * (y2 - y1)) > eps
                    and sign * ((x0 - x2) * (y - y2) - (x - x2) * (y0 - y2)) > eps
                ):
                    count[r, c] += 1


# The other process: numpy and xatlas only, arrays through its pipes.
_WORKER = """
import io, sys
import numpy as np, xatlas
data = np.load(io.BytesIO(sys.stdin.buffer.read()))
atlas, chart, pack = xatlas.Atlas(), xatlas.ChartOptions(), xatlas.PackOptions()
atlas.add_mesh(data["vertices"], data["faces"])
chart.max_chart_area = float(data["area"])
pack.resolution, pack.padding, pack.bilinear = int(data["resolution"]), int(data["padding"]), True
atlas.generate(chart, pack)
index, faces, uv = atlas[0]
out = io.BytesIO()
np.savez(out, index=index, faces=faces, uv=uv, size=np.array([atlas.width, atlas.height, atlas.atlas_count]))
sys.stdout.buffer.write(out.getvalue())
"""


def _xatlas(vertices: np.ndarray, faces: np.ndarray, resolution: int, seconds: float) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Index (M,), faces (F, 3), uv (M, 2), or None (with a warning) where it did not finish."""
    import io

    area = np.linalg.norm(np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]]), axis=1).sum() / 2
    data = io.BytesIO()
    most = area / max(CHARTS, len(faces) / CHART_FACES)
    np.savez(data, vertices=vertices, faces=faces.astype(np.uint32), area=most, resolution=resolution, padding=PADDING)
    command = [sys.executable, "-c", _WORKER]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    try:
        done = subprocess.run(command, input=data.getvalue(), capture_output=True, timeout=seconds, check=True, env=environment)
        answer = np.load(io.BytesIO(done.stdout))
        index, new_faces, uv, size = (answer[k] for k in ("index", "faces", "uv", "size"))
    except subprocess.TimeoutExpired:
        warnings.warn(f"unwrap: xatlas took more than {seconds} s over {len(faces)} faces; the surface is projected instead", stacklevel=3)
        return None
    except (OSError, subprocess.CalledProcessError) as e:
        last = (getattr(e, "stderr", b"") or str(e).encode()).decode(errors="replace").strip().splitlines()
        warnings.warn(f"unwrap: xatlas failed ({last[-1] if last else e}); the surface is projected instead", stacklevel=3)
        return None
    if size[2] != 1 or new_faces.shape != faces.shape or not np.isfinite(uv).all():
        warnings.warn("unwrap: xatlas left faces out; the surface is projected instead", stacklevel=3)
        return None
    uv = (uv * (size[:2] / size[:2].max())).clip(0, 1).astype(np.float32)  # square texels
    return index.astype(np.int64), new_faces.astype(np.int64), uv
