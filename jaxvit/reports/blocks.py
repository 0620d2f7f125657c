"""What a report is made of: sections of text, tables, figures and pictures. Pages are written from these alone."""

import base64
import dataclasses
from collections.abc import Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; kind is "plain", "note" (worth seeing first) or "code"."""

    text: str
    kind: str = "plain"
    type: str = dataclasses.field(default="text", init=False)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of strings; the first `left` columns are words, the others are figures."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    left: int = 1
    marked: frozenset[int] = frozenset()  # rows to highlight
    folded: str = ""  # the line that stands for the table until it is opened; "" = always open
    csv: tuple[str, Sequence[str], Sequence[Sequence[Any]]] | None = None  # (file, columns, rows)
    type: str = dataclasses.field(default="table", init=False)


@dataclasses.dataclass(frozen=True)
class Figure:
    """A drawing, SVG text with concrete colours; `name` is its file's, without suffix."""

    name: str
    svg: str
    caption: str
    wide: bool = False  # the whole width of the page, instead of a share
    min_width: int = 0  # pixels under which it scrolls rather than shrinks
    folded: str = ""  # the line that stands for it until it is opened; "" = always open
    type: str = dataclasses.field(default="figure", init=False)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG with lines under it, the first of them bold: above it they would push it down next to its neighbours."""

    png: bytes
    title: str = ""
    lines: tuple[str, ...] = ()

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclasses.dataclass(frozen=True)
class Pictures:
    """A grid of pictures; with `columns` each row has this many, without it as many as fit."""

    name: str
    pictures: Sequence[Picture]
    caption: str = ""
    columns: Sequence[str] = ()  # heads
    across: int = 0
    large: bool = False  # sheets of many small pictures
    type: str = dataclasses.field(default="pictures", init=False)


Block = Text | Table | Figure | Pictures


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """The name that links lead to."""
        return "".join(c if c.isalnum() else "-" for c in self.title.lower())
