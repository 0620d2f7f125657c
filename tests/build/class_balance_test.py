"""Weights of classes against scikit-learn and the paper; what is refused and what the header says."""

import numpy as np
import pytest

from jaxvit import cli
from jaxvit.build import class_balance
from jaxvit.build.facts import Facts
from jaxvit.errors import UserError
from jaxvit.train.prepare import prepare
from tests.helpers import tiny_config, write_npz

NAMES = ("cat", "dog", "eel")


def facts(*counts):
    return Facts(
        num_classes=len(counts), num_train=sum(counts), num_val=0, num_test=9, shape=(8, 8, 3), in_channels=3,
        image_size=(8, 8), mean=(0.5,) * 3, std=(0.25,) * 3, class_counts=counts,
    )  # fmt: skip


def weights(word, *counts, **words):
    return class_balance.class_weights(tiny_config("digits", loss__class_weights=word, **words), facts(*counts))


def test_balanced_is_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    y = np.repeat([0, 1, 2], [60, 30, 10])
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=y)
    np.testing.assert_allclose(weights("balanced", 60, 30, 10), wanted, rtol=1e-12)


def test_every_kind_has_mean_1_over_the_images_of_an_epoch():
    counts, n = (60, 30, 10), np.array([60.0, 30.0, 10.0])
    kinds = {
        "sqrt": (n.sum() / (3 * n)) ** 0.5,
        "effective": (1 - 0.99) / (1 - 0.99**n),  # eq. 3 of Cui et al. (2019)
        (2.0, 0.0, 8.0): np.array([2.0, 0.0, 8.0]),
    }
    for word, raw in kinds.items():
        found = weights(word, *counts, loss__class_weights_beta=0.99)
        assert found @ n / n.sum() == pytest.approx(1.0, abs=1e-12)
        np.testing.assert_allclose(found, raw / (raw @ n / n.sum()), rtol=1e-12)
    drawn_alike = weights("sqrt", *counts, data__sampling="balanced")
    assert drawn_alike.mean() == pytest.approx(1.0, abs=1e-12)


def test_a_class_without_images_weighs_nothing():
    np.testing.assert_allclose(weights("balanced", 60, 0, 20), [0.5 * 80 / 60, 0, 0.5 * 80 / 20], rtol=1e-12)
    np.testing.assert_allclose(weights((1.0, 0.0, 1.0), 60, 0, 20), [1, 0, 1], rtol=1e-12)


@pytest.mark.parametrize(("words", "counts", "said"), [
    ({"loss__class_weights": (1.0, 2.0)}, (9, 9, 9), "loss.class_weights has 2 numbers; digits has 3 classes"),
    ({"loss__class_weights": (0.0, 2.0, 0.0)}, (9, 0, 9), "are 0 for every class that has training images"),
    ({"loss__class_weights": (1.0, 2.5, 1.0)}, (9, 0, 9), "has 2.5 for 'dog', without training images; expected 0"),
    ({"loss__logit_adjustment": 1.0}, (9, 0, 9), "needs training images of every class; 'dog' has none"),
])  # fmt: skip
def test_what_the_data_do_not_have_is_refused(words, counts, said):
    with pytest.raises(UserError, match=said):
        class_balance.check(tiny_config("digits", **words), facts(*counts), NAMES)


@pytest.mark.parametrize(("counts", "words", "said"), [
    ((100, 50, 10), {}, []),
    ((101, 50, 10), {}, ["differ by 10.1:1: 'cat' has 101 training images, 'eel' 10", "data.sampling=balanced"]),
    ((1000, 50, 10), {"data__sampling": "sqrt"}, ["class sizes differ by 100:1"]),
    ((10, 0, 10), {}, ["1 of 3 classes have no training images, for example 'dog'"]),
    ((10, 9, 8), {"data__sampling": "balanced", "loss__logit_adjustment": 1.0}, ["has no effect"]),
    ((10, 9, 8), {"data__sampling": "sqrt", "loss__class_weights": "sqrt"}, ["normally one of them is used"]),
])  # fmt: skip
def test_the_header_says_what_matters(counts, words, said):
    lines = class_balance.describe(tiny_config("digits", **words), facts(*counts), NAMES)
    assert len(lines) == len(said) and all(part in line for part, line in zip(said, lines, strict=True)), lines


def test_the_command_line_refuses_and_writes_nothing(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("model: {name: resnet10t}\n")
    words = [f"--config.data.name={write_npz(tmp_path / 'data')}", "--config.loss.class_weights=(1,2,3,4)"]
    workdir = tmp_path / "run"
    assert cli.main(["--config", str(tmp_path / "c.yaml"), "--workdir", str(workdir), *words]) == 2
    assert "has 4 numbers" in capsys.readouterr().err and not workdir.exists()


@pytest.mark.parametrize(
    "place", [{}, {"parallel__num_devices": 4}, {"parallel__num_devices": 2, "parallel__mode": "pmap"}]
)
def test_the_step_weighs_and_adjusts_at_every_placement(tmp_path, place):
    """A first step, in two parts, against the formula in float64."""
    config = tiny_config(
        write_npz(tmp_path / "data", num_train=40), model__depth=1, batch_size=16, optim__accum_steps=2,
        loss__class_weights=(1.0, 2.0, 6.0), loss__label_smoothing=0.1, loss__logit_adjustment=1.5,
        data__imbalance=4.0, data__sampling="sqrt", augment__flip=False, augment__crop_padding=0, **place,
    )  # fmt: skip
    run, state = prepare(config, tmp_path / "run")
    run.checkpoints.close()
    counts = np.bincount(run.dataset.train.labels)
    share = np.sqrt(counts) / np.sqrt(counts).sum()
    weights = np.array([1.0, 2.0, 6.0]) / (share @ [1.0, 2.0, 6.0])
    order = run.order(0)[:16]
    _, batch = next(iter(run.dispatches(run.order(0), 0, 0)))
    images = np.asarray(run.dataset.train.images)[order]
    variables = {"params": state.params}
    logits = run.blueprint.model.apply(variables, run.blueprint.pixels.normalise(images.astype(np.float32) / 255))
    adjusted = np.asarray(logits, np.float64) + 1.5 * np.log(share)
    log_p = adjusted - np.log(np.exp(adjusted).sum(-1, keepdims=True))
    targets = 0.9 * np.eye(3)[run.dataset.train.labels[order]] + 0.1 / 3
    _, found = run.take_step(0, state, batch)
    assert float(found["loss"]) == pytest.approx(-(weights * targets * log_p).sum(-1).mean(), rel=1e-5)
