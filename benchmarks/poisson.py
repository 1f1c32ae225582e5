# SPDX-License-Identifier: Apache-2.0
"""DMTet's networks beside screened Poisson reconstruction (Kazhdan & Hoppe 2013): `python -m benchmarks.poisson`, flags as
`bozzetto.evaluate.shapes`. Needs Open3D (`pip install open3d==0.20.0`), which nothing else here does.

Normals are those of a plane through 16 neighbours, turned alike along a spanning tree, and outwards as a whole, by the sign of the volume.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor

from bozzetto.evaluate.shapes import Settings, Shape, Way, compared

NEIGHBOURS = 16


def poisson(given: Tensor, depth: int) -> Shape:
    """Of points (N, 3), by an octree of so many levels."""
    import open3d  # type: ignore[import-not-found]

    cloud: Any = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(given.double().numpy()))
    cloud.estimate_normals(open3d.geometry.KDTreeSearchParamKNN(NEIGHBOURS))
    cloud.orient_normals_consistent_tangent_plane(NEIGHBOURS)

    def made() -> tuple[np.ndarray, np.ndarray]:
        mesh, _ = open3d.geometry.TriangleMesh.create_from_point_cloud_poisson(cloud, depth=depth, n_threads=1)
        return np.asarray(mesh.vertices), np.asarray(mesh.triangles)

    vertices, faces = made()
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    if (np.cross(a, b) * c).sum() < 0:
        cloud.normals = open3d.utility.Vector3dVector(-np.asarray(cloud.normals))
        vertices, faces = made()
    return torch.from_numpy(vertices.copy()).float(), torch.from_numpy(faces.astype(np.int64))


def way(depth: int) -> Way:
    return lambda given: poisson(given, depth)


def main(settings: Settings) -> None:
    """Print the table of points."""
    compared(settings, "points", {f"Poisson, depth {depth}": way(depth) for depth in (6, 7, 8)})


if __name__ == "__main__":
    main(tyro.cli(Settings))
