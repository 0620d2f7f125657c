"""The exceptions for mistakes of the caller and for failed runs, and the suggestion of the nearest valid choice."""

import difflib
from collections.abc import Iterable


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


def _initials(word: str) -> str:
    """optim.learning_rate -> optim.lr"""
    section, dot, last = word.rpartition(".")
    return section + dot + "".join(part[:1] for part in last.split("_"))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a program, or the process, did not fit its memory."""
    said = str(error).lower().replace("_", " ")
    return isinstance(error, MemoryError) or "resource exhausted" in said or "out of memory" in said
