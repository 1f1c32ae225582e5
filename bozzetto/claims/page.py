# SPDX-License-Identifier: Apache-2.0
"""What the experiments gave, as Markdown: a row a claim for the terminal, and docs/claims.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from bozzetto import __version__
from bozzetto.claims.claim import Claim, said, spread_of
from bozzetto.claims.runs import Result

HEAD = "| claim | says | variants: mean ± spread over seeds | must lose | verdict | CPU s a seed |\n| --- | --- | --- | --- | --- | ---: |"
INTRODUCTION = """# Claims of the papers, tried in small

What a paper says its method does, as an experiment that takes minutes on one core, beside its rivals and a variant that is broken on
purpose. `bozzetto claims` runs them all and writes this page (`--write docs/claims.md`); `bozzetto claims NAME` runs one, `--list`
names them. Experiments are files of `bozzetto/claims/`, one a method: an experiment is a function of a seed, and calls the same
functions as everything else.

A claim **holds** where all that it must show is seen in every seed, and in the mean by more than one standard deviation of the
differences over the seeds. It **does not hold** where that fails. Where the broken variant does not lose by the same rule, the
experiment **says nothing**, whatever else it shows. That a claim holds here is no proof for pictures of the world, and that it does not
is none against the paper: worlds are small, networks tiny, and the remarks say where that matters.
"""


def table(claims: Sequence[Claim], results: Mapping[str, Sequence[Result]]) -> str:
    """A row for each claim; those without results say so."""
    return "\n".join([HEAD, *(row(c, results.get(c.name, ())) for c in claims)])


def row(claim: Claim, results: Sequence[Result]) -> str:
    """One claim in one line of the table."""
    says = f"{claim.says} ({claim.source})"
    if not results:
        return f"| `{claim.name}` | {says} | | {claim.control.loser} | not run | |"
    scores = [r.scores for r in results]
    arrow = "↓" if claim.better == "lower" else "↑"
    shown = "<br>".join(f"{v}: {figures([s[v] for s in scores])}" for v in scores[0])
    seconds = float(np.mean([r.seconds for r in results]))
    verdict = claim.verdict(scores).state
    return f"| `{claim.name}` | {says} | {claim.metric} {arrow}<br>{shown} | {claim.control.loser} | **{verdict}** | {seconds:.0f} |"


def figures(values: Sequence[float]) -> str:
    """Mean and spread over seeds."""
    if not all(map(math.isfinite, values)):
        return "runs away"
    return f"{said(float(np.mean(values)))} ± {said(spread_of(values))}"


def page(claims: Sequence[Claim], results: Mapping[str, Sequence[Result]]) -> str:
    """The whole page: introduction, table, and for each method what was found, in sentences."""
    held = [c for c in claims if results.get(c.name) and c.verdict([r.scores for r in results[c.name]]).state == "holds"]
    run = [c for c in claims if results.get(c.name)]
    seeds = max((len(r) for r in results.values()), default=0)
    parts = [
        INTRODUCTION,
        f"`bozzetto claims --seeds {seeds}`: of {len(run)} claims {len(held)} hold. Bozzetto {__version__}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}.",
        table(claims, results),
        "What was found, method by method:",
    ]
    for method in dict.fromkeys(c.method for c in claims):
        parts.append(f"## {method}")
        parts += [account(c, results.get(c.name, ())) for c in claims if c.method == method]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def account(claim: Claim, results: Sequence[Result]) -> str:
    """One claim: verdict, each rule's outcome, remark."""
    if not results:
        return f"`{claim.name}`: not run."
    verdict = claim.verdict([r.scores for r in results])
    *rules, control = verdict.outcomes
    lines = [f"`{claim.name}` **{verdict.state}**: {claim.says}", ""]
    lines += [f"- {'' if o.is_met else '**not met**: '}{o.sentence}" for o in rules]
    lines.append(f"- control{'' if control.is_met else ' **does not lose**'}: {control.sentence}")
    return "\n".join(lines + (["", claim.remark] if claim.remark else []))
