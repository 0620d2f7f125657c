"""cuDNN's attention: its arithmetic by the formula, every derivative, and programs for a GPU that is not here."""

import re
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit import create_model
from jaxvit.errors import UserError
from jaxvit.ops import cudnn_attention
from jaxvit.ops.macs import count_jaxpr
from jaxvit.plan import chips, step
from jaxvit.runtime import platform, sharding
from tests.helpers.marks import needs_cuda

TINY = {"image_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 3}


@pytest.fixture
def by_formula(monkeypatch):
    """The kernel's place taken by JAX's formula with the same arguments, padding and lengths included."""
    monkeypatch.setattr(cudnn_attention, "KERNEL", "xla")


def arrays(n, m=None, dtype=jnp.float32, batch=2):
    rng = np.random.default_rng(n)
    shapes = ((batch, n, 3, 8), (batch, m or n, 3, 8), (batch, m or n, 3, 8))
    return tuple(jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes)


def plain(q, k, v):
    """softmax(q k^T / sqrt(hd)) v, by hand."""
    weights = jnp.einsum("bnhd,bmhd->bhnm", q, k) / np.sqrt(q.shape[-1])
    weights = jnp.exp(weights - weights.max(-1, keepdims=True))
    return jnp.einsum("bhnm,bmhd->bnhd", weights / weights.sum(-1, keepdims=True), v)


def value_and_gradients(attention, args):
    def loss(*args):
        out = attention(*args).astype(jnp.float32)
        return jnp.sum(out * jnp.sin(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape)), out

    (_, out), grads = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(*args)
    return out, grads


@pytest.mark.parametrize("n, m", [(197, 197), (65, 65), (5, 5), (16, 16), (1, 17)])
def test_tokens_that_only_fill_up_change_nothing(by_formula, n, m):
    args = arrays(n, m)
    found, wanted = (value_and_gradients(f, args) for f in (cudnn_attention.attend, plain))
    chex.assert_trees_all_close(found, wanted, rtol=1e-6, atol=2e-6)
    halves = tuple(a.astype(jnp.bfloat16) for a in args)
    wanted = value_and_gradients(plain, tuple(a.astype(jnp.float32) for a in halves))
    chex.assert_trees_all_close(
        jax.tree.map(lambda a: a.astype(jnp.float32), value_and_gradients(cudnn_attention.attend, halves)),
        wanted, rtol=2e-2, atol=2e-2,
    )  # fmt: skip


def test_every_mode_of_differentiation_works(by_formula):
    args, tangents = arrays(5), arrays(5, batch=2)[::-1]

    def modes(attention):
        def loss(*args):
            return jnp.sum(jnp.sin(attention(*args)))

        def forward(q):
            return jnp.sum(jax.jvp(partial(attention, q), args[1:], args[1:])[1])

        def loop(q):
            return jax.lax.scan(lambda x, _: (attention(x, x, x), None), q, None, 2)[0].sum()

        gradient = jax.grad(loss, (0, 1, 2))
        several = jax.tree.map(lambda a: jnp.stack([a, 2 * a, -a]), args)
        return {
            "forward": jax.jvp(attention, args, tangents)[1],
            "keys alone": jax.grad(loss, 1)(*args),
            "forward over reverse": jax.jvp(gradient, args, tangents)[1],
            "reverse over reverse": jax.grad(lambda q: jnp.sum(jax.grad(loss)(q, *args[1:]) ** 2))(args[0]),
            "reverse over forward": jax.grad(forward)(args[0]),
            "mapped": jax.vmap(attention)(*several),
            "gradient of each": jax.vmap(gradient)(*several),
            "forward of each": jax.vmap(lambda *a: jax.jvp(attention, a, tangents)[1])(*several),
            "in a loop": jax.grad(loop)(args[0]),
            "again": jax.grad(jax.checkpoint(loss), (0, 1, 2))(*args),
        }  # fmt: skip

    found, wanted = (jax.jit(partial(modes, attention))() for attention in (cudnn_attention.attend, plain))
    for mode, expected in wanted.items():
        chex.assert_trees_all_close(found[mode], expected, rtol=1e-4, atol=1e-5, custom_message=mode)


def traced_for_gpu(**fields):
    model = create_model("vit_tiny_patch16_224", **{**TINY, **fields})
    images = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    with platform.made_for("gpu"):
        return jax.make_jaxpr(partial(model.apply, train=False))(variables, images)


def test_16_bits_on_a_gpu_are_what_it_is_for(by_formula):
    def used(jaxpr):
        return "key_value_seq" in str(jaxpr) or "jvp=_attend_jvp" in str(jaxpr)

    half = {"dtype": jnp.bfloat16}
    assert used(traced_for_gpu(**half)) and used(traced_for_gpu(**half, attn_implementation="cudnn"))
    assert not used(traced_for_gpu()) and not used(traced_for_gpu(**half, attn_implementation="xla"))
    assert not used(traced_for_gpu(**half, attn_layer="diff"))


def test_where_it_cannot_be_used_it_says_so(by_formula):
    model = create_model("vit_tiny_patch16_224", **TINY, attn_implementation="cudnn", dtype=jnp.bfloat16)
    images = jnp.zeros((1, 16, 16, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    with pytest.raises(UserError, match="needs a GPU, this is a cpu; expected None or 'xla'"):
        jax.eval_shape(model.apply, variables, images)
    with pytest.raises(UserError, match="computes in 16 bits .*not in float32"):
        traced_for_gpu(attn_implementation="cudnn")
    with pytest.raises(UserError, match="heads of 8, 16, ... 128 channels, not of 4"):
        traced_for_gpu(attn_implementation="cudnn", dtype=jnp.bfloat16, embed_dim=16)
    for field in ({"attn_drop_rate": 0.1}, {"attn_layer": "diff"}):
        with pytest.raises(UserError, match="does not expose the attention weights"):
            traced_for_gpu(attn_implementation="cudnn", dtype=jnp.bfloat16, **field)
    with pytest.raises(UserError, match="'cudnn' is unknown"):
        create_model("swin_tiny_patch4_window7_224", attn_implementation="cudnn")


def test_without_jaxs_cuda_packages_it_says_which_are_missing(monkeypatch):
    def missing(*_):
        raise RuntimeError("cuDNN is not detected.")

    monkeypatch.setattr(cudnn_attention, "padded", missing)
    assert "dot_general" in str(traced_for_gpu(dtype=jnp.bfloat16))
    with pytest.raises(UserError, match="CUDA packages .cuDNN is not detected"):
        traced_for_gpu(dtype=jnp.bfloat16, attn_implementation="cudnn")


@needs_cuda
@pytest.mark.parametrize("devices", [1, 2])
def test_a_training_step_is_compiled_for_a_gpu_with_cudnns_calls(devices):
    """17 tokens: JAX by itself refuses to train odd numbers; one call forward and one back for each block."""
    mesh = sharding.make_mesh(devices, devices=step.devices_of(chips.parse(f"h100:{devices}")))
    whole, split = sharding.replicated(mesh), sharding.batch_sharding(mesh)
    images = jax.ShapeDtypeStruct((4, 16, 16, 3), jnp.float32, sharding=split)

    def traced(**fields):
        model = create_model("vit_tiny_patch16_224", **TINY, dtype=jnp.bfloat16, **fields)
        variables = jax.eval_shape(model.init, jax.random.key(0), images)
        variables = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), variables)
        step = jax.value_and_grad(lambda v, x: jnp.sum(model.apply(v, x, train=True) ** 2))
        with platform.made_for("gpu"):
            return jax.jit(step).trace(variables, images)

    ours, formula = traced(), traced(attn_implementation="xla")
    text = ours.lower().compile().as_text()
    calls = re.findall(r'custom_call_target="__cudnn\$(fmha\w+)"', text)
    assert sorted(calls) == ["fmhaSoftmax"] * 2 + ["fmhaSoftmaxBackward"] * 2
    assert not re.search(r"(17,17|24,24)\]", text)
    assert "all-gather" not in text and ("all-reduce" in text) == (devices > 1)
    products = TINY["depth"] * 4 * 32 * (7 * 24**2 - 6 * 17**2)  # 7 of filled tokens, where the formula has 6
    assert count_jaxpr(ours.jaxpr.jaxpr) - count_jaxpr(formula.jaxpr.jaxpr) == products
