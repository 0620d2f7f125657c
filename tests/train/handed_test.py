"""What is handed to a run: arrays, a model, callbacks; and the run opened again in Python."""

import json
from typing import Any

import flax.linen as nn
import numpy as np
import pytest
from ml_collections import ConfigDict, FrozenConfigDict
from PIL import Image

import jaxvit
from jaxvit import cli, data
from jaxvit.build import facts, parts, resolve
from jaxvit.errors import UserError
from jaxvit.train import handed, train_and_evaluate
from tests.helpers import tiny_config, write_npz
from tests.helpers.plugins import examples, forgotten
from tests.helpers.workdirs import lines


@pytest.mark.slow
def test_the_page_trains_and_opens_its_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (code,) = examples("NOTEBOOK.md")
    there = {"__name__": "notebook"}
    exec(code, there)
    final, workdir, images = there["final"], tmp_path / "runs" / "red", there["images"][60:]
    assert final["epochs"] < 4 and final["test/accuracy"] > 0.9
    err = capsys.readouterr().err
    assert f"stopped after epoch {final['epochs']}, as StopWhenGood asks" in err and "no improvement" not in err
    seen = lines(workdir)
    assert [line["val/accuracy"] > 0.95 for line in seen] == [False] * (len(seen) - 1) + [True]
    written = json.loads((workdir / "config.json").read_text())
    assert written["data"]["name"] == "arrays" and written["model"]["embed_dim"] == 32

    with np.load(workdir / "predictions.npz") as kept:
        logits = kept["logits"]
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(there["probabilities"], expected, atol=1e-6)
    run = jaxvit.load_run(workdir)
    assert run.class_names == ["grey", "red"] and run.config.num_epochs == 4
    np.testing.assert_allclose(run.predict(images / 255.0, batch_size=7), expected, atol=1e-6)
    Image.fromarray(images[3]).save(tmp_path / "a.png")
    mixed = run.predict([tmp_path / "a.png", Image.fromarray(images[4])], batch_size=20)
    np.testing.assert_allclose(mixed, expected[[3, 4]], atol=1e-6)
    assert run.predict([]).shape == (0, 2)
    for wrong, said in ((3, "int is not an image"), (images[0, 0], r"shape \[16, 3\]"), ("no.png", "no.png")):
        with pytest.raises(UserError, match=said):
            run.predict(wrong)
    assert cli.main(["eval", "--workdir", str(workdir)]) == 2
    assert "handed to train_and_evaluate as arrays, and are not kept" in capsys.readouterr().err

    def again(**changed):
        given = {"train": (there["images"][:60], there["labels"][:60]), "test": (images, there["labels"][60:])}
        given = {**given, "classes": run.class_names, **changed}
        return train_and_evaluate(there["config"], workdir, given, there["model"], [there["StopWhenGood"]()])

    assert again() == final  # finished: nothing is done
    with pytest.raises(UserError, match="model.depth: 1 -> 2"):
        train_and_evaluate(there["config"], workdir, {}, there["model"].clone(depth=2))
    (workdir / "summary.json").unlink()
    with pytest.raises(UserError, match="arrays has changed since the run"):
        again(train=(there["images"][:50], there["labels"][:50]))


def test_what_is_handed_over_is_what_names_stand_for(tmp_path):
    """A run on arrays and a model is the run of the config that names them."""
    name = write_npz(tmp_path / "data")
    config, arrays = tiny_config(name), {}
    for split in ("train", "test"):
        with np.load(tmp_path / "data" / f"{split}.npz") as stored:
            arrays[split] = stored["image"], stored["label"]
    by_name, by_hand = parts.load_data(config), parts.load_data(config, given=arrays)
    assert by_hand.fingerprint() == by_name.fingerprint() and by_hand.mean == by_name.mean
    for split in ("train", "val", "test"):
        np.testing.assert_array_equal(getattr(by_hand, split).images, getattr(by_name, split).images)
    complete = resolve.complete(config, facts.of_dataset(by_name))
    model = parts.make_model(complete)
    other = tiny_config(name, model=jaxvit.config.default().model)
    assert parts.make_model(resolve.complete(handed.with_model(other, model), facts.of_dataset(by_hand))) == model


def tiny_model(**fields):
    shape = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 3, "image_size": 8}
    return jaxvit.create_model("vit_tiny_patch16_224", **{**shape, **fields})


def test_a_data_set_is_taken_as_it_is(tmp_path):
    given = data.load_dataset(write_npz(tmp_path / "data"), val_fraction=0.25, seed=3)
    taken = parts.load_data(tiny_config("digits"), given=given)
    assert taken.name == "digits" and taken.val is given.val and taken.train is given.train


class Other(nn.Module):
    num_classes: int = 3

    def __call__(self, images, train=False): ...


@pytest.mark.parametrize(
    "given, said",
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
        ({"config": {"num_epochs": 1}, "dataset": {}}, "the config is a dict; expected a ConfigDict"),
        ({"config": "digits_vit", "model": tiny_model()}, "the config is a str; expected"),
        ({"config": ConfigDict({"num_epochs": 1}), "dataset": {}}, "the config has no "),
        ({"config": FrozenConfigDict(jaxvit.config.default()), "dataset": {}}, "the config is frozen"),
        ({"callbacks": print}, "callbacks is builtin_function_or_method; expected a list"),
        ({"callbacks": [print]}, "has no method on_epoch_end(epoch, metrics)"),
    ],
)  # fmt: skip
def test_what_cannot_be_handed_over(tmp_path, given, said):
    config = tiny_config(write_npz(tmp_path / "data"))
    with forgotten(), pytest.raises(UserError) as error:
        train_and_evaluate(**{"config": config, "workdir": tmp_path / "run", **given})
    assert said in str(error.value) and len(str(error.value).splitlines()) <= 2
    assert not (tmp_path / "run").exists()


def test_true_of_numpy_ends_a_training_too():
    class Says:
        def __init__(self, answer: Any):
            self.answer = answer

        def on_epoch_end(self, epoch: int, metrics: dict[str, float]) -> Any:
            return self.answer

    for answer in (True, np.bool_(True), np.array(3) > 2):
        assert handed.asked_to_stop([Says(None), Says(answer)], 1, {})
    for answer in (None, False, np.bool_(False), 1, "True", np.ones(3)):
        assert not handed.asked_to_stop([Says(answer)], 1, {})
