"""ImageNet-ReaL: right is what people saw in an image; images without labels are left out."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from jaxvit import cli, inference
from jaxvit.data import imagenet as imagenet_data
from jaxvit.errors import UserError
from jaxvit.inference import real

NAMES = [f"val/n01440764/ILSVRC2012_val_{number:08d}.JPEG" for number in (2, 1, 50_000, 7, 8)]


def _file(path, labels):
    """`labels`: {number of an image: its labels}; the others have none."""
    path.write_text(json.dumps([labels.get(i, []) for i in range(1, imagenet_data.NUM_VAL + 1)]))
    return str(path)


def _logits():
    logits = np.zeros((5, 1000), np.float32)
    for row, best in zip(logits, ((3, 4), (5, 6), (999, 0), (10, 11), (20, 21)), strict=True):
        row[list(best)] = 2, 1
    return logits


def test_scores_worked_by_hand(tmp_path):
    file = _file(tmp_path / "real.json", {2: [3, 8], 1: [6], 50_000: [1, 2, 999], 8: [500]})  # 7 has none
    found = real.scores(_logits(), real.numbers(NAMES), real.read(file, np.arange(1000)))
    assert found == {"real_accuracy": 2 / 4, "real_top5_accuracy": 3 / 4, "real_images": 4}
    turned = real.read(file, np.arange(1000)[::-1])  # a model whose classes stand in another order
    assert real.scores(_logits()[:, ::-1], real.numbers(NAMES), turned) == found


@pytest.mark.torch
def test_scores_are_those_of_timm(tmp_path):
    torch = pytest.importorskip("torch")
    timm_labels = pytest.importorskip("timm.data.real_labels")
    rng = np.random.default_rng(0)
    numbers = rng.permutation(imagenet_data.NUM_VAL) + 1
    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in numbers]
    logits = rng.normal(size=(200, 1000)).astype(np.float32)
    order = logits.argsort(axis=-1)[:, ::-1]
    sets = {
        int(n): [int(k) for k in row[rng.integers(0, 9, rng.integers(0, 4))]]
        for n, row in zip(numbers, order, strict=False)
    }
    file = _file(tmp_path / "real.json", sets)
    timms = timm_labels.RealLabelsImagenet(names, real_json=file)
    timms.add_result(torch.from_numpy(logits))
    found = real.scores(logits, real.numbers(names[:200]), real.read(file, np.arange(1000)))
    assert 0 < found["real_images"] < 200
    assert 100 * found["real_accuracy"] == pytest.approx(timms.get_accuracy(k=1))
    assert 100 * found["real_top5_accuracy"] == pytest.approx(timms.get_accuracy(k=5))


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        real.read(str(tmp_path / "none.json"), np.arange(1000))
    for content in ("no JSON", "[]", json.dumps([[0]] * 49_999), json.dumps([[1000]] * 50_000), '{"a": 1}'):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(UserError, match="not the labels of ImageNet-ReaL"):
            real.read(str(tmp_path / "x.json"), np.arange(1000))
    sets = real.read(_file(tmp_path / "real.json", {1: [0]}), np.arange(1000))
    with pytest.raises(UserError, match=r"'a.jpg' is not one of"):
        real.numbers(np.array(["ILSVRC2012_val_00000001.JPEG", "a.jpg"]))
    other = inference.Classifier("m", None, None, ["cat", "dog"], {})
    with pytest.raises(UserError, match=r"--real-labels: m has 2 classes .*\n.*1,000"):
        inference.evaluate_split(other, real_labels=str(tmp_path / "real.json"))
    with pytest.raises(UserError, match="none of the images has labels"):
        real.scores(_logits()[:1], real.numbers(NAMES[:1]), sets)


def test_eval_prints_both_accuracies(imagenet, tmp_path, capsys):
    classifier = inference.from_name("vit_tiny_patch16_224", str(imagenet[0]))
    rng, labels = np.random.default_rng(1), {}
    synsets = [synset for synset, _ in inference.imagenet_classes()]
    for number in (1, 20, 300, 4000):
        path = tmp_path / "val" / synsets[number % 1000] / f"ILSVRC2012_val_{number:08d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (30, 34, 3), np.uint8)).save(path)
        ((_, p),) = inference.predict(classifier, [path])
        best, worst = int(p.argmax()), int(p.argmin())
        labels[number] = {1: [best], 20: [worst, best], 300: [worst]}.get(number, [])
    words = ["eval", "--model", "vit_tiny_patch16_224", "--checkpoint", str(imagenet[0])]
    words += ["--data", f"folder:{tmp_path}/val", "--real-labels", _file(tmp_path / "real.json", labels)]
    assert cli.main([*words, "--json", str(tmp_path / "out.json")]) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    assert (found["real_accuracy"], found["real_images"], found["images"]) == (2 / 3, 3, 4)
    low, high = binomtest(2, 3).proportion_ci(method="wilson")
    assert found["real_accuracy_interval"] == pytest.approx([low, high], abs=1e-7)
    printed = capsys.readouterr().out
    assert "66.67%" in printed and "3 of 4" in printed and "95 % interval" in printed
    for more in (["--tta", "flip"], ["--restrict-classes"]):
        assert cli.main([*words, *more]) == 2
        assert "--real-labels" in capsys.readouterr().err
