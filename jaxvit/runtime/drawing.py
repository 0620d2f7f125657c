"""How matplotlib draws here: with fonts for names in any script, and without warnings about signs that no font has."""

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Those that are there are asked in turn for each sign: matplotlib's own, then what the systems bring.
FONTS = (
    "DejaVu Sans", "Noto Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC",
    "Noto Sans JP", "Noto Sans KR", "WenQuanYi Micro Hei", "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo",
    "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Noto Sans Devanagari", "Nirmala UI", "Noto Sans Thai",
    "Leelawadee UI", "Arial Unicode MS", "Noto Emoji", "Segoe UI Symbol", "Segoe UI Emoji",
)  # fmt: skip


@functools.cache
def fonts() -> list[str]:
    """The families of FONTS that are installed."""
    from matplotlib import font_manager

    there = {font.name for font in font_manager.fontManager.ttflist}
    return [name for name in FONTS if name in there]


@contextmanager
def style(**words: Any) -> Iterator[None]:
    """Figures are made and saved within this; `words` are further ones of matplotlib's rc."""
    import matplotlib

    rc: Any = {"font.family": fonts(), **words}
    with matplotlib.rc_context(rc), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+")
        yield
