# SPDX-License-Identifier: Apache-2.0
"""What each verb of the command line takes: a dataclass of flags, whose strings are the help texts. `command.parsed` reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import arg

from bozzetto.verbs.settings import (
    EDIT_PRIOR,
    VIEWS,
    ClaimsSettings,
    EditSettings,
    LearnSettings,
    MeshSettings,
    ReconstructSettings,
    ShapeSettings,
    SplatSettings,
)

Device = Annotated[str, arg(help="cpu, cuda, cuda:1, mps")]
Float = Literal["auto", "fp32", "fp16", "bf16"]
Precision = Annotated[Float, arg(help="what diffusion networks compute in; by default fp16 on CUDA, fp32 elsewhere")]
Offload = Annotated[
    bool, arg(help="diffusion networks wait in the machine's memory and come to a card layer by layer: slow, for small cards")
]
Kind = Annotated[str | None, arg(help="what --prior holds, where it does not say so itself: zero123, zero123-xl, stable-zero123")]
Quiet = Annotated[bool, arg(help="no progress display, nor what the run will take")]
Seed = Annotated[int, arg(help="of everything random")]
Silent = Annotated[bool, arg(help="no progress display")]
SCENE = "folder of a COLMAP scene (images/ and sparse/0/) or of one with transforms.json (NeRF-synthetic, instant-ngp, nerfstudio)"
PosedPictures = Annotated[tyro.conf.Positional[Path], arg(help=SCENE)]


@dataclass(frozen=True)
class Lift:
    """Turn pictures of one object each into textured 3D models (GLB)."""

    pictures: tyro.conf.Positional[tuple[Path, ...]]
    """pictures (PNG, JPEG, WebP), or folders of them; none with --text"""
    out: Path = Path("out")
    """folder of the asset; with several pictures, a folder of such folders"""
    preset: Literal["draft", "standard", "fine"] = "standard"
    """draft takes seconds, standard a minute, fine a few"""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """one of the recipe's settings in place of the preset's, such as --set steps=200; give it again for another;
    `bozzetto settings` lists them, with --recipe those of another recipe"""
    recipe: str = "guess"
    """how to lift: guess is the embedded network alone; gaussians moves its guess as Gaussians, and leaves a splat, too (asset.ply);
    views lets a diffusion prior draw the hidden sides and follows the drawings; zero123 goes on from the guess by score distillation;
    dreamcraft3d, magic123 and consistent123 by two priors, one of which reads --text; consistent123-views, wonder3d, syncdreamer and
    one2345 make a surface of views that are drawn together; mvdream starts from --text alone; sweetdreamer reads it, and coordinate maps"""
    guess: str = "mini"
    """what every recipe begins with: mini is the embedded network; triposr a larger one (`bozzetto fetch triposr`, 1.7 GB; a minute and
    3 GB on two cores); or a folder of either's layout"""
    prior: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """folder of weights, or the name of fetched ones (`bozzetto fetch --list`): the embedded ones by default; for views and zero123,
    Zero-1-to-3 or its kin (see docs/priors.md); of a recipe with several priors, --prior views=FOLDER --prior text=FOLDER; besides,
    paint=FOLDER (of text, by which dreamcraft3d and sweetdreamer paint), clip=FOLDER (for consistent123, and to choose by with --text
    alone) and edit=FOLDER"""
    kind: Kind = None
    text: str | None = None
    """what the picture shows, in words, for a recipe that reads them; without a picture several are drawn first, as bozzetto draw does,
    and the best is taken"""
    best_of: int | None = None
    """pictures that are drawn of --text alone; by default 8, or 4 by a prior that is not embedded; one is taken, by CLIP and its outline"""
    edit: str | None = None
    """what to change in the finished model's texture, in words: "paint it green"; by InstructPix2Pix (--prior edit=FOLDER, by default
    the fetched one)"""
    depth: Path | None = None
    """for dreamcraft3d and magic123: folder of a network that estimates it, or a file (PNG, NPY); the first guess's by default"""
    depth_is: Literal["auto", "distance", "inverse"] = "auto"
    """whether --depth grows away from the camera or towards it; auto: as a network's settings say, of a file a distance"""
    normal: Path | None = None
    """as --depth, a file: red to the right, green up, blue towards the camera"""
    mask: Path | None = None
    """a picture that is white where the object is, for one picture"""
    matting: Literal["auto", "classical", "rembg"] = "auto"
    """how to find the object where the picture has no transparency: auto asks a small embedded network which region it is and a
    classical search where it ends; classical is that search alone; rembg needs that package, and fetches its weights itself"""
    elevation_deg: float | None = None
    """how far above the horizon the picture was taken from, -90..90; estimated by default"""
    azimuth_deg: float = 0.0
    """from which side, counter-clockwise from the front; 0 makes the side you see the front"""
    seed: Seed = 0
    device: Device = "cpu"
    precision: Precision = "auto"
    offload: Offload = False
    resume: bool = False
    """go on with what --out holds, to the same result"""
    quiet: Quiet = False
    json: bool = False
    """one line of JSON for each asset on stdout"""


