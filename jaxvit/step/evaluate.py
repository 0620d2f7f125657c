"""One pass over a split: every example exactly once, at any batch size."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from jaxvit.runtime.late import fetched
from jaxvit.step import metrics, multi_label


def evaluate(
    eval_step: Callable,
    variables: Any,
    feed: Any,
    batch_size: int,
    *,
    keep_logits: bool = False,
    labels: np.ndarray | None = None,
    thresholds: np.ndarray | float = multi_label.USUAL,
    max_steps: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[dict[str, float], np.ndarray | None, np.ndarray | None]:
    """Returns the metrics of `metrics.divide` over a split and, if asked for, logits and their positions in it.

    Args:
      eval_step: a compiled step of `steps.make_eval_step`.
      variables: what the model is applied with.
      feed: the split (`jaxvit.data.Resident` or `Streamed`).
      batch_size: images a step; the last batch is padded and masked.
      keep_logits: return them, float32 [n, num_classes], in the split's order; what could not be read is left out.
      labels: of the split; where these are 0 and 1 [n, num_classes], `multi_label.scores` are among the metrics,
        and for which registered metrics are computed.
      thresholds: for those.
      max_steps: stop early, for a dry run.
      progress: called with the number of images done, after each batch.
    """
    order = np.arange(len(feed))
    if max_steps is not None:
        order = order[: max_steps * batch_size]
    totals: dict[str, Any] = {}
    several = labels is not None and labels.ndim == 2
    whole = keep_logits or several or labels is not None and metrics.wanted(several)
    logits, masks = [], []
    results = _results(eval_step, variables, feed.batches(order, batch_size, pad=True), whole)
    for sums, batch_logits, mask in fetched(results):
        for name, value in sums.items():
            totals[name] = totals.get(name, 0.0) + np.asarray(value, np.float64)
        if whole:
            logits.append(batch_logits[mask])
            masks.append(mask)
        if progress is not None:
            progress(int(totals["count"]))
    found = metrics.divide(totals)
    if not whole:
        return found, None, None
    all_logits, places = np.concatenate(logits), np.flatnonzero(np.concatenate(masks))
    if several and labels is not None:
        found |= multi_label.scores(all_logits, labels[places], thresholds)
    if labels is not None:
        found |= metrics.own_metrics(all_logits, labels[places])
    return found, all_logits, places


def _results(eval_step: Callable, variables: Any, batches: Iterable[Any], keep_logits: bool) -> Iterator[Any]:
    """Yields (sums, logits or None, mask or None) of each batch, as they lie on the device."""
    for batch in batches:
        sums, logits = eval_step(variables, batch)
        yield (sums, logits, batch["mask"]) if keep_logits else (sums, None, None)
