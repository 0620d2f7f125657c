"""Which model a file of weights is for: the part of an error message that helps most."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxvit.errors import UserError
from jaxvit.models.family import Family
from jaxvit.models.names import module_path
from jaxvit.models.registry import FAMILIES, model_fields, split_tag
from jaxvit.pretrained import foreign, wrappers

Tensors = Mapping[str, np.ndarray]


def _depth(family: Family, tensors: Tensors) -> int | tuple[int, ...]:
    """The blocks that the names count, in all or for each stage: what the family's `depth_field` holds."""
    patterns = [pattern for pattern, extra in family.blocks if not extra]
    found = {match.groups() for name in tensors for p in patterns if (match := re.match(p, f"{module_path(name)}/"))}
    stages = sorted({int(numbers[0]) for numbers in found})
    return tuple(sum(int(n[0]) == stage for n in found) for stage in stages) if family.stages else len(found)


def identify(tensors: Tensors) -> list[str]:
    """The timm names whose depth, widths and options the tensors show, shortest name first; [] if none.

    They are of the first family of which one fits.
    """
    for inside in _insides(tensors):
        for family in FAMILIES.values():
            if names := _variants(family, inside):
                return sorted(names, key=lambda name: (len(name), name))
    return []


def _insides(tensors: Tensors) -> Iterator[Tensors]:
    """The tensors as they are, then those below each prefix that many names have."""
    for prefix in ("", *wrappers.candidates(tensors)):
        yield {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}


def _variants(family: Family, tensors: Tensors) -> list[str]:
    """The family's variants that fit; none where its mark is missing."""
    try:
        named = foreign.to_timm(family, tensors)
    except (UserError, ValueError):
        return []
    if not any(re.search(family.mark, name) for name in named):
        return []

    def fits(fields: dict[str, Any]) -> bool:
        depth = family.depth_field
        return (depth is None or fields[depth] == _depth(family, named)) and family.fits(named, fields)

    return [name for name in family.variants if fits(model_fields(name))]


def hint(name: str, tensors: Tensors) -> str:
    """A line naming what the file looks like, or "" where it looks like nothing else than `name`."""
    base = split_tag(name)[0]
    own = next(family for family in FAMILIES.values() if base in family.variants)
    if any(base in _variants(own, inside) for inside in _insides(tensors)):
        return ""  # though a model of another family may have the same names
    if not (names := identify(tensors)):
        return ""
    return "\nThe file looks like " + " or ".join(repr(n) for n in names[:3]) + "."
