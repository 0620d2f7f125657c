"""Resampling of tables and kernels: by hand where that is possible, else against torch and timm."""

import numpy as np
import pytest

from jaxvit.pretrained import resample

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("method", ["bicubic", "bilinear"])
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize(("old", "new"), [(7, 7), (7, 12), (14, 5), (1, 3), (4, 1)])
def test_resizing_keeps_a_constant(method, antialias, old, new):
    matrix = resample.resize_matrix(old, new, method, antialias)
    assert matrix.shape == (new, old)
    np.testing.assert_allclose(matrix.sum(1), 1)
    if old == new:
        np.testing.assert_allclose(matrix, np.eye(old), atol=1e-12)


def test_halving_linearly_with_antialias_by_hand():
    # a triangle of half width 2 around pixel 0.5: weights 1/4, 3/4, 3/4, 1/4, cut off at the border
    matrix = resample.resize_matrix(6, 3, "bilinear", True)
    np.testing.assert_allclose(matrix[1], [0, 0.125, 0.375, 0.375, 0.125, 0])
    np.testing.assert_allclose(matrix[0], np.array([3, 3, 1, 0, 0, 0]) / 7)


def test_prefix_tokens_stay():
    table = normal(1, 2 + 12, 4)
    new = resample.resample_abs_pos_embed(table, (5, 2), (3, 4), 2)
    assert new.shape == (1, 12, 4)
    np.testing.assert_array_equal(new[:, :2], table[:, :2])


def test_bias_tables_keep_their_centre():
    table = normal(13 * 13, 3)
    new = resample.resize_rel_pos_bias_table(table, (12, 9), (7, 7))
    assert new.shape == (23 * 17, 3)
    np.testing.assert_allclose(new.reshape(23, 17, 3)[11, 8], table.reshape(13, 13, 3)[6, 6], rtol=1e-6)


def test_channels_by_hand():
    kernel = normal(2, 3, 1, 1)
    np.testing.assert_allclose(resample.adapt_input_conv(kernel, 1), kernel.sum(1, keepdims=True))
    five = resample.adapt_input_conv(kernel, 5)
    np.testing.assert_allclose(five[:, [0, 3]], kernel[:, [0, 0]] * 0.6, rtol=1e-6)
    assert resample.adapt_input_conv(kernel, 3) is kernel


@pytest.mark.torch
@pytest.mark.parametrize("method", ["bicubic", "bilinear"])
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize(
    ("old", "new", "prefix"), [((14, 14), (24, 24), 1), ((7, 9), (5, 12), 5), ((16, 16), (7, 7), 0)]
)
def test_position_tables_equal_timms(method, antialias, old, new, prefix):
    torch, _ = pytest.importorskip("torch"), pytest.importorskip("timm")
    from timm.layers import resample_abs_pos_embed

    table = normal(1, prefix + old[0] * old[1], 8)
    ours = resample.resample_abs_pos_embed(table, new, old, prefix, method=method, antialias=antialias)
    theirs = resample_abs_pos_embed(
        torch.from_numpy(table), list(new), list(old), prefix, interpolation=method, antialias=antialias
    )
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize(("method", "antialias"), [("bicubic", True), ("bilinear", False)])
@pytest.mark.parametrize(("old", "new"), [((16, 16), (8, 8)), ((8, 8), (14, 16)), ((32, 32), (14, 14))])
def test_patch_kernels_equal_timms(method, antialias, old, new):
    torch, _ = pytest.importorskip("torch"), pytest.importorskip("timm")
    from timm.layers import resample_patch_embed

    kernel = normal(4, 3, *old) / old[0]
    ours = resample.resample_patch_embed(kernel, new, method=method, antialias=antialias)
    theirs = resample_patch_embed(torch.from_numpy(kernel), list(new), method, antialias)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("old", "new"), [(7, (12, 12)), (12, (7, 7)), (7, (6, 8)), (7, (2, 2)), (8, (1, 1)), (2, (7, 7))]
)
@pytest.mark.filterwarnings("ignore")  # timm's own
def test_bias_tables_equal_timms(old, new):
    torch, _ = pytest.importorskip("torch"), pytest.importorskip("timm")
    from timm.layers import resize_rel_pos_bias_table

    table = normal((2 * old - 1) ** 2, 3)
    ours = resample.resize_rel_pos_bias_table(table, new, (old, old))
    shape = ((2 * new[0] - 1) * (2 * new[1] - 1), 3)
    theirs = resize_rel_pos_bias_table(torch.from_numpy(table), new, shape)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_channels_equal_timms(channels):
    torch, _ = pytest.importorskip("torch"), pytest.importorskip("timm")
    from timm.models._manipulate import adapt_input_conv

    kernel = normal(8, 3, 5, 5)
    theirs = adapt_input_conv(channels, torch.from_numpy(kernel))
    np.testing.assert_allclose(resample.adapt_input_conv(kernel, channels), theirs.numpy(), atol=1e-6)
