"""`train_and_evaluate(config, workdir)`: one run, from its config to its summary."""

from jaxvit.train.handed import Callback
from jaxvit.train.loop import train_and_evaluate
from jaxvit.train.progress import Diverged, Progress

__all__ = ["Callback", "Diverged", "Progress", "train_and_evaluate"]
