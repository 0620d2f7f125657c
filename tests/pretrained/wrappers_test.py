"""What training scripts put around weights: every usual wrapper and prefix is found, said, and settable."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxvit.errors import UserError
from jaxvit.pretrained import convert, export, load, wrappers
from tests.helpers import pretrained as helpers

NAME, FIELDS = helpers.RESNET


def saved(tmp_path, state):
    save_file(state, tmp_path / "x.safetensors")
    return load(NAME, tmp_path / "x.safetensors", **{k: v for k, v in FIELDS.items() if k != "num_classes"})


@pytest.mark.parametrize(
    "prefix",
    ["model.", "module.", "net.", "backbone.", "encoder.", "student.", "teacher.", "_forward_module.", "0.",
     "_orig_mod.", "module.model.", "_forward_module.module.", "learner.some_name."],
)  # fmt: skip
def test_prefixes_are_stripped_beside_other_weights(tmp_path, prefix):
    wanted = helpers.weights(helpers.make(helpers.RESNET))
    state = {prefix + name: array for name, array in wanted.items()}
    state |= {"criterion.weight": np.ones(5, np.float32)}
    loaded = saved(tmp_path, state)
    helpers.assert_same(export(loaded.model, loaded.variables), wanted)
    assert loaded.notes == (f"{len(wanted)} names fit without the prefix {prefix!r}; not loaded: criterion.weight",)
    helpers.assert_same(export(loaded.model, convert(loaded.model, state)), wanted)


@pytest.mark.parametrize("head", ["head.fc.", "fc.", "head.", "cls_head.fc_cls."])
def test_the_classifier_may_lie_beside_the_backbone(tmp_path, head):
    wanted = helpers.weights(helpers.make(helpers.RESNET))
    state = {("backbone." + n if not n.startswith("fc.") else head + n[3:]): a for n, a in wanted.items()}
    loaded = saved(tmp_path, state)
    helpers.assert_same(export(loaded.model, loaded.variables), wanted)
    said = "" if head == "fc." else f"; {head}weight is taken for fc.weight; {head}bias is taken for fc.bias"
    assert loaded.notes == (f"{len(wanted) - 2} names fit without the prefix 'backbone.'{said}",)


def test_two_candidates_for_the_classifier_are_not_chosen_between(tmp_path):
    wanted = helpers.weights(helpers.make(helpers.RESNET))
    state = {"backbone." + n: a for n, a in wanted.items() if not n.startswith("fc.")}
    for head in ("head_a.fc", "head_b.fc"):
        state |= {f"{head}.weight": wanted["fc.weight"], f"{head}.bias": wanted["fc.bias"]}
    loaded = saved(tmp_path, state)
    assert loaded.model.num_classes == 0 and "not loaded: head_a.fc.bias, head_a.fc.weight" in loaded.notes[0]


@pytest.mark.parametrize(
    ("raw", "ema"),
    [
        ("student.", "teacher."),
        ("encoder_q.", "encoder_k."),
        ("model.", "ema.module."),
        ("model.", "ema_model.module."),
        ("model.", "averaged_model.module."),
        ("net.", "swa_model."),
    ],
)
def test_averaged_prefixes_come_first_and_can_be_set(tmp_path, raw, ema):
    model = helpers.make(helpers.RESNET)
    first, second = helpers.weights(model), helpers.weights(model, seed=1)
    state = {raw + n: a for n, a in first.items()} | {ema + n: a for n, a in second.items()}
    save_file(state, tmp_path / "x.safetensors")
    for weights, wanted, other in ((None, second, "raw"), ("ema", second, "raw"), ("raw", first, "ema")):
        loaded = load(NAME, tmp_path / "x.safetensors", weights=weights, **FIELDS)
        helpers.assert_same(export(loaded.model, loaded.variables), wanted)
        taken = raw if other == "raw" else ema
        assert loaded.notes[0].endswith(f"weights={other!r} takes {taken!r}")


@pytest.mark.parametrize(
    ("raw", "ema"),
    [("state_dict", "state_dict_ema"), ("model", "model_ema"), ("student", "teacher"), ("model_state_dict", "ema")],
)
def test_wrappers_with_both_kinds_of_weights(raw, ema):
    tensors, average = {"a": np.zeros(1)}, {"a": np.ones(1)}
    both = {"epoch": 3, raw: tensors, ema: average, "optimizer": {"state": {}}}
    for weights, value, said in ((None, 1, ema), ("ema", 1, ema), ("raw", 0, raw)):
        found, notes = wrappers.unwrap(both, weights)
        assert found["a"] == value and len(notes) == 1 and notes[0].startswith(f"{said!r} is read")
    assert wrappers.unwrap({raw: tensors}, "raw") == (tensors, [])
    with pytest.raises(UserError, match="has no averaged weights"):
        wrappers.unwrap({raw: tensors}, "ema")
    with pytest.raises(UserError, match=f"only averaged weights, under '{ema}'"):
        wrappers.unwrap({ema: average}, "raw")
    with pytest.raises(UserError, match="weights='avg' is unknown; expected 'ema'"):
        wrappers.unwrap(both, "avg")


@pytest.mark.parametrize(
    "keys", [("net",), ("model_state_dict",), ("network",), ("module",), ("encoder",), ("model", "state_dict")]
)
def test_other_wrappers(keys):
    state = tensors = {"a": np.zeros(1)}
    for key in reversed(keys):
        state = {key: state, "epoch": 3, "acc": 0.5}
    assert wrappers.unwrap(state) == (tensors, [])


@pytest.mark.parametrize("key", ["model_best", "model_state", "best_model_state_dict", "modelStateDict", "classifier"])
def test_wrappers_of_any_name(tmp_path, key):
    wanted = helpers.weights(helpers.make(helpers.RESNET))
    state = {
        "checkpoint": {key: wanted},
        "optimizer": {"state": {0: {"exp_avg": wanted["fc.bias"]}}},
        "epoch": 3,
        "name": "x",
    }
    found, _ = wrappers.unwrap(state)
    assert found.keys() == {f"checkpoint.{key}.{name}" for name in wanted}
    loaded = saved(tmp_path, found)
    helpers.assert_same(export(loaded.model, loaded.variables), wanted)
    assert loaded.notes == (f"{len(wanted)} names fit without the prefix 'checkpoint.{key}.'",)


def test_an_average_with_its_decay_beside_it():
    found, notes = wrappers.unwrap({"model": {"a": np.zeros(1)}, "ema": {"decay": 0.9, "shadow": {"a": np.ones(1)}}})
    assert found == {"shadow.a": 1} and notes == ["'ema' is read; weights='raw' takes 'model'"]


def test_backbone_and_head_in_dictionaries_of_their_own(tmp_path):
    wanted = helpers.weights(helpers.make(helpers.RESNET))
    parts = {"backbone": {n: a for n, a in wanted.items() if not n.startswith("fc.")},
             "head": {n.removeprefix("fc."): a for n, a in wanted.items() if n.startswith("fc.")}}  # fmt: skip
    loaded = saved(tmp_path, wrappers.unwrap({**parts, "epoch": 3})[0])
    helpers.assert_same(export(loaded.model, loaded.variables), wanted)


def test_an_ijepa_file_gives_its_encoder_as_timm_does():
    tensors = {"a": np.zeros(1)}
    state = {"encoder": {"module.a": tensors["a"]}, "target_encoder": {"module.a": np.ones(1)}, "predictor": {}}
    assert wrappers.unwrap(state)[0] == tensors
    assert wrappers.unwrap(state, "ema")[0]["a"] == 1


def test_a_prefix_that_explains_little_is_left():
    model = helpers.make(helpers.RESNET)
    state = {f"other.{n}": a for n, a in helpers.weights(model).items() if n.startswith("conv1.0")}
    with pytest.raises(UserError, match="unexpected other.conv1.0.weight"):
        convert(model, state)
