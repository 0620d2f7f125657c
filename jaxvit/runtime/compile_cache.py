"""The directory of compiled programs: private, and without the entries that a killed process left half written.

JAX writes an entry in place and never replaces one: a half of one would cost a warning and a compilation in each
later run.
"""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

STAMP = ".checked"
UNDER_WAY = 10.0  # seconds in which another process may be writing


def use() -> None:
    """Keeps compiled programs in the user's own cache directory, unless JAX_COMPILATION_CACHE_DIR says where."""
    import jax

    known: Any = jax.config  # its words are not known to type checkers
    directory = known.jax_compilation_cache_dir
    if directory is None:
        directory = place("xla")
        if not make_private(directory):  # compiled programs are code: nobody else may write them
            return
        jax.config.update("jax_compilation_cache_dir", directory)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    if os.path.isdir(directory):
        drop_unfinished(directory)


def place(name: str) -> str:
    """The directory `name` in what the user's cache directory has for this package."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the XDG specification: a relative one is to be ignored
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "jaxvit", name)


def make_private(directory: str) -> bool:
    """Creates a directory that only its owner, who must be this user, can read and write; returns whether it is one."""
    if not os.path.isabs(directory):  # this user has no home directory
        return False
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        if hasattr(os, "getuid") and os.stat(directory).st_uid != os.getuid():
            return False
        os.chmod(directory, 0o700)
    except OSError:
        return False
    return True


def drop_unfinished(directory: str) -> int:
    """Removes the entries written since the last look that do not decompress; returns how many."""
    try:
        from jax._src.compilation_cache import decompress_executable
    except ImportError:  # not a part of JAX's interface
        return 0
    stamp, now, dropped = Path(directory, STAMP), time.time(), 0
    with suppress(OSError):
        last = stamp.stat().st_mtime if stamp.exists() else 0.0
        for entry in Path(directory).glob("*-cache"):
            if not last < entry.stat().st_mtime < now - UNDER_WAY:
                continue
            try:
                decompress_executable(entry.read_bytes())
            except OSError:
                continue
            except Exception:  # zlib's or zstandard's
                entry.unlink(missing_ok=True)
                dropped += 1
        stamp.touch()
        os.utime(stamp, (now, now - UNDER_WAY))
    return dropped
