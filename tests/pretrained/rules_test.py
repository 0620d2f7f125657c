"""Every name at full size: the tensors of our model have the names and shapes of timm's, so conversion is total."""

import pytest

from jaxvit.models.registry import create_model, list_models
from jaxvit.pretrained import rules

NAMES = [name for name in list_models() if name != "alexnet"]
SAMPLE = ["vit_so400m_patch14_siglip_378", "beit3_base_patch16_224", "deit3_base_patch16_384", "swin_s3_base_224",
          "seresnextaa101d_32x8d", "ecaresnet50d_pruned", "senet154", "resnet50_gn", "vgg19_bn"]  # fmt: skip


def assert_structure(name):
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    with torch.device("meta"):
        theirs = timm.create_model(name).state_dict()
    wanted = {key: tuple(x.shape) for key, x in theirs.items() if not key.endswith("num_batches_tracked")}
    assert {rule.name: rule.shape for rule in rules.rules_of(create_model(name))} == wanted


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SAMPLE)
def test_names_and_shapes_of_some(name):
    assert_structure(name)


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes_of_all(name):
    assert_structure(name)
