"""Where the recipes of configs/ are: next to the package in a checkout, below share/jaxvit in an installation."""

import ast
import functools
import importlib.metadata
from pathlib import Path

ONE = "digits_vit.py"  # that tells the folder from others of its name


@functools.cache
def directory() -> Path | None:
    """The folder of the recipes; None where the package was copied without them."""
    beside = Path(__file__).resolve().parents[2] / "configs"
    if (beside / ONE).is_file():
        return beside
    try:
        files = importlib.metadata.files("jaxvit") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [Path(str(file.locate())).resolve().parent for file in files if file.parts[-2:] == ("configs", ONE)]
    return next((path for path in found if path.is_dir()), None)


def names() -> dict[str, Path]:
    """Name -> file of every recipe."""
    return _files("")


def studies() -> dict[str, Path]:
    """Name -> file of every study."""
    return _files("studies")


def _files(folder: str) -> dict[str, Path]:
    home = directory()
    return {} if home is None else {path.stem: path for path in sorted((home / folder).glob("*.py"))}


def find(name: str) -> Path | None:
    """The recipe that `digits_vit`, `digits_vit.py` or `configs/digits_vit.py` means; None: no such recipe."""
    path = Path(name)
    plain = path.parent in (Path(), Path("configs")) and path.suffix in ("", ".py")
    return names().get(path.stem) if plain else None


def purpose(path: Path) -> str:
    """What a recipe is for: the first sentence of its header."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())
