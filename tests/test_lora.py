# SPDX-License-Identifier: Apache-2.0
"""LoRA: the update's algebra, a prior that is never touched, camera labels, and files that diffusers reads and writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bozzetto.camera import orbit
from bozzetto.denoiser import VPDenoiser
from bozzetto.errors import InputError
from bozzetto.priors import load, lora
from bozzetto.priors.loading import TEXT
from bozzetto.priors.lora import LoRA, adapted
from bozzetto.priors.tuned import camera_label, dropped, unfrozen
from tests.twins import zero123 as twin
from tests.twins.text import text_folder

ALPHA_BAR = torch.linspace(0.99, 0.01, 10, dtype=torch.float64)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Net(nn.Module):
    """A linear layer and a strided convolution with bias, each of which an update may reach."""

    def __init__(self):
        super().__init__()
        self.q, self.conv = nn.Linear(6, 6, bias=False), nn.Conv2d(1, 6, (2, 3), bias=True)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=seeded(p.numel()))

    def forward(self, x_t, step):
        return self.q(x_t) + self.conv(x_t.view(-1, 1, 2, 3)).flatten(1)


def toy() -> SimpleNamespace:
    return SimpleNamespace(denoiser=VPDenoiser(Net().requires_grad_(False).eval(), ALPHA_BAR, "x0"))


def randomised(tuned, scale=0.1):
    """As after training: B, and a camera embedding's last layer, are no zeros any more."""
    for name, p in tuned.weights.items():
        if not p.any():
            p.data = scale * torch.randn(p.shape, generator=seeded(len(name) + p.numel()))
    return tuned


CASES = ("mini in words", "port", "stable diffusion", "digits-ddpm")


