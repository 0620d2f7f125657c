"""A console that goes away costs a run its lines, and nothing else."""

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxvit import train
from jaxvit.runtime import console, streams
from tests.helpers import tiny_config, write_npz

ROOT = Path(__file__).resolve().parent.parent.parent


class Failing(io.StringIO):
    """A stream that takes `takes` texts and then raises."""

    def __init__(self, takes, error):
        super().__init__()
        self.takes, self.error = takes, error

    def write(self, text):
        if self.takes <= 0:
            raise self.error
        self.takes -= 1
        return super().write(text)


ERRORS = {
    "full disk": OSError(errno.ENOSPC, "No space left on device"),
    "reader gone": BrokenPipeError(errno.EPIPE, "Broken pipe"),
    "terminal closed": OSError(errno.EIO, "Input/output error"),
    "closed": ValueError("I/O operation on closed file."),
}


def test_a_run_whose_console_goes_away_goes_on_and_keeps_its_lines(tmp_path, monkeypatch):
    streams._forget()  # what other tests of this process have lost
    config = tiny_config(write_npz(tmp_path / "data"), num_epochs=1)
    with monkeypatch.context() as patch:
        stream = Failing(2, ERRORS["full disk"])
        patch.setattr(sys, "stderr", stream)
        train.train_and_evaluate(config, tmp_path / "run")
    kept = (tmp_path / "run" / streams.NAME).read_text().splitlines()
    assert kept[0] == "the console takes no more lines (No space left on device); they continue here"
    assert kept[1].startswith("model ") and kept[-1].startswith("files ")
    assert len(stream.getvalue().splitlines()) == 2
    assert json.loads((tmp_path / "run/summary.json").read_text())["console_lost"] == "No space left on device"
    assert streams.lost is None  # of this run alone


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_every_way_to_lose_a_console_keeps_the_lines(tmp_path, monkeypatch, error):
    streams._forget()
    with monkeypatch.context() as patch:
        stream = Failing(1, error)
        patch.setattr(sys, "stderr", stream)
        with streams.kept_in(tmp_path / streams.NAME):
            for line in ("one", "two", "three"):
                console.err.print(line)
            assert streams.lost == (getattr(error, "strerror", None) or str(error))
    assert stream.getvalue() == "one\n" and streams.lost is None
    assert (tmp_path / streams.NAME).read_text().splitlines()[1:] == ["two", "three"]


def test_a_console_that_stays_leaves_no_file(tmp_path):
    with streams.kept_in(tmp_path / streams.NAME):
        console.err.print("one")
    assert not (tmp_path / streams.NAME).exists()


def test_a_run_without_standard_error_keeps_its_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    train.train_and_evaluate(tiny_config(write_npz(tmp_path / "data"), num_epochs=1), tmp_path / "run")
    assert "(it is closed)" in (tmp_path / "run" / streams.NAME).read_text().splitlines()[0]


@pytest.mark.parametrize(
    ("redirection", "code"),
    [("2>/dev/full", 2), ("<&- >&- 2>&-", 2)],
)
def test_the_exit_code_is_the_commands_own(redirection, code):
    command = f'"$0" main.py --config no_such.py --workdir x {redirection}'
    done = subprocess.run(["sh", "-c", command, sys.executable], cwd=ROOT, capture_output=True, timeout=60)
    assert done.returncode == code


def test_a_command_whose_results_cannot_be_written_fails():
    command = '"$0" main.py models >/dev/full'
    done = subprocess.run(["sh", "-c", command, sys.executable], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr == "error: No space left on device\n"


def test_closed_streams_lead_nowhere_and_not_into_the_next_file():
    program = (
        "import os\nfrom jaxvit.runtime import streams\n"
        "with streams.guarded():\n"
        "    assert os.open('/dev/null', os.O_RDONLY) > 2\n"
        "    os.write(2, b'a library speaks'); print('a result')\n"
    )
    command = '"$0" -c "$1" <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", command, sys.executable, program], cwd=ROOT, timeout=60).returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.slow
@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&1 | head -2", "<&- >&- 2>&-"])
def test_a_whole_command_ends_with_0(tmp_path, redirection):
    words = tiny_config(write_npz(tmp_path / "data"), num_epochs=1).to_dict()
    (tmp_path / "run.json").write_text(json.dumps(words))
    command = f'{{ "$0" main.py --config "$1/run.json" --workdir "$1/run"; echo $? >"$1/code"; }} {redirection}'
    subprocess.run(["sh", "-c", command, sys.executable, str(tmp_path)], cwd=ROOT, timeout=300, capture_output=True)
    assert (tmp_path / "code").read_text() == "0\n"
    assert (tmp_path / "run/summary.json").is_file() and (tmp_path / "run" / streams.NAME).is_file()
