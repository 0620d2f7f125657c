"""All models by timm's names: what there is, and how to make one."""

import re
from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, NamedTuple

import flax.linen as nn

from jaxvit.errors import UserError
from jaxvit.models import alexnet, conv_checks, conv_layers, fields, resnet, swin, vgg, vit
from jaxvit.models.layers import ACTIVATIONS, REMAT_CHOICES
from jaxvit.models.tags import data_config, split_tag, tag_info, tag_tables, unknown_name

__all__ = [
    "FAMILIES", "Family", "check_fields", "create_model", "data_config", "list_models", "model_entry",
    "model_fields", "split_tag", "tag_info",
]  # fmt: skip


class Family(NamedTuple):
    """A model class with its named variants (name -> fields), and the words that its fields accept."""

    model: type[nn.Module]
    variants: Mapping[str, Mapping[str, Any]]
    unsupported: Mapping[str, str]
    choices: Mapping[str, Collection[Any]] = {}
    check: Callable[[Any], None] | None = None  # raises UserError on fields that do not fit each other


CONV_CHOICES = {"act_layer": tuple(ACTIVATIONS), "global_pool": tuple(conv_layers.GLOBAL_POOLS)}
RESNET_CHOICES = CONV_CHOICES | {
    "remat": REMAT_CHOICES,
    "block": tuple(resnet.BLOCKS),
    "stem": tuple(resnet.STEMS),
    "stem_type": ("", "deep", "deep_tiered"),
    "norm_layer": tuple(conv_layers.NORMS),
    "aa_layer": (None, *conv_layers.ANTI_ALIAS),
    "attn_layer": tuple(resnet.ATTENTIONS),
}
REMAT = {"remat": REMAT_CHOICES}
VGG_CHOICES = CONV_CHOICES | {"norm_layer": (None, *conv_layers.NORMS)}

FAMILIES: dict[str, Family] = {
    "alexnet": Family(alexnet.AlexNet, alexnet.VARIANTS, alexnet.UNSUPPORTED),
    "vgg": Family(vgg.VGG, vgg.VARIANTS, vgg.UNSUPPORTED, VGG_CHOICES, conv_checks.check_vgg),
    "resnet": Family(resnet.ResNet, resnet.VARIANTS, resnet.UNSUPPORTED, RESNET_CHOICES, conv_checks.check_resnet),
    "vit": Family(vit.VisionTransformer, vit.VARIANTS, vit.UNSUPPORTED, vit.CHOICES | REMAT, vit._check_fields),
    "swin": Family(swin.SwinTransformer, swin.VARIANTS, swin.UNSUPPORTED, swin.CHOICES | REMAT, swin.check_fields),
}


@cache
def _names() -> dict[str, Family]:
    return {name: family for family in FAMILIES.values() for name in family.variants}


def _natural(name: str) -> list[Any]:
    return [int(s) if s.isdigit() else s for s in re.split(r"(\d+)", name)]  # resnet34 before resnet101


def list_models(pattern: str = "*", pretrained: bool = False) -> list[str]:
    """Names that match a shell pattern ("vit_*_384"), naturally sorted; `pretrained` lists "name.tag" with weights."""
    names = _names()
    if not pretrained:
        return sorted((n for n in names if fnmatchcase(n, pattern)), key=_natural)
    found = []
    for name in names:
        for tag, entry in tag_tables()[name].items():
            full = f"{name}.{tag}" if tag else name
            if entry["has_weights"] and (fnmatchcase(full, pattern) or fnmatchcase(name, pattern)):
                found.append(full)
    return sorted(found, key=_natural)


def model_entry(name: str) -> tuple[Family, dict[str, Any]]:
    """The family of a name (with or without tag), and the fields in which it differs from the class's defaults.

    A tag brings its own number of classes and image size. Raises UserError for an unknown name or tag.
    """
    if not isinstance(name, str):
        raise UserError(f"model name {name!r} is not a word; expected e.g. 'resnet18'.")
    base, tag = split_tag(name)
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

    Any field of the class can be given; what is not given is timm's default for that name. None stands for "not
    given" where the field itself has no use for it. Raises UserError, with the nearest valid word, for an unknown
    name or field and for values that cannot work.
    """
    family, values = model_entry(name)
    kinds = fields.field_kinds(family.model)
    values |= check_fields(name, overrides)
    fields.check_sizes({field: values.get(field, getattr(family.model, field)) for field in kinds})
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
            checked[field] = fields.check_value(field, value, kinds[field], family.choices.get(field))
    return checked
