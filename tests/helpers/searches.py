"""Stands in for the training of a search."""

import numpy as np

from jaxvit import sweep

RATE = ("optim.learning_rate", "log", 1e-4, 1e-1)
DECAY = ("optim.weight_decay", "uniform", 0.0, 0.3)


class FakeRuns:
    """Stands in for training: the accuracy is known from the learning rate; `ends` says how a trial ends."""

    def __init__(self, ends=()):
        self.ends, self.rates, self.directories = dict(ends), [], []

    def __call__(self, config, workdir, *, on_evaluation, test):
        assert not test  # the test split selects nothing
        rate = config.optim.learning_rate
        self.rates.append(rate)
        self.directories.append(workdir.name)
        assert not config.sweep.ranges  # a trial is an ordinary run
        accuracy = 1 - abs(np.log10(rate) + 2) / 4
        end = self.ends.pop(len(self.rates) - 1, None)
        for epoch in range(1, config.num_epochs + 1):
            on_evaluation(epoch, {"accuracy": accuracy * epoch / config.num_epochs, "loss": 1.0})
            if end is not None:
                raise end
        return {"val/accuracy": accuracy, "val/loss": 1.0, "test/accuracy": 0.0}


def run(monkeypatch, given, workdir, trials, ends=()):
    """A search without training; returns (its rows, the runs that stood in)."""
    fake = FakeRuns(ends)
    monkeypatch.setattr("jaxvit.sweep.trials.train_and_evaluate", fake)
    return sweep.search(given, workdir, trials, command="python main.py --config c.py --workdir best"), fake
