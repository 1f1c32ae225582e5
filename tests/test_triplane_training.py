# SPDX-License-Identifier: Apache-2.0
"""Training of the triplane twin: the frame of its points, the field that it trains, its scores, its resuming."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import Dataset

from bozzetto.data.renders import MARGIN, Sample, carve_object, crop_camera, frustum_occupancy, render
from bozzetto.evaluate.feedforward import AXES, extruded, of_field, silhouette_cells, time_table
from bozzetto.evaluate.metrics import bare
from bozzetto.fit.source import Source
from bozzetto.frustum import Frustum, cell_centres
from bozzetto.priors import triposr_files
from bozzetto.priors.first_guess import LEVEL
from bozzetto.priors.triposr import GREY, RATIO
from bozzetto.training.field_points import BEHIND, BOX, DEPTHS, NEAR, RADIUS, SCALE, SIDE, WIDE, as_row, looked_up, to_field, to_frustum
from bozzetto.training.loop import LoopSettings, train
from bozzetto.training.muon import Muon
from bozzetto.training.triplane import CONFIG, Clock, Twin, begin, cell_scores, frustum_logits, loss, overlap

TINY = replace(CONFIG, vit=replace(CONFIG.vit, width=32, layers=1, hidden=64), plane=6, channels=32, layers=1, features=8, neurons=24)
BOXES = (  # of an object that no turn and no mirror leaves as it is: corners, in its own frame
    ((-0.45, -0.2, -0.3), (0.4, 0.1, -0.1)),
    ((0.15, -0.2, -0.1), (0.4, 0.05, 0.45)),
    ((-0.45, 0.1, -0.3), (-0.25, 0.4, -0.15)),
)


def boxes():
    """The object as triangles, outside counter-clockwise."""
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
    sides = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    faces = np.concatenate([sides[:, [0, 1, 2]], sides[:, [0, 2, 3]]])
    v = [np.array(low) + corners * (np.array(high) - np.array(low)) for low, high in BOXES]
    d = bare(np.concatenate(v), np.concatenate([faces + 8 * k for k in range(len(v))]))
    return replace(d, colours=np.full((1, 3), 0.1, np.float32))  # its own grey is the background's


def inside(x: np.ndarray) -> np.ndarray:
    return np.any([((x > low) & (x < high)).all(-1) for low, high in BOXES], 0)


@pytest.fixture(scope="module")
def scene():
    """A `Sample` of the object from the left and above, as `draw_sample` makes it, and its camera."""
    d = boxes()
    camera, p = crop_camera(d.vertices, math.radians(35), math.radians(25), 2.2, WIDE)
    carved = carve_object(d)
    view = render(d, camera)
    picture = torch.cat([view.rgb, view.alpha], -1)[0].permute(2, 0, 1).numpy()
    seen = picture[3].reshape(WIDE // 2, 2, WIDE // 2, 2).max((1, 3)) > 0
    solid = np.rint(frustum_occupancy(carved, camera, p, np.ones(3), seen, DEPTHS) * 255).astype(np.uint8)
    weights = np.concatenate([carved.bary, 1 - carved.bary.sum(1, keepdims=True)], 1)
    surface = torch.from_numpy((d.vertices[d.faces[carved.face]] * weights[:, :, None]).sum(1))
    points = Frustum(camera).coordinates(surface).numpy().astype(np.float32)
    return Sample(picture, solid, points, np.full_like(points, 0.5), np.array([math.radians(25), p], np.float32)), camera


def in_the_world(points: Tensor, camera, p: float) -> np.ndarray:
    """Points of the field's frame in the object's, by the camera's axes alone."""
    right, up, back, eye = camera.c2w[0].double().unbind(-1)
    depth = eye @ back  # of the object's centre
    x, y, z = (points.double() * p * depth / SCALE).unbind(-1)
    return (eye - depth * back + x[..., None] * back + y[..., None] * right + z[..., None] * up).numpy()


# ---- the frame ----


