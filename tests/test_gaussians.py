# SPDX-License-Identifier: Apache-2.0
"""Gaussians as a shape: bookkeeping of densification (GS-8), Markov chain Monte Carlo, and their files."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bozzetto.camera import orbit
from bozzetto.errors import InputError
from bozzetto.formats.ply import FIELDS, from_ply, to_ply, to_splat
from bozzetto.shapes.densify import Densify, DensifySchedule, Mcmc, thinned
from bozzetto.shapes.gaussians import NAMES, Gaussians, means_rate, scene_extent


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some(n: int = 12, seed: int = 0) -> Gaussians:
    g = Gaussians.from_box(n, 0.5, generator=seeded(seed))
    with torch.no_grad():
        for p in g.parameters():
            p += 0.1 * torch.randn(p.shape, generator=seeded(seed + 1))
    return g


def stepped(g: Gaussians) -> torch.optim.Adam:
    """An optimiser whose moments all differ."""
    optimiser = g.optimiser(1.0)
    for p in g.parameters():
        p.grad = torch.randn(p.shape, generator=seeded(9))
    optimiser.step()
    return optimiser


def moments(g: Gaussians, optimiser: torch.optim.Adam) -> dict[str, torch.Tensor]:
    assert [group["name"] for group in optimiser.param_groups] == list(NAMES)
    for group in optimiser.param_groups:
        assert group["params"] == [getattr(g, group["name"])], "the optimiser holds the shape's own parameters"
    return {name: optimiser.state[getattr(g, name)]["exp_avg"] for name in NAMES}


def test_gs_8_densification_adds_up_and_moments_follow_their_rows():
    g = some()
    optimiser = stepped(g)
    before, old = moments(g, optimiser), {name: getattr(g, name).detach().clone() for name in NAMES}
    with torch.no_grad():
        g.log_scales[:4] = math.log(0.5)  # large: split
        g.log_scales[4:] = math.log(0.001)  # small: cloned
        g.logit_opacities[:] = 0
        g.logit_opacities[10:] = -8  # faint: pruned
        old["log_scales"] = g.log_scales.detach().clone()
    strategy = Densify(DensifySchedule(), extent=1.0)
    strategy.pull, strategy.visits = torch.zeros(12), torch.full((12,), 2.0)
    strategy.pull[[0, 1, 4, 5, 6]] = 4.1e-4  # over two visits: just above the threshold; Gaussian 2 just below
    strategy.pull[2] = 3.9e-4
    counts = strategy.densify(g, optimiser, prune_large=False, generator=seeded())
    assert counts == {"cloned": 3, "split": 2, "pruned": 2}
    assert len(g) == 12 + 3 + 2 - 2 == len(strategy.pull)
    after = moments(g, optimiser)
    kept = torch.tensor([2, 3, 4, 5, 6, 7, 8, 9])
    for name in NAMES:
        assert after[name].shape == getattr(g, name).shape
        assert torch.equal(after[name][:8], before[name][kept]) and (after[name][8:] == 0).all()
        assert name in ("log_scales", "logit_opacities") or torch.equal(getattr(g, name)[:8], old[name][kept])
    assert torch.equal(g.means[8:11], old["means"][[4, 5, 6]])  # clones stand where their parents do
    ratio = g.scales[11:].prod(-1) / old["log_scales"][[0, 1, 0, 1]].exp().prod(-1)
    torch.testing.assert_close(ratio, torch.full((4,), 1.6**-3), rtol=1e-5, atol=0)
    spread = (g.means[11:] - old["means"][[0, 1, 0, 1]]).norm(dim=-1)
    assert (spread > 0).all() and (spread < 4 * 0.5 * math.sqrt(3)).all()


def row_of_three(hidden: bool) -> Gaussians:
    """One Gaussian in the middle of the picture, behind a wall if `hidden`, and one behind the camera, which stands at x = 3."""
    n = 6
    x = torch.tensor([0.0, 9.0, *(4 * [1.0 if hidden else -1.0])])
    g = Gaussians.from_points(torch.stack([x, 0 * x, 0 * x], 1), torch.rand(n, 3, generator=seeded()))
    with torch.no_grad():
        g.log_scales[:] = math.log(0.02)
        g.log_scales[2:] = math.log(2)
        g.logit_opacities[:] = 9
    return g


def pulled(strategy: Densify, g: Gaussians) -> None:
    s = g.draw(orbit([0.0], 0.0, 3.0, size=32, fov=0.5))
    s.xy.retain_grad()
    (s.rgb * torch.rand(s.rgb.shape, generator=seeded(4))).sum().backward()
    strategy.watch(s, (32, 32))


def test_gs_8_what_is_in_the_picture_is_visited_even_where_nothing_pulls():
    """The released code counts radii > 0: one Gaussian seen once and hidden once has half the mean pull, and stays below the threshold."""
    strategy = Densify(DensifySchedule(), 1.0)
    pulled(strategy, row_of_three(hidden=False))
    once = float(strategy.pull[0])
    assert once > 0 and strategy.visits[:2].tolist() == [1, 0]
    pulled(strategy, row_of_three(hidden=True))
    assert float(strategy.pull[0]) == once  # behind the wall its gradient is exactly 0
    assert strategy.visits[:2].tolist() == [2, 0] and float(strategy.pull[1]) == 0
    for threshold, grown in ((0.49 * once, 1), (0.51 * once, 0), (0.99 * once, 0)):  # by its one gradient alone it would grow at 0.99
        g = row_of_three(hidden=False)
        again = Densify(
            DensifySchedule(threshold=threshold), 1.0, strategy.pull.clone().index_fill(0, torch.arange(1, 6), 0), strategy.visits.clone()
        )
        counts = again.densify(g, g.optimiser(1.0), prune_large=False, generator=seeded())
        assert counts["cloned"] + counts["split"] == grown


@pytest.mark.parametrize("kind", [Densify, Mcmc])
def test_gs_8_the_published_course_ends_before_its_last_step(kind, monkeypatch):
    """`iteration < densify_until_iter`: passes at 600, 700, ... 14,900, and four resets, none at 15,000 where no pruning would follow."""
    passes, resets, now = [], [], [0]
    monkeypatch.setattr("bozzetto.shapes.densify.reset_opacities", lambda *args: resets.append(now[0]))
    monkeypatch.setattr(Densify, "densify", lambda *args, **kw: passes.append(now[0]) or {})
    monkeypatch.setattr(Mcmc, "relocate", lambda *args, **kw: passes.append(now[0]) or 0)
    monkeypatch.setattr(Mcmc, "grow", lambda *args, **kw: 0)
    g = some(2)
    optimiser, strategy = g.optimiser(1.0), kind(DensifySchedule(), 1.0)
    if kind is Densify:
        strategy.pull = strategy.visits = torch.zeros(2)
    for now[0] in range(100, 30_001, 100):
        strategy.after_step(g, optimiser, now[0], generator=seeded())
    assert passes == list(range(600, 15_000, 100)) and len(passes) == 144
    assert resets == ([3000, 6000, 9000, 12_000] if kind is Densify else [])


def test_the_hottest_take_the_room_that_is_left():
    for room in (0, 2):
        g = some()
        with torch.no_grad():
            g.log_scales[:], g.logit_opacities[:] = math.log(0.001), 0
        strategy = Densify(DensifySchedule(max_count=12 + room), 1.0, torch.linspace(1, 2, 12), torch.ones(12))
        old = g.means.detach().clone()
        assert strategy.densify(g, g.optimiser(1.0), prune_large=False, generator=seeded())["cloned"] == room
        assert len(g) == 12 + room and torch.equal(g.means[12:].sort(0).values, old[12 - room :].sort(0).values)


def test_children_are_drawn_from_their_parents_gaussian():
    g = some(2)
    with torch.no_grad():
        g.log_scales[0] = torch.tensor([0.3, 0.1, 0.02]).log()
    n = 4000
    g.replace_rows(g.optimiser(1.0), torch.zeros(n, dtype=torch.long))
    mean, quat, scales = g.means[0].detach().clone(), g.quats[0].detach().clone(), g.scales[0].detach().clone()
    strategy = Densify(DensifySchedule(), 1.0, torch.ones(n), torch.ones(n))
    strategy.densify(g, g.optimiser(1.0), prune_large=False, generator=seeded())
    d = (g.means - mean).detach().double()
    w, u = quat[0].double() / quat.double().norm(), quat[1:].double() / quat.double().norm()
    local = (
        d - 2 * w * torch.linalg.cross(u.expand_as(d), d) + 2 * torch.linalg.cross(u.expand_as(d), torch.linalg.cross(u.expand_as(d), d))
    )
    std = local.pow(2).mean(0).sqrt()
    assert len(d) == 2 * n and ((std / scales - 1).abs() < 4 / math.sqrt(2 * 2 * n)).all()  # four standard errors of a deviation


def test_sizes_are_pruned_only_when_asked_and_resets_lower_opacities():
    g = some()
    optimiser = stepped(g)
    with torch.no_grad():
        g.log_scales[:] = math.log(0.01)
        g.log_scales[3] = math.log(0.2)
        g.logit_opacities[:] = torch.linspace(-6, 3, 12)
    faint = int((g.opacities < 0.005).sum())
    strategy = Densify(DensifySchedule(start=0, every=10, reset_every=20), 1.0, torch.zeros(12), torch.zeros(12))
    assert strategy.after_step(g, optimiser, 5, generator=seeded()) == {"cloned": 0, "split": 0, "pruned": 0}
    assert strategy.after_step(g, optimiser, 10, generator=seeded())["pruned"] == faint > 0
    strategy.after_step(g, optimiser, 20, generator=seeded())
    assert float(g.opacities.detach().max()) <= 0.01 + 1e-7
    assert (moments(g, optimiser)["logit_opacities"] == 0).all() and (moments(g, optimiser)["means"] != 0).any()
    assert strategy.after_step(g, optimiser, 30, generator=seeded())["pruned"] == 1  # the large one, after the first reset


@pytest.mark.parametrize("times", [1, 2, 7, 51])
def test_copies_together_look_as_the_one_did(times):
    """At the middle, 1 - (1 - o')^T = o exactly; along a line, the integral of the alpha of T equal ones is that of one."""
    for opacity in (0.05, 0.5, 0.99):
        o, factor = thinned(torch.tensor([opacity], dtype=torch.float64), torch.tensor([times]))
        assert abs(float(1 - (1 - o) ** times) - opacity) < 1e-12
        x = torch.linspace(-12, 12, 20001, dtype=torch.float64)
        alone = torch.trapezoid(opacity * torch.exp(-x * x / 2), x)
        together = torch.trapezoid(1 - (1 - o * torch.exp(-((x / factor) ** 2) / 2)) ** times, x)
        assert abs(float(together / alone) - 1) < 1e-8
    assert times > 1 or (abs(float(factor) - 1) < 1e-12)


def test_mcmc_moves_the_faint_grows_by_a_twentieth_and_shakes_the_faint_only():
    g = some(100)
    optimiser = stepped(g)
    with torch.no_grad():
        g.logit_opacities[:] = 2.0
        g.logit_opacities[:30] = -8
    strategy = Mcmc(DensifySchedule(max_count=103), 1.0)
    assert strategy.relocate(g, optimiser, generator=seeded()) == 30
    assert float(g.opacities.detach().min()) > 0.005
    where = g.means.detach()
    assert all((where[30:] == where[i]).all(-1).any() for i in range(30))
    assert strategy.grow(g, optimiser, generator=seeded()) == 3 and len(g) == 103
    assert strategy.grow(g, optimiser, generator=seeded()) == 0
    assert all(len(m) == 103 for m in moments(g, optimiser).values())
    with torch.no_grad():
        g.logit_opacities[:50], g.logit_opacities[50:] = -8, 2
    before = g.means.detach().clone()
    strategy.shake(g, 1e-6, generator=seeded())
    moved = (g.means.detach() - before).norm(dim=-1)
    assert (moved[:50] > 0).all() and (moved[50:] < 1e-12).all()


def test_points_get_the_mean_distance_of_their_three_neighbours():
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 2], [10, 0, 0]])
    g = Gaussians.from_points(points, torch.rand(5, 3, generator=seeded()))
    assert abs(float(g.scales[0, 0].detach()) - math.sqrt((1 + 4 + 4) / 3)) < 1e-6
    assert torch.allclose(g.opacities, torch.tensor(0.1))
    camera = orbit([0.0], 0.2, 3.0, size=8, fov=0.5)
    assert g.render(camera).rgb.shape == (1, 8, 8, 3)
    with pytest.raises(InputError, match="too few"):
        Gaussians.from_points(points[:1], points[:1])


