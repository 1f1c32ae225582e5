# SPDX-License-Identifier: Apache-2.0
"""What a person can do wrong: one sentence each, code 2, nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bozzetto import cli
from bozzetto.errors import InputError
from bozzetto.priors.loading import MINI
from bozzetto.verbs.batch import jobs

ROOT = Path(__file__).parent.parent
CHAIR = ROOT / "examples" / "wooden-chair.png"
QUICK = ("--preset", "draft", *(w for s in ("steps=2", "cells=16", "picture=64", "faces=500", "texture=64") for w in ("--set", s)))


def run(capsys, monkeypatch, *words) -> tuple[int, str]:
    """Exit code and stderr of `bozzetto words...`, in this process."""
    monkeypatch.setattr("sys.argv", ["bozzetto", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    code = left.value.code
    return (code if isinstance(code, int) else 1), capsys.readouterr().err


def refused(capsys, monkeypatch, out: Path, says: str, *words) -> None:
    code, said = run(capsys, monkeypatch, "lift", *words, "--out", out)
    assert code == 2, said
    lines = [line for line in said.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error: ") and says in lines[0], said
    assert not out.exists()


def test_python_m_bozzetto_is_the_command():
    for words, code in ((["--version"], 0), (["settings", "--nonesuch"], 2)):
        by = [
            subprocess.run([sys.executable, "-m", module, *words], cwd=ROOT, capture_output=True, text=True)
            for module in ("bozzetto", "bozzetto.cli")
        ]
        assert (by[0].returncode, by[0].stdout, by[0].stderr) == (by[1].returncode, by[1].stdout, by[1].stderr)
        assert by[0].returncode == code and (by[0].stdout.startswith("bozzetto 0.") or "nonesuch" in by[0].stderr)


def test_no_such_picture(capsys, monkeypatch, tmp_path):
    refused(capsys, monkeypatch, tmp_path / "out", "no such file", tmp_path / "missing.png")


def broken(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / f"{kind}.png"
    whole = Image.open(CHAIR)
    if kind == "text":
        path.write_text("a chair, honestly")
    elif kind == "cut":
        path.write_bytes(CHAIR.read_bytes()[:9000])
    elif kind == "cut_jpeg":
        whole.convert("RGB").save(tmp_path / "whole.jpg")
        path.write_bytes((tmp_path / "whole.jpg").read_bytes()[:4000])
    elif kind == "dot":
        whole.resize((1, 1)).save(path)
    elif kind == "huge":
        Image.new("1", (20000, 20000)).save(path)
    elif kind == "animated":
        whole.save(path, "GIF", save_all=True, append_images=[whole.rotate(90)])
    elif kind == "clear":
        Image.new("RGBA", (64, 64)).save(path)
    elif kind == "flat":
        Image.new("RGB", (64, 64), (80, 120, 40)).save(path)
    elif kind == "empty":
        path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("text", "is not a PNG, JPEG or WebP"),
        ("cut", "damaged or cut short"),
        ("cut_jpeg", "damaged or cut short"),
        ("dot", "too few"),
        ("huge", "too large"),
        ("animated", "animated"),
        ("clear", "no object found"),
        ("flat", "no object found"),
        ("empty", "empty"),
    ],
)
def test_pictures_that_cannot_be_lifted(capsys, monkeypatch, tmp_path, kind, says):
    refused(capsys, monkeypatch, tmp_path / "out", says, broken(tmp_path, kind))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--elevation-deg", "nan"), "--elevation-deg nan"),
        (("--azimuth-deg", "inf"), "--azimuth-deg inf"),
        (("--elevation-deg", "91"), "-90 to 90"),
        (("--recipe", "gues"), "did you mean guess?"),
        (("--recipe", "Views"), "did you mean views?"),
        (("--recipe", "xyz"), "there are consistent123, "),
        (("--device", "tpu"), "expected cpu"),
        (("--device", "cuda:x"), "expected cpu"),
        (("--device", "cpu:7"), "expected cpu"),
        (("--prior", "nowhere"), "nowhere: no such folder"),
        (("--seed", "-1"), "--seed -1"),
        (("--elevatoin-deg", "3"), "did you mean --elevation-deg?"),
        (("--seed", "abc"), "'abc'"),
        (("--seed",), "missing value for argument '--seed'"),
        (("--preset", "fast"), "expected one of ('draft', 'standard', 'fine')"),
    ],
)
def test_flags_that_make_no_sense(capsys, monkeypatch, tmp_path, words, says):
    refused(capsys, monkeypatch, tmp_path / "out", says, CHAIR, *words)


def test_objects_that_are_not_there_leave_no_folder_of_scores(capsys, monkeypatch, tmp_path):
    words = ("evaluate", "--objects", tmp_path / "nowhere", "--out", tmp_path / "out")
    code, said = run(capsys, monkeypatch, *words)
    assert code == 2 and "no readable index.json" in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [(("lfit", "x.png"), "did you mean lift?"), ((), "expected one of {lift"), (("splat",), "missing from bozzetto splat: PATH")],
)
def test_what_no_verb_can_be_made_of(capsys, monkeypatch, words, says):
    code, said = run(capsys, monkeypatch, *words)
    assert code == 2 and said.startswith("error: ") and says in said and said.count("\n") == 1, said


@pytest.mark.parametrize("verb", ["lift", "views", "splat"])
def test_a_seed_that_no_generator_takes(capsys, monkeypatch, tmp_path, verb):
    out = tmp_path / ("out.ply" if verb == "splat" else "out")
    code, said = run(capsys, monkeypatch, verb, CHAIR, "--seed", 10**23, "--out", out)
    assert code == 2 and "--seed 1000" in said and said.count("\n") == 1 and not out.exists(), said


@pytest.mark.parametrize("fault", ["missing", "truncated", "pickled", "mis-shaped", "no config"])
def test_weights_that_are_not_whole(capsys, monkeypatch, tmp_path, fault):
    folder = tmp_path / "prior"
    shutil.copytree(MINI / "first_guess", folder)
    weights = folder / "model.safetensors"
    if fault == "missing":
        weights.unlink()
    elif fault == "truncated":
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    elif fault == "pickled":
        import torch

        torch.save({"a": torch.zeros(2)}, weights)
    elif fault == "no config":
        (folder / "config.json").unlink()
    else:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "depths": 32}))
    refused(capsys, monkeypatch, tmp_path / "out", "prior", CHAIR, "--prior", folder)


def test_an_output_that_is_a_file(capsys, monkeypatch, tmp_path):
    out = tmp_path / "file"
    out.write_text("mine")
    code, said = run(capsys, monkeypatch, "lift", CHAIR, "--out", out)
    assert code == 2 and "is a file" in said and out.read_text() == "mine"


def test_a_run_of_another_version_is_not_resumed(capsys, monkeypatch, tmp_path):
    state = tmp_path / "out" / ".run"
    state.mkdir(parents=True)
    (state / "run.json").write_text(json.dumps({"version": "0.0.1"}))
    code, said = run(capsys, monkeypatch, "lift", CHAIR, "--out", tmp_path / "out", "--resume")
    assert code == 2 and "0.0.1" in said and (state / "run.json").exists()


def test_a_full_disk_is_said_and_leaves_nothing_half_written(capsys, monkeypatch, tmp_path):
    from bozzetto.fit import run as runs

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs, "save_file", full)
    code, said = run(capsys, monkeypatch, "lift", CHAIR, "--preset", "draft", "--out", tmp_path / "out")
    assert code == 2 and "No space left" in said and "--resume" in said
    assert [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()] == ["run.json"]


def test_numbers_that_run_away_in_one_picture_stop_no_other(capsys, monkeypatch, tmp_path):
    from bozzetto.verbs import lift

    tried = []

    def fails(path, out, **_):
        tried.append(path.name)
        raise FloatingPointError("stage shape, step 3: the loss is nan")

    monkeypatch.setattr(lift, "lift", fails)
    for name in ("a", "b"):
        shutil.copy(CHAIR, tmp_path / f"{name}.png")
    code, said = run(capsys, monkeypatch, "lift", tmp_path / "a.png", tmp_path / "b.png", "--out", tmp_path / "out")
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert code == 1 and tried == ["a.png", "b.png"] and len(lines) == 2 and "step 3" in lines[1], said


def test_a_stage_that_no_ctrl_c_cut_short_is_kept(tmp_path):
    import torch

    from bozzetto.fit.run import Run

    run = Run(tmp_path, {})
    run.interrupted = True  # while the first runs
    run.stage("whole", lambda: {"x": torch.ones(1)}, dict)
    run.stage("loop", lambda: {"x": torch.full((1,), float(run.must_stop()))}, dict)
    run.stage("of the loop", lambda: {"x": torch.ones(1)}, dict)
    assert [p.name for p in (tmp_path / ".run").glob("*.safetensors")] == ["whole.safetensors"]


def test_an_object_that_touches_the_border_is_lifted_with_a_warning(capsys, monkeypatch, tmp_path):
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, 20:44] = (200, 60, 40, 255)
    Image.fromarray(pixels).save(tmp_path / "post.png")
    code, said = run(capsys, monkeypatch, "lift", tmp_path / "post.png", *QUICK, "--out", tmp_path / "out", "--quiet")
    assert code == 0 and "touches" in said and (tmp_path / "out" / "asset.glb").exists()


def test_help_imports_nothing_heavy():
    import subprocess
    import sys

    code = "import sys, bozzetto.cli; print(sorted(set(sys.modules) & {'torch', 'numba', 'cv2', 'scipy', 'numpy', 'trimesh'}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout.strip() == "[]"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_a_name_of_any_bytes_gives_an_asset(capsys, monkeypatch, tmp_path):
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, 20:44] = (200, 60, 40, 255)  # touches the border: its warning, with the name, goes into asset.json
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    Image.fromarray(pixels).save(path)
    code, said = run(capsys, monkeypatch, "lift", path, *QUICK, "--out", tmp_path / "out")
    about = json.loads((tmp_path / "out" / "asset.json").read_text(encoding="utf-8"))
    assert code == 0 and about["source"] == "caf\ufffd.png" and "caf\ufffd.png" in about["warnings"][0], said
    assert (tmp_path / "out" / "asset.glb").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_standard_output_that_is_full_gets_one_sentence():
    body = "from bozzetto import cli; cli._say('a'); cli._say('b')"
    say = f"import sys\nfrom bozzetto.errors import InputError\ntry:\n    {body}\nexcept InputError as e:\n    print(e, file=sys.stderr)"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", say], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("standard output cannot be written (No space left on device); what was to be made is there: a")


def test_standard_output_that_knows_ascii_alone_gets_any_name():
    say = "import sys; sys.argv = ['bozzetto', 'settings', '--nonesuch']\nfrom bozzetto import cli\n"
    say += r"try: cli.main()" + "\nexcept SystemExit: " + r"cli._say('caf\xe9 \udce9')"
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", say], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "caf\\xe9 \\udce9\n", done.stderr


def test_a_folders_hidden_files_and_folders_are_passed_over_and_other_pictures_named(tmp_path):
    for name in (".DS_Store", "._b.png", "b.png", "B2.JPG", "c.heic", "d.tif", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "sub.png").mkdir()
    said: list[str] = []
    assert jobs([tmp_path], Path("out"), None, said.append) == [
        (tmp_path / "B2.JPG", Path("out/B2")),
        (tmp_path / "b.png", Path("out/b")),
    ]
    assert said == [f"{tmp_path}: c.heic, d.tif skipped; save as PNG, JPEG or WebP"]
    for name in ("b.png", "B2.JPG"):
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match=r"no pictures in this folder \(PNG, JPEG or WebP\); save c\.heic, d\.tif as one of these"):
        jobs([tmp_path], Path("out"), None, said.append)
