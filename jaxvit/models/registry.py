"""All models by timm's names: what there is, and how to make one."""

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import flax.linen as nn

from jaxvit import plugins
from jaxvit.errors import UserError
from jaxvit.models import (
    alexnet,
    convnext_variants,
    eva_family,
    fields,
    resnet_variants,
    swin_v2_variants,
    swin_variants,
    tags,
    vgg,
    vit_family,
)
from jaxvit.models.family import MEGATRON, Family, ShardingRules
from jaxvit.models.names import timm_name
from jaxvit.models.tags import split_tag, tag_tables, unknown_name

__all__ = [
    "FAMILIES", "Family", "check_fields", "create_model", "data_config", "family_of", "find_family", "list_models",
    "model_entry", "model_fields", "recognise", "register_model", "registered_family", "sharding_rules", "split_tag",
    "tag_info",
]  # fmt: skip


FAMILIES: dict[str, Family] = {
    record.name: record
    for record in (
        alexnet.FAMILY,
        vgg.FAMILY,
        resnet_variants.FAMILY,
        eva_family.FAMILY,
        vit_family.FAMILY,
        swin_variants.FAMILY,
        swin_v2_variants.FAMILY,
        convnext_variants.FAMILY,
    )
}


def register_model(what: Any, *, variants: Mapping[str, Mapping[str, Any]] | None = None, **record: Any) -> Any:
    """Adds models: `register_model(FAMILY)`, or above a linen class `@register_model("name")`.

    The class has the fields num_classes, image_size, in_channels and dtype, and every field has a default; its
    `__call__(images [b, h, w, c], train=False)` returns logits [b, num_classes]. A subclass of one of jaxvit's classes
    has that one's record; for others, `record` says what else is known.

    Args:
      what: a `Family`, or a name.
      variants: further names -> the fields in which they differ from the class's defaults.
      **record: fields of `Family`, such as classifiers={"head": None}, which optim.freeze=head_only needs.

    Raises:
      UserError: a name that exists, or a class that cannot be trained here.
    """
    if isinstance(what, Family):
        return _add(what)

    def register(name: str, cls: Any) -> None:
        _check_class(name, cls)
        given = {
            "name": f"{cls.__module__}.{cls.__qualname__}",
            "model": cls,
            "variants": {name: {}, **(variants or {})},
        }
        base = next((f for c in cls.__mro__ for f in FAMILIES.values() if f.model is c), None)
        try:
            family = Family(**{**_NOTHING, **given, **record}) if base is None else replace(base, **{**given, **record})
        except TypeError as error:  # a field that a record does not have
            raise UserError(f"the model {name!r}: {str(error).removeprefix('Family.__init__() ')}") from None
        _add(family)

    return plugins.decorator(register, what, '@register_model("name")')


_NEVER = r"(?!)"  # matches nothing; and no tensor is called "-"
_NOTHING: dict[str, Any] = {
    "stem": _NEVER, "blocks": (), "mark": _NEVER, "classifiers": {}, "first_conv": ("-",), "small": lambda fields: {},
}  # fmt: skip
_FIELDS = ("num_classes", "image_size", "in_channels", "dtype")


def _add(family: Family) -> Family:
    before = FAMILIES.get(family.name)
    if before is not None and not any(plugins.is_registered("model", name) for name in before.variants):
        raise UserError(f"jaxvit already has a family {family.name!r}; choose another name")
    _check_class(family.name, family.model)
    if not family.variants:
        raise UserError(
            f"the family {family.name!r} does not name a model; expected variants such as {{'my_model': {{}}}}"
        )
    for name in family.variants:
        plugins.claim("model", name, _names(), family.model)
    FAMILIES[family.name] = family
    return family


def _check_class(name: Any, cls: Any) -> None:
    """Raises UserError where a class is none that can be trained here."""
    if not isinstance(cls, type) or not issubclass(cls, nn.Module):
        raise UserError(f"the model {name!r} is {cls!r}; expected a class of flax.linen.Module, or a Family")
    known = fields.field_kinds(cls)
    missing = [field for field in (*_FIELDS, *known) if not hasattr(cls, field)]
    if missing:
        raise UserError(
            f"the model {name!r}: {cls.__name__} has no {missing[0]} with a default; expected the fields "
            f"{', '.join(_FIELDS)}, each with one"
        )
    if "train" not in inspect.signature(cls.__call__).parameters:
        raise UserError(f"the model {name!r}: {cls.__name__}.__call__ takes no train; expected (images, train=False)")


def _names() -> dict[str, Family]:
    return {name: family for family in FAMILIES.values() for name in family.variants}


def family_of(model: nn.Module) -> Family:
    """The record of a model's class, or of a class that it was made from. Raises UserError for other modules."""
    record = find_family(model)
    if record is None:
        raise UserError(f"{type(model).__name__} is not a model of jaxvit; expected one from jaxvit.create_model.")
    return record


def find_family(model: nn.Module) -> Family | None:
    """As `family_of`, but None for other modules."""
    return next((f for cls in type(model).__mro__ for f in FAMILIES.values() if f.model is cls), None)


