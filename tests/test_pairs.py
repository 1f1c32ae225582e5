# SPDX-License-Identifier: Apache-2.0
"""Training of InstructPix2Pix: what it begins with, what samples lose, the grammar of instructions, and rendered pairs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import published as random_weights
from bozzetto.data.instructions import ASKS, ENDS, SAYS, Kind, Triple, parsed, triple, write_lines
from bozzetto.data.renders import drawable
from bozzetto.data.repaint import named, painted, with_ball, without
from bozzetto.errors import InputError
from bozzetto.priors import learnt, loading
from bozzetto.priors.instruct import EXTENDED, InstructPix2Pix
from bozzetto.priors.text2image import TextToImage
from bozzetto.training import instruct
from bozzetto.training.instruct import Editor, Encoded, Rows, loses
from bozzetto.training.pairs import Pairs, pairs_of, together
from bozzetto_objects import make


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_weights.write("stable-diffusion-1.5", tmp_path_factory.mktemp("base") / "tiny", "tiny")


@pytest.fixture(scope="module")
def rendered() -> Pairs:
    return together(list(pairs_of(make("chair", 3), np.random.default_rng(5))), ["procedural/chair/3"] * 5)


@pytest.mark.parametrize("where", ["mini", "tiny"])
def test_ip_3_new_channels_of_zeros_leave_the_network_as_it_was_bit_for_bit(where, folder):
    """Whatever picture it is shown; and its gradient can leave zero."""
    name = "mini" if where == "mini" else folder
    base, extended = loading.load_as(TextToImage, name, loading.TEXT), loading.load_as(InstructPix2Pix, name, EXTENDED)
    generator = torch.Generator().manual_seed(0)
    x, picture = (torch.randn(2, *base.shape, generator=generator) for _ in range(2))
    token = base.condition(text="a red chair")["token"]
    with torch.no_grad():
        plain = base.denoiser.denoise(x, 1.3, {"token": token})
        shown = extended.denoiser.denoise(x, 1.3, {"token": token, "image_latent": picture})
    assert torch.equal(plain, shown)
    assert torch.equal(base.unet.conv_in.bias, extended.unet.conv_in.bias) and extended.unet.config.in_channels == 2 * base.shape[0]
    extended.unet.conv_in.requires_grad_(True)
    extended.denoiser.loss(x, x.flip(0), 1.3, {"token": token, "image_latent": picture}).mean().backward()
    assert extended.unet.conv_in.weight.grad[:, base.shape[0] :].abs().max() > 1e-6


def test_ip_4_a_sample_loses_its_text_its_picture_or_both_each_one_time_in_twenty():
    """Of u on a grid of 1000: 50 of each and 850 that keep both. Drawn apart, both would go in 1 % and not in 5."""
    found = [loses((j + 0.5) / 1000) for j in range(1000)]
    assert [found.count(x) for x in ((True, False), (True, True), (False, True), (False, False))] == [50, 50, 50, 850]


def test_ip_7_a_triple_is_read_back_as_it_was_written_and_nothing_else_is():
    t = Triple("a photo of a red chair", "make it blue", "a photo of a blue chair")
    assert t.prompt == t.caption + ASKS and parsed(t.caption, t.completion) == t
    assert parsed(t.caption, t.completion + " and more") == t  # what comes after the end
    for bad in (
        "make it blue",
        t.completion.replace(ENDS, ""),
        t.completion.replace(SAYS, " "),
        f"make it blue{SAYS}a blue chair{SAYS}a green chair{ENDS}",
        f"{SAYS}a blue chair{ENDS}",
        f"make it{SAYS}{ENDS}",
        f"make\nit blue{SAYS}a blue chair{ENDS}",
        f"make it blue{SAYS}A photo of a RED chair!{ENDS}",
    ):
        assert parsed(t.caption, bad) is None, bad


@pytest.mark.parametrize("kind", ["recolour", "material", "part added", "part removed", "noun"])
def test_the_grammar_asks_for_what_is_not_there_and_is_read_back(kind: Kind):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        said = triple(kind, "chair", ["red", "blue"], rng, ["chair", "table", "armchair"])
        again = parsed(said.caption, said.completion)
        assert again is not None and (again.instruction, again.edited) == (said.instruction, said.edited)
        assert said.asked not in ("red", "blue", "chair") and "{" not in said.instruction
        assert said == triple(kind, "chair", ["red", "blue"], np.random.default_rng(seed), ["chair", "table", "armchair"])
        if kind not in ("part removed",):
            assert said.asked in said.edited or {"gold": "golden", "wood": "wooden"}.get(said.asked, "?") in said.edited
    with pytest.raises(ValueError, match="expected another than 'chair'"):
        triple("noun", "chair", [], np.random.default_rng(0), ["chair"])


def test_fine_tuning_data_are_lines_of_prompt_and_completion(tmp_path):
    said = [triple("recolour", "chair", ["red"], np.random.default_rng(s)) for s in range(5)]
    write_lines(said, tmp_path / "triples.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "triples.jsonl").read_text().splitlines()]
    assert [parsed(x["prompt"].removesuffix(ASKS), x["completion"]).edited for x in lines] == [t.edited for t in said]


def test_paint_has_the_hue_that_was_asked_for_and_keeps_half_of_the_contrast():
    """Two triangles of one size whose luminances are 4 to 1: afterwards 2 to 1, in one hue."""
    srgb = [1.055 * y ** (1 / 2.4) - 0.055 for y in (0.83, 0.20)]  # and .01, which guards black: .84 and .21
    obj = make("chair", 3)
    two = replace(
        drawable(obj),
        vertices=np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32),
        faces=np.array([[0, 1, 2], [0, 1, 3]], np.int32),
        material=np.array([0, 1], np.int16),
        colours=np.array([[c] * 3 for c in srgb], np.float32),
        offset=np.full(2, -1),
        shape=np.ones((2, 2), np.int64),
    )
    made, asked = (((c + 0.055) / 1.055) ** 2.4 for c in (painted(two, named("brown")).colours, named("brown")))
    np.testing.assert_allclose(made[0] / made[1], 2.0, rtol=1e-3)
    np.testing.assert_allclose(made[1] / asked, np.full(3, (0.21 / 0.525) ** 0.5), rtol=1e-3)  # by the mean of both


def test_a_ball_stands_on_the_highest_point_and_can_be_taken_away():
    obj = make("chair", 3)
    whole, count = with_ball(obj, 0.15, np.array([1.0, 0, 0]))
    less = without(drawable(whole), count)
    assert len(less.faces) == len(obj.faces)
    spread = np.ptp(whole.vertices, 0)
    assert abs(spread.max() - 1) < 1e-6 and np.abs(whole.vertices.max(0) + whole.vertices.min(0)).max() < 1e-6
    ball = whole.vertices[len(obj.vertices) :]
    rest = whole.vertices[: len(obj.vertices)]
    assert ball[:, 2].min() < rest[:, 2].max() < ball[:, 2].mean()
    corners = whole.vertices[whole.faces[-count:]]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    outward = (normal * (corners.mean(1) - ball.mean(0))).sum(-1)
    assert (outward[np.linalg.norm(normal, axis=1) > 1e-9] > 0).all()  # counter-clockwise from outside


def test_rendered_pairs_change_inside_their_mask_alone_and_are_the_same_again(rendered, tmp_path):
    for k in range(5):
        outside = rendered.mask[k] == 0
        change = (rendered.before[k].int() - rendered.after[k].int()).abs()
        assert change[outside].max() <= 1 and change[~outside].float().mean() > 2  # rounding
    again = together(list(pairs_of(make("chair", 3), np.random.default_rng(5))), ["procedural/chair/3"] * 5)
    assert torch.equal(again.after, rendered.after) and again.said == rendered.said
    rendered.save(tmp_path / "pairs_0000.safetensors")
    read = Pairs.of(tmp_path)
    assert torch.equal(read.mask, rendered.mask) and read.said == rendered.said and read.made == "rendered"


def test_rendered_and_drawn_pairs_are_not_mixed(rendered, tmp_path):
    rendered.save(tmp_path / "pairs_0000.safetensors")
    replace(rendered, made="drawn").save(tmp_path / "pairs_0001.safetensors")
    with pytest.raises(ValueError, match="holds rendered and drawn pairs"):
        Pairs.of(tmp_path)


def test_a_sample_is_a_function_of_its_number_and_flips_both_pictures(rendered, folder):
    prior = loading.load_as(InstructPix2Pix, folder, EXTENDED)
    data = Encoded.of(rendered, prior)
    rows = Rows(data, 1000, seed=3)
    first, again = rows[7], rows[7]
    assert all(torch.equal(first[k], again[k]) for k in first) and not torch.equal(rows[8]["noise"], first["noise"])
    flipped = prior.codec.latent(
        torch.nn.functional.interpolate(
            rendered.before[:1].flip(2).movedim(-1, 1).float() / 255, (prior.size, prior.size), mode="bilinear", antialias=True
        ).movedim(1, -1)
    )
    torch.testing.assert_close(data.before[0, 1].float(), flipped[0], rtol=0, atol=2e-3 * float(flipped.abs().max()))  # float16
    lost = [rows[i] for i in range(400)]
    assert sum(int(r["said"] == 0) for r in lost) > 15 and sum(int((r["image"] == 0).all()) for r in lost) > 15  # 40 each are expected


def test_what_was_learnt_is_read_as_a_prior_of_edits_and_rendered_pairs_must_be_asked_for(rendered, folder, tmp_path):
    (tmp_path / "pairs").mkdir()
    rendered.save(tmp_path / "pairs" / "pairs_0000.safetensors")
    loop = instruct.LoopSettings(samples=4, batch=2, lr=0.0, workers=0, validate_every=2, save_every=-1)
    settings = instruct.Settings(
        tmp_path / "pairs", tmp_path / "pairs", tmp_path / "run", rendered=True, base=str(folder), some=True, loop=loop
    )
    instruct.main(settings)
    made, base = loading.load_as(InstructPix2Pix, tmp_path / "run" / "prior"), loading.load_as(InstructPix2Pix, folder, EXTENDED)
    names = {k for k, p in Editor(base, some=True).network.unet.named_parameters() if p.requires_grad}
    old, new = loading.load_as(InstructPix2Pix, folder, EXTENDED).unet.state_dict(), made.unet.state_dict()
    moved = {k for k in new if not torch.equal(old[k], new[k])}
    assert moved and moved <= names and "conv_in.weight" in moved
    from safetensors.torch import save_file

    save_file({"conv_in.wait": torch.zeros(2)}, tmp_path / "run" / "prior" / learnt.PART)
    with pytest.raises(InputError, match="1 unknown"):
        loading.load_as(InstructPix2Pix, tmp_path / "run" / "prior")
    with pytest.raises(InputError, match="holds rendered pairs; add --rendered"):
        instruct.main(instruct.Settings(tmp_path / "pairs", tmp_path / "pairs", tmp_path / "other", base=str(folder), loop=loop))
