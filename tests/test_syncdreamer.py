# SPDX-License-Identifier: Apache-2.0
"""SyncDreamer as a prior: read from a checkpoint in the published layout, against a twin in the released order (SY-4, SY-8, CK-6)."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bozzetto.camera import orbit
from bozzetto.denoiser import alpha_bar_of
from bozzetto.diffusion.guidance import classifier_free
from bozzetto.errors import InputError
from bozzetto.priors import load, plan
from bozzetto.priors.convert import PUBLISHED, convert, unet_settings
from bozzetto.priors.latent import ConditionedUNet
from bozzetto.priors.prior import Reference
from bozzetto.priors.sync_volume import VolumeConfig
from bozzetto.priors.syncdreamer import SyncDreamer, SyncUNet, hooked, layers
from tests.twins import ldm
from tests.twins import sync as twin
from tests.twins import zero123 as base

ELEVATION, AZIMUTH = math.radians(12), 0.7


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def checkpoint() -> tuple[ldm.Weights, dict[str, Tensor]]:
    return twin.checkpoint()


@pytest.fixture(scope="module")
def folder(checkpoint: tuple[ldm.Weights, dict[str, Tensor]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return twin.folder(tmp_path_factory.mktemp("sync") / "at", checkpoint[1])


@pytest.fixture(scope="module")
def prior(folder: Path) -> SyncDreamer:
    found: Any = load(folder)
    return found


def picture() -> Tensor:
    return torch.rand(1, base.SIDE, base.SIDE, 3, generator=torch.Generator().manual_seed(5))


def reference(distance: float = 2.0) -> Reference:
    return Reference(picture(), orbit([AZIMUTH], ELEVATION, distance, size=base.SIDE, fov=0.6))


# ---- one joint step ----


@torch.no_grad()
def test_a_joint_step_is_the_released_codes(prior: SyncDreamer, checkpoint: tuple[ldm.Weights, dict[str, Tensor]]) -> None:
    """The volume from all views, the conditions after each block in the released order, the picture's latent unscaled, the token of pose
    and picture, guidance's other branch of zeros: CK-6."""
    t, scale, pixels = 321, 2.0, picture().movedim(-1, 1) * 2 - 1
    sigma = float(prior.denoiser.sigmas[t])
    x = noise(1, 16, 4, 8, 8) * (1 + sigma**2) ** 0.5
    cond = prior.condition(reference(), prior.views(reference()))
    denoiser = classifier_free(prior.denoiser, prior.condition(), scale)
    made = denoiser.denoise(x, sigma, cond)
    wanted = twin.joint_noise(checkpoint[0], pixels, ELEVATION, x[0] * alpha_bar_of(torch.tensor(sigma)) ** 0.5, t, scale)
    assert ((x - made)[0] / sigma - wanted).abs().max() < 1e-4
    mirrored = {**cond, "pose": cond["pose"] * torch.tensor([1.0, -1.0, 1.0, 1.0])}
    assert ((x - denoiser.denoise(x, sigma, mirrored))[0] / sigma - wanted).abs().max() > 1e-3  # the control: sin(-azimuth)


@torch.no_grad()
def test_turns_change_nothing_but_rounding_and_views_hear_of_each_other(prior: SyncDreamer) -> None:
    network: Any = copy.deepcopy(prior.network)  # its hooks look at its own state
    x, step = noise(2, 16, 4, 8, 8), torch.tensor([20.0, 700.0])
    cond = dict(prior.condition(reference()))
    made = {}
    for network.batch in (3, 16):
        made[network.batch] = network(x, step, **cond)
    assert (made[3] - made[16]).abs().max() < 1e-5 and made[3].abs().max() > 0.1
    other = x.clone()
    other[:, 5] = noise(2, 4, 8, 8, seed=1)
    assert ((network(other, step, **cond) - made[16])[:, 9].abs().amax((1, 2, 3)) > 1e-4).all()
    alone = {name: y for name, y in cond.items() if name != "pose"}
    assert torch.equal(network(other, step, **alone)[:, 9], network(x, step, **alone)[:, 9])  # without a volume they do not


