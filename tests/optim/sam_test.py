"""SAM, ASAM, GSAM: by hand on a quadratic, against optax's SAM, against float64 numpy; what composes with them."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from jaxvit import optim
from jaxvit.errors import UserError
from jaxvit.optim import sam
from tests.helpers.plugins import examples

W = {"kernel": np.array([1.0, -2.0]), "bias": np.array([0.5])}
CURVE = {"kernel": np.array([2.0, 3.0]), "bias": np.array([4.0])}  # loss = sum c w^2 / 2, gradient c w


def quadratic(params):
    terms = jax.tree.map(lambda c, w: jnp.sum(c * w**2) / 2, CURVE, params)
    return sum(jax.tree.leaves(terms))


def f32(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def test_sam_on_a_quadratic_by_hand():
    value, grads = jax.jit(sam.sam_value_and_grad(quadratic, rho=0.1))(f32(W))
    norm = np.sqrt(2**2 + 6**2 + 2**2)  # g = (2, -6), 2
    np.testing.assert_allclose(value, (2 * 1 + 3 * 4 + 4 * 0.25) / 2, rtol=1e-6)  # of the clean weights
    np.testing.assert_allclose(grads["kernel"], [2 * (1 + 0.1 * 2 / norm), 3 * (-2 - 0.1 * 6 / norm)], rtol=1e-6)
    np.testing.assert_allclose(grads["bias"], [4 * (0.5 + 0.1 * 2 / norm)], rtol=1e-6)


def test_asam_on_a_quadratic_by_hand():
    _, grads = jax.jit(sam.sam_value_and_grad(quadratic, rho=0.5, adaptive=True, eta=0.01))(f32(W))
    t = np.array([1.01, 2.01, 1.0])  # the bias has T = 1
    g = np.array([2.0, -6.0, 2.0])
    e = 0.5 * t**2 * g / np.sqrt(np.sum((t * g) ** 2))
    np.testing.assert_allclose(grads["kernel"], [2 * (1 + e[0]), 3 * (-2 + e[1])], rtol=1e-6)
    np.testing.assert_allclose(grads["bias"], [4 * (0.5 + e[2])], rtol=1e-6)


def test_gsam_on_a_quadratic_by_hand():
    _, grads = jax.jit(sam.sam_value_and_grad(quadratic, rho=0.1, method="gsam", alpha=0.3))(f32(W))
    c, w = np.array([2.0, 3.0, 4.0]), np.array([1.0, -2.0, 0.5])
    g = c * w
    sharp = c * (w + 0.1 * g / np.linalg.norm(g))
    desired = sharp - 0.3 * (g - sharp * (g @ sharp) / (sharp @ sharp))
    np.testing.assert_allclose(np.concatenate([grads["kernel"], grads["bias"]]), desired, rtol=1e-5)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("method", ["sam", "gsam"])
def test_a_zero_gradient_gives_no_perturbation(adaptive, method):
    zeros = f32({"kernel": np.zeros(2), "bias": np.zeros(1)})
    chex.assert_trees_all_equal(sam.perturbation(f32(W), zeros, 0.1, adaptive), zeros)
    value, grads = jax.jit(sam.sam_value_and_grad(quadratic, 0.1, adaptive, method=method))(zeros)
    chex.assert_trees_all_equal((value, grads), (jnp.float32(0), zeros))


@pytest.mark.parametrize("size", [1e-30, 1e25])
def test_the_radius_holds_for_tiny_and_huge_gradients(size):
    grads = jax.tree.map(lambda x: jnp.asarray(x * size, jnp.float32), W)
    step = jax.jit(sam.perturbation)(f32(W), grads, 0.05)
    np.testing.assert_allclose(optax.global_norm(step), 0.05, rtol=1e-5)
    np.testing.assert_allclose(step["kernel"][1] / step["kernel"][0], -2.0, rtol=1e-5)


@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: [w], lambda w: {"linear": {"w": w}}, lambda w: {"weight": w}])
def test_asam_knows_kernels_without_flaxs_name(wrap):
    """A bare array, an entry of a list, Haiku's and PyTorch's names: T = |w| + eta, as for a kernel."""
    curve, w, rho, eta = np.array([2.0, 3.0]), np.array([1.0, -2.0]), 0.5, 0.01
    grad_fn = sam.sam_value_and_grad(lambda p: jnp.sum(curve * jax.tree.leaves(p)[0] ** 2) / 2, rho, True, eta)
    g, t = curve * w, np.abs(w) + eta
    desired = curve * (w + rho * t**2 * g / np.linalg.norm(t * g))
    np.testing.assert_allclose(jax.tree.leaves(jax.jit(grad_fn)(wrap(jnp.asarray(w)))[1])[0], desired, rtol=1e-6)


KERNEL, BIAS = np.float32([[2, 3]]), np.float32([4])


@pytest.mark.parametrize(
    "params",
    [
        {"Embed_0": {"embedding": KERNEL}, "temperature": BIAS},
        {"W1": KERNEL, "b1": BIAS},
        {"attn": {"w_q": KERNEL, "in_proj_bias": BIAS}},
        {"rnn": {"weight_ih_l0": KERNEL, "bias_ih_l0": BIAS}},
        [(KERNEL, BIAS), ()],
        (KERNEL[0], BIAS[0]),
    ],
)
def test_asam_tells_kernels_and_embeddings_from_biases_however_they_are_called(params):
    found = sam.perturbation(params, jax.tree.map(np.ones_like, params), 0.5, True, 0.01)
    kernel, bias = sorted(jax.tree.leaves(found), key=np.size, reverse=True)
    t = np.array([2.01, 3.01, 1.0])  # |w| + eta, |w| + eta, 1
    desired = 0.5 * t**2 / np.linalg.norm(t)
    np.testing.assert_allclose(np.append(kernel, bias), desired, rtol=1e-6)


def test_what_value_and_grad_takes_is_taken():
    """Python numbers, a tree without leaves, gradients beyond float32's range, a derivative where all is zero."""
    np.testing.assert_allclose(sam.sam_value_and_grad(lambda x: 2 * x**2, 0.1)(3.0)[1], 4 * 3.1, rtol=1e-6)
    assert sam.sam_value_and_grad(lambda p, x: x, 0.1)({}, 1.0) == (1.0, {})
    second = jax.grad(lambda p: sum(jax.tree.leaves(sam.sam_value_and_grad(quadratic, 0.1)(p)[1]))[0])
    chex.assert_tree_all_finite(second(jax.tree.map(jnp.zeros_like, f32(W))))
    with jax.enable_x64(True):
        for size in (1e-200, 1e200):
            e = sam.perturbation(W, jax.tree.map(lambda x, size=size: size * x, W), 0.05)
            np.testing.assert_allclose(optax.global_norm(e), 0.05, rtol=1e-12)


