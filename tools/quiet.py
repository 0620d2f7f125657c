"""A tool whose output is cut off, as `| head` does it, ends without a traceback."""

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn


def run(main: Callable[[], Any]) -> NoReturn:
    """Calls `main` and ends the process with the exit code that it returns, 0 where nobody reads its output."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more
        code = 0
    sys.exit(code)
