# SPDX-License-Identifier: Apache-2.0
"""A training run that ends by the clock: how many samples a machine gets through is not known before, how long it is lent is."""

from __future__ import annotations

import time
from collections.abc import Callable


class Deadline:
    """Counts from when it is made.

    seconds      the run's length
    warmup       share of it over which the rates rise from nothing
    cooldown     last share, over which they fall to nothing
    validations  evenly over the run, the last at its end
    """

    def __init__(
        self,
        seconds: float,
        *,
        warmup: float = 0.04,
        cooldown: float = 0.4,
        validations: int = 5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seconds, self.warmup, self.cooldown, self.validations, self.clock = max(seconds, 1e-3), warmup, cooldown, validations, clock
        self.begun, self.stopped = clock(), False

    def share(self) -> float:
        """Of the time, how much is gone, in [0, 1]; 1 once it was stopped."""
        return 1.0 if self.stopped else min(1.0, (self.clock() - self.begun) / self.seconds)

    def rate(self) -> float:
        """The learning rates' factor in [0, 1] now: warm-up, plateau, linear cooldown."""
        share = self.share()
        return min(1.0, share / self.warmup, (1 - share) / self.cooldown)

    def is_due(self, before: float, share: float) -> bool:
        """Has the time of a validation come since the share was `before`?"""
        return int(share * self.validations) > int(before * self.validations)

    def stop(self) -> None:
        """End the run at its next step."""
        self.stopped = True