@dataclass(frozen=True)
class Settings:
    """List a recipe's settings, which `bozzetto lift --set` changes: their values in each preset, and what they mean."""

    recipe: str = "guess"
    """guess, gaussians, views, zero123, dreamcraft3d, magic123, consistent123, consistent123-views,
    wonder3d, syncdreamer, one2345, mvdream, sweetdreamer"""


@dataclass(frozen=True)
class Splat(SplatSettings):
    """Turn posed pictures of a scene into Gaussians (.ply)."""

    scene: PosedPictures = field(kw_only=True)
    out: Path = Path("scene.ply")
    """the Gaussians; .splat, .json (metrics) and .webp (an orbit) come beside it"""
    spz: bool = False
    """also write .spz, a tenth of the .ply (needs gsply)"""
    seed: Seed = 0
    resume: bool = False
    """go on with what was begun for --out, to the same result"""
    quiet: Quiet = False
    json: bool = False
    """one line of JSON on stdout"""


@dataclass(frozen=True)
class Mesh(MeshSettings):
    """Turn Gaussians (.ply) into a closed, textured model (GLB)."""

    gaussians: tyro.conf.Positional[Path] = field(kw_only=True)
    """.ply of 3D Gaussian Splatting, `bozzetto splat`'s or another's"""
    out: Annotated[Path | None, arg(help="the model; beside the Gaussians by default")] = None
    scene: Path | None = None
    """folder that the Gaussians were fitted to: its cameras know best; without it, cameras all round"""
    quiet: Silent = False


@dataclass(frozen=True)
class Reconstruct(ReconstructSettings):
    """Turn posed pictures of one object into a textured 3D model (GLB), by a network, in seconds."""

    scene: PosedPictures = field(kw_only=True)
    out: Annotated[Path, arg(help="the model", aliases=("-o",))] = Path("scene.glb")
    network: Annotated[Path, arg(help="folder of a reconstructor's weights; mini is the embedded one")] = Path("mini")
    matting: Annotated[Literal["auto", "classical", "rembg"], arg(help="where a picture has no transparency, as for lift")] = "auto"
    """how to find the object in pictures without transparency, as for lift"""
    quiet: Silent = False


@dataclass(frozen=True)
class Shape(ShapeSettings):
    """Turn points or coarse voxels of one object into a closed mesh (GLB), by a network, in seconds."""

    scan: Annotated[tyro.conf.Positional[Path], arg(help="points (.ply, .xyz, .npy) or voxels (.npy, .binvox)")] = field(kw_only=True)
    out: Annotated[Path, arg(help="the model, in the file's scale and place", aliases=("-o",))] = Path("shape.glb")
    network: Annotated[Path, arg(help="folder of weights for points or for voxels; mini is the embedded ones")] = Path("mini")
    seed: Annotated[int, arg(help="of which points are taken, of too many")] = 0
    quiet: Silent = False


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
    """folder of weights in diffusers' layout (see docs/priors.md), or the name of fetched ones (`bozzetto fetch --list`)"""
    kind: Kind = None
    count: int = VIEWS
    """views, round the object"""
    elevation_deg: float | None = None
    """how far above the horizon the picture was taken from; estimated by default"""
    ring_deg: float | None = None
    """elevation of the views; the picture's by default"""
    steps: int | None = None
    """of the sampler, a view; default: 50, or 8 for the embedded prior"""
    guidance: float | None = None
    """1 follows the picture, more does so harder; by default 3, or 1 with the embedded prior"""
    mask: Path | None = None
    """a picture that is white where the object is"""
    seed: int = 0
    """of the noise; view k takes seed + k"""
    device: Device = "cpu"
    precision: Precision = "auto"
    offload: Offload = False
    quiet: Quiet = False


