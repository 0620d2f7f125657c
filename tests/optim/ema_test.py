"""EMA: timm's warm-up of the decay by hand and against timm, and the average itself."""

import contextlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit import optim
from jaxvit.errors import UserError


def test_decay_by_hand():
    close = lambda actual, desired: np.testing.assert_allclose(actual, desired, rtol=1e-6)  # noqa: E731
    close(optim.ema.decay_at(1, 0.99), 0.0)
    close(optim.ema.decay_at(2, 0.99), 0.99)
    close(optim.ema.decay_at(9, 0.99, warmup=True), 1 - 9 ** (-2 / 3))
    close(optim.ema.decay_at(10**6, 0.99, warmup=True), 0.99)
    close(optim.ema.decay_at(5, 0.99, update_after_step=4), 0.0)
    with pytest.raises(UserError, match="ema.decay is 1.5"):
        optim.ema.decay_at(1, 1.5)


def test_average_by_hand_and_in_its_own_type():
    average = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([4.0], jnp.bfloat16)}
    weights = {"a": jnp.array([3.0, 2.0]), "b": jnp.array([0.0])}
    out = jax.jit(optim.ema.update)(average, weights, 0.75)
    np.testing.assert_allclose(out["a"], [1.5, 2.0])
    assert out["b"].dtype == jnp.bfloat16 and float(out["b"][0]) == 3.0
    chex.assert_trees_all_equal(optim.ema.update(average, weights, 0.0)["a"], weights["a"])


@pytest.mark.torch
def test_against_timm():
    torch = pytest.importorskip("torch")
    with contextlib.suppress(ImportError):  # where only a CPU build of torch is installed
        import torchvision_cpu  # noqa: F401
    timm_utils = pytest.importorskip("timm.utils")
    net = torch.nn.Linear(3, 2)
    theirs = timm_utils.ModelEmaV3(net, decay=0.9, use_warmup=True, update_after_step=2)
    ours = {"weight": jnp.asarray(net.weight.detach().numpy())}
    for step in range(1, 30):
        with torch.no_grad():
            net.weight.add_(torch.randn(2, 3, generator=torch.Generator().manual_seed(step)))
        theirs.update(net, step=step)
        decay = optim.ema.decay_at(step, 0.9, warmup=True, update_after_step=2)
        ours = optim.ema.update(ours, {"weight": jnp.asarray(net.weight.detach().numpy())}, decay)
        np.testing.assert_allclose(ours["weight"], theirs.module.weight.detach().numpy(), rtol=1e-5, atol=1e-6)
