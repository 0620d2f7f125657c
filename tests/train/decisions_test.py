"""Rules after an evaluation: the best, early stopping, reduce-on-plateau; their memory survives JSON."""

import json

import pytest

from jaxvit import config as config_lib
from jaxvit.errors import UserError
from jaxvit.train.decisions import make_rules


def rules(early=None, schedule=None):
    config = config_lib.default()
    return make_rules(
        config.early_stopping.to_dict() | (early or {}), config.optim.schedule.to_dict() | (schedule or {})
    )


def val(accuracy=0.5, loss=1.0):
    return {"accuracy": accuracy, "top5_accuracy": 1.0, "loss": loss}


def test_the_best_is_by_the_metric_and_then_by_the_loss():
    by_accuracy, by_loss = rules(), rules({"metric": "loss"})
    assert by_accuracy.better(val(), None)
    assert by_accuracy.better(val(0.6, 2.0), val(0.5, 1.0))
    assert not by_loss.better(val(0.6, 2.0), val(0.5, 1.0))
    assert by_accuracy.better(val(0.5, 0.9), val(0.5, 1.0))
    assert not by_accuracy.better(val(), val())
    assert not by_accuracy.better(val(0.9, float("nan")), val())
    assert rules({"restore": False}).better(val(0.1), val(0.9))  # the last one is kept


def test_early_stopping_counts_and_its_memory_survives_json():
    r = rules({"patience": 2, "min_delta": 0.01, "metric": "loss"})
    memory, stops = {}, []
    for loss in (1.0, 0.995, 0.9, 0.9, 0.895):
        memory = json.loads(json.dumps(r.update(memory, val(loss=loss))))
        stops.append(r.stops(memory))
    assert stops == [False, False, False, False, True]
    assert not rules().stops(rules().update({}, val()))


def test_plateau_scales_the_rate():
    r = rules(schedule={"name": "plateau", "factor": 0.5, "patience": 1, "cooldown": 1, "min_scale": 0.2})
    memory, scales = {}, []
    for _ in range(9):
        memory = json.loads(json.dumps(r.update(memory, val())))
        scales.append(r.lr_scale(memory))
    # the first is the best; two without improvement; a fall; one of cooldown; two more; ...
    assert scales == pytest.approx([1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2])
    assert rules().lr_scale({}) == 1


def test_a_mode_against_the_metric_is_refused():
    with pytest.raises(UserError, match=r"optim\.schedule\.mode is 'max'; loss .*minimum"):
        rules(schedule={"name": "plateau", "metric": "loss", "mode": "max"})
