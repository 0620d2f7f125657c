"""The documentation's site: every page is in its index, and the pages made from the code say all that the code has."""

import importlib.util
import re
from pathlib import Path

import pytest

import jaxvit
from jaxvit import cli, models
from jaxvit.config import reference

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    root = tmp_path_factory.mktemp("site")
    for name in ("tests/golden/param_counts.json", "docs/parity.json"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes((DOCS.parent / name).read_bytes())
    generate.write(root / "docs")
    return {path.stem: path.read_text(encoding="utf-8") for path in (root / "docs/generated").iterdir()}


def test_every_page_is_in_the_index():
    listed = set(re.findall(r"^(\S+\.md)$", (DOCS / "index.md").read_text(encoding="utf-8"), re.MULTILINE))
    there = {str(path.relative_to(DOCS)) for folder in (".", "reference") for path in (DOCS / folder).glob("*.md")}
    assert listed == there - {"index.md"} | {f"generated/{name}.md" for name in ("options", "commands", "models")}


def test_every_notebook_is_in_the_index():
    listed = re.findall(r"^generated/(\S+\.ipynb)$", (DOCS / "index.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (DOCS.parent / "notebooks").glob("*.ipynb"))


def test_generated_pages_are_complete(pages):
    assert all(f"| `{option.name}` |" in pages["options"] for option in reference.options())
    assert all(f"\n## {name}\n" in pages["commands"] for name in cli.COMMANDS)
    assert pages["commands"].count("usage: jaxvit") == 1 + len(cli.COMMANDS)
    assert set(re.findall(r"^\| `(\S+)`", pages["models"], re.MULTILINE)) == set(models.list_models())


def test_the_reference_has_every_public_name():
    listed = re.findall(
        r"^\.\. auto\w+:: jaxvit\.(?:\w+\.)?(\w+)$", (DOCS / "reference/api.md").read_text(), re.MULTILINE
    )
    assert set(jaxvit._NAMES) <= set(listed)


def test_the_readme_stays_short():
    assert len((DOCS.parent / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
