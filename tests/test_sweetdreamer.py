# SPDX-License-Identifier: Apache-2.0
"""SweetDreamer's maps against closed forms, and its network against the authors' layers, unfolded, in float64."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bozzetto.camera import Camera, orbit
from bozzetto.errors import InputError
from bozzetto.mesh import vertex_normals
from bozzetto.priors import load
from bozzetto.priors.components import Tensors
from bozzetto.priors.coordinates import TURN, UNIT, Box, camera_label, coordinate_map, picture
from bozzetto.priors.exact_maps import ExactMaps
from bozzetto.priors.loading import load_for
from bozzetto.priors.plan import Asked, Plan, size_of
from bozzetto.priors.sampling import null_of
from bozzetto.priors.sweetdreamer import SweetDreamer, folded
from bozzetto.render.mesh import render_surface
from bozzetto.views import Views
from tests.twins import sweetdreamer as twin
from tests.twins.bank import BANK, CAPTIONS, SIZES, ring

CENTRE = torch.tensor([0.05, -0.1, 0.03])  # of the bank's boxes
LOW, HIGH = CENTRE - torch.tensor(SIZES[0]) / 2, CENTRE + torch.tensor(SIZES[0]) / 2
MIRROR = torch.tensor([1.0, -1.0, 1.0])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flat(depth: Tensor, alpha: Tensor, cameras: Camera) -> Views:
    """Views (V, H, W) of depth and coverage alone."""
    nothing = torch.zeros(*depth.shape, 3)
    return Views(nothing, alpha[..., None], depth[..., None], nothing, cameras)


def points_on(box: tuple[Tensor, Tensor], count: int) -> Tensor:
    """Points (N, 3) on the faces of a box."""
    u = torch.rand(count, 3, generator=seeded(1), dtype=torch.float64)
    axis = torch.randint(3, (count,), generator=seeded(2))
    u[torch.arange(count), axis] = torch.randint(2, (count,), generator=seeded(3)).double()
    return box[0] + (box[1] - box[0]) * u


def seen_at(points: Tensor, cameras: Camera) -> Views:
    """Each of N points as one camera's one pixel, through whose middle it lies; of one camera for each of V N views."""
    at, depth = cameras.project(points)
    K = cameras.K[:, None].repeat(1, len(points), 1, 1)
    K[..., :2, 2] += 0.5 - at
    c2w = cameras.c2w[:, None].expand(-1, len(points), -1, -1)
    one = Camera(c2w.flatten(0, 1), K.flatten(0, 1), (1, 1))
    deep = depth.reshape(-1, 1, 1)
    return flat(deep, torch.ones_like(deep), one)


# ---- maps ----


def test_sw_1_a_point_has_one_coordinate_in_every_view():
    cameras, points, box = ring(7, elevation=0.4), points_on((LOW, HIGH), 50), Box.of(LOW, HIGH)
    maps = coordinate_map(seen_at(points, cameras), box, 1)[:, :3, 0, 0].view(7, 50, 3)
    expected = ((points - CENTRE) / (HIGH - LOW) * 2 / 1.1)[:, [1, 0, 2]] * torch.tensor([1.0, -1.0, 1.0])
    torch.testing.assert_close(maps, expected.float().expand(7, -1, -1), rtol=0, atol=2e-6)  # float32, at distances of 2
    wrong = replace(cameras, c2w=cameras.c2w * torch.tensor([1.0, 1.0, 1.0, 1.1]))  # cameras that stand elsewhere
    views = replace(seen_at(points, cameras), cameras=seen_at(points, wrong).cameras)
    apart = coordinate_map(views, box, 1)[:, :3, 0, 0].view(7, 50, 3)
    assert (apart - apart[:1]).abs().amax() > 0.05


