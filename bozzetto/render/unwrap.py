# SPDX-License-Identifier: Apache-2.0
"""`unwrap`: texture coordinates for a closed surface, within a stated time at any number of faces.

Up to FACES_PER_SECOND * seconds faces xatlas (Young 2018-2024) cuts and flattens, larger surfaces are projected
(`charts.project`): a rule over counts, so that the same mesh gives the same coordinates. xatlas runs in a process of its
own, which is ended if it takes more than `seconds` of processor time after all, or PATIENCE times that by the clock, or
crashes; then a warning is given and the projection steps in. Both are laid out by `charts.lay_out`: xatlas's own atlas
now and then overlaps itself (16 of 10^6 texels in one of our three test surfaces).

Left at its defaults, xatlas spends nearly all its time flattening a few large charts: 30 000 faces took 6 s on one busy
core, 60 000 took 15 to 36. Capping a chart's area at 1/50 of the whole (or at CHART_FACES' worth of faces) made it linear:
1.2 to 1.6 s, and 4.
"""

from __future__ import annotations

import io
import math
import os
import signal
import subprocess
import sys
import warnings

import numpy as np
import torch

from bozzetto.mesh import Mesh, vertex_normals
from bozzetto.render import charts

FACES_PER_SECOND = 3000  # a fifth of what was measured: slow and busy machines keep the bound too
PATIENCE = 3  # by the clock, xatlas's process may take so many times its processor time
CHARTS, CHART_FACES = 50, 300  # at least so many charts; at most about so many faces in one


def unwrap(mesh: Mesh, *, seconds: float = 20.0, resolution: int = 1024) -> Mesh:
    """The same surface with uv; vertices on a seam stand once for each side, equal to the bit.

    mesh     with vertices shared between faces; its uv and texture, if any, are dropped
    seconds  of processor time that cutting may take (a few more are spent packing); the method is chosen by it, beforehand
    returns  vertices (M, 3) with M >= N, normals (M, 3) those of the surface before it was cut, uv (M, 2) in [0, 1],
             charts at least 2 texels of `resolution` apart, none overlapping at its texel centres
    raises   ValueError for a mesh without faces or with a vertex that is not finite
    """
    if len(mesh.faces) == 0 or not torch.isfinite(mesh.vertices).all():
        raise ValueError(f"unwrap: expected finite vertices and at least one face, got {len(mesh.faces)} faces")
    vertices = np.ascontiguousarray(mesh.vertices.detach().cpu().numpy(), np.float32)
    faces = np.ascontiguousarray(mesh.faces.cpu().numpy(), np.int64)
    cut = _xatlas(vertices, faces, seconds) if len(faces) <= FACES_PER_SECOND * seconds else None
    if cut is not None:
        old, parted, flat = cut
        index, new_faces, uv, apart = charts.lay_out(flat, parted, np.zeros(len(faces), np.int64), resolution)
        index = old[index]
    else:
        flat, axis = charts.project(vertices, faces)
        index, new_faces, uv, apart = charts.lay_out(flat, faces, axis, resolution)
    if not apart:
        warnings.warn(f"unwrap: too many charts for 2 texels between them; use more than {resolution} texels or fewer faces", stacklevel=2)
    normals = vertex_normals(mesh.vertices, mesh.faces) if mesh.normals is None else mesh.normals
    at, parts, flat_uv = (torch.from_numpy(x).to(mesh.vertices.device) for x in (index, new_faces, uv))
    return Mesh(mesh.vertices[at], parts, normals[at], flat_uv)


# The other process: numpy and xatlas only, arrays through its pipes.
_WORKER = """
import io, sys
try:
    import resource  # a busy machine is not a slow mesh: processor time decides, where it can be had
    resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[1]), int(sys.argv[1]) + 1))
except ImportError:
    pass
import numpy as np, xatlas
data = np.load(io.BytesIO(sys.stdin.buffer.read()))
atlas, chart, pack = xatlas.Atlas(), xatlas.ChartOptions(), xatlas.PackOptions()
atlas.add_mesh(data["vertices"], data["faces"])
chart.max_chart_area = float(data["area"])
pack.resolution, pack.blockAlign = 1024, True  # packed again afterwards
atlas.generate(chart, pack)
index, faces, uv = atlas[0]
out = io.BytesIO()
size = np.array([atlas.width, atlas.height]) / atlas.texels_per_unit
np.savez(out, index=index, faces=faces, uv=uv, size=size, count=atlas.atlas_count)
sys.stdout.buffer.write(out.getvalue())
"""


def _xatlas(vertices: np.ndarray, faces: np.ndarray, seconds: float) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Old vertices (M,), faces (F, 3) parted at seams, flat corners (F, 3, 2) in object units; None, with a warning, where
    it did not finish."""
    corner = vertices[faces].astype(np.float64)
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1).sum() / 2
    data = io.BytesIO()
    np.savez(data, vertices=vertices, faces=faces.astype(np.uint32), area=area / max(CHARTS, len(faces) / CHART_FACES))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    try:
        command = [sys.executable, "-c", _WORKER, str(math.ceil(seconds))]
        done = subprocess.run(command, input=data.getvalue(), capture_output=True, timeout=PATIENCE * seconds, check=True, env=environment)
        answer = np.load(io.BytesIO(done.stdout))
    except subprocess.TimeoutExpired:
        why = f"it took more than {PATIENCE * seconds:g} s"
    except subprocess.CalledProcessError as e:
        lines = e.stderr.decode(errors="replace").strip().splitlines()
        is_late = -e.returncode == getattr(signal, "SIGXCPU", None)
        why = (
            f"it took more than {seconds:g} s of processor time"
            if is_late
            else f"it ended with {e.returncode}: {lines[-1] if lines else ''}"
        )
    except OSError as e:
        why = f"its process did not start ({e})"
    else:
        new_faces = answer["faces"].astype(np.int64)
        flat = (answer["uv"].astype(np.float64) * answer["size"])[new_faces]
        if answer["count"] == 1 and new_faces.shape == faces.shape and np.isfinite(flat).all():
            return answer["index"].astype(np.int64), new_faces, flat
        why = "it left faces out"
    warnings.warn(f"unwrap: without xatlas, since {why}; charts are projected instead", stacklevel=3)
    return None
