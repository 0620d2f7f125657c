"""Feature maps and pooled features: against timm, against torch's convolutions, against a computation by hand."""

from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import jaxvit
from jaxvit.errors import UserError
from jaxvit.explain import intermediates
from jaxvit.models.layers import to_pair
from jaxvit.pretrained import convert, draw
from tests.helpers import ROOT
from tests.helpers import pretrained as helpers
from tests.helpers.explained import DEIT, RESNET, SWIN, VIT, make

TINY = {"depth": 3, "image_size": 32, "patch_size": 8, "embed_dim": 48, "num_heads": 3}
EVA = {**TINY, "num_heads": 2}
SMALL = {"image_size": 64}
CASES = {
    "vit": ("vit_tiny_patch16_224", TINY),
    "wide image": ("vit_tiny_patch16_224", {**TINY, "image_size": (32, 48)}),
    "distilled": ("deit_tiny_distilled_patch16_224", TINY),
    "layer scale": ("deit3_small_patch16_224", TINY),
    "registers": ("vit_small_patch14_reg4_dinov2", {**TINY, "init_values": 0.1}),
    "mean of patches": ("vit_medium_patch16_reg4_gap_256", TINY),
    "norm before the mean": ("vit_base_patch16_siglip_gap_224", TINY),
    "attention pool": ("vit_base_patch16_siglip_224", TINY),
    "attention pool, registers": ("vit_so150m_patch16_reg4_map_256", TINY),
    "no class token, no final norm": ("vit_intern300m_patch14_448", TINY),
    "parallel": ("vit_pwee_patch16_reg1_gap_256", TINY),
    "clip": ("vit_base_patch32_clip_224", TINY),
    "eva": ("eva02_base_patch14_224", EVA),
    "post-norm": ("eva02_enormous_patch14_clip_224", EVA),
    "registers, rotary": ("vit_small_patch16_dinov3_qkvb", EVA),
    "padded": ("vit_small_patch16_dinov3", {**EVA, "image_size": (32, 48), "dynamic_img_pad": True}),
    "attention pool over all tokens": ("vit_pe_core_base_patch16_224", {**EVA, "attn_pool_num_heads": 2}),
    "no norm after the blocks": ("vit_pe_lang_large_patch14_448", EVA),
    "learnt frequencies": ("vit_small_patch16_rope_mixed_224", EVA),
    "resnet": ("resnet10t", SMALL),
    "bottleneck": ("resnet26d", SMALL),
    "groups": ("seresnext26d_32x4d", SMALL),
    "blur": ("resnetblur18", SMALL),
    "average": ("resnetaa34d", SMALL),
    "rs": ("resnetrs50", SMALL),
    "group norm": ("resnet50_gn", SMALL),
    "eca": ("ecaresnetlight", SMALL),
    "senet": ("test_resnet", SMALL),
    "vgg": ("vgg11", {**SMALL, "mlp_ratio": 1 / 64}),
    "vgg_bn": ("vgg13_bn", {**SMALL, "mlp_ratio": 1 / 64}),
    "swin": ("swin_tiny_patch4_window7_224", {"depths": (1, 2, 1, 1), "embed_dim": 24, "image_size": 64}),
    "wide swin": ("swin_tiny_patch4_window7_224", {"depths": (1, 2, 2, 1), "embed_dim": 24, "image_size": (64, 96)}),
    "s3": ("swin_s3_tiny_224", {"depths": (1, 1, 1, 1), "embed_dim": 24, "image_size": 64}),
    "swin v2": (
        "swinv2_tiny_window8_256", {"depths": (1, 2, 1, 1), "embed_dim": 24, "image_size": 64, "window_size": 4},
    ),
    "convnext": ("convnext_atto_ols", SMALL),
    "convnext v2": ("convnextv2_atto", {**SMALL, "patch_size": 2}),
    "convnext, hidden layer": ("convnext_large_mlp", {**SMALL, "dims": (8, 16, 24, 32), "head_hidden_size": 16}),
    "convnext, norm first": ("convnext_tiny_hnf", {**SMALL, "dims": (8, 16, 24, 32)}),
}  # fmt: skip
CONVOLUTIONAL = ("resnet", "vgg", "convnext")


def pair(case):
    """Both models on the same drawn weights, and the same images."""
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    name, fields = CASES[case]
    model = jaxvit.create_model(name, num_classes=5, **fields)
    kind = type(model).__name__.lower()
    state = helpers.weights(model)
    theirs_take = {k: v for k, v in fields.items() if kind not in CONVOLUTIONAL or k != "image_size"}
    args = {{"image_size": "img_size"}.get(k, k): v for k, v in theirs_take.items()}
    theirs = timm.create_model(name, num_classes=5, **args).eval()
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    images = draw.images(case, 2, *to_pair(model.image_size))
    return model, convert(model, state), theirs, images, torch.from_numpy(images).permute(0, 3, 1, 2)


