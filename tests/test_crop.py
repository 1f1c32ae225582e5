# SPDX-License-Identifier: Apache-2.0
"""The one rule that crops and scales: closed forms for areas, centres and coordinates."""

from __future__ import annotations

import pytest
import torch

from bozzetto.errors import InputError
from bozzetto.image import crop, resample, touches_border


def rectangle(h: int, w: int, top: int, bottom: int, left: int, right: int) -> torch.Tensor:
    alpha = torch.zeros(h, w)
    alpha[top:bottom, left:right] = 1
    return alpha


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_crop_of_a_rectangle_has_a_closed_form() -> None:
    """40 x 20 pixels at (30, 50): side 40 / 0.8 = 50 round the centre (50, 60); at 100 pixels the object spans 10..90 by 30..70."""
    cut = crop(torch.full((100, 120, 3), 0.25), rectangle(100, 120, 50, 70, 30, 70), 100)
    assert cut.box == pytest.approx((25, 35, 50)) and cut.size == 100
    want = rectangle(100, 100, 30, 70, 10, 90)
    edge = torch.zeros(100, 100, dtype=torch.bool)  # enlarging by 2 is bilinear: 1/4 and 3/4 in the one pixel on either side of an edge
    edge[29:31], edge[69:71], edge[:, 9:11], edge[:, 89:91] = True, True, True, True
    torch.testing.assert_close(cut.alpha[~edge], want[~edge], rtol=0, atol=1e-6)
    torch.testing.assert_close(cut.alpha[50, 8:12], torch.tensor([0, 0.25, 0.75, 1]), rtol=0, atol=1e-6)
    torch.testing.assert_close(cut.alpha[28:32, 50], torch.tensor([0, 0.25, 0.75, 1]), rtol=0, atol=1e-6)
    torch.testing.assert_close(cut.rgb, 0.25 * cut.alpha[..., None].expand(-1, -1, 3), rtol=0, atol=1e-6)


def test_crop_without_margin_or_scale_is_the_picture() -> None:
    rgb, alpha = noise(32, 32, 3), 0.6 + 0.4 * noise(32, 32, seed=1)
    cut = crop(rgb, alpha, 32, margin=0)
    assert cut.box == (0, 0, 32)
    torch.testing.assert_close(cut.alpha, alpha, rtol=0, atol=0)
    torch.testing.assert_close(cut.rgb, rgb * alpha[..., None], rtol=0, atol=0)
    torch.testing.assert_close(
        crop(rgb * alpha[..., None], alpha[..., None], 32, margin=0, premultiplied=True).rgb, cut.rgb, rtol=0, atol=0
    )


def test_crop_halved_is_the_mean_of_four() -> None:
    rgb, alpha = noise(32, 32, 3), 0.6 + 0.4 * noise(32, 32, seed=1)
    cut = crop(rgb, alpha, 16, margin=0)
    want = torch.cat([rgb * alpha[..., None], alpha[..., None]], -1).double().view(16, 2, 16, 2, 4).mean((1, 3)).float()
    torch.testing.assert_close(torch.cat([cut.rgb, cut.alpha[..., None]], -1), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [24, 50, 128])
def test_crop_moves_with_the_object(size: int) -> None:
    """A picture moved by whole pixels gives the same crop, its box moved; also where the square reaches outside."""
    rgb, alpha = noise(40, 30, 3), noise(40, 30, seed=1)
    crops = []
    for dy, dx in ((0, 0), (17, 5)):
        canvas, mask = torch.zeros(80, 90, 3), torch.zeros(80, 90)
        canvas[dy : dy + 40, dx : dx + 30], mask[dy : dy + 40, dx : dx + 30] = rgb, alpha
        crops.append(crop(canvas, mask, size))
    a, b = crops
    assert b.box == pytest.approx((a.box[0] + 5, a.box[1] + 17, a.box[2]))
    torch.testing.assert_close(a.rgb, b.rgb, rtol=0, atol=1e-5)  # the weights' starts are rounded to float32 after a shift
    torch.testing.assert_close(a.alpha, b.alpha, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [16, 37, 100, 256])
