# SPDX-License-Identifier: Apache-2.0
"""The command line: `bozzetto <verb>`. Flags are dataclasses; heavy imports happen inside the verbs.

Exit codes: 0 done, 1 a bug (its traceback, or the stage and step where numbers ran away), 2 something to mend in what was
given, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from bozzetto.errors import InputError

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads slow the kernels' own

RECIPES = ("guess", "views", "zero123")
WEIGHTS = {  # stages' shares of the time
    "guess": {"guess": 0.05, "shape": 0.6, "clean": 0.05, "texture": 0.3},
    "views": {"guess": 0.04, "views": 0.4, "shape": 0.35, "clean": 0.03, "texture": 0.18},
    "gaussians": {"guess": 0.04, "shape": 0.5, "fuse": 0.2, "clean": 0.04, "texture": 0.22},  # recipe guess with --shape gaussians
    "zero123": {"guess": 0.01, "shape": 0.08, "distill": 0.82, "clean": 0.02, "texture": 0.07},
}
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True)
class Lift:
    """Turn pictures of one object each into textured 3D models (GLB)."""

    pictures: tyro.conf.Positional[tuple[Path, ...]]
    """pictures (PNG, JPEG, WebP), or folders of them"""
    out: Path = Path("out")
    """folder of the asset; with several pictures, a folder of such folders"""
    preset: Literal["draft", "standard", "fine"] = "standard"
    """draft takes seconds, standard a minute, fine a few"""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """one of the recipe's settings in place of the preset's, such as --set steps=200; give it again for another;
    `bozzetto settings` lists them, with --recipe those of another recipe"""
    recipe: str = "guess"
    """how to lift: guess is the embedded network alone; views lets a diffusion prior draw the hidden sides and follows the drawings;
    zero123 goes on from the guess by score distillation"""
    shape: Literal["mesh", "gaussians"] = "mesh"
    """what the guess is moved as; gaussians leave a splat, too (asset.ply), with --recipe guess"""
    prior: Path | None = None
    """folder of weights: the embedded ones by default; for views and zero123, Zero-1-to-3 or its kin (see docs/priors.md)"""
    kind: str | None = None
    """what --prior holds, where it does not say so itself: zero123, zero123-xl, stable-zero123"""
    mask: Path | None = None
    """a picture that is white where the object is, for one picture"""
    matting: Literal["classical", "rembg"] = "classical"
    """how to find the object where the picture has no transparency: rembg needs that package, and fetches its weights itself"""
    elevation_deg: float | None = None
    """how far above the horizon the picture was taken from, -90..90; estimated by default"""
    azimuth_deg: float = 0.0
    """from which side, counter-clockwise from the front; 0 makes the side you see the front"""
    seed: int = 0
    """of everything random"""
    device: str = "cpu"
    """cpu, cuda, cuda:1, mps"""
    resume: bool = False
    """go on with what --out holds, to the same result"""
    quiet: bool = False
    """no progress display"""
    json: bool = False
    """one line of JSON for each asset on stdout"""


@dataclass(frozen=True)
class Settings:
    """List a recipe's settings, which `bozzetto lift --set` changes: their values in each preset, and what they mean."""

    recipe: str = "guess"
    """guess, views, zero123"""
    shape: Literal["mesh", "gaussians"] = "mesh"
    """as `bozzetto lift` has it"""


@dataclass(frozen=True)
class Splat:
    """Turn posed pictures of a scene into Gaussians (.ply)."""

    scene: tyro.conf.Positional[Path]
    """folder of a COLMAP scene (images/ and sparse/0/) or of a NeRF-synthetic one (transforms.json)"""
    out: Path = Path("scene.ply")
    """the Gaussians; .splat, .json (metrics) and .webp (an orbit) come beside it"""
    steps: int = 7000
    """of one picture each; 30000 is the published number, at which all its other times are counted"""
    strategy: Literal["densify", "mcmc"] = "densify"
    """how Gaussians multiply: as first published, or by Markov chain Monte Carlo"""
    start: Literal["auto", "points", "random"] = "auto"
    """from COLMAP's points or random ones; auto: points where there are any"""
    points: int = 10000
    """random points to start from"""
    max_count: int = 200000
    """Gaussians at most"""
    degree: int = 3
    """of the colours' change with direction, 0 to 3"""
    antialiased: bool = False
    """thin Gaussians keep their brightness when seen from afar"""
    spz: bool = False
    """also write .spz, a tenth of the .ply (needs gsply)"""
    seed: int = 0
    """of everything random"""
    resume: bool = False
    """go on with what was begun for --out, to the same result"""
    quiet: bool = False
    """no progress display"""
    json: bool = False
    """one line of JSON on stdout"""


