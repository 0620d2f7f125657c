"""ConvNeXt: norms and stems by hand, shapes, dtypes, mistakes; numbers, gradients and adaptation equal to timm's."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit import create_model, optim, pretrained, tree
from jaxvit.errors import UserError
from jaxvit.models import conv_layers, convnext
from jaxvit.models.layers import Dense, LayerNorm, trunc_normal
from jaxvit.pretrained import draw, rules
from tests.helpers import pretrained as helpers
from tests.helpers.convnets import images_of

TINY = {"image_size": 32, "dims": (8, 12, 16, 24), "depths": (1, 2, 1, 1), "num_classes": 5}


def tiny(name="convnext_tiny", **fields):
    return create_model(name, **{**TINY, **fields})


def variables_of(model):
    return pretrained.convert(model, helpers.weights(model))


def test_norms_by_hand():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 6)).astype(np.float32)
    scale = np.arange(1, 7, dtype=np.float32)
    wide = x.astype(np.float64)
    wanted = {
        "simplenorm": wide / np.sqrt(wide.var(-1, ddof=1, keepdims=True) + 1e-6) * scale,  # not about the mean
        "rmsnorm2d": wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-6) * scale,
    }
    for name, y in wanted.items():
        norm = convnext.NORMS[name](epsilon=1e-6)
        np.testing.assert_allclose(norm.apply({"params": {"scale": scale}}, x), y, rtol=1e-5, err_msg=name)


def test_global_response_norm_by_hand_and_where_a_channel_does_not_respond():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 6)).astype(np.float32)
    x[:, :, :, 2] = 0
    params = {"scale": np.arange(6, dtype=np.float32), "bias": np.ones(6, np.float32)}
    norms = np.sqrt((x.astype(np.float64) ** 2).sum((1, 2), keepdims=True))
    wanted = params["scale"] * x * norms / (norms.mean(-1, keepdims=True) + 1e-6) + params["bias"] + x
    run = partial(convnext.GlobalResponseNorm().apply, {"params": params})
    np.testing.assert_allclose(run(x), wanted, rtol=1e-5, atol=1e-6)
    chex.assert_tree_all_finite(jax.grad(lambda x: run(x).sum())(x))
    assert run(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_stems_have_timms_names_and_widths():
    for fields, wanted in (
        ({}, {"stem_0": (4, 4, 3, 8), "stem_1": (8,)}),
        ({"stem_type": "overlap"}, {"stem_0": (3, 3, 3, 8), "stem_1": (3, 3, 8, 8), "stem_2": (8,)}),
        ({"stem_type": "overlap_act"}, {"stem_0": (3, 3, 3, 8), "stem_2": (3, 3, 8, 8), "stem_3": (8,)}),
    ):
        params = jax.eval_shape(tiny(**fields).init, jax.random.key(0), images_of(32, 32))["params"]
        found = {name: params[name].get("kernel", params[name].get("scale")).shape for name in params if "stem" in name}
        assert found == wanted
    widths = {width: tiny(stem_type="overlap_tiered", dims=(width, 8, 8, 8)).stem_width() for width in (40, 48, 64, 88)}
    assert widths == {40: 24, 48: 24, 64: 32, 88: 48}  # timm's make_divisible(width // 2)


def test_shapes_and_types():
    logits, variables = jax.eval_shape(tiny(conv_mlp=True).init_with_output, jax.random.key(0), images_of(32, 32))
    assert logits.shape == (3, 5) and logits.dtype == jnp.float32 and set(variables) == {"params"}
    block = variables["params"]["stages_1"]["blocks_1"]
    assert block["mlp"]["fc1"]["kernel"].shape == (1, 1, 12, 48) and block["conv_dw"]["kernel"].shape == (7, 7, 1, 12)
    for h, w, fields in ((33, 61, {}), (8, 8, {"patch_size": 1}), (32, 40, {"patch_size": 2, "num_classes": 0})):
        other = tiny(**{**fields, "conv_mlp": True})
        shapes = jax.eval_shape(other.init_with_output, jax.random.key(0), images_of(h, w))[0]
        assert shapes.shape == (3, 5 if other.num_classes else 24)
    for size, strides in ((1, (1, 2, 4, 8)), (2, (4, 8, 16, 32)), (3, (3, 6, 12, 24)), (4, (4, 8, 16, 32))):
        assert tiny(patch_size=size).strides() == strides


def test_how_weights_start_is_timms():
    conv = partial(conv_layers.conv, size=7, use_bias=True, kernel_init=trunc_normal)
    mlp = partial(convnext.ConvNeXtMlp, layer=partial(Dense, kernel_init=trunc_normal), act=jax.nn.relu)
    block = convnext.ConvNeXtBlock(conv_dw=conv, norm=partial(LayerNorm, epsilon=1e-6), mlp=mlp)
    params = block.init(jax.random.key(0), np.zeros((1, 3, 3, 16), np.float32))["params"]
    assert (params["gamma"] == np.float32(1e-6)).all() and not params["conv_dw"]["bias"].any()
    for kernel in (params["conv_dw"]["kernel"], params["mlp"]["fc1"]["kernel"], params["mlp"]["fc2"]["kernel"]):
        np.testing.assert_allclose(kernel.std(), 0.02, rtol=0.1)


def test_bfloat16_and_what_is_dropped():
    model, images = tiny(use_grn=True, depths=(1, 1, 1, 1)), images_of(32, 32)
    half, dropped = model.clone(dtype=jnp.bfloat16), model.clone(drop_path_rate=0.9)

    @jax.jit
    def run(v):
        other = dropped.apply(v, images, train=True, rngs={"dropout": jax.random.key(0)})
        return model.apply(v, images), half.apply(v, images), other

    logits, near, other = run(variables_of(model))
    assert near.dtype == jnp.float32
    np.testing.assert_allclose(near, logits, atol=0.05 * np.abs(logits).max())
    assert np.abs(other - logits).max() > 1e-3


def test_mistakes_are_named():
    for fields, message in (
        ({"depths": (1, 1)}, r"depths=\(1, 1\) has 2 entries"),
        ({"dims": (8, 8, 8)}, "one for each of 4 stages"),
        ({"kernel_sizes": (7, 7, 6, 7)}, "an even size, 6"),
        ({"output_stride": 4}, "expected 8, 16 or 32"),
        ({"head_norm_first": True, "head_hidden_size": 8}, "needs head_norm_first=False"),
        ({"global_pool": "catavgmax"}, "expected 'avg', 'max' or 'avgmax'"),
        ({"global_pool": "", "head_norm_first": True}, "needs num_classes=0"),
        ({"norm_layer": "batchnorm"}, "expected one of 'layernorm'"),
    ):
        with pytest.raises(UserError, match=message):
            tiny(**fields)
    with pytest.raises(UserError, match="image 16x40 is too small for this ConvNeXt"):
        jax.eval_shape(tiny().init, jax.random.key(0), images_of(16, 40))


def test_overlapping_stems_take_smaller_images():
    """29 pixels: 15, 8, 4, 2, 1."""
    overlap = tiny(stem_type="overlap", num_classes=3)
    assert jax.eval_shape(overlap.init_with_output, jax.random.key(0), images_of(29, 31))[0].shape == (3, 3)
    for model, side in ((overlap, 28), (tiny(), 31)):
        with pytest.raises(UserError, match=f"the smallest size is {side + 1}x"):
            jax.eval_shape(model.init, jax.random.key(0), images_of(side, 40))


def test_the_classifier_starts_as_told():
    model = tiny(head_hidden_size=32, head_init_scale=0.5)
    params = jax.jit(model.init)(jax.random.key(0), images_of(32, 32))["params"]
    np.testing.assert_allclose(np.std(params["head"]["pre_logits"]["fc"]["kernel"]), 0.01, rtol=0.1)


def test_what_is_frozen():
    params = jax.eval_shape(tiny().init, jax.random.key(0), images_of(32, 32))["params"]

    def frozen(word):
        return {p.split("/")[0] for p, on in tree.named_leaves(optim.freeze_mask(params, word)).items() if not on}

    assert frozen("early") == {"stages_0", "stages_1"} and frozen("middle") == {"stages_1", "stages_2"}
    assert frozen("early_with_stem") == {"stages_0", "stages_1", "stem_0", "stem_1"}
    left = {p for p, on in tree.named_leaves(optim.freeze_mask(params, "head_only")).items() if on}
    assert left == {"head/fc/kernel", "head/fc/bias"}


def test_what_masked_pretraining_left_has_a_fresh_norm_and_no_classes():
    model = tiny("convnextv2_atto")
    state = {name: a for name, a in helpers.weights(model).items() if not name.startswith("head.")}
    params = pretrained.convert(model.clone(num_classes=0), state)["params"]
    assert (params["head"]["norm"]["scale"] == 1).all() and not params["head"]["norm"]["bias"].any()
    with pytest.raises(UserError, match="missing"):  # the first paper's files are whole
        pretrained.convert(tiny(num_classes=0), {n: a for n, a in state.items() if ".grn." not in n})


# One for each option that an entry point has, and options between them.
OPTIONS = {
    "linear": {},
    "overlap": {"stem_type": "overlap", "conv_mlp": True},
    "overlap_act": {"stem_type": "overlap_act", "conv_mlp": True, "norm_layer": "simplenorm"},
    "overlap_tiered": {"stem_type": "overlap_tiered", "dims": (40, 8, 8, 16), "conv_bias": False},
    "rms": {"norm_layer": "rmsnorm2d", "conv_mlp": True},
    "rms of linear layers": {"norm_layer": "rmsnorm", "norm_eps": 1e-3},
    "norm first": {"head_norm_first": True, "global_pool": "catavgmax"},
    "hidden layer": {"head_hidden_size": 20, "global_pool": "avgmax"},
    "features": {"head_hidden_size": 20, "num_classes": 0},
    "map of logits": {"head_hidden_size": 20, "global_pool": ""},
    "map of features": {"head_norm_first": True, "global_pool": "", "num_classes": 0},
    "kernels": {"kernel_sizes": (7, 5, 9, 3), "act_layer": "silu"},
    "v2": {"use_grn": True, "ls_init_value": None},
    "v2 of convolutions": {"use_grn": True, "ls_init_value": None, "conv_mlp": True, "act_layer": "relu"},
    "patches of 2": {"patch_size": 2, "act_layer": "gelu_tanh"},
    "patches of 1": {"patch_size": 1, "global_pool": "max"},
    "stride 8": {"output_stride": 8, "kernel_sizes": (7, 5, 3, 5)},
    "stride 16 of patches of 16": {"output_stride": 16, "patch_size": 16},
    "patches of 3": {"patch_size": 3, "in_channels": 1},
}  # fmt: skip


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", OPTIONS)
def test_numbers_and_gradients_equal_timms(case):
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    fields = {**TINY, **OPTIONS[case]}
    model = create_model("convnext_tiny", **fields)
    args = {{"in_channels": "in_chans"}.get(k, k): v for k, v in fields.items() if k != "image_size"}
    theirs = timm.models.convnext.ConvNeXt(**args)  # create_model passes no None
    state = draw.state_dict({rule.name: rule.shape for rule in rules.rules_of(model)})
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    images = draw.images(case, 3, 45, 66, model.in_channels)
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    variables = pretrained.convert(model, state)
    helpers.assert_same(pretrained.export(model, variables), state)

    @jax.jit
    def run(variables):
        out, back = jax.vjp(lambda v: model.apply(v, images, train=True), variables)
        return out, back(jnp.cos(out))[0]

    out, gradient = run(variables)
    for training in (False, True):
        wanted = theirs.train(training)(tensor)
        wanted = wanted.permute(0, 2, 3, 1) if wanted.ndim == 4 else wanted
        np.testing.assert_allclose(out, wanted.detach(), atol=1e-4 * max(1, float(wanted.abs().max())))
    torch.sin(wanted).sum().backward()
    ours = pretrained.export(model, gradient)
    for name, parameter in theirs.named_parameters():
        scale = max(1e-3, float(parameter.grad.abs().max()))
        np.testing.assert_allclose(ours[name], parameter.grad, atol=1e-3 * scale, err_msg=name)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["convnext_large_mlp", "convnextv2_atto", "convnext_tiny_hnf", "convnext_zepto_rms_ols"]
)
def test_other_channels_and_classes_equal_timms(name, tmp_path):
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    small = {"depths": (1, 1, 1, 1), "dims": (16, 16, 16, 24)}
    whole = timm.create_model(name, num_classes=5, **small)
    state = draw.state_dict({key: tuple(value.shape) for key, value in whole.state_dict().items()})
    whole.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    torch.save(whole.state_dict(), tmp_path / "x.pth")
    for channels in (1, 4):
        theirs = timm.create_model(
            name, num_classes=0, in_chans=channels, pretrained=True,
            pretrained_cfg_overlay={"file": str(tmp_path / "x.pth"), "num_classes": 5}, **small,
        ).eval()  # fmt: skip
        loaded = pretrained.load(name, tmp_path / "x.pth", num_classes=0, in_channels=channels, image_size=64, **small)
        images = draw.images(name, 2, 64, 64, channels)
        with torch.no_grad():
            wanted = theirs(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
        ours = jax.jit(loaded.model.apply)(loaded.variables, images)
        np.testing.assert_allclose(ours, wanted, atol=1e-4 * max(1, np.abs(wanted).max()))
