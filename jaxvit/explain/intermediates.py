"""Feature maps at the ends of stages and blocks, and pooled embeddings, as timm's models give them."""

import operator
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvit.errors import UserError
from jaxvit.explain import taps
from jaxvit.models.family import Tap
from jaxvit.models.layers import Array, to_pair
from jaxvit.models.registry import FAMILIES, family_of, find_family
from jaxvit.precision import at_least_float32

FORMATS = ("NHWC", "NLC")


def without_classifier(model: nn.Module) -> nn.Module:
    """The same model that ends with its pooled features; variables of the whole model fit it.

    Raises UserError for a model without a field num_classes, for one that does not pool, and for a class of the user's
    that makes no features.
    """
    if getattr(model, "num_classes", None) is None:
        raise UserError(f"{type(model).__name__} has no field num_classes; expected a model that takes num_classes=0.")
    if getattr(model, "global_pool", None) == "":
        raise UserError("global_pool='' pools nothing; expected another, or forward_intermediates for the tokens.")
    headless = model.clone(num_classes=0)
    if not _makes_features(headless):
        raise UserError(
            f"{type(model).__name__} makes no features; with num_classes=0 it should return what its classifier reads, "
            "[b, d]."
        )
    return headless


@lru_cache(maxsize=128)
def _makes_features(model: Any) -> bool:
    """Whether a model with num_classes=0 puts out rows of numbers; jaxvit's own do."""
    if type(model).__module__.startswith("jaxvit."):
        return True
    images = jnp.zeros((1, *to_pair(model.image_size), model.in_channels))
    try:
        rows, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    except ZeroDivisionError:  # of the initialiser of a classifier without classes
        return False
    return rows.ndim == 2 and rows.shape[1] > 0


def features(model: nn.Module, variables: Any, images: Any) -> Array:
    """Returns what the classifier reads of each image, pooled: float32 [b, d].

    This is timm's `forward_head(forward_features(x), pre_logits=True)`. `images` [b, h, w, c] are normalised as the
    model takes them; `variables` may have a classifier or not. A hidden layer of `head_hidden_size` belongs to the
    classifier, the two of AlexNet and VGG do not. Compiled once per model and shape. Raises UserError for images of
    another shape and for a model that does not pool.
    """
    headless = without_classifier(model)
    return _features(variables, taps.check_inputs(model, variables, images), model=headless)


@partial(jax.jit, static_argnames=("model",))
def _features(variables: Any, images: Array, *, model: Any) -> Array:
    return at_least_float32(model.apply(variables, images))


def feature_info(model: nn.Module) -> list[dict[str, Any]]:
    """Returns timm's `model.feature_info`: a dict for each map that `forward_intermediates` gives.

    Its keys are timm's: module (its name in timm, of AlexNet in torchvision), num_chs (channels), reduction (pixels
    of the image between two cells). Raises UserError for a model whose family records no such maps.
    """
    return [{"num_chs": tap.channels, "reduction": tap.stride, "module": tap.module} for tap in _taps(model)]


