# SPDX-License-Identifier: Apache-2.0
"""What a lift or a drawing takes on this machine, by `priors.plan`: the verbs tell it before they begin, and refuse what cannot fit.

What no layers say, fitting and texturing, is a table of measured numbers, `COSTS`; `python -m benchmarks.plans` compares all with runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bozzetto.errors import InputError
from bozzetto.fit.drawings import Drawing
from bozzetto.fit.recipe import Recipe
from bozzetto.priors import loading, published, triposr, triposr_files
from bozzetto.priors.loading import Role
from bozzetto.priors.plan import GB, LIBRARIES, Asked, Plan, agreed
from bozzetto.priors.prior import Prior


class Cost(NamedTuple):
    """Seconds on the machine of `plan.REFERENCE`, first-use compilation and diffusion priors apart, and the most resident memory."""

    seconds: float
    peak_gb: float


COSTS: dict[str, dict[str, Cost]] = {
    "guess": {"draft": Cost(7, 1.0), "standard": Cost(26, 1.0)},
    "gaussians": {"draft": Cost(18, 1.0)},
    "views": {"draft": Cost(9, 1.3)},
    "zero123": {"draft": Cost(60, 1.2)},
    "one2345": {"draft": Cost(12, 1.2)},
    "syncdreamer": {"draft": Cost(12, 1.5)},
    "consistent123-views": {"draft": Cost(11, 1.2)},
}
"""of a lift, by recipe and preset"""
GUESS = Cost(2, 1.0)
"""of the first guess alone"""
ROLES: dict[str, Role] = {need: need for need in ("views", "multiview", "normals", "coordinates")}
"""of what a recipe needs, where that is not text"""
Choices = list[tuple[str, dict[str, Any]]]


def for_lift(
    recipe: Recipe[Any],
    preset: str,
    settings: Any,
    priors: Mapping[Any, str],
    kind: str | None = None,
    device: str = "cpu",
    precision: str = "auto",
    offload: bool = False,
) -> Plan:
    """Of one picture; arguments as `lift` has them, but that priors are given by need, the embedded ones where they are absent.

    raises  InputError, which names what needs less, where this machine has too little memory
    """
    loading.check_offload(device, offload)

    def make(preset: str = preset, settings: Any = settings, precision: str = precision, offload: bool = offload) -> Plan:
        dtype = loading.dtype_on(device, precision)
        known = COSTS.get(recipe.name, {})
        cost = known.get(preset)
        most = cost.peak_gb if cost else max((c.peak_gb for c in known.values()), default=GUESS.peak_gb)
        plan = Plan(most * GB, rest=None if cost is None else cost.seconds, device=device, dtype=dtype)
        if triposr_files.is_folder(folder := published.place(priors.get("first_guess", loading.MINI))):
            larger = triposr.costs(triposr_files.read_config(folder / triposr_files.CONFIG))
            plan = replace(plan, ram=plan.ram + larger.peak - LIBRARIES, weights=float(larger.weights), flop=larger.network)
        given: dict[str, str] = {need: priors.get(need, "mini") for need in recipe.needs if need != "first_guess"}
        given |= {extra: priors[extra] for extra in recipe.extras if extra == "paint" and extra in priors}
        outlines = {
            need: loading.load_for(ROLES.get(need, "text"), name, kind if need == "views" else None, dtype, "meta")
            for need, name in given.items()
        }
        if "views" in outlines and not recipe.joint:
            _check_single(given["views"], outlines["views"], f"recipe {recipe.name}")
        asked = recipe.asks(settings, outlines) if recipe.asks else {}
        for need, outline in outlines.items():
            plan = plan.plus(outline, asked.get(need, Asked(batch=4)), is_offloaded=offload)
        return plan if len(asked) == len(outlines) else replace(plan, rest=None)

    smaller = _smaller(device, precision, offload) if recipe.needs != ("first_guess",) else []
    draft = recipe.presets.get("draft", settings)
    if isinstance(drawing := getattr(settings, "drawing", None), Drawing) and drawing.batch > 1:
        one, draft = (replace(x, drawing=replace(x.drawing, batch=1)) for x in (settings, draft))
        smaller.append(("--set drawing.batch=1", {"settings": one}))
    if preset != "draft" and "draft" in recipe.presets:
        smaller.append(("--preset draft", {"preset": "draft", "settings": draft}))
    return agreed(make, smaller)


def for_drawing(
    role: Role | tuple[Role, ...],
    prior: str | Path,
    drawing: Drawing,
    count: int,
    kind: str | None = None,
    towers: str | Path | None = None,
    device: str = "cpu",
    precision: str = "auto",
    offload: bool = False,
    fewest: tuple[str, int] = ("--count 1", 1),
) -> Plan:
    """Of `count` pictures by a prior; arguments as `views` and `draw` have them; `fewest` is how a user asks for the least, and what that
    comes to. Raises as `for_lift`."""
    loading.check_offload(device, offload)

    def make(count: int = count, precision: str = precision, offload: bool = offload) -> Plan:
        dtype = loading.dtype_on(device, precision)
        outline = loading.load_for(role, prior, kind, dtype, "meta", text=towers)
        if role == "views":
            _check_single(prior, outline, "bozzetto views")
        rest = GUESS if role == "views" else Cost(0, 0.9)
        plan = Plan(rest.peak_gb * GB, rest=rest.seconds, device=device, dtype=dtype)
        asked = drawing.asked(outline, count)
        if role == "edits":  # three ways: of both conditions, of the picture alone, of none
            asked = asked._replace(calls=3 * count * drawing.sampler(outline).steps)
        return plan.plus(outline, asked, is_offloaded=offload)

    smaller = _smaller(device, precision, offload)
    return agreed(make, [*smaller, (fewest[0], {"count": fewest[1]})] if count > fewest[1] else smaller)


def _check_single(name: str | Path, outline: Prior, who: str) -> None:
    """raises InputError for a prior of views that draws several of them together, where they are asked for one by one"""
    if (own := outline.views()) is not None:
        raise InputError(f"{name}: draws {len(own)} views together, and {who} asks for them one by one; give it to --recipe syncdreamer")


def _smaller(device: str, precision: str, offload: bool) -> Choices:
    """What makes any diffusion prior need less."""
    choices: Choices = []
    if loading.dtype_on(device, precision) == torch.float32:
        choices.append(("--precision bf16", {"precision": "bf16"}))
    if device.startswith("cuda") and not offload:
        choices.append(("--offload", {"offload": True}))
    return choices