@pytest.fixture(scope="module", params=CASES)
def prior(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prior") / "folder"
    if request.param == "mini in words":
        return load("mini", TEXT)
    if request.param == "port":
        return load(twin.write_port(folder, twin.port_parts(), 1), "zero123")
    if request.param == "stable diffusion":
        return load(text_folder(folder))
    return load(request.param)


def asked(denoiser, prior, cond=None):
    """Its answers for two samples at two levels."""
    x = torch.randn(2, *prior.shape, generator=seeded(7))
    with torch.no_grad():
        return denoiser.denoise(x, torch.tensor([0.5, 3.0], dtype=torch.float64), prior.condition() if cond is None else cond)


def trained(tuned, prior, steps=2, lr=1e-2):
    """A few of Adam's steps towards a picture that the prior did not draw."""
    optimiser = torch.optim.AdamW(tuned.parameters(), lr=lr)
    x0, noise = (torch.randn(2, *prior.shape, generator=seeded(k)) for k in (1, 2))
    for _ in range(steps):
        optimiser.zero_grad()
        tuned.loss(x0, noise, 1.0, prior.condition()).mean().backward()
        optimiser.step()
    return tuned


# ---- the update ----


def test_lo_1_at_the_start_it_is_the_prior_and_merged_it_is_unmerged(prior):
    """B = 0: equal to the bit. Then W + B A in one matrix answers as the two paths do: to 1e-5 of 1, rounding of float32."""
    tuned = adapted(prior, LoRA(rank=3), generator=seeded(0))
    assert torch.equal(asked(tuned, prior), asked(prior.denoiser, prior))
    randomised(tuned)
    unmerged = asked(tuned, prior)
    layers = dict(prior.denoiser.network.named_modules())
    network = unfrozen(prior, generator=seeded(0))
    merged = dict(network.network.named_modules())
    names = {name.rsplit(".lora_", 1)[0] for name in tuned.weights}
    for name in names:
        A, B = (tuned.weights[f"{name}.lora_{m}.default.weight"].detach() for m in "AB")
        delta = lora.Update(A, B, 1.0).delta()
        assert delta.shape == layers[name].weight.shape and torch.linalg.matrix_rank(delta.flatten(1)) == 3
        merged[name].weight.data += delta
    assert (unmerged - asked(prior.denoiser, prior)).abs().max() > 1e-3
    torch.testing.assert_close(asked(network, prior), unmerged, atol=2e-5, rtol=1e-5)


def test_lora_1_at_the_start_only_b_has_a_gradient():
    tuned = adapted(toy(), generator=seeded(0))
    x0, noise = (torch.randn(5, 6, generator=seeded(k)) for k in (1, 2))
    tuned.loss(x0, noise, 1.0).sum().backward()
    A, B = tuned.weights["q.lora_A.default.weight"], tuned.weights["q.lora_B.default.weight"]
    assert not A.grad.any() and B.grad.any() and not B.any()
    assert {name for name, p in tuned.network.named_parameters() if p.grad is not None} == tuned.weights.keys()


def test_lora_2_a_twin_written_out_gives_the_same():
    """W x + (alpha / r) B (A x), and the convolution as a matrix of its windows, in float64, for both kinds of layer."""
    prior = toy()
    tuned = randomised(adapted(prior, LoRA(rank=2, alpha=3.0, layers=("q", "conv")), generator=seeded(0)))
    w = {name.replace(".default.weight", ""): p.detach().double() for name, p in tuned.weights.items()}
    x = torch.randn(4, 6, generator=seeded(3))
    net, y = prior.denoiser.network, x.double()
    expected = y @ net.q.weight.double().T + 1.5 * y @ w["q.lora_A"].T @ w["q.lora_B"].T
    kernel = net.conv.weight.double().flatten(1) + 1.5 * w["conv.lora_B"].flatten(1) @ w["conv.lora_A"].flatten(1)
    expected = expected + y @ kernel.T + net.conv.bias.double()
    torch.testing.assert_close(tuned.network(x, None).double(), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(tuned.network(x, None), prior.denoiser.network(x, None), atol=1e-2)


def test_lora_3_what_it_learns_is_r_times_d_plus_k_numbers(prior):
    tuned = adapted(prior, LoRA(rank=2), generator=seeded(0))
    layers = dict(prior.denoiser.network.named_modules())
    names = {name.rsplit(".lora_", 1)[0] for name in tuned.weights}
    expected = sum(2 * (layers[n].weight.shape[0] + layers[n].weight[0].numel()) for n in names)
    assert sum(p.numel() for p in tuned.parameters()) == expected and len(names) % 4 == 0  # q, k, v, out
    assert not any(p.requires_grad for n, p in tuned.network.named_parameters() if n not in tuned.weights)


def test_lora_4_the_scale_is_linear_and_zero_is_off():
    def answer(alpha):
        tuned = randomised(adapted(toy(), LoRA(rank=2, alpha=alpha), generator=seeded(0)))
        return tuned.network(torch.eye(6), None)

    base, one, three = answer(0.0), answer(2.0), answer(6.0)
    assert torch.equal(base, toy().denoiser.network(torch.eye(6), None))
    torch.testing.assert_close(three - base, 3 * (one - base), atol=1e-5, rtol=1e-5)


def test_a_rank_r_update_learns_the_best_change_of_rank_r():
    """Inputs are white, so that the loss is |W' - T|**2, and its minimum over updates of rank r what the singular values beyond
    the r-th leave of T - W (Eckart & Young 1936)."""
    prior, singular = toy(), torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2, 0.1])
    U, V = (torch.linalg.qr(torch.randn(6, 6, generator=seeded(k)))[0] for k in (1, 2))
    target = prior.denoiser.network.q.weight + U @ singular.diag() @ V
    left = {}
    for rank in (1, 3):
        tuned = adapted(prior, LoRA(rank=rank), generator=seeded(0))
        optimiser = torch.optim.LBFGS(list(tuned.parameters()), max_iter=500, line_search_fn="strong_wolfe")

        def loss(tuned=tuned, optimiser=optimiser):
            optimiser.zero_grad()
            value = (tuned.network.q(torch.eye(6)).T - target).square().sum()
            value.backward()
            return value

        optimiser.step(loss)
        left[rank] = float(loss().detach())
    assert left[1] == pytest.approx(float(singular[1:].square().sum()), rel=1e-4)
    assert left[3] == pytest.approx(float(singular[3:].square().sum()), rel=1e-4)


