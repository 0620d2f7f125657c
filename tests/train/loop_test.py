"""Whole runs: their files, their resumption, what they refuse."""

import contextlib
import json
import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit import inference
from jaxvit.runtime.interrupt import Interrupted
from jaxvit.train import loop as train
from jaxvit.train.progress import Diverged
from jaxvit.workdir.checkpoint import Checkpoints
from tests.helpers import tiny_config, write_npz
from tests.helpers.workdirs import final_state, lines


@pytest.fixture
def data_name(tmp_path):
    return write_npz(tmp_path / "data")


def test_a_run_leaves_its_files(tmp_path, data_name):
    final = train.train_and_evaluate(tiny_config(data_name), tmp_path / "run")
    workdir = tmp_path / "run"
    with np.load(workdir / "predictions.npz") as predictions:
        assert sorted(predictions.files) == ["index", "labels", "logits", "names"]
        assert predictions["names"].tolist() == [f"test.npz[{i}]" for i in range(20)]
        chex.assert_shape(predictions["logits"], (20, 3))
        np.testing.assert_array_equal(predictions["index"], np.arange(20))
        np.testing.assert_array_equal(predictions["labels"], np.arange(20) % 3)
        accuracy = np.mean(predictions["logits"].argmax(1) == predictions["labels"])
    assert final["test/accuracy"] == pytest.approx(accuracy)
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["final"] == final
    assert summary["parameters"] == sum(x.size for x in jax.tree.leaves(final_state(workdir)["params"]))
    assert json.loads((workdir / "classes.json").read_text()) == ["0", "1", "2"]
    assert [line["epoch"] for line in lines(workdir)] == [1, 2]
    config = json.loads((workdir / "config.json").read_text())
    assert config["model"]["num_classes"] == 3 and config["data"]["image_size"] == [8, 8]
    assert list((workdir / "events").iterdir())
    with np.load(workdir / "samples.npz") as samples:
        assert samples["image"].dtype == np.uint8 and len(samples["image"]) == 20
    assert not list(workdir.glob(".*"))


def test_it_learns(tmp_path, data_name):
    final = train.train_and_evaluate(tiny_config(data_name, num_epochs=30, optim__learning_rate=1e-2), tmp_path / "run")
    assert final["test/accuracy"] > 0.9


