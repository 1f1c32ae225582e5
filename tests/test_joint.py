# SPDX-License-Identifier: Apache-2.0
"""Views that look at each other: inflated self-attention (MV-1, 2, 3) and added attention (C1-5, WO-4), against closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bozzetto.priors.codec import KLCodec
from bozzetto.priors.joint import JointPrior, JointUNet, LookAcross, add_attention, blocks, look_across
from bozzetto.priors.latent import ConditionedUNet
from bozzetto.priors.schedule import NoiseSchedule
from tests.twins import zero123 as twin

V, CELLS, WIDTH = 3, 8, 24


def plain() -> nn.Module:
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        return twin.small_unet(4, 4, WIDTH).eval()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def joint() -> JointUNet:
    network = JointUNet(plain())
    look_across(network)
    return network


@torch.no_grad()
def test_mv_1_views_that_change_places_change_answers_alike(joint: JointUNet) -> None:
    x, step, token = noise(2, V, 4, CELLS, CELLS), torch.tensor([3.0, 500.0]), noise(1, V, 5, WIDTH, seed=1)
    order = [2, 0, 1]
    made, moved = joint(x, step, token=token), joint(x[:, order], step, token=token[:, order])
    assert (made[:, order] - moved).abs().max() < 1e-5
    assert (made - joint(x, step, token=token[:, order])).abs().max() > 1e-3  # the control: tokens that stay where they were


@torch.no_grad()
def test_mv_2_equal_views_answer_as_one(joint: JointUNet) -> None:
    x, step, token = noise(2, 1, 4, CELLS, CELLS), torch.tensor([3.0, 500.0]), noise(1, 1, 5, WIDTH, seed=1)
    one, many = joint(x, step, token=token), joint(x.expand(-1, V, -1, -1, -1).contiguous(), step, token=token)
    assert (many - one).abs().max() < 1e-5
    other = torch.cat([x, noise(2, 1, 4, CELLS, CELLS, seed=2)], 1)
    assert (joint(other, step, token=token)[:, :1] - one).abs().max() > 1e-3  # it does look at the other view


@torch.no_grad()
def test_mv_3_one_view_is_the_network_for_single_pictures_bit_for_bit_and_no_weights_are_added(joint: JointUNet) -> None:
    single = ConditionedUNet(plain())
    assert joint.state_dict().keys() == single.state_dict().keys()
    x, step, token = noise(2, 4, CELLS, CELLS), torch.tensor([3.0, 500.0]), noise(1, 5, WIDTH, seed=1)
    assert torch.equal(joint(x[:, None], step, token=token[:, None])[:, 0], single(x, step, token=token))


@torch.no_grad()
def test_attention_across_views_is_the_softmax_over_all_their_tokens(joint: JointUNet) -> None:
    attn, x = blocks(joint.unet)[0].attn1.double(), noise(2 * V, 6, blocks(joint.unet)[0].attn1.query_dim).double()
    joint.group.views = V
    made = attn(x)
    h = attn.heads
    q, k, v = (f(x).view(2, V * 6, h, -1).transpose(1, 2) for f in (attn.to_q, attn.to_k, attn.to_v))
    maps = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).exp()
    wanted = attn.to_out[0]((maps / maps.sum(-1, keepdim=True) @ v).transpose(1, 2).reshape(2 * V, 6, -1))
    attn.float()
    assert (made - wanted).abs().max() < 1e-12


@torch.no_grad()
def test_c1_5_wo_4_an_added_attention_begins_as_the_identity() -> None:
    network, single = JointUNet(plain()), ConditionedUNet(plain())
    add_attention(network.unet, LookAcross(network.group))
    x, step, token = noise(2, V, 4, CELLS, CELLS), torch.tensor([3.0, 500.0]), noise(1, 1, 5, WIDTH, seed=1)
    flat = single(x.flatten(0, 1), step.repeat_interleave(V), token=token[0]).view_as(x)
    assert torch.equal(network(x, step, token=token), flat)
    added = {name for name in network.state_dict() if "joint_mid" in name}
    assert network.state_dict().keys() - added == single.state_dict().keys()
    assert len(added) == 7 * len(blocks(single.unet))  # to_q, to_k, to_v, to_out.0 and the norm, two of which have biases
    for block in blocks(network.unet):
        block.attn_joint_mid.to_out[0].weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    assert (network(x, step, token=token) - flat).abs().max() > 1e-3


def test_every_added_weight_gets_a_gradient() -> None:
    network = JointUNet(plain())
    add_attention(network.unet, LookAcross(network.group))
    for block in blocks(network.unet):
        nn.init.normal_(block.attn_joint_mid.to_out[0].weight, 0, 0.1)
    network(noise(1, V, 4, CELLS, CELLS), torch.tensor([3.0]), token=noise(1, 1, 5, WIDTH)).square().sum().backward()
    assert all(float(p.grad.abs().max()) > 0 for name, p in network.named_parameters() if "joint_mid" in name)


@torch.no_grad()
def test_a_joint_prior_encodes_object_by_object() -> None:
    prior = JointPrior(plain(), KLCodec(twin.port_parts()["vae"].eval()), NoiseSchedule(), V)
    rgb = torch.rand(2 * V, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    x0 = prior.encode_pictures(rgb)
    assert x0.shape == (2, *prior.shape) and prior.shape == (V, 4, CELLS, CELLS)
    assert (prior.encode_pictures(rgb[V:])[0] - x0[1]).abs().max() < 1e-6
    assert prior.decode(x0).shape == rgb.shape
    with pytest.raises(ValueError, match="multiple of 3 pictures, got 4"):
        prior.encode_pictures(rgb[:4])
