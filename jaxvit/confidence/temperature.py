"""The temperature of a run: fitted on its validation split, kept in its calibration.json, applied to a classifier."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from jaxvit import inference
from jaxvit.errors import UserError
from jaxvit.inference import Classifier
from jaxvit.models.names import module_path
from jaxvit.models.registry import find_family
from jaxvit.runtime import files
from jaxvit.runtime.paths import expand
from jaxvit.step import calibration
from jaxvit.workdir import manifest, run_files

RUN = "run"  # the word for a run's own temperature
OF_FILE = ("temperature", "nll", "nll_calibrated", "ece", "ece_calibrated", "bins", "images", "split")


def record(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Fits a temperature on validation logits [n, k]; returns what calibration.json says.

    NLL (nats) and ECE (a fraction) are those of the images that it was fitted on, before and after. Raises UserError
    where `calibration.fit_temperature` does.
    """
    t = calibration.fit_temperature(logits, labels)
    nll, ece = ([of(logits, labels, at) for at in (1.0, t)] for of in (calibration.nll, calibration.ece))
    return dict(zip(OF_FILE, (t, *nll, *ece, calibration.BINS, len(labels), "val"), strict=True))


def describe(found: dict[str, Any]) -> str:
    """A record on one line."""
    ece, after = found["ece"], found["ece_calibrated"]
    return f"{found['temperature']:.4g}, fitted on {found['images']:,} validation images: ECE {ece:.2%} -> {after:.2%}"


def write(workdir: Path, found: dict[str, Any] | None) -> None:
    """Writes calibration.json, whole, and its SHA-256 into the run's manifest; None takes both away."""
    path, hashes = workdir / run_files.CALIBRATION, run_files.sealed(workdir)
    content = None if found is None else run_files.json_bytes(found)
    others = {name: value for name, value in hashes.items() if name != path.name}
    if hashes:  # the old hash goes first: a file without one is not damaged
        manifest.write(workdir / manifest.NAME, others)
    if content is None:
        path.unlink(missing_ok=True)
        return
    files.write(path, content)
    if hashes:
        manifest.write(workdir / manifest.NAME, {**others, path.name: manifest.sha256_bytes(content)})


def read_temperature(workdir: str | Path) -> float:
    """Returns the temperature of a run. Raises UserError where it has none, or the file is damaged."""
    path = expand(workdir)
    if not (path / run_files.CALIBRATION).exists():
        raise UserError(
            f"the run in {str(path)!r} has no temperature (no {run_files.CALIBRATION})\n"
            f"eval --workdir {path} --calibrate fits one on its validation split"
        )
    run_files.refuse_damaged(path, (run_files.CALIBRATION,))
    found = run_files.read_json(path / run_files.CALIBRATION).get("temperature")
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < math.inf:
        raise UserError(f"{str(path / run_files.CALIBRATION)!r} is damaged: its temperature is not a positive number")
    return float(found)


def calibrate(workdir: str | Path, batch_size: int = 64) -> dict[str, Any]:
    """Fits the temperature of a run's best checkpoint on its validation split; writes and returns calibration.json.

    Raises:
      UserError: no run, one that is under way, one without validation split, or no temperature that fits.
    """
    classifier = inference.from_run(workdir)
    path = expand(workdir)
    with run_files.locked(path):
        try:
            opened = inference.open_split(classifier, "val")
        except inference.EmptySplit:
            raise UserError(
                f"the run in {str(path)!r} has no validation split to fit a temperature on\n"
                "expected a run with data.val_fraction above 0, or data with a val split"
            ) from None
        _, logits, places = inference.SplitReader(classifier, opened, batch_size)(classifier.variables)
        found = record(logits, opened.split.labels[places])
        write(path, found)
    return found


def requested(word: str | float, workdir: str | Path | None) -> float:
    """Returns the temperature that `word` names: "run", that of the run in `workdir`, or a number."""
    if word == RUN:
        if workdir is None:
            raise UserError("--temperature run needs a run; for a named model pass a number")
        return read_temperature(workdir)
    return float(word)


def with_temperature(classifier: Classifier, temperature: float) -> Classifier:
    """Returns the classifier with logits / `temperature`: other probabilities, the same order of the classes.

    The thresholds of several labels move with the probabilities, so that the same classes are said.
    """
    thresholds = classifier.thresholds
    return dataclasses.replace(
        classifier,
        variables=divide_logits(classifier.model, classifier.variables, temperature),
        thresholds=thresholds if thresholds is None else calibration.at_temperature(thresholds, temperature),
        temperature=classifier.temperature * temperature,
    )


def divide_logits(model: Any, variables: Any, temperature: float) -> Any:
    """Returns variables with which the model gives logits / `temperature`, for this package and for timm.

    Weight and bias of the classifier, or of both classifiers, are divided. Raises UserError for a temperature that
    is not positive, and for a model whose last layer is not linear.
    """
    if isinstance(temperature, bool) or not 0 < temperature < math.inf:
        raise UserError(f"the temperature is {temperature}; expected a positive number")
    family = find_family(model)
    paths = [] if family is None else [module_path(name).split("/") for name in family.classifiers]
    params, found = variables["params"], 0
    for path in paths:
        params, done = _divided(params, path, getattr(model, "num_classes", 0), np.float32(temperature))
        found += done
    if not found:
        raise UserError(f"{type(model).__name__} has no linear classifier that a temperature could divide")
    return {**variables, "params": params}


def _divided(params: Any, path: list[str], classes: int, temperature: np.float32) -> tuple[Any, bool]:
    """The parameters with the module at `path` divided, and whether there is one that is linear."""
    if path[0] not in params:
        return params, False
    if path[1:]:
        inner, done = _divided(params[path[0]], path[1:], classes, temperature)
    else:
        layer = params[path[0]]
        done = "kernel" in layer and layer.keys() <= {"kernel", "bias"} and layer["kernel"].shape[-1] == classes > 0
        inner = (
            {name: np.asarray(leaf) / leaf.dtype.type(temperature) for name, leaf in layer.items()} if done else layer
        )
    return {**params, path[0]: inner}, done
