"""Conversion: the renaming, bit-equal round trips, one error for everything that does not fit, types and NaN."""

import warnings

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from flax import core, traverse_util
from safetensors.numpy import save_file

from jaxvit.errors import UserError
from jaxvit.pretrained import convert, export, load, rules
from tests.helpers import pretrained as helpers


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("blocks_0/attn/qkv/kernel", "blocks.0.attn.qkv.weight"),
        ("layer1_12/downsample_0/kernel", "layer1.12.downsample.0.weight"),
        ("layers_1/blocks_0/norm1/scale", "layers.1.blocks.0.norm1.weight"),
        ("features_0/bias", "features.0.bias"),
        ("blocks_3/attns_1/norm/scale", "blocks.3.attns.1.norm.weight"),
        ("blocks_0/mlp/fc1_g/kernel", "blocks.0.mlp.fc1_g.weight"),
        ("blocks_0/attn/lambda_q1", "blocks.0.attn.lambda_q1"),
        ("bn1/mean", "bn1.running_mean"),
        ("bn1/var", "bn1.running_var"),
        ("cls_token", "cls_token"),
    ],
)
def test_paths_become_timms_names(path, name):
    assert rules.timm_name(tuple(path.split("/"))) == name


@pytest.mark.parametrize("case", helpers.ALL.values(), ids=helpers.ALL)
def test_round_trip_is_bit_equal(case):
    model = helpers.make(case)
    state_dict = helpers.weights(model)
    variables = convert(model, state_dict)
    helpers.assert_same(export(model, variables), state_dict)
    flat = traverse_util.flatten_dict(variables)
    assert {path: leaf.shape for path, leaf in flat.items()} == {p: s.shape for p, s in rules.shapes(model).items()}
    assert all(leaf.dtype == jnp.float32 for leaf in flat.values())


def test_axes_by_hand():
    model = helpers.make(helpers.RESNET)
    state_dict = helpers.weights(model)
    params = convert(model, state_dict)["params"]
    assert params["fc"]["kernel"][3, 1] == state_dict["fc.weight"][1, 3]
    assert params["conv1_0"]["kernel"][0, 1, 2, 3] == state_dict["conv1.0.weight"][3, 2, 0, 1]
    eca = helpers.make(helpers.ECA)
    state_dict = helpers.weights(eca)
    kernel = convert(eca, state_dict)["params"]["layer1_0"]["se"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel[:, 0, 0], state_dict["layer1.0.se.conv.weight"][0, 0])


def test_the_source_is_copied():
    model = helpers.make(helpers.VIT)
    state_dict = helpers.weights(model)
    variables = convert(model, state_dict)
    before = np.array(variables["params"]["cls_token"])
    state_dict["cls_token"][:] = 7
    np.testing.assert_array_equal(variables["params"]["cls_token"], before)


def test_one_error_names_everything():
    model = helpers.make(helpers.VIT)
    state_dict = helpers.weights(model)
    del state_dict["norm.weight"]
    state_dict["nrom.weight"] = np.zeros(3, np.float32)
    state_dict["head.bias"] = np.zeros(4, np.float32)
    state_dict["cls_token"] = np.zeros((1, 1, 192), np.int32)
    with pytest.raises(UserError) as error:
        convert(model, state_dict)
    text = str(error.value)
    assert "1 missing, 1 unexpected, 1 misshapen, 1 wrong type" in text
    for line in (
        "missing    norm.weight [192]",
        "unexpected nrom.weight [3]",
        "misshapen  head.bias is [4], expected [5]",
        "wrong type cls_token is int32, expected a float",
    ):
        assert line in text
    assert len(text.splitlines()) == 5


