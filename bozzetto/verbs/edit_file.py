# SPDX-License-Identifier: Apache-2.0
"""`bozzetto edit`: a picture by `verbs.edit`, a model by `verbs.edit_asset`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bozzetto.errors import InputError
from bozzetto.fit.edited import Editing
from bozzetto.verbs.edit import edit_picture
from bozzetto.verbs.edit_asset import edit_asset
from bozzetto.verbs.settings import EDIT_SIZE, EDIT_VIEWS, EditSettings, settings_of

MODELS = (".glb", ".gltf", ".obj", ".ply")


def edit_file(path: Path, text: str, out: Path | None, settings: EditSettings, *, resume: bool = False, **how: Any) -> Path:
    """Edit what is there, a picture or a model; returns where the result is. `how` is as both verbs have it.

    raises  InputError, before anything is drawn, for what cannot be used, and for settings of the other kind
    """
    s, is_model = settings, path.is_dir() or path.suffix.lower() in MODELS
    others = {"--count": s.count != 1} if is_model else {"--views": s.views != EDIT_VIEWS, "--together": s.together, "--resume": resume}
    if given := [flag for flag, is_given in others.items() if is_given]:
        raise InputError(f"{given[0]}: is for {'pictures' if is_model else 'models'}, and {path} is none; leave it out")
    if not is_model:
        drawing: dict[str, Any] = {"count": s.count, "steps": s.steps, "guidance": s.guidance, "image_guidance": s.image_guidance}
        return edit_picture(path, text, out or Path("edited.png"), size=EDIT_SIZE if s.size is None else s.size, **drawing, **how)
    folder = out or Path("edited")
    edit_asset(path, text, folder, how=settings_of(Editing, settings), resume=resume, **how)
    return folder / "asset.glb"