def test_coincident_points_are_as_wide_as_the_released_code_makes_them():
    """It clamps the mean *squared* distance at 1e-7, so that widths are 3.2e-4 at least."""
    twice = Gaussians.from_points(torch.zeros(5, 3), torch.zeros(5, 3))
    torch.testing.assert_close(twice.log_scales.detach(), torch.full((5, 3), math.log(1e-7) / 2))
    apart = Gaussians.from_points(torch.tensor([[0.0, 0, 0], [4e-4, 0, 0]]), torch.zeros(2, 3))  # 1.6e-7: just above
    torch.testing.assert_close(apart.scales.detach(), torch.full((2, 3), 4e-4), rtol=1e-5, atol=0)


def test_the_rate_of_means_falls_log_linearly():
    assert means_rate(0, 100, 2.0) == pytest.approx(3.2e-4, rel=1e-12)
    assert means_rate(50, 100, 1.0) == pytest.approx(1.6e-5, rel=1e-12)
    assert means_rate(200, 100, 1.0) == pytest.approx(1.6e-6, rel=1e-12)
    cameras = orbit([0.0, math.pi / 2, math.pi, 3 * math.pi / 2], 0.0, 3.0, size=8, fov=0.5)
    assert scene_extent(cameras) == pytest.approx(3.3)


