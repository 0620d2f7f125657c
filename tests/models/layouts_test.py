"""Names of other libraries become timm's."""

import numpy as np
import pytest

from jaxvit.errors import UserError
from jaxvit.models.layouts import fuse_qkv, rename


def test_rows_apply_in_order_and_none_drops():
    table = ((r"^model\.", ""), (r"^decoder\.", None), (r"\.gain$", ".weight"))
    assert rename({"model.norm.gain": 1, "model.decoder.x": 2, "head": 3}, table) == {"norm.weight": 1, "head": 3}


def test_two_tensors_of_one_name_are_refused():
    with pytest.raises(UserError, match="norm"):
        rename({"a.norm": 1, "b.norm": 2}, ((r"^[ab]\.", ""),))


def test_query_key_and_value_are_joined_in_this_order():
    parts = {f"blocks.0.attn.{part}.weight": np.full((2, 2), i) for i, part in enumerate("vkq")}
    fused = fuse_qkv({**parts, "head.weight": np.ones(1)})
    np.testing.assert_array_equal(fused["blocks.0.attn.qkv.weight"][:, 0], [2, 2, 1, 1, 0, 0])
    assert fused.keys() == {"blocks.0.attn.qkv.weight", "head.weight"}


def test_what_is_not_whole_is_left_for_the_list_of_what_does_not_fit():
    given = {"blocks.0.attn.q.weight": np.ones((2, 2)), "blocks.0.attn.k.weight": np.ones((2, 2))}
    assert fuse_qkv(given).keys() == given.keys()
