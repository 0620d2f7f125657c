"""Small models and drawn weights for the tests of pretrained weights."""

import numpy as np

from jaxvit.models.registry import create_model
from jaxvit.pretrained import draw, rules

VIT = ("vit_tiny_patch16_224", {"depth": 2, "image_size": 32, "num_classes": 5})
DEIT = ("deit_tiny_distilled_patch16_224", {"depth": 1, "image_size": 32, "num_classes": 5})
SWIN = (
    "swin_tiny_patch4_window7_224",
    {"depths": (1, 2), "num_heads": (2, 4), "embed_dim": 16, "image_size": 32, "window_size": 4, "num_classes": 5},
)
RESNET = ("test_resnet", {"num_classes": 5, "image_size": 32})
ECA = ("ecaresnet26t", {"layers": (1, 1, 1, 1), "channels": (16, 16, 32, 32), "num_classes": 5, "image_size": 32})
VGG = ("vgg11_bn", {"cfg": (8, "M", 4, "M"), "head_hidden_size": 16, "num_classes": 5, "image_size": 32})
ALEXNET = ("alexnet", {"head_hidden_size": 8, "num_classes": 5, "image_size": 64})
CONVNEXT = (
    "convnextv2_atto", {"depths": (1, 2, 1, 1), "dims": (8, 8, 16, 16), "num_classes": 5, "image_size": 32},
)  # fmt: skip
EVA = (
    "vit_small_patch16_dinov3",
    {"depth": 1, "embed_dim": 16, "num_heads": 2, "patch_size": 8, "num_classes": 5, "image_size": 32},
)
SWIN_V2 = ("swinv2_tiny_window8_256", SWIN[1])
ALL = {
    "vit": VIT, "deit": DEIT, "eva": EVA, "swin": SWIN, "swinv2": SWIN_V2, "resnet": RESNET, "eca": ECA,
    "convnext": CONVNEXT, "vgg": VGG, "alexnet": ALEXNET,
}  # fmt: skip


def make(case, **fields):
    """A small model of one of the cases above."""
    name, own = case
    return create_model(name, **{**own, **fields})


def weights(model, seed=0):
    """A state dict in timm's names that fits the model, counters of BatchNorm included."""
    shapes = {rule.name: rule.shape for rule in rules.rules_of(model)}
    shapes |= {n.replace("running_var", "num_batches_tracked"): () for n in shapes if n.endswith("running_var")}
    return draw.state_dict(shapes, seed)


def assert_same(ours, wanted):
    """Two state dicts with the same names, types and bits."""
    assert ours.keys() == wanted.keys()
    for name, array in wanted.items():
        assert ours[name].dtype == array.dtype, name
        np.testing.assert_array_equal(ours[name], array, err_msg=name)
