# SPDX-License-Identifier: Apache-2.0
"""Zero-1-to-3: the pose code in closed form, its conditions, and the published pipelines beside ours."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bozzetto.camera import Camera, look_at, orbit
from bozzetto.denoiser import VPDenoiser
from bozzetto.diffusion.samplers import ddim
from bozzetto.diffusion.schedules import spaced, to_zero
from bozzetto.priors.convert import convert
from bozzetto.priors.latent import ConditionedUNet
from bozzetto.priors.loading import load
from bozzetto.priors.prior import Reference
from bozzetto.priors.schedule import NoiseSchedule
from bozzetto.priors.zero123 import Zero123, clip_pixels, pose_projection, relative_pose, spherical, stable_pose
from tests.twins import zero123 as twin

DEGREE = math.pi / 180


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cameras(azimuth: list[float], elevation: list[float], distance: list[float] | float = 2.0) -> Camera:
    """Degrees."""
    return orbit([a * DEGREE for a in azimuth], [e * DEGREE for e in elevation], distance, size=16, fov=0.5)


def turned(c: Camera, angle: float) -> Camera:
    """The cameras after a turn of everything about z."""
    cos, sin = math.cos(angle), math.sin(angle)
    R = torch.tensor([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], dtype=torch.float64)
    return Camera(R @ c.c2w, c.K, c.size)


# ---- the pose code ----


def test_z_1_turning_both_cameras_about_z_changes_nothing():
    a, b = cameras([20, 100, -170], [5, -30, 60], [1.5, 2.0, 2.2]), cameras([-75, 10, 60], [40, 0, -80], [2.0, 1.6, 1.9])
    for angle in (0.3, 2.0, -3.0):
        for code in (relative_pose, stable_pose):
            torch.testing.assert_close(code(turned(a, angle), turned(b, angle)), code(a, b), rtol=0, atol=2e-15)  # a few roundings
    assert not torch.allclose(relative_pose(a, turned(b, 0.3)), relative_pose(a, b))


def test_z_2_azimuths_wrap_around_and_grow_counter_clockwise():
    T = relative_pose(cameras([170], [0]), cameras([-170], [0]))
    expected = [0, math.sin(20 * DEGREE), math.cos(20 * DEGREE), 0]
    torch.testing.assert_close(T[0], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-14)
    quarter = relative_pose(cameras([0], [0]), cameras([90], [0]))  # from +x to +y, counter-clockwise from above
    assert quarter[0, 1] == pytest.approx(1) and relative_pose(cameras([0], [0]), cameras([0], [10]))[0, 0] == pytest.approx(-10 * DEGREE)


def test_z_3_codes_add_along_a_chain():
    a, b, c = cameras([10], [0], [1.5]), cameras([150], [40], [1.8]), cameras([-100], [-20], [2.2])
    ab, bc, ac = relative_pose(a, b)[0], relative_pose(b, c)[0], relative_pose(a, c)[0]
    torch.testing.assert_close(ab[[0, 3]] + bc[[0, 3]], ac[[0, 3]], rtol=0, atol=1e-14)
    turns = [torch.atan2(T[1], T[2]) for T in (ab, bc, ac)]
    assert math.remainder(float(turns[0] + turns[1] - turns[2]), 2 * math.pi) == pytest.approx(0, abs=1e-14)


def test_z_4_identity_and_the_centre_of_a_camera():
    c = cameras([33], [21], [1.7])
    torch.testing.assert_close(relative_pose(c, c), torch.tensor([[0.0, 0.0, 1.0, 0.0]], dtype=torch.float64), rtol=0, atol=1e-15)
    R, t = c.w2c[0, :, :3], c.w2c[0, :, 3]  # the released code starts from these
    torch.testing.assert_close(-R.T @ t, c.position[0], rtol=0, atol=1e-14)
    polar, azimuth, distance = (float(x) for x in spherical(c))
    assert (polar, azimuth, distance) == pytest.approx((69 * DEGREE, 33 * DEGREE, 1.7), abs=1e-13)


def test_z_5_at_the_start_the_token_is_the_embedding_whatever_the_pose():
    projection = pose_projection(24, 24)
    embedding = torch.randn(5, 24, generator=seeded(0))
    for scale in (0.0, 1.0, 100.0):
        T = scale * torch.randn(5, 4, generator=seeded(1))
        assert torch.equal(projection(torch.cat([embedding, T], -1)), embedding)


def test_z_7_blind_to_roll_and_to_where_a_camera_looks():
    a, b = cameras([0], [10]), cameras([70], [30])
    roll = torch.tensor([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]], dtype=torch.float64)
    rolled = Camera(torch.cat([b.c2w[:, :, :3] @ roll, b.c2w[:, :, 3:]], -1), b.K, b.size)
    aside = Camera(look_at(b.position, torch.tensor([[0.0, 0.3, 0.1]])), b.K, b.size)
    for other in (rolled, aside):
        assert torch.equal(relative_pose(a, other), relative_pose(a, b))


def test_stable_zero123_reads_the_pictures_polar_angle():
    a, b = cameras([0], [25], [1.5]), cameras([40, 80], [10, 0], [2.0, 1.8])
    T = stable_pose(a, b)
    assert torch.equal(T[:, :3], relative_pose(a, b)[:, :3])
    torch.testing.assert_close(T[:, 3], torch.full((2,), 65 * DEGREE, dtype=torch.float64), rtol=0, atol=1e-14)


# ---- the networks' side ----


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    parts = twin.port_parts()
    return {n: twin.write_port(tmp_path_factory.mktemp(f"port{n}"), parts, n) for n in (1, 2)}


@pytest.fixture(scope="module")
def prior(ports: dict[int, Path]) -> Zero123:
    return load(ports[1], kind="zero123")


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    """(1, 16, 16, 3) in [0, 1]."""
    return torch.rand(1, 16, 16, 3, generator=seeded(5))


HERE, THERE = cameras([30], [20], [1.5]), cameras([75], [-10], [1.8])
MOVED = {"polar": 30 * DEGREE, "turn": 45 * DEGREE, "closer": 0.3, "reference_polar": 70 * DEGREE}


def our_noise(prior: Zero123, pixels: Tensor, x_t: Tensor, t: int) -> Tensor:
    """The predicted noise at step t by way of the denoiser, on the other scale and back."""
    cond = prior.condition(Reference(pixels, HERE), THERE)
    root = twin.alphas_cumprod()[t].sqrt()
    sigma = (1 / root**2 - 1).sqrt()
    x = x_t.double() / root
    return ((x - prior.denoiser.denoise(x, sigma, cond)) / sigma).float()


@pytest.mark.parametrize("kind", ["zero123", "stable-zero123"])
@pytest.mark.parametrize("layout", [1, 2])
def test_one_step_is_that_of_the_published_ports(ports: dict[int, Path], pixels: Tensor, layout: int, kind: str):
    prior = load(ports[layout], kind=kind)
    x_t = torch.randn(1, 4, 8, 8, generator=seeded(1))
    for t in (0, 480, 999):
        made = our_noise(prior, pixels, x_t, t)
        published = twin.port_noise(ports[layout], layout, 2 * pixels.movedim(-1, 1) - 1, twin.pose_code(kind, **MOVED), x_t, t)
        torch.testing.assert_close(made, published, rtol=0, atol=1e-4)  # float32 networks, two resizes
        assert made.std() > 0.01
    other = twin.pose_code("zero123" if kind != "zero123" else "stable-zero123", **MOVED)
    control = twin.port_noise(ports[layout], layout, 2 * pixels.movedim(-1, 1) - 1, other, x_t, t)
    assert (made - control).abs().max() > 1e-4  # the other pose code is told apart


@pytest.mark.parametrize("kind", ["zero123", "stable-zero123"])
def test_one_step_is_that_of_the_original_checkpoint(tmp_path: Path, pixels: Tensor, kind: str):
    """Legacy names, averaged weights and all, against a network written from the papers."""
    w, state = twin.original_checkpoint()
    ckpt, config = twin.write_original(tmp_path, state)
    convert(ckpt, tmp_path / "folder", kind, config)
    prior = load(tmp_path / "folder")
    x_t = torch.randn(1, 4, 8, 8, generator=seeded(1))
    for t in (0, 480, 999):
        published = twin.original_noise(w, 2 * pixels.movedim(-1, 1) - 1, twin.pose_code(kind, **MOVED), x_t, t)
        assert published.std() > 0.1
        torch.testing.assert_close(our_noise(prior, pixels, x_t, t), published, rtol=0, atol=1e-4)
    decoded = twin.ldm.decode(w, x_t / 0.18215, twin.V).movedim(1, -1) / 2 + 0.5
    torch.testing.assert_close(prior.decode(x_t), decoded.clamp(0, 1), rtol=0, atol=1e-4)


def test_clip_sees_what_the_original_showed_it(pixels: Tensor):
    torch.testing.assert_close(clip_pixels(pixels, 32), twin.clip_input(2 * pixels.movedim(-1, 1) - 1), rtol=0, atol=1e-5)


def test_ck_9_the_pictures_latent_is_not_scaled_and_x0_is(prior: Zero123, pixels: Tensor):
    mode = prior.codec.vae.encode(2 * pixels.movedim(-1, 1) - 1).latent_dist.mode()
    torch.testing.assert_close(prior.condition(Reference(pixels, HERE), THERE)["image_latent"], mode, rtol=0, atol=1e-6)
    torch.testing.assert_close(prior.encode_pictures(pixels), 0.18215 * mode, rtol=0, atol=1e-6)


def test_ck_12_noise_levels_are_the_published_ones(prior: Zero123):
    assert float(prior.denoiser.sigmas[0]) == pytest.approx(0.0292, abs=5e-5)
    assert float(prior.denoiser.sigmas[-1]) == pytest.approx(14.615, abs=5e-4)
    assert float(NoiseSchedule(shape="linear").alpha_bar()[-1]) == pytest.approx(1 / (25.15**2 + 1), rel=1e-3)
    rescaled = NoiseSchedule(is_rescaled=True, prediction="v").alpha_bar()
    assert float(rescaled[-1]) == 2.0**-24 and torch.equal(rescaled[:1], NoiseSchedule().alpha_bar()[:1])


def test_an_absent_argument_is_the_null(prior: Zero123, pixels: Tensor):
    reference = Reference(pixels, HERE)
    full, no_pose, none = prior.condition(reference, THERE), prior.condition(reference), prior.condition()
    assert torch.equal(no_pose["image_latent"], full["image_latent"]) and not no_pose["token"].any() and full["token"].any()
    assert not none["token"].any() and not none["image_latent"].any()
    x = torch.randn(2, 4, 8, 8, generator=seeded(0))
    assert torch.equal(prior.denoiser.denoise(x, 1.0, none), prior.denoiser.denoise(x, 1.0))
    assert not torch.allclose(prior.denoiser.denoise(x, 1.0, full), prior.denoiser.denoise(x, 1.0), atol=1e-4)
    with pytest.raises(ValueError, match="reads pictures, not text"):
        prior.condition(reference, THERE, "a chair")
    with pytest.raises(ValueError, match="one picture for all"):
        prior.condition(Reference(pixels.expand(2, -1, -1, -1), HERE), cameras([0, 1, 2], [0, 0, 0]))


def test_a_view_does_not_depend_on_its_batch_nor_on_looking_first(prior: Zero123, pixels: Tensor):
    targets, seen = cameras([0, 90, 180], [0, 10, 20]), prior.encode_reference(Reference(pixels, HERE))
    x = torch.randn(3, 4, 8, 8, generator=seeded(0))
    together = prior.denoiser.denoise(x, 2.0, prior.condition(seen, targets))
    alone = torch.cat([prior.denoiser.denoise(x[i : i + 1], 2.0, prior.condition(Reference(pixels, HERE), targets[i])) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_gradients_reach_the_pictures_and_never_the_prior(prior: Zero123, pixels: Tensor):
    rgb = torch.rand(1, 24, 24, 3, generator=seeded(3), requires_grad=True)  # another size, too
    x0 = prior.encode_pictures(rgb)
    assert x0.shape == (1, 4, 8, 8) and x0.dtype == torch.float32
    x0.square().sum().backward()
    assert rgb.grad is not None and bool(rgb.grad.abs().sum() > 0)
    assert not any(p.requires_grad for p in prior.parameters()) and not prior.training
    drawn = [prior.encode_pictures(pixels, generator=seeded(s)) for s in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    made = prior.decode(x0.detach())
    assert made.shape == (1, 16, 16, 3) and made.min() >= 0 and made.max() <= 1


def test_half_precision_networks_keep_float32_outside(ports: dict[int, Path], prior: Zero123, pixels: Tensor):
    half = load(ports[1], "zero123", dtype=torch.bfloat16)
    cond = half.condition(Reference(pixels, HERE), THERE)
    x = torch.randn(1, 4, 8, 8, generator=seeded(0))
    made, exact = half.denoiser.denoise(x, 1.0, cond), prior.denoiser.denoise(x, 1.0, prior.condition(Reference(pixels, HERE), THERE))
    assert made.dtype == half.encode_pictures(pixels).dtype == half.decode(x).dtype == torch.float32
    torch.testing.assert_close(made, exact, rtol=0, atol=0.1)  # 8 bits of mantissa through a dozen layers


def test_reference_refuses_other_shapes(pixels: Tensor):
    with pytest.raises(ValueError, match="1 or B cameras"):
        Reference(pixels, cameras([0, 1], [0, 0]))
    with pytest.raises(ValueError, match=r"rgb \(B, H, W, 3\)"):
        Reference(pixels.movedim(-1, 1), HERE)


def balls(c: Camera) -> Tensor:
    """(V, 3, H, W) in [-1, 1]: four coloured balls, an object without symmetry, over white."""
    centres = torch.tensor([[0.3, 0, 0], [-0.1, 0.3, 0.1], [-0.2, -0.25, 0.3], [0, 0, -0.3]], dtype=torch.float64)
    colours = torch.tensor([[0.9, 0.2, 0.1], [0.1, 0.7, 0.2], [0.1, 0.2, 0.9], [0.6, 0.5, 0.1]], dtype=torch.float64)
    pixels, depth = c.project(centres)
    view, made = torch.arange(len(c)), torch.ones(len(c), *c.size, 3, dtype=torch.float64)
    for i in depth.argsort(dim=1, descending=True).T:  # the farthest first
        away = (c.pixel_centres() - pixels[view, i][:, None, None]).norm(dim=-1)
        alpha = torch.sigmoid(2 * ((0.2 * c.K[:, 0, 0] / depth[view, i])[:, None, None] - away))[..., None]
        made = made * (1 - alpha) + alpha * colours[i][:, None, None]
    return 2 * made.float().movedim(-1, 1) - 1


@pytest.mark.slow
def test_z_8_twelve_views_of_one_object_are_learnt_and_the_mirrored_pose_is_not():
    """v-prediction and pictures as their own latents; the pose is all that tells the twelve apart."""
    angles = torch.rand(12, generator=seeded(0), dtype=torch.float64)
    here, there = orbit([0.0], 0.35, 1.8, size=8, fov=0.8), orbit(torch.arange(12) * math.pi / 6 + 0.2, angles - 0.3, 1.8, size=8, fov=0.8)
    x0, image_latent, T = balls(there), balls(here), relative_pose(here, there).float()
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        unet = twin.small_unet(6, 3, 32, (32, 64))
        projection = pose_projection(28, 32)
    network, alpha_bar = ConditionedUNet(unet), NoiseSchedule().alpha_bar()

    def cond(T: Tensor) -> dict[str, Tensor]:
        return {"image_latent": image_latent, "token": projection(torch.cat([torch.zeros(12, 28), T], -1))[:, None]}

    def loss(T: Tensor, generator: torch.Generator) -> Tensor:
        k, noise = torch.randint(1000, (12,), generator=generator), torch.randn(x0.shape, generator=generator)
        a = alpha_bar[k].float().view(-1, 1, 1, 1)
        v = a.sqrt() * noise - (1 - a).sqrt() * x0
        return (network(a.sqrt() * x0 + (1 - a).sqrt() * noise, k.float(), **cond(T)) - v).square().mean()

    groups = [{"params": unet.parameters(), "lr": 2e-3}, {"params": projection.parameters(), "lr": 1e-2}]
    steps, generator, optimiser = 500, seeded(1), torch.optim.AdamW(groups, weight_decay=0)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(T, generator).backward()
        optimiser.step()
        decay.step()
    denoiser = VPDenoiser(network, alpha_bar, "v")
    sigmas = to_zero(denoiser.sigmas[spaced(1000, 10)])
    with torch.no_grad():
        x = (1 + sigmas[0] ** 2).sqrt() * torch.randn(x0.shape, generator=seeded(2), dtype=torch.float64)
        made = ddim(denoiser, x.float(), sigmas, cond(T)).clamp(-1, 1)
        psnr = -10 * ((made - x0) / 2).square().mean((1, 2, 3)).log10()
        right, mirrored = (sum(float(loss(pose, seeded(5 + i))) for i in range(4)) / 4 for pose in (T, T * T.new_tensor([1, -1, 1, 1])))
    assert psnr.mean() >= 25, psnr
    assert mirrored > 1.5 * right