# --- a small net with kernels, norm and biases -------------------------------------------------------------------


def make_net(dtype=np.float32):
    rng = np.random.default_rng(0)
    params = {
        "fc1": {"kernel": rng.normal(size=(5, 7)), "bias": rng.normal(size=7) * 0.1},
        "norm": {"scale": 1 + 0.1 * rng.normal(size=7), "bias": 0.1 * rng.normal(size=7)},
        "fc2": {"kernel": rng.normal(size=(7, 3)), "bias": np.zeros(3)},
    }
    x, y = rng.normal(size=(12, 5)), np.eye(3)[rng.integers(3, size=12)]
    return jax.tree.map(lambda a: a.astype(dtype), (params, (x, y)))


def loss_fn(params, batch):
    x, y = batch
    h = x @ params["fc1"]["kernel"] + params["fc1"]["bias"][None]
    h = (h - h.mean(1, keepdims=True)) / jnp.sqrt(h.var(1, keepdims=True) + 1e-6)
    h = jnp.tanh(h * params["norm"]["scale"][None] + params["norm"]["bias"][None])
    logits = h @ params["fc2"]["kernel"] + params["fc2"]["bias"][None]
    return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(logits), 1))


def numpy_grad(p, batch):
    """The gradient of loss_fn written out in numpy."""
    x, y = batch
    a = x @ p["fc1"]["kernel"] + p["fc1"]["bias"]
    std = np.sqrt(a.var(1, keepdims=True) + 1e-6)
    n = (a - a.mean(1, keepdims=True)) / std
    h = np.tanh(n * p["norm"]["scale"] + p["norm"]["bias"])
    z = h @ p["fc2"]["kernel"] + p["fc2"]["bias"]
    soft = np.exp(z - z.max(1, keepdims=True))
    dz = (soft / soft.sum(1, keepdims=True) - y) / len(x)
    dn = (dz @ p["fc2"]["kernel"].T) * (1 - h**2)
    dnn = dn * p["norm"]["scale"]
    da = (dnn - dnn.mean(1, keepdims=True) - n * (dnn * n).mean(1, keepdims=True)) / std
    return {
        "fc1": {"kernel": x.T @ da, "bias": da.sum(0)},
        "norm": {"scale": (dn * n).sum(0), "bias": dn.sum(0)},
        "fc2": {"kernel": h.T @ dz, "bias": dz.sum(0)},
    }


