"""A tool whose output is cut off ends without a traceback."""

import ast
import subprocess
import sys

import pytest

from tests.helpers import ROOT

SCRIPTS = [p for p in (ROOT / "tools").rglob("*.py") if "__name__ ==" in p.read_text()]


@pytest.mark.parametrize("words", [["list"], ["--help"]])
def test_a_list_that_nobody_reads(words):
    tool = subprocess.Popen(
        [sys.executable, "tools/gpu", *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    tool.stdout.close()
    assert tool.stderr.read() == b"" and tool.wait() == 0
    tool.stderr.close()


def test_every_tool_ends_so():
    assert len(SCRIPTS) > 15
    for path in SCRIPTS:
        last = ast.unparse(ast.parse(path.read_text()).body[-1])
        assert "import quiet" in last and "quiet.run(" in last, path.name
