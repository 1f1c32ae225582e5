# SPDX-License-Identifier: Apache-2.0
"""Sample i is a function of i, nothing held out is ever drawn, and the codec's training is what it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bozzetto.data.objects import pack
from bozzetto.data.procedural import FAMILIES, HELD_OUT_FAMILIES, make
from bozzetto.training import autoencoder
from bozzetto.training.stream import Stream

FAMILIES_SEEN = [f for f in FAMILIES if f not in HELD_OUT_FAMILIES]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Three objects on the training side, one on each other, named by their sides."""
    folder = tmp_path_factory.mktemp("packed")
    sides = ["train", "train", "validation", "train", "heldout"]
    objects = [replace(make(FAMILIES_SEEN[k], k), name=side, source=f"{side}/{k}") for k, side in enumerate(sides)]
    pack(objects, folder, side=lambda o: o.name)
    return folder


def drawn(packed, count, procedural=0.5):
    stream = Stream(packed, procedural, lambda o: o.source)
    return [stream.draw(i, np.random.default_rng([0, i])) for i in range(count)]


def test_only_the_training_side_and_families_that_are_not_held_out(packed):
    sources = drawn(packed, 200)
    packed_ones = {s for s in sources if s.split("/")[0] in ("train", "validation", "heldout")}
    assert packed_ones == {"train/0", "train/1", "train/3"}
    families = {s.split("/")[1] for s in sources if s not in packed_ones}
    assert families and not families & set(HELD_OUT_FAMILIES)
    share = sum(s not in packed_ones for s in sources) / 200
    assert abs(share - 0.5) < 5 * (0.25 / 200) ** 0.5


def test_a_sample_is_a_function_of_its_index(packed):
    whole, stream = drawn(packed, 40), Stream(packed, 0.5, lambda o: o.source)
    for i in (37, 3, 12, 39):  # in any order, by another worker
        assert stream.draw(i, np.random.default_rng([0, i])) == whole[i]


def test_procedural_objects_come_from_a_window_that_moves_on(packed):
    def seeds(first):
        stream = Stream(packed, 1.0, lambda o: int(o.source.rsplit("/", 1)[1]))
        return [stream.draw(i, np.random.default_rng([0, i])) for i in range(first, first + 20)]

    early, late = seeds(0), seeds(10_000_000)
    assert max(early) < min(late) and min(early) >= 1000  # validation's seeds are below


# ---- the codec ----


def test_crops_come_first_and_whole_pictures_after(packed):
    pictures = autoencoder.Pictures(packed, seed=0, crops_until=2, procedural=0.5)
    for i, side in ((0, 64), (1, 64), (2, 128)):
        picture = pictures[i]["picture"]
        assert picture.shape == (3, side, side) and float(picture.min()) >= -1 and float(picture.max()) <= 1
    torch.testing.assert_close(pictures[1]["picture"], pictures[1]["picture"])


def test_the_linear_codec_is_exact_on_what_it_can_hold():
    """Pictures whose patches span eight dimensions come back; and no other basis of eight does better on others."""
    g = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(192, 8, generator=g))[0].T
    patches = torch.randn(4, 16, 8, generator=g) @ basis + 0.1
    pictures = torch.nn.functional.fold(patches.mT, (32, 32), 8, stride=8)
    made = autoencoder.projected(pictures, *autoencoder.principal_components(pictures))
    torch.testing.assert_close(made, pictures, atol=1e-5, rtol=0)
    noisy = pictures + 0.3 * torch.randn(pictures.shape, generator=g)
    mean, best = autoencoder.principal_components(noisy)
    assert autoencoder.psnr(autoencoder.projected(noisy, mean, best), noisy) > autoencoder.psnr(
        autoencoder.projected(noisy, mean, basis.double()), noisy
    )


def test_the_codec_halves_three_times_and_its_loss_is_its_formula():
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251
        codec = autoencoder.Codec()
    picture = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    made, mean, logvar = codec(picture, torch.zeros(2, 8, 8, 8))
    assert made.shape == picture.shape and mean.shape == (2, 8, 8, 8) == logvar.shape

    def fixed(p, noise):
        return p + 0.25, torch.full((2, 8, 8, 8), 2.0), torch.zeros(2, 8, 8, 8)

    total, parts = autoencoder.loss(fixed, {"picture": picture}, 0.5, torch.Generator().manual_seed(0))
    assert float(parts["pixels"]) == pytest.approx(0.25, abs=1e-6)
    assert float(parts["edges"]) == pytest.approx(0, abs=1e-5)  # an even error has no edges
    assert float(parts["kl"]) == pytest.approx(2)  # (4 + 1 - 1 - 0) / 2
    assert float(total) == pytest.approx(1.25, abs=1e-5)
