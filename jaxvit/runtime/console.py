"""What the user sees while something runs: lines, a bar with rate and remaining time, tables.

Standard error takes what tells of the work, by weight: `warn` also with --quiet, `err.print`, and `detail` only with
--verbose. Standard output takes results: `say` and `table`.
"""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from jaxvit.runtime import escape, streams
from jaxvit.runtime import verbosity as levels
from jaxvit.runtime.meter import Bar, Wait, duration
from jaxvit.runtime.screen import Screen

__all__ = ["bar", "count", "detail", "duration", "err", "gap", "out", "say", "table", "warn", "working"]

# Without markup and emoji: file and class names may look like either. In a notebook, lines and no HTML for each.
_PLAIN: dict[str, Any] = {
    "highlight": False, "soft_wrap": True, "markup": False, "emoji": False, "force_jupyter": False
}  # fmt: skip
WIDEST = 1000  # columns
_INDENT = re.compile(r"(?:\S+ )?\S+ {2,}(?=\S)| +")  # "train  ", "epoch 3/90  ", or of a text alone


class _Lines(Console):
    """A console on which names of files and messages of libraries are shown, and steer nothing."""

    said = time.monotonic()  # when the last line was printed

    @property
    def moves(self) -> bool:
        """Whether it is a terminal that can draw a line anew: FORCE_COLOR alone makes none of a log."""
        return self.file.isatty() and not self.is_dumb_terminal

    def fits(self, line: str) -> bool:
        """Whether a terminal shows it on one line; a log does."""
        return not self.file.isatty() or cell_len(line) <= self.width

    def print(self, *objects: Any, least: int = levels.NORMAL, fold: bool = True, **options: Any) -> None:
        """Prints where the level is `least` or more; characters that a terminal would obey become "?"."""
        if levels.level < least:
            return
        if all(isinstance(x, str) for x in objects):
            self.said = time.monotonic()
        super().print(*(self._safe(x, fold) if isinstance(x, str) else x for x in objects), **options)

    def _safe(self, text: str, fold: bool) -> str:
        text = escape.terminal(text)
        if not (fold and self.file.isatty()):
            return text
        return "\n".join(folded(line, self.width) for line in text.split("\n"))


# tables and results
out = _Lines(**_PLAIN)
# progress and errors, which nobody needs to read
err = _Lines(file=streams.STDERR, stderr=True, **_PLAIN)
_screen = Screen(err)


def warn(text: str) -> None:
    """Prints a line that --quiet does not suppress."""
    err.print(text, least=levels.QUIET)


def detail(text: str) -> None:
    """Prints a line that only --verbose asks for."""
    err.print(text, least=levels.VERBOSE)


def folded(line: str, width: int) -> str:
    """A line as lines of at most `width` columns, below each other where its text begins.

    It is broken between parts, which two spaces divide, and long parts between words.
    """
    if cell_len(line) <= width:
        return line
    found = _INDENT.match(line)
    indent = found[0] if found and len(found[0]) < width // 2 else ""
    lines, begin, indent = [indent], indent, " " * len(indent)
    for part in re.findall(r" *(?:[^ ]| (?! ))+", line[len(indent) :]):
        pieces = [part] if len(indent) + cell_len(part.lstrip()) <= width else re.findall(r" *[^ ]+", part)
        for piece in pieces:
            if cell_len(lines[-1] + piece) > width and lines[-1] not in (begin, indent):
                lines.append(indent + piece.lstrip())
            else:
                lines[-1] += piece
    return "\n".join(lines)


@contextmanager
def bar(title: str, total: int | None, unit: str = "images", *, step: int = 1, after: int = 0) -> Iterator[Bar]:
    """A bar that disappears when it is done; without a terminal, a line each half minute.

    Args:
      title: of what is done.
      total: units to do; None where that is unknown.
      unit: its plural, for the rate; "B" for bytes.
      step: units that are counted as one step.
      after: units that a run has left when this bar is done, for the time that the run needs.
    """
    meter = Bar(escape.terminal(title), total, unit, step=step, after=after)
    _screen.push(meter)
    try:
        yield meter
    finally:
        _screen.pop(meter)


@contextmanager
def working(title: str) -> Iterator[Wait]:
    """Says what is done, of which nobody knows how long it takes; without a terminal, a line each half minute."""
    wait = Wait(escape.terminal(title))
    _screen.push(wait)
    try:
        yield wait
    finally:
        _screen.pop(wait)


def gap() -> None:
    """An empty line, on a terminal: in a log every line says something."""
    if err.file.isatty():
        err.print("")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, left: Sequence[str] = ()) -> None:
    """Prints a table; columns named in `left` are aligned left, the others right.

    Only a terminal's width folds it: between words, or, where that is not enough, into a line for each cell.
    """
    shown = [[escape.plain(str(cell), "?") for cell in row] for row in rows]
    view = Table(title=escape.terminal(title), title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        view.add_column(escape.terminal(column), justify="left" if column in left else "right", overflow="fold")
    for row in shown:
        view.add_row(*row)
    target = out if out.file.isatty() else Console(width=WIDEST, **_PLAIN)
    least, natural = target.measure(view, options=target.options.update(max_width=WIDEST))
    if (natural if len(shown) == 1 else least) > target.width:
        view = _upright(title, columns, shown)
    with target.capture() as capture:
        target.print(view)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))  # rich ends the process on a closed pipe


def _upright(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table with its columns below each other, an empty line between two rows."""
    view = Table.grid(padding=(0, 2))
    view.title, view.title_justify = escape.terminal(title), "left"
    view.add_column(style="bold", overflow="fold")
    view.add_column(overflow="fold")
    for i, row in enumerate(rows):
        if i:
            view.add_row()
        for column, cell in zip(columns, row, strict=True):
            if cell:
                view.add_row(escape.terminal(column), cell)
    return view


def say(text: str) -> None:
    """Prints lines on stdout; characters that a terminal would obey become "?"."""
    print(escape.terminal(text))


def count(number: float, unit: str = "") -> str:
    """Returns 5.72 M, 1.26 GMACs, 940 k, 640 MACs: three significant digits, and a space before prefix and unit."""
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.3g} {letter}{unit}"
    return f"{number:.0f} {unit}".rstrip()
