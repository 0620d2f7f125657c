"""Classifiers ready to use, from a run's workdir or from a timm name: prediction on files, evaluation on splits."""

from jaxvit.inference.batches import filled, probabilities
from jaxvit.inference.classifier import (
    Classifier,
    at_size,
    class_names,
    from_name,
    from_run,
    imagenet_classes,
    thresholds,
)
from jaxvit.inference.prediction import find_images, predict, read_images, say_skipped
from jaxvit.inference.splits import (
    EmptySplit,
    Evaluation,
    OpenSplit,
    SplitReader,
    evaluate_split,
    match_classes,
    open_data,
    open_folder,
    open_split,
    own_data,
    ready,
)

load_run = from_run  # what `jaxvit.load_run` is

__all__ = ["Classifier", "EmptySplit", "Evaluation", "OpenSplit", "SplitReader", "at_size", "class_names",
           "evaluate_split",
           "filled", "find_images", "from_name", "from_run", "imagenet_classes", "load_run", "match_classes",
           "open_data", "open_folder", "open_split", "own_data", "predict", "probabilities", "read_images", "ready",
           "say_skipped", "thresholds"]  # fmt: skip
