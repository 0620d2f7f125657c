"""Swin: windows, mask and merging alone; sizes, dtypes, remat; numbers equal to timm's."""

from functools import partial

import chex
import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.errors import UserError
from jaxvit.models import swin
from jaxvit.models.layers import layer_norm
from tests.helpers.tiny_swin import images_of, tiny, variables_of

NORM = partial(layer_norm, swin.NORM_EPS)


def apply(model, variables, images, **kwargs):
    return jax.jit(partial(model.apply, **kwargs))(variables, images)


@pytest.mark.parametrize("size", [(4, 4), (5, 7)])
def test_patch_merging_pads_odd_maps_and_keeps_the_order_of_neighbours(size):
    h, w = size
    x = np.random.default_rng(0).normal(size=(2, h, w, 3)).astype(np.float32)
    merge = swin.PatchMerging(6, norm=NORM)
    variables = variables_of(merge, x)
    out = merge.apply(variables, x)
    chex.assert_shape(out, (2, (h + 1) // 2, (w + 1) // 2, 6))
    joined = np.concatenate([x[:, 0, 0], x[:, 1, 0], x[:, 0, 1], x[:, 1, 1]], -1)
    joined = (joined - joined.mean(-1, keepdims=True)) / np.sqrt(joined.var(-1, keepdims=True) + 1e-5)
    params = variables["params"]
    joined = joined * params["norm"]["scale"] + params["norm"]["bias"]
    expected = joined @ params["reduction"]["kernel"]
    np.testing.assert_allclose(out[:, 0, 0], expected, atol=1e-5)


def assert_initialised_as_timm(params):
    """Uniform patches as torch.nn.Conv2d draws them, a normal of 0.02 for the rest, biases 0 and scales 1."""
    bound = (4 * 4 * 3) ** -0.5
    proj = params["patch_embed"]["proj"]
    for leaf in proj.values():
        assert 0.5 * bound < np.abs(leaf).max() <= bound
    attn = params["layers_1"]["blocks_0"]["attn"]
    np.testing.assert_allclose([attn["qkv"]["kernel"].std(), attn["proj"]["kernel"].std()], 0.02, rtol=0.1)
    np.testing.assert_allclose(attn["relative_position_bias_table"].std(), 0.02, rtol=0.3)
    assert not attn["qkv"]["bias"].any() and (params["norm"]["scale"] == 1).all()


def test_logits_features_and_variables():
    images = images_of(32, 32)
    model = tiny()
    logits, variables = jax.jit(model.init_with_output)(jax.random.key(0), images)
    assert set(variables) == {"params"}
    assert_initialised_as_timm(variables["params"])
    chex.assert_shape(logits, (2, 5))
    chex.assert_tree_all_finite(logits)
    features = tiny(num_classes=0)
    shape = jax.eval_shape(features.init_with_output, jax.random.key(0), images)[0]
    assert shape.shape == (2, 32) and shape.dtype == jnp.float32


def test_bfloat16_computes_near_float32_with_float32_parameters_and_logits():
    images = images_of(32, 32)
    variables = variables_of(tiny(), images)
    half = tiny(dtype=jnp.bfloat16)
    shapes = jax.eval_shape(half.init, jax.random.key(0), images)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes))
    logits = apply(half, variables, images)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, apply(tiny(), variables, images), atol=0.1)


def test_remat_changes_nothing_but_memory():
    images = images_of(32, 32)
    variables = variables_of(tiny(), images)

    def loss(model):
        rngs = {"dropout": jax.random.key(3)}
        return lambda v: (model.apply(v, images, train=True, rngs=rngs) ** 2).sum()

    plain, remat = (jax.jit(jax.value_and_grad(loss(tiny(remat=r))))(variables) for r in (False, True))
    chex.assert_trees_all_close(plain, remat, rtol=1e-4, atol=1e-4)


def test_other_sizes_run_on_the_same_weights():
    model = tiny()
    variables = variables_of(model, images_of(32, 32))
    for h, w in ((28, 60), (4, 4), (64, 32)):
        assert jax.eval_shape(model.apply, variables, images_of(h, w)).shape == (2, 5)


@pytest.mark.parametrize(("size", "patch"), [((30, 32), 4), ((32, 30), 4), ((9, 12), (3, 5))])
def test_an_image_that_the_patches_do_not_divide_is_refused(size, patch):
    with pytest.raises(UserError, match=r"image \d+x\d+ is not divisible by patch size.*nearest"):
        tiny(image_size=size, patch_size=patch).init(jax.random.key(0), images_of(*size))


