# SPDX-License-Identifier: Apache-2.0
"""Experiments run, each result kept: OUT/NAME/seed-K.json, written by rename, so that a run that was stopped goes on where it was.

A result is taken again as long as the file that holds its experiment is the same, and the version; what the experiment calls may have
changed, so delete the folder to be sure.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bozzetto import __version__
from bozzetto.claims.claim import Claim, Scores
from bozzetto.data.objects import INDEX
from bozzetto.errors import InputError
from bozzetto.files import write_atomically
from bozzetto.fit.run import Progress


@dataclass(frozen=True)
class Result:
    """What one seed of a claim gave; seconds of processor time."""

    seed: int
    scores: Scores
    seconds: float
    identity: str


def kept(claim: Claim, out: Path, seed: int) -> Result | None:
    """A result that is there, and is of the experiment as it now stands."""
    try:
        found = Result(**json.loads(_file(claim, out, seed).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.identity == identity(claim) else None


def there(claim: Claim, out: Path) -> list[Result]:
    """All results that are there, from seed 0 on without a gap."""
    found: list[Result] = []
    while (result := kept(claim, out, len(found))) is not None:
        found.append(result)
    return found


def identity(claim: Claim) -> str:
    """Of the file that holds the experiment, and the version."""
    source = Path(inspect.getfile(inspect.unwrap(claim.run))).read_bytes()
    return hashlib.sha256(source + __version__.encode()).hexdigest()[:16]


def check_objects(claims: Iterable[Claim], objects: Path) -> None:
    """raises InputError, with what to do, where a claim needs packed objects and there are none"""
    needy = [c.name for c in claims if c.objects]
    if needy and not (objects / INDEX).is_file():
        raise InputError(
            f"{objects}: no packed objects, and {', '.join(needy)} need{'s' * (len(needy) == 1)} some; "
            f"`make data` packs the training objects, `bozzetto data FOLDER --out {objects}` your own"
        )


def run(
    claims: Sequence[Claim],
    out: Path,
    seeds: int,
    objects: Path,
    progress: Progress = lambda stage, share: None,
) -> dict[str, list[Result]]:
    """Results of every claim, by its name, in the order of the seeds; what is there is not run again.

    raises  InputError, before the slow work, for a folder that cannot be written, or objects that lack
    """
    check_objects(claims, objects)
    results: dict[str, list[Result]] = {}
    for claim in claims:
        _made(_file(claim, out, 0).parent)
    for claim in claims:
        found = results[claim.name] = []
        for seed in range(seeds):
            progress(claim.name, seed / seeds)
            if (result := kept(claim, out, seed)) is None:
                result = _measured(claim, seed, objects)
                write_atomically(_file(claim, out, seed), (json.dumps(asdict(result), indent=1) + "\n").encode())
            found.append(result)
        progress(claim.name, 1.0)
    return results


def _measured(claim: Claim, seed: int, objects: Path) -> Result:
    began = time.process_time()
    scores = claim.run(seed, objects) if claim.objects else claim.run(seed)
    return Result(seed, {k: float(v) for k, v in scores.items()}, round(time.process_time() - began, 1), identity(claim))


def _file(claim: Claim, out: Path, seed: int) -> Path:
    return out / claim.name / f"seed-{seed}.json"


def _made(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another --out") from None
