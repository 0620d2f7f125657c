"""Multiply-accumulates against published figures and against counts by hand."""

import flax.linen as nn
import pytest

from jaxvit import create_model
from jaxvit.models.macs import count_macs
from jaxvit.runtime import console

# timm's benchmark tables (results/benchmark-infer-*.csv), GMACs at 224x224.
PUBLISHED = {
    "resnet18": 1.82,
    "resnet50": 4.11,
    "vgg16": 15.47,
    "vit_tiny_patch16_224": 1.26,
    "vit_base_patch16_224": 17.58,
    "swin_tiny_patch4_window7_224": 4.51,
    "swin_base_patch4_window7_224": 15.47,
    "convnext_tiny": 4.47,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures(name):
    assert count_macs(create_model(name), (224, 224, 3)) / 1e9 == pytest.approx(PUBLISHED[name], rel=0.01)


def test_grouped_strided_convolution_by_hand():
    model = nn.Conv(8, (3, 3), strides=2, padding=1, feature_group_count=2)
    assert count_macs(model, (10, 10, 4)) == 5 * 5 * 8 * 3 * 3 * 2


def test_figures_have_a_space_before_prefix_and_unit():
    said = {640: "640 MACs", 0: "0 MACs", 19_300: "19.3 kMACs", 1.26e9: "1.26 GMACs"}
    assert {n: console.count(n, "MACs") for n in said} == said
    assert (console.count(640), console.count(5_717_416)) == ("640", "5.72 M")
