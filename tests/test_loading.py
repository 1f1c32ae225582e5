# SPDX-License-Identifier: Apache-2.0
"""Folders of weights: read strictly, written whole, refused in one sentence; legacy checkpoints converted, never run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bozzetto.errors import InputError
from bozzetto.priors import load, save
from bozzetto.priors.loading import digest, dtype_on
from bozzetto.priors.schedule import NoiseSchedule
from tests.twins import zero123 as twin

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the first port's layout."""
    return twin.write_port(tmp_path_factory.mktemp("published"), twin.port_parts(), 1)


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil, with its kind beside it."""
    shutil.copytree(published, tmp_path / "prior")
    (tmp_path / "prior" / "bozzetto.json").write_text('{"kind": "zero123"}')
    return tmp_path / "prior"


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a JSON file's object, or a safetensors file's tensors, in place."""
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
    else:
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)


def refused(folder: Path | str, words: str, **options: Any) -> None:
    """`load` says `words` in one sentence of one line."""
    with pytest.raises(InputError, match=words) as error:
        load(folder, **options)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


# ---- what is read ----


def test_ck_1_save_and_load_are_bit_exact(folder: Path, tmp_path: Path):
    for dtype in (torch.float32, torch.float16):
        prior = load(folder, dtype=dtype)
        out = tmp_path / f"again-{str(dtype)[6:]}"
        save(prior, out)
        again = load(out, dtype=dtype)
        before, after = prior.state_dict(), again.state_dict()
        assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) and after[k].dtype == dtype for k in before)
        assert (again.kind, again.schedule, again.size) == (prior.kind, prior.schedule, prior.size) == ("zero123", NoiseSchedule(), 16)
    assert not list(tmp_path.glob(".*"))  # nothing half-written is left


def test_a_folder_that_we_saved_opens_in_the_libraries_themselves(folder: Path, tmp_path: Path):
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPVisionModelWithProjection

    prior = load(folder)
    save(prior, tmp_path / "saved")
    parts = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "image_encoder": CLIPVisionModelWithProjection}
    for name, cls in parts.items():
        theirs = cls.from_pretrained(tmp_path / "saved" / name, use_safetensors=True, local_files_only=True).state_dict()
        ours = (prior.codec.vae if name == "vae" else getattr(prior, name)).state_dict()
        assert theirs.keys() == ours.keys() and all(torch.equal(theirs[k], ours[k]) for k in ours)
    scheduler = DDIMScheduler.from_pretrained(tmp_path / "saved" / "scheduler", local_files_only=True)
    torch.testing.assert_close(scheduler.alphas_cumprod.double(), prior.schedule.alpha_bar(), rtol=1e-4, atol=0)  # theirs is float32


def test_variants_shards_and_old_names_are_read(folder: Path):
    expected = load(folder).state_dict()
    (folder / "unet" / WEIGHTS).rename(folder / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    tensors = load_file(folder / "vae" / WEIGHTS)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}  # diffusers before 0.18
    for name in [k for k in tensors if ".attentions." in k]:
        for new, was in old.items():
            if f".{new}." in name:
                tensors[name.replace(new, was)] = tensors.pop(name)
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in shards.items():
        save_file({k: tensors[k] for k in part}, folder / "vae" / file)
    index = {"weight_map": {k: file for file, part in shards.items() for k in part}}
    (folder / "vae" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "vae" / WEIGHTS).unlink()
    position_ids = torch.arange(17)[None]  # transformers before 4.31 wrote them
    edit(folder / "scheduler" / "scheduler_config.json", lambda c: c.pop("prediction_type"))  # before diffusers 0.9
    edit(folder / "image_encoder" / "model.safetensors", lambda t: t.update({"vision_model.embeddings.position_ids": position_ids}))
    found = load(folder).state_dict()
    assert all(torch.equal(expected[k], found[k]) for k in expected)


