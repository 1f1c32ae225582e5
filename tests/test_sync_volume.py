# SPDX-License-Identifier: Apache-2.0
"""SyncDreamer's volume (SY-1, 2, 3, 5, 6): where views, vertices and frustums meet, against closed forms and loops in float64."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.camera import Camera, look_at
from bozzetto.priors.sync_volume import (
    DISTANCE,
    REACH,
    DepthAttention,
    DepthTransformer,
    Volume,
    VolumeConfig,
    frustum_points,
    look_through,
    looked_up,
    ring,
    unproject,
    vertices,
)
from tests.twins import sync as twin

CONFIG = VolumeConfig(
    size=8, time=16, width=8, features=8, volume=(8, 16, 16, 16), frustum=(8, 16, 16, 16), cells=8, depths=8, half_pixel=True
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def volume() -> Volume:
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        return Volume(CONFIG).eval()


# ---- vertices and views ----


def test_sy_1_the_cubes_centre_is_every_pictures_middle_where_pixels_are_looked_up_at_their_centres() -> None:
    cameras, centre = ring(16, 32), torch.zeros(1, 3, dtype=torch.float64)
    assert looked_up(cameras, centre, half_pixel=True).abs().max() < 1e-12
    published = (looked_up(cameras, centre, half_pixel=False) + 1) * 31 / 2
    assert (published - 16).abs().max() < 1e-12  # the middle of 32 cells is 15.5


def test_sy_1_symmetric_features_make_a_symmetric_volume_under_the_right_rule_alone() -> None:
    features = noise(1, 1, 3, 16, 16)
    features = features + features.flip(-1)
    made = {rule: unproject(features, ring(16, 16)[0], 7, rule) for rule in (True, False)}
    off = {rule: float((made[rule] - made[rule].flip(3)).abs().max()) for rule in made}  # view 0 has y to its right
    assert off[True] < 1e-5 and off[False] > 0.1


@pytest.mark.parametrize("half_pixel", [False, True])
def test_unprojection_agrees_with_a_loop_under_the_released_matrices(half_pixel: bool) -> None:
    features = noise(2, 16, 2, 8, 8)
    made = unproject(features, ring(16, 8), 4, half_pixel)
    wanted = twin.unprojected(features, 4, 0.5 * half_pixel)
    assert (made - wanted).abs().max() < 1e-5
    mirrored = replace(ring(16, 8), c2w=ring(16, 8).c2w[[-k % 16 for k in range(16)]])
    assert (unproject(features, mirrored, 4, half_pixel) - wanted).abs().max() > 0.5  # the control: azimuths that run clockwise


def test_vertices_stand_in_a_tensor_as_z_y_x() -> None:
    at = vertices(5)
    assert at[4, 0, 1].tolist() == [-0.25, -0.5, 0.5] and at[2, 2, 2].tolist() == [0, 0, 0]


CENTRE, RADIUS = torch.tensor([0.08, -0.11, 0.06], dtype=torch.float64), 0.3


def colour(points: Tensor) -> Tensor:
    """Of points (..., 3): (..., 3), like no mirror image or turn of itself."""
    x, y, z = points.unbind(-1)
    return torch.stack([(5 * x + 2 * y).sin(), (4 * y - 3 * z + 1).sin(), (6 * z + x).cos()], -1)


def ball(cameras: Camera) -> Tensor:
    """Pictures (V, 3, h, w) of a coloured ball off the centre: colours where rays meet it first, zeros elsewhere."""
    o, d = cameras.rays()
    b, c = ((o - CENTRE) * d).sum(-1), (o - CENTRE).square().sum(-1) - RADIUS**2
    hit = b * b > c
    t = -b - (b * b - c).clamp(min=0).sqrt()
    return (colour(o + t[..., None] * d) * hit[..., None]).movedim(-1, 1)


def test_sy_2_views_agree_at_a_surface_and_only_there() -> None:
    cameras = ring(16, 128)
    towards = torch.nn.functional.normalize(noise(300, 3).double(), dim=-1)
    eyes = cameras.position[:, None]

    def off(points: Tensor, taken: Camera, half_pixel: bool) -> float:
        """Mean difference from the surface's colour, of views that see the point squarely."""
        at = looked_up(cameras, points, half_pixel)[:, None]
        seen = F.grid_sample(ball(taken), at, align_corners=True)[:, :, 0].movedim(1, -1)
        facing = F.cosine_similarity(eyes - (CENTRE + RADIUS * towards), towards[None], dim=-1) > 0.5
        return float((seen - colour(CENTRE + RADIUS * towards)).abs().amax(-1)[facing].mean())

    on, inside = CENTRE + RADIUS * towards, CENTRE + RADIUS / 2 * towards
    right = off(on, cameras, True)
    assert right < 2e-3  # an eighth of a pixel's square (1e-4) times the second derivative (49), seen at up to 60 degrees
    assert off(on, cameras, False) > 5 * right  # half a pixel off
    assert off(inside, cameras, True) > 0.1
    assert off(on, replace(cameras, c2w=cameras.c2w[[-k % 16 for k in range(16)]]), True) > 0.1  # azimuths that run clockwise
    assert off(on, replace(cameras, c2w=look_at(-cameras.position)), True) > 0.1


