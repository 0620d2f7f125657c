"""Per-example losses on soft targets. Logits are unnormalised; targets are probabilities.

A weighted loss is -sum_k w_k t_k log p_k per example, and its mean over a batch divides by the number of examples, as
`torch.nn.CrossEntropyLoss(weight=w)` does for probability targets: what an example weighs does not depend on which
others it meets, nor on how a batch is cut into parts or over devices. `build.class_balance` scales the weights to mean
1 over the images of an epoch, so that over a whole epoch this is torch's mean for class labels too.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxvit import plugins
from jaxvit.errors import UserError, suggest
from jaxvit.precision import at_least_float32, full_float
from jaxvit.step.bce import sigmoid_cross_entropy

Array = jax.Array
Loss = Callable[[Array, Array], Array]  # logits, targets [b, num_classes] -> [b]
LEAST = 1e-12  # of 1 - p: its powers below 1 have no slope at 0


def one_hot(labels: Array, num_classes: int, label_smoothing: float = 0.0) -> Array:
    """Targets (1 - s) * onehot + s / num_classes (Szegedy et al., 2016): int [b] -> float32 [b, num_classes]."""
    targets = jax.nn.one_hot(labels, num_classes, dtype=full_float())
    return targets * (1.0 - label_smoothing) + label_smoothing / num_classes


def softmax_cross_entropy(logits: Array, targets: Array, class_weights: Array | None = None) -> Array:
    """-sum_k w_k targets_k log softmax(logits)_k, in float32: [b, num_classes] twice and [num_classes] -> [b]."""
    _check_shapes(logits, targets)
    targets = targets if class_weights is None else targets * class_weights[None]
    return -jnp.sum(targets * jax.nn.log_softmax(at_least_float32(logits)), axis=-1)


def focal(logits: Array, targets: Array, class_weights: Array | None = None, *, gamma: float) -> Array:
    """-sum_k w_k targets_k (1 - p_k)^gamma log p_k, p of a softmax (Lin et al., 2017): shapes as above.

    The easy examples count less, the more so the larger `gamma`; 0 is cross-entropy.
    """
    _check_shapes(logits, targets)
    log_p = jax.nn.log_softmax(at_least_float32(logits))
    doubt = jnp.maximum(-jnp.expm1(log_p), LEAST) ** gamma
    targets = targets if class_weights is None else targets * class_weights[None]
    return -jnp.sum(targets * doubt * log_p, axis=-1)


def _check_shapes(logits: Array, targets: Array) -> None:
    if logits.shape != targets.shape:
        raise ValueError(f"logits {logits.shape} and targets {targets.shape} differ in shape")


# loss.name -> (logits, targets, class weights or None, the options of the config's section `loss`) -> [b]
LOSSES: dict[str, Callable[[Array, Array, Array | None, Mapping[str, Any]], Array]] = {
    "cross_entropy": lambda logits, targets, weights, options: softmax_cross_entropy(logits, targets, weights),
    "ce": lambda logits, targets, weights, options: softmax_cross_entropy(logits, targets, weights),
    "focal": lambda logits, targets, weights, options: focal(logits, targets, weights, gamma=options["focal_gamma"]),
    "bce": lambda logits, targets, weights, options: sigmoid_cross_entropy(
        logits, targets, options["pos_weight"], weights,
        target_threshold=options["bce_target_thresh"], sum_classes=options["bce_sum"],
    ),
}  # fmt: skip


SEVERAL = ["bce"]  # those that can be asked for several labels per image
_OPTIONS: dict[str, list[str]] = {}  # registered loss -> what it takes by name


def register_loss(name: str, *, several_labels: bool = False) -> Callable[[Any], Any]:
    """Adds a loss: above a function (logits [b, k], targets [b, k], ...) -> [b], which is traced.

    Targets are probabilities. What follows them is given by loss.options, but for `class_weights`, [k] or None: those
    of loss.class_weights. `several_labels`: it can be asked for several labels per image, whose targets are 0 and 1.

    Raises:
      UserError: a name that exists, or another kind of thing than such a function.
    """

    def register(name: str, loss: Callable[..., Any]) -> None:
        takes = plugins.options("loss", name, loss, 2, "(logits, targets, ...) -> [b]")
        plugins.claim("loss", name, LOSSES, loss)
        _OPTIONS[name] = takes

        def of_targets(logits: Array, targets: Array, weights: Array | None, options: Mapping[str, Any]) -> Array:
            given = {"class_weights": weights} if "class_weights" in takes else {}
            losses = loss(logits, targets, **options["options"], **given)
            if jnp.shape(losses) != targets.shape[:1]:
                wanted = f"{list(targets.shape[:1])}, one number per image"
                raise UserError(f"the loss {name!r} returned {list(jnp.shape(losses))}; expected {wanted}")
            return losses

        LOSSES[name] = of_targets
        SEVERAL[:] = [n for n in SEVERAL if n != name] + [name] * several_labels

    return plugins.decorator(register, name, '@register_loss("name")')


def check(options: Mapping[str, Any]) -> None:
    """Raises UserError where the config's section `loss` names no loss, or sets an option that it does not take."""
    name, takes = options["name"], _OPTIONS.get(options["name"], [])
    if name not in LOSSES:
        raise UserError(f"loss.name is {name!r}; expected {' or '.join(LOSSES)}.{suggest(str(name), LOSSES)}")
    free = [word for word in takes if word != "class_weights"]
    for word in options["options"]:
        if word not in free:
            known = f"it takes {', '.join(free)}" if free else "it takes none"
            raise UserError(f"the loss {name!r} has no option {word!r} in loss.options; {known}.{suggest(word, free)}")
    if name in _OPTIONS and options["class_weights"] is not None and "class_weights" not in takes:
        raise UserError(f"loss.class_weights is set; the loss {name!r} has no argument class_weights")


def make_loss(options: Mapping[str, Any], class_weights: Any = None, log_prior: Any = None) -> Loss:
    """Returns the loss of training.

    Args:
      options: the config's section `loss`.
      class_weights: float [num_classes], or None.
      log_prior: float [num_classes], logarithms of the classes' shares: `loss.logit_adjustment` times these are added
        to the logits (Menon et al., 2021, eq. 10); None: nothing is.
    """
    of_targets = LOSSES[options["name"]]

    def loss(logits: Array, targets: Array) -> Array:
        logits = at_least_float32(logits)
        if log_prior is not None:
            logits = logits + options["logit_adjustment"] * jnp.asarray(log_prior, logits.dtype)[None]
        weights = None if class_weights is None else jnp.asarray(class_weights, logits.dtype)
        return of_targets(logits, targets, weights, options)

    return loss


def make_objective(loss: Loss = softmax_cross_entropy) -> Callable[[Array, Mapping[str, Array]], tuple[Array, Array]]:
    """The plain objective of a step: (logits, batch) -> (loss against `batch["targets"]` [b], logits)."""
    return lambda logits, batch: (loss(logits, batch["targets"]), logits)
