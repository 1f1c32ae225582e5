# SPDX-License-Identifier: Apache-2.0
"""TripoSR's network and field: against a slow twin with random weights, and by what is known exactly. No published weight was at hand."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bozzetto.errors import InputError
from bozzetto.fit.source import Source
from bozzetto.priors import triposr_files
from bozzetto.priors.triposr import PARAMETERS, Backbone, ImageTokenizer, TripoSR, TripoSRConfig, costs, prepare, stretched
from bozzetto.priors.triposr_files import load, our_name
from bozzetto.shapes.tetgrid import TetGrid
from tests.twins import marching
from tests.twins import triposr as twin


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return twin.random_state()


@pytest.fixture(scope="module")
def folder(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return twin.write(tmp_path_factory.mktemp("triposr"), state)


@pytest.fixture(scope="module")
def network(folder: Path) -> TripoSR:
    return load(folder, dtype=torch.float64)


@pytest.fixture(scope="module")
def arrays(state: dict[str, Tensor]) -> twin.Arrays:
    return {k: v.double().numpy() for k, v in state.items()}


def cut_out() -> Source:
    """A picture of 24 x 37 pixels with a soft disc that is not in its middle."""
    rgba = np.random.default_rng(4).integers(0, 256, (24, 37, 4), dtype=np.uint8)
    y, x = np.mgrid[:24, :37]
    rgba[..., 3] = (255 * np.clip(8.5 - np.hypot(1.3 * (x - 15), y - 11), 0, 1)).astype(np.uint8)
    return Source("disc", torch.from_numpy(rgba[..., :3] / 255).float(), torch.from_numpy(rgba[..., 3] / 255).float(), torch.zeros(1), "")


# ---- the network ----


def test_ff_1_the_backbone_equals_an_independent_slow_one():
    """16 blocks, float64: what is left is rounding. Cross-attention before self-attention is another network."""
    config = replace(TripoSRConfig(), channels=64, heads=4, layers=16, vit=replace(TripoSRConfig().vit, width=24))
    g = seeded(1)
    mine = Backbone(config).double().eval()
    for p in mine.parameters():
        p.data = torch.randn(p.shape, generator=g, dtype=torch.float64) / math.sqrt(p.shape[-1])
    tokens, picture = torch.randn(1, 64, 48, generator=g).double(), torch.randn(1, 7, 24, generator=g).double()
    w = {f"backbone.{k}": v.numpy() for k, v in mine.state_dict().items()}
    with torch.no_grad():
        out = mine(tokens, picture)[0].T.numpy()
    theirs = twin.backbone(w, tokens[0].T.numpy(), picture[0].numpy())
    np.testing.assert_allclose(out, theirs, rtol=0, atol=1e-11)
    wrong = {k.replace(".norm1.", ".x.").replace(".norm3.", ".norm1.").replace(".x.", ".norm3."): v for k, v in w.items()}
    assert np.abs(twin.backbone(wrong, tokens[0].T.numpy(), picture[0].numpy()) - out).max() > 1e-3


def test_ff_2_the_vits_old_names_become_its_new_ones(state: dict[str, Tensor], network: TripoSR, tmp_path: Path):
    """All 200 of the published size, one to one; and transformers' own reading of an old folder holds the same tensors."""
    from transformers import ViTModel

    old = [f"embeddings.{n}" for n in ("cls_token", "position_embeddings", "patch_embeddings.projection.weight")]
    old += ["embeddings.patch_embeddings.projection.bias", *(f"{m}.{p}" for m in ("layernorm", "pooler.dense") for p in ("weight", "bias"))]
    parts = ("attention.attention.query", "attention.attention.key", "attention.attention.value", "attention.output.dense")
    parts += ("intermediate.dense", "output.dense", "layernorm_before", "layernorm_after")
    old += [f"encoder.layer.{n}.{m}.{p}" for n in range(12) for m in parts for p in ("weight", "bias")]
    with torch.device("meta"):
        expected = {k for k in TripoSR().state_dict() if k.startswith("image_tokenizer.")}
    assert len(old) == 200 and {our_name(f"image_tokenizer.model.{n}") for n in old} == expected
    assert all(our_name(name) == name for name in expected)
    from safetensors.torch import save_file

    before = "image_tokenizer.model."
    save_file({k.removeprefix(before): v for k, v in state.items() if k.startswith(before)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(network.image_tokenizer.model.config.to_dict() | {"architectures": ["ViTModel"]}))
    theirs = ViTModel.from_pretrained(tmp_path, local_files_only=True).state_dict()
    ours = network.image_tokenizer.model.state_dict()
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[k].double(), ours[k]) for k in ours)


