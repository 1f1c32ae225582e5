# SPDX-License-Identifier: Apache-2.0
"""Which pictures a verb takes of what it is given, and where the asset of each one goes that is lifted. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from bozzetto.errors import InputError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
OTHERS = {".heic", ".heif", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".jxl", ".jp2", ".psd", ".tga", ".exr", ".hdr", ".svg"}
OTHERS |= {".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"}


def jobs(given: Sequence[Path], out: Path, mask: Path | None, warn: Callable[[str], None]) -> list[tuple[Path, Path]]:
    """Pictures and the folders of their assets; one picture's is `out` itself. Hidden files and folders within one are passed over.

    warn    gets a sentence for a folder's pictures of formats that are not read
    raises  InputError for no picture, a mask for several, or two of one name
    """
    if not given:
        raise InputError('no picture given; try: bozzetto lift chair.png --out chair, or bozzetto lift --text "a red chair"')
    found = [picture for path in given for picture in (pictures_in(path, warn) if path.is_dir() else [path])]
    if len(found) == 1 and not given[0].is_dir():
        return [(found[0], out)]
    if mask is not None:
        raise InputError("--mask fits one picture; give one, or pictures with transparency")
    stems = [f.stem for f in found]
    names = [f.stem if stems.count(f.stem) == 1 else f.name for f in found]
    if len(set(names)) < len(names):
        raise InputError("two pictures have the same name; lift them one by one into different --out")
    return [(f, out / name) for f, name in zip(found, names, strict=True)]


def pictures_in(folder: Path, warn: Callable[[str], None]) -> list[Path]:
    """A folder's pictures by name, as `jobs` has them."""
    files = sorted(f for f in folder.iterdir() if not f.name.startswith(".") and f.is_file())
    skipped = [f.name for f in files if f.suffix.lower() in OTHERS]
    found = [f for f in files if f.suffix.lower() in SUFFIXES]
    which = ", ".join(skipped[:5]) + (f" and {len(skipped) - 5} more" if len(skipped) > 5 else "")
    if not found:
        raise InputError(
            f"{folder}: no pictures in this folder (PNG, JPEG or WebP)" + (f"; save {which} as one of these" if skipped else "")
        )
    if skipped:
        warn(f"{folder}: {which} skipped; save as PNG, JPEG or WebP")
    return found
