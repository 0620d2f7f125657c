"""The documentation's site: every page is in its index, and the pages made from the code say all that the code has."""

import importlib.util
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

import jaxvit
from jaxvit import cli
from jaxvit.config import reference
from jaxvit.models import registry
from tests.helpers import tool

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.syspath_prepend(str(DOCS))
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    root = tmp_path_factory.mktemp("site")
    for name in ("tests/golden/param_counts.json", "docs/parity.json", "docs/macs.json", "docs/imagenet_top1.json"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes((DOCS.parent / name).read_bytes())
    monkeypatch.undo()
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


def test_every_family_has_a_page_with_its_names(pages):
    for family in registry.FAMILIES.values():
        page = pages[f"family_{family.name}"]
        names = page.partition("## Names")[2].partition("\n## ")[0]
        assert set(re.findall(r"^\| `(\S+)`", names, re.MULTILINE)) == set(family.variants)
        assert f"(family_{family.name}.md)" in pages["models"]
    first = re.search(r"^\| `deit_tiny_patch16_224` \|.*$", pages["family_vit"], re.MULTILINE)
    assert first and first[0].startswith("| `deit_tiny_patch16_224` | 5.72 M | 23 | 1.25 | 224 |")
    assert "| `resnet50` | `a1_in1k` | 224 | 80.4 % at 224, 81.2 % at 288 |" in pages["family_resnet"]


def test_a_family_that_nobody_wrote_about_has_a_page():
    model_pages = tool("../docs/model_pages")
    family = replace(registry.FAMILIES["swin"], name="unheard_of")
    page = model_pages.page(family, {"parameters": {}, "macs": {}, "difference": {}, "top1": {}}, [])
    assert page.startswith("# unheard_of\n\nSwin Transformer: shifted windows")


def test_every_extra_is_in_the_first_steps():
    table = (DOCS / "START.md").read_text(encoding="utf-8").partition("| extra |")[2].partition("\n\n")[0]
    listed = {
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1] if "|" in row else "")
    }
    extras = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert listed == set(extras)


def test_the_table_of_accuracy_and_latency_is_the_measured_one():
    figure = tool("which_model_figure")
    assert figure.table(figure.rows()) in (DOCS / "WHICH_MODEL.md").read_text(encoding="utf-8")


def test_the_reference_has_every_public_name():
    listed = re.findall(
        r"^\.\. auto\w+:: jaxvit\.(?:\w+\.)?(\w+)$", (DOCS / "reference/api.md").read_text(), re.MULTILINE
    )
    assert set(jaxvit._NAMES) <= set(listed)


def test_the_readme_stays_short():
    assert len((DOCS.parent / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