def test_the_generator_draws_a_with_a_deviation_of_one_over_r():
    a, b, c = (adapted(toy(), LoRA(rank=4), generator=seeded(s)).state() for s in (0, 0, 1))
    name = "q.lora_A.default.weight"
    assert torch.equal(a[name], b[name]) and not torch.equal(a[name], c[name])
    draws = torch.cat([adapted(toy(), LoRA(rank=4), generator=seeded(s)).state()[name].flatten() for s in range(100)])
    assert float(draws.std()) == pytest.approx(0.25, rel=4 / (2 * len(draws)) ** 0.5)  # four standard errors of 2400 draws


# ---- the prior ----


@pytest.mark.parametrize("way", ["low rank", "all weights"])
def test_the_prior_is_never_touched(prior, way):
    """Bit for bit, while a copy trains and after it is gone; no weight is renamed, none begins to train."""
    before, names = asked(prior.denoiser, prior), list(prior.denoiser.network.state_dict())
    tuned = adapted(prior, generator=seeded(0)) if way == "low rank" else unfrozen(prior, generator=seeded(0))
    shared = {id(p) for p in prior.denoiser.parameters()} & {id(p) for p in tuned.denoiser.parameters()}
    assert len(shared) == (len(names) if way == "low rank" else 0)
    torch.testing.assert_close(asked(tuned, prior), before, atol=0, rtol=0)
    trained(tuned, prior)
    assert (asked(tuned, prior) - before).abs().max() > 1e-4
    assert torch.equal(asked(prior.denoiser, prior), before)
    del tuned
    assert torch.equal(asked(prior.denoiser, prior), before) and list(prior.denoiser.network.state_dict()) == names
    assert not any(p.requires_grad or p.grad is not None for p in prior.denoiser.parameters())


def test_a_state_goes_on_where_it_was(prior):
    tuned = trained(adapted(prior, generator=seeded(0)), prior)
    kept, wanted = tuned.state(), asked(tuned, prior)
    again = adapted(prior, generator=seeded(1))
    again.restore(kept)
    assert torch.equal(asked(again, prior), wanted)
    trained(tuned, prior, 1)
    assert all(torch.equal(kept[name], w) for name, w in again.state().items())  # copies, not views
    with pytest.raises(ValueError, match=r"expected the \d+ weights that train"):
        unfrozen(prior, generator=seeded(0)).restore(kept)


def test_a_prior_in_half_precision_learns_in_float32(tmp_path):
    prior = load(text_folder(tmp_path / "sd"), dtype=torch.bfloat16)
    tuned = trained(adapted(prior, generator=seeded(0)), prior)
    assert {p.dtype for p in tuned.parameters()} == {torch.float32}
    assert asked(tuned, prior).dtype == torch.float32 and not torch.equal(asked(tuned, prior), asked(prior.denoiser, prior))
    assert {p.dtype for p in unfrozen(prior, generator=seeded(0)).parameters()} == {torch.float32}


def test_what_cannot_be_tuned_says_so(prior):
    with pytest.raises(ValueError, match="expected one whose denoiser is a VPDenoiser"):
        adapted(load("digits-ncsn"), generator=seeded(0))
    with pytest.raises(ValueError, match="not found"):
        adapted(prior, LoRA(layers=("no_such_layer",)), generator=seeded(0))


# ---- cameras ----


