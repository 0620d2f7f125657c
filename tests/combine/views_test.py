"""Views of an image: what they are, and the mean over them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvit import combine, data, inference, models
from jaxvit.combine import views


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def classifier(seed=0, names=("a", "b", "c"), size=(16, 16), several=False, **words):
    """A small model with random weights, which is not the same in all classes."""
    model = models.create_model(
        "vit_tiny_patch16_224", num_classes=len(names), image_size=size, patch_size=4, embed_dim=8, depth=1, num_heads=2
    )
    variables = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, *size, 3)))
    head = jax.random.normal(jax.random.key(seed + 1), variables["params"]["head"]["kernel"].shape)
    variables = {"params": {**variables["params"], "head": {"kernel": head, "bias": jnp.zeros(len(names))}}}
    config = {"image_size": size, "mean": (0.5,) * 3, "std": (0.25,) * 3, "crop_pct": 0.875, "in_channels": 3,
              "interpolation": "bicubic", **words}  # fmt: skip
    thresholds = np.full(len(names), 0.5) if several else None
    return inference.Classifier("vit_tiny_patch16_224", model, variables, list(names), config, None, thresholds)


def test_views_are_the_ten_crops():
    image = np.arange(8 * 8, dtype=np.float32).reshape(1, 8, 8, 1)
    found = np.asarray(views.views(jnp.asarray(image), "crops", (7, 7)))[:, 0, :, :, 0]
    grid = image[0, :, :, 0]
    corners = [grid[:7, :7], grid[:7, :7], grid[:7, 1:], grid[1:, :7], grid[1:, 1:]]  # the centre of one pixel is 0
    np.testing.assert_array_equal(found[::2], corners)
    np.testing.assert_array_equal(found[1::2], [corner[:, ::-1] for corner in corners])
    small = np.asarray(views.views(jnp.asarray(image), "crops", (8, 8)))[:, 0, :, :, 0]  # mirrored at the edges
    padded = np.pad(grid, 1, mode="symmetric")
    np.testing.assert_array_equal(small[::2], [grid, padded[:8, :8], padded[:8, 2:], padded[2:, :8], padded[2:, 2:]])
    flip = np.asarray(views.views(jnp.asarray(image), "flip", (8, 8)))
    np.testing.assert_array_equal(flip[:, 0, :, :, 0], [grid, grid[:, ::-1]])


@pytest.mark.parametrize(("form", "several"), [("flip", True), ("crops", False)])
def test_predictions_of_files_are_means_over_views(tmp_path, form, several):
    one = classifier(several=several)
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(path)
    ((_, found),) = combine.predict([combine.Member("a", one)], [path], tta=form)
    size = 16 if form == "flip" else 18  # 16 / 0.875
    words = one.data_config | ({"image_size": (18, 18), "crop_pct": 1.0} if form == "crops" else {})
    whole = data.preprocess(data.open_image(path), words)
    cut = [whole] if form == "flip" else [whole[y : y + 16, x : x + 16] for y in (0, 1, 2) for x in (0, 1, 2)][::2]
    assert whole.shape[0] == size
    both = np.stack([view for image in cut for view in (image, image[:, ::-1])])
    logits = np.asarray(jax.jit(one.model.apply)(one.variables, both))
    expected = (1 / (1 + np.exp(-logits)) if several else softmax(logits)).mean(0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_first_view_is_the_plain_image(tmp_path):
    one = classifier(size=(56, 56))
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (90, 70, 3), dtype=np.uint8)).save(path)
    wide = combine.with_views(one, "crops", wide=True)
    large = data.preprocess(data.open_image(path), wide.data_config)
    assert large.shape == (64, 64, 3)
    first = views.views(large[None], "crops", (56, 56))[0, 0]
    np.testing.assert_array_equal(first, data.preprocess(data.open_image(path), one.data_config))
