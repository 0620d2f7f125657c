"""Compilation of what is measured: seconds with and without a cache, and the memory that XLA plans."""

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from jaxvit.runtime import machine


@dataclasses.dataclass
class Program:
    """A compiled function; times in seconds, memory in bytes."""

    run: Callable
    cold: float | None  # trace, lower and compile, nothing cached
    warm: float | None  # the same from the persistent cache; None where not asked for
    memory: int | None  # arguments, results and temporaries, donated ones once


def compile_program(function: Callable, *args: Any, donate: bool = False, times: str = "both") -> Program:
    """Compiles for the shapes of `args`.

    `times`: "both", in an empty cache and again from it; "cold", in an empty cache; "none", with the user's own cache.
    """

    def compiled() -> tuple[Any, float]:
        jitted = jax.jit(function, donate_argnums=0 if donate else ())
        begun = time.perf_counter()
        return jitted.lower(*args).compile(), time.perf_counter() - begun

    if times == "none":
        run, _ = compiled()
        return Program(run, None, None, machine.planned_memory(run))
    with _empty_cache():
        run, cold = compiled()
        again = None
        if times == "both":
            jax.clear_caches()
            run, again = compiled()
    return Program(run, cold, again, machine.planned_memory(run))


@contextlib.contextmanager
def _empty_cache() -> Iterator[None]:
    """A persistent cache of compiled programs that starts empty and is gone afterwards."""
    from jax.experimental.compilation_cache import compilation_cache

    known: Any = jax.config
    words = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {word: getattr(known, word) for word in words}
    with tempfile.TemporaryDirectory(prefix="jaxvit-bench-", ignore_cleanup_errors=True) as directory:
        try:
            compilation_cache.reset_cache()
            jax.config.update(words[0], directory)
            jax.config.update(words[1], 0.0)
            yield
        finally:
            compilation_cache.reset_cache()
            for word, value in before.items():
                jax.config.update(word, value)