@pytest.mark.parametrize("after", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_resume_equals_uninterrupted(tmp_path, data_name, after, monkeypatch):
    config = tiny_config(
        data_name, num_epochs=3, optim__learning_rate=1e-2, model__drop_path_rate=0.2, ema__decay=0.5,
        optim__schedule__name="plateau", optim__schedule__patience=0, optim__schedule__factor=0.5,
        early_stopping__patience=3, early_stopping__metric="loss", optim__sam__rho=0.05, optim__sam__every=2,
        loss__on_nan="skip",
    )  # fmt: skip
    train.train_and_evaluate(config, tmp_path / "whole")

    class AfterSteps:
        looks = 0

        @property
        def signum(self):
            self.looks += 1
            return signal.SIGINT if self.looks > after else None

    @contextlib.contextmanager
    def interrupting():
        yield AfterSteps()

    with monkeypatch.context() as patch:
        patch.setattr(train, "deferred", interrupting)
        with pytest.raises(Interrupted) as stop:
            train.train_and_evaluate(config, tmp_path / "parts")
    assert stop.value.exit_code == 130
    assert not (tmp_path / "parts" / "summary.json").exists()
    train.train_and_evaluate(config, tmp_path / "parts")

    chex.assert_trees_all_equal(final_state(tmp_path / "whole"), final_state(tmp_path / "parts"))
    assert lines(tmp_path / "whole") == lines(tmp_path / "parts")
    with np.load(tmp_path / "whole/predictions.npz") as a, np.load(tmp_path / "parts/predictions.npz") as b:
        np.testing.assert_array_equal(a["logits"], b["logits"])


def test_a_run_killed_between_two_states_goes_on_with_the_same_bits(tmp_path, data_name, monkeypatch):
    """The best weights of after the state are made again, those that the state names are there."""
    config = tiny_config(data_name, num_epochs=6, optim__learning_rate=1e-2, early_stopping__metric="loss")
    train.train_and_evaluate(config, tmp_path / "whole")

    class Killed(BaseException):
        pass

    def kill(epoch, _):
        if epoch == 5:
            raise Killed

    with pytest.raises(Killed):
        train.train_and_evaluate(config, tmp_path / "parts", on_evaluation=kill)
    checkpoints = Checkpoints(tmp_path / "parts/checkpoints")
    assert checkpoints.steps("last") == [2] and checkpoints.steps("best")[0] == 2 < checkpoints.steps("best")[-1]
    checkpoints.close()
    train.train_and_evaluate(config, tmp_path / "parts")
    chex.assert_trees_all_equal(final_state(tmp_path / "whole"), final_state(tmp_path / "parts"))
    assert lines(tmp_path / "whole") == lines(tmp_path / "parts")
    with np.load(tmp_path / "whole/predictions.npz") as a, np.load(tmp_path / "parts/predictions.npz") as b:
        np.testing.assert_array_equal(a["logits"], b["logits"])


def test_same_seed_same_bits_other_seed_other_bits(tmp_path, data_name):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train.train_and_evaluate(tiny_config(data_name, seed=seed, num_epochs=1), tmp_path / name)
    assert lines(tmp_path / "a") == lines(tmp_path / "b")
    assert lines(tmp_path / "a") != lines(tmp_path / "c")
    chex.assert_trees_all_equal(*(final_state(tmp_path / name) for name in "ab"))
    predictions = [np.load(tmp_path / name / "predictions.npz")["logits"] for name in "ab"]
    np.testing.assert_array_equal(*predictions)


def test_dry_run_does_two_steps_and_makes_way(tmp_path, data_name):
    config = tiny_config(data_name, fast_dev_run=True, num_epochs=50)
    assert train.train_and_evaluate(config, tmp_path / "run")["step"] == 2
    final = train.train_and_evaluate(tiny_config(data_name, num_epochs=1), tmp_path / "run")
    assert final["step"] == 2 and final["epochs"] == 1


def test_early_stopping(tmp_path, data_name):
    config = tiny_config(data_name, num_epochs=20, optim__learning_rate=1e-12, early_stopping__patience=2)
    final = train.train_and_evaluate(config, tmp_path / "run")
    assert final["epochs"] == 3
    assert json.loads((tmp_path / "run/summary.json").read_text())["stopped_early"] is True


def test_eight_devices_give_the_metrics_of_one(tmp_path, data_name):
    for devices in (1, 8):
        train.train_and_evaluate(tiny_config(data_name, parallel__num_devices=devices), tmp_path / str(devices))
    for one, eight in zip(lines(tmp_path / "1"), lines(tmp_path / "8"), strict=True):
        assert one == pytest.approx(eight, rel=1e-5)


def test_asam_accumulation_freezing_and_bfloat16_run_together(tmp_path, data_name):
    config = tiny_config(
        data_name, num_epochs=1, optim__sam__rho=0.5, optim__sam__adaptive=True, optim__accum_steps=2,
        optim__freeze="last_1_blocks", optim__grad_clip_norm=1.0, dtype="bfloat16",
    )  # fmt: skip
    final = train.train_and_evaluate(config, tmp_path / "run")
    assert np.isfinite(final["test/loss"])


def test_the_average_is_evaluated_beside_the_weights_and_the_better_of_both_stays(tmp_path, data_name):
    config = tiny_config(data_name, ema__decay=0.9, optim__learning_rate=1e-2, num_epochs=1)
    final = train.train_and_evaluate(config, tmp_path / "run")
    (line,) = lines(tmp_path / "run")
    assert line["val/loss"] != line["val_ema/loss"]
    assert final["val_ema/accuracy"] == line["val_ema/accuracy"]
    state = final_state(tmp_path / "run")
    classifier = inference.from_run(tmp_path / "run")
    key = lambda kind: (line[f"{kind}/accuracy"], -line[f"{kind}/loss"])  # noqa: E731
    assert final["weights"] == ("raw" if key("val") > key("val_ema") else "average")
    kept = {"raw": state["params"], "average": state["ema"]["params"]}[final["weights"]]
    chex.assert_trees_all_equal(jax.device_get(classifier.variables["params"]), jax.device_get(kept))


def test_plateau_lowers_the_rates(tmp_path, data_name):
    words = {"name": "plateau", "patience": 0, "factor": 0.5, "metric": "accuracy"}
    config = tiny_config(data_name, num_epochs=4, optim__learning_rate=1e-12, optim__layer_decay=0.5)
    config.optim.schedule.update(words)
    train.train_and_evaluate(config, tmp_path / "run")
    rates = [line["train/learning_rate"] / 1e-12 for line in lines(tmp_path / "run")]
    assert rates == pytest.approx([1, 1, 0.5, 0.25], rel=1e-5)


def test_rollback_goes_on_from_the_last_checkpoint(tmp_path, data_name, monkeypatch):
    def make_augment(*_):  # with this seed it spoils the fifth step, and no step after a rollback
        return lambda key, images, targets: (
            jnp.where(jax.random.uniform(key) < 1 / 6, jnp.nan, 1.0) * images, targets
        )  # fmt: skip

    monkeypatch.setattr("jaxvit.build.blueprint.make_augment", make_augment)
    config = tiny_config(data_name, num_epochs=3, loss__on_nan="rollback", seed=29, checkpoint__min_seconds=0.0)
    train.train_and_evaluate(config, tmp_path / "run")
    state = final_state(tmp_path / "run")
    assert state["lr_scale"] == 0.5
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state["params"]))
    assert [line["epoch"] for line in lines(tmp_path / "run")] == [1, 2, 3]
    config.loss.on_nan = "stop"
    with pytest.raises(Diverged, match="loss is nan at step 5 .learning rate .*; last checkpoint: step 4"):
        train.train_and_evaluate(config, tmp_path / "stop")


def test_weights_that_the_last_step_broke_are_no_best(tmp_path, data_name):
    config = tiny_config(data_name, num_epochs=1, batch_size=4096, optim__name="sgd", optim__learning_rate=1e38)
    with pytest.raises(Diverged, match="validation loss is nan after step 1"):
        train.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run" / "summary.json").exists()