def forward_intermediates(
    model: nn.Module,
    variables: Any,
    images: Any,
    indices: int | Sequence[int] | None = None,
    *,
    return_prefix_tokens: bool = False,
    norm: bool = False,
    output_fmt: str = "NHWC",
    intermediates_only: bool = True,
) -> Any:
    """Returns the feature maps of a model, as timm's `forward_intermediates`: a list of float32 [b, h, w, c].

    The maps are those of `feature_info`, in its order: of every block of a ViT, of every stage of a Swin, of the stem
    and every stage of a ResNet, before every max-pool of a VGG and AlexNet and after the last. What the maps asked
    for do not need is not computed.

    Args:
      model: one of `jaxvit.create_model`.
      variables: its variables.
      images: [b, h, w, c], normalised as the model expects them.
      indices: None for all maps, n for the last n, or a list of places, from the end if negative. The maps always
        come in the order of depth, each once.
      return_prefix_tokens: of a ViT, return pairs (map, prefix tokens [b, p, c]): class, distillation, registers.
        Without such tokens the maps stay alone, as in timm.
      norm: apply the model's final norm to each map that has its width. A norm after pooling is none.
      output_fmt: "NHWC", or "NLC" for tokens [b, h * w, c] without the prefix.
      intermediates_only: False returns the pair (final features, list). The final features are the last map after
        the final norm; of a ViT tokens with the prefix, [b, p + h * w, c].

    Raises:
      UserError: a place that does not exist, an unknown format, images of another shape, a model whose family
        records no maps, prefix tokens of a model that has no tokens.
    """
    known = _taps(model)
    chosen = _chosen(indices, len(known))
    if output_fmt not in FORMATS:
        raise UserError(f"output_fmt={output_fmt!r} is unknown; expected one of {', '.join(FORMATS)}.")
    if return_prefix_tokens and taps.attention_of(model) != "tokens":
        raise UserError(f"{type(model).__name__} has no tokens; expected return_prefix_tokens=False.")
    images = taps.check_inputs(model, variables, images)
    final, maps, prefixes = _run(
        variables,
        images,
        model=taps.plain(model),
        chosen=tuple(chosen),
        norm=bool(norm),
        final=not intermediates_only,
    )
    if output_fmt == "NLC":
        maps = [x.reshape(x.shape[0], -1, x.shape[-1]) for x in maps]
    found = list(zip(maps, prefixes, strict=True)) if return_prefix_tokens and prefixes else maps
    return found if intermediates_only else (final, found)


@partial(jax.jit, static_argnames=("model", "chosen", "norm", "final"))
def _run(
    variables: Any, images: Array, *, model: Any, chosen: tuple[int, ...], norm: bool, final: bool
) -> tuple[Array | None, list[Array], list[Array]]:
    """Returns (final features, maps [b, h, w, c], prefix tokens of each map); the first and the last may be missing."""
    known, last_norm = _taps(model), family_of(model).last_norm
    paths = {tap.path for tap in known}
    seen: dict[str, Array] = {}
    ends: list[Any] = []  # the final norm and its variables, the channels that it takes, its output

    def record(call, args, kwargs, context):
        y = call(*args, **kwargs)
        path = "/".join(context.module.path) if context.method_name == "__call__" else None
        if path in paths:
            seen[path] = y
        if path is not None and path == last_norm:
            ends.append((*context.module.unbind(), args[0].shape[-1], y))
        return y

    with nn.intercept_methods(record):
        model.apply(variables, images)

    def output(i: int) -> Array:
        path, then = known[i].path, known[i].then
        x = seen[path] if then is None else then(seen[path])
        if norm and ends and ends[0][2] == x.shape[-1]:
            layer, own, *_ = ends[0]
            x = layer.apply(own, x)
        return at_least_float32(x)

    outputs = [output(i) for i in chosen]
    maps = [taps.to_map(model, x, taps.size_of(images)) for x in outputs]
    prefix = getattr(model, "num_prefix_tokens", 0) if taps.attention_of(model) == "tokens" else 0
    end = (at_least_float32(ends[0][-1]) if ends else output(len(known) - 1)) if final else None
    return end, maps, [x[:, :prefix] for x in outputs] if prefix else []


def _taps(model: nn.Module) -> tuple[Tap, ...]:
    family = find_family(model)
    if family is None or family.taps is None:
        known = ", ".join(name for name, record in FAMILIES.items() if record.taps is not None)
        raise UserError(f"no feature maps are recorded for {type(model).__name__}; expected a model of {known}.")
    return family.taps(model)


def _chosen(indices: Any, count: int) -> list[int]:
    """Places in the order of depth. Raises UserError for such that do not exist."""
    if indices is None:
        return list(range(count))
    try:
        number = operator.index(indices)
        if not 1 <= number <= count:
            raise UserError(f"indices={indices} is out of range; the model has {count} maps: expected 1 to {count}.")
        places = range(count - number, count)
    except TypeError:
        try:
            places = [operator.index(i) for i in indices]
        except TypeError:
            raise UserError(
                f"indices={indices!r}; expected None, a whole number, or a list of whole numbers."
            ) from None
    if not len(places):
        raise UserError("indices is empty; expected at least one index.")
    for i in places:
        if not -count <= i < count:
            raise UserError(f"index {i} is out of range; the model's maps are 0 to {count - 1}, or -1 for the last.")
    return sorted({i % count for i in places})
