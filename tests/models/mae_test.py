"""The masked autoencoder against one written here from the paper, and what its encoder sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.models import mae
from jaxvit.models.vit import VisionTransformer
from jaxvit.ops.macs import count_jaxpr
from jaxvit.step.reconstruction import reconstruction_loss

FIELDS = {"num_classes": 3, "image_size": (8, 16), "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
N = 8  # patches


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).standard_normal((3, 8, 16, 3)).astype(np.float32)


def drawn(model, images):
    """Variables without zeros and ones, so that no part of the equations is idle."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: (0.3 * rng.standard_normal(x.shape)).astype(np.float32), shapes)


def apply(model, variables, images, **options):
    """As one compiled function, which is faster than one operation after the other."""
    return jax.jit(lambda v, x, o: model.apply(v, x, **o))(variables, images, options)


@pytest.fixture(scope="module")
def autoencoder(images):
    """(variables, images -> predictions and masks, compiled once)."""
    encoder = mae.encoder_of(VisionTransformer(**FIELDS))
    model = mae.MaskedAutoencoder(encoder, mask_ratio=0.75, decoder_depth=1, decoder_embed_dim=8, decoder_num_heads=2)
    variables, compiled = drawn(model, images), jax.jit(model.apply)
    return variables, lambda images: compiled(variables, images)


def test_each_image_has_a_mask_drawn_for_it():
    keep, restore = mae.random_masking(jax.random.key(3), 64, N, 2)
    seen = np.zeros((64, N), bool)
    np.put_along_axis(seen, np.asarray(keep), True, axis=1)
    np.testing.assert_array_equal(seen.sum(axis=1), 2)
    np.testing.assert_array_equal(np.asarray(restore) < 2, seen)
    np.testing.assert_array_equal(np.take_along_axis(np.asarray(restore), np.asarray(keep), 1), [[0, 1]] * 64)
    assert len(np.unique(seen, axis=0)) > 15  # of 28 masks
    assert seen.sum(axis=0).min() > 8 and seen.sum(axis=0).max() < 26  # 16 each, on average
    again, other = (mae.random_masking(jax.random.key(k), 64, N, 2)[0] for k in (3, 4))
    np.testing.assert_array_equal(keep, again)
    assert np.any(keep != other)


def test_positions_are_those_of_the_paper():
    found = mae.sine_cosine_positions((2, 3), 8)
    for row in range(2):
        for column in range(3):
            wanted = [f(place / 10_000 ** (i / 2)) for place in (column, row) for f in (np.sin, np.cos) for i in (0, 1)]
            np.testing.assert_allclose(found[3 * row + column], wanted, atol=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {"global_pool": "avg", "class_token": False},
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"no_embed_class": True, "reg_tokens": 2}, marks=pytest.mark.slow),
    ],
)
def test_all_patches_in_any_order_are_the_vit_itself(images, fields):
    model = VisionTransformer(**(FIELDS | fields))
    variables = drawn(model, images)
    order = np.stack([np.random.default_rng(i).permutation(N) for i in range(len(images))])
    wanted = apply(model, variables, images)
    np.testing.assert_allclose(apply(model, variables, images, keep=order), wanted, atol=1e-5)
    assert np.abs(apply(model, variables, images, keep=order[:, 1:]) - wanted).max() > 1e-3


def test_a_patch_keeps_its_own_position(images):
    """Without blocks a token is its patch times the kernel, plus its row of the position table, normalised."""
    model = VisionTransformer(**(FIELDS | {"depth": 0, "num_classes": 0, "global_pool": ""}))
    variables = drawn(model, images)
    p = variables["params"]
    keep = np.array([[5, 2], [0, 7], [6, 1]])
    found = apply(model, variables, images, keep=keep)
    for i, chosen in enumerate(keep):
        for place, patch in enumerate(chosen):
            row, column = divmod(patch, 4)
            pixels = images[i, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].reshape(-1)
            x = pixels @ p["patch_embed"]["proj"]["kernel"].reshape(-1, 16) + p["patch_embed"]["proj"]["bias"]
            x = norm(x + p["pos_embed"][0, 1 + patch], p["norm"])
            np.testing.assert_allclose(found[i, 1 + place], x, atol=1e-5)
            if place == 0:  # the other patch's position would not do
                assert np.abs(found[i, 1] - norm(x + p["pos_embed"][0, 1 + chosen[1]], p["norm"])).max() > 0.05


def norm(x, p):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-6) * p["scale"] + p["bias"]


def linear(x, p):
    return x @ p["kernel"] + p["bias"]


