"""make_optimizer: any optax alias by name, with clipping, masked decay, freezing and layer-wise rates around it."""

import functools
import inspect
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from jaxvit import plugins, tree
from jaxvit.errors import UserError, shown, suggest
from jaxvit.models.registry import recognise
from jaxvit.optim.layer_groups import layer_ids
from jaxvit.optim.masks import decay_mask as default_decay_mask

# aliases that a plain (gradients, state, parameters) update cannot serve, and what each would need
UNFIT = {
    "lbfgs": "a line search over the loss",
    "rprop": "the gradient of the whole data set",
    "noisy_sgd": "its own random key",
    "optimistic_adam": "a constant rate; use optimistic_adam_v2",
    "polyak_sgd": "the loss in its update",
    "momo": "the loss in its update",
    "momo_adam": "the loss in its update",
    "sophia": "second derivatives of the loss",
    "dpsgd": "gradients of every example",
    "sam": "a gradient function; use optim.sam.rho",
    "schedule_free": "a base optimiser; use schedule_free_adamw or schedule_free_sgd",
    "schedule_free_adamw": "another set of weights for evaluation",
    "schedule_free_sgd": "another set of weights for evaluation",
}
COUPLED = {"adadelta", "cocob", "dog", "dowg", "lars"}  # their decay is the L2 term
NEVER_AT_REST = {"dadapt_adamw", "prodigy"}  # divide by a sum of rate x gradient: at a warm-up's rate of 0, NaN
UNSCHEDULED = {"sm3"}  # takes a number only, and is linear in it
DEFAULTS: dict[str, dict[str, Any]] = {"sgd": {"momentum": 0.9}}
# what PyTorch or other optimisers call the same thing
ALIASES = {
    "sgd": {"mu_dtype": "accumulator_dtype"},
    "signum": {"mu_dtype": "accumulator_dtype"},
    "muon": {"momentum": "beta"},
}
DEFAULT_WEIGHT_DECAY = 0.05
SHARED = ("b1", "b2", "eps", "momentum", "nesterov", "mu_dtype")  # config.optim has them whatever the optimiser


@functools.cache
def optimizers() -> dict[str, Callable[..., optax.GradientTransformation]]:
    """Returns {name: maker} of every optax optimiser that `make_optimizer` takes."""
    makers = {}
    for module in (optax.contrib, optax):
        for name, maker in inspect.getmembers(module, _is_maker):
            if name in UNFIT or name.startswith(("scale_by_", "_")):
                continue
            if "learning_rate" in inspect.signature(maker).parameters:
                makers[name] = maker
    return makers


def register_optimizer(name: str) -> Callable[[Any], Any]:
    """Adds an optimiser: above a function (learning_rate, ...) -> optax.GradientTransformation; see docs/PLUGINS.md.

    It is used as an optax alias: `learning_rate` is the schedule, step -> rate; an argument `weight_decay` next to
    `mask` gets the decay and what it applies to, else the decay is PyTorch's L2 term; `momentum`, `b1` and so on are
    those of the config's section `optim`, all others those of optim.options.

    Raises:
      UserError: a name that exists, or another kind of thing than such a function.
    """
    form = "(learning_rate, ...) -> optax.GradientTransformation"

    def register(name: str, make: Callable[..., Any]) -> None:
        takes = plugins.parameters("optimiser", name, make, form)
        if not takes or takes[0].name != "learning_rate":
            plugins.options("optimiser", name, make, len(takes) + 1, form)  # raises
        plugins.claim("optimiser", name, {*optimizers(), *UNFIT}, make)

        @functools.wraps(make)
        def checked(*args: Any, **kwargs: Any) -> Any:
            made = make(*args, **kwargs)
            if not isinstance(made, optax.GradientTransformation):
                raise UserError(f"the optimiser {name!r} returned {type(made).__name__}; expected {form.split()[-1]}")
            return made

        optimizers()[name] = checked

    return plugins.decorator(register, name, '@register_optimizer("name")')