@torch.no_grad()
def test_sy_4_with_last_layers_of_zeros_it_is_zero_1_to_3_bit_for_bit(folder: Path) -> None:
    fresh: Any = load(folder)
    unet = copy.deepcopy(fresh.unet)
    for block in hooked(unet):
        block._forward_hooks.clear()
    for layer in fresh.conditions:
        layer.proj_out[-1].weight.zero_()
    single, cond = ConditionedUNet(unet), fresh.condition(reference())
    x, step = noise(1, 16, 4, 8, 8), torch.tensor([500.0])
    fresh.network.batch = 16
    made = fresh.network(x, step, **cond)
    flat = {"token": cond["token"][0], "image_latent": cond["image_latent"][0]}
    assert torch.equal(made[0], single(x[0], step.expand(16), **flat))


def test_sy_8_the_mean_of_all_one_view_losses_is_the_joint_loss(prior: SyncDreamer) -> None:
    x0, eps, sigma = noise(1, 16, 4, 8, 8), noise(1, 16, 4, 8, 8, seed=1), 1.3
    with torch.no_grad():
        whole = prior.denoiser.loss(x0, eps, sigma, prior.condition(reference()))
        x_t = (x0 + sigma * eps) / (1 + sigma**2) ** 0.5
        made = prior.network(x_t, prior.denoiser.step(sigma).float().view(1), **prior.condition(reference()))
    each = (made - eps).square().flatten(2).mean(2)[0]
    assert each.std() > 1e-3 and abs(float(each.mean() - whole)) < 1e-5


def test_ck_6_where_a_published_unet_is_hooked() -> None:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**unet_settings(PUBLISHED["unet"]))
        made: Any = layers(unet, VolumeConfig())
    names = {id(module): name for name, module in unet.named_modules()}
    assert [names[id(block)] for block in hooked(unet)] == [
        "mid_block",
        *(f"up_blocks.1.{x}" for x in ("attentions.0", "attentions.1", "upsamplers.0")),
        *(f"up_blocks.2.{x}" for x in ("attentions.0", "attentions.1", "upsamplers.0")),
        *(f"up_blocks.3.attentions.{k}" for k in range(3)),
    ]
    sizes = [(x.proj_in[0].in_channels, x.proj_in[0].out_channels, x.proj_context[0].in_channels) for x in made]
    levels = {4: (1280, 1024, 512), 8: (1280, 512, 256), 16: (640, 256, 128), 32: (320, 128, 64)}
    assert sizes == [levels[4], levels[8], levels[8], (1280, 256, 128), levels[16], levels[16], (640, 128, 64), *[levels[32]] * 3]


# ---- conditions and cameras ----


def test_sixteen_views_go_round_from_the_pictures_azimuth(prior: SyncDreamer) -> None:
    cameras = prior.views(reference())
    x, y, z = cameras.position.unbind(-1)
    turns = (torch.atan2(y, x) - AZIMUTH) % (2 * math.pi)
    assert (
        torch.allclose(turns[1:], math.radians(22.5) * torch.arange(1, 16, dtype=torch.float64))
        and min(turns[0], 2 * math.pi - turns[0]) < 1e-9
    )
    assert torch.allclose(torch.asin(z / 1.5), torch.full((16,), math.radians(30), dtype=torch.float64))
    assert len(cameras) == 16 and cameras.size == (16, 16) and float(cameras.K[0, 0, 0]) == pytest.approx(280 / 256 * 16)


def test_a_condition_is_told_elevation_and_turns_and_no_distance(prior: SyncDreamer) -> None:
    near, far = (prior.condition(reference(distance), prior.views(reference())) for distance in (1.2, 4.0))
    assert all(torch.equal(near[name], far[name]) for name in near)
    pose = near["pose"][0]
    assert torch.allclose(pose[:, 0], torch.tensor(ELEVATION - math.radians(30)).float()) and not pose[:, 3].any()
    assert torch.allclose(torch.atan2(pose[:, 1], pose[:, 2]) % (2 * math.pi), math.radians(22.5) * torch.arange(16), atol=1e-5)
    codec: Any = prior.codec
    assert torch.allclose(near["image_latent"][0], codec.latent(picture()))  # not scaled
    assert torch.equal(near["token"], prior.condition(reference())["token"])
    assert set(prior.condition()) == {"image_latent", "token"} and not any(y.any() for y in prior.condition().values())


