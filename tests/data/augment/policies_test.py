"""Every operation of the policies against Pillow, the tables against their papers' spaces, the draws' frequencies."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from jaxvit.data.augment import policies
from jaxvit.data.augment.policies import OPS, POLICIES
from tests.helpers.photos import photos

BILINEAR, GREY = Image.Resampling.BILINEAR, (128, 128, 128)


def _affine(*matrix):
    return lambda x: x.transform(x.size, Image.Transform.AFFINE, matrix, BILINEAR, fillcolor=GREY)


# Operation -> strength and what Pillow does with it.
PILLOW = {
    "identity": (1.0, lambda x: x),
    "shear_x": (0.3, _affine(1, 0.3, 0, 0, 1, 0)),
    "shear_y": (-0.2, _affine(1, 0, 0, -0.2, 1, 0)),
    "translate_x": (5.0, _affine(1, 0, 5, 0, 1, 0)),
    "translate_y": (-3.5, _affine(1, 0, 0, 0, 1, -3.5)),
    "rotate": (25.0, lambda x: x.rotate(25, BILINEAR, fillcolor=GREY)),
    "brightness": (1.5, lambda x: ImageEnhance.Brightness(x).enhance(1.5)),
    "color": (0.3, lambda x: ImageEnhance.Color(x).enhance(0.3)),
    "contrast": (1.6, lambda x: ImageEnhance.Contrast(x).enhance(1.6)),
    "sharpness": (1.9, lambda x: ImageEnhance.Sharpness(x).enhance(1.9)),
    "posterize": (3.0, lambda x: ImageOps.posterize(x, 3)),
    "solarize": (100.0, lambda x: ImageOps.solarize(x, 100)),
    "solarize_add": (60.0, lambda x: x.point([min(255, v + 60) if v < 128 else v for v in range(256)] * 3)),
    "autocontrast": (0.0, ImageOps.autocontrast),
    "equalize": (0.0, ImageOps.equalize),
    "invert": (0.0, ImageOps.invert),
}


def _floats(channels=3):
    return jnp.asarray(photos()[..., :channels], jnp.float32) / 255.0


def test_each_operation_is_pillows_in_one_mixed_batch():
    assert tuple(PILLOW) == OPS
    images = photos(len(OPS))
    strength = jnp.array([PILLOW[name][0] for name in OPS])
    result = jax.jit(policies.apply)(
        jnp.asarray(images, jnp.float32) / 255.0, jnp.arange(len(OPS)), strength, 128 / 255
    )
    for name, image, got in zip(OPS, images, np.asarray(result) * 255, strict=True):
        expected = np.asarray(PILLOW[name][1](Image.fromarray(image)), np.float64)
        far = np.abs(got - expected).max(-1) > 1.95  # Pillow's bytes, see colour_test
        assert far.mean() <= (0.005 if name in policies.GEOMETRIC else 0), name  # places on the border within rounding


def test_one_image_alone_gets_what_it_gets_in_the_batch():
    images, op = _floats(), jnp.array([1, 5, 7, 9, 13, 14])
    strength = jnp.array([0.2, 20.0, 0.5, 1.7, 0.0, 0.0])
    batch = jax.jit(policies.apply)(images, op, strength)
    alone = jax.jit(jax.vmap(lambda i, o, s: policies.apply(i[None], o[None], s[None])[0]))(images, op, strength)
    chex.assert_trees_all_close(alone, batch, atol=1e-5)


def _strength(space, name, magnitude, positive=True, size=(331, 331)):
    one = policies.strengths(jnp.array(OPS.index(name)), jnp.array(magnitude), jnp.array(positive), space, size)
    return float(one)


@pytest.mark.parametrize(
    "space, name, magnitude, expected",
    [
        (policies.RANDAUGMENT, "rotate", 0.9, 27.0),
        (policies.RANDAUGMENT, "posterize", 0.9, 1.0),  # 4 - int(3.6)
        (policies.RANDAUGMENT, "posterize", 0.5, 2.0),
        (policies.RANDAUGMENT, "solarize", 0.9, 26.0),  # 256 - int(230.4)
        (policies.RANDAUGMENT, "solarize_add", 0.9, 99.0),
        (policies.RANDAUGMENT, "color", 0.9, 1.81),
        (policies.RANDAUGMENT, "shear_x", 0.9, 0.27),
        (policies.RANDAUGMENT, "translate_x", 0.9, 0.405 * 331),
        (policies.AUTOAUGMENT, "translate_x", 1.0, 150.0),
        (policies.AUTOAUGMENT, "translate_y", 3 / 9, 50.0),
        (policies.AUTOAUGMENT, "posterize", 7 / 9, 5.0),
        (policies.AUTOAUGMENT, "solarize", 5 / 9, 255 - 255 * 5 / 9),
        (policies.TRIVIALAUGMENT, "rotate", 1.0, 135.0),
        (policies.TRIVIALAUGMENT, "translate_x", 1.0, 32.0),
        (policies.TRIVIALAUGMENT, "posterize", 1.0, 2.0),
        (policies.TRIVIALAUGMENT, "brightness", 1.0, 1.99),
        (policies.AUGMIX, "translate_y", 2 / 9, 24.0),  # int(331 / 3 * 2 / 9)
        (policies.AUGMIX, "posterize", 2 / 9, 3.0),
    ],
)
def test_magnitudes_mean_what_timm_and_torchvision_say(space, name, magnitude, expected):
    assert _strength(space, name, magnitude) == pytest.approx(expected, rel=1e-5)
    r = space[name]
    negative = _strength(space, name, magnitude, positive=False)
    assert negative == pytest.approx(2 * r.base - expected if r.signed else expected, rel=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize("name, table", [("CIFAR10", policies.CIFAR10), ("IMAGENET", policies.IMAGENET)])
def test_autoaugment_tables_and_spaces_equal_torchvision(name, table):
    auto = pytest.importorskip("torchvision.transforms.autoaugment")
    theirs = auto.AutoAugment(auto.AutoAugmentPolicy[name])
    snake = {op.replace("_", ""): op for op in OPS}
    ops, probs, magnitudes = policies.read_table(table)
    for row, (op, prob, magnitude) in zip(theirs.policies, zip(ops, probs, magnitudes, strict=True), strict=True):
        for slot, (their_op, their_prob, their_magnitude) in enumerate(row):
            assert OPS[op[slot]] == snake[their_op.lower()]
            assert prob[slot] == pytest.approx(their_prob)
            assert magnitude[slot] * 9 == pytest.approx(their_magnitude or 0)
    spaces = [
        (policies.AUTOAUGMENT, 10, theirs._augmentation_space(10, (40, 32))),
        (policies.TRIVIALAUGMENT, 31, auto.TrivialAugmentWide()._augmentation_space(31)),
        (policies.AUGMIX, 10, auto.AugMix()._augmentation_space(10, (40, 32))),
    ]
    for space, bins, reference in spaces:
        assert {snake[op.lower()] for op in reference} == set(space)
        for op, (values, signed) in reference.items():
            ours = snake[op.lower()]
            assert space[ours].signed == signed
            if values.ndim:
                got = [_strength(space, ours, i / (bins - 1), size=(40, 32)) - space[ours].base for i in range(bins)]
                values = values.numpy()
                if "translate" in ours:  # torch's linspace gives 15.999999 for 16, which int() then makes 15
                    values = np.trunc(values + 1e-4)
                np.testing.assert_allclose(got, values, rtol=1e-5, atol=1e-4)


@pytest.mark.torch
def test_randaugment_levels_equal_timm():
    auto = pytest.importorskip("timm.data.auto_augment")
    snake = {op.replace("_", ""): op for op in OPS}
    for their_op in auto._RAND_INCREASING_TRANSFORMS:
        ours = snake[their_op.lower().replace("increasing", "").replace("rel", "")]
        level = auto.LEVEL_TO_ARG[their_op]
        for magnitude in (0.0, 1.3, 4.0, 5.0, 9.0, 9.7, 10.0):
            if level is None:
                assert policies.RANDAUGMENT[ours] == policies.Range()
                continue
            theirs = level(magnitude, {})[0]
            scale = 32 if ours == "translate_x" else 40 if ours == "translate_y" else 1
            got = [
                _strength(policies.RANDAUGMENT, ours, magnitude / 10, sign, (40, 32)) / scale for sign in (True, False)
            ]
            assert any(value == pytest.approx(theirs, abs=1e-5) for value in got), (their_op, magnitude)


# The two AutoAugments differ in their table alone, and AugMix takes long to compile: one number of channels each.
@pytest.mark.parametrize(
    "name, channels",
    [
        ("randaugment", 3),
        ("trivialaugment", 1),
        ("autoaugment_cifar10", 1),
        ("autoaugment_imagenet", 3),
        ("augmix", 3),
        ("three_augment", 3),
    ],
)
def test_policies_are_reproducible_and_stay_in_range(name, channels):
    images, key = _floats(channels), jax.random.key(4)
    compiled = jax.jit(lambda key, images: POLICIES[name](key, images, fill=0.5))
    result = compiled(key, images)
    chex.assert_equal_shape([result, images])
    assert result.dtype == jnp.float32
    assert float(result.min()) >= -1e-6 and float(result.max()) <= 1 + 1e-6
    np.testing.assert_array_equal(result, compiled(key, images))
    other = compiled(jax.random.key(5), images)
    assert (np.asarray(other) != np.asarray(result)).any()


def test_draws_are_uniform_and_half_of_randaugment_is_skipped(monkeypatch):
    assert set(POLICIES) == {
        "randaugment", "trivialaugment", "autoaugment_cifar10", "autoaugment_imagenet", "augmix", "three_augment",
    }  # fmt: skip
    seen = []
    monkeypatch.setattr(policies, "apply", lambda images, op, strength, fill: seen.append(np.asarray(op)) or images)
    images = jnp.zeros((6000, 4, 4, 1))
    policies.rand_augment(jax.random.key(0), images, num_ops=3)
    assert len(seen) == 3
    counts = np.bincount(np.concatenate(seen), minlength=len(OPS)) / 18000
    assert abs(counts[0] - 0.5) < 0.02
    np.testing.assert_allclose(counts[1:], 0.5 / 15, atol=0.006)
    seen.clear()
    policies.trivial_augment(jax.random.key(0), images)
    counts = np.bincount(seen[0], minlength=len(OPS)) / 6000
    drawn = [OPS.index(op) for op in policies.TRIVIALAUGMENT]
    np.testing.assert_allclose(counts[drawn], 1 / 14, atol=0.012)
    assert counts.sum() == pytest.approx(counts[drawn].sum())
    seen.clear()
    policies.aug_mix(jax.random.key(0), images[:2000])
    idle = [float((op == 0).mean()) for op in seen]  # depths 1, 2 and 3 are equally likely
    np.testing.assert_allclose(idle, [0, 1 / 3, 2 / 3], atol=0.03)


def test_augmix_of_nothing_but_identities_is_the_image(monkeypatch):
    monkeypatch.setattr(policies, "apply", lambda images, op, strength, fill: images)
    images = _floats()
    np.testing.assert_allclose(policies.aug_mix(jax.random.key(0), images), images, atol=1e-6)


def test_three_augment_is_one_of_three_equally_often():
    image = _floats()[:1]
    images = jnp.repeat(image, 600, axis=0)
    found = np.asarray(policies.three_augment(jax.random.key(0), images))
    grey = np.ptp(found, axis=-1).max(axis=(1, 2)) < 1e-6
    as_bytes = Image.fromarray(np.asarray(jnp.round(image[0] * 255), np.uint8))
    solarised = np.abs(found * 255 - np.asarray(ImageOps.solarize(as_bytes, 128))).max(axis=(1, 2, 3)) < 0.51
    blurred = ~grey & ~solarised
    np.testing.assert_allclose([grey.mean(), solarised.mean(), blurred.mean()], 1 / 3, atol=0.06)
    np.testing.assert_allclose(
        found[grey][0] * 255, np.asarray(as_bytes.convert("L"))[..., None].repeat(3, -1), atol=1.01
    )
    rough = np.abs(np.diff(found[blurred], axis=2)).mean(axis=(1, 2, 3))
    assert rough.max() <= np.abs(np.diff(image, axis=2)).mean() + 1e-6 and rough.std() > 0  # another width for each
