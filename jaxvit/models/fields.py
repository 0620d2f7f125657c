"""Checks the fields of a model before it is built: types by the class's annotations, values by the field's name."""

import dataclasses
import math
import types
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Union, get_args, get_origin

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jaxvit.errors import UserError, suggest
from jaxvit.models.layers import check_patches

# The greatest whole numbers: far above any published model, and low enough to be built before memory or time is gone.
MOST = {
    "depth": 1000,
    "depths": 1000,
    "layers": 1000,
    "num_classes": 2**24,
    "image_size": 2**15,
    "window_size": 2**15,
    "patch_size": 2**15,
}
MOST_OTHERWISE = 2**16
MOST_ENTRIES = 4096  # of a list
DTYPES = ("float32", "bfloat16", "float16", "float64")
KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "text",
    types.NoneType: "None",
}

# What other libraries call our fields.
ELSEWHERE = {
    "img_size": "image_size",
    "input_size": "image_size",
    "in_chans": "in_channels",
    "n_classes": "num_classes",
    "num_labels": "num_classes",
    "hidden_size": "embed_dim",
    "num_layers": "depth",
    "num_hidden_layers": "depth",
    "num_attention_heads": "num_heads",
    "representation_size": "head_hidden_size",
    "dropout": "drop_rate",
    "attn_dropout": "attn_drop_rate",
    "stochastic_depth": "drop_path_rate",
    "grad_checkpointing": "remat",
}
# timm's arguments that are no fields here -> what is instead.
ABSENT = {
    "device": "JAX places arrays; jax.default_device chooses one",
    "dynamic_img_size": "images of other sizes are always accepted, unless strict_img_size=True",
    "embed_layer": "the patch projection is part of the model",
    "fix_init": "weights start as timm's do by default",
    "head_dim": "a head has embed_dim / num_heads channels",
    "norm_layer": "its norms are layer norms",
    "rope_mrope_section": "rope_type='mrope' is not supported",
    "weight_init": "weights start as timm's do by default",
}


def field_kinds(cls: type[nn.Module]) -> dict[str, Any]:
    """Field name -> annotation, without linen's own fields."""
    return {f.name: f.type for f in dataclasses.fields(cls) if f.name not in ("name", "parent")}  # type: ignore[arg-type]


def coerce(value: Any, kind: Any) -> Any:
    """Returns `value` as the annotation `kind` has it: lists become tuples. Raises TypeError when it cannot be."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        for option in args:
            try:
                return coerce(value, option)
            except TypeError:
                continue
    elif origin is tuple and isinstance(value, list | tuple):
        if args[-1] is Ellipsis:
            return tuple(coerce(v, args[0]) for v in value)
        if len(args) == len(value):
            return tuple(coerce(v, k) for v, k in zip(value, args, strict=True))
    elif kind is bool and isinstance(value, bool | np.bool_):
        return bool(value)
    elif kind is int and isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    elif kind is float and isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return float(value)
    elif (kind is str and isinstance(value, str)) or (kind is types.NoneType and value is None):
        return value
    elif kind is Any or (kind not in KINDS and origin is not tuple):
        return tuple(coerce(v, Any) for v in value) if isinstance(value, list | tuple) else value
    raise TypeError


def refuses_none(kind: Any) -> bool:
    """Whether None is not a value of the annotation `kind`."""
    try:
        coerce(None, kind)
    except TypeError:
        return True
    return False


def describe(kind: Any) -> str:
    """The annotation in plain English."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(describe(k) for k in args))
    if origin is tuple:
        plain = [describe(k) for k in args if k is not Ellipsis]
        return f"a list with {plain[0]} for each entry" if args[-1] is Ellipsis else f"({', '.join(plain)})"
    return KINDS.get(kind, str(kind))


def leaves(value: Any) -> Iterator[Any]:
    """All scalars of nested tuples."""
    for v in value if isinstance(value, tuple) else (value,):
        yield from leaves(v) if isinstance(v, tuple) else (v,)


