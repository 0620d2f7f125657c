"""Whose weights a file holds."""

import re

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxvit.errors import UserError
from jaxvit.pretrained import identify, load, load_pretrained
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


@pytest.mark.parametrize(("name", "found"), [("deit3_medium_patch16_224", True), ("deit3_small_patch16_224", False)])
def test_names_that_two_families_have_mislead_nobody(name, found):
    """DeiT III was released with names of layer scales that RoPE ViTs have, of the same small and base networks."""
    zero = np.zeros(1, np.float32)
    shapes = {rule.name: rule.shape for rule in helpers.rules.rules_of(helpers.make((name, {})))}
    state = {re.sub(r"ls(\d)\.gamma", r"gamma_\1", n): np.broadcast_to(zero, shape) for n, shape in shapes.items()}
    assert (name in identify.identify(state)) == found
    assert identify.hint(name, state) == ""


def test_a_file_of_another_model_is_recognised_under_its_prefix(tmp_path):
    state = helpers.weights(helpers.make(("resnet18", {"num_classes": 5})))
    save_file({f"net.{name}": array for name, array in state.items()}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="The file looks like 'resnet18'"):
        load("vit_tiny_patch16_224", tmp_path / "x.safetensors")
