# SPDX-License-Identifier: Apache-2.0
"""Recipes: one paper, one file, one value `RECIPE`. A new one joins by a line below, and the command line knows it."""

from __future__ import annotations

from typing import Any

from bozzetto.fit.recipe import Recipe
from bozzetto.recipes import (
    consistent123,
    consistent123_views,
    dreamcraft3d,
    gaussians,
    guess,
    magic123,
    mvdream,
    one2345,
    sweetdreamer,
    syncdreamer,
    views,
    wonder3d,
    zero123,
)

ALL = (
    guess,
    gaussians,
    views,
    zero123,
    dreamcraft3d,
    magic123,
    consistent123,
    consistent123_views,
    wonder3d,
    syncdreamer,
    mvdream,
    sweetdreamer,
    one2345,
)
RECIPES: dict[str, Recipe[Any]] = {module.RECIPE.name: module.RECIPE for module in ALL}
"""by the names of `--recipe`"""
