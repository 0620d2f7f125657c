"""The levels of DESIGN: a module imports from its own level or a lower one; importing the package is cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "jaxvit"
LEVELS = {
    "errors": 0, "config": 0, "tree": 0, "losses": 0, "metrics": 0, "sharding": 0, "macs": 0, "console": 0,
    "interrupt": 0, "config_files": 0, "config_checks": 0, "precision": 0, "integrity": 0, "determinism": 0,
    "compile_cache": 0, "allocator": 0, "multihost": 0, "target": 0, "escape": 0, "paths": 0, "drawing": 0,
    "streams": 0, "waiting": 0, "patterns": 0,
    "models": 1, "optim": 1, "data": 1,
    "pretrained": 2, "state": 2, "thaw": 2, "gradients": 2, "rules": 2,
    "steps": 3, "checkpoint": 3, "writers": 3, "trackers": 3, "setup": 3,
    "dispatch": 4, "micro_batch": 4,
    "evaluate": 4, "recipe": 4, "run": 4, "workdirs": 4, "distill": 4, "summary": 4, "inference": 4, "explain": 4,
    "train": 5, "plan": 5, "lr_find": 5,
    "cli": 6, "reports": 6, "commands": 6, "sweep": 6, "studies": 6, "bench": 6,
}  # fmt: skip
HEAVY = ("torch", "tensorflow", "tensorflow_datasets", "grain", "tensorboardX", "sklearn", "huggingface_hub", "jax")


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def top(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path):
    """Yields the jaxvit modules named in import statements, at any depth of the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("jaxvit"))
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("jaxvit"):
            assert node.level == 0
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    if path == PACKAGE / "__init__.py":
        return
    own = top(path)
    assert own in LEVELS, f"give {own} a level"
    for name in imported(path):
        parts = name.split(".")
        other = parts[1] if len(parts) > 1 else ""
        if other in LEVELS:
            assert LEVELS[other] <= LEVELS[own], f"{own} (level {LEVELS[own]}) imports {name} (level {LEVELS[other]})"
        assert other != "configs"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_module_is_longer_than_400_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_import_and_help_load_nothing_heavy():
    code = (
        "import sys, jaxvit, jaxvit.cli\n"
        "try: jaxvit.cli.main(['--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_training_never_imports_torch_or_tensorflow():
    code = "import sys, jaxvit.train, jaxvit.inference\nprint([m for m in ('torch', 'tensorflow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
