"""A run and a weight file, for all tests of inference."""

import jax
import jax.numpy as jnp
import pytest

from jaxvit import models, pretrained, train
from tests.helpers import tiny_config, write_npz


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("inference")
    train.train_and_evaluate(tiny_config(write_npz(root / "data"), num_epochs=1), root / "run")
    return root / "run"


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """Weights of a very small model with the 1,000 ImageNet classes, saved as timm does."""
    fields = {"depth": 1, "embed_dim": 16, "num_heads": 2, "image_size": 32}
    model = models.create_model("vit_tiny_patch16_224", **fields)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    # A head that is not zero, so that classes differ.
    head = jax.random.normal(jax.random.key(1), (16, 1000))
    variables = {"params": {**variables["params"], "head": {"kernel": head, "bias": jnp.zeros(1000)}}}
    directory = tmp_path_factory.mktemp("weights")
    pretrained.save(model, variables, directory)
    return directory, model, variables