def numpy_asam_step(p, batch, rho, eta, rate):
    """Kwon et al. 2021, algorithm 1, transcribed: T = |w| + eta on weights, 1 on biases."""
    g = numpy_grad(p, batch)
    flat = [(m, n) for m in p for n in p[m]]
    t = {k: np.abs(p[k[0]][k[1]]) + eta if k[1] != "bias" else 1.0 for k in flat}
    norm = np.sqrt(sum(np.sum((t[m, n] * g[m][n]) ** 2) for m, n in flat))
    up = {m: {n: p[m][n] + rho * t[m, n] ** 2 * g[m][n] / norm for n in p[m]} for m in p}
    sharp = numpy_grad(up, batch)
    return {m: {n: p[m][n] - rate * sharp[m][n] for n in p[m]} for m in p}


def test_asam_against_float64_numpy_over_ten_steps():
    params, batch = make_net()
    reference, batch64 = make_net(np.float64)
    grad_fn = jax.jit(sam.sam_value_and_grad(loss_fn, rho=0.5, adaptive=True, eta=0.01))
    for _ in range(10):
        _, grads = grad_fn(params, batch)
        params = jax.tree.map(lambda w, g: w - np.float32(0.1) * np.asarray(g), params, grads)
        reference = numpy_asam_step(reference, batch64, 0.5, 0.01, 0.1)
    chex.assert_trees_all_close(params, f32(reference), rtol=1e-5, atol=1e-5)


def test_asam_in_float64_is_the_reference():
    with jax.enable_x64(True):
        params, batch = make_net(np.float64)
        reference = params
        grad_fn = jax.jit(sam.sam_value_and_grad(loss_fn, rho=0.5, adaptive=True))
        for _ in range(10):
            params = jax.tree.map(lambda w, g: w - 0.1 * np.asarray(g), params, grad_fn(params, batch)[1])
            reference = numpy_asam_step(reference, batch, 0.5, 0.01, 0.1)
        chex.assert_trees_all_close(params, reference, rtol=1e-9, atol=1e-12)


