"""The study that docs/STUDIES.md writes down."""

from tests.helpers import ROOT


def example():
    """The study of docs/STUDIES.md that a reader would write."""
    text = (ROOT / "docs" / "STUDIES.md").read_text(encoding="utf-8")
    return text.split("```python\n")[1].split("```")[0]
