# SPDX-License-Identifier: Apache-2.0
"""`bozzetto claims`: what holds, what does not, what says nothing, and that nothing runs twice."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from bozzetto.claims import all_claims, page, runs, verb
from bozzetto.claims.claim import AtMost, Beats, Between, Claim, Near
from bozzetto.errors import InputError
from tests.test_cli import run as command

RUN = []


def toy(seed):
    RUN.append(seed)
    return {"method": 1.0 + 0.01 * seed, "rival": 2.0, "near": 1.05, "broken": 5.0 + seed, "away": math.inf}


CLAIM = Claim(
    "toy",
    method="Toys",
    source="nowhere",
    says="The method is better.",
    metric="error",
    better="lower",
    run=toy,
    must=(Beats("method", "rival"), Near("near", "method", 0.1), Between("method", 0.5, 1.5)),
    control=Beats("method", "broken"),
    seconds=1,
)
SCORES = [toy(seed) for seed in range(3)]


def test_a_claim_holds_where_every_rule_is_met_and_the_control_loses():
    verdict = CLAIM.verdict(SCORES)
    assert verdict.state == "holds" and all(o.is_met for o in verdict.outcomes) and len(verdict.outcomes) == 4
    assert replace(CLAIM, better="higher").verdict(SCORES).state == "says nothing"  # the flipped sign


@pytest.mark.parametrize("rule", [Beats("rival", "method"), Near("rival", "method", 0.1), Between("method", high=1.005)])
def test_a_rule_that_is_not_met_is_said(rule):
    verdict = replace(CLAIM, must=(rule,)).verdict(SCORES)
    assert verdict.state == "does not hold" and not verdict.outcomes[0].is_met and "not" in verdict.outcomes[0].sentence


def test_a_share_is_of_the_means_and_nothing_is_no_share_of_nothing():
    scores = [{"a": 0.0, "b": 0.5, "none": 0.0}, {"a": 0.3, "b": 0.7, "none": 0.0}]
    assert AtMost("a", "b", 0.25).judged(scores, "lower").is_met and not AtMost("a", "b", 0.24).judged(scores, "lower").is_met
    assert not AtMost("none", "none", 1.0).judged(scores, "lower").is_met and not AtMost("a", "b", 1.0).judged(scores, "higher").is_met


def test_a_control_that_wins_says_nothing_and_one_that_runs_away_has_lost():
    assert replace(CLAIM, control=Beats("broken", "method")).verdict(SCORES).state == "says nothing"
    away = replace(CLAIM, control=Beats("method", "away")).verdict(SCORES)
    assert away.state == "holds" and "runs away" in away.outcomes[-1].sentence


def test_a_difference_within_the_seeds_spread_is_none():
    noisy = [{"method": 1.0, "rival": 1.0 + x, "broken": 9.0} for x in (0.01, 0.02, 1.5)]
    claim = replace(CLAIM, must=(Beats("method", "rival"),))
    assert claim.verdict(noisy).state == "does not hold"
    assert claim.verdict([{"method": 1.0, "rival": 1.0 + x, "broken": 9.0} for x in (0.5, 0.6, 0.55)]).state == "holds"


def test_a_variant_that_was_not_measured_and_a_claim_without_a_rule_are_mistakes():
    with pytest.raises(ValueError, match="expected a score of 'nobody'"):
        replace(CLAIM, must=(Beats("nobody", "rival"),)).verdict(SCORES)
    with pytest.raises(ValueError, match="at least one rule"):
        replace(CLAIM, must=())


def test_what_is_there_is_not_run_again(tmp_path):
    RUN.clear()
    runs.run([CLAIM], tmp_path, 2, tmp_path)
    assert RUN == [0, 1]
    (tmp_path / "toy" / "seed-1.json").write_text("{")  # torn
    results = runs.run([CLAIM], tmp_path, 3, tmp_path)["toy"]
    assert RUN == [0, 1, 1, 2] and [r.seed for r in results] == [0, 1, 2]
    assert [r.seed for r in runs.there(CLAIM, tmp_path)] == [0, 1, 2]
    found = json.loads((tmp_path / "toy" / "seed-0.json").read_text())
    (tmp_path / "toy" / "seed-0.json").write_text(json.dumps({**found, "identity": "another"}))
    assert runs.kept(CLAIM, tmp_path, 0) is None


def test_the_page_says_what_was_found(tmp_path):
    results = runs.run([CLAIM], tmp_path, 3, tmp_path)
    made = page.page([CLAIM, replace(CLAIM, name="other", method="Others")], results)
    assert "of 1 claims 1 hold" in made and "**holds**" in made and "`other`: not run." in made
    assert "method: 1.01 ± 0.0100" in made and "away: runs away" in made and "| broken |" in made
    row = page.row(replace(CLAIM, must=(Beats("rival", "method"),)), results["toy"])
    assert "**does not hold**" in row


def test_objects_that_lack_are_told_before_the_slow_work(tmp_path):
    RUN.clear()
    with pytest.raises(InputError, match="`make data` packs"):
        runs.run([CLAIM, replace(CLAIM, name="needy", objects=True)], tmp_path / "out", 1, tmp_path)
    assert not RUN


def test_every_claim_has_a_name_of_its_own_and_a_page_and_the_command_knows_them(capsys, monkeypatch, tmp_path):
    known = all_claims()
    assert len(known) >= 12 and all(name == claim.name and claim.says.endswith(".") for name, claim in known.items())
    code, said = command(capsys, monkeypatch, "claims", "vsd-point")
    assert code == 2 and "did you mean vsd-points?" in said
    code, said = command(capsys, monkeypatch, "claims", "--seeds", "0")
    assert code == 2 and "at least 1" in said
    monkeypatch.setattr(verb, "all_claims", lambda: {"toy": CLAIM})
    asked = SimpleNamespace(names=("toy",), seeds=1, out=tmp_path / "out", objects=tmp_path, write=tmp_path / "claims.md", list=False)
    told = verb.claims(asked, verb.chosen(asked), lambda stage, share: None)
    assert told.count("\n") == 2 and (tmp_path / "claims.md").read_text().startswith("# Claims of the papers")
