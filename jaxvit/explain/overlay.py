"""Maps as pictures: heat over a photo, grids of pictures, heads, distances. Matplotlib colours and draws."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvit.errors import UserError, suggest
from jaxvit.runtime import drawing, escape, files

# Equal steps of a map look like equal steps, also to the colour-blind and in grey (van der Walt and Smith, 2015).
COLOUR_MAPS = ("inferno", "viridis", "cividis", "magma", "plasma")
TEXT_POINTS = 8.0
CELL_INCHES = 2.2
WRONG_MARK, WRONG = "✗ ", "#b34700"  # of an answer; vermilion, told apart by colour-blind eyes
FLOOR = 0.4  # the share of the heat's weight that is there without heat


def to_display(images: Any, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Undoes the normalisation: [..., h, w, c] -> floats in [0, 1] of three channels."""
    images = np.asarray(images, np.float32) * np.asarray(std, np.float32) + np.asarray(mean, np.float32)
    images = np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images[..., :3]
    return np.clip(images, 0, 1)


def colour(maps: Any, cmap: str = "inferno") -> np.ndarray:
    """Colours of maps in [0, 1]: [..., h, w] -> [..., h, w, 3]; UserError on a colour map not in COLOUR_MAPS."""
    if cmap not in COLOUR_MAPS:
        raise UserError(f"no colour map {cmap!r}; expected {', '.join(COLOUR_MAPS)}.{suggest(cmap, COLOUR_MAPS)}")
    from matplotlib import colormaps

    return np.asarray(colormaps[cmap](np.clip(np.asarray(maps, np.float32), 0, 1)))[..., :3].astype(np.float32)


def overlay(images: Any, maps: Any, alpha: float = 0.75, cmap: str = "inferno") -> np.ndarray:
    """Heat over photos: images [..., h, w, 3] in [0, 1] and maps [..., h, w] -> uint8 [..., h, w, 3].

    The photo loses its colour, so that a colour always means the map. `alpha` in [0, 1] is the share of the heat
    where it is most; without heat the photo shows through.
    """
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha={alpha} is not in [0, 1].")
    images = np.asarray(images, np.float32)
    grey = np.repeat((images @ np.array([0.299, 0.587, 0.114], np.float32))[..., None], 3, axis=-1)
    base = images if alpha == 0 else grey
    share = alpha * (FLOOR + (1 - FLOOR) * np.clip(np.asarray(maps, np.float32), 0, 1))[..., None]
    return np.round(255 * ((1 - share) * base + share * colour(maps, cmap))).astype(np.uint8)


