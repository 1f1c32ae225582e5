# SPDX-License-Identifier: Apache-2.0
"""`bozzetto lift`, from the outside: what it makes, that it makes it twice, and that a kill costs nothing."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bozzetto.fit.asset import FILES
from bozzetto.formats.gltf import load
from bozzetto.render.clean import is_watertight_manifold
from bozzetto.verbs.lift import lift
from tests.killing import LIFT
from tests.twins.meshes import weld

ROOT = Path(__file__).parent.parent
CHAIR = ROOT / "examples" / "wooden-chair.png"


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "bozzetto.cli", *map(str, words)]


@pytest.fixture(scope="module")
def chair(tmp_path_factory):
    """One draft lift, made once for this file."""
    out = tmp_path_factory.mktemp("lift") / "chair"
    return lift(CHAIR, out, preset="draft"), out


def test_all_files_are_there_and_nothing_else(chair):
    _, out = chair
    assert sorted(p.name for p in out.iterdir()) == sorted(FILES)


def test_the_mesh_is_clean(chair):
    """Watertight and 2-manifold once seams are merged, outward, within its budget, up +Y, longest side 1."""
    _, out = chair
    mesh = load(out / "asset.glb")
    assert mesh.texture is not None and len(mesh.faces) <= 10_000
    whole = weld(mesh)
    assert is_watertight_manifold(whole.vertices, whole.faces)
    size = whole.vertices.amax(0) - whole.vertices.amin(0)
    assert float(size.max()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(whole.vertices.amax(0), -whole.vertices.amin(0), rtol=0, atol=1e-5)
    corners = whole.vertices[whole.faces]
    assert float((torch.linalg.cross(corners[:, 0], corners[:, 1]) * corners[:, 2]).sum()) > 0  # six times the volume


@pytest.mark.blender
def test_blender_opens_it_upright_its_front_towards_the_viewer(chair, open_in_blender):
    """Blender's front looks along -y: our (x, y, z) stands at (y, -x, z), nothing lost, the picture's colours on it."""
    asset, out = chair
    got = open_in_blender(out / "asset.glb")
    assert (got["vertices"], got["triangles"]) == (len(asset.mesh.vertices), len(asset.mesh.faces))
    assert got["image"] == [1024, 1024] and got["space"] == "sRGB"
    size = asset.mesh.vertices.amax(0) - asset.mesh.vertices.amin(0)
    np.testing.assert_allclose(got["size"], size[[1, 0, 2]].numpy(), atol=1e-5)
    seen = np.array(got["seen"])
    brown = seen[:, 3:].mean(0)  # the chair is of wood
    assert brown[0] > brown[1] > brown[2] and brown[0] > 0.3


def test_the_pictures_view_is_met(chair):
    """Rendered from the picture's camera, the mask agrees with the picture's: IoU of a draft at 256 pixels."""
    from bozzetto import image
    from bozzetto.render.mesh import render_mesh

    asset, _ = chair
    views = render_mesh(asset.mesh, asset.camera.resized(256))
    mine, truth = views.alpha[0, ..., 0] > 0.5, image.crop(asset.source.rgb, asset.source.alpha, 256).alpha > 0.5
    assert float((mine & truth).sum() / (mine | truth).sum()) > 0.85
    seen = mine & truth
    wanted = image.crop(asset.source.rgb, asset.source.alpha, 256).rgb
    assert float((views.rgb[0] - wanted).abs()[seen].mean()) < 0.06  # of 1; edges of the mask count, too


def test_the_record_says_how_to_make_it_again(chair):
    _, out = chair
    described = json.loads((out / "asset.json").read_text())
    for key in ("seed", "settings", "versions", "prior", "camera", "seconds", "losses", "peak_gb", "elevation_deg", "digest"):
        assert key in described, key
    assert described["complete"] and described["settings"]["preset"] == "draft"
    # The camera in the GLB's frame looks at the object, from the front (+Z).
    pose = np.array(described["camera"]["camera_to_world"])
    assert pose[2, 3] > abs(pose[0, 3]) and np.linalg.det(pose[:3, :3]) == pytest.approx(1)


def test_confidence_says_what_the_picture_showed(chair):
    _, out = chair
    confidence = np.asarray(Image.open(out / "confidence.png"), float) / 255
    assert confidence.shape == (1024, 1024) and confidence.max() > 0.9 and 0.05 < confidence.mean() < 0.95


def test_the_same_picture_and_seed_give_the_same_bytes(chair, tmp_path):
    _, out = chair
    done = subprocess.run(
        command("lift", CHAIR, "--preset", "draft", "--out", tmp_path / "again", "--json"), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["faces"] > 1000
    assert sha(tmp_path / "again" / "asset.glb") == sha(out / "asset.glb")
    assert Image.open(tmp_path / "again" / "sheet.png").size == (4 * 256, 5 * 256)
    turntable = Image.open(tmp_path / "again" / "turntable.webp")
    assert (turntable.size, turntable.n_frames) == ((256, 256), 36)


MOMENTS = [
    "before guess.safetensors",
    "after guess.safetensors",
    "before shape.partial",
    "after shape.partial",
    "before shape.safetensors",
    "after clean.safetensors",
    "before texture.safetensors",
    "after sheet.png",
    "before asset.glb",
    "after asset.glb",
]
"""in each stage, at a checkpoint of the long one, and while files are written"""


def armed(moments: str, *words: str | Path) -> list[str]:
    """`command`, with signals to itself."""
    return [sys.executable, "-c", LIFT, moments, *map(str, words)]


@pytest.mark.slow
def test_killed_at_ten_moments_and_resumed_it_ends_in_the_same_bytes(chair, tmp_path):
    """A real process, really killed, each time where the last one left off; every kill must strike."""
    _, out = chair
    folder = tmp_path / "killed"
    for moment in MOMENTS:
        killed = subprocess.run(
            armed(f"kill {moment}", "lift", CHAIR, "--preset", "draft", "--out", folder, "--resume", "--quiet"), cwd=ROOT
        )
        assert killed.returncode == -signal.SIGKILL, moment
        glb = folder / "asset.glb"
        assert not glb.exists() or sha(glb) == sha(out / "asset.glb")  # never half a file
        assert glb.exists() == (moment == "after asset.glb") and (folder / ".run").exists()
    done = subprocess.run(command("lift", CHAIR, "--preset", "draft", "--out", folder, "--resume", "--quiet"), cwd=ROOT)
    assert done.returncode == 0
    assert sha(folder / "asset.glb") == sha(out / "asset.glb")
    assert not (folder / ".run").exists()


@pytest.mark.slow
def test_the_first_interrupt_exports_what_there_is_and_resuming_finishes(chair, tmp_path):
    _, out = chair
    folder = tmp_path / "stopped"
    moment = "interrupt after guess.safetensors"
    stopped = subprocess.run(
        armed(moment, "lift", CHAIR, "--preset", "draft", "--out", folder), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    assert stopped.returncode == 130 and "--resume" in stopped.stderr, stopped.stderr
    assert not json.loads((folder / "asset.json").read_text())["complete"]
    assert load(folder / "asset.glb").texture is not None
    done = subprocess.run(command("lift", CHAIR, "--preset", "draft", "--out", folder, "--resume", "--quiet"), cwd=ROOT)
    assert done.returncode == 0 and sha(folder / "asset.glb") == sha(out / "asset.glb")
    written = (folder / "asset.glb").stat().st_mtime_ns
    again = subprocess.run(
        command("lift", CHAIR, "--preset", "draft", "--out", folder, "--resume", "--json"), cwd=ROOT, capture_output=True, text=True
    )
    assert json.loads(again.stdout)["complete"]
    assert again.returncode == 0 and "is complete" in again.stderr and (folder / "asset.glb").stat().st_mtime_ns == written


def test_a_second_interrupt_stops_at_once_and_leaves_nothing_half_written(tmp_path):
    """The first is heeded after a step; the second comes as the first output, whole under another name, is about to appear."""
    folder = tmp_path / "stopped"
    moments = "interrupt after guess.safetensors, interrupt before turntable.webp"
    small = [w for s in ("cells=16", "picture=64", "faces=500", "texture=64") for w in ("--set", s)]
    words = ("lift", CHAIR, "--preset", "draft", *small, "--out", folder)
    stopped = subprocess.run(armed(moments, *words), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    said = stopped.stderr
    assert stopped.returncode == 130 and said.splitlines()[-1] == "stopped; go on with --resume" and "Traceback" not in said, said
    assert [p.name for p in folder.iterdir()] == [".run"] and (folder / ".run" / "guess.safetensors").exists()


@pytest.mark.slow
def test_a_folder_of_pictures_gives_a_folder_of_assets_and_one_failure_stops_nothing(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a", "c"):
        Image.open(CHAIR).resize((128, 128)).save(pictures / f"{name}.png")
    (pictures / "b.png").write_text("not a picture")
    done = subprocess.run(
        command("lift", pictures, "--preset", "draft", "--out", tmp_path / "out"), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.count("error:") == 1 and "b.png" in done.stderr
    assert all((tmp_path / "out" / name / "asset.glb").exists() for name in ("a", "c"))
    assert not (tmp_path / "out" / "b").exists()


@pytest.mark.parametrize("azimuth", [0.0, 1.2])
def test_the_front_is_where_the_picture_was_taken_from(azimuth):
    """A lifted object's camera stands on +x at azimuth 0, and at `azimuth` otherwise."""
    from bozzetto.frustum import Frustum

    p = Frustum.of(azimuth, 0.0, 0.5, 64).camera.position[0]
    assert float(torch.atan2(p[1], p[0])) == pytest.approx(azimuth)
