"""Signals at a run's start end the process at once, whatever Python does; later ones wait for a checkpoint."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from jaxvit.runtime import interrupt

ROOT = Path(__file__).resolve().parent.parent.parent

# Stands in for an import that swallows what is raised in it, or for a compilation: handlers get no turn that counts.
DEAF = """
import os, signal, sys, time
from jaxvit.runtime import interrupt
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may themselves run under nohup, which children inherit
with interrupt.owned("nothing is lost"):
    print("ready", flush=True)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            time.sleep(0.1)
        except BaseException:
            pass
print("went on to its end", flush=True)
"""


@pytest.mark.parametrize("number", sorted(interrupt.MEANING))
def test_a_signal_is_obeyed_where_python_swallows_it(number):
    child = subprocess.Popen(
        [sys.executable, "-c", DEAF], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "ready\n"
    begun = time.monotonic()
    child.send_signal(number)
    out, err = child.communicate(timeout=30)
    assert child.returncode == 128 + interrupt.MEANING[number] and out == "" and err == "nothing is lost\n"
    assert time.monotonic() - begun < 5


def test_hang_up_and_the_limit_on_time_mean_sigterm():
    assert {interrupt.MEANING[s] for s in (signal.SIGHUP, signal.SIGXCPU, signal.SIGUSR1)} == {signal.SIGTERM}


def test_nohup_holds(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupt.deferred() as flag:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.05)
            assert flag.signum is None
    finally:
        signal.signal(signal.SIGHUP, before)


class Left(BaseException):
    """In the place of the end of the process."""


def test_a_signal_just_before_a_compilation_is_obeyed_before_it(monkeypatch):
    """It came while something was to be saved: the watcher let it pass, and the compilation would hold it up."""

    def leave(code):
        raise Left(code)

    monkeypatch.setattr(interrupt, "leave", leave)
    monkeypatch.setattr(interrupt, "_say", lambda message: None)
    with interrupt.owned("start"), interrupt.deferred():
        interrupt.something_to_save()
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(100):
            if interrupt._came is not None:
                break
            time.sleep(0.02)
        with pytest.raises(Left, match="143"):
            interrupt.nothing_to_save("stopped while compiling")
    interrupt.nothing_to_save("another run of this process")  # has no part in that signal
    interrupt.something_to_save()


def test_no_exception_is_raised_where_the_process_is_ended_anyway(monkeypatch):
    """A KeyboardInterrupt within the import of a compiled module aborts the process, with SIGABRT or SIGSEGV."""
    monkeypatch.setattr(interrupt, "_nothing_to_save", "stopped")
    interrupt._as_usual(signal.SIGINT, None)
    interrupt._as_usual(signal.SIGTERM, None)
    monkeypatch.setattr(interrupt, "_nothing_to_save", None)
    with pytest.raises(KeyboardInterrupt):
        interrupt._as_usual(signal.SIGINT, None)


def test_a_full_pipe_that_nobody_reads_does_not_hold_up_the_end():
    program = DEAF.replace('print("ready", flush=True)', 'os.write(1, b"ready\\n"); fill()').replace(
        "with interrupt",
        "def fill():\n    os.set_blocking(2, False)\n    try:\n        while True: os.write(2, b'x' * 4096)\n"
        "    except BlockingIOError: os.set_blocking(2, True)\nwith interrupt",
    )
    child = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout.readline() == b"ready\n"
    time.sleep(0.3)
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=15) == 143
    child.stdout.close()
    child.stderr.close()


def test_the_thread_that_watches_ends_with_what_it_watches():
    before = threading.active_count()
    with interrupt.owned("start"):
        assert interrupt.owns_the_process
    assert threading.active_count() == before and not interrupt.owns_the_process