def test_a_long_table_ends_in_a_count():
    model = helpers.make(helpers.VIT)
    with pytest.raises(UserError) as error:
        convert(model, {})
    lines = str(error.value).splitlines()
    total = len(rules.rules_of(model))
    assert len(lines) == 22
    assert lines[-1].strip() == f"... and {total - 20} more"
    assert f"{total} missing" in lines[0]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_floats_become_float32(dtype):
    model = helpers.make(helpers.VIT)
    state_dict = {k: v.astype(jnp.dtype(dtype)) for k, v in helpers.weights(model).items()}
    kernel = convert(model, state_dict)["params"]["head"]["kernel"]
    assert kernel.dtype == jnp.float32
    np.testing.assert_array_equal(kernel, state_dict["head.weight"].astype(np.float32).T)


@pytest.mark.parametrize("dtype", [np.int64, np.complex64, np.bool_])
def test_what_is_no_float_is_refused(dtype):
    model = helpers.make(helpers.VIT)
    state_dict = helpers.weights(model)
    state_dict["head.bias"] = np.zeros(5, dtype)
    with pytest.raises(UserError, match="1 wrong type"):
        convert(model, state_dict)


def test_nan_is_counted_and_loaded():
    model = helpers.make(helpers.VIT)
    state_dict = helpers.weights(model)
    state_dict["head.bias"][:2] = np.nan
    state_dict["cls_token"][0, 0, 0] = np.inf
    with pytest.warns(UserWarning, match="3 weights in 2 tensors are NaN or infinite"):
        variables = convert(model, state_dict)
    assert np.isnan(variables["params"]["head"]["bias"]).sum() == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert(model, helpers.weights(model))


def test_export_is_total_too():
    model = helpers.make(helpers.VIT)
    variables = convert(model, helpers.weights(model))
    export(model, core.freeze(variables))
    variables["params"]["extra"] = jnp.zeros(2)
    variables["params"]["head"]["kernel"] = jnp.zeros((5, 192))
    del variables["params"]["cls_token"]
    with pytest.raises(UserError, match="1 missing, 1 unexpected, 1 misshapen"):
        export(model, variables)
    with pytest.raises(UserError, match="not a model of jaxvit"):
        export(nn.Dense(3), {})
    with pytest.raises(UserError, match="state_dict is Dense; expected arrays by timm's names"):
        convert(model, nn.Dense(3))  # as torch's module instead of its state_dict()


def test_nesting_and_prefixes():
    model = helpers.make(helpers.VIT)
    state_dict = helpers.weights(model)
    wrapped = {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state_dict.items()}}
    helpers.assert_same(export(model, convert(model, wrapped)), state_dict)
    compiled = {"model": {f"_orig_mod.module.{k}": v for k, v in state_dict.items()}, "model_ema": state_dict}
    helpers.assert_same(export(model, convert(model, compiled)), state_dict)


def test_buffers_that_hold_no_weights_are_left_out_with_a_note(tmp_path, caplog):
    """A counter of a norm that this model has not, a mask, what counters of operations leave behind."""
    model = helpers.make(helpers.VIT)
    wanted = helpers.weights(model)
    buffers = {
        "blocks.0.norm1.num_batches_tracked": np.ones((), np.int64),
        "blocks.0.attn.attn_mask": np.zeros((4, 4), np.float32),
        "text.position_ids": np.arange(4),
        "total_ops": np.ones(1, np.float64),
        "steps_done": np.ones((), np.int32),
    }
    with caplog.at_level("INFO", "jaxvit"):
        helpers.assert_same(export(model, convert(model, wanted | buffers)), wanted)
    assert f"not loaded, as they hold no weights: {', '.join(buffers)}" in caplog.text
    save_file(wanted | buffers, tmp_path / "model.safetensors")
    name, fields = helpers.VIT
    loaded = load(name, str(tmp_path / "model.safetensors"), **fields)
    helpers.assert_same(export(loaded.model, loaded.variables), wanted)
    assert [note for note in loaded.notes if "hold no weights" in note and "total_ops" in note]
    for name, array in (("mask_tokens", np.ones(3, np.float32)), ("indexed.weight", np.ones((3, 3), np.float32))):
        with pytest.raises(UserError, match=f"1 unexpected.\n  unexpected {name}"):
            convert(model, wanted | {name: array})