def test_sw_2_of_a_sphere_a_map_is_its_points_over_the_radius():
    """(p + r) / 2 r of the paper, in [-1, 1] and turned; rays meet the sphere by the quadratic formula."""
    r, c = 0.4, torch.tensor([0.1, -0.2, 0.05], dtype=torch.float64)
    cameras = ring(3, elevation=0.35, size=24)
    origin, along = cameras.rays()
    back = origin - c
    b = (back * along).sum(-1)
    inside = b**2 - back.square().sum(-1) + r**2
    hit = inside > 1e-3
    p = origin + (-b - inside.clamp(min=0).sqrt())[..., None] * along
    depth = torch.where(hit, ((cameras.position[:, None, None] - p) * cameras.c2w[:, None, None, :, 2]).sum(-1), 0)
    maps = coordinate_map(flat(depth, hit.double(), cameras), Box.of(c - r, c + r), 24).movedim(1, -1)
    q = (p - c) / (1.1 * r)
    expected = torch.stack([q[..., 1], -q[..., 0], q[..., 2]], -1).float()
    torch.testing.assert_close(maps[..., :3][hit], expected[hit], rtol=0, atol=3e-6)
    mirrored, turned = expected * MIRROR, torch.stack([-q[..., 1], q[..., 0], q[..., 2]], -1).float()
    assert all((maps[..., :3][hit] - wrong[hit]).abs().amax() > 1 for wrong in (mirrored, turned))


def test_sw_2_a_rendered_map_is_what_the_renderer_says_of_its_points():
    """Where the colour of a surface is its coordinate, the map and the picture are one; and the camera's label is in the map's frame."""
    cameras, box = orbit([0.3, 2.0, 4.4], [0.3, -0.2, 0.9], 2.0, size=48, fov=0.7), Box.of(LOW, HIGH)
    vertices, faces = mesh_of()

    def shown(points: Tensor, normals: Tensor) -> Tensor:
        return (points - CENTRE) / (HIGH - LOW) * 2 / 1.1

    views = render_surface(vertices, faces, vertex_normals(vertices, faces), cameras, shown)
    maps = coordinate_map(views, box, 48).movedim(1, -1)
    solid = views.alpha[..., 0] == 1
    expected = views.rgb[..., [1, 0, 2]] * torch.tensor([1.0, -1.0, 1.0])
    assert solid.sum() > 500
    torch.testing.assert_close(maps[..., :3][solid], expected[solid], rtol=0, atol=5e-6)
    told = replace(cameras, c2w=camera_label(cameras).double().view(-1, 3, 4))  # as the network is told: it sees turned points
    turned = told.unproject(cameras.pixel_centres().expand(3, -1, -1, -1).float(), views.depth[..., 0])
    middle, half = (TURN @ box.centre).float(), box.half[[1, 0, 2]].float()
    torch.testing.assert_close(((turned - middle) / half)[solid], maps[..., :3][solid], rtol=0, atol=5e-6)


def mesh_of() -> tuple[Tensor, Tensor]:
    """Vertices and faces of the bank's first box."""
    import trimesh

    made = trimesh.creation.box(SIZES[0]).subdivide().subdivide()
    return torch.tensor(made.vertices).float() + CENTRE, torch.tensor(made.faces).long()


def test_sw_3_stretching_an_object_leaves_its_map_as_it_is():
    cameras, points, stretch = ring(3), points_on((LOW, HIGH), 40), torch.tensor([1.0, 3.0, 0.2])

    def mapped(by: Tensor, is_isotropic: bool) -> Tensor:
        box = Box.of(LOW * by, HIGH * by, is_isotropic=is_isotropic)
        return coordinate_map(seen_at(points * by, cameras), box, 1)[:, :3]

    torch.testing.assert_close(mapped(stretch, False), mapped(torch.ones(3), False), rtol=0, atol=1e-5)  # 2e-6 over .2 of a side
    assert (mapped(stretch, True) - mapped(torch.ones(3), True)).abs().amax() > 0.3
    assert mapped(stretch, True).abs().amax() <= 1 / 1.1 + 1e-6  # both stay within their box


def test_sw_4_turning_the_object_changes_its_map_and_turning_the_camera_looks_at_another_side_of_it():
    """Object and camera turned together give one picture, and a map that is turned."""
    box, angle = Box.of(LOW, HIGH, is_isotropic=True), 0.7
    c, s = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    cameras = ring(4, size=32)
    views = BANK[0](cameras)
    turned = replace(views, cameras=replace(cameras, c2w=turn @ cameras.c2w))
    there = Box(turn @ box.centre, box.half)
    before, after = coordinate_map(views, box, 32), coordinate_map(turned, there, 32)
    both = (TURN @ turn @ TURN.mT).float()
    torch.testing.assert_close(after[:, :3], torch.einsum("ij,vjhw->vihw", both, before[:, :3]), rtol=0, atol=5e-6)
    assert (after - before).abs().amax() > 0.5 and torch.equal(after[:, 3], before[:, 3])


