# SPDX-License-Identifier: Apache-2.0
"""`bozzetto fetch` against a hub of tiny files on the loopback address: what comes, what is asked for, and what is left behind."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import shutil
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bozzetto import cli
from bozzetto.bar import Bar
from bozzetto.errors import InputError
from bozzetto.files import Lock
from bozzetto.priors import loading, published
from bozzetto.priors.published import PUBLISHED, File, Published
from bozzetto.verbs import fetch, hub

ROOT = Path(__file__).parent.parent
COMMIT = "c0ffee" + 34 * "0"
CONFIG, WEIGHTS = b'{"a": 1}', bytes(range(256)) * 300
FILES = {"config.json": CONFIG, "unet/model.safetensors": WEIGHTS, "pickle.bin": b"never asked for"}
TINY = Published(
    what="nothing at all",
    whose="nobody",
    repository="owner/tiny",
    revision="main",
    files=(File("config.json"), File("unet/model.safetensors", len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest())),
    licence="MIT",
    restricts=False,
    gigabytes=1e-4,
    kind="zero123-xl",
    then="bozzetto views chair.png --prior {folder}",
    elsewhere=("other/tiny",),
)


class Hub:
    """What the served hub has, how it fails, and what it was asked: (method, file, first byte)."""

    def __init__(self) -> None:
        self.files = dict(FILES)
        self.asked: list[tuple[str, str, int]] = []
        self.status: dict[str, tuple[int, str]] = {}  # of a file: an error instead
        self.cuts: list[int] = []  # the next bodies end after so many bytes, with the connection
        self.spoils, self.knows_ranges = False, True
        self.sent = 0
        self.signed: set[tuple[str, bool]] = set()  # of the hub and of the store: whether a request bore a token

    def gets(self) -> list[tuple[str, int]]:
        return [(file, first) for method, file, first in self.asked if method == "GET"]


def handler(served: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(False)

        def do_GET(self) -> None:
            self.answer(True)

        def answer(self, has_body: bool) -> None:
            at, owner, name, _, revision, file = self.path[1:].split("/", 5)
            first = int(self.headers.get("Range", "bytes=0-")[6:-1])
            is_large = file.endswith(".safetensors")
            if at == "hub" or not is_large:
                served.asked.append((self.command, file, first))
            served.signed.add((at, "Authorization" in self.headers))
            assert (owner, name) == ("owner", "tiny") and revision in ("main", COMMIT)
            status, code = served.status.get(file, (200, "") if file in served.files else (404, "EntryNotFound"))
            body = served.files.get(file, b"")
            etag = hashlib.sha256(body) if is_large else hashlib.sha1(f"blob {len(body)}\0".encode() + body)
            first = first if served.knows_ranges else 0
            piece = body[first:] if status == 200 else b""
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{etag.hexdigest()}"', "X-Error-Code": code}
            if status == 200 and is_large and at == "hub":  # large files lie with another host
                moved = self.path.replace("/hub/", "/store/", 1)
                headers |= {"Location": f"http://localhost:{self.server.server_port}{moved}", "ETag": '"of the redirection"'}
                headers |= {"X-Linked-Etag": f'"{etag.hexdigest()}"', "X-Linked-Size": str(len(body))}
                status, piece = 302, b""
            self.send_response(206 if status == 200 and first else status)
            headers["Content-Length"] = str(len(piece))
            for key, value in headers.items():
                if value:
                    self.send_header(key, value)
            self.end_headers()
            if has_body:
                if served.spoils:
                    piece = piece[:-1] + b"?"
                cut = served.cuts.pop(0) if served.cuts and at == "store" else len(piece)
                served.sent += len(piece[:cut])
                self.wfile.write(piece[:cut])
                self.close_connection = cut < len(piece)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def served(monkeypatch, tmp_path):
    """A hub, and an empty cache that belongs to it; `tiny` is the one more prior that is published."""
    from huggingface_hub.utils import close_session

    found = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(found))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}/hub")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setitem(PUBLISHED, "tiny", TINY)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    close_session()
    yield found
    close_session()
    server.shutdown()
    server.server_close()
    thread.join()


def run(capsys, monkeypatch, *words) -> tuple[int, str, str]:
    """Exit code, stdout and the last line of stderr of `bozzetto fetch words...`."""
    monkeypatch.setattr("sys.argv", ["bozzetto", "fetch", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    out, err = capsys.readouterr()
    code = left.value.code
    return (code if isinstance(code, int) else 1), out, (err.splitlines() or [""])[-1]


def is_whole(folder: Path) -> bool:
    return all((folder / f.name).read_bytes() == FILES[f.name] for f in TINY.files)


def snapshot() -> Path:
    return published.storage(TINY) / "snapshots" / COMMIT


def parts() -> list[Path]:
    return [p for p in published.cache().rglob("*") if "incomplete" in p.name or p.name.startswith(".config")]


# ---- what comes ----


def test_the_listed_files_come_and_no_others_and_the_hubs_own_tools_find_them(capsys, monkeypatch, served):
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    code, out, said = run(capsys, monkeypatch, "tiny")
    assert code == 0, said
    assert out.splitlines() == [str(snapshot()), "now: bozzetto views chair.png --prior tiny"]
    assert is_whole(snapshot()) and not parts()
    assert [file for file, _ in served.gets()] == ["config.json", "unet/model.safetensors"]
    assert {file for _, file, _ in served.asked} == {f.name for f in TINY.files}
    where = {"cache_dir": published.cache()}
    assert try_to_load_from_cache("owner/tiny", "config.json", **where) == str(snapshot() / "config.json")
    assert snapshot_download("owner/tiny", local_files_only=True, **where) == str(snapshot())
    served.asked.clear()
    code, out, _ = run(capsys, monkeypatch, "tiny", "--quiet")
    assert code == 0 and out == f"{snapshot()}\n" and served.asked == []  # all is there: nothing is asked for


def test_a_token_goes_to_the_hub_and_not_to_where_it_keeps_large_files(monkeypatch, served):
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    assert is_whole(fetch.fetch("tiny"))
    assert served.signed == {("hub", True), ("store", False)}


def test_what_the_hubs_own_tools_have_fetched_is_taken(served):
    from huggingface_hub import hf_hub_download

    hf_hub_download("owner/tiny", "unet/model.safetensors", cache_dir=published.cache(), endpoint=hub.endpoint())
    served.asked.clear()
    assert is_whole(fetch.fetch("tiny"))
    assert [file for file, _ in served.gets()] == ["config.json"]


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_cut_connection_goes_on_where_it_was(served, knows_ranges):
    served.knows_ranges = knows_ranges
    served.cuts = [1000, 30000]
    shares: list[float] = []
    assert is_whole(fetch.fetch("tiny", progress=lambda _, share: shares.append(share)))
    firsts = [first for file, first in served.gets() if file != "config.json"]
    assert firsts == ([0, 1000, 31000] if knows_ranges else [0, 1000, 30000])
    assert served.sent == len(CONFIG) + len(WEIGHTS) + (0 if knows_ranges else 31000)
    assert shares[-1] == 1 and (shares == sorted(shares)) == knows_ranges


def test_the_next_run_goes_on_where_a_given_up_one_was(capsys, monkeypatch, served):
    served.cuts = [2000] + [0] * hub.TRIES
    code, _, said = run(capsys, monkeypatch, "tiny")
    assert code == 2 and "it was cut" in said and "the same command goes on from there" in said, said
    assert [p.stat().st_size for p in parts()] == [2000] and not (snapshot() / "unet").exists()
    with pytest.raises(InputError, match="is not on this disk; fetch it first: bozzetto fetch tiny"):
        published.folder("tiny")
    served.asked.clear()
    assert is_whole(fetch.fetch("tiny")) and not parts()
    assert served.gets() == [("unet/model.safetensors", 2000)]


def test_ctrl_c_leaves_nothing_that_is_taken_for_whole(capsys, monkeypatch, served):
    def stops(self: Bar, stage: str, share: float) -> None:
        if share > 0.3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Bar, "__call__", stops)
        code, out, said = run(capsys, monkeypatch, "tiny")
    assert (code, out, said) == (130, "", "stopped; the same command goes on")
    assert len(parts()) == 1 and 0 < parts()[0].stat().st_size < len(WEIGHTS)
    assert [p.name for p in snapshot().iterdir()] == ["config.json"] and not (published.storage(TINY) / "refs").exists()
    assert published.lacking(TINY)[0] is None
    served.asked.clear()
    assert is_whole(fetch.fetch("tiny")) and served.gets()[0][1] > 0  # and the lock is free again


# ---- what does not ----


@pytest.mark.parametrize("spoilt", ["config.json", "unet/model.safetensors"])
def test_bytes_that_are_not_what_was_published_are_thrown_away(capsys, monkeypatch, served, spoilt):
    monkeypatch.setitem(PUBLISHED, "tiny", TINY._replace(files=(File(spoilt),)))  # the hub's own hashes suffice: SHA-1, SHA-256
    served.spoils = True
    code, _, said = run(capsys, monkeypatch, "tiny")
    assert code == 2 and f"{spoilt} came as other bytes than were published" in said, said
    assert not parts() and not snapshot().exists()


def test_another_file_than_the_known_one_is_refused_before_it_is_fetched(capsys, monkeypatch, served):
    for other in (WEIGHTS[:-1] + b"!", WEIGHTS[:-1]):
        served.files["unet/model.safetensors"] = other
        code, _, said = run(capsys, monkeypatch, "tiny")
        assert code == 2 and "owner/tiny has another file there than was published" in said and "other/tiny" in said, said
    assert served.gets() == []


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (
            404,
            "EntryNotFound",
            "unet/model.safetensors: owner/tiny no longer holds it at c0ffee000000; other copies were known at other/tiny",
        ),
        (404, "RepoNotFound", "owner/tiny is gone or private (404); other copies were known at other/tiny"),
        (401, "", "owner/tiny is gone or private (401); other copies were known at other/tiny"),
        (404, "RevisionNotFound", "owner/tiny is gone or private (404)"),
        (403, "GatedRepo", "accept its terms on"),
        (503, "", "answered 503; try again later"),
    ],
)
def test_a_hub_that_has_it_not_is_answered_by_what_else_there_is(capsys, monkeypatch, served, status, code, says):
    served.status["unet/model.safetensors"] = (status, code)
    left, _, said = run(capsys, monkeypatch, "tiny")
    assert left == 2 and said.startswith("error: ") and says in said, said
    if "other/tiny" in says:
        assert "a folder that holds it can be given in place of the name" in said
    assert served.gets() == [] and not snapshot().exists()


def test_nobody_at_that_address(capsys, monkeypatch, served):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        code, _, said = run(capsys, monkeypatch, "tiny")
    assert code == 2 and "no connection to http://127.0.0.1:" in said, said


def test_a_disk_that_is_too_full_is_said_before_anything_comes(capsys, monkeypatch, served):
    usage = shutil._ntuple_diskusage(10**9, 10**9, hub.SPARE + len(WEIGHTS))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    code, _, said = run(capsys, monkeypatch, "tiny")
    assert code == 2 and "owner/tiny needs 0.1 MB and 0.1 GB are free; make room, or set HF_HOME" in said, said
    assert served.gets() == []


def test_a_disk_that_fills_up_meanwhile_keeps_what_came(capsys, monkeypatch, served):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(hub.os, "replace", full)
        code, _, said = run(capsys, monkeypatch, "tiny")
    assert code == 2 and "No space left on device" in said and "what has come is kept" in said, said
    assert len(parts()) == 1 and is_whole(fetch.fetch("tiny"))


def test_offline_what_is_there_is_taken_and_the_rest_not_asked_for(capsys, monkeypatch, served):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, _, said = run(capsys, monkeypatch, "tiny")
    assert code == 2 and "HF_HUB_OFFLINE is set" in said and "give a folder" in said and served.asked == [], said
    monkeypatch.delenv("HF_HUB_OFFLINE")
    fetch.fetch("tiny")
    served.asked.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, out, _ = run(capsys, monkeypatch, "tiny")
    assert code == 0 and str(snapshot()) in out and served.asked == []


def test_two_at_once_and_a_missing_library(capsys, monkeypatch, served):
    folder = published.cache() / ".locks" / published.storage(TINY).name
    folder.mkdir(parents=True)
    lock = Lock(folder / "bozzetto.lock")
    code, _, said = run(capsys, monkeypatch, "tiny")
    assert code == 2 and "another process is fetching it" in said, said
    lock.release()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, _, said = run(capsys, monkeypatch, "tiny")
    assert code == 2 and said.endswith("install it: pip install 'bozzetto[fetch]'") and served.asked == [], said


# ---- licences ----


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stdin", "words", "is_agreed", "says"),
    [
        (io.StringIO(), (), False, "no terminal to ask at; --yes agrees"),
        (io.StringIO("y\n"), (), False, "no terminal to ask at; --yes agrees"),
        (io.StringIO(), ("--yes",), True, ""),
        (Terminal("n\n"), (), False, "its licence was not agreed to; nothing was fetched"),
        (Terminal("\n"), (), False, "its licence was not agreed to; nothing was fetched"),
        (Terminal(""), (), False, "its licence was not agreed to; nothing was fetched"),
        (Terminal("y\n"), (), True, ""),
    ],
)
def test_a_licence_that_restricts_is_shown_and_agreed_to_before_anything_is_asked(
    capsys, monkeypatch, served, stdin, words, is_agreed, says
):
    monkeypatch.setitem(PUBLISHED, "tiny", TINY._replace(restricts=True, licence="only on Sundays"))
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr("sys.argv", ["bozzetto", "fetch", "tiny", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = capsys.readouterr().err
    assert "licence  only on Sundays" in said and "whose    nobody" in said and "size     0.1 MB" in said and "owner/tiny" in said
    assert left.value.code == (0 if is_agreed else 2) and says in said, said
    assert bool(served.asked) == is_agreed


def test_what_is_already_here_is_not_asked_about(capsys, monkeypatch, served):
    fetch.fetch("tiny")
    monkeypatch.setitem(PUBLISHED, "tiny", TINY._replace(restricts=True))
    assert run(capsys, monkeypatch, "tiny")[0] == 0


def test_the_list_says_what_is_here(capsys, monkeypatch, served):
    def line() -> str:
        code, out, said = run(capsys, monkeypatch, "--list")
        assert code == 0 and all(name in out for name in PUBLISHED), said
        return next(line for line in out.splitlines() if line.startswith("tiny "))

    assert line().split()[1] == "no"
    fetch.fetch("tiny")
    assert line().split()[1] == "yes"
    (snapshot() / "config.json").unlink()
    assert "1 of 2 files" in line()
    assert run(capsys, monkeypatch)[0] == 0  # without a name: the list
    code, _, said = run(capsys, monkeypatch, "TripoSR")
    assert code == 2 and "did you mean triposr?" in said


# ---- never overwrites ----


def test_nothing_is_overwritten(capsys, monkeypatch, served, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    code, _, said = run(capsys, monkeypatch, "tiny", "--out", mine)
    assert code == 2 and "is there already" in said and served.asked == [] and [p.name for p in mine.iterdir()] == ["notes.txt"]
    snapshot().mkdir(parents=True)
    (snapshot() / "config.json").write_text("mine, and of another length")
    code, _, said = run(capsys, monkeypatch, "tiny")
    assert code == 2 and "is another file than was published (27 bytes, not 8); remove it first" in said, said
    assert (snapshot() / "config.json").read_text() == "mine, and of another length"


def test_a_cached_file_of_another_hash_is_found(served):
    fetch.fetch("tiny")
    other = WEIGHTS[:-1] + b"!"
    (snapshot() / "unet" / "model.safetensors").unlink()
    (snapshot() / "unet" / "model.safetensors").write_bytes(other)
    with pytest.raises(InputError, match=r"is another file than was published .*; remove it, then fetch tiny again"):
        fetch.fetch("tiny")
    assert (snapshot() / "unet" / "model.safetensors").read_bytes() == other


def test_a_folder_of_its_own_is_whole_or_is_not(capsys, monkeypatch, served, tmp_path):
    out = tmp_path / "priors" / "tiny"
    with monkeypatch.context() as patched:

        def stops(*_: object) -> None:
            raise KeyboardInterrupt

        patched.setattr(fetch.os, "link", stops)
        assert run(capsys, monkeypatch, "tiny", "--out", out)[0] == 130
    assert list(out.parent.iterdir()) == []
    code, said, _ = run(capsys, monkeypatch, "tiny", "--out", out)
    assert code == 0 and said.splitlines() == [str(out), f"now: bozzetto views chair.png --prior {out}"]
    assert is_whole(out) and (out / "bozzetto.json").read_text() == '{"kind": "zero123-xl"}\n'
    assert (out / "config.json").samefile(snapshot() / "config.json")  # no second copy on the disk
    shutil.rmtree(published.cache())
    assert is_whole(out)

    def other_disk(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(fetch.os, "link", other_disk)
    assert is_whole(fetch.fetch("tiny", tmp_path / "copied"))


# ---- a name in place of a folder ----


def forbid_sockets(monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_a_name_stands_for_what_was_fetched_and_nothing_asks_the_network(monkeypatch, served, tmp_path):
    mini = loading.MINI / "zero123"
    files = tuple(File(p.relative_to(mini).as_posix()) for p in sorted(mini.rglob("*")) if p.is_file())
    prior = TINY._replace(revision=COMMIT, files=files, kind="zero123-mini")
    monkeypatch.setitem(PUBLISHED, "tiny", prior)
    forbid_sockets(monkeypatch)
    with pytest.raises(InputError, match="tiny: is not on this disk; fetch it first: bozzetto fetch tiny"):
        loading.load("tiny")
    shutil.copytree(mini, snapshot())
    lost = snapshot() / files[-1].name
    lost.rename(tmp_path / "lost")
    with pytest.raises(InputError, match=rf"only {len(files) - 1} of its {len(files)} files are on this disk; fetch it first"):
        loading.load("tiny")
    (tmp_path / "lost").rename(lost)
    assert loading.load("tiny").kind == loading.load(mini).kind == "zero123-mini"
    assert loading.digest("tiny") == loading.digest(mini)
    assert loading._folder("tiny") == snapshot() and published.folder("tiny") == snapshot()


def test_a_prior_that_is_not_read_as_it_is_says_what_comes_first(monkeypatch, served):
    monkeypatch.setitem(PUBLISHED, "tiny", TINY._replace(kind=None, then="bozzetto convert {folder}/a.ckpt --kind zero123 --out b"))
    folder = fetch.fetch("tiny")
    with pytest.raises(InputError, match=f"cannot be read as it was published; first: bozzetto convert {folder}/a.ckpt"):
        loading.load("tiny")
    monkeypatch.setitem(PUBLISHED, "tiny", TINY._replace(kind=None, then=""))
    with pytest.raises(InputError, match=f"what was fetched is in {folder}"):
        loading.load("tiny")
    assert fetch.usage("tiny", None, folder) == "no part of this version reads tiny yet"


def test_a_folder_of_a_published_priors_name_is_that_folder(monkeypatch, served, tmp_path):
    forbid_sockets(monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert loading._folder("tiny") == Path("tiny")


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"HF_HUB_CACHE": "/a/b"}, "/a/b"),
        ({"HF_HOME": "/a"}, "/a/hub"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({"HOME": "/home"}, "/home/.cache/huggingface/hub"),
    ],
)
def test_the_cache_is_where_the_hubs_own_tools_have_it(monkeypatch, env, says):
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert published.cache() == Path(says)


# ---- the table ----


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_row_of_the_table_is_sound_and_stands_in_the_docs(name):
    prior = PUBLISHED[name]
    assert name not in loading.NAMES and "/" not in name
    assert prior.repository.count("/") == 1 and (prior.revision == "main" or published.is_commit(prior.revision))
    assert len({f.name for f in prior.files}) == len(prior.files) > 0
    assert all(len(f.sha256) in (0, 64) and set(f.sha256) <= set("0123456789abcdef") for f in prior.files)
    assert prior.kind is None or prior.kind in loading.LAYOUTS or prior.kind == "triposr"  # which is what a lift begins with
    assert sum(f.size for f in prior.files) <= 1.06e9 * prior.gigabytes or not prior.gigabytes
    assert prior.what and prior.whose and prior.licence
    row = next(line for line in (ROOT / "docs" / "published.md").read_text().splitlines() if line.startswith(f"| `{name}` |"))
    assert f"`bozzetto fetch {name}`" in row and prior.repository in row
    assert (f"{prior.gigabytes:.1f} GB" if prior.gigabytes else "unknown") in row


def test_the_hubs_library_is_imported_by_the_verb_alone():
    for path in sorted((ROOT / "bozzetto").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None) or ""]
            if isinstance(node, ast.Import | ast.ImportFrom) and any(n.split(".")[0] in ("huggingface_hub", "httpx2") for n in names):
                assert path == ROOT / "bozzetto" / "verbs" / "hub.py", path
