# SPDX-License-Identifier: Apache-2.0
"""The training loop: what it resumes to, what its optimiser does, what its losses mean."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch.utils.data import Dataset

from bozzetto.priors.first_guess import FirstGuess, FirstGuessConfig, Guess, load, medians, save
from bozzetto.training import first_guess
from bozzetto.training.loop import LoopSettings, precision, rate, train
from bozzetto.training.muon import Muon, orthogonalised

TINY = FirstGuessConfig(widths=(8, 16, 24, 48), blocks=(1, 1, 2), depths=8, colour_depths=4)


def tiny() -> FirstGuess:
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251 — layers draw from the global state
        return FirstGuess(TINY)


class Noise(Dataset):
    """Batches as a function of the index, shaped like the training data."""

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        g = torch.Generator().manual_seed(i)
        picture = torch.rand(4, 32, 32, generator=g)
        return {
            "picture": picture,
            "occupancy": (255 * torch.rand(8, 16, 16, generator=g)).to(torch.uint8),
            "points": torch.rand(16, 3, generator=g),
            "colour": torch.rand(16, 3, generator=g),
            "view": torch.rand(2, generator=g),
        }

    def __len__(self) -> int:
        return 1 << 20


SETTINGS = dict(batch=4, warmup=2, save_every=0.0, validate_every=8, workers=0, mixed_precision="no")


def test_a_run_killed_and_resumed_ends_in_the_same_bits(tmp_path):
    def run(folder, stop_after=None):
        calls = 0

        def loss(network, batch):
            nonlocal calls
            calls += 1
            if stop_after is not None and calls > stop_after:
                raise KeyboardInterrupt
            return first_guess.loss(network, batch)

        return train(tiny(), Noise(), loss, folder, LoopSettings(samples=32, **SETTINGS), lambda n: {"zero": 0.0})

    whole = run(tmp_path / "whole")
    for stop in (2, 3):  # killed twice, at different steps
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed", stop)
    resumed = run(tmp_path / "killed")
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    curve = [json.loads(line)["samples"] for line in (tmp_path / "whole" / "curve.jsonl").read_text().splitlines()]
    assert curve == [8, 16, 24, 32]


class Line(Dataset):
    """Sample i is i."""

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return {"i": torch.tensor(float(i))}

    def __len__(self) -> int:
        return 1 << 20


def test_a_lost_state_is_begun_anew_from_the_average_with_a_warm_up(tmp_path):
    """Adam's steps are the rates themselves while all gradients are 1, so that the weight tells which rates were taken, and when."""
    settings = LoopSettings(samples=200, lr=0.0, vector_lr=1.0, cooldown=0.1, ema=0.7, **{**SETTINGS, "warmup": 5})

    def run(folder, start: float, begun: int, stop_at: float | None = None):
        network = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(network.weight, start)
        weights, samples = [], []

        def loss(network, batch):
            weights.append(float(network.weight.detach()))
            samples.append(batch["i"].tolist())
            if stop_at is not None and samples[-1][0] >= stop_at:
                raise KeyboardInterrupt
            total = network.weight.sum()
            return total, {"total": total}

        average = train(network, Line(), loss, folder, settings, lambda n: {"zero": 0.0}, begun=begun)
        return weights, samples, float(average.weight.detach())

    weights, samples, average = run(tmp_path / "anew", 7.0, 120)
    assert samples[0] == [120, 121, 122, 123] and samples[-1][-1] == 199  # the data go on where they were
    steps = torch.tensor(weights).diff().neg()
    torch.testing.assert_close(steps[:6], torch.tensor([0.2, 0.4, 0.6, 0.8, 1.0, 1.0]), atol=1e-4, rtol=0)
    want, d = 7.0, 0.7  # step 30 is late: the average moves at its full inertia, from the weights that were given
    after = [*weights[1:], weights[-1] - rate(settings, 196, 120)]
    for w in after:
        want = d * want + (1 - d) * w
    assert average == pytest.approx(want, abs=1e-3)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", 7.0, 120, stop_at=128)  # in the middle of the warm-up
    rest, _, end = run(tmp_path / "killed", -1.0, 0)  # the state is there now: neither start nor begun counts
    assert rest == weights[2:] and end == average


def test_learning_rates_rise_stay_and_fall():
    s = LoopSettings(samples=1000, batch=10, warmup=10, cooldown=0.2)
    assert rate(s, 0) == pytest.approx(0.1) and rate(s, 500) == 1 and rate(s, 900) == pytest.approx(0.5) and rate(s, 1000) == 0
    assert rate(s, 500, 500) == pytest.approx(0.1) and rate(s, 590, 500) == 1 and rate(s, 900, 850) == pytest.approx(0.5)


