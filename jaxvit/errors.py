"""The exceptions for mistakes of the caller and for failed runs, and the suggestion of the nearest valid choice."""

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import Any


class UserError(ValueError):
    """A mistake that the user can correct: what was wrong, what was expected, the nearest valid choice.

    The command line prints it as `error: ...` (two lines at most) and exits with code 2.
    """


class RunError(RuntimeError):
    """A run that failed although its options are valid: the disk is full, the loss is not finite.

    The command line prints it as `error: ...` (two lines at most) and exits with code 1.
    """


def suggest(word: str, choices: Iterable[str], *, most: int = 3) -> str:
    """Returns " Did you mean 'a', 'b'?" for the choices nearest to `word`, or "" when none is near."""
    choices = list(choices)
    short = [c for c in choices if "_" in c and _initials(c) == word]  # optim.lr for optim.learning_rate
    near = short or difflib.get_close_matches(word, choices, n=most, cutoff=0.55)
    if not near:  # a missing part of a longer name ("swin_tiny") is the other usual slip
        near = sorted((c for c in choices if word and word.lower() in c.lower()), key=len)[:most]
    return f" Did you mean {', '.join(repr(c) for c in near)}?" if near else ""


def shown(value: Any) -> str:
    """A value as a message names what was given: itself where it is short and plain, else its type."""
    plain = value is None or isinstance(value, bool | int | float | complex | str | bytes)
    return text if plain and len(text := repr(value)) <= 60 else f"a {type(value).__name__}"


def check_whole(word: str, value: Any, least: int = 1) -> None:
    """Raises UserError unless an argument is a whole number of `least` or more, Python's or NumPy's."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise UserError(f"{word} is {shown(value)}; expected a whole number of {least} or more.")


def check_number(word: str, value: Any, least: float = 0.0) -> None:
    """Raises UserError unless an argument is a finite number of `least` or more."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not least <= float(value) < math.inf:
        raise UserError(f"{word} is {shown(value)}; expected a number of {least:g} or more.")


def _initials(word: str) -> str:
    """optim.learning_rate -> optim.lr"""
    section, dot, last = word.rpartition(".")
    return section + dot + "".join(part[:1] for part in last.split("_"))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a program, or the process, did not fit its memory."""
    said = str(error).lower().replace("_", " ")
    return isinstance(error, MemoryError) or "resource exhausted" in said or "out of memory" in said
