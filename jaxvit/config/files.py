"""Reads config files: Python, which is run as code, and YAML and JSON, which are data."""

import importlib.util
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ml_collections import ConfigDict

from jaxvit.config import recipes
from jaxvit.errors import UserError
from jaxvit.runtime import escape

# No config comes near these; a file of a few lines can be made to stand for billions of values, or to last for hours.
MAX_BYTES = 2**20
MAX_DEPTH = 50
MAX_VALUES = 100_000
MAX_DIGITS = 64  # of a number as it is written
MAX_WHOLE = 2**63  # what the arrays of a program count with


def run_python(path: Path, argument: str) -> Any:
    """Returns what `get_config()` (or `get_config(argument)`) of the file returns, a ConfigDict with a model.name."""
    spec = importlib.util.spec_from_file_location(f"jaxvit_config_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # so that a config, and a copy of one, can start from another: `from configs import ...`
    roots = [str(folder.parent) for folder in (path.absolute().parent, recipes.directory()) if folder is not None]
    sys.path[:0] = roots
    sys.path.append(str(path.absolute().parent))  # and from one beside it: `import base`; last, as it hides no library
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise UserError(f"config {str(path)!r} has no function get_config()")
        config = module.get_config(argument) if argument else module.get_config()
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever a config's code raises is the config's mistake
        said = escape.message(error)
        raise UserError(f"config {str(path)!r} failed: {type(error).__name__}: {said}") from error
    made: Any = config
    if not isinstance(config, ConfigDict):
        raise UserError(f"get_config() of {str(path)!r} returned {type(config).__name__}; expected a ConfigDict")
    if "name" not in made.get("model", {}):
        raise UserError(f"config {str(path)!r} has no model.name; start from jaxvit.config.default()")
    return config


def read_data(path: Path) -> Mapping[str, Any]:
    """Returns the mapping in a YAML or JSON file, {} for an empty one."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise UserError(f"config {str(path)!r} is longer than {MAX_BYTES} characters")
        return (parse_json(text) if path.suffix == ".json" else _read_yaml(text)) or {}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" in line {mark.line + 1}" if mark else ""
        raise UserError(f"cannot read config {str(path)!r}: {error.problem or error.context}{where}") from None
    except UserError:
        raise
    except (OSError, UnicodeDecodeError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"cannot read config {str(path)!r}: {(str(error).splitlines() or ['?'])[0]}") from None


def parse_json(text: str) -> Any:
    """As `json.loads`, for files from strangers.

    Raises:
      ValueError: a number that nothing can count with, or a name that occurs twice.
    """
    return json.loads(text, parse_int=_whole, parse_float=_real, parse_constant=_real, object_pairs_hook=_pairs)


def _short(text: str) -> str:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text):,} digits")
    return text


def _whole(text: str) -> int:
    number = int(_short(text))
    if not -MAX_WHOLE <= number < MAX_WHOLE:
        raise ValueError(f"the number {text} does not fit 64 bits")
    return number


def _real(text: str) -> float:
    number = float(_short(text))
    if math.isinf(number) and "inf" not in text.lower():
        raise ValueError(f"the number {text} is too large")
    return number


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with limits on numbers, read as people mean them.

    1e-3 is a number, as in YAML 1.2; 12:30 is not 750, and 010 is not 8.
    """

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if ":" in (text := _short(self.construct_scalar(node))):
            raise ValueError(f"the number {text} is in base 60; put it in quotes if it is text")
        if re.fullmatch(r"[-+]?0[0-9_]+", text):
            raise ValueError(f"the number {text} begins with 0, which YAML reads in base 8; leave the 0 out")
        number = super().construct_yaml_int(node)
        if not -MAX_WHOLE <= number < MAX_WHOLE:
            raise ValueError(f"the number {text} does not fit 64 bits")
        return number

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        if ":" in (text := _short(self.construct_scalar(node))):
            raise ValueError(f"the number {text} is in base 60; put it in quotes if it is text")
        number = super().construct_yaml_float(node)
        if math.isinf(number) and "inf" not in text.lower():
            raise ValueError(f"the number {text} is too large")
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)
_EXPONENT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def _read_yaml(text: str) -> Any:
    """As `yaml.safe_load`, for files from strangers: ValueError where they nest or repeat without end."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} levels")
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return loader.construct_document(node)
    except (ValueError, RecursionError, yaml.YAMLError):
        raise
    except Exception as error:  # a tag that its value does not fit: !!timestamp x, !!bool x, !!int ''
        raise ValueError(f"a value does not fit its tag ({type(error).__name__})") from None
    finally:
        loader.dispose()


def _once(names: Sequence[str]) -> None:
    """Raises ValueError for a name that occurs twice: a parser would silently keep the last value."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} occurs twice")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _once([name for name, _ in pairs])
    return dict(pairs)


def _count(node: yaml.Node, counted: dict[int, int | None]) -> int:
    """Returns how many values a node stands for, with its aliases expanded."""
    if id(node) in counted:
        known = counted[id(node)]
        if known is None:
            raise ValueError("an alias occurs inside the value that it names")
        return known
    counted[id(node)] = None
    inside = node.value if isinstance(node, yaml.CollectionNode) else []
    parts = [part for pair in inside for part in pair] if isinstance(node, yaml.MappingNode) else inside
    if isinstance(node, yaml.MappingNode):
        _once([key.value for key, _ in inside if isinstance(key, yaml.ScalarNode)])
    total = 1 + sum(_count(part, counted) for part in parts)
    if total > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES} values, with its aliases expanded")
    counted[id(node)] = total
    return total
