"""Looking into a model while it runs: which layers hold a map, what one puts out, what the logits make of it."""

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxvit.errors import UserError, shown, suggest
from jaxvit.models.layers import Array, check_floats, to_pair
from jaxvit.models.registry import find_family

Pair = tuple[int, int]


def plain(model: nn.Module) -> nn.Module:
    """The same model without rematerialisation and loop over blocks, whose inner values would be out of reach.

    Raises UserError if it is not a model.
    """
    check_model(model)
    fields: dict[str, Any] = {field: False for field in ("remat", "scan") if getattr(model, field, False)}
    return model.clone(**fields)


def run(
    model: nn.Module, variables: Any, images: Array, layer: str, perturbation: Array | None = None
) -> tuple[Any, Array]:
    """Returns (logits [b, classes], output of `layer`), after `perturbation` was added to that output.

    The gradient of a logit with respect to a perturbation of zero is that with respect to the layer.
    """
    seen = []

    def tap(call, args, kwargs, context):
        y = call(*args, **kwargs)
        if context.method_name != "__call__" or "/".join(context.module.path) != layer:
            return y
        seen.append(y if perturbation is None else y + perturbation)
        return seen[-1]

    with nn.intercept_methods(tap):
        logits = model.apply(variables, images)
    return logits, seen[0]


def layers(model: nn.Module, image_size: int | Pair | None = None) -> list[str]:
    """Names of the layers that hold a map of the image, from the first to the last one called.

    `image_size` is (height, width) in pixels, the model's own by default. Maps of a single cell are left out.
    """
    model = plain(model)
    pair = image_size if isinstance(image_size, tuple | list) else (image_size,) * 2
    if image_size is not None and (len(pair) != 2 or not all(isinstance(s, int | np.integer) and s > 0 for s in pair)):
        raise UserError(f"image_size is {shown(image_size)}; expected pixels, one number or (height, width).")
    size = to_pair(model.image_size if image_size is None else image_size)  # type: ignore[attr-defined]
    return list(_layers(model, size))


@lru_cache(maxsize=128)
def _layers(model: Any, size: Pair) -> tuple[str, ...]:
    shapes: dict[str, tuple[int, ...]] = {}

    def record(call, args, kwargs, context):
        y = call(*args, **kwargs)
        if context.method_name == "__call__" and hasattr(y, "shape"):
            shapes["/".join(context.module.path)] = y.shape
        return y

    images = jax.ShapeDtypeStruct((2, *size, model.in_channels), jnp.float32)
    with nn.intercept_methods(record):
        jax.eval_shape(model.init, jax.random.key(0), images)
    return tuple(name for name, shape in shapes.items() if name and _is_map(model, name, shape, size))


def attention_of(model: nn.Module) -> str | None:
    """The kind of attention, "tokens" or "windows"; None for networks of convolutions and of no family."""
    family = find_family(model)
    return family and family.attention


def _is_map(model: Any, name: str, shape: tuple[int, ...], size: Pair) -> bool:
    family = find_family(model)
    if name.split("/")[-1][0].isupper():  # dropout and the like, which nobody named
        return False
    if shape[0] != 2 or (family is not None and family.not_maps & set(name.split("/"))):
        return False
    if len(shape) == 3 and attention_of(model) == "tokens":
        gh, gw = grid(model, size)
        return gh * gw > 1 and shape[1] == model.num_prefix_tokens + gh * gw
    return len(shape) == 4 and shape[1] * shape[2] > 1


