"""Names and texts of others in every output: nothing ends a command, steers a terminal, or reads as something else."""

import ast
import csv
import html.parser
import json
import os
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvit import cli
from jaxvit.data.sources import folder as folder_source
from jaxvit.errors import UserError
from jaxvit.explain import overlay
from jaxvit.reports import figures, write_report
from jaxvit.reports.runs import read_runs
from jaxvit.runtime import console, escape
from jaxvit.workdir import run_files, trackers
from tests.helpers.fake_runs import write_run
from tests.helpers.hostile import HOSTILE, NAMES

# As they come from the names of files: bytes.


@pytest.mark.parametrize(
    "text, shown",
    [
        ("plain ä 猫 \U0001fae8", "plain ä 猫 \U0001fae8"),  # an emoji newer than Python's tables is none to hide
        ("\x1b[31mred", "�[31mred"),
        ("a\nb\tc\xa0d\r", "a b c d "),
        ("right\u202eleft", "right�left"),
        (os.fsdecode(b"caf\xe9"), "caf�"),
        ("\ud800", "�"),
        ("\U0001f469\u200d\U0001f680", "\U0001f469\u200d\U0001f680"),
        ("x\ufffe", "x�"),
    ],
)
def test_what_cannot_be_seen_is_replaced(text, shown):
    assert escape.plain(text) == shown
    assert escape.terminal(f"{text.replace(chr(10), ' ')}\nnext") == f"{shown.replace('�', '?')}\nnext"


@pytest.mark.parametrize(
    "text, shown",
    [
        ("$x^2$", r"\$x^2\$"),
        ("a|b`c`", r"a\|b\`c\`"),
        ("<b> & &lt;", r"\<b\> & \&lt;"),
        (":smile: 10:30", r"\:smile: 10:30"),
        ("1. first", r"1\. first"),
        ("- item", r"\- item"),
        ("---", r"\---"),
        ("97.50 % -1.5", "97.50 % -1.5"),
    ],
)
def test_markdown_reads_as_the_text(text, shown):
    assert escape.markdown(text) == shown


def test_a_fence_is_longer_than_any_in_the_text():
    assert escape.markdown_code("a\n```\nb") == "````\na\n```\nb\n````"


@pytest.mark.parametrize(
    "cell, written",
    [("=1+1", "'=1+1"), ("@x", "'@x"), ("-5+2", "'-5+2"), ("+x", "'+x"), ("\t=1", "'\t=1"), ("＝1", "'＝1"),
     ("-1.5e3", "-1.5e3"), ("a=b", "a=b"), (-1.5, "-1.5"), (None, ""), ("a,\"b\"\n", "a,\"b\"\n")],
)  # fmt: skip
def test_no_cell_is_a_formula(cell, written):
    text = escape.csv_bytes(["head"], [[cell, "x"]]).decode()
    assert list(csv.reader(text.splitlines(keepends=True)))[1] == [written, "x"]


def test_csv_keeps_the_bytes_of_file_names():
    assert os.fsdecode(escape.csv_bytes(["a"], [[os.fsdecode(b"caf\xe9\xff")]])) == os.fsdecode(b"a\r\ncaf\xe9\xff\r\n")
    assert escape.csv_bytes(["a"], [["\ud800"]]).decode() == "a\r\n�\r\n"


def test_messages_of_libraries_lose_their_colours_and_are_cut_between_words():
    said = "\x1b[1mbold\x1b[0m and \x1b]8;;http://x\x07link\x1b]8;;\x07\n  more"
    assert escape.message(said) == "bold and link more"
    assert escape.message("word " * 100, 22) == "word word word word…"
    assert escape.message(KeyError()) == "KeyError"


def test_file_names_are_short_and_differ():
    assert escape.file_name("runs/a_1.b-c") == "runs-a_1.b-c"
    names = [escape.file_name(name) for name in [*NAMES, "a b", "a-b", "a/b", "x" * 300, "x" * 301, ".a", "猫" * 99]]
    assert len(set(names)) == len(names) - 1  # "a/b" is "a-b"
    assert all(len(f"confusion_shares_{name}.svg".encode()) < 120 and "/" not in name for name in names)


def test_a_line_of_a_text_file_leads_back():
    for name in [*NAMES, "a\tb\\x1b", "猫"]:
        line = escape.text_line(name)
        assert len(line.splitlines()) == 1 and "\t" not in line
        assert ast.literal_eval("'" + line.replace("'", r"\'") + "'") == name


