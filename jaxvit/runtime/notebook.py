"""A text in the output of a notebook's cell that is replaced in place, by any front end and without widgets."""

import sys
from typing import Any


def is_inside() -> bool:
    """Whether this process is the kernel of a notebook."""
    if "IPython" not in sys.modules:
        return False
    shell: Any = sys.modules["IPython"].get_ipython()
    kind = type(shell)
    return kind.__name__ == "ZMQInteractiveShell" or "google.colab" in kind.__module__


class InPlace:
    """One output for each cell that shows something."""

    def __init__(self):
        """Shows nothing yet."""
        self._cell: int | None = None
        self._handle: Any = None

    def show(self, text: str) -> None:
        """Shows a text, in the place of the last one of the same cell."""
        from IPython.display import display  # type: ignore[import-not-found]

        cell = sys.modules["IPython"].get_ipython().execution_count
        if cell != self._cell:
            self._cell, self._handle = cell, display({"text/plain": text}, raw=True, display_id=True)
        else:
            self._handle.update({"text/plain": text}, raw=True)
