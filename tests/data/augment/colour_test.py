"""Tone and colour operations against Pillow, torchvision's hue against colorsys, on photographs."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from jaxvit.data.augment import colour
from tests.helpers.photos import photos

# Largest difference in steps of 1/255. Pillow cuts results down to bytes (1) and, for its blends, has first rounded the
# grey image or its mean to bytes (1/2 for contrast and colour, each times |1 - factor| <= 0.9).
AGAINST_PILLOW = {
    "brightness": (ImageEnhance.Brightness, colour.brightness, 1.0),
    "contrast": (ImageEnhance.Contrast, colour.contrast, 1.9),
    "color": (ImageEnhance.Color, colour.saturation, 1.9),
    "sharpness": (ImageEnhance.Sharpness, colour.sharpness, 1.9),
}


def _both(channels):
    """The photographs as bytes and as floats, in colour or grey."""
    images = photos()
    if channels == 1:
        images = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in images])[..., None]
    return images, jnp.asarray(images, jnp.float32) / 255.0


def _pillow(image, operation):
    result = np.asarray(operation(Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])))
    return result.reshape(image.shape).astype(np.float64)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", AGAINST_PILLOW)
def test_blends_are_pillows_enhancers(name, channels):
    enhancer, ours, tolerance = AGAINST_PILLOW[name]
    images, floats = _both(channels)
    factors = np.array([0.1, 0.5, 1.0, 1.3, 1.6, 1.9])
    result = np.asarray(jax.jit(ours)(floats, jnp.asarray(factors, jnp.float32)), np.float64) * 255
    for image, factor, got in zip(images, factors, result, strict=True):
        expected = _pillow(image, lambda x, f=factor: enhancer(x).enhance(f))
        assert np.abs(got - expected).max() <= tolerance + 1e-3
    np.testing.assert_allclose(result[2], images[2], atol=1e-3)
    assert np.asarray(result).min() >= 0 and np.asarray(result).max() <= 255.001


@pytest.mark.parametrize("channels", [1, 3])
def test_byte_operations_are_pillows_exactly(channels):
    images, floats = _both(channels)
    b = len(images)
    bits, thresholds = np.array([1, 2, 3, 4, 7, 8]), np.array([0, 1, 100, 128, 255, 256])
    cases = [
        (lambda x: colour.posterize(x, jnp.asarray(bits)), lambda x, i: ImageOps.posterize(x, int(bits[i]))),
        (lambda x: colour.solarize(x, jnp.asarray(thresholds)), lambda x, i: ImageOps.solarize(x, int(thresholds[i]))),
        (
            lambda x: colour.solarize_add(x, jnp.full(b, 110.0)),
            lambda x, i: x.point([min(255, v + 110) if v < 128 else v for v in range(256)] * channels),
        ),
        (colour.invert, lambda x, i: ImageOps.invert(x)),
        (colour.equalize, lambda x, i: ImageOps.equalize(x)),
    ]
    for ours, theirs in cases:
        result = np.asarray(jax.jit(ours)(floats)) * 255
        for i, image in enumerate(images):
            np.testing.assert_allclose(result[i], _pillow(image, lambda x, i=i, f=theirs: f(x, i)), atol=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_autocontrast_is_pillows_up_to_its_cut_to_bytes(channels):
    images, floats = _both(channels)
    result = np.asarray(jax.jit(colour.autocontrast)(floats)) * 255
    for image, got in zip(images, result, strict=True):
        assert np.abs(got - _pillow(image, ImageOps.autocontrast)).max() <= 1.0 + 1e-3
    np.testing.assert_allclose(result.min((1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(result.max((1, 2)), 255, atol=1e-3)


def test_equalize_of_few_values_and_of_small_images_is_pillows():
    rng = np.random.default_rng(0)
    equalize = jax.jit(colour.equalize)
    for shape in [(1, 17, 31, 3), (1, 8, 8, 1)]:
        for levels in (1, 2, 5, 256):
            values = (rng.integers(0, levels, shape) * (255 // levels)).astype(np.uint8)
            ours = np.asarray(equalize(jnp.asarray(values, jnp.float32) / 255.0)) * 255
            np.testing.assert_allclose(ours[0], _pillow(values[0], ImageOps.equalize), atol=1e-3)


def test_posterize_to_no_bits_is_black():  # Pillow refuses it, timm asks for it at magnitude 10
    assert float(colour.posterize(jnp.ones((1, 2, 2, 3)), jnp.zeros(1)).max()) == 0.0


def test_constant_images_stay_finite():
    flat = jnp.full((2, 5, 4, 3), 0.4)
    ones = jnp.ones(2)
    for operation in (colour.autocontrast, colour.equalize):
        np.testing.assert_allclose(jax.jit(operation)(flat), flat, atol=2e-3)
    np.testing.assert_allclose(colour.contrast(flat, 1.7 * ones), flat, atol=1e-6)
    np.testing.assert_allclose(colour.hue(flat, 0.3 * ones), flat, atol=1e-6)


def test_hue_turns_by_the_share_of_a_circle():
    images, floats = _both(3)
    small = floats[:, ::8, ::8]
    delta = np.array([-0.5, -0.2, 0.0, 0.1, 0.25, 0.5])
    result = jax.jit(colour.hue)(small, jnp.asarray(delta, jnp.float32))

    def turned(pixel, by):
        h, s, v = colorsys.rgb_to_hsv(*pixel)
        return colorsys.hsv_to_rgb((h + by) % 1.0, s, v)

    for image, by, got in zip(np.asarray(small, np.float64), delta, result, strict=True):
        expected = np.array([turned(pixel, by) for pixel in image.reshape(-1, 3)]).reshape(image.shape)
        np.testing.assert_allclose(got, expected, atol=1e-5)
    grey = floats[..., :1]
    np.testing.assert_array_equal(colour.hue(grey, jnp.asarray(delta, jnp.float32)), grey)
    np.testing.assert_array_equal(colour.saturation(grey, jnp.asarray(delta, jnp.float32)), grey)


def test_jitter_draws_its_factors_in_torchvisions_range():
    images = jnp.full((4000, 1, 1, 3), 0.25)
    bright = np.asarray(colour.random_jitter(jax.random.key(0), images, (0.4, 0.0, 0.0, 0.0)))[:, 0, 0, 0] / 0.25
    assert 0.6 - 1e-5 <= bright.min() < 0.605 and 1.395 < bright.max() <= 1.4 + 1e-5
    assert abs(bright.mean() - 1) < 0.02
    wide = np.asarray(colour.random_jitter(jax.random.key(0), images, (3.0, 0.0, 0.0, 0.0)))
    assert wide.min() < 0.01 and wide.max() > 0.99  # from 0, not from -2


def test_jitter_order_differs_between_images():
    image = jnp.tile(jnp.array([[[[0.9, 0.2, 0.1], [0.1, 0.8, 0.6]]]]), (300, 1, 1, 1))
    jitter = jax.jit(colour.random_jitter, static_argnums=2)
    result = jitter(jax.random.key(1), image, (0.8, 0.8, 0.8, 0.2))
    again = jitter(jax.random.key(1), image, (0.8, 0.8, 0.8, 0.2))
    np.testing.assert_allclose(result, again, atol=1e-6)
    assert len(np.unique(np.asarray(result).round(4), axis=0)) > 290
    grey = jitter(jax.random.key(1), image[..., :1], (0.0, 0.0, 0.8, 0.2))
    np.testing.assert_allclose(grey, image[..., :1], atol=1e-6)


def test_the_blur_is_a_gaussian_of_its_own_width_for_each_image():
    from scipy import ndimage

    images, sigma = _both(3)[1][:3], np.array([0.1, 1.0, 2.0])
    found = np.asarray(colour.gaussian_blur(images, jnp.asarray(sigma)))
    for image, result, s in zip(np.asarray(images, np.float64), found, sigma, strict=True):
        expected = ndimage.gaussian_filter(image, (s, s, 0), mode="nearest", radius=(6, 6, 0))
        np.testing.assert_allclose(result, expected, atol=1e-6)