def test_json_brings_bytes_back(tmp_path):
    names = [*NAMES, "\ud83d"]
    run_files.write_json(tmp_path / "classes.json", names)
    assert run_files.read_json(tmp_path / "classes.json", list) == names
    assert json.loads((tmp_path / "classes.json").read_text(encoding="utf-8")) == names


@pytest.mark.parametrize("good", [3, 300])  # refused, and skipped with a note
def test_a_broken_file_does_not_steer_the_terminal(tmp_path, capsys, good):
    for k, folder in enumerate(("a\x1b[31m", os.fsdecode(b"caf\xe9\x07"))):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        for i in range(good):
            Image.new("L", (4, 4), 99 * k).save(tmp_path / "photos" / folder / f"{i}.png")
    (tmp_path / "photos" / folder / "\x1b]0;title\x07.png").write_bytes(b"no picture")
    try:
        for note in folder_source.load(str(tmp_path / "photos"), tmp_path / "skipped.txt").notes:
            console.err.print(note)
    except UserError as error:
        assert good == 3 and cli._fail(str(error), 2) == 2
    said = capsys.readouterr().err
    assert "?]0;title?.png" in said and not any(escape._hidden(c) for c in said.replace("\n", ""))
    (line,) = (tmp_path / "skipped.txt").read_text(encoding="utf-8").splitlines()
    assert line.split("\t")[0] == r"caf\udce9\x07/\x1b]0;title\x07.png"