def test_folders_as_the_hub_and_editors_leave_them_are_read(folder: Path, tmp_path: Path):
    expected, before = load(folder).state_dict(), digest(folder)
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / WEIGHTS).symlink_to(tmp_path / "nowhere")  # a part that is not used
    assert digest(folder) == before
    for path in (folder / "unet" / "config.json", folder / "model_index.json"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    whole = folder / "unet" / WEIGHTS
    for variant in ("fp16", "bf16"):
        whole = whole.rename(folder / "unet" / f"diffusion_pytorch_model.{variant}.safetensors")
        index = folder / "unet" / f"{WEIGHTS}.index.json"
        index.write_text('{"weight_map": {"a": "diffusion_pytorch_model-00001-of-00001.safetensors"}}')  # without its shards
        again = load(folder).state_dict()
        assert all(torch.equal(again[k], v) for k, v in expected.items())
    hub = tmp_path / "models--a--b"
    (hub / "snapshots" / "0").mkdir(parents=True)
    folder.rename(hub / "snapshots" / "f00")
    refused(hub, "holds 2 versions and none is main")
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("f00\n")
    assert load(hub).state_dict().keys() == expected.keys() and digest(hub) == digest(hub / "snapshots" / "f00")


@pytest.mark.parametrize("name", [f"unet/{WEIGHTS}", "unet/config.json", "model_index.json"])
def test_a_link_that_leads_nowhere_is_called_one(folder: Path, name: str):
    (folder / name).unlink()
    (folder / name).symlink_to("../../blobs/0")
    refused(folder, r"is a link to a file that is not there; copy the folder with what its links lead to \(cp -rL\)")


def test_loading_draws_nothing_random_and_the_second_port_is_the_first(folder: Path, tmp_path: Path):
    before = torch.random.get_rng_state()
    one = load(folder)
    assert torch.equal(before, torch.random.get_rng_state())
    two = load(twin.write_port(tmp_path / "two", twin.port_parts(), 2), kind="zero123")
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


# ---- what is refused ----


def test_a_precision_is_a_dtype_and_auto_suits_the_device():
    assert [dtype_on(d) for d in ("cpu", "mps", "cuda", "cuda:1")] == [torch.float32] * 2 + [torch.float16] * 2
    assert dtype_on("cuda", "fp32") == torch.float32 and dtype_on("cpu", "bf16") == torch.bfloat16
    with pytest.raises(ValueError, match="precision: expected auto, fp32, fp16 or bf16, got 'float32'"):
        dtype_on("cpu", "float32")


def test_the_kind_must_be_said_where_the_weights_do_not_say_it(folder: Path):
    (folder / "bozzetto.json").unlink()
    refused(folder, "say its kind")
    assert load(folder, kind="stable-zero123").kind == "stable-zero123"
    refused(folder, "kind 'zero321' is not known", kind="zero321")
    (folder / "bozzetto.json").write_text('{"kind": "stable-zero123"}')
    assert load(folder).kind == "stable-zero123"
    refused(folder, "its bozzetto.json says stable-zero123", kind="zero123")
    (folder / "bozzetto.json").write_text('{"kind": "sd"}')
    refused(folder, "bozzetto.json: kind 'sd' is not known")


def test_names_and_places_that_are_not_there(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    refused("mini/no-such-prior", "embeds no such diffusion prior")
    refused(tmp_path / "nowhere", "no such folder")
    refused(folder / "unet" / WEIGHTS, "is a file")
    shutil.copytree(folder, tmp_path / "mini")
    assert load("mini").kind == "zero123"  # a folder on disk comes first
    with pytest.raises(ValueError, match="dtype"):
        load(folder, dtype=torch.float64)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "model_index.json").unlink(), "model_index.json is missing"),
        (lambda f: (f / "model_index.json").write_text("{"), "not readable as JSON"),
        (lambda f: (f / "model_index.json").write_text("[" * 100_000), "not readable as JSON"),
        (lambda f: (f / "model_index.json").write_text("[]"), "expected an object of settings"),
        (lambda f: (f / "vae" / "config.json").unlink(), "config.json is missing"),
        (lambda f: shutil.rmtree(f / "image_encoder"), "image_encoder: config.json is missing"),
        (lambda f: shutil.rmtree(f / "scheduler"), "scheduler/ is missing"),
        (lambda f: shutil.rmtree(f / "cc_projection"), "not a whole Zero-1-to-3"),
        (lambda f: (f / "unet" / WEIGHTS).unlink(), "no weights"),
        (lambda f: (f / "unet" / WEIGHTS).write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00not json"), "not a whole safetensors file"),
        (lambda f: (f / "unet" / WEIGHTS).write_bytes(b""), "not a whole safetensors file"),
        (lambda f: (f / "vae" / WEIGHTS).write_bytes((f / "vae" / WEIGHTS).read_bytes()[:-100]), "not a whole safetensors file"),
        (lambda f: edit(f / "unet" / "config.json", lambda c: c.update(in_channels=4)), "in_channels of the U-Net should be 8"),
        (lambda f: edit(f / "unet" / "config.json", lambda c: c.update(cross_attention_dim=32)), "outputs of the projection should be 32"),
        (
            lambda f: edit(f / "image_encoder" / "config.json", lambda c: c.update(projection_dim=32)),
            "inputs of the projection should be 36",
        ),
        (lambda f: edit(f / "unet" / "config.json", lambda c: c.update(block_out_channels=[16])), "no network can be built"),
        (lambda f: edit(f / "unet" / "config.json", lambda c: c.update(sample_size=None)), "sample_size"),
        (lambda f: edit(f / "vae" / "config.json", lambda c: c.update(latent_channels="four")), "no whole number"),
        (lambda f: edit(f / "scheduler" / "scheduler_config.json", lambda c: c.update(beta_start=0.02, beta_end=0.085)), "0.085"),
        (
            lambda f: edit(f / "scheduler" / "scheduler_config.json", lambda c: c.update(beta_schedule="linear")),
            "expected the noise levels",
        ),
        (lambda f: edit(f / "scheduler" / "scheduler_config.json", lambda c: c.pop("beta_end")), "beta_end is missing"),
        (lambda f: edit(f / "scheduler" / "scheduler_config.json", lambda c: c.update(beta_end="1")), "0 < beta_start"),
        (lambda f: edit(f / "scheduler" / "scheduler_config.json", lambda c: c.update(prediction_type="flow")), "are read, got"),
        (lambda f: edit(f / "scheduler" / "scheduler_config.json", lambda c: c.update(prediction_type=[])), "are read, got"),
        (lambda f: edit(f / "bozzetto.json", lambda c: c.update(kind=["zero123"])), "is not known"),
        (lambda f: edit(f / "cc_projection" / WEIGHTS, lambda t: t.update({"projection.weight": torch.zeros(3)})), "should be a matrix"),
        (lambda f: edit(f / "unet" / WEIGHTS, lambda t: t["conv_in.bias"].fill_(torch.nan)), "conv_in.bias is not finite"),
    ],
)
def test_spoilt_folders_are_refused_in_one_sentence(folder: Path, spoil: Callable[[Path], Any], words: str):
    spoil(folder)
    refused(folder, words)


