"""Ensembles and views against sums by hand, scikit-learn and Pillow; the commands on two runs."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from jaxvit import cli, combine, inference, models
from jaxvit.combine.passes import logits_of
from jaxvit.errors import UserError
from tests.helpers import write_npz


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


def test_a_limit_draws_the_same_images_for_members_of_any_order_of_classes(tmp_path):
    """Classes of equal size: the rarest label of an image, by which a draw goes, is then the first in order."""
    rows = [(f"{i}.png", ("a", "b", "a|b")[i % 3]) for i in range(24)]
    for i, (name, _) in enumerate(rows):
        Image.fromarray(np.full((8, 8, 3), 10 * i, np.uint8)).save(tmp_path / name)
    (tmp_path / "l.csv").write_text("file,label\n" + "".join(f"{name},{label}\n" for name, label in rows))
    members = [combine.Member(order, classifier(0, order, size=(8, 8), several=True)) for order in ("ab", "ba")]
    found = combine.evaluate(members, data_name=f"csv:{tmp_path / 'l.csv'}", limit=7)
    assert found.labels.shape == (7, 2) and found.labels.any(axis=1).all() and found.of == 24


def test_members_that_do_not_fit():
    first = combine.Member("a", classifier(0, ("x", "y", "z")))
    for other, said in (
        (classifier(0, ("x", "y")), r"different classes \(3 and 2\): 'z'"),
        (classifier(0, ("x", "y", "w")), "'z' is a class of only one of them"),
        (classifier(0, ("x", "y", "z"), several=True), "a has one label per image, b has several labels"),
    ):
        with pytest.raises(UserError, match=said):
            combine.check_classes([first, combine.Member("b", other)])


class TestCommands:
    """`eval` and `predict` on runs."""

    def test_eval_of_an_ensemble(self, runs, capsys, tmp_path):
        words = ["eval", "--workdir", str(runs / "run0"), "--workdir", str(runs / "run1"), "--ensemble"]
        assert cli.main([*words, "--json", str(tmp_path / "found.json")]) == 0
        logits = []
        for seed in (0, 1):
            one = inference.from_run(runs / f"run{seed}")
            opened = inference.open_split(one)
            logits.append(logits_of(one, opened, 64)[0])
            labels = opened.split.labels
        hits = [p.argmax(1) == labels for p in (*map(softmax, logits), (softmax(logits[0]) + softmax(logits[1])) / 2)]
        found = json.loads((tmp_path / "found.json").read_text())
        assert [each["accuracy"] for each in found["predictions"]] == pytest.approx([h.mean() for h in hits])
        assert [each["forward_passes"] for each in found["predictions"]] == [1, 1, 2]
        for each, hit in zip(found["predictions"], hits, strict=True):
            low, high = binomtest(int(hit.sum()), len(hit)).proportion_ci(method="wilson")
            assert each["accuracy_interval"] == pytest.approx([low, high], abs=1e-7)
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
        assert "2 forward passes per image" in capsys.readouterr().out
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
        line = [x for word in words for x in (["--workdir", str(runs / word)] if (runs / word).is_dir() else [word])]
        code = cli.main(["eval", *line])
        err = capsys.readouterr().err
        assert code == 2 and said in err and len([x for x in err.splitlines() if "error" in x]) == 1
