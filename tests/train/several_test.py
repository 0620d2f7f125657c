"""Several labels per image, from the file of labels to the report: one small run, and what asks for it wrongly."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as sklearn_metrics

from jaxvit.commands import export, source
from jaxvit.config import default
from jaxvit.errors import UserError
from jaxvit.inference import evaluate_split, from_run
from jaxvit.reports.report import write_report
from jaxvit.step import bce, multi_label, steps
from jaxvit.train import train_and_evaluate
from tests.helpers.commands import failed, passed
from tests.helpers.workdirs import lines

CLASSES = ("blue", "green", "red")


def _write(root, n=96):
    """Images whose channels are bright or dark; the labels are the bright ones."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        on = rng.random(3) < 0.4
        image = rng.integers(0, 60, (8, 8, 3)) + 150 * on[::-1]
        Image.fromarray(image.astype(np.uint8)).save(root / f"{i:02}.png")
        rows.append((f"{i:02}.png", "|".join(name for name, there in zip(CLASSES, on, strict=True) if there)))
    with open(root / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("file", "labels"), *rows])
    return f"csv:{root / 'labels.csv'}"


def _config(name, **words):
    config = default()
    config.num_epochs, config.batch_size = 6, 16
    config.model.update({"name": "vit_tiny_patch16_224", "patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 2})
    config.data.update({"name": name, "image_size": 8, "val_fraction": 0.2})
    config.loss.name, config.optim.learning_rate = "bce", 1e-2
    with config.unlocked(), config.ignore_type():
        for word, value in words.items():
            section, _, option = word.rpartition("__")
            (config[section] if section else config)[option] = value
    return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("several")
    name = _write(root)
    config = _config(name, augment__mixup_alpha=0.2, augment__cutmix_alpha=1.0, augment__flip=True, ema__decay=0.9)
    final = train_and_evaluate(config, root / "run")
    return root, config, final


def test_figures_are_those_of_scikit_learn_at_the_thresholds_that_were_chosen_on_validation(trained):
    root, config, final = trained
    stored = np.load(root / "run" / "predictions.npz")
    thresholds = np.array(json.loads((root / "run" / "thresholds.json").read_text()))
    assert stored["labels"].shape == stored["logits"].shape == (19, 3) and thresholds.shape == (3,)
    said = multi_label.sigmoid(stored["logits"]) >= thresholds
    truth, p = stored["labels"], 1 / (1 + np.exp(-stored["logits"].astype(np.float64)))
    assert final["test/mAP"] == pytest.approx(sklearn_metrics.average_precision_score(truth, stored["logits"]))
    assert final["test/macro_f1"] == pytest.approx(sklearn_metrics.f1_score(truth, said, average="macro"))
    assert final["test/micro_f1"] == pytest.approx(sklearn_metrics.f1_score(truth, said, average="micro"))
    assert final["test/exact_match"] == pytest.approx(sklearn_metrics.accuracy_score(truth, said))
    assert final["test/loss"] == pytest.approx(sklearn_metrics.log_loss(truth.ravel(), p.ravel()), rel=1e-4)
    assert final["test/mAP"] > 0.9 and "test/accuracy" not in final
    of_val = [line["val/mAP"] for line in lines(root / "run")] + [line["val_ema/mAP"] for line in lines(root / "run")]
    chosen = final["val_ema/mAP"] if final["weights"] == "average" else final["val/mAP"]
    assert chosen == max(of_val) and "train/exact_match" in lines(root / "run")[-1]
    classifier = from_run(root / "run")
    val = evaluate_split(classifier, "val").metrics
    assert val["mAP"] == pytest.approx(chosen)
    assert train_and_evaluate(config, root / "run") == final  # finished


def test_eval_and_predict_say_all_classes_above_their_thresholds(trained, capsys):
    root, _, final = trained
    out, _ = passed(capsys, ["eval", "--workdir", root / "run", "--json", root / "eval.json"])
    assert "mAP" in out and "exact match" in out and "top-1" not in out
    assert json.loads((root / "eval.json").read_text())["macro_f1"] == pytest.approx(final["test/macro_f1"])
    passed(capsys, ["eval", "--workdir", root / "run", "--data", f"csv:{root / 'labels.csv'}", "--split", "all"])
    files = [root / f"{i:02}.png" for i in range(12)]
    passed(capsys, ["predict", "--workdir", root / "run", *files, "--csv", root / "p.csv", "--json", root / "p.json"])
    thresholds = dict(zip(CLASSES, json.loads((root / "run" / "thresholds.json").read_text()), strict=True))
    found = json.loads((root / "p.json").read_text())
    assert [entry["file"] for entry in found] == list(map(str, files))
    assert {len(entry["classes"]) for entry in found} > {0, 1}
    for entry in found:
        assert all(c["probability"] >= thresholds[c["name"]] for c in entry["classes"])
    with open(root / "p.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(r["file"], r["name"]) for r in rows if r["name"] != "none"} == {
        (entry["file"], c["name"]) for entry in found for c in entry["classes"]
    }
    passed(capsys, ["predict", "--workdir", root / "run", files[0], "--top", "3", "--json", root / "top.json"])
    assert len(json.loads((root / "top.json").read_text())[0]["classes"]) == 3


def test_thresholds_travel_with_the_weights(trained, capsys, tmp_path):
    root, _, _ = trained
    out, weights = tmp_path / "export", tmp_path / "weights"
    passed(capsys, ["convert", "--from", root / "run", "--to", weights])
    files = [root / f"{i:02}.png" for i in range(12)]
    model = ["--model", "vit_tiny_patch16_224", "--checkpoint", weights]
    for which, words in (("run", ["--workdir", root / "run"]), ("weights", model)):
        passed(capsys, ["predict", *words, *files, "--json", tmp_path / f"{which}.json"])
    found, wanted = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("weights", "run"))
    assert len({len(entry["classes"]) for entry in wanted}) > 1
    for entry, same in zip(found, wanted, strict=True):
        assert [c["name"] for c in entry["classes"]] == [c["name"] for c in same["classes"]]
        chances = [[c["probability"] for c in one["classes"]] for one in (entry, same)]
        assert chances[0] == pytest.approx(chances[1])
    thresholds = json.loads((root / "run" / "thresholds.json").read_text())
    out.mkdir()
    export.write(source.from_file(None, str(weights)), "safetensors", out)
    assert json.loads((out / "preprocessing.json").read_text())["thresholds"] == thresholds
    assert json.loads((out / "config.json").read_text())["thresholds"] == thresholds
    passed(capsys, ["convert", "--checkpoint", weights, "--num-classes", 5, "--to", tmp_path / "new"])
    assert "thresholds" not in json.loads((tmp_path / "new/config.json").read_text())
    config = json.loads((weights / "config.json").read_text())
    (weights / "config.json").write_text(json.dumps(config | {"thresholds": [0.5, 2.0, 0.1]}))
    assert "a probability, for each of 3 classes" in failed(capsys, ["predict", *model, files[0]])


def test_explain_and_report_know_of_no_single_class(trained, capsys, tmp_path):
    root, _, _ = trained
    passed(capsys, ["explain", "--workdir", root / "run", "--samples", 3, "--out", tmp_path / "e"])
    assert "one label" in failed(capsys, ["explain", "--workdir", root / "run", "--samples", 3, "--only",
                                          "most_confused", "--out", tmp_path / "f"])  # fmt: skip
    write_report([root / "run"], tmp_path / "report", deep=True)
    page = (tmp_path / "report" / "report.md").read_text()
    titles = [line for line in page.splitlines() if line.startswith("## ")]
    assert {"## Classes", "## Calibration", "## Precision and recall", "## Training"} <= set(titles)
    assert not {"## Confusion", "## Abstention", "## Confident mistakes"} & set(titles) and "top-1" not in page
    with open(tmp_path / "report" / "classes.csv", newline="") as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    stored = np.load(root / "run" / "predictions.npz")
    for k, name in enumerate(CLASSES):
        precision = sklearn_metrics.average_precision_score(stored["labels"][:, k], stored["logits"][:, k])
        assert float(rows[name]["average_precision"]) == pytest.approx(precision)


def test_an_image_without_labels_is_mixed_as_others_and_an_unreadable_one_is_not():
    seen = {}

    def augment(key, images, targets):
        seen["sums"] = targets.sum(-1)
        return images, targets

    model = _Linear()
    task = steps.Task(num_classes=3, several=True, objective=lambda out, batch: (
        bce.sigmoid_cross_entropy(out, batch["targets"]), out))  # fmt: skip
    pixels = steps.Pixels(to_float=lambda x: x.astype(jnp.float32), normalise=lambda x: x, augment=augment)
    import optax

    from jaxvit.step.state import create_state

    variables = {"params": {"w": jnp.zeros((3, 3))}}
    update = steps.Update(tx=optax.with_extra_args_support(optax.sgd(0.1)), schedule=lambda step: 0.1,
                          trainable={"w": True})  # fmt: skip
    step = steps.make_train_step(model=model, pixels=pixels, task=task, update=update)
    state = create_state(variables, update.tx, update.trainable, jax.random.key(0))
    labels = jnp.array([[0, 0, 0], [1, 0, 1], [0, 0, 0]], jnp.uint8)
    batch = {"image": jnp.ones((3, 1, 1, 3), jnp.uint8), "label": labels, "mask": jnp.array([True, True, False])}
    _, metrics = step(state, batch)
    assert seen["sums"].tolist() == [1, 3, 0]  # with the column that says "readable"
    assert float(metrics["loss"]) == pytest.approx(np.log(2)) and float(metrics["exact_match"]) == 0


class _Linear:
    """Three logits of the mean colour."""

    def apply(self, variables, images, train=False, rngs=None, mutable=False):
        logits = jnp.mean(images, axis=(1, 2)) @ variables["params"]["w"]
        return (logits, {}) if train else logits


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"loss__name": "cross_entropy"}, "has several labels per image, loss.name=cross_entropy "),
        ({"loss__class_weights": "balanced"}, "loss.class_weights is set"),
        ({"data__sampling": "balanced"}, "data.sampling is set"),
        ({"loss__pos_weight": (1.0, 2.0)}, "loss.pos_weight has 2 numbers; "),
        ({"loss__pos_weight": -1.0}, "loss.pos_weight is -1.0; expected balanced"),
        ({"early_stopping__metric": "top5_accuracy"}, "early_stopping.metric is 'top5_accuracy'"),
        ({"data__name": "digits", "early_stopping__metric": "mAP"}, "digits has one label per image"),
    ],
)
def test_what_does_not_fit_several_labels_is_refused_before_anything_is_written(trained, tmp_path, words, said):
    with pytest.raises(UserError) as error:
        train_and_evaluate(_config(trained[1].data.name, **words), tmp_path / "run")
    assert said in str(error.value) and not (tmp_path / "run").exists()


def test_one_label_per_image_trains_with_binary_cross_entropy_too(tmp_path):
    config = _config("digits", data__image_size=8, num_epochs=8, loss__label_smoothing=0.1)
    config.loss.bce_target_thresh, config.loss.bce_sum, config.optim.learning_rate = 0.2, True, 3e-3
    config.batch_size, config.parallel.num_devices = 32, 1
    final = train_and_evaluate(config, tmp_path / "run")
    assert final["test/accuracy"] > 0.5 and "test/mAP" not in final


@pytest.mark.slow  # tests/step/steps_test.py compares a step on four devices with one
def test_four_devices_give_what_one_gives(trained, tmp_path):
    found = {}
    for devices in (1, 4):
        config = _config(trained[1].data.name, num_epochs=1, loss__pos_weight="balanced", loss__label_smoothing=0.1)
        config.parallel.num_devices, config.optim.sam.rho = devices, 0.05
        found[devices] = train_and_evaluate(config, tmp_path / str(devices))
    for name in ("test/loss", "val/loss", "test/mAP", "val/micro_f1"):
        assert found[1][name] == pytest.approx(found[4][name], abs=1e-4)
