"""Names of parameters and of timm's tensors."""

import pytest

from jaxvit.models.names import module_path, timm_name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("layer1_0/conv1/kernel", "layer1.0.conv1.weight"),
        ("blocks_11/attn/qkv/bias", "blocks.11.attn.qkv.bias"),
        ("layers_2/blocks_5/norm1/scale", "layers.2.blocks.5.norm1.weight"),
        ("bn1/var", "bn1.running_var"),
        ("features_0/mean", "features.0.running_mean"),
        ("pos_embed", "pos_embed"),
        ("fc1_g/kernel", "fc1_g.weight"),  # no number behind the stroke
    ],
)
def test_a_path_is_spelt_as_timm_spells_it(path, name):
    assert timm_name(tuple(path.split("/"))) == name


@pytest.mark.parametrize("name", ["layer1.0.conv1", "blocks.11.attn.qkv", "layers.2.blocks.5", "head", "pre_logits.fc"])
def test_a_module_is_spelt_as_linen_spells_it_and_back(name):
    path = module_path(name)
    assert "." not in path and timm_name((*path.split("/"), "kernel")) == f"{name}.weight"
