# SPDX-License-Identifier: Apache-2.0
"""TripoSR's published code beside ours, with the same random weights: `python -m benchmarks.triposr_published CHECKOUT [--tiny]`.

CHECKOUT is a clone of github.com/VAST-AI-Research/TripoSR; its code needs `pip install einops omegaconf imageio trimesh`. What it imports
and does not use here (rembg, torchmcubes, a download of a ViT's settings) is stood in for. Both networks hold the same tensors, so that
what they answer must be the same: planes of one picture, then the field on a share of a 256^3 lattice, in pieces of 8192 points as its
`run.py` asks it. Each is timed once, one after the other.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from benchmarks import machine
from benchmarks.triposr import TINY, an_object, timed
from bozzetto.priors.triposr import TripoSR, TripoSRConfig
from bozzetto.priors.triposr_files import our_name

CHUNK = 8192
MEAN, STD = (torch.tensor(x).view(1, 1, 3, 1, 1) for x in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


def published(checkout: Path, config: TripoSRConfig) -> Any:
    """Their `TSR` of the same sizes, on the meta device."""
    for name in ("rembg", "torchmcubes"):
        sys.modules.setdefault(name, ModuleType(name))
    sys.modules["torchmcubes"].marching_cubes = None  # type: ignore[attr-defined]
    sys.path.insert(0, str(checkout))
    import huggingface_hub
    from omegaconf import OmegaConf

    v = config.vit
    vit = {"hidden_size": v.width, "num_hidden_layers": v.layers, "num_attention_heads": v.heads, "intermediate_size": v.hidden}
    vit |= {"patch_size": v.patch, "image_size": v.side, "model_type": "vit"}
    width = config.channels
    heads = {"num_attention_heads": config.heads, "attention_head_dim": width // config.heads, "num_layers": config.layers}
    backbone = {"in_channels": width, **heads, "cross_attention_dim": v.width, "norm_num_groups": config.groups}
    decoder = {"in_channels": 3 * config.features, "n_neurons": config.neurons, "n_hidden_layers": config.hidden, "activation": "silu"}
    field = {"radius": config.radius, "feature_reduction": "concat", "density_activation": "exp", "density_bias": config.bias}
    parts: dict[str, tuple[str, dict[str, Any]]] = {
        "image_tokenizer": ("tokenizers.image.DINOSingleImageTokenizer", {}),
        "tokenizer": ("tokenizers.triplane.Triplane1DTokenizer", {"plane_size": config.plane, "num_channels": width}),
        "backbone": ("transformer.transformer_1d.Transformer1D", backbone),
        "post_processor": ("network_utils.TriplaneUpsampleNetwork", {"in_channels": width, "out_channels": config.features}),
        "decoder": ("network_utils.NeRFMLP", decoder),
        "renderer": ("nerf_renderer.TriplaneNeRFRenderer", field),
    }
    settings: dict[str, Any] = {"cond_image_size": config.picture}
    for part, (cls, more) in parts.items():
        settings |= {f"{part}_cls": f"tsr.models.{cls}", part: more}
    with tempfile.TemporaryDirectory() as at:
        path = Path(at) / "config.json"
        path.write_text(json.dumps(vit))
        huggingface_hub.hf_hub_download = lambda **_: str(path)
        from tsr.system import TSR  # type: ignore[import-not-found]

        with torch.device("meta"):
            return TSR(OmegaConf.create(settings)).eval()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--tiny", action="store_true", help="small sizes, a few seconds")
    parser.add_argument("--resolution", type=int, default=256, help="lattice vertices a side")
    parser.add_argument("--share", type=float, default=1 / 32, help="of the lattice that their field is asked; the rest is reckoned")
    args = parser.parse_args()
    config, n = TINY if args.tiny else TripoSRConfig(), args.resolution
    with torch.device("meta"):
        ours = TripoSR(config)
    generator = torch.Generator().manual_seed(0)
    ours.load_state_dict({k: 0.02 * torch.randn(v.shape, generator=generator) for k, v in ours.state_dict().items()}, assign=True)
    theirs = published(args.checkout, config)
    state = ours.state_dict()
    theirs.load_state_dict({k: state[our_name(k)] for k in theirs.state_dict()}, assign=True)
    theirs.image_tokenizer.register_buffer("image_mean", MEAN, persistent=False)  # not in its state
    theirs.image_tokenizer.register_buffer("image_std", STD, persistent=False)
    ours.image_tokenizer.legacy = False  # theirs stretches positions as the installed transformers does, not as it was trained
    print(machine("torch", "diffusers", "transformers"))
    print(f"{torch.get_num_threads()} threads; {sum(v.numel() for v in state.values()):,} parameters\n")
    print("| | ours, s | of CPU | published code, s | of CPU | largest difference | of |")
    print("|---|---:|---:|---:|---:|---:|---:|")

    def row(part: str, mine: tuple[Tensor, float, float], other: tuple[Tensor, float, float], times: float = 1.0) -> None:
        off, size = float((mine[0] - other[0]).abs().max()), float(other[0].abs().max())
        print(
            f"| {part} | {mine[1]:.1f} | {mine[2]:.1f} | {other[1] * times:.1f} | {other[2] * times:.1f} | {off:.1e} | {size:.2g} |",
            flush=True,
        )

    picture = torch.rand(1, config.picture, config.picture, 3, generator=generator)
    row("network, picture to planes", timed(lambda: ours.eval()(picture)), timed(lambda: theirs(picture, "cpu")))
    field = an_object(config)
    field.mesh(17)  # compiles
    decoder = theirs.decoder
    for layer, (weight, bias) in zip((x for x in decoder.layers if hasattr(x, "weight")), field.layers, strict=True):
        layer.weight.data, layer.bias.data = weight, bias
    theirs.renderer.set_chunk_size(CHUNK)
    axis = field.axis(n)
    xs = torch.linspace(0, n - 1, max(round(args.share * n), 1)).round().long()
    points = torch.stack(torch.meshgrid(axis[xs], axis, axis, indexing="ij"), -1)
    found = timed(lambda: theirs.renderer.query_triplane(decoder, points, field.planes)["density_act"][..., 0])
    lattice = timed(lambda: field.lattice(n))
    seen = lattice[0][xs]
    near = (seen - field.level).abs() < 2  # where ours has computed it, and a surface may be
    mine = torch.exp(seen + config.bias)[near], *lattice[1:]
    row(f"field, {n}³ vertices", mine, (found[0][near], *found[1:]), n / len(xs))


if __name__ == "__main__":
    main()
