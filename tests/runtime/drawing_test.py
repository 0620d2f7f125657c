"""Fonts of the pictures."""

from jaxvit.runtime import drawing


def test_fonts_that_are_not_there_are_not_asked_for():
    from matplotlib import font_manager

    there = {font.name for font in font_manager.fontManager.ttflist}
    assert drawing.fonts()[0] == "DejaVu Sans" and set(drawing.fonts()) <= there
