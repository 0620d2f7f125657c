"""Reads configs and `--config.option=value` overrides, and turns configs into plain dicts.

A Python config is a file with `get_config()` (or `get_config(arg)` for `--config file.py:arg`) and is run as code.
A YAML or JSON config is data: only declared options, no code.
"""

import copy
import functools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_dict, config_flags

from jaxvit import plugins
from jaxvit.config import files, recipes
from jaxvit.config.default import Config, default
from jaxvit.errors import UserError, suggest
from jaxvit.runtime.paths import expand

_KINDS = {
    bool: "true or false", int: "a whole number", float: "a number", str: "text",
    tuple: "values in brackets, such as (0.5, 0.5, 0.5)", ConfigDict: "options with values",
}  # fmt: skip
_OPTIONS = ("optim.options.", "optim.schedule.options.", "loss.options.", "augment.options.")
OPEN = ("model.", *_OPTIONS)  # below them stands what the chosen model, optimiser and so on take
_IMPORT = "imports+"  # what `--import NAME` becomes: the override --config.imports+=NAME
_WORDS_HINT = " `configs --options` lists them all."


def load(
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    model_fields: Callable[[str], Iterable[str]] | None = None,
):
    """Reads a config file and applies `--config.option=value` overrides.

    Args:
      path: a `.py` file (`file.py:arg` passes arg to get_config), `.yaml`, `.yml` or `.json`; or a recipe's name.
      overrides: command-line arguments of the form `--config.a.b=value`.
      model_fields: from a model's name to the names that may stand under `model.`.

    Raises:
      UserError: the file or the option does not exist, or a value has the wrong type.
    """
    path = os.fspath(expand(path, "the config"))
    file, _, argument = path.partition(":") if ".py:" in path else (path, "", "")
    if Path(file).is_dir():
        raise UserError(f"config {file!r} is a directory; expected a .py, .yaml or .json file in it")
    if not Path(file).is_file() and (recipe := recipes.find(file)) is not None:
        file = str(recipe)
    if not Path(file).is_file():
        near = dict.fromkeys(map(str, (*Path(file).parent.glob("*.py"), *Path("configs").glob("*.py"))))
        raise UserError(f"no config file {file!r}.{suggest(file, [*near, *recipes.names()])}")
    if Path(file).suffix == ".py":
        config = files.run_python(Path(file), argument)
        strange = [w for w in flatten(config) if w not in declared() and not w.startswith(OPEN)]
        if strange:
            raise unknown(strange[0])
    elif Path(file).suffix in (".yaml", ".yml", ".json"):
        config = from_mapping(files.read_data(Path(file)))
        _check_data_imports(config, path, overrides)
    else:
        raise UserError(f"config {file!r} has an unknown format; expected .py, .yaml, .yml or .json")
    config = override(config, overrides, model_fields)
    if model_fields is not None:
        fields = set(model_fields(config.model.name))
        for field, value in config.model.items():
            if field not in fields and field != "name" and value is not None:
                raise UserError(
                    f"{config.model.name} has no field {field!r}, which {path!r} sets.{suggest(field, fields)}\n"
                    f"--config.model.{field}=None leaves it out"
                )
    return config


def unknown(word: str) -> UserError:
    """The error for an option that does not exist."""
    return UserError(f"no config option {word!r}.{suggest(word, declared()) or _WORDS_HINT}")


def from_mapping(values: Mapping[str, Any]) -> Config:
    """Returns `default()` updated with nested plain `values`; unknown options are errors."""
    config = default()
    _update(config, values, "")
    return config


def update(config: Config, values: Mapping[str, Any]) -> None:
    """Sets nested plain `values` in `config`; raises UserError for unknown options and for values of the wrong kind."""
    _update(config, values, "")


