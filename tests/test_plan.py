# SPDX-License-Identifier: Apache-2.0
"""What a run will take, told before it is spent: counted exactly, above what is used, refused where it cannot fit."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import published as random_weights
from bozzetto import cli, memory
from bozzetto.errors import InputError
from bozzetto.fit.around import Around
from bozzetto.fit.boundary import Boundary
from bozzetto.fit.drawings import Drawing
from bozzetto.fit.finish import Finish
from bozzetto.fit.sculpt import Coarse
from bozzetto.fit.silhouette import Silhouette
from bozzetto.priors import load, loading, plan
from bozzetto.priors.latent import ConditionedUNet, LatentPrior
from bozzetto.priors.loading import TEXT
from bozzetto.priors.plan import Asked, Count, Plan, count
from bozzetto.priors.triposr import costs
from bozzetto.recipes import RECIPES
from bozzetto.recipes.consistent123 import Consistent123
from bozzetto.recipes.dreamcraft3d import DreamCraft3D
from bozzetto.recipes.magic123 import Magic123
from bozzetto.recipes.views import FromViews
from bozzetto.recipes.zero123 import Zero123
from bozzetto.verbs.lift import lift
from bozzetto.verbs.plan import for_drawing, for_lift

ROOT = Path(__file__).parent.parent
CHAIR = ROOT / "examples" / "wooden-chair.png"
LINE = r"needs about \d+\.\d GB of memory and \d+(\.\d)? (s|min|hours) on this machine"


def meta(*shape: int, dtype: torch.dtype = torch.float32, **more: Any) -> torch.Tensor:
    return torch.empty(*shape, device="meta", dtype=dtype, **more)


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion's layout, small, random."""
    return random_weights.write("stable-diffusion-1.5", tmp_path_factory.mktemp("published") / "sd", "tiny")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Says how many bytes this process may come to."""

    def of(room: float) -> None:
        monkeypatch.setattr(memory, "machine", lambda: (int(64e9), int(room)))
        monkeypatch.setattr(memory, "resident", lambda: 0)

    return of


# ---- counting ----


def test_products_are_counted_as_they_are_written():
    a, b, c = meta(3, 5), meta(5, 7), meta(2, 4, 16, 16)
    assert count(lambda: a @ b).flop == 2 * 3 * 5 * 7
    assert count(lambda: F.conv2d(c, meta(6, 4, 3, 3), padding=1)).flop == 2 * 2 * 6 * 16 * 16 * 4 * 9
    q, k, v = meta(2, 3, 11, 8), meta(2, 3, 13, 8), meta(2, 3, 13, 4)
    with torch.no_grad():
        for ask in (lambda: F.scaled_dot_product_attention(q, k, v), lambda: F.scaled_dot_product_attention(q, key=k, value=v)):
            found = count(ask)
            assert found.flop == 2 * 2 * 3 * 11 * 13 * (8 + 4) and found.working == 4 * 2 * 3 * 11 * 4  # its result, not its matrix
    with_gradient = count(lambda: F.scaled_dot_product_attention(meta(1, 1, 11, 8, requires_grad=True), k[:1, :1], v[:1, :1]))
    assert with_gradient.flop == 2 * 11 * 13 * (8 + 4) and with_gradient.working > 4 * 11 * 13


def test_what_is_alive_at_once_is_counted_and_what_was_there_is_not():
    n, x, weight = 4 * 1000, meta(1000), meta(1000, 1000)

    def three() -> None:
        a = x + 1
        b = a + 1
        del a
        c = b + 1
        del b
        c.add_(1)  # makes nothing

    assert count(three) == Count(0, 4, 2 * n)
    assert count(lambda: weight.t()[:10].abs()).working == 4 * 10 * 1000  # views of what was there, and one that is new
    assert count(lambda: weight @ x[:, None]).working == 2 * n + n + 4 * 1000 * 1000  # and all is laid out anew meanwhile
    kept: list[torch.Tensor] = []
    assert count(lambda: kept.append(x + 1)).working == n and count(lambda: kept[0] + 1).working == n


@pytest.mark.parametrize("name", ["mini", "digits-ddpm"])
def test_a_priors_calls_have_the_products_that_torch_counts_in_a_real_run(name: str):
    prior, outline = load(name), load(name, device="meta")
    x = torch.randn(2, *prior.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pairs: list[tuple[Callable[[], Any], Callable[[], Any]]] = [
            (
                lambda: prior.denoiser.denoise(x, 1.0, prior.condition()),
                lambda: outline.denoiser.denoise(x.to("meta"), 1.0, outline.condition()),
            ),
            (lambda: prior.decode(x), lambda: outline.decode(x.to("meta"))),
        ]
        for real, planned in pairs:
            with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
                real()
            assert count(planned).flop == counter.get_total_flops()


def test_an_outline_reads_no_number(diffusion: Path, tmp_path: Path):
    folder = tmp_path / "prior"
    shutil.copytree(diffusion, folder)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["conv_in.bias"].fill_(torch.nan)
    save_file(weights, path)
    outline: Any = load(folder, dtype=torch.bfloat16, device="meta")
    assert {p.device.type for p in outline.parameters()} == {"meta"} and {p.dtype for p in outline.parameters()} == {torch.bfloat16}
    with pytest.raises(InputError, match=r"conv_in\.bias is not finite"):
        load(folder)
    positions = 8 * 77  # the tower's only buffer, int64
    assert plan.size_of(outline) == 2 * sum(p.numel() for p in outline.parameters()) + positions and plan.size_of(None) == 0


def test_a_plan_is_the_sum_of_what_is_asked(diffusion: Path):
    outline = load(diffusion, device="meta")
    made = {n: Plan(0).plus(outline, asked) for n, asked in enumerate((Asked(), Asked(8), Asked(8, 4), Asked(8, 4, 4), Asked(8, 4, 4, 4)))}
    weights = plan.size_of(outline)
    assert made[0].flop == 0 and made[0].weights == weights
    assert made[1].flop == pytest.approx(made[2].flop) and made[1].operations == pytest.approx(4 * made[2].operations, rel=0.1)
    assert made[1].flop < made[3].flop < made[4].flop
    assert weights < made[1].ram < made[2].ram == made[3].ram < made[4].ram
    both = made[3].plus(outline, Asked(8, 4, 4))
    assert both.flop == 2 * made[3].flop and both.ram == 2 * made[3].ram


def test_a_codec_takes_one_picture_after_another(diffusion: Path):
    prior, outline = load(diffusion), load(diffusion, device="meta")
    z = torch.randn(4, *prior.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(prior.decode(z), torch.cat([prior.decode(row[None]) for row in z]), rtol=0, atol=1e-6)
        one, four = (count(lambda n=n: outline.decode(meta(n, *outline.shape))) for n in (1, 4))
    assert four.flop == 4 * one.flop and four.working < 2 * one.working


# ---- against what is taken ----

TAKEN = """
import json, sys, torch
from pathlib import Path
from bozzetto import memory
from bozzetto.fit.drawings import Drawing
from bozzetto.fit.run import peak_gb
from bozzetto.priors import load, plan, sample