# ---- frustums ----


def test_sy_3_what_is_behind_a_pixel_lies_on_its_epipolar_lines() -> None:
    cameras = ring(16, 8)
    points = frustum_points(cameras, 6, half_pixel=True)
    pixels = cameras.pixel_centres()
    E, K = twin.poses(), twin.intrinsics(8)

    def residual(n: int, m: int, at: Tensor) -> float:
        """Of x_m' F x_n, F from the released matrices; at (h, w, 2) are the pixels of view n."""
        R = E[m, :, :3] @ E[n, :, :3].T
        t = E[m, :, 3] - R @ E[n, :, 3]
        cross = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])
        fundamental = torch.from_numpy(np.linalg.inv(K).T @ cross @ R @ np.linalg.inv(K))
        there = cameras[m].project(points[n].reshape(-1, 3))[0][0].view(*points[n].shape[:-1], 2)
        x_m, x_n = (F.pad(x, (0, 1), value=1.0) for x in (there, at.expand_as(there)))
        return float(((x_m @ fundamental) * x_n).sum(-1).abs().max())

    pairs = [(0, 3), (5, 1), (11, 12)]
    assert max(residual(n, m, pixels) for n, m in pairs) < 1e-9
    assert min(residual(n, m, pixels - 0.5) for n, m in pairs) > 1e-3  # the control: half a pixel off
    assert min(residual(n, (m + 1) % 16, pixels.flip(1)) for n, m in pairs) > 1e-3


def test_sy_6_depths_are_even_about_the_distance() -> None:
    cameras = ring(16, 8)[[0, 5]]
    for rule, shift in ((True, 0.0), (False, 0.5)):
        points = frustum_points(cameras, 48, rule)
        at, depth = cameras.project(points.view(2, -1, 3))
        depth = depth.view(2, 48, 8, 8)
        wanted = torch.linspace(DISTANCE - REACH, DISTANCE + REACH, 48, dtype=torch.float64).view(1, 48, 1, 1)
        assert (depth - wanted).abs().max() < 1e-12
        assert (at.view(2, 48, 8, 8, 2) + shift - cameras.pixel_centres()).abs().max() < 1e-10


def test_a_frustum_looks_into_the_volume_as_a_loop_does_and_sees_zeros_outside() -> None:
    volumes, views = noise(2, 3, 8, 8, 8), [2, 13]
    made = look_through(volumes, ring(16, 8)[views], 8, half_pixel=False)
    for row, (sample, view) in enumerate((s, v) for s in range(2) for v in views):
        assert (made[row] - twin.looked_through(volumes[sample], view, 8, 8)).abs().max() < 1e-5
    ones = look_through(torch.ones(1, 1, 8, 8, 8), ring(16, 8)[0], 8, half_pixel=True)
    inside = (frustum_points(ring(16, 8)[0], 8, half_pixel=True).abs() < 0.5 - 1 / 7).all(-1)
    assert bool((ones[0, 0][inside[0]] > 1 - 1e-5).all()) and float(ones[0, 0, 0].max()) == 0 and bool(inside.any())


# ---- networks ----


@torch.no_grad()
def test_the_volume_knows_views_by_their_place(volume: Volume) -> None:
    x, pose, time = noise(1, 16, 4, 8, 8), noise(1, 16, 4, seed=1), volume.time(torch.tensor([500.0]))
    made = volume.synchronise(x, time, pose)
    for order in ([1, 0, *range(2, 16)], [*range(1, 16), 0]):  # two that change places; all turned by one, so that another is first
        assert (volume.synchronise(x[:, order], time, pose[:, order]) - made).abs().max() > 1e-2
    assert torch.equal(volume.synchronise(x, time, pose), made)


