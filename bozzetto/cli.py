# SPDX-License-Identifier: Apache-2.0
"""The command line: `bozzetto <verb>`. Flags are those of `bozzetto.flags`; heavy imports happen inside the verbs.

Exit codes: 0 done, 1 a bug (its traceback, or the stage and step where numbers ran away), 2 something to mend in what was
given, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import functools
import io
import json
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bozzetto import flags
from bozzetto.bar import Bar
from bozzetto.command import check_degrees, check_finite, check_recipe, check_seed, parsed
from bozzetto.command import say as _say
from bozzetto.command import warn as _warn
from bozzetto.errors import InputError
from bozzetto.verbs.settings import EditSettings, LearnSettings, ShapeSettings, priors_of, settings_of

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads slow the kernels' own


def main() -> None:
    """Entry point of the `bozzetto` command."""
    from bozzetto import __version__

    if sys.argv[1:] == ["--version"]:
        print(f"bozzetto {__version__}")
        return
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files are whatever bytes they are, and a terminal may know ASCII alone
            stream.reconfigure(errors="backslashreplace")
    verb = parsed()
    try:
        code = globals()[type(verb).__name__.lower()](verb)  # below: a function for each
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except FloatingPointError as error:  # says the stage and the step
        print(f"error: {error}; please report it with the picture; what was done is kept for --resume", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on" if isinstance(verb, flags.Fetch) else "stopped; go on with --resume", file=sys.stderr)
        code = 130
    raise SystemExit(code)


def lift(args: flags.Lift) -> int:
    """Each picture in turn; one that fails does not stop the others."""
    jobs: Sequence[tuple[Path | None, Path]] = _jobs(args)
    import torch

    from bozzetto.fit.settings import changed
    from bozzetto.recipes import RECIPES
    from bozzetto.shapes.dmtet import EmptySurface
    from bozzetto.verbs.lift import AlreadyDone
    from bozzetto.verbs.lift import lift as lift_one

    recipe = RECIPES[args.recipe]
    if args.preset not in recipe.presets:
        raise InputError(f"--preset {args.preset}: recipe {recipe.name} has {', '.join(recipe.presets)}")
    names = ("preset", "kind", "text", "best_of", "edit", "depth", "depth_is", "normal", "mask", "matting")
    names += ("seed", "device", "precision", "offload", "resume")
    given: dict[str, Any] = {name: getattr(args, name) for name in names}
    given |= {"settings": changed(recipe.presets[args.preset], args.set), "prior": priors_of(args.prior)}
    given |= {"guess": None if args.guess == "mini" else args.guess, "tell": _tell(args)}
    failed = 0
    for path, out in jobs:
        with Bar(str(args.text) if path is None else path.name, args.quiet, recipe.stages) as progress:
            try:
                asset = lift_one(
                    path,
                    out,
                    recipe=recipe,
                    azimuth=math.radians(args.azimuth_deg),
                    elevation=None if args.elevation_deg is None else math.radians(args.elevation_deg),
                    progress=progress,
                    **given,
                )
            except AlreadyDone:
                if args.json:
                    _say(json.dumps({"asset": str(out / "asset.glb"), **json.loads((out / "asset.json").read_text())}))
                print(f"{out}: is complete; without --resume it is made again", file=sys.stderr)
                continue
            except (InputError, EmptySurface) as error:
                print(f"error: {path or args.text}: {error}" if isinstance(error, EmptySurface) else f"error: {error}", file=sys.stderr)
                failed = max(failed, 2)
                continue
            except (FloatingPointError, torch.cuda.OutOfMemoryError) as error:
                print(f"error: {path or args.text}: {error}; what was done is kept for --resume", file=sys.stderr)
                failed = 1
                continue
        for warning in asset.warnings:
            _warn(warning)
        if not asset.is_complete:
            print(f"{out}: exported what there was; finish it with --resume", file=sys.stderr)
            return 130
        total, peak = asset.measured["total_seconds"], asset.measured["peak_gb"]
        memory = f", {peak:.1f} GB at most" if peak else ""
        try:
            if args.json:
                _say(json.dumps({"asset": str(out / "asset.glb"), **asset.description()}))
            elif not args.quiet:
                _say(f"{out / 'asset.glb'}: {len(asset.mesh.faces)} faces, {total:.0f} s{memory}")
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            failed = max(failed, 2)
    return failed


def _tell(args: Any) -> Callable[[str], None] | None:
    """Says what a run will take, on standard error: the same once for many pictures, nothing with --quiet."""
    return None if args.quiet else functools.cache(lambda sentence: print(sentence, file=sys.stderr))


def _jobs(args: flags.Lift) -> Sequence[tuple[Path | None, Path]]:
    """Pictures and the folders of their assets; flags are checked here, before anything heavy is imported."""
    check_recipe(args.recipe)
    check_degrees(args, 90, "elevation_deg")
    check_degrees(args, 360, "azimuth_deg")
    if not re.fullmatch(r"cpu|cuda(:\d+)?|mps", args.device):
        raise InputError(f"--device {args.device}: expected cpu, cuda, cuda:N or mps")
    check_seed(args.seed)
    from bozzetto.verbs.batch import jobs

    if not args.pictures and args.text is not None:
        return [(None, args.out)]
    found = jobs(args.pictures, args.out, args.mask, _warn)
    for flag, file in (("--depth", args.depth), ("--normal", args.normal)):
        if len(found) > 1 and file is not None and file.is_file():
            raise InputError(f"{flag} {file}: is of one picture; give that picture alone")
    return found


def settings(args: flags.Settings) -> int:
    """See `bozzetto.fit.settings`."""
    check_recipe(args.recipe)
    from bozzetto.fit.settings import show
    from bozzetto.recipes import RECIPES

    show(RECIPES[args.recipe].presets)
    return 0


def splat(args: flags.Splat) -> int:
    """See `bozzetto.verbs.splat`."""
    check_seed(args.seed, bits=31)
    from bozzetto.verbs import splat as verb

    settings = settings_of(verb.Splat, args)
    with Bar(args.scene.name, args.quiet, {"fit": 1.0}) as progress:
        given: Any = {"seed": args.seed, "resume": args.resume, "spz": args.spz, "progress": progress, "tell": _tell(args)}
        result = verb.splat_scene(args.scene, args.out, settings, **given)
    for warning in result.warnings:
        _warn(warning)
    if not result.is_complete:
        print(f"{args.out}: exported what there was; finish it with --resume", file=sys.stderr)
        return 130
    if args.json:
        _say(json.dumps({"splat": str(args.out), **result.metrics}))
    elif not args.quiet:
        m = result.metrics
        _say(f"{args.out}: {m['gaussians']} Gaussians, {m['psnr']:.2f} dB on {m['held_back']} held-back pictures, {m['seconds']:.0f} s")
    return 0


def mesh(args: flags.Mesh) -> int:
    """See `bozzetto.verbs.mesh`."""
    from bozzetto.verbs import mesh as verb

    out, settings = args.out or args.gaussians.with_suffix(".glb"), settings_of(verb.SplatMesh, args)
    with Bar(args.gaussians.name, args.quiet, {"look": 0.3, "fuse": 0.25, "clean": 0.15, "texture": 0.3}) as progress:
        made = verb.mesh_file(args.gaussians, out, settings, scene=args.scene, progress=progress)
    if not args.quiet:
        _say(f"{out}: {len(made.faces)} faces")
    return 0


def reconstruct(args: flags.Reconstruct) -> int:
    """See `bozzetto.verbs.reconstruct`."""
    from bozzetto.verbs import reconstruct as verb

    settings = settings_of(verb.Reconstruct, args)
    with Bar(args.scene.name, args.quiet, {"cut": 0.3, "look": 0.1, "surface": 0.3, "clean": 0.05, "texture": 0.25}) as progress:
        made = verb.reconstruct(args.scene, args.out, settings, network=args.network, matting=args.matting, progress=progress)
    for warning in made.warnings:
        _warn(warning)
    if not args.quiet:
        _say(f"{args.out}: {len(made.mesh.faces)} faces, of {made.views} pictures")
    return 0


def shape(args: flags.Shape) -> int:
    """See `bozzetto.verbs.shape`."""
    check_seed(args.seed)
    from bozzetto.verbs import shape as verb

    settings = settings_of(ShapeSettings, args)
    with Bar(args.scan.name, args.quiet, {"look": 0.2, "surface": 0.5, "clean": 0.1, "texture": 0.2}) as progress:
        made = verb.shape(args.scan, args.out, settings, network=args.network, seed=args.seed, progress=progress)
    if not args.quiet:
        _say(f"{args.out}: {len(made.mesh.faces)} faces, of {made.of}")
    return 0


def view(args: flags.View) -> int:
    """See `bozzetto.viewer`; Ctrl-C is how it is meant to end."""
    from bozzetto.viewer import view as show

    show(args.path, args.port)
    return 0


def views(args: flags.Views) -> int:
    """See `bozzetto.verbs.views`."""
    check_degrees(args, 90, "elevation_deg", "ring_deg")
    check_finite(args, "guidance")
    check_seed(args.seed)
    from bozzetto.fit.drawings import Drawing
    from bozzetto.verbs.views import NovelViews, picture_to_views

    with Bar(args.picture.name, args.quiet, {"views": 1.0}) as progress:
        sheet = picture_to_views(
            args.picture,
            args.out,
            NovelViews(args.count, args.ring_deg, Drawing(args.steps, args.guidance)),
            elevation=None if args.elevation_deg is None else math.radians(args.elevation_deg),
            progress=progress,
            tell=_tell(args),
            **{name: getattr(args, name) for name in ("prior", "kind", "mask", "seed", "device", "precision", "offload")},
        )
    _say(sheet)
    return 0


def draw(args: flags.Draw) -> int:
    """See `bozzetto.verbs.draw`."""
    check_finite(args, "guidance")
    check_seed(args.seed)
    from bozzetto.verbs.draw import draw_text

    names = ("count", "steps", "guidance", "prior", "towers", "seed", "device", "precision", "offload")
    with Bar("draw", args.quiet, {"views": 1.0}) as progress:
        _say(draw_text(args.text, args.out, **{name: getattr(args, name) for name in names}, progress=progress, tell=_tell(args)))
    return 0


def edit(args: flags.Edit) -> int:
    """See `bozzetto.verbs.edit_file`."""
    check_finite(args, "guidance", "image_guidance")
    check_seed(args.seed)
    from bozzetto.verbs.edit_file import edit_file

    names = ("prior", "seed", "device", "precision", "offload", "resume")
    with Bar(args.picture.name, args.quiet, {"edits": 0.98, "edited": 0.02}) as progress:
        how = {name: getattr(args, name) for name in names} | {"progress": progress, "tell": _tell(args)}
        _say(edit_file(args.picture, args.text, args.out, settings_of(EditSettings, args), **how))
    return 0


def learn(args: flags.Learn) -> int:
    """See `bozzetto.verbs.learn`."""
    check_seed(args.seed)
    from bozzetto.verbs import learn as verb

    names = ("prior", "towers", "seed", "device", "precision", "resume")
    given: Any = {name: getattr(args, name) for name in names} | {"warn": _warn}
    with Bar(args.text, args.quiet, {"class": 0.4, "learn": 0.6}) as progress:
        if not verb.learn(args.text, args.pictures, args.out, settings_of(LearnSettings, args), progress=progress, **given):
            print(f"{args.out}: was not finished; go on with --resume", file=sys.stderr)
            return 130
    _say(args.out if args.quiet else f'{args.out}: now bozzetto draw "{args.text}" --prior {args.out}')
    return 0


def evaluate(args: flags.Evaluate) -> int:
    """See `bozzetto.evaluate.lifting`."""
    from bozzetto.evaluate.lifting import evaluate_lifting

    check_recipe(args.recipe)
    _say(evaluate_lifting(args.objects, args.out, args.count, args.preset, args.recipe, args.prior, args.seed))
    return 0


def data(args: flags.Data) -> int:
    """Pack what is in a folder."""
    if not args.source.is_dir():
        raise InputError(f"{args.source}: no such folder; give one with GLB, OBJ, PLY or .sh3f files")
    if any(args.source.glob("*.sh3f")):
        from bozzetto.data.sweethome import main as pack_libraries

        return pack_libraries([str(args.source), str(args.out)])
    from bozzetto.data.folder import main as pack_folder

    return pack_folder([str(args.source), str(args.out)])


def convert(args: flags.Convert) -> int:
    """See `bozzetto.priors.convert`."""
    from bozzetto.priors.convert import convert as turn

    turn(args.ckpt, args.out, args.kind, args.config, half=args.half, tokenizer=args.tokenizer)
    _say(args.out)
    return 0


def fetch(args: flags.Fetch) -> int:
    """See `bozzetto.verbs.fetch`."""
    from bozzetto.verbs import fetch as verb

    if args.list or not args.name:
        _say(verb.table())
        return 0
    print(verb.card(args.name), file=sys.stderr)
    if verb.is_to_come(args.name, args.out) and not args.yes:
        verb.agree(args.name)
    with Bar(args.name, args.quiet, {"download": 1.0}) as progress:
        folder = verb.fetch(args.name, args.out, progress)
    _say(folder)
    if not args.quiet:
        _say(verb.usage(args.name, args.out, folder))
    return 0


def figures(args: flags.Figures) -> int:
    """See `bozzetto.figures.gallery`."""
    from bozzetto.figures.gallery import draw_all

    draw_all(args.out, names=args.names, is_full=args.full)
    return 0


def claims(args: flags.Claims) -> int:
    """See `bozzetto.claims`."""
    from bozzetto.claims import verb

    chosen = verb.chosen(args)
    with Bar("claims", args.quiet or args.list, {c.name: c.seconds for c in chosen}) as progress:
        _say(verb.claims(args, chosen, progress))
    return 0


def doctor(args: flags.Doctor) -> int:
    """See `bozzetto.doctor`."""
    from bozzetto.doctor import main as report

    return report()


if __name__ == "__main__":
    main()