def test_crop_conserves_alpha(size: int) -> None:
    """The area filter loses nothing of what lies inside the square: sum * scale^2 is the object's area."""
    alpha = torch.zeros(300, 257)
    alpha[20:280, 31:200] = 0.5 + 0.5 * noise(260, 169)
    cut = crop(noise(300, 257, 3), alpha, size)
    assert float(cut.alpha.sum()) * (cut.box[2] / size) ** 2 == pytest.approx(float(alpha.sum()), rel=1e-3 if cut.box[2] < size else 1e-5)


@pytest.mark.parametrize("size", [20, 64, 200])
def test_crop_keeps_one_colour_under_soft_alpha(size: int) -> None:
    """Garbage beside the object must not bleed in: colours are weighed by alpha."""
    colour, alpha = torch.tensor([0.2, 0.5, 0.9]), noise(64, 64) * (noise(64, 64, seed=2) > 0.3)
    rgb = torch.where(alpha[..., None] > 0, colour, torch.tensor([1.0, 0.0, 0.0]))
    cut = crop(rgb, alpha, size)
    torch.testing.assert_close(cut.rgb, colour * cut.alpha[..., None], rtol=0, atol=1e-6)


def test_resample_keeps_linear_ramps() -> None:
    """Pixel centres are at +1/2: f(x, y) = x + 2 y is sampled exactly there, at any scale, away from the border."""
    y, x = torch.meshgrid(torch.arange(60.0) + 0.5, torch.arange(80.0) + 0.5, indexing="ij")
    for box, size in (((13.3, 9.1, 40.0), 64), ((13.3, 9.1, 40.0), 23), ((10.0, 10.0, 32.0), 32), ((10.25, 10.0, 32.0), 32)):
        got = resample((x + 2 * y).double()[..., None], box, size)[..., 0]
        s = box[2] / size
        centres = (torch.arange(size, dtype=torch.float64) + 0.5) * s
        want = (box[0] + centres)[None] + 2 * (box[1] + centres)[:, None]
        # Bilinear is exact; an area that cuts source pixels is off by at most the pixel's own step, 1/8 of (1 + 2).
        torch.testing.assert_close(got, want, rtol=0, atol=1e-9 if s <= 1 else 3 / 8)
        assert abs(float((got - want).mean())) < (1e-9 if s <= 1 else 0.02)


def test_a_crops_box_says_where_its_pixels_come_from() -> None:
    cut = crop(noise(90, 70, 3), rectangle(90, 70, 11, 62, 7, 30), 128)
    left, top, side = cut.box
    j, i = torch.meshgrid(torch.arange(128) + 0.5, torch.arange(128) + 0.5, indexing="ij")
    x, y = left + i * side / 128, top + j * side / 128  # in the source picture
    inside = (x > 8) & (x < 29) & (y > 12) & (y < 61)  # a pixel away from the edges
    outside = (x < 6) | (x > 31) | (y < 10) | (y > 63)
    assert (cut.alpha[inside] == 1).all() and (cut.alpha[outside] == 0).all() and inside.sum() > 1000


def test_crop_refuses_emptiness_and_wrong_shapes() -> None:
    with pytest.raises(InputError, match=r"chair.png: no object found \(alpha is nowhere above one half\)"):
        crop(torch.ones(20, 20, 3), torch.full((20, 20), 0.5), 16, name="chair.png")
    for rgb, alpha, size, margin in (
        ((20, 20, 4), (20, 20), 8, 0.1),
        ((20, 20, 3), (20, 21), 8, 0.1),
        ((20, 20, 3), (20, 20), 0, 0.1),
        ((20, 20, 3), (20, 20), 8, 0.5),
    ):
        with pytest.raises(ValueError, match="crop: expected"):
            crop(torch.ones(rgb), torch.ones(alpha), size, margin=margin)


def test_touches_border() -> None:
    assert not touches_border(rectangle(20, 20, 1, 19, 1, 19))
    for box in ((0, 9, 5, 9), (11, 20, 5, 9), (5, 9, 0, 9), (5, 9, 11, 20)):
        assert touches_border(rectangle(20, 20, *box))
