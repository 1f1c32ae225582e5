# SPDX-License-Identifier: Apache-2.0
"""A textured mesh changed as an instruction says: views of it are edited, and what changed in them is laid onto its texture.

1. edits    V cameras all round see the mesh without light; each view is edited by InstructPix2Pix (arXiv:2211.09800) under the one
            instruction and the one noise, and drawn once more under no instruction
2. edited   what the two drawings differ by, at each texel the mean over the views by how squarely they see it, is added to the texture
            where it is more than the prior's own unrest; all other texels keep their pixels, and the shape stays

Kin: Instruct-NeRF2NeRF (Haque et al. 2023, arXiv:2303.12789), whose ablation edits the views of a NeRF once, as here, where its method
edits them one after the other while the NeRF learns them, so that they come to agree. Here they are edited from the same noise, which
holds them together, and if asked for with self-attention across them all. Its NeRF takes the drawings themselves; here only the change
is taken: a codec loses details, and where nothing was asked for the texture would lose them, too.

Letters: V views of S x S pixels."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.brief import brief
from bozzetto.camera import Camera, orbit
from bozzetto.denoiser import Generators
from bozzetto.diffusion.samplers import Watch
from bozzetto.fit.change import Belief, Edited, laid_on, smooth_normals
from bozzetto.fit.run import Run
from bozzetto.fit.settings import Within
from bozzetto.mesh import Mesh
from bozzetto.priors.instruct import STEP
from bozzetto.priors.joint import looking_across
from bozzetto.priors.sampling import Sampler
from bozzetto.render.mesh import render_mesh

LEVEL, ABOVE, BELOW = math.radians(20), math.radians(70), math.radians(-60)  # of the ring, and of the two views that look at its poles
AWAY, AIR = 3.0, 1.05  # the cameras' distance and the picture's half width at the centre, in radii of a sphere round the mesh


@dataclass(frozen=True)
class Editing:
    """How an asset is edited."""

    views: Annotated[int, Within(3, 64)] = 8
    """that are edited: a ring, one from above and one from below"""
    size: Annotated[int | None, Within(64, 2048)] = None
    """pixels a side of a view; None is the prior's"""
    steps: Annotated[int | None, Within(1, 1000)] = None
    """of the sampler; None is the prior's: 100, the paper's"""
    guidance: Annotated[float | None, Within(-100, 100)] = None
    """S_T: more holds harder to the instruction; None is the prior's: 7.5"""
    image_guidance: Annotated[float | None, Within(-100, 100)] = None
    """S_I: more holds harder to the view; None is the prior's: 1.5"""
    against: Literal["redrawn", "view"] = "redrawn"
    """what an edit is compared with: the view as the prior draws it under no instruction, or the view itself, in half the time"""
    together: bool = False
    """whether self-attention looks across all views"""
    believed: Belief = Belief()


class Editor(Protocol):
    """What edits pictures: `instruct.InstructPix2Pix`."""

    @property
    def background(self) -> float: ...
    @property
    def size(self) -> int: ...
    @property
    def sampler(self) -> Sampler: ...
    @property
    def image_scale(self) -> float: ...
    @property
    def unet(self) -> Any: ...  # asked for where views are edited together

    def edited(
        self, rgb: Tensor, text: str, *, image_scale: float, sampler: Sampler | None, generator: Generators, watch: Watch | None
    ) -> Tensor: ...


@brief
@dataclass(frozen=True)
class Edits:
    """Views (V, S, S, 3), sRGB in [0, 1]: as they were, as they were edited, and what an edit is compared with."""

    before: Tensor
    after: Tensor
    against: Tensor


