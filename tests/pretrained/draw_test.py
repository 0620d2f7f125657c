"""Random weights of realistic scale."""

import numpy as np

from jaxvit.pretrained import draw


def test_a_tensor_depends_on_its_name_and_seed_alone():
    first = draw.state_dict({"a.weight": (4, 3), "b.weight": (4, 3)})
    np.testing.assert_array_equal(first["a.weight"], draw.draw("a.weight", (4, 3)))
    assert not np.array_equal(first["a.weight"], first["b.weight"])
    assert not np.array_equal(first["a.weight"], draw.draw("a.weight", (4, 3), seed=1))


def test_scales_are_those_of_trained_networks():
    assert abs(draw.draw("fc.weight", (500, 400)).std() * 20 - 1) < 0.02  # 1 / sqrt(fan in)
    assert abs(draw.draw("norm.weight", (500,)).mean() - 1) < 0.02
    variance = draw.draw("bn.running_var", (500,))
    assert variance.min() >= 0.5 and variance.max() <= 1.5
    assert draw.draw("bn.num_batches_tracked", ()) == 0
    assert draw.draw("bn.num_batches_tracked", ()).dtype == np.int64