def check_value(field: str, value: Any, kind: Any, choices: Collection[Any] | None = None, usual: Any = None) -> Any:
    """Returns the value of one field as its class wants it; a whole number may be 0 where `usual`, the default, is.

    Raises UserError when it cannot be right.
    """
    if field == "dtype":
        return check_dtype(value)
    if field == "image_size" and kind is int and isinstance(value, list | tuple) and len(set(value)) == 1:
        value = value[0]  # a model of one side
    try:
        value = coerce(value, kind)
    except TypeError:
        raise UserError(f"{field}={value!r} has the wrong type; expected {describe(kind)}.") from None
    if sum(1 for _ in leaves(value)) > MOST_ENTRIES:
        raise UserError(f"{field} has more than {MOST_ENTRIES} entries.")
    least = 0 if field == "num_classes" or 0 in leaves(usual) else 1
    for v in leaves(value):
        if choices is not None and v not in choices:
            known = ", ".join(map(repr, choices))
            near = suggest(str(v), [c for c in choices if c and isinstance(c, str)])
            raise UserError(f"{field}={v!r} is unknown; expected one of {known}.{near}")
        if isinstance(v, bool) or not isinstance(v, int | float):
            continue
        if not math.isfinite(v):
            raise UserError(f"{field}={value!r} is not finite.")
        if field.endswith("_rate") and not 0 <= v < 1:
            raise UserError(f"{field}={value!r} is not a rate; expected 0 <= {field} < 1.")
        if isinstance(v, int) and v < least:
            raise UserError(f"{field}={value!r} is too small; expected at least {least}.")
        most = MOST.get(field, MOST_OTHERWISE)
        if isinstance(v, int) and v > most:
            raise UserError(f"{field}={value!r} is too large; expected at most {most}.")
        if field.endswith(("_ratio", "_eps")) and not 0 < v <= MOST_OTHERWISE:
            raise UserError(f"{field}={value!r} is {'too large' if v > 0 else 'not positive'}.")
    return value


def check_dtype(value: Any) -> Any:
    """A floating-point dtype, given as such or by name; None stays None."""
    if value is None:
        return None
    try:
        name = jnp.dtype(value).name
    except TypeError:
        name = str(value)
    if name not in DTYPES:
        raise UserError(
            f"dtype={name!r} is unknown; expected one of {', '.join(DTYPES)} or None.{suggest(name, DTYPES)}"
        )
    return getattr(jnp, name)


def check_name(field: str, known: Collection[str], model_name: str) -> None:
    """Raises UserError when the model has no such field."""
    if field in known:
        return
    if field == "pretrained":
        raise UserError("create_model does not create weights; jaxvit.load_pretrained(name) loads pretrained ones.")
    if field in ABSENT:
        raise UserError(f"{model_name} has no field {field!r}: {ABSENT[field]}.")
    if ELSEWHERE.get(field) in known:
        raise UserError(f"{model_name} has no field {field!r}; it is called {ELSEWHERE[field]!r} here.")
    near = suggest(field, known) or f" It has {', '.join(sorted(known))}."
    raise UserError(f"{model_name} has no field {field!r}.{near}")


def check_sizes(values: Mapping[str, Any], *, whole_patches: bool) -> None:
    """Raises UserError when sizes of one model do not fit each other; with `whole_patches` they fill the image."""
    for field in ("image_size", "patch_size"):
        size = values.get(field)
        if isinstance(size, tuple) and len(size) != 2:
            raise UserError(f"{field}={size} has {len(size)} entries; expected one number or (height, width).")
    if whole_patches:
        check_patches(values["image_size"], values["patch_size"], crops=values.get("crop_to_patches", False))
    ratio, width = values.get("mlp_ratio"), values.get("embed_dim")
    if isinstance(ratio, float | int) and isinstance(width, int) and int(ratio * width) < 1:
        raise UserError(f"mlp_ratio={ratio} leaves no hidden units of embed_dim={width}.")
    dim, heads = values.get("embed_dim"), values.get("num_heads")
    if isinstance(dim, int) and isinstance(heads, int) and dim % heads:
        raise UserError(f"embed_dim={dim} is not divisible by num_heads={heads}.")
