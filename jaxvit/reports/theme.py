"""The colours of a page, light and dark; text has the contrast of WCAG 2.2 AA (4.5), lines of drawings 3."""

# name: (light, dark)
TOKENS = {
    "ink": ("#1f2328", "#e6edf3"),
    "soft": ("#57606a", "#a4aeb8"),
    "grid": ("#d8dee4", "#343b44"),
    "paper": ("#ffffff", "#0f1419"),
    "panel": ("#f3f5f8", "#182028"),
    "mark": ("#fff3cd", "#43370e"),
    "link": ("#0550ae", "#79b8ff"),
    # those of figures.COLOURS, darker on white and lighter on black
    "c0": ("#0072b2", "#3f9fdc"),
    "c1": ("#d55e00", "#f07b2e"),
    "c2": ("#008a65", "#22bd92"),
    "c3": ("#bd6596", "#d896ba"),
    "c4": ("#b37700", "#eeb031"),
    "c5": ("#3b93c9", "#7cc6ef"),
    "c6": ("#8f8200", "#f0e442"),
}
TEXT = ("ink", "soft", "link")
GROUNDS = ("paper", "panel", "mark")
LINES = ("c0", "c1", "c2", "c3", "c4", "c5", "c6")


def declarations(which: int) -> str:
    """The custom properties of CSS: 0 light, 1 dark."""
    return " ".join(f"--{name}:{values[which]};" for name, values in TOKENS.items())
