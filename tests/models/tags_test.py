"""Tags of timm's weights: names, classes, sizes, where the files lie."""

import pytest

from jaxvit.models import registry
from jaxvit.models.tags import renamed, tag_tables


def test_a_tag_brings_its_classes_and_image_size():
    model = registry.create_model("swin_base_patch4_window12_384.ms_in22k")
    assert (model.num_classes, model.image_size) == (21841, 384)
    assert registry.create_model("vit_base_patch16_224.dino").num_classes == 0
    assert registry.create_model("resnet50.a3_in1k").image_size == 160
    assert registry.create_model("resnet50.a3_in1k", num_classes=7, image_size=32).num_classes == 7


def test_list_models_with_tags():
    tags = registry.list_models("resnet18", pretrained=True)
    assert "resnet18.a1_in1k" in tags and all(t.startswith("resnet18.") for t in tags)
    assert registry.list_models("swin_*.ms_in22k", pretrained=True) == [
        "swin_base_patch4_window7_224.ms_in22k",
        "swin_base_patch4_window12_384.ms_in22k",
        "swin_large_patch4_window7_224.ms_in22k",
        "swin_large_patch4_window12_384.ms_in22k",
        "swin_small_patch4_window7_224.ms_in22k",
        "swin_tiny_patch4_window7_224.ms_in22k",
    ]
    assert registry.list_models("alexnet*", pretrained=True) == ["alexnet.tv_in1k"]


def test_split_tag():
    assert registry.split_tag("resnet18.a1_in1k") == ("resnet18", "a1_in1k")
    assert registry.split_tag("resnet18") == ("resnet18", None)


def test_tag_info_says_where_the_weights_lie():
    assert registry.tag_info("deit_tiny_patch16_224")["hub"] == "timm/deit_tiny_patch16_224.fb_in1k"
    quick = registry.tag_info("vit_base_patch32_clip_quickgelu_224.openai")
    assert quick["hub"] == "timm/vit_base_patch32_clip_224.openai"  # shares the file of the plain name
    assert registry.tag_info("deit_tiny_distilled_patch16_224")["classifier"] == ("head", "head_dist")
    alexnet = registry.tag_info("alexnet")
    assert alexnet["hub"] is None and alexnet["url"].endswith("alexnet-owt-7be5be79.pth")
    assert not registry.tag_info("vit_large_patch14_224")["has_weights"]


def test_every_former_name_leads_to_one_of_today():
    for new in renamed().values():
        assert registry.tag_info(new)


@pytest.mark.torch
def test_every_tag_equals_timms():
    timm = pytest.importorskip("timm")
    for name, tags in tag_tables().items():
        for tag in tags if name != "alexnet" else ():
            full = f"{name}.{tag}" if tag else name
            cfg = timm.get_pretrained_cfg(full)
            expected = timm.data.resolve_data_config(pretrained_cfg=cfg.to_dict())
            config = registry.data_config(full)
            config["input_size"] = (config.pop("in_channels"), *config.pop("image_size"))
            assert (full, config.pop("num_classes")) == (full, cfg.num_classes)
            assert (full, config) == (full, expected)
            info = registry.tag_info(full)
            assert (full, info["hub"], info["license"]) == (full, cfg.hf_hub_id or None, cfg.license)
            assert (full, info["classifier"], info["first_conv"]) == (full, cfg.classifier, cfg.first_conv)
            assert (full, info["fixed_input_size"]) == (full, cfg.fixed_input_size)
            assert info["hub"] or info["url"] == (cfg.url or None)