def grid(model: Any, size: Pair) -> Pair:
    """Patches (down, across) that a transformer cuts an image of `size` into."""
    (h, w), (ph, pw) = size, to_pair(model.patch_size)
    return (-(-h // ph), -(-w // pw)) if getattr(model, "dynamic_img_pad", False) else (h // ph, w // pw)


def default_layer(model: nn.Module, image_size: int | Pair | None = None) -> str:
    """The layer whose Grad-CAM points at the object, by family; UserError where no layer holds a map.

    Networks of convolutions: their last map. Swin and a ViT that averages its tokens: the last norm before the mean.
    A ViT with a class token: the norm before the last attention, as the patches have no gradient after it.
    """
    names = layers(model, image_size)
    if not names:
        h, w = to_pair(model.image_size if image_size is None else image_size)  # type: ignore[attr-defined]
        raise UserError(f"{type(model).__name__} has no map left for images of {h}x{w}; expected larger images.")
    family = find_family(model)
    wanted = "features" if family is None else family.default_layer
    wanted = wanted if isinstance(wanted, str) else wanted(model)
    return wanted if wanted in names else names[-1]


def check_layer(model: nn.Module, layer: str | None, size: Pair) -> str:
    """Returns `layer`, or the default for None; raises UserError for a name that is not in `layers`."""
    if layer is None:
        return default_layer(model, size)
    names = layers(model, size)
    if not isinstance(layer, str) or layer not in names:
        raise UserError(
            f"{type(model).__name__} has no layer {shown(layer)} with a map of the image; "
            f"expected one such as {default_layer(model, size)!r}.{suggest(str(layer), names)}"
        )
    return layer


def check_model(model: Any) -> None:
    """Raises UserError for what cannot be looked into."""
    if not isinstance(model, nn.Module):
        raise UserError(f"model is {shown(model)}; expected a linen Module, from jaxvit.create_model.")
    missing = [field for field in ("in_channels", "image_size") if not hasattr(model, field)]
    if missing:
        raise UserError(f"{type(model).__name__} has no field {missing[0]!r}; expected one, as jaxvit's models have.")


def check_inputs(model: Any, variables: Any, images: Any) -> Array:
    """Returns the images as an array; raises UserError unless they are normalised floats [b, h, w, c], b >= 1.

    And for a model that cannot be looked into, and variables that are none.
    """
    check_model(model)
    if not isinstance(variables, Mapping) or "params" not in variables:
        what = "have no 'params'" if isinstance(variables, Mapping) else f"are {shown(variables)}"
        raise UserError(f"variables {what}; expected those of model.init or jaxvit.load_pretrained.")
    try:
        images = jnp.asarray(images)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"images are {shown(images)}; expected an array [b, h, w, {model.in_channels}].") from None
    if images.ndim != 4 or images.shape[-1] != model.in_channels:
        raise UserError(f"images have shape {images.shape}; expected [b, h, w, {model.in_channels}].")
    if images.shape[0] == 0:
        raise UserError("no images: the batch is empty; expected at least one.")
    check_floats(images)
    return images


def broadcast(word: str, value: Any, images: Array) -> Array:
    """Returns an argument such as a colour as an array like the images; raises UserError where it cannot be."""
    try:
        return jnp.broadcast_to(jnp.asarray(value, images.dtype), images.shape)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{word} is {shown(value)}; expected numbers that broadcast to {list(images.shape)}.") from None


def check_classes(model: Any, class_index: Any, batch: int) -> Array:
    """Returns int32 [b]: `class_index` for each image, -1 ("the predicted one") for None. Raises UserError."""
    if not model.num_classes:
        raise UserError("the model has no classes (num_classes=0); expected one with a classifier.")
    if getattr(model, "global_pool", None) == "":
        raise UserError("global_pool='' gives logits per token; expected a model with one row of logits per image.")
    if class_index is None:
        return jnp.full((batch,), -1, jnp.int32)
    if isinstance(class_index, Tracer):
        return jnp.broadcast_to(class_index, (batch,)).astype(jnp.int32)
    index = np.asarray(class_index)
    if not np.issubdtype(index.dtype, np.integer) or index.shape not in ((), (batch,)):
        raise UserError(f"class_index is {index.dtype} {list(index.shape)}; expected an int or {batch} ints.")
    for k in index.reshape(-1):
        if not 0 <= k < model.num_classes:
            raise UserError(f"class_index {k} is out of range; the model's classes are 0 to {model.num_classes - 1}.")
    return jnp.broadcast_to(jnp.asarray(index, jnp.int32), (batch,))


def prepare(model: nn.Module, variables: Any, images: Any, class_index: Any) -> tuple[nn.Module, Array, Array]:
    """Returns (plain model, images, classes [b]); None asks for the class that each image has as it is.

    Raises UserError as `check_inputs` and `check_classes`.
    """
    model, images = plain(model), check_inputs(model, variables, images)
    index = check_classes(model, class_index, images.shape[0])
    # The class of the image itself, not of what a method makes of it.
    return model, images, index if class_index is not None else _predicted(variables, images, model=model)


@partial(jax.jit, static_argnames=("model",))
def _predicted(variables: Any, images: Array, *, model: Any) -> Array:
    return jnp.argmax(model.apply(variables, images), axis=-1).astype(jnp.int32)


def size_of(images: Any) -> Pair:
    """(height, width) of images [b, h, w, c]."""
    return images.shape[1], images.shape[2]


def pick_logits(logits: Array, class_index: Array) -> Array:
    """The logit of each image's class (the largest one for -1): [b, classes], [b] -> [b]."""
    index = jnp.where(class_index < 0, jnp.argmax(logits, axis=-1), class_index)
    return jnp.take_along_axis(logits, index[:, None], axis=-1)[:, 0]


def to_map(model: Any, x: Array, size: Pair) -> Array:
    """A layer's output as a float32 map [b, h, w, c]: tokens in rows and columns, without the prefix."""
    if x.ndim == 3:
        gh, gw = grid(model, size)
        x = x[:, x.shape[1] - gh * gw :].reshape(x.shape[0], gh, gw, -1)
    return x.astype(jnp.float32)


def to_pixels(model: Any, maps: Array, size: Pair) -> Array:
    """Maps [b, mh, mw] at the resolution of the image, [b, h, w]: linear between the centres of the cells.

    Cells of a transformer keep their size in pixels, also where the last one lies partly outside of the image.
    """
    extents = [
        _extent(model, cells, side, axis) for axis, (cells, side) in enumerate(zip(maps.shape[1:], size, strict=True))
    ]
    maps = jax.image.resize(maps, (maps.shape[0], *extents), "linear", antialias=False)[:, : size[0], : size[1]]
    missing = [(0, side - have) for side, have in zip(size, maps.shape[1:], strict=True)]
    return jnp.pad(maps, [(0, 0), *missing], mode="edge")


def _extent(model: Any, cells: int, side: int, axis: int) -> int:
    attention = attention_of(model)
    if attention == "tokens":
        return cells * to_pair(model.patch_size)[axis]
    if attention == "windows":
        cell = to_pair(model.patch_size)[axis]
        while -(-side // cell) > cells:
            cell *= 2
        return cells * cell
    return side


def to_unit(maps: Array) -> Array:
    """Scales each map [b, h, w] to [0, 1]; a flat one is all zeros."""
    low = jnp.min(maps, axis=(1, 2), keepdims=True)
    span = jnp.max(maps, axis=(1, 2), keepdims=True) - low
    return jnp.where(span > 0, jnp.clip((maps - low) / jnp.where(span > 0, span, 1.0), 0.0, 1.0), 0.0)
