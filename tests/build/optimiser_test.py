"""Numbers of an optimiser are arguments of its program."""

import numpy as np
import pytest

from jaxvit.train.prepare import prepare
from tests.helpers import tiny_config, write_npz

WORDS = {
    "num_epochs": 4, "optim__weight_decay": 0.1, "optim__b1": 0.9, "optim__b2": 0.99, "optim__eps": 1e-8,
    "optim__grad_clip_norm": 1.0, "optim__layer_decay": 0.8, "optim__sam__rho": 0.05, "optim__sam__adaptive": True,
    "optim__schedule__warmup_epochs": 1.0, "optim__schedule__min_learning_rate": 1e-6, "loss__label_smoothing": 0.1,
    "ema__decay": 0.9, "ema__warmup": True, "augment__mixup_alpha": 0.8, "augment__cutmix_alpha": 1.0,
    "augment__mix_prob": 0.7, "augment__mix_switch_prob": 0.4, "augment__random_erasing_prob": 0.2,
}  # fmt: skip


CHANGED = {
    "num_epochs": 6, "optim__learning_rate": 2e-3, "optim__weight_decay": 0.2, "optim__b1": 0.8, "optim__b2": 0.95,
    "optim__eps": 1e-6, "optim__grad_clip_norm": 2.0, "optim__layer_decay": 0.7, "optim__sam__rho": 0.1,
    "optim__sam__eta": 0.02, "optim__schedule__warmup_epochs": 2.0, "optim__schedule__min_learning_rate": 1e-5,
    "loss__label_smoothing": 0.2, "ema__decay": 0.99, "augment__mixup_alpha": 0.4, "augment__cutmix_alpha": 0.5,
    "augment__mix_prob": 0.5, "augment__mix_switch_prob": 0.3, "augment__random_erasing_prob": 0.1,
}  # fmt: skip


@pytest.fixture
def program(tmp_path):
    """From a config's words to the text of the step's program; without its numbers it is what the cache goes by."""
    data_name = write_npz(tmp_path / "data")

    def lowered(**words):
        run, state = prepare(tiny_config(data_name, model__depth=1, **words), tmp_path / "run")
        run.checkpoints.close()
        batch = next(iter(run.feeds["train"].batches(np.arange(16), 16)))
        return next(iter(run.phase.train_steps.values())).lower(state, batch, None).as_text()

    return lowered


def test_other_numbers_are_the_same_program(program):
    first = program(**WORDS)
    assert program(**{**WORDS, **CHANGED}) == first
    assert program(**{**WORDS, "optim__learning_rate": 3e-3}) == first
    assert program(**{**WORDS, "ema__decay": 0.0}) != first  # whether there is an average shapes the state


SGD = {"optim__name": "sgd", "optim__momentum": 0.9, "optim__weight_decay": 1e-4, "optim__schedule__name": "onecycle",
       "num_epochs": 9}  # fmt: skip


def test_the_numbers_of_sgd_and_onecycle_too(program):
    changed = {"optim__momentum": 0.8, "optim__weight_decay": 1e-3, "optim__schedule__pct_start": 0.2}
    first = program(**SGD, optim__schedule__pct_start=0.3)
    assert program(**{**SGD, **changed}) == first