def test_other_cameras_than_its_own_are_refused(prior: SyncDreamer) -> None:
    with pytest.raises(ValueError, match="cameras: expected 16 for each of 1 pictures, got 4"):
        prior.condition(reference(), prior.views(reference())[:4])
    with pytest.raises(ValueError, match="draws from sixteen of its own"):
        prior.condition(reference(), prior.views())


# ---- what it takes ----


def test_the_plan_counts_the_volume_and_the_depth_transformers(folder: Path) -> None:
    outline: Any = load(folder, device="meta")
    outline.network.batch = 16  # fewer operations to look at
    x = torch.empty(1, *outline.shape, device="meta")
    with torch.no_grad():
        null, whole = (plan.count(lambda c=c: outline.denoiser.denoise(x, 1.0, c)) for c in (outline.condition(), outline.fullest()))
    first = 2 * 27 * 8 * (8 * 16) * 8**3  # FLOP of the volume network's first layer alone
    assert whole.flop > null.flop + first and whole.operations > null.operations
    planned = plan.Plan().plus(outline, plan.Asked(calls=10, decoded=1))
    assert planned.flop == pytest.approx(10 * whole.flop + plan.count(lambda: outline.decode(x)).flop, rel=1e-6)
    assert planned.weights == plan.size_of(outline)
    outline.network.batch = 8
    with torch.no_grad():
        turned = plan.count(lambda: outline.denoiser.denoise(x, 1.0, outline.fullest()))
    assert turned.working < 0.7 * whole.working  # turns are for memory


# ---- the checkpoint ----


def test_what_is_converted_is_read_again_and_half_is_half(checkpoint: tuple[ldm.Weights, dict[str, Tensor]], tmp_path: Path) -> None:
    ckpt, config = twin.written(tmp_path, checkpoint[1])
    convert(ckpt, tmp_path / "half", "syncdreamer", config, half=True)
    settings = json.loads((tmp_path / "half" / "volume" / "config.json").read_text())
    assert (settings["cells"], settings["depths"], settings["half_pixel"]) == (32, 48, False)  # as published
    assert json.loads((tmp_path / "half" / "bozzetto.json").read_text()) == {"kind": "syncdreamer"}
    found = load_file(tmp_path / "half" / "conditions" / "diffusion_pytorch_model.safetensors")
    name = "model.diffusion_model.output_conditions.4.proj_out.5.weight"
    assert torch.equal(found["5.proj_out.5.weight"], checkpoint[1][name].half())
    made: Any = load(tmp_path / "half", dtype=torch.bfloat16)
    with torch.no_grad():
        answer = made.denoiser.denoise(noise(1, 16, 4, 8, 8), 1.0, made.condition(reference()))
    assert answer.dtype == torch.float32 and bool(torch.isfinite(answer).all())


VOLUME = "spatial_volume.spatial_volume_feats.init_conv.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("spatial_volume.target_encoder.out_conv1.conv.5.bias"), "volume.*1 missing"),
        (lambda s: s.pop("spatial_volume.target_encoder.init_conv.weight"), "volume is missing or incomplete"),
        (lambda s: s.pop("model.diffusion_model.middle_conditions.depth_attn.to_q.weight"), "conditions.*1 missing"),
        (lambda s: s.update({"model.diffusion_model.output_conditions.9.proj_in.0.bias": torch.zeros(1)}), "conditions.*1 unknown"),
        (lambda s: s.update({VOLUME: s[VOLUME][:, :-1]}), "volume.*1 of another shape"),
        (lambda s: s.update({"spatial_volume.stray": torch.zeros(1)}), "1 tensors do not belong"),
        (lambda s: s.pop("model.diffusion_model.out.2.bias"), "U-Net.*1 missing"),
        (lambda s: s.pop("clip_image_encoder.model.visual.conv1.weight"), "vision tower is missing"),
        (lambda s: s.pop("poses"), r"its cameras \(poses\) are missing"),
        (lambda s: s.update({"poses": s["poses"].flip(0)}), r"cameras \(poses\) .* not SyncDreamer's"),
        (lambda s: s.update({"Ks": 2 * s["Ks"]}), r"cameras \(Ks\)"),
        (lambda s: s.update({"azimuth": -s["azimuth"]}), r"cameras \(azimuth\)"),
        (lambda s: s.update({"alphas_cumprod": s["alphas_cumprod"] ** 2}), "noise levels"),
    ],
)
def test_ck_7_a_checkpoint_must_be_whole(
    checkpoint: tuple[ldm.Weights, dict[str, Tensor]], tmp_path: Path, change: Callable[[dict[str, Tensor]], Any], words: str
) -> None:
    spoilt = dict(checkpoint[1])
    change(spoilt)
    ckpt, config = twin.written(tmp_path, spoilt)
    with pytest.raises(InputError, match=words):
        convert(ckpt, tmp_path / "out", "syncdreamer", config)
    assert not (tmp_path / "out").exists()


