# SPDX-License-Identifier: Apache-2.0
"""Published priors without their weights: the table of docs/published.md, and folders of random numbers.

    python -m benchmarks.published                              # the table: sizes, memory and time as planned on this machine, tests
    python -m benchmarks.published zero123-xl priors/random     # 2.5 GB: for whoever wants to see what a machine does with it

A folder holds exactly the files that `bozzetto fetch` brings, small or of the real sizes, which are those of the settings that were
published with the weights. Blank ones have sizes and no numbers, and take no room on the disk.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks import machine
from bozzetto.fit.drawings import Drawing
from bozzetto.priors import plan
from bozzetto.priors.loading import load
from bozzetto.priors.published import PUBLISHED
from bozzetto.priors.schedule import NoiseSchedule
from bozzetto.priors.tokens import END
from bozzetto.priors.triposr import TripoSR, TripoSRConfig, ViTConfig, costs
from bozzetto.priors.triposr_files import settings_of
from bozzetto.priors.wonder3d import CrossDomainUNet

NAMES = ("zero123-xl", "stable-diffusion-1.5", "stable-diffusion-2.1-base", "instruct-pix2pix", "deepfloyd-if", "wonder3d", "triposr")
PIPELINES = {"zero123-xl": "Zero123Pipeline", "instruct-pix2pix": "StableDiffusionInstructPix2PixPipeline", "deepfloyd-if": "IFPipeline"}
PIPELINES |= {"wonder3d": "MVDiffusionImagePipeline"}
IF_NOISE = NoiseSchedule(1e-4, 0.02, "squaredcos_cap_v2")
WONDER3D = {"num_views": 6, "cd_attention_mid": True, "multiview_attention": True}  # beside diffusers' own settings
TINY_TRIPOSR = TripoSRConfig(
    ViTConfig(width=48, layers=2, heads=3, hidden=96, patch=16, side=64),
    picture=64,
    plane=4,
    channels=32,
    heads=2,
    layers=2,
    groups=8,
    features=4,
    neurons=8,
    hidden=2,
)


Filled = Literal["tiny", "random", "blank"]
TESTED = {
    "zero123-xl": "small random weights (`tests/test_plan.py`, `tests/test_zero123.py`), random ones of full size (`benchmarks.plans`)",
    "stable-diffusion-1.5": "small random weights (`tests/test_plan.py`), random ones of full size (`benchmarks.plans`)",
    "stable-diffusion-2.1-base": "small random weights (`tests/test_plan.py`), random ones of full size (`benchmarks.plans`)",
    "instruct-pix2pix": "small random weights, against diffusers' own pipeline (`tests/test_instruct.py`)",
    "deepfloyd-if": "small random weights, against diffusers' own pipeline (`tests/test_deepfloyd.py`)",
    "wonder3d": "small random weights, against a twin in float64 (`tests/test_wonder3d.py`)",
    "triposr": "small random weights (`tests/test_triposr.py`), random ones of full size (`benchmarks.triposr`)",
    "zero123": "`convert` and the loader with small random weights (`tests/test_convert.py`, `tests/test_zero123.py`)",
    "mvdream": "`convert` and the loader with small random weights, against a twin (`tests/test_mvdream.py`)",
    "syncdreamer": "`convert` and the loader with small random weights, against a twin in the released order (`tests/test_syncdreamer.py`)",
    "stable-zero123": "`convert` and the loader with small random weights (`tests/test_convert.py`, `tests/test_zero123.py`)",
}
"""how, besides real weights, which none was"""


def write(name: str, folder: Path, filled: Filled = "random") -> Path:
    """The folder of a published prior, one of NAMES: the files that its row lists, and no others."""
    tiny = filled == "tiny"
    parts = {} if name == "triposr" else _deepfloyd(tiny) if name == "deepfloyd-if" else _networks(name, tiny)
    for file in PUBLISHED[name].files:
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.parent.name
        if path.name == "model_index.json":
            _json(path, {"_class_name": PIPELINES.get(name, "StableDiffusionPipeline")})
        elif path.name == "scheduler_config.json":
            _json(path, (IF_NOISE if name == "deepfloyd-if" else NoiseSchedule()).config())
        elif path.name == "config.json":
            _json(path, {**_settings(parts[part]), **(WONDER3D if name == "wonder3d" and part == "unet" else {})})
        elif path.suffix == ".safetensors":
            _weights(path, _state(path, parts[part]), filled == "blank")
        elif path.suffix == ".bin":
            state = _state(path, parts[part])
            torch.save(state if filled == "blank" else _random(state, torch.float32), path)
        elif path.name.endswith(".index.fp16.json"):
            _json(path, {"weight_map": {key: shard.name for shard in _shards(path) for key in _state(shard, parts[part])}})
        elif path.name == "spiece.model":
            _pieces(path)
        elif part == "tokenizer":
            _tokenizer(path, parts["text_encoder"], "!" if name.startswith("stable-diffusion-2") else END)
        elif path.name == "config.yaml":
            path.write_text(json.dumps(settings_of(TINY_TRIPOSR)) if tiny else "cond_image_size: 512\n")  # what is not said is as published
        elif path.name == "model.ckpt":
            with torch.device("meta"):
                network = TripoSR(TINY_TRIPOSR if tiny else TripoSRConfig())
            torch.save(_random(network.state_dict(), torch.float32), path)
        else:
            raise ValueError(f"{name} lists {file.name}, which is of no kind that is known here")
    return folder


def _networks(name: str, tiny: bool) -> dict[str, nn.Module]:
    """By part, on the meta device."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    is_second = name.startswith("stable-diffusion-2")
    token = 32 if tiny else 1024 if is_second else 768
    unet: dict[str, Any] = {
        "sample_size": 8 if tiny else 32 if name in ("zero123-xl", "wonder3d") else 64,
        "in_channels": 8 if name in ("zero123-xl", "instruct-pix2pix", "wonder3d") else 4,
        "cross_attention_dim": token,
        "use_linear_projection": is_second,
    }
    if tiny:
        unet |= {"block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8, "attention_head_dim": 4}
        unet |= {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
    elif is_second:
        unet["attention_head_dim"] = (5, 10, 20, 20)
    if name == "wonder3d":
        unet |= {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 10}
    codec: dict[str, Any] = {"latent_channels": 4, "layers_per_block": 1 if tiny else 2, "norm_num_groups": 8 if tiny else 32}
    codec |= {"block_out_channels": (8, 16) if tiny else (128, 256, 512, 512)}
    codec |= {f"{a}_block_types": (f"{b}coderBlock2D",) * len(codec["block_out_channels"]) for a, b in (("down", "DownEn"), ("up", "UpDe"))}
    wide = {"hidden_size": token, "intermediate_size": 4 * token, "num_attention_heads": 2 if tiny else token // 64}
    with torch.device("meta"):
        made: dict[str, nn.Module] = {"unet": UNet2DConditionModel(**unet), "vae": AutoencoderKL(**codec)}
        if name in ("zero123-xl", "wonder3d"):
            eye = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14}
            if tiny:
                eye = wide | {"num_hidden_layers": 2, "patch_size": 8, "image_size": 32}
            made["image_encoder"] = CLIPVisionModelWithProjection(CLIPVisionConfig(**eye, projection_dim=token))
            if name == "wonder3d":
                made["unet"] = CrossDomainUNet(made["unet"]).unet
            else:
                made["clip_camera_projection"] = nn.ModuleDict({"proj": nn.Linear(token + 4, token)})
        else:
            layers = 2 if tiny else 23 if is_second else 12
            words = {"vocab_size": 600 if tiny else 49408, "bos_token_id": 0, "eos_token_id": 1}
            made["text_encoder"] = CLIPTextModel(CLIPTextConfig(**wide, **words, num_hidden_layers=layers))
    return made


def _deepfloyd(tiny: bool) -> dict[str, nn.Module]:
    """By part, on the meta device."""
    from diffusers import UNet2DConditionModel
    from transformers import T5Config, T5EncoderModel

    widths, count = ((16, 32), 1) if tiny else ((704, 1408, 2112, 2816), 3)
    token, cross = (32, 64) if tiny else (4096, 2816)
    unet: dict[str, Any] = {"sample_size": 16 if tiny else 64, "in_channels": 3, "out_channels": 6, "block_out_channels": widths}
    unet |= {"down_block_types": ("ResnetDownsampleBlock2D", *("SimpleCrossAttnDownBlock2D",) * (len(widths) - 1))}
    unet |= {"up_block_types": (*("SimpleCrossAttnUpBlock2D",) * (len(widths) - 1), "ResnetUpsampleBlock2D")}
    unet |= {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "layers_per_block": count, "norm_num_groups": 8 if tiny else 32}
    unet |= {"cross_attention_dim": cross, "encoder_hid_dim": token, "attention_head_dim": 8 if tiny else 64, "act_fn": "gelu"}
    unet |= {"addition_embed_type": "text", "addition_embed_type_num_heads": 2 if tiny else 64}
    unet |= {"cross_attention_norm": "group_norm", "resnet_time_scale_shift": "scale_shift"}
    words: dict[str, Any] = {"vocab_size": 64 if tiny else 32128, "d_model": token, "d_ff": 48 if tiny else 10240}
    words |= {"d_kv": 8 if tiny else 64, "num_layers": 2 if tiny else 24, "num_heads": 4 if tiny else 64, "feed_forward_proj": "gated-gelu"}
    with torch.device("meta"):
        return {"unet": UNet2DConditionModel(**unet), "text_encoder": T5EncoderModel(T5Config(**words))}


def _settings(network: Any) -> dict[str, Any]:
    config = getattr(network, "config", {})
    return config.to_dict() if hasattr(config, "to_dict") else {k: v for k, v in dict(config).items() if not k.startswith("_")}


def _shards(index: Path) -> list[Path]:
    """Files of one network in two parts."""
    return [index.with_name(index.name.replace(".safetensors.index.fp16.json", f".fp16-0000{k}-of-00002.safetensors")) for k in (1, 2)]


def _state(path: Path, network: nn.Module) -> dict[str, Tensor]:
    """What a file holds of a network: all of it, or every second tensor where the file is one of two."""
    prefix = "text_model." if type(network).__name__ == "CLIPTextModel" else ""  # as transformers 4 wrote it
    state = {prefix + name: tensor for name, tensor in network.state_dict().items() if name != "encoder.embed_tokens.weight"}
    start, step = (int("00002-of" in path.name), 2) if "-of-" in path.name else (0, 1)
    return dict(list(state.items())[start::step])


def _weights(path: Path, state: dict[str, Tensor], is_blank: bool) -> None:
    from safetensors.torch import save_file

    dtype = torch.float16 if ".fp16" in path.name else torch.float32
    if not is_blank:
        save_file(_random(state, dtype), path, metadata={"format": "pt"})
        return
    header, end = {}, 0
    for key, tensor in state.items():
        start, end = end, end + tensor.numel() * dtype.itemsize
        header[key] = {"dtype": "F16" if dtype == torch.float16 else "F32", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + end)  # a hole


def _random(state: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Small numbers; ones for what multiplies what was normalised."""
    generator = torch.Generator().manual_seed(0)
    made = {}
    for name, tensor in state.items():
        is_scale = tensor.ndim == 1 and name.endswith("weight")
        made[name] = (
            torch.ones(tensor.shape, dtype=dtype) if is_scale else (0.02 * torch.randn(tensor.shape, generator=generator)).to(dtype)
        )
    return made


def _tokenizer(path: Path, tower: Any, pad: str) -> None:
    """CLIP's files with single bytes for words, and as many names of no word as the tower has beside."""
    bytes_ = [chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]
    words = ["<|startoftext|>", END, *bytes_, *(b + "</w>" for b in bytes_)]
    words += [f"unused{k}" for k in range(tower.config.vocab_size - len(words))]
    if path.name == "vocab.json":
        _json(path, {word: k for k, word in enumerate(words)})
    elif path.name == "merges.txt":
        path.write_text("#version: 0.2\n")
    else:
        _json(path, {"bos_token": words[0], "eos_token": END, "pad_token": pad, "unk_token": END})


def _pieces(path: Path) -> None:
    """SentencePiece's file with letters for words."""
    import io

    import sentencepiece

    letters, made = "abcdefghijklmnopqrstuvwxyz", io.BytesIO()
    how: dict[str, Any] = {"vocab_size": 40, "hard_vocab_limit": False, "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    text = iter([letters, " ".join(letters)] * 20)
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=text, model_writer=made, minloglevel=2, **how)
    path.write_bytes(made.getvalue())


def _json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content))


def planned(name: str) -> tuple[str, str]:
    """Memory and time of one picture by the prior's own sampler, in words; of TripoSR a mesh, whose lattice time is not in it."""
    name = "zero123-xl" if name in ("zero123", "stable-zero123") else name  # one network
    if name not in NAMES:
        return "unknown", "unknown"
    if name == "triposr":
        cost, here = costs(), plan.speed("cpu", torch.float32)
        return f"{cost.peak / plan.GB:.1f} GB", f"{plan.duration(cost.network / here.rate)} and the mesh"
    with tempfile.TemporaryDirectory() as at:
        folder = write(name, Path(at), "blank")
        plans = []
        for device, dtype in (("cpu", torch.float32), ("cuda", torch.float16)):
            outline = load(folder, PUBLISHED[name].kind, dtype=dtype, device="meta")
            plans.append(plan.Plan(device=device, dtype=dtype).plus(outline, Drawing().asked(outline, 1)))
    here, card = plans
    return f"{here.ram / plan.GB:.1f} GB; {card.vram / plan.GB:.1f} GB of a card as fp16", plan.duration(here.seconds or math.nan)


def table() -> str:
    """The table of docs/published.md."""
    lines = ["| prior | command | from | licence | size | memory | time on this machine | tested | with real weights |", "|" + " --- |" * 9]
    for name, prior in PUBLISHED.items():
        at = f" at {prior.revision[:8]}" if prior.revision != "main" else ""
        size = f"{prior.gigabytes:.1f} GB" if prior.gigabytes else "unknown"
        cells = [f"`{name}`", f"`bozzetto fetch {name}`", f"{prior.repository}{at}", prior.licence, size, *planned(name)]
        lines.append("| " + " | ".join([*cells, TESTED.get(name, "nothing reads it yet"), "never"]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(write(sys.argv[1], Path(sys.argv[2])))
    else:
        here = plan.speed("cpu", torch.float32).rate / 1e9
        print(machine("torch", "diffusers", "transformers"), f"\nthreads: {torch.get_num_threads()}, {here:.0f} GFLOP/s\n")
        print(table())
