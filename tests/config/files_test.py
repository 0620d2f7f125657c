"""Config files, overrides and value checks."""

from pathlib import Path

import pytest

from jaxvit import config as config_lib
from jaxvit import models
from jaxvit.errors import UserError


def fields(name):
    return {"vit": ("depth", "image_size", "global_pool")}[name]


def test_yaml_and_json_are_data(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("num_epochs: 3\nmodel: {name: vit, depth: 2}\ndata: {mean: [0.5]}\n")
    config = config_lib.load(str(path), ["--config.model.depth=3"], fields)
    assert (config.num_epochs, config.model.depth, config.data.mean) == (3, 3, (0.5,))
    path.write_text("num_epoch: 3\n")
    with pytest.raises(UserError, match="num_epochs"):
        config_lib.load(str(path))
    path.write_text("!!python/object/apply:os.system ['true']\n")
    with pytest.raises(UserError, match="cannot read config"):
        config_lib.load(str(path))
    (tmp_path / "run.json").write_text('{"batch_size": "many"}')
    with pytest.raises(UserError, match="batch_size"):
        config_lib.load(str(tmp_path / "run.json"))


def test_python_configs(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from jaxvit.config import default\n"
        "def get_config(arg='2'):\n  c = default()\n  c.num_epochs = int(arg)\n  return c\n"
    )
    assert config_lib.load(str(path)).num_epochs == 2
    assert config_lib.load(f"{path}:7").num_epochs == 7
    (tmp_path / "child_of_mine.py").write_text(
        "import mine\ndef get_config():\n  c = mine.get_config()\n  c.seed = 7\n  return c\n"
    )
    child = config_lib.load(str(tmp_path / "child_of_mine.py"))
    assert (child.num_epochs, child.seed) == (2, 7)
    path.write_text("def get_config():\n  return 1 / 0\n")
    with pytest.raises(UserError, match="ZeroDivisionError"):
        config_lib.load(str(path))
    with pytest.raises(UserError, match="no config file"):
        config_lib.load(str(tmp_path / "other.py"))


def test_a_misspelt_recipe_has_the_nearest_one_proposed(monkeypatch):
    monkeypatch.chdir(Path(__file__).resolve().parent.parent.parent)
    for name in ("digit_vit", "digit_vit.py", "configs/digit_vit.py"):
        with pytest.raises(UserError, match=r"no config file .* Did you mean '(configs/)?digits_vit(\.py)?'"):
            config_lib.load(name)


SWIN = ["--config.model.name=swin_tiny_patch4_window7_224"]


def test_a_recipe_is_given_another_family_by_leaving_fields_out(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from jaxvit.config import default\n"
        "def get_config():\n  c = default()\n  c.model.name = 'resnet18'\n  c.model.stem = 'cifar'\n  return c\n"
    )
    with pytest.raises(UserError) as caught:
        config_lib.load(str(path), SWIN, models.model_fields)
    first, second = str(caught.value).splitlines()
    assert f"swin_tiny_patch4_window7_224 has no field 'stem', which '{path}' sets." in first
    assert second == "--config.model.stem=None leaves it out"
    config = config_lib.load(str(path), [*SWIN, "--config.model.stem=None"], models.model_fields)
    assert config.model.to_dict() == {"name": "swin_tiny_patch4_window7_224"}
    config = config_lib.load(str(path), ["--config.model.stem=None"], models.model_fields)  # of its own family too
    assert "stem" not in config.model
    with pytest.raises(UserError, match="no field 'stemm'. Did you mean 'stem'"):
        config_lib.load(str(path), ["--config.model.stemm=None"], models.model_fields)


def test_numbers_in_yaml_are_what_people_mean(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("optim: {learning_rate: 1e-3, weight_decay: 5E-2}\nema: {decay: .9e0}\nseed: 10\n")
    config = config_lib.load(str(path))
    assert (config.optim.learning_rate, config.optim.weight_decay) == (1e-3, 0.05)
    assert (config.ema.decay, config.seed) == (0.9, 10)
