"""Swin V2: coordinates and cosines by hand; layouts of others; numbers, gradients and decay groups equal to timm's."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit import create_model, optim, pretrained, tree
from jaxvit.errors import UserError
from jaxvit.models import swin_v2
from jaxvit.pretrained import draw
from tests.helpers import pretrained as helpers

SMALL = {"image_size": 32, "embed_dim": 16, "depths": (1, 2), "num_heads": (2, 4), "window_size": 4, "num_classes": 5}
CASE = ("swinv2_tiny_window8_256", SMALL)


def test_coordinates_by_hand():
    table = swin_v2.log_coordinates((2, 3), 0).reshape(3, 5, 2)
    np.testing.assert_allclose(table[:, 0, 0], [-np.log2(9) / 3, 0, np.log2(9) / 3], rtol=1e-6)
    np.testing.assert_allclose(table[0, :, 1], np.log2([9, 5, 1, 5, 9]) / 3 * [-1, -1, 1, 1, 1], rtol=1e-6)
    larger = swin_v2.log_coordinates((4, 4), 3).reshape(7, 7, 2)  # farther than in pretraining
    np.testing.assert_allclose(larger[-1, 0], [np.log2(13) / 3, -np.log2(13) / 3], rtol=1e-6)
    assert not swin_v2.log_coordinates((1, 1), 0).any()


def test_unit_length_of_nothing_is_nothing():
    x = np.float32([[3, 4], [0, 0]])
    np.testing.assert_allclose(swin_v2.unit_length(x), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    assert np.isfinite(jax.grad(lambda x: swin_v2.unit_length(x).sum())(x)).all()
    assert swin_v2.unit_length(x.astype(jnp.bfloat16)).dtype == jnp.float32


def test_what_decays_and_what_is_refused():
    model = helpers.make(CASE)
    params = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))["params"]
    decays = tree.named_leaves(optim.decay_mask(params))
    attn = {path.split("attn/")[1] for path, on in decays.items() if on and "attn/" in path}
    assert attn == {"qkv/kernel", "proj/kernel"}
    with pytest.raises(UserError, match=r"pretrained_window_sizes=\(12,\) has 1 entries"):
        helpers.make(CASE, pretrained_window_sizes=(12,))


def microsoft(state):
    """The first release: merging ends a stage there, and buffers lie in the file."""
    made = {re.sub(r"layers\.1\.downsample", "layers.0.downsample", n): a for n, a in state.items()}
    made = {n.replace("head.fc.", "head."): a for n, a in made.items()}
    attn = "layers.0.blocks.0.attn"
    made |= {
        f"{attn}.relative_position_index": np.zeros((16, 16), np.int64),
        "layers.0.blocks.0.attn_mask": np.zeros(3),
    }
    return {"model": made | {f"{attn}.relative_coords_table": np.zeros((1, 7, 7, 2), np.float32)}}


def transformers(state):
    """Transformers' Swinv2ForImageClassification."""
    made = {}
    for name, array in state.items():
        if ".attn.qkv." in name:
            start = name.replace("layers.", "swinv2.encoder.layers.").replace(".attn.qkv.", ".attention.self.{}.")
            made |= {start.format(p): a for p, a in zip(("query", "key", "value"), np.split(array, 3), strict=True)}
            continue
        for old, new in (
            (r"^layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample"),
            (r"\.attn\.q_bias", ".attention.self.query.bias"), (r"\.attn\.v_bias", ".attention.self.value.bias"),
            (r"\.attn\.cpb_mlp\.", ".attention.self.continuous_position_bias_mlp."),
            (r"\.attn\.logit_scale", ".attention.self.logit_scale"), (r"\.attn\.proj", ".attention.output.dense"),
            (r"(blocks\.\d)\.norm1", r"\1.layernorm_before"), (r"(blocks\.\d)\.norm2", r"\1.layernorm_after"),
            (r"\.mlp\.fc1", ".intermediate.dense"), (r"\.mlp\.fc2", ".output.dense"),
            (r"^layers", "swinv2.encoder.layers"), (r"^norm", "swinv2.layernorm"), (r"^head\.fc", "classifier"),
            (r"^patch_embed\.proj", "swinv2.embeddings.patch_embeddings.projection"),
            (r"^patch_embed\.norm", "swinv2.embeddings.norm"),
        ):  # fmt: skip
            name = re.sub(old, new, name)
        made[name] = array
    return made


