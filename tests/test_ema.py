# SPDX-License-Identifier: Apache-2.0
"""The moving average of the weights, as the training loop keeps it."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
from torch import nn

from bozzetto.training.loop import LoopSettings, _average, train
from tests.twins.worlds import seeded


class Number(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value, dtype=torch.float64))


def averaged(values, decay: float, start: float = 0.0, first: int = 10**9) -> float:
    """After all the values; `first` is the step's number, so large by default that the warm-up is over."""
    average, network = Number(start), Number(0.0)
    for n, value in enumerate(values):
        network.value.data.fill_(value)
        _average(average, network, first + n, decay)
    return float(average.value.detach())


@pytest.mark.parametrize("decay", [0.9, 0.99, 0.999])
def test_ema_1_constants_and_ramps(decay):
    """From 0 to a constant 1: 1 - m**n, half of it after ln 2 / -ln m; behind a ramp by m / (1 - m) at last."""
    assert averaged([1.0] * 50, decay) == pytest.approx(1 - decay**50, rel=1e-12)
    half = round(math.log(2) / -math.log(decay))
    assert averaged([1.0] * half, decay) == pytest.approx(0.5, abs=0.6 * (1 - decay))
    long = round(40 / (1 - decay))
    assert long - 1 - averaged(range(long), decay) == pytest.approx(decay / (1 - decay), rel=1e-9)


def test_ema_1_the_tabled_half_lives():
    for decay, updates in [(0.999, 693), (0.9999, 6931)]:
        assert round(math.log(2) / -math.log(decay)) == updates


def test_ema_2_warm_up_forgets_the_start():
    """Step 1 keeps 2 / 11 of what was; min(m, (1 + n) / (10 + n)) reaches m = .99 at n = 890."""
    assert averaged([1.0], 0.99, start=0.0, first=1) == pytest.approx(9 / 11, rel=1e-12)
    assert averaged([1.0], 0.99, first=889) == pytest.approx(9 / 899, rel=1e-12)
    assert averaged([1.0], 0.99, first=5000) == pytest.approx(0.01, rel=1e-12)


def test_ema_3_the_average_is_saved_and_restored_bit_for_bit(tmp_path):
    """A run that has nothing left to do returns the average of its checkpoint; the network's own weights differ from it."""
    from safetensors.torch import load_file

    net = nn.Linear(3, 2)
    for q in net.parameters():
        nn.init.normal_(q, generator=seeded(1))
    data = [{"x": torch.randn(3, generator=seeded(i))} for i in range(64)]
    settings = LoopSettings(samples=32, batch=4, warmup=1, validate_every=1000, workers=0, mixed_precision="no")

    def loss(network: nn.Module, batch: dict[str, torch.Tensor]):
        total = (network(batch["x"]) - 1).square().mean()
        return total, {"total": total}

    made = train(deepcopy(net), data, loss, tmp_path, settings, lambda n: {})
    kept = load_file(tmp_path / "state.safetensors")
    again = train(deepcopy(net), data, loss, tmp_path, settings, lambda n: {})
    for name, value in made.state_dict().items():
        assert torch.equal(again.state_dict()[name], value) and torch.equal(kept[f"average.{name}"], value)
        assert not torch.equal(kept[f"network.{name}"], value)
