# SPDX-License-Identifier: Apache-2.0
"""Files of a published prior from Hugging Face's hub into its cache, by huggingface_hub; for `verbs.fetch`.

Each comes in four steps: what the hub says of it (size, hash, commit), its bytes under another name in the cache, both hashes checked,
its name in the snapshot. A cut connection or Ctrl-C leaves the first bytes, from where the next run goes on; a name in the snapshot is
always a whole file. huggingface_hub's own downloads begin a file again in each run, and name it before we could check its hash: hence
its addresses, headers, session and errors are used here, and not its `hf_hub_download`.

An ETag of the hub is the SHA-256 of a large file, and git's SHA-1 of a small one.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bozzetto.errors import InputError
from bozzetto.files import Lock, Taken, write_atomically
from bozzetto.fit.run import Progress
from bozzetto.priors.published import File, Published, cache, is_commit, storage

TRIES = 5
"""connections to a file that bring nothing, before it is given up"""
CHUNK = 1 << 20
SPARE = 64 << 20
"""bytes of a disk that are left alone"""


class Remote(NamedTuple):
    """A file as the hub has it; `blob`, `part` and `place` are its names in the cache: whole, while it comes, in the snapshot."""

    file: File
    url: str
    etag: str
    commit: str
    size: int
    blob: Path
    part: Path
    place: Path


def endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def is_offline() -> bool:
    told = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return told.upper() in ("1", "ON", "YES", "TRUE")


def check_installed() -> None:
    """raises InputError with what to type where huggingface_hub is missing"""
    if not all(importlib.util.find_spec(name) for name in ("huggingface_hub", "httpx2")):
        raise InputError("fetching needs huggingface_hub; install it: pip install 'bozzetto[fetch]'")


def bring(name: str, prior: Published, out: Path | None, progress: Progress | None) -> Path:
    """All files of a prior into the cache; returns the snapshot.

    out     where they are copied afterwards: its disk must have room, too
    raises  InputError, one sentence, for what a person can mend; what has come by then is kept
    """
    with _alone(prior), _told(name, prior):
        commit, remotes = prior.revision, []
        for file in prior.files:
            remotes.append(_look(prior, file, commit))
            commit = remotes[-1].commit  # all of one commit, though the branch may move meanwhile
        wanted = [r for r in remotes if not r.place.is_file() and not r.blob.is_file()]
        total, left = sum(r.size for r in remotes), sum(r.size - _length(r.part) for r in wanted)
        _check_space(prior, cache(), left)
        if out is not None and _device(out.parent) != _device(cache()):
            _check_space(prior, out.parent, total)
        for remote in remotes:
            if remote in wanted and not remote.blob.is_file():  # two files may be one blob
                for came in _download(remote):
                    left -= came
                    if progress is not None:
                        progress("download", 1 - left / max(total, 1))
                _check_came(name, remote)
                os.replace(remote.part, remote.blob)
            _name(remote)
        if not is_commit(prior.revision):  # last: a branch that moved on stands for what was whole until all of the new is here
            ref = storage(prior) / "refs" / prior.revision
            ref.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(ref, commit.encode())
        return storage(prior) / "snapshots" / commit


def _look(prior: Published, file: File, revision: str) -> Remote:
    """What the hub says of a file, without its bytes."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import RemoteEntryNotFoundError

    url = hf_hub_url(prior.repository, file.name, revision=revision, endpoint=endpoint())
    try:
        said = get_hf_file_metadata(url, endpoint=endpoint())
    except RemoteEntryNotFoundError:
        raise InputError(f"{file.name}: {prior.repository} no longer holds it at {revision[:12]}; {_elsewhere(prior)}") from None
    commit, etag = said.commit_hash or "", said.etag or ""
    if not is_commit(commit) or not re.fullmatch("[0-9A-Za-z_-]+", etag) or said.size is None:
        raise InputError(f"{endpoint()}: does not answer as a hub does; correct HF_ENDPOINT, or look for a proxy in between")
    if file.size not in (0, said.size) or (file.sha256 and len(etag) == 64 and etag != file.sha256):
        raise InputError(
            f"{file.name}: {prior.repository} has another file there than was published ({said.size} bytes, {etag[:12]}...); "
            f"nothing of it was fetched; {_elsewhere(prior)}"
        )
    blob = storage(prior) / "blobs" / etag
    place = storage(prior) / "snapshots" / commit / file.name
    return Remote(file, url, etag, commit, said.size, blob, blob.with_name(f"{etag}.bozzetto.incomplete"), place)


