# SPDX-License-Identifier: Apache-2.0
"""Consistent123 of views (Weng et al.): C1-1 to C1-5 on a tiny Zero-1-to-3 with random weights."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bozzetto.camera import orbit
from bozzetto.denoiser import Adapted, share_of
from bozzetto.diffusion.guidance import classifier_free, progressive
from bozzetto.distill.sds import level
from bozzetto.errors import InputError
from bozzetto.priors import load
from bozzetto.priors.consistent123 import Consistent123, read, save
from bozzetto.priors.joint import blocks
from bozzetto.priors.prior import Reference
from bozzetto.priors.sampling import Sampler, sample
from bozzetto.training.backbone import Encoded
from bozzetto.training.together import Added, Grouped
from tests.twins import zero123 as twin

V = 3
SEEN = orbit([0.3], 0.2, 1.5, size=16, fov=0.8)
OTHERS = orbit([1.2, 3.0, 5.1], [0.1, 0.4, -0.2], 1.5, size=16, fov=0.8)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


PICTURE = Reference(torch.rand(1, 16, 16, 3, generator=torch.Generator().manual_seed(5)), SEEN)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return twin.write_port(tmp_path_factory.mktemp("zero123") / "folder", twin.port_parts(), 1)


def made(folder: Path, together: int = V, across: float = 0.0) -> Consistent123:
    """across: standard deviation of the added attentions' last layers, 0 as they begin."""
    base: Any = load(folder, "zero123")
    prior = Consistent123(base, together)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for block in blocks(prior.unet):
            block.attn_joint_mid.to_out[0].weight.normal_(0, across, generator=generator) if across else None
    return prior


@torch.no_grad()
def asked(prior: Consistent123, cameras: Any = OTHERS, order: list[int] | None = None) -> Tensor:
    x, picks = noise(1, prior.together, 4, 8, 8), order or list(range(prior.together))
    return prior.denoiser.denoise(x[:, picks], 2.0, prior.condition(PICTURE, cameras[picks]))


def test_c1_1_views_change_places_with_their_answers_and_one_view_needs_no_other(folder: Path):
    prior, order = made(folder, across=0.1), [2, 0, 1]
    assert (asked(prior)[:, order] - asked(prior, order=order)).abs().max() < 1e-5
    one, alone = made(folder, 1, across=0.1), made(folder, 1)
    assert asked(one, OTHERS[[0]]).shape == (1, 1, 4, 8, 8)
    assert (asked(one, OTHERS[[0]]) - asked(alone, OTHERS[[0]])).abs().max() > 1e-4  # its own tokens are attended to, too


def test_c1_2_without_attention_across_views_none_depends_on_another(folder: Path):
    apart, across = made(folder), made(folder, across=0.1)
    x = noise(1, V, 4, 8, 8)
    other = torch.cat([x[:, :1], noise(1, V - 1, 4, 8, 8, seed=9)], 1)
    cond = apart.condition(PICTURE, OTHERS)
    with torch.no_grad():
        a, b = (apart.denoiser.denoise(y, 2.0, cond)[:, 0] for y in (x, other))
        c, d = (across.denoiser.denoise(y, 2.0, cond)[:, 0] for y in (x, other))
    assert (a - b).abs().max() < 1e-6
    assert (c - d).abs().max() > 1e-4


