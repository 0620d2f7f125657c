"""What a run says of itself: which images it keeps for pictures, how much memory it took."""

from types import SimpleNamespace

import numpy as np
import pytest

from jaxvit import config as config_lib
from jaxvit import optim
from jaxvit.train import summary
from jaxvit.train.prepare import prepare
from tests.helpers import tiny_config, write_npz


def test_the_mistakes_that_tell_most_are_kept():
    labels = np.zeros(200, np.int32)
    logits = np.zeros((200, 3), np.float32)
    logits[:, 0] = 2.0
    logits[7] = (0.0, 9.0, 0.0)  # sure and wrong
    logits[50:60] = (0.0, 0.0, 1.0)  # unsure, the most frequent confusion
    chosen = summary.telling_mistakes(logits, labels)
    assert set(chosen) >= {7, 50, 51}
    assert set(chosen) <= {7, *range(50, 60)}
    assert not len(summary.telling_mistakes(logits[:5], labels[:5]))


def test_the_header_says_that_the_warm_up_is_cut(tmp_path, capsys):
    data = write_npz(tmp_path / "data")
    for warmup, said in ((2, True), (1, False)):
        run, state = prepare(tiny_config(data, optim__schedule__warmup_epochs=warmup), tmp_path / "run")
        summary.print_header(run, state)
        run.checkpoints.close()
        assert ("warmup_epochs 2 is reduced to 1, half of the training" in capsys.readouterr().err) == said
        peak = run.blueprint.config.optim.learning_rate
        reached = float(run.blueprint.schedule(run.batches.steps_per_epoch))
        assert reached == pytest.approx(peak)  # so the peak is reached there


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"early_stopping__patience": 4}, "early_stopping.patience 4 is too long for 5 evaluations"),
        ({"early_stopping__patience": 3}, None),
        ({"early_stopping__patience": 3, "eval_every_epochs": 2}, "patience 3 is too long for 3 evaluations"),
        ({"optim__schedule__name": "plateau"}, "optim.schedule.patience 10 is too long for 5 evaluations"),
        ({"optim__schedule__name": "plateau", "optim__schedule__patience": 2}, None),
        (
            {"optim__schedule__name": "multistep", "optim__schedule__milestones": (3, 5)},
            r"milestones [5] are not reached",
        ),
        ({"optim__schedule__name": "multistep", "optim__schedule__milestones": (3, 4)}, None),
        ({"optim__schedule__name": "step"}, "the schedule 'step' has no effect"),
        ({"optim__schedule__name": "step", "optim__schedule__step_size": 4}, None),
    ],
)
def test_the_header_says_what_the_training_is_too_short_for(tmp_path, capsys, words, said):
    run, state = prepare(tiny_config(write_npz(tmp_path / "data"), num_epochs=5, **words), tmp_path / "run")
    run.checkpoints.close()
    summary.print_header(run, state)
    header = capsys.readouterr().err
    assert said in header if said else not any(word in header for word in ("too long", "not reached", "has no effect"))


def test_patience_is_too_long_exactly_when_nothing_can_follow_from_it():
    for rule, most in ((optim.EarlyStopping, 2), (optim.Plateau, 3)):
        for patience in (1, 2, 5):
            made, n = rule(patience=patience), 0
            state = made.update(made.init(), 0.5)
            acts = (lambda s: bool(s.stop)) if rule is optim.EarlyStopping else (lambda s: float(s.scale) < 1)
            while not acts(state):
                state, n = made.update(state, 0.5), n + 1
            assert n + 1 + 1 == patience + most  # it acts after n + 1 evaluations, one more must follow


@pytest.mark.parametrize(("share", "said"), [(0.04, False), (0.31, True)])
def test_a_wait_for_data_is_told_with_its_cure(share, said, capsys):
    config = config_lib.default()
    config.data.name, config.model.name, config.data.image_size = "folder:photos", "resnet18", (8, 8)
    config.data.mean, config.data.interpolation = (0.5,) * 3, "bicubic"
    config.augment.random_resized_crop = (0.1, 1.0)
    summary.print_wait(SimpleNamespace(blueprint=SimpleNamespace(config=config)), share)
    printed = capsys.readouterr().err
    assert ("31%" in printed and "data.decoder=opencv" in printed and "bench --loader" in printed) == said
    assert said or not printed
