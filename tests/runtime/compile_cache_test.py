"""The cache of compiled programs."""

import os
import stat
import time
from pathlib import Path
from types import SimpleNamespace

import jax

from jaxvit.runtime import compile_cache


def test_the_compile_cache_is_private(tmp_path, monkeypatch):
    changed = {}
    settings = SimpleNamespace(jax_compilation_cache_dir=None, update=lambda name, value: changed.update({name: value}))
    monkeypatch.setattr(jax, "config", settings)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "jaxvit" / "xla").mkdir(parents=True)
    os.chmod(tmp_path / "jaxvit" / "xla", 0o777)
    compile_cache.use()
    directory = Path(changed["jax_compilation_cache_dir"])
    assert directory == tmp_path / "jaxvit" / "xla" and stat.S_IMODE(directory.stat().st_mode) == 0o700
    changed.clear()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    compile_cache.use()
    assert not changed


def test_compiled_programs_that_were_cut_off_are_dropped_once(tmp_path):
    from jax._src.compilation_cache import compress_executable

    old = time.time() - 60
    whole = compress_executable(b"x" * 99)
    for name, content in (("whole-cache", whole), ("half-cache", whole[: len(whole) // 2])):
        (tmp_path / name).write_bytes(content)
        os.utime(tmp_path / name, (old, old))
    (tmp_path / "fresh-cache").write_bytes(b"is being written")
    assert compile_cache.drop_unfinished(str(tmp_path)) == 1
    assert sorted(p.name for p in tmp_path.glob("*-cache")) == ["fresh-cache", "whole-cache"]
    (tmp_path / "whole-cache").write_bytes(b"not looked at again")
    os.utime(tmp_path / "whole-cache", (old, old))
    assert compile_cache.drop_unfinished(str(tmp_path)) == 0


def test_a_relative_cache_directory_is_ignored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    assert compile_cache.place("xla") == str(tmp_path / "home/.cache/jaxvit/xla")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # a user without a home directory
    assert not compile_cache.make_private(compile_cache.place("xla"))
    assert not list(tmp_path.iterdir())
