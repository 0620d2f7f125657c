"""Operations on the device against numpy and Pillow references, under jit and vmap."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvit import config
from jaxvit.data.augment import compose as augment
from jaxvit.errors import UserError
from tests.helpers.photos import photos


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


# One value for each word that switches something on.
EACH = {
    "crop_padding": 2, "flip": True, "random_resized_crop": (0.3, 1.0), "affine_degrees": 20.0, "affine_translate": 0.2,
    "affine_scale": (0.8, 1.2), "affine_shear": 10.0, "policy": "trivialaugment", "color_jitter": (0.4, 0.4, 0.4, 0.1),
    "random_erasing_prob": 0.9, "mixup_alpha": 0.8, "cutmix_alpha": 1.0,
}  # fmt: skip


def _photo_batch(channels=3):
    return jnp.asarray(photos()[..., :channels], jnp.float32) / 255.0, jnp.eye(6)


@pytest.mark.parametrize("word", EACH)
def test_each_word_alone(word):
    images, targets = _photo_batch(1 if word.startswith(("affine", "cutmix", "crop")) else 3)
    made = jax.jit(augment.make_augment({word: EACH[word]}))
    result, mixed = made(jax.random.key(0), images, targets)
    chex.assert_equal_shape([result, images])
    assert result.dtype == jnp.float32 and float(result.min()) >= -1e-6 and float(result.max()) <= 1 + 1e-6
    np.testing.assert_allclose(mixed.sum(1), 1.0, atol=1e-6)
    assert (np.asarray(result) != np.asarray(images)).any()
    assert (np.asarray(mixed) != np.asarray(targets)).any() == word.endswith("_alpha")
    chex.assert_trees_all_equal(made(jax.random.key(0), images, targets), (result, mixed))
    assert (np.asarray(made(jax.random.key(1), images, targets)[0]) != np.asarray(result)).any()


@pytest.mark.slow  # half a minute of compilation
def test_everything_at_once_composes_in_the_stated_order():
    images, targets = _photo_batch()
    both = {"color_jitter": EACH["color_jitter"], "random_erasing_prob": 1.0, "cutmix_alpha": 1.0}
    key, expected = jax.random.key(2), (images, targets)
    for word, value in both.items():
        expected = jax.jit(augment.make_augment({word: value}))(key, *expected)
    chex.assert_trees_all_close(jax.jit(augment.make_augment(both))(key, images, targets), expected, atol=1e-6)
    assert list(augment.OPERATIONS) == [
        "crop", "flip", "random_resized_crop", "affine", "policy", "color_jitter", "random_erasing", "mix",
    ]  # fmt: skip


def test_defaults_are_the_configs_and_change_nothing():
    defaults = {name: word.default for name, word in augment.WORDS.items()}
    assert config.default().augment.to_dict() == defaults | {"options": {}}
    assert all(word.holds(word.default) for word in augment.WORDS.values())
    images, targets = _photo_batch()
    chex.assert_trees_all_equal(augment.make_augment(defaults)(jax.random.key(0), images, targets), (images, targets))


@pytest.mark.slow  # as above, for several devices
def test_batch_split_over_devices_gives_the_same():
    images, targets = jnp.tile(_photo_batch()[0], (2, 1, 1, 1))[:8], jnp.eye(8)
    made = augment.make_augment({"random_resized_crop": (0.3, 1.0), "policy": "trivialaugment", "cutmix_alpha": 1.0})
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("data",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    one = jax.jit(made)(jax.random.key(0), images, targets)
    four = jax.jit(made)(jax.random.key(0), jax.device_put(images, split), jax.device_put(targets, split))
    chex.assert_trees_all_close(one, four, atol=2e-5)


def test_picture_grid_shows_originals_and_draws():
    images = photos()
    made = augment.make_augment({"random_resized_crop": (0.3, 1.0), "cutmix_alpha": 1.0})
    grid = augment.picture_grid(made, jax.random.key(0), images, draws=3)
    assert grid.shape == (6, 4, 40, 32, 3) and grid.dtype == np.uint8
    np.testing.assert_array_equal(grid[:, 0], images)
    assert all((grid[:, i] != grid[:, j]).any() for i in range(4) for j in range(i))
    first, _ = jax.jit(made)(jax.random.fold_in(jax.random.key(0), 1), jnp.asarray(images) / 255.0, jnp.eye(6))
    np.testing.assert_allclose(grid[:, 2], np.asarray(first) * 255, atol=0.51)


BAD = [
    {"crop_padding": -1}, {"crop_padding": 1.5}, {"flip": 1}, {"random_resized_crop": (0.5, 0.1)},
    {"random_resized_crop": 0.5}, {"random_resized_crop": (0.0, 1.0)}, {"crop_ratio": (0.0, 1.0)},
    {"affine_degrees": -3.0}, {"affine_translate": 1.5}, {"affine_scale": (1.1, 0.9)}, {"affine_shear": 90},
    {"policy": "autoaugment"}, {"policy": ["augmix"]}, {"randaug_num_ops": 0}, {"randaug_magnitude": 11},
    {"color_jitter": (0.4, 0.4, 0.4)}, {"color_jitter": (0.4, 0.4, 0.4, 0.6)}, {"color_jitter": 0.4},
    {"random_erasing_prob": 1.5}, {"random_erasing_mode": "rand"}, {"fill": 128}, {"mixup_alpha": -1.0},
    {"mixup_alpha": float("nan")}, {"cutmix_alpha": "1"}, {"mix_prob": 2}, {"mix_switch_prob": -0.1}, {"repeated": 0},
]  # fmt: skip


@pytest.mark.parametrize("options", BAD, ids=str)
def test_wrong_values_are_answered_with_their_word(options):
    with pytest.raises(UserError, match=rf"augment\.{next(iter(options))} is .*; expected "):
        augment.make_augment(options)


def test_unknown_words_are_answered_with_the_nearest():
    with pytest.raises(UserError, match="expected .*'flip'"):
        augment.make_augment({"flips": True})
    with pytest.raises(UserError, match="autoaugment_cifar10"):
        augment.make_augment({"policy": "autoaugment"})


EVERYTHING = {
    "flip": True, "crop_padding": 2, "affine_degrees": 10.0, "color_jitter": (0.4, 0.4, 0.4, 0.1),
    "random_erasing_prob": 0.25, "mixup_alpha": 0.8, "cutmix_alpha": 1.0,
}  # fmt: skip


def conditions(jaxpr, platform):
    """Loops and conditions of the program for a platform, of those that are chosen when it is lowered one branch."""
    count = 0
    for eqn in jaxpr.eqns:
        inner = [getattr(x, "jaxpr", x) for x in jax.tree.leaves(list(eqn.params.values())) if hasattr(x, "eqns")]
        inner += [x.jaxpr for x in jax.tree.leaves(list(eqn.params.values())) if hasattr(x, "jaxpr")]
        chosen = eqn.params.get("branches_platforms")
        if chosen is not None:
            place = next(i for i, names in enumerate(chosen) if names is None or platform in names)
            inner = [eqn.params["branches"][place].jaxpr]
        elif eqn.primitive.name in ("cond", "while", "random_gamma"):  # the last is lowered to loops
            count += 1
        count += sum(conditions(one, platform) for one in inner)
    return count


@pytest.mark.parametrize("policy", ["randaugment", "trivialaugment", "autoaugment_cifar10", "augmix"])
def test_a_gpu_waits_for_no_condition_of_an_augmentation(policy):
    """Each end of a loop and each condition would be read on the host; a CPU saves work by the conditions."""
    operation = augment.make_augment({**EVERYTHING, "policy": policy})
    shapes = jax.ShapeDtypeStruct((8, 16, 16, 3), jnp.float32), jax.ShapeDtypeStruct((8, 10), jnp.float32)
    jaxpr = jax.make_jaxpr(operation)(jax.random.key(0), *shapes).jaxpr
    assert conditions(jaxpr, "cuda") == 0 < conditions(jaxpr, "cpu")
    beta = jax.make_jaxpr(lambda key: jax.random.beta(key, 0.2, 0.2, (8,)))(jax.random.key(0)).jaxpr
    assert conditions(beta, "cuda") > 0  # what the count is there to find


def test_images_are_brought_to_a_size_between_crops_and_what_follows():
    key, targets = jax.random.key(0), jnp.ones((3, 2))
    images = jax.random.uniform(jax.random.key(1), (3, 16, 16, 3))
    small = jnp.clip(augment.resize(images, 8, "bilinear"), 0, 1)
    for options in ({"random_erasing_prob": 1.0}, {"color_jitter": (0.4, 0.4, 0.4, 0.1)}, {"mixup_alpha": 0.8}):
        found = augment.make_augment(options, (8, 8), "bilinear")(key, images, targets)
        chex.assert_trees_all_equal(found, augment.make_augment(options)(key, small, targets))  # as if stored so
    crop = {"random_resized_crop": (0.3, 0.5), "flip": True}
    want = jnp.clip(augment.resize(augment.make_augment(crop)(key, images, targets)[0], 8, "bilinear"), 0, 1)
    np.testing.assert_array_equal(augment.make_augment(crop, (8, 8), "bilinear")(key, images, targets)[0], want)
    same = augment.make_augment({}, (32, 32))(key, images, targets)[0]  # enlarged where they are normalised
    np.testing.assert_array_equal(same, images)
