"""A temperature divided into the classifier of every family: timm's classifier and nothing else."""

import jax
import numpy as np
import pytest

from jaxvit import confidence, pretrained
from jaxvit.confidence import temperature
from jaxvit.errors import UserError
from jaxvit.models.registry import create_model
from tests.helpers.commands import CASES, drawn

# timm's `classifier` of these models
CLASSIFIERS = {
    "vit": ("head",), "deit": ("head", "head_dist"), "eva": ("head",), "swin": ("head.fc",), "swinv2": ("head.fc",),
    "resnet": ("fc",), "eca": ("fc",),
    "convnext": ("head.fc",), "vgg": ("head.fc",), "alexnet": ("classifier.6",),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_only_the_classifier_that_timm_names_is_divided(case):
    model, variables = drawn(case)
    heads = {f"{name}.{leaf}" for name in CLASSIFIERS[case] for leaf in ("weight", "bias")}
    before = pretrained.export(model, variables)
    after = pretrained.export(model, confidence.divide_logits(model, variables, 2.5))
    assert heads <= before.keys() and after.keys() == before.keys()
    for name, array in before.items():
        wanted = array / np.float32(2.5) if name in heads else array
        np.testing.assert_array_equal(after[name], wanted, err_msg=name)
        assert after[name].dtype == array.dtype


@pytest.mark.parametrize("case", ["deit", "vgg"])  # two heads; a classifier within a module
def test_logits_are_divided(case):
    model, variables = drawn(case)
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    apply = jax.jit(model.apply)
    logits = apply(variables, images)
    assert np.abs(logits).max() > 0.01
    np.testing.assert_allclose(
        apply(confidence.divide_logits(model, variables, 4.0), images), logits / 4, rtol=1e-5, atol=1e-6
    )


def test_what_has_no_linear_classifier_is_refused():
    model, variables = drawn("vit")
    for t in (0.0, -1.0, float("nan"), float("inf"), True):
        with pytest.raises(UserError, match="expected a positive number"):
            confidence.divide_logits(model, variables, t)
    with pytest.raises(UserError, match="no linear classifier"):
        confidence.divide_logits(model.clone(num_classes=0), variables, 2.0)
    hidden = create_model("vit_tiny_patch16_224", depth=1, embed_dim=16, num_heads=2, num_classes=5, head_hidden_size=8)
    params = {"head_hidden": {"kernel": np.ones((16, 8))}, "head": {"kernel": np.ones((8, 5)), "bias": np.ones(5)}}
    after = confidence.divide_logits(hidden, {"params": params}, 2.0)["params"]
    assert after["head_hidden"] is params["head_hidden"] and (after["head"]["kernel"] == 0.5).all()


@pytest.mark.parametrize(("value", "said"), [(0.00069797, "0.000698,"), (1.05249, "1.052,"), (12.0, "12,")])
def test_a_small_temperature_keeps_its_digits(value, said):
    found = {"temperature": value, "images": 5, "ece": 0.5489, "ece_calibrated": 0.1222}
    assert temperature.describe(found).startswith(said)