def test_sw_5_a_map_moves_along_the_ray_with_depth():
    cameras, box = ring(2, elevation=0.5, size=12), Box.of(LOW, HIGH)
    views = BANK[0](cameras)
    depth, alpha = views.depth[..., 0].clone().requires_grad_(), views.alpha[..., 0]
    weights = torch.randn(2, 4, 12, 12, generator=seeded(6))

    def loss(deep: Tensor) -> Tensor:
        return (coordinate_map(flat(deep, alpha, cameras), box, 12) * weights).sum()

    loss(depth).backward()
    _, along = cameras.rays()
    along = along / -(along * cameras.c2w[:, None, None, :, 2]).sum(-1, keepdim=True)  # as long as depth grows by 1
    slope = (along / box.half)[..., [1, 0, 2]] * torch.tensor([1.0, -1.0, 1.0])
    expected = torch.where(views.depth[..., 0] > 0, (slope * weights[:, :3].movedim(1, -1)).sum(-1) * alpha, 0)
    torch.testing.assert_close(depth.grad, expected.float(), rtol=1e-4, atol=1e-5)
    for k in views.depth[0].flatten().nonzero()[::5, 0].tolist():
        off = torch.zeros_like(alpha).flatten()
        off[k] = 0.05  # maps are linear in depth: only rounding, of sums of hundreds in float32, over .1
        slope_k = (loss(depth.detach() + off.view_as(alpha)) - loss(depth.detach() - off.view_as(alpha))) / 0.1
        assert float(slope_k) == pytest.approx(float(depth.grad.flatten()[k]), abs=2e-3)
    assert (depth.grad - expected.flip(0).float()).abs().amax() > 0.1


def test_sw_6_where_nothing_is_a_map_is_0_and_its_mask_is_less_than_0():
    cameras = ring(1, size=8)
    depth, alpha = torch.full((1, 8, 8), 1.9), torch.ones(1, 8, 8)
    depth[:, :, :3], alpha[:, :, :2], alpha[:, :, 2], alpha[:, :, 5] = 0, 0, 0.4, 0.25
    maps = coordinate_map(flat(depth, alpha, cameras), UNIT, 8)[0]
    whole = coordinate_map(flat(torch.full_like(depth, 1.9), torch.ones_like(alpha), cameras), UNIT, 8)[0]
    assert bool((maps[:3, :, :3] == 0).all())  # outside, and just beyond an antialiased outline, where nothing has a depth
    assert torch.equal(maps[3], 2 * alpha[0] - 1)
    torch.testing.assert_close(maps[:3, :, 5], 0.25 * whole[:3, :, 5])  # half transparent: a mean over what is seen
    assert torch.equal(maps[:3, :, 6:], whole[:3, :, 6:]) and bool((whole[:3].abs() > 0.01).any())
    grey = picture(torch.cat([torch.zeros(1, 3, 8, 8), -torch.ones(1, 1, 8, 8)], 1))
    assert bool((grey == SweetDreamer.background).all())


def test_a_smaller_map_is_a_mean_and_a_sheet_has_a_bounded_gradient():
    cameras = ring(2, size=32)
    views = BANK[0](cameras)
    large, small = (coordinate_map(views, Box.of(LOW, HIGH), size) for size in (32, 16))
    torch.testing.assert_close(small.mean((2, 3)), large.mean((2, 3)), rtol=0, atol=2e-2)  # bilinear weights reach over the borders
    sheet = Box.of(torch.zeros(3), torch.tensor([1.0, 0.0, 0.5]))
    assert sheet.half.tolist() == pytest.approx([0.55, 0.0055, 0.275])


# ---- the network ----


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return twin.write(tmp_path_factory.mktemp("sweetdreamer"))


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(published, tmp_path / "prior"))


