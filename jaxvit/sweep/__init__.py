"""Hyper-parameter search: ranges of config options, trials that are runs, a table and a picture of the outcome."""

from jaxvit.sweep.ranges import Range, apply, read_ranges
from jaxvit.sweep.trials import search

__all__ = ["Range", "apply", "read_ranges", "search"]