def check_name(name: str) -> None:
    """Raises UserError unless `make_optimizer` takes this name."""
    makers = optimizers()
    if not isinstance(name, str):
        raise UserError(f"the name of the optimiser is {shown(name)}; expected text, such as 'adamw'.")
    if name in UNFIT:
        raise UserError(f"the optimiser {name!r} cannot be used here: it needs {UNFIT[name]}.")
    if name not in makers:
        raise UserError(
            f"no optimiser {name!r}.{suggest(name, makers)} Any optax alias is accepted, e.g. adamw or sgd."
        )


def _is_maker(member: Any) -> bool:
    return inspect.isfunction(member) or isinstance(member, functools.partial)  # nadam is adam with an option set


def make_optimizer(
    params: Any,
    *,
    name: str = "adamw",
    schedule: Callable[[Any], Any] | float,
    weight_decay: float | None = None,
    grad_clip_norm: float | None = None,
    trainable: Any = None,
    decay_mask: Any = None,
    layer_decay: float | None = None,
    family: str | None = None,
    **options: Any,
) -> optax.GradientTransformationExtraArgs:
    """Builds the optimiser: clip -> (L2) -> optax's alias with masked decay -> layer-wise rates -> `lr_scale`.

    Its `update` takes `lr_scale=` (default 1), a multiplier on the learning rate such as plateau's. The
    transformation may be initialised on the whole parameters or on the trainable part of `split_trainable`.

    Args:
      params: the whole parameters, or their shapes; only names and ranks are read.
      name: an optax alias, e.g. adamw, sgd, lamb, lion, muon.
      schedule: step -> learning rate, or a number.
      weight_decay: on kernels only. Decoupled (times the learning rate) where the alias has it so, else PyTorch's L2
        term, added to the gradient after clipping. None: 0.05 where decoupled, 0 as an L2 term.
      grad_clip_norm: greatest global norm of the gradient; None or 0 = off.
      trainable: tree of booleans (`freeze_mask`); what is False has no state and gets zero updates.
      decay_mask: tree of booleans or function of the parameters; None = kernels of rank >= 2, as the family has it.
      layer_decay: factor between the rates of one layer and the next, timm's layers (Bao et al. 2021, BEiT).
      family: for layer_decay and decay_mask; None = recognised by the names of the parameters.
      **options: the alias's own arguments, None its own default: `b1` and `b2`, decays of the moments; `eps`, added to
        the denominator; `momentum`, 0.9 for sgd, and `nesterov`, its form; `mu_dtype`, type of the first moment, e.g.
        "bfloat16"; and whatever else it takes.

    Raises:
      UserError: unknown optimiser or option, a value that makes no sense, or an optimiser that needs the loss.
    """
    known = {"weight_decay": weight_decay, "grad_clip_norm": grad_clip_norm, "layer_decay": layer_decay}
    for word, value in (known | {word: options.get(word) for word in ("b1", "b2", "eps", "momentum")}).items():
        if value is not None and not isinstance(value, int | float | np.number):
            raise UserError(f"{word} is {shown(value)}; it must be a number.")
    for word, value in (("weight_decay", weight_decay), ("grad_clip_norm", grad_clip_norm)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise UserError(f"{word} is {value}; it must be a number >= 0.")
    if layer_decay is not None and not 0 < layer_decay <= 1:
        raise UserError(f"layer_decay is {layer_decay}; it must lie in (0, 1].")
    for word in ("b1", "b2", "momentum"):
        value = options.get(word)
        if value is not None and not 0 <= value < 1:
            raise UserError(f"{word} is {value}; it must lie in [0, 1).")
    if options.get("nesterov") and options.get("momentum") == 0:
        raise UserError("nesterov is True but momentum is 0; expected a momentum above 0.")
    mu_dtype = options.get("mu_dtype")
    if mu_dtype is not None:
        mu_dtype = options["mu_dtype"] = _float_type(mu_dtype)
    options = {word: value for word, value in options.items() if value is not None or word not in SHARED}
    if family is None and (record := recognise(tree.named_leaves(params))):
        family = record.name
    mask = functools.partial(default_decay_mask, family=family) if decay_mask is None else _by_path(decay_mask)
    chain = [optax.clip_by_global_norm(grad_clip_norm)] if grad_clip_norm else []
    chain += _alias(name, schedule, weight_decay, mask, options)
    if layer_decay is not None and layer_decay != 1:
        chain.append(_scale_by_path(layer_scales(params, layer_decay, family=family)))
    tx = optax.chain(*chain, scale_by_lr_scale())
    everywhere = functools.partial(jax.tree.map, lambda _: True)
    _check_update(name, optax.chain(*_alias(name, schedule, weight_decay, everywhere, options)), mu_dtype)
    if trainable is None:
        return optax.with_extra_args_support(tx)
    labels = _by_path(trainable)
    return optax.with_extra_args_support(
        optax.partition(
            {"train": tx, "freeze": optax.set_to_zero()},
            lambda part: jax.tree.map(lambda trains: "train" if trains else "freeze", labels(part)),
        )
    )


def _alias(
    name: str,
    schedule: Callable[[Any], Any] | float,
    weight_decay: float | None,
    mask: Callable[[Any], Any],
    options: dict[str, Any],
) -> list[optax.GradientTransformation]:
    """The alias itself, preceded by the L2 term if it has no masked decay itself."""
    check_name(name)
    makers = optimizers()
    known = dict(inspect.signature(makers[name]).parameters)
    known.pop("learning_rate")
    rename = ALIASES.get(name, {})
    options = {**DEFAULTS.get(name, {}), **{rename.get(key, key): value for key, value in options.items()}}
    mask_word = next((word for word in ("mask", "weight_decay_mask") if word in known), None)
    decay_word = next((word for word in ("weight_decay", "weight_decay_rate") if word in known), None)
    free = [key for key in known if key not in (mask_word, decay_word)]
    for key in options:
        if key not in free:
            raise UserError(
                f"the optimiser {name!r} has no option {key!r}; it takes {', '.join(free) or 'none'}."
                + suggest(key, free)
            )
    options = {key: value for key, value in options.items() if value is not None}
    for key in options:
        if isinstance(options[key], str) and isinstance(known[key].default, int | float):  # bool is an int
            wanted = "true or false" if isinstance(known[key].default, bool) else "a number"
            raise UserError(f"the option {key!r} of {name!r} is {options[key]!r}; expected {wanted}.")
    for key in free:
        if known[key].default is inspect.Parameter.empty and key not in options:
            raise UserError(f"the optimiser {name!r} needs the option {key!r}.")
    if mask_word and decay_word and name not in COUPLED:
        decay = DEFAULT_WEIGHT_DECAY if weight_decay is None else weight_decay
        if name in ("muon", "adafactor"):
            off = {decay_word: 0.0, **_muon_options(known)} if name == "muon" else {}
            decayed = [_decoupled_decay(schedule, decay, mask)] if decay else []
            return [makers[name](schedule, **off, **options), *decayed]
        return [makers[name](schedule, **{decay_word: decay, mask_word: mask}, **options)]
    if decay_word:  # a decay that cannot be masked, or the L2 term itself
        options[decay_word] = 0.0
    chain = [optax.add_decayed_weights(weight_decay, mask)] if weight_decay else []
    if name in UNSCHEDULED:
        return [*chain, makers[name](1.0, **options), optax.scale_by_learning_rate(schedule, flip_sign=False)]
    if name in NEVER_AT_REST:
        rate = schedule if callable(schedule) else lambda step: schedule
        return [*chain, makers[name](lambda step: jnp.maximum(rate(step), 1e-12), **options)]
    return [*chain, makers[name](schedule, **options)]


def _float_type(given: Any) -> Any:
    try:
        found = jnp.dtype(given)
    except TypeError:
        found = None
    if found is None or not jnp.issubdtype(found, jnp.floating):
        raise UserError(f"mu_dtype is {given!r}; expected a type such as 'bfloat16'.")
    return found


def _check_update(name: str, tx: optax.GradientTransformation, mu_dtype: Any) -> None:
    """Raises UserError where an update wants more than gradients and parameters, which is all that a step gives it.

    And where it does not keep the types of its state, for which a step is compiled, once `mu_dtype` is given.
    """
    params = {"kernel": jnp.ones((2, 2))}
    before = jax.eval_shape(tx.init, params)
    try:
        _, after = jax.eval_shape(tx.update, params, before, params)
    except TypeError as error:
        wanted = re.search(r"missing \d+ required .*arguments?: (.+)", str(error))
        if wanted is None:
            raise
        raise UserError(
            f"the optimiser {name!r} cannot be used here: its update needs {wanted[1]}; "
            "expected one that needs gradients and parameters alone."
        ) from None
    if mu_dtype is not None and jax.tree.map(lambda x: x.dtype, before) != jax.tree.map(lambda x: x.dtype, after):
        raise UserError(f"mu_dtype: the optimiser {name!r} of this optax does not keep its moments in {mu_dtype.name}.")


def _muon_options(known: Any) -> dict[str, Any]:
    """Muon for matrices that are kernels (a bias table is not a kernel), Adam for all else."""
    numbers = getattr(optax.contrib, "MuonDimensionNumbers", None)
    if numbers is None or "muon_weight_dimension_numbers" not in known:
        return {}

    def dimensions(part: Any) -> Any:
        return tree.map_with_path(
            lambda path, leaf: numbers() if leaf.ndim == 2 and path.endswith("kernel") else None, part
        )

    return {"muon_weight_dimension_numbers": dimensions}


def _decoupled_decay(schedule: Callable[[Any], Any] | float, decay: float, mask: Any) -> optax.GradientTransformation:
    """Adds -rate * decay * w where the mask is True: muon's Adam half knows no mask, adafactor's decay no rate."""
    rate = schedule if callable(schedule) else lambda step: schedule

    def init(params: Any) -> optax.ScaleByScheduleState:
        return optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32))

    def update(updates: Any, state: Any, params: Any = None):
        factor = rate(state.count) * decay
        updates = jax.tree.map(
            lambda u, w, on: (u - factor * w).astype(u.dtype) if on else u, updates, params, mask(params)
        )
        return updates, optax.ScaleByScheduleState(count=optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)


