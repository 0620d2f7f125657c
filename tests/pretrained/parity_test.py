"""The numbers are timm's: stored logits, real weights on real photos, gradients and blocks against timm itself."""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from jaxvit.models.layers import to_pair
from jaxvit.models.registry import create_model
from jaxvit.pretrained import convert, draw, export, load
from tests.helpers import pretrained as helpers

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("JAXVIT_SHARED_DATA", ROOT.parent / "shared" / "data"))
GOLDEN = json.loads((ROOT / "tests/golden/logits.json").read_text())["cases"]  # python tools/make_parity.py --golden


@pytest.mark.parametrize("case", GOLDEN, ids=[case["name"] for case in GOLDEN])
def test_stored_logits(case):
    fields = {word: tuple(v) if isinstance(v, list) else v for word, v in case["fields"].items()}
    model = create_model(case["name"], **fields)
    variables = convert(model, helpers.weights(model))
    images = draw.images(case["name"], 2, *to_pair(model.image_size), model.in_channels)
    logits, wanted = jax.jit(model.apply)(variables, images), np.float32(case["logits"])
    np.testing.assert_allclose(logits, wanted, atol=1e-4 * max(1, np.abs(wanted).max()))
    np.testing.assert_array_equal(np.argmax(logits, -1), np.argmax(wanted, -1))


@pytest.mark.skipif(not DATA.exists(), reason="the real weights and photos (../shared/data) are not here")
def test_real_weights_on_real_photos():
    from PIL import Image

    from jaxvit.data import preprocess

    loaded = load("deit_tiny_patch16_224.fb_in1k", DATA / "weights/deit_tiny_patch16_224.safetensors")
    assert loaded.notes == ()
    stored = np.load(DATA / "photos/timm_logits.npz")
    photos = [preprocess(Image.open(DATA / "photos" / name), loaded.data_config) for name in stored["names"]]
    logits = np.asarray(jax.jit(loaded.model.apply)(loaded.variables, np.stack(photos)))
    np.testing.assert_allclose(logits, stored["logits"], atol=1e-3)
    top5 = [np.argsort(-x, axis=-1)[:, :5] for x in (logits, stored["logits"])]
    np.testing.assert_array_equal(*top5)


SWIN = {"depths": (1, 2, 1, 1), "embed_dim": 24, "image_size": 64, "num_classes": 5}
FAMILIES = {
    "vit": ("vit_tiny_patch16_224", {"depth": 2, "image_size": 32, "num_classes": 5}),
    "deit3": ("deit3_small_patch16_224", {"depth": 1, "image_size": 32, "num_classes": 5}),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"depths": (1, 2, 1, 1), "embed_dim": 24, "image_size": 64, "num_classes": 5},
    ),
    "resnet": ("resnet10t", {"num_classes": 5, "image_size": 64}),
    "seresnet": ("test_resnet", {"num_classes": 5, "image_size": 64}),
    "convnext": ("test_convnext3", {"num_classes": 5, "image_size": 64}),
    "convnextv2": ("convnextv2_atto", {"num_classes": 5, "image_size": 64, "depths": (1, 2, 1, 1)}),
    "vgg": ("vgg11_bn", {"num_classes": 5, "image_size": 64, "mlp_ratio": 1 / 64}),
    "alexnet": ("alexnet", {"num_classes": 5, "image_size": 64, "drop_rate": 0.0}),
}
CONVOLUTIONAL = (
    "resnet",
    "seresnet",
    "convnext",
    "convnextv2",
    "vgg",
    "alexnet",
)  # feature maps are [b, c, h, w] in torch


