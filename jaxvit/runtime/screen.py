"""Where a line that moves is shown: on a terminal and in a notebook in place, in a log anew each half minute."""

import contextvars
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from jaxvit.runtime import notebook, verbosity
from jaxvit.runtime.meter import Bar, Wait

LOG_SECS = 30.0  # between two lines of a log
LEAST_SECS = 5.0  # what takes less says nothing there
CELL_SECS = 0.5  # between two states in a notebook


class Screen:
    """Shows the innermost of what runs: meters nest, and one place shows them."""

    def __init__(self, console: Any):
        """`console` prints lines, and knows whether it is a terminal and when it printed the last one (`said`)."""
        self._console, self._running, self._shown = console, [], None

    def push(self, meter: Bar | Wait) -> None:
        """Shows a meter until it is popped, but for those that are pushed after it."""
        self._running.append(meter)
        if self._shown is None:
            self._shown = self._begin()

    def pop(self, meter: Bar | Wait) -> None:
        """Shows a meter no more."""
        if len(self._running) == 1 and self._shown is not None:  # while there is something to draw
            self._shown.stop()
            self._shown = None
        self._running.remove(meter)

    def _begin(self) -> Any:
        if verbosity.level == verbosity.QUIET or self._console.quiet:
            return None
        if notebook.is_inside():
            return _Cell(self)
        return _terminal(self) if self._console.moves else _Log(self)

    def line(self, width: int) -> Any:
        """The line of the innermost meter, in colours."""
        from rich.text import Text

        looks = {} if self._console.encoding.startswith("utf") else {"full": "#", "empty": "-"}
        text = Text(self._running[-1].line(width, **looks), no_wrap=True, overflow="crop")
        text.highlight_regex("━+", "bar.complete")
        text.highlight_regex("─{2,}", "bar.back")
        return text

    def last(self) -> str:
        """What stays of the innermost meter."""
        return self._running[-1].last(self._console.width - 1)

    def until_log(self) -> float:
        """Seconds until the innermost meter is due to print a line."""
        due = max(self._console.said + LOG_SECS, self._running[-1].since + LEAST_SECS)
        return due - time.monotonic()

    def log(self) -> None:
        """Prints the line of the innermost meter, if that is due."""
        if self.until_log() <= 0:
            self._console.print(self._running[-1].log_line())


def _terminal(screen: Screen) -> Any:
    from rich.live import Live

    console = screen._console
    live = Live(
        console=console,
        transient=True,
        refresh_per_second=8,
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),  # a result in a file is not for the terminal
        get_renderable=lambda: screen.line(console.width - 1),
    )
    live.start()
    return live


class _Regular:
    """A thread that draws now and then."""

    def __init__(self, screen: Screen):
        """Begins at once."""
        self._screen, self._done = screen, threading.Event()
        context = contextvars.copy_context()  # a kernel finds the cell of an output there
        self._thread = threading.Thread(target=context.run, args=(self._run,), daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with suppress(IndexError):  # the last one has just ended
            while not self._done.wait(self._pause()):
                self._draw()

    def _pause(self) -> float:
        raise NotImplementedError

    def _draw(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """Ends it."""
        self._done.set()
        self._thread.join()


class _Log(_Regular):
    def _pause(self) -> float:
        return max(self._screen.until_log(), 0.05)

    def _draw(self) -> None:
        self._screen.log()


class _Cell(_Regular):
    output = notebook.InPlace()  # one for all: a cell has one bar

    def _pause(self) -> float:
        return CELL_SECS

    def _draw(self) -> None:
        self.output.show(str(self._screen.line(self._screen._console.width - 1)))

    def stop(self) -> None:
        super().stop()
        self.output.show(self._screen.last())
