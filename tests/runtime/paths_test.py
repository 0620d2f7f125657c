"""Where a run can be kept."""

import os

import pytest

from jaxvit.errors import UserError
from jaxvit.runtime import paths
from jaxvit.workdir import run_files


@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9"), "run [b]", "a*", "what?"])
def test_a_place_that_no_checkpoint_can_be_written_to_is_refused_first(tmp_path, name):
    with pytest.raises(UserError, match="bytes that are not UTF-8" if "caf" in name else "choose a path without"):
        run_files.make_workdir(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("neu/Bär.jpg", "neu/bär.jpg"),  # case
        ("neu/ba\u0308r.jpg", "neu/bär.jpg"),  # an umlaut in two characters, as on macOS
        ("nue/bär.jpg", "neu/bär.jpg"),  # a part above
        ("nue/other.jpg", None),  # which is not there
        ("neu/bär.jpg/x", None),
        ("neu/cat.jpg", None),
    ],
)
def test_the_nearest_path_that_is_there_is_named(tmp_path, text, meant):
    (tmp_path / "neu").mkdir()
    (tmp_path / "neu/bär.jpg").write_bytes(b"")
    assert paths.near(tmp_path / text) == (f" Did you mean {str(tmp_path / meant)!r}?" if meant else "")


def test_a_file_is_no_directory_and_an_empty_text_no_path(tmp_path):
    (tmp_path / "photos").write_bytes(b"")
    with pytest.raises(UserError, match="folder:photos: is a file; expected a directory with images"):
        paths.check_directory(tmp_path / "photos", "folder:photos", "images")
    with pytest.raises(UserError, match=r"no such directory; expected one with images. Did you mean '.*photos'"):
        paths.check_directory(tmp_path / "photo", "folder:photo", "images")
    with pytest.raises(UserError, match="the path is empty"):
        paths.expand("")