def test_the_targets_are_the_object_in_the_pictures_frame_and_no_other(scene):
    """Every kind of point agrees with the boxes' own inequalities, up to the carving's half cell; with an axis' sign changed, or two axes
    exchanged, none does."""
    sample, camera = scene
    row = as_row(sample, np.random.default_rng(3))
    points, target = row["points"][: len(row["target"])], row["target"] > 0.5
    p = float(sample.view[1])

    def agreement(turn: Tensor) -> list[float]:
        found = torch.from_numpy(inside(in_the_world(points @ turn, camera, p)))
        return [overlap(f, t) for f, t in zip(found.split([BOX, BEHIND, NEAR]), target.split([BOX, BEHIND, NEAR]), strict=True)]

    eye = torch.eye(3)
    right = agreement(eye)
    assert min(right[1:]) > 0.55 and sum(right[1:]) > 1.2  # sheets .2 thick grow by half a cell of .011 on each side, cells are .04 deep
    wrong = [eye * torch.tensor(s) for s in ([-1.0, 1, 1], [1.0, -1, 1], [1.0, 1, -1])] + [eye[[1, 0, 2]], eye[[2, 1, 0]], eye[[0, 2, 1]]]
    for turn in wrong:
        assert agreement(turn)[1] < right[1] - 0.2


