"""A report's files: one page that stands alone, Markdown with its drawings beside it, CSV."""

import html.parser

import pytest

from jaxvit.errors import UserError
from jaxvit.reports import page
from jaxvit.reports.blocks import Figure, Picture, Pictures, Section, Table, Text

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="72pt" height="36pt"><g id="a"/><use xlink:href="#a"/></svg>'
NASTY = '<script>alert("x")</script>'


def sections(name="plain"):
    table = Table(("row", "value"), ((name, "1"), ("b", "2")), marked=frozenset({1}), csv=("t.csv", ("a",), ((name,),)))
    return [
        Section("First part", [Text(name), Text(name, kind="note"), Text(name, kind="code"), table]),
        Section("Second", [Figure("curve", SVG, name), Pictures("photos", [Picture(b"png", name, ("line",))] * 3)]),
    ]


class Reader(html.parser.HTMLParser):
    """Tags, sources and identifiers of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.sources, self.ids = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name == "src"]
        self.ids += [value for name, value in attrs if name == "id"]


def test_the_page_stands_alone_and_names_are_text():
    reader = Reader()
    reader.feed(page.html("Title", "under it", sections(NASTY)))
    plain = Reader()
    plain.feed(page.html("Title", "under it", sections()))
    but_breaks = [tag for tag in reader.tags if tag != "wbr"]
    assert but_breaks == [tag for tag in plain.tags if tag != "wbr"]  # a name brings no tag of its own
    assert reader.tags.count("svg") == 1 and reader.tags.count("table") >= 1
    assert all(source.startswith("data:image/png;base64,") for source in reader.sources) and len(reader.sources) == 3
    assert len(reader.ids) == len(set(reader.ids)) and {"first-part", "second"} <= set(reader.ids)


def test_drawings_keep_apart_and_take_the_pages_colours():
    first, second = (str(page.inline(SVG, number)) for number in (0, 1))
    assert 'id="f0-a"' in first and 'href="#f0-a"' in first and 'id="f1-a"' in second
    assert "xmlns" not in first and ' width="' not in first


def test_files_of_a_report(tmp_path):
    paths = page.write(tmp_path, "Title", "under it", sections("=1+1"))
    names = [str(path.relative_to(tmp_path)) for path in paths]
    pictures = [f"figures/photos_{i}.png" for i in range(3)]
    assert names == ["index.html", "report.md", "t.csv", "figures/curve.svg", *pictures]
    assert (tmp_path / "t.csv").read_text().splitlines()[1].startswith("'=")  # no formula
    text = (tmp_path / "report.md").read_text()
    assert "| **b** | **2** |" in text and "](figures/curve.svg)" in text and 'src="figures/photos_2.png"' in text


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        page.write(tmp_path / "file" / "report", "Title", "", sections())
