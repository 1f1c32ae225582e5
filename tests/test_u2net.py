# SPDX-License-Identifier: Apache-2.0
"""U2-Net-p: against a slow float64 twin; its weights, and what is said where they are missing; its conversion from ONNX."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bozzetto.errors import InputError
from bozzetto.matting import u2net
from bozzetto.matting.u2net import WEIGHTS, U2Net, load, saliency
from bozzetto.training.u2netp import converted, in_order, pictures
from tests.twins import u2net as twin


def test_u2net_equals_its_twin() -> None:
    """Odd sides: halving rounds up, and what is enlarged meets its own size. float64 on both sides leaves rounding alone."""
    network = U2Net()
    network.load_state_dict({k: v.float() for k, v in load_file(WEIGHTS).items()})
    network.double().eval()
    x = torch.randn(1, 3, 45, 38, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        mine = network(x)[0, 0].numpy()
    state = {k: v.numpy() for k, v in network.state_dict().items()}
    theirs = twin.fused(x[0].numpy(), state)
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-10)
    assert np.ptp(mine) > 0.01
    swapped = {
        k.replace("up3", "down3") if "bottom" in k and "up3" in k else k: v for k, v in state.items()
    }  # one layer in another's place
    assert np.abs(twin.fused(x[0].numpy(), {**state, **swapped}) - mine).max() > 1e-6


def test_weights_are_half_and_load_strictly(tmp_path: Path) -> None:
    """1.13 M parameters in float16; a name too few, a shape that is another's or a cut file are refused in one sentence."""
    state = load_file(WEIGHTS)
    assert sum(v.numel() for v in state.values()) == 1_125_485
    assert all(v.dtype == torch.float16 for v in state.values()) and WEIGHTS.stat().st_size < 2.4e6
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in load().parameters())
    few = {k: v for k, v in state.items() if k != "fuse.bias"}
    save_file(few, tmp_path / "few.safetensors")
    save_file({**state, "fuse.bias": torch.zeros(2).half()}, tmp_path / "shape.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(WEIGHTS.read_bytes()[:5000])
    for name in ("few", "shape", "cut", "missing"):
        with pytest.raises(
            InputError, match=rf"{name}.safetensors: not the weights of U2-Net-p \(.*\); install .*--matting classical"
        ) as caught:
            load(tmp_path / f"{name}.safetensors")
        assert "\n" not in str(caught.value)


def test_saliency_of_a_drawn_picture() -> None:
    """A dark disc off the centre of a gradient, 300 x 200 pixels: seen where it is. The published ONNX gives the same numbers to 0.01,
    half precision's rounding; they are stored here so that a change of the layers or of the normalisation shows."""
    h, w = 200, 300
    y, x = (np.mgrid[0:h, 0:w].astype(np.float32) + 0.5) / h
    disc = (y - 0.4) ** 2 + (x - 0.9) ** 2 < 0.06
    rgb = np.stack([0.6 + 0.2 * y, 0.7 - 0.1 * x, 0.6 + 0 * x], -1) * np.where(disc, 0.3, 1)[..., None]
    seen = saliency(torch.from_numpy(rgb.astype(np.float32)))
    assert seen.shape == (320, 320) and seen.dtype == torch.float32 and seen.min() >= 0 and seen.max() <= 1
    true = torch.nn.functional.interpolate(torch.from_numpy(disc).float()[None, None], (320, 320))[0, 0] > 0.5
    assert float(((seen > 0.5) & true).sum() / ((seen > 0.5) | true).sum()) > 0.95
    assert torch.equal(seen, saliency(torch.from_numpy(rgb.astype(np.float32))))


def test_layers_stand_in_the_order_of_the_graph() -> None:
    """What the conversion relies on: the order of definition is the order of use."""
    network, used = U2Net(), []
    for name, layer in in_order(network):
        layer.register_forward_hook(lambda *_, name=name: used.append(name))
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    named = [name for name, _ in in_order(network)]
    assert len(named) == 119
    assert used == named


def test_conversion_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match="onnx: the package is not installed; pip install onnx onnxruntime"):
        converted(tmp_path / "u2netp.onnx")
    assert [p.shape for p in pictures()] == [(1, 3, u2net.SIDE, u2net.SIDE)] * 2
