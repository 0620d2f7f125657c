"""Printing: which browser, and what is said where there is none or where it fails. The real one: browser_test."""

import os
import re
import stat

import pytest

from jaxvit import cli
from jaxvit.errors import RunError, UserError
from jaxvit.reports import page, pdf
from jaxvit.reports.blocks import Section, Table
from tests.helpers.browser import needs_browser
from tests.helpers.fake_runs import write_run


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """No browser anywhere."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv(pdf.VARIABLE, raising=False)
    monkeypatch.setattr(pdf, "PLACES", ())
    (tmp_path / "bin").mkdir()
    return tmp_path


def test_without_a_browser_the_cure_is_named_before_any_work(alone, capsys):
    run = write_run(alone / "a")
    assert cli.main(["report", "--workdir", str(run), "--pdf"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) <= 2 and "Chrom" in said[0] and pdf.VARIABLE in said[1] and not (run / "report").exists()


def test_the_browser_is_found_by_variable_then_by_name(alone, monkeypatch):
    chrome = program(alone / "bin" / "google-chrome", "true")
    assert pdf.find_browser() == str(chrome)
    own = program(alone / "own", "true")
    monkeypatch.setenv(pdf.VARIABLE, str(own))
    assert pdf.find_browser() == str(own)
    monkeypatch.setenv(pdf.VARIABLE, str(alone / "nowhere"))
    with pytest.raises(UserError, match=pdf.VARIABLE):
        pdf.find_browser()


HALF = 'for w; do case $w in --print-to-pdf=*) echo half > "${w#*=}";; esac; done'


@pytest.mark.parametrize("does", ["echo no display >&2; exit 3", "exit 0", HALF])
def test_a_browser_that_prints_nothing_leaves_no_file(alone, does, monkeypatch):
    monkeypatch.setenv(pdf.VARIABLE, str(program(alone / "own", f"PATH=/bin:/usr/bin; {does}")))
    with pytest.raises(RunError, match="wrote no PDF"):
        pdf.write("<p>x</p>", alone / "report.pdf")
    assert sorted(os.listdir(alone)) == ["bin", "own"]


def test_a_browser_that_hangs_is_ended(alone, monkeypatch):
    monkeypatch.setenv(pdf.VARIABLE, str(program(alone / "own", "exec /bin/sleep 60")))
    monkeypatch.setattr(pdf, "SECONDS", 0.2)
    with pytest.raises(RunError, match="did not print"):
        pdf.write("<p>x</p>", alone / "report.pdf")
    assert not (alone / "report.pdf").exists()


@needs_browser
def test_a_page_is_printed_on_a4(tmp_path):
    table = Table([f"column {i}" for i in range(30)], [[f"{i}.00 %" for i in range(30)]] * 60, title="Wide and long")
    paths = page.write(tmp_path, "Title", "under it", [Section("First", [table])] * 2, to_pdf=True)
    content = paths[1].read_bytes()
    boxes = {tuple(round(float(v)) for v in box.split()) for box in re.findall(rb"/MediaBox \[([^\]]+)\]", content)}
    assert paths[1].name == "report.pdf" and boxes == {(0, 0, 595, 842)}
    assert len(re.findall(rb"/Type /Page\b", content)) >= 4
