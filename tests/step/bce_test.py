"""Binary cross-entropy against the formula, and against timm's and torch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.step import bce, losses

RNG = np.random.default_rng(0)
LOGITS = (3 * RNG.standard_normal((6, 4))).astype(np.float32)
SOFT = RNG.random((6, 4)).astype(np.float32)


def test_by_the_formula():
    p, weight = 1 / (1 + np.exp(-LOGITS.astype(np.float64))), np.array([1, 2, 0.5, 3])
    expected = -(weight * SOFT * np.log(p) + (1 - SOFT) * np.log(1 - p))
    np.testing.assert_allclose(bce.sigmoid_cross_entropy(LOGITS, SOFT, weight), expected.mean(-1), rtol=1e-5)
    found = bce.sigmoid_cross_entropy(LOGITS, SOFT, weight, sum_classes=True)
    np.testing.assert_allclose(found, expected.sum(-1), rtol=1e-5)
    extreme = bce.sigmoid_cross_entropy(jnp.array([[1e4, -1e4]]), jnp.array([[0.0, 0.0]]))
    assert float(extreme[0]) == 5e3
    with pytest.raises(ValueError, match="differ in shape"):
        bce.sigmoid_cross_entropy(LOGITS, SOFT[:, :2])


@pytest.mark.torch
@pytest.mark.parametrize("options", [
    {}, {"sum_classes": True}, {"target_threshold": 0.2}, {"pos_weight": [1.0, 2.0, 0.5, 3.0]}, {"smoothing": 0.0},
])  # fmt: skip
def test_as_timm(options):
    torch, timm_loss = pytest.importorskip("torch"), pytest.importorskip("timm.loss")
    given = {**options, "pos_weight": torch.tensor(options["pos_weight"])} if "pos_weight" in options else options
    theirs = timm_loss.BinaryCrossEntropy(**given, smooth_dense=True)
    s, known = options.get("smoothing", 0.1), {k: v for k, v in options.items() if k != "smoothing"}
    known["pos_weight"] = np.asarray(known["pos_weight"]) if "pos_weight" in known else None
    labels = np.array([0, 3, 1, 1, 2, 0])
    one = losses.one_hot(jnp.asarray(labels), 4, s)  # one label per image
    found = bce.sigmoid_cross_entropy(jnp.asarray(LOGITS), one, **known).mean()
    expected = theirs(torch.from_numpy(LOGITS), torch.from_numpy(labels))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    several = (SOFT > 0.5).astype(np.uint8)  # several
    found = bce.sigmoid_cross_entropy(jnp.asarray(LOGITS), bce.smoothed(jnp.asarray(several), s), **known).mean()
    expected = theirs(torch.from_numpy(LOGITS), torch.from_numpy(several).float())
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_gradients_are_finite_at_large_logits_and_in_bfloat16():
    grads = jax.grad(lambda x: bce.sigmoid_cross_entropy(x, jnp.ones((1, 3))).sum())(jnp.array([[1e4, -1e4, 0.0]]))
    np.testing.assert_allclose(grads, [[0, -1 / 3, -1 / 6]], rtol=1e-6)
    assert bce.sigmoid_cross_entropy(jnp.asarray(LOGITS, jnp.bfloat16), SOFT).dtype == jnp.float32
