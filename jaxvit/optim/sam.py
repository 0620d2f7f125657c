"""Sharpness-aware gradients: SAM, ASAM and GSAM as functions with the signature of `jax.value_and_grad`.

Two passes: the clean one gives value, aux and gradient g; the second gives the gradient at w + e(w, g), which is
what the optimiser then sees.

  SAM   e = rho g / ||g||                                   Foret et al. 2021, arXiv 2010.01412
  ASAM  e = rho T^2 g / ||T g||, T = |w| + eta              Kwon et al. 2021, arXiv 2102.11600
  GSAM  SAM's gradient minus alpha times the part of g orthogonal to it    Zhuang et al. 2022, arXiv 2203.08065
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxvit import tree
from jaxvit.errors import UserError, shown, suggest
from jaxvit.ops import loops

METHODS = ("sam", "gsam")
# What PyTorch calls `weight` (kernels, norm scales, embeddings), by its, Flax's and Haiku's names and w1, W_q, wq.
ADAPTED = re.compile(r"scale|embeddings?|\w*(kernel|weight)\w*|w([a-z]?\d*|_\w+)", re.IGNORECASE)
GradFn = Callable[..., tuple[Any, Any]]  # (params, *args) -> (value or (value, aux), gradients)


def sam_value_and_grad(
    loss_fn: Callable[..., Any],
    rho: Any = 0.05,
    adaptive: bool = False,
    eta: float = 0.01,
    has_aux: bool = False,
    argnums: int = 0,
    *,
    method: str = "sam",
    alpha: float = 0.4,
    num_micro_batches: int = 1,
    batch_argnums: int | Sequence[int] = 1,
) -> GradFn:
    """Does what `jax.value_and_grad(loss_fn, has_aux=has_aux)` does, with the gradient of the perturbed weights.

    Value and aux (metrics, batch statistics) come from the clean pass. All other arguments are the same in both
    passes: a key for dropout or augmentation as well.

    Args:
      loss_fn: (params, *args) -> scalar, or (scalar, aux) with has_aux.
      rho: radius of the perturbation; a number or a traced scalar. The number 0 gives the plain gradient.
      adaptive: ASAM instead of SAM. Names decide which parameters have T = |w| + eta (see ADAPTED); arrays without
        a name have it unless their rank is lower than that of kernels, such as the b of (w, b).
      eta: ASAM's stabiliser, added to |w|.
      has_aux: as in `jax.value_and_grad`.
      argnums: 0, the parameters.
      method: "sam" or "gsam".
      alpha: GSAM's weight of the orthogonal part.
      num_micro_batches: m-sharpness: the number of equal parts of the batch, each with its own perturbation.
      batch_argnums: positions of the arguments to divide, from the end where negative; their leaves are [b, ...].

    Raises:
      UserError: a value that makes no sense; an argument to divide that is not given by position.
    """
    if argnums != 0:
        raise UserError(f"argnums is {argnums!r}; sam_value_and_grad differentiates its first argument only.")
    if not callable(loss_fn):
        raise UserError(f"loss_fn is {shown(loss_fn)}; expected a function (params, *args) -> loss.")
    grad_fn = jax.value_and_grad(loss_fn, has_aux=has_aux)
    grad_fn = sharpness_aware(grad_fn, rho, adaptive, eta, method=method, alpha=alpha)
    return micro_batched(grad_fn, num_micro_batches, batch_argnums)


def sharpness_aware(
    grad_fn: GradFn,
    rho: Any = 0.05,
    adaptive: bool = False,
    eta: float = 0.01,
    *,
    method: str = "sam",
    alpha: float = 0.4,
) -> GradFn:
    """Makes any function like `jax.value_and_grad`'s result sharpness-aware; arguments as `sam_value_and_grad`.

    Around an accumulating function it perturbs once for the whole batch; inside one, once per micro-batch.
    """
    _check(rho, eta, method, alpha)
    if isinstance(rho, (int, float)) and rho == 0:
        return grad_fn

    def value_and_grad(params: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        value, grads = grad_fn(params, *args, **kwargs)
        perturbed = add(params, perturbation(params, grads, rho, adaptive, eta))
        _, sharp_grads = grad_fn(perturbed, *args, **kwargs)
        if method == "gsam":
            sharp_grads = surrogate_gap_gradient(grads, sharp_grads, alpha)
        return value, sharp_grads

    return value_and_grad


def perturbation(params: Any, grads: Any, rho: Any, adaptive: bool = False, eta: float = 0.01) -> Any:
    """The ascent rho T^2 g / ||T g||, float32 or wider; T = 1 without `adaptive`. A zero gradient gives zeros."""
    ranks = [jnp.ndim(w) for path, w in tree.named_leaves(params).items() if not _name(path)]
    least = min(2, max(ranks, default=0))

    def operator(path: str, w: jax.Array) -> Any:  # T
        name = _name(path)
        adapted = ADAPTED.fullmatch(name) if name else jnp.ndim(w) >= least
        return jnp.abs(_wide(w)) + eta if adaptive and adapted else 1.0

    t = tree.map_with_path(operator, params)
    tg = jax.tree.map(lambda t, g: t * _wide(g), t, grads)
    # divided by the greatest element first: the squares of gradients below 1e-19 would vanish in float32
    greatest = jnp.max(jnp.stack([jnp.float32(0), *(jnp.max(jnp.abs(x), initial=0) for x in jax.tree.leaves(tg))]))
    safe = jnp.where(greatest > 0, greatest, 1)
    unit = jax.tree.map(lambda x: x / safe.astype(x.dtype), tg)
    # of length 1 where all is zero, so that the norm can be differentiated there too
    norm = jnp.sqrt(jnp.where(greatest > 0, _square(unit), 1))
    scale = jnp.where(greatest > 0, rho / norm, 0)
    return jax.tree.map(lambda t, u: scale.astype(u.dtype) * t * u, t, unit)


def surrogate_gap_gradient(grads: Any, sharp_grads: Any, alpha: float) -> Any:
    """GSAM's gradient: sharp_grads - alpha * (the part of grads orthogonal to sharp_grads)."""
    dot = sum(jax.tree.leaves(jax.tree.map(lambda g, s: jnp.sum(_wide(g) * _wide(s)), grads, sharp_grads)))
    square = _square(sharp_grads)
    ratio = jnp.where(square > 0, dot / jnp.where(square > 0, square, 1.0), 0.0)
    return jax.tree.map(
        lambda g, s: (_wide(s) - alpha * (_wide(g) - ratio * _wide(s))).astype(s.dtype), grads, sharp_grads
    )


