"""The options of a run: declared once with their defaults, read from files and command lines, checked, compared."""

from jaxvit.config.compare import DERIVED, differences
from jaxvit.config.default import Config, default
from jaxvit.config.words import declared, expected, flatten, from_mapping, load, override, to_dict, update

__all__ = [
    "DERIVED",
    "Config",
    "declared",
    "default",
    "differences",
    "expected",
    "flatten",
    "from_mapping",
    "load",
    "override",
    "to_dict",
    "update",
]
