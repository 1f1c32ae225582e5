# SPDX-License-Identifier: Apache-2.0
"""The default search: an object of known alpha in a full room, thin parts, what decided, what is doubted, and classical as it was."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from bozzetto.errors import InputError
from bozzetto.image import Picture, load
from bozzetto.matting import cut_out, doubtful, faint, guided, matte, u2net
from bozzetto.matting.classical import Ground

EXAMPLES = Path(__file__).parents[1] / "examples"


def picture(rgb: np.ndarray) -> Picture:
    rgb = np.ascontiguousarray(rgb, dtype=np.float32)
    return Picture(torch.from_numpy(rgb), None, Path("made.png"), rgb.shape[:2])


def iou(a: Tensor, b: Tensor) -> float:
    return float(((a > 0.5) & (b > 0.5)).sum() / ((a > 0.5) | (b > 0.5)).sum())


def room(name: str = "teapot", size: int = 400) -> tuple[Picture, Tensor]:
    """A drawing, shrunk and off the centre, before a striped wall, a tiled floor and eleven boxes; and its true alpha."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    wall = np.where((np.sin(60 * (x + 0.4 * y)) > 0.2)[..., None], [0.75, 0.7, 0.6], [0.55, 0.45, 0.5])
    floor = np.where(((np.floor(14 * x) + np.floor(18 * y)) % 2 > 0)[..., None], [0.35, 0.3, 0.25], [0.6, 0.55, 0.5])
    rgb = np.where((y > 0.62)[..., None], floor, wall) + 0.02 * rng.standard_normal((size, size, 3))
    for _ in range(11):
        (i, j), (h, w) = rng.integers(0, size, 2), rng.integers(15, 60, 2)
        rgb[i : i + h, j : j + w] = rng.uniform(0.1, 0.9, 3)
    source = load(EXAMPLES / f"{name}.png")
    assert source.alpha is not None
    side, top, left = 260, 90, 40
    small = cv2.resize(np.dstack([source.rgb * source.alpha[..., None], source.alpha]), (side, side), interpolation=cv2.INTER_AREA)
    alpha = np.zeros((size, size), np.float32)
    alpha[top : top + side, left : left + side] = small[..., 3]
    rgb *= 1 - alpha[..., None]
    rgb[top : top + side, left : left + side] += small[..., :3]
    return picture((rgb.clip(0, 1) * 255).round() / 255), torch.from_numpy(alpha)


def test_an_object_in_a_full_room_is_found() -> None:
    """IoU above 0.93, the network having decided; the classical search, the control, stays below 0.8. The same bits again."""
    made, true = room()
    cut = cut_out(made)
    assert cut.how == "network" and cut.warnings == ()
    assert iou(cut.alpha, true) > 0.93
    assert cut.alpha.dtype == torch.float32 and cut.alpha.shape == true.shape and cut.alpha.min() >= 0 and cut.alpha.max() <= 1
    assert torch.equal(cut.alpha, matte(made))
    try:
        control = iou(matte(made, method="classical"), true)
    except InputError:
        control = 0.0
    assert control < 0.8


def test_a_thin_pole_survives() -> None:
    """A box on a pole two pixels wide before a calm background: the network alone loses most of the pole, the cut does not."""
    rgb = np.full((400, 400, 3), 0.8, np.float32) + np.linspace(0, 0.1, 400, dtype=np.float32)[:, None, None]
    rgb[60:160, 140:280] = (0.5, 0.15, 0.1)
    rgb[160:340, 200:202] = (0.2, 0.2, 0.25)
    made = picture(rgb)
    cut = cut_out(made)
    pole = np.s_[170:335, 200:202]
    assert float((cut.alpha[pole] > 0.5).float().mean()) > 0.95
    assert float(cut.alpha[:, :130].max()) == 0 and float(cut.alpha[350:].max()) == 0
    alone = guided.look(made.rgb.numpy())
    assert (alone[pole] > 0.5).mean() < 0.5


def test_thin_parts_are_kept_before_calm_ground_only() -> None:
    """A line that leaves the object stays where the background was followed on both sides; one apart from it, and a blob, do not."""
    M, solid = np.ones((120, 160), bool), np.zeros((120, 160), bool)
    solid[20:50, 30:70] = True
    M[solid] = False
    M[50:100, 45:47] = M[60:100, 120:122] = M[20:60, 80:140] = False
    kept = guided.thin_parts(M, solid)
    assert kept[52:98, 45:47].all() and not kept[:, 75:].any()
    M[55:100, 20:44] = M[55:100, 48:80] = False  # now the line runs through something
    assert not guided.thin_parts(M, solid)[60:98].any()


def test_smaller_things_apart_are_other_things() -> None:
    solid = np.zeros((60, 80), bool)
    solid[10:50, 5:35], solid[10:20, 60:70], solid[25:50, 45:60] = True, True, True
    kept = guided.main_parts(solid)
    assert kept[30, 20] and kept[30, 50] and not kept[15, 65]