def close(ours, theirs):
    """Within 1e-4 of the largest value."""
    theirs = theirs.detach().numpy()
    chex.assert_shape(ours, theirs.shape)
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * max(1, np.abs(theirs).max()))


def rows(x):
    return x.permute(0, 2, 3, 1)


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_features_and_maps_are_timms(case):
    import torch

    model, variables, theirs, images, tensor = pair(case)
    with torch.no_grad():
        final, maps = theirs.forward_intermediates(tensor)
        close(jaxvit.features(model, variables, images), theirs.forward_head(theirs.forward_features(tensor), True))
        assert jaxvit.feature_info(model) == list(theirs.feature_info)
        ours_final, ours = jaxvit.forward_intermediates(model, variables, images, intermediates_only=False)
        close(ours_final, final if final.ndim == 3 or "swin" in CASES[case][0] else rows(final))
        assert len(ours) == len(maps)
        for x, y in zip(ours, maps, strict=True):
            close(x, rows(y))
        normed = theirs.forward_intermediates(tensor, indices=[-1, 0], norm=True, intermediates_only=True)
        for x, y in zip(
            jaxvit.forward_intermediates(model, variables, images, [-1, 0], norm=True), normed, strict=True
        ):
            close(x, rows(y))
        if hasattr(theirs, "num_prefix_tokens"):
            args = {"indices": 2, "return_prefix_tokens": True, "intermediates_only": True}
            tokens = theirs.forward_intermediates(tensor, output_fmt="NLC", **args)
            args["output_fmt"] = "NLC"
            for x, y in zip(jaxvit.forward_intermediates(model, variables, images, **args), tokens, strict=True):
                assert isinstance(x, tuple) == isinstance(y, tuple)
                for a, b in zip(x, y, strict=True) if isinstance(y, tuple) else [(x, y)]:
                    close(a, b)


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_feature_info_is_timms():
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    for name in jaxvit.list_models()[1::5]:  # all but AlexNet, which is the first
        with torch.device("meta"):
            theirs = timm.create_model(name)
        assert jaxvit.feature_info(jaxvit.create_model(name)) == list(theirs.feature_info), name


@pytest.mark.torch
def test_the_maps_of_alexnet_are_those_of_its_paper():
    """The layers of torchvision, written down with torch's functions: timm has no AlexNet."""
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    model = jaxvit.create_model("alexnet", image_size=(64, 96), head_hidden_size=16, num_classes=5)
    state = helpers.weights(model)
    w = {name: torch.from_numpy(array) for name, array in state.items()}
    images = draw.images("alexnet", 2, 64, 96)

    def conv(x, i, stride, padding):
        return f.relu(f.conv2d(x, w[f"features.{i}.weight"], w[f"features.{i}.bias"], stride, padding))

    first = conv(torch.from_numpy(images).permute(0, 3, 1, 2), 0, 4, 2)
    second = conv(f.max_pool2d(first, 3, 2), 3, 1, 2)
    third = conv(conv(conv(f.max_pool2d(second, 3, 2), 6, 1, 1), 8, 1, 1), 10, 1, 1)
    last = f.max_pool2d(third, 3, 2)
    x = f.adaptive_avg_pool2d(last, 6).flatten(1)
    for i in (1, 4):
        x = f.relu(x @ w[f"classifier.{i}.weight"].T + w[f"classifier.{i}.bias"])
    variables = convert(model, state)
    maps = jaxvit.forward_intermediates(model, variables, images)
    for ours, wanted in zip(maps, (first, second, third, last), strict=True):
        close(ours, rows(wanted))
    close(jaxvit.features(model, variables, images), x)