def test_camera_labels_begin_as_nothing_and_are_learnt(prior):
    """threestudio's labels, with a last layer of zeros: whatever the camera, the first answer is the prior's. Without a camera the
    label is zeros."""
    if prior.denoiser.network.__class__.__name__ != "ConditionedUNet":
        with pytest.raises(ValueError, match="only a U-Net without a class embedding"):
            adapted(prior, camera=True, generator=seeded(0))
        return
    tuned = adapted(prior, camera=True, generator=seeded(0))
    null = prior.condition()
    labels = {a: camera_label(orbit([a], 0.3, 2.0, size=8, fov=0.6)) for a in (0.0, 1.0)}
    assert all(torch.equal(asked(tuned, prior, {**null, "camera": label}), asked(prior.denoiser, prior)) for label in labels.values())
    with pytest.raises(ValueError, match="no embedding of cameras"):
        asked(prior.denoiser, prior, {**null, "camera": labels[0.0]})
    randomised(tuned)
    front, side = (asked(tuned, prior, {**null, "camera": label}) for label in labels.values())
    assert (front - side).abs().max() > 1e-4
    assert torch.equal(asked(tuned, prior, null), asked(tuned, prior, {**null, "camera": torch.zeros(1, 16)}))
    with pytest.raises(ValueError, match="a low-rank update and nothing else"):
        lora.save(tuned, Path("nowhere"))
    assert not torch.equal(asked(tuned, prior, null), front)


def test_a_camera_is_said_by_its_matrix_row_by_row():
    label = camera_label(orbit([0.0], 0.0, 2.5, size=8, fov=0.6))
    # on +x: right is +y, up is +z, back is +x
    assert label.tolist() == [[0, 0, 1, 2.5, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1]]
    assert camera_label(None).tolist() == [[0] * 16]


def test_a_tenth_of_the_rows_loses_its_camera_and_keeps_its_text():
    n, cond = 4000, {"camera": torch.ones(1, 16), "token": torch.full((1, 2, 3), 5.0)}
    made = dropped(cond, {"camera": torch.zeros(1, 16)}, 0.1, n, generator=seeded(0))
    lost = (made["camera"] == 0).all(1)
    assert (lost | (made["camera"] == 1).all(1)).all() and torch.equal(made["token"], cond["token"])
    assert float(lost.double().mean()) == pytest.approx(0.1, abs=4 * (0.1 * 0.9 / n) ** 0.5)
    one_a_row = dropped({"token": torch.arange(n * 6.0).view(n, 2, 3)}, {"token": torch.full((1, 2, 3), -1.0)}, 0.5, n, generator=seeded(0))
    gone = (one_a_row["token"] == -1).all((1, 2))
    assert torch.equal(one_a_row["token"][~gone], torch.arange(n * 6.0).view(n, 2, 3)[~gone])
    none, everything = (dropped(cond, {"camera": torch.zeros(1, 16)}, share, 3, generator=seeded(0))["camera"] for share in (0.0, 1.0))
    assert none.all() and not everything.any()


# ---- files ----


@pytest.fixture
def drawer(tmp_path):
    return load(text_folder(tmp_path / "sd"))