@pytest.mark.filterwarnings("error")
def test_pictures_show_the_names_and_no_mathematics(tmp_path):
    svg = figures.matrix(np.eye(len(NAMES)), NAMES, escape.picture(NAMES[0]), shares=True)
    texts = {"".join(node.itertext()) for node in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")}
    for name in ("$\\frac$", "$x^2$", "[red]x[bold]", "�[31mred", "caf�", " _under", "猫"):
        assert name in texts
    picture = np.zeros((8, 8, 3), np.uint8)
    for name in NAMES:
        figure = overlay.grid([[picture, picture]], [[name, f"{name}\n5%"]], [name] * 2, wrong=[[False, True]])
        overlay.save(figure, tmp_path / "grid", ("png", "pdf"), 30)
    assert trackers.confusion_picture(np.arange(3), np.arange(3), NAMES).ndim == 3


def test_wide_letters_count_twice():
    assert escape.picture("猫" * 30, 22) == "猫" * 7 + "…" + "猫" * 3
    assert escape.picture("a" * 20 + "b" * 20, 22) == "a" * 14 + "…" + "b" * 7
    assert escape.picture("a" * 22, 22) == "a" * 22


class _Texts(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


@pytest.mark.filterwarnings("error:Glyph")
def test_a_report_over_such_names(tmp_path):
    classes = [*NAMES, "\ud83d"]
    runs = [
        write_run(tmp_path / name, classes=len(classes), names=classes, n=80, seed=i, skill=1.0)
        for i, name in enumerate(["$a$", "_b", "c d|e", "x" * 200, NAMES[6], NAMES[10]])
    ]
    for run in runs:
        config = json.loads((run / "config.json").read_text())
        config["pretrained"] = "=1+1<b>\x1b[1m"
        (run / "config.json").write_text(json.dumps(config))
    out = tmp_path / "out"
    write_report(runs, out)
    page = _Texts()
    page.feed((out / "index.html").read_text(encoding="utf-8"))
    text = (out / "report.md").read_text(encoding="utf-8")
    assert page.tags.count("script") == 1 and "<script>alert(1)<" in page.text
    for name in ("$x^2$", "a|b`c`", "caf�", "�[31mred", "[red]x[bold]", ":smile: &lt;"):
        assert name in page.text and escape.markdown(name) in text
    assert not any(escape._hidden(c) for c in (page.text + text).replace("\n", ""))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads = [i for i, line in enumerate(lines) if re.match(r"\| :?--", line)]
    for i in heads:  # every row has the cells of its head
        assert len(re.findall(r"(?<!\\)\|", lines[i - 1])) == len(re.findall(r"(?<!\\)\|", lines[i]))
    for file in out.glob("*.csv"):
        with open(file, newline="", encoding="utf-8", errors="surrogateescape") as stream:
            rows = list(csv.reader(stream))
        for cell in (cell for row in rows for cell in row):
            assert cell[:1] not in ("=", "+", "-", "@") or float(cell) is not None
    legend = (out / "figures" / "curve_loss.svg").read_text(encoding="utf-8")
    assert "_b" in legend and "$a$" in legend
    assert len({run.slug for run in read_runs(runs)}) == len(runs)


@pytest.mark.parametrize("command", ["eval", "report", "explain", "export", "convert"])
def test_no_such_user(command, capsys):
    words = {"export": ["--to", "x"], "convert": ["--to", "x"], "explain": [__file__]}.get(command, [])
    place = "--from" if command == "convert" else "--workdir"
    assert cli.main([command, place, "~nobody-of-this-name/x", *words]) == 2
    assert "no home directory for '~nobody-of-this-name/x': there is no such user" in capsys.readouterr().err


def test_a_run_that_was_moved_to_such_a_place_says_so(tmp_path, capsys):
    run = write_run(tmp_path / os.fsdecode(b"caf\xe9"))
    for command in ("eval", "explain", "export", "predict"):
        words = {"export": ["--to", str(tmp_path / "x")]}.get(command, [] if command == "eval" else [__file__])
        assert cli.main([command, "--workdir", str(run), *words]) == 2
        assert "its path holds bytes that are not UTF-8" in capsys.readouterr().err
    assert cli.main(["report", "--workdir", str(run)]) == 0


def write_photos(root):
    """A folder of 6 photos in each of the classes NAMES; one more is no photo."""
    rng = np.random.default_rng(0)
    for k, name in enumerate(HOSTILE):
        folder = os.path.join(os.fsencode(root), name)
        os.makedirs(folder)
        for i in range(6):
            pixels = np.clip(rng.normal(15 * k, 20, (8, 8, 3)), 0, 255).astype(np.uint8)
            with open(os.path.join(folder, name[:60] + b"_%d.png" % i), "wb") as file:
                Image.fromarray(pixels).save(file, "png")


WORDS = [
    "--config.num_epochs=1", "--config.model.name=vit_tiny_patch16_224", "--config.model.patch_size=4",
    "--config.model.depth=1", "--config.model.embed_dim=16", "--config.model.num_heads=2", "--config.data.image_size=8",
]  # fmt: skip


@pytest.mark.filterwarnings("error:Glyph")
def test_a_run_over_such_names(tmp_path, capsys):
    write_photos(tmp_path / "photos")
    (tmp_path / "c.py").write_text("from jaxvit.config import default as get_config\n")
    run, data = str(tmp_path / "$run$ {b}"), f"--config.data.name=folder:{tmp_path / 'photos'}"
    assert cli.main(["--config", str(tmp_path / "c.py"), "--workdir", run, data, *WORDS]) == 0
    assert sorted(json.loads((tmp_path / "$run$ {b}" / "classes.json").read_text())) == sorted(NAMES)
    some = [os.path.join(str(tmp_path / "photos"), NAMES[k]) for k in (0, 3, 6, 10)]
    photos = [os.path.join(folder, os.listdir(folder)[0]) for folder in (some[0], some[-1])]
    assert cli.main(["explain", "--workdir", run, *photos, "--samples", "1", "--out", str(tmp_path / "seen")]) == 0
    assert cli.main(["predict", "--workdir", run, *some, "--csv", str(tmp_path / "p.csv"), "--top", "1"]) == 0
    assert not any(escape._hidden(c) for c in "".join(capsys.readouterr()).replace("\n", "").replace("\r", ""))
    with open(tmp_path / "p.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24 and all(os.path.exists(row["file"]) for row in rows)
    assert len(list((tmp_path / "seen").glob("*.png"))) == 5


# Where a bare `print` may stand: what it writes is escaped there, or is a constant, a figure or a name of ours.
PRINTS = {
    "cli.py", "runtime/console.py", "commands/export.py", "bench/report.py", "bench/timm_side.py", "studies/worker.py",
    "bench/timm_loader_side.py",
}  # fmt: skip


def test_nothing_else_prints_by_itself():
    root = Path(cli.__file__).parent
    found = set()
    for file in root.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                found.add(file.relative_to(root).as_posix())
    assert found <= PRINTS, "use console.say or console.err.print, which steer no terminal"


def test_nothing_else_writes_csv():
    root = Path(cli.__file__).parent
    found = {f.name for f in root.rglob("*.py") if re.search(r"\bcsv\.(writer|DictWriter)\b|to_csv\(", f.read_text())}
    assert found == {"escape.py"}