def pair(word):
    """Both models of a family on the same drawn weights, and images."""
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    name, fields = FAMILIES[word]
    model = create_model(name, **fields)
    state = helpers.weights(model)
    words = {"image_size": "img_size", "drop_rate": "dropout"}
    args = {words.get(k, k): v for k, v in fields.items() if word not in CONVOLUTIONAL or k != "image_size"}
    if word == "alexnet":
        theirs = pytest.importorskip("torchvision").models.alexnet(**args)
    else:
        theirs = timm.create_model(name, **args)
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    images = draw.images(word, 4, *to_pair(model.image_size))
    return model, convert(model, state), theirs, images, torch.from_numpy(images).permute(0, 3, 1, 2), torch


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("word", FAMILIES)
def test_gradients_equal_timms(word):
    model, variables, theirs, images, tensor, torch = pair(word)
    labels = np.array([0, 3, 1, 4])
    rest = {k: v for k, v in variables.items() if k != "params"}

    def loss(params):
        logits = model.apply({"params": params, **rest}, images)
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(4), labels])

    value, grads = jax.jit(jax.value_and_grad(loss))(variables["params"])
    wanted = torch.nn.functional.cross_entropy(theirs.eval()(tensor), torch.from_numpy(labels))
    wanted.backward()
    assert abs(float(value) - wanted.item()) < 1e-4
    ours = export(model, {"params": grads, **rest})
    for name, parameter in theirs.named_parameters():
        expected = parameter.grad.numpy()
        scale = max(np.abs(expected).max(), 1e-3)
        np.testing.assert_allclose(ours[name], expected, atol=1e-3 * scale, err_msg=name)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("word", ["resnet", "seresnet", "vgg"])
def test_train_mode_equals_timms(word):
    model, variables, theirs, images, tensor, torch = pair(word)
    logits, new = model.apply(variables, images, train=True, mutable=["batch_stats"])
    with torch.no_grad():
        wanted = theirs.train()(tensor).numpy()
    np.testing.assert_allclose(logits, wanted, atol=1e-4 * max(1, np.abs(wanted).max()))
    moved = export(model, {"params": variables["params"], **new})
    for name, buffer in theirs.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            scale = max(1.0, float(buffer.abs().max()))
            np.testing.assert_allclose(moved[name], buffer.numpy(), atol=1e-5 * scale, err_msg=name)


# The parts of each family in order: timm's module, and ours. The outputs are compared one after the other.
PARTS = {
    "vit": [("blocks.0", "blocks_0"), ("blocks.1", "blocks_1"), ("norm", "norm"), ("head", "head")],
    "deit3": [("blocks.0.attn", "blocks_0/attn"), ("blocks.0", "blocks_0"), ("head", "head")],
    "swin": [
        ("patch_embed", "patch_embed"), ("layers.0.blocks.0", "layers_0/blocks_0"),
        ("layers.1.downsample", "layers_1/downsample"), ("layers.1.blocks.1", "layers_1/blocks_1"),
        ("layers.3", "layers_3"), ("head", "head"),
    ],
    "resnet": [("layer1.0", "layer1_0"), ("layer2.0", "layer2_0"), ("layer4.0", "layer4_0"), ("fc", "fc")],
    "seresnet": [("layer1.0", "layer1_0"), ("layer2.0", "layer2_0"), ("layer4.0", "layer4_0"), ("fc", "fc")],
    "convnext": [
        ("stem", "stem_1"), ("stages.0.blocks.0", "stages_0/blocks_0"), ("stages.3", "stages_3"), ("head", "head"),
    ],
    "convnextv2": [
        ("stages.1.downsample", "stages_1/downsample_1"), ("stages.1.blocks.1.mlp.grn", "stages_1/blocks_1/mlp/grn"),
        ("head.norm", "head/norm"), ("head", "head"),
    ],
    "vgg": [("features.0", "features_0"), ("features.1", "features_1"), ("features.8", "features_8"), ("head", "head")],
    "alexnet": [("features.0", "features_0"), ("features.10", "features_10"), ("classifier.6", "classifier_6")],
}  # fmt: skip


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("word", FAMILIES)
def test_block_by_block(word):
    model, variables, theirs, images, tensor, torch = pair(word)
    seen, wanted = {}, {}
    for name, _ in PARTS[word]:
        keep = theirs.get_submodule(name)
        keep.register_forward_hook(lambda _m, _i, out, name=name: wanted.update({name: out.detach().clone().numpy()}))
    with torch.no_grad():
        theirs.eval()(tensor)
    _, state = model.apply(variables, images, capture_intermediates=True, mutable=["intermediates"])
    seen = {"/".join(path): leaf[0] for path, leaf in traverse_util.flatten_dict(state["intermediates"]).items()}
    for name, path in PARTS[word]:
        expected = wanted[name]
        ours = np.asarray(seen[f"{path}/__call__"])
        ours = ours.transpose(0, 3, 1, 2) if word in CONVOLUTIONAL and ours.ndim == 4 else ours
        np.testing.assert_allclose(
            ours, expected.reshape(ours.shape), atol=1e-4 * max(1, np.abs(expected).max()), err_msg=name
        )
