"""Recipes are found by name wherever the command is given."""

from pathlib import Path

import pytest

from jaxvit import config
from jaxvit.config import recipes
from jaxvit.errors import UserError
from jaxvit.studies import study

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def test_every_recipe_and_study_has_a_name_and_says_what_it_is_for():
    assert recipes.names() == {path.stem: path for path in CONFIGS.glob("*.py")}
    assert recipes.studies() == {path.stem: path for path in CONFIGS.glob("studies/*.py")}
    for path in (*recipes.names().values(), *recipes.studies().values()):
        assert 20 < len(recipes.purpose(path)) < 400, path


@pytest.mark.parametrize("name", ["scratch_swin_cifar", "scratch_swin_cifar.py", "configs/scratch_swin_cifar.py"])
def test_a_recipe_is_found_by_name_from_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.load(name, ["--config.seed=3"]).seed == 3
    assert study.load("cifar100_asam")[1] == CONFIGS / "studies" / "cifar100_asam.py"


def test_a_file_of_the_user_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("configs").mkdir()
    own = "from jaxvit.config import default\ndef get_config():\n  c = default()\n  c.seed = 7\n  return c\n"
    Path("configs/digits_vit.py").write_text(own)
    assert config.load("configs/digits_vit.py").seed == 7


def test_other_folders_and_unknown_names_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no config file 'mine/digits_vit.py'"):
        config.load("mine/digits_vit.py")
    with pytest.raises(UserError, match="'digits_vit'"):
        config.load("digit_vit")


def test_without_a_checkout_they_are_found_in_the_installation(tmp_path, monkeypatch):
    home = tmp_path / "share" / "jaxvit" / "configs"
    home.mkdir(parents=True)
    (home / "digits_vit.py").write_text('"""Digits."""\n')

    class Entry:
        parts = ("..", "..", "share", "jaxvit", "configs", "digits_vit.py")

        def locate(self):
            return home / "digits_vit.py"

    monkeypatch.setattr(recipes, "__file__", str(tmp_path / "site-packages" / "jaxvit" / "config" / "recipes.py"))
    monkeypatch.setattr(recipes.importlib.metadata, "files", lambda name: [Entry()])
    recipes.directory.cache_clear()
    try:
        assert recipes.directory() == home.resolve() and list(recipes.names()) == ["digits_vit"]
    finally:
        recipes.directory.cache_clear()