# ---- files ----


def test_a_ply_comes_back_bit_for_bit_and_has_the_published_layout(tmp_path):
    g = some(7)
    data = to_ply(g)
    path = tmp_path / "a.ply"
    path.write_bytes(data)
    again = from_ply(path)
    for name in NAMES:
        assert torch.equal(getattr(again, name), getattr(g, name)), name
    assert to_ply(again) == data
    head, body = data.split(b"end_header\n", 1)
    names = [line.split()[2].decode() for line in head.splitlines() if line.startswith(b"property")]
    assert names[:9] == ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"] and len(names) == 62
    assert names[9:54] == [f"f_rest_{i}" for i in range(45)] and names[54:] == ["opacity"] + [f"scale_{i}" for i in range(3)] + [
        f"rot_{i}" for i in range(4)
    ]
    table = np.frombuffer(body, "<f4").reshape(7, 62)
    assert table[2, 9 + 15 + 4] == float(g.sh[2, 4, 1].detach())  # green's fifth, after all of red
    assert table[3, 58] == float(g.quats[3, 0].detach())


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_plys_with_fewer_harmonics_and_another_order_are_read(tmp_path, degree):
    rest = 3 * ((degree + 1) ** 2 - 1)
    names = [n for n in reversed(FIELDS) if not n.startswith(("f_rest", "n"))] + [f"f_rest_{i}" for i in range(rest)] + ["extra"]
    table = np.random.default_rng(0).normal(size=(5, len(names))).astype("<f4")
    head = "\n".join(["ply", "format binary_little_endian 1.0", "comment x", "element vertex 5", *(f"property float {n}" for n in names)])
    path = tmp_path / "a.ply"
    path.write_bytes(head.encode() + b"\nend_header\n" + table.tobytes())
    g = from_ply(path)
    assert g.degree == degree
    assert torch.equal(g.means[:, 1], torch.from_numpy(table[:, names.index("y")].copy()))
    assert (g.sh[:, (degree + 1) ** 2 - 1 :] == 0).all()
    if degree:
        assert float(g.sh[1, 0, 2].detach()) == table[1, names.index(f"f_rest_{2 * rest // 3}")]


