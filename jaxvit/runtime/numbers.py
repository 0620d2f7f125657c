"""Hyperparameters as arguments of a compiled step: a step with other numbers is the same program and compiles once.

A `Number` is a float. Between Python's numbers it computes as one, in double precision, so that 1 - b1 has the digits
that a constant would have; where it meets an array inside a step of `compiled`, it is an element of a vector that the
step takes as an argument. What asks for its value decides at trace time as before: whether a thing is on (zero or not)
stays a matter of the program. Where JAX does not ask for an array, the number is a constant: right, and compiled anew.
"""

import contextlib
import operator
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SIZE = 64  # numbers of a step; those beyond are constants
_reader: ContextVar[Callable[["Number"], Any] | None] = ContextVar("reader", default=None)


class Number(float):
    """A float with a name, by which a step has each number once: `optim.weight_decay`, `(1 - optim.b1)`."""

    name: str

    def __new__(cls, value: float, name: str) -> "Number":
        """Names must differ where values may."""
        number = super().__new__(cls, value)
        number.name = name
        return number

    def __jax_array__(self) -> Any:
        """What JAX takes it for: an argument of the step that is traced, or else a constant of weak type."""
        read = _reader.get()
        return jnp.asarray(float(self)) if read is None else read(self)

    def __round__(self, ndigits: int | None = None) -> "Number":  # type: ignore[override]
        """Rounds as a float does, and stays a Number."""
        return Number(round(float(self), ndigits or 0), f"round({self.name})")

    def __neg__(self) -> "Number":
        """Returns the negative, a Number too."""
        return Number(-float(self), f"-{self.name}")

    def __reduce__(self) -> Any:
        """Copies are Numbers."""
        return Number, (float(self), self.name)


class _Passed(float):
    """A Number inside a function that is compiled for itself, to which it was passed: its array, else a constant."""

    array: Any

    def __jax_array__(self) -> Any:
        return self.array


def _passed(value: Any, children: Any) -> Any:
    number = _Passed(value)
    number.array = children[0]
    return number


jax.tree_util.register_pytree_node(Number, lambda n: ((n.__jax_array__(),), float(n)), _passed)
jax.tree_util.register_pytree_node(_Passed, lambda n: ((n.array,), float(n)), _passed)


def _define(sign: str, compute: Callable[[Any, Any], Any], word: str) -> None:
    def left(self: Number, other: Any) -> Any:
        if isinstance(other, int | float):
            return Number(compute(float(self), float(other)), f"({self.name} {sign} {_name(other)})")
        return NotImplemented

    def right(self: Number, other: Any) -> Any:
        if isinstance(other, int | float):
            return Number(compute(float(other), float(self)), f"({_name(other)} {sign} {self.name})")
        return NotImplemented

    setattr(Number, f"__{word}__", left)
    setattr(Number, f"__r{word}__", right)


for _word, _sign in (("add", "+"), ("sub", "-"), ("mul", "*"), ("truediv", "/"), ("floordiv", "//"), ("pow", "**")):
    _define(_sign, getattr(operator, _word), _word)


def _name(value: Any) -> str:
    return value.name if isinstance(value, Number) else repr(float(value))


def tagged(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Returns nested words with their floats as Numbers of the names "prefix.word"."""
    return {
        word: tagged(value, f"{prefix}.{word}")
        if isinstance(value, dict)
        else Number(value, f"{prefix}.{word}")
        if isinstance(value, float)
        else value
        for word, value in values.items()
    }


class compiled:  # noqa: N801, used as jax.jit is
    """`jax.jit(function, ...)` whose Numbers are an argument of the program."""

    def __init__(self, function: Callable, *, donate_argnums: int, out_shardings: Any, place: Any = None):
        """Arguments as those of `jax.jit`; `place`: the sharding of the numbers, if there are several devices."""
        self._place = place
        self._values: dict[str, float] = {}
        self._vector: tuple[int, Any] = (0, None)  # how many it holds, and the vector

        def step(numbers: Any, *args: Any) -> Any:
            with _reading_from(numbers, self._values):
                return function(*args)

        step.__name__ = step.__qualname__ = function.__name__
        self._jit: Any = jax.jit(step, donate_argnums=donate_argnums + 1, out_shardings=out_shardings)

    def __call__(self, *args: Any) -> Any:
        """Calls it with the values that it was made with."""
        if self._vector[1] is None:
            self.trace(*args)  # tells which numbers there are; JAX keeps the trace
        if self._vector[1] is None or self._vector[0] != len(self._values):
            values = list(self._values.values())
            self._vector = len(values), self._packed(values)
        return self._jit(self._vector[1], *args)

    def trace(self, *args: Any) -> Any:
        """As of `jax.jit`."""
        return self._jit.trace(self._shape(), *args)

    def lower(self, *args: Any) -> Any:
        """As of `jax.jit`."""
        return self._jit.lower(self._shape(), *args)

    def _shape(self) -> jax.ShapeDtypeStruct:  # no array: the devices need not exist
        found = jax.eval_shape(_pack, [0.0] * SIZE)
        return jax.ShapeDtypeStruct(found.shape, found.dtype, sharding=self._place, weak_type=True)

    def _packed(self, values: list[float]) -> jax.Array:
        packed = _pack(values + [0.0] * (SIZE - len(values)))
        return packed if self._place is None else jax.device_put(packed, self._place)

    def _cache_size(self) -> int:
        return self._jit._cache_size()


@jax.jit
def _pack(values: list[float]) -> jax.Array:
    """A vector of weak type, as Python's numbers are: they do not widen what they are multiplied with."""
    return jnp.stack(values)


@contextlib.contextmanager
def _reading_from(vector: Any, values: dict[str, float]) -> Iterator[None]:
    def read(number: Number) -> Any:
        if number.name not in values and len(values) == SIZE:
            return jnp.asarray(float(number))
        values[number.name] = float(number)
        return vector[list(values).index(number.name)]

    token = _reader.set(read)
    try:
        yield
    finally:
        _reader.reset(token)


def inverse(value: float) -> float:
    """1 / value in float32. XLA makes this of a division by a constant; by an argument it would really divide."""
    return _same(np.float32(1) / np.float32(value), f"1/{_name(value)}", value)


def product(a: float, b: float) -> float:
    """A b in float32, what XLA makes of two constants that an array is multiplied with."""
    return _same(np.float32(a) * np.float32(b), f"{_name(a)}.{_name(b)}", a, b)


def _same(value: Any, name: str, *of: float) -> float:
    return Number(float(value), name) if any(isinstance(x, Number) for x in of) else float(value)
