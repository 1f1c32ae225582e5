# SPDX-License-Identifier: Apache-2.0
"""Textual inversion: one row learns and nothing else changes, the loss falls, files are diffusers', a killed run ends in the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bozzetto.denoiser import noise_like
from bozzetto.distill.dreambooth import DreamBooth, Rule, loss
from bozzetto.errors import InputError
from bozzetto.fit import teaching
from bozzetto.fit.teaching import examples_of
from bozzetto.priors import load
from bozzetto.priors.inversion import FILE, SMALLEST, Inversion, knowing, read, save, varied
from bozzetto.verbs.learn import learn
from bozzetto.verbs.settings import LearnSettings
from tests.test_learn import Killed, bytes_of, pictures, run, seeded  # noqa: F401  # the fixture of pictures
from tests.twins import deepfloyd
from tests.twins.text import text_folder

WORD, TEXT = "<mine>", "a <mine>"
HOW = LearnSettings("textual-inversion", class_text="a chair", steps=6)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return text_folder(tmp_path_factory.mktemp("base") / "sd", "2.1")


def token(prior, text: str):
    return prior.condition(text=text)["token"]


def test_one_row_learns_and_the_loss_falls_and_nothing_else_is_touched(base):
    prior = load(base)
    before = {k: v.clone() for k, v in prior.state_dict().items()}
    said = token(prior, "a red chair")
    model = Inversion(prior, WORD, "a chair")
    table = prior.text_encoder.get_input_embeddings().weight
    known = prior.tokenizer.encode("a chair").ids[1:3]  # after the beginning
    torch.testing.assert_close(model.row.detach(), table[known].mean(0))  # where it begins
    assert [p.shape for p in model.parameters()] == [table.shape[1:]]

    course = DreamBooth(model, Rule(0.05, batch=4))
    shown = torch.rand(2, prior.size, prior.size, 3, generator=seeded(0))
    own = examples_of(model, TEXT, shown, generator=seeded(1))
    many = own.some(64, seeded(2))

    def level() -> float:
        with torch.no_grad():
            return float(loss(model, many, generator=seeded(3)))

    first = level()
    for k in range(25):
        course.step(own, generator=seeded(k))
    assert level() < first - 1e-3  # the same draws in both
    assert all(torch.equal(v, before[k]) for k, v in prior.state_dict().items())  # bit for bit, its table among them
    assert torch.equal(token(prior, "a red chair"), said) and torch.equal(token(model.prior, "a red chair"), said)
    assert prior.tokenizer.token_to_id(WORD) is None and not torch.equal(token(model.prior, TEXT), token(prior, TEXT))


def test_the_row_has_the_gradient_that_a_longer_table_has(base):
    """transformers' own way: a table with one row more, all of it trainable."""
    prior = load(base)
    model = Inversion(prior, WORD, "red")
    x0, sigma = torch.randn(2, *prior.shape, generator=seeded(4)), torch.tensor([0.5, 3.0], dtype=torch.float64)
    noise, ids = noise_like(x0, seeded(5)), model.ids("a red <mine>")
    model.loss(x0, noise, sigma, {"ids": ids}).mean().backward()
    tower = load(base).text_encoder
    rows = torch.cat([tower.get_input_embeddings().weight, model.row.detach()[None]])
    tower.set_input_embeddings(torch.nn.Embedding.from_pretrained(rows, freeze=False))
    prior.denoiser.loss(x0, noise, sigma, {"token": tower(input_ids=ids).last_hidden_state}).mean().backward()
    grad = tower.get_input_embeddings().weight.grad
    torch.testing.assert_close(model.row.grad, grad[-1], rtol=1e-4, atol=1e-8)
    assert float(model.row.grad.norm()) > 0 and int((ids == len(rows) - 1).sum()) == 1


