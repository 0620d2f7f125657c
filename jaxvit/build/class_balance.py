"""The effect of class sizes on the loss, and what a run prints about them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxvit.build.facts import Facts
from jaxvit.config.default import Config
from jaxvit.data.label_rows import listed
from jaxvit.data.sampling import class_shares
from jaxvit.errors import UserError

APART = 10.0  # largest class to smallest, from which on a run says so


def check(config: Config, facts: Facts, class_names: Sequence[str] = ()) -> None:
    """Raises UserError where the config weighs or adjusts classes that the data do not have."""
    given = config.loss.class_weights
    if isinstance(given, list | tuple) and len(given) != facts.num_classes:
        raise UserError(
            f"loss.class_weights has {len(given)} numbers; {config.data.name} has {facts.num_classes} classes"
            + (f": {listed(list(class_names))}" if len(class_names) else "")
        )
    if facts.class_counts is None:
        return
    counts = np.asarray(facts.class_counts)
    empty = np.flatnonzero(counts == 0).tolist()
    if isinstance(given, list | tuple):
        if not np.asarray(given)[counts > 0].any():
            raise UserError("loss.class_weights are 0 for every class that has training images")
        idle = [k for k in empty if given[k]]
        if idle:
            name = _name(idle[0], class_names)
            raise UserError(
                f"loss.class_weights has {given[idle[0]]:g} for {name}, without training images; expected 0"
            )
    if config.loss.logit_adjustment and len(empty):
        name = _name(empty[0], class_names)
        raise UserError(f"loss.logit_adjustment needs training images of every class; {name} has none")


def _name(k: int, class_names: Sequence[str]) -> str:
    return repr(class_names[k]) if len(class_names) else f"class {k}"


def class_weights(config: Config, facts: Facts) -> np.ndarray | None:
    """The weights of the loss, float64 [k], of mean 1 over the images of an epoch; None: all alike.

    "balanced" is n / (k n_c), as scikit-learn's; "sqrt" its square root; "effective" (1 - beta) / (1 - beta^n_c)
    (Cui et al., 2019). These names give a class without training images the weight 0.
    """
    word = config.loss.class_weights
    if word is None:
        return None
    shares, counts = _shares(config, facts), _counts(facts)
    n = np.maximum(counts, 1.0)
    if isinstance(word, str):
        beta = float(config.loss.class_weights_beta)
        found = {
            "balanced": lambda: 1 / n,
            "sqrt": lambda: n**-0.5,
            "effective": lambda: (1 - beta) / (1 - beta**n),
        }[word]() * (counts > 0)
    else:
        found = np.asarray(word, np.float64)
    return found / np.sum(found * shares)


def log_prior(config: Config, facts: Facts) -> np.ndarray | None:
    """Logarithms of the classes' shares in an epoch, float64 [k]; None where the logits are not adjusted."""
    return np.log(_shares(config, facts)) if config.loss.logit_adjustment else None


def describe(config: Config, facts: Facts, class_names: Sequence[str]) -> list[str]:
    """Lines for the header: that classes are far apart and what would help, and what is corrected twice."""
    counts, loss, sampling = np.asarray(facts.class_counts), config.loss, config.data.sampling
    there = np.flatnonzero(counts)
    most, least = there[counts[there].argmax()], there[counts[there].argmin()]
    ratio, lines = counts[most] / counts[least], []
    means = {
        f"data.sampling={sampling}": sampling is not None,
        f"loss.class_weights={loss.class_weights}": loss.class_weights is not None,
        f"loss.logit_adjustment={loss.logit_adjustment:g}": loss.logit_adjustment > 0,
    }
    used = [word for word, on in means.items() if on]
    if ratio > APART:
        lines.append(
            f"class sizes differ by {ratio:.3g}:1: {class_names[most]!r} has {counts[most]:,} training images, "
            f"{class_names[least]!r} {counts[least]:,}"
        )
        if not used:
            lines.append(
                "data.sampling=balanced, loss.class_weights=balanced or loss.logit_adjustment=1 help rare classes; "
                "early_stopping.metric=balanced_accuracy gives all classes the same weight"
            )
    if len(counts) > len(there):
        empty = class_names[int(np.flatnonzero(counts == 0)[0])]
        lines.append(
            f"{len(counts) - len(there)} of {len(counts)} classes have no training images, for example {empty!r}"
        )
    if sampling == "balanced" and loss.logit_adjustment:
        lines.append(
            "loss.logit_adjustment has no effect, because data.sampling=balanced draws all classes equally often"
        )
    elif len(used) > 1:
        lines.append(f"{' and '.join(used)} each correct for class sizes; normally one of them is used")
    return lines


def _counts(facts: Facts) -> np.ndarray:
    """Training images of each class, float64 [k]; where they are not known, all alike."""
    return np.asarray(facts.class_counts or (1,) * facts.num_classes, np.float64)


def _shares(config: Any, facts: Facts) -> np.ndarray:
    return class_shares(_counts(facts), config.data.sampling)
