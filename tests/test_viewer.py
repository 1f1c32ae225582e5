# SPDX-License-Identifier: Apache-2.0
"""`bozzetto view`: what it serves, what it refuses, and that a splat is on the screen where there is a Chromium."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from bozzetto import viewer
from bozzetto.errors import InputError
from bozzetto.formats.ply import to_ply
from bozzetto.shapes.gaussians import Gaussians

pytest.importorskip("viser")


@pytest.fixture(scope="module")
def splat(tmp_path_factory):
    """A red ball of 300 Gaussians."""
    g = torch.Generator().manual_seed(0)
    points = 0.2 * torch.nn.functional.normalize(torch.randn(300, 3, generator=g), dim=1)
    path = tmp_path_factory.mktemp("splat") / "ball.ply"
    path.write_bytes(to_ply(Gaussians.from_points(points, torch.tensor([0.9, 0.05, 0.05]).expand(300, 3))))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("asset")
    trimesh.creation.box((1, 0.5, 0.5)).export(folder / "asset.glb")
    return folder


@pytest.mark.parametrize("what", ["splat", "model"])
def test_a_page_is_served_and_holds_the_scene(what, request):
    shown = viewer.serve(request.getfixturevalue(what), 0)
    try:
        with urllib.request.urlopen(shown.url, timeout=10) as page:
            assert page.status == 200 and b"<html" in page.read().lower()
        assert shown.node.name == ("/gaussians" if what == "splat" else "/model")
        with pytest.raises(InputError, match="cannot be used"):
            viewer.serve(request.getfixturevalue(what), int(shown.url.rsplit(":", 1)[1]))
    finally:
        shown.stop()


@pytest.mark.parametrize("name", ["BALL.PLY", "Ball.Ply", "ASSET.GLB"])
def test_suffixes_may_be_in_capitals(name, splat, model, tmp_path):
    (tmp_path / name).write_bytes((model / "asset.glb" if name.endswith("GLB") else splat).read_bytes())
    shown = viewer.serve(tmp_path / name, 0)
    try:
        assert shown.node.name == ("/model" if name.endswith("GLB") else "/gaussians")
    finally:
        shown.stop()


def test_what_cannot_be_shown_is_refused(tmp_path, splat):
    (tmp_path / "a.obj").write_text("v 0 0 0\n")
    (tmp_path / "cut.ply").write_bytes(splat.read_bytes()[:-100])
    (tmp_path / "cut.glb").write_bytes(b"glTF")
    for path, words in (
        (tmp_path, "holds no asset.glb"),
        (tmp_path / "a.obj", "expected a .ply"),
        (tmp_path / "cut.ply", "cut.ply"),
        (tmp_path / "cut.glb", "cut.glb"),
        (tmp_path / "none.ply", "none.ply"),
    ):
        with pytest.raises(InputError, match=words):
            viewer.serve(path, 0)
    with pytest.raises(InputError, match="0 to 65535"):
        viewer.serve(splat, 70000)


def test_ctrl_c_ends_it(splat):
    command = [sys.executable, "-u", "-m", "bozzetto.cli", "view", str(splat), "--port", "0"]
    # Whoever runs the tests in the background of a script has them ignore Ctrl-C, and children inherit that.
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=heed)
    assert process.stdout is not None
    for line in process.stdout:  # whatever viser says first
        if "Ctrl-C ends it" in line:
            break
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")
def test_a_splat_is_on_the_screen(splat, tmp_path):
    shown, shot = viewer.serve(splat, 0), tmp_path / "screen.png"
    flags = ["--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--window-size=640,480"]
    budget = ["--virtual-time-budget=20000", f"--screenshot={shot}", f"--user-data-dir={tmp_path / 'profile'}"]
    try:
        deadline = time.monotonic() + 60
        found = 0
        while not found and time.monotonic() < deadline:
            subprocess.run(["chromium", *flags, *budget, shown.url], capture_output=True, timeout=60, check=False)
            if shot.is_file():
                x = np.asarray(Image.open(shot).convert("RGB")).astype(int)
                found = int(((x[..., 0] > 120) & (x[..., 1] < 80) & (x[..., 2] < 80)).sum())
    finally:
        shown.stop()
    assert found > 400
