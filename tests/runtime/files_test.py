"""Files that are whole or not there, and why one could not be written."""

import os

import pytest

from jaxvit.errors import RunError, UserError
from jaxvit.runtime import files


def test_a_file_is_replaced_whole_and_its_draft_is_gone(tmp_path):
    files.write(tmp_path / "a", b"old")
    files.write(tmp_path / "a", b"new", durable=True)
    assert (tmp_path / "a").read_bytes() == b"new" and os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_what_ends_half_way_leaves_the_old_file(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), files.replacing(tmp_path / "a") as draft:
        draft.write_bytes(b"half")
        raise ZeroDivisionError
    assert (tmp_path / "a").read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


def test_why_it_could_not_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write '.*file/a': Not a directory"):
        files.write(tmp_path / "file" / "a", b"x")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError, match="No space left on device\n"):
        files.write(tmp_path / "a", b"x")
    assert os.listdir(tmp_path) == ["file"]


def test_errors_that_form_a_ring_are_walked_once():
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__context__ = second, first
    assert files.disk_reason(first) is None
    third = OSError(28, "No space left on device")
    second.__cause__ = third
    assert files.disk_reason(first) == "No space left on device"


def test_a_disk_error_behind_a_cause_is_found():
    error = RuntimeError("a")
    error.__cause__, error.__context__ = RuntimeError("b"), OSError(28, "full")
    assert files.disk_reason(error) is not None
