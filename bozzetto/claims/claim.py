# SPDX-License-Identifier: Apache-2.0
"""`Claim`: what a paper says its method does, as an experiment of minutes, what must come out, and a control that must lose.

An experiment is a function of a seed that measures several variants by one metric: the method, its rivals, and a broken one. A claim
is judged over several seeds by rules (`Beats`, `Near`, `AtMost`, `Between`), and counts only if its control loses: an experiment that a
flipped sign passes has shown nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

Scores = dict[str, float]
"""variants and their metric; what ran away is infinite or not a number"""
Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Outcome:
    """Whether a rule was met, and a sentence with its figures."""

    is_met: bool
    sentence: str


class Rule(Protocol):
    """What must come out."""

    @property
    def variants(self) -> tuple[str, ...]:
        """Those that it speaks of."""
        ...

    def judged(self, scores: Sequence[Scores], better: Better) -> Outcome:
        """scores  of each seed"""
        ...


@dataclass(frozen=True)
class Beats:
    """`winner` is better than `loser` in every seed, and in the mean by more than one standard deviation of the differences."""

    winner: str
    loser: str

    @property
    def variants(self) -> tuple[str, ...]:
        return self.winner, self.loser

    def judged(self, scores: Sequence[Scores], better: Better) -> Outcome:
        sign = 1 if better == "lower" else -1
        pairs = [(s[self.winner], s[self.loser]) for s in scores]
        # what ran away is behind whatever did not; two that ran away are level
        ahead = [sign * (b - a) if math.isfinite(a) and math.isfinite(b) else math.inf if math.isfinite(a) else -math.inf for a, b in pairs]
        wins, finite = sum(d > 0 for d in ahead), [d for d in ahead if math.isfinite(d)]
        mean, spread = (float(np.mean(finite)), spread_of(finite)) if finite else (math.inf, 0.0)
        margin = f"by {said(abs(mean))} ± {said(spread)}" if finite else "which runs away"
        if wins == len(ahead) and mean > spread:
            return Outcome(True, f"{self.winner} beats {self.loser}, {margin}")
        by = f", and in the mean {'better' if mean > 0 else 'worse'} {margin}" if finite else ""
        return Outcome(False, f"{self.winner} does not beat {self.loser}: better in {wins} of {len(ahead)} seeds{by}")


@dataclass(frozen=True)
class Near:
    """The mean of `variant` is within a share of that of `other`."""

    variant: str
    other: str
    share: float

    @property
    def variants(self) -> tuple[str, ...]:
        return self.variant, self.other

    def judged(self, scores: Sequence[Scores], better: Better) -> Outcome:
        a, b = (float(np.mean([s[v] for s in scores])) for v in self.variants)
        off = abs(a - b) / abs(b) if b else math.inf
        is_met = off <= self.share  # False for what is not a number
        return Outcome(is_met, f"{self.variant} is {'' if is_met else 'not '}within {self.share:.0%} of {self.other}: {off:.1%} off")


@dataclass(frozen=True)
class AtMost:
    """The mean of `variant` is at most a share of that of `other`, where lower is better."""

    variant: str
    other: str
    share: float

    @property
    def variants(self) -> tuple[str, ...]:
        return self.variant, self.other

    def judged(self, scores: Sequence[Scores], better: Better) -> Outcome:
        a, b = (float(np.mean([s[v] for s in scores])) for v in self.variants)
        is_met = better == "lower" and b > 0 and a <= self.share * b  # False for what is not a number
        return Outcome(
            is_met, f"{self.variant} is {'' if is_met else 'not '}at most {self.share:.0%} of {self.other}: {said(a)}, {said(b)}"
        )


@dataclass(frozen=True)
class Between:
    """`variant` is in [low, high] in every seed."""

    variant: str
    low: float = -math.inf
    high: float = math.inf

    @property
    def variants(self) -> tuple[str, ...]:
        return (self.variant,)

    def judged(self, scores: Sequence[Scores], better: Better) -> Outcome:
        values = [s[self.variant] for s in scores]
        is_met = all(self.low <= x <= self.high for x in values)
        ends = [f"at least {said(self.low)}"] * math.isfinite(self.low) + [f"at most {said(self.high)}"] * math.isfinite(self.high)
        found = f"from {said(min(values))} to {said(max(values))}" if min(values) != max(values) else said(values[0])
        return Outcome(is_met, f"{self.variant} is {'' if is_met else 'not '}{' and '.join(ends)}: {found}")


@dataclass(frozen=True)
class Verdict:
    """holds      the control lost, and every rule was met
    does not hold  the control lost, a rule was not met
    says nothing   the control did not lose: the experiment, or the claim, is wrong
    """

    state: Literal["holds", "does not hold", "says nothing"]
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class Claim:
    """One experiment.

    raises  ValueError without a rule
    """

    name: str
    """what `bozzetto claims NAME` takes"""
    method: str
    """as the table of papers calls it"""
    source: str
    """paper and place"""
    says: str
    """the claim in a sentence"""
    metric: str
    """what the figures are, with their unit"""
    better: Better
    run: Callable[..., Scores]
    """a seed to scores; with `objects`, a seed and the folder of packed objects"""
    must: tuple[Rule, ...]
    """all of it"""
    control: Beats
    """what the broken variant must lose to"""
    seconds: float
    """of one core, a seed, about"""
    objects: bool = False
    """whether packed objects are needed"""
    remark: str = ""
    """how to read the figures; where the claim does not hold, the reason as far as it was found"""

    def __post_init__(self) -> None:
        if not self.must:
            raise ValueError(f"claim {self.name}: expected at least one rule that must be met")

    def verdict(self, scores: Sequence[Scores]) -> Verdict:
        """Of the scores of several seeds. raises ValueError where a rule's variant was not measured"""
        for rule in (*self.must, self.control):
            missing = [v for v in rule.variants if any(v not in s for s in scores)]
            if missing:
                raise ValueError(f"claim {self.name}: expected a score of {missing[0]!r}, got {', '.join(scores[0])}")
        control = self.control.judged(scores, self.better)
        outcomes = tuple(rule.judged(scores, self.better) for rule in self.must)
        state: Literal["holds", "does not hold"] = "holds" if all(o.is_met for o in outcomes) else "does not hold"
        return Verdict(state if control.is_met else "says nothing", (*outcomes, control))


def spread_of(values: Sequence[float]) -> float:
    """Standard deviation over seeds; 0 of one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def said(x: float) -> str:
    """Three digits."""
    if not math.isfinite(x):
        return "–"
    return f"{x:.0f}" if abs(x) >= 1000 else f"{x:#.3g}".rstrip(".") if x else "0"
