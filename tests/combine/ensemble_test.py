"""Ensembles and views against sums by hand, scikit-learn and Pillow; the commands on two runs."""

import csv
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvit import cli, combine, data, inference, models, train
from jaxvit.combine import gain, views
from jaxvit.combine.ensemble import logits_of
from jaxvit.errors import UserError
from tests.helpers import tiny_config, write_npz


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs that differ in their seed, on arrays with a test split of their own."""
    root = tmp_path_factory.mktemp("ensemble")
    name = write_npz(root / "data", num_test=30)
    for seed in (0, 1):
        train.train_and_evaluate(tiny_config(name, num_epochs=1, seed=seed), root / f"run{seed}")
    return root


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def classifier(seed=0, names=("a", "b", "c"), size=(16, 16), several=False, **words):
    """A small model with random weights, which is not the same in all classes."""
    model = models.create_model(
        "vit_tiny_patch16_224", num_classes=len(names), image_size=size, patch_size=4, embed_dim=8, depth=1, num_heads=2
    )
    variables = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, *size, 3)))
    head = jax.random.normal(jax.random.key(seed + 1), variables["params"]["head"]["kernel"].shape)
    variables = {"params": {**variables["params"], "head": {"kernel": head, "bias": jnp.zeros(len(names))}}}
    config = {"image_size": size, "mean": (0.5,) * 3, "std": (0.25,) * 3, "crop_pct": 0.875, "in_channels": 3,
              "interpolation": "bicubic", **words}  # fmt: skip
    thresholds = np.full(len(names), 0.5) if several else None
    return inference.Classifier("vit_tiny_patch16_224", model, variables, list(names), config, None, thresholds)


def test_the_mean_is_that_of_probabilities():
    logits = 4 * np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
    np.testing.assert_allclose(softmax(combine.log_mean(logits, False)), softmax(logits).mean(0), rtol=1e-5)
    found = np.asarray(combine.log_mean(logits, True))
    np.testing.assert_allclose(1 / (1 + np.exp(-found)), (1 / (1 + np.exp(-logits))).mean(0), rtol=1e-5)
    extreme = np.array([[[900.0, -900.0]], [[800.0, -800.0]]])
    assert np.isfinite(combine.log_mean(extreme, False)).all() and np.isfinite(combine.log_mean(extreme, True)).all()


def test_views_are_the_ten_crops():
    image = np.arange(8 * 8, dtype=np.float32).reshape(1, 8, 8, 1)
    found = np.asarray(views.views(jnp.asarray(image), "crops", (7, 7)))[:, 0, :, :, 0]
    grid = image[0, :, :, 0]
    corners = [grid[:7, :7], grid[:7, :7], grid[:7, 1:], grid[1:, :7], grid[1:, 1:]]  # the centre of one pixel is 0
    np.testing.assert_array_equal(found[::2], corners)
    np.testing.assert_array_equal(found[1::2], [corner[:, ::-1] for corner in corners])
    small = np.asarray(views.views(jnp.asarray(image), "crops", (8, 8)))[:, 0, :, :, 0]  # mirrored at the edges
    padded = np.pad(grid, 1, mode="symmetric")
    np.testing.assert_array_equal(small[::2], [grid, padded[:8, :8], padded[:8, 2:], padded[2:, :8], padded[2:, 2:]])
    flip = np.asarray(views.views(jnp.asarray(image), "flip", (8, 8)))
    np.testing.assert_array_equal(flip[:, 0, :, :, 0], [grid, grid[:, ::-1]])


@pytest.mark.parametrize(("form", "several"), [("flip", True), ("crops", False)])
def test_predictions_of_files_are_means_over_views(tmp_path, form, several):
    one = classifier(several=several)
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(path)
    ((_, found),) = combine.predict([combine.Member("a", one)], [path], tta=form)
    size = 16 if form == "flip" else 18  # 16 / 0.875
    words = one.data_config | ({"image_size": (18, 18), "crop_pct": 1.0} if form == "crops" else {})
    whole = data.preprocess(data.open_image(path), words)
    cut = [whole] if form == "flip" else [whole[y : y + 16, x : x + 16] for y in (0, 1, 2) for x in (0, 1, 2)][::2]
    assert whole.shape[0] == size
    both = np.stack([view for image in cut for view in (image, image[:, ::-1])])
    logits = np.asarray(jax.jit(one.model.apply)(one.variables, both))
    expected = (1 / (1 + np.exp(-logits)) if several else softmax(logits)).mean(0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_first_view_is_the_plain_image(tmp_path):
    one = classifier(size=(56, 56))
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (90, 70, 3), dtype=np.uint8)).save(path)
    wide = combine.with_views(one, "crops", wide=True)
    large = data.preprocess(data.open_image(path), wide.data_config)
    assert large.shape == (64, 64, 3)
    first = views.views(large[None], "crops", (56, 56))[0, 0]
    np.testing.assert_array_equal(first, data.preprocess(data.open_image(path), one.data_config))


def test_members_keep_their_preprocessing_and_the_order_of_their_classes(tmp_path):
    name = write_npz(tmp_path / "data", num_test=30, size=16)
    a = combine.Member("a", classifier(0, ("0", "1", "2")))
    b = combine.Member("b", classifier(5, ("2", "0", "1"), size=(8, 8), mean=(0.1,) * 3))
    found = combine.evaluate([a, b], data_name=name)
    with np.load(tmp_path / "data" / "test.npz") as stored:
        images, labels = stored["image"].astype(np.float32) / 255, stored["label"]
    first = softmax(np.asarray(jax.jit(a.classifier.model.apply)(a.classifier.variables, (images - 0.5) / 0.25)))
    opened = inference.open_split(b.classifier, data_name=name)
    second = softmax(logits_of(b.classifier, opened, 64)[0])[:, [1, 2, 0]]
    assert {*found.labels} == {0, 1, 2} and len(found.labels) == 30
    order = np.argsort([f"test.npz[{i}]" for i in range(30)])
    np.testing.assert_array_equal(found.labels, labels[order])
    mean = (first + second)[order] / 2
    np.testing.assert_allclose(softmax(found.whole.logits), mean, atol=1e-5)
    assert found.whole.metrics["accuracy"] == pytest.approx(np.mean(mean.argmax(1) == labels[order]))
    nll = -np.log(mean[np.arange(30), labels[order]]).mean()
    assert found.whole.metrics["loss"] == pytest.approx(nll, rel=1e-5)


def test_members_that_do_not_fit():
    first = combine.Member("a", classifier(0, ("x", "y", "z")))
    for other, said in (
        (classifier(0, ("x", "y")), r"different classes \(3 and 2\): 'z'"),
        (classifier(0, ("x", "y", "w")), "'z' is a class of one alone"),
        (classifier(0, ("x", "y", "z"), several=True), "a has one label per image, b has several labels"),
    ):
        with pytest.raises(UserError, match=said):
            combine.check_classes([first, combine.Member("b", other)])


def test_gain_of_mean_average_precision_against_scikit_learn():
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(3)
    labels = (rng.random((40, 3)) < 0.4).astype(np.uint8)
    logits = np.round(rng.normal(size=(40, 3)) + labels, 1)  # with ties
    weights = rng.multinomial(40, np.full(40, 1 / 40), 5).astype(float)
    for w, found in zip(weights, gain.weighted_map(logits, labels, weights), strict=True):
        expected = np.mean([average_precision_score(labels[:, k], logits[:, k], sample_weight=w) for k in range(3)])
        assert found == pytest.approx(expected)
    better = logits + labels
    result = combine.measure_gain(logits, better, labels)
    of_each = [average_precision_score(labels, x) for x in (logits, better)]
    assert result.figure == "mAP" and result.difference == pytest.approx(of_each[1] - of_each[0])
    assert 0 < result.low < result.difference < result.high and result.p is None


class TestCommands:
    """`eval` and `predict` on runs."""

    def test_eval_of_an_ensemble(self, runs, capsys, tmp_path):
        words = ["eval", "--workdir", str(runs / "run0"), "--workdir", str(runs / "run1"), "--ensemble"]
        assert cli.main([*words, "--json", str(tmp_path / "found.json")]) == 0
        logits = []
        for seed in (0, 1):
            with np.load(runs / f"run{seed}" / "predictions.npz") as stored:
                logits.append(stored["logits"])
                labels = stored["labels"]
        hits = [p.argmax(1) == labels for p in (*map(softmax, logits), (softmax(logits[0]) + softmax(logits[1])) / 2)]
        found = json.loads((tmp_path / "found.json").read_text())
        assert [each["accuracy"] for each in found["predictions"]] == pytest.approx([h.mean() for h in hits])
        assert [each["forward_passes"] for each in found["predictions"]] == [1, 1, 2]
        best = max(hits[:2], key=np.mean)
        assert found["gain"]["difference"] == pytest.approx(hits[2].mean() - best.mean())
        assert (found["gain"]["gained"], found["gain"]["lost"]) == (np.sum(hits[2] & ~best), np.sum(best & ~hits[2]))
        assert "gain over the best member" in capsys.readouterr().out

    def test_eval_with_views(self, runs, capsys, tmp_path):
        words = ["eval", "--workdir", str(runs / "run0"), "--tta", "crops", "--json", str(tmp_path / "found.json")]
        assert cli.main(words) == 0
        found = json.loads((tmp_path / "found.json").read_text())
        with np.load(runs / "run0" / "predictions.npz") as stored:
            assert found["predictions"][0]["accuracy"] == pytest.approx(
                np.mean(stored["logits"].argmax(1) == stored["labels"])
            )
        assert [each["forward_passes"] for each in found["predictions"]] == [1, 10]
        assert "95 % interval" in capsys.readouterr().out

    def test_predict_of_an_ensemble(self, runs, capsys, tmp_path):
        paths = []
        for i in range(3):
            paths.append(tmp_path / f"{i}.png")
            Image.fromarray(np.random.default_rng(i).integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(paths[-1])
        paths.append(paths[0])  # the same file twice
        words = ["predict", "--workdir", str(runs / "run0"), "--workdir", str(runs / "run1"), *map(str, paths)]
        assert cli.main([*words, "--csv", str(tmp_path / "found.csv")]) == 0
        assert "2 forward passes an image" in capsys.readouterr().out
        with open(tmp_path / "found.csv", newline="") as opened:
            rows = list(csv.DictReader(opened))
        each = [dict(inference.predict(inference.from_run(runs / f"run{seed}"), paths)) for seed in (0, 1)]
        assert len(rows) == 4 * 3
        for row in rows:
            path = next(path for path in paths if str(path) == row["file"])
            expected = (each[0][path] + each[1][path])[int(row["label"])] / 2
            assert float(row["probability"]) == pytest.approx(expected, abs=1e-6)

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["run0", "run1"], "several --workdir"),
            (["run0", "--ensemble"], "--ensemble needs two runs"),
            (["run0", "run0", "--ensemble"], "was given twice"),
            (["run0", "run1", "--ensemble", "--split", "val"], "are not the same (seed 0 and 1)"),
            (["run0", "other", "--ensemble"], "were trained on different data"),
            (["run0", "--tta", "zoom"], "invalid choice: 'zoom'"),
        ],
    )
    def test_mistakes(self, runs, capsys, words, said):
        if "other" in words and not (runs / "other").exists():
            shutil.copytree(runs / "run1", runs / "other")
            config = json.loads((runs / "other/config.json").read_text())
            config["data"]["name"] = "npz:elsewhere"
            (runs / "other/config.json").write_text(json.dumps(config))
            (runs / "other/manifest.json").unlink(missing_ok=True)
        line = [x for word in words for x in (["--workdir", str(runs / word)] if (runs / word).is_dir() else [word])]
        code = cli.main(["eval", *line])
        err = capsys.readouterr().err
        assert code == 2 and said in err and len([x for x in err.splitlines() if "error" in x]) == 1
