# SPDX-License-Identifier: Apache-2.0
"""Who estimates depth and normals: the first guess, a depth network from a folder, files; and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bozzetto.errors import InputError
from bozzetto.fit.estimates import Estimate, Given, Guessed, Seen
from bozzetto.fit.hybrid import Held
from bozzetto.fit.reference import correlation, normal_loss
from bozzetto.fit.run import Run
from bozzetto.fit.source import Source
from bozzetto.priors.depth import DepthNetwork
from tests.twins import block


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- what an estimate is ----


def test_depth_runs_from_0_to_1_within_its_mask_and_normals_are_unit():
    depth = torch.tensor([[2.0, 4.0, 99.0], [3.0, torch.nan, 2.5]])
    normal = torch.tensor([[[0.0, 0.0, 2.0], [3.0, 0.0, 4.0], [1.0, 0.0, 0.0]], [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 5.0, 0.0]]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    plain, both = Estimate.of(mask, depth), Estimate.of(mask, depth, normal)
    assert plain.mask.tolist() == [[True, True, False], [True, False, True]] and plain.normal is None
    torch.testing.assert_close(plain.depth, torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.25]]))
    assert both.mask.tolist() == [[True, True, False], [False, False, True]]  # a normal of no length says nothing
    torch.testing.assert_close(both.normal[0, 1], torch.tensor([0.6, 0.0, 0.8]))
    assert not both.normal[~both.mask].any() and not both.depth[~both.mask].any()
    flat = Estimate.of(mask, torch.full((2, 3), 7.0))
    assert not flat.depth.any() and torch.equal(flat.mask, mask)
    assert not Estimate.of(torch.zeros_like(mask), depth).mask.any()


# ---- the first guess ----


def test_the_first_guess_is_rendered_from_the_pictures_camera():
    """A block off the middle: its front faces +x, which from 20 degrees above is (0, -sin 20, cos 20) in the camera's axes; its relief
    is the true one's."""
    source, size = block.picture(), 96
    estimate = Guessed(block.guess(deep=1.0))(source, size)
    truth = block.truth(block.FRUSTUM.camera.resized(size), block.CENTRE)
    mask = truth.alpha[0, ..., 0] > 0.99
    overlap = (estimate.mask & mask).sum() / (estimate.mask | mask).sum()
    assert overlap > 0.9
    both = estimate.mask & mask
    assert correlation(truth.depth[0, ..., 0], estimate.depth, both) > 0.95
    assert correlation(truth.depth[0, ..., 0].flip(0), estimate.depth, both & mask.flip(0)) < 0.5
    front = truth.normal[0, ..., 0] > 0.99
    wanted = torch.tensor([0.0, -math.sin(block.ELEVATION), math.cos(block.ELEVATION)])
    inside = both & front & torch.from_numpy(cv2.erode(front.numpy().astype(np.uint8), np.ones((9, 9)))).bool()
    assert float(normal_loss(estimate.normal, wanted.expand(size, size, 3), inside)) < 0.05  # cells of 1/40 round its edges
    assert float(normal_loss(estimate.normal, (wanted * torch.tensor([1.0, -1.0, 1.0])).expand(size, size, 3), inside)) > 0.2


def test_a_guess_of_nothing_knows_nothing():
    solid = block.guess()
    empty = type(solid)(torch.full_like(solid.occupancy, -5.0), solid.colour, solid.coverage, 0.0, 0.3, 0.4)
    estimate = Guessed(empty)(block.picture(), 32)
    assert estimate.mask.sum() <= estimate.depth.numel() and torch.isfinite(estimate.depth).all()


# ---- a network ----


CONFIG = {
    "dpt": {
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": 32,
        "patch_size": 8,
        "backbone_out_indices": [0, 1, 2, 3],
        "neck_hidden_sizes": [8, 8, 8, 8],
        "fusion_hidden_size": 8,
        "reassemble_factors": [4, 2, 1, 0.5],
    },
    "depth_anything": {
        "patch_size": 14,
        "reassemble_hidden_size": 16,
        "neck_hidden_sizes": [8, 8, 8, 8],
        "fusion_hidden_size": 8,
        "head_hidden_size": 8,
        "reassemble_factors": [4, 2, 1, 0.5],
        "backbone_config": {
            "model_type": "dinov2",
            "hidden_size": 16,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "mlp_ratio": 2,
            "image_size": 28,
            "patch_size": 14,
            "out_indices": [1, 2, 3, 4],
            "reshape_hidden_states": False,
            "apply_layernorm": True,
        },
    },
}


