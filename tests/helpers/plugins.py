"""Modules that register parts: written for a test, imported, and gone after it."""

import contextlib
import copy
import importlib
import re
import sys

from jaxvit import plugins
from jaxvit.config import checks
from jaxvit.data.augment import compose
from jaxvit.data.sources import table
from jaxvit.models import registry
from jaxvit.optim import factory, schedules
from jaxvit.step import losses, metrics
from tests.helpers import ROOT


def tables():
    """All that a registration changes."""
    return [
        plugins._owners, registry.FAMILIES, table._PLAIN, table._WITH_ARGUMENT, factory.optimizers(),
        schedules.SCHEDULES, compose.OWN, losses.LOSSES, losses._OPTIONS, metrics.OWN, checks.METRICS,
    ]  # fmt: skip


@contextlib.contextmanager
def forgotten():
    """What is registered and imported inside is as if it had never been, as in a new process."""
    before, several, done, looked = (
        [dict(t) for t in tables()],
        list(losses.SEVERAL),
        set(plugins._done),
        plugins._looked,
    )
    modules, path = set(sys.modules), copy.copy(sys.path)
    plugins._looked = True  # packages that happen to be installed here are not looked for
    try:
        yield
    finally:
        for now, then in zip(tables(), before, strict=True):
            now.clear()
            now.update(then)
        losses.SEVERAL[:], plugins._looked, sys.path[:] = several, looked, path
        plugins._done.clear()
        plugins._done.update(done)
        for name in set(sys.modules) - modules:
            if "pytest-" in str(getattr(sys.modules[name], "__file__", "")):  # of a test's directory
                del sys.modules[name]


def examples(page):
    """The Python code of a page of docs/, block by block."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)


def write_module(directory, name, code):
    """Writes a module; returns its name."""
    (directory / f"{name}.py").write_text(code, encoding="utf-8")
    importlib.invalidate_caches()
    return name
