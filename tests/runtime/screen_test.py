"""Where a line that moves is shown."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxvit.runtime import console, meter, screen, verbosity

ROOT = Path(__file__).resolve().parent.parent.parent
CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


class Lines:
    """A console that is a log."""

    quiet, moves, said = False, False, 0.0

    def __init__(self):
        self.lines = []

    def print(self, text):
        self.lines.append(text)
        self.said = time.monotonic()


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_log_has_a_line_each_half_minute_whatever_runs(clock):
    log = Lines()
    shown = screen.Screen(log)
    outer, inner = meter.Wait("reading the data"), meter.Bar("checking images", 1000)
    shown._running.append(outer)  # without its thread
    for second in range(1, 200):
        clock[0] = float(second)
        if second == 70:
            inner.since = inner._begun = clock[0]
            shown._running.append(inner)
        if second == 140:
            shown._running.pop()
        if second == 163:
            log.print("epoch 1/3  loss 1.0")  # of another place: the next half minute begins
        shown.log()
    assert log.lines == [
        "reading the data: 30.0 s so far", "reading the data: 60.0 s so far", "checking images  0/1,000",
        "checking images  0/1,000", "reading the data: 2 min 30 s so far", "epoch 1/3  loss 1.0",
        "reading the data: 3 min 13 s so far",
    ]  # fmt: skip


def test_what_has_just_begun_says_nothing_yet(clock):
    log = Lines()
    shown = screen.Screen(log)
    clock[0] = 100.0  # nothing ran for a while
    shown._running.append(meter.Wait("compiling"))
    shown.log()
    assert not log.lines and shown.until_log() == screen.LEAST_SECS


def test_a_log_speaks_while_a_step_takes_its_time(monkeypatch, capsys):
    """No `advance` comes, and a thread speaks."""
    monkeypatch.setattr(screen, "LOG_SECS", 0.02)
    monkeypatch.setattr(screen, "LEAST_SECS", 0.0)
    with console.bar("epoch 1/1", 10), console.working("compiling"):
        time.sleep(0.2)
    said = capsys.readouterr().err
    assert said.startswith("compiling: 0.") and said.isprintable() is False and "\x1b" not in said and "\r" not in said
    assert not console._screen._running and console._screen._shown is None


def test_quiet_moves_nothing(monkeypatch, capsys):
    monkeypatch.setattr(screen, "LOG_SECS", 0.01)
    monkeypatch.setattr(screen, "LEAST_SECS", 0.0)
    monkeypatch.setattr(verbosity, "level", verbosity.QUIET)
    with console.bar("epoch 1/1", 10):
        time.sleep(0.1)
    assert capsys.readouterr().err == ""


PROGRAM = """
import time
from jaxvit.runtime import console
for word in ("epoch 1/2", "epoch 2/2"):
    with console.bar(word, 3200, step=32, after=3200) as meter:
        for _ in range(4):
            time.sleep(0.05)
            meter.advance(800, "loss 2.345  accuracy 12.3%")
    console.err.print(f"{word}  loss 2.345  accuracy 12.34%  | val loss 2.345  accuracy 12.34%  | val_ema loss 2.345 *")
console.table("", ("model", "balanced accuracy", "a long name of a column", "another long name", "images"),
              [("vit_tiny_patch16_224", "12.34%", "1", "2", "3")], left=("model",))
"""


def in_terminal(columns, **environment):
    """What a program writes to a terminal with this number of columns."""
    import fcntl
    import pty
    import struct
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
    env |= {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **environment}
    child = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=follower, stderr=follower, env=env)
    os.close(follower)
    said = b""
    while True:
        try:
            block = os.read(leader, 65536)
        except OSError:
            break
        if not block:
            break
        said += block
    os.close(leader)
    assert child.wait() == 0
    return said.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_a_terminal_of_80_columns_wraps_nothing_badly():
    said = in_terminal(80, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*(?:3[0-9]|9[0-7])m", said)  # no colours
    lines = [line for line in re.split(r"[\r\n]+", CONTROL.sub("", said)) if line.strip()]
    assert max(map(len, lines)) <= 80
    drawn = [line for line in lines if "━" in line]
    assert drawn and all("step" in line and "loss 2.345" in line for line in drawn)
    ends = [i for i, line in enumerate(lines) if line.startswith("epoch") and "val loss" in line]
    assert [lines[i + 1].strip() for i in ends] == ["| val_ema loss 2.345 *"] * 2
    assert lines[ends[-1] + 2 :][0].split() == ["model", "vit_tiny_patch16_224"]  # a row that is too wide: one below


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_a_dumb_terminal_gets_lines_alone():
    assert not CONTROL.search(in_terminal(80, TERM="dumb", NO_COLOR="1"))
