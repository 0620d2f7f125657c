"""The public functions: the names and the order of their arguments, and their defaults. Nothing is computed."""

import inspect
import operator

import numpy as np
import pytest

import jaxvit

FREE = inspect.Parameter.empty
# function -> its first arguments, which may be given by position or by name, with their defaults
ARGUMENTS = {
    "list_models": {"pattern": "*", "pretrained": False},
    "create_model": {"name": FREE},
    "load_pretrained": {
        "name": FREE, "checkpoint": None, "num_classes": None, "image_size": None, "in_channels": None,
    },
    "data_config": {"name": FREE},
    "preprocess": {"image": FREE, "data_config": FREE},
    "features": {"model": FREE, "variables": FREE, "images": FREE},
    "forward_intermediates": {"model": FREE, "variables": FREE, "images": FREE, "indices": None},
    "feature_info": {"model": FREE},
    "train_and_evaluate": {"config": FREE, "workdir": FREE, "dataset": None, "model": None, "callbacks": ()},
    "pretrained.convert": {"model": FREE, "state_dict": FREE},
    "pretrained.export": {"model": FREE, "variables": FREE},
    "pretrained.save": {"model": FREE, "variables": FREE, "directory": FREE},
    "optim.sam_value_and_grad": {"loss_fn": FREE, "rho": 0.05, "adaptive": False, "eta": 0.01, "has_aux": False},
    "explain.grad_cam": {"model": FREE, "variables": FREE, "images": FREE, "class_index": None},
    "explain.attention_rollout": {"model": FREE, "variables": FREE, "images": FREE},
    "register_data": {"name": FREE},
    "register_optimizer": {"name": FREE},
    "register_schedule": {"name": FREE},
    "register_loss": {"name": FREE},
    "register_metric": {"name": FREE},
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_and_defaults(name):
    known = list(inspect.signature(operator.attrgetter(name)(jaxvit)).parameters.values())[: len(ARGUMENTS[name])]
    assert {p.name: p.default for p in known} == ARGUMENTS[name]
    assert {p.kind for p in known} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}


def test_all_public_names_are_there():
    assert all(hasattr(jaxvit, name) for name in jaxvit.__all__) and "register_model" in dir(jaxvit)
    assert jaxvit.train.train_and_evaluate is jaxvit.train_and_evaluate


MODEL = jaxvit.create_model("vit_tiny_patch16_224", num_classes=2, image_size=16, depth=1, embed_dim=16, num_heads=2)
INPUTS = {"model": MODEL, "variables": {"params": {}}, "images": np.zeros((1, 16, 16, 3), np.float32)}
DEIT = {"name": "deit_tiny_patch16_224"}
SAVED = {"model": MODEL, "variables": {}, "directory": "x"}
# function -> arguments that are right, and for some of them values of another kind. Nothing is computed or read.
STRANGE = [
    ("list_models", {}, {"pattern": [None, 3]}),
    ("create_model", {}, {"name": [None, 3, ""]}),
    ("data_config", {}, {"name": [None, 3]}),
    ("load_pretrained", DEIT, {"seed": [None, 1.5, "a"], "checkpoint": [3, b"x"], "weights": [3, np.zeros(2)]}),
    ("pretrained.stored_data_config", DEIT, {"checkpoint": [None, 3]}),
    ("pretrained.read", {}, {"path": [None, 3]}),
    ("load_run", {}, {"workdir": [None, 3, ""]}),
    ("inference.from_name", DEIT, {"checkpoint": [3]}),
    ("confidence.read_temperature", {}, {"workdir": [None]}),
    ("config.load", {}, {"path": [None, 3]}),
    ("train_and_evaluate", {"config": jaxvit.config.default()}, {"workdir": [None, 3, ""]}),
    ("pretrained.convert", {"model": MODEL, "state_dict": {}}, {"model": [None], "state_dict": [None]}),
    ("pretrained.export", {"model": MODEL, "variables": {}}, {"model": [None], "variables": [None, 3]}),
    ("pretrained.save", SAVED, {
        "directory": [None, 3, ""], "data_config": [3], "label_names": ["ab", ["a"], [1, 2]], "licence": [3],
        "thresholds": [[0.5], [2.0, 0.5], "ab"],
    }),
    ("preprocess", {"image": None}, {
        "data_config": [None, 3, {"image_size": 8, "mean": "a", "std": 1}, {"image_size": 8, "mean": 0, "std": [1, 1]}],
    }),
    *((name, INPUTS, {"model": [None, 3], "variables": [None, [], {}], "images": [None, "x", 3]}) for name in (
        "features", "forward_intermediates", "explain.grad_cam", "explain.attention_rollout", "explain.lime",
        "explain.integrated_gradients", "explain.occlusion", "explain.smooth_grad", "explain.pca",
        "explain.attention_maps", "explain.attention_weights",
    )),
    ("explain.scores", {**INPUTS, "maps": np.zeros((1, 16, 16)), "class_index": 0}, {"images": [None], "maps": [None]}),
    ("explain.occlusion", {**INPUTS, "class_index": 0}, {"patch": ["a", 0.5, (1, 2, 3)], "stride": [[]]}),
    ("explain.integrated_gradients", {**INPUTS, "class_index": 0}, {"steps": [None, 0, 2.5], "baseline": ["a"]}),
    ("explain.smooth_grad", {**INPUTS, "class_index": 0}, {"samples": ["a"], "noise": [None, -1]}),
    ("explain.lime", {**INPUTS, "class_index": 0}, {"samples": [None, 1], "seed": [None], "penalty": ["a"]}),
    ("explain.layers", {"model": MODEL}, {"model": [None], "image_size": ["a", 2.5, (1, 2, 3)]}),
    ("explain.grad_cam", INPUTS, {"method": [None, [], np.zeros(2)]}),
    ("explain.attention_rollout", INPUTS, {"head_fusion": [None, []], "discard_ratio": [None, "a", 1]}),
    ("explain.attention_maps", INPUTS, {"block": [None, "a", 9], "head_fusion": [3, []]}),
    ("data.make_transform", {"image_size": 8}, {"image_size": [None, 2.5], "crop_pct": ["a"], "interpolation": [[]]}),
    ("optim.make_optimizer", {"params": {}, "schedule": 0.1}, {
        "name": [None, 3, []], "weight_decay": ["a"], "grad_clip_norm": [[]], "layer_decay": ["a"], "b1": [[]],
    }),
    ("feature_info", {}, {"model": [None, 3]}),
    ("forward_intermediates", INPUTS, {"indices": ["a", 10**30]}),
    ("optim.sam_value_and_grad", {}, {"loss_fn": [None, 3]}),
    ("optim.sam_value_and_grad", {"loss_fn": len}, {"method": [None, []]}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "right", "word", "wrong"), [(n, r, w, v) for n, r, words in STRANGE for w, v in words.items()]
)
def test_an_argument_of_another_kind_is_named(name, right, word, wrong, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in wrong:
        with pytest.raises(jaxvit.UserError):
            operator.attrgetter(name)(jaxvit)(**{**right, word: value})
    assert list(tmp_path.iterdir()) == []
