"""Temperature, abstentions and unknown images, from the command line, with one small run."""

import csv
import dataclasses
import io
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn import metrics

from jaxvit import confidence, inference, pretrained, train
from jaxvit.commands import export, source
from jaxvit.errors import UserError
from jaxvit.reports import confidence as sections
from jaxvit.reports.runs import read_runs
from tests.helpers import tiny_config
from tests.helpers.commands import failed, passed


def write_data(directory):
    """Class k is brighter in channel k, and one label in four is wrong: no model has all of them right."""
    rng = np.random.default_rng(0)
    directory.mkdir()
    for split, n in (("train", 120), ("test", 30)):
        labels = (np.arange(n) % 3).astype(np.int32)
        images = rng.integers(0, 100, (n, 8, 8, 3))
        images[np.arange(n), :, :, labels] += 140
        labels[::4] = (labels[::4] + 1) % 3
        np.savez(directory / f"{split}.npz", image=images.astype(np.uint8), label=labels)
    return f"npz:{directory}"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("trust")
    config = tiny_config(write_data(root / "data"), num_epochs=6, data__val_fraction=0.4, optim__learning_rate=3e-3)
    train.train_and_evaluate(config, root / "run")
    return root / "run"


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Images of nothing, in a folder without classes."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(1)
    for i in range(7):
        Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_a_run_ends_with_its_temperature_and_calibrate_fits_the_same(run, copy, capsys):
    record = json.loads((run / "calibration.json").read_text())
    assert record["images"] == 48 and record["nll_calibrated"] <= record["nll"]
    assert "calibration.json" in json.loads((run / "manifest.json").read_text())["files"]
    said, _ = passed(capsys, ["eval", "--workdir", copy, "--calibrate"])
    again, one = json.loads((copy / "calibration.json").read_text()), inference.from_run(copy)
    opened = inference.open_split(one, "val")
    _, logits, places = inference.SplitReader(one, opened)(one.variables)
    labels = opened.split.labels[places]
    grid = np.exp(np.linspace(-4, 4, 2001))
    of_labels = [np.log(softmax(logits / t)[np.arange(len(labels)), labels]) for t in grid]
    best = grid[np.argmax(np.mean(of_labels, axis=1))]
    assert again["temperature"] == pytest.approx(best, rel=0.003)
    assert again["temperature"] == pytest.approx(record["temperature"], rel=1e-4)
    assert "--temperature run applies it" in said and not list(copy.glob(".*.tmp"))
    assert confidence.read_temperature(copy) == again["temperature"]  # the manifest knows the new one


def test_eval_and_predict_at_a_temperature(run, photos, tmp_path, capsys):
    with np.load(run / "predictions.npz") as saved:
        logits, labels = saved["logits"], saved["labels"]
    t = json.loads((run / "calibration.json").read_text())["temperature"]
    for word, value in (("run", t), ("3.5", 3.5)):
        passed(capsys, ["eval", "--workdir", run, "--temperature", word, "--json", tmp_path / "m.json"])
        found = json.loads((tmp_path / "m.json").read_text())
        assert found["loss"] == pytest.approx(metrics.log_loss(labels, softmax(logits / value)), rel=1e-4)
        assert found["accuracy"] == pytest.approx(np.mean(logits.argmax(-1) == labels))
    p = softmax(logits / 3.5)
    bins = np.ceil(p.max(-1) * 15)
    gaps = [abs(np.sum((p.max(-1) - (p.argmax(-1) == labels))[bins == b])) for b in np.unique(bins)]
    assert found["ece"] == pytest.approx(sum(gaps) / len(labels), abs=1e-6)
    plain = dict(inference.predict(inference.from_run(run), sorted(photos.glob("*.png"))))
    words = ["predict", "--workdir", run, photos, "--temperature", "2", "--json", tmp_path / "p.json", "--top", "3"]
    passed(capsys, words)
    for entry in json.loads((tmp_path / "p.json").read_text()):
        before = next(v for path, v in plain.items() if str(path) == entry["file"])
        wanted = np.sqrt(before) / np.sqrt(before).sum()
        assert "abstained" not in entry
        for k in entry["classes"]:
            assert k["probability"] == pytest.approx(wanted[k["label"]], rel=1e-4)


