# SPDX-License-Identifier: Apache-2.0
"""What papers say their methods do, tried in small: one file a method, its `CLAIMS` joined below. `bozzetto claims` runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bozzetto.claims.claim import Claim

MODULES = (
    "score_matching",
    "ncsn",
    "ddpm",
    "ddim",
    "guidance",
    "variational",
    "faces",
    "mvdream",
    "novel_views",
    "together",
    "syncdreamer",
    "wonder3d",
    "hybrid",
    "sweetdreamer",
    "dreambooth",
    "bootstrapped",
    "boundary",
    "dreamcraft",
    "words",
    "lora",
    "dmtet",
    "neus",
    "gaussians",
    "elevation",
    "one2345",
)
"""in the order of the page; what comes first leaves what the next reuse"""


def all_claims() -> dict[str, Claim]:
    """By name."""
    from importlib import import_module

    return {c.name: c for module in MODULES for c in import_module(f"bozzetto.claims.{module}").CLAIMS}