def weights_of(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    path = folder / "unet" / twin.WEIGHTS
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def refused(folder: Path, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        load(folder)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_ck_4_three_layers_are_folded_into_one(published: Path):
    """In eval mode, on cameras of all kinds; in training mode, where statistics are the batch's, they are not."""
    weight, bias = folded(Tensors(published / "unet"))
    layers, x = twin.layers().double(), 2 * torch.randn(16, 12, generator=seeded(4), dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(x @ weight.mT + bias, layers(x), rtol=0, atol=1e-12)
        assert (x @ weight.mT + bias - layers.train()(x)).abs().amax() > 1


@pytest.mark.parametrize("step", [20, 500, 980])
def test_a_step_is_that_of_the_authors_layers(published: Path, step: int):
    prior = load(published)
    assert isinstance(prior, SweetDreamer) and prior.shape == (4, 8, 8) and prior.size == 8
    cameras = orbit([0.2, 2.5, -1.0], [0.3, -0.1, 0.7], 1.5, size=8, fov=0.7)
    cond, sigma = prior.condition(cameras=cameras, text="a red chair"), prior.denoiser.sigmas[step]
    x = (1 + float(sigma)) * torch.randn(3, 4, 8, 8, generator=seeded(1))
    expected = twin.clean(published, x, step, prior.condition(text="a red chair")["token"], cameras.c2w)
    with torch.no_grad():
        made = prior.denoiser.denoise(x, sigma, cond)
    # float32's rounding: of the noise that is predicted, times the level
    torch.testing.assert_close(made.double(), expected, rtol=1e-4, atol=1e-4 * max(1.0, float(sigma)))
    flipped = cameras.c2w * torch.tensor([[1.0], [-1.0], [1.0]])
    wrong = twin.clean(published, x, step, prior.condition(text="a red chair")["token"], flipped)
    assert (made - wrong).abs().amax() > 20 * 1e-4 * max(1.0, float(sigma))


def test_what_it_is_told_of_a_camera():
    """A camera in front of the object, at +x, stands at -y of the network's frame, and looks along +y; and it stays where it is."""
    cameras = orbit([0.0, math.pi / 2], 0.0, 1.5, size=8, fov=0.7)
    before = cameras.c2w.clone()
    label = camera_label(cameras).view(2, 3, 4)
    torch.testing.assert_close(label[0], torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, -1.5], [0, 1, 0, 0]]), rtol=0, atol=1e-6)
    torch.testing.assert_close(label[1], torch.tensor([[0.0, 0, 1, 1.5], [1, 0, 0, 0], [0, 1, 0, 0]]), rtol=0, atol=1e-6)
    assert torch.equal(label, camera_label(cameras).view(2, 3, 4)) and torch.equal(cameras.c2w, before)


def test_guidance_has_one_camera_on_both_sides(published: Path):
    prior, cameras = load(published), ring(2)
    before = cameras.c2w.clone()
    null, told = prior.condition(cameras=cameras), prior.condition(cameras=cameras, text="a mug")
    assert torch.equal(null["camera"], told["camera"]) and not torch.equal(null["token"], told["token"])
    assert all(torch.equal(value, null[name]) for name, value in null_of(prior, told).items())  # so are maps drawn, too
    assert torch.equal(cameras.c2w, before)
    x = torch.randn(2, 4, 8, 8, generator=seeded())
    with torch.no_grad():
        one, other = (prior.denoiser.denoise(x, 2.0, {**told, "camera": c}) for c in (told["camera"], told["camera"].flip(0)))
    assert (one - other).abs().amax() > 1e-2


def test_its_own_class_name_nothing_beside_unet_and_half_precision(folder: Path, tmp_path: Path):
    """As it is published there is unet/ alone: the rest is Stable Diffusion's, given as the text tower's folder."""
    x, whole = torch.randn(1, 4, 8, 8, generator=seeded()), load(folder)
    towers = tmp_path / "towers"
    towers.mkdir()
    for name in ("scheduler", "text_encoder", "tokenizer"):
        (folder / name).rename(towers / name)
    assert [p.name for p in folder.iterdir()] == ["unet"]
    with torch.no_grad():
        wanted = whole.denoiser.denoise(x, 1.0, whole.condition(cameras=ring(1), text="mug"))
        for prior in (load(folder, text=towers), load_for("coordinates", folder, text=towers)):
            assert torch.equal(prior.denoiser.denoise(x, 1.0, prior.condition(cameras=ring(1), text="mug")), wanted)
        half = load(folder, text=towers, dtype=torch.bfloat16)
        torch.testing.assert_close(half.denoiser.denoise(x, 1.0, half.condition(cameras=ring(1), text="mug")), wanted, rtol=0.1, atol=0.1)
    refused(folder, "scheduler/ is missing")
    with pytest.raises(InputError, match="a prior of kind sweetdreamer has no use here"):
        load_for("text", folder, text=towers)


