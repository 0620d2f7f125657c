"""One process at a time."""

import subprocess
import sys
import threading

import pytest

from jaxvit.errors import UserError
from jaxvit.runtime import lock

HOLD = "import sys, pathlib\nfrom jaxvit.runtime import lock\nwith lock.held(pathlib.Path(sys.argv[1]), 'x'): print('held', flush=True); sys.stdin.read()"  # noqa: E501


def hold(path):
    """A process that holds `path` until its standard input ends."""
    held = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert held.stdout.readline() == b"held\n"
    return held


@pytest.mark.parametrize("name", ["", ".lock"], ids=["directory", "file"])
def test_a_second_process_is_refused_until_the_first_ends(tmp_path, name):
    path = tmp_path / name
    with hold(path) as first:
        with pytest.raises(UserError, match="^taken$"), lock.held(path, "taken"):
            pass
        first.kill()  # in any way
    with lock.held(path, "taken"):
        pass


def test_one_that_is_stopping_is_waited_for(tmp_path):
    told = []
    with hold(tmp_path) as first:
        threading.Timer(0.4, first.stdin.close).start()
        with lock.held(tmp_path, "taken", patience=30, waiting=lambda: told.append(1)):
            assert told == [1] and first.wait() == 0