def test_the_file_is_diffusers(base, tmp_path):
    """Its own reader, on its own tower, says what ours says."""
    from diffusers.loaders import TextualInversionLoaderMixin
    from transformers import PreTrainedTokenizerFast

    prior, row = load(base), torch.randn(128, generator=seeded(6))
    save(WORD, row, tmp_path)
    assert {k: v.shape for k, v in load_file(tmp_path / FILE).items()} == {WORD: (128,)}
    tokens = PreTrainedTokenizerFast(
        tokenizer_file=str(base / "tokenizer" / "tokenizer.json"),
        pad_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        unk_token="<|endoftext|>",
    )
    theirs, tower = type("Pipeline", (TextualInversionLoaderMixin,), {"hf_device_map": None, "components": {}})(), load(base).text_encoder
    theirs.load_textual_inversion(str(tmp_path), tokenizer=tokens, text_encoder=tower)
    length = tower.config.max_position_embeddings
    ids = tokens(TEXT, padding="max_length", max_length=length, return_tensors="pt").input_ids
    ours = knowing(prior, *read(tmp_path / FILE))
    assert ids.tolist() == [ours.tokenizer.encode(TEXT).ids]
    torch.testing.assert_close(token(ours, TEXT), tower(input_ids=ids).last_hidden_state, rtol=1e-5, atol=1e-5)


def test_parts_are_of_the_pictures_and_half_are_mirrored():
    """Pictures that grow to the right, one darker than the other: 4 standard errors of 400 coins."""
    ramp = torch.linspace(0, 1, 32).expand(32, 32)[..., None].expand(32, 32, 3)
    made = varied(torch.stack([ramp, 0.5 * ramp]), 400, generator=seeded(7))
    rise = made[:, :, -1].mean((1, 2)) - made[:, :, 0].mean((1, 2))
    assert abs(float((rise > 0).double().mean()) - 0.5) < 4 * 0.5 / 400**0.5
    full = rise.abs() * torch.tensor([1.0, 2.0]).repeat(200)
    step = 1 / 31  # from a pixel to the next, of which two ends see half each
    assert SMALLEST - step < float(full.min()) < SMALLEST + 0.05 < 0.95 < float(full.max()) < 1 + step


def test_what_was_learnt_is_a_prior_and_a_killed_run_ends_in_the_same_bytes(base, pictures, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(teaching, "EVERY", 2)
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert learn(TEXT, [pictures], whole, HOW, prior=base)
    assert {p.name for p in whole.iterdir()} == {"bozzetto.json", FILE} and json.loads((whole / "bozzetto.json").read_text())[
        "text"
    ] == TEXT

    def kill(stage, share):
        if share > 0.4:
            raise Killed

    with pytest.raises(Killed):
        learn(TEXT, [pictures], out, HOW, prior=base, progress=kill)
    shares = []
    assert learn(TEXT, [pictures], out, HOW, prior=base, resume=True, progress=lambda stage, share: shares.append(share))
    assert bytes_of(out) == bytes_of(whole) and shares[0] == pytest.approx(3 / 6)  # after the last checkpoint
    taught, plain = load(out), load(base)
    assert torch.equal(token(taught, "a chair"), token(plain, "a chair"))
    assert torch.equal(token(taught, TEXT), token(knowing(plain, *read(out / FILE)), TEXT))
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in taught.state_dict().items() if "token_embedding" not in k)


def test_what_cannot_be_used_is_one_sentence(base, pictures, tmp_path, capsys, monkeypatch):  # noqa: F811
    deepfloyd.write(tmp_path / "if")
    given = (pictures, "--method", "textual-inversion", "--out", tmp_path / "out", "--prior")
    for says, words in {
        "in angle brackets, once": ("a chair", *given, base),
        "is a word that this prior knows": ("a <|endoftext|>", *given, base),
        "has no use here": (TEXT, *given, tmp_path / "if"),
    }.items():
        code, _, said = run(capsys, monkeypatch, *words)
        assert code == 2 and says in said and "Traceback" not in said
    for rows in ({"a": torch.zeros(128), "b": torch.zeros(128)}, {"a": torch.zeros(2, 128)}, {WORD: torch.zeros(7)}):
        save_file(rows, tmp_path / FILE)
        with pytest.raises(InputError, match=r"one word of one row|7\] numbers, and this prior's words are 128"):
            knowing(load(base), *read(tmp_path / FILE))
