"""Every tool starts from a checkout: where jaxvit is not installed, and where packages come by PYTHONPATH."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = sorted((ROOT / "tools").rglob("*.py"))
SITE = Path(pytest.__file__).parent.parent  # where this environment's packages are


def imports_of_the_checkout(tree: ast.Module) -> list[int]:
    """The lines of the module that import jaxvit, tests or tools, at any depth."""
    lines = []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        lines += [node.lineno for name in names if name.split(".")[0] in ("jaxvit", "tests", "tools")]
    return lines


def test_what_imports_jaxvit_puts_the_checkout_on_its_path_first():
    wrong = []
    for path in TOOLS:
        text = path.read_text(encoding="utf-8")
        used = imports_of_the_checkout(ast.parse(text))
        if not used or '__name__ == "__main__"' not in text:
            continue
        placed = [text[: match.start()].count("\n") + 1 for match in re.finditer(r"^\s*sys\.path", text, re.M)]
        borrowed = "from kill_test import" in text  # which places it
        if not borrowed and (not placed or min(placed) > min(used)):
            wrong.append(path.name)
    assert not wrong, f"{wrong} start only where jaxvit is installed"


def test_pythonpath_is_added_to_and_never_replaced():
    replaced = [
        str(path.relative_to(ROOT))
        for path in [*TOOLS, *sorted((ROOT / "jaxvit").rglob("*.py"))]
        if re.search(r"""["']PYTHONPATH["']\]? ?[:=]""", text := path.read_text(encoding="utf-8"))
        and not re.search(r"""environ\.get\(["']PYTHONPATH["']""", text)
    ]
    assert not replaced, "what brought packages along is thrown away"


@pytest.mark.parametrize("name", ["measure_steps.py", "compare_sam.py", "kill_test.py", "signal_test.py"])
def test_a_tool_starts_where_jaxvit_is_not_installed(name, tmp_path):
    """-S leaves out the .pth files, by which an editable installation is found; packages come by PYTHONPATH."""
    environment = {**os.environ, "PYTHONPATH": str(SITE), "JAX_PLATFORMS": "cpu"}
    here = subprocess.run(
        [sys.executable, "-S", "-c", "import jaxvit"], env=environment, cwd=tmp_path, capture_output=True
    )
    if here.returncode == 0:
        pytest.skip("jaxvit is installed for good here, so nothing can be shown")
    command = [sys.executable, "-S", str(ROOT / "tools" / name), "--help"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
