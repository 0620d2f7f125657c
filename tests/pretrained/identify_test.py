"""Whose weights a file holds."""

import pytest
from safetensors.numpy import save_file

from jaxvit.errors import UserError
from jaxvit.pretrained import load, load_pretrained
from tests.helpers import pretrained as helpers


@pytest.mark.parametrize(
    ("name", "other", "fields"),
    [
        ("vit_small_patch16_224", "vit_tiny_patch16_224", {"image_size": 32}),
        ("vit_base_patch16_224", "swin_tiny_patch4_window7_224", {}),
        ("resnet50", "resnet18", {}),
        ("resnet50", "vit_tiny_patch16_224", {"image_size": 32}),
        ("deit_tiny_distilled_patch16_224", "vit_tiny_patch16_224", {"image_size": 32}),
        ("swin_small_patch4_window7_224", "swin_tiny_patch4_window7_224", {}),
    ],
)
def test_the_file_of_another_model_is_recognised(tmp_path, name, other, fields):
    save_file(helpers.weights(helpers.make((other, fields))), tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=f"The file looks like .*'{other}'") as error:
        load_pretrained(name, tmp_path / "x.safetensors")
    assert len(str(error.value).splitlines()) <= 23


def test_a_file_of_another_model_is_recognised_under_its_prefix(tmp_path):
    state = helpers.weights(helpers.make(("resnet18", {"num_classes": 5})))
    save_file({f"net.{name}": array for name, array in state.items()}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="The file looks like 'resnet18'"):
        load("vit_tiny_patch16_224", tmp_path / "x.safetensors")
