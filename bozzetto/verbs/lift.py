# SPDX-License-Identifier: Apache-2.0
"""From a picture or a text to an asset: `bozzetto.lift`, which `bozzetto lift` calls for each picture."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch

from bozzetto import __version__
from bozzetto.errors import InputError
from bozzetto.fit import guesses
from bozzetto.fit.asset import Asset
from bozzetto.fit.estimates import Estimator, Given, Seen
from bozzetto.fit.recipe import Extra, Job, Need, Priors, Recipe
from bozzetto.fit.run import Progress, Run, check_device, check_writable, peak_gb
from bozzetto.fit.source import Source
from bozzetto.matting import Method
from bozzetto.priors.clip import Clip
from bozzetto.priors.depth import DepthNetwork
from bozzetto.priors.loading import Role
from bozzetto.priors.prior import Prior
from bozzetto.recipes import RECIPES
from bozzetto.verbs import plan
from bozzetto.verbs.edit_asset import Edit
from bozzetto.verbs.settings import EDIT_PRIOR
from bozzetto.verbs.words import Chosen, drawn

UNEMBEDDED: dict[Literal["multiview", "normals", "coordinates"], str] = {"multiview": "mvdream", "normals": "wonder3d", "coordinates": ""}
"""needs that no embedded prior serves, and a published one that does, where there is one"""
DepthIs = Literal["auto", "distance", "inverse"]


class AlreadyDone(Exception):
    """What `resume` is asked to finish is finished."""


def lift(
    picture: Any = None,
    out: str | Path | None = None,
    *,
    recipe: str | Recipe[Any] = "guess",
    preset: str = "standard",
    settings: Any = None,
    guess: str | Path | None = None,
    prior: str | Path | Mapping[Need | Extra, str | Path] | None = None,
    kind: str | None = None,
    text: str | None = None,
    best_of: int | None = None,
    edit: str | None = None,
    depth: str | Path | None = None,
    depth_is: DepthIs = "auto",
    normal: str | Path | None = None,
    mask: str | Path | None = None,
    matting: Method = "auto",
    azimuth: float = 0.0,
    elevation: float | None = None,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "auto",
    offload: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> Asset:
    """A picture of one object, or a text, to a textured model; angles in radians.

    picture  a path, a picture of Pillow's, an array or tensor (H, W, 3 or 4), or a `Source`; None where a text says what to draw,
             and for a recipe that starts from a text
    out      folder to write the asset to; None leaves it in memory, for `Asset.write`
    recipe   one of `bozzetto.recipes.RECIPES` by name, or a `Recipe` of your own
    settings the recipe's own, in place of the preset's: `replace(RECIPES["guess"].presets["draft"], steps=80)`
    guess    what the lift begins with: `triposr`, or a folder of its layout or of the embedded network's (`fit.guesses.load`)
    prior    folder of weights, of the last prior that the recipe needs, or folders by need or extra; None for the embedded ones
    kind     what the weights of a prior of views are, where the folder does not say so itself (`priors.loading.load`)
    text     what the picture shows, in words, for a recipe with a prior of text; without a picture the embedded prior, or the one
             of need `text`, draws it first (`verbs.words`), unless the recipe starts from a text
    best_of  how many pictures are drawn then, of which the best is taken
    edit     what is to be changed in the finished model's texture, in words (`verbs.edit_asset`), by the prior `edit`
    depth    for a recipe that compares with it: folder of a depth network, or a file of the picture's depth; None for the guess's
    depth_is whether it grows away from the camera, a distance, or towards it; auto: as a network's settings say, of a file a distance
    normal   file of the picture's normals (`fit.estimates.Given`), for such a recipe
    precision  what a diffusion prior computes in (`priors.loading.dtype_on`)
    offload  keep diffusion priors in the machine's memory (`priors.loading.load`)
    resume   go on with what `out` holds
    progress is told (stage, share of it done)
    tell     is given a sentence before the slow work: how much memory and time it will take
    raises   InputError, before anything is written, for a picture, mask, prior or folder that cannot be used, a kind that the
             recipe has no use for, or too little memory; ValueError for another recipe or preset, or settings of another;
             AlreadyDone where `resume` finds the same asset complete
    """
    recipe = recipe_of(recipe)
    if preset not in recipe.presets:
        raise ValueError(f"preset: expected one of {', '.join(recipe.presets)}, got {preset!r}")
    settings = recipe.presets[preset] if settings is None else settings
    if type(settings) is not recipe.settings:
        raise ValueError(f"settings: expected {recipe.settings.__name__}, got {type(settings).__name__}")
    if kind is not None and "views" not in recipe.needs:
        able = ", ".join(r.name for r in RECIPES.values() if "views" in r.needs)
        raise InputError(f"--kind {kind}: only recipes with a diffusion prior have a use for it ({able}); leave it out")
    started = time.monotonic()
    check_device(device)
    source: Source | None = None
    if best_of is not None and (picture is not None or recipe.starts_from != "picture"):
        raise InputError(f"--best-of {best_of}: says of how many pictures of a --text alone one is taken; leave it out")
    prior, editor = _apart(prior, "edit") if edit is not None else (prior, None)
    chosen: Chosen | None = None
    if recipe.starts_from == "text" or (recipe.starts_from == "either" and picture is None):
        angles = {"--azimuth-deg": azimuth or None, "--elevation-deg": elevation}
        _check_told(recipe, text, {"the picture": picture, "--mask": mask, **angles})
    else:
        if picture is None:
            if text is None:
                raise InputError('no picture given; try: bozzetto lift chair.png, or bozzetto lift --text "a red chair"')
            left, drawer = _apart(prior, "text")  # who has done what it was given for goes no further
            prior, judge = _apart(left if "text" not in recipe.needs else prior, "clip")
            prior = {**prior, "clip": judge} if judge and "clip" in recipe.extras else prior
            how: dict[str, Any] = {"device": device, "precision": precision, "offload": offload, "progress": progress, "tell": tell}
            chosen = drawn(text, count=best_of, prior=drawer or "mini", clip=judge or "mini", seed=seed, **how)
            picture = chosen.source
        source = Source.of(picture, mask, matting)
    deep, turned, estimated = _estimators(recipe, source, depth, depth_is, normal, device, precision)
    if out is not None:
        check_writable(Path(out))
    given = _given(recipe, guess, prior)
    needed: dict[Need, str] = {need: given[need] for need in recipe.needs if need in given}
    planned = plan.for_lift(recipe, preset, settings, needed, kind, device, precision, offload)
    change = None if edit is None else Edit.of(edit, prior=editor or EDIT_PRIOR, device=device, precision=precision, offload=offload)
    priors, made_of = _priors(recipe, given, kind, device, precision, offload)
    about = {"recipe": recipe.name, "preset": preset, **asdict(settings), "azimuth": azimuth, "elevation": elevation}
    if text is not None:
        about["text"] = text
    made_with = {"seed": seed, "device": torch.device(device).type, "settings": about}
    origin = {"source": text} if source is None else {"source": source.name, "digest": source.digest}
    record = {"generator": "bozzetto", **origin, **made_of, **estimated, **made_with}
    record |= (chosen.record if chosen else {}) | (change.record if change else {})
    if resume and out is not None and _is_done(Path(out), record):
        raise AlreadyDone
    run = Run(out, record, resume=resume, progress=progress)
    if tell is not None:
        tell(planned.sentence())
        if change is not None:
            tell(f"the edit: {change.sentence}")
    with run.interruptible(), _reproducible(device):
        lifted = recipe.lift(Job(source, priors, settings, run, azimuth, elevation, seed, text, deep, turned))
        mesh, files = (lifted.mesh, {}) if change is None or run.interrupted else change.made(lifted.mesh, run, seed)
        files = {**lifted.files, **files, **(chosen.files if chosen else {})}
        peak = peak_gb()
        timings = {k: round(v, 2) for k, v in run.timings.items()}
        total, most = round(time.monotonic() - started, 2), None if peak is None else round(peak, 2)
        measured = {**lifted.measured, "seconds": timings, "total_seconds": total, "peak_gb": most}
        made_by = {**record, "versions": {"bozzetto": __version__, "torch": torch.__version__}}
        kept = {"is_complete": not run.interrupted, "keeps_pixels": change is not None}
        asset = Asset(mesh, lifted.camera, source, made_by, measured, files=files, **kept)
        if out is not None:
            asset.write(out)
        run.finish()
    return asset


def _check_told(recipe: Recipe[Any], text: str | None, others: Mapping[str, Any]) -> None:
    """raises InputError where a recipe that starts from a text has none, or is given what only a picture has"""
    if text is None or not text.strip():
        raise InputError(f'recipe {recipe.name} starts from a text; try: bozzetto lift --text "a red chair" --recipe {recipe.name}')
    if needless := [what for what, given in others.items() if given is not None]:
        raise InputError(f"recipe {recipe.name} starts from a text alone; leave {' and '.join(needless)} out, or choose another --recipe")


def _apart(prior: Any, name: Extra | Need) -> tuple[Any, str | None]:
    """Priors without the one of a name, and that one, if it was given."""
    if not isinstance(prior, Mapping) or name not in prior:
        return prior, None
    return {need: folder for need, folder in prior.items() if need != name}, str(prior[name])


def recipe_of(name: str | Recipe[Any]) -> Recipe[Any]:
    """By name, or itself.

    raises  ValueError for a name that is none
    """
    if isinstance(name, Recipe):
        return name
    if name not in RECIPES:
        raise ValueError(f"recipe: expected one of {', '.join(RECIPES)}, got {name!r}")
    return RECIPES[name]


def _given(
    recipe: Recipe[Any], guess: str | Path | None, prior: str | Path | Mapping[Need | Extra, str | Path] | None
) -> dict[Need | Extra, str]:
    """Folders and names of priors by need; raises InputError for one that the recipe does not take, or that is given twice."""
    folders: dict[Need | Extra, str] = {}
    if isinstance(prior, Mapping):
        folders = {need: str(folder) for need, folder in prior.items()}
    elif prior is not None and recipe.needs:
        folders = {recipe.needs[-1]: str(prior)}
    if guess is not None:
        if "first_guess" in folders:
            raise InputError(f"--guess {guess}: --prior gives another first guess; leave one of them out")
        folders["first_guess"] = str(guess)
    for need in recipe.needs:
        if need in UNEMBEDDED and need not in folders:
            where = f" (bozzetto fetch {UNEMBEDDED[need]})" if UNEMBEDDED[need] else ""
            raise InputError(
                f"recipe {recipe.name}: no prior of need {need} is embedded; give the folder of one, --prior {need}=FOLDER{where}"
            )
    if strange := sorted(set(folders) - {*recipe.needs, *recipe.extras}):
        takes = ", ".join(recipe.needs) + (f", and may have {', '.join(recipe.extras)}" if recipe.extras else "")
        raise InputError(f"--prior {strange[0]}={folders[strange[0]]}: recipe {recipe.name} needs {takes or 'no prior'}")
    return folders


def _priors(
    recipe: Recipe[Any], folders: Mapping[Need | Extra, str], kind: str | None, device: str, precision: str, offload: bool
) -> tuple[Priors, dict[str, Any]]:
    """What the recipe needs, and what a record says of it."""
    made, record = Priors(), dict[str, Any]()
    if "first_guess" in recipe.needs:
        alone = recipe.needs == ("first_guess",)  # else the big networks have the device to themselves
        how = (device, precision) if alone else ("cpu", "auto")
        make, record["prior"] = guesses.load(folders.get("first_guess", "mini"), *how)
        made = replace(made, first_guess=make)
    if "views" in recipe.needs:
        views, digest = _diffusion("views", folders.get("views", "mini"), kind, device, precision, offload)
        made = replace(made, views=views)
        record |= {"diffusion_prior": digest, "kind": kind, "precision": precision}
    if "text" in recipe.needs:
        text_prior, record["text_prior"] = _diffusion("text", folders.get("text", "mini"), None, device, precision, offload)
        made = replace(made, text=text_prior)
        record["precision"] = precision
    for need in UNEMBEDDED:
        if need in recipe.needs:
            found, record[f"{need}_prior"] = _diffusion(need, folders[need], None, device, precision, offload)
            changed: dict[str, Any] = {need: found}
            made, record["precision"] = replace(made, **changed), precision
    if "paint" in folders:
        paint, record["paint_prior"] = _diffusion("text", folders["paint"], None, device, precision, offload)
        made = replace(made, paint=paint)
    if "clip" in folders:
        clip, record["clip"] = _clip(folders["clip"], device)
        made = replace(made, clip=clip)
    return made, record


@functools.lru_cache(maxsize=3)  # many pictures, one prior of a kind: gigabytes to read, and to hash
def _diffusion(role: Role, prior: str, kind: str | None, device: str, precision: str, offload: bool) -> tuple[Prior, str]:
    """A prior (latents stay float32), and the digest of its weights."""
    from bozzetto.priors import loading

    return loading.load_for(role, prior, kind, loading.dtype_on(device, precision), device, offload=offload), loading.digest(prior)


def _estimators(
    recipe: Recipe[Any],
    source: Source | None,
    depth: str | Path | None,
    depth_is: DepthIs,
    normal: str | Path | None,
    device: str,
    precision: str,
) -> tuple[Estimator | None, Estimator | None, dict[str, Any]]:
    """Who estimates the picture's depth and normals, where anything was given, and what a record says of it."""
    for flag, given in (("--depth", depth), ("--normal", normal)):
        if given is not None and not recipe.compares:
            able = ", ".join(r.name for r in RECIPES.values() if r.compares)
            raise InputError(f"{flag} {given}: only recipes that compare with it have a use for it ({able}); leave it out")
    if depth_is != "auto" and depth is None:
        raise InputError(f"--depth-is {depth_is}: says what --depth holds; give that, too, or leave it out")
    deep: Estimator | None = None
    turned: Estimator | None = None
    record: dict[str, Any] = {}
    if depth is not None and Path(depth).is_dir():
        deep, record["depth"] = _depth_network(str(depth), depth_is, device, precision)
    elif depth is not None:
        deep = Given(depth=Path(depth), is_inverse=depth_is == "inverse")
        record["depth"] = _asked(deep, source, Path(depth))
    if depth is not None:
        record["depth_is"] = depth_is
    if normal is not None:
        turned = Given(normal=Path(normal))
        record["normal"] = _asked(turned, source, Path(normal))
    return deep, turned, record


