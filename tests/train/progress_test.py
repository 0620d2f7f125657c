"""A run that diverges."""

import pytest

from jaxvit.train import loop as train
from jaxvit.train.progress import Diverged
from tests.helpers import tiny_config, write_npz


@pytest.fixture
def data_name(tmp_path):
    return write_npz(tmp_path / "data")


def test_divergence_is_named(tmp_path, data_name):
    config = tiny_config(data_name, num_epochs=9, optim__name="sgd", optim__learning_rate=1e30)
    with pytest.raises(Diverged, match="step 2 .learning rate .* gradient norm .* last checkpoint"):
        train.train_and_evaluate(config, tmp_path / "run")