def fresh(tmp_path):
    """The U-Net of the same folder, by diffusers' own loader."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_pretrained(tmp_path / "sd" / "unet").eval()


def answer(unet):
    x = torch.randn(2, 4, 8, 8, generator=seeded(5))
    with torch.no_grad():
        return unet(x, torch.tensor([3, 700]), encoder_hidden_states=torch.ones(2, 3, 128)).sample


@pytest.mark.parametrize("alpha", [None, 6.0])
def test_ck_11_what_is_saved_is_read_by_diffusers_and_by_us_to_the_same_answer(drawer, tmp_path, alpha):
    from diffusers import StableDiffusionPipeline

    tuned = randomised(adapted(drawer, LoRA(rank=2, alpha=alpha), generator=seeded(0)))
    path = lora.save(tuned, tmp_path)
    wanted = answer(tuned.network.unet)
    by_model, by_pipeline = fresh(tmp_path), fresh(tmp_path)
    by_model.load_lora_adapter(str(tmp_path), prefix="unet", weight_name=path.name, use_safetensors=True)
    assert torch.equal(answer(by_model), wanted)
    state, alphas, metadata = StableDiffusionPipeline.lora_state_dict(tmp_path, weight_name=path.name, return_lora_metadata=True)
    StableDiffusionPipeline.load_lora_into_unet(state, alphas, by_pipeline, metadata=metadata)
    assert torch.equal(answer(by_pipeline), wanted)
    by_us = fresh(tmp_path)
    lora.merge(tmp_path, by_us, lora.read(path))
    torch.testing.assert_close(answer(by_us), wanted, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(answer(fresh(tmp_path)), wanted, atol=1e-2)


@pytest.mark.parametrize("written", ["by the model", "by the pipeline", "before 0.22"])
def test_what_diffusers_saved_is_read(drawer, tmp_path, written):
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    unet = fresh(tmp_path)
    with torch.random.fork_rng():
        alpha = 3 if written == "before 0.22" else 9  # old files say no alpha, and mean r
        unet.add_adapter(LoraConfig(r=3, lora_alpha=alpha, init_lora_weights=False, target_modules=["to_q", "to_out.0", "conv1"]))
    wanted, path = answer(unet), tmp_path / "pytorch_lora_weights.safetensors"
    if written == "by the model":
        unet.save_lora_adapter(tmp_path)
    elif written == "by the pipeline":
        from diffusers.training_utils import _collate_lora_metadata

        layers = get_peft_model_state_dict(unet)
        StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=layers, **_collate_lora_metadata({"unet": unet}))
    else:
        old = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
        assert any(k.endswith("to_q.lora.down.weight") for k in old)
        save_file({f"unet.{k}": v.contiguous() for k, v in old.items()}, path)
    lora.merge(tmp_path, drawer.unet, lora.read(path))
    torch.testing.assert_close(answer(drawer.unet), wanted, atol=2e-5, rtol=1e-4)


def test_files_that_are_no_update_of_this_prior(drawer, tmp_path):
    path = lora.save(adapted(drawer, LoRA(rank=2), generator=seeded(0)), tmp_path)
    whole, said = load_file(path), json.dumps({"unet.r": 2, "unet.lora_alpha": 2})
    first = next(k for k in whole if "lora_A" in k)

    def refused(says, tensors, **settings):
        save_file(tensors, path, metadata={"lora_adapter_metadata": json.dumps({**json.loads(said), **settings})})
        before = {k: v.clone() for k, v in drawer.unet.state_dict().items()}
        with pytest.raises(InputError, match=says) as error:
            lora.merge(path, drawer.unet, lora.read(path))
        assert "\n" not in str(error.value)
        assert all(torch.equal(v, before[k]) for k, v in drawer.unet.state_dict().items())

    refused("is no part of a U-Net's low-rank update", {k: v for k, v in whole.items() if k != first})
    refused("is no part of a U-Net's low-rank update", {**whole, "unet.conv_in.bias": torch.zeros(16)})
    refused("changes the text tower", {**whole, "text_encoder.x.lora_A.weight": torch.zeros(2, 3)})
    refused("no such layer; it was learnt on another prior", {k.replace("down_blocks.0", "down_blocks.7"): v for k, v in whole.items()})
    refused("should have a weight", {k: (v[:, :-1].contiguous() if k == first else v) for k, v in whole.items()})
    refused("a variant of LoRA", whole, **{"unet.use_dora": True})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        lora.read(path)
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        lora.read(path)


def test_an_alpha_of_a_layer_goes_before_the_others(drawer, tmp_path):
    path = lora.save(randomised(adapted(drawer, LoRA(rank=2), generator=seeded(0))), tmp_path)
    layer = next(iter(lora.read(path)))
    about = {"r": 2, "lora_alpha": 6, "alpha_pattern": {layer: 1}}
    save_file(load_file(path), path, metadata={"lora_adapter_metadata": json.dumps(about)})
    scales = {name: update.scale for name, update in lora.read(path).items()}
    assert scales.pop(layer) == 0.5 and set(scales.values()) == {3.0}


def test_without_peft_one_sentence_says_what_to_type(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'bozzetto\[priors\]'"):
        adapted(toy(), generator=seeded(0))


def test_settings_say_the_scale():
    assert LoRA().scale == 1.0 and replace(LoRA(rank=8), alpha=4.0).scale == 0.5