def layer_scales(params: Any, layer_decay: float, *, family: str | None = None) -> dict[str, float]:
    """Returns {path: factor on the learning rate}: layer_decay^(last - layer), timm's layers."""
    layers = layer_ids(params, family=family)
    last = max(layers.values())
    return {path: layer_decay ** (last - layer) for path, layer in layers.items()}


def at_step(opt_state: Any, step: Any) -> Any:
    """Returns the state of an optimiser with its place in the schedule at `step`; its moments and their count stay.

    An optimiser that keeps the schedule itself (prodigy, madgrad, ...) has one count for both, which is moved.
    """

    def is_place(node: Any) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    def move(node: Any) -> Any:
        if is_place(node):
            return node._replace(count=jnp.asarray(step, node.count.dtype))
        alone = not found and jnp.ndim(node) == 0 and jnp.issubdtype(node.dtype, jnp.integer)
        return jnp.asarray(step, node.dtype) if alone else node

    found = any(map(is_place, jax.tree.leaves(opt_state, is_leaf=is_place)))
    return jax.tree.map(move, opt_state, is_leaf=is_place)


def scale_by_lr_scale() -> optax.GradientTransformationExtraArgs:
    """Multiplies the updates by the extra argument `lr_scale`, where one is given."""

    def update(updates: Any, state: Any, params: Any = None, *, lr_scale: Any = None, **extra: Any):
        if lr_scale is not None:
            updates = jax.tree.map(lambda u: (u * lr_scale).astype(u.dtype), updates)
        return updates, state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _scale_by_path(scales: dict[str, float]) -> optax.GradientTransformation:
    def update(updates: Any, params: Any = None):
        return tree.map_with_path(lambda path, u: u * scales[path], updates)

    return optax.stateless(update)


def _by_path(mask: Any) -> Callable[[Any], Any]:
    """Turns a tree of booleans into a function that gives any part of the tree its own part of the mask."""
    if callable(mask):
        return mask
    values = tree.named_leaves(mask)

    def of_part(part: Any) -> Any:
        def value(path: str, _: Any) -> bool:
            if path not in values:
                raise UserError(f"a mask of the optimiser does not name the parameter {path!r}.")
            return bool(values[path])

        return tree.map_with_path(value, part)

    return of_part
