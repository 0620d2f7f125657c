"""Writes a report: index.html with everything inside, report.md with its figures next to it, CSV, LaTeX and PDF."""

import base64
import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jaxvit.reports import latex, pdf, theme
from jaxvit.reports.blocks import Block, Figure, Pictures, Section, Table, Text, clusters, parts
from jaxvit.reports.figures import COLOURS, GRID, HEAT, INK, PAPER
from jaxvit.runtime import escape, files

ON_PAPER = 118  # characters of a table that an A4 page holds


def write(out: Path, title: str, subtitle: str, sections: Sequence[Section], to_pdf: bool = False) -> list[Path]:
    """Writes all files of a report into `out`; returns them, index.html first, report.pdf second.

    Raises UserError where it cannot.
    """
    content: dict[str, bytes] = {"index.html": html(title, subtitle, sections).encode()}
    content["report.md"] = markdown(title, subtitle, sections).encode()
    for block in (block for section in sections for block in section.blocks):
        if isinstance(block, Table):
            if block.csv:
                content[block.csv[0]] = escape.csv_bytes(block.csv[1], block.csv[2])
            if block.paste:
                content[f"{block.paste}.tex"] = latex.table(block, block.paste).encode()
                content[f"{block.paste}.md"] = f"{markdown_table(block)}\n".encode()
        elif isinstance(block, Figure):
            content[f"figures/{block.name}.svg"] = block.svg.encode()
        elif isinstance(block, Pictures):
            for i, picture in enumerate(block.pictures):
                content[f"figures/{block.name}_{i}.png"] = picture.png
    paths = [_write(out / name, bytes_) for name, bytes_ in content.items()]
    if to_pdf:
        paths.insert(1, pdf.write(html(title, subtitle, sections, paper=True), out / "report.pdf"))
    return paths


def _write(path: Path, content: bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.not_written(path, error) from None
    files.write(path, content)
    return path


def html(title: str, subtitle: str, sections: Sequence[Section], paper: bool = False) -> str:
    """The page, with styles, drawings and pictures inside; for `paper` all is open, light and as wide as A4."""
    import jinja2
    from markupsafe import Markup

    loader = jinja2.FunctionLoader(_template)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_visible
    )
    environment.filters["css"] = css_string
    counter = iter(range(10**6))
    script = _template("page.js.j2")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html.j2").render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        paper=paper,
        light=Markup(theme.declarations(0)),
        dark=Markup(theme.declarations(1)),
        script=Markup(script),  # noqa: S704 - our own file
        script_hash=Markup(f"sha256-{digest}"),  # noqa: S704 - base64
        number=lambda: next(counter),
        inline=lambda svg, alt: inline(svg, next(counter), alt),
        clusters=clusters,
        parts=lambda table: parts(table, ON_PAPER if paper else 0),
        latex=lambda table: latex.table(table, table.paste),
        markdown=markdown_table,
        breakable=breakable,
    )


def _template(name: str) -> str:
    return resources.files("jaxvit.reports").joinpath(name).read_text(encoding="utf-8")


def css_string(text: str) -> Any:
    """A text between the quotes of a string in CSS: what is not a letter, a digit or a space as its number."""
    from markupsafe import Markup

    plain = escape.plain(text)
    return Markup("".join(c if c.isalnum() or c == " " else f"\\{ord(c):x} " for c in plain))  # noqa: S704 - escaped


def _visible(value: Any) -> Any:
    return escape.html(value) if isinstance(value, str) else value


def breakable(text: str) -> Any:
    """A name that may be broken after its underscores, slashes and commas."""
    from markupsafe import Markup

    return Markup(re.sub(r"([_/,.=-])(?=\w)", r"\1<wbr>", str(escape.html(text))))  # noqa: S704 - escaped


