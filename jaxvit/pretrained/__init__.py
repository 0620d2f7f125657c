"""Foreign weights <-> variables: conversion both ways, loading, adaptation and the files that timm reads."""

from jaxvit.pretrained.convert import convert, export
from jaxvit.pretrained.files import Checkpoint, read
from jaxvit.pretrained.hub import fetch
from jaxvit.pretrained.loading import Loaded, load, load_pretrained, stored_data_config
from jaxvit.pretrained.repository import check_name, is_repository
from jaxvit.pretrained.saving import save

__all__ = [
    "Checkpoint",
    "Loaded",
    "check_name",
    "convert",
    "export",
    "fetch",
    "is_repository",
    "load",
    "load_pretrained",
    "read",
    "save",
    "stored_data_config",
]
