"""Class activation maps: values by hand, properties, the layers of each family, mistakes of the caller."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit import explain
from jaxvit.errors import UserError
from jaxvit.explain import cam
from tests.helpers.explained import CONVNEXT, DEIT, EVA, FAMILIES, RESNET, SWIN, SWIN_V2, VIT, make

DEFAULTS = {
    "alexnet": "features",
    "vgg11": "features",
    RESNET: "features",
    VIT: "blocks_1/norm1",
    DEIT: "blocks_1/norm1",
    SWIN: "norm",
    EVA: "norm",
    SWIN_V2: "norm",
    CONVNEXT: "stages_3",
}


def unit(maps):
    low = maps.min((1, 2), keepdims=True)
    return (maps - low) / (maps.max((1, 2), keepdims=True) - low)


def enlarge(maps, size):
    """Linear interpolation between the centres of the cells, the border continued: numpy, one axis at a time."""
    for axis, n in ((1, size[0]), (2, size[1])):
        m = maps.shape[axis]
        at = np.clip((np.arange(n) + 0.5) * m / n - 0.5, 0, m - 1)
        low = np.minimum(at.astype(int), m - 2)
        share = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
        maps = maps.take(low, axis) * (1 - share) + maps.take(low + 1, axis) * share
    return maps


def output_of(model, variables, images, layer):
    _, seen = model.apply(
        variables, images, capture_intermediates=lambda m, _: "/".join(m.path) == layer, mutable=["intermediates"]
    )
    for part in layer.split("/"):
        seen = seen[part] if part in seen else seen["intermediates"][part]
    return np.asarray(seen["__call__"][0])


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_unit_maps_at_its_default_layer(name):
    model, variables, images = make(name)
    assert explain.default_layer(model) == DEFAULTS[name]
    maps = jnp.concatenate([explain.grad_cam(model, variables, images, k) for k in range(5)])
    chex.assert_shape(maps, (15, *images.shape[1:3]))
    chex.assert_type(maps, jnp.float32)
    assert jnp.all((maps >= 0) & (maps <= 1))
    for one in maps:  # a map without evidence for the class is all zeros; any other spans the range
        assert one.min() == 0 and (one.max() == 0 or one.max() > 0.99999)
    assert maps.max() > 0.99999


@pytest.mark.parametrize("name, method", [*((RESNET, method) for method in explain.CAM_METHODS), (SWIN, "gradcam")])
def test_methods_equal_the_formulas_where_the_head_is_a_mean_and_a_matrix(name, method):
    model, variables, images = make(name)
    a = output_of(model, variables, images, DEFAULTS[name])
    head = variables["params"]["fc"] if name == RESNET else variables["params"]["head"]["fc"]
    n = a.shape[1] * a.shape[2]
    k = int(np.asarray(model.apply(variables, images)).sum(0).argmax())
    g = np.asarray(head["kernel"])[:, k] / n  # the same gradient in every cell
    total = np.maximum(a, 0).sum((1, 2))
    weights = {
        "gradcam": np.broadcast_to(g, total.shape),
        "hirescam": np.broadcast_to(g, total.shape),
        "layercam": np.broadcast_to(np.maximum(g, 0), total.shape),
        "gradcam++": np.where(g > 0, n * np.maximum(g, 0) / (2 + total * np.maximum(g, 0)), 0),
    }
    if method == "eigencam":
        flat = a.reshape(len(a), n, -1) - a.reshape(len(a), n, -1).mean(1, keepdims=True)
        u, s, _ = np.linalg.svd(flat, full_matrices=False)
        first = u[:, :, 0] * s[:, :1]
        sign = np.where(-first.min(1) > first.max(1), -1, 1)[:, None]
        expected = (sign * first).reshape(a.shape[:3])
    else:
        expected = np.einsum("bhwc,bc->bhw", a, weights[method])
    expected = enlarge(np.maximum(expected, 0), images.shape[1:3])
    some = expected.max((1, 2)) > 0
    found = np.asarray(explain.grad_cam(model, variables, images, k, method))
    assert some.any()
    chex.assert_trees_all_close(found[some], unit(expected[some]), atol=2e-4)
    assert not found[~some].any()


def test_eigencam_is_the_same_from_channels_and_from_cells():
    a = np.random.default_rng(0).normal(size=(2, 4, 5, 6)).astype(np.float32)  # 20 cells, 6 channels
    wide = np.concatenate([a, np.zeros((2, 4, 5, 30), np.float32)], -1)
    chex.assert_trees_all_close(cam.eigencam(a, a), cam.eigencam(wide, wide), atol=1e-4)


@pytest.mark.parametrize("name", (RESNET, DEIT))
def test_an_image_has_the_same_map_alone_and_in_a_batch_and_classes_may_differ(name):
    model, variables, images = make(name)
    together = explain.grad_cam(model, variables, images, np.array([0, 4, 2]))
    for i, k in enumerate((0, 4, 2)):
        alone = explain.grad_cam(model, variables, images[i : i + 1], k)
        chex.assert_trees_all_close(alone[0], together[i], atol=1e-3)
    assert float(jnp.abs(together - explain.grad_cam(model, variables, images, 1)).max()) > 0.1


def test_no_class_means_the_predicted_one():
    model, variables, images = make(VIT)
    predicted = np.asarray(model.apply(variables, images)).argmax(-1)
    chex.assert_trees_all_equal(
        explain.grad_cam(model, variables, images), explain.grad_cam(model, variables, images, predicted)
    )


def test_compiled_once_per_model_method_and_layer():
    model, variables, images = make(VIT, mlp_ratio=2.0)
    before = cam._cam._cache_size()
    for k in (None, 0, np.array([1, 2, 3])):
        explain.grad_cam(model, variables, images, k)
    assert cam._cam._cache_size() == before + 1
    explain.grad_cam(model, variables, images, 0, layer="blocks_0")
    assert cam._cam._cache_size() == before + 2


@pytest.mark.parametrize("name", (VIT, SWIN))
def test_rematerialisation_changes_nothing(name):
    model, variables, images = make(name)
    expected = explain.grad_cam(model, variables, images, 1)
    chex.assert_trees_all_equal(explain.grad_cam(model.clone(remat=True), variables, images, 1), expected)


def test_half_precision_stays_near():
    model, variables, images = make(VIT)
    found = explain.grad_cam(model.clone(dtype=jnp.bfloat16), variables, images, 1)
    chex.assert_type(found, jnp.float32)
    assert np.corrcoef(found.ravel(), explain.grad_cam(model, variables, images, 1).ravel())[0, 1] > 0.95


@pytest.mark.parametrize(
    "fields, layer",
    [
        ({"global_pool": "avg", "class_token": False}, "blocks_1"),
        ({"global_pool": "avg", "fc_norm": False}, "norm"),
        ({"global_pool": "map", "class_token": False}, "norm"),
        ({"block_fn": "parallel_scaling"}, "blocks_1/in_norm"),
        ({"block_fn": "parallel_things"}, "blocks_1/attns_0/norm"),
        ({"block_fn": "res_post"}, "blocks_0"),
        ({"reg_tokens": 2}, "blocks_1/norm1"),
    ],
)
def test_kinds_of_vit_have_a_default_with_a_gradient_on_the_patches(fields, layer):
    model, variables, images = make(VIT, **fields)
    assert explain.default_layer(model) == layer
    assert max(float(explain.grad_cam(model, variables, images, k).max()) for k in range(5)) > 0.99999


def test_layers_are_maps_in_the_order_of_the_model():
    names = explain.layers(make(VIT)[0])
    assert names[0] == "patch_embed/proj" and names[-1] == "norm"
    assert names.index("blocks_0/norm1") < names.index("blocks_0/mlp/fc1") < names.index("blocks_1")
    assert "head" not in names and not any("Drop" in name for name in names)
    assert not any("attn" in name.split("/") for name in explain.layers(make(SWIN)[0]))
    assert explain.layers(make(RESNET)[0])[-1] == "features"


def test_a_layer_within_a_block_works():
    model, variables, images = make(SWIN)
    assert "layers_0/blocks_1/mlp" in explain.layers(model)
    maps = explain.grad_cam(model, variables, images, 0, layer="layers_0/blocks_1/mlp")
    chex.assert_shape(maps, (3, 32, 48))


def test_a_network_that_shrinks_the_image_to_one_cell_falls_back_to_the_last_map():
    model, variables, images = make("vgg11", image_size=8)
    assert explain.default_layer(model) == "features_6"  # 2x2 before the last pool
    chex.assert_shape(explain.grad_cam(model, variables, images, 0), (3, 8, 8))


def test_the_variables_get_no_new_collections():
    model, _, images = make(VIT)
    explain.layers(model)
    assert set(jax.eval_shape(model.init, jax.random.key(0), images)) == {"params"}


@pytest.mark.parametrize(
    "words, message",
    [
        ({"class_index": 5}, "class_index 5 is out of range; the model's classes are 0 to 4"),
        ({"class_index": -1}, "class_index -1 is out of range"),
        ({"class_index": [0, 1]}, r"class_index is int64 \[2\]; expected an int or 3"),
        ({"class_index": 1.5}, "class_index is float64"),
        ({"method": "grad-cam"}, "no method 'grad-cam'.*Did you mean 'gradcam'"),
        ({"layer": "blocks_1/norm3"}, "no layer 'blocks_1/norm3'.*'blocks_1/norm1'.*Did you mean"),
        ({"layer": "head"}, "no layer 'head'"),
        ({"layer": "norm", "method": "smoothgrad"}, "not layer 'norm'.*layer=None"),
        ({"images": np.zeros((0, 32, 48, 3), np.float32)}, "no images"),
        ({"images": np.zeros((32, 48, 3), np.float32)}, "expected \\[b, h, w, 3\\]"),
        ({"images": np.zeros((1, 32, 48, 3), np.uint8)}, "images are uint8; expected floats"),
        ({"images": np.zeros((1, 30, 48, 3), np.float32)}, "not divisible by patch size"),
    ],
)
def test_mistakes_are_named(words, message):
    model, variables, images = make(VIT)
    with pytest.raises(UserError, match=message):
        explain.grad_cam(model, variables, words.pop("images", images), **words)


def test_a_model_without_classes_is_refused():
    model, variables, images = make(VIT)
    with pytest.raises(UserError, match="num_classes=0"):
        explain.grad_cam(model.clone(num_classes=0), variables, images)
