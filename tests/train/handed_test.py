"""What is handed to a run: arrays, a model, callbacks; and the run opened again in Python."""

import json

import flax.linen as nn
import numpy as np
import pytest
from PIL import Image

import jaxvit
from jaxvit import cli, data
from jaxvit.errors import UserError
from jaxvit.train import train_and_evaluate
from tests.helpers import tiny_config, write_npz
from tests.helpers.plugins import forgotten
from tests.helpers.workdirs import lines


class StopAfter:
    """Ends the training after so many epochs."""

    def __init__(self, epochs):
        self.epochs, self.seen = epochs, []

    def on_epoch_end(self, epoch, metrics):
        self.seen.append((epoch, metrics))
        return epoch >= self.epochs


def arrays_of(directory):
    splits = {}
    for name in ("train", "test"):
        with np.load(directory / f"{name}.npz") as stored:
            splits[name] = stored["image"], stored["label"]
    return {**splits, "classes": ["red", "green", "blue"]}


def tiny_model(**fields):
    shape = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 3, "image_size": 8}
    return jaxvit.create_model("vit_tiny_patch16_224", **{**shape, **fields})


def test_arrays_a_model_and_callbacks(tmp_path, capsys):
    name = write_npz(tmp_path / "data")
    dataset, stop = arrays_of(tmp_path / "data"), StopAfter(2)
    config = tiny_config(name, num_epochs=5)
    plain = tiny_config("digits", num_epochs=5, model=jaxvit.config.default().model)
    final = train_and_evaluate(plain, tmp_path / "run", dataset, tiny_model(), [stop])
    assert final["epochs"] == 2 and "stopped after epoch 2, as StopAfter asks" in capsys.readouterr().err
    assert [epoch for epoch, _ in stop.seen] == [1, 2]
    assert {"train/loss", "val/accuracy"} < stop.seen[0][1].keys()
    assert [line["val/loss"] for line in lines(tmp_path / "run")] == [m["val/loss"] for _, m in stop.seen]
    again = train_and_evaluate(plain, tmp_path / "run", dataset, tiny_model(), [stop])  # finished: nothing is done
    assert again == final and len(stop.seen) == 2

    whole = train_and_evaluate(config, tmp_path / "other", callbacks=[StopAfter(2)])  # by names: the same run
    assert final == pytest.approx(whole)
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    other = json.loads((tmp_path / "other" / "config.json").read_text())
    assert written["data"]["name"] == "arrays" and written["model"] == other["model"]

    run = jaxvit.load_run(tmp_path / "run")
    assert run.class_names == ["red", "green", "blue"] and run.config.num_epochs == 5
    with np.load(tmp_path / "run" / "predictions.npz") as kept:
        logits = kept["logits"]
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    images = dataset["test"][0]
    np.testing.assert_allclose(run.predict(images, batch_size=7), expected, atol=1e-6)
    np.testing.assert_allclose(run.predict(images / 255.0), expected, atol=1e-6)
    Image.fromarray(images[3]).save(tmp_path / "a.png")
    mixed = run.predict([tmp_path / "a.png", Image.fromarray(images[5])])
    np.testing.assert_allclose(mixed, expected[[3, 5]], atol=1e-6)
    np.testing.assert_allclose(run.predict(str(tmp_path / "a.png")), expected[[3]], atol=1e-6)
    for wrong, said in ((3, "int is no image"), (images[0, 0], r"shape \[8, 3\]"), ("no.png", "no.png")):
        with pytest.raises(UserError, match=said):
            run.predict(wrong)
    assert cli.main(["eval", "--workdir", str(tmp_path / "run")]) == 2
    assert "handed to train_and_evaluate as arrays, and are not kept" in capsys.readouterr().err
    with pytest.raises(UserError, match="has changed since the run"):
        fewer = {**dataset, "train": tuple(x[:30] for x in dataset["train"])}
        (tmp_path / "run" / "summary.json").unlink()
        train_and_evaluate(plain, tmp_path / "run", fewer, tiny_model())


def test_a_data_set_is_taken_as_it_is(tmp_path):
    from jaxvit.build import parts

    given = data.load_dataset(write_npz(tmp_path / "data"), val_fraction=0.25, seed=3)
    taken = parts.load_data(tiny_config("digits"), given=given)
    assert taken.name == "digits" and taken.val is given.val and taken.train is given.train


class Other(nn.Module):
    num_classes: int = 3

    def __call__(self, images, train=False): ...


@pytest.mark.parametrize(
    "handed, said",
    [
        ({"dataset": 3}, "dataset is int; expected arrays by split"),
        ({"dataset": {"train": 3, "test": 4}}, "dataset.train is int; expected (images, labels)"),
        ({"dataset": {"train": (np.zeros((4, 8, 8, 3), np.uint8), np.arange(4) % 2)}}, "dataset has no 'test'"),
        ({"dataset": {"train": 3, "valid": 4}}, "dataset has a key 'valid'"),
        ({"dataset": {k: (np.full((4, 8, 8, 3), 7.0), np.arange(4) % 2) for k in ("train", "test")}},
         "dataset.train: image values from 7 to 7; expected floats in [0, 1]"),
        ({"model": 3}, "model is int; expected a linen Module"),
        ({"model": Other()}, "model is a Other, and no name stands for that class"),
        ({"model": tiny_model(num_classes=7)}, "model.num_classes is 7; npz:"),
        ({"model": tiny_model(dtype="bfloat16")}, "the model computes in bfloat16; set config.dtype"),
        ({"callbacks": [print]}, "has no method on_epoch_end(epoch, metrics)"),
    ],
)  # fmt: skip
def test_what_cannot_be_handed_over(tmp_path, handed, said):
    config = tiny_config(write_npz(tmp_path / "data"))
    with forgotten(), pytest.raises(UserError) as error:
        train_and_evaluate(config, tmp_path / "run", **handed)
    assert said in str(error.value) and len(str(error.value).splitlines()) <= 2
    assert not (tmp_path / "run").exists()
