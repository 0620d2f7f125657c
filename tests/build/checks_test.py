"""A wrong config is refused alike from the command line, from a file and from Python, before anything is read."""

import json

import pytest
from ml_collections import ConfigDict, FrozenConfigDict

from jaxvit import cli, data, train
from jaxvit import config as config_lib
from jaxvit.errors import UserError
from tests.helpers import tiny_config

# word, value as YAML has it, what is said
WRONG = [
    ("optim.learnig_rate", 1.0, "no config option 'optim.learnig_rate'. Did you mean 'optim.learning_rate'"),
    ("learning_rate", 1.0, "optim.learning_rate"),
    ("optim.sam.roh", 0.1, "optim.sam.rho"),
    ("batch_size", "many", "batch_size is 'many'; expected a whole number"),
    ("optim.learning_rate", -1.0, "optim.learning_rate is -1.0; expected a number above 0"),
    ("batch_size", True, "expected a whole number"),
    ("model.name", "resnet81", "Did you mean 'resnet"),
    ("model.dept", 3, "no field 'dept'"),
    ("model.depth", "three", "depth='three' has the wrong type; expected a whole number"),
    ("optim.name", "adamm", "no optimiser 'adamm'. Did you mean 'adam"),
    ("optim.schedule.name", "cosin", "no schedule 'cosin'"),
    ("optim.schedule.step_size", 3, "step_size"),
    ("optim.options.b9", 0.5, "no option 'b9'"),
    ("early_stopping.metric", "acuracy", "Did you mean 'accuracy'"),
    ("early_stopping.metric", "balanced_acuracy", "Did you mean 'balanced_accuracy'"),
    ("loss.name", "focl", "expected cross_entropy or ce or focal or bce. Did you mean 'focal'"),
    ("loss.class_weights", "balance", "Did you mean 'balanced'"),
    ("loss.class_weights", [1.0, -2.0, 1.0], "loss.class_weights has -2.0; expected 0 or more per class"),
    ("loss.class_weights", [0.0, 0, 0], "loss.class_weights are all 0"),
    ("loss.class_weights", [1.0, "many"], "a number per class, such as (1.0, 2.5)"),
    ("loss.class_weights", 2.0, "a number per class, such as (1.0, 2.5)"),
    ("loss.logit_adjustment", -1.0, "loss.logit_adjustment is -1.0; expected 0 or more"),
    ("data.sampling", "balancd", "data.sampling is 'balancd'; expected balanced or sqrt. Did you mean 'balanced'"),
    ("data.imbalance", 0.01, "data.imbalance is 0.01; expected largest class : smallest"),
    ("dtype", "float16", "its gradients need a loss scale, which is not built in; bfloat16 has the range of float32"),
    ("dtype", "fp16", "its gradients need a loss scale"),
    ("dtype", "half", "its gradients need a loss scale"),
    ("optim.options.b9", None, "no option 'b9'"),
    ("optim.freeze", "haed_only", "Did you mean 'head_only'"),
    ("optim.freeze", "last_40_blocks", "expected 1 to 1"),
    ("optim.unfreeze", [[1, "nothing_like_it"]], "nothing_like_it"),
    ("data.image_size", "32x48", "expected pixels, such as 32, or height and width, such as (32, 48)"),
    ("model.image_size", "32x48", "expected pixels, such as 32, or height and width, such as (32, 48)"),
    ("pretrained", "deit_tiny_patch16_225", "pretrained is 'deit_tiny_patch16_225'; expected an existing file"),
    ("pretrained", "deit_tiny_patch16_224.fb_in21k", "unknown tag 'fb_in21k' of 'deit_tiny_patch16_224'"),
    ("data.test_limit", 0, "data.test_limit is 0; expected a number above 0"),
    ("data.max_bad_fraction", 5, "data.max_bad_fraction is 5.0; expected a share from 0 to 1"),
    ("data.crop_pct", 87.5, "data.crop_pct is 87.5; expected a share of the resized image, such as 0.875"),
    ("distill.teacher", "no_such_run", "distill.teacher 'no_such_run' is not a run's workdir, a weight file"),
    ("augment.policy", "randaug", "randaugment"),
]  # fmt: skip
IDS = [f"{word}={value}" for word, value, _ in WRONG]


