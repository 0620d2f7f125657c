"""A package that is not installed is one line with its name and the way to get it, whatever the command."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from jaxvit.errors import UserError
from jaxvit.runtime import packages

ROOT = Path(__file__).resolve().parent.parent.parent
IMPORTED_AS = {"orbax-checkpoint": "orbax", "pillow": "PIL", "pyyaml": "yaml", "dm-pix": "dm_pix",
               "scikit-learn": "sklearn", "tensorflow-datasets": "tensorflow_datasets"}  # fmt: skip


def test_every_package_that_we_need_is_named_as_it_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"]:
        name = re.match(r"[\w-]+", requirement)[0]
        error = ModuleNotFoundError("no", name=f"{IMPORTED_AS.get(name, name)}.part")
        assert packages.missing(error) == f"the package {name} is not installed: pip install {name}"
    for extra in ("torch", "tune", "wandb"):
        for requirement in project["optional-dependencies"][extra]:
            said = packages.missing(ModuleNotFoundError("no", name=re.match(r"[\w-]+", requirement)[0]))
            assert said.endswith(f"pip install 'jaxvit[{extra}]'")
    assert packages.missing(ModuleNotFoundError("no", name="jaxvit.nowhere")) is None  # a bug
    assert packages.missing(ImportError("no such name", name="numpy")) is None
    nameless = ModuleNotFoundError("jax requires jaxlib to be installed")
    nameless.__cause__ = ModuleNotFoundError("no", name="jaxlib")
    assert packages.missing(nameless) == "the package jaxlib is not installed: pip install jaxlib"
    assert packages.missing(ImportError("of no name")) is None
    own = {IMPORTED_AS.get(name, name) for r in project["dependencies"] if (name := re.match(r"[\w-]+", r)[0])}
    assert own - {"array_record"} <= set(packages.NEEDED)  # which is not on Windows


def test_an_extension_that_does_not_name_the_package(monkeypatch):
    said = ImportError("Encountered an error while initializing the extension.")
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert packages.missing(said) == "the package numpy is not installed: pip install numpy"
    with pytest.raises(UserError, match="^the package numpy is not installed"):
        packages.require("sys", "numpy")


@pytest.mark.parametrize(
    "package, command",
    [
        ("ml_collections", ["--config", "configs/digits_vit.py", "--workdir", "WORK", "--config.num_epochs=1"]),
        ("orbax", ["--config", "configs/digits_vit.py", "--workdir", "WORK"]),
        ("flax", ["models", "vit_tiny*"]),
        ("sklearn", ["--config", "configs/digits_vit.py", "--workdir", "WORK"]),
        ("numpy", ["models", "vit_tiny*"]),  # jax's extension says nothing of it
        ("matplotlib", ["--config", "configs/digits_vit.py", "--workdir", "WORK"]),  # needed at the end of the run
        ("jinja2", ["report", "--workdir", "WORK"]),
        ("matplotlib", ["explain", "--model", "resnet18", "photo.png"]),
        ("optuna", ["sweep", "--config", "configs/sweep_digits_vit.py", "--workdir", "WORK"]),
    ],
)
def test_a_hidden_package(tmp_path, package, command):
    code = (
        "import sys, runpy\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == {package!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        f"sys.argv = ['main.py', *{[w.replace('WORK', str(tmp_path / 'run')) for w in command]!r}]\n"
        "runpy.run_path('main.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and "unexpected" not in done.stderr, done.stderr
    wanted = {imported: installed for installed, imported in IMPORTED_AS.items()}
    assert re.search(rf"(package {wanted.get(package, package)} is|Optuna, which is) not installed", done.stderr)
    assert "pip install" in last and not (tmp_path / "run").exists()