def test_ff_3_positions_are_stretched_as_they_were_when_trained():
    table = torch.randn(1, 14 * 14 + 1, 6, generator=seeded(2), dtype=torch.float64)
    assert stretched(table, 14) is table
    for legacy in (True, False):
        expected = twin.positions(table[0].numpy(), 32, legacy)
        np.testing.assert_allclose(stretched(table, 32, legacy)[0].numpy(), expected, rtol=0, atol=1e-13)
    assert float((stretched(table, 32) - stretched(table, 32, False)).abs().max()) > 1e-3
    assert stretched(table.half(), 32).dtype == torch.float16


def test_the_picture_tokens_are_those_of_transformers_but_for_the_positions(network: TripoSR):
    vit = ImageTokenizer(network.config).double().eval()
    vit.load_state_dict(network.image_tokenizer.state_dict())
    picture = torch.rand(2, 3, twin.S, twin.S, generator=seeded(3), dtype=torch.float64)
    mean, std = (picture.new_tensor(x).view(3, 1, 1) for x in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        theirs = vit.model((picture - mean) / std, interpolate_pos_encoding=True).last_hidden_state
        assert float((vit(picture) - theirs).abs().max()) > 1e-3
        vit.legacy = False
        torch.testing.assert_close(vit(picture), theirs, rtol=0, atol=1e-12)


def test_ff_4_tokens_have_no_order_but_their_table(network: TripoSR):
    g = seeded(4)
    tokens = network.tokenizer()[None].detach()
    picture = torch.randn(1, 17, twin.VW, generator=g, dtype=torch.float64)
    rows, seen = torch.randperm(tokens.shape[2], generator=g), torch.randperm(17, generator=g)
    with torch.no_grad():
        out = network.backbone(tokens, picture)
        torch.testing.assert_close(network.backbone(tokens[:, :, rows], picture), out[:, :, rows], rtol=0, atol=1e-11)
        torch.testing.assert_close(network.backbone(tokens, picture[:, seen]), out, rtol=0, atol=1e-11)


def test_ff_12_the_object_in_the_middle_of_grey():
    square = torch.zeros(300, 280)
    square[40:241, 17:218] = 1  # 201 pixels, of which the released crop keeps 200
    out = (prepare(torch.ones(300, 280, 3), square) * 255).round().int()
    assert out.shape == (235, 235, 3)
    assert (out[17:217, 17:217] == 255).all() and int((out == 127).sum()) == 3 * (235**2 - 200**2)
    source = cut_out()
    rgb, alpha = ((x * 255).round().numpy().astype(np.uint8) for x in (source.rgb, source.alpha))
    assert np.array_equal((prepare(source.rgb, source.alpha) * 255).round().numpy(), twin.prepared(rgb, alpha))
    again = Source.of(Image.fromarray(np.concatenate([rgb, alpha[..., None]], -1)))
    assert torch.equal((again.alpha * 255).round().byte(), torch.from_numpy(alpha)), "an alpha that is there was matted again"
    line = torch.zeros(30, 30)
    line[5:20, 4] = 1
    for alpha in (line, torch.zeros(30, 30)):
        with pytest.raises(InputError, match=r"chair\.png: the object is not two pixels"):
            prepare(torch.ones(30, 30, 3), alpha, name="chair.png")


# ---- the whole path ----


def test_the_path_from_picture_to_mesh_equals_the_twin(network: TripoSR, arrays: twin.Arrays):
    """float64, so that rounding is left. A plane that is transposed or read with an axis flipped is told apart."""
    source = cut_out()
    prepared = twin.prepared(*((x * 255).round().numpy().astype(np.uint8) for x in (source.rgb, source.alpha)))
    picture = np.float32(prepared.astype(np.float32) / np.float32(255)).astype(np.float64)
    seen = twin.picture_tokens(arrays, picture)
    found = twin.planes(arrays, twin.backbone(arrays, twin.triplane_tokens(arrays), seen))
    field = network.solid(source)
    assert field.planes.dtype == torch.float64
    np.testing.assert_allclose(field.planes.numpy(), found, rtol=0, atol=1e-10 * np.abs(found).max())

    R = 9
    points = twin.lattice(R)
    raw = twin.raw(arrays, found, points)
    assert np.std(raw[:, 0]) > 0.05
    # random weights have no reason to cross the level: the threshold is the density that a third of the lattice has
    threshold = float(np.quantile(twin.density(raw), 0.6667))
    field = replace(field, threshold=threshold)
    np.testing.assert_allclose(field.density(torch.from_numpy(points)).numpy(), twin.density(raw), rtol=1e-9)
    np.testing.assert_allclose(field.colour(torch.from_numpy(points)).numpy(), twin.colour(raw), rtol=0, atol=1e-10)
    grid = TetGrid.kuhn(R - 1, -field.radius, field.radius, dtype=torch.float64)
    theirs, polygons, _ = marching.marching_tetrahedra(torch.from_numpy(points), torch.from_numpy(threshold - twin.density(raw)), grid.tets)
    surface = field.mesh(R, stride=1)
    assert len(polygons) > 100
    torch.testing.assert_close(surface.vertices, theirs, rtol=0, atol=1e-8)
    assert {tuple(sorted(f)) for f in surface.faces.tolist()} >= {tuple(sorted(p)) for p in polygons if len(p) == 3}
    np.testing.assert_allclose(surface.colours.numpy(), twin.colour(twin.raw(arrays, found, surface.vertices.numpy())), rtol=0, atol=1e-10)

    some = points[::37]
    mine = field.density(torch.from_numpy(some)).numpy()
    others = [
        twin.raw(arrays, found.transpose(0, 1, 3, 2), some),
        twin.raw(arrays, found[:, :, :, ::-1], some),
        twin.raw(arrays, found, some, ((0, 1), (0, 2), (2, 1))),  # InstantMesh's third plane
        twin.raw(arrays, found, some * [1, -1, 1]),
    ]
    assert all(np.abs(twin.density(r) / mine - 1).max() > 0.01 for r in others)


# ---- files ----


def test_ff_21_the_published_network_has_the_published_tensors():
    with torch.device("meta"):
        network = TripoSR()
    shapes = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    assert sum(math.prod(s) for s in shapes.values()) == PARAMETERS == 419_275_628 and len(shapes) == 549
    totals = {"image_tokenizer.model.": (200, 86_389_248), "tokenizer.embeddings": (1, 3_145_728), "backbone.": (326, 329_535_488)}
    totals |= {"post_processor.upsample.": (2, 163_880), "decoder.layers.": (20, 41_284)}
    for prefix, total in totals.items():
        found = [math.prod(s) for k, s in shapes.items() if k.startswith(prefix)]
        assert (len(found), sum(found)) == total, prefix
    block = "backbone.transformer_blocks.15"
    expected = {"attn2.to_k.weight": (1024, 768), "ff.net.0.proj.weight": (8192, 1024), "ff.net.2.weight": (1024, 4096)}
    assert all(shapes[f"{block}.{k}"] == s for k, s in expected.items()) and shapes["decoder.layers.18.weight"] == (4, 64)
    assert shapes["post_processor.upsample.weight"] == (1024, 40, 2, 2) and f"{block}.attn1.to_q.bias" not in shapes


def test_ff_21_weights_are_read_strictly(state: dict[str, Tensor], folder: Path, network: TripoSR, tmp_path: Path):
    assert triposr_files.is_folder(folder) and not triposr_files.is_folder(tmp_path)
    ckpt = load(twin.write(tmp_path / "ckpt", state, ckpt=True), dtype=torch.float64)
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in ckpt.state_dict().items())
    assert not ckpt.training and not any(p.requires_grad for p in ckpt.parameters())
    name = "backbone.transformer_blocks.1.attn2.to_k.weight"
    changed = {
        "1 missing": {k: v for k, v in state.items() if k != name},
        "1 unknown": {**state, "backbone.more": torch.zeros(2)},
        "1 of another shape": {**state, name: torch.zeros(3, 4)},
        "not finite": {**state, name: state[name] * float("nan")},
        "two names": {**state, "image_tokenizer.model.layers.0.mlp.fc1.bias": torch.zeros(twin.VM)},
    }
    for n, (said, tensors) in enumerate(changed.items()):
        for is_ckpt in (False, True):
            with pytest.raises(InputError, match=said) as caught:
                load(twin.write(tmp_path / f"{n}{is_ckpt}", tensors, ckpt=is_ckpt))
            assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_triposr_is_told_in_one_sentence(state: dict[str, Tensor], tmp_path: Path):
    with pytest.raises(InputError, match="no such folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"config\.yaml is missing"):
        load(tmp_path)
    twin.write(tmp_path / "cut", state)
    whole = (tmp_path / "cut" / "model.safetensors").read_bytes()
    (tmp_path / "cut" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load(tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").unlink()
    with pytest.raises(InputError, match="no weights"):
        load(tmp_path / "cut")
    (tmp_path / "cut" / "model.ckpt").write_bytes(b"\x80\x02cos\nsystem\nq\x00.")
    with pytest.raises(InputError, match="could be code"):
        load(tmp_path / "cut")
    edits = {
        "density_bias: -1.0\n": ("density_bias: much\n", "should be a number"),
        "plane_size: 8": ("plane_size: -8", "positive number"),
        "activation: silu": ("activation: relu", "decoder.activation is relu"),
        "${tokenizer.num_channels}": ("${tokenizer.nothing}", "positive number"),
        "num_attention_heads: 4": ("num_attention_heads: 8", "contradict"),
        "network_utils.NeRFMLP": ("os.system", "another network's folder"),
        "cond_image_size: 64": ("", "no cond_image_size"),
        "tokenizer:\n": ("tokenizer: [\n", "not readable as YAML"),
    }
    for n, (old, (new, said)) in enumerate(edits.items()):
        with pytest.raises(InputError, match=said) as caught:
            load(twin.write(tmp_path / str(n), state, twin.CONFIG.replace(old, new)))
        assert "\n" not in str(caught.value)


def test_the_published_configuration_is_the_default(tmp_path: Path):
    sizes = [
        ("cond_image_size: 64", "cond_image_size: 512"),
        ("plane_size: 8", "plane_size: 32"),
        ("num_channels: 64", "num_channels: 1024"),
    ]
    sizes += [("num_attention_heads: 4", "num_attention_heads: 16"), ("attention_head_dim: 16", "attention_head_dim: 64")]
    sizes += [
        ("num_layers: 2", "num_layers: 16"),
        ("cross_attention_dim: 48", "cross_attention_dim: 768"),
        ("in_channels: 64", "in_channels: 1024"),
    ]
    sizes += [("out_channels: 8", "out_channels: 40"), ("in_channels: 24", "in_channels: 120"), ("n_neurons: 16", "n_neurons: 64")]
    sizes += [("n_hidden_layers: 3", "n_hidden_layers: 9"), ('"none"', '"facebook/dino-vitb16"')]
    text = "\n".join(
        line
        for line in twin.CONFIG.splitlines()
        if line.strip().split(":")[0] not in ("width", "layers", "heads", "hidden", "patch", "side")
    )
    for old, new in sizes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (tmp_path / "config.yaml").write_text(text)
    assert triposr_files.read_config(tmp_path / "config.yaml") == TripoSRConfig()


PROGRAM = """
import torch
from bozzetto.fit.run import peak_gb
from bozzetto.priors.triposr import TripoSR, TripoSRConfig, ViTConfig, costs
config = TripoSRConfig(ViTConfig(192, 2, 3, 768), picture=224, plane=16, channels=512, heads=8, layers=6)
with torch.no_grad():
    network = TripoSR(config).eval()
    planes = network(torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0)))
    field = network.field(planes[0])
    field.mesh(96)
print(peak_gb() * 1024**3, costs(config, 96).peak, costs(config, 96).weights)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="ru_maxrss, which is left, begins with the parent's memory")
def test_ff_22_the_plan_is_above_what_is_used_and_that_above_the_weights():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    measured, planned, weights = (float(x) for x in done.stdout.split())
    assert planned >= measured >= weights > 5e7
    whole = costs()
    assert whole.parameters == PARAMETERS and whole.weights == 4 * PARAMETERS < whole.peak < 6e9
    assert costs(dtype=torch.float16).weights == 2 * PARAMETERS
    # against torch's counter of products, on the meta device: the ViT's and the blocks' as feedforward.md has them, and attention's
    assert whole.network == pytest.approx(2.95e12, rel=0.02) and whole.vertex == pytest.approx(65_664)