@pytest.mark.parametrize("name", ["alexnet", "vgg11", RESNET, VIT, SWIN])
def test_sizes_are_those_announced(name):
    model, variables, images = make(name)
    maps = jax.eval_shape(partial(jaxvit.forward_intermediates, model), variables, images)
    for about, x in zip(jaxvit.feature_info(model), maps, strict=True):
        cells = [-(-side // about["reduction"]) for side in images.shape[1:3]]
        slack = 3 if name == "alexnet" else 1  # it loses a border at every pool
        assert all(n - slack < found <= n for n, found in zip(cells, x.shape[1:3], strict=True))
        assert (x.shape[0], x.shape[3], x.dtype) == (3, about["num_chs"], jnp.float32)


def test_features_are_what_the_classifier_reads():
    model, variables, images = make("vgg11")  # which has two hidden layers before it
    head = jax.tree.map(np.asarray, variables["params"]["head"]["fc"])
    wanted = np.asarray(jaxvit.features(model, variables, images)) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(jax.jit(model.apply)(variables, images), wanted, rtol=1e-4, atol=1e-4)


def test_maps_by_hand():
    """A stem and a block of a ResNet, and the tokens of a DeiT, as another tool of Flax sees them."""

    @partial(jax.jit, static_argnames="model")
    def capture(variables, images, *, model):
        return model.apply(variables, images, capture_intermediates=True, mutable=["intermediates"])[1]

    def seen(model, variables, images):
        found = traverse_util.flatten_dict(capture(variables, images, model=model)["intermediates"])
        return {"/".join(path[:-1]): np.asarray(value[0]) for path, value in found.items()}

    model, variables, images = make(RESNET)
    values = seen(model, variables, images)
    stem, block = jaxvit.forward_intermediates(model, variables, images)
    np.testing.assert_allclose(stem, np.maximum(values["bn1"], 0), atol=1e-5)
    np.testing.assert_allclose(block, values["layer1_0"], atol=1e-5)
    np.testing.assert_allclose(jaxvit.features(model, variables, images), np.mean(block, (1, 2)), atol=1e-5)

    model, variables, images = make(DEIT)
    values = seen(model, variables, images)
    final, found = jaxvit.forward_intermediates(
        model, variables, images, norm=True, return_prefix_tokens=True, intermediates_only=False
    )
    np.testing.assert_allclose(final, values["norm"], atol=1e-5)
    grid, prefix = found[-1]
    np.testing.assert_allclose(prefix, values["norm"][:, :2], atol=1e-5)
    np.testing.assert_allclose(grid[1, 2, 3], values["norm"][1, 2 + 2 * 6 + 3], atol=1e-5)  # 4x6 patches
    (scale, bias), x = (np.asarray(variables["params"]["norm"][k]) for k in ("scale", "bias")), values["blocks_0"]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * scale + bias
    np.testing.assert_allclose(found[0][0].reshape(3, 24, 16), x[:, 2:], atol=1e-4)
    np.testing.assert_allclose(jaxvit.features(model, variables, images), values["norm"][:, :2].mean(1), atol=1e-5)


def test_indices():
    for indices, wanted in (
        (None, [0, 1, 2, 3]), (1, [3]), (np.int64(2), [2, 3]), (4, [0, 1, 2, 3]), ([-1], [3]), ((1, 0, -4), [0, 1]),
    ):  # fmt: skip
        assert intermediates._chosen(indices, 4) == wanted


def test_compiled_once_and_looped_blocks_have_maps():
    model, variables, images = make("vgg11")
    before = intermediates._run._cache_size()
    for _ in range(2):
        jaxvit.forward_intermediates(model, variables, images, 1)
    assert intermediates._run._cache_size() == before + 1
    model, variables, images = make(VIT)
    plain = jaxvit.forward_intermediates(model, variables, images, 1)[0]
    tokens = jaxvit.forward_intermediates(model, variables, images, [-1], output_fmt="NLC")[0]
    np.testing.assert_allclose(tokens, plain.reshape(3, 24, 16), atol=1e-6)
    looped = jaxvit.forward_intermediates(model.clone(scan=True, remat="block"), variables, images, 1)[0]
    np.testing.assert_allclose(plain, looped, atol=1e-6)


def test_mistakes_are_named():
    model, variables, images = make(VIT)
    for options, message in (
        ({"indices": 3}, "the model has 2 maps: expected 1 to 2"),
        ({"indices": 0}, "expected 1 to 2"),
        ({"indices": [2]}, "index 2 is out of range; the model's maps are 0 to 1"),
        ({"indices": []}, "at least one index"),
        ({"indices": "last"}, "expected None, a whole number, or a list"),
        ({"indices": 1.0}, "expected None, a whole number, or a list"),
        ({"output_fmt": "NCHW"}, "expected one of NHWC, NLC"),
    ):
        with pytest.raises(UserError, match=message):
            jaxvit.forward_intermediates(model, variables, images, **options)
    with pytest.raises(UserError, match="expected floats"):
        jaxvit.features(model, variables, np.zeros(images.shape, np.uint8))
    with pytest.raises(UserError, match="global_pool='' pools nothing"):
        jaxvit.features(model.clone(global_pool=""), variables, images)
    other, variables, images = make(RESNET)
    with pytest.raises(UserError, match="ResNet has no tokens"):
        jaxvit.forward_intermediates(other, variables, images, return_prefix_tokens=True)
    with pytest.raises(UserError, match="no feature maps are recorded for Dense"):
        jaxvit.feature_info(nn.Dense(3))


def test_the_example_of_the_page_runs(monkeypatch):
    page = (ROOT / "docs" / "FEATURES.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    name, fields = ("deit_tiny_patch16_224", {"image_size": 224, "depth": 2, "num_classes": 5})

    def load(tag):
        model = jaxvit.create_model(name, **fields)
        assert tag.partition(".")[0] == name
        return model, convert(model, helpers.weights(model))

    monkeypatch.setattr(jaxvit, "load_pretrained", load, raising=False)
    found = {}
    exec(code, found)
    assert found["embeddings"].shape == (2, 192) and [x.shape for x in found["maps"]] == [(2, 14, 14, 192)] * 2
    assert found["last"].shape == (2, 14, 14, 192) and found["tokens"].shape == (2, 1, 192)
