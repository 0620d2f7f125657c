"""A report in a real browser: nothing hangs over, nothing is missing, nothing is said on the console; keys suffice."""

import pytest

from jaxvit.reports import write_report
from tests.helpers.browser import browser, needs_browser
from tests.helpers.fake_runs import write_run

MISSING = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
OVER = "document.documentElement.scrollWidth - innerWidth"
# texts of drawings that leave their panel, by more than 2 pixels
OUTSIDE = """[...document.querySelectorAll("figure svg text")].filter(t => t.checkVisibility() &&
  !t.closest(".scroll") && t.getBoundingClientRect().right > innerWidth + 2).map(t => t.textContent)"""
COLOURS = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
COLUMNS = """getComputedStyle(document.querySelector("#confusion .panels")).gridTemplateColumns.split(" ").length"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Three runs of few classes, and two of 30 with long names."""
    root = tmp_path_factory.mktemp("pages")
    few = [write_run(root / f"run{i}", seed=i) for i in range(3)]
    names = [f"a long name of the class {i:02}" for i in range(30)]
    many = [write_run(root / f"many{i}", seed=i, classes=30, n=90, names=names, skill=1.0) for i in range(2)]
    return {"few": write_report(few, root / "few")[0], "many": write_report(many, root / "many")[0]}


@pytest.mark.slow
@needs_browser
def test_a_report_in_a_browser(pages, tmp_path):
    with browser(tmp_path) as tab:
        for name, page in pages.items():
            for width in (1300, 768, 390):
                tab.open(page, width, dark=width == 768)
                tab.value("document.querySelectorAll('details').forEach(d => d.open = true)")
                assert (tab.value(OVER), tab.value(MISSING), tab.value(OUTSIDE)) == (0, 0, []), (name, width)
                few = {1300: 3, 768: 2, 390: 1}[width]
                assert tab.value(COLUMNS) == (few if name == "few" else {1300: 2, 768: 2, 390: 1}[width])
        tab.open(pages["few"], 1300)
        light = tab.value(COLOURS)
        for key in ("Tab", "Enter"):  # the first stop leads past the contents
            tab.press(key)
        assert tab.value("location.hash") == "#content"
        tab.value("document.getElementById('theme').focus()")
        tab.press("Enter")
        dark = tab.value(COLOURS)
        assert dark == light[::-1] or dark != light
        assert tab.value("document.getElementById('theme').getAttribute('aria-pressed')") == "true"
        tab.open(pages["few"], 1300)
        assert tab.value(COLOURS) == dark  # remembered
        tab.value("document.querySelector('#calibration').scrollIntoView({behavior: 'instant'})")
        tab.value("new Promise(done => setTimeout(done, 150))")
        assert tab.value("document.querySelector('[aria-current]').hash") == "#calibration"
        assert tab.value("document.querySelector('.bar').getBoundingClientRect().top") == 0
        assert tab.messages == []