def test_stochastic_depth_rises_linearly_over_all_blocks():
    rates = []

    def record(next_call, args, kwargs, context):
        if isinstance(context.module, swin.SwinBlock) and context.method_name == "__call__":
            rates.append(context.module.drop_path_rate)
        return next_call(*args, **kwargs)

    with nn.intercept_methods(record):
        jax.eval_shape(tiny(depths=(2, 3), drop_path_rate=0.4).init, jax.random.key(0), images_of(32, 32))
    np.testing.assert_allclose(rates, [0.0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("field", ["drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"])
def test_each_rate_acts_in_training_only(field):
    images = images_of(32, 32)
    rates = dict.fromkeys(("drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"), 0.0)
    model, plain = tiny(**{**rates, field: 0.5}), tiny(**rates)
    variables = variables_of(plain, images)
    expected = apply(plain, variables, images, train=True)  # needs no key
    np.testing.assert_allclose(apply(model, variables, images), expected, atol=1e-5)
    dropped = apply(model, variables, images, train=True, rngs={"dropout": jax.random.key(1)})
    assert np.abs(dropped - expected).max() > 1e-3


def test_attention_weights_on_request():
    images = images_of(32, 32)
    model = tiny()
    init = partial(model.init, mutable=True)
    assert set(jax.eval_shape(init, jax.random.key(0), images)) == {"params"}
    _, state = apply(model, variables_of(model, images), images, mutable=["intermediates"])
    weights = flax.traverse_util.flatten_dict(state["intermediates"], sep="/")
    assert len(weights) == 4
    first = weights["layers_0/blocks_0/attn/attn_weights"][0]
    chex.assert_shape(first, (2, 4, 2, 16, 16))  # [b, windows, heads, query, key]
    np.testing.assert_allclose(first.sum(-1), 1.0, atol=1e-5)


TIMM_CASES = [
    {"image_size": 32, "patch_size": 2, "window_size": 4, "depths": (2, 2, 2)},
    {"image_size": 32, "patch_size": 4, "window_size": 4, "depths": (2, 2, 2, 2)},
    {"image_size": (56, 40), "patch_size": 4, "window_size": 4, "depths": (2, 2, 2)},
    {"image_size": (60, 36), "patch_size": 4, "window_size": (4, 3), "depths": (2, 2), "mlp_ratio": 3.0},
    {"image_size": (40, 88), "patch_size": (2, 4), "window_size": (7, 5, 14), "depths": (2, 1, 3)},
    {"image_size": 224, "patch_size": 4, "window_size": 7, "depths": (2, 2, 2, 2), "qkv_bias": False},
]


def timm_pair(case):
    """A timm model with weights of realistic scale, and ours holding the same weights."""
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    stages = len(case["depths"])
    fields = {"embed_dim": 24, "num_heads": (1, 2, 4, 8)[:stages], "num_classes": 7, **case}
    kwargs = dict(fields, img_size=fields["image_size"])
    del kwargs["image_size"]
    reference = timm.models.swin_transformer.SwinTransformer(**kwargs).eval()
    generator = torch.Generator().manual_seed(0)
    params = {}
    for name, p in reference.named_parameters():
        norm = "norm" in name and name.endswith("weight")
        std = 0.1 if p.ndim < 2 or "table" in name else p[0].numel() ** -0.5
        p.data = (1.0 if norm else 0.0) + std * torch.randn(p.shape, generator=generator)
        value, leaf = p.detach().numpy(), name.rsplit(".", 1)[-1]
        if leaf == "weight":
            leaf = "scale" if norm else "kernel"
            value = value.T if value.ndim == 2 else value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
        path = []
        for part in name.split(".")[:-1]:
            path[-1:] = [f"{path[-1]}_{part}"] if part.isdigit() else [*path[-1:], part]
        params[(*path, leaf)] = value
    fields.pop("dynamic_img_size", None)
    variables = {"params": flax.traverse_util.unflatten_dict(params)}
    return torch, reference, swin.SwinTransformer(**fields), variables


@pytest.mark.torch
@pytest.mark.parametrize("case", TIMM_CASES, ids=lambda case: f"{case['image_size']}-{case['patch_size']}")
def test_numbers_equal_timms(case):
    torch, reference, model, variables = timm_pair(case)
    size = case["image_size"]
    images = images_of(*((size, size) if isinstance(size, int) else size))
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    chex.assert_trees_all_equal_shapes(shapes, variables)
    logits = apply(model, variables, images)
    with torch.no_grad():
        expected = reference(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * max(1.0, np.abs(expected).max()))


@pytest.mark.torch
def test_images_of_other_sizes_equal_timms_dynamic_size():
    case = {"image_size": 32, "patch_size": 2, "window_size": 4, "depths": (2, 2, 2), "dynamic_img_size": True}
    torch, reference, model, variables = timm_pair(case)
    for h, w in ((32, 32), (40, 20), (6, 50)):
        images = images_of(h, w)
        with torch.no_grad():
            expected = reference(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
        atol = 1e-4 * max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(apply(model, variables, images), expected, rtol=0, atol=atol)