def block(x, p, heads):
    """A pre-norm transformer block on the tokens [n, d] of one image."""
    q, k, v = np.split(linear(norm(x, p["norm1"]), p["attn"]["qkv"]), 3, axis=-1)
    out = []
    for h in np.split(np.arange(x.shape[1]), heads):
        logits = q[:, h] @ k[:, h].T / np.sqrt(len(h))
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        out.append(weights / weights.sum(-1, keepdims=True) @ v[:, h])
    x = x + linear(np.concatenate(out, -1), p["attn"]["proj"])
    hidden = linear(norm(x, p["norm2"]), p["mlp"]["fc1"])
    erf = np.asarray(jax.scipy.special.erf(hidden / np.sqrt(2)))
    return x + linear(hidden * (1 + erf) / 2, p["mlp"]["fc2"])


def from_the_paper(params, image, seen, positions):
    """Predictions [n, values] of one image [h, w, c] of which the patches `seen`, in this order, enter the encoder."""
    e, d = params["encoder"], params["decoder"]
    cut = [image[4 * r : 4 * r + 4, 4 * c : 4 * c + 4].reshape(-1) for r in range(2) for c in range(4)]
    kernel = {"kernel": e["patch_embed"]["proj"]["kernel"].reshape(-1, 16), "bias": e["patch_embed"]["proj"]["bias"]}
    tokens = [e["cls_token"][0, 0] + e["pos_embed"][0, 0]]
    tokens += [linear(cut[i], kernel) + e["pos_embed"][0, 1 + i] for i in seen]
    x = np.stack(tokens)
    for i in range(2):
        x = block(x, e[f"blocks_{i}"], 2)
    x = linear(norm(x, e["norm"]), d["embed"])
    whole = np.repeat(d["mask_token"][0], N, axis=0)
    for place, i in enumerate(seen):
        whole[i] = x[1 + place]
    x = block(np.concatenate([x[:1], whole + positions]), d["blocks_0"], 2)
    return linear(norm(x, d["norm"])[1:], d["pred"]), np.stack(cut)


def test_predictions_and_loss_equal_the_paper_written_out(images, autoencoder):
    variables, predict = autoencoder
    predicted, masked = predict(images)
    keep, _ = mae.random_masking(jax.random.key(0), 3, N, 2)  # the mask of a call without a stream
    positions = mae.sine_cosine_positions((2, 4), 8)
    for norm_pix in (True, False):
        losses = []
        for i, seen in enumerate(np.asarray(keep)):
            wanted, patches = from_the_paper(variables["params"], images[i], seen, positions)
            np.testing.assert_allclose(predicted[i], wanted, atol=2e-5)
            errors = []
            for j in set(range(N)) - set(seen.tolist()):
                target = patches[j]
                if norm_pix:
                    target = (target - target.mean()) / np.sqrt(target.var(ddof=1) + 1e-6)
                errors.append(np.mean((wanted[j] - target) ** 2))
            losses.append(np.mean(errors))
        cut = jnp.asarray([from_the_paper(variables["params"], x, [0], positions)[1] for x in images])
        found = reconstruction_loss(predicted, cut, masked, norm_pix=norm_pix)
        np.testing.assert_allclose(found, losses, rtol=1e-5)


def test_masked_pixels_are_not_seen(images, autoencoder):
    predict = autoencoder[1]
    predicted, masked = predict(images)
    pixels = np.repeat(np.repeat(np.asarray(masked).reshape(3, 2, 4), 4, axis=1), 4, axis=2)[..., None]
    hidden = predict(np.where(pixels, np.float32(7), images))[0]
    np.testing.assert_array_equal(predicted, hidden)
    assert np.abs(predict(np.where(pixels, images, images + 0.1))[0] - predicted).max() > 1e-3


def test_the_encoder_computes_only_what_it_sees():
    model = VisionTransformer(**(FIELDS | {"image_size": 32, "depth": 4, "num_classes": 0}))
    x, keep = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32), jax.ShapeDtypeStruct((1, 16), np.int32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    whole = count_jaxpr(jax.make_jaxpr(model.apply)(variables, x).jaxpr)
    part = count_jaxpr(jax.make_jaxpr(lambda v, x, keep: model.apply(v, x, keep=keep))(variables, x, keep).jaxpr)
    assert part < 0.3 * whole


def test_the_encoder_drops_nothing_and_has_the_names_of_the_vit():
    vit = VisionTransformer(**(FIELDS | {"drop_path_rate": 0.2, "drop_rate": 0.1, "global_pool": "avg"}))
    encoder = mae.encoder_of(vit)(name="encoder")
    assert encoder.drop_path_rate == encoder.drop_rate == 0 and encoder.embed_dim == 16
    names = [set(jax.eval_shape(m.init, jax.random.key(0), jnp.zeros((1, 8, 16, 3)))["params"]) for m in (vit, encoder)]
    assert names[0] - names[1] == {"fc_norm", "head"} and names[1] - names[0] == {"norm"}
