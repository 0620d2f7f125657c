"""The public functions: the names and the order of their arguments, and their defaults. Nothing is computed."""

import inspect
import operator

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