def _download(remote: Remote) -> Iterator[int]:
    """Append to the part of a file what is not in it yet; yields how many bytes came, negative where the hub began anew."""
    import httpx2
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    plain = {**build_hf_headers(), "Accept-Encoding": "identity"}
    limits = {"follow_redirects": True, "timeout": constants.HF_HUB_DOWNLOAD_TIMEOUT}
    remote.part.parent.mkdir(parents=True, exist_ok=True)
    tries = 0
    while (begun := _length(remote.part)) < remote.size or not remote.part.exists():
        if (tries := tries + 1) > TRIES:
            raise httpx2.ReadError(f"{TRIES} connections brought nothing")
        headers = {**plain, "Range": f"bytes={begun}-"} if begun else plain
        with contextlib.suppress(httpx2.TransportError), get_session().stream("GET", remote.url, headers=headers, **limits) as answer:
            hf_raise_for_status(answer)
            goes_on = answer.status_code == 206
            if begun and not goes_on:
                yield -begun
            with remote.part.open("ab" if goes_on else "wb") as file:
                for piece in answer.iter_bytes():  # as they come: a larger piece would be lost with its connection
                    file.write(piece)
                    tries = 0
                    yield len(piece)


def _check_came(name: str, remote: Remote) -> None:
    """raises InputError, and throws away what came, unless it has the size and the hashes that the hub and the table say"""
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(f"blob {remote.size}\0".encode(), usedforsecurity=False)
    with remote.part.open("rb") as file:
        while piece := file.read(CHUNK):
            sha256.update(piece)
            if len(remote.etag) == 40:
                sha1.update(piece)
    etag = {64: sha256.hexdigest(), 40: sha1.hexdigest()}.get(len(remote.etag), remote.etag)
    if _length(remote.part) != remote.size or etag != remote.etag or remote.file.sha256 not in ("", sha256.hexdigest()):
        remote.part.unlink()
        raise InputError(
            f"{name}: {remote.file.name} came as other bytes than were published (SHA-256 {sha256.hexdigest()[:12]}...) and was "
            "thrown away; try again, or with another HF_ENDPOINT"
        )


def _name(remote: Remote) -> None:
    """A blob's name in the snapshot; one that is there stays."""
    place = remote.place
    if _length(place) == remote.size and place.is_file():
        return
    if place.is_file():
        raise InputError(f"{place}: is another file than was published ({_length(place)} bytes, not {remote.size}); remove it first")
    place.unlink(missing_ok=True)  # a link that leads nowhere
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        place.symlink_to(os.path.relpath(remote.blob, place.parent))
    except OSError:  # a system without links: the hub's own tools move the file then, too
        os.replace(remote.blob, place)


@contextlib.contextmanager
def _alone(prior: Published) -> Iterator[None]:
    """One process at a time fetches a prior."""
    folder = cache() / ".locks" / storage(prior).name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(folder / "bozzetto.lock")
    except Taken:
        raise InputError(f"{prior.repository}: another process is fetching it; wait for it") from None
    except OSError as error:
        raise InputError(f"{cache()}: cannot be written ({error.strerror}); set HF_HOME to a folder that can") from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _told(name: str, prior: Published) -> Iterator[None]:
    """What can go wrong on the way, as one sentence each."""
    import httpx2
    from huggingface_hub import errors

    kept = "what has come is kept, and the same command goes on from there"
    try:
        yield
    except errors.GatedRepoError:
        raise InputError(f"{name}: accept its terms on {page(prior)}, sign in with hf auth login, and fetch it again") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403, 404, 410):  # the hub says 401 of what is not there, too
            raise InputError(f"{name}: {prior.repository} is gone or private ({status}); {_elsewhere(prior)}") from None
        raise InputError(f"{name}: {endpoint()} answered {status}; try again later; {kept}") from None
    except httpx2.TransportError as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name}: no connection to {endpoint()}, or it was cut ({why}); {kept}") from None
    except OSError as error:  # of the disk
        raise InputError(f"{cache()}: cannot be written ({error.strerror or error}); make room; {kept}") from None


def page(prior: Published) -> str:
    """Where a person reads of a prior."""
    return f"{endpoint()}/{prior.repository}"


def _elsewhere(prior: Published) -> str:
    """What to do where the hub has it no more."""
    names = ", ".join(prior.elsewhere)
    copies = f"other copies were known at {names} (hf download OWNER/NAME --local-dir FOLDER); " if names else ""
    return f"{copies}a folder that holds it can be given in place of the name"


def _check_space(prior: Published, folder: Path, needed: int) -> None:
    """raises InputError where a disk has less room than that"""
    free = shutil.disk_usage(_there(folder)).free
    if free < needed + SPARE:
        raise InputError(
            f"{folder}: {prior.repository} needs {gigabytes(needed)} and {gigabytes(free)} are free; "
            "make room, or set HF_HOME to a folder on another disk"
        )


def _there(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    return next(f for f in (folder.absolute(), *folder.absolute().parents) if f.exists())


def _device(folder: Path) -> int:
    return _there(folder).stat().st_dev


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 5e7 else f"{size / 1e6:.1f} MB"
