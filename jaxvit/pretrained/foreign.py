"""Other layouts of the same weights, recognised by marker names and renamed to timm's, as a family's record says."""

import re
from collections.abc import Iterable, Mapping

import numpy as np

from jaxvit.models.family import Family
from jaxvit.models.layouts import Layout, Tensors, rename


def to_timm(family: Family, tensors: Mapping[str, np.ndarray]) -> Tensors:
    """Renames any known layout of the family to timm's; names that no table knows are left as they are."""
    tensors = dict(tensors)
    for layout in family.layouts:
        if any(re.search(layout.mark, name) for name in tensors):
            tensors = layout.finish(rename(tensors, layout.table))
    return tensors


def layouts_of(family: Family, names: Iterable[str]) -> list[Layout]:
    """The layouts that a file has, whatever prefix its names have."""
    names = list(names)
    marks = {layout: layout.mark.replace("^", r"(^|\.)") for layout in family.layouts}
    return [layout for layout, mark in marks.items() if any(re.search(mark, name) for name in names)]
