# SPDX-License-Identifier: Apache-2.0
"""Gaussians to a textured mesh: `bozzetto mesh`.

1. look      depth, coverage and colours from many cameras: those of the scene, or a sphere of them
2. fuse      depths into one closed surface (`shapes.fusion`)
3. clean     floaters off, smoothed, decimated, box centred, longest side 1: as `lift` does
4. texture   unwrapped; each texel takes the mean of what the cameras see there, weighted by how squarely they look at it; what none
             sees is continued smoothly over the surface. Baking is `lift`'s, too

View-dependent colour (harmonics) is averaged out: a texture has one colour a texel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bozzetto.camera import Camera
from bozzetto.errors import InputError
from bozzetto.fit.clean import tidy
from bozzetto.fit.run import Progress
from bozzetto.formats.gltf import save as save_glb
from bozzetto.formats.ply import from_ply
from bozzetto.formats.scene import Scene, load
from bozzetto.mesh import Mesh, vertex_normals
from bozzetto.render.bake import blend, scatter, seen, texels
from bozzetto.render.extend import extend
from bozzetto.render.mesh import render_mesh
from bozzetto.render.unwrap import unwrap
from bozzetto.shapes.gaussians import Gaussians
from bozzetto.shapes.looks import Looks, look, sphere, surface
from bozzetto.verbs.settings import MeshSettings

POWER = 6.0  # many views see each texel: the one that looks squarely at it counts most, and the texture stays sharp
SURE = 0.25  # sum of weights that is enough


@dataclass(frozen=True)
class SplatMesh(MeshSettings):
    """All settings of a mesh."""

    views: int = 64
    """that are looked from, at most"""
    picture: int = 384
    """pixels of a view's longer side"""
    floater: float = 0.002
    """share of the faces below which a separate part is dropped"""


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
    cameras = sphere(g, settings.views, settings.picture) if source is None else picked(source, settings)
    mesh = mesh_of(g, cameras, settings, is_object=source is None or source.has_alpha, progress=progress)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        save_glb(mesh, out, name=path.stem)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); free some space or choose another --out") from None
    return mesh


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
    vertices, faces = surface(looks, s.cells, is_object=is_object)
    say("clean", 0)
    clean = tidy(vertices, faces, s.faces, s.floater)
    inside = Looks(looks.rgb, looks.alpha, looks.depth * clean.scale, clean.camera(cameras))
    return paint(Mesh(clean.vertices, clean.faces), inside, s, lambda share: say("texture", share))


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
