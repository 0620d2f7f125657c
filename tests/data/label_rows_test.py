"""Label files as columns of text: dialects, encodings, damage."""

import csv
import io

import pytest

from jaxvit.data.label_rows import read_rows
from jaxvit.errors import UserError

ROWS = [("file", "label"), ("übung/ä, b.jpg", "Straße"), ('say "hi".png', "c;d"), ("c.jpg", "two\nlines")]


def _read(tmp_path, content):
    file = tmp_path / "labels.csv"
    file.write_bytes(content)
    return read_rows("csv:labels.csv", file)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(("encoding", "said"), [("utf-8", 0), ("utf-8-sig", 0), ("utf-16", 0), ("cp1252", 1)])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_spreadsheets_write_is_read_back(tmp_path, separator, encoding, said, end):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator, lineterminator=end).writerows(ROWS)
    rows = _read(tmp_path, text.getvalue().encode(encoding))
    assert [*zip(*rows.columns.values(), strict=True)] == ROWS[1:] and list(rows.columns) == ["file", "label"]
    assert rows.places == ["line 2", "line 3", "line 5"] and len(rows.notes) == said


def test_blank_lines_and_blanks_around_cells_and_columns_without_a_name(tmp_path):
    rows = _read(tmp_path, b'\n,file , label\n0, a.jpg, "x, y"\n\n1,b.jpg,z \n')
    assert rows.columns == {"file": ["a.jpg", "b.jpg"], "label": ["x, y", "z"]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "file is empty"),
        (b" \n\n", "file is empty"),
        (b"file,label\n", "no rows below the header line"),
        (b"file,label\na.jpg\n", "1 cells in line 2; the header has 2: file, label"),
        (b"file,label\na.jpg,b,c\n", "3 cells in line 2"),
        (b'file,label\na.jpg,"b\nc,d\n', "cannot be read (unexpected end of data)"),
        (b"file,label,file\na,b,c\n", "two columns have the name 'file'"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "not a text file"),
        (b"PAR1 and no more", "cannot be read as Parquet"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, content, said):
    with pytest.raises(UserError) as error:
        _read(tmp_path, content)
    assert said in str(error.value) and len(str(error.value).splitlines()) <= 2


def test_a_file_that_is_not_there_and_a_folder(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_rows("csv:x.csv", tmp_path / "x.csv")
    with pytest.raises(UserError, match="cannot be read"):
        read_rows("csv:.", tmp_path)


def test_parquet_of_numbers_texts_lists_and_bytes(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    table = pyarrow.table(
        {
            "file": ["a", "b"],
            "n": [3, 10],
            "f": [2.0, None],
            "s": [["x", "y"], []],
            "b": [b"1", b"2"],
            "t": [True, False],
            "d": [{"bytes": b"1"}, None],
        }
    )
    parquet.write_table(table, tmp_path / "x.parquet")
    rows = read_rows("parquet:x", tmp_path / "x.parquet")
    assert rows.columns == {
        "file": ["a", "b"], "n": ["3", "10"], "f": ["2", ""], "s": [("x", "y"), ()], "t": ["True", "False"],
    }  # fmt: skip
    assert rows.places == ["row 0", "row 1"]
