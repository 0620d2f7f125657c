"""Parts that users bring along: whose a registered name is, and the modules that register, found and imported.

A module is named by `--import`, by the option `imports`, by the config.json of a run, or is an entry point of the group
`jaxvit.plugins` of an installed package. Its names become entries of the tables where jaxvit's own stand.
"""

import contextlib
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Collection, Generator, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from jaxvit.errors import UserError
from jaxvit.runtime import escape

GROUP = "jaxvit.plugins"
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*", re.ASCII)
_NAME = re.compile(r"[a-z]\w*", re.ASCII | re.IGNORECASE)


class Owner(NamedTuple):
    """Who has registered a name."""

    plugin: str  # the module that brings it along when it is imported
    part: tuple[str, str]  # module and name of the thing itself


_owners: dict[tuple[str, str], Owner] = {}
_loading: list[str] = []  # the modules that are being imported, the innermost last
_done: set[str] = set()
_looked = False


def claim(kind: str, name: Any, taken: Collection[str], part: Any) -> None:
    """Makes a name of a table the part's; the same part may come again, as a cell of a notebook does.

    Raises:
      UserError: a name that cannot be, or that is another part's already.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(f"a {kind} cannot be called {name!r}; expected letters, digits and _, beginning with a letter")
    owner = Owner(_loading[0] if _loading else part.__module__, (part.__module__, part.__qualname__))
    before = _owners.get((kind, name))
    said = f"{owner.plugin} registers the {kind} {name!r}"
    if before is None and name in taken:
        raise UserError(f"{said}, a name that jaxvit uses; choose another")
    if before is not None and before.part != owner.part:
        if before.plugin == owner.plugin:
            raise UserError(f"{said} twice; choose another name for one of the two")
        raise UserError(f"{said}, a name that {before.plugin} has taken; choose another")
    _owners[kind, name] = owner


def is_registered(kind: str, name: str) -> bool:
    """Whether a name of a table is a user's part."""
    return (kind, name) in _owners


def modules_of(parts: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The modules to import for some parts, (kind, name) each; jaxvit's own need none."""
    return tuple(dict.fromkeys(_owners[part].plugin for part in parts if part in _owners))


def parameters(kind: str, name: Any, part: Any, form: str) -> list[inspect.Parameter]:
    """What a function takes. Raises UserError where `part` is no function."""
    if not callable(part) or isinstance(part, type) or not hasattr(part, "__qualname__"):
        raise UserError(f"the {kind} {name!r} is {_described(part)}; expected a function {form}")
    return list(inspect.signature(part).parameters.values())


def options(kind: str, name: Any, part: Any, count: int, form: str) -> list[str]:
    """Names of what a function takes after its first `count` arguments: its options.

    Raises:
      UserError: it is no function, takes fewer arguments, or has an option without a default.
    """
    known = parameters(kind, name, part, form)
    by_place = [p for p in known if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(by_place) < count:
        raise UserError(f"the {kind} {name!r} is {_described(part)}; expected a function {form}")
    first = {p.name for p in by_place[:count]}
    free = [p for p in known if p.name not in first and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    needed = [p.name for p in free if p.default is p.empty]
    if needed:
        raise UserError(f"the {kind} {name!r}: its option {needed[0]!r} has no default; {needed[0]}=VALUE gives it one")
    return [p.name for p in free]


def _described(part: Any) -> str:
    if isinstance(part, type) or not callable(part):
        return f"the class {part.__name__}" if isinstance(part, type) else f"{type(part).__name__} {part!r}"[:80]
    return f"{getattr(part, '__name__', 'it')}{inspect.signature(part)}"


def decorator(register: Callable[[str, Any], None], name: Any, form: str) -> Callable[[Any], Any]:
    """`@register_x("name")`: calls `register(name, part)` and returns the part as it is."""
    if callable(name):
        raise UserError(f"the name is missing; expected {form}")

    def wrap(part: Any) -> Any:
        register(name, part)
        return part

    return wrap


def use(names: Iterable[str]) -> None:
    """Imports the modules of a user who names them, and those of installed packages; each once, said on a line.

    The current directory counts, as for `python -m`.

    Raises:
      UserError: a module that is not there, that fails, or whose parts cannot be registered.
    """
    load_installed()
    for name in names:
        _check(name)
        if name in _done or name in sys.modules:
            _done.add(name)
            continue
        if _found(name) is None and os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
            importlib.invalidate_caches()
        if _found(name) is None:
            raise UserError(f"no module {name!r} to import; install it, or put its folder into PYTHONPATH")
        _import(name, "")


def use_recorded(names: Iterable[str], directory: str | os.PathLike[str]) -> None:
    """Imports the modules that a run in `directory` has recorded; each once, said on a line.

    Only what could be imported anyway: neither the run's directory nor the current one is looked into, unless they are
    in `sys.path`, and what lies in the run's directory is not imported even then.

    Raises:
      UserError: a module that is not there, that fails, or whose parts cannot be registered.
    """
    load_installed()
    for name in names:
        _check(name)
        if name in _done or name in sys.modules:
            continue
        spec, way = _found(name), f"--import {name} imports it from the current directory too"
        where = f"the run in {os.fspath(directory)!r} needs the module {name!r}"
        if spec is None:
            raise UserError(f"{where}, which cannot be found; install it, or put its folder into PYTHONPATH\n{way}")
        inside = Path(directory).resolve() in Path(spec.origin or os.sep).resolve().parents
        if inside or name.partition(".")[0] in sys.stdlib_module_names:
            why = "lies in the run's own directory" if inside else "is not one of jaxvit's plug-ins"
            raise UserError(f"{where}, which {why} and is not imported\n--import {name} imports it anyway")
        _import(name, f", as the run in {os.fspath(directory)} says")


def load_installed() -> None:
    """Imports the entry points of installed packages, once. One that fails is left out, with a warning."""
    global _looked
    if _looked:
        return
    _looked = True
    for entry in importlib.metadata.entry_points(group=GROUP):
        if entry.module in sys.modules:
            continue
        try:
            _import(entry.module, f", an entry point of {entry.dist.name if entry.dist else 'a package'}")
        except UserError as error:
            warnings.warn(f"{str(error).splitlines()[0]}; its package is installed but not used", stacklevel=2)


def _check(name: Any) -> None:
    if not isinstance(name, str) or not _MODULE.fullmatch(name):
        raise UserError(f"{name!r} is not the name of a module; expected for example my_parts, without folder and .py")


def _found(name: str) -> importlib.machinery.ModuleSpec | None:
    """Where the outermost package of a module lies; nothing is imported."""
    top = name.partition(".")[0]
    if top in sys.builtin_module_names:
        return importlib.machinery.BuiltinImporter.find_spec(top)
    return importlib.util.find_spec(top)


@contextlib.contextmanager
def _as_owner(name: str) -> Generator[None]:
    _loading.append(name)
    try:
        yield
    finally:
        _loading.pop()


def _import(name: str, why: str) -> None:
    from jaxvit.runtime.console import err

    with _as_owner(name):
        try:
            module = importlib.import_module(name)
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # whatever a module's code raises is its own mistake
            said = f"{type(error).__name__}: {escape.message(error)}"
            raise UserError(f"the module {name!r} cannot be imported: {said}") from error
    _done.add(name)
    err.print(f"imported {name} ({getattr(module, '__file__', None) or 'no file'}){why}")