def inline(svg: str, number: int, alt: str = "") -> Any:
    """An SVG that is part of the page: unique names, the colours of the page, no size but its proportions."""
    from markupsafe import Markup

    named = f'role="img" aria-label="{escape.html(alt)}"'
    if f'id="{HEAT}"' in svg:
        named += f' class="{HEAT}"'
        svg = re.sub(rf'<g id="({HEAT}-[bw])">', r'<g class="\1">', svg.replace(f' id="{HEAT}"', ""))

    svg = re.sub(r'\bid="', f'id="f{number}-', svg)
    svg = svg.replace("url(#", f"url(#f{number}-").replace('xlink:href="#', f'href="#f{number}-')
    svg = svg.replace('xlink:href="data:', 'href="data:').replace("stroke-linecap: square", "stroke-linecap: butt")
    svg = svg.replace(INK, "var(--ink)").replace(GRID, "var(--grid)").replace(f"fill: {PAPER}", "fill: none", 1)
    for i, colour in enumerate(COLOURS):
        svg = svg.replace(colour, f"var(--c{i})")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    width = re.search(r'<svg[^>]*? width="([\d.]+)pt"', svg)
    natural = float(width.group(1)) * 4 / 3 if width else 0
    svg = re.sub(r'<svg([^>]*?) width="[^"]*"', r"<svg\1", svg, count=1)
    width_limit = f'style="max-width:{natural * 1.25:.0f}px"'
    opened = re.compile(r'<svg([^>]*?) height="[^"]*"')
    svg = opened.sub(lambda found: f"<svg{found[1]} {named} {width_limit}", svg, count=1)
    return Markup(svg)  # noqa: S704 - our own drawing; matplotlib escapes the names in it


def markdown(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The same in Markdown; drawings are files next to it."""
    parts = [f"# {escape.markdown(title)}", escape.markdown(subtitle)]
    for section in sections:
        parts.append(f"## {escape.markdown(section.title)}")
        parts += [_markdown_block(block) for block in section.blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown_block(block: Block) -> str:
    if isinstance(block, Text):
        if block.kind == "code":
            return escape.markdown_code(block.text)
        return f"> {escape.markdown(block.text)}" if block.kind == "note" else escape.markdown(block.text)
    if isinstance(block, Table):
        return markdown_table(block)
    if isinstance(block, Figure):
        caption = f"\n\n{escape.markdown(block.caption)}" if block.caption else ""
        return f"![{escape.markdown(block.alt)}](figures/{block.name}.svg){caption}"
    cells = [
        f'<img src="figures/{block.name}_{i}.png" width="112" alt="{escape.html(block.alt(i))}"><br>'
        + "<br>".join(escape.markdown(line) for line in (picture.title, *picture.lines) if line)
        for i, picture in enumerate(block.pictures)
    ]
    across = block.across or min(6, len(cells))
    heads = [escape.markdown(head) for head in block.columns] or [""] * across
    rows = [cells[i : i + across] for i in range(0, len(cells), across)]
    table = [heads, ["---"] * across, *(row + [""] * (across - len(row)) for row in rows)]
    return "\n".join([f"{escape.markdown(block.caption)}\n", *("| " + " | ".join(row) + " |" for row in table)])


def markdown_table(table: Table) -> str:
    """One table in Markdown, its cells escaped."""
    if not table.rows:  # for its CSV alone
        return ""
    title = [f"{escape.markdown(table.title)}\n"] if table.title else []
    rules = [":---" if i < table.left else "---:" for i in range(len(table.columns))]
    rows = [
        [f"**{escape.markdown(c)}**" if i in table.marked and c else escape.markdown(c) for c in row]
        for i, row in enumerate(table.rows)
    ]
    lines = [list(map(escape.markdown, table.columns)), rules, *rows]
    return "\n".join(
        [
            *title,
            *("| " + " | ".join(row) + " |" for row in lines),
            *([f"\n{escape.markdown(table.caption)}"] * bool(table.caption)),
        ]
    )
