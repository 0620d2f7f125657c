"""Reads config files: Python, which is run as code, and YAML and JSON, which are data."""

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ml_collections import ConfigDict

from jaxvit.errors import UserError


def run_python(path: Path, argument: str) -> Any:
    """Returns what `get_config()` (or `get_config(argument)`) of the file returns, a ConfigDict with a model.name."""
    spec = importlib.util.spec_from_file_location(f"jaxvit_config_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    root = str(path.absolute().parent.parent)  # so that a config can start from another: `from configs import ...`
    sys.path.insert(0, root)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise UserError(f"config {str(path)!r} has no function get_config()")
        config = module.get_config(argument) if argument else module.get_config()
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever a config's code raises is the config's mistake
        said = " ".join(str(error).split())
        raise UserError(f"config {str(path)!r} failed: {type(error).__name__}: {said[:300]}") from error
    made: Any = config
    if not isinstance(config, ConfigDict):
        raise UserError(f"get_config() of {str(path)!r} returned {type(config).__name__}; expected a ConfigDict")
    if "name" not in made.get("model", {}):
        raise UserError(f"config {str(path)!r} has no model.name; start from jaxvit.config.default()")
    return config


def read_data(path: Path) -> Mapping[str, Any]:
    """Returns the mapping in a YAML or JSON file, {} for an empty one."""
    try:
        text = path.read_text(encoding="utf-8")
        return (json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)) or {}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" in line {mark.line + 1}" if mark else ""
        raise UserError(f"cannot read config {str(path)!r}: {error.problem or error.context}{where}") from None
    except (OSError, UnicodeDecodeError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"cannot read config {str(path)!r}: {(str(error).splitlines() or ['?'])[0]}") from None
