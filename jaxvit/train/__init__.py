"""`train_and_evaluate(config, workdir)`: one run, from its config to its summary."""

from jaxvit.train.handed import Callback
from jaxvit.train.loop import Diverged, Progress, train_and_evaluate

__all__ = ["Callback", "Diverged", "Progress", "train_and_evaluate"]
