# SPDX-License-Identifier: Apache-2.0
"""Bozzetto: one picture in, a textured 3D model out, on any machine.

    from bozzetto import edit, lift, load, splat

`lift` makes a model of a picture, `edit` changes its texture as an instruction says, `splat` makes Gaussians of a scene's pictures, `load`
reads a diffusion prior. Nothing heavy is imported until one of them is asked for, so that `bozzetto --help` answers at once; all else is
imported from its room by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bozzetto.priors.loading import load as load
    from bozzetto.verbs.edit_asset import edit_asset as edit
    from bozzetto.verbs.lift import lift as lift
    from bozzetto.verbs.splat import splat_scene as splat

__version__ = "0.1.0"
__all__ = ["__version__", "edit", "lift", "load", "splat"]

_WHERE = {
    "edit": ("bozzetto.verbs.edit_asset", "edit_asset"),
    "lift": ("bozzetto.verbs.lift", "lift"),
    "load": ("bozzetto.priors.loading", "load"),
    "splat": ("bozzetto.verbs.splat", "splat_scene"),
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'bozzetto' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _WHERE[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__
