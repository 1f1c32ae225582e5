# SPDX-License-Identifier: Apache-2.0
"""Gaussians to a textured mesh: `bozzetto mesh`.

1. look      depth, coverage and colours from many cameras: those of the scene, or a sphere of them
2. fuse      depths into one closed surface (`shapes.fusion`)
3. clean     floaters off, smoothed, decimated, box centred, longest side 1: as `lift` does
4. texture   unwrapped; each texel takes the mean of what the cameras see there, weighted by how squarely they look at it; what none
             sees is continued smoothly over the surface. Baking is `lift`'s, too

Harmonics, if there are any, are averaged away: a texture has one colour a texel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from bozzetto.camera import Camera, orbit
from bozzetto.errors import InputError
from bozzetto.gltf import save as save_glb
from bozzetto.kernels.marching import marching_tetrahedra
from bozzetto.mesh import Mesh, vertex_normals
from bozzetto.recipes.scene import Scene, load
from bozzetto.recipes.settings import Within
from bozzetto.render.bake import blend, scatter, seen, texels
from bozzetto.render.clean import decimate, remove_floaters, taubin
from bozzetto.render.extend import extend
from bozzetto.render.mesh import render_mesh
from bozzetto.render.unwrap import unwrap
from bozzetto.shapes.fusion import fuse
from bozzetto.shapes.gaussians import Gaussians
from bozzetto.shapes.splat_files import from_ply
from bozzetto.shapes.tetgrid import TetGrid

TAIL = 5e-4  # share of the points on each side that may be stray and do not stretch the box
POWER = 6.0  # many views see each texel: the one that looks squarely at it counts most, and the texture stays sharp
SURE = 0.25  # sum of weights that is enough


@dataclass(frozen=True)
class SplatMesh:
    """Settings."""

    cells: Annotated[int, Within(8, 512)] = 128
    """of the lattice, along the longest side of the box"""
    views: Annotated[int, Within(1, 1000)] = 64
    """that are looked from, at most"""
    picture: Annotated[int, Within(16, 4096)] = 384
    """pixels of a view's longer side"""
    faces: int = 60_000
    """of the finished mesh, at most"""
    texture: int = 1024
    """texels a side"""
    floater: float = 0.002
    """share of the faces below which a separate part is dropped"""


@dataclass(frozen=True)
class Looks:
    """V pictures of Gaussians. rgb (V, H, W, 3) premultiplied sRGB, alpha and depth (V, H, W)."""

    rgb: Tensor
    alpha: Tensor
    depth: Tensor
    cameras: Camera


Progress = Callable[[str, float], None]


def mesh_file(
    path: Path, out: Path, settings: SplatMesh = SplatMesh(), *, scene: Path | None = None, progress: Progress | None = None
) -> Mesh:
    """A `.ply` of Gaussians to a GLB; from the cameras of `scene` where it is given.

    raises  InputError, before anything is written, for files that cannot be read or written, settings out of range, or no surface
    """
    if out.suffix.lower() != ".glb":
        raise InputError(f"--out {out}: expected a name that ends in .glb")
    for name, low in (("cells", 8), ("views", 1), ("picture", 16), ("faces", 4), ("texture", 16)):
        if getattr(settings, name) < low:
            raise InputError(f"--{name} {getattr(settings, name)}: expected a whole number of at least {low}")
    g = from_ply(path)
    source = None if scene is None else load(scene)
    cameras = sphere(g, settings) if source is None else picked(source, settings)
    mesh = mesh_of(g, cameras, settings, is_object=source is None or source.has_alpha, progress=progress)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        save_glb(mesh, out, name=path.stem)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); free some space or choose another --out") from None
    return mesh


def sphere(g: Gaussians, s: SplatMesh) -> Camera:
    """Cameras all round the Gaussians that are not faint, which they see whole."""
    solid = g.means.detach()[g.opacities.detach() > 0.5].double()
    if not len(solid):
        raise InputError("no Gaussian is opaque enough for a surface; fit the scene for longer")
    centre = solid.median(0).values
    radius = 1.2 * float((solid - centre).norm(dim=1).quantile(0.99)) + 1e-6
    k = torch.arange(s.views, dtype=torch.float64) + 0.5
    elevation = torch.asin(1 - 2 * k / s.views)  # Fibonacci sphere
    cameras = orbit(math.pi * (1 + 5**0.5) * k, elevation, radius / math.sin(0.3), size=s.picture, fov=0.6)
    return replace(cameras, c2w=torch.cat([cameras.c2w[:, :, :3], cameras.c2w[:, :, 3:] + centre[:, None]], 2))


