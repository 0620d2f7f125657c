"""The entry points of the ViTs: fields, sizes, timm's numbers."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.models.vit import VisionTransformer, check_fields
from jaxvit.models.vit_variants import VARIANTS


def test_every_entry_point_has_fields_that_fit():
    assert len(VARIANTS) == 163 + 16
    for fields in VARIANTS.values():
        model = VisionTransformer(**fields)
        check_fields(model)
        size, patch = fields["image_size"], fields["patch_size"]
        assert size % patch == 0 or model.crop_to_patches


# Trainable parameters as timm 1.0.31 counts them.
COUNTS = {
    "vit_tiny_patch16_224": 5_717_416,
    "vit_base_patch16_224": 86_567_656,
    "vit_large_patch14_clip_224": 304_204_776,
    "vit_so400m_patch14_siglip_384": 428_225_600,
    "vit_giant_patch14_reg4_dinov2": 1_136_483_840,
    "vit_base_patch16_xp_224": 86_512_360,
    "vit_dpwee_patch16_reg1_gap_256": 15_252_456,
    "vit_base_patch16_18x2_224": 256_731_880,
    "aimv2_large_patch14_224": 309_197_824,
    "beit3_base_patch16_224": 86_659_816,
    "deit_small_patch16_224": 22_050_664,
    "deit_tiny_distilled_patch16_224": 5_910_800,
    "deit3_large_patch16_224": 304_374_760,
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name):
    model = VisionTransformer(**VARIANTS[name])
    images = jax.ShapeDtypeStruct((1, model.image_size, model.image_size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    assert sum(p.size for p in jax.tree.leaves(variables)) == COUNTS[name]


def randomise(module, seed: int = 0) -> None:
    """Weights on the scale of trained ones: norms and layer scales near one, biases not zero."""
    torch, rng = pytest.importorskip("torch"), np.random.default_rng(seed)
    for name, p in module.named_parameters():
        if re.search(r"(norm\w*\.weight|gamma)$", name):
            values = 1 + 0.2 * rng.standard_normal(p.shape)
        elif re.search(r"pos_embed|token|latent", name):
            values = 0.5 * rng.standard_normal(p.shape)
        else:
            fan_in = np.prod(p.shape[1:]) if p.ndim > 1 else 25
            values = rng.standard_normal(p.shape) / np.sqrt(fan_in)
        p.data = torch.tensor(values, dtype=torch.float32)


def renamed(tensors) -> dict:
    """Arrays by timm's names -> a tree of parameters."""
    tree: dict = {}
    for name, tensor in tensors.items():
        array, path = tensor.detach().numpy(), re.sub(r"\.(\d+)(?=\.)", r"_\1", name).split(".")
        if path[-1] == "weight":
            path[-1] = "kernel" if array.ndim > 1 else "scale"
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = array
    return tree


def timm_pair(name: str, **fields):
    """Timm's model of that name and ours, with the same random weights (fields in our words)."""
    timm = pytest.importorskip("timm")
    theirs = {"image_size": "img_size", "in_channels": "in_chans"}
    module = timm.create_model(name, **{theirs.get(k, k): v for k, v in fields.items()}).eval()
    randomise(module)
    return module, VisionTransformer(**(VARIANTS[name] | fields)), {"params": renamed(dict(module.named_parameters()))}


def assert_same_logits(module, model, variables, size):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(1).standard_normal((2, *size, model.in_channels)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.tensor(x).permute(0, 3, 1, 2)).numpy()
    logits = np.asarray(jax.jit(model.apply)(variables, x))
    assert np.abs(logits - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())
    np.testing.assert_array_equal(logits.argmax(-1), expected.argmax(-1))


@pytest.mark.torch
@pytest.mark.parametrize(
    "name",
    [
        "test_vit",
        "test_vit3",
        "test_vit4",
        "vit_xsmall_patch16_clip_224",
        "vit_small_patch16_18x2_224",
        "vit_small_patch14_reg4_dinov2",
        "vit_dwee_patch16_reg1_gap_256",
        "vit_pwee_patch16_reg1_gap_256",
        "vit_dpwee_patch16_reg1_gap_256",
        "deit_tiny_distilled_patch16_224",
        "deit3_small_patch16_224",
    ],
)
def test_entry_points_equal_timm(name):
    patch = VARIANTS[name]["patch_size"]
    size = (3 * patch, 2 * patch)
    assert_same_logits(*timm_pair(name, image_size=size, depth=2, num_classes=11), size)
