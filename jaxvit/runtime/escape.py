"""Text of others made safe for each kind of output: names of classes, files and runs, values of configs, messages.

One function an output, and every place that writes such a text uses it: `terminal`, `picture` (matplotlib), `html`,
`markdown` (report.md, and TensorBoard, which reads its texts as Markdown), `latex`, `csv_bytes`, `file_name`. The text
itself is kept as it is: bytes of a path that are not UTF-8 are half surrogate pairs in a str (PEP 383) and lead back to
the file.
"""

import csv
import hashlib
import io
import itertools
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

REPLACEMENT = "\ufffd"
_JOINERS = "\u200c\u200d"  # within words of Persian and Hindi, and within emoji
_ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_FORMULA = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"  # the last four: full width, which Excel reads alike
# What has a meaning anywhere (entities and GitHub's :emoji: too), and what begins a list or underlines a heading.
_MARKDOWN = re.compile(r"([\\`*_~$\[\]<>|#]|&(?=#?\w+;)|:(?=[\w+-]+:))")
_MARKDOWN_START = re.compile(r"(\s*\d*)([-+.)](?=\s|$)|=+\s*$|-+\s*$)")


def plain(text: str, mark: str = REPLACEMENT) -> str:
    """One line of visible characters.

    White space becomes spaces. Control characters, those that turn the direction of writing, and bytes that are not
    UTF-8 become `mark`.
    """
    if text.isprintable():
        return text
    return "".join(" " if c.isspace() else mark if _hidden(c) else c for c in text)


def _hidden(c: str) -> bool:
    """Controls, formats, surrogates, and the two that XML does not allow; new emoji, unknown to Python, are none."""
    return (unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in _JOINERS) or c in "\ufffe\uffff"


def terminal(text: str) -> str:
    """Lines that a terminal shows and does not obey."""
    return "\n".join(plain(line, "?") for line in text.split("\n"))


def text_line(text: str) -> str:
    """A line of a text file that leads back to the text: what cannot be seen, and backslashes, as in Python."""
    hidden = (c == "\\" or _hidden(c) or (c.isspace() and c != " ") for c in text)
    return "".join(c.encode("unicode_escape").decode() if h else c for c, h in zip(text, hidden, strict=True))


def message(error: BaseException | str, most: int = 300) -> str:
    """What a library says, on one line without its colours; cut between two words where it is longer than `most`."""
    said = plain(" ".join(_ESCAPE_SEQUENCE.sub("", str(error)).split()))
    if not said and isinstance(error, BaseException):
        return type(error).__name__
    return said if len(said) <= most else said[: most - 1].rsplit(" ", 1)[0].rstrip(" ,.;:") + "…"


def picture(text: str, most: int = 200) -> str:
    """A text for matplotlib, of at most `most` characters, or half as many wide ones; cut in its middle.

    Matplotlib reads mathematics between two dollar signs, and leaves labels that begin with "_" out of legends, so
    that such a one begins with a space here.
    """
    text = plain(text)
    if _columns(text) > most:  # names of a kind often differ at their ends
        end = (most - 1) // 3
        text = _start(text, most - 1 - end) + "…" + _start(text[::-1], end)[::-1]
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _start(text: str, most: int) -> str:
    """As much of a text as has the width of `most` characters."""
    widths = itertools.accumulate(_columns(c) for c in text)
    return text[: sum(width <= most for width in widths)]


def html(text: str) -> Any:
    """HTML (a `markupsafe.Markup`) that reads as the text, line breaks kept."""
    from markupsafe import Markup, escape

    return text if isinstance(text, Markup) else escape("\n".join(map(plain, text.split("\n"))))


def markdown(text: str) -> str:
    """Markdown of one line that reads as the text, in a table's cell too."""
    text = _MARKDOWN.sub(r"\\\1", plain(text))
    start = _MARKDOWN_START.match(text)
    return text if start is None else f"{start[1]}\\{text[start.end(1) :]}"


def markdown_code(text: str) -> str:
    """A fenced block; the fence is longer than any within."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}\n" + "\n".join(map(plain, text.split("\n"))) + f"\n{fence}"


# What LaTeX obeys, in text and at the start of a table's row; pairs that fonts join; signs that pdfLaTeX does not know.
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "`": r"\textasciigrave{}", "[": "{[}", "]": "{]}", "*": "{*}", "\u00a0": "~",
    "–": "--", "—": "---", "±": r"$\pm$", "×": r"$\times$", "−": "$-$", "…": r"\dots{}", "≤": r"$\le$", "≥": r"$\ge$",
    "°": r"$^\circ$", "µ": r"$\mu$", "→": r"$\to$", REPLACEMENT: "?",
}  # fmt: skip


def latex(text: str) -> str:
    """LaTeX that reads as the text, in a table's cell too; letters of other scripts need XeLaTeX or LuaLaTeX."""
    text = unicodedata.normalize("NFC", plain(text))
    apart = ("{}" if c == before and c in "-,'" else "" for c, before in zip(text, " " + text[:-1], strict=True))
    return "".join(gap + _LATEX.get(c, c) for gap, c in zip(apart, text, strict=True))


def cell(value: Any) -> Any:
    """A CSV cell. A text that a spreadsheet would take for a formula has an apostrophe before it; a number has none."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    value = re.sub("[\ud800-\udc7f\udd00-\udfff]", REPLACEMENT, value)  # no byte: it cannot be written
    return f"'{value}" if value[:1] in _FORMULA and value and not _is_number(value) else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and text.strip() == text


def csv_bytes(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """A CSV file's content: UTF-8, but for bytes of file names that are none, which stand as they are in the name."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows([cell(value) for value in row] for row in (columns, *rows))
    return buffer.getvalue().encode("utf-8", errors="surrogateescape")


def file_name(text: str, most: int = 80) -> str:
    """Part of a file name, of letters, digits, "-", "_" and "." and at most `most` bytes.

    A hash tells texts apart that would otherwise become one name; "/" alone becomes "-".
    """
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in text)
    short = name.encode()[: most - 7].decode(errors="ignore") if len(name.encode()) > most - 7 else name
    if short == text.replace("/", "-") and not short.startswith("."):
        return short
    return short.lstrip(".") + "-" + hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:6]