@pytest.mark.parametrize("layout", [microsoft, transformers])
def test_layouts_of_others(layout):
    model = helpers.make(CASE)
    wanted = helpers.weights(model)
    helpers.assert_same(pretrained.export(model, pretrained.convert(model, layout(wanted))), wanted)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"image_size": (40, 56), "window_size": (3, 4), "pretrained_window_sizes": (12, 6)},
        {"image_size": 16, "window_size": 8, "qkv_bias": False},
        {"image_size": (16, 40), "always_partition": True, "act_layer": "silu", "global_pool": "catavgmax"},
    ],
)
def test_numbers_gradients_and_groups_equal_timms(fields):
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    from timm.optim import param_groups_layer_decay

    model = helpers.make(CASE, **fields)
    args = {{"image_size": "img_size"}.get(k, k): v for k, v in {**SMALL, **fields}.items()}
    theirs = timm.create_model(CASE[0], drop_path_rate=0.0, **args).train()
    state = helpers.weights(model)
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    h, w = model.image_size if isinstance(model.image_size, tuple) else (model.image_size,) * 2
    images = draw.images("swinv2", 2, h, w)
    variables = pretrained.convert(model, state)
    run = partial(model.clone(drop_path_rate=0.0).apply, train=True)

    @jax.jit
    def both(variables):
        out, back = jax.vjp(lambda v: run(v, images), variables)
        return out, back(jnp.cos(out))[0]

    out, gradient = both(variables)
    wanted = theirs(torch.from_numpy(images).permute(0, 3, 1, 2))
    np.testing.assert_allclose(out, wanted.detach(), atol=1e-4 * max(1, float(wanted.abs().max())))
    torch.sin(wanted).sum().backward()
    ours = pretrained.export(model, gradient)
    for name, parameter in theirs.named_parameters():
        scale = max(1e-3, float(parameter.grad.abs().max()))
        np.testing.assert_allclose(ours[name], parameter.grad, atol=1e-3 * scale, err_msg=name)
    names = {id(p): name for name, p in theirs.named_parameters()}
    groups = param_groups_layer_decay(
        theirs, weight_decay=0.1, no_weight_decay_list=theirs.no_weight_decay(), layer_decay=0.75
    )
    found = {names[id(p)]: (g["lr_scale"], g["weight_decay"] > 0) for g in groups for p in g["params"]}
    params = variables["params"]
    rules = {"/".join(rule.path[1:]): rule.name for rule in pretrained.rules.rules_of(model)}
    decays, scales = tree.named_leaves(optim.decay_mask(params)), optim.layer_scales(params, 0.75)
    assert {rules[path]: (pytest.approx(scales[path]), decays[path]) for path in decays} == found


@pytest.mark.torch
def test_images_of_other_sizes_equal_timms_dynamic_size():
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    model = helpers.make(CASE)
    theirs = timm.create_model(CASE[0], dynamic_img_size=True, **{{"image_size": "img_size"}.get(k, k): v for k, v in
                               SMALL.items()}).eval()  # fmt: skip
    state = helpers.weights(model)
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    variables = pretrained.convert(model, state)
    for h, w in ((40, 24), (8, 56)):
        images = draw.images("swinv2", 2, h, w)
        with torch.no_grad():
            wanted = theirs(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
        np.testing.assert_allclose(model.apply(variables, images), wanted, atol=1e-4 * max(1, np.abs(wanted).max()))


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
@pytest.mark.parametrize(
    "fields",
    [
        {"image_size": (28, 8), "window_size": 5, "always_partition": True, "global_pool": "max"},
        {"image_size": (32, 18), "crop_to_patches": True, "global_pool": "", "num_classes": 0},
    ],
    ids=str,
)
def test_options_equal_timms(name, fields):
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    fields = {**SMALL, **fields}
    model = create_model(name, **fields)
    state, images = helpers.weights(model), draw.images("options", 1, *model.image_size)
    cropped = fields.pop("crop_to_patches", False)
    theirs = timm.create_model(name, **{{"image_size": "img_size"}.get(k, k): v for k, v in fields.items()}).eval()
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    found = jax.jit(model.apply)(pretrained.convert(model, state), images)
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-4 * max(1, np.abs(wanted).max()))
    with pytest.raises(UserError, match=r"strict_img_size=False|divisible"):
        model.clone(strict_img_size=True, crop_to_patches=False).apply({}, images[:, : 18 if cropped else 8])


def test_the_entry_points_of_22000_classes():
    assert create_model("swinv2_large_window12_192").num_classes == 21841
