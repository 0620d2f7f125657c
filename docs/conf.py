"""The documentation's site: `pip install -e '.[docs]' && sphinx-build -W -b html docs docs/_build`."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import jaxvit  # noqa: E402

project = "jaxvit"
author = "The jaxvit authors"
copyright = "The jaxvit authors, Apache-2.0"
version = release = jaxvit.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "jaxvit"

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # the notebooks are shown with the outputs that are kept in them
nb_output_stderr = "show"

autodoc_typehints = "none"  # the docstrings have shapes and units, which the types do not say
autodoc_member_order = "bysource"
napoleon_google_docstring = True
suppress_warnings = ["misc.highlighting_failure"]  # blocks that mix shell and output


def plain(app, what, name, obj, options, lines):
    """Docstrings are plain text with `code` in single backticks; what reStructuredText would read is escaped."""
    for i, line in enumerate(lines):
        parts = re.split(r"(`+[^`]+`+)", line)
        parts[::2] = [re.sub(r"([*|]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2]]
        parts[1::2] = [f"``{part.strip('`')}``" for part in parts[1::2]]
        lines[i] = "".join(parts)


def within(app, name, source):
    """Links of a page to files next to `docs/`, which the site has as pages."""
    source[0] = source[0].replace("](../notebooks/", "](generated/")
    for file in ("SECURITY", "CONTRIBUTING", "CHANGELOG"):
        source[0] = source[0].replace(f"](../{file}.md", f"](reference/{file.lower()}.md")


def setup(app):
    """Writes the pages that follow from the code before they are read."""
    import generate

    app.connect("autodoc-process-docstring", plain, priority=100)  # before napoleon makes its own markup of them
    app.connect("source-read", within)
    app.connect("builder-inited", lambda app: generate.write(Path(app.srcdir)))
