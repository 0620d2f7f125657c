"""What a report is made of: sections of text, tables, figures and pictures. Pages are written from these alone."""

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; kind is "plain", "note" (worth seeing first) or "code"."""

    text: str
    kind: str = "plain"
    type: str = dataclasses.field(default="text", init=False)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of strings; the first `left` columns are words, the others are figures. `caption` explains it.

    With a name in `paste` the page offers it to copy, and files of that name hold it as LaTeX and Markdown.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    left: int = 1
    marked: frozenset[int] = frozenset()  # rows to highlight
    folded: str = ""  # the line that stands for the table until it is opened; "" = always open
    csv: tuple[str, Sequence[str], Sequence[Sequence[Any]]] | None = None  # (file, columns, rows)
    title: str = ""  # a few words above it; "" = those of its section, for who cannot see
    breaks: Mapping[int, str] = dataclasses.field(default_factory=dict)  # columns that begin a part -> its title
    keys: int = 1  # first columns that every part has
    paste: str = ""
    group: str = ""  # tables of one group stand side by side where there is room
    type: str = dataclasses.field(default="table", init=False)


@dataclasses.dataclass(frozen=True)
class Figure:
    """A drawing, SVG text with concrete colours; `name` is its file's, without suffix.

    `alt` tells those who cannot see it what it shows, in words and figures.
    """

    name: str
    svg: str
    caption: str
    alt: str = dataclasses.field(kw_only=True)
    wide: bool = False  # the whole width of the page, instead of a share
    min_width: int = 0  # pixels under which it scrolls rather than shrinks
    folded: str = ""  # the line that stands for it, and those of its group, until it is opened; "" = always open
    group: str = ""  # figures of one group share a grid; so do neighbours without one
    panel: int = 340  # pixels that it needs at least to stand next to another one
    type: str = dataclasses.field(default="figure", init=False)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG with lines under it, the first of them bold: above it they would push it down next to its neighbours."""

    png: bytes
    title: str = ""
    lines: tuple[str, ...] = ()
    alt: str = ""  # what it shows, where title and lines do not tell it

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

    def alt(self, i: int) -> str:
        """What the picture shows, in words: its own, those under it, else the head of its column or the caption."""
        picture = self.pictures[i]
        told = picture.alt or ", ".join(text for text in (picture.title, *picture.lines) if text)
        if self.across and self.columns:
            head, row = self.columns[i % self.across], i // self.across + 1
            return f"{head}: {told}" if told else f"{head}, row {row}"
        return told or self.caption or self.name


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


def clusters(blocks: Sequence[Block]) -> list[list[Block]]:
    """The blocks in lists that stand side by side: figures of one group, tables of one group, all others alone."""
    out: list[list[Block]] = []
    for block in blocks:
        if isinstance(block, Table) and not block.rows:  # for its CSV alone
            continue
        last = out[-1][0] if out else None
        figures = isinstance(block, Figure) and isinstance(last, Figure)
        tables = isinstance(block, Table) and isinstance(last, Table) and block.group != ""
        alike = (figures or tables) and (block.group, block.folded) == (last.group, last.folded)  # type: ignore[union-attr]
        if alike:
            out[-1].append(block)
        else:
            out.append([block])
    return out


WORDS = 24  # characters from which on a column of words is broken into lines


def parts(table: Table, most: int = 0) -> list[Table]:
    """The table as it is shown: in its own parts, and these in parts of at most about `most` characters, unless 0.

    Every part has the key columns, and the last one the caption.
    """
    keys = list(range(table.keys))
    columns, titles = [[*keys]], [table.title]
    for i in range(table.keys, len(table.columns)):
        if i in table.breaks:
            columns.append([*keys])
            titles.append(table.breaks[i])
        columns[-1].append(i)
    shown = [
        (title, part) for title, whole in zip(titles, columns, strict=True) for part in _fitting(table, whole, most)
    ]
    if len(shown) == 1:
        return [table]
    return [
        dataclasses.replace(
            table,
            columns=[table.columns[i] for i in part],
            rows=[[row[i] for i in part] for row in table.rows],
            left=sum(i < table.left for i in part),
            caption=table.caption if n == len(shown) - 1 else "",
            title=title if n == 0 or title != shown[n - 1][0] else "",
            breaks={},
        )
        for n, (title, part) in enumerate(shown)
    ]


def _fitting(table: Table, columns: list[int], most: int) -> list[list[int]]:
    """Some columns in lists that are at most `most` characters wide, about evenly full."""
    widths = {}
    for i in columns:
        longest = max((len(row[i]) for row in table.rows), default=0)
        cells = min(longest, WORDS) if i < table.left else longest
        widths[i] = 2 + max(cells, max(map(len, table.columns[i].split()), default=0))
    keys, others = columns[: table.keys], columns[table.keys :]
    room, total = most - sum(widths[i] for i in keys), sum(widths[i] for i in others)
    if not most or total <= room:
        return [columns]
    share = min(room, 1.15 * total / -(-total // max(room, 1)))
    out: list[list[int]] = [[*keys]]
    for i in others:
        if len(out[-1]) > len(keys) and sum(widths[j] for j in out[-1][len(keys) :]) + widths[i] > share:
            out.append([*keys])
        out[-1].append(i)
    return out
