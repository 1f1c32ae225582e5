# SPDX-License-Identifier: Apache-2.0
"""`bozzetto learn`: what was learnt is a prior, a killed run ends in the same bytes, and what cannot be used is said in one sentence."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bozzetto import cli
from bozzetto.distill.dreambooth import Examples, Rule, loss
from bozzetto.errors import InputError
from bozzetto.fit import teaching
from bozzetto.priors import load, lora
from bozzetto.priors.loading import MINI, digest, load_for
from bozzetto.priors.saving import save
from bozzetto.priors.text2image import TextToImage
from bozzetto.verbs import learn as verb
from bozzetto.verbs.learn import learn
from bozzetto.verbs.settings import LearnSettings
from tests.twins import zero123 as twin
from tests.twins.text import text_folder

QUICK = LearnSettings(class_count=3, rank=2, steps=3, lr=1e-2)
LONGER = replace(QUICK, steps=10)
TEXT = "a sks chair"


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A random Stable Diffusion of 16-pixel pictures; four steps draw one."""
    return text_folder(tmp_path_factory.mktemp("base") / "sd")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Two pictures of an L, red on the left and green on the right, cut out; and a file that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    for k in range(2):
        rgba = np.zeros((48, 40, 4), np.uint8)
        rgba[8:40, 10:18], rgba[32:40, 18:30] = (200, 30, 20 + 100 * k, 255), (30, 160, 40, 255)
        Image.fromarray(rgba).save(folder / f"{k}.png")
    (folder / "notes.txt").write_text("nothing")
    return folder


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Drawings of two steps, two pictures of the class a stage, a checkpoint every four steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TextToImage, "sampler", TextToImage.sampler._replace(steps=2, guidance=1.0))
        patch.setattr(verb, "CHUNK", 2)
        patch.setattr(teaching, "EVERY", 4)
        yield


