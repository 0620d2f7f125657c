"""How much a command says: `--quiet` leaves warnings, errors and the result, `--verbose` adds details."""

QUIET, NORMAL, VERBOSE = -1, 0, 1

level = NORMAL


def use(*, quiet: bool = False, verbose: bool = False) -> None:
    """Sets the level of this process."""
    global level
    level = QUIET if quiet else VERBOSE if verbose else NORMAL


def words() -> list[str]:
    """The options that bring another process of ours to the same level."""
    return {QUIET: ["--quiet"], VERBOSE: ["--verbose"]}.get(level, [])
