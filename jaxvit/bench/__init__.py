"""How fast models train and predict on this machine: measured, compared with timm, and with an earlier measurement."""

from jaxvit.bench.subjects import Settings, Subject, make_subject

__all__ = ["Settings", "Subject", "make_subject"]
