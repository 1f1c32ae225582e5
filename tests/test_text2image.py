# SPDX-License-Identifier: Apache-2.0
"""Text-to-image: the tokens and zeros that training had, guidance's null, distillation under a text, `bozzetto draw`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from bozzetto import cli
from bozzetto.camera import orbit
from bozzetto.diffusion.guidance import classifier_free
from bozzetto.diffusion.losses import prediction_loss
from bozzetto.distill.sds import sds
from bozzetto.errors import InputError
from bozzetto.priors import load
from bozzetto.priors.latent import ConditionedUNet
from bozzetto.priors.loading import MINI, TEXT
from bozzetto.priors.prior import Reference
from bozzetto.priors.text2image import TextToImage
from bozzetto.training.backbone import SCHEDULE, text_tower
from bozzetto.training.towers import tokens


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def prior() -> TextToImage:
    return load("mini", TEXT)


def noisy(prior: TextToImage, n: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, *prior.shape, generator=seeded(seed))


def test_words_become_what_training_made_of_them(prior):
    """Another way through the libraries, that of `training.backbone`: their loaders and their padding."""
    tower, tokenizer = text_tower(MINI / "clip")
    for text in ("a red chair", "", "Ein Stühlchen, 3x", "chair " * 40):
        ids = tokens(tokenizer, [text])
        with torch.no_grad():
            torch.testing.assert_close(prior.condition(text=text)["token"], tower(input_ids=ids).last_hidden_state, atol=1e-5, rtol=1e-5)


def test_a_text_row_is_asked_as_it_was_trained(prior):
    """The training's loss of a text row, by way of `ConditionedUNet`, is the error of this prior's answer at that level."""
    x0, noise, k = noisy(prior, seed=1), noisy(prior, seed=2), torch.tensor([500])
    token, alpha_bar = prior.condition(text="a blue sofa"), SCHEDULE.alpha_bar()
    with torch.no_grad():
        loss = prediction_loss(ConditionedUNet(load("mini").unet), x0, noise, k, alpha_bar.float(), "v", token)
    a = float(alpha_bar[500])
    sigma = ((1 - a) / a) ** 0.5
    with torch.no_grad():
        denoised = prior.denoiser.denoise(x0 + sigma * noise, sigma, token)
    # v - v_hat = (x0_hat - x0) / sqrt(1 - alpha_bar): both are of one noised sample
    expected = (denoised - x0).square().mean() / (1 - a)
    assert float(loss.mean()) == pytest.approx(float(expected), rel=1e-4)


def test_the_null_is_the_empty_text_and_guidance_leads_away_from_it(prior):
    assert torch.equal(prior.condition()["token"], prior.condition(text="")["token"])
    null, red = prior.condition(), prior.condition(text="a red chair")
    x = noisy(prior)
    with torch.no_grad():
        plain, empty = prior.denoiser.denoise(x, 3.0, red), prior.denoiser.denoise(x, 3.0, null)
        guided = classifier_free(prior.denoiser, null, 4.0).denoise(x, 3.0, red)
    assert (plain - empty).abs().max() > 0.01
    torch.testing.assert_close(guided, empty + 4 * (plain - empty), atol=1e-4, rtol=1e-4)


def test_it_was_told_which_colour(prior):
    """A picture's noise is better told from it under its colour's name than under another's, over colours and shapes alike."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 128), torch.linspace(-1, 1, 128), indexing="ij")
    shapes = [(x.abs() < w) & (y.abs() < h) for w, h in ((0.5, 0.3), (0.3, 0.6), (0.6, 0.6))]
    colours = {"red": (0.8, 0.12, 0.14), "green": (0.2, 0.6, 0.24), "blue": (0.16, 0.32, 0.78)}
    rgb = torch.stack([torch.where(s[..., None], torch.tensor(c), torch.ones(3)) for c in colours.values() for s in shapes])
    x0 = prior.encode_pictures(rgb)
    sigma = 2.0
    seen = x0 + sigma * torch.randn(x0.shape, generator=seeded(4))
    with torch.no_grad():
        error = {
            name: (prior.denoiser.denoise(seen, sigma, prior.condition(text=f"{name} cabinet")) - x0).square().flatten(1).mean(1)
            for name in colours
        }
    table = torch.stack([error[name].view(3, 3).mean(1) for name in colours])  # said, shown
    assert torch.equal(table.argmin(0), torch.arange(3)), table


def test_sds_pulls_a_grey_picture_towards_the_text_and_no_gradient_reaches_the_prior(prior):
    """DreamFusion's loss takes this prior as it takes any: the picture's gradient, through the codec, differs with the text."""
    rgb = torch.full((1, 128, 128, 3), 0.6, requires_grad=True)
    pulls = {}
    for text in ("a red cabinet", "a blue cabinet"):
        guided = classifier_free(prior.denoiser, prior.condition(), 10.0)
        loss = sds(guided, prior.encode_pictures(rgb), torch.tensor([4.0]), prior.condition(text=text), generator=seeded(0))
        (gradient,) = torch.autograd.grad(loss, rgb)
        pulls[text] = -gradient[0, 32:96, 32:96].mean((0, 1))
    assert all(p.grad is None and not p.requires_grad for p in prior.parameters())
    apart = pulls["a red cabinet"] - pulls["a blue cabinet"]
    assert float(apart[0]) > float(apart[2])  # redder for red


