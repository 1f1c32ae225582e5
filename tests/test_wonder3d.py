# SPDX-License-Identifier: Apache-2.0
"""Wonder3D's network against its twin, its ring, its normals and its folders: WO-1, 4, 5, 6, CK-5, 7, 9."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bozzetto.camera import orbit
from bozzetto.denoiser import VPDenoiser
from bozzetto.diffusion.guidance import classifier_free
from bozzetto.errors import InputError
from bozzetto.priors import components, domains, load, loading, sample
from bozzetto.priors.joint import JointUNet, blocks, look_across
from bozzetto.priors.prior import Reference
from bozzetto.priors.wonder3d import POSES, TURNS, CrossDomainUNet, Wonder3D, clip_pixels, labels
from bozzetto.views import Views
from tests.twins import wonder3d as twin

SIDE = 16  # pixels of the tiny prior
STEP = 300.0


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return twin.parts()


@pytest.fixture(scope="module")
def folder(made: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return twin.write(tmp_path_factory.mktemp("wonder3d") / "published", made)


@pytest.fixture(scope="module")
def prior(folder: Path) -> Wonder3D:
    return loading.load_as(Wonder3D, folder)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def picture() -> Tensor:
    """(1, 16, 16, 3): brighter to the right, redder below, so that no mirror image is the same."""
    rows, columns = torch.linspace(0, 1, SIDE)[:, None], torch.linspace(0, 1, SIDE)[None]
    return torch.stack([rows.expand(-1, SIDE), columns.expand(SIDE, -1), 0.3 + 0 * rows * columns], -1)[None]


REFERENCE = Reference(picture(), orbit([0.4], [0.3], 3.0, size=SIDE, fov=0.5))


def answer(prior: Wonder3D, x_t: Tensor, cond: Any) -> Tensor:
    with torch.no_grad():
        return prior.network(x_t, torch.full((len(x_t),), STEP), **cond)


# ---- the network ----


def test_one_joint_step_is_the_twins(made: dict[str, Any], prior: Wonder3D):
    x_t = noise(12, 4, twin.CELLS, twin.CELLS)
    ours, seen = answer(prior, x_t[None], prior.condition(REFERENCE))[0], picture()[0].movedim(-1, 0)
    assert (ours - twin.noise(made, seen, x_t, STEP)).abs().max() < 1e-4
    none = answer(prior, x_t[None], prior.condition())[0]
    assert (none - twin.noise(made, None, x_t, STEP)).abs().max() < 1e-4
    for wrong in ({"factor": 1.0}, {"exchange": True}, {"colours_first": True}):  # controls
        assert (ours - twin.noise(made, seen, x_t, STEP, **wrong)).abs().max() > 1e-2, wrong


def test_a_guided_batch_keeps_its_domains_apart(made: dict[str, Any], prior: Wonder3D):
    """Two objects at two levels, guided: each as the twin has it by itself."""
    x, sigma, scale = noise(2, 12, 4, twin.CELLS, twin.CELLS), torch.tensor([0.5, 3.0], dtype=torch.float64), 3.0
    both = prior.condition(Reference(torch.cat([picture(), picture().flip(1)]), REFERENCE.cameras))
    with torch.no_grad():
        guided = classifier_free(prior.denoiser, prior.condition(), scale).denoise(x, sigma, both)
    for k, seen in enumerate((picture()[0], picture()[0].flip(0))):
        s = float(sigma[k])
        x_t, step = x[k] / (1 + s**2) ** 0.5, float(prior.denoiser.step(sigma[k]))
        cond, none = (twin.noise(made, y, x_t, step) for y in (seen.movedim(-1, 0), None))
        wanted = x[k] - s * (none + scale * (cond - none))
        assert (guided[k] - wanted).abs().max() < 1e-4 * (1 + s * scale)


@torch.no_grad()
def test_wo_4_ck_5_domains_that_change_places_change_answers_alike(prior: Wonder3D):
    x_t, cond = noise(2, 12, 4, twin.CELLS, twin.CELLS), dict(prior.condition(REFERENCE))
    swap = [*range(6, 12), *range(6)]
    moved = answer(prior, x_t[:, swap], {**cond, "camera": cond["camera"][:, swap]})
    assert (answer(prior, x_t, cond)[:, swap] - moved).abs().max() < 1e-5
    assert (answer(prior, x_t, cond)[:, swap] - answer(prior, x_t[:, swap], cond)).abs().max() > 1e-3  # the control: flags stay


@torch.no_grad()
def test_wo_5_before_it_learns_each_domain_is_a_call_of_the_first_stage(made: dict[str, Any]):
    stage_one, both = JointUNet(made["unet"]), None
    look_across(stage_one)
    x_t, cond = noise(1, 12, 4, twin.CELLS, twin.CELLS), {"camera": labels()[None], "image_latent": noise(1, 1, 4, 8, 8, seed=1)}
    step = torch.tensor([STEP])
    alone = [stage_one(x_t[:, d], step, camera=labels()[None, d], image_latent=cond["image_latent"]) for d in (slice(6), slice(6, 12))]
    both = CrossDomainUNet(twin.parts()["unet"])
    assert torch.equal(torch.cat(alone, 1), both(x_t, step, **cond))  # an attention of zeros adds zeros
    for block in blocks(both.unet):
        block.attn_joint_mid.to_out[0].weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    assert (torch.cat(alone, 1) - both(x_t, step, **cond)).abs().max() > 1e-3


def test_normals_learn_from_colours_of_the_same_view_and_of_others(prior: Wonder3D):
    x_t = noise(1, 12, 4, twin.CELLS, twin.CELLS).requires_grad_()
    made = prior.network(x_t, torch.tensor([STEP]), **prior.condition(REFERENCE))
    (grad,) = torch.autograd.grad(made[:, 2].square().sum(), x_t)
    assert all(float(grad[0, k].abs().max()) > 0 for k in range(12))


def test_it_computes_in_half_precision(folder: Path, prior: Wonder3D):
    half: Any = load(folder, dtype=torch.bfloat16)
    x_t = noise(1, 12, 4, twin.CELLS, twin.CELLS)
    made = answer(half, x_t, half.condition(REFERENCE))
    assert made.dtype == torch.float32 and (made - answer(prior, x_t, prior.condition(REFERENCE))).abs().mean() < 0.05


# ---- conditions ----


def test_ck_9_the_pictures_latent_is_the_mode_and_scaled(made: dict[str, Any], prior: Wonder3D):
    latent = made["vae"].encode(2 * picture().movedim(-1, 1) - 1).latent_dist.mode()
    torch.testing.assert_close(prior.condition(REFERENCE)["image_latent"][:, 0], 0.18215 * latent.detach(), rtol=1e-5, atol=1e-6)


def test_clip_is_shown_what_transformers_shows_it():
    from PIL import Image
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    bytes_ = (picture()[0] * 255).round().to(torch.uint8)
    theirs = CLIPImageProcessorPil(size={"shortest_edge": 10}, crop_size=10)(Image.fromarray(bytes_.numpy()), return_tensors="pt")
    ours = clip_pixels(bytes_[None].float() / 255, 10)
    assert (ours - theirs["pixel_values"]).abs().max() < 1.01 / 255 / 0.26  # bytes, rounded twice


def test_labels_are_sines_and_cosines_of_rounded_poses_and_switches():
    table = labels()
    for k in range(12):
        torch.testing.assert_close(table[k], twin.label(k % 6, k >= 6).float(), rtol=0, atol=1e-7)
    assert (table[0] - table[6]).abs().max() > 0.5


def test_wo_6_the_poses_are_a_level_ring_in_a_tilted_world():
    """Elevation of the ring at a turn a: sin e(a) = cos a sin e_front + sin a sin e_right; azimuth by the plane that both span."""
    front, right = math.sin(math.radians(14.955)), math.sin(math.radians(24.617))
    flat = [math.sqrt(1 - front**2), math.sqrt(1 - right**2)]
    between = math.acos(-front * right / (flat[0] * flat[1]))  # of both horizontal parts: the directions are square to each other
    for turn, (polar, azimuth) in zip(TURNS, POSES, strict=True):
        c, s = math.cos(turn), math.sin(turn)
        up = c * front + s * right
        x, y = c * flat[0] + s * flat[1] * math.cos(between), s * flat[1] * math.sin(between)
        found = -(math.asin(up) - math.asin(front)), math.atan2(y, x) % (2 * math.pi)
        assert found == pytest.approx((polar, azimuth), abs=2e-3), math.degrees(turn)  # float16 near 5.6 has steps of .004


# ---- cameras and normals ----


def test_the_ring_is_level_for_the_pictures_camera(prior: Wonder3D):
    ring = prior.views(REFERENCE)
    assert ring.is_orthographic and len(ring) == 12 and torch.equal(ring.c2w[:6], ring.c2w[6:])
    front = REFERENCE.cameras.c2w[0]
    right, up, back = front[:, 0], front[:, 1], front[:, 2]
    wanted = [back, (back + right) / 2**0.5, right, -back, -right, (back - right) / 2**0.5]
    for k, direction in enumerate(wanted):
        torch.testing.assert_close(ring.c2w[k, :, 2], direction, rtol=0, atol=1e-12)
        torch.testing.assert_close(ring.c2w[k, :, 1], up, rtol=0, atol=1e-12)
        torch.testing.assert_close(ring.c2w[k, :, 3], 3 * direction, rtol=0, atol=1e-12)
    # at the origin's depth the front shows what the picture shows, where it shows it
    points = torch.tensor([[0.0, 0.1, 0.2], [0.0, -0.3, 0.1]], dtype=torch.float64)
    points = points - (points @ back)[:, None] * back
    shown, drawn = (c.resized(SIDE).project(points)[0] for c in (REFERENCE.cameras, ring[0]))
    torch.testing.assert_close(shown, drawn, rtol=0, atol=1e-9)
    assert (ring[5].project(points)[0] - drawn).abs().max() > 0.3
    widths = [12 * [1.35], 12 * [2 * 3 * math.tan(0.25)]]
    for cameras, width in zip((prior.views(), ring), widths, strict=True):
        assert (SIDE / cameras.K[:, 0, 0]).tolist() == pytest.approx(width)


def sphere(cameras: Any, radius: float = 0.4) -> Views:
    """A ball round the origin from orthographic cameras, by hand: n = p / r."""
    at, back = cameras.rays()[0], cameras.c2w[:, None, None, :, 2]
    across = at - (at * back).sum(-1, keepdim=True) * back
    off = across.square().sum(-1, keepdim=True)
    alpha = (off < radius**2).double()
    normal = (across + back * (radius**2 - off).clamp(min=0).sqrt()) / radius * alpha
    rgb = (normal + 1) / 2 * alpha  # colours that say where they are
    return Views(rgb.float(), alpha.float(), 0 * alpha.float(), normal.float(), cameras)


def test_wo_1_normals_are_in_the_axes_of_the_front(prior: Wonder3D):
    cameras = prior.views(REFERENCE).resized(64)
    views = sphere(cameras)
    pictures = domains.to_pictures(views, 12)
    back = domains.to_views(pictures, cameras)
    seen = views.alpha[:6, ..., 0] > 0
    assert (back.normal - views.normal[:6])[seen].abs().max() < 1e-5 and not back.normal[~seen].any()
    torch.testing.assert_close(back.rgb, views.rgb[6:], rtol=0, atol=1e-6)
    assert torch.equal(back.alpha, views.alpha[:6])
    # by the released code's words: camera axes turned from OpenGL's to OpenCV's, and out of the front's
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    world_to_front = flip @ cameras.c2w[0, :, :3].mT
    n = (2 * pictures[:6].double() - 1) @ flip @ world_to_front  # rows: R^-1 diag(1, -1, -1) n
    assert (n - views.normal[:6])[seen].abs().max() < 1e-5
    own = torch.einsum("vij,vhwj->vhwi", cameras.c2w[:6, :, :3], 2 * pictures[:6].double() - 1)  # the control: each camera's own axes
    off = (own - views.normal[:6]).norm(dim=-1)
    assert all(float(off[k][seen[k]].max()) > 0.5 for k in range(1, 6)) and float(off[0][seen[0]].max()) < 1e-5


def test_wo_7_opposite_outlines_mirror_each_other(prior: Wonder3D):
    """Of an off-centre block: orthographic front and back, right and left."""
    cameras = prior.views(REFERENCE).resized(64)
    corners = torch.tensor([[0.1 + 0.2 * i, -0.3 + 0.3 * j, 0.05 + 0.1 * k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]).double()
    columns, rows = cameras.project(corners)[0].unbind(-1)
    for k, opposite in ((0, 3), (2, 4)):
        torch.testing.assert_close(columns[k], 64 - columns[opposite], rtol=0, atol=1e-9)
        torch.testing.assert_close(rows[k], rows[opposite], rtol=0, atol=1e-9)
    assert (columns[0] - (64 - columns[2])).abs().max() > 1


def test_outlines_are_soft_and_white_things_have_one():
    """A white ball: colours say nothing, normals all; and pixels of which the object covers a share."""
    cameras = orbit([0.0] * 12, 0.0, 2.0, size=32, ortho_scale=1.0)
    views = sphere(cameras)
    white = Views(views.alpha.expand(-1, -1, -1, 3), views.alpha, views.depth, views.normal, cameras)
    back = domains.to_views(domains.to_pictures(white, 12), cameras)
    assert torch.equal(back.alpha, views.alpha[:6])
    n = torch.nn.functional.normalize(noise(200, 3), dim=-1)
    shares = torch.linspace(0, 1, 101)[:, None, None]
    mixed = (shares * (n + 1) / 2 + 1 - shares).expand(12, -1, -1, -1)
    alpha = domains.to_views(mixed, cameras).alpha[0, ..., 0]
    assert not alpha[0].any() and (alpha[-1] == 1).all()
    inside = (alpha > 0.5).float()
    assert (inside.diff(dim=0) >= 0).all()  # the more is covered, the more
    half = 1 - inside.mean(0)  # the share from which a pixel counts as inside, by its normal
    # where 2 pixel - 1 is 1.3 long: of normals that look away from white's corner from .158 on, of those that look there from .59 on
    assert 0.15 < half.min() < 0.2 and 0.5 < half.max() < 0.61 and 0.25 < half.mean() < 0.4


def test_encoding_is_differentiable_by_normals_and_colours(prior: Wonder3D):
    views = sphere(prior.views(REFERENCE))
    normal, rgb = views.normal.clone().requires_grad_(), views.rgb.clone().requires_grad_()
    x0 = prior.encode(Views(rgb, views.alpha, views.depth, normal, views.cameras))
    assert x0.shape == (1, *prior.shape)
    x0.square().sum().backward()
    assert normal.grad is not None and rgb.grad is not None
    assert normal.grad[:6].any() and not normal.grad[6:].any() and rgb.grad[6:].any() and not rgb.grad[:6].any()
    torch.testing.assert_close(x0, prior.encode_pictures(domains.to_pictures(views, 12)), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="multiple of 12"):
        prior.encode(views[range(6)])


def test_it_is_sampled_in_twenty_steps_with_one_level_for_all(prior: Wonder3D):
    assert prior.sampler[:3] == (20, 1.0, 1.0)
    asked = []

    class Noted(VPDenoiser):
        def denoise(self, x: Tensor, sigma: Any, cond: Any = None) -> Tensor:
            asked.append((x.shape, float(sigma)))
            return super().denoise(x, sigma, cond)

    noted = Noted(prior.network, prior.schedule.alpha_bar())
    plain, prior.denoiser = prior.denoiser, noted
    try:
        cond = prior.condition(REFERENCE)
        made = sample(prior, cond, sampler=prior.sampler._replace(steps=3), generator=torch.Generator().manual_seed(0))
    finally:
        prior.denoiser = plain
    assert made.shape == (1, *prior.shape) and len(asked) == 3 and all(shape == made.shape for shape, _ in asked)
    assert asked == sorted(asked, key=lambda x: -x[1])
    assert prior.decode(made).shape == (12, SIDE, SIDE, 3)


# ---- folders ----


def test_ck_5_a_folder_reads_alike_pickled_or_not_and_under_older_names(made: dict[str, Any], prior: Wonder3D, tmp_path: Path):
    plain: Any = load(twin.write(tmp_path / "safetensors", made, pickled=False))
    renamed = {k.replace("joint_mid", "joint_twice"): v for k, v in made["state"].items()}
    older: Any = load(twin.write(tmp_path / "older", {**made, "state": renamed}))
    wanted = prior.state_dict()
    for other in (plain, older):
        assert other.state_dict().keys() == wanted.keys()
        assert all(torch.equal(v, wanted[k]) for k, v in other.state_dict().items())
    assert loading.digest(tmp_path / "older") != loading.digest(tmp_path / "safetensors")


def test_ck_7_one_tensor_too_few_too_many_or_reshaped_is_one_sentence(made: dict[str, Any], tmp_path: Path):
    state, name = made["state"], next(k for k in made["state"] if k.endswith("attn_joint_mid.to_k.weight"))
    wrong = {
        "missing": {k: v for k, v in state.items() if k != name},
        "unknown": {**state, "more.weight": state[name]},
        "of another shape": {**state, name: state[name][:-1]},
        "attn_joint_last": {**state, name.replace("_mid", ""): state[name]},
    }
    for k, (what, tensors) in enumerate(wrong.items()):
        folder = twin.write(tmp_path / str(k), {**made, "state": tensors})
        with pytest.raises(InputError, match=what) as caught:
            load(folder)
        assert "\n" not in str(caught.value)


def test_ck_7_networks_of_another_kind_are_refused_by_their_settings(folder: Path, tmp_path: Path):
    for k, (name, value) in enumerate({"cd_attention_mid": False, "projection_class_embeddings_input_dim": 6, "num_views": 4}.items()):
        other = tmp_path / str(k)
        shutil.copytree(folder, other)
        path = other / "unet" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
        with pytest.raises(InputError, match=name):
            load(other)


def test_ck_8_a_pickle_with_code_is_not_opened(folder: Path, tmp_path: Path):
    shutil.copytree(folder, tmp_path / "bad")

    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"a": torch.zeros(1), "b": Bomb()}, tmp_path / "bad" / "vae" / "diffusion_pytorch_model.bin")
    with pytest.raises(InputError, match="could be code"):
        load(tmp_path / "bad")
    assert not (tmp_path / "ran").exists()


def test_pickles_of_other_kinds_stay_shut(folder: Path):
    with pytest.raises(InputError, match="only pickled weights"):
        components.codec(folder / "vae", torch.float32, "cpu")


def test_it_has_no_use_where_single_views_are_drawn(folder: Path):
    with pytest.raises(InputError, match="a prior of kind wonder3d has no use here"):
        loading.load_for("views", folder)
    assert isinstance(loading.load_for("normals", folder, device="meta"), Wonder3D)


def test_fingerprint_of_the_published_network():
    """Parameters of the published sizes: 861,186,244, and 49,599,040 in the layers across domains."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=32,
            in_channels=8,
            cross_attention_dim=768,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=10,
        )
        network = CrossDomainUNet(unet)
    sizes = {name: p.numel() for name, p in network.named_parameters()}
    joint = sum(n for name, n in sizes.items() if "joint_mid" in name)
    assert (sum(sizes.values()) - joint, joint) == (861_186_244, 49_599_040)
    assert len(blocks(network.unet)) == 16
