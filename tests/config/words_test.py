"""Options on the command line."""

import re

import pytest

from jaxvit import config as config_lib
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
        ("--config.optim=3", "no config option"),
        ("--confg.seed=3", "expected --config"),
    ],
)
def test_bad_overrides_name_the_nearest_word(override, message):
    with pytest.raises(UserError, match=message) as caught:
        apply(override)
    assert str(caught.value).count("\n") <= 1


@pytest.mark.parametrize(
    "name, text, said",
    [
        ("run.yaml", "num_epochs: 010", "010 begins with 0"),
        ("run.yaml", "batch_size: 8\nbatch_size: 16", "'batch_size' occurs twice"),
        ("run.json", '{"optim": {"b1": 0.9, "b1": 0.8}}', "'b1' occurs twice"),
        ("run.yaml", "model: {name: resnet18, a.b: 1}", "has a dot"),
        ("run.yaml", "optim.learning_rate: 0.1", "has a dot"),
    ],
)
def test_what_a_parser_would_take_otherwise_is_refused(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=re.escape(said)):
        config_lib.load(str(tmp_path / name))


def test_of_an_option_that_is_given_twice_the_last_value_counts():
    assert apply("--config.num_epochs=3", "--config.num_epochs=5").num_epochs == 5
    assert apply("--config.pretrained=x", "--config.pretrained=None").pretrained is None
    assert apply("--config.pretrained=None", "--config.pretrained=x").pretrained == "x"
    assert apply("--config.model.depth=None", "--config.model.depth=3").model.depth == 3


@pytest.mark.parametrize("word", ["optim.options.a.b", "optim.schedule.options.a.b", "loss.options.a.b"])
def test_options_of_a_part_are_names_and_no_sections(word):
    with pytest.raises(UserError, match="expected one name after"):
        apply(f"--config.{word}=1")