def test_sam_against_optax_in_opaque_mode_over_ten_steps():
    params, batch = make_net()
    adversary = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
    theirs = optax.contrib.sam(optax.adamw(1e-2), adversary, sync_period=2, opaque_mode=True)
    ours, plain = optax.adamw(1e-2), jax.grad(loss_fn)
    grad_fn = sam.sam_value_and_grad(loss_fn, rho=0.05)
    p1, p2, s1, s2 = params, params, theirs.init(params), ours.init(params)

    @jax.jit
    def their_step(p, s):
        u, s = theirs.update(plain(p, batch), s, p, grad_fn=lambda p, _: plain(p, batch))
        return optax.apply_updates(p, u), s

    @jax.jit
    def our_step(p, s):
        u, s = ours.update(grad_fn(p, batch)[1], s, p)
        return optax.apply_updates(p, u), s

    for _ in range(10):
        p1, s1 = their_step(p1, s1)
        p2, s2 = our_step(p2, s2)
    chex.assert_trees_all_close(p2, p1, rtol=1e-5, atol=1e-6)
    assert float(optax.global_norm(jax.tree.map(jnp.subtract, p2, params))) > 0.1


# --- what it composes with ---------------------------------------------------------------------------------------


def test_value_and_aux_are_the_clean_pass_and_other_arguments_are_shared():
    params, batch = make_net()
    seen = []

    def loss(params, batch, key):
        noise = jax.random.normal(key)
        jax.debug.callback(lambda n: seen.append(float(n)), noise)
        return loss_fn(params, batch) + 0 * noise, {"first": params["fc1"]["bias"][0]}

    (value, aux), _ = jax.jit(sam.sam_value_and_grad(loss, 0.5, has_aux=True))(params, batch, jax.random.key(3))
    jax.effects_barrier()
    np.testing.assert_allclose(value, loss_fn(params, batch), rtol=1e-6)
    assert float(aux["first"]) == params["fc1"]["bias"][0]
    assert len(seen) == 2 and seen[0] == seen[1]


def test_frozen_parameters_are_neither_differentiated_nor_perturbed():
    params, batch = make_net()
    mask = optim.freeze_mask(params, ["^fc1/", "^norm/"])
    trainable, frozen = optim.split_trainable(params, mask)
    grad_fn = sam.sam_value_and_grad(lambda t, f, b: loss_fn(optim.merge(t, f), b), 0.1, adaptive=True)
    _, grads = jax.jit(grad_fn)(trainable, frozen, batch)
    assert set(grads) == {"fc2"}
    plain = jax.jit(jax.grad(loss_fn))
    e = sam.perturbation(trainable, {"fc2": plain(params, batch)["fc2"]}, 0.1, adaptive=True)
    desired = plain(optim.merge(sam.add(trainable, e), frozen), batch)["fc2"]
    chex.assert_trees_all_close(grads["fc2"], desired, rtol=1e-5, atol=1e-6)


def test_bfloat16_parameters_keep_their_type_and_norms_are_float32():
    # 4096 equal entries: a bfloat16 sum of squares would stop at 256
    params = {"kernel": jnp.zeros(4096, jnp.bfloat16)}
    step = sam.perturbation(params, {"kernel": jnp.full(4096, 0.5, jnp.bfloat16)}, 1.0)
    assert step["kernel"].dtype == jnp.float32
    np.testing.assert_allclose(step["kernel"], 1 / 64, rtol=1e-6)
    _, grads = sam.sam_value_and_grad(lambda p: jnp.sum(p["kernel"] ** 2), 1.0, True)(params)
    assert grads["kernel"].dtype == jnp.bfloat16


def test_micro_batches_have_perturbations_of_their_own():
    params, (x, y) = make_net()
    _, grads = jax.jit(sam.sam_value_and_grad(loss_fn, 0.3, num_micro_batches=3))(params, (x, y))
    one = jax.jit(sam.sam_value_and_grad(loss_fn, 0.3))
    parts = [one(params, (x[i::3], y[i::3]))[1] for i in range(3)]  # as the trainer's optim.sam.m divides a batch
    chex.assert_trees_all_close(grads, jax.tree.map(lambda *g: np.mean(g, axis=0), *parts), rtol=1e-5, atol=1e-6)
    # around an accumulating function there is one perturbation, that of the whole batch
    whole = sam.sharpness_aware(sam.micro_batched(jax.value_and_grad(loss_fn), 3), 0.3)
    chex.assert_trees_all_close(jax.jit(whole)(params, (x, y)), one(params, (x, y)), rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match="12 does not divide into 5"):
        sam.sam_value_and_grad(loss_fn, num_micro_batches=5)(params, (x, y))


