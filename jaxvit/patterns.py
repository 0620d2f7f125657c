"""Regular expressions from users and their files, checked before they run: Python's matcher backtracks.

`(a+)+$` on a text of 40 letters lasts for hours. A pattern's cost is bounded from its parse tree: how many ways there
are to match a text of the length of a parameter's path. Patterns that people write stay far below the limit.
"""

import re
from re import _constants as constants  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from jaxvit.errors import UserError

MAX_LENGTH = 1000  # characters
TEXT = 64  # characters of a text that is matched
MAX_WAYS = 1e6  # three times `.*`, or twenty times `?`


def compile(pattern: str) -> re.Pattern[str]:
    """Returns the compiled pattern. Raises UserError where it is none, and where matching it might not end."""
    if not isinstance(pattern, str):
        raise UserError(f"{pattern!r} is not a regular expression; expected text.")
    if len(pattern) > MAX_LENGTH:
        raise UserError(f"a regular expression of {len(pattern):,} characters; expected at most {MAX_LENGTH}.")
    try:
        compiled = re.compile(pattern)
        ways = _ways(parser.parse(pattern))
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(f"{pattern!r} is not a regular expression: {error}.") from None
    if ways > MAX_WAYS:
        raise UserError(
            f"the regular expression {pattern!r} could take forever to match; "
            "expected no repetition within a repetition, and at most three like .* in a row."
        )
    return compiled


def _ways(nodes: Any) -> float:
    """How many ways of matching a text of TEXT characters the nodes allow, one after the other."""
    total = 1.0
    for op, value in nodes:
        total *= _ways_of(op, value)
    return min(total, 1e300)


def _ways_of(op: Any, value: Any) -> float:
    if op in (constants.MAX_REPEAT, constants.MIN_REPEAT, constants.POSSESSIVE_REPEAT):
        least, most, inside = value
        most, each = min(int(most), TEXT), _ways(inside)
        counts = max(most - min(int(least), most), 0) + 1
        return counts * (each**most if each < 1e4 else 1e300) if each > 1 else counts
    if op is constants.SUBPATTERN:
        return _ways(value[-1])
    if op is constants.ATOMIC_GROUP:
        return _ways(value)
    if op in (constants.ASSERT, constants.ASSERT_NOT):
        return _ways(value[1])
    if op is constants.BRANCH:
        branches = value[1]
        return sum(map(_ways, branches)) if not _told_apart(branches) else max(map(_ways, branches))
    if op is constants.GROUPREF_EXISTS:
        return sum(_ways(branch) for branch in value[1:] if branch is not None)
    return 1.0


def _told_apart(branches: Any) -> bool:
    """Whether the branches begin with different letters, so that at most one of them can match."""
    firsts = [branch[0] if len(branch) else None for branch in branches]
    letters = {first[1] for first in firsts if first is not None and first[0] is constants.LITERAL}
    return len(letters) == len(branches)
