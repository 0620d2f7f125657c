"""What the user sees while something runs: lines, a progress bar with rate and remaining time, tables."""

import time
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jaxvit.runtime import escape, streams

# Without markup and emoji: file and class names may look like either.
_PLAIN: dict[str, Any] = {"highlight": False, "soft_wrap": True, "markup": False, "emoji": False}


class _Lines(Console):
    """A console on which names of files and messages of libraries are shown, and steer nothing."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Prints; characters that a terminal would obey become "?"."""
        super().print(*(escape.terminal(x) if isinstance(x, str) else x for x in objects), **options)


out = _Lines(**_PLAIN)  # tables and results
err = _Lines(file=streams.STDERR, stderr=True, **_PLAIN)  # progress and errors, which nobody needs to read
WIDEST = 1000  # columns
HEARTBEAT_SECS = 30.0  # if there is no terminal, a line at this interval


class Bar:
    """One bar: `advance(n, text)` with n of `total` units done since the last call."""

    def __init__(self, progress: Progress | None, title: str, total: int, unit: str):
        """Use `console.bar`."""
        self._progress, self._title, self._total, self._unit = progress, title, total, unit
        title = escape.terminal(title)
        self._task = progress.add_task(title, total=total, text="") if progress else None
        self._done, self._untimed, self._begun, self._said = 0, 0, time.monotonic(), time.monotonic()

    def leave_out(self, seconds: float, n: int) -> None:
        """Takes `seconds` and `n` units out of the rate: a step that was compiled says nothing of those to come."""
        self._begun += seconds
        self._untimed += n

    def advance(self, n: int, text: str = "") -> None:
        """Counts `n` more units done; `text` is shown next to the rate."""
        self._done += n
        now = time.monotonic()
        rate = max(self._done - self._untimed, 0) / max(now - self._begun, 1e-9)
        text = "".join(f"  {part}" for part in (text, f"{rate:,.0f} {self._unit}/s" if rate else "") if part)
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=n, text=text)
        elif now - self._said > HEARTBEAT_SECS:
            self._said = now
            left = f"  {duration((self._total - self._done) / rate)} left" if rate else ""
            err.print(f"{self._title}: {self._done}/{self._total}{text}{left}")


@contextmanager
def bar(title: str, total: int, unit: str = "images"):
    """A bar that disappears when it is done; without a terminal, a line every half minute."""
    if not err.is_terminal:  # rich ends even a bar that is switched off with an empty line
        yield Bar(None, title, total, unit)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=err, transient=True) as progress:
        yield Bar(progress, title, total, unit)


def gap() -> None:
    """An empty line, on a terminal: in a log every line says something."""
    if err.is_terminal:
        err.print()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, left: Sequence[str] = ()) -> None:
    """Prints a table; columns named in `left` are aligned left, the others right. Only a terminal's width folds it."""
    view = Table(title=escape.terminal(title), title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        view.add_column(escape.terminal(column), justify="left" if column in left else "right", overflow="fold")
    for row in rows:
        view.add_row(*[escape.plain(str(cell), "?") for cell in row])
    target = out if out.is_terminal else Console(width=WIDEST, **_PLAIN)
    with target.capture() as capture:
        target.print(view)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))  # rich ends the process on a closed pipe


def say(text: str) -> None:
    """Prints lines on stdout; characters that a terminal would obey become "?"."""
    print(escape.terminal(text))


def duration(seconds: float) -> str:
    """Returns "1.2 s", "3 min 20 s" or "2 h 05 min"."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def count(number: float, unit: str = "") -> str:
    """Returns 5.72 M, 1.26 GMACs, 940 k, 640 MACs: three significant digits, and a space before prefix and unit."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.3g} {letter}{unit}"
    return f"{number:.0f} {unit}".rstrip()