def part_of_batch(batch: Any, i: int, parts: int) -> Any:
    """Part number `i` of a batch, leaves [b, ...] -> [b / parts, ...]: every `parts`-th example from the i-th on.

    So each device of a mesh, which holds examples that stand side by side, keeps its own.

    Raises:
      UserError: the batch does not divide into equal parts.
    """

    def take(leaf: jax.Array) -> jax.Array:
        if leaf.shape[0] % parts:
            raise UserError(f"a batch of {leaf.shape[0]} does not divide into {parts} micro-batches.")
        return leaf.reshape(-1, parts, *leaf.shape[1:])[:, i]

    return jax.tree.map(take, batch)


def micro_batched(grad_fn: GradFn, num_micro_batches: int, batch_argnums: int | Sequence[int] = 1) -> GradFn:
    """Means of value, aux and gradients over equal parts of the batch, each through `grad_fn` alone.

    Every leaf of aux is averaged, so aux should hold means and statistics, not one entry per example.
    """
    if not (isinstance(num_micro_batches, int) and num_micro_batches >= 1):
        raise UserError(f"num_micro_batches is {num_micro_batches!r}; it must be a whole number >= 1.")
    if num_micro_batches == 1:
        return grad_fn
    places = (batch_argnums,) if isinstance(batch_argnums, int) else tuple(batch_argnums)

    def value_and_grad(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        for n in places:  # a batch that is not divided would be perturbed as a whole
            if not -len(args) <= n < len(args):
                raise UserError(
                    f"batch_argnums has {n}, the call {len(args)} arguments by position; give the batch by position."
                )
        divided = {n % len(args) for n in places}

        def one_more(results: list[Any], i: int) -> list[Any]:
            parts = [part_of_batch(arg, i, num_micro_batches) if n in divided else arg for n, arg in enumerate(args)]
            return [*results, grad_fn(*parts, **kwargs)]

        return jax.tree.map(_mean, *loops.fold(one_more, [], num_micro_batches))

    return value_and_grad


def sam_active(step: Any, total_steps: int, *, every: int = 1, start_fraction: float = 0.0) -> Any:
    """Whether this step is a SAM step: each `every`-th one after `start_fraction` of the training.

    Works on ints (choose between two compiled steps on the host, the faster way on CPU) and on traced steps.
    """
    if every < 1 or not 0 <= start_fraction <= 1:
        raise UserError(f"sam.every is {every} (must be >= 1), sam.start_fraction {start_fraction} (0 to 1).")
    return (step >= math.ceil(start_fraction * total_steps)) & (step % every == 0)


def gsam_rho(
    learning_rate: Any, *, rho: float, rho_min: float, max_learning_rate: float, min_learning_rate: float = 0.0
) -> Any:
    """GSAM's radius: falls from rho to rho_min as the learning rate falls from its peak to its floor."""
    part = (learning_rate - min_learning_rate) / max(max_learning_rate - min_learning_rate, 1e-30)
    return rho_min + (rho - rho_min) * jnp.clip(part, 0, 1)


def add(params: Any, updates: Any) -> Any:
    """Adds in the wider type and returns params' own."""
    return jax.tree.map(lambda w, e: (_wide(w) + e).astype(jnp.result_type(w)), params, updates)


def _name(path: str) -> str:
    """The last part of a path that is not a position in a list; "" if there is none."""
    return next((part for part in reversed(path.split("/")) if not part.isdigit()), "")


def _wide(x: jax.Array) -> jax.Array:
    """At least float32: norms of bfloat16 trees lose their digits otherwise."""
    return jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32))


def _square(some_tree: Any) -> jax.Array:
    """The squared norm."""
    return jnp.sum(jnp.stack([jnp.float32(0), *(jnp.sum(jnp.square(_wide(x))) for x in jax.tree.leaves(some_tree))]))


def _mean(*leaves: jax.Array) -> jax.Array:
    return jnp.mean(jnp.stack([_wide(leaf) for leaf in leaves]), axis=0).astype(leaves[0].dtype)


def _check(rho: Any, eta: float, method: str, alpha: float) -> None:
    if not isinstance(method, str) or method not in METHODS:
        raise UserError(
            f"no SAM method {shown(method)}; expected {' or '.join(METHODS)}.{suggest(str(method), METHODS)}"
        )
    for word, value in (("rho", rho), ("eta", eta), ("alpha", alpha)):
        try:
            number = float(value)
        except jax.errors.ConcretizationTypeError:  # of a traced scalar nothing is known yet
            continue
        except (TypeError, ValueError):
            raise UserError(f"sam.{word} is {value!r}; it must be a number >= 0.") from None
        if not (math.isfinite(number) and number >= 0):
            raise UserError(f"sam.{word} is {value}; it must be a number >= 0.")