def test_bf16_is_chosen_only_where_the_hardware_computes_in_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for has_it in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has_it=has_it: {"avx512_bf16": has_it})
        assert precision("auto") == ("bf16" if has_it else "no")
        assert precision("bf16") == "bf16" and precision("no") == "no"  # who asks gets it
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)  # other architectures name other things
    assert precision("auto") == "no"


def test_orthogonalised_has_singular_values_near_one_and_the_same_directions():
    """Newton and Schulz's tuned quintic ends in [0.68, 1.13] (Jordan 2024); U and V are kept exactly, so U^T M V is diagonal."""
    m = torch.randn(24, 60, generator=torch.Generator().manual_seed(0))
    u, _, vt = torch.linalg.svd(m, full_matrices=False)
    middle = u.mT @ orthogonalised(m) @ vt.mT
    values = middle.diagonal()
    assert values.min() > 0.6 and values.max() < 1.25
    assert (middle - torch.diag(values)).abs().max() < 0.05  # bfloat16
    torch.testing.assert_close(orthogonalised(m.mT), orthogonalised(m).mT, rtol=0, atol=0)


def test_muon_descends_a_quadratic_and_its_moments_round_trip():
    layer = torch.nn.Linear(6, 4)
    target = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    optimiser = Muon(layer, 0.05, 0.05, decay=0.0)
    first = float((layer.weight - target).square().sum().detach())
    for k in range(200):
        optimiser.scale = 1 - k / 200
        optimiser.zero_grad()
        ((layer.weight - target).square().sum() + layer.bias.square().sum()).backward()
        optimiser.step()
    assert float((layer.weight - target).square().sum().detach()) < 0.05 * first
    other = Muon(layer, 0.05, 0.05)
    other.load_moments(optimiser.moments())
    assert all(torch.equal(a, other.moments()[k]) for k, a in optimiser.moments().items())


def test_the_loss_is_least_at_the_truth():
    batch = {k: torch.stack([Noise()[i][k] for i in range(3)]) for k in Noise()[0]}
    solid = (torch.rand(3, 8, 16, 16, generator=torch.Generator().manual_seed(9)) > 0.7).float()
    solid[:, 0] = 1  # each pixel shows something
    batch["picture"][:, 3] = 1
    batch["occupancy"] = (255 * solid).to(torch.uint8)
    colours = torch.full((3, 3, 4, 8, 8), 0.4)
    batch["colour"] = torch.full_like(batch["colour"], 0.4)
    surface = first_guess.surface_of(solid)[0]
    true = Guess(20 * (2 * solid - 1), surface, colours, batch["view"])
    parts = first_guess.loss(lambda _: true, batch)[1]
    assert float(parts["total"]) < 2e-3  # sigmoid(20) is 2e-9 from 1; half precision nowhere; -log of it, 64 cells
    for wrong in (
        Guess(-true.occupancy, surface, colours, true.view),
        Guess(true.occupancy.roll(1, 1), surface, colours, true.view),
        Guess(true.occupancy, surface + 1, colours, true.view),
        Guess(true.occupancy, surface, 1 - colours, true.view),
        Guess(true.occupancy, surface, colours, true.view + 0.3),
    ):
        assert float(first_guess.loss(lambda _, w=wrong: w, batch)[1]["total"]) > 0.03


def test_the_surface_of_an_occupancy():
    """Where a ray enters, and how thick it is there: whole cells, half ones at both ends, a second solid behind, nothing."""
    occupancy = torch.zeros(1, 16, 1, 4)
    occupancy[0, 5:9, 0, 0] = 1
    occupancy[0, 5:9, 0, 1] = torch.tensor([0.25, 1, 1, 0.5])
    occupancy[0, 3:5, 0, 2], occupancy[0, 10:14, 0, 2] = 1, 1
    surface, exists = first_guess.surface_of(occupancy)
    assert exists.flatten().tolist() == [True, True, True, False]
    torch.testing.assert_close(surface[0, :, 0, :3], torch.tensor([[5, 5.75, 3], [4, 2.75, 2]]))
    sure = medians(40 * (occupancy[..., :1] - 0.5))
    torch.testing.assert_close(sure[0, :, 0, 0], torch.tensor([5.0, 4.0]), atol=1e-4, rtol=0)  # a sure occupancy says the same


def test_a_ray_enters_an_unsure_solid_at_the_median_depth():
    """Cells that are full with probability p, one after another: 1 - (1 - p)^k = (1 - (1 - p)^D) / 2."""
    p, depths = 0.1, 32
    front = medians(torch.full((1, depths, 1, 1), math.log(p / (1 - p))))[0, 0, 0, 0]
    k = math.log(1 - (1 - (1 - p) ** depths) / 2) / math.log(1 - p)
    assert float(front) == pytest.approx(k - 0.5, abs=p / 8 + 1e-3)  # within a cell a chord, not the curve: log(1 - p)^2 / 8 p