def written(folder: Path, kind: str, **more) -> Path:
    """A random network as transformers writes it, and its processor's settings as published."""
    from transformers import AutoConfig, AutoModelForDepthEstimation

    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(3)
        network = AutoModelForDepthEstimation.from_config(AutoConfig.for_model(kind, **CONFIG[kind], **more))
    with torch.no_grad():
        for name, p in network.named_parameters():
            if p.ndim > 1:
                p.copy_(torch.randn(p.shape, generator=seeded(len(name))) * (1.5 / p[0].numel() ** 0.5))
        last = network.head.head[4] if kind == "dpt" else network.head.conv3
        last.bias += 5  # a ReLU after it would hide what it says
    network.save_pretrained(folder)
    side = 32 if kind == "dpt" else 42
    about = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "size": {"height": side, "width": side}}
    about |= {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    return folder


@pytest.fixture(scope="module", params=list(CONFIG))
def folder(request, tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("depth") / request.param, request.param)


def test_the_network_says_what_it_says_in_transformers_own_hands(folder):
    """Their loader, their preprocessing; the sign turned, since what it says is larger where things are nearer."""
    from transformers import AutoModelForDepthEstimation

    ours = DepthNetwork.read(folder)
    theirs = AutoModelForDepthEstimation.from_pretrained(folder, local_files_only=True).eval()
    rgb = torch.rand(ours.side, ours.side, 3, generator=seeded(0))
    pixels = (rgb - torch.tensor([0.5, 0.4, 0.3])) / torch.tensor([0.2, 0.3, 0.4])
    with torch.no_grad():
        said = theirs(pixel_values=pixels.permute(2, 0, 1)[None]).predicted_depth
    said = torch.nn.functional.interpolate(said[:, None], (ours.side, ours.side), mode="bilinear")[0, 0]
    assert float(said.std()) > 1e-4
    torch.testing.assert_close(ours.depth(rgb), -said, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(DepthNetwork.read(folder, is_inverse=False).depth(rgb), said, atol=1e-5, rtol=1e-5)
    larger = ours.depth(torch.rand(100, 100, 3, generator=seeded(1)))
    assert larger.shape == (ours.side, ours.side)
    assert not any(p.requires_grad for p in ours.network.parameters()) and ours.side % ours.network.config.patch_size == 0


def test_a_network_of_distances_is_not_turned_round(tmp_path):
    folder = written(tmp_path / "metric", "depth_anything", depth_estimation_type="metric", max_depth=20)
    network = DepthNetwork.read(folder)
    assert not network.is_inverse and float(network.depth(torch.rand(42, 42, 3, generator=seeded(0))).min()) >= 0
    with_bf16 = DepthNetwork.read(folder, dtype=torch.bfloat16)
    assert with_bf16.depth(torch.rand(42, 42, 3, generator=seeded(0))).dtype == torch.float32


def test_reading_says_nothing_on_the_terminal(folder, capfd):
    DepthNetwork.read(folder)
    said = capfd.readouterr()
    assert said.out == "" and said.err == ""


def test_folders_that_are_no_depth_network(tmp_path):
    folder = written(tmp_path / "dpt", "dpt")
    config, shown = (json.loads((folder / f"{name}.json").read_text()) for name in ("config", "preprocessor_config"))
    whole = load_file(folder / "model.safetensors")

    def refused(says: str) -> None:
        with pytest.raises(InputError, match=says) as error:
            DepthNetwork.read(folder)
        assert "\n" not in str(error.value)

    def put(name: str, settings: dict) -> None:
        (folder / f"{name}.json").write_text(json.dumps(settings))

    put("config", {**config, "model_type": "glpn"})
    refused("model type 'glpn' is not read; give a network of dpt or depth_anything")
    put("config", {**config, "neck_hidden_sizes": [8, 8, 8, 16]})
    refused("tensors are not the network's|no depth network can be read")
    put("config", {**config, "hidden_act": "no such"})
    refused("no depth network can be read|no network can be built")
    code = {"auto_map": {"AutoModelForDepthEstimation": "evil.Model"}, "quantization_config": {"quant_method": "evil"}}
    (folder / "evil.py").write_text("raise SystemExit('code of the folder was run')")
    put("config", {**config, **code, "attn_implementation": "owner/kernel"})
    DepthNetwork.read(folder)  # what no class of ours names is not looked at
    put("config", config)
    put("preprocessor_config", {**shown, "image_std": [0.2, 0.2]})
    refused("size, image_mean and image_std are not all there")
    put("preprocessor_config", shown)
    name = next(k for k in whole if "encoder.layer.1" in k)
    save_file({k: v for k, v in whole.items() if k != name}, folder / "model.safetensors", metadata={"format": "pt"})
    refused("1 tensors are not the network's")
    save_file({**whole, "more": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    refused("1 tensors are not the network's, more among them")
    (folder / "model.safetensors").write_bytes(b"cut")
    refused("not a whole safetensors file")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused("only pickled weights")
    (folder / "preprocessor_config.json").unlink()
    refused("preprocessor_config.json is missing")
    with pytest.raises(InputError, match="no such folder"):
        DepthNetwork.read(tmp_path / "none")


def photograph() -> Source:
    """A block in the lower left of a bright-to-dark photograph, 80 x 60."""
    alpha = torch.zeros(60, 80)
    alpha[30:50, 10:40] = 1
    shown = torch.linspace(0, 1, 80).expand(60, 80)[..., None].expand(-1, -1, 3)
    return Source("photo.png", shown.contiguous(), alpha, shown.contiguous(), "0")


def test_a_network_is_shown_the_photograph_and_its_answer_lies_where_the_crop_does():
    """A network that says how bright a pixel is: its depth then grows to the right, from the block's left edge to its right."""
    asked = []

    def depth(rgb):
        asked.append(rgb)
        return rgb[..., 0]

    source = photograph()
    estimate = Seen(SimpleNamespace(side=48, depth=depth))(source, 24)
    crop = source.crop(24)
    assert torch.equal(estimate.mask, crop.alpha > 0.5) and estimate.normal is None
    columns = estimate.mask.any(0).nonzero()[:, 0]
    low, high = estimate.depth[:, columns[0]], estimate.depth[:, columns[-1]]
    assert float(low[estimate.mask[:, columns[0]]].max()) < 0.05 and float(high[estimate.mask[:, columns[-1]]].min()) > 0.95
    rows = estimate.depth[estimate.mask.any(1)][:, columns]
    assert float((rows - rows[:1]).abs().max()) < 0.05  # and does not depend on the height
    left, _, side = crop.box
    beside = int((41.5 - left) / side * 48)  # right of the block: the photograph's background, and no paper
    assert float(asked[0][24, beside, 0]) == pytest.approx(41 / 79, abs=0.03)
    assert float(asked[0][47, 24, 0]) < 0.5  # below the block, too


# ---- files ----


def files(tmp_path: Path, source: Source, scale: float = 1.0) -> tuple[Path, Path]:
    """Depth that grows to the right and down, 16 bits; normals that lean to the right, 8 bits."""
    h, w = (round(n * scale) for n in source.alpha.shape)
    i, j = np.meshgrid((np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w, indexing="ij")
    cv2.imwrite(str(tmp_path / "depth.png"), ((0.7 * j + 0.3 * i) * 60000).astype(np.uint16))
    normal = np.broadcast_to(np.array([0.6, 0.0, 0.8]), (h, w, 3))
    cv2.imwrite(str(tmp_path / "normal.png"), ((normal[..., ::-1] + 1) / 2 * 255).round().astype(np.uint8))
    return tmp_path / "depth.png", tmp_path / "normal.png"


@pytest.mark.parametrize("scale", [1.0, 0.5, 2.0])
def test_files_of_the_whole_picture_are_cropped_as_it_is(tmp_path, scale):
    source, size = photograph(), 40
    depth, normal = files(tmp_path, source, scale)
    estimate = Given(depth, normal)(source, size)
    left, top, side = source.crop(size).box
    at = (torch.arange(size) + 0.5) / size * side
    wanted = 0.7 * (left + at)[None] / 80 + 0.3 * (top + at)[:, None] / 60
    assert correlation(wanted, estimate.depth, estimate.mask) > 0.999
    assert correlation(wanted.flip(0), estimate.depth, estimate.mask) < 0.95  # the rows count
    assert float(correlation(wanted, Given(depth, is_inverse=True)(source, size).depth, estimate.mask)) < -0.999
    assert float(normal_loss(estimate.normal, torch.tensor([0.6, 0.0, 0.8]).expand(size, size, 3), estimate.mask)) < 1e-4
    alone = Given(normal=normal)(source, size)
    assert alone.depth is None and alone.normal is not None and torch.equal(alone.mask, source.crop(size).alpha > 0.5)


def test_arrays_may_know_only_a_part_and_what_lies_beyond_the_outline_does_not_count(tmp_path):
    source, size = photograph(), 40
    values = np.full((60, 80), 1e6, np.float32)  # far away, behind the block
    values[30:50, 10:40] = np.linspace(2, 3, 30)
    values[30:34, 10:40] = np.nan
    np.save(tmp_path / "depth.npy", values)
    estimate = Given(tmp_path / "depth.npy")(source, size)
    crop = source.crop(size)
    left, _, side = crop.box
    wanted = (left + (torch.arange(size) + 0.5) / size * side).expand(size, size)
    assert correlation(wanted, estimate.depth, estimate.mask) > 0.995
    assert not estimate.mask[crop.alpha > 0.5].all() and estimate.mask.sum() > 0.7 * (crop.alpha > 0.5).sum()
    normals = np.zeros((60, 80, 3), np.float32)
    normals[..., 1] = 5
    np.save(tmp_path / "normal.npy", normals)
    assert torch.equal(Given(normal=tmp_path / "normal.npy")(source, size).normal[20, 20], torch.tensor([0.0, 1.0, 0.0]))


def test_files_that_are_no_estimate_of_the_picture(tmp_path):
    source = photograph()
    depth, normal = files(tmp_path, source)

    def refused(says: str, **given) -> None:
        with pytest.raises(InputError, match=says) as error:
            Given(**given)(source, 16)
        assert "\n" not in str(error.value)

    refused("no such file", depth=tmp_path / "none.png")
    (tmp_path / "depth.exr").write_bytes(b"x")
    refused("is neither .png nor .npy", depth=tmp_path / "depth.exr")
    (tmp_path / "cut.png").write_bytes(depth.read_bytes()[:50])
    refused("cannot be read", depth=tmp_path / "cut.png")
    np.save(tmp_path / "objects.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    refused("cannot be read", depth=tmp_path / "objects.npy")
    refused("expected one number a pixel, got 60 x 80 x 3", depth=normal)
    refused("expected three numbers a pixel, got 60 x 80 x 1", normal=depth)
    np.save(tmp_path / "square.npy", np.zeros((60, 60), np.float32))
    refused("is 60 x 60 pixels, the picture 80 x 60", depth=tmp_path / "square.npy")
    grey = np.repeat(cv2.imread(str(depth), cv2.IMREAD_UNCHANGED)[..., None] // 257, 3, 2).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "grey.png"), grey)  # grey as colours
    assert Given(tmp_path / "grey.png")(source, 16).mask.any()


# ---- what a lift is given ----


def test_a_recipe_compares_with_what_is_given_and_else_with_the_guess():
    solid, held = block.guess(), Held()
    plain = block.job(block.picture(), None, Run(None, {}))
    ramp = torch.linspace(0, 1, 24).expand(24, 24)
    up = torch.tensor([0.0, 1.0, 0.0]).expand(24, 24, 3)
    mask = plain.source.crop(24).alpha > 0.5
    deep, turned = (lambda source, size: Estimate.of(mask, depth=ramp)), (lambda source, size: Estimate.of(mask & (ramp > 0.3), normal=up))
    guessed = held.relief(plain, solid, 24)
    assert torch.equal(guessed.estimate.depth, Guessed(solid)(plain.source, 24).depth) and guessed.normal == 0
    given = held.relief(replace(plain, depth=deep), solid, 24)
    assert torch.equal(given.estimate.depth, deep(plain.source, 24).depth) and given.normal == 0
    both = held.relief(replace(plain, depth=deep, normal=turned), solid, 24)
    assert torch.equal(both.estimate.mask, mask & (ramp > 0.3)) and both.normal == held.normal_weight > 0
    assert torch.equal(both.estimate.depth, given.estimate.depth) and torch.equal(both.estimate.normal[both.estimate.mask][0], up[0, 0])
    alone = held.relief(replace(plain, normal=turned), solid, 24)  # the depth is the guess's still
    assert torch.equal(alone.estimate.depth, guessed.estimate.depth) and alone.normal > 0


def test_estimates_that_a_lift_cannot_use_are_one_sentence(tmp_path, capsys, monkeypatch):
    from tests.test_cli import CHAIR, refused

    def says(sentence: str, *words, pictures=(CHAIR,)) -> None:
        refused(capsys, monkeypatch, tmp_path / "out", sentence, *pictures, *words)

    magic = ("--recipe", "magic123")
    depth, normal = files(tmp_path, photograph())
    says("only recipes that compare with it have a use for it (dreamcraft3d, magic123)", "--depth", depth)
    says("only recipes that compare with it", "--normal", normal, "--recipe", "consistent123")
    says("--depth-is inverse: says what --depth holds", *magic, "--depth-is", "inverse")
    says("none.png: no such file", *magic, "--depth", tmp_path / "none.png")
    says("is 80 x 60 pixels, the picture", *magic, "--normal", normal)
    (tmp_path / "empty").mkdir()
    says("config.json is missing", *magic, "--depth", tmp_path / "empty")
    says("is of one picture; give that picture alone", *magic, "--depth", depth, pictures=(CHAIR, CHAIR.parent / "teapot.png"))
    says("holds no config.json", "--recipe", "consistent123", "--prior", f"clip={tmp_path / 'empty'}")
