"""The page on Flax NNX: its code runs, and trains as linen does."""

import jax
import numpy as np
import optax
import pytest

from jaxvit.pretrained import export
from tests.helpers.plugins import examples

VIT = '"vit_tiny_patch16_224", num_classes=4, image_size=16, patch_size=8, embed_dim=16, depth=1, num_heads=2'
RESNET = '"resnet18", num_classes=4, image_size=16, stem="cifar", layers=(1, 1), channels=(16, 32), stem_width=16'


def linen_losses(model, variables, images, labels, steps):
    """The same training on linen's way: explicit variables, optax alone."""
    tx = optax.sgd(0.05, momentum=0.9)
    opt_state = tx.init(variables["params"])

    @jax.jit
    def step(variables, opt_state):
        def loss_fn(params):
            given = {**variables, "params": params}
            logits, updated = model.apply(given, images, train=True, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updated

        (loss, updated), gradients = jax.value_and_grad(loss_fn, has_aux=True)(variables["params"])
        updates, opt_state_ = tx.update(gradients, opt_state, variables["params"])
        return {**variables, **updated, "params": optax.apply_updates(variables["params"], updates)}, opt_state_, loss

    losses = []
    for _ in range(steps):
        variables, opt_state, loss = step(variables, opt_state)
        losses.append(float(loss))
    return losses, variables


@pytest.mark.parametrize("model", [RESNET, pytest.param(VIT, marks=pytest.mark.slow)])
def test_the_page_trains_as_linen_does(model):
    train, weights = examples("NNX.md")
    assert RESNET in train
    begin, loop, end = train.replace(RESNET, model).partition("losses = ")
    there = {}
    exec(begin, there)
    functions = weights.partition("\nvariables = ")[0]
    exec(functions, there)
    start = jax.tree.map(np.array, there["variables_of"](there["model"]))
    exec(loop + end + weights, there)
    losses, variables = linen_losses(there["linen_model"], start, there["images"], there["labels"], 4)
    np.testing.assert_allclose(there["losses"], losses, rtol=1e-6)
    assert losses[-1] < losses[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), there["variables"], dict(variables))
    assert export(there["linen_model"], there["variables"])  # timm's names
    drawn = jax.jit(there["linen_model"].init)(jax.random.key(1), there["images"])  # the page has loaded these
    jax.tree.map(np.testing.assert_array_equal, there["variables_of"](there["model"]), dict(drawn))
