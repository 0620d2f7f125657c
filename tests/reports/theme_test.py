"""Colours of a page: contrast by the formula of WCAG, in both modes."""

import re

import numpy as np
import pytest

from jaxvit.reports import figures, page, theme


def contrast(a, b):
    """WCAG 2.2, from two colours such as "#ffffff"."""
    found = []
    for colour in (a, b):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        found.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(found) + 0.05) / (min(found) + 0.05)


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_text_and_lines_have_the_contrast_of_aa(mode):
    assert contrast("#ffffff", "#767676") == pytest.approx(4.54, abs=0.01)  # W3C's own example
    colours = {name: values[mode] for name, values in theme.TOKENS.items()}
    for text in theme.TEXT:
        assert min(contrast(colours[text], colours[ground]) for ground in theme.GROUNDS) >= 4.5, text
    assert len(theme.LINES) == len(figures.COLOURS)
    assert min(contrast(colours[line], colours["paper"]) for line in theme.LINES) >= 3
    others = [colours[line] for line in theme.LINES]
    assert len(set(others)) == len(others)


def test_the_style_sheet_uses_declared_colours_alone():
    css = page._template("page.css.j2")
    used = set(re.findall(r"var\(--([\w-]+)\)", css)) - {"n", "panel-width", "share"}
    assert used <= theme.TOKENS.keys()
    assert all(f"--{name}:" in theme.declarations(mode) for name in theme.TOKENS for mode in (0, 1))


def test_numbers_in_the_cells_of_a_matrix_can_be_read_in_both_modes():
    from matplotlib import colormaps

    for v in np.linspace(0, 1, 101):
        colour = np.array(colormaps[figures.SEQUENTIAL](v)[:3])
        for shown in (colour, figures.inverted(colour)):
            ink = 0.0 if figures._light(shown) else 1.0
            low, high = sorted((figures.luminance(shown), ink))
            assert (high + 0.05) / (low + 0.05) >= 4.5
    np.testing.assert_allclose(figures.inverted((1, 1, 1)), 0, atol=1e-9)
    np.testing.assert_allclose(figures.inverted((0, 0, 0)), 1, atol=1e-9)
