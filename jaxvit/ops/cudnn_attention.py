"""Attention that keeps no [n, n] logits: cuDNN's on a GPU (Dao et al., 2022), in 16 bits.

Written out, the logits and weights of each head go to memory and back several times: in training most of what a vision
transformer moves. JAX trains cuDNN's attention at even numbers of tokens only, so tokens are filled up to a multiple
of 8, and the lengths say which keys are real.

JAX has the gradient of that kernel and no other derivative. Here the derivative is a primitive of our own, linear in
the tangents, computed by the formula where it is wanted itself (forward mode), and by cuDNN where it is transposed
(reverse mode). That names the forward pass again; XLA finds the same call twice in a program and runs it once.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxvit.errors import UserError
from jaxvit.runtime.platform import platform

Array = jax.Array
DTYPES = (jnp.bfloat16, jnp.float16)
KERNEL: Any = "cudnn"  # as jax.nn.dot_product_attention calls it; "xla" computes the same by the formula
MULTIPLE = 8  # of the tokens
MOST_CHANNELS = 128  # of a head, on GPUs before Hopper
LEAST_CAPABILITY = 8.0  # Ampere


@jax.custom_jvp
def attend(q: Array, k: Array, v: Array) -> Array:
    """Attention by cuDNN, [b, n, heads, hd], [b, m, heads, hd] twice -> [b, n, heads, hd]; softmax in float32."""
    return padded(q, k, v)


def is_default(q: Array, k: Array, v: Array) -> bool:
    """Whether cuDNN is what attention uses where nothing else was asked for."""
    return platform() == "gpu" and q.shape == k.shape and not _objection(q, k, v)


def check(q: Array, k: Array, v: Array) -> None:
    """Raises UserError where `attn_implementation='cudnn'` was asked for and cannot be had."""
    if said := _objection(q, k, v):
        raise UserError(f"attn_implementation='cudnn' {said}; expected None or 'xla'.")


def _objection(q: Array, k: Array, v: Array) -> str | None:
    """What keeps cuDNN from it."""
    if platform() != "gpu":
        return f"needs a GPU, this is a {platform()}"
    if not q.dtype == k.dtype == v.dtype or q.dtype not in DTYPES:
        return f"computes in 16 bits (dtype bfloat16), not in {q.dtype}"
    if q.shape[-1] % 8 or q.shape[-1] > MOST_CHANNELS:
        return f"takes heads of 8, 16, ... {MOST_CHANNELS} channels, not of {q.shape[-1]}"
    if jax.default_backend() == "gpu":
        least = min(float(getattr(device, "compute_capability", 0)) for device in jax.local_devices())
        return (
            None if least >= LEAST_CAPABILITY else f"needs compute capability {LEAST_CAPABILITY}, this GPU has {least}"
        )
    try:  # made for a GPU that is not present
        jax.eval_shape(padded, q, k, v)
    except RuntimeError as error:
        return f"needs JAX's CUDA packages ({error})"
    return None


def by_xla(q: Array, k: Array, v: Array) -> Array:
    """The formula as JAX has it."""
    return jax.nn.dot_product_attention(q, k, v, implementation="xla")


def padded(q: Array, k: Array, v: Array) -> Array:
    """Attention over tokens that are filled up to a multiple of 8, as cuDNN wants them."""
    n, m = q.shape[1], k.shape[1]
    attention = partial(jax.nn.dot_product_attention, implementation=KERNEL)
    if n % MULTIPLE == 0 and m % MULTIPLE == 0:
        return attention(q, k, v)
    q, k, v = (jnp.pad(a, ((0, 0), (0, -a.shape[1] % MULTIPLE), (0, 0), (0, 0))) for a in (q, k, v))
    return attention(q, k, v, key_value_seq_lengths=jnp.full(q.shape[0], m, jnp.int32))[:, :n]


@attend.defjvp
def _attend_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    # The call that also returns the sums of the softmax is another one than `padded`; the gradient names it again.
    return jax.vjp(padded, *primals)[0], pushforward_p.bind(*primals, *tangents)


@jax.custom_jvp
def _pullback(q: Array, k: Array, v: Array, dx: Array) -> tuple[Array, ...]:
    return jax.vjp(padded, q, k, v)[1](dx)


@_pullback.defjvp
def _pullback_jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    def formula(q: Array, k: Array, v: Array, dx: Array) -> Any:
        return jax.vjp(by_xla, q, k, v)[1](dx)

    return _pullback(*primals), jax.jvp(formula, primals, tangents)[1]


def _pushforward(*args: Array) -> Array:
    """(q, k, v, dq, dk, dv) -> dx."""
    return jax.jvp(by_xla, args[:3], args[3:])[1]


def _pushforward_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    return jax.jvp(_pushforward, tuple(primals), tuple(ad.instantiate_zeros(t) for t in tangents))


def _pushforward_transpose(dx: Any, q: Array, k: Array, v: Array, *tangents: Any) -> list[Any]:
    found = _pullback(q, k, v, ad.instantiate_zeros(dx))
    wanted = [ad.is_undefined_primal(t) for t in tangents]
    return [None] * 3 + [d if ask else None for d, ask in zip(found, wanted, strict=True)]


def _pushforward_batched(args: Any, axes: Any) -> tuple[Array, int]:
    return jax.vmap(_pushforward, axes)(*args), 0


pushforward_p = Primitive("flash_attention_pushforward")
pushforward_p.def_impl(jax.jit(_pushforward))
pushforward_p.def_abstract_eval(lambda q, *_: ShapedArray(q.shape, q.dtype))
ad.primitive_jvps[pushforward_p] = _pushforward_jvp
ad.primitive_transposes[pushforward_p] = _pushforward_transpose
batching.primitive_batchers[pushforward_p] = _pushforward_batched
mlir.register_lowering(pushforward_p, mlir.lower_fun(_pushforward, multiple_results=False))
