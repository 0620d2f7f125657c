"""Tables in LaTeX, to paste into a paper: booktabs, every text escaped."""

import textwrap
from collections.abc import Sequence

from jaxvit.reports.blocks import Table, parts
from jaxvit.runtime import escape

WIDTH = 88  # characters of a line in \\footnotesize, of an article on A4
HEAD = "% needs \\usepackage{booktabs} and \\usepackage[T1]{fontenc}"
OTHERS = "% holds letters that pdfLaTeX does not know: compile it with XeLaTeX or LuaLaTeX and a font that has them"


def table(block: Table, label: str) -> str:
    """The `table` environment of a table, its strings as they are in it; a wide one is several under each other."""
    lines = [r"\begin{table}[tbp]", r"  \centering\footnotesize\setlength{\tabcolsep}{4pt}"]
    if block.caption or block.title:
        title = f"{block.title}." if block.title and block.title[-1] not in ".?!" else block.title
        lines.append(rf"  \caption{{{escape.latex(f'{title} {block.caption}'.strip())}}}")
    lines.append(rf"  \label{{tab:{label}}}")
    for i, part in enumerate(parts(block, WIDTH)):
        lines += ["", r"  \medskip"] * (i > 0) + _tabular(part)
    lines.append(r"\end{table}")
    text = "\n".join(lines) + "\n"
    latin = all(ord(c) < 0x180 for c in text)
    return "\n".join([HEAD, *([] if latin else [OTHERS]), text])


def _tabular(block: Table) -> list[str]:
    columns = "l" * block.left + "r" * (len(block.columns) - block.left)
    rows = [_row(row, i in block.marked) for i, row in enumerate(block.rows)]
    return [
        rf"  \begin{{tabular}}{{@{{}}{columns}@{{}}}}",
        r"    \toprule",
        f"    {_heads(block)}",
        r"    \midrule",
        *(f"    {row}" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
    ]


def _row(cells: Sequence[str], bold: bool) -> str:
    shown = [escape.latex(cell) for cell in cells]
    return " & ".join(rf"\textbf{{{cell}}}" if bold and cell else cell for cell in shown) + r" \\"


def _heads(block: Table) -> str:
    """The heads of the columns, in lines no longer than the cells under them or a word."""
    cells = []
    for i, head in enumerate(block.columns):
        wide = max([*(len(row[i]) for row in block.rows), *map(len, head.split()), 1])
        lines = textwrap.wrap(head, wide, break_long_words=False, break_on_hyphens=False) or [""]
        side = "l" if i < block.left else "r"
        shown = [escape.latex(line) for line in lines]
        stacked = r" \\ ".join(shown)
        cells.append(stacked if len(lines) == 1 else rf"\shortstack[{side}]{{{stacked}}}")
    return " & ".join(cells) + r" \\"