def test_predictions_below_the_least_confidence_are_abstentions(run, photos, tmp_path, capsys):
    best = sorted(float(p.max()) for _, p in inference.predict(inference.from_run(run), sorted(photos.glob("*.png"))))
    least = (best[2] + best[3]) / 2
    files = ["--csv", tmp_path / "p.csv", "--json", tmp_path / "p.json"]
    said, _ = passed(capsys, ["predict", "--workdir", run, photos, "--min-confidence", least, "--top", "1", *files])
    assert "abstained on 3 of 7 images" in said
    rows = list(csv.DictReader(io.StringIO((tmp_path / "p.csv").read_text())))
    assert [row["abstained"] == "yes" for row in rows] == [float(row["probability"]) < least for row in rows]
    entries = json.loads((tmp_path / "p.json").read_text())
    assert [entry["abstained"] for entry in entries] == [row["abstained"] == "yes" for row in rows]
    assert sum(entry["abstained"] for entry in entries) == 3


def test_a_temperature_travels_with_export_and_convert(run, tmp_path, capsys):
    config = json.loads((run / "config.json").read_text())["data"]
    with np.load(run / "predictions.npz") as saved, np.load(run.parent / "data" / "test.npz") as test:
        logits, images = saved["logits"], test["image"].astype(np.float32) / 255
    images = (images - np.float32(config["mean"])) / np.float32(config["std"])
    export.write(source.from_run(str(run), 2.0), "stablehlo", tmp_path)
    program = jax.export.deserialize(bytearray((tmp_path / "model.stablehlo").read_bytes()))
    np.testing.assert_allclose(program.call(images), logits / 2, atol=1e-5)
    assert json.loads((tmp_path / "preprocessing.json").read_text())["temperature"] == 2.0
    said, _ = passed(capsys, ["convert", "--from", run, "--to", tmp_path / "c", "--temperature", "run"])
    t = confidence.read_temperature(run)
    assert f"temperature  {t:.4g}" in said
    model, variables = pretrained.load_pretrained(None, tmp_path / "c")
    np.testing.assert_allclose(jax.jit(model.apply)(variables, images), logits / t, atol=1e-5 / min(t, 1))


def test_unknown_images(run, copy, photos, capsys):
    said, _ = passed(capsys, ["eval", "--workdir", copy, "--unknown", f"folder:{photos}", "--neighbours", "5"])
    stem = copy / "unknown" / f"folder_{photos.name}"
    report = json.loads(stem.with_suffix(".json").read_text())
    assert report["known"]["images"] == 30 and report["unknown"]["images"] == 7
    assert (report["neighbours"], report["train_images"]) == (5, 72)
    rows = list(csv.DictReader(io.StringIO(stem.with_suffix(".csv").read_text())))
    truth = np.array([row["images"] == "known" for row in rows])
    assert truth.sum() == 30 and [row["image"] for row in rows[30:]] == [f"{i}.png" for i in range(7)]
    with np.load(copy / "predictions.npz") as saved:
        logits = saved["logits"]
    for name, wanted in (("max_softmax", softmax(logits).max(-1)), ("energy", np.log(np.exp(logits).sum(-1)))):
        scores = np.array([float(row[name]) for row in rows])
        np.testing.assert_allclose(scores[:30], wanted, rtol=1e-5)
        assert report["scores"][name]["auroc"] == pytest.approx(metrics.roc_auc_score(truth, scores))
        assert f"{report['scores'][name]['auroc']:.2%}" in said
        assert sum(report["scores"][name]["histogram"]["known"]) == 30
    with Image.open(stem.with_suffix(".png")) as picture:
        assert picture.width > picture.height
    runs = read_runs([copy])
    *drawings, table = sections.unknown(runs)
    assert len(drawings) == 1 and [row[2] for row in table.rows] == ["max softmax", "energy", "kNN"]
    figures = {
        block.name for block in (*sections.calibration(runs), *sections.held_back(runs)) if block.type == "figure"
    }
    assert figures == {"reliability_run", "reliability_run_calibrated", "risk_coverage"}
    later = [dataclasses.replace(runs[0], summary={**runs[0].summary, "finished": "later"})]
    (note,) = sections.unknown(later)
    assert "of earlier weights" in note.text
    stem.with_suffix(".json").write_text("{}")
    (damaged,) = sections.unknown(runs)
    assert "is damaged" in damaged.text
    (copy / "others.csv").write_text("where,what\n" + "".join(f"{p},{i % 2}\n" for i, p in enumerate(photos.iterdir())))
    words = ["eval", "--workdir", copy, "--unknown", f"csv:{copy / 'others.csv'}", "--columns", "file=where,label=what"]
    words += ["--out", copy / "more"]
    assert "30 images of" in (said := passed(capsys, words)[0]) and "against 7 of csv:" in said