def test_the_arguments_to_divide_are_there():
    params, batch = make_net()

    def grads(places, *args, **kwargs):
        return jax.jit(sam.sam_value_and_grad(loss_fn, 0.3, num_micro_batches=3, batch_argnums=places))(*args, **kwargs)

    chex.assert_trees_all_equal(grads(-1, params, batch), grads(1, params, batch))
    with pytest.raises(UserError, match="batch_argnums has 2"):
        grads(2, params, batch)
    with pytest.raises(UserError, match="batch_argnums has 1"):
        grads(1, params, batch=batch)


def test_rho_zero_is_the_plain_gradient_and_rho_may_be_traced():
    params, batch = make_net()
    plain = jax.jit(jax.value_and_grad(loss_fn))(params, batch)
    chex.assert_trees_all_equal(jax.jit(sam.sam_value_and_grad(loss_fn, 0.0))(params, batch), plain)
    traced = jax.jit(lambda rho: sam.sam_value_and_grad(loss_fn, rho)(params, batch))
    chex.assert_trees_all_close(traced(0.0), plain, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(traced(0.2), sam.sam_value_and_grad(loss_fn, 0.2)(params, batch), rtol=1e-5, atol=1e-6)


def test_cheap_modes():
    assert [bool(sam.sam_active(s, 10, every=2, start_fraction=0.45)) for s in range(10)] == [
        s >= 5 and s % 2 == 0 for s in range(10)
    ]
    np.testing.assert_allclose(sam.gsam_rho(0.05, rho=0.4, rho_min=0.2, max_learning_rate=0.1), 0.3)
    ends = {"rho": 0.4, "rho_min": 0.2, "max_learning_rate": 0.1, "min_learning_rate": 0.02}
    rates = np.array([0.1, 0.06, 0.02, 0.0])  # peak, half-way, floor, beginning of a warm-up
    np.testing.assert_allclose(sam.gsam_rho(rates, **ends), [0.4, 0.3, 0.2, 0.2], rtol=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"rho": -0.1}, "sam.rho is -0.1"),
        ({"rho": float("nan")}, "sam.rho is nan"),
        ({"rho": np.float32(-0.5)}, "sam.rho is -0.5"),
        ({"rho": "0.1 of the norm"}, "sam.rho is '0.1 of the norm'"),
        ({"rho": None}, "sam.rho is None"),
        ({"eta": -1.0}, "sam.eta is -1.0"),
        ({"method": "asam"}, "no SAM method 'asam'"),
        ({"argnums": 1}, "first argument only"),
        ({"num_micro_batches": 0}, "num_micro_batches is 0"),
    ],
)
def test_mistakes_are_named(words, message):
    with pytest.raises(UserError, match=message):
        sam.sam_value_and_grad(quadratic, **words)


def test_the_example_of_the_page_by_hand():
    there = {}
    exec(examples("SAM.md")[0], there)
    assert float(there["loss"]) == 4.0  # the prediction is 2 for a target of 0
    g, t = np.array([4.0, 4.0, 4.0]), np.array([1.01, 1.01, 1.0])  # kernel, kernel, bias
    e = 0.5 * t**2 * g / np.linalg.norm(t * g)
    np.testing.assert_allclose(there["grads"]["kernel"], np.full((2, 1), 2 * (2 + e.sum())), rtol=1e-6)
    np.testing.assert_allclose(there["grads"]["bias"], [[2 * (2 + e.sum())]], rtol=1e-6)
