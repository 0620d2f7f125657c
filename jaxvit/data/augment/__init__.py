"""Augmentation inside the jitted step: pure operations on float images [b, h, w, c], key first."""

from jaxvit.data.augment.compose import (
    Operation,
    check,
    make_augment,
    picture_grid,
    register_augmentation,
    resize,
    to_channels,
)

__all__ = [
    "Operation",
    "check",
    "make_augment",
    "picture_grid",
    "register_augmentation",
    "resize",
    "to_channels",
]
