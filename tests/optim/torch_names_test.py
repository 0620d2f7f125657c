"""What docs/OPTIMIZERS.md says of optimisers beside PyTorch's and timm's of the same name."""

import bisect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvit.optim import make_optimizer
from jaxvit.optim.schedules import multistep

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

RATE, STEPS = 0.01, 30
RNG = np.random.default_rng(0)
START, MATRIX, TARGET = RNG.standard_normal((4, 6)), RNG.standard_normal((20, 24)) / 4, RNG.standard_normal(20)


def ours(name, **options):
    """The kernel after the steps."""
    with jax.enable_x64(True):
        params = {"blocks_0": {"kernel": jnp.asarray(START)}}
        tx = make_optimizer(params, name=name, schedule=RATE, **({"weight_decay": 0.0} | options))

        @jax.jit
        def step(params, state):
            grads = jax.grad(lambda p: jnp.sum((MATRIX @ p["blocks_0"]["kernel"].reshape(-1) - TARGET) ** 2))(params)
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        state = tx.init(params)
        for _ in range(STEPS):
            params, state = step(params, state)
        return np.asarray(params["blocks_0"]["kernel"])


def theirs(make):
    torch = pytest.importorskip("torch")
    kernel = torch.nn.Parameter(torch.tensor(START))
    optimizer = make([kernel])
    for _ in range(STEPS):
        optimizer.zero_grad()
        ((torch.tensor(MATRIX) @ kernel.reshape(-1) - torch.tensor(TARGET)) ** 2).sum().backward()
        optimizer.step()
    return kernel.detach().numpy()


SAME = {
    "sgd": ({}, "torch SGD", {"momentum": 0.9}),
    "adam": ({}, "torch Adam", {}),
    "adamw": ({"weight_decay": 0.05}, "torch AdamW", {"weight_decay": 0.05}),
    "adamax": ({}, "torch Adamax", {}),
    "adadelta": ({}, "torch Adadelta", {}),
    "lion": ({}, "timm Lion", {}),
    "adabelief": ({"eps": 1e-16}, "timm AdaBelief", {"rectify": False}),
    "rmsprop": ({"decay": 0.99, "eps_in_sqrt": False}, "torch RMSprop", {}),
    "adagrad": ({"initial_accumulator_value": 0.0, "eps": 1e-10}, "torch Adagrad", {}),
    "lamb": ({"weight_decay": 0.01, "grad_clip_norm": 1.0}, "timm Lamb", {"weight_decay": 0.01}),
}
OTHER = {
    "rmsprop": ("torch RMSprop", {}, 0.1),
    "nadam": ("torch NAdam", {}, 0.01),
    "amsgrad": ("torch Adam", {"amsgrad": True}, 0.01),
    "adagrad": ("torch Adagrad", {}, 1e-3),
    "lamb": ("timm Lamb", {"weight_decay": 0.0}, 1e-3),
    "adan": ("timm Adan", {}, 1e-3),
    "muon": ("torch Muon", {"weight_decay": 0.0}, 0.01),
    "novograd": ("timm NvNovoGrad", {}, 0.01),
}


def maker(text, options):
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm.optim")
    library, name = text.split()
    return lambda params: getattr(torch.optim if library == "torch" else timm, name)(params, RATE, **options)


@pytest.mark.parametrize("name", SAME)
def test_the_same(name):
    options, text, their_options = SAME[name]
    np.testing.assert_allclose(ours(name, **options), theirs(maker(text, their_options)), rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", OTHER)
def test_another_of_the_same_name(name):
    text, options, least = OTHER[name]
    difference = np.abs(ours(name) - theirs(maker(text, options))).max()
    assert difference > least, "it is the same now: docs/OPTIMIZERS.md must say so"


def test_radam_differs_by_its_epsilon_alone():
    difference = np.abs(ours("radam") - theirs(maker("torch RAdam", {}))).max()
    assert 1e-12 < difference < 1e-7


def test_multistep_is_torchs_and_one_step_after_timms():
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm.scheduler")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    scheduler, rates = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5], gamma=0.1), []
    for _ in range(8):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    schedule = multistep(1.0, 0.0, 8, 1, milestones=(3, 5))
    found = [float(schedule(jnp.asarray(i))) for i in range(8)]
    np.testing.assert_allclose(found, rates, rtol=1e-6)
    optimizer.param_groups[0]["lr"] = 1.0
    early = timm.MultiStepLRScheduler(optimizer, decay_t=[3, 5], decay_rate=0.1)
    theirs = [early._get_lr(t)[0] for t in range(8)]
    np.testing.assert_allclose(theirs, [0.1 ** bisect.bisect_right([3, 5], t + 1) for t in range(8)])
    np.testing.assert_allclose(theirs[:-1], found[1:], rtol=1e-6)
