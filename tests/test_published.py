# SPDX-License-Identifier: Apache-2.0
"""Published priors as `bozzetto fetch` leaves them: the listed files suffice, their names stand for folders, and the table to send back."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import published as random_weights
from bozzetto.errors import InputError
from bozzetto.priors import load, loading, published, triposr_files
from bozzetto.priors.published import PUBLISHED, File
from bozzetto.priors.text2image import TextToImage
from bozzetto.priors.tokens import tokenizer
from bozzetto.verbs.draw import draw
from bozzetto.verbs.lift import lift
from tests import published as command
from tests.twins import zero123 as twin

CHAIR = Path(__file__).parent.parent / "examples" / "wooden-chair.png"
COMMIT = "c0ffee" + 34 * "0"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every published prior that something here reads as it is, small, random: exactly the files that are fetched."""
    at = tmp_path_factory.mktemp("published")
    for name in random_weights.NAMES:
        random_weights.write(name, at / name, "tiny")
    return at


def fetched(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> Path:
    """A folder as the hub's cache holds it."""
    monkeypatch.setenv("HF_HUB_CACHE", str(home))
    prior = PUBLISHED[name]._replace(revision=COMMIT, files=tuple(File(f.name) for f in PUBLISHED[name].files))
    monkeypatch.setitem(PUBLISHED, name, prior)
    snapshot = published.storage(prior) / "snapshots" / COMMIT
    if not snapshot.exists():
        shutil.copytree(folder, snapshot)
    return snapshot


# ---- what is listed ----


def test_every_row_that_is_read_as_it_is_has_its_folder_here():
    assert {name for name, prior in PUBLISHED.items() if prior.kind} | {"triposr"} == set(random_weights.NAMES)
    assert set(random_weights.TESTED) <= set(PUBLISHED)


@pytest.mark.parametrize("name", random_weights.NAMES)
def test_the_listed_files_suffice_and_no_others_are_there(folders: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str):
    found = {path.relative_to(folders / name).as_posix() for path in (folders / name).rglob("*") if path.is_file()}
    assert found == {f.name for f in PUBLISHED[name].files}
    snapshot = fetched(name, folders / name, monkeypatch, tmp_path)
    if name == "triposr":
        opened: Any = triposr_files.load("triposr")
    else:
        opened = load(name)
        drawn = command.drawn(opened)
        count = opened.shape[0] if len(opened.shape) == 4 else 1
        assert torch.isfinite(drawn).all() and drawn.shape == (count, opened.size, opened.size, 3)
    for file in PUBLISHED[name].files:  # and none is there for nothing, but for what another version may want
        if file.name.endswith((".safetensors", ".ckpt", ".bin", "merges.txt", "vocab.json")) or file.name in (
            "unet/config.json",
            "config.yaml",
        ):
            (snapshot / file.name).rename(tmp_path / "away")
            with pytest.raises(InputError):
                load(snapshot, PUBLISHED[name].kind) if name != "triposr" else triposr_files.load(snapshot)
            (tmp_path / "away").rename(snapshot / file.name)
    assert sum(p.numel() for p in opened.parameters()) > 1e5


# ---- CLIP's older tokenizers, and Stable Diffusion's towers ----


def test_a_tokenizer_of_merges_is_clips(tmp_path: Path):
    letters = "abcdehir "
    words = [
        "<|startoftext|>",
        "<|endoftext|>",
        *letters.strip(),
        *(c + "</w>" for c in letters.strip()),
        "ch",
        "ai",
        "chai",
        "chair</w>",
        "!",
    ]
    (tmp_path / "vocab.json").write_text(json.dumps({word: k for k, word in enumerate(words)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nc h\na i\nch ai\nchai r</w>\n")
    made = tokenizer(tmp_path, 8, len(words))
    end = "<|endoftext|>"
    assert made.encode("A  CHAIR abc").tokens == ["<|startoftext|>", "a</w>", "chair</w>", "a", "b", "c</w>", end, end]
    assert made.encode("chair " * 9).tokens == ["<|startoftext|>", *["chair</w>"] * 6, end]
    for pad in ("!", {"content": "!", "lstrip": False}):  # as Stable Diffusion 2 has it, as a word and as an object
        (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": pad}))
        assert tokenizer(tmp_path, 5, len(words)).encode("chair").tokens == ["<|startoftext|>", "chair</w>", end, "!", "!"]
    (tmp_path / "special_tokens_map.json").write_text('{"pad_token": "?"}')
    with pytest.raises(InputError, match=r"pad_token '\?' is none of the tokenizer's words"):
        tokenizer(tmp_path, 5, len(words))
    with pytest.raises(InputError, match=f"expected 7 words, .* got {len(words)}"):
        tokenizer(tmp_path, 5, 7)
    (tmp_path / "merges.txt").write_text("one two three\n")
    with pytest.raises(InputError, match="no tokenizer can be read"):
        tokenizer(tmp_path, 5, len(words))
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(InputError, match=r"merges\.txt is missing"):
        tokenizer(tmp_path, 5, len(words))


def test_a_tower_without_projection_gives_the_states_that_the_library_gives(folders: Path, tmp_path: Path):
    """Written by transformers 4 (names with a prefix) and 5 (without)."""
    from safetensors.torch import load_file, save_file
    from transformers import CLIPTextModel

    folder = tmp_path / "sd"
    shutil.copytree(folders / "stable-diffusion-1.5", folder)
    prior = loading.load_as(TextToImage, folder)
    path = folder / "text_encoder" / "model.safetensors"
    state = load_file(path)
    assert all(name.startswith("text_model.") for name in state)
    save_file({name.removeprefix("text_model."): tensor for name, tensor in state.items()}, path, metadata={"format": "pt"})
    again = loading.load_as(TextToImage, folder)
    theirs = CLIPTextModel.from_pretrained(folder / "text_encoder", local_files_only=True, use_safetensors=True).eval()
    token = prior.condition(text="a chair")["token"]
    assert torch.equal(token, again.condition(text="a chair")["token"])
    with torch.no_grad():
        ids = torch.tensor([prior.tokenizer.encode("a chair").ids])
        torch.testing.assert_close(token, theirs(input_ids=ids).last_hidden_state, rtol=0, atol=1e-5)


# ---- names in place of folders ----


def test_a_name_stands_for_a_folder_wherever_a_prior_is_asked_for(folders: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    not_here = "stable-diffusion-1.5: is not on this disk; fetch it first: bozzetto fetch stable-diffusion-1.5"
    asks = [
        lambda: lift(CHAIR, prior={"first_guess": "stable-diffusion-1.5"}),
        lambda: lift(CHAIR, recipe="views", prior={"views": "stable-diffusion-1.5"}),
        lambda: lift(text="a chair", prior={"text": "stable-diffusion-1.5"}),
        lambda: draw("a chair", prior="stable-diffusion-1.5"),
        lambda: draw("a chair", towers="stable-diffusion-1.5"),
        lambda: triposr_files.load("stable-diffusion-1.5"),
    ]
    for ask in asks:
        with pytest.raises(InputError) as error:
            ask()
        assert str(error.value) == not_here
    snapshot = fetched("stable-diffusion-1.5", folders / "stable-diffusion-1.5", monkeypatch, tmp_path)
    assert published.place("stable-diffusion-1.5") == snapshot and published.place(tmp_path) == tmp_path
    with pytest.raises(InputError, match=r"stable-diffusion-1\.5: holds no first guess"):  # found
        lift(CHAIR, prior={"first_guess": "stable-diffusion-1.5"})
    with pytest.raises(InputError, match="these weights were not trained under this text tower"):
        draw("a chair", towers="stable-diffusion-1.5")
    assert draw("a chair", prior="stable-diffusion-1.5", steps=2).shape == (1, 16, 16, 3)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "triposr").mkdir()
    assert published.place("triposr") == Path("triposr")  # a folder of that name goes before


# ---- the table to send back ----


@pytest.mark.slow  # a process for each
def test_the_table_has_a_row_for_each_layout(folders: Path, capsys: Any, tmp_path: Path):
    at = tmp_path / "priors"
    shutil.copytree(folders, at)
    (at / "zero123-xl" / "bozzetto.json").write_text('{"kind": "zero123-xl"}')
    twin.write_port(at / "port 1", twin.port_parts(), 1)  # does not say its kind
    out = tmp_path / "table.json"
    code = command.main([str(at), str(loading.MINI / "zero123"), str(loading.MINI / "digits-ddpm"), "--out", str(out)])
    said, rows = capsys.readouterr().out, {r["folder"]: r for r in json.loads(out.read_text())["rows"]}
    assert code == 1 and set(rows) == {*random_weights.NAMES, "port 1", "zero123", "digits-ddpm"}
    assert "say its kind" in rows.pop("port 1")["error"] and "say its kind" in said
    layouts = {"zero123-xl": "zero123-xl", "zero123": "zero123-mini", "triposr": "triposr", "digits-ddpm": "PicturePrior"}
    layouts |= {"deepfloyd-if": "DeepFloyd", "instruct-pix2pix": "InstructPix2Pix", "wonder3d": "Wonder3D"}
    for name, row in rows.items():
        assert set(row) == set(command.COLUMNS) and row["finite"] and row["layout"] == layouts.get(name, "TextToImage")
        assert row["weights of"] == "unknown" and row["off recorded"] is None and row["parameters"] > 1e5
        assert row["planned, GB"] >= row["peak, GB"] > 0.1 and f"| {name} | {row['layout']} | unknown |" in said
    assert rows["zero123"]["std"] > 0.01
    assert json.loads(out.read_text())["machine"]["torch"] == torch.__version__


def test_one_folder_is_asked_the_same_twice(folders: Path):
    first, again = (command.row(folders / "stable-diffusion-1.5") for _ in range(2))
    assert (first["mean"], first["std"], first["parameters"]) == (again["mean"], again["std"], again["parameters"])
    other = command.row(folders / "zero123-xl", "stable-zero123", torch.bfloat16)
    assert other["layout"] == "stable-zero123" and other["finite"]


def test_weights_are_named_by_the_hashes_of_the_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    body = b"weights"
    known = (File("a.bin", len(body), hashlib.sha256(body).hexdigest()), File("b.json"))
    monkeypatch.setitem(PUBLISHED, "tiny", PUBLISHED["triposr"]._replace(files=known))
    assert command.weights_of(tmp_path) == "unknown"
    (tmp_path / "a.bin").write_bytes(body)
    assert command.weights_of(tmp_path) == "tiny"
    (tmp_path / "a.bin").write_bytes(body[:-1] + b"?")
    assert command.weights_of(tmp_path) == "unknown"


def test_recorded_outputs_are_compared(folders: Path):
    """The last sample's last two rows and columns of two channels, as diffusers' tests have them; the inputs from memory here."""
    unet: Any = loading.load_as(TextToImage, folders / "stable-diffusion-1.5").unet
    generator = torch.Generator().manual_seed(0)
    arrays = {"gaussian_noise_s=33_shape=4_4_64_64.npy": torch.randn(4, 4, 8, 8, generator=generator)}
    arrays["gaussian_noise_s=33_shape=4_77_768.npy"] = torch.randn(4, 77, 32, generator=generator)

    def array(name: str) -> Tensor:
        return arrays[name]

    with torch.no_grad():
        latents, states = arrays.values()
        alone = unet(latents[3:], torch.tensor([4]), encoder_hidden_states=states[3:]).sample[0]
        recorded = tuple(float(alone[row, column, channel]) for row, column, channel in _places(alone))
        assert command.recorded_error(unet, recorded, array) < 1e-5
        wrong = (recorded[0] + 0.25, *recorded[1:])
        assert command.recorded_error(unet, wrong, array) == pytest.approx(0.25, abs=1e-5)
    assert len(command.RECORDED) == 8


def _places(sample: Tensor) -> list[tuple[int, int, int]]:
    """Indices of `sample[-2:, -2:, :2]` of (C, h, w), in its order: the last two channels, the last two rows, the first two columns."""
    c, h, _ = sample.shape
    return [(i, j, k) for i in (c - 2, c - 1) for j in (h - 2, h - 1) for k in (0, 1)]


# ---- the table of the docs ----


def test_blank_folders_of_the_real_sizes_have_the_published_numbers_of_parameters(tmp_path: Path):
    """SD 1.5's and Zero-1-to-3's, counted elsewhere from the published files (`published`), and no room on the disk."""
    for name, parameters in (
        ("stable-diffusion-1.5", 1_066_235_307),
        ("zero123-xl", 1_247_746_219),
        ("stable-diffusion-2.1-base", 1_289_952_427),
    ):
        folder = random_weights.write(name, tmp_path / name, "blank")
        outline: Any = load(folder, PUBLISHED[name].kind, device="meta")
        assert sum(p.numel() for p in outline.parameters()) == parameters
        weights = list(folder.rglob("*.safetensors"))
        assert sum(path.stat().st_size for path in weights) > parameters and sum(path.stat().st_blocks for path in weights) * 512 < 2e6


def test_the_tables_words_come_from_one_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(random_weights, "planned", lambda name: ("1 GB", "2 s"))
    lines = random_weights.table().splitlines()
    page = (Path(__file__).parent.parent / "docs" / "published.md").read_text().splitlines()
    told = {line.split(" | ")[0]: line.split(" | ") for line in page if line.startswith("| `")}
    for line in lines[2:]:
        cells = line.split(" | ")
        assert len(cells) == 9 and told[cells[0]][:5] + told[cells[0]][7:] == cells[:5] + cells[7:], cells[0]