def test_the_frame_of_a_field_is_the_frustums_and_back():
    """Against `Frustum.points` at azimuth 0 and elevation 0, whose world axes are the field's."""
    frustum = Frustum.of(0.0, 0.0, 0.4)
    x = torch.rand(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - torch.tensor([0, 0, 0.5])
    p = torch.tensor(0.4, dtype=torch.float64)
    torch.testing.assert_close(to_field(x, p), SCALE * frustum.points(x))
    torch.testing.assert_close(to_frustum(to_field(x, p), p), x)


def test_an_object_fills_the_networks_picture_as_prepared_ones_do(scene):
    picture = as_row(scene[0], np.random.default_rng(0))["picture"]
    assert picture.shape == (SIDE, SIDE, 3)
    shown = ((picture - GREY).abs() > 0.02).any(-1)
    rows, columns = shown.any(1).nonzero()[:, 0], shown.any(0).nonzero()[:, 0]
    assert max(int(rows[-1] - rows[0]), int(columns[-1] - columns[0])) + 1 == pytest.approx(RATIO * SIDE, abs=2)
    assert pytest.approx((1 - 2 * MARGIN) * WIDE) == RATIO * SIDE


def test_points_outside_of_the_grid_are_empty():
    full = torch.full((4, 6, 8), 255, dtype=torch.uint8)
    full[1, 2, 3] = 51
    at = torch.tensor([[0.5, 0.5, 0.0], [2.5 / 6, 1.5 / 4, (3.5 / 8 * 2 - 1) * 0.9], [-1e-3, 0.5, 0], [0.5, 1.001, 0], [0.5, 0.5, 0.91]])
    assert looked_up(full, at).tolist() == pytest.approx([1, 0.2, 0, 0, 0])


# ---- the network ----


def test_what_is_trained_is_the_field_that_is_read():
    """`Twin.read` equals `Triplane.raw` in float64, but for the shift that puts its surface at LEVEL."""
    twin = begin(TINY, 0).double().eval()
    picture = torch.rand(1, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    points = (torch.rand(40, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64) - 0.5) * 2 * RADIUS
    with torch.no_grad():
        mine, field = twin(picture, points[None])[0], twin.model.field(twin.model(picture)[0])
    raw = field.raw(points)
    torch.testing.assert_close(mine[:, 0] - LEVEL, raw[:, 0] - field.level)
    torch.testing.assert_close(mine[:, 1:], raw[:, 1:])


def test_planes_look_at_the_part_of_the_picture_that_shows_them():
    """What cross-attention asks for at the beginning, of a picture's tokens that say where they are and nothing else: in the plane (y, z),
    which lies in the picture, the token in front of each; in (x, y) and (x, z), the column and the row in which it is seen."""
    twin, n = begin(CONFIG, 0), SIDE // CONFIG.vit.patch
    tokens = twin.model.tokenizer.embeddings.detach().flatten(2).mT  # (3, rows of second x columns of first coordinate, C)
    table = twin.model.image_tokenizer.model.embeddings.position_embeddings[0, 1:].detach()
    cross = twin.model.backbone.transformer_blocks[0].get_submodule("attn2")
    queries, keys = (cross.get_parameter(f"to_{x}.weight") for x in "qk")
    likeness = (tokens @ queries.T) @ (table @ keys.T).mT
    best = likeness.argmax(-1).view(3, CONFIG.plane, CONFIG.plane)
    at = ((torch.arange(CONFIG.plane) + 0.5) / CONFIG.plane * 2 - 1) * RADIUS / (SCALE * (1 - 2 * MARGIN) / RATIO / 2)  # in half pictures
    column = ((at + 1) / 2 * n - 0.5).round().clamp(0, n - 1).long()
    shown, row = at.abs() < 1, n - 1 - column  # z is up, rows go down

    def agreement(found: Tensor, wanted: Tensor) -> float:
        return float((found == wanted)[shown][:, shown].float().mean())

    assert agreement(best[2], row[:, None] * n + column) > 0.8
    assert agreement(best[2], column[:, None] * n + column) < 0.2  # z down is another network
    assert agreement(best[0] % n, column[:, None].expand(-1, CONFIG.plane)) > 0.8  # rows of (x, y) are y
    assert agreement(best[1] // n, row[:, None].expand(-1, CONFIG.plane)) > 0.8  # rows of (x, z) are z


def batch_of(samples: list[Sample]) -> dict[str, Tensor]:
    rows = [as_row(s, np.random.default_rng(k)) for k, s in enumerate(samples)]
    return {key: torch.stack([r[key] for r in rows]) for key in rows[0]}


def test_the_loss_falls_on_two_objects(scene):
    """One object and its mirror image: what tells them apart is the picture alone."""
    sample = scene[0]
    mirrored = replace(
        sample,
        picture=np.ascontiguousarray(sample.picture[:, :, ::-1]),
        occupancy=np.ascontiguousarray(sample.occupancy[:, ::-1]),
        points=sample.points * np.array([-1, 1, 1], np.float32) + np.array([1, 0, 0], np.float32),
    )
    batch, twin = batch_of([sample, mirrored]), begin(TINY, 0)
    optimiser = Muon(twin, 0.02, 1e-3)
    losses = []
    for _ in range(60):
        total = loss(twin, batch)[0]
        total.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(total.detach()))
    assert losses[-1] < 0.5 * losses[0]
    exchanged = batch | {"picture": batch["picture"].flip(0)}
    with torch.no_grad():
        assert float(loss(twin, exchanged)[0]) > 1.5 * losses[-1]


class Same(Dataset):
    """Samples as a function of the index."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return as_row(self.sample, np.random.default_rng(i))

    def __len__(self) -> int:
        return 1 << 20


def test_a_run_killed_and_resumed_ends_in_the_same_bits_and_its_clock_goes_on(scene, tmp_path: Path):
    settings = LoopSettings(samples=16, batch=2, warmup=2, save_every=0.0, validate_every=4, workers=0, mixed_precision="no")

    def run(folder: Path, stop_after: int | None = None) -> Twin:
        calls = 0

        def counted(network, batch):
            nonlocal calls
            calls += 1
            if stop_after is not None and calls > stop_after:
                raise KeyboardInterrupt
            return loss(network, batch)

        clock = Clock(folder)
        average = train(begin(TINY, 0), Same(scene[0]), counted, folder, settings, lambda n: {"seconds": clock.seconds()})
        assert isinstance(average, Twin)
        return average

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", 3)
    resumed = run(tmp_path / "killed")
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    seconds = [json.loads(line)["seconds"] for line in (tmp_path / "killed" / "curve.jsonl").read_text().splitlines()]
    assert len(seconds) == 4 and seconds[0] > 0 and seconds == sorted(seconds)


def test_a_clock_goes_on_from_where_the_state_is(tmp_path: Path):
    """Validated after 40 samples and 10 seconds, the state is of 60 samples: 15 seconds, less what is said to be no training."""
    (tmp_path / "curve.jsonl").write_text('{"samples": 20, "seconds": 4}\n{"samples": 40, "seconds": 10.0}\n')
    save_file({"x": torch.zeros(1)}, tmp_path / "state.safetensors", metadata={"samples": "60"})
    clock = Clock(tmp_path)
    clock.without(1.0)
    assert clock.seconds() == pytest.approx(14, abs=0.2)


# ---- scores ----


class Ball(Twin):
    """A network that answers every picture with a ball at (.2, .1, .3)."""

    def read(self, planes: Tensor, points: Tensor) -> Tensor:
        far = (points - torch.tensor([0.2, 0.1, 0.3])).norm(dim=-1, keepdim=True)
        return torch.cat([LEVEL + 50 * (0.25 - far), torch.zeros_like(points)], -1)


def test_cells_of_a_frustum_see_the_field_from_its_own_side():
    """A ball nearer, to the right and above is at small t, large u and small v; its volume is known."""
    p = torch.tensor(0.3)
    logits = frustum_logits(Ball(begin(TINY, 0).model), torch.zeros(1), p, (64, 48, 48))
    full = logits > LEVEL
    u, v, t = cell_centres(64, 48, 48)[full].mean(0).tolist()
    want = to_frustum(torch.tensor([0.2, 0.1, 0.3]), p).tolist()
    assert [u, v, t] == pytest.approx(want, abs=0.01) and u > 0.5 > v and t < 0
    at = cell_centres(64, 48, 48)[full]
    cell = (1.8 / 64) / 48**2 * SCALE**3 * (1 + 0.3 * at[:, 2]) ** 2
    assert float(cell.sum()) == pytest.approx(4 / 3 * math.pi * 0.25**3, rel=0.03)


def test_scores_of_a_truth_against_itself_and_against_its_mirror():
    logits = frustum_logits(Ball(begin(TINY, 0).model), torch.zeros(1), torch.tensor(0.3), (64, 32, 32))
    truth = logits > LEVEL
    coverage = truth.any(0)[None].float()
    assert cell_scores(logits, coverage, truth)["iou"] == 1 and cell_scores(logits, coverage, truth)["chamfer"] < 0.02
    mirrored = cell_scores(logits.flip(0), coverage, truth)
    assert mirrored["iou"] < 0.5 and mirrored["chamfer"] > 0.05


def test_an_extruded_square_is_as_deep_as_it_was_told():
    picture = torch.zeros(4, 64, 64)
    picture[:, 12:40, 20:50] = 1
    full = silhouette_cells(picture, extruded) > LEVEL
    rows, columns = full.any(0).nonzero().unbind(-1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (6, 19, 10, 24)
    depth = full[:, 12, 16].sum() * 1.8 / 64
    assert float(depth) == pytest.approx(2 * 0.2, abs=1.8 / 64)


def test_a_trained_folder_is_read_as_triposr_and_its_mesh_is_turned_to_the_picture(tmp_path: Path):
    twin = begin(TINY, 0)
    triposr_files.save(twin.model, tmp_path)
    again = triposr_files.load(tmp_path)
    assert again.config == TINY
    for (name, a), b in zip(twin.model.state_dict().items(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-7, msg=name)  # float16
    rgba = np.zeros((40, 40, 4), np.uint8)
    rgba[5:30, 10:35] = 255
    x = torch.from_numpy(rgba / 255).float()
    source = Source("square", x[..., :3], x[..., 3], torch.zeros(1), "")
    with torch.no_grad():
        again.decoder.layers[-1].bias[0] = 1e3  # all is full: the box itself, or nothing where it is cut open
    candidate = of_field(source, Twin(again))
    np.testing.assert_array_equal(candidate.axes @ [0, 0, 1], [1, 0, 0])  # the camera is on +x
    assert np.linalg.det(AXES) == pytest.approx(1)


def test_curves_meet_at_equal_times():
    def row(samples: int, iou: float, **more: float) -> dict[str, float]:
        return {"samples": samples, "furniture_iou_64": iou, "families_iou_64": iou / 2, **more}

    mine = [row(2000, 0.25, seconds=290.0), row(4000, 0.3, seconds=590.0), row(6000, 0.35, seconds=900.0)]  # .15 s a sample
    lines = time_table(mine, [row(5000, 0.1), row(10_000, 0.2), row(20_000, 0.4)], 0.4).splitlines()[2:]
    assert lines == [
        "| 5 | 2,000 | 0.250 | 0.125 | 5,000 | 0.100 | 0.050 |",
        "| 10 | 4,000 | 0.300 | 0.150 | 10,000 | 0.200 | 0.100 |",
        "| 15 | 6,000 | 0.350 | 0.175 | 10,000 | 0.200 | 0.100 |",
    ]
