"""The figures of the command `explain`: one for each image, and pages of all."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvit.commands import maps as methods
from jaxvit.runtime import escape

ROWS_A_PAGE = 12
PAIRS_A_ROW = 3  # of image and map, where there is one model
HEADS_A_ROW = 7  # pictures abreast, the image among them


class Picture(NamedTuple):
    """One image to explain: its name, the image as read, and its true class where that is known."""

    name: str  # of its file, or its place in a data set
    image: Any
    true: str | None = None
    stem: str = ""  # of its figure's file
    classes: tuple[str, ...] = ()  # the true ones


class Result(NamedTuple):
    """The result of a model for a picture."""

    image: Any  # to show, [h, w, 3] in [0, 1]
    map: Any  # [h, w] in [0, 1]; of heads [heads, h, w], of components three planes [3, h, w]
    text: str  # name and probability of the class explained, and what the method has to say
    wrong: bool = False  # the class is the model's answer, and the picture is of another


class Row(NamedTuple):
    """Pictures side by side: over the photo, and as they are."""

    overlays: list[Any]  # uint8 [h, w, 3], or None for a place that stays empty
    heats: list[Any]
    titles: list[str]
    wrong: list[bool]


def write(out: Path, pictures: list[Picture], names: list[str], columns: list[list[Result]], args: Any) -> None:
    """Writes a figure per image, and pages of overlays (grid) and of pure heat (heat); prints a table of them.

    `columns` holds the results of each model of `names`.
    """
    from jaxvit.explain import overlay
    from jaxvit.runtime import console

    heads = [] if args.method == methods.HEADS else ["image", *names]
    cmap = None if args.method == methods.PCA else args.cmap
    rows = [_rows(picture, names, [column[i] for column in columns], args) for i, picture in enumerate(pictures)]
    files = []
    for own, stem in zip(rows, _stems(pictures), strict=True):
        overlays, _, titles, wrong = zip(*own, strict=True)
        files += overlay.save(overlay.grid(overlays, titles, heads, cmap=cmap, wrong=wrong), out / stem)
    abreast = min(PAIRS_A_ROW, len(pictures)) if heads and len(names) == 1 else 1  # images with the one map of each
    lines = _abreast([row for own in rows for row in own], abreast)
    for start in range(0, len(lines), ROWS_A_PAGE):
        page = f"_{start // ROWS_A_PAGE + 1}" if start else ""
        overlays, heats, titles, wrong = zip(*lines[start : start + ROWS_A_PAGE], strict=True)
        for name, cells in (("grid", overlays), ("heat", heats)):
            if name == "grid" or cmap:
                figure = overlay.grid(cells, titles, heads * abreast, cmap=cmap, wrong=wrong)
                files += overlay.save(figure, out / f"{name}{page}")
    table = [
        (
            picture.name,
            picture.true or "",
            *(overlay.WRONG_MARK * column[i].wrong + column[i].text.replace("\n", " ") for column in columns),
        )
        for i, picture in enumerate(pictures)
    ]
    titles = ("image", "true class", *(name.replace("\n", ".") for name in names))
    console.table(f"{args.method}: {len(files)} files in {out}", titles, table, left=titles)


def _rows(picture: Picture, names: list[str], results: list[Result], args: Any) -> list[Row]:
    """One row with a picture of each model; of heads, rows of the first model and then those of the next."""
    from jaxvit.explain import overlay

    known = [os.path.basename(picture.name), *([f"true: {picture.true}"] if picture.true else [])]
    known = "\n".join(map(escape.plain, known))
    if args.method != methods.HEADS:
        pairs = [_drawn(result.image, result.map, args) for result in results]
        first = _bytes(results[0].image)
        overlays, heats = ([first, *pictures] for pictures in zip(*pairs, strict=True))
        return [Row(overlays, heats, [known, *(r.text for r in results)], [False, *(r.wrong for r in results)])]
    rows = []
    for name, result in zip(names, results, strict=True):
        said = overlay.WRONG_MARK * result.wrong + result.text
        texts = [known, *([name.replace("\n", ".")] if len(names) > 1 else []), said]
        pairs = [(_bytes(result.image),) * 2, *(_drawn(result.image, head, args) for head in result.map)]
        titles = ["\n".join(texts), *(f"head {i}" for i in range(len(result.map)))]
        for start in range(0, len(pairs), HEADS_A_ROW):
            some, titled = pairs[start : start + HEADS_A_ROW], titles[start : start + HEADS_A_ROW]
            rows.append(Row([p[0] for p in some], [p[1] for p in some], titled, [False] * len(some)))
    return rows


def _drawn(image: Any, values: Any, args: Any) -> tuple[Any, Any]:
    """The map over the image, and the map; of components twice the same picture."""
    from jaxvit.explain import overlay

    if args.method == methods.PCA:
        picture = _bytes(np.moveaxis(values, 0, -1))
        return picture, picture
    return overlay.overlay(image, values, args.alpha, args.cmap), _bytes(overlay.colour(values, args.cmap))


def _bytes(image: Any) -> np.ndarray:
    return np.round(255 * np.asarray(image)).astype(np.uint8)


def _abreast(rows: list[Row], number: int) -> list[Row]:
    """Rows of this many images each."""
    groups = [rows[i : i + number] for i in range(0, len(rows), number)]
    return [Row(*(sum(cells, []) for cells in zip(*group, strict=True))) for group in groups]


def _stems(pictures: Sequence[Picture]) -> list[str]:
    """File names of the figures: unlike each other and unlike the grids."""
    taken, stems = {"grid", "heat"}, []
    for picture in pictures:
        base = stem = re.sub(r"[^\w.-]+", "_", picture.stem or picture.name).lstrip(".")[:60]
        number = 2
        while stem.casefold() in taken or re.fullmatch(r"(grid|heat)_\d+", stem):
            stem, number = f"{base}-{number}", number + 1
        taken.add(stem.casefold())  # macOS and Windows take "A" and "a" for one
        stems.append(stem)
    return stems
