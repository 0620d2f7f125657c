"""The reference of the options: every one with its default and its meaning, read from their declaration."""

import functools
import inspect
import re
from typing import Any, NamedTuple

from jaxvit.config.default import default
from jaxvit.config.words import declared, expected

_DECLARATION = re.compile(r"c\.([\w.]+) = (.*)")


class Option(NamedTuple):
    """A declared option."""

    name: str  # "optim.sam.rho"
    default: Any
    takes: str  # "a number", "true or false"; "" where anything goes
    meaning: str


@functools.cache
def options() -> tuple[Option, ...]:
    """Every declared option, in the order of declaration."""
    usual = dict(declared())
    return tuple(Option(name, usual.get(name), expected(name), meaning) for name, meaning in _meanings().items())


def _meanings() -> dict[str, str]:
    """The comment behind each declaration in `default()`, or the one above it."""
    found, above = {}, []
    for line in map(str.strip, inspect.getsource(default).splitlines()):
        if line.startswith("# "):
            above.append(line.removeprefix("# "))
            continue
        declaration = _DECLARATION.match(line)
        if declaration is not None:
            name, rest = declaration.groups()
            comment = rest.partition("  # ")[2] or " ".join(above)
            if not rest.startswith("Options()") or name.endswith(".options"):  # else a section
                found[name] = comment
        above = []
    return found