def test_mistakes_are_said_in_two_lines(run, copy, photos, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    at, image = ["--workdir", run], str(sorted(photos.glob("*.png"))[0])
    (copy / "calibration.json").unlink()
    for words, said in (
        (
            ["predict", *at, image, "--min-confidence", "1.5"],
            "'1.5' is not a probability; expected a number from 0 to 1",
        ),
        (["predict", *at, image, "--min-confidence", "high"], "'high' is not a probability"),
        (["predict", *at, image, "--temperature", "0"], "'0' is not a temperature; expected a positive number, or run"),
        (["predict", *at, image, "--temperature", "inf"], "'inf' is not a temperature"),
        (["predict", "--workdir", copy, image, "--temperature", "run"], "--calibrate fits one"),
        (["predict", "--workdir", tmp_path / "gone", image, "--temperature", "run"], "no run in"),
        (["eval", *at, "--calibrate", "--data", "digits"], "without --data"),
        (["eval", *at, "--calibrate", "--checkpoint", "x.safetensors"], "without --checkpoint"),
        (["eval", *at, "--columns", "file=a"], "does not use it"),
        (["eval", *at, "--data-dir", "d"], "does not use it"),
        (["eval", *at, "--unknown", f"folder:{photos}", "--columns", "file=a"], "does not use it"),
        (["eval", *at, "--unknown", f"folder:{tmp_path / 'empty'}"], "no images"),
        (["eval", *at, "--unknown", f"folder:{tmp_path / 'gone'}"], "no such directory"),
        (["eval", *at, "--unknown", f"npz:{run.parent / 'data'}"], "are the known images"),
        (["eval", *at, "--unknown", f"folder:{photos}", "--neighbours", "100"], "100th nearest of 72"),
        (["eval", *at, "--neighbours", "3"], "--neighbours needs --unknown"),
        (["eval", *at, "--workdir", copy, "--calibrate"], "--calibrate is for one run"),
        (["eval", *at, "--unknown", f"folder:{photos}", "--tta", "flip"], "--unknown is for one run and one view"),
        (["eval", *at, "--unknown", f"folder:{photos}", "--json", tmp_path / "x.json"], "give --out DIR"),
    ):
        assert said in failed(capsys, words)
    assert not (run / "unknown").exists()
    (copy / "calibration.json").write_text('{"temperature": "hot"}')
    with pytest.raises(UserError, match="has changed since the run"):
        confidence.read_temperature(copy)
    config = json.loads((copy / "config.json").read_text())
    config["data"]["val_fraction"] = 0.0
    (copy / "config.json").write_text(json.dumps(config))
    for name in ("manifest.json", "summary.json"):  # which records the split that there was
        (copy / name).unlink()
    assert "has no validation split" in failed(capsys, ["eval", "--workdir", copy, "--calibrate"])
    assert (copy / "calibration.json").read_text() == '{"temperature": "hot"}'
    assert "its temperature is not a positive number" in failed(
        capsys, ["predict", "--workdir", copy, image, "--temperature", "run"]
    )
