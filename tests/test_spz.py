# SPDX-License-Identifier: Apache-2.0
"""`.spz`: what gsply writes is what Niantic's format says, read here by its own rules; and what is asked for without it is refused."""

from __future__ import annotations

import gzip
import math
import struct
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bozzetto import cli
from bozzetto.errors import InputError
from bozzetto.formats.ply import to_ply, to_spz
from bozzetto.shapes.gaussians import Gaussians

N = 50


def gaussians(reach: float = 0.5) -> Gaussians:
    draw = torch.Generator().manual_seed(4)
    g = Gaussians.from_box(N, reach, generator=draw)
    with torch.no_grad():
        g.log_scales[:] = -4 + torch.randn(N, 3, generator=draw)
        g.quats[:] = 3 * torch.randn(N, 4, generator=draw)  # of any length
        g.logit_opacities[:] = 2 * torch.randn(N, generator=draw)
        g.sh[:] = (0.3 * torch.randn(N, 15, 3, generator=draw)).clamp(-0.99, 0.99)
    return g


def read(data: bytes) -> tuple[dict[str, np.ndarray], int]:
    """Version 3 as github.com/nianticlabs/spz lays it out, and the bits after the point of its positions."""
    raw = gzip.decompress(data)
    magic, version, n, degree, bits, _, _ = struct.unpack("<IIIBBBB", raw[:16])
    assert (magic, version) == (0x5053474E, 3)
    count = (degree + 1) ** 2 - 1
    widths = {"positions": 9, "alphas": 1, "colours": 3, "scales": 3, "rotations": 4, "sh": 3 * count}
    assert len(raw) == 16 + n * sum(widths.values())
    at, parts = 16, {}
    for name, width in widths.items():
        parts[name] = np.frombuffer(raw, np.uint8, n * width, at).reshape(n, width).astype(np.int64)
        at += n * width
    low, middle, high = parts["positions"].reshape(n, 3, 3).transpose(2, 0, 1)
    fixed = low + (middle << 8) + (high << 16)
    quats = np.zeros((n, 4))  # x, y, z, w: three in ten bits each, the largest from the others
    for k, four in enumerate(parts["rotations"]):
        word = int(sum(b << (8 * i) for i, b in enumerate(four)))
        largest = word >> 30
        for i in (3, 2, 1, 0):
            if i != largest:
                quats[k, i] = (word & 511) / 511 * math.sqrt(0.5) * (-1 if word & 512 else 1)
                word >>= 10
        quats[k, largest] = math.sqrt(max(0.0, 1 - (quats[k] ** 2).sum()))
    return {
        "means": np.where(fixed >= 1 << 23, fixed - (1 << 24), fixed) / 2**bits,
        "opacities": parts["alphas"][:, 0] / 255,
        "sh0": (parts["colours"] / 255 - 0.5) / 0.15,
        "log_scales": parts["scales"] / 16 - 10,
        "quats": np.roll(quats, 1, axis=1),
        "sh": (parts["sh"].reshape(n, count, 3) - 128) / 128,
    }, bits


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_an_spz_holds_the_gaussians_to_its_own_steps(degree):
    pytest.importorskip("gsply")
    g = gaussians()
    g.degree = degree
    data = to_spz(g)
    found, bits = read(data)
    assert bits >= 12 and len(data) < 0.4 * len(to_ply(g))
    count = (degree + 1) ** 2 - 1
    q = F.normalize(g.quats.detach(), dim=1)
    largest = q.gather(1, q.abs().argmax(1, keepdim=True))
    wanted = {  # half a step of each
        "means": (g.means, 0.51 / 2**bits),
        "opacities": (g.opacities, 0.51 / 255),
        "sh0": (g.sh0[:, 0], 0.51 / 255 / 0.15),
        "log_scales": (g.log_scales, 0.51 / 16),
        "quats": (q * largest.sign(), 0.004),  # half of sqrt(1/2) / 511 in three, and what that leaves to the fourth
        "sh": (g.sh[:, :count], 0.51 / 128),
    }
    for name, (truth, step) in wanted.items():
        assert np.abs(found[name] - truth.detach().numpy()).max(initial=0) <= step, name
    assert to_spz(g) == data


def test_far_gaussians_stay_where_they_are():
    pytest.importorskip("gsply")
    g = gaussians(3000)
    found, bits = read(to_spz(g))
    assert np.abs(found["means"] - g.means.detach().numpy()).max() <= 0.51 / 2**bits < 0.01


def test_without_gsply_it_is_refused_before_the_slow_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gsply", None)
    with pytest.raises(InputError, match=r"pip install 'bozzetto\[spz\]'"):
        to_spz(gaussians())
    monkeypatch.setattr(sys, "argv", ["bozzetto", "splat", str(tmp_path / "nowhere"), "--spz"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    said = capsys.readouterr().err
    assert caught.value.code == 2 and "bozzetto[spz]" in said and said.count("\n") == 1
