"""The page of messages quotes what the code says."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def texts():
    """Every text of the package on one line, with "…" for what is filled in."""
    found = []
    for path in (ROOT / "jaxvit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(text.replace("\n", " ") for text in found)


def test_every_message_of_the_page_is_in_the_code():
    page = (ROOT / "docs/MESSAGES.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^\| `(.+?)` \|", page, re.MULTILINE)
    said = texts()
    assert len(quoted) >= 30
    missing = [m for m in quoted if not re.search(re.sub("(?:\\\\ )?…(?:\\\\ )?", ".*", re.escape(m)), said)]
    assert not missing
    for parts in ([part.strip() for part in m.split("…")] for m in quoted):
        assert sum(map(len, parts)) > 10  # not everything is left open
