# SPDX-License-Identifier: Apache-2.0
"""Albums: what is drawn of an object, its captions, and that the guess behind a picture is drawn where it belongs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bozzetto.data.captions import caption, colours_of, noun_of, side_of
from bozzetto.priors.first_guess import FirstGuess, Guess, medians
from bozzetto.priors.hint import FRAME
from bozzetto.training import album
from bozzetto_objects import HELD_OUT_FAMILIES, make


def test_captions_name_what_one_sees():
    red = np.zeros((8, 8, 3))
    red[..., 0] = 0.8
    assert colours_of(red, np.ones((8, 8))) == ["red"] and colours_of(red, np.zeros((8, 8))) == []
    half = red.copy()
    half[:4] = 0.98
    assert set(colours_of(half, np.ones((8, 8)))) == {"red", "white"}
    assert noun_of("dark grey toy cat") == "toy cat" and noun_of("Chair 3") == "chair" and noun_of("blue") == "thing"
    assert [side_of(math.radians(a)) for a in (0, 44, 90, -100, 180, 359, -181)] == [
        "front",
        "front",
        "side",
        "side",
        "back",
        "front",
        "back",
    ]
    said = [caption("teapot", ["red"], 0.0, np.random.default_rng(k)) for k in range(400)]
    empty = said.count("") / 400
    assert abs(empty - 0.1) < 4 * (0.09 / 400) ** 0.5
    assert all("teapot" in s for s in said if s) and "a photo of a red teapot, front view" in said


def test_an_object_is_framed_and_seen_from_one_sphere():
    posed = album.pose(make("car", 3), np.random.default_rng(0), augment=False)
    low, high = posed.shape.vertices.min(0), posed.shape.vertices.max(0)
    assert float((high - low).max()) == pytest.approx(1) and np.abs(low + high).max() < 1e-5
    assert posed.width == FRAME
    pictures = album.draw_object(posed)
    assert pictures.shape == (album.VIEWS, album.SIZE, album.SIZE, 4)
    border = torch.cat([pictures[:, [0, -1]].flatten(1, 2), pictures[:, :, [0, -1]].flatten(1, 2)], 1)[..., 3]
    assert float(border.max()) == 0  # nothing is cut off
    cameras = album.frame_cameras(posed.azimuth, posed.elevation, posed.p, posed.width, album.SIZE)
    torch.testing.assert_close(cameras.position.norm(dim=-1), torch.full((album.VIEWS,), posed.width / posed.p).double())


class Ball(FirstGuess):
    """A first guess that sees a ball behind every picture: its radius is that of the crop, 0.4 S."""

    def forward(self, picture):
        b, n, d = len(picture), picture.shape[-1] // 2, 32
        rows = (torch.arange(n) + 0.5) / n - 0.5
        depth = ((torch.arange(d) + 0.5) / d * 2 - 1) * 0.9
        away = (depth.view(-1, 1, 1) ** 2 + rows.view(1, -1, 1) ** 2 + rows.view(1, 1, -1) ** 2).sqrt()
        logits = (20 * (0.4 - away)).expand(b, d, n, n)
        return Guess(logits, medians(logits), torch.full((b, 3, 8, n // 2, n // 2), 0.5), torch.zeros(b, 2))


@pytest.fixture(scope="module")
def chunk():
    objects = [(make(f, 1), np.random.default_rng([5, k])) for k, f in enumerate(("fruit", "snowman"))]
    return album.draw_chunk(objects, Ball())[0]


def test_a_guess_stands_where_its_picture_shows_it(chunk):
    """Seen from its own picture, the hint has the picture's pixels wherever ball and object overlap."""
    for b in range(2):
        for j in range(album.GUESSED):
            picture, drawn = chunk["pictures"][b, j].float() / 255, chunk["hint"][b, j, j].float() / 255
            ball, solid = (drawn < 0.99).any(-1), picture[..., 3] > 0.99
            shrunk = -torch.nn.functional.max_pool2d(-(ball & solid).float()[None], 9, 1, 4)[0] > 0
            assert int(shrunk.sum()) > 100
            assert float((drawn - picture[..., :3]).abs().mean(-1)[shrunk].mean()) < 0.03
            middles = [(x.nonzero().amin(0) + x.nonzero().amax(0)).float() / 2 for x in (ball, solid)]
            assert float((middles[0] - middles[1]).abs().max()) < 3  # pixels: the ball, cut to the silhouette, is centred on the crop


def test_a_chunk_is_a_function_of_its_seeds(chunk):
    again = album.draw_chunk([(make(f, 1), np.random.default_rng([5, k])) for k, f in enumerate(("fruit", "snowman"))], Ball())[0]
    assert all(torch.equal(again[k], chunk[k]) for k in chunk)
    assert chunk["planes"].shape == (2, album.GUESSED, album.VIEWS, 6, album.CELLS, album.CELLS)


def test_what_is_held_out_is_not_drawn_for_training(tmp_path):
    class Empty:
        def indices(self, side):
            return []

    settings = album.Settings(tmp_path, tmp_path, procedural=1.0)
    sources = {album.chosen(settings, Empty(), k)[0].source.split("/")[1] for k in range(80)}
    assert not sources & set(HELD_OUT_FAMILIES)