def test_the_distance_between_solids_of_cells():
    one = torch.zeros(32, 16, 16, dtype=torch.bool)
    one[10:14, 3:9, 2:11] = True
    assert first_guess.cell_chamfer(one, one) == 0
    plate = torch.zeros_like(one)
    plate[10] = True
    assert first_guess.cell_chamfer(plate, plate.roll(3, 0)) == pytest.approx(3 * 1.8 / 32)  # cells are 1.8 / D deep and 1 / w wide
    bar = torch.zeros_like(one)
    bar[:, 5, 4] = True
    assert first_guess.cell_chamfer(bar, bar.roll(2, 2)) == pytest.approx(2 / 16)
    assert first_guess.cell_chamfer(torch.zeros_like(one), one) == 1


def test_shifts_cost_less_than_bends_and_slopes_least_when_flat():
    truth = torch.zeros(1, 32, 16, 16)
    truth[:, 8:14] = 1
    wanted, coverage = first_guess.surface_of(truth)[0], torch.ones(1, 1, 16, 16)
    wave = torch.cat([torch.ones(1, 1, 16, 8), -torch.ones(1, 1, 16, 8)], 3)
    bumps = wave.roll(4, 3) * torch.where(torch.arange(16).view(1, 1, -1, 1) % 2 > 0, 1, -1)

    def cost(off: torch.Tensor) -> float:
        return float(first_guess.surface_loss(wanted + torch.cat([off, torch.zeros_like(off)], 1), truth, coverage))

    assert cost(torch.zeros_like(wave)) < 1e-6
    assert cost(torch.ones_like(wave)) == pytest.approx(8 / 32)  # an eighth of the depth is the unit; no bend, no slope
    assert cost(torch.ones_like(wave)) < cost(wave) < cost(bumps)
    assert first_guess.surface_loss(wanted + 1, truth, torch.zeros_like(coverage)) == 0  # nothing is seen


def test_gradients_of_the_loss_meet_finite_differences():
    batch = {k: torch.stack([Noise()[i][k] for i in range(2)]) for k in Noise()[0]}
    batch = {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
    g = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 8, 16, 16, generator=g).requires_grad_()
    direction = torch.randn(logits.shape, generator=g)

    def value(x):
        guess = Guess(x, torch.zeros(2, 2, 16, 16), torch.full((2, 3, 4, 8, 8), 0.5), batch["view"].float())
        return first_guess.loss(lambda _: guess, batch)[0]

    value(logits).backward()
    h = 1e-2
    with torch.no_grad():
        finite = (value(logits + h * direction) - value(logits - h * direction)) / (2 * h)
    assert float((logits.grad * direction).sum()) == pytest.approx(float(finite), rel=2e-2, abs=1e-4)  # float32, h^2


def test_a_first_guess_is_aligned_with_its_picture_and_survives_the_disk(tmp_path):
    network = tiny().eval()
    guess = network(torch.rand(2, 4, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert guess.occupancy.shape == (2, 8, 16, 16) and guess.colour.shape == (2, 3, 4, 8, 8) and guess.view.shape == (2, 2)
    save(network, tmp_path)
    again = load(tmp_path)
    for (name, a), b in zip(network.state_dict().items(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=name)  # float16 on disk


def test_colours_are_read_where_they_are():
    """A colour volume that is linear along u, v and t is read back exactly between cell centres."""
    d, h, w = 4, 8, 8
    at = [((torch.arange(n) + 0.5) / n) for n in (d, h, w)]
    t, v, u = torch.meshgrid(*at, indexing="ij")
    guess = Guess(torch.zeros(1, 8, 16, 16), torch.zeros(1, 2, 16, 16), torch.stack([u, v, t])[None], torch.zeros(1, 2))
    points = torch.tensor([[[0.3, 0.6, 0.1], [0.7, 0.2, -0.4]]])
    expected = torch.stack([points[0, :, 0], points[0, :, 1], points[0, :, 2] / 1.8 + 0.5], -1)
    torch.testing.assert_close(guess.colour_at(points)[0], expected, rtol=0, atol=1e-6)


def test_without_a_matrix_rate_all_is_adam():
    """The first step of Adam is the sign of the gradient times the rate, for matrices too."""
    layer = torch.nn.Linear(3, 2)
    before = layer.weight.detach().clone()
    layer.weight.grad, layer.bias.grad = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)), torch.ones(2)
    Muon(layer, 0.0, 0.01).step()
    torch.testing.assert_close(layer.weight, before - 0.01 * layer.weight.grad.sign(), atol=1e-6, rtol=0)
