"""The files of a data set and their index: the same result as without one, whatever has happened in between."""

import os
import shutil
import threading

import numpy as np
import pytest
from PIL import Image

from jaxvit.data import index_file, listing
from jaxvit.errors import UserError
from jaxvit.runtime import lock

UNITS = ["train/bee", "train/ant", "val/ant", "val/bee"]


@pytest.fixture(autouse=True)
def keep_all(tmp_path, monkeypatch):
    """An index of its own for each test, also of what was read in no time from folders that were just made."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(index_file, "WORTH_SECS", -1.0)
    monkeypatch.setattr(listing, "YOUNG_NS", -(10**15))


@pytest.fixture
def looks(monkeypatch):
    """What is listed and checked, as lists of names; `looks.clear()` forgets them."""
    seen = []
    scan, check = listing._scan, listing.check

    def counted(path, full):
        seen.append(path.name)
        return check(path, full=full)

    monkeypatch.setattr(listing, "_scan", lambda root, unit, old: (seen.append(unit), scan(root, unit, old))[1])
    monkeypatch.setattr(listing, "check", counted)
    return seen


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "photos"
    for k, unit in enumerate(UNITS):
        for i in range(5):
            _write(root / unit / f"{i}.jpg", (6 + k, 8 + i))
    _write(root / "train/bee/deep/deeper/x.png", (3, 4))
    _write(root / "train/bee/deep.png", (3, 4))
    return root


def _write(path, size=(5, 5), kind=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], (len(path.name), 0, 0)).save(path, kind)


def _like(root, target=None):
    """Writes a broken photo with the size and the time of another one."""
    found = (root / "val/ant/3.jpg").stat()
    path = target or root / "new"
    path.write_bytes(b"\0" * found.st_size)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    return path


def _all(files):
    names = [files.name(i) for i in range(len(files))]
    return names, files.shapes.tolist(), files.bad, files.unit.tolist(), files.units, list(files.names)


def _read(root, units=UNITS, **options):
    return _all(listing.read(root, units, **options))


def test_odd_names_links_and_broken_files_are_the_same_from_the_index(root, tmp_path, looks):
    ant = root / "train/ant"
    for hidden in (ant / ".hidden.jpg", ant / ".git/x.jpg", ant / "@eaDir/y.jpg"):
        _write(hidden)
    _write(ant / "no_suffix", kind="PNG")
    _write(ant / "Änt\u0301.JPG", (2, 3), "JPEG")
    name = os.fsdecode(b"latin\xe9.png")  # not UTF-8
    _write(ant / name, (2, 4))
    (ant / "notes.txt").write_text("hello")
    (ant / "empty.png").write_bytes(b"")
    os.symlink(root / "val/ant/0.jpg", ant / "link.jpg")
    os.symlink(root / "nowhere", ant / "dangling.jpg")
    os.symlink(root / "val/ant", ant / "linked_folder")  # not followed, as without an index
    _write(tmp_path / "elsewhere/z.png", (7, 7))
    os.symlink(tmp_path / "elsewhere", root / "train/cat")  # a class folder is
    os.makedirs(root / "train/dog/empty")
    units = [*UNITS, "train/cat", "train/dog"]
    first = _read(root, units)
    names = {name.removeprefix("train/ant/") for name in first[0] if name.startswith("train/ant/")}
    assert names == {*(f"{i}.jpg" for i in range(5)), "no_suffix", "Änt\u0301.JPG", name, "empty.png", "link.jpg",
                     "dangling.jpg"}  # fmt: skip
    assert {first[0][i] for i in first[2]} == {"train/ant/empty.png", "train/ant/dangling.jpg"}
    assert "train/cat/z.png" in first[0] and not any(name.startswith("train/dog") for name in first[0])
    bees = [name for name in first[0] if name.startswith("train/bee")]
    assert bees == [f.relative_to(root).as_posix() for f in sorted((root / "train/bee").rglob("*.*"))]
    looks.clear()
    assert _read(root, units) == first
    assert sorted(looks) == ["dangling.jpg", "empty.png"]  # what cannot be read may have been mended
    looks.clear()
    assert _read(root, units, rescan=True) == first
    assert len(looks) == len(units) + len(first[0])


CHANGES = {
    "added": lambda root: _write(root / "train/ant/new.jpg"),
    "added deep": lambda root: _write(root / "train/bee/deep/deeper/y.png"),
    "removed": lambda root: (root / "val/ant/3.jpg").unlink(),
    "renamed": lambda root: (root / "val/ant/3.jpg").rename(root / "val/ant/9.jpg"),
    "moved": lambda root: (root / "val/ant/3.jpg").rename(root / "train/ant/9.jpg"),
    "replaced": lambda root: os.replace(root / "val/ant/3.jpg", root / "val/ant/2.jpg"),
    "replaced by one of the same size and time": lambda root: os.replace(_like(root), root / "val/ant/3.jpg"),
    "written over, with the same size and time": lambda root: _like(root, root / "val/ant/3.jpg"),
    "other size": lambda root: _write(root / "val/ant/3.jpg", (31, 29)),
    "damaged": lambda root: (root / "val/ant/3.jpg").write_bytes(b""),
    "no longer a folder": lambda root: (shutil.rmtree(root / "train/bee/deep"), (root / "train/bee/deep").touch()),
    "now an image": lambda root: _write(root / "train/bee/deep/a", kind="PNG"),
    "emptied": lambda root: [path.unlink() for path in (root / "val/bee").iterdir()],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_found_and_little_is_looked_at_again(root, change, looks, monkeypatch):
    before = _read(root)
    CHANGES[change](root)
    looks.clear()
    after = _read(root)
    again = list(looks)
    assert after != before and after == _read(root, rescan=True)
    assert len(again) <= 3  # the folders that have changed, and one file
    looks.clear()
    assert _read(root) == after and len(looks) == len(after[2])


def test_what_is_not_noticed_is_noticed_by_rescan(root, monkeypatch):
    """On Windows, a file that is written over in place with the same size and time: docs/IMAGENET.md says so."""
    with monkeypatch.context() as windows:  # whose st_ctime is when a file was made
        windows.setattr(index_file, "stamp", lambda found: (found.st_size, found.st_mtime_ns))
        before = _read(root, rescan=True)
        _like(root, root / "val/ant/3.jpg")
        assert _read(root) == before
        windows.setattr(index_file, "WORTH_SECS", 60.0)
        for again in (True, False):  # an index that is not written again is not there
            assert list(_read(root, rescan=again)[2]) == [before[0].index("val/ant/3.jpg")]


def test_of_many_files_some_are_compared_and_all_once_one_has_changed(root, looks, monkeypatch):
    monkeypatch.setattr(listing, "COMPARED", 6)  # of 22
    _read(root)
    looks.clear()
    for i in range(5):
        _write(root / f"val/ant/{i}.jpg", (40 + i, 30))
    found = _read(root)
    assert found == _read(root, rescan=True) and sorted(looks[:5]) == [f"{i}.jpg" for i in range(5)]


def test_a_folder_that_has_just_changed_is_listed_again(root, looks, monkeypatch):
    """A file that comes within the same tick of the clock changes no time."""
    monkeypatch.setattr(listing, "YOUNG_NS", 10**12)
    first = _read(root)
    looks.clear()
    assert _read(root) == first and sorted(looks) == sorted(UNITS)


def test_other_class_folders_of_the_same_data(root, looks):
    _read(root)
    looks.clear()
    assert _read(root, UNITS[2:])[0] == [name for name in _read(root)[0] if name.startswith("val")]
    assert not looks
    index_file.forget("x")  # which there is not
    listing.read(root, UNITS[2:], rescan=True)
    looks.clear()
    _read(root)  # lists train/ again, and so keeps all
    assert _read(root, UNITS[2:]) and not any(unit in looks for unit in UNITS[2:])
    _write(root / "val/ant/new.jpg")
    _read(root, UNITS[2:])  # writes the index again, with train/
    looks.clear()
    assert len(_read(root)[0]) == 23 and not looks
    (root / "val/ant/new.jpg").unlink()
    _write(root / "val/cat/0.jpg")
    _read(root)
    looks.clear()
    assert len(_read(root, [*UNITS, "val/cat"])[0]) == 23 and looks == ["val/cat", "0.jpg"]


@pytest.mark.parametrize("where", [0, 20, 200, -1])
def test_a_damaged_index_is_ignored_and_written_again(root, where, looks):
    first = _read(root)
    (index,) = (root.parent / "cache/jaxvit/index").glob("*.index")
    good = index.read_bytes()
    damaged = bytearray(good)
    damaged[where] ^= 1
    for content in (bytes(damaged), good[: len(good) // 2], b""):
        index.write_bytes(content)
        looks.clear()
        assert _read(root) == first and len(looks) == 26
        looks.clear()
        assert _read(root) == first and not looks


def test_an_index_of_another_version_or_decoder_is_not_used(root, looks, monkeypatch):
    first = _read(root)
    monkeypatch.setattr(index_file.PIL, "__version__", "0")
    looks.clear()
    assert _read(root) == first and len(looks) == 26


def test_an_index_that_cannot_be_written_is_no_error(root, tmp_path, monkeypatch):
    first = _read(root)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert _read(root) == first and not index_file.write("x", {"a": np.zeros(3)})


def test_what_an_interrupted_start_has_checked_is_kept(root, looks, monkeypatch):
    counted = listing.check

    def interrupted(path, full):
        if len(looks) >= len(UNITS) + 10:
            raise KeyboardInterrupt
        return counted(path, full=full)

    monkeypatch.setattr(listing, "check", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _read(root)
    monkeypatch.setattr(listing, "check", counted)
    looks.clear()
    found = _read(root)
    assert 0 < len(looks) <= 12 and found == _read(root, rescan=True)


def test_a_second_process_waits_for_the_first_and_takes_its_index(root, looks, monkeypatch, capsys):
    monkeypatch.setattr(lock, "PAUSE_SECS", 0.01)
    first = _read(root)
    source = f"folder:{root.resolve()}"
    arrays = index_file.read(source) or {}
    index_file.where(source).unlink()
    looks.clear()
    found = []
    with index_file.one_at_a_time(source):
        other = threading.Thread(target=lambda: found.append(_read(root)))
        other.start()
        while "waiting" not in capsys.readouterr().err:
            assert other.is_alive()
        index_file.write(source, arrays)
    other.join(30)
    assert found == [first] and not looks
    assert [file.suffix for file in index_file.where(source).parent.iterdir()] == [".index"]  # no lock is left


def test_a_folder_that_cannot_be_read_is_named(root, monkeypatch):
    with pytest.raises(UserError, match="train/cow: cannot be read"):
        listing.read(root, ["train/cow"])


def test_an_unused_index_is_removed(root):
    _read(root)
    directory = root.parent / "cache/jaxvit/index"
    old = directory / "old.index"
    old.touch()
    os.utime(old, (0, 0))
    index_file.write("x", {"a": np.zeros(3)})
    assert not old.exists() and len(list(directory.glob("*.index"))) == 2