def test_a_calm_picture_is_the_classical_search_s() -> None:
    """The same bits as `classical` where that follows the background all round what the network sees: the opaque examples."""
    for name in ("mustard-armchair", "plastic-chair", "chest-of-drawers"):
        made = load(EXAMPLES / f"{name}.png")
        cut = cut_out(made)
        assert cut.how == "classical" and cut.warnings == ()
        assert torch.equal(cut.alpha, matte(made, method="classical"))


def test_a_clear_cut_out_and_a_mask_ask_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transparency is taken as it is, and neither it nor `classical` loads the weights."""

    def never(*_: object) -> None:
        raise AssertionError("the network was loaded")

    monkeypatch.setattr(u2net, "load", never)
    source = load(EXAMPLES / "teapot.png")
    cut = cut_out(source)
    assert cut.how == "transparency" and cut.warnings == () and cut.alpha is source.alpha
    made, _ = room()
    assert cut_out(load(EXAMPLES / "mustard-armchair.png"), method="classical").how == "classical"
    with pytest.raises(AssertionError, match="the network was loaded"):
        cut_out(made)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("all", "fills 95 % of the picture"),
        ("speck", "fills only 0.1 % of the picture"),
        ("crumbs", "is in 100 parts"),
        ("hair", "is a sliver"),
    ],
)
def test_odd_masks_are_doubted(kind: str, says: str) -> None:
    alpha = np.zeros((200, 200), np.float32)
    if kind == "all":
        alpha[:190] = 1
    elif kind == "speck":
        alpha[10:16, 10:16] = 1
    elif kind == "crumbs":
        alpha[::20, ::20] = alpha[1::20, ::20] = alpha[::20, 1::20] = 1
    else:
        alpha[99:101] = 1
    said = doubtful(alpha)
    assert said is not None and says in said
    whole = np.zeros((200, 200), np.float32)
    whole[40:160, 60:130] = 1
    assert doubtful(whole) is None


@pytest.mark.parametrize("like", ["nothing", "half", "all"])
def test_an_outline_that_can_hardly_be_told_is_doubted(monkeypatch: pytest.MonkeyPatch, like: str) -> None:
    """A white disc on white whose upper half, lower half, or neither is grey: the share is that of the outline, within the window."""
    v, u = np.mgrid[0:128, 0:128] + 0.5
    alpha = (np.hypot(u - 64, v - 64) < 40).astype(np.float32)
    grey = alpha * (1 if like == "nothing" else v < 64 if like == "half" else 0)
    rgb = (1 - 0.02 * alpha - 0.3 * grey)[..., None].repeat(3, -1).astype(np.float32)
    expected = {"nothing": 0, "half": 0.5, "all": 1}[like]
    assert faint(rgb, alpha) == pytest.approx(expected, abs=0.05)
    monkeypatch.setattr(guided, "search", lambda rgb: (alpha, "network"))
    said = cut_out(Picture(torch.from_numpy(rgb), None, Path("disc.png"), (128, 128))).warnings
    assert len(said) == (expected > 0)
    assert all("can hardly be told from the background; if mask.png is wrong, give a mask with --mask" in s for s in said)


def test_a_doubt_is_one_sentence_that_names_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    alpha = np.ones((400, 400), np.float32)
    alpha[0] = 0
    monkeypatch.setattr(guided, "search", lambda rgb: (alpha, "network"))
    (said,) = cut_out(room()[0]).warnings
    assert said == "the object found fills 100 % of the picture; if mask.png is wrong, give a mask with --mask"


def test_what_a_network_fills_in_is_seen_through_before_paper_and_not_in_a_photograph():
    """A frame, off centre, that the network takes for a full board; its opening shows the background, a smooth grade or a meadow."""
    h, w = 96, 128
    v, u = np.mgrid[0 : 1 : h * 1j, 0 : 1 : w * 1j]
    board = np.zeros((h, w), bool)
    board[20:70, 60:115] = True
    opening = np.zeros((h, w), bool)
    opening[30:60, 70:95] = True
    grade = np.stack([60 + 20 * u - 10 * v * v, 5 * u * v, -8 * v], -1).astype(np.float32)
    meadow = grade + np.random.default_rng(0).normal(0, 6, grade.shape).astype(np.float32)
    frame = (board & ~opening)[..., None]
    for lab, calm in ((grade, True), (meadow, False)):
        ground = Ground(np.where(frame, np.float32(20), lab), ~board | opening, 4.0)
        assert guided.is_calm(ground, board.astype(np.float32)) == calm
        assert (guided.unlike_paper(ground, board.astype(np.float32)) < 1) == calm
    all_of_it = Ground(grade, np.ones((h, w), bool), 4.0)  # background was followed over the whole object: no gap is that large
    assert not guided.is_calm(all_of_it, board.astype(np.float32))
