"""Statistics of BatchNorm for weights that no training step has made: averages, soups."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxvit.data.splits import shuffled
from jaxvit.inference import OpenSplit
from jaxvit.runtime.console import bar

SEED = 0  # of the order of the images: batches of one class would have too small a variance


def has_statistics(variables: Any) -> bool:
    """Whether a model has statistics that must fit its weights."""
    return bool(variables.get("batch_stats"))


def update(model: Any, variables: Any, opened: OpenSplit, batch_size: int) -> Any:
    """Returns variables with the statistics of all images of a split: mean and unbiased variance, over its batches.

    As torch.optim.swa_utils.update_bn: the plain mean over the batches of what each layer sees while it normalises by
    the batch itself. Nothing is dropped or augmented. Files that cannot be read are left out.
    """
    momenta: dict[str, float] = {}
    step = jax.jit(_make_step(model, opened, momenta))
    total: dict[str, np.ndarray] = {}
    size, count = min(batch_size, len(opened.split)), 0
    with bar("statistics of BatchNorm", len(opened.split)) as meter:
        for batch in opened.feed.batches(shuffled(len(opened.split), SEED), size, pad=True):
            mask = np.asarray(batch["mask"])
            if mask.any():
                images = batch["image"] if mask.all() else batch["image"][np.flatnonzero(mask)]
                for name, value in flatten_dict(step(variables, images), sep="/").items():
                    total[name] = total.get(name, np.float64(0)) + np.asarray(value, np.float64)
                count += 1
            meter.advance(int(mask.sum()))
    old = flatten_dict(variables["batch_stats"], sep="/")
    share = {name: 1 - momenta[name.rpartition("/")[0]] for name in old}
    new = {name: (total[name] / count / share[name]).astype(np.float32) for name in old}
    return {**variables, "batch_stats": unflatten_dict(new, sep="/")}


def _make_step(model: Any, opened: OpenSplit, momenta: dict[str, float]) -> Callable:
    """A step from images to (1 - momentum) times the statistics of the batch; `momenta` of the layers are noted."""

    def intercept(next_fn: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if isinstance(module, nn.BatchNorm) and context.method_name == "__call__":
            momenta["/".join(module.path)] = float(module.momentum)
            kwargs = {**kwargs, "use_running_average": False}
        return next_fn(*args, **kwargs)

    def step(variables: Any, images: jax.Array) -> Any:
        zeros = jax.tree.map(lambda x: x * 0, variables["batch_stats"])
        inputs = opened.pixels.normalise(opened.pixels.to_float(images))
        with nn.intercept_methods(intercept):
            _, updated = model.apply({**variables, "batch_stats": zeros}, inputs, mutable=["batch_stats"])
        return updated["batch_stats"]

    return step
