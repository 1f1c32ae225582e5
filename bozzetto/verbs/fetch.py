# SPDX-License-Identifier: Apache-2.0
"""Published priors onto this disk: `bozzetto fetch`. What there is stands in `priors.published`; `verbs.hub` brings the files.

A person is shown what a prior is, whose, how large and under which licence, and agrees to the licence where it restricts, before
anything is asked of the network. Nothing is overwritten, no file but those listed is asked for, and a folder (`out`) appears whole or
not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from bozzetto.errors import InputError
from bozzetto.fit.run import Progress
from bozzetto.priors.published import PUBLISHED, Published, cache, find, lacking
from bozzetto.priors.saving import check_free
from bozzetto.verbs import hub


def table() -> str:
    """All published priors, a line each, and whether they are here."""
    rows = [("name", "here", "size", "agree?", "what it is for")]
    for name, prior in PUBLISHED.items():
        found, missing = lacking(prior)
        here = "no" if found is None else "yes" if not missing else f"{len(prior.files) - len(missing)} of {len(prior.files)} files"
        rows.append((name, here, _size(prior), "yes" if prior.restricts else "no", prior.what))
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]) - 1)]
    lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(row[:-1], widths, strict=True)), row[-1]]) for row in rows]
    return "\n".join([*lines, f"looked up in {cache()}; agree?: whether the licence restricts, and is asked about"])


def card(name: str) -> str:
    """What a person should know of a prior before it is fetched."""
    prior = find(name)
    lines = [f"{name}: {prior.what}", f"  from     {hub.page(prior)}, {prior.revision[:12]}", f"  whose    {prior.whose}"]
    lines += [f"  licence  {prior.licence}", f"  size     {_size(prior)}, {len(prior.files)} files"]
    return "\n".join(lines)


def is_to_come(name: str, out: Path | None) -> bool:
    """Whether anything must be fetched; raises InputError where it could not be, or `out` not be written."""
    if out is not None:
        check_free(out)
    found, missing = lacking(find(name))
    if found is not None and not missing:
        return False
    if hub.is_offline():
        raise InputError(f"{name}: HF_HUB_OFFLINE is set and {cache()} does not hold all of it; unset it, or give a folder of weights")
    hub.check_installed()
    return True


def agree(name: str) -> None:
    """Ask for agreement to a licence that restricts; raises InputError where there is none, or nobody to ask."""
    prior = find(name)
    if not prior.restricts:
        return
    if not sys.stdin.isatty():
        raise InputError(f"{name}: its licence must be agreed to ({hub.page(prior)}) and there is no terminal to ask at; --yes agrees")
    print("Read the licence there; do you agree to it? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise InputError(f"{name}: its licence was not agreed to; nothing was fetched")


def fetch(name: str, out: Path | None = None, progress: Progress | None = None) -> Path:
    """All files of a published prior; returns the folder that holds them: the cache's snapshot, or `out`. Asks nobody.

    raises  InputError, one sentence, for what a person can mend; what has come by then is kept and not fetched again
    """
    prior = find(name)
    if is_to_come(name, out):
        found = hub.bring(name, prior, out, progress)
    else:
        found = lacking(prior)[0] or Path()
        _check_known(name, prior, found)
    return found if out is None else _copy(name, prior, found, out)


def usage(name: str, out: Path | None, folder: Path) -> str:
    """A sentence: the command that makes use of what was fetched."""
    prior = find(name)
    told = prior.then.format(folder=name if out is None and prior.kind else folder)
    return f"now: {told}" if told else f"no part of this version reads {name} yet"


def _check_known(name: str, prior: Published, folder: Path) -> None:
    """raises InputError where a file that was in the cache has another hash than the table"""
    for file in prior.files:
        path = folder / file.name
        if file.sha256 and path.resolve().name != file.sha256:  # a blob that bears its hash was checked when it came
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            if digest != file.sha256:
                raise InputError(
                    f"{path}: is another file than was published (SHA-256 {digest[:12]}...); remove it, then fetch {name} again"
                )


def _copy(name: str, prior: Published, folder: Path, out: Path) -> Path:
    """The files in a folder of its own, as second names of the cache's where both are on one disk; all or nothing."""
    made = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        for file in prior.files:
            source, target = (folder / file.name).resolve(), made / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, target)
            except OSError:  # another disk
                shutil.copyfile(source, target)
        if prior.kind is not None:
            (made / "bozzetto.json").write_text(json.dumps({"kind": prior.kind}) + "\n")
        made.chmod(0o755)  # mkdtemp's folders are for their owner alone
        made.rename(out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); {name} is in {folder}; choose another --out") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return out


def _size(prior: Published) -> str:
    return hub.gigabytes(1e9 * prior.gigabytes) if prior.gigabytes else "unknown"
