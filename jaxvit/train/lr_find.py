"""`lr_find`: a short run over rising learning rates, its curve, and a rate to start with (Smith 2017).

The rate rises by the same factor at each step, from 1e-4 to 1e3 times the config's or until the loss explodes. The
rate at which the smoothed loss falls fastest is suggested.
"""

import copy
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvit.config.default import Config
from jaxvit.errors import UserError
from jaxvit.runtime import escape, files
from jaxvit.runtime.console import bar, err
from jaxvit.train.prepare import prepare
from jaxvit.workdir import run_files

STEPS = 100
SPAN = (1e-4, 1e3)  # of the config's learning rate
WIDTH = 4.0  # steps, the standard deviation of the smoothing
EXPLODED, AVERAGED = 4.0, 5  # times the least loss so far, both as means of this many steps


def find(config: Config, workdir: Path, dataset: Any = None) -> dict[str, Any]:
    """Writes lr_find.csv, lr_find.json and lr_find.png; returns {"suggestion", "least_loss_at", "steps"}.

    Raises:
      UserError: the loss never fell.
    """
    if jax.process_count() > 1:
        raise UserError(
            "lr_find runs in one process; its suggestion also holds for several processes with the same batch_size"
        )
    config = copy.deepcopy(config)
    config.data.train_sizes = ()  # at the size that training ends with
    low, high = (config.optim.learning_rate * x for x in SPAN)

    def schedule(step: Any) -> Any:
        return jnp.float32(low) * jnp.float32(high / low) ** (jnp.asarray(step, jnp.float32) / (STEPS - 1))

    run, state = prepare(config, workdir, schedule=schedule, dataset=dataset)
    rates, losses = [], []
    epochs = math.ceil(STEPS / run.batches.steps_per_epoch)
    try:
        with bar("learning rates", STEPS) as meter:
            for epoch in range(epochs):
                for batch in run.batches_of(epoch):
                    state, found = run.take_step(len(rates), state, batch)
                    rates.append(float(found["learning_rate"]))
                    losses.append(float(found["loss"]))
                    meter.advance(1, f"rate {rates[-1]:.1e}  loss {losses[-1]:.3f}")
                    if len(rates) == STEPS or _exploded(losses):
                        return _report(workdir, np.asarray(rates), np.asarray(losses))
        return _report(workdir, np.asarray(rates), np.asarray(losses))
    finally:
        run.checkpoints.close()


def smooth(losses: np.ndarray) -> np.ndarray:
    """Weighted means of each of losses [n] and its neighbours on both sides, so that the curve does not lag behind."""
    n = np.arange(len(losses))
    weights = np.exp(-0.5 * ((n[:, None] - n) / WIDTH) ** 2)
    return weights @ np.minimum(losses, 2 * losses[0]) / weights.sum(1)  # the explosion is not to reach back


def suggest_rate(rates: np.ndarray, losses: np.ndarray) -> float:
    """The rate at which the smoothed loss falls fastest per factor, before its least value.

    Raises:
      UserError: it never falls.
    """
    curve = smooth(losses[np.isfinite(losses)])
    least = int(curve.argmin())
    if least < 2:
        raise UserError("lr_find: the loss never fell; try a lower optim.learning_rate, or check the data")
    slope = np.gradient(curve[: least + 1], np.log(rates[: least + 1]))
    return float(rates[int(slope.argmin())])


def _exploded(losses: list[float]) -> bool:
    if not math.isfinite(losses[-1]):
        return True
    means = [sum(losses[i : i + AVERAGED]) / AVERAGED for i in range(len(losses) - AVERAGED + 1)]
    return bool(means) and means[-1] > EXPLODED * min(means)


def _report(workdir: Path, rates: np.ndarray, losses: np.ndarray) -> dict[str, Any]:
    rows = list(zip(rates.tolist(), losses.tolist(), strict=True))
    files.write(workdir / "lr_find.csv", escape.csv_bytes(("learning_rate", "loss"), rows))
    suggestion = suggest_rate(rates, losses)
    finite = np.isfinite(losses)
    least = float(rates[finite][int(smooth(losses[finite]).argmin())])
    result = {"suggestion": suggestion, "least_loss_at": least, "steps": len(rates)}
    run_files.write_json(workdir / "lr_find.json", result)
    _draw(workdir / "lr_find.png", rates[finite], losses[finite], suggestion)
    err.print(f"suggested optim.learning_rate: {suggestion:.2g}  (lowest loss at {least:.2g}); curve in {workdir}")
    return result


def _draw(path: Path, rates: np.ndarray, losses: np.ndarray, suggestion: float) -> None:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:  # the curve is in the CSV as well
        return
    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(rates, losses, color="0.8", label="loss")
    curve = smooth(losses)
    axes.plot(rates, curve, label="smoothed")
    fall = max(curve[0] - curve.min(), 1e-3)
    axes.set_ylim(curve.min() - 0.5 * fall, curve[0] + fall)  # not up to where the loss has exploded
    axes.axvline(suggestion, color="C1", linestyle="--", label=f"suggested: {suggestion:.2g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