def test_a_splat_holds_colour_opacity_and_rotation_as_bytes_the_most_visible_first():
    g = some(4)
    data = to_splat(g)
    assert len(data) == 4 * 32
    size = (g.scales.prod(-1) * g.opacities).detach()
    first = int(size.argmax())
    assert np.frombuffer(data[:12], "<f4").tolist() == g.means[first].tolist()
    assert abs(data[27] / 255 - float(g.opacities[first].detach())) <= 0.5 / 255 + 1e-6
    q = (np.frombuffer(data[28:32], "u1").astype(float) - 128) / 128
    expected = torch.nn.functional.normalize(g.quats[first].detach(), dim=0).numpy()
    assert np.abs(q - expected).max() <= 1 / 128


def broken() -> dict[str, tuple[bytes, str]]:
    good = to_ply(some(3))
    at = good.index(b"end_header\n") + len(b"end_header\n")
    nan = good[:at] + np.full(3 * 62, np.nan, "<f4").tobytes()
    return {
        "truncated": (good[:-1], "ends early"),
        "nan": (nan, r"3 of 3 Gaussians hold a number that is not finite.*the first is 0"),
        "ascii": (good.replace(b"binary_little_endian", b"ascii"), "binary little-endian"),
        "none": (b"hello", "no PLY"),
        "empty": (b"", "no PLY"),
        "points": (good.replace(b"property float opacity", b"property float density"), "opacity missing"),
        "zero": (good[:at].replace(b"vertex 3", b"vertex 0"), "0 vertices"),
        "rest": (good.replace(b"property float f_rest_7\n", b"property float f_rest_99\n"), "higher harmonics"),
        "list": (good.replace(b"property float x\n", b"property list uchar int x\n"), "cannot read"),
        "huge": (good.replace(b"vertex 3", b"vertex 99999999999999"), "ends early"),
        "no rotation": (good[:at] + bytes(3 * 62 * 4), "3 of 3 Gaussians .* no rotation"),
    }


