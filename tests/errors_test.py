"""Kinds of errors."""

import ast
import re
from pathlib import Path

import pytest

from jaxvit.errors import UserError, check_number, check_whole, is_out_of_memory, shown


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (MemoryError(), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), True),
        (RuntimeError("CUDA_ERROR_OUT_OF_MEMORY"), True),
        (RuntimeError("XLA:TPU compile permanent error. Ran out of memory in memory space hbm."), True),
        (RuntimeError("no ROOM"), False),
    ],
)
def test_errors_of_memory_are_known(error, is_it):
    assert is_out_of_memory(error) == is_it


def _swallowed(root):
    """Handlers that catch a UserError as the ValueError or Exception that it is, of functions that may raise one.

    Functions are known by their module and name; methods, and what is called through a variable, are not followed.
    """
    calls, tries, wide = {}, [], re.compile(r"\b(ValueError|Exception)\b").search

    def dotted(node):
        parts = []
        while isinstance(node, ast.Attribute):
            node, parts = node.value, [node.attr, *parts]
        return [node.id if isinstance(node, ast.Name) else "", *parts]

    for path in root.rglob("*.py"):
        module = ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        known = {node.name: f"{module}.{node.name}" for node in tree.body if isinstance(node, ast.FunctionDef)}
        nodes = list(ast.walk(tree))
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxvit"):
                known |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}
        calls |= {f"{module}.{name}": {place} for name, place in known.items() if place != f"{module}.{name}"}

        def called(body, known=known):
            found = set()
            for node in (node for statement in body for node in ast.walk(statement)):
                if isinstance(node, ast.Call | ast.Raise):
                    first, *rest = dotted(node.func if isinstance(node, ast.Call) else node.exc)
                    found |= {".".join([known[first], *rest])} if first in known else set()
            return found

        calls |= {known[node.name]: called([node]) for node in tree.body if isinstance(node, ast.FunctionDef)}
        for node in nodes:
            if isinstance(node, ast.Try):
                for i, handler in enumerate(node.handlers):
                    types = [ast.unparse(h.type) for h in node.handlers[: i + 1] if h.type is not None]
                    passed_on = any(isinstance(n, ast.Raise) and n.exc is None for n in ast.walk(handler))
                    if types and wide(types[-1]) and "UserError" not in " ".join(types):
                        tries += [] if passed_on else [(f"{module}:{handler.lineno}", called(node.body))]
            elif isinstance(node, ast.With) and any("suppress(" in t and wide(t) for t in map(ast.unparse, node.items)):
                tries.append((f"{module}:{node.lineno}", called(node.body)))
    raising = {"jaxvit.errors.UserError"}
    while more := {name for name, of in calls.items() if of & raising} - raising:
        raising |= more
    return sorted((place, sorted(of & raising)) for place, of in tries if of & raising)


def test_no_mistake_of_the_user_is_caught_as_another_error(tmp_path):
    """A UserError is a ValueError: who catches one and means the other loses its words."""
    found = _swallowed(Path(__file__).resolve().parent.parent / "jaxvit")
    on_purpose = {"jaxvit.data.worker", "jaxvit.sweep.trials"}  # passed on as it is; recorded as the end of a trial
    assert [place for place, _ in found if place.partition(":")[0] not in on_purpose] == []
    (tmp_path / "jaxvit").mkdir()
    (tmp_path / "jaxvit/a.py").write_text(
        "from jaxvit.errors import UserError\ndef f():\n    raise UserError('x')\ndef g():\n    return f()\n"
    )
    bad = "from jaxvit import a\ntry:\n    a.g()\nexcept ValueError:\n    pass\nwith suppress(ValueError):\n    a.f()\n"
    (tmp_path / "jaxvit/b.py").write_text(bad)
    assert [place for place, _ in _swallowed(tmp_path / "jaxvit")] == ["jaxvit.b:4", "jaxvit.b:6"]


def test_arguments_are_shown_short():
    assert [shown(x) for x in (None, 3, "a", [1], "x" * 99)] == ["None", "3", "'a'", "a list", "a str"]
    for value in (None, True, 0, 2.5, "1"):
        with pytest.raises(UserError, match="n is .*; expected a whole number of 1 or more"):
            check_whole("n", value)
    for value in (None, True, -1, float("nan"), float("inf"), "1"):
        with pytest.raises(UserError, match="x is .*; expected a number of 0 or more"):
            check_number("x", value)