def picked(scene: Scene, s: SplatMesh) -> Camera:
    """The scene's training cameras, as many as are wanted, evenly from the list, at the size of the first."""
    train = [c for c, held in zip(scene.cameras, scene.held, strict=True) if not held]
    chosen = [train[i * len(train) // min(s.views, len(train))] for i in range(min(s.views, len(train)))]
    h, w = chosen[0].size
    size = (max(1, round(h * s.picture / max(h, w))), max(1, round(w * s.picture / max(h, w))))
    resized = [c.resized(size) for c in chosen]
    return Camera(torch.cat([c.c2w for c in resized]), torch.cat([c.K for c in resized]), size)


def mesh_of(g: Gaussians, cameras: Camera, s: SplatMesh, *, is_object: bool = True, progress: Progress | None = None) -> Mesh:
    """The whole course; `is_object` says that what the Gaussians show is all there is, with nothing round it.

    raises  InputError where the cameras see nothing
    """
    say = progress or (lambda stage, share: None)
    looks = look(g, cameras, lambda share: say("look", share))
    say("fuse", 0)
    vertices, faces = surface(looks, s, is_object=is_object)
    say("clean", 0)
    mesh = remove_floaters(Mesh(vertices, faces), s.floater)
    mesh = decimate(replace(mesh, vertices=taubin(mesh.vertices, mesh.faces, 6)), s.faces)
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    centre, scale = (low + high) / 2, 1 / (high - low).max()
    c2w, depth = cameras.c2w.clone(), looks.depth * scale
    c2w[:, :, 3] = (c2w[:, :, 3] - centre.double()) * float(scale)
    inside = Looks(looks.rgb, looks.alpha, depth, replace(cameras, c2w=c2w))
    return paint(Mesh((mesh.vertices - centre) * scale, mesh.faces), inside, s, lambda share: say("texture", share))


def look(g: Gaussians, cameras: Camera, progress: Callable[[float], None] = lambda share: None, *, median: bool = True) -> Looks:
    """Draw them one by one: a batch's lists would need its memory at once. `median` as `Gaussians.render` has it."""
    parts = []
    with torch.no_grad():
        for v in range(len(cameras)):
            views = g.render(cameras[v], median=median)
            parts.append((views.rgb, views.alpha[..., 0], views.depth[..., 0]))
            progress((v + 1) / len(cameras))
    rgb, alpha, depth = (torch.cat(x) for x in zip(*parts, strict=True))
    return Looks(rgb, alpha, depth, cameras)


def surface(looks: Looks, s: SplatMesh, *, is_object: bool) -> tuple[Tensor, Tensor]:
    """Vertices and faces of the fused depths, in the world."""
    low, high = box(looks) if is_object else looked_into(looks.cameras)
    grid = TetGrid.kuhn(s.cells, low.tolist(), high.tolist())
    sdf = fuse(grid, looks.depth, looks.alpha, looks.cameras)
    vertices, faces, _ = marching_tetrahedra(grid.vertices, sdf, grid)
    if not len(faces):
        raise InputError("the Gaussians have no surface that these cameras see; fit the scene for longer, or give other cameras")
    return vertices, faces


def box(looks: Looks) -> tuple[Tensor, Tensor]:
    """Corners (3,) of a box round what the views see, with room for the lattice to close."""
    points = [
        looks.cameras[v].unproject(looks.cameras.pixel_centres()[None], looks.depth[v : v + 1].double())[0][looks.alpha[v] > 0.5]
        for v in range(len(looks.cameras))
    ]
    found = torch.cat(points)
    if not len(found):
        raise InputError("the Gaussians have no surface that these cameras see; fit the scene for longer, or give other cameras")
    order = found.sort(0).values
    skip = int(TAIL * len(found))
    low, high = order[skip], order[-1 - skip]
    spare = 0.04 * (high - low).max().clamp(min=1e-6)
    return low - spare, high + spare


def looked_into(cameras: Camera) -> tuple[Tensor, Tensor]:
    """Corners of the cube that cameras in a room look into: all of a room would leave nothing of the lattice to what is in it."""
    from bozzetto.recipes.splat import looked_at

    centre, radius = looked_at(cameras.c2w)
    return centre - 0.5 * radius, centre + 0.5 * radius


def paint(mesh: Mesh, looks: Looks, s: SplatMesh, progress: Callable[[float], None] = lambda share: None) -> Mesh:
    """Texture and confidence of a mesh in object units, from pictures of the same frame."""
    normals = vertex_normals(mesh.vertices, mesh.faces)
    flat = unwrap(replace(mesh, normals=normals), resolution=s.texture)
    t = texels(flat, s.texture)
    at_vertices, at_texels = [], []
    for v in range(len(looks.cameras)):
        camera = looks.cameras[v]
        depth = render_mesh(replace(mesh, normals=normals), camera).depth[0, ..., 0]  # the mesh hides itself, not what it was made from
        picture = camera, depth, looks.rgb[v], looks.alpha[v]
        at_vertices.append(seen(mesh.vertices, normals, *picture, power=POWER))
        at_texels.append(seen(t.position, t.normal, *picture, power=POWER))
        progress((v + 1) / len(looks.cameras))
    known, weight = blend(at_vertices)
    mean = (known * weight[:, None]).sum(0) / weight.sum().clamp(min=1e-9)  # what a part that no camera sees falls back to
    whole = extend(mesh.faces, known - mean, weight.clamp(max=1)) + mean
    colour, weight = blend(at_texels)
    guessed = (t.bary[..., None].to(whole) * whole[mesh.faces[t.face.view(-1)[t.index]]]).sum(1)  # unwrap keeps the faces' order
    share = (weight / SURE).clamp(max=1)[:, None]
    painted = scatter(t, (share * colour + (1 - share) * guessed).clamp(0, 1))
    return replace(flat, texture=painted, confidence=scatter(t, share)[..., 0])
