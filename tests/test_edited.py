# SPDX-License-Identifier: Apache-2.0
"""An asset edited by its views: under an exact prior the part that is meant gets its colour, and all else keeps its pixels."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
import trimesh
from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.fit.change import Belief, laid_on, smooth_normals
from bozzetto.fit.edited import Editing, cameras_round, edited
from bozzetto.fit.run import Run
from bozzetto.mesh import Mesh, vertex_normals
from bozzetto.priors.joint import looking_across
from bozzetto.render.bake import scatter, texels
from bozzetto.render.mesh import render_mesh
from bozzetto.render.unwrap import unwrap
from tests.twins.editor import Recolours

SIDE, TEXTURE = 96, 256
HOW = Editing(image_guidance=1.0)


class Scene(NamedTuple):
    """A box and a knob beside it, off the origin and of no symmetry, under a fine chequer that the codec of the exact prior loses."""

    mesh: Mesh
    wanted: Tensor
    is_part: Tensor
    cameras: Camera
    before: Tensor
    after: Tensor


def pictures(mesh: Mesh, cameras: Camera) -> Tensor:
    big = render_mesh(mesh, cameras.resized(2 * SIDE)).over(1.0)
    return F.avg_pool2d(big.movedim(-1, 1), 2).movedim(1, -1).clamp(0, 1)


@pytest.fixture(scope="module")
def scene() -> Scene:
    body, knob = (trimesh.creation.box(size).subdivide().subdivide().subdivide() for size in ([0.5, 0.35, 0.3], [0.2, 0.15, 0.5]))
    knob.apply_translation([0.16, -0.35, 0.2])
    both = trimesh.util.concatenate([body, knob]).apply_translation([0.3, -0.2, 0.1])
    vertices, faces = torch.tensor(both.vertices).float(), torch.tensor(both.faces).long()
    mesh = unwrap(Mesh(vertices, faces, vertex_normals(vertices, faces)), resolution=TEXTURE)
    t = texels(mesh, TEXTURE)
    fine = 0.06 * torch.sign(torch.sin(60 * math.pi * t.position).prod(1, keepdim=True))
    colour = torch.tensor([0.6, 0.45, 0.3]) + fine + 0.1 * t.position
    is_part = (t.position[:, 1:2] < -0.4).float()
    wanted = scatter(t, colour + is_part * torch.tensor([-0.4, 0.3, 0.1]))
    mesh = replace(mesh, texture=scatter(t, colour))
    cameras = cameras_round(vertices, HOW.views, SIDE)
    looks = (pictures(m, cameras) for m in (mesh, replace(mesh, texture=wanted)))
    part = torch.where(t.core, scatter(t, is_part)[..., 0], torch.nan)
    return Scene(mesh, wanted, part, cameras, *looks)


def off(scene: Scene, texture: Tensor) -> tuple[Tensor, Tensor]:
    """Largest error of a channel of each texel, in 255ths: of the part, and of the rest."""
    wrong = 255 * (texture - scene.wanted).abs().amax(-1)
    return wrong[scene.is_part == 1], wrong[scene.is_part == 0]


def test_the_part_that_is_meant_is_recoloured_and_the_rest_keeps_its_pixels(scene: Scene) -> None:
    """The prior blurs, and each of its drawings is up to .1 too bright: neither is in the change.

    Half a cell of the codec beside an edge between the two, and what no view sees, is not decided: 2 % of the rest, 10 % of the part.
    """
    run = Run(None, {})
    made, edits, share = edited(scene.mesh, Recolours(scene.before, scene.after, bias=0.1), "paint the knob green", HOW, run)
    part, rest = off(scene, made.texture)
    assert part.mean() < 3 and part.quantile(0.9) < 8 and (rest > 1).float().mean() < 0.02, (part.mean(), (rest > 1).float().mean())
    kept = share == 0
    assert torch.equal(made.texture[kept], scene.mesh.texture[kept])  # to the bit
    assert (share[scene.is_part == 0] == 0).float().mean() > 0.97 and (share[scene.is_part == 1] == 1).float().mean() > 0.97
    assert torch.equal(made.vertices, scene.mesh.vertices) and torch.equal(made.uv, scene.mesh.uv)
    # what it replaces: the drawings' own colours, which lack the chequer, and the difference to the views, which has the prior's tint
    _, touched = off(
        scene, edited(scene.mesh, Recolours(scene.before, scene.after, bias=0.1), "x", replace(HOW, against="view"), run)[0].texture
    )
    assert (touched > 1).float().mean() > 0.2
    chequer = (edits.after - scene.after).abs()[scene.after.amin(-1) < 0.9].mean()
    assert chequer > 10 / 255


@pytest.mark.parametrize("mistake", ["mirrored", "turned", "negative"])
def test_a_mistake_in_the_views_colours_other_texels(scene: Scene, mistake: str) -> None:
    change = scene.after - scene.before
    right = off(scene, laid_on(scene.mesh, scene.cameras, change, Belief()).texture)
    assert right[0].mean() < 3 and (right[1] > 1).float().mean() < 0.02
    wrong = {"mirrored": change.flip(2), "turned": change.roll(1, 0), "negative": -change}[mistake]
    part, _ = off(scene, laid_on(scene.mesh, scene.cameras, wrong, Belief()).texture)
    assert part.mean() > 30, part.mean()


def test_a_change_that_is_the_same_everywhere_is_added_everywhere(scene: Scene) -> None:
    """To rounding, where it is seen squarely, nine texels in ten; at the threshold nothing is, halfway to the second a half of it."""
    for size, share in ((0.2, 1.0), (0.12, 1.0), (0.09, 0.5), (0.06, 0.0), (-0.2, 1.0)):
        made = laid_on(scene.mesh, scene.cameras, torch.full_like(scene.before, size), Belief(0.06, 0.12))
        chart = ~torch.isnan(scene.is_part)
        error = (made.texture - (scene.mesh.texture + share * size).clamp(0, 1)).abs().amax(-1)[chart]
        assert error.quantile(0.9) < 1e-3 and (made.share[chart] <= share + 1e-3).all(), (size, error.quantile(0.9))


def test_a_texture_that_is_not_square_is_changed_in_its_own_size(scene: Scene) -> None:
    wide = F.interpolate(scene.mesh.texture.movedim(-1, 0)[None], (TEXTURE // 2, TEXTURE), mode="area")[0].movedim(0, -1)
    made = laid_on(replace(scene.mesh, texture=wide), scene.cameras, scene.after - scene.before, Belief())
    assert made.texture.shape == wide.shape and made.share.shape == wide.shape[:2]
    half = F.max_pool2d((scene.is_part != 1).float()[None, None], (2, 1))[0, 0] == 0
    gained = (made.texture - wide)[half].mean(0)
    torch.testing.assert_close(gained, torch.tensor([-0.4, 0.3, 0.1]), rtol=0, atol=0.03)  # 3 % of its texels nobody sees


def test_the_cameras_see_the_whole_and_nothing_of_it_is_at_the_border(scene: Scene) -> None:
    for count in (3, 8, 12):
        cameras = cameras_round(scene.mesh.vertices, count, 64)
        alpha = render_mesh(scene.mesh, cameras).alpha[..., 0]
        assert len(alpha) == count and alpha.amax((1, 2)).min() == 1
        assert alpha[:, [0, -1]].max() == 0 and alpha[:, :, [0, -1]].max() == 0
        rows = alpha.amax(2).sum(1).maximum(alpha.amax(1).sum(1))
        assert rows.max() > 0.5 * 64  # and not far away


def test_normals_do_not_know_of_seams(scene: Scene) -> None:
    bare = replace(scene.mesh, normals=None)
    assert (vertex_normals(bare.vertices, bare.faces) - scene.mesh.normals).abs().max() > 0.3  # the control
    used = scene.mesh.faces.unique()
    torch.testing.assert_close(smooth_normals(bare)[used], scene.mesh.normals[used], rtol=0, atol=1e-5)


def test_equal_views_that_look_at_each_other_are_as_if_alone() -> None:
    """Softmax over n copies of the same keys is a mean of equal values; other rows are looked at, and the network is left as it was."""
    from diffusers import UNet2DConditionModel

    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(1)
        shape = {"block_out_channels": (32, 32), "norm_num_groups": 8, "layers_per_block": 1, "cross_attention_dim": 16}
        kinds = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
        unet = UNet2DConditionModel(sample_size=8, attention_head_dim=8, **shape, **kinds).eval().requires_grad_(False)
    x = torch.randn(1, 4, 8, 8, generator=generator).expand(3, -1, -1, -1)
    words = torch.randn(1, 4, 16, generator=generator).expand(3, -1, -1)

    def ask(x: Tensor) -> Tensor:
        return unet(x, torch.tensor(500), encoder_hidden_states=words).sample

    alone = ask(x)
    with looking_across(unet, 3):
        torch.testing.assert_close(ask(x), alone, rtol=0, atol=1e-5)
        mixed = ask(torch.cat([x[:2], 0 * x[:1]]))
    assert (mixed[:2] - alone[:2]).abs().max() > 1e-3 and torch.equal(ask(x), alone)


def test_together_asks_once_for_all_views_and_apart_once_for_each(scene: Scene) -> None:
    asked = []

    class Counts(Recolours):
        unet = SimpleNamespace(attn_processors={}, set_attn_processor=lambda found: None)

        def edited(self, rgb: Tensor, text: str, **how: object) -> Tensor:
            asked.append((len(rgb), text))
            return super().edited(rgb, text, **how)

    few = replace(HOW, views=3)
    cameras = cameras_round(scene.mesh.vertices, 3, SIDE)
    editor = Counts(*(pictures(m, cameras) for m in (scene.mesh, replace(scene.mesh, texture=scene.wanted))))
    one, two = (edited(scene.mesh, editor, "green", replace(few, together=t), Run(None, {}))[0].texture for t in (False, True))
    assert asked == [(1, "green")] * 3 + [(1, "")] * 3 + [(3, "green"), (3, "")]
    torch.testing.assert_close(one, two, rtol=0, atol=1e-4)  # the same noise for each, whatever stands beside it