def test_shared_attention_looks_at_the_picture(folder: Path):
    """softmax(Q_i K_c' / sqrt(d)) V_c, with V_c outside of the softmax, by hand in float64."""
    prior = made(folder)
    attn, x = blocks(prior.unet)[0].attn1.double(), noise(2 * (V + 1), 6, blocks(prior.unet)[0].attn1.query_dim).double()
    group: Any = prior.network
    group.group.views, group.group.shared = V + 1, True
    with torch.no_grad():
        answer, h = attn(x), attn.heads
        for row in range(len(x)):
            first = x[row - row % (V + 1)]
            q, k, v = (f(y).view(6, h, -1).transpose(0, 1) for f, y in ((attn.to_q, x[row]), (attn.to_k, first), (attn.to_v, first)))
            wanted = attn.to_out[0](((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v).transpose(0, 1).reshape(6, -1))
            assert (answer[row] - wanted).abs().max() < 1e-12


def test_c1_3_equal_views_answer_as_one(folder: Path):
    same = OTHERS[[1, 1, 1]]
    prior, one = made(folder, across=0.1), made(folder, 1, across=0.1)
    x = noise(1, 1, 4, 8, 8)
    with torch.no_grad():
        many = prior.denoiser.denoise(x.expand(-1, V, -1, -1, -1).contiguous(), 2.0, prior.condition(PICTURE, same))
        single = one.denoiser.denoise(x, 2.0, one.condition(PICTURE, OTHERS[[1]]))
    assert (many - single).abs().max() < 1e-5


def test_c1_4_guidance_fades_monotonely_between_its_ends():
    cond = Adapted(lambda x, sigma, c: torch.ones_like(x) * c, torch.logspace(-1, 1, 11, dtype=torch.float64))
    fading, sigmas = progressive(cond, 0.0, 7.0, 2.0, 3.0), cond.sigmas
    scales = [float(fading.denoise(torch.zeros(1, 2), float(s), 1.0)[0, 0]) for s in sigmas]
    assert scales[0] == pytest.approx(2.0) and scales[-1] == pytest.approx(7.0)
    assert all(a < b for a, b in pairwise(scales))
    assert scales[5] == pytest.approx(2 + 5 * 0.5**3)
    many = fading.denoise(torch.zeros(2, 3), torch.stack([sigmas[0], sigmas[-1]]), 1.0)
    assert many[:, 0].tolist() == pytest.approx([2.0, 7.0])
    flat, x = progressive(cond, 0.0, 4.0, 4.0), noise(2, 3)
    assert (flat.denoise(x, 1.3, 1.0) - classifier_free(cond, 0.0, 4.0).denoise(x, 1.3, 1.0)).abs().max() < 1e-6


def test_share_of_levels_is_the_inverse_of_level():
    ladder = Adapted(lambda x, sigma, c: x, torch.tensor([0.1, 0.15, 0.9, 4.0, 80.0], dtype=torch.float64))
    u = torch.rand(64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert (share_of(ladder, level(ladder, u)) - u).abs().max() < 1e-12
    assert float(share_of(ladder, 0.9)) == 0.5


@torch.no_grad()
def test_c1_5_what_is_added_begins_as_nothing(folder: Path):
    """The frozen base with shared attention, computed by another road: the picture as one more view of a plain Zero-1-to-3."""
    prior, base = made(folder), load(folder, "zero123")
    null, x = prior.condition(), noise(1, V, 4, 8, 8)
    plain = base.denoiser.denoise(x[0], 2.0, base.condition())
    assert torch.equal(prior.denoiser.denoise(x, 2.0, null)[0], plain)  # without a picture, attention is the base's own
    assert (asked(prior)[0] - base.denoiser.denoise(x[0], 2.0, base.condition(PICTURE, OTHERS))).abs().max() > 1e-4  # with one, shared


@torch.no_grad()
def test_many_objects_are_asked_at_once(folder: Path):
    prior, two = made(folder, across=0.1), noise(2, V, 4, 8, 8)
    pictures = Reference(
        torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(6)), orbit([0.3, 1.0], 0.2, 1.5, size=16, fov=0.8)
    )
    with pytest.raises(ValueError, match="cameras: expected"):
        prior.condition(pictures, OTHERS)
    cond = prior.condition(PICTURE, OTHERS)
    both = prior.denoiser.denoise(two, torch.tensor([2.0, 0.5]), cond)
    for k, sigma in enumerate((2.0, 0.5)):
        assert (both[k] - prior.denoiser.denoise(two[[k]], sigma, cond)[0]).abs().max() < 1e-5


def test_it_samples_with_fading_guidance(folder: Path):
    prior = made(folder)
    sampler = Sampler(3, 3.0, 1.0, fades=(1.0, 5.0))
    cond = prior.condition(PICTURE, prior.views(PICTURE))
    x0 = sample(prior, cond, sampler=sampler, generator=torch.Generator().manual_seed(0))
    assert x0.shape == (1, V, 4, 8, 8) and bool(torch.isfinite(x0).all())
    assert prior.decode(x0).shape == (V, 16, 16, 3)


def test_its_ring_begins_beside_the_picture(folder: Path):
    ring = made(folder).views(PICTURE)
    assert ring is not None
    x, y, z = ring.position.unbind(-1)
    wanted = torch.tensor([0.3 + math.pi / 2 * k for k in (1, 2, 3)], dtype=torch.float64)
    assert (torch.atan2(y, x) - torch.atan2(wanted.sin(), wanted.cos())).abs().max() < 1e-9
    assert (torch.asin(z / 1.5) - 0.2).abs().max() < 1e-9
    assert (ring.K[0] - SEEN.K[0]).abs().max() < 1e-9


def test_added_weights_are_written_and_read(folder: Path, tmp_path: Path):
    trained, fresh = made(folder, across=0.1), made(folder)
    save(trained, tmp_path / "joint")
    read(fresh, tmp_path / "joint")
    assert (asked(trained) - asked(fresh)).abs().max() < 1e-3  # float16
    state = load_file(tmp_path / "joint" / "model.safetensors")
    state.popitem()
    save_file(state, tmp_path / "joint" / "model.safetensors")
    with pytest.raises(InputError, match="1 missing"):
        read(fresh, tmp_path / "joint")


def groups(seed: int = 0) -> Grouped:
    """Two objects of random numbers, as the embedded prior's codec has them."""
    g = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randn(2, *shape, generator=g).half() for name, shape in SHAPES.items()}
    return Grouped(Encoded(**drawn, about=[{}, {}]), 0.5, V, 0, 2)


SHAPES = {
    "latents": (5, 12, 16, 16),
    "hint": (2, 5, 12, 16, 16),
    "planes": (2, 5, 6, 16, 16),
    "embedding": (5, 128),
    "azimuth": (5,),
    "elevation": (5,),
}


def test_training_moves_what_was_added_and_nothing_else():
    base: Any = load("mini")
    network = Added(Consistent123(base, V))
    before = {name: p.clone() for name, p in base.state_dict().items()}
    batch = {name: torch.stack([row[name] for row in rows]) for rows in [[groups()[i] for i in range(2)]] for name in rows[0]}
    assert network(batch).shape == (2,)
    optimiser = torch.optim.SGD(network.parameters(), 0.1)
    network(batch).sum().backward()
    optimiser.step()
    moved = {name for name, p in base.state_dict().items() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if "joint_mid.to_out" in name}  # the others only move once these are no longer zeros
    null = batch | {"is_null": torch.tensor([True, True])}
    assert (network(null) - network(batch)).abs().max() > 1e-4