@dataclass(frozen=True)
class Mesh:
    """Turn Gaussians (.ply) into a closed, textured model (GLB)."""

    gaussians: tyro.conf.Positional[Path]
    """.ply of 3D Gaussian Splatting, `bozzetto splat`'s or another's"""
    out: Path | None = None
    """the model; beside the Gaussians by default"""
    scene: Path | None = None
    """folder that the Gaussians were fitted to: its cameras know best; without it, cameras all round"""
    cells: int = 128
    """of the lattice, along the longest side"""
    faces: int = 60000
    """of the model, at most"""
    texture: int = 1024
    """texels a side"""
    quiet: bool = False
    """no progress display"""


@dataclass(frozen=True)
class View:
    """Show Gaussians or a model in the browser, until Ctrl-C."""

    path: tyro.conf.Positional[Path]
    """.ply of Gaussians, .glb, or an asset's folder"""
    port: int = 8080
    """of this machine; 0 takes a free one"""


@dataclass(frozen=True)
class Views:
    """Draw an object from other sides with a view-conditioned diffusion prior (Zero-1-to-3 and its kin)."""

    picture: tyro.conf.Positional[Path]
    """picture of one object (PNG, JPEG, WebP)"""
    out: Path = Path("views")
    """folder of the views, a sheet of them, and their cameras (transforms.json)"""
    prior: Path = Path("mini")
    """folder of weights in diffusers' layout (see docs/priors.md)"""
    kind: str | None = None
    """what --prior holds, where it does not say so itself: zero123, zero123-xl, stable-zero123"""
    count: int = 8
    """views, round the object"""
    elevation_deg: float | None = None
    """how far above the horizon the picture was taken from; estimated by default"""
    ring_deg: float | None = None
    """elevation of the views; the picture's by default"""
    steps: int = 50
    """of the sampler, a view"""
    guidance: float | None = None
    """1 follows the picture, more does so harder; by default 3, or 1 with the embedded prior"""
    mask: Path | None = None
    """a picture that is white where the object is"""
    seed: int = 0
    """of the noise; view k takes seed + k"""
    device: str = "cpu"
    """cpu, cuda, cuda:1, mps"""
    quiet: bool = False
    """no progress display"""


@dataclass(frozen=True)
class Draw:
    """Draw what a text says with a text-to-image diffusion prior: a picture that `bozzetto lift` takes."""

    text: tyro.conf.Positional[str]
    """what to draw, in a few words: "a red chair"; one object"""
    out: Path = Path("drawing.png")
    """the picture"""
    count: int = 1
    """pictures, side by side in the one file; picture k takes seed + k"""
    guidance: float = 3.0
    """1 is the text as the prior understands it, more holds to it harder"""
    steps: int = 50
    """of the sampler"""
    prior: Path = Path("mini")
    """folder of weights that bozzetto.training.backbone wrote; the embedded ones by default"""
    towers: Path | None = None
    """folder of the text tower (text_encoder/, tokenizer/) that --prior was trained under, where it does not hold it itself"""
    seed: int = 0
    """of the noise"""
    device: str = "cpu"
    """cpu, cuda, cuda:1, mps"""
    quiet: bool = False
    """no progress display"""


@dataclass(frozen=True)
class Evaluate:
    """Measure lifting on objects nobody trained on, against honest baselines."""

    objects: Path
    """packed objects, as `bozzetto data` writes them"""
    out: Path = Path("out/evaluate")
    """tables and contact sheets"""
    count: int = 60
    """objects of each group"""
    preset: Literal["draft", "standard", "fine"] = "draft"
    """of the lifts that are measured"""
    recipe: Literal["guess", "views", "zero123"] = "guess"
    """how they are lifted"""
    shape: Literal["mesh", "gaussians"] = "mesh"
    """as `bozzetto lift` has it"""
    prior: Path | None = None
    """folder of weights that the recipe reads; the embedded ones by default"""
    seed: int = 0
    """of the cameras"""


