"""Tables in LaTeX: what is escaped, what a reader of it gets, and that it compiles where there is a TeX."""

import re
import shutil
import subprocess
import unicodedata

import pytest

from jaxvit.reports import latex
from jaxvit.reports.blocks import Table
from jaxvit.runtime import escape

HOSTILE = [
    r"a_b & 50 % #1 $x$ {y} ^2 ~ \\end{tabular}", "[1] first", "*", "--flag---", "it's \"so\" ``", "<b>|</b>",
    "Müller's naïve Łódź", "cafe\u0301", "1 ± 2 × 3 – 4 − 5 … ≤ ≥ → 20° 5 µm", "a\u00a0b\tc\nd",
    "\u202eevil\x00",
]  # fmt: skip


def table():
    rows = [(name, "1.00 %", str(i)) for i, name in enumerate(HOSTILE)]
    return Table(("run", "top-1 (95 %)", "n_m"), rows, "Notes & 5 %.", title="Runs_1", marked=frozenset({0, 1}))


def read(text):
    """What LaTeX prints of an escaped text, by the meanings of its commands."""
    known = {"textbackslash": "\\", "textasciicircum": "^", "textasciitilde": "~", "textless": "<", "textgreater": ">",
             "textbar": "|", "textasciigrave": "`", "dots": "…"}  # fmt: skip
    maths = {r"\pm": "±", r"\times": "×", "-": "−", r"\le": "≤", r"\ge": "≥", r"^\circ": "°", r"\mu": "µ", r"\to": "→"}
    tokens = re.findall(r"\\[a-zA-Z]+\{\}|\\[{}$&#_%]|\$[^$]+\$|\{[^{}]?\}|---|--|''|.", text, re.S)
    out = []
    for token in tokens:
        if token.startswith("\\") and token.endswith("{}"):
            out.append(known[token[1:-2]])
        elif token.startswith("\\"):
            out.append(token[1])
        elif token.startswith("$"):
            out.append(maths[token[1:-1]])
        elif token.startswith("{"):
            out.append(token[1:-1])
        else:
            assert token not in "\\{}$&#%^_", text
            out.append({"--": "–", "---": "—", "''": '"', "~": "\u00a0"}.get(token, token))
    return "".join(out)


@pytest.mark.parametrize("text", HOSTILE)
def test_latex_prints_the_text(text):
    expected = unicodedata.normalize("NFC", escape.plain(text)).replace(escape.REPLACEMENT, "?")
    assert read(escape.latex(text)) == expected
    assert not escape.latex(text).startswith(("[", "*"))  # after the end of a row these are its options


def test_rows_have_as_many_cells_as_columns():
    text = latex.table(table(), "x")
    rows = [line for line in text.splitlines() if line.endswith(r" \\")]
    assert len(rows) == 1 + len(HOSTILE)
    assert all(len(re.findall(r"(?<!\\)&", row)) == 2 for row in rows)
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1
    assert r"\caption{Runs\_1. Notes \& 5 \%.}" in text and r"\label{tab:x}" in text
    assert r"\begin{tabular}{@{}lrr@{}}" in text and text.count(r"\textbf{") == 6
    assert "XeLaTeX" not in text and "XeLaTeX" in latex.table(Table(("run",), [("猫",)]), "x")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX here")
def test_it_compiles(tmp_path):
    wide = Table([f"head {i}" for i in range(30)], [[f"{i}.00 %" for i in range(30)]] * 3, "Wide.", left=2)
    text = r"\documentclass[a4paper]{article}\usepackage{booktabs}\usepackage[T1]{fontenc}\begin{document}"
    text += latex.table(table(), "a") + latex.table(wide, "b") + r"\end{document}"
    (tmp_path / "x.tex").write_text(text)
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "x.tex"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-1500:]
    wider = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt", done.stdout)]
    assert max(wider, default=0) < 20, wider