def enlarge(images: Any, maps: Any, least: int = 112) -> tuple[np.ndarray, np.ndarray]:
    """Small images [b, h, w, 3] and their maps [b, ..., h, w] at `least` rows or more, by a whole factor.

    The pixels stay squares; the maps are linear between their centres.
    """
    from PIL import Image

    images, maps = np.asarray(images), np.asarray(maps, np.float32)
    h, w = maps.shape[-2:]
    factor = -(-least // h)
    if factor < 2:
        return images, maps
    size = (w * factor, h * factor)
    smooth = [Image.fromarray(x).resize(size, Image.Resampling.BILINEAR) for x in maps.reshape(-1, h, w)]
    maps = np.stack([np.asarray(x) for x in smooth]).reshape(*maps.shape[:-2], h * factor, w * factor)
    return images.repeat(factor, 1).repeat(factor, 2), maps


def grid(
    rows: Sequence[Sequence[Any]],
    titles: Sequence[Sequence[str]] | None = None,
    columns: Sequence[str] = (),
    *,
    cmap: str | None = None,
    wrong: Sequence[Sequence[bool]] | None = None,
) -> Any:
    """A figure of pictures [h, w, 3] in rows, each with a title above it, and a head over each column.

    A place may be None. With `cmap` a bar next to the grid shows what the colours mean; `wrong` marks titles.
    """
    if not rows or not rows[0]:
        raise UserError("no pictures to show; expected at least one.")
    with drawing.style():
        return _grid(rows, titles, columns, cmap, wrong)


def _grid(rows: Any, titles: Any, columns: Any, cmap: str | None, wrong: Any) -> Any:
    from matplotlib.figure import Figure

    across = max(len(row) for row in rows)
    lines = max((text.count("\n") + 1 for row in titles or [] for text in row if text), default=0)
    first = next(p for row in rows for p in row if p is not None)
    height = CELL_INCHES * first.shape[0] / first.shape[1] + lines * 0.17
    figure = Figure(
        figsize=(CELL_INCHES * across + (0.7 if cmap else 0), height * len(rows) + (0.3 if columns else 0.05)),
        layout="compressed",
    )
    axes = figure.subplots(len(rows), across, squeeze=False)
    for r, row in enumerate(rows):
        for c, axis in enumerate(axes[r]):
            axis.set_axis_off()
            if c >= len(row) or row[c] is None:
                continue
            axis.imshow(row[c], interpolation="nearest")
            title = titles[r][c] if titles else ""
            _write(axis, title, bool(wrong and wrong[r][c]))
            if r == 0 and columns:
                above = max((text.count("\n") + 1 for text in (titles[0] if titles else []) if text), default=0)
                _write_head(axis, columns[c], 5 + 10 * above)
    if cmap:
        _add_bar(figure, axes, cmap)
    return figure


def _write(axis: Any, title: str, wrong: bool) -> None:
    if title:
        mark, colour = (WRONG_MARK, WRONG) if wrong else ("", "#000000")
        axis.set_title(shorten(mark + title), fontsize=TEXT_POINTS, pad=3, color=colour)


def _write_head(axis: Any, head: str, points: float) -> None:
    axis.annotate(
        shorten(head, 30), (0.5, 1), (0, points), fontsize=TEXT_POINTS, weight="bold",
        xycoords="axes fraction", textcoords="offset points", ha="center", va="bottom",
    )  # fmt: skip


def _add_bar(figure: Any, axes: Any, cmap: str) -> None:
    from matplotlib.cm import ScalarMappable

    rows = len(axes)
    place = {"shrink": min(1, 2 / rows), "aspect": 20 * min(rows, 2), "anchor": (0, 1), "pad": 0.01}
    bar = figure.colorbar(ScalarMappable(cmap=cmap), ax=list(axes.flat), **place)
    bar.set_ticks([0, 1], labels=["none", "most"], fontsize=TEXT_POINTS)
    bar.outline.set_visible(False)


def shorten(text: str, most: int = 34) -> str:
    """Cuts each line to `most` characters, so that neighbours never overlap."""
    return "\n".join(escape.picture(line, most) for line in text.split("\n"))


def head_grid(image: Any, maps: Any, alpha: float = 0.75, cmap: str = "inferno", across: int = 4) -> Any:
    """A figure of one image [h, w, 3] and the maps of all heads [heads, h, w] over it."""
    pictures = [np.round(255 * np.asarray(image)).astype(np.uint8)]
    pictures += list(overlay(np.broadcast_to(image, (len(maps), *np.shape(image))), maps, alpha, cmap))
    names = ["image", *(f"head {i}" for i in range(len(maps)))]
    across = min(across, len(pictures))
    rows = [pictures[i : i + across] for i in range(0, len(pictures), across)]
    titles = [names[i : i + across] for i in range(0, len(names), across)]
    return grid(rows, titles, cmap=cmap)


def distance_figure(distances: Sequence[Any]) -> Any:
    """Mean attention distance per block, a point per head (Dosovitskiy et al., 2021, figure 7)."""
    with drawing.style():
        return _distances(distances)


def _distances(distances: Sequence[Any]) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(5.0, 3.2), layout="constrained")
    axis = figure.subplots()
    for i, heads in enumerate(distances):
        axis.plot([i] * len(heads), heads, "o", color="#3b528b", alpha=0.75, markersize=4, markeredgewidth=0)
    axis.plot(range(len(distances)), [np.mean(d) for d in distances], "-", color="#555555", linewidth=1, label="mean")
    axis.set(xlabel="block", ylabel="mean attention distance (pixels)")
    axis.set_ylim(bottom=0)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=TEXT_POINTS)
    return figure


def save(figure: Any, path: str | Path, formats: Sequence[str] = ("png", "pdf"), dpi: int = 150) -> list[Path]:
    """Writes a figure under `path` with each suffix of `formats` (made next to it, then moved); returns the files."""
    written = []
    for suffix in formats:
        target = Path(f"{path}.{suffix}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with files.replacing(target) as temporary, drawing.style():
                figure.savefig(temporary, format=suffix, dpi=dpi)
        except OSError as error:
            raise files.not_written(target, error) from None
        written.append(target)
    return written
