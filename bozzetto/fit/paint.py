# SPDX-License-Identifier: Apache-2.0
"""The last stage of every lift: a clean mesh gets its texture.

What the picture shows is projected; what it hides is looked up (`render.hidden`), or drawn by a prior. Colour is not optimised: one view
fixes it exactly. Where there is no picture, all colours are a prior's (`colour`).
"""

from __future__ import annotations

from dataclasses import replace

from bozzetto.camera import Camera
from bozzetto.fit.clean import Clean
from bozzetto.fit.solid import Colours
from bozzetto.fit.source import Source
from bozzetto.mesh import Mesh, vertex_normals
from bozzetto.render.bake import scatter, seen, texels
from bozzetto.render.extend import extend
from bozzetto.render.hidden import looked_up, surely_shown, taught
from bozzetto.render.mesh import render_mesh
from bozzetto.render.unwrap import unwrap

FORGET = 0.02  # `extend`'s fade: what was wrong at the border is forgotten within some seven edges of the mesh


def paint(source: Source, guessed: Colours, clean: Clean, camera: Camera, texture: int, *, drawn: bool = False) -> Mesh:
    """A textured, unwrapped mesh: seen texels from the picture, the others by `render.hidden` from the picture and what was guessed.

    Where the picture ends, those are wrong by some amount; that difference is continued over the hidden side, so that no seam shows,
    and is forgotten within some edges of the mesh, so that no shadow or rim is carried round the object.

    clean    in the asset's frame; camera and colours are in the crop's
    texture  texels a side
    drawn    the guessed colours are a prior's drawings, with details of their own: they are taken as they are, and the difference
             goes all round
    """
    crop = source.crop(512)
    vertices, faces = clean.in_crop(clean.vertices), clean.faces
    normals = vertex_normals(vertices, faces)
    views = render_mesh(Mesh(vertices, faces, normals), camera)
    depth = views.depth[0, ..., 0]
    invented = guessed(vertices, normals)
    if not drawn:
        known = taught(camera, depth, views.normal[0], crop.rgb, crop.alpha, guessed)
        invented = looked_up(vertices, normals, invented, known, float((vertices.amax(0) - vertices.amin(0)).norm()))
    colour, weight = seen(vertices, normals, camera, depth, crop.rgb, crop.alpha, margin=0.0)
    weight = weight * surely_shown(vertices, camera, crop.alpha)  # a rim of paper would be carried on
    wrong = extend(faces, colour - invented, weight, fade=1e-4 if drawn else FORGET)
    mesh = unwrap(Mesh(clean.vertices, faces, normals), resolution=texture)
    assert mesh.normals is not None and mesh.uv is not None
    t = texels(mesh, texture)
    position = clean.in_crop(t.position)
    colour, weight = seen(position, t.normal, camera, depth, crop.rgb, crop.alpha)
    corner = faces[t.face.view(-1)[t.index]]  # unwrap keeps the faces' order
    at_vertices = wrong if drawn else invented + wrong
    filled = (t.bary[..., None].to(wrong) * at_vertices[corner]).sum(1) + (guessed(position, t.normal) if drawn else 0)
    flat = (weight[:, None] * colour + (1 - weight[:, None]) * filled).clamp(0, 1)
    return replace(mesh, texture=scatter(t, flat), confidence=scatter(t, weight[:, None])[..., 0])


def colour(drawn: Colours, clean: Clean, texture: int) -> Mesh:
    """A textured, unwrapped mesh of a lift without a picture: each texel has its colour of the crop's frame.

    texture  texels a side
    """
    normals = vertex_normals(clean.vertices, clean.faces)
    mesh = unwrap(Mesh(clean.vertices, clean.faces, normals), resolution=texture)
    t = texels(mesh, texture)
    return replace(mesh, texture=scatter(t, drawn(clean.in_crop(t.position), t.normal).clamp(0, 1)))