@pytest.fixture(scope="module")
def whole(base, pictures, tmp_path_factory) -> dict[str, bytes]:
    """Of a run that nobody stopped."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert learn(TEXT, [pictures], out, LONGER, prior=base)
    return bytes_of(out)


def answer(prior, text=TEXT):
    x = torch.randn(2, *prior.shape, generator=seeded(1))
    with torch.no_grad():
        return prior.denoiser.denoise(x, 1.0, prior.condition(text=text))


def own_loss(prior, pictures) -> float:
    """Of the pictures under the text, over 60 draws that are always the same."""
    shown = torch.stack([verb._shown(p, prior, False, print) for p in sorted(pictures.glob("*.png"))])
    with torch.no_grad():
        examples = Examples(prior.encode_pictures(shown), prior.condition(text=TEXT)).some(60, seeded(2))
        return float(loss(prior.denoiser, examples, generator=seeded(3)))


@pytest.mark.parametrize("full", [False, True], ids=["low rank", "all weights"])
def test_what_was_learnt_is_a_prior_and_its_base_is_as_it_was(base, pictures, tmp_path, full):
    before, out = digest(base), tmp_path / "learnt"
    how = replace(QUICK, full=full, steps=20, lr=2e-3 if full else 2e-2)
    assert learn(TEXT, [pictures], out, how, prior=base)
    plain, taught = load(base), load(out)
    assert digest(base) == before and type(taught) is TextToImage

    assert own_loss(taught, pictures) < own_loss(plain, pictures) - 0.02
    assert torch.equal(answer(load(base)), answer(plain)) and not torch.allclose(answer(taught), answer(plain), atol=1e-3)
    assert {p.name for p in out.iterdir()} == {"bozzetto.json", "unet" if full else "pytorch_lora_weights.safetensors"}
    said = json.loads((out / "bozzetto.json").read_text())
    assert (said["base"], said["text"], said["class_text"]) == (str(base), TEXT, "a chair")
    assert load_for("text", out, dtype=torch.bfloat16).unet.dtype == torch.bfloat16
    assert digest(out) != before
    if not full:  # what the file holds is what was learnt, merged
        updates = lora.read(out / lora.FILE)
        lora.merge(out, plain.unet, updates)
        assert torch.equal(answer(plain), answer(taught)) and {len(u.A) for u in updates.values()} == {2}


def test_learning_goes_on_from_what_was_learnt(base, pictures, tmp_path):
    once, twice = tmp_path / "once", tmp_path / "twice"
    assert learn(TEXT, [pictures], once, QUICK, prior=base) and learn(TEXT, [pictures], twice, QUICK, prior=once)
    both = load(base)
    for folder in (once, twice):
        lora.merge(folder, both.unet, lora.read(folder / lora.FILE))
    assert torch.equal(answer(load(twice)), answer(both))


class Killed(Exception):
    pass


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("at", [("class", 0.9), ("learn", 0.5)], ids=str)
def test_killed_and_resumed_it_ends_in_the_same_bytes(base, pictures, tmp_path, whole, at):
    how = LONGER

    def kill(stage, share):
        if stage == at[0] and share > at[1]:
            raise Killed

    out = tmp_path / "out"
    with pytest.raises(Killed):
        learn(TEXT, [pictures], out, how, prior=base, progress=kill)
    assert {p.name for p in out.iterdir()} == {".run"}  # nothing that counts
    with pytest.raises(InputError, match=r"was begun with other lr"):
        learn(TEXT, [pictures], out, replace(how, lr=0.5), prior=base, resume=True)
    stages = []
    assert learn(TEXT, [pictures], out, how, prior=base, resume=True, progress=lambda stage, share: stages.append((stage, share)))
    assert bytes_of(out) == whole
    first = next(share for stage, share in stages if stage == "learn")
    assert first == pytest.approx(0.1 if at[0] == "class" else 0.5)  # after the last checkpoint
    assert learn(TEXT, [pictures], out, how, prior=base, resume=True)  # is done
    with pytest.raises(InputError, match="is complete, and was learnt otherwise"):
        learn(TEXT, [pictures], out, replace(how, steps=11), prior=base, resume=True)


def test_ctrl_c_ends_it_and_resume_goes_on_from_that_step(base, pictures, tmp_path, whole, monkeypatch):
    how, out, made = LONGER, tmp_path / "out", []

    class Run(verb.Run):
        def __init__(self, *given, **more):
            super().__init__(*given, **more)
            made.append(self)

    def stop(stage, share):
        made[0].interrupted = made[0].interrupted or (stage == "learn" and share >= 0.3)

    monkeypatch.setattr(verb, "Run", Run)
    assert not learn(TEXT, [pictures], out, how, prior=base, progress=stop)
    assert {p.name for p in out.iterdir()} == {".run"}
    shares = []
    assert learn(TEXT, [pictures], out, how, prior=base, resume=True, progress=lambda s, x: shares.append(x) if s == "learn" else None)
    assert shares[0] == pytest.approx(0.4)
    assert bytes_of(out) == whole


def test_the_class_is_drawn_by_the_prior_as_it_is(base, pictures, tmp_path, monkeypatch):
    """By the very generators of `bozzetto draw`: picture k takes seed + k, in chunks of any size."""
    kept = []
    real = verb.DreamBooth.step
    monkeypatch.setattr(verb.DreamBooth, "step", lambda self, own, k, generator: kept.append(k) or real(self, own, k, generator=generator))
    for chunk in (2, 8):
        monkeypatch.setattr(verb, "CHUNK", chunk)
        learn(TEXT, [pictures], tmp_path / str(chunk), replace(QUICK, class_count=5, steps=1), prior=base, seed=4)
    torch.testing.assert_close(kept[0].x0, kept[1].x0, atol=1e-3, rtol=1e-3)  # but for sums in a batch
    prior = load(base)
    assert torch.equal(kept[0].cond["token"], prior.condition(text="a chair")["token"])
    learn(TEXT, [pictures], tmp_path / "without", replace(QUICK, class_count=0), prior=base)
    assert kept[-1] is None


def test_pictures_are_cut_out_or_taken_whole(base, tmp_path):
    prior = load(base)
    rgb = np.full((40, 60, 3), 30, np.uint8)
    rgb[:, 10:50] = 128  # the middle square
    rgb[15:25, 25:35] = (250, 0, 0)
    Image.fromarray(rgb).save(tmp_path / "whole.png")
    whole = verb._shown(tmp_path / "whole.png", prior, True, print)
    assert whole.shape == (16, 16, 3) and torch.allclose(whole[0, 0], torch.tensor(128 / 255), atol=1e-2)
    assert torch.allclose(whole[8, 8], torch.tensor([250 / 255, 0, 0]), atol=1e-2)
    rgba = np.zeros((40, 60, 4), np.uint8)
    rgba[10:30, 30:50] = (0, 0, 250, 255)
    Image.fromarray(rgba).save(tmp_path / "cut.png")
    cut = verb._shown(tmp_path / "cut.png", prior, False, print)
    assert torch.allclose(cut[0, 0], torch.ones(3)) and cut[8, 8, 0] < 0.01 < cut[8, 8, 2]  # centred, on the prior's white


# ---- folders that name a base ----


def written(folder: Path, base: str, **more) -> Path:
    folder.mkdir()
    (folder / "bozzetto.json").write_text(json.dumps({"kind": "learnt", "base": base, "base_kind": "text-to-image", **more}))
    return folder


def test_a_record_written_by_hand_makes_a_prior_of_an_update_from_elsewhere(base, tmp_path):
    from diffusers import UNet2DConditionModel
    from peft import LoraConfig

    unet = UNet2DConditionModel.from_pretrained(base / "unet")
    with torch.random.fork_rng():
        unet.add_adapter(LoraConfig(r=2, lora_alpha=4, init_lora_weights=False, target_modules=["to_q", "to_v"]))
    shutil.copytree(base, tmp_path / "sd")
    folder = written(tmp_path / "theirs", "../sd")  # relative to the folder
    unet.save_lora_adapter(folder)
    plain, theirs = load(base), load(folder)
    assert not torch.allclose(answer(plain), answer(theirs), atol=1e-3)
    plain.network.unet = unet.eval()
    torch.testing.assert_close(answer(plain), answer(theirs), atol=1e-4, rtol=1e-4)


def test_bases_that_are_gone_or_others_or_themselves(base, tmp_path):
    def refused(says, folder):
        with pytest.raises(InputError, match=says) as error:
            load(folder)
        assert "\n" not in str(error.value)

    refused("was learnt on another prior, and that cannot be found .*no such folder", written(tmp_path / "a", str(tmp_path / "none")))
    refused("was learnt on other weights than", written(tmp_path / "b", str(base), base_digest="0123"))
    refused("which was learnt on it", written(tmp_path / "c", "../c"))
    written(tmp_path / "d", "../e")
    refused("which was learnt on it", written(tmp_path / "e", "../d"))
    refused("base and base_kind should say", written(tmp_path / "f", ""))
    refused("no such file", written(tmp_path / "g", str(base)))
    emoji = written(tmp_path / "h", "emoji-ddpm")
    (emoji / "bozzetto.json").write_text(json.dumps({"kind": "learnt", "base": "emoji-ddpm", "base_kind": "ddpm"}))
    refused("was learnt on a latent diffusion model", emoji)


def test_weights_of_another_network_do_not_take_its_place(base, tmp_path):
    folder = written(tmp_path / "learnt", str(base))
    save(load(twin.write_port(tmp_path / "port", twin.port_parts(), 1), "zero123"), tmp_path / "other")
    shutil.copytree(tmp_path / "other" / "unet", folder / "unet")
    with pytest.raises(InputError, match="weights and settings do not belong together"):
        load(folder)


# ---- the command ----


def run(capsys, monkeypatch, *words) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["bozzetto", "learn", *map(str, words), "--quiet"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = capsys.readouterr()
    return int(left.value.code or 0), said.out, said.err


def test_the_command_makes_the_folder_that_draw_takes(base, pictures, tmp_path, capsys, monkeypatch):
    out = tmp_path / "learnt"
    words = (TEXT, pictures, "--prior", base, "--out", out, "--steps", 2, "--class-count", 2, "--rank", 3)
    assert run(capsys, monkeypatch, *words) == (0, f"{out}\n", "")
    code, _, said = run(capsys, monkeypatch, *words)
    assert code == 2 and "is there already" in said
    assert run(capsys, monkeypatch, *words, "--resume") == (0, f"{out}\n", "")
    monkeypatch.setattr("sys.argv", ["bozzetto", "draw", TEXT, "--prior", str(out), "--out", str(tmp_path / "x.png"), "--steps", "2"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code and Image.open(tmp_path / "x.png").size == (16, 16)


def test_what_cannot_be_learnt_is_one_sentence_and_leaves_nothing(base, pictures, tmp_path, capsys, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "empty").mkdir()
    given = (TEXT, pictures, "--prior", base)
    for says, words in {
        "no text given": (" ", pictures),
        "no pictures given": (TEXT, "--prior", base),
        "no pictures in this folder": (TEXT, tmp_path / "empty"),
        "no such file": (TEXT, tmp_path / "none.png", "--prior", base),
        "say what kind of thing it is with --class-text": ("my chair", pictures),
        '"sks": say what kind of thing': ("sks", pictures),
        "--rank 0: expected": (*given, "--rank", 0),
        "--steps 0: expected": (*given, "--steps", 0),
        "--class-count -1": (*given, "--class-count", -1),
        "--lr nan": (*given, "--lr", "nan"),
        "--weight -1.0": (*given, "--weight", -1),
        "tokens longer": ("sks " + "chair " * 40, pictures, "--prior", base),
        "no such folder": (TEXT, pictures, "--prior", tmp_path / "none"),
        "kind text-to-image was asked for": (TEXT, pictures, "--prior", "digits-ddpm"),
        "text_encoder/ is missing": (*given, "--towers", tmp_path),
        "--seed -1": (*given, "--seed", -1),
        "--device": (*given, "--device", "cuda:77"),
    }.items():
        code, out, said = run(capsys, monkeypatch, *words, "--out", tmp_path / "out")
        lines = [line for line in said.splitlines() if line.strip() and not line.startswith("warning: ")]
        assert (code, out, len(lines)) == (2, "", 1) and lines[0].startswith("error: ") and says in lines[0], (says, said)
        assert not (tmp_path / "out").exists()
    code, _, said = run(capsys, monkeypatch, *given, "--out", tmp_path / "full")
    assert code == 2 and "is there already" in said and [p.name for p in (tmp_path / "full").iterdir()] == ["file"]


def test_the_embedded_prior_learns_by_its_name(pictures, tmp_path):
    assert learn(TEXT, [pictures], tmp_path / "out", replace(QUICK, class_count=1, steps=1))
    said = json.loads((tmp_path / "out" / "bozzetto.json").read_text())
    assert said["base"] == "mini" and said["base_digest"] == digest("mini")
    taught, plain = load(tmp_path / "out"), load("mini", "text-to-image")
    assert type(taught) is TextToImage and not torch.equal(answer(taught), answer(plain))
    assert load(tmp_path / "out", text=MINI / "clip").shape == plain.shape


def test_the_rate_suits_what_learns_and_what_is_said_goes_before():
    rates = [verb.rule_of(LearnSettings(full=full), prior).lr for prior in ("mini", Path("sd")) for full in (False, True)]
    assert rates == pytest.approx([1e-3, 5e-5, 1e-4, 5e-6])
    assert verb.rule_of(LearnSettings(lr=0.3, weight=2.0, batch=4), "mini") == Rule(0.3, 2.0, 4)