def test_pictures_and_long_texts(prior):
    reference = Reference(torch.ones(1, 8, 8, 3), orbit([0.0], 0.0, 2.0, size=8, fov=0.5))
    for ask in (lambda: prior.encode_reference(reference), lambda: prior.condition(reference, text="a chair")):
        with pytest.raises(ValueError, match="reads text"):
            ask()
    assert prior.excess("a red chair") == 0
    assert prior.excess(" ".join(["chair"] * 22)) == 0  # 24 less the two ends, a token each
    assert prior.excess(" ".join(["chair"] * 60)) == 38  # more than one length over


def spoilt(tmp_path: Path) -> Path:
    """A folder like the embedded ones, to be changed."""
    folder = tmp_path / "prior"
    shutil.copytree(MINI / "zero123", folder)
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(MINI / "clip" / part, folder / part)
    return folder


def test_folders(prior, tmp_path):
    folder = spoilt(tmp_path)
    again = load(folder, TEXT)  # its own text tower
    x = noisy(prior)
    with torch.no_grad():
        for a in (again, load(MINI / "zero123", text=MINI / "clip")):
            wanted = prior.denoiser.denoise(x, 2.0, prior.condition(text="mug"))
            assert torch.equal(a.denoiser.denoise(x, 2.0, a.condition(text="mug")), wanted)

    def refused(says: str) -> None:
        with pytest.raises(InputError, match=says) as error:
            load(folder, TEXT)
        assert "\n" not in str(error.value)

    words = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())
    (folder / "tokenizer" / "tokenizer.json").write_text(json.dumps({**words, "model": {"type": "no such"}}))
    refused("no tokenizer can be read")
    last = max(words["model"]["vocab"], key=words["model"]["vocab"].get)
    fewer = {k: v for k, v in words["model"]["vocab"].items() if k != last}
    (folder / "tokenizer" / "tokenizer.json").write_text(
        json.dumps({**words, "model": {**words["model"], "vocab": fewer, "merges": words["model"]["merges"][:-1]}})
    )
    refused("expected 1500 words, .* got 1499")
    (folder / "tokenizer" / "tokenizer.json").unlink()
    refused("tokenizer.json is missing")
    path = folder / "text_encoder" / "model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if "layers.1.mlp.fc1.bias" not in k}, path)
    refused("1 missing")
    shutil.rmtree(folder / "text_encoder")
    refused("text_encoder/ is missing")
    with pytest.raises(InputError, match="no such folder"):
        load(tmp_path / "nowhere", TEXT)


def test_a_text_tower_of_another_width_is_refused(tmp_path):
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    folder = spoilt(tmp_path)
    with torch.random.fork_rng():
        tower = CLIPTextModelWithProjection(
            CLIPTextConfig(
                vocab_size=1500,
                hidden_size=32,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=24,
            )
        )
    tower.save_pretrained(folder / "text_encoder")
    with pytest.raises(InputError, match="cross_attention_dim of the U-Net should be 32"):
        load(folder, TEXT)


def test_draw_writes_one_picture_a_seed(capsys, tmp_path, monkeypatch):
    def draw(*words: object) -> int:
        monkeypatch.setattr("sys.argv", ["bozzetto", "draw", *map(str, words), "--quiet"])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return int(left.value.code or 0)

    steps = ("--steps", 3)
    assert draw("a red chair", "--out", tmp_path / "two.png", "--count", 2, "--seed", 3, *steps) == 0
    assert draw("a red chair", "--out", tmp_path / "one.png", "--seed", 4, *steps) == 0
    assert draw("a blue chair", "--out", tmp_path / "blue.png", "--seed", 4, *steps) == 0
    two, one, blue = (np.asarray(Image.open(tmp_path / f"{n}.png")).astype(int) for n in ("two", "one", "blue"))
    assert two.shape == (128, 256, 3) and one.shape == (128, 128, 3)
    assert np.abs(two[:, 128:] - one).max() <= 1  # picture 1 of seed 3 is picture 0 of seed 4, but for sums in a batch
    assert np.abs(two[:, :128] - one).max() > 20 and np.abs(one - blue).max() > 20
    capsys.readouterr()
    for says, words in {
        "no text": (" ", "--out", tmp_path / "x.png"),
        "tokens longer": ("chair " * 40, "--out", tmp_path / "x.png"),
        "expected a .png file": ("chair", "--out", tmp_path / "x.jpg"),
        "--count 0": ("chair", "--out", tmp_path / "x.png", "--count", 0),
        "finite": ("chair", "--out", tmp_path / "x.png", "--guidance", "nan"),
        "no such folder": ("chair", "--out", tmp_path / "x.png", "--prior", tmp_path / "none"),
        "text_encoder/ is missing": ("chair", "--out", tmp_path / "x.png", "--prior", MINI / "zero123", "--towers", tmp_path),
    }.items():
        assert draw(*words) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
        assert len(lines) == 1 and lines[0].startswith("error: ") and says in lines[0], lines
    assert not list(tmp_path.glob("x.*"))
