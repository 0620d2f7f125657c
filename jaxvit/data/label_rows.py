"""A label file as columns of text: CSV as programs and spreadsheets write it, or Parquet."""

import csv
import dataclasses
import io
from pathlib import Path
from typing import Any

from jaxvit.errors import UserError
from jaxvit.runtime import escape, packages
from jaxvit.runtime.paths import near

Cell = str | tuple[str, ...]  # several texts where the column is one of lists
SEPARATORS = (",", ";", "\t")
LARGEST = 2**20  # characters of a cell
MARK = b"PAR1"  # that a Parquet file begins with


@dataclasses.dataclass(frozen=True)
class Rows:
    """The columns of a file, all of one length."""

    columns: dict[str, list[Cell]]
    places: list[str]  # where each row stands, as "line 7"
    notes: list[str]

    def __len__(self) -> int:
        return len(self.places)


def read_rows(source: str, file: Path) -> Rows:
    """Reads a file with a header line and at least one row; `source` names it in messages. Told by content.

    CSV: separated by commas, semicolons or tabs (what the header has most of), UTF-8 with or without a mark, UTF-16
    with one, else Windows-1252. Cells lose the blanks around them. A column without a name is left out.

    Raises:
      UserError: no such file, no rows, a damaged file, two columns of one name.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{source}: no such file.{near(file)}") from None
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror}); expected a file of labels.") from None
    if not content.strip():
        raise UserError(f"{source}: the file is empty; expected a header line such as file,label, and a row per image.")
    rows = _parquet(source, file) if content.startswith(MARK) else _csv(source, content)
    if not rows.places:
        raise UserError(f"{source}: no rows below the header line; expected one per image.")
    return rows


def _csv(source: str, content: bytes) -> Rows:
    text, notes = _decoded(source, content)
    header = text.lstrip("\r\n").splitlines()[0]
    bare = "".join(header.split('"')[::2])  # what stands outside of quotes
    separator = max(SEPARATORS, key=bare.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    csv.field_size_limit(LARGEST)
    rows: list[list[str]] = []
    places: list[str] = []
    names: list[str] = []
    try:
        for row in reader:
            row = [cell.strip() for cell in row]
            if not any(row):
                continue
            if not names:
                names = row
                continue
            if len(row) != len(names):
                raise UserError(
                    f"{source}: {len(row)} cells in line {reader.line_num}; the header has {len(names)}: "
                    f"{listed(names)}\nput cells that contain {separator!r} in double quotes"
                )
            rows.append(row)
            places.append(f"line {reader.line_num}")
    except csv.Error as error:
        raise UserError(f"{source}: line {reader.line_num} cannot be read ({escape.message(error, 100)}).") from None
    columns: list[list[Cell]] = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in names]
    return Rows(_named(source, names, columns), places, notes)


def _decoded(source: str, content: bytes) -> tuple[str, list[str]]:
    if b"\0" in content[:4096] and not content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{source}: not a text file; expected CSV or Parquet.")
    try:
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            return content.decode("utf-16"), []
        return content.decode("utf-8-sig"), []
    except UnicodeDecodeError:
        try:
            return content.decode("cp1252"), ["the file of labels is not UTF-8 and is read as Windows-1252"]
        except UnicodeDecodeError:
            raise UserError(f"{source}: the text is neither UTF-8 nor Windows-1252; save it as UTF-8.") from None


def _parquet(source: str, file: Path) -> Rows:
    packages.require("pyarrow")
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as opened:
            flat = [field for field in opened.schema_arrow if not pyarrow.types.is_struct(field.type)]
            table = opened.read([field.name for field in flat if not pyarrow.types.is_binary(field.type)])
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{source}: cannot be read as Parquet ({escape.message(error, 100)}).") from None
    names = [name.strip() for name in table.column_names]
    columns = [[_cell(value) for value in column.to_pylist()] for column in table.columns]
    return Rows(_named(source, names, columns), [f"row {i}" for i in range(table.num_rows)], [])


def _cell(value: Any) -> Cell:
    """A value of Parquet as text: a whole number without its ".0", nothing as ""."""
    if isinstance(value, list | tuple):
        return tuple(str(_cell(v)) for v in value)
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _named(source: str, names: list[str], columns: list[list[Cell]]) -> dict[str, list[Cell]]:
    double = next((name for name in names if name and names.count(name) > 1), None)
    if double is not None:
        raise UserError(f"{source}: two columns have the name {double!r}; expected different names.")
    return {name: column for name, column in zip(names, columns, strict=True) if name}


def listed(names: list[str], most: int = 8) -> str:
    """Names for a message."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
