# SPDX-License-Identifier: Apache-2.0
"""A model changed as an instruction says: `bozzetto.edit`, and `bozzetto edit out/chair/asset.glb "paint it green"`. Its texture changes,
its shape stays. `bozzetto lift --edit` does the same to what it has just lifted."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bozzetto import __version__
from bozzetto.errors import InputError
from bozzetto.fit.asset import EDITS, Asset, png
from bozzetto.fit.change import smooth_normals
from bozzetto.fit.drawings import Drawing
from bozzetto.fit.edited import Editing, cameras_round, edited, sheet
from bozzetto.fit.run import Progress, Run, check_device, check_writable, peak_gb
from bozzetto.formats.gltf import load
from bozzetto.mesh import Mesh
from bozzetto.priors import loading
from bozzetto.verbs import plan
from bozzetto.verbs.settings import EDIT_PRIOR

BEYOND = 1e-3  # how far texture coordinates may leave [0, 1] by rounding


@dataclass(frozen=True)
class Edit:
    """An instruction, and who follows it.

    record    of the instruction, its settings and the prior's weights
    sentence  how much memory and time it will take
    """

    text: str
    how: Editing
    editor: Any
    record: dict[str, Any]
    sentence: str

    @classmethod
    def of(
        cls,
        text: str,
        how: Editing = Editing(),
        prior: str | Path = EDIT_PRIOR,
        device: str = "cpu",
        precision: str = "auto",
        offload: bool = False,
    ) -> Edit:
        """raises  InputError, before anything is drawn, for an instruction, number or prior that cannot be used, or too little memory"""
        if not text.strip():
            raise InputError('no instruction given; try: bozzetto edit asset.glb "paint it green"')
        if not 3 <= how.views <= 64 or not 1 <= (how.steps or 1) <= 1000 or not 64 <= (how.size or 64) <= 2048:
            raise InputError(
                f"--views {how.views}, --steps {how.steps}, --size {how.size}: expected 3 to 64 views, 1 to 1000 steps, 64 to 2048 pixels"
            )
        times = 2 if how.against == "redrawn" else 1
        drawing = Drawing(how.steps, how.guidance, batch=how.views if how.together else 1)
        fewest = ("--views 3", 3 * times)
        planned = plan.for_drawing("edits", prior, drawing, times * how.views, None, None, device, precision, offload, fewest)
        editor, digest = _editor(str(prior), device, precision, offload)
        if excess := editor.excess(text):
            raise InputError(f"the instruction is {excess} tokens longer than this prior reads; say it in fewer words")
        return cls(text, how, editor, {"edit_prior": digest, "edit": {"text": text, **asdict(how)}}, planned.sentence())

    def made(self, mesh: Mesh, run: Run, seed: int) -> tuple[Mesh, dict[str, bytes]]:
        """The mesh with its texture changed, and EDITS by name, as stages of a run."""
        mesh, views, share = edited(mesh, self.editor, self.text, self.how, run, seed=seed)
        return mesh, dict(zip(EDITS, (png(share[..., None]), png(sheet(mesh, views))), strict=True))


def edit_asset(
    asset: Asset | str | Path,
    text: str,
    out: str | Path | None = None,
    *,
    how: Editing = Editing(),
    prior: str | Path = EDIT_PRIOR,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "auto",
    offload: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> Asset:
    """The same model with a texture as an instruction says, 'paint it green'; texels that it says nothing of keep their pixels to 1/255.

    asset   one that was lifted, its folder, or a GLB, OBJ or PLY with a texture, whosever it is: what it says of metal and roughness is
            not carried over
    out     folder to write the new one to; None leaves it in memory
    prior   folder of InstructPix2Pix's weights, or the name of fetched ones
    others  as `lift` has them
    raises  InputError, before anything is written, for a model, instruction or prior that cannot be used, or too little memory
    """
    started = time.monotonic()
    check_device(device)
    old, made_from = (asset, _made_from(asset)) if isinstance(asset, Asset) else _opened(Path(asset))
    if out is not None:
        check_writable(Path(out))
    edit = Edit.of(text, how, prior, device, precision, offload)
    made_with = {"precision": precision, "seed": seed, "device": torch.device(device).type}
    record = {"generator": "bozzetto", **made_from, **edit.record, **made_with}
    run = Run(out, record, resume=resume, progress=progress)
    if tell is not None:
        tell(edit.sentence)
    with run.interruptible():
        mesh, files = edit.made(old.mesh, run, seed)
        peak = peak_gb()
        timings = {k: round(v, 2) for k, v in run.timings.items()}
        measured = {"seconds": timings, "total_seconds": round(time.monotonic() - started, 2)}
        measured["peak_gb"] = None if peak is None else round(peak, 2)
        made_by = {**record, "versions": {"bozzetto": __version__, "torch": torch.__version__}}
        new = replace(old, mesh=mesh, record=made_by, measured=measured, files=files, keeps_pixels=True)
        if out is not None:
            new.write(out)
        run.finish()
    return new


@functools.lru_cache(maxsize=1)  # many pictures, one prior: gigabytes to read, and to hash
def _editor(prior: str, device: str, precision: str, offload: bool) -> tuple[Any, str]:
    dtype = loading.dtype_on(device, precision)
    return loading.load_for("edits", prior, dtype=dtype, device=device, offload=offload), loading.digest(prior)


def _opened(path: Path) -> tuple[Asset, dict[str, Any]]:
    """What is in a file, and what a record says of it; raises InputError where there is no texture to change."""
    path = path / "asset.glb" if path.is_dir() else path
    mesh = load(path)
    if mesh.texture is None or mesh.uv is None:
        raise InputError(f"{path}: has no texture to edit; bake its colours into one picture first")
    if float(mesh.uv.min()) < -BEYOND or float(mesh.uv.max()) > 1 + BEYOND:
        raise InputError(f"{path}: its texture repeats, so that an edit of one place would show in others; bake it into one picture first")
    if mesh.normals is None:
        mesh = replace(mesh, normals=smooth_normals(mesh))
    record = {"source": path.name, "digest": hashlib.sha256(path.read_bytes()).hexdigest()}
    return Asset(mesh, cameras_round(mesh.vertices, 3, 512)[0], None, record), record


def _made_from(asset: Asset) -> dict[str, Any]:
    """What a record says of an asset in memory."""
    if asset.mesh.texture is None:
        raise InputError(f"{asset.record['source']}: has no texture to edit")
    digest = hashlib.sha256(asset.mesh.vertices.numpy().tobytes() + asset.mesh.texture.numpy().tobytes()).hexdigest()
    return {"source": asset.record["source"], "digest": digest, "of": asset.record}
