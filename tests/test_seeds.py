# SPDX-License-Identifier: Apache-2.0
"""Agreement of assets of several seeds: solids whose difference is known, seen from in front, the side and behind."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from bozzetto.camera import orbit
from bozzetto.evaluate.seeds import TURNS, agreement, iou, looks, turned
from bozzetto.mesh import Mesh, vertex_normals

FRONT, SIDE, BEHIND = TURNS


def block(front: float, behind: float, depth: float = 0.6) -> SimpleNamespace:
    """A box from x = -depth / 2 to depth / 2, 0.6 wide and high, two greys: x > 0 has the one, x < 0 the other; the camera is on +x."""
    x, w = depth / 2, 0.3
    vertices, faces, uv = [], [], []
    for low, high, column in ((-x, 0.0, 0.25), (0.0, x, 0.75)):
        corners = torch.tensor([[a, b, c] for a in (low, high) for b in (-w, w) for c in (-w, w)])
        n = 8 * len(vertices)
        quads = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
        faces += [[n + q[i] for i in t] for q in quads for t in ((0, 1, 2), (0, 2, 3))]
        vertices.append(corners)
        uv.append(torch.tensor([[column, 0.5]]).expand(8, 2))
    texture = torch.tensor([behind, behind, front, front]).view(1, 4, 1).expand(2, 4, 3).contiguous()
    v, f = torch.cat(vertices), torch.tensor(faces)
    mesh = Mesh(v, f, vertex_normals(v, f), torch.cat(uv), texture)
    return SimpleNamespace(mesh=mesh, camera=orbit([0.0], 0.0, 2.5, size=32, fov=0.5))


def drawn(*blocks: SimpleNamespace) -> list[Tensor]:
    return [looks(b, 64) for b in blocks]


def test_a_camera_turned_half_round_stands_opposite_and_looks_back():
    camera = orbit([0.4], 0.3, 2.0, size=8, fov=0.5)
    torch.testing.assert_close(turned(camera, 180).c2w, orbit([0.4 + math.pi], 0.3, 2.0, size=8, fov=0.5).c2w, rtol=0, atol=1e-14)
    torch.testing.assert_close(turned(camera, 90).c2w, orbit([0.4 + math.pi / 2], 0.3, 2.0, size=8, fov=0.5).c2w, rtol=0, atol=1e-14)


def test_backs_that_differ_in_colour_are_told_from_fronts_that_agree():
    found = agreement(drawn(block(0.5, 0.3), block(0.5, 0.4)))
    assert found[FRONT] == (100.0, 1.0)  # the same pixels: `psnr`'s ceiling
    assert found[BEHIND][0] == pytest.approx(-20 * math.log10(0.1), abs=0.2)  # one grey step everywhere, but for pixels of the rim
    assert found[BEHIND][0] < found[SIDE][0] < found[FRONT][0]  # half of the side is of the front's grey
    assert found[SIDE][0] == pytest.approx(-10 * math.log10(0.1**2 / 2), abs=0.3)
    assert found[BEHIND][1] == found[SIDE][1] == 1
    flipped = agreement(drawn(block(0.3, 0.5), block(0.4, 0.5)))
    assert flipped[BEHIND][0] == 100 and flipped[FRONT][0] == pytest.approx(20, abs=0.2)


def test_depths_that_differ_show_from_the_side_alone():
    found = agreement(drawn(block(0.5, 0.5, 0.6), block(0.5, 0.5, 0.3)))
    assert found[SIDE][1] == pytest.approx(0.5, abs=0.07)  # half of the area; perspective makes the nearer side larger by a tenth
    assert min(found[FRONT][1], found[BEHIND][1]) > 0.75


def test_all_pairs_count_alike():
    a, b, c = drawn(block(0.5, 0.2), block(0.5, 0.3), block(0.5, 0.5))
    each = [agreement(pair)[BEHIND][0] for pair in ([a, b], [a, c], [b, c])]
    assert agreement([a, b, c])[BEHIND][0] == pytest.approx(sum(each) / 3)
    with pytest.raises(ValueError, match="at least two"):
        agreement([a])


def test_iou_of_masks():
    a, b = torch.zeros(4, 4, 4), torch.zeros(4, 4, 4)
    assert iou(a, b) == 1
    a[:2, :, 3], b[1:3, :, 3] = 1, 1
    assert iou(a, b) == pytest.approx(1 / 3)