@pytest.mark.parametrize("case", sorted(broken()))
def test_a_broken_ply_gets_one_sentence(tmp_path, case):
    data, words = broken()[case]
    path = tmp_path / "a.ply"
    path.write_bytes(data)
    with pytest.raises(InputError, match=words) as caught:
        from_ply(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        from_ply(tmp_path / "missing.ply")


@pytest.mark.parametrize("eol", [b"\n", b"\r\n", b"\r"])
def test_a_header_may_end_its_lines_as_any_system_does_whatever_byte_comes_behind(tmp_path, eol):
    g = some(3)
    with torch.no_grad():
        g.means[0, 0] = float(np.frombuffer(b"\n\r\n?", "<f4")[0])
    head, body = to_ply(g).split(b"end_header\n", 1)
    path = tmp_path / "A.PLY"
    path.write_bytes(head.replace(b"\n", eol) + b"end_header" + eol + body)
    assert to_ply(from_ply(path)) == to_ply(g)


def test_infinities_that_have_a_meaning_are_kept_and_what_cannot_be_drawn_is_left_out_with_its_count(tmp_path):
    g = some(9)
    with torch.no_grad():
        g.logit_opacities[0], g.logit_opacities[1] = torch.inf, -torch.inf
        g.log_scales[2, 1] = -torch.inf
        g.means[3, 0], g.means[4, 2], g.log_scales[5, 0], g.sh0[6, 0, 0] = torch.nan, torch.inf, torch.inf, torch.nan
        g.quats[7] = 0
    path, said = tmp_path / "a.ply", []
    path.write_bytes(to_ply(g))
    again = from_ply(path, warn=said.append)
    assert len(again) == 4 and torch.equal(again.means, g.means[[0, 1, 2, 8]])
    with torch.no_grad():
        assert again.opacities[0] == 1 and again.opacities[1] < 1e-12
        assert again.scales[2, 1] < 1e-12 and torch.equal(again.scales[2, [0, 2]], g.scales[2, [0, 2]])
        drawn = again.draw(orbit([0.3], [0.2], 6.0, size=24, fov=0.9)).rgb
    assert torch.isfinite(drawn).all()
    assert said == [f"{path}: 5 of 9 Gaussians hold a number that is not finite, or no rotation (the first is 3); they are left out"]


@settings(max_examples=150)
@given(at=st.integers(0, 1500), what=st.binary(min_size=1, max_size=6), cut=st.integers(0, 2200))
def test_a_damaged_ply_is_read_or_refused_never_a_crash(tmp_path_factory, at, what, cut):
    good = to_ply(some(3))
    path = tmp_path_factory.getbasetemp() / "fuzz.ply"
    path.write_bytes((good[:at] + what + good[at + len(what) :])[:cut])
    try:
        g = from_ply(path)
    except InputError:
        return
    assert torch.isfinite(g.means).all() and len(g) > 0
