# SPDX-License-Identifier: Apache-2.0
"""Recipes: one paper, one file, one value `RECIPE`. A new one joins by a line below, and the command line knows it."""

from __future__ import annotations

from typing import Any

from bozzetto.fit.recipe import Recipe
from bozzetto.recipes import gaussians, guess, views, zero123

RECIPES: dict[str, Recipe[Any]] = {r.name: r for r in (guess.RECIPE, gaussians.RECIPE, views.RECIPE, zero123.RECIPE)}
"""by the names of `--recipe`"""
