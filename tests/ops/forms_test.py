"""Every form of every operation gives what the plain one gives; programs do not depend on where they are traced."""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvit
from jaxvit.ops import (
    activations,
    attention,
    conv,
    cudnn_attention,
    linear,
    norm,
    pooling,
    window_attention,
)


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes)


# door -> forms, arrays, keywords; the first array is one batch of many
DOORS = {
    "conv": (conv.FORMS, arrays((2, 10, 9, 16), (3, 3, 16, 24)), {"padding": ((1, 1), (1, 1))}),
    "conv, strided, grouped": (
        conv.FORMS, arrays((2, 9, 9, 16), (3, 3, 4, 16)), {"strides": (2, 2), "padding": ((1, 1), (1, 1)), "groups": 4},
    ),
    "conv, 1x1": (conv.FORMS, arrays((2, 9, 9, 5), (1, 1, 5, 16)), {"strides": (2, 2)}),
    "conv, depthwise": (
        conv.FORMS, arrays((2, 6, 9, 5), (7, 3, 1, 5)), {"padding": ((3, 3), (0, 2)), "groups": 5},
    ),
    "linear": (linear.FORMS, arrays((3, 5, 7), (7, 4)), {}),
    "attention": (attention.FORMS, arrays((2, 5, 3, 8), (2, 5, 3, 8), (2, 5, 3, 8)), {}),
    "window_attention": (
        {name: form for name, form in window_attention.FORMS.items() if name != "pallas"},  # its code, interpreted
        arrays((1, 6, 6, 48), (2, 9, 9)), {"window": (3, 3), "shift": (1, 1)},
    ),
    "max_pool": (pooling.FORMS, arrays((2, 7, 8, 3)), {"size": 3, "stride": 2, "padding": 1}),
    "gelu": (activations.FORMS, arrays((5, 6)), {}),
    "layer_norm": (norm.FORMS, arrays((2, 5, 12), (12,), (12,)), {"eps": 1e-6, "dtype": jnp.float32}),
    "batch_norm": (norm.BATCH_FORMS, arrays((3, 4, 5, 6), (6,), (6,)), {"eps": 1e-5, "dtype": jnp.float32}),
    "relu_of_sum": (activations.SUM_FORMS, arrays((5, 6)), {}),
}  # fmt: skip
CASES = [(door, form) for door, (forms, *_) in DOORS.items() for form in forms if form != "plain"]


def values(form, args, how):
    """Values, gradients and both for a stack of two: in one compiled program."""
    if "eps" in how and args[0].dtype == jnp.bfloat16:
        how = {**how, "dtype": jnp.bfloat16}

    def loss(*args):
        outs = [out.astype(jnp.float32) for out in jax.tree.leaves(form(*args, **how))]
        return sum(jnp.sum(out * jnp.sin(jnp.arange(1.0, out.size + 1)).reshape(out.shape)) for out in outs)

    numbers = tuple(range(len(args)))
    mapped = (0, *(None,) * (len(args) - 1))

    def run(*args):
        gradient = jax.grad(loss, numbers)
        stack = (jnp.stack([args[0], -args[0]]), *args[1:])
        found = {"value": form(*args, **how), "gradients": gradient(*args)}
        found["again"] = jax.grad(jax.checkpoint(loss), numbers)(*args)
        found["mapped"] = jax.vmap(functools.partial(form, **how), mapped)(*stack)
        found["mapped gradients"] = jax.vmap(gradient, mapped)(*stack)
        return jax.tree.map(lambda a: a.astype(jnp.float32), found)

    return jax.jit(run)(*args)


@functools.cache
def plain_values(door, dtype):
    forms, args, how = DOORS[door]
    return values(forms["plain"], tuple(a.astype(dtype) for a in args), how)


@pytest.mark.parametrize("door, form", CASES)
def test_a_form_gives_what_the_plain_one_gives(door, form, monkeypatch):
    """Values, gradients, rematerialised, mapped; in float32 and bfloat16."""
    monkeypatch.setattr(cudnn_attention, "KERNEL", "xla")  # its arithmetic: the kernel needs a GPU
    forms, args, how = DOORS[door]
    for dtype, bound in ((jnp.float32, 2e-5), (jnp.bfloat16, 2e-2)):
        wanted = plain_values(door, dtype)
        found = values(forms[form], tuple(a.astype(dtype) for a in args), how)
        for what, value in found.items():
            for a, b in zip(jax.tree.leaves(value), jax.tree.leaves(wanted[what]), strict=True):
                assert jnp.max(jnp.abs(a - b)) <= bound * jnp.max(jnp.abs(b)), (what, dtype)


@pytest.mark.parametrize("module", [activations, attention, conv, linear, norm, pooling, window_attention])
def test_defaults_name_forms(module):
    assert set(module.DEFAULT.values()) <= set(module.FORMS) and "default" in module.DEFAULT
    assert "plain" in module.FORMS
    assert set(norm.BATCH_DEFAULT.values()) <= set(norm.BATCH_FORMS)
    assert set(activations.SUM_DEFAULT.values()) <= set(activations.SUM_FORMS)


def test_models_and_explanations_ask_no_platform_and_know_no_primitive():
    package = Path(jaxvit.__file__).parent
    words = re.compile(
        r"runtime\.platform|platform\(|platform_dependent|default_backend|Primitive\b|jax\.interpreters|_p\.bind|jax\.extend"
    )
    found = []
    for folder in ("models", "explain"):
        for path in sorted((package / folder).glob("*.py")):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if words.search(line):
                    found.append(f"{folder}/{path.name}:{number}: {line.strip()}")
    assert not found, "\n".join(found)
