"""Random models in float64 against timm: logits and every gradient; and what dropout does to the logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.models.layers import to_pair
from jaxvit.models.registry import create_model
from jaxvit.pretrained import convert, export
from tests.helpers import pretrained as helpers

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

CONVOLUTIONAL = ("resnet", "vgg", "convnext")
WORDS = {"image_size": "img_size", "in_channels": "in_chans"}


def draw_vit(rng):
    heads = int(rng.choice([2, 3]))
    pool = str(rng.choice(["token", "avg", "max", "avgmax", "map"]))
    patch = (int(rng.choice([4, 8])), int(rng.choice([4, 8])))
    fields = {
        "image_size": (patch[0] * int(rng.integers(1, 4)), patch[1] * int(rng.integers(2, 5))),
        "patch_size": patch,
        "num_heads": heads,
        "embed_dim": heads * int(rng.choice([8, 12])),
        "depth": int(rng.integers(1, 3)),
        "mlp_ratio": float(rng.choice([1.5, 2.0, 4.0])),
        "global_pool": pool,
        "class_token": pool == "token" or bool(rng.random() < 0.5),
        "reg_tokens": int(rng.choice([0, 0, 3])),
        "pos_embed": str(rng.choice(["learn", "learn", "none"])),
        "no_embed_class": bool(rng.random() < 0.5),
        "init_values": None if rng.random() < 0.5 else 0.1,
        "act_layer": str(rng.choice(["gelu", "relu", "silu", "gelu_tanh", "quick_gelu"])),
    }
    for word, share in (("qkv_bias", 0.7), ("proj_bias", 0.8), ("qk_norm", 0.3), ("pre_norm", 0.3), ("final_norm", 0.8),
                        ("scale_attn_norm", 0.2), ("scale_mlp_norm", 0.2)):  # fmt: skip
        fields[word] = bool(rng.random() < share)
    return "test_vit", fields


def draw_swin(rng):
    depths = tuple(int(n) for n in rng.integers(1, 3, 2))
    fields = {
        "image_size": tuple(int(n) for n in 8 * rng.integers(2, 6, 2)),
        "patch_size": int(rng.choice([2, 4])),
        "window_size": int(rng.integers(2, 6)),
        "depths": depths,
        "num_heads": (2, 4),
        "embed_dim": int(rng.choice([8, 16])),
        "mlp_ratio": float(rng.choice([2.0, 4.0])),
        "qkv_bias": bool(rng.random() < 0.7),
        "drop_path_rate": 0.0,
        "global_pool": str(rng.choice(["avg", "max", "avgmax", "catavgmax"])),
        "always_partition": bool(rng.random() < 0.5),
    }
    return "swin_tiny_patch4_window7_224", fields


def draw_convnext(rng):
    names = ("convnext_tiny", "convnext_atto_ols", "convnext_tiny_hnf", "convnext_zepto_rms_ols", "convnextv2_nano",
             "convnext_large_mlp", "test_convnext3")  # fmt: skip
    fields = {
        "depths": tuple(int(n) for n in rng.integers(1, 3, 4)),
        "dims": tuple(int(n) for n in 8 * rng.integers(1, 4, 4)),
        "kernel_sizes": tuple(int(n) for n in rng.choice([3, 5, 7], 4)),
        "patch_size": int(rng.choice([2, 3, 4, 8])),
        "output_stride": int(rng.choice([8, 16, 32])),
        "global_pool": str(rng.choice(["avg", "max", "avgmax"])),
        "image_size": tuple(int(n) for n in rng.integers(64, 80, 2)),
        "act_layer": str(rng.choice(["relu", "silu", "gelu"])),
    }
    return str(rng.choice(names)), fields


def draw_resnet(rng):
    names = ("resnet18", "resnet26", "resnet26t", "resnet50c", "resnext50_32x4d", "seresnet18", "ecaresnet26t",
             "resnetblur18", "resnetaa50d", "resnetrs50", "seresnext26d_32x4d", "senet154", "resnet50_gn")  # fmt: skip
    fields = {
        "layers": tuple(int(n) for n in rng.integers(1, 3, 4)),
        "channels": tuple(int(n) for n in 32 * rng.integers(1, 3, 4)),
        "global_pool": str(rng.choice(["avg", "max", "avgmax", "catavgmax"])),
        "image_size": tuple(int(n) for n in 32 * rng.integers(1, 3, 2)),
        "act_layer": str(rng.choice(["relu", "silu", "gelu"])),
    }
    return str(rng.choice(names)), fields


DRAWS = {"vit": draw_vit, "swin": draw_swin, "resnet": draw_resnet, "convnext": draw_convnext}


def pair(name, fields, family):
    """Both models in float64 on the same weights."""
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    model = create_model(name, **fields, dtype="float64")
    state = helpers.weights(model)
    theirs = {WORDS.get(k, k): v for k, v in fields.items() if family not in CONVOLUTIONAL or k != "image_size"}
    module = timm.create_model(name, **theirs)
    module.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), convert(model, state))
    return model, variables, module.double(), torch


CHEAP = [(family, seed) for family in DRAWS for seed in range(2 if family != "convnext" else 0)]
MORE = [pytest.param(family, seed, marks=pytest.mark.slow) for family in DRAWS for seed in range(2, 30)]


@pytest.mark.parametrize(("family", "seed"), [*CHEAP, *MORE])
def test_random_models_equal_timms_in_float64(family, seed):
    pytest.importorskip("timm")
    rng = np.random.default_rng(1000 * sum(map(ord, family)) + seed)
    name, fields = DRAWS[family](rng)
    fields |= {"num_classes": 3, "in_channels": int(rng.choice([1, 3]))}
    with jax.enable_x64(True):
        model, variables, module, torch = pair(name, fields, family)
        images = rng.standard_normal((2, *to_pair(model.image_size), model.in_channels))
        side = rng.standard_normal((2, 3))  # the loss is the sum of logits times this
        rest = {key: value for key, value in variables.items() if key != "params"}

        def loss(params):
            logits = model.apply({"params": params, **rest}, images)
            return jnp.sum(logits * side), logits

        (_, logits), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
        wanted = module.eval()(torch.from_numpy(images).permute(0, 3, 1, 2))
        (wanted * torch.from_numpy(side)).sum().backward()
        ours = export(model, {"params": grads, **rest})
    assert logits.dtype == np.float64
    scale = max(1.0, float(wanted.abs().max()))
    np.testing.assert_allclose(logits, wanted.detach().numpy(), atol=1e-9 * scale, err_msg=f"{name} {fields}")
    for key, parameter in module.named_parameters():
        expected = parameter.grad.numpy()
        bound = 1e-8 * max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(ours[key], expected, atol=bound, err_msg=f"{key} of {name} {fields}")


VIT = {"image_size": (8, 12), "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "dynamic_img_size": False}
SWIN = {"image_size": 16, "patch_size": 4, "embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2), "window_size": 2}
RESNET = {"layers": (1, 1, 1, 1), "channels": (16, 16, 16, 16), "image_size": 32}
RATES = {
    "vit head": ("test_vit", VIT, {"drop_rate": 0.3}),
    "vit positions": ("test_vit", VIT, {"pos_drop_rate": 0.3}),
    "vit patches": ("test_vit", VIT, {"patch_drop_rate": 0.5}),
    "vit patches without positions": ("test_vit", VIT | {"pos_embed": "none"}, {"patch_drop_rate": 0.5}),
    "vit projections": ("test_vit", VIT, {"proj_drop_rate": 0.3}),
    "vit attention": ("test_vit", VIT, {"attn_drop_rate": 0.5}),
    "vit differential attention": ("test_vit", VIT | {"attn_layer": "diff"}, {"attn_drop_rate": 0.5}),
    "vit paths": ("test_vit", VIT, {"drop_path_rate": 0.5}),
    "swin projections": ("swin_tiny_patch4_window7_224", SWIN | {"drop_path_rate": 0.0}, {"proj_drop_rate": 0.3}),
    "swin attention": ("swin_tiny_patch4_window7_224", SWIN | {"drop_path_rate": 0.0}, {"attn_drop_rate": 0.5}),
    "swin paths": ("swin_tiny_patch4_window7_224", SWIN, {"drop_path_rate": 0.5}),
    "resnet head": ("resnet18", RESNET, {"drop_rate": 0.3}),
}
SAMPLES = 2048


def distance(a, b):
    """The two-sample statistic of Kolmogorov and Smirnov: the largest difference of the distribution functions."""
    both = np.concatenate([a, b])
    return np.abs(
        np.searchsorted(np.sort(a), both, side="right") - np.searchsorted(np.sort(b), both, side="right")
    ).max() / len(a)


@pytest.mark.parametrize("case", RATES)
def test_dropout_gives_logits_of_timms_distribution(case):
    pytest.importorskip("timm")
    name, fields, rates = RATES[case]
    family = name.split("_")[0].rstrip("0123456789") if name != "test_vit" else "vit"
    fields = fields | rates | {"num_classes": 4}
    with jax.enable_x64(True):
        model, variables, module, torch = pair(name, fields, family)
        image = np.random.default_rng(0).standard_normal((1, *to_pair(model.image_size), 3))
        images = np.repeat(image, SAMPLES, 0)
        rngs = {"dropout": jax.random.key(0)}
        found = model.apply(variables, images, train=True, rngs=rngs, mutable=["batch_stats"])[0]
    torch.manual_seed(0)
    with torch.no_grad():
        wanted = module.train()(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    assert wanted.std(0).min() > 1e-3  # the rate does something
    limit = 1.95 * np.sqrt(2 / SAMPLES)  # passed by chance once in a thousand
    for ours, theirs in zip(np.asarray(found).T, wanted.T, strict=True):
        digits = np.float64(ours).round(5), theirs.round(5)  # discrete ones have ties; timm's rates are float32
        assert distance(*digits) < limit