def registered_family(name: str) -> str | None:
    """The family of a model that a user registered, as the names of its parameters do not show it; None of others."""
    base, _ = split_tag(name)
    return next(
        (f.name for f in FAMILIES.values() if base in f.variants and plugins.is_registered("model", base)), None
    )


def recognise(paths: Iterable[str]) -> Family | None:
    """The record of the family whose parameters have such paths ("blocks_0/norm1/scale"); None where none has."""
    names = [timm_name(tuple(path.split("/"))) for path in paths]
    return next((f for f in FAMILIES.values() if any(re.search(f.mark, name) for name in names)), None)


def sharding_rules(paths: Iterable[str]) -> ShardingRules:
    """How kernels with such paths are cut over devices: by their family's rules, or by those of transformers."""
    record = recognise(paths)
    return MEGATRON if record is None else record.sharding


def tag_info(name: str) -> dict[str, Any]:
    """`tags.tag_info`, with a usual preprocessing for families of which no tags are recorded."""
    return tags.tag_info(name, untagged=_names())


def data_config(name: str) -> dict[str, Any]:
    """The preprocessing that a model's weights expect, by name with or without tag.

    Keys: image_size (height, width) in pixels, in_channels, mean and std per channel in [0, 1] pixel units, crop_pct
    (share of the resized image that the crop keeps), crop_mode, interpolation, num_classes (0: a feature model).
    Raises UserError for an unknown name or tag.
    """
    entry = tag_info(name)
    return {key: entry[key] for key in tags.DATA_FIELDS}


def _natural(name: str) -> list[Any]:
    return [int(s) if s.isdigit() else s for s in re.split(r"(\d+)", name)]  # resnet34 before resnet101


def list_models(pattern: str = "*", pretrained: bool = False) -> list[str]:
    """Names that match a shell pattern ("vit_*_384"), naturally sorted; `pretrained` lists "name.tag" with weights."""
    if not isinstance(pattern, str):
        raise UserError(f"the pattern is {pattern!r}; expected text, such as 'vit_*'")
    plugins.load_installed()
    names = _names()
    if not pretrained:
        return sorted((n for n in names if fnmatchcase(n, pattern)), key=_natural)
    found = []
    for name in names:
        for tag, entry in tag_tables().get(name, {}).items():
            full = f"{name}.{tag}" if tag else name
            if entry["has_weights"] and (fnmatchcase(full, pattern) or fnmatchcase(name, pattern)):
                found.append(full)
    return sorted(found, key=_natural)


def model_entry(name: str) -> tuple[Family, dict[str, Any]]:
    """The family of a name (with or without tag), and the fields in which it differs from the class's defaults.

    A tag brings its own number of classes and image size. Raises UserError for an unknown name or tag.
    """
    base, tag = split_tag(name)
    family = _names().get(base)
    if family is None:
        plugins.load_installed()
        family = _names().get(base)
    if family is None:
        for other in FAMILIES.values():
            if base in other.unsupported:
                raise UserError(f"model {base!r} is not supported: it needs {other.unsupported[base]}.")
        raise unknown_name(base, _names())
    values = dict(family.variants[base])
    if tag is not None:
        entry = tag_info(name)
        height, width = entry["image_size"]
        values |= {"num_classes": entry["num_classes"], "image_size": height if height == width else (height, width)}
    return family, values


def model_fields(name: str) -> dict[str, Any]:
    """Every field of the named model with its default there. Raises UserError for an unknown name or tag."""
    family, values = model_entry(name)
    return {field: values.get(field, getattr(family.model, field)) for field in fields.field_kinds(family.model)}


def create_model(name: str, **overrides: Any) -> nn.Module:
    """Builds a model by timm's name, with or without tag; no weights are drawn or loaded.

    Any field of the class can be given; the others have timm's defaults for that name. None means "not given",
    unless it is a valid value of the field. Raises UserError, with the nearest valid name, for an unknown
    name or field and for values that cannot work.
    """
    family, values = model_entry(name)
    kinds = fields.field_kinds(family.model)
    values |= check_fields(name, overrides)
    complete = {field: values.get(field, getattr(family.model, field)) for field in kinds}
    fields.check_sizes(complete, whole_patches=family.takes_image_size)
    model = family.model(**values)
    if family.check is not None:
        family.check(model)
    return model


def check_fields(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the given fields of the named model as its class wants them, without those that None leaves out.

    Raises UserError for an unknown name or field and for a value that cannot be; whether they fit each other depends
    on the image size, and is for `create_model`.
    """
    family, _ = model_entry(name)
    kinds, checked = fields.field_kinds(family.model), {}
    for field, value in given.items():
        fields.check_name(field, kinds, family.model.__name__)
        if value is not None or not fields.refuses_none(kinds[field]):
            usual, choices = getattr(family.model, field), family.choices.get(field)
            checked[field] = fields.check_value(field, value, kinds[field], choices, usual)
    return checked
