"""The entry points of the ViTs: fields, sizes, timm's numbers."""

import jax
import jax.numpy as jnp
import pytest

from jaxvit.models.vit import VisionTransformer, check_fields
from jaxvit.models.vit_variants import VARIANTS
from tests.helpers.timm_vit import assert_same_logits, timm_pair


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
