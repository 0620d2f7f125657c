"""The platform that programs are made for: this process's own, or the one that a plan compiles for."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import jax

_meant: ContextVar[str | None] = ContextVar("platform", default=None)


def platform() -> str:
    """Returns "cpu", "gpu" or "tpu"; models choose the formula that suits it when they are traced."""
    return _meant.get() or jax.default_backend()


@contextlib.contextmanager
def made_for(platform: str) -> Iterator[None]:
    """What is traced within is made for that platform, whatever this process runs on."""
    token = _meant.set(platform)
    try:
        yield
    finally:
        _meant.reset(token)
