"""Config files, overrides and value checks."""

import re
from pathlib import Path

import pytest

from jaxvit import config as config_lib
from jaxvit import models
from jaxvit.config import checks
from jaxvit.errors import UserError


def fields(name):
    return {"vit": ("depth", "image_size", "global_pool")}[name]


def apply(*overrides, base=None):
    config = base or config_lib.default()
    config.model.name = "vit"
    return config_lib.override(config, overrides, fields)


def test_overrides_are_typed():
    config = apply(
        "--config.optim.learning_rate=1",
        "--config.data.image_size=(32,64)",
        "--config.data.mean=(0.5,0.25)",
        "--config.data.per_class=7",
        "--config.model.depth=4",
        "--config.model.global_pool=avg",
        "--config.fast_dev_run",
        "--config.batch_size",
        "32",
    )
    assert config.optim.learning_rate == 1.0 and isinstance(config.optim.learning_rate, float)
    assert config.data.image_size == (32, 64)
    assert config.data.mean == (0.5, 0.25)
    assert config.data.per_class == 7
    assert config.model.depth == 4
    assert config.model.global_pool == "avg"
    assert config.fast_dev_run is True
    assert config.batch_size == 32
    assert config_lib.default().batch_size == 128  # the default is untouched


def test_none_is_a_value_of_optional_words_only():
    base = config_lib.default()
    base.pretrained = "deit_tiny_patch16_224"
    assert apply("--config.pretrained=None", base=base).pretrained is None
    with pytest.raises(UserError, match="must have a value"):
        apply("--config.batch_size=None")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.optim.learning_rte=1", "optim.learning_rate"),
        ("--config.batch_size=1.5", "batch_size"),
        ("--config.batch_size=many", "batch_size"),
        ("--config.model.dept=3", "depth"),
        ("--config.optim=3", "no config word"),
        ("--confg.seed=3", "expected --config"),
    ],
)
def test_bad_overrides_name_the_nearest_word(override, message):
    with pytest.raises(UserError, match=message) as caught:
        apply(override)
    assert str(caught.value).count("\n") <= 1


@pytest.mark.parametrize(
    "override",
    ["batch_size=0", "batch_size=-4", "num_epochs=0", "optim.learning_rate=-1", "optim.learning_rate=nan",
     "data.fraction=0", "data.fraction=1.5", "data.val_fraction=1", "dtype=float16", "loss.label_smoothing=1.0",
     "optim.accum_steps=3", "parallel.mode=pmapp", "data.interpolation=cubic", "optim.sam.rho=-0.1"],
)  # fmt: skip
def test_bad_values_are_refused(override):
    word = override.partition("=")[0]
    with pytest.raises(UserError, match=word.rsplit(".", 1)[-1]):
        checks.validate(apply(f"--config.{override}"))


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
    path.write_text("def get_config():\n  return 1 / 0\n")
    with pytest.raises(UserError, match="ZeroDivisionError"):
        config_lib.load(str(path))
    with pytest.raises(UserError, match="no config file"):
        config_lib.load(str(tmp_path / "other.py"))


def test_a_recipe_named_without_its_folder_is_proposed(monkeypatch):
    monkeypatch.chdir(Path(__file__).resolve().parent.parent.parent)
    for name in ("digits_vit", "digits_vit.py", "configs/digit_vit.py"):
        with pytest.raises(UserError, match="no config file .* Did you mean 'configs/digits_vit.py'"):
            config_lib.load(name)


def test_differences_ignore_what_a_run_works_out_itself():
    given = config_lib.default()
    resolved = config_lib.to_dict(given)
    resolved["data"]["mean"] = [0.5]
    resolved["model"]["num_classes"] = 10
    assert config_lib.differences(given, resolved) == []
    given.num_epochs = 11
    given.data.mean = (0.25,)
    assert config_lib.differences(given, resolved) == ["data.mean: [0.5] -> [0.25]", "num_epochs: 10 -> 11"]


def test_words_that_nothing_reads_are_told():
    assert checks.idle(config_lib.default()) == {}
    assert checks.idle(apply("--config.optim.sam.adaptive=true", "--config.ema.warmup=true")) == {
        "optim.sam.adaptive": "optim.sam.rho",
        "ema.warmup": "ema.decay",
    }
    assert checks.idle(apply("--config.optim.sam.adaptive=true", "--config.optim.sam.rho=0.5")) == {}


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


@pytest.mark.parametrize(
    "name, text, said",
    [
        ("run.yaml", "num_epochs: 010", "010 begins with 0"),
        ("run.yaml", "batch_size: 8\nbatch_size: 16", "'batch_size' stands there twice"),
        ("run.json", '{"optim": {"b1": 0.9, "b1": 0.8}}', "'b1' stands there twice"),
        ("run.yaml", "model: {name: resnet18, a.b: 1}", "has a dot"),
        ("run.yaml", "optim.learning_rate: 0.1", "has a dot"),
    ],
)
def test_what_a_parser_would_take_otherwise_is_refused(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=re.escape(said)):
        config_lib.load(str(tmp_path / name))


def test_true_is_not_a_number():
    config = config_lib.default()
    config.batch_size = True
    with pytest.raises(UserError, match="batch_size is True; expected a whole number"):
        checks.validate(config)
