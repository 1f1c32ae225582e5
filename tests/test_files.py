# SPDX-License-Identifier: Apache-2.0
"""A file appears whole or not at all, whatever happens while it is written."""

from __future__ import annotations

import os

import pytest

from bozzetto.files import replacing, write_atomically


@pytest.mark.parametrize("shared", [False, True])
def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path, shared):
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    with replacing(path, shared=shared) as part:
        part.write_bytes(b"ne")
        assert path.read_bytes() == b"old" and part.parent == path.parent and part != path
        part.write_bytes(b"new")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("odd")])
def test_what_goes_wrong_is_raised_and_leaves_the_old_file_alone(tmp_path, fault):
    path = tmp_path / "a.json"
    write_atomically(path, b"old")
    with pytest.raises(type(fault)), replacing(path) as part:
        part.write_bytes(b"half")
        raise fault
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.json"]


def test_writers_at_once_do_not_meet_and_a_killed_ones_rest_is_written_over(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    names = set()
    for pid in (1, 2):
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        with replacing(path, shared=True) as part:
            names.add(part.name)
            part.write_bytes(b"")
    assert len(names) == 2
    with replacing(path) as part:
        part.write_bytes(b"")
        rest = part
    rest.write_bytes(b"what a killed process left")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["a.json"]


def test_no_folder_is_made_for_it(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "none" / "a.json", b"new")
    assert os.listdir(tmp_path) == []
