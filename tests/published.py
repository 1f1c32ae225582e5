# SPDX-License-Identifier: Apache-2.0
"""What published weights do on this machine, in one table to send back: `python -m tests.published FOLDER ...`.

    bozzetto fetch stable-diffusion-1.5 --out priors/sd15
    python -m tests.published priors --out published.json

FOLDER is a prior's, in any layout that `bozzetto.load` or `priors.triposr_files` reads, or holds such folders; a name that was fetched
does as well. Each is opened by the product's own loader in a process of its own, and asked for one small fixed thing: a picture of
`examples/` from the side, "a red chair", or that picture's field. The row says what the weights are (by the hashes of
`priors.published`), whether everything is finite, mean and standard deviation of what came out, seconds and memory, planned and taken.

Of one prior numbers are published by others: eight outputs of Stable Diffusion 1.5's U-Net, by diffusers' own tests
(tests/models/unets/test_models_unet_2d_condition.py, `test_compvis_sd_v1_5`, seed 33, step 4). Their inputs are fetched with --network,
and the row says how far ours are from them; theirs were held to 1e-3.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bozzetto.camera import orbit
from bozzetto.errors import InputError
from bozzetto.fit.drawings import Drawing
from bozzetto.fit.run import peak_gb
from bozzetto.fit.source import Source
from bozzetto.priors import loading, plan, sample, triposr_files
from bozzetto.priors.instruct import InstructPix2Pix
from bozzetto.priors.prior import Reference
from bozzetto.priors.published import PUBLISHED, place
from bozzetto.priors.text2image import TextToImage
from bozzetto.priors.triposr import costs
from bozzetto.priors.wonder3d import Wonder3D
from bozzetto.priors.zero123 import Zero123
from bozzetto.verbs.views import DISTANCE, FOV

PICTURE = Path(__file__).parent.parent / "examples" / "wooden-chair.png"
STEPS = 4
RECORDED = (-0.4430, 0.1570, -0.1867, 0.2376, 0.3205, -0.3681, 0.0525, -0.0722)  # sample[-1, -2:, -2:, :2]
COLUMNS = ("folder", "layout", "weights of", "parameters", "finite", "mean", "std", "off recorded", "open, s", "run, s", "planned, s")
COLUMNS += ("peak, GB", "planned, GB")
VERSIONS = ("bozzetto", "torch", "diffusers", "transformers")


def folders(given: Iterable[str]) -> list[Path]:
    """Those that hold a prior, of what was given."""
    found: list[Path] = []
    for name in given:
        at = place(name)
        inside = sorted(f for f in at.iterdir() if f.is_dir()) if at.is_dir() else []
        found += [at] if is_prior(at) else [f for f in inside if is_prior(f)] or [at]
    return found


def is_prior(folder: Path) -> bool:
    return (folder / "model_index.json").is_file() or triposr_files.is_folder(folder) or loading.unconditional.kind_of(folder) is not None


def weights_of(folder: Path) -> str:
    """The published prior whose known hashes the files have; only files of the right size are read."""
    for name, prior in PUBLISHED.items():
        known = [(folder / f.name, f) for f in prior.files if f.sha256 and f.size]
        if known and all(at.is_file() and at.stat().st_size == f.size and _sha256(at) == f.sha256 for at, f in known):
            return name
    return "unknown"


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@torch.no_grad()
def row(folder: Path, kind: str | None = None, dtype: torch.dtype = torch.float32, with_network: bool = False) -> dict[str, Any]:
    """What a folder's prior does, by COLUMNS; raises InputError where it cannot be opened."""
    made_of, started = weights_of(folder), time.perf_counter()
    if triposr_files.is_folder(folder):
        network, layout = triposr_files.load(folder, dtype=dtype), "triposr"
        cost = costs(network.config, 64, dtype)
        planned = plan.Plan(cost.peak, flop=cost.network, dtype=dtype)
        ask: Callable[[], Tensor] = lambda: network.field(network(_shown(network.config.picture, 0.5)[None])[0]).planes  # noqa: E731
    else:
        outline = loading.load(folder, kind, dtype=dtype, device="meta")
        asked = Drawing(STEPS).asked(outline, 1)
        planned = plan.Plan(dtype=dtype).plus(outline, asked)
        prior: Any = loading.load(folder, kind, dtype=dtype)
        network, layout = prior, getattr(prior, "kind", None) or type(prior).__name__
        ask = lambda: drawn(prior)  # noqa: E731
    opened, started = time.perf_counter() - started, time.perf_counter()
    out = ask().float()
    took, peak = time.perf_counter() - started, peak_gb() or math.nan
    off = recorded_error(network.unet) if with_network and made_of == "stable-diffusion-1.5" else None
    return {
        "folder": folder.name,
        "layout": layout,
        "weights of": made_of,
        "parameters": sum(p.numel() for p in network.parameters()),
        "finite": bool(torch.isfinite(out).all()),
        "mean": round(float(out.mean()), 5),
        "std": round(float(out.std()), 5),
        "off recorded": off,
        "open, s": round(opened, 1),
        "run, s": round(took, 1),
        "planned, s": round(planned.seconds or 0, 1),
        "peak, GB": round(peak * 1024**3 / 1e9, 2),
        "planned, GB": round(planned.ram / 1e9, 2),
    }


