# SPDX-License-Identifier: Apache-2.0
"""What a lift may begin with: the embedded first guess, another of its layout, or TripoSR (`bozzetto fetch triposr`).

All are `fit.recipe.Guess`, a function from a picture to the `Solid` behind it, so that every recipe begins with any of them.
"""

from __future__ import annotations

import functools
from pathlib import Path

from bozzetto.errors import InputError
from bozzetto.fit.placing import place
from bozzetto.fit.recipe import Guess
from bozzetto.fit.solid import Solid
from bozzetto.priors import first_guess, loading, published, triposr_files
from bozzetto.priors.loading import MINI
from bozzetto.priors.small import digest


@functools.lru_cache(maxsize=1)  # many pictures, one guess: a gigabyte or two to read, and to hash
def load(name_or_folder: str, device: str = "cpu", precision: str = "auto") -> tuple[Guess, str]:
    """A guess, and the digest of its weights.

    name_or_folder  `mini`, the embedded one; the folder of another first guess, or one that holds it as `first_guess`; TripoSR's,
                    or the name under which that was fetched
    precision       of TripoSR's network, as `priors.loading.dtype_on`; the embedded one is small, and float32
    raises          InputError, one sentence, for a folder that is not there, incomplete, damaged or of something else
    """
    folder = Path(name_or_folder)
    if name_or_folder == "mini":
        folder = MINI
    elif name_or_folder in published.PUBLISHED and not folder.exists():
        folder = published.folder(name_or_folder)
    if triposr_files.is_folder(folder):
        network = triposr_files.load(folder, device, loading.dtype_on(device, precision))
        return lambda source, azimuth, elevation: place(network.solid(source), source, azimuth, elevation), loading.digest(folder)
    if folder.is_dir() and not any((folder / x).exists() for x in ("first_guess", "config.json")):
        raise InputError(f"{name_or_folder}: holds no first guess; give `mini`, `triposr`, or the folder of either's layout")
    if (folder / "first_guess").is_dir():
        folder = folder / "first_guess"
    small = first_guess.load(folder, device=device)
    return lambda source, azimuth, elevation: Solid.guess(source, small, azimuth, elevation), digest(folder)
