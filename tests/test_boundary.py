# SPDX-License-Identifier: Apache-2.0
"""Consistent123 (Lin et al.): when the shape is at rest, and how the priors are mixed from there on."""

from __future__ import annotations

import math

import pytest
import torch

from bozzetto.fit.boundary import Boundary, CaseAware, mix
from bozzetto.fit.loop import Learning, Loss
from bozzetto.priors.clip import Clip
from bozzetto.shapes.shape import Step
from tests.twins.text import clip_folder

PAPER = 5000


def at(number, of=PAPER):
    return Step(number, of, torch.Generator())


def found(similarity, boundary=Boundary(), of=PAPER):
    """t* of a run whose similarity is a function of the number of the measurement, and how many were made."""
    term = CaseAware(lambda *x: {}, lambda *x: {}, lambda shape: similarity(len(term.measured)), boundary)
    for n in range(of):
        term.update(None, at(n, of))
    return term.reached, len(term.measured)


def test_c2_1_the_weights_sum_to_one_and_end_at_the_papers():
    for r in (0.0, 0.3, 1.0):
        assert sum(mix(r)) == pytest.approx(1, abs=1e-12)
        assert mix(r)[0] == pytest.approx(math.exp(-r), abs=1e-12)
    assert mix(0.0) == (1.0, 0.0)
    assert mix(1.0) == pytest.approx((0.3679, 0.6321), abs=5e-5)


def test_c2_4_all_falls_begin_alike_and_the_linear_one_ends_without_the_3d_prior():
    assert {mix(0.0, f) for f in ("exponential", "linear", "logarithmic")} == {(1.0, 0.0)}
    assert mix(1.0, "linear") == mix(1.0, "logarithmic") == (0.0, 1.0)
    assert mix(0.5, "logarithmic")[1] > mix(0.5, "linear")[1] > mix(0.5)[1]


def test_c2_3_a_saturating_similarity_switches_where_its_change_falls_below_the_threshold():
    """c_j = 1 - exp(-(j + 1) / tau): the mean of L changes is nearly their telescoped sum; the index follows in closed form."""
    tau, b = 6.0, Boundary()
    c = lambda j: 1 - math.exp(-(j + 1) / tau)  # noqa: E731

    def mean(j):
        return sum(c(k) / c(k - 1) - 1 for k in range(j - b.window + 1, j + 1)) / b.window

    j = next(j for j in range(b.window, 1000) if mean(j) < b.threshold)
    assert found(c) == (2000 + 21 * j, j + 1) and 2000 + 21 * j < 3500


def test_c2_3_one_at_rest_switches_once_the_window_is_full():
    """Errata, Consistent123: the first switch is at 2105, not at 2000."""
    assert found(lambda j: 0.3) == (2105, 6)


def test_c2_3_one_that_swings_passes_for_one_at_rest_and_one_that_grows_waits_to_the_last():
    even = Boundary(window=4)
    assert found(lambda j: 0.3 + 1e-3 * (-1) ** j, even)[0] == 2000 + 21 * 4  # a known flaw of the signed mean
    reached, measurements = found(lambda j: 0.3 * 1.01**j)
    assert 3500 <= reached < 3521 and measurements == 1 + math.ceil(1500 / 21)


def test_the_2d_prior_is_not_asked_before_the_boundary_and_r_goes_on_over_both_stages():
    asked = []

    def term(name):
        def call(shape, step):
            asked.append(name)
            return {name: Loss(10.0, torch.zeros(()))}

        return call

    both = CaseAware(term("three"), term("two"), lambda shape: 0.5, Boundary(every=0.01), later=100)
    for n in range(100):
        losses = both(None, at(n, 100))
        assert set(losses) == ({"three"} if n <= 45 else {"three", "two"}), n  # 40 to 45: a full window
        both.update(None, at(n, 100))
    assert both.reached == 45 and asked.count("two") == 54
    r = (99 - 45) / (100 + 100 - 45)
    assert losses["three"].weight == pytest.approx(10 * math.exp(-r)) and losses["two"].weight == pytest.approx(10 * (1 - math.exp(-r)))
    second = CaseAware(term("three"), term("two"), lambda shape: 0.5, reached=both.reached - 100)
    assert second.weights(at(0, 100))[0] == pytest.approx(math.exp(-55 / 155)) and second.weights(at(100, 100)) == mix(1.0)


def test_a_run_that_is_resumed_knows_what_was_measured():
    one = CaseAware(lambda *x: {}, lambda *x: {}, lambda shape: 0.25, Boundary(every=0.01))
    assert isinstance(one, Learning)
    for stop in (42, 60):
        for n in range(stop):
            one.update(None, at(n, 100))
        other = CaseAware(lambda *x: {}, lambda *x: {}, lambda shape: 0.0)
        other.restore(one.state())
        assert (other.measured, other.reached) == (one.measured, one.reached)
        one.measured, one.reached = [], None


def test_the_embedded_clip_knows_a_red_picture_from_a_blue_one():
    clip = Clip.read()
    red, blue = (torch.ones(64, 64, 3) for _ in range(2))
    red[16:56, 20:44], blue[16:56, 20:44] = torch.tensor([0.8, 0.1, 0.1]), torch.tensor([0.1, 0.15, 0.8])
    rgb = torch.stack([red, blue])
    assert clip.similarity(rgb, "a red box").argmax() == 0 and clip.similarity(rgb, "a blue box").argmax() == 1


def test_clip_as_published_is_read_from_one_file(tmp_path):
    from bozzetto.errors import InputError
    from bozzetto.priors.zero123 import clip_pixels

    model = clip_folder(tmp_path)
    clip = Clip.read(tmp_path)
    rgb = torch.rand(2, 40, 40, 3, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([clip.tokenizer.encode("a red box").ids])
    with torch.no_grad():
        wanted = model(input_ids=ids, pixel_values=clip_pixels(rgb, 32))
    cosines = torch.nn.functional.cosine_similarity(wanted.image_embeds, wanted.text_embeds)
    torch.testing.assert_close(clip.similarity(rgb, "a red box"), cosines, atol=1e-5, rtol=0)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="both towers in one file"):
        Clip.read(tmp_path)
