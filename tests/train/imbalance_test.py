"""A whole run on unequal classes: it resumes to the same bits, and chooses by a mean over classes."""

import json

import chex
import pytest

from jaxvit.runtime.interrupt import Interrupted
from jaxvit.train import loop as train
from tests.helpers import tiny_config, write_npz
from tests.helpers.workdirs import final_state, lines


def config(data, **words):
    return tiny_config(
        data, model__depth=1, num_epochs=3, data__imbalance=12.0, data__sampling="balanced", loss__name="focal",
        loss__class_weights="sqrt", augment__mixup_alpha=0.4, early_stopping__metric="balanced_accuracy", **words,
    )  # fmt: skip


def test_a_resumed_run_draws_the_same_images(tmp_path, capsys):
    data = write_npz(tmp_path / "data", num_train=160)
    whole = train.train_and_evaluate(config(data), tmp_path / "whole")

    def stop(epoch, found):
        if epoch == 2:
            raise Interrupted(15, "stopped")

    words = {"checkpoint__min_seconds": 0.0}
    with pytest.raises(Interrupted):
        train.train_and_evaluate(config(data, **words), tmp_path / "cut", on_evaluation=stop)
    again = train.train_and_evaluate(config(data, **words), tmp_path / "cut")
    chex.assert_trees_all_equal(final_state(tmp_path / "whole"), final_state(tmp_path / "cut"))
    assert again == whole and {"test/macro_f1", "test/balanced_accuracy", "test/nll"} <= whole.keys()
    said = capsys.readouterr().err
    assert "class sizes differ by 12:1" in said and "  balanced accuracy " in said and "macro F1" in said
    epochs = [line for line in lines(tmp_path / "whole") if "val/nll" in line]
    best = json.loads((tmp_path / "whole" / "summary.json").read_text())["best"]
    assert best["val/balanced_accuracy"] == max(line["val/balanced_accuracy"] for line in epochs)
