# SPDX-License-Identifier: Apache-2.0
"""`--set`: every setting of every recipe can be named, read, refused, and found in the record."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path

import pytest

from bozzetto import cli
from bozzetto.errors import InputError
from bozzetto.fit import finish
from bozzetto.fit.settings import Within, changed, listed, value_of
from bozzetto.recipes import RECIPES, guess, zero123
from bozzetto.verbs.lift import lift

ROOT = Path(__file__).parent.parent
CHAIR = ROOT / "examples" / "wooden-chair.png"


def leaves(settings: object, prefix: str = "") -> list[str]:
    """Dotted names of all numbers in nested dataclasses, by walking values instead of annotations."""
    names = []
    for field in fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, field.name)
        names += leaves(value, f"{prefix}{field.name}.") if is_dataclass(value) else [prefix + field.name]
    return names


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_setting_has_a_name_and_a_meaning_and_its_presets_obey_its_limits(recipe):
    for settings in RECIPES[recipe].presets.values():
        rows = list(listed(type(settings)))
        assert [s.name for s in rows] == leaves(settings)
        assert all(s.meaning for s in rows)
        for s in rows:  # what a preset holds can be written on the command line, and reading it changes nothing
            assert changed(settings, [f"{s.name}={value_of(settings, s.name)}"]) == settings, s.name


def test_a_change_is_of_that_setting_alone_and_presets_stay():
    standard = zero123.RECIPE.presets["standard"]
    made = changed(standard, ["guess.steps=7", "mask-weight = 2.5", "levels.lowest.after=0.3", "guess.steps=9"])
    levels = replace(standard.levels, lowest=replace(standard.levels.lowest, after=0.3))
    assert made == replace(standard, guess=replace(standard.guess, steps=9), mask_weight=2.5, levels=levels)
    assert zero123.RECIPE.presets["standard"] == standard == zero123.Zero123()
    assert changed(standard, []) == standard
    assert changed(standard, ["texture=512", "views=3"]) == changed(standard, ["finish.texture=512", "around.views=3"])  # nobody else's
    views = RECIPES["views"].presets["draft"]
    assert changed(views, ["drawing.guidance=4"]).drawing.guidance == 4.0
    assert changed(changed(views, ["drawing.guidance=4"]), ["drawing.guidance=none"]) == views


def test_limits_hold_at_their_ends():
    draft = guess.RECIPE.presets["draft"]
    limits = next(s.within for s in listed(guess.Guess) if s.name == "cells")
    assert isinstance(limits, Within)
    for value in (limits.low, limits.high):
        assert changed(draft, [f"cells={value:.0f}"]).cells == value
    for value in (limits.low - 1, limits.high + 1):
        with pytest.raises(InputError, match="expected a whole number from"):
            changed(draft, [f"cells={value:.0f}"])


@pytest.mark.parametrize(
    ("recipe", "words", "says"),
    [
        ("guess", ["stpes=20"], "did you mean steps?"),
        ("guess", ["mask-wieght=2"], "did you mean mask_weight?"),
        ("zero123", ["after=0.5"], "did you mean levels.lowest.after or levels.highest.after?"),
        ("views", ["drawing.count=3"], "there is no such setting"),
        ("guess", ["steps"], "expected NAME=VALUE, such as cells=40"),
        ("guess", ["steps=2.5"], "--set steps=2.5: expected a whole number from 1"),
        ("guess", ["steps=ten"], "expected a whole number"),
        ("guess", ["steps="], "expected a whole number"),
        ("guess", ["lr=nan"], "--set lr=nan: expected a number from 0 to 1"),
        ("guess", ["mask_weight=inf"], "expected a number"),
        ("guess", ["faces=-5"], "expected a whole number from 100 to 1e+06"),
        ("guess", ["texture=none"], "expected a whole number"),
        ("zero123", ["levels.lowest.before=0.9"], "expected 0 <= lowest <= highest <= 1 at step 0"),
        ("zero123", ["levels.lowest.before=nan"], "expected a number"),
    ],
)
def test_what_cannot_be_set_is_said_in_one_sentence_before_anything_is_written(capsys, monkeypatch, tmp_path, recipe, words, says):
    flags = [w for word in words for w in ("--set", word)]
    out = tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["bozzetto", "lift", str(CHAIR), "--preset", "draft", "--recipe", recipe, "--out", str(out), *flags])
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = capsys.readouterr().err.strip()
    assert left.value.code == 2 and said.startswith("error: ") and says in said and "\n" not in said, said
    assert not out.exists()


def test_settings_are_written_and_a_resumed_run_must_have_the_same(capsys, monkeypatch, tmp_path):
    """A tiny lift, stopped by its first checkpoint; the record and the GLB's texture are as asked for."""
    out = tmp_path / "out"
    words = ["--preset", "draft", "--set", "steps=4", "--set", "cells=20", "--set", "texture=128", "--set", "finish.faces=800"]

    def run(*more: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["bozzetto", "lift", str(CHAIR), "--out", str(out), *words, *more])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    stops = finish.tidy

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(finish, "tidy", stop)
    assert run()[0] == 130 and (out / ".run" / "shape.safetensors").exists()
    monkeypatch.setattr(finish, "tidy", stops)
    code, _, said = run("--set", "lr=0.1", "--set", "steps=5", "--resume")
    assert code == 2 and "other settings.lr, settings.steps;" in said and said.count("\n") == 1, said
    code, told, _ = run("--resume", "--json")
    assert code == 0
    described = json.loads((out / "asset.json").read_text())
    made = replace(guess.RECIPE.presets["draft"], steps=4, cells=20, finish=finish.Finish(faces=800, texture=128))
    assert {k: described["settings"][k] for k in asdict(made)} == asdict(made) and described["settings"]["preset"] == "draft"
    assert json.loads(told)["settings"] == described["settings"] and described["faces"] <= 800


def test_settings_of_another_recipe_are_a_programmers_mistake(tmp_path):
    with pytest.raises(ValueError, match="expected Guess, got Zero123"):
        lift(CHAIR, tmp_path / "out", settings=zero123.Zero123())


def test_the_list_names_every_setting(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.argv", ["bozzetto", "settings", "--recipe", "zero123"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = capsys.readouterr().out
    assert left.value.code == 0 and all(s.name in said for s in listed(zero123.Zero123)) and "from 1 to 100000" in said