def _asked(given: Given, source: Source | None, path: Path) -> str:
    """The digest of an estimate's file, which is read once, so that one of no use is refused at once."""
    if source is not None:
        given(source, 32)
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


@functools.lru_cache(maxsize=1)
def _depth_network(folder: str, depth_is: DepthIs, device: str, precision: str) -> tuple[Seen, str]:
    from bozzetto.priors import loading

    is_inverse = None if depth_is == "auto" else depth_is == "inverse"
    network = DepthNetwork.read(folder, is_inverse=is_inverse, dtype=loading.dtype_on(device, precision), device=device)
    return Seen(network), loading.digest(folder)


@functools.lru_cache(maxsize=1)
def _clip(folder: str, device: str) -> tuple[Clip, str]:
    from bozzetto.priors import loading

    return Clip.read(folder, device), loading.digest(folder)


def _is_done(out: Path, record: dict[str, Any]) -> bool:
    """Whether the folder holds a complete asset of this version, made of and with the same."""
    try:
        found = json.loads((out / "asset.json").read_text())
    except (OSError, ValueError):
        return False
    wanted = {**json.loads(json.dumps(record)), "complete": True}
    is_same = all(found.get(k) == v for k, v in wanted.items()) and found.get("versions", {}).get("bozzetto") == __version__
    return is_same and (out / "asset.glb").is_file() and not (out / ".run").exists()


@contextlib.contextmanager
def _reproducible(device: str) -> Iterator[None]:
    """Sums in a fixed order: on a CPU, gathers' gradients are otherwise added by whichever thread comes first.

    Some of a codec's gradients have no such form on CUDA; there the rest is ordered, and PyTorch warns.
    """
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=device != "cpu")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
