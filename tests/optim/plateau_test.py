"""Reduce-on-plateau and early stopping: by hand, under jit, and against torch's ReduceLROnPlateau."""

import jax
import numpy as np
import pytest

from jaxvit import optim
from jaxvit.errors import UserError


def run(rule, metrics):
    states = [rule.init()]
    for metric in metrics:
        states.append(jax.jit(rule.update)(states[-1], metric))
    return states[1:]


def test_plateau_by_hand():
    rule = optim.Plateau(mode="max", factor=0.5, patience=1, cooldown=1, min_scale=0.2, threshold=0.0)
    #          better, bad, bad -> falls, cooling, bad, bad -> falls, cooling, bad, bad -> the floor
    metrics = [0.5, 0.5, 0.4, 0.4, 0.4, 0.5, 0.1, 0.1, 0.1]
    scales = [float(state.scale) for state in run(rule, metrics)]
    np.testing.assert_allclose(scales, [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2])


def test_nan_is_no_improvement():
    states = run(optim.Plateau(patience=0), [0.5, float("nan"), 0.6])
    np.testing.assert_allclose([s.scale for s in states], [1, 0.1, 0.1])
    np.testing.assert_allclose(states[-1].best, 0.6)


def test_early_stopping_by_hand():
    rule = optim.EarlyStopping(mode="min", patience=2, min_delta=0.1)
    states = run(rule, [1.0, 0.95, 0.8, 0.75, 0.71, 0.1])
    assert [bool(s.stop) for s in states] == [False, False, False, False, True, True]
    assert [int(s.best_index) for s in states[:5]] == [0, 0, 2, 2, 2]
    np.testing.assert_allclose(states[4].best, 0.8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.Plateau(mode="maximum"), "optim.schedule.mode is 'maximum'"),
        (lambda: optim.Plateau(factor=1.5), "optim.schedule.factor is 1.5"),
        (lambda: optim.Plateau(patience=-1), "optim.schedule.patience is -1"),
        (lambda: optim.EarlyStopping(patience=0), "early_stopping.patience is 0"),
        (lambda: optim.EarlyStopping(min_delta=-1.0), "early_stopping.min_delta"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.torch
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
def test_against_torch(mode, threshold_mode):
    torch = pytest.importorskip("torch")
    words = {"factor": 0.5, "patience": 2, "threshold": 0.05, "threshold_mode": threshold_mode, "cooldown": 2}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode, min_lr=0.01, **words)
    metrics = np.random.default_rng(0).normal(size=60).cumsum().astype(np.float32)
    rates = []
    for metric in metrics:
        theirs.step(float(metric))
        rates.append(optimizer.param_groups[0]["lr"])
    states = run(optim.Plateau(mode=mode, min_scale=0.01, **words), metrics)
    np.testing.assert_allclose([s.scale for s in states], rates, rtol=1e-6)
