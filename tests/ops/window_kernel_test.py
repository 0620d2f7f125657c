"""The kernel of Swin's window attention, by the interpreter, against the formula; and that Triton takes it."""

import math
import re
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit import create_model
from jaxvit.errors import UserError
from jaxvit.ops import window_kernel
from jaxvit.ops.window_attention import shifted_window_mask, window_partition, window_reverse
from tests.helpers.tiny_swin import images_of, tiny, variables_of

# map, window, shift, heads, head dim, batch
CASES = {
    "7x7 shifted": ((14, 21), (7, 7), (3, 3), 3, 8, 2),
    "7x7": ((7, 14), (7, 7), (0, 0), 2, 32, 3),
    "8x8 shifted": ((16, 16), (8, 8), (4, 4), 2, 16, 2),
    "4x6 shifted": ((8, 12), (4, 6), (2, 3), 1, 20, 3),
    "4x6 shifted across": ((4, 12), (4, 6), (0, 3), 2, 16, 1),
    "12x12 shifted": ((24, 12), (12, 12), (6, 0), 1, 16, 1),
    "3x3": ((6, 9), (3, 3), (1, 1), 4, 5, 2),
}


def formula(qkv, bias, window, shift, rolled=False):
    (_, h, w, width), heads = qkv.shape, len(bias)
    qkv = qkv if rolled else jnp.roll(qkv, (-shift[0], -shift[1]), (1, 2))
    x = window_partition(qkv, window)
    q, k, v = jnp.moveaxis(x.reshape(*x.shape[:3], 3, heads, -1), 3, 0)
    logits = jnp.einsum("bwqhd,bwkhd->bwhqk", q, k) * q.shape[-1] ** -0.5 + bias[None, None]
    mask = shifted_window_mask((h, w), window, shift)
    if mask is not None:
        logits = logits + mask[None, :, None]
    x = jnp.einsum("bwhqk,bwkhd->bwqhd", jax.nn.softmax(logits, axis=-1), v)
    x = window_reverse(x.reshape(*x.shape[:3], width // 3), window, (h, w))
    return x if rolled else jnp.roll(x, shift, (1, 2))


def arrays(size, window, heads, head_dim, batch, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    n, d = window[0] * window[1], heads * head_dim
    shapes = ((batch, *size, 3 * d), (heads, n, n), (batch, *size, d))
    qkv, bias, weights = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes)
    return qkv.astype(dtype), bias, weights


def both(attend, qkv, bias, weights):
    """The output, and the gradients of queries, keys, values and bias of a weighted sum of it."""

    def loss(qkv, bias):
        out = attend(qkv, bias)
        return jnp.sum(out.astype(jnp.float32) * weights), out

    (_, out), grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(qkv, bias)
    return {"out": out, "dqkv": grads[0], "dbias": grads[1]}


@pytest.mark.parametrize("rolled", [False, True], ids=["", "rolled"])
@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_are_those_of_the_formula(case, rolled, monkeypatch):
    """With several windows to a program, the last of which has fewer."""
    size, window, shift, heads, head_dim, batch = CASES[case]
    if rolled and not any(shift):
        pytest.skip("nothing to roll")
    monkeypatch.setattr(window_kernel, "PROGRAMS", 2)
    given = arrays(size, window, heads, head_dim, batch)
    kernel = both(
        lambda qkv, bias: window_kernel.attend(qkv, bias, window, shift, rolled=rolled, interpret=True), *given
    )
    chex.assert_trees_all_close(
        kernel, both(lambda qkv, bias: formula(qkv, bias, window, shift, rolled), *given), rtol=1e-5, atol=1e-5
    )


def test_groups_do_not_divide_the_windows_and_change_nothing_but_the_order_of_sums(monkeypatch):
    size, window, shift, heads, head_dim, batch = CASES["7x7 shifted"]
    given = arrays(size, window, heads, head_dim, batch)
    found = {}
    for programs in (1000, 12, 1):
        monkeypatch.setattr(window_kernel, "PROGRAMS", programs)
        group = window_kernel.Geometry(size, window, shift, heads).group(batch)
        found[group] = both(lambda *a: window_kernel.attend(*a, window, shift, interpret=True), *given)
    assert set(found) == {1, 2, 32} and 6 * batch % 32
    chex.assert_trees_all_close(found[1], found[2], found[32], rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_equal(found[1]["out"], found[32]["out"])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_short_types_round_and_no_more(dtype):
    size, window, shift, heads, head_dim, batch = CASES["8x8 shifted"]
    qkv, bias, weights = arrays(size, window, heads, head_dim, batch, dtype)
    kernel = both(lambda *a: window_kernel.attend(*a, window, shift, interpret=True), qkv, bias, weights)
    assert kernel["out"].dtype == kernel["dqkv"].dtype == dtype and kernel["dbias"].dtype == jnp.float32
    exact = both(lambda *a: formula(*a, window, shift), qkv.astype(jnp.float32), bias, weights)
    epsilon = float(jnp.finfo(dtype).eps)
    for name, array in exact.items():
        scale = float(jnp.abs(array).max())
        np.testing.assert_allclose(kernel[name].astype(jnp.float32), array, atol=2 * epsilon * scale, err_msg=name)


MAPS = {
    "maps": lambda attend: jax.vmap(attend, (0, None)),
    "biases": lambda attend: jax.vmap(attend, (None, 0)),
    "both": lambda attend: jax.vmap(attend, (1, 0)),
    "both, one after the other": lambda attend: jax.vmap(jax.vmap(attend, (0, None)), (None, 0)),
}


@pytest.mark.parametrize("case", MAPS)
def test_mapped_it_gives_each_member_its_output_and_gradients(case):
    size, window, shift, _, head_dim, batch = CASES["4x6 shifted"]
    qkv, bias, _ = arrays(size, window, 2, head_dim, batch)
    maps, biases = jnp.stack([qkv, -qkv[::-1]]), jnp.stack([bias, 2 * bias[::-1]])
    given = {
        "maps": (maps, bias), "biases": (qkv, biases), "both": (maps.swapaxes(0, 1), biases),
        "both, one after the other": (maps, biases),
    }[case]  # fmt: skip

    def mapped(attend):
        def gradients(qkv, bias):
            weights = jnp.cos(jnp.arange(qkv.size // 3, dtype=jnp.float32))
            loss = lambda *args: jnp.sum(attend(*args).reshape(-1) * weights)  # noqa: E731
            return attend(qkv, bias), jax.grad(loss, (0, 1))(qkv, bias)

        return jax.jit(MAPS[case](gradients))(*given)

    kernel = mapped(lambda *args: window_kernel.attend(*args, window, shift, interpret=True))
    chex.assert_trees_all_close(kernel, mapped(lambda *args: formula(*args, window, shift)), rtol=1e-5, atol=1e-5)


def test_a_seam_is_not_crossed():
    """With equal logits a token takes the mean of its own region, which no other value enters."""
    size, window, shift = (8, 8), (4, 4), (2, 2)
    qkv = jnp.zeros((1, *size, 3 * 16)).at[0, :2, :2, 32:].set(7.0)
    out = window_kernel.attend(qkv, jnp.zeros((1, 16, 16)), window, shift, interpret=True)
    np.testing.assert_allclose(out[0, :2, :2], 7.0, rtol=1e-6)  # the corner is a region by itself
    assert float(jnp.abs(out[0, 2:]).max()) == float(jnp.abs(out[0, :, 2:]).max()) == 0.0


@pytest.mark.parametrize(("size", "remat"), [((32, 32), "none"), ((28, 44), "dots")], ids=["whole windows", "padded"])
def test_a_whole_swin_has_the_same_loss_and_gradients(size, remat):
    images, fields = images_of(*size, batch=1), {"depths": (2,), "num_heads": (2,), "drop_path_rate": 0.0}
    variables = variables_of(tiny(**fields), images_of(32, 32))

    def value_and_grad(model):
        def loss(variables):
            return jnp.sum(model.apply(variables, images, train=True) ** 2)

        return jax.jit(jax.value_and_grad(loss))(variables)

    plain = value_and_grad(tiny(**fields))
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(plain))
    kernel = value_and_grad(tiny(**fields, attn_implementation="interpret", remat=remat))
    chex.assert_trees_all_close(kernel, plain, rtol=1e-5, atol=1e-6 * scale)


def test_watched_attention_is_the_formula_and_shows_its_weights():
    images = images_of(16, 32)
    model = tiny(depths=(2,), num_heads=(2,), attn_implementation="interpret")
    variables = variables_of(model, images)
    logits, seen = jax.jit(partial(model.apply, mutable="intermediates"))(variables, images)
    assert len(jax.tree.leaves(seen)) == 2
    np.testing.assert_allclose(jax.jit(model.apply)(variables, images), logits, rtol=1e-5, atol=1e-5)


def test_images_are_split_over_devices_and_never_gathered():
    size, window, shift, heads, head_dim, _ = CASES["4x6 shifted across"]
    qkv, bias, weights = arrays(size, window, heads, head_dim, 4)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("data",))
    images, whole = (jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes)) for axes in (("data",), ()))

    def loss(qkv, bias, weights):
        out = window_kernel.attend(qkv, bias, window, shift, interpret=True)
        return jnp.sum(out * weights), out

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    placed = jax.device_put(qkv, images), jax.device_put(bias, whole), jax.device_put(weights, images)
    (_, out), (dqkv, dbias) = step(*placed)
    assert out.sharding.spec[0] == dqkv.sharding.spec[0] == "data" and dbias.sharding.is_fully_replicated
    text = step.lower(*placed).compile().as_text()
    assert "all-reduce" in text and "all-gather" not in text and "all-to-all" not in text
    chex.assert_trees_all_close(
        ((out), (dqkv, dbias)), (lambda r: (r[0][1], r[1]))(step(qkv, bias, weights)), rtol=1e-5, atol=1e-5
    )


# map side, window, heads: the stages of Swin-T, Swin-B and Swin-B at 384 pixels
STAGES = [(56, 7, 3), (28, 7, 6), (14, 7, 12), (7, 7, 24), (56, 7, 4), (7, 7, 32), (96, 12, 4), (48, 12, 8)]


@pytest.mark.parametrize(("side", "window", "heads"), STAGES)
def test_the_kernels_lower_for_a_gpu_that_is_not_here(side, window, heads):
    n, windows, shift = window**2, 128 * (side // window) ** 2, window // 2 if side > window else 0
    g = window_kernel.Geometry((side, side), (window, window), (shift, shift), heads)
    qkv = jax.ShapeDtypeStruct((128, side, side, 3 * 32 * heads), jnp.bfloat16)
    dout = jax.ShapeDtypeStruct((128, side, side, 32 * heads), jnp.bfloat16)
    bias = jax.ShapeDtypeStruct((heads, n, n), jnp.float32)

    def kernels(qkv, bias, dout):  # without what splits them over devices, which wants to see some
        return window_kernel._outputs.fun(g, qkv, bias), window_kernel._gradients.fun(g, qkv, bias, dout)

    gpu = jax.sharding.AbstractDevice("NVIDIA H200", 132, "gpu")  # JAX 0.11 and later want to know which
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((1,), ("data",), abstract_device=gpu)):
        text = jax.jit(kernels).trace(qkv, bias, dout).lower(lowering_platforms=("cuda",)).as_text()
    calls = [line for line in text.splitlines() if "custom_call" in line and "triton" in line]
    assert [sum(f"window_attention_{way}" in line for line in calls) for way in ("forward", "backward")] == [1, 1]
    shapes = [[int(side) for side in shape[:-1].split("x")] for shape in re.findall(r"tensor<((?:\d+x)+)[bf]", text)]
    pairs = [math.prod(shape) for shape in shapes if shape[-2:] == [n, n]]
    assert heads * n * n in pairs  # the bias; but never logits or weights of all windows
    assert 2 * max(pairs) <= windows * heads * n * n


def test_where_it_cannot_be_used_it_says_so():
    images = images_of(32, 32)
    model = tiny(attn_implementation="pallas")
    variables = variables_of(tiny(), images)
    with pytest.raises(UserError, match="needs a GPU, this is a cpu"):
        model.apply(variables, images)
    with pytest.raises(UserError, match="drops no attention weights"):
        create_model("swin_tiny_patch4_window7_224", attn_implementation="pallas", attn_drop_rate=0.1)
    with pytest.raises(UserError, match="'palas' is unknown.*pallas"):
        create_model("swin_tiny_patch4_window7_224", attn_implementation="palas")
    with pytest.raises(UserError, match="not in float64"), jax.enable_x64(True):
        window_kernel.attend(jnp.zeros((1, 4, 4, 48), jnp.float64), jnp.zeros((1, 16, 16)), (4, 4), interpret=True)