def edited(mesh: Mesh, editor: Editor, text: str, settings: Editing, run: Run, *, seed: int = 0) -> tuple[Mesh, Edits, Tensor]:
    """Stages `edits` and `edited`: the mesh with its texture changed, the views, and the changed texels' share (H, W).

    raises  ValueError for a mesh without a texture
    """
    if mesh.uv is None or mesh.texture is None:
        raise ValueError("edited: expected a mesh with uv and texture")
    mesh = mesh if mesh.normals is not None else replace(mesh, normals=smooth_normals(mesh))
    size = editor.size if settings.size is None else settings.size // STEP * STEP
    cameras = cameras_round(mesh.vertices, settings.views, size)
    edits = run.stage("edits", lambda: edit_views(mesh, cameras, editor, text, settings, run, seed), Edits)
    made = run.stage("edited", lambda: laid_on(mesh, cameras, edits.after - edits.against, settings.believed), Edited)
    return replace(mesh, texture=made.texture), edits, made.share


def cameras_round(vertices: Tensor, count: int, size: int) -> Camera:
    """All round the middle of a box, so far that the sphere round what is in it is just inside each picture."""
    low, high = vertices.amin(0).double(), vertices.amax(0).double()
    middle, ring = (low + high) / 2, count - 2
    radius = float((vertices.double() - middle).norm(dim=1).max())
    azimuths, elevations = [*(2 * math.pi * k / ring for k in range(ring)), 0.0, 0.0], [*[LEVEL] * ring, ABOVE, BELOW]
    made = orbit(azimuths, elevations, AWAY * radius, size=size, fov=2 * math.asin(AIR / AWAY))
    return replace(made, c2w=torch.cat([made.c2w[:, :, :3], made.c2w[:, :, 3:] + middle[:, None]], 2))


@torch.no_grad()
def edit_views(mesh: Mesh, cameras: Camera, editor: Editor, text: str, settings: Editing, run: Run, seed: int) -> Edits:
    """Each view by itself, or all together; what is drawn is kept. raises KeyboardInterrupt between two of them after Ctrl-C"""
    big = render_mesh(mesh, cameras.resized(2 * cameras.size[0])).over(editor.background)  # textures alias: drawn large, averaged
    before = F.avg_pool2d(big.movedim(-1, 1), 2).movedim(1, -1).clamp(0, 1).float()
    own, n = editor.sampler, len(before)
    image_scale = editor.image_scale if settings.image_guidance is None else settings.image_guidance
    how = own._replace(steps=settings.steps or own.steps, guidance=own.guidance if settings.guidance is None else settings.guidance)
    batch, asked = n if settings.together else 1, [text, ""] if settings.against == "redrawn" else [text]
    kept, total, call = run.restore("edits"), len(asked) * math.ceil(n / batch), 0
    drawn = [] if kept is None else list(kept["drawn"].split(batch))
    with looking_across(editor.unet, n) if settings.together else contextlib.nullcontext():
        for words in asked:
            for some in before.split(batch):
                if (call := call + 1) <= len(drawn):
                    continue
                if run.must_stop():
                    raise KeyboardInterrupt
                generators = [torch.Generator().manual_seed(seed) for _ in some]

                def watch(step: int, x: Tensor, denoised: Tensor, done: int = call - 1) -> None:
                    run.progress("edits", (done + (step + 1) / how.steps) / total)

                made = editor.edited(some, words, image_scale=image_scale, sampler=how, generator=generators, watch=watch)
                drawn.append(made.cpu().float())
                run.checkpoint("edits", {"drawn": torch.cat(drawn)})
    all_drawn = torch.cat(drawn)
    return Edits(before, all_drawn[:n], all_drawn[n:] if settings.against == "redrawn" else before)


def sheet(mesh: Mesh, edits: Edits, side: int = 192) -> Tensor:
    """(3 side, V side, 3): the views as they were, as they were edited, and of the mesh as it is now."""
    views = render_mesh(mesh, cameras_round(mesh.vertices, len(edits.before), side)).over(1.0)
    rows = [F.interpolate(x.movedim(-1, 1), (side, side), mode="area").movedim(1, -1) for x in (edits.before, edits.after)]
    return torch.cat([torch.cat([*row], 1) for row in (*rows, views)])
