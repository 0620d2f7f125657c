"""Operations on the device against numpy and Pillow references, under jit and vmap."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvit.data import augment
from jaxvit.errors import UserError


def _bytes(b=4, h=9, w=7, c=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (b, h, w, c), np.uint8)


def test_normalise_equals_numpy_for_any_rank():
    images, mean, std = _bytes(), (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)
    expected = (images.astype(np.float64) / 255 - mean) / std
    for transform in (augment.normalise, jax.jit(augment.normalise, static_argnums=(1, 2))):
        result = transform(images, mean, std)
        assert result.dtype == jnp.float32
        np.testing.assert_allclose(result, expected, atol=2e-6)
    one = jax.vmap(lambda image: augment.normalise(image, mean, std))(images)
    np.testing.assert_allclose(one, expected, atol=2e-6)


@pytest.mark.parametrize("method", ["bicubic", "bilinear", "lanczos"])
@pytest.mark.parametrize("size", [(16, 20), (5, 4), (9, 14)])
def test_resize_equals_pillow(method, size):
    images = _bytes().astype(np.float32)
    filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    resample = filters.get(method, Image.Resampling.LANCZOS)
    expected = np.stack(
        [
            np.stack([np.asarray(Image.fromarray(image[..., c]).resize(size[::-1], resample)) for c in range(3)], -1)
            for image in images
        ]
    )
    result = jax.jit(augment.resize, static_argnums=(1, 2))(images, size, method)
    np.testing.assert_allclose(result, expected, atol=2e-3)  # of 255, both in float32


def test_resize_of_bytes_stays_in_range_and_same_size_changes_nothing():
    images = (_bytes() > 127).astype(np.uint8) * 255
    result = augment.resize(jnp.asarray(images), 21)
    assert result.dtype == jnp.float32 and float(result.min()) >= 0 and float(result.max()) <= 255
    same = augment.resize(jnp.asarray(images), (9, 7))
    np.testing.assert_array_equal(same, images)
    chex.assert_shape(jax.vmap(lambda i: augment.resize(i, 5))(jnp.asarray(images)), (4, 5, 5, 3))
    with pytest.raises(UserError, match="cubic"):
        augment.resize(jnp.asarray(images), 4, "cubic")


def test_random_crop_is_a_window_of_the_padded_image_and_reaches_all():
    images, padding = _bytes(200, 5, 4, 1).astype(np.float32), 2
    result = np.asarray(jax.jit(augment.random_crop, static_argnums=2)(jax.random.key(0), images, padding))
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    seen = set()
    for image, crop in zip(padded, result, strict=True):
        at = [(y, x) for y in range(5) for x in range(5) if (image[y : y + 5, x : x + 4] == crop).all()]
        assert at
        seen.update(at)
    assert len(seen) == 25
    assert (result != images).any()


def test_random_flip_mirrors_about_half_of_the_images():
    images = _bytes(400, 3, 4, 1).astype(np.float32)
    result = np.asarray(jax.jit(augment.random_flip)(jax.random.key(1), images))
    flipped = (result == images[:, :, ::-1]).all((1, 2, 3))
    kept = (result == images).all((1, 2, 3))
    assert (flipped | kept).all() and 150 < flipped.sum() < 250


def test_operations_vmap_over_keys():
    images = jnp.asarray(_bytes(), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 3)
    for operation in (augment.random_flip, lambda k, i: augment.random_crop(k, i, 1)):
        batched = jax.vmap(operation, (0, None))(keys, images)
        for i, key in enumerate(keys):
            np.testing.assert_array_equal(batched[i], operation(key, images))


def test_channels_convert_as_pillow_does():
    images = _bytes()
    grey = augment.to_channels(jnp.asarray(images), 1)
    expected = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in images])[..., None]
    np.testing.assert_allclose(np.asarray(grey, int), expected.astype(int), atol=1)
    colour = augment.to_channels(grey, 3)
    chex.assert_shape(colour, (4, 9, 7, 3))
    np.testing.assert_array_equal(colour[..., 2], grey[..., 0])
    with pytest.raises(UserError, match="4 channels"):
        augment.to_channels(jnp.zeros((1, 2, 2, 4)), 3)


def test_make_augment_composes_and_keys_do_not_interfere():
    images, targets = jnp.asarray(_bytes(), jnp.float32), jnp.eye(4)
    key = jax.random.key(3)
    nothing, same = augment.make_augment({"flip": False, "crop_padding": 0})(key, images, targets)
    np.testing.assert_array_equal(nothing, images)
    np.testing.assert_array_equal(same, targets)
    flip, _ = augment.make_augment({"flip": True})(key, images, targets)
    crop, _ = augment.make_augment({"crop_padding": 2})(key, images, targets)
    both, _ = jax.jit(augment.make_augment({"flip": True, "crop_padding": 2}))(key, images, targets)
    np.testing.assert_array_equal(flip, augment.random_flip(jax.random.fold_in(key, 1), images))
    np.testing.assert_array_equal(both, augment.random_flip(jax.random.fold_in(key, 1), crop))
    traced = jax.jit(chex.assert_max_traces(augment.make_augment({"flip": True}), n=1))
    for i in range(3):
        traced(jax.random.key(i), images, targets)


@pytest.mark.parametrize("options", [{"flips": True}, {"crop_padding": -1}, {"crop_padding": 1.5}])
def test_wrong_options_are_answered(options):
    with pytest.raises(UserError, match="expected"):
        augment.make_augment(options)
