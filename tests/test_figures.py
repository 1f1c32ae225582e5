# SPDX-License-Identifier: Apache-2.0
"""The figures' own mathematics: exact worlds, Silverman's table, a posterior's gradients; and that drawing is repeatable."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

from bozzetto.errors import InputError
from bozzetto.figures import gallery, langevin, matching, worlds
from tests.twins import worlds as twins
from tests.twins.worlds import F64, seeded

ROOT = Path(__file__).parent.parent


def test_the_mixture_is_the_twins():
    """Density, score and denoised of another implementation, at levels and dimensions; and the score is the density's gradient."""
    weights, means, stds = torch.tensor([0.2, 0.5, 0.3]), torch.randn(3, 4, generator=seeded(1)), torch.tensor([0.5, 1.0, 0.1])
    ours, theirs = worlds.Mixture(weights, means, stds), twins.Mixture(weights, means, stds)
    x = torch.randn(20, 4, generator=seeded(2), dtype=F64)
    for sigma in (0.0, 0.3, 5.0):
        torch.testing.assert_close(ours.log_density(x, sigma), theirs.log_density(x, sigma), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(ours.score(x, sigma), theirs.score(x, sigma), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.denoise(x, 0.7), theirs.denoise(x, 0.7), rtol=1e-6, atol=1e-6)
    drawn = ours.draw(20_000, generator=seeded(3))
    torch.testing.assert_close(drawn.mean(0), (weights.double()[:, None] * means).sum(0), rtol=0, atol=4 * 1.5 / math.sqrt(20_000))


def test_silvermans_table_of_samples_needed():
    """Density Estimation (1986), Table 4.2, as printed: three digits, and a whole sample above where they are few."""
    table = [4, 19, 67, 223, 768, 2790, 10_700, 43_700, 187_000, 842_000]
    for D, want in enumerate(table, 1):
        count, _ = matching.samples_needed(D)
        assert abs(count - want) <= max(1.0, 0.5 * 10 ** (len(str(want)) - 3))


def test_the_posteriors_gradient_is_its_gradient():
    data = 2 * torch.randn(7, generator=seeded(4), dtype=F64)
    theta = torch.randn(5, 2, generator=seeded(5), dtype=F64).requires_grad_()
    (want,) = torch.autograd.grad(langevin.log_posterior(theta, data).sum(), theta)
    torch.testing.assert_close(langevin._prior(theta) + langevin._likelihood(theta, data), want, rtol=1e-10, atol=1e-12)


def test_a_figure_is_drawn_twice_to_the_same_bytes(tmp_path):
    pytest.importorskip("matplotlib")
    first, second = (gallery.draw_all(tmp_path / name, names=("parzen",))[0] for name in "ab")
    assert first.read_bytes() == second.read_bytes() and first.stat().st_size < 100_000


def test_a_figure_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(InputError, match="there are manifold, parzen"):
        gallery.draw_all(tmp_path / "new", names=("mona-lisa",))
    assert not (tmp_path / "new").exists()


def test_every_figure_is_in_the_gallery_and_every_picture_is_a_figure():
    page = (ROOT / "docs" / "gallery" / "README.md").read_text()
    shown = set(re.findall(r"\]\(([\w-]+)\.png\)", page))
    assert set(gallery.FIGURES) <= shown <= set(gallery.FIGURES | gallery.FULL)
    files = {f.stem: f.stat().st_size for f in (ROOT / "docs" / "gallery").glob("*.png")}
    assert set(files) == shown and sum(files.values()) < 2.5e6


def test_links_into_the_pages_have_their_headings():
    """GitHub's anchors: lower case, spaces to hyphens, other signs dropped."""
    pages = {f: f.read_text() for f in (ROOT / "docs").glob("**/*.md")}
    anchors = {
        f: {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.M)} for f, text in pages.items()
    }
    for f in (ROOT / "docs" / "scores.md", ROOT / "docs" / "diffusion.md", ROOT / "docs" / "gallery" / "README.md"):
        for target, anchor in re.findall(r"\]\(([\w./-]+\.md)#([\w-]+)\)", pages[f]):
            assert anchor in anchors[(f.parent / target).resolve()], f"{f.name}: {target}#{anchor}"
