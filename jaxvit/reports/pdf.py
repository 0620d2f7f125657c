"""A page printed as PDF by a browser of the Chromium family, which draws it as the reader's own browser does."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from jaxvit.errors import RunError, UserError
from jaxvit.runtime import escape, files

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge", "msedge")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    "~/AppData/Local/Google/Chrome/Application/chrome.exe",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
    "C:/Program Files/Microsoft/Edge/Application/msedge.exe",
)
VARIABLE = "CHROME_PATH"
SECONDS = 300
OPTIONS = (
    "--headless", "--disable-gpu", "--no-first-run", "--disable-extensions", "--disable-dev-shm-usage",
    "--no-pdf-header-footer", "--generate-pdf-document-outline",
)  # fmt: skip


def find_browser() -> str:
    """The program that prints. Raises UserError where there is none, with what to install."""
    named = os.environ.get(VARIABLE)
    if named:
        found = shutil.which(named)
        if found is None:
            raise UserError(f"{VARIABLE} is {named!r}, which is not a program; expected Chromium, Chrome or Edge")
        return found
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return found
    for place in PLACES:
        if os.path.isfile(os.path.expanduser(place)):
            return os.path.expanduser(place)
    raise UserError(
        "--pdf needs Chromium, Chrome or Edge to print, and none is on the PATH\n"
        f"install one (apt install chromium), set {VARIABLE} to its program, or print index.html from any browser"
    )


def write(html: str, path: Path) -> Path:
    """Prints a page to the file `path`, A4 by its own style sheet. Raises RunError where the browser does not."""
    browser = find_browser()
    try:  # a browser from a snap may read and write nowhere but here
        with tempfile.TemporaryDirectory(prefix="pdf-", dir=path.parent, ignore_cleanup_errors=True) as folder:
            page, printed = Path(folder, "page.html").resolve(), Path(folder, "page.pdf").resolve()
            page.write_text(html, encoding="utf-8")
            words = [browser, *OPTIONS, f"--user-data-dir={Path(folder, 'profile').resolve()}"]
            if sys.platform == "linux" and os.geteuid() == 0:  # its sandbox refuses root; the page is our own file
                words.append("--no-sandbox")
            said = _run([*words, f"--print-to-pdf={printed}", page.as_uri()])
            if not printed.is_file() or printed.read_bytes()[:5] != b"%PDF-":
                raise RunError(f"{browser} wrote no PDF: {escape.message(said, 200) or 'it said nothing'}")
            files.write(path, printed.read_bytes())
    except OSError as error:
        raise files.not_written(path, error) from None
    return path


def _run(words: list[str]) -> str:
    """What the browser said last; the browser is ended where it takes too long."""
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise RunError(f"{words[0]} did not print within {SECONDS} s") from None
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
