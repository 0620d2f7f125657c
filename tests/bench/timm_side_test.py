"""Against timm where it is installed: the products counted, and one comparison in a process of its own."""

import sys

import pytest

from jaxvit import create_model
from jaxvit.bench import compare
from jaxvit.models.macs import count_macs

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
pytestmark = pytest.mark.torch

NAMES = ("resnet18", "resnet50", "resnext50_32x4d", "vit_small_patch16_224", "deit3_small_patch16_224",
         "swin_tiny_patch4_window7_224", "vgg11_bn")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_products_are_those_of_timms_model(name):
    from torch.utils.flop_counter import FlopCounterMode

    timm.layers.set_fused_attn(False)  # the counter does not see into the fused one
    model = timm.create_model(name).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 224, 224))
    ours = count_macs(create_model(name), (224, 224, 3))
    assert 2 * ours == pytest.approx(counter.get_total_flops(), rel=1e-3)


def test_timm_answers_for_our_rows():
    row = {"model": "resnet18", "dtype": "float32", "mode": "infer", "batch_size": 1, "image_size": [32, 32]}
    row |= {"fields": {"stem": "cifar", "num_classes": 7}, "images_per_second": {"median": 1.0}}
    compare.check_timm(sys.executable)
    versions, rows = compare.timm_rows([row], python=sys.executable, compile_too=False, repeats=1, seconds=0.01)
    assert versions["timm"] == timm.__version__
    assert rows[0]["parameters"] == 11_172_423  # 11.17 M: ten classes less three, the 3x3 stem
    (entry,) = compare.ratios([row], rows)
    assert entry["eager"] == pytest.approx(1 / rows[0]["images_per_second"]["median"])