def nothing_is_read(*args, **words):
    raise AssertionError("data were read")


@pytest.fixture(autouse=True)
def no_data(monkeypatch):
    monkeypatch.setattr(data, "load_dataset", nothing_is_read)


def put(config, word, value):
    *parents, name = word.split(".")
    with config.unlocked(), config.ignore_type():
        for parent in parents:
            config = config[parent]
        config[name] = value


@pytest.mark.parametrize(("word", "value", "said"), WRONG, ids=IDS)
def test_from_python(tmp_path, word, value, said):
    config = tiny_config("digits")
    put(config, word, value)
    with pytest.raises(UserError) as caught:
        train.train_and_evaluate(config, tmp_path / "run")
    assert said in str(caught.value) and len(str(caught.value).splitlines()) <= 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("word", "value", "said"), WRONG, ids=IDS)
def test_from_a_file_and_on_the_command_line(tmp_path, capsys, word, value, said):
    plain = config_lib.to_dict(tiny_config("digits"))
    (tmp_path / "good.json").write_text(json.dumps(plain))
    *parents, name = word.split(".")
    section = plain
    for parent in parents:
        section = section[parent]
    section[name] = value
    (tmp_path / "bad.json").write_text(json.dumps(plain))
    for argv in (["bad.json"], ["good.json", f"--config.{word}={value}"]):
        argv = ["--config", str(tmp_path / argv[0]), "--workdir", str(tmp_path / "run"), *argv[1:]]
        assert cli.main(argv) == 2
        printed = capsys.readouterr().err
        assert said in printed or "three" in printed and "wrong type" in printed
        assert printed.startswith("error: ") and len(printed.splitlines()) <= 2
        assert not (tmp_path / "run").exists()


def test_what_is_no_config_or_not_a_whole_one_is_refused(tmp_path):
    with pytest.raises(UserError, match="the config is a dict; expected a ConfigDict"):
        train.train_and_evaluate({"seed": 0}, tmp_path / "run")
    with pytest.raises(UserError, match="the config is frozen; expected a ConfigDict"):
        train.train_and_evaluate(FrozenConfigDict(tiny_config("digits")), tmp_path / "run")
    with pytest.raises(UserError, match="optim.learning_rate is 1000.*; expected a number"):
        config_lib.from_mapping({"optim": {"learning_rate": 10**400}})
    with pytest.raises(UserError, match="optim.learning_rate is True; expected a number"):
        config_lib.from_mapping({"optim": {"learning_rate": True}})
    bare = ConfigDict({"seed": 0, "model": {"name": "resnet18"}})
    with pytest.raises(UserError, match="the config has no .*; start from jaxvit.config.default"):
        train.train_and_evaluate(bare, tmp_path / "run")
    config = tiny_config("digits")
    with config.unlocked():
        del config.optim.sam.eta
    with pytest.raises(UserError, match="the config has no optim.sam.eta"):
        train.train_and_evaluate(config, tmp_path / "run")
    config = tiny_config("digits")
    with config.unlocked(), config.ignore_type():
        config.optim.sam = 0.1
    with pytest.raises(UserError, match="optim.sam"):
        train.train_and_evaluate(config, tmp_path / "run")


def test_a_good_config_comes_as_far_as_the_data(tmp_path):
    config = tiny_config("digits", optim__name="lion", optim__layer_decay=0.8, model__drop_path_rate=None)
    config.model.patch_size = 5  # divides no default size: that is the data's matter
    with pytest.raises(AssertionError, match="data were read"):
        train.train_and_evaluate(config, tmp_path / "run")
