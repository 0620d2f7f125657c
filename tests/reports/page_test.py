"""A report's files: one page that stands alone, Markdown with its drawings beside it, CSV."""

import html.parser

import pytest

from jaxvit.errors import UserError
from jaxvit.reports import blocks, page
from jaxvit.reports.blocks import Figure, Picture, Pictures, Section, Table, Text

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="72pt" height="36pt"><g id="a"/><use xlink:href="#a"/></svg>'
NASTY = '<script>alert("x")</script>'


def sections(name="plain"):
    table = Table(("row", "value"), ((name, "1"), ("b", "2")), marked=frozenset({1}), csv=("t.csv", ("a",), ((name,),)))
    return [
        Section("First part", [Text(name), Text(name, kind="note"), Text(name, kind="code"), table]),
        Section(
            "Second", [Figure("curve", SVG, name, alt=name), Pictures("photos", [Picture(b"png", name, ("line",))] * 3)]
        ),
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
    assert reader.tags.count("figure") == 1 and reader.tags.count("table") >= 1
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


def test_figures_stand_side_by_side_with_those_of_their_group():
    figures = [Figure(f"f{i}", SVG, "", group=group, folded=folded, alt="x") for i, (group, folded) in enumerate(
        [("a", ""), ("a", ""), ("b", ""), ("b", "more"), ("b", "more")])]  # fmt: skip
    tables = [Table(("x",), rows, group="t") for rows in ([("1",)], [], [("2",)])]
    found = blocks.clusters([*figures, Text("x"), *tables, Table(("x",), [("3",)])])
    assert [len(cluster) for cluster in found] == [2, 1, 2, 1, 2, 1]


def test_a_wide_table_is_shown_in_parts_that_hold_every_cell_once():
    head = ("run", "model", *(f"column {i}" for i in range(18)))
    rows = [(f"r{j}", "vit", *(f"{i}.{j:06}" for i in range(18))) for j in range(2)]
    table = Table(head, rows, "said once", left=2, title="First", breaks={10: "Second"})
    assert [len(part.columns) for part in blocks.parts(table)] == [10, 11]
    for most in (0, 60, 100):
        found = blocks.parts(table, most)
        assert [c for part in found for c in part.columns[1:]] == list(head[1:])
        assert [[c for part in found for c in part.rows[j][1:]] for j in range(2)] == [list(row[1:]) for row in rows]
        assert {part.columns[0] for part in found} == {"run"} and {part.rows[1][0] for part in found} == {"r1"}
        assert [part.caption for part in found if part.caption] == ["said once"] and found[-1].caption
        assert [part.title for part in found if part.title] == ["First", "Second"]
        widths = [sum(2 + max(len(row[i]) for row in part.rows) for i in range(len(part.columns))) for part in found]
        assert not most or max(widths) <= most
    narrow = Table(("a", "b"), [("1", "2")])
    assert blocks.parts(narrow, 100) == [narrow]


def test_pictures_without_words_are_named_by_their_column():
    pictures = Pictures("p", [Picture(b""), Picture(b"", "cat", ("true: dog",))] * 2, "said", ("image", "draw 1"), 2)
    assert [pictures.alt(i) for i in range(4)] == [
        "image, row 1",
        "draw 1: cat, true: dog",
        "image, row 2",
        pictures.alt(1),
    ]
    assert Pictures("p", [Picture(b"")], "said").alt(0) == "said"


def test_a_title_in_the_style_sheet_is_text():
    text = page.html('</style><b>"}', "", sections())
    assert text.count("</style>") == 1 and 'content:"\\3c \\2f style' in text


def test_tables_to_paste_have_the_cells_of_the_page(tmp_path):
    table = Table(("run", "top-1"), [("a_b", "93.10 %"), ("c&d", "1 ± 2")], "said", title="Runs", paste="table")
    paths = [path.name for path in page.write(tmp_path, "Title", "", [Section("S", [table])])]
    assert {"table.tex", "table.md"} <= set(paths)
    html_text = (tmp_path / "index.html").read_text()
    assert "93.10 %</td>" in html_text and "| a\\_b | 93.10 % |" in (tmp_path / "table.md").read_text()
    assert r"a\_b & 93.10 \% \\" in (tmp_path / "table.tex").read_text()
    assert 'data-copy="table-tex"' in html_text and 'data-copy="table-md"' in html_text
    assert "data-copy" not in page.html("Title", "", [Section("S", [table])], paper=True)