@torch.no_grad()
def test_what_a_view_looks_through_is_the_same_in_any_company(volume: Volume) -> None:
    x, pose, time = noise(2, 16, 4, 8, 8), noise(2, 16, 4, seed=1), volume.time(torch.tensor([3.0, 700.5]))
    fused = volume.synchronise(x, time, pose)
    together, alone = volume.frustums(fused, time, pose, [3, 9]), volume.frustums(fused, time, pose, [9])
    assert list(together) == [8, 4, 2, 1] and [y.shape[2] for y in together.values()] == [8, 4, 2, 1]
    for side, y in together.items():
        assert (y.view(2, 2, *y.shape[1:])[:, 1] - alone[side]).abs().max() < 1e-5
    single = volume.synchronise(x[1:], time[1:], pose[1:])
    assert (single - fused[1:]).abs().max() < 1e-4


def test_every_weight_of_the_volume_gets_a_gradient(volume: Volume) -> None:
    time, pose = volume.time(torch.tensor([500.0])), noise(1, 16, 4, seed=1)
    fused = volume.synchronise(noise(1, 16, 4, 8, 8), time, pose)
    sum(y.square().mean() for y in volume.frustums(fused, time, pose, [0, 5]).values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in volume.parameters())
    volume.zero_grad()


def test_sizes_are_multiples_of_eight() -> None:
    with pytest.raises(ValueError, match="multiples of 8, got size 8, cells 8, depths 12"):
        replace(CONFIG, depths=12)


@torch.no_grad()
def test_sy_5_values_that_depth_does_not_change_leave_the_query_without_a_say() -> None:
    attention = DepthAttention(8, 4)
    context = noise(2, 4, 6, 5, 5)
    context[:, 2:] = context[:, 2:, :1]
    attention.to_v.weight[:, :2] = 0  # values of what is the same in all depths, keys of all
    made = [attention(noise(2, 8, 5, 5, seed=s), context) for s in (0, 1)]
    assert (made[0] - made[1]).abs().max() < 1e-5
    context[:, 2:] = noise(2, 2, 6, 5, 5, seed=3)
    made = [attention(noise(2, 8, 5, 5, seed=s), context) for s in (0, 1)]
    assert (made[0] - made[1]).abs().max() > 1e-3


@torch.no_grad()
def test_sy_5_a_key_that_alone_agrees_picks_its_depth() -> None:
    attention, depth = DepthAttention(4, 4).double(), 3
    for layer in (attention.to_q, attention.to_k, attention.to_v, attention.to_out):
        layer.weight.copy_(torch.eye(4).double().view(layer.weight.shape))
    context = noise(1, 4, 6, 2, 2).double()
    context[:, :, depth] = 100 * context[:, :, depth].sign()  # of four heads one channel each
    made = attention(context[:, :, depth], context)
    assert (made - context[:, :, depth]).abs().max() < 1e-9


@torch.no_grad()
def test_depth_attention_is_a_softmax_over_depths_cell_by_cell() -> None:
    attention, x, context = DepthAttention(16, 6).double(), noise(2, 16, 3, 4).double(), noise(2, 6, 5, 3, 4, seed=1).double()
    made = attention(x, context)
    q, k, v, out = (layer.weight.flatten(1).numpy() for layer in (attention.to_q, attention.to_k, attention.to_v, attention.to_out))
    for b, j, i in np.ndindex(2, 3, 4):
        query, keys, values = q @ x[b, :, j, i].numpy(), k @ context[b, :, :, j, i].numpy(), v @ context[b, :, :, j, i].numpy()
        found = []
        for head in range(4):
            part = slice(4 * head, 4 * head + 4)
            weight = np.exp(query[part] @ keys[part] / math.sqrt(4))
            found.append(values[part] @ (weight / weight.sum()))
        assert np.abs(made[b, :, j, i].numpy() - out @ np.concatenate(found)).max() < 1e-12


@torch.no_grad()
def test_sy_4_a_depth_transformer_begins_as_the_identity() -> None:
    x, context = noise(2, 16, 4, 4), noise(2, 8, 6, 4, 4, seed=1)
    fresh = DepthTransformer(16, 16, 8)
    assert torch.equal(fresh(x, context), x)
    fresh.proj_out[-1].weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    assert (fresh(x, context) - x).abs().max() > 1e-3
    nothing = [fresh(x, torch.zeros(2, 8, depths, 4, 4)) for depths in (1, 6)]  # zeros look alike at any number of depths
    assert (nothing[0] - nothing[1]).abs().max() < 1e-5
