"""Schedules by value: hand-computed numbers, PyTorch's documented sequences, and torch's own schedulers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit import optim
from jaxvit.errors import UserError


def values(name, steps, *, total=100, epoch=10, rate=1.0, **options):
    schedule = optim.make_schedule(name, learning_rate=rate, total_steps=total, steps_per_epoch=epoch, **options)
    return np.array([float(schedule(step)) for step in steps])


def close(actual, desired):
    np.testing.assert_allclose(actual, desired, rtol=2e-6, atol=1e-9)


def test_cosine_at_start_warmup_end_middle_and_last():
    close(
        values("cosine", [0, 5, 10, 55, 100, 200], warmup_steps=10, min_learning_rate=0.1),
        [0.0, 0.5, 1.0, 0.55, 0.1, 0.1],
    )
    close(values("cosine", [0, 5], warmup_epochs=1.0, warmup_learning_rate=0.2), [0.2, 0.6])


def test_documented_sequences_of_pytorch():
    # StepLR(step_size=30, gamma=0.1), lr 0.05; MultiStepLR([30, 80], 0.1); ExponentialLR
    close(values("step", [0, 299, 300, 599, 600], rate=0.05, total=900), [0.05, 0.05, 0.005, 0.005, 0.0005])
    close(
        values("multistep", [0, 29, 30, 79, 80], rate=0.05, milestones=[30, 80], unit="steps"),
        [0.05, 0.05, 0.005, 0.005, 0.0005],
    )
    close(values("exponential", [0, 9, 10, 20], gamma=0.5), [1, 1, 0.5, 0.25])
    # PolynomialLR(total_iters=4, power=1) from 0.001
    close(values("polynomial", range(5), rate=0.001, total=4, power=1.0), [0.001, 0.00075, 0.0005, 0.00025, 0])


def test_the_rest_by_hand():
    close(values("constant", [0, 5, 10, 99], warmup_steps=10), [0, 0.5, 1, 1])
    close(values("plateau", [0, 99]), [1, 1])
    close(values("linear", [0, 50, 100], min_learning_rate=0.5), [1, 0.75, 0.5])
    close(values("wsd", [0, 80, 90, 100], decay_fraction=0.2), [1, 1, 0.5, 0])
    close(values("wsd", [85], decay_fraction=0.2, decay="sqrt"), [0.5])
    close(values("onecycle", [0, 29, 99]), [0.04, 1.0, 4e-6])
    close(values("step", [50], step_size=1, min_learning_rate=0.2), [0.2])  # the floor


def test_works_on_traced_steps_and_is_float32():
    for name in optim.SCHEDULES:
        options = {"milestones": [3]} if name == "multistep" else {}
        schedule = optim.make_schedule(name, learning_rate=0.1, total_steps=20, steps_per_epoch=2, **options)
        rates = jax.jit(jax.vmap(schedule))(jnp.arange(21))
        assert rates.dtype == jnp.float32 and rates.shape == (21,)
        np.testing.assert_allclose(rates, [float(schedule(i)) for i in range(21)], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"name": "cosin"}, "Did you mean 'cosine'"),
        ({"name": "step", "gama": 0.1}, "no option 'gama'.*Did you mean 'gamma'"),
        ({"name": "cosine", "gamma": 0.1}, "'cosine' has no option 'gamma'"),
        ({"name": "cosine", "patience": 3}, "no option 'patience'. It is one of 'plateau'"),
        ({"name": "plateau", "gamma": 0.1}, "It takes metric, mode, factor.* It is one of 'step', 'multistep'"),
        ({"name": "multistep"}, "milestones is empty"),
        ({"name": "multistep", "milestones": ("a",)}, r"milestones is \['a'\]; expected numbers above 0"),
        ({"name": "step", "unit": "days"}, "expected 'epochs' or 'steps'"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"min_learning_rate": 2.0}, "min_learning_rate 2.0 is above"),
        ({"warmup_steps": 100}, "does not end within"),
        ({"warmup_steps": 1, "warmup_epochs": 1}, "not both"),
        ({"name": "onecycle", "warmup_steps": 5}, "its own warm-up"),
    ],
)
def test_mistakes_are_named(words, message):
    with pytest.raises(UserError, match=message):
        optim.make_schedule(**{"learning_rate": 1.0, "total_steps": 100, "steps_per_epoch": 10, **words})


def test_an_option_of_none_means_the_default():
    close(values("cosine", [50], gamma=None, milestones=None), [0.5])


@pytest.mark.torch
def test_against_torch_schedulers():
    torch = pytest.importorskip("torch")
    lr = torch.optim.lr_scheduler
    cases = [
        ("cosine", {"min_learning_rate": 0.05}, lambda o: lr.CosineAnnealingLR(o, 40, eta_min=0.05)),
        ("step", {"step_size": 7, "gamma": 0.3, "unit": "steps"}, lambda o: lr.StepLR(o, 7, 0.3)),
        (
            "multistep",
            {"milestones": [3, 9, 20], "gamma": 0.3, "unit": "steps"},
            lambda o: lr.MultiStepLR(o, [3, 9, 20], 0.3),
        ),
        ("exponential", {"gamma": 0.9}, lambda o: lr.ExponentialLR(o, 0.9)),
        ("linear", {"min_learning_rate": 0.1}, lambda o: lr.LinearLR(o, 1.0, 0.2, 40)),
        ("polynomial", {"power": 2.5}, lambda o: lr.PolynomialLR(o, 40, 2.5)),
        ("onecycle", {}, lambda o: lr.OneCycleLR(o, 0.5, 40)),
        (
            "onecycle",
            {"pct_start": 0.2, "anneal": "linear", "div_factor": 10.0, "final_div_factor": 50.0},
            lambda o: lr.OneCycleLR(
                o, 0.5, 40, pct_start=0.2, anneal_strategy="linear", div_factor=10, final_div_factor=50
            ),
        ),
    ]
    for name, options, make in cases:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
        scheduler, rates = make(optimizer), []
        for _ in range(40):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        actual = values(name, range(40), rate=0.5, total=40, epoch=1, **options)
        np.testing.assert_allclose(actual, rates, rtol=5e-6, atol=1e-7, err_msg=name)