def override(
    config: Config, overrides: Sequence[str], model_fields: Callable[[str], Iterable[str]] | None = None
) -> Config:
    """Returns a copy of `config` with `--config.a.b=value` arguments applied and type-checked."""
    config = copy.deepcopy(config)  # not copy_and_resolve_references: that drops the types of the placeholders
    words, values = _split_overrides(overrides)
    if "imports" in words:
        raise UserError("config option imports is a list; --import NAME adds a module to it")
    pairs = list(zip(words, values, strict=True))
    if added := [value for word, value in pairs if word == _IMPORT]:
        config.imports = tuple(dict.fromkeys((*config.imports, *added)))
        words, values = ([pair[i] for pair in pairs if pair[0] != _IMPORT] for i in range(2))
    plugins.use(config.get("imports", ()))
    last = dict(zip(words, values, strict=True))  # of an option that is given twice the last value counts
    words, values = list(last), list(last.values())
    name = config.model.name = last.get("model.name", str(config.model.name))
    for word in words:  # a model's fields are not declared by the defaults: declare those of this model
        if (section := next(filter(word.startswith, _OPTIONS), None)) is not None:
            if "." in word.removeprefix(section):
                raise UserError(f"no config option {word!r}; expected one name after {section}")
            _declare(config, word)
        if word.startswith("model.") and word not in ("model.name",) and model_fields is not None:
            field = word.removeprefix("model.")
            fields = set(model_fields(name))
            if field in config.model and (word, "None") in zip(words, values, strict=True):
                continue  # left out below: it may be of another family
            if field not in fields:
                near = suggest(field, fields) or f" Its fields: {', '.join(sorted(fields - {'name', 'parent'}))}."
                raise UserError(f"{config.model.name} has no field {field!r}.{near}")
            _declare(config, word)
    known = set(flatten(config))
    for word in words:
        if word not in known:
            raise UserError(f"no config option {word!r}.{suggest(word, known) or _WORDS_HINT}")
    nones = [word for word, value in zip(words, values, strict=True) if value == "None"]
    for word in nones:  # flags would read the text "None"
        if declared().get(word) is not None:
            raise UserError(f"config option {word} must have a value; None is not one")
        if word.startswith("model."):  # the same as if it had not been set
            with config.unlocked():
                del config.model[word.removeprefix("model.")]
            continue
        _set(config, word, None)
    flag_values = flags.FlagValues()
    # The flag's own objects are read here, hence the explicit argv.
    pairs = [(word, value) for word, value in zip(words, values, strict=True) if word not in nones]
    argv = ["main.py", *(f"--config.{word}={value}" for word, value in pairs)]
    holder = config_flags.DEFINE_config_dict("config", config, flag_values=flag_values, sys_argv=argv)
    try:
        flag_values(argv)
    except (flags.Error, TypeError, ValueError) as error:
        for word, value in pairs:  # absl names the word in the middle of its own prose
            if f"config.{word}={value}" in str(error) and expected(word):
                raise UserError(f"config option {word} is {value!r}; expected {expected(word)}") from None
        raise UserError(f"bad config value: {str(error).splitlines()[0]}") from None
    return holder.value


def to_dict(config: Config) -> dict[str, Any]:
    """Returns plain nested dicts; tuples become lists, as in JSON."""
    return json.loads(config.to_json())


def _split_overrides(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits `--config.option=value`, `--config.option value` and (for a switch) `--config.option`."""
    words, values = [], []
    for text in overrides:
        if not text.startswith("--") and words and values[-1] is None:
            values[-1] = text
            continue
        word, equals, value = text.removeprefix("--").partition("=")
        if not word.startswith("config."):
            raise UserError(f"cannot read {text!r}; expected --config.OPTION=VALUE")
        words.append(word.removeprefix("config."))
        values.append(value if equals else None)
    return words, ["true" if value is None else value for value in values]


def _set(config: Config, word: str, value: Any) -> None:
    *parents, name = word.split(".")
    for parent in parents:
        config = config[parent]
    config[name] = value


def _declare(config: Config, word: str) -> None:
    with config.unlocked():
        _set(config, word, config_dict.placeholder(object))


def _check_data_imports(config: Config, path: str, overrides: Sequence[str]) -> None:
    """Raises UserError where a file of data names a module that the command line does not: its code would be run."""
    words, values = _split_overrides(overrides)
    named = [value for word, value in zip(words, values, strict=True) if word == _IMPORT]
    strange = [str(name) for name in config.imports if name not in named]
    if strange:
        raise UserError(
            f"config {path!r} is data and names the module {strange[0]!r}, whose code would be run\n"
            f"--import {strange[0]} allows it"
        )


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """Returns nested options as one level: "optim.sam.rho" -> value."""
    out = {}
    for name, value in values.items():
        if isinstance(value, Mapping | ConfigDict):
            out.update(flatten(value, f"{prefix}{name}."))
        else:
            out[prefix + name] = value
    return out


@functools.cache
def declared() -> Mapping[str, Any]:
    """Every declared option and its default: "optim.sam.rho" -> value."""
    return MappingProxyType(flatten(default()))


def _update(config: Config, values: Mapping[str, Any], prefix: str) -> None:
    if not isinstance(values, Mapping):
        raise UserError(f"config {prefix.rstrip('.') or 'file'} is {values!r}; expected options with values")
    for name, value in values.items():
        word = f"{prefix}{name}"
        if not isinstance(name, str):
            raise UserError(f"config option {word!r} is not text.{suggest(word, declared())}")
        if "." in name:
            raise UserError(f"config option {name!r} has a dot; expected one level under another")
        if isinstance(config.get(name), ConfigDict):
            _update(config[name], value, f"{word}.")
        elif name in config:
            if isinstance(value, bool) and config.get_type(name) in (int, float):  # Python takes True for 1
                raise UserError(f"config option {word} is {value!r}; expected {expected(word)}")
            try:
                config[name] = tuple(value) if isinstance(value, list) else value
            except (TypeError, ValueError, OverflowError):
                raise UserError(f"config option {word} is {value!r}; expected {expected(word)}") from None
        elif prefix in OPEN:  # checked against the chosen model when it is created
            config[name] = tuple(value) if isinstance(value, list) else value
        else:
            raise unknown(word)


@functools.cache
def _usual() -> Config:
    return default()


def expected(word: str) -> str:
    """Describes the kind of value that an option takes; "" if it takes any."""
    *parents, name = word.split(".")
    config = _usual()
    for parent in parents:
        config = config.get(parent, ConfigDict())
    return _KINDS.get(config.get_type(name), "") if name in config else ""