def test_zero_1_to_3s_checkpoint_is_not_taken_for_it_nor_it_for_zero_1_to_3(
    checkpoint: tuple[ldm.Weights, dict[str, Tensor]], tmp_path: Path
) -> None:
    ckpt, config = base.write_original(tmp_path, base.original_checkpoint()[1])
    with pytest.raises(InputError, match="volume is missing or incomplete"):
        convert(ckpt, tmp_path / "out", "syncdreamer", config)
    ckpt, config = twin.written(tmp_path, checkpoint[1])
    with pytest.raises(InputError, match="tensors do not belong to what --kind says"):
        convert(ckpt, tmp_path / "out", "zero123", config)


def test_ck_7_a_folder_must_be_whole(folder: Path, tmp_path: Path) -> None:
    import shutil

    def spoilt(change: Callable[[Path], Any]) -> Path:
        at = tmp_path / f"at{len(list(tmp_path.iterdir()))}"
        shutil.copytree(folder, at)
        change(at)
        return at

    def settings(at: Path, part: str, **change: Any) -> None:
        path = at / part / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    def shortened(at: Path) -> None:
        path = at / "conditions" / "diffusion_pytorch_model.safetensors"
        state = load_file(path)
        state.pop("3.proj_in.0.bias")
        save_file(state, path)

    wrong = {
        "volume/ is missing": lambda at: shutil.rmtree(at / "volume"),
        "conditions: expected .* 1 missing": shortened,
        "not a whole safetensors file": lambda at: (at / "volume" / "diffusion_pytorch_model.safetensors").write_bytes(b"123"),
        "cells of a frustum should be 8": lambda at: settings(at, "volume", size=16),
        "volume.*no network can be built": lambda at: settings(at, "volume", cells=9),
        "of another shape": lambda at: settings(at, "volume", views=15),
        "cc_projection/": lambda at: shutil.rmtree(at / "cc_projection"),
    }
    for words, change in wrong.items():
        with pytest.raises(InputError, match=words):
            load(spoilt(change))


def test_other_weights_of_the_unet_leave_the_volume_where_it_is(folder: Path, tmp_path: Path) -> None:
    """A folder of `bozzetto learn` on it changes the U-Net's weights, and the hooks stay."""
    from bozzetto.priors import components, learnt

    changed: Any = load(folder)
    state = {k: 1.01 * v for k, v in changed.unet.state_dict().items()}
    (tmp_path / "unet").mkdir()
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    (tmp_path / "unet" / "config.json").write_text(json.dumps(components.config_of(changed.unet)))
    learnt.Change(tmp_path, str(folder), "syncdreamer").apply(changed)
    assert torch.equal(changed.unet.conv_in.weight, state["conv_in.weight"])
    x, cond = noise(1, 16, 4, 8, 8), changed.condition(reference())
    alone = {name: y for name, y in cond.items() if name != "pose"}
    with torch.no_grad():
        assert (changed.denoiser.denoise(x, 1.0, cond) - changed.denoiser.denoise(x, 1.0, alone)).abs().max() > 1e-3
    assert isinstance(changed.network, SyncUNet) and all(isinstance(layer, nn.Module) for layer in changed.conditions)
