"""Ranges of a search."""

import re

import pytest

from jaxvit import config as config_lib
from jaxvit import sweep
from jaxvit.errors import UserError
from tests.helpers import tiny_config, write_npz
from tests.helpers.searches import DECAY, RATE


@pytest.fixture
def given(tmp_path):
    return tiny_config(write_npz(tmp_path / "data"), sweep__ranges=(RATE, DECAY), num_epochs=3)


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        ((), "nothing to search: sweep.ranges is empty"),
        ((("optim.learning_rat", "log", 1e-4, 1e-2),), "'optim.learning_rate'"),
        ((("model.dept", "int", 1, 2),), "'model.depth'"),
        ((("optim.learning_rate", "loguniform", 1e-4, 1e-2),), "no kind 'loguniform'"),
        ((("optim.learning_rate", "log", 0.0, 1e-2),), "a logarithm needs ends above 0"),
        ((("optim.learning_rate", "log", 1e-2, 1e-4),), "the lower end first"),
        ((("optim.learning_rate", "log", 1e-2),), "the lower end first"),
        ((("optim.learning_rate", "uniform", -1.0, 1.0),), "optim.learning_rate is -1.0"),
        ((("batch_size", "uniform", 8.0, 16.0),), "expected a whole number"),
        ((("batch_size", "int", 8.5, 16),), "two whole numbers"),
        ((("augment.policy", "choice", None, "randaugmnt"),), "'randaugment'"),
        ((("augment.policy", "choice", None, None),), "expected two or more"),
        ((("optim.name", "choice", "adamw", "sdg"),), "'sgd'"),
        ((("optim.schedule.name", "choice", "cosine", "cosin"),), "'cosine'"),
        ((("optim.lr", "log", 1e-4, 1e-2),), "'optim.learning_rate'"),
        ((("model.depth", "choice", 1, "two"),), "depth='two' has the wrong type"),
        ((("seed", "int", 0, 9),), "decides what is compared"),
        ((("sweep.ranges", "int", 0, 9),), "no config option"),
        (("optim.learning_rate",), "expected (option, kind, values...)"),
        ((RATE, RATE), "twice"),
    ],
)
def test_bad_ranges_are_named(given, ranges, said):
    given.sweep.ranges = ranges
    with pytest.raises(UserError, match=re.escape(said)) as error:
        sweep.read_ranges(given)
    assert len(str(error.value).splitlines()) == 1


def test_ranges_do_not_make_another_run():
    config = config_lib.default()
    before = config_lib.to_dict(config)
    config.sweep.ranges = (RATE,)
    assert config_lib.differences(config, before) == []
    assert not sweep.apply(config, {"optim.learning_rate": 0.5}).sweep.ranges