NORM = f"{twin.LAYERS}.1"
SPOILT: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "a layer is gone": (lambda t: t.pop(f"{NORM}.running_mean"), "1 missing"),
    "another width": (
        lambda t: t.update({f"{twin.LAYERS}.2.weight": torch.ones(twin.WIDE, 5)}),
        r"camera_embedding.models.2.weight \[64, 5\]",
    ),
    "sixteen numbers": (lambda t: t.update({f"{twin.LAYERS}.0.weight": torch.ones(twin.HIDDEN, 16)}), r"\[24, 16\] instead of \[24, 12\]"),
    "a layer too many": (lambda t: t.update({f"{twin.LAYERS}.4.weight": torch.ones(3)}), "1 unknown"),
    "the U-Net lacks a tensor": (lambda t: t.pop("conv_in.bias"), "1 missing"),
    "not a number": (lambda t: t[f"{NORM}.weight"].fill_(math.nan), "is not finite"),
    "a negative variance": (lambda t: t[f"{NORM}.running_var"].neg_(), "running_var should not be negative"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_weights_are_refused_in_a_sentence(folder: Path, name: str):
    change, says = SPOILT[name]
    weights_of(folder, change)
    refused(folder, says)


def test_spoilt_folders_are_refused_in_a_sentence(folder: Path):
    config = folder / "unet" / "config.json"
    settings = json.loads(config.read_text())
    config.write_text(json.dumps({**settings, "in_channels": 8}))
    refused(folder, "in_channels of the U-Net should be 4")
    config.write_text(json.dumps({**settings, "cross_attention_dim": 64}))
    refused(folder, "cross_attention_dim of the U-Net should be 128")
    config.write_text(json.dumps(settings))
    weights = folder / "unet" / twin.WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    refused(folder, "not a whole safetensors file")
    weights.rename(weights.with_suffix(".bin"))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    (folder / "bozzetto.json").write_text(json.dumps({"kind": "sweetdreamer"}))
    refused(folder, "only pickled weights")


def test_a_plan_reads_no_weights(published: Path):
    outline = load(published, device="meta")
    assert all(p.is_meta for p in outline.unet.parameters())
    plan = Plan().plus(outline, Asked(calls=4, batch=2, pulled=4))
    assert plan.flop > 0 and plan.weights == size_of(load(published))


# ---- the exact prior of maps ----


def test_an_exact_prior_answers_with_the_map_of_the_object_that_is_meant():
    boxes = [Box.of(CENTRE - torch.tensor(s) / 2, CENTRE + torch.tensor(s) / 2) for s in SIZES]
    prior, cameras = ExactMaps(BANK, boxes, ring(4), CAPTIONS, size=16), ring(3, start=0.2)
    views = BANK[2](cameras.resized(16))
    x0 = prior.encode(views, box=boxes[2])
    assert x0.shape == (3, 4, 16, 16) and prior.shape == (4, 16, 16)
    cond = prior.condition(cameras=cameras, text="purple tower")
    x = x0 + 0.5 * torch.randn(x0.shape, generator=seeded(2))
    # the one window left is the object's own: (h**2 x + s**2 y) / (h**2 + s**2)
    torch.testing.assert_close(prior.denoiser.denoise(x, 0.5, cond), (0.01 * x + 0.25 * x0) / 0.26, rtol=0, atol=1e-5)
    mirrored = ExactMaps(BANK, boxes, ring(4), CAPTIONS, size=16, distort=lambda m: m * torch.tensor([1.0, -1.0, 1.0, 1.0]).view(4, 1, 1))
    other = mirrored.denoiser.denoise(x, 0.5, mirrored.condition(cameras=cameras, text="purple tower"))
    assert (other - (0.01 * x + 0.25 * x0) / 0.26).abs().amax() > 0.5
    with pytest.raises(ValueError, match="one for each of 4 objects, got 1"):
        ExactMaps(BANK, boxes[:1], ring(4))
