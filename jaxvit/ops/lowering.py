"""Choosing a form when a program is lowered, by the platform that it is lowered for."""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

Forms = Mapping[str, Callable[..., Any]]
GPUS = ("cuda", "rocm")  # JAX's names of the platforms that a table calls "gpu"
_REPLACED: ContextVar[Mapping[str, Callable[..., Any]] | None] = ContextVar("replaced", default=None)


@contextmanager
def replaced(operations: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Traces for a format that knows no platforms and has operations of its own.

    Within it each function marked by `replaceable` is that of its name in `operations`, if there is one, and
    `by_platform` takes the form of "default".
    """
    token = _REPLACED.set(operations)
    try:
        yield
    finally:
        _REPLACED.reset(token)


def replaceable(run: Callable[..., Any]) -> Callable[..., Any]:
    """Marks an operation for which `replaced` may put another one."""

    @functools.wraps(run)
    def call(*args: Any, **kwargs: Any) -> Any:
        return (_REPLACED.get() or {}).get(run.__name__, run)(*args, **kwargs)

    return call


def by_platform(forms: Forms, default: Mapping[str, str], *args: Any, **static: Any) -> Any:
    """The form of the platform, of `args` (arrays) with the keywords `static` (no arrays).

    `default` names the form for "cpu", "gpu", "tpu", and under "default" for all others. Every mode of differentiation
    works, each through the form's own; of what the backward passes keep, that of other platforms is zeros, which no
    compiled program computes.
    """
    bound = {name: functools.partial(forms[name], **static) for name in dict.fromkeys(default.values())}
    if _REPLACED.get() is not None:
        return bound[default["default"]](*args)
    branches = {}
    for platform, name in default.items():
        if platform != "default":
            branches |= dict.fromkeys(GPUS if platform == "gpu" else (platform,), bound[name])
    return jax.lax.platform_dependent(*args, **branches, default=bound[default["default"]])


def bilinear(name: str, forms: Forms, cpu: Callable[[int], str]) -> Primitive:
    """A primitive of two arrays, linear in each, that is the form "plain" wherever it is not lowered for a CPU.

    A primitive rather than `by_platform`, as a policy of remat and a count of products then see one product, and its
    gradients can be other such primitives. Its parameter `form` asks for a form by name; None is the platform's.

    Args:
      name: of the primitive.
      forms: each takes the two arrays and the primitive's other parameters; "plain" among them.
      cpu: the number of devices of a program -> the form on a CPU.
    """
    new = Primitive(name)

    def run(a: Any, b: Any, *, form: str | None, **how: Any) -> Any:
        return forms[form or "plain"](a, b, **how)

    def abstract(a: Any, b: Any, **how: Any) -> Any:
        shapes = (jax.ShapeDtypeStruct(v.shape, v.dtype) for v in (a, b))
        out = jax.eval_shape(functools.partial(forms["plain"], **_without_form(how)), *shapes)
        return ShapedArray(out.shape, out.dtype)

    def batched(args: Any, axes: Any, **how: Any) -> Any:
        return jax.vmap(functools.partial(run, **how), axes)(*args), 0

    def on_cpu(context: Any, *args: Any, form: str | None, **how: Any) -> Any:
        devices = getattr(context.module_context.axis_context, "num_devices", 1)
        return mlir.lower_fun(forms[form or cpu(devices)], multiple_results=False)(context, *args, **how)

    @functools.cache
    def jitted(names: tuple[str, ...]) -> Any:
        return jax.jit(lambda a, b, **how: new.bind(a, b, **how), static_argnames=names)

    new.def_impl(lambda a, b, **how: jitted(tuple(how))(a, b, **how))
    new.def_abstract_eval(abstract)
    batching.primitive_batchers[new] = batched
    mlir.register_lowering(new, mlir.lower_fun(run, multiple_results=False))
    mlir.register_lowering(new, on_cpu, platform="cpu")
    return new


def _without_form(how: dict[str, Any]) -> dict[str, Any]:
    return {word: value for word, value in how.items() if word != "form"}