def test_ck_7_one_tensor_removed_added_or_reshaped(folder: Path):
    parts = {
        "unet": (WEIGHTS, "conv_in.bias"),
        "vae": (WEIGHTS, "quant_conv.bias"),
        "image_encoder": ("model.safetensors", "visual_projection.weight"),
        "cc_projection": (WEIGHTS, "projection.bias"),
    }
    for part, (file, name) in parts.items():
        path = folder / part / file
        whole = path.read_bytes()
        edit(path, lambda t, n=name: t.pop(n))
        refused(folder, f"{part}: expected .* 1 missing, 0 unknown, 0 of another shape: {name}")
        path.write_bytes(whole)
        edit(path, lambda t: t.update({"stray": torch.zeros(1)}))
        refused(folder, f"{part}: expected .* 0 missing, 1 unknown, 0 of another shape: stray")
        path.write_bytes(whole)
        edit(path, lambda t, n=name: t.update({n: torch.zeros(2, *t[n].shape)}))
        refused(folder, f"{part}: expected .* 1 of another shape: {name}")
        path.write_bytes(whole)
    load(folder)


def test_ck_8_pickles_are_not_opened_and_code_is_not_run(folder: Path, tmp_path: Path):
    trap = tmp_path / "sprung"
    (folder / "unet" / WEIGHTS).rename(folder / "kept")
    write_trap(folder / "unet" / "diffusion_pytorch_model.bin", trap)
    refused(folder, "only pickled weights")
    (folder / "kept").rename(folder / "unet" / WEIGHTS)
    for place in (folder, folder / "unet"):  # a module that the index or a config names stays unread
        (place / "pipeline_zero1to3.py").write_text(f"open({str(trap)!r}, 'w')")
    edit(folder / "unet" / "config.json", lambda c: c.update(_class_name="os.system", auto_map={"AutoModel": "pipeline_zero1to3.X"}))
    edit(folder / "image_encoder" / "config.json", lambda c: c.update(_attn_implementation="someone/kernels", architectures=["Evil"]))
    load(folder)
    assert not trap.exists()


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def write_trap(path: Path, trap: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}, "callbacks": Trap(trap)}, path)


def test_saving_is_all_or_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    prior = load(folder)
    with pytest.raises(InputError, match="is there already"):
        save(prior, folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        save(prior, tmp_path / "file" / "prior")

    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space"):
        save(prior, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "prior"]


def test_what_must_be_installed_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused(folder, r"pip install 'bozzetto\[priors\]'")