@dataclass(frozen=True)
class Data:
    """Pack training objects: a folder of GLB, OBJ and PLY files, or Sweet Home 3D's `.sh3f` libraries."""

    source: tyro.conf.Positional[Path]
    """folder of models, or of .sh3f libraries"""
    out: Path
    """folder of packed objects"""


@dataclass(frozen=True)
class Convert:
    """Turn a legacy Zero-1-to-3 checkpoint (.ckpt) into a folder of safetensors; no code in it is run."""

    ckpt: tyro.conf.Positional[Path]
    """the file, as its authors published it"""
    out: Path
    """folder to write, which must not be there yet"""
    kind: Literal["zero123", "zero123-xl", "stable-zero123", "zero123-mini"]
    """what it is: the file does not say it"""
    config: Path | None = None
    """the YAML that it was trained with, where it is not the published one"""
    half: bool = False
    """write float16, half the size"""


@dataclass(frozen=True)
class Figures:
    """Draw the figures of docs/gallery again, from fixed seeds: scores, Langevin dynamics, diffusion."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """which ones; all by default"""
    out: Path = Path("docs/gallery")
    """folder of the PNGs"""
    full: bool = False
    """also those that sample trained networks at length"""


@dataclass(frozen=True)
class Doctor:
    """Say what this machine can do: cores, memory, backends, weights, and what a lift will take."""


Verb = (
    Annotated[Lift, tyro.conf.subcommand("lift")]
    | Annotated[Settings, tyro.conf.subcommand("settings")]
    | Annotated[Splat, tyro.conf.subcommand("splat")]
    | Annotated[Mesh, tyro.conf.subcommand("mesh")]
    | Annotated[View, tyro.conf.subcommand("view")]
    | Annotated[Views, tyro.conf.subcommand("views")]
    | Annotated[Draw, tyro.conf.subcommand("draw")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Data, tyro.conf.subcommand("data")]
    | Annotated[Convert, tyro.conf.subcommand("convert")]
    | Annotated[Figures, tyro.conf.subcommand("figures")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
)


def main() -> None:
    """Entry point of the `bozzetto` command."""
    from bozzetto import __version__

    if sys.argv[1:] == ["--version"]:
        print(f"bozzetto {__version__}")
        return
    verb = tyro.cli(Verb, prog="bozzetto", description="One picture in, a textured 3D model out.", config=(tyro.conf.FlagCreatePairsOff,))
    try:
        verbs: dict[type, Any] = {
            Lift: lift,
            Settings: settings,
            Views: views,
            Draw: draw,
            Splat: splat,
            Mesh: mesh,
            View: view,
            Evaluate: evaluate,
            Data: data,
            Convert: convert,
            Figures: figures,
            Doctor: doctor,
        }
        code = verbs[type(verb)](verb)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except FloatingPointError as error:  # says the stage and the step
        print(f"error: {error}; please report it with the picture; what was done is kept for --resume", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("stopped; go on with --resume", file=sys.stderr)
        code = 130
    raise SystemExit(code)


def lift(args: Lift) -> int:
    """Each picture in turn; one that fails does not stop the others."""
    jobs = _jobs(args)
    from bozzetto.recipes.lift import lift_picture, presets
    from bozzetto.recipes.settings import changed

    chosen = changed(presets(args.recipe, args.shape)[args.preset], args.set)
    failed = 0
    for path, out in jobs:
        with _progress(path.name, args.quiet, WEIGHTS[args.recipe if args.shape == "mesh" else args.shape]) as progress:
            try:
                asset = lift_picture(
                    path,
                    out,
                    preset=args.preset,
                    settings=chosen,
                    recipe=args.recipe,
                    shape=args.shape,
                    prior=args.prior,
                    kind=args.kind,
                    mask=args.mask,
                    matting=args.matting,
                    azimuth=math.radians(args.azimuth_deg),
                    elevation=None if args.elevation_deg is None else math.radians(args.elevation_deg),
                    seed=args.seed,
                    device=args.device,
                    resume=args.resume,
                    progress=progress,
                )
            except InputError as error:
                print(f"error: {error}", file=sys.stderr)
                failed += 1
                continue
        for warning in asset.source.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        if not asset.is_complete:
            print(f"{out}: exported what there was; finish it with --resume", file=sys.stderr)
            return 130
        if args.json:
            print(json.dumps({"asset": str(out / "asset.glb"), **asset.description()}), flush=True)
        elif not args.quiet:
            total, peak = asset.measured["total_seconds"], asset.measured["peak_gb"]
            memory = f", {peak:.1f} GB at most" if peak else ""
            print(f"{out / 'asset.glb'}: {len(asset.mesh.faces)} faces, {total:.0f} s{memory}")
    return 2 if failed else 0


def _jobs(args: Lift) -> list[tuple[Path, Path]]:
    """Pictures and the folders of their assets; flags are checked here, before anything heavy is imported."""
    _check_recipe(args.recipe)
    for flag, value, limit in (("--elevation-deg", args.elevation_deg, 90.0), ("--azimuth-deg", args.azimuth_deg, 360.0)):
        if value is not None and not abs(value) <= limit:
            raise InputError(f"{flag} {value}: expected a number from -{limit:.0f} to {limit:.0f}")
    if not re.fullmatch(r"cpu|cuda(:\d+)?|mps", args.device):
        raise InputError(f"--device {args.device}: expected cpu, cuda, cuda:N or mps")
    if not 0 <= args.seed < 2**63:
        raise InputError(f"--seed {args.seed}: expected a whole number from 0 to 2^63 - 1")
    if not args.pictures:
        raise InputError("no picture given; try: bozzetto lift chair.png --out chair")
    found: list[Path] = []
    for path in args.pictures:
        inside = sorted(f for f in path.iterdir() if f.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise InputError(f"{path}: no pictures in this folder (PNG, JPEG or WebP)")
        found += inside
    if len(found) == 1 and not args.pictures[0].is_dir():
        return [(found[0], args.out)]
    if args.mask is not None:
        raise InputError("--mask fits one picture; give one, or pictures with transparency")
    stems = [f.stem for f in found]
    names = [f.stem if stems.count(f.stem) == 1 else f.name for f in found]
    if len(set(names)) < len(names):
        raise InputError("two pictures have the same name; lift them one by one into different --out")
    return [(f, args.out / name) for f, name in zip(found, names, strict=True)]


def _check_recipe(name: str) -> None:
    if name not in RECIPES:
        near = difflib.get_close_matches(name.lower(), RECIPES, 1)
        raise InputError(
            f"--recipe {name}: there is no such recipe; " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(RECIPES)}")
        )


def settings(args: Settings) -> int:
    """See `bozzetto.recipes.settings`."""
    _check_recipe(args.recipe)
    from bozzetto.recipes.lift import presets
    from bozzetto.recipes.settings import show

    show(presets(args.recipe, args.shape))
    return 0


class _progress:
    """A bar with an estimate on stderr, or silence; called as `Progress`."""

    def __init__(self, title: str, quiet: bool, weights: dict[str, float]) -> None:
        self.title, self.quiet = title, quiet or not sys.stderr.isatty()
        self.weights = weights

    def __enter__(self) -> _progress:
        if not self.quiet:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=1.0)
        return self

    def __call__(self, stage: str, share: float) -> None:
        if not self.quiet:
            done = 0.0
            for name, weight in self.weights.items():
                if name == stage:
                    break
                done += weight
            self.bar.update(self.task, completed=done + self.weights.get(stage, 0) * share, description=f"{self.title}: {stage}")

    def __exit__(self, *_: object) -> None:
        if not self.quiet:
            self.bar.stop()


def splat(args: Splat) -> int:
    """See `bozzetto.recipes.splat`."""
    if not 0 <= args.seed < 2**31:
        raise InputError(f"--seed {args.seed}: expected a whole number from 0 to 2^31 - 1")
    from bozzetto.recipes import splat as recipe

    names = ("steps", "strategy", "start", "points", "max_count", "degree", "antialiased")
    settings = recipe.Splat(**{name: getattr(args, name) for name in names})
    with _progress(args.scene.name, args.quiet, {"fit": 1.0}) as progress:
        result = recipe.splat_scene(args.scene, args.out, settings, seed=args.seed, resume=args.resume, spz=args.spz, progress=progress)
    if not result.is_complete:
        print(f"{args.out}: exported what there was; finish it with --resume", file=sys.stderr)
        return 130
    if args.json:
        print(json.dumps({"splat": str(args.out), **result.metrics}), flush=True)
    elif not args.quiet:
        m = result.metrics
        print(f"{args.out}: {m['gaussians']} Gaussians, {m['psnr']:.2f} dB on {m['held_back']} held-back pictures, {m['seconds']:.0f} s")
    return 0


def mesh(args: Mesh) -> int:
    """See `bozzetto.recipes.splat_mesh`."""
    from bozzetto.recipes import splat_mesh as recipe

    out = args.gaussians.with_suffix(".glb") if args.out is None else args.out
    settings = recipe.SplatMesh(cells=args.cells, faces=args.faces, texture=args.texture)
    with _progress(args.gaussians.name, args.quiet, {"look": 0.3, "fuse": 0.25, "clean": 0.15, "texture": 0.3}) as progress:
        made = recipe.mesh_file(args.gaussians, out, settings, scene=args.scene, progress=progress)
    if not args.quiet:
        print(f"{out}: {len(made.faces)} faces")
    return 0


def view(args: View) -> int:
    """See `bozzetto.viewer`; Ctrl-C is how it is meant to end."""
    from bozzetto import viewer

    viewer.view(args.path, args.port)
    return 0


def views(args: Views) -> int:
    """See `bozzetto.recipes.novel_views`."""
    for flag, value in (("--elevation-deg", args.elevation_deg), ("--ring-deg", args.ring_deg)):
        if value is not None and not abs(value) <= 90:
            raise InputError(f"{flag} {value}: expected a number from -90 to 90")
    if args.guidance is not None and not math.isfinite(args.guidance):
        raise InputError(f"--guidance {args.guidance}: expected a finite number")
    from bozzetto.recipes.novel_views import NovelViews, picture_to_views

    with _progress(args.picture.name, args.quiet, {"views": 1.0}) as progress:
        sheet = picture_to_views(
            args.picture,
            args.out,
            NovelViews(count=args.count, elevation_deg=args.ring_deg, steps=args.steps, guidance=args.guidance),
            prior=args.prior,
            kind=args.kind,
            mask=args.mask,
            elevation=None if args.elevation_deg is None else math.radians(args.elevation_deg),
            seed=args.seed,
            device=args.device,
            progress=progress,
        )
    print(sheet)
    return 0


def draw(args: Draw) -> int:
    """See `bozzetto.recipes.draw`."""
    if not math.isfinite(args.guidance):
        raise InputError(f"--guidance {args.guidance}: expected a finite number")
    if not 0 <= args.seed < 2**63:
        raise InputError(f"--seed {args.seed}: expected a whole number from 0 to 2^63 - 1")
    from bozzetto.recipes.draw import draw_text

    names = ("count", "steps", "guidance", "prior", "towers", "seed", "device")
    with _progress("draw", args.quiet, {"views": 1.0}) as progress:
        print(draw_text(args.text, args.out, **{name: getattr(args, name) for name in names}, progress=progress))
    return 0


def evaluate(args: Evaluate) -> int:
    """See `bozzetto.evaluate.lifting`."""
    from bozzetto.evaluate.lifting import evaluate_lifting

    how = (args.preset, args.recipe, args.prior, args.seed)
    print(evaluate_lifting(args.objects, args.out, args.count, *how, shape=args.shape))
    return 0


def data(args: Data) -> int:
    """Pack what is in a folder."""
    if not args.source.is_dir():
        raise InputError(f"{args.source}: no such folder; give one with GLB, OBJ, PLY or .sh3f files")
    if any(args.source.glob("*.sh3f")):
        from bozzetto.data.sweethome import main as pack_libraries

        return pack_libraries([str(args.source), str(args.out)])
    from bozzetto.data.folder import main as pack_folder

    return pack_folder([str(args.source), str(args.out)])


def convert(args: Convert) -> int:
    """See `bozzetto.priors.convert`."""
    from bozzetto.priors import convert as converter

    converter.convert(args.ckpt, args.out, args.kind, args.config, half=args.half)
    print(args.out)
    return 0


def figures(args: Figures) -> int:
    """See `bozzetto.figures.gallery`."""
    from bozzetto.figures.gallery import draw_all

    draw_all(args.out, names=args.names, is_full=args.full)
    return 0


def doctor(args: Doctor) -> int:
    """See `bozzetto.doctor`."""
    from bozzetto.doctor import main as report

    return report()


if __name__ == "__main__":
    main()