def drawn(prior: Any) -> Tensor:
    """One picture, or those of one sample, by a few steps under seed 0."""
    cond = prior.condition()
    if isinstance(prior, Zero123):
        cameras = orbit([0.0, math.pi / 2], 0.2, DISTANCE, size=prior.size, fov=FOV)
        cond = prior.condition(Reference(_shown(prior.size, prior.background)[None], cameras[[0]]), cameras[[1]])
    elif isinstance(prior, Wonder3D):
        cond = prior.condition(Reference(_shown(prior.size, prior.background)[None], orbit([0.0], 0.2, DISTANCE, size=prior.size, fov=FOV)))
    elif isinstance(prior, InstructPix2Pix):
        shown = _shown(prior.size, prior.background)[None]
        how = prior.sampler._replace(steps=STEPS)
        return prior.edited(shown, "make it red", image_scale=1.5, sampler=how, generator=torch.Generator().manual_seed(0))
    elif isinstance(prior, TextToImage):
        cond = prior.condition(text="a red chair")
    sampler = prior.sampler._replace(steps=STEPS)
    picture: Tensor = prior.decode(sample(prior, cond, sampler=sampler, generator=torch.Generator().manual_seed(0)))
    return picture


def _shown(size: int, background: float) -> Tensor:
    """(size, size, 3): the fixed picture's object."""
    crop = Source.load(PICTURE).crop(size)
    return (crop.rgb + (1 - crop.alpha[..., None]) * background).float()


def recorded_error(unet: Any, expected: tuple[float, ...] = RECORDED, array: Callable[[str], Tensor] | None = None) -> float:
    """Largest difference of a U-Net's outputs from recorded ones; `array` gives their inputs by name, diffusers' by default."""
    latents, states = map(array or _published_array, ("gaussian_noise_s=33_shape=4_4_64_64.npy", "gaussian_noise_s=33_shape=4_77_768.npy"))
    made = unet(latents.to(unet.dtype), torch.tensor([4]), encoder_hidden_states=states.to(unet.dtype)).sample
    return float((made[-1, -2:, -2:, :2].flatten().float() - torch.tensor(expected)).abs().max())


def _published_array(name: str) -> Tensor:
    import numpy as np
    from huggingface_hub import hf_hub_download

    return torch.from_numpy(np.load(hf_hub_download("fusing/diffusers-testing", name, repo_type="dataset")))


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown; a folder that could not be opened says why."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for found in rows:
        cells = [found["folder"], found["error"]] if "error" in found else [found[c] for c in COLUMNS]
        lines.append("| " + " | ".join("–" if cell is None else str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.published", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", nargs="+", help="a prior's, or one that holds such; or a fetched name")
    parser.add_argument("--kind", help="what the weights are, where a folder does not say it: zero123, zero123-xl, stable-zero123")
    parser.add_argument("--precision", choices=loading.PRECISIONS, default="fp32")
    parser.add_argument("--network", action="store_true", help="fetch the inputs of recorded outputs")
    parser.add_argument("--out", type=Path, default=Path("published.json"), help="the same as JSON")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    if args.one:
        try:
            told = row(Path(args.folder[0]), args.kind, loading.PRECISIONS[args.precision], args.network)
        except InputError as error:
            told = {"folder": Path(args.folder[0]).name, "error": str(error)}
        print(json.dumps(told))
        return 0
    rows = []
    for folder in folders(args.folder):
        command = [sys.executable, "-m", "tests.published", "--one", str(folder), "--precision", args.precision]
        command += ["--kind", args.kind] if args.kind else []
        command += ["--network"] if args.network else []
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)  # killed for memory, it says nothing
        told = {"folder": folder.name, "error": f"ended with code {done.returncode}"}
        rows.append(json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else told)
    versions = {name: importlib.metadata.version(name) for name in VERSIONS}
    machine = {"threads": torch.get_num_threads(), "precision": args.precision, **versions}
    print(", ".join(f"{name} {value}" for name, value in machine.items()), "\n")
    print(table(rows))
    args.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    return 0 if rows and not any("error" in r or not r["finite"] for r in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
