"""Writes a report: index.html with everything inside, report.md with its figures next to it, CSV files."""

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jaxvit.reports.blocks import Block, Figure, Pictures, Section, Table, Text
from jaxvit.reports.figures import COLOURS, GRID, INK, PAPER
from jaxvit.runtime import escape, files


def write(out: Path, title: str, subtitle: str, sections: Sequence[Section]) -> list[Path]:
    """Writes all files of a report into `out`; returns them, index.html first. Raises UserError where it cannot."""
    content: dict[str, bytes] = {"index.html": html(title, subtitle, sections).encode()}
    content["report.md"] = markdown(title, subtitle, sections).encode()
    for block in (block for section in sections for block in section.blocks):
        if isinstance(block, Table) and block.csv:
            content[block.csv[0]] = escape.csv_bytes(block.csv[1], block.csv[2])
        elif isinstance(block, Figure):
            content[f"figures/{block.name}.svg"] = block.svg.encode()
        elif isinstance(block, Pictures):
            for i, picture in enumerate(block.pictures):
                content[f"figures/{block.name}_{i}.png"] = picture.png
    return [_write(out / name, bytes_) for name, bytes_ in content.items()]


def _write(path: Path, content: bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.not_written(path, error) from None
    files.write(path, content)
    return path


def html(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The page, with styles, drawings and pictures inside."""
    import jinja2

    text = resources.files("jaxvit.reports").joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_visible)
    counter = iter(range(10**6))
    return environment.from_string(text).render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        inline=lambda svg: inline(svg, next(counter)),
        breakable=breakable,
    )


def _visible(value: Any) -> Any:
    return escape.html(value) if isinstance(value, str) else value


def breakable(text: str) -> Any:
    """A name that may be broken after its underscores, slashes and commas."""
    from markupsafe import Markup

    return Markup(re.sub(r"([_/,.=-])(?=\w)", r"\1<wbr>", str(escape.html(text))))  # noqa: S704 - escaped


def inline(svg: str, number: int) -> Any:
    """An SVG that is part of the page: unique names, the colours of the page, no size but its proportions."""
    from markupsafe import Markup

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
    svg = re.sub(
        r'<svg([^>]*?) height="[^"]*"', rf'<svg\1 role="img" style="max-width:{natural * 1.35:.0f}px"', svg, count=1
    )
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
        return f"![{escape.markdown(block.caption)}](figures/{block.name}.svg)"
    cells = [
        f'<img src="figures/{block.name}_{i}.png" width="112"><br>'
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
    rules = [":---" if i < table.left else "---:" for i in range(len(table.columns))]
    rows = [
        [f"**{escape.markdown(c)}**" if i in table.marked and c else escape.markdown(c) for c in row]
        for i, row in enumerate(table.rows)
    ]
    lines = [list(map(escape.markdown, table.columns)), rules, *rows]
    return "\n".join(
        [
            *("| " + " | ".join(row) + " |" for row in lines),
            *([f"\n{escape.markdown(table.caption)}"] * bool(table.caption)),
        ]
    )
