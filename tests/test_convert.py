# SPDX-License-Identifier: Apache-2.0
"""`bozzetto convert`: legacy checkpoints become folders, with every tensor accounted for and no code run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from bozzetto import cli
from bozzetto.errors import InputError
from bozzetto.priors import ldm
from bozzetto.priors.checkpoint import CALLBACKS, read_checkpoint
from bozzetto.priors.convert import PUBLISHED, convert, unet_settings, vae_settings
from bozzetto.priors.loading import load
from tests.test_loading import WEIGHTS, write_trap
from tests.twins import zero123 as twin


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return twin.original_checkpoint()[1]


def test_averaged_weights_are_taken_unless_the_configuration_says_otherwise(state: dict[str, Tensor], tmp_path: Path):
    ckpt, config = twin.write_original(tmp_path, state)
    bias = "model.diffusion_model.input_blocks.0.0.bias"
    convert(ckpt, tmp_path / "averaged", "zero123-xl", config)
    edit_yaml = json.loads(config.read_text())
    edit_yaml["model"]["params"]["use_ema"] = False
    config.write_text(json.dumps(edit_yaml))
    convert(ckpt, tmp_path / "last", "zero123-xl", config, half=True)
    averaged, last = load(tmp_path / "averaged"), load(tmp_path / "last")
    assert averaged.kind == "zero123-xl" and averaged.unet.dtype == torch.float32
    assert torch.equal(averaged.unet.conv_in.bias, state["model_ema." + bias.removeprefix("model.").replace(".", "")])
    assert torch.equal(last.unet.conv_in.bias, state[bias].half().float())
    assert load_file(tmp_path / "last" / "unet" / WEIGHTS)["conv_in.bias"].dtype == torch.float16


def test_names_agree_with_the_librarys_own_converter(state: dict[str, Tensor]):
    """diffusers renames U-Nets and autoencoders too; its converter and ours were written apart."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

    last = {k: v for k, v in state.items() if not k.startswith("model_ema.")}
    unet_prefix, vae_prefix = "model.diffusion_model.", "first_stage_model."
    theirs = convert_ldm_unet_checkpoint(dict(last), {"layers_per_block": 2, "class_embed_type": None, "addition_embed_type": None})
    ours = {ldm.unet_name(k.removeprefix(unet_prefix), 3, 2): v for k, v in last.items() if k.startswith(unet_prefix)}
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    theirs = convert_ldm_vae_checkpoint(dict(last), {"down_block_types": [0, 0], "up_block_types": [0, 0]})
    named = {ldm.vae_name(k.removeprefix(vae_prefix), 2): v for k, v in last.items() if k.startswith(vae_prefix)}
    ours = {k: ldm.vae_tensor(k, v) for k, v in named.items()}
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.parametrize("zipped", [True, False])
def test_lightnings_callback_classes_are_let_through_and_nothing_else(tmp_path: Path, zipped: bool):
    ckpt, trap = tmp_path / "a.ckpt", tmp_path / "sprung"
    module, _, name = CALLBACKS[0].rpartition(".")
    packages = [".".join(module.split(".")[:i]) for i in range(1, module.count(".") + 2)]
    cls = type(name, (), {"__module__": module})
    try:  # pickle looks the class up by its name when it writes
        sys.modules.update({p: type(sys)(p) for p in packages})
        setattr(sys.modules[module], name, cls)
        content = {
            "state_dict": {"a": torch.ones(2)},
            "callbacks": {cls: {"best_model_score": torch.tensor(0.1)}},
            "optimizer_states": [{}],
        }
        torch.save(content, ckpt, _use_new_zipfile_serialization=zipped)
    finally:
        for p in packages:
            sys.modules.pop(p)
    assert torch.equal(read_checkpoint(ckpt)["a"], torch.ones(2))
    write_trap(ckpt, trap)
    with pytest.raises(InputError, match=r"holds (io|_io)\.open, which could be code"):
        read_checkpoint(ckpt)
    assert not trap.exists()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_ck_8_what_is_no_checkpoint_is_refused(tmp_path: Path):
    path = tmp_path / "a.ckpt"
    script = torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))
    torch.jit.save(script, path)  # as OpenAI's ViT-L-14.pt
    with pytest.raises(InputError, match="no whole checkpoint"):
        read_checkpoint(path)
    torch.save({"state_dict": {"a": torch.zeros(1000)}}, path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match=r"a\.ckpt"):
        read_checkpoint(path)
    for content in (b"", b"\x80\x02nonsense", b"<html>"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.ckpt"):
            read_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(InputError, match="no state_dict"):
        read_checkpoint(path)
    with pytest.raises(InputError, match="no such file"):
        read_checkpoint(tmp_path / "b.ckpt")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("cc_projection.weight"), "cc_projection.weight is missing"),
        (lambda s: s.pop("cc_projection.bias"), "cc_projection.*1 missing"),
        (lambda s: s.pop("first_stage_model.quant_conv.bias"), "autoencoder.*1 missing"),
        (lambda s: s.pop("cond_stage_model.model.visual.conv1.weight"), "vision tower is missing or incomplete"),
        (lambda s: s.pop("cond_stage_model.model.visual.ln_post.bias"), "CLIP.*1 missing"),
        (lambda s: s.pop("model_ema.diffusion_modelout2bias"), "averaged weights, but not of out.2.bias"),
        (lambda s: s.update({"model.diffusion_model.stray": torch.zeros(1)}), "1 tensors do not belong"),
        (lambda s: s.update({"control_model.zero": torch.zeros(1)}), "1 tensors do not belong"),
        (lambda s: s.update({"cc_projection.weight": torch.zeros(24, 25)}), "inputs of the projection should be 28"),
        (lambda s: s.update({"alphas_cumprod": s["alphas_cumprod"] ** 2}), "noise levels"),
    ],
)
def test_ck_7_checkpoints_must_be_whole(state: dict[str, Tensor], tmp_path: Path, change: Callable[[dict[str, Tensor]], Any], words: str):
    spoilt = dict(state)
    change(spoilt)
    ckpt, config = twin.write_original(tmp_path, spoilt)
    with pytest.raises(InputError, match=words):
        convert(ckpt, tmp_path / "out", "zero123", config)
        load(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def run(*arguments: str | Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["bozzetto", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0)


def test_convert_on_the_command_line(
    state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    ckpt, config = twin.write_original(tmp_path, state)
    arguments = ("convert", ckpt, "--out", tmp_path / "out", "--kind", "stable-zero123")
    assert run(*arguments, "--config", config, monkeypatch=monkeypatch) == 0
    assert load(tmp_path / "out").kind == "stable-zero123"
    assert run(*arguments, "--config", config, monkeypatch=monkeypatch) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/out: is there already; choose another place, or remove it first\n"
    assert run("convert", ckpt, "--out", tmp_path / "big", "--kind", "zero123", monkeypatch=monkeypatch) == 2  # not of the published size
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "big").exists()
    (tmp_path / "config.yaml").write_text("model: [")
    assert run(*arguments[:3], tmp_path / "c", *arguments[4:], "--config", config, monkeypatch=monkeypatch) == 2
    assert "not a latent-diffusion configuration" in capsys.readouterr().err


def test_without_a_configuration_the_published_sizes_are_meant():
    """Numbers of parameters of the published networks, counted from their configurations on the meta device."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**unet_settings(PUBLISHED["unet"]))
        vae = AutoencoderKL(**vae_settings(PUBLISHED["vae"], PUBLISHED["scale_factor"]))
    assert [sum(p.numel() for p in network.parameters()) for network in (unet, vae)] == [859_532_484, 83_653_863]
    assert (unet.config.sample_size, unet.config.attention_head_dim, vae.config.scaling_factor) == (32, 8, 0.18215)