@dataclass(frozen=True)
class Draw:
    """Draw what a text says with a text-to-image diffusion prior: a picture that `bozzetto lift` takes."""

    text: tyro.conf.Positional[str]
    """what to draw, in a few words: "a red chair"; one object"""
    out: Path = Path("drawing.png")
    """the picture"""
    count: int = 1
    """pictures, side by side in the one file; picture k takes seed + k"""
    guidance: float | None = None
    """1 is the text as the prior understands it, more holds to it harder; by default what the prior wants, 3 of the embedded one"""
    steps: int | None = None
    """of the sampler; by default what the prior wants, 50 of the embedded one"""
    prior: Path = Path("mini")
    """folder of weights that bozzetto.training.backbone wrote; the embedded ones by default"""
    towers: Path | None = None
    """folder of the text tower (text_encoder/, tokenizer/) that --prior was trained under, where it does not hold it itself"""
    seed: int = 0
    """of the noise"""
    device: Device = "cpu"
    precision: Precision = "auto"
    offload: Offload = False
    quiet: Quiet = False


@dataclass(frozen=True)
class Edit(EditSettings):
    """Change a picture, or a model's texture, as an instruction says, by InstructPix2Pix."""

    picture: tyro.conf.Positional[Path] = field(kw_only=True)
    """picture (PNG, JPEG, WebP; what is transparent becomes white), or a model with a texture (GLB, OBJ, PLY, or an asset's folder)"""
    text: tyro.conf.Positional[str] = field(kw_only=True)
    """what to change, in a few words: "paint it blue" is an example"""
    out: Path | None = None
    """the picture, by default edited.png; of a model a folder, by default edited"""
    prior: Path = Path(EDIT_PRIOR)
    """folder of InstructPix2Pix's weights, or the name of fetched ones: bozzetto fetch instruct-pix2pix"""
    seed: int = 0
    """of the noise"""
    device: Device = "cpu"
    precision: Precision = "auto"
    offload: Offload = False
    resume: bool = False
    """of a model: go on with what --out holds, to the same result"""
    quiet: Quiet = False


@dataclass(frozen=True)
class Learn(LearnSettings):
    """Teach a text-to-image prior one object from a few pictures (DreamBooth): what it learnt is a folder for --prior."""

    text: tyro.conf.Positional[str] = field(kw_only=True)
    """what it shall mean: "a sks chair", the kind of thing and a word that means nothing yet"""
    pictures: tyro.conf.Positional[tuple[Path, ...]] = field(kw_only=True)
    """three to five pictures of the object (PNG, JPEG, WebP), or a folder of them"""
    out: Path = Path("learnt")
    """folder of what was learnt, which must not be there yet; it names the prior that it belongs to"""
    prior: Path = Path("mini")
    """folder of weights that draws what a text says, or what was learnt on one; the embedded ones by default"""
    towers: Path | None = None
    """folder of the text tower (text_encoder/, tokenizer/) that --prior was trained under, where it does not hold it itself"""
    seed: Seed = 0
    device: Device = "cpu"
    precision: Float = "auto"
    """what frozen networks compute in; by default bf16 on CUDA, fp32 elsewhere"""
    resume: bool = False
    """go on with what --out holds, to the same result"""
    quiet: Silent = False


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
    recipe: str = "guess"
    """how they are lifted, as `bozzetto lift` has it"""
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
    """Turn a legacy checkpoint of Zero-1-to-3, SyncDreamer (.ckpt) or MVDream (.pt) into a folder of safetensors; no code in it is run."""

    ckpt: tyro.conf.Positional[Path]
    """the file, as its authors published it"""
    out: Path
    """folder to write, which must not be there yet"""
    kind: Literal["zero123", "zero123-xl", "stable-zero123", "zero123-mini", "syncdreamer", "mvdream"]
    """what it is: the file does not say it"""
    config: Path | None = None
    """the YAML that it was trained with, where it is not the published one"""
    half: bool = False
    """write float16, half the size"""
    tokenizer: Path | None = None
    """of mvdream, which holds none: a folder with tokenizer/, or the name of fetched weights; by default stable-diffusion-2.1-base"""


@dataclass(frozen=True)
class Fetch:
    """Bring the weights of a published prior onto this disk; says first whose they are, how large, and under which licence."""

    name: tyro.conf.Positional[str] = ""
    """which one, as --list has it; the name then stands wherever a folder of weights may"""
    out: Path | None = None
    """folder to put them in, which must not be there yet; by default they stay in the cache of Hugging Face's hub (HF_HOME)"""
    yes: bool = False
    """agree to a licence that restricts, unasked"""
    list: bool = False
    """show what there is, and what of it is here"""
    quiet: bool = False
    """no progress display; on standard output the folder alone"""


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
class Claims(ClaimsSettings):
    """Try what papers say their methods do, in small: each beside its rivals and a broken control, over several seeds."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """which ones; all by default"""
    out: Path = Path("out/claims")
    """folder of the results; what is there is not run again"""


@dataclass(frozen=True)
class Doctor:
    """Say what this machine can do: cores, memory, backends, weights, and what a lift will take."""