@torch.no_grad()
def draw(prior, drawing, count):
    made = sample(prior, prior.condition(), count=count, sampler=drawing.sampler(prior), generator=torch.Generator().manual_seed(0))
    prior.decode(made)

for where, kind, batch in json.loads(sys.argv[1]):
    drawing = Drawing(steps=1, guidance=3.0, batch=batch)
    outline = load(where, kind, device="meta")
    planned = plan.Plan().plus(outline, drawing.asked(outline, batch))
    prior = load(where, kind)
    draw(prior, drawing, 1)
    before = memory.resident()
    Path("/proc/self/clear_refs").write_text("5")
    draw(prior, drawing, batch)
    peak = peak_gb() * 1024**3
    print(json.dumps([planned.ram, peak, planned.weights, peak - before]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory cannot be begun anew here")
@pytest.mark.slow
def test_what_is_planned_is_above_what_is_taken_and_that_above_the_weights(tmp_path: Path):
    cases: list[tuple[str, str | None, int]] = [("mini", None, 64), ("mini", TEXT, 64)]
    for name, kind in (("stable-diffusion-1.5", None), ("zero123-xl", "zero123-xl")):
        cases.append((str(random_weights.write(name, tmp_path / name, "tiny")), kind, 64))
    done = subprocess.run([sys.executable, "-c", TAKEN, json.dumps(cases)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(cases)
    for planned, taken, weights, grown in lines:
        assert planned >= taken >= weights > 0
        working = planned - plan.LIBRARIES - weights  # what was there before is known here: from above, and not by far
        assert grown <= working + 32e6, (working, grown)
        assert working <= 4 * grown + 32e6, (working, grown)
    assert lines[0][3] > 64e6


READ = """
import sys, torch
from pathlib import Path
from torch import nn
from bozzetto import memory
from bozzetto.fit.run import peak_gb
from bozzetto.priors.components import component
build = lambda: nn.Sequential(*(nn.Linear(1000, 1000) for _ in range(100)))
torch.zeros(1000, 1000).to(torch.bfloat16).isfinite().all()
before = memory.resident()
Path("/proc/self/clear_refs").write_text("5")
network = component(Path(sys.argv[1]), build, torch.bfloat16, "cpu")
print(peak_gb() * 1024**3 - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory cannot be begun anew here")
def test_a_file_is_not_in_memory_beside_the_weights_that_are_read_of_it(tmp_path: Path):
    save_file(
        {f"{k}.{name}": torch.zeros(shape) for k in range(100) for name, shape in (("weight", (1000, 1000)), ("bias", (1000,)))},
        tmp_path / "model.safetensors",
    )
    done = subprocess.run([sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 200e6 + 64e6 + 50e6  # weights, the window, and what else: 257 MB measured; the file alone is 400 MB


# ---- what recipes say they ask ----

SMALL = Silhouette(cells=24, steps=2, picture=64)
TINY: dict[str, Any] = {"coarse": Coarse(steps=8, picture=32, around=32, levels=4, sections=4), "steps": 5, "picture": 32}
TINY |= {"cells": 12, "colours": 16, "finish": Finish(500, 64)}
ASKED: list[Any] = [
    pytest.param(
        "views",
        FromViews(guess=SMALL, ring=2, above=1, samples=2, drawing=Drawing(steps=2, guidance=3.0, batch=2), finish=Finish(500, 64)),
        marks=pytest.mark.slow,
    ),
    ("zero123", Zero123(guess=SMALL, steps=3, around=Around(views=2), picture=32, colours=16, finish=Finish(500, 64))),
    pytest.param("magic123", Magic123(**TINY), marks=pytest.mark.slow),
    pytest.param("dreamcraft3d", DreamCraft3D(**TINY, boost=15), marks=pytest.mark.slow),
    pytest.param("consistent123", Consistent123(**TINY, boundary=Boundary(latest=0.4)), marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "settings"), ASKED)
def test_a_recipe_asks_what_it_says(monkeypatch: pytest.MonkeyPatch, name: str, settings: Any):
    asked: list[int] = []
    encoded: list[int] = []
    true_forward, true_encode = ConditionedUNet.forward, LatentPrior.encode_pictures

    def forward(self: ConditionedUNet, x_t: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        if not x_t.is_meta:
            asked.append(len(x_t))
        return true_forward(self, x_t, *rest, **more)

    def encode(self: Any, rgb: torch.Tensor, **more: Any) -> torch.Tensor:
        if rgb.requires_grad and not rgb.is_meta:
            encoded.append(len(rgb))
        return true_encode(self, rgb, **more)

    monkeypatch.setattr(ConditionedUNet, "forward", forward)
    monkeypatch.setattr(LatentPrior, "encode_pictures", encode)
    told: list[str] = []
    lift(CHAIR, recipe=name, settings=settings, tell=told.append)
    assert len(told) == 1 and told[0].startswith("needs about 1.")
    asks, outline = RECIPES[name].asks, load("mini", device="meta")
    assert asks is not None
    said = asks(settings, dict.fromkeys(RECIPES[name].needs, outline)).values()
    assert sum(asked) == sum(s.calls + s.taught for s in said) and max(asked) == max(s.batch for s in said)
    assert sum(encoded) == sum(s.pulled for s in said)
    assert sum(s.decoded for s in said) == (6 if name == "views" else 0)


def test_every_recipe_with_a_diffusion_prior_says_what_it_asks():
    for recipe in RECIPES.values():
        assert (recipe.asks is not None) == bool(set(recipe.needs) - {"first_guess"}), recipe.name


# ---- this machine ----


def test_the_speed_of_a_machine_is_measured_once(monkeypatch: pytest.MonkeyPatch):
    here = plan.speed("cpu", torch.float32)
    monkeypatch.setattr(plan, "_usual", None)
    assert plan.speed("cpu", torch.float32) is here and here.rate > 0 and here.delay > 0
    monkeypatch.setattr(plan, "speed", lambda *_: plan.Speed(2 * plan.REFERENCE, 1e-5))
    assert Plan(flop=plan.REFERENCE, operations=1e5, rest=4).seconds == pytest.approx(0.5 + 1 + 2)
    assert Plan(rest=None).seconds is None and Plan().seconds == 0


@pytest.mark.parametrize(
    ("seconds", "says"), [(0.2, "1 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 hours"), (1e6, "277.8 hours")]
)
def test_durations_in_words(seconds: float, says: str):
    assert plan.duration(seconds) == says


def test_control_groups_of_both_versions_count_wherever_they_are(tmp_path: Path):
    def put(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    put("proc/meminfo", "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 800 kB\n")
    whole, k = (1000 * 1024, 800 * 1024), 1024
    assert memory.machine(tmp_path) == whole
    put("proc/self/cgroup", "9:name=systemd:/\n8:memory:/a/b\n0::/slice/of/mine\n")
    put("sys/fs/cgroup/slice/memory.max", "max\n")
    put("sys/fs/cgroup/slice/memory.current", "5\n")
    assert memory.machine(tmp_path) == whole
    put("sys/fs/cgroup/slice/memory.max", f"{600 * k}\n")
    put("sys/fs/cgroup/slice/memory.current", f"{500 * k}\n")
    assert memory.machine(tmp_path) == (600 * k, 100 * k)
    put("sys/fs/cgroup/slice/memory.stat", f"anon 1\ninactive_file {50 * k}\n")
    assert memory.machine(tmp_path) == (600 * k, 150 * k)
    put("sys/fs/cgroup/slice/of/mine/memory.max", f"{700 * k}\n")  # within: wider in all, narrower in what is left
    put("sys/fs/cgroup/slice/of/mine/memory.current", f"{690 * k}\n")
    assert memory.machine(tmp_path) == (600 * k, 10 * k)
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", f"{300 * k}\n")  # in a container its own group's name is not there
    put("sys/fs/cgroup/memory/memory.usage_in_bytes", f"{299 * k}\n")
    assert memory.machine(tmp_path) == (300 * k, 1 * k)
    put("sys/fs/cgroup/memory/memory.usage_in_bytes", f"{301 * k}\n")
    assert memory.machine(tmp_path) == (300 * k, 0)


def test_what_this_process_has_is_no_further_need(monkeypatch: pytest.MonkeyPatch):
    """A second picture finds the prior in memory: what it takes is not free, and not needed again."""
    monkeypatch.setattr(memory, "machine", lambda: (int(8e9), int(1e9)))
    monkeypatch.setattr(memory, "resident", lambda: int(3e9))
    assert Plan(ram=4e9).lacking() == ""
    assert Plan(ram=4.1e9).lacking() == "needs about 4.1 GB of memory, and 4.0 GB of 8.0 GB are free"
    monkeypatch.setattr(memory, "machine", lambda: (None, None))
    assert Plan(ram=1e15).lacking() == ""
    assert memory.resident() > 0


# ---- what is said, and what is refused ----


def run(capsys: Any, monkeypatch: pytest.MonkeyPatch, *words: object) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["bozzetto", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0), capsys.readouterr().err


def test_a_verb_says_what_it_will_take_unless_it_is_quiet(capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    views = ("views", CHAIR, "--count", 1, "--steps", 1)
    draw = ("draw", "a chair", "--steps", 1)
    for words, out in ((views, tmp_path / "views"), (draw, tmp_path / "a.png")):
        code, said = run(capsys, monkeypatch, *words, "--out", out)
        assert code == 0 and re.fullmatch(LINE, said.strip()), said
        code, said = run(capsys, monkeypatch, *words, "--out", out, "--quiet")
        assert code == 0 and said == ""


def test_the_same_is_said_once_for_many_pictures(capsys: Any):
    tell = cli._tell(SimpleNamespace(quiet=False))
    assert tell is not None and cli._tell(SimpleNamespace(quiet=True)) is None
    for sentence in ("a", "a", "b", "a"):
        tell(sentence)
    assert capsys.readouterr().err == "a\nb\n"


def test_what_cannot_fit_is_refused_before_it_begins(capsys: Any, monkeypatch: pytest.MonkeyPatch, short: Any, tmp_path: Path):
    short(0.5e9)
    says = "GB of memory, and 0.5 GB of 64.0 GB are free, which does not suffice, not even with --"
    lift = ("lift", CHAIR, "--preset", "standard")
    for words in (("views", CHAIR), ("draw", "a chair"), lift, (*lift, "--recipe", "views"), (*lift, "--recipe", "zero123")):
        code, said = run(capsys, monkeypatch, *words, "--out", tmp_path / ("out.png" if words[0] == "draw" else "out"))
        lines = said.splitlines()
        assert code == 2 and len(lines) == 1 and lines[0].startswith("error: needs about") and says in lines[0], said
        assert list(tmp_path.iterdir()) == []


def test_the_first_choice_that_fits_is_named(short: Any):
    def make(size: float = 8e9, offload: bool = False) -> Plan:
        return Plan(size - 2e9 * offload)

    smaller = [("--offload", {"offload": True}), ("--precision bf16", {"size": 5e9}), ("--preset draft", {"size": 4e9})]
    short(9e9)
    assert plan.agreed(make, smaller).ram == 8e9
    for room, says in (
        (7e9, "; with --offload it needs 6.0 GB of memory"),
        (5e9, "; with --offload --precision bf16 it needs 3.0 GB of memory"),
    ):
        short(room)
        with pytest.raises(InputError, match=re.escape(says)):
            plan.agreed(make, smaller)
    short(1e9)
    with pytest.raises(
        InputError, match="not even with --offload --precision bf16 --preset draft; close other programs, or take a machine"
    ):
        plan.agreed(make, smaller)
    with pytest.raises(InputError, match="which does not suffice; close other programs"):
        plan.agreed(make, [])


def test_each_verb_offers_what_it_has(monkeypatch: pytest.MonkeyPatch):
    offered: list[list[str]] = []

    def agreed(make: Callable[..., Plan], smaller: Any) -> Plan:
        found = list(smaller)
        offered.append([flag for flag, _ in found])
        whole = make()
        assert all(make(**how).ram <= whole.ram or "--offload" in flag for flag, how in found)  # each is one of its arguments
        return whole

    monkeypatch.setattr("bozzetto.verbs.plan.agreed", agreed)
    views, guess = RECIPES["views"], RECIPES["guess"]
    for_lift(guess, "draft", guess.presets["draft"], {})
    for_lift(guess, "fine", guess.presets["fine"], {})
    for_lift(views, "standard", views.presets["standard"], {})
    for_drawing("views", "mini", Drawing(), 8)
    for_drawing("text", "mini", Drawing(), 1, TEXT, precision="bf16")
    for_drawing("text", "mini", Drawing(), 1, TEXT, device="cuda")
    assert offered == [
        [],
        ["--preset draft"],
        ["--precision bf16", "--set drawing.batch=1", "--preset draft"],
        ["--precision bf16", "--count 1"],
        [],
        ["--offload"],
    ]


def test_triposr_as_a_guess_counts(tmp_path: Path):
    """By `triposr.costs`, which FF-22 holds against what is taken."""
    guess, folder = RECIPES["guess"], random_weights.write("triposr", tmp_path / "triposr", "tiny")
    plain = for_lift(guess, "draft", guess.presets["draft"], {})
    with_it = for_lift(guess, "draft", guess.presets["draft"], {"first_guess": str(folder)})
    cost = costs(random_weights.TINY_TRIPOSR)
    assert with_it.ram - plain.ram == pytest.approx(cost.peak - plan.LIBRARIES) and cost.peak > plan.LIBRARIES
    assert (with_it.flop, with_it.weights) == (cost.network, cost.weights) and plain.flop == 0


def test_a_third_prior_that_paints_counts_and_so_do_a_words_lessons():
    """Asked as often as where the text's prior paints; only the weights are there once more."""
    recipe, settings = RECIPES["dreamcraft3d"], DreamCraft3D(**TINY, boost=15)
    two, three = (for_lift(recipe, "draft", settings, priors) for priors in ({}, {"paint": "mini"}))
    assert three.flop == pytest.approx(two.flop) and three.weights > two.weights and three.ram > two.ram
    recipe = RECIPES["magic123"]
    asked = [recipe.asks(replace(Magic123(**TINY), invert=n), {})["text"] for n in (0, 7)]  # type: ignore[misc]
    assert asked[1] == asked[0]._replace(taught=7)


# ---- cards ----


def test_a_card_is_planned_for_by_itself(monkeypatch: pytest.MonkeyPatch, diffusion: Path, short: Any):
    short(64e9)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: int(1e9))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(5e9), int(6e9)))
    here, card = (for_drawing("text", diffusion, Drawing(), 4, TEXT, device=device) for device in ("cpu", "cuda"))
    positions = 8 * 77  # the tower's only buffer, int64
    assert here.vram == 0 and card.weights - positions == (here.weights - positions) / 2  # fp16 by itself
    assert card.vram > plan.CONTEXT + card.weights and card.ram == pytest.approx(0.9e9)
    away = for_drawing("text", diffusion, Drawing(), 4, TEXT, device="cuda", offload=True)
    codec: Any = load(diffusion, dtype=torch.float16, device="meta")
    assert card.vram - away.vram == card.weights - plan.size_of(codec.codec) and away.ram - card.ram == card.weights
    card = Plan(ram=1e9, vram=7e9, device="cuda:1")
    assert card.lacking() == "needs about 7.0 GB of cuda:1's memory, and 6.0 GB of 6.0 GB are free"
    assert Plan(ram=1e9, vram=5.9e9, device="cuda:1").lacking() == ""
    monkeypatch.setattr(plan, "speed", lambda *_: plan.Speed(1e9, 1e-5))
    assert card.sentence() == "needs about 7.0 GB of cuda:1's memory, 1.0 GB of this machine's, and 1 s on this machine"
    assert Plan(ram=1e9, rest=None).sentence() == "needs about 1.0 GB of memory; how long was not measured"


def test_what_is_offloaded_goes_layer_by_layer_and_draws_the_same(monkeypatch: pytest.MonkeyPatch, diffusion: Path, tmp_path: Path):
    """Without a card: hooks of diffusers' on all layers with weights but the codec's, brought and taken away in each call."""
    from diffusers.hooks.group_offloading import ModuleGroup

    brought: list[torch.nn.Parameter] = []
    true_onload = ModuleGroup.onload_

    def onload(self: Any) -> None:
        brought.extend([*self.parameters, *(p for m in self.modules for p in m.parameters())])
        true_onload(self)

    monkeypatch.setattr(ModuleGroup, "onload_", onload)
    other = load(random_weights.write("zero123-xl", tmp_path / "xl", "tiny"), "zero123-xl")
    for prior, told in ((load(diffusion), {"text": "a chair"}), (other, {})):
        x: torch.Tensor = torch.randn(2, *prior.shape, generator=torch.Generator().manual_seed(0))
        away: Any = prior
        with torch.no_grad():
            plain = prior.denoiser.denoise(x, 1.0, prior.condition(**told))
            away.offload("cpu")
            brought.clear()
            assert torch.equal(away.denoiser.denoise(x, 1.0, away.condition(**told)), plain)
        layers = [away.unet, *([away.text_encoder] if told else [])]
        assert {id(p) for layer in layers for p in layer.parameters()} <= {id(p) for p in brought}
        assert not {id(p) for p in brought} & {id(p) for p in away.codec.parameters()}


@pytest.mark.parametrize("words", [("views", CHAIR), ("draw", "a chair"), ("lift", CHAIR, "--recipe", "views")])
def test_without_a_card_there_is_nothing_to_offload(capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: Any):
    code, said = run(capsys, monkeypatch, *words, "--offload", "--out", tmp_path / ("a.png" if words[0] == "draw" else "a"))
    assert code == 2 and said == "error: --offload: with --device cpu the networks are in the machine's memory already; leave it out\n"
    assert list(tmp_path.iterdir()) == []


def test_small_priors_have_nothing_to_offload():
    with pytest.raises(InputError, match="no large networks to keep elsewhere"):
        load("digits-ddpm", device="meta", offload=True)


def test_a_precision_reaches_the_networks_by_every_verb(capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    seen: list[torch.dtype] = []
    true_load = loading.load_as

    def load_as(*given: Any, **more: Any) -> Any:
        if more.get("device") != "meta":
            seen.append(more["dtype"])
        return true_load(*given, **more)

    monkeypatch.setattr(loading, "load_as", load_as)
    for words, out in ((("views", CHAIR, "--count", 1, "--steps", 1), "views"), (("draw", "a chair", "--steps", 1), "a.png")):
        assert run(capsys, monkeypatch, *words, "--precision", "bf16", "--out", tmp_path / out)[0] == 0
    assert seen == [torch.bfloat16] * 2
    code, said = run(capsys, monkeypatch, "draw", "a chair", "--precision", "float16", "--out", tmp_path / "b.png")
    assert code == 2 and "bf16" in said and said.count("\n") == 1
