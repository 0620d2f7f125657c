"""EVA and its relatives: their options by properties, their mistakes, and timm's numbers where it is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit import models
from jaxvit.errors import UserError
from jaxvit.models import eva, registry
from jaxvit.models.eva import Eva
from jaxvit.pretrained import convert, draw, export
from tests.helpers import pretrained as helpers

TINY = {"image_size": (8, 12), "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}
ROPE = {"use_rot_pos_emb": True, "use_abs_pos_emb": False}


def tiny(**fields):
    return Eva(**(TINY | fields))


def drawn(model):
    return convert(model, helpers.weights(model))


def run(model, variables, x, **options):
    return np.asarray(jax.jit(lambda v, x: model.apply(v, x, **options))(variables, x))


def test_one_model_for_images_of_any_size():
    """Zeros fill the last patches; another size has the positions of a model of that size."""
    free = tiny(dynamic_img_size=True, dynamic_img_pad=True, **ROPE)
    variables, x = drawn(free), draw.images("any", 2, 13, 10)
    logits = run(free, variables, x)
    whole = np.pad(x, ((0, 0), (0, 3), (0, 2), (0, 0)))
    np.testing.assert_array_equal(run(free, variables, whole), logits)
    np.testing.assert_allclose(run(tiny(image_size=(16, 12), **ROPE), variables, whole), logits, atol=1e-6)
    with pytest.raises(UserError, match="does not fit the model's image_size 8x12"):
        run(tiny(**ROPE), variables, whole)


def test_grouped_queries_are_heads_with_the_same_keys():
    fields = {"num_heads": 4, "attn_type": "rope", "qkv_fused": False, "rope_type": "dinov3", **ROPE}
    grouped = tiny(num_kv_heads=(4, 2), **fields)
    variables = drawn(grouped)
    block = dict(variables["params"]["blocks_1"])
    attn = dict(block["attn"])
    for part in ("k_proj", "v_proj"):
        per_head = jax.tree.map(lambda a: a.reshape(*a.shape[:-1], 2, 4), attn[part])
        attn[part] = jax.tree.map(lambda a: jnp.repeat(a, 2, -2).reshape(*a.shape[:-2], 16), per_head)
    repeated = {"params": {**variables["params"], "blocks_1": {**block, "attn": attn}}}
    x = draw.images("groups", 2, 8, 12)
    np.testing.assert_allclose(run(tiny(**fields), repeated, x), run(grouped, variables, x), atol=1e-6)


def test_one_loop_and_less_memory_compute_the_same():
    fields = {"init_values": 0.1, "num_reg_tokens": 2, "rope_rotate_half": True, **ROPE}
    variables, x = drawn(tiny(**fields)), draw.images("loop", 2, 8, 12)
    logits = run(tiny(**fields), variables, x)
    np.testing.assert_allclose(run(tiny(scan=True, remat="dots", **fields), variables, x), logits, atol=1e-6)


def test_training_moves_all_places_by_its_key():
    model = tiny(depth=1, rope_type="dinov3", rope_rescale_coords=3.0, **ROPE)
    variables, x = drawn(model), draw.images("drop", 2, 8, 12)
    train = jax.jit(lambda key: model.apply(variables, x, train=True, rngs={"dropout": key}))
    one, again, other = (np.asarray(train(jax.random.key(i))) for i in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-4


def test_patches_keep_their_places_when_others_are_dropped(monkeypatch):
    """A permutation of all patches instead of a choice changes nothing."""
    model = tiny(depth=1, rope_type="mixed", patch_drop_rate=0.5, **ROPE)
    variables, x = drawn(model), draw.images("places", 2, 8, 12)
    order = jnp.asarray([[3, 1, 0, 5, 4, 2], [5, 0, 2, 1, 3, 4]])
    monkeypatch.setattr(eva, "draw_patches", lambda key, shape, rate: order)
    shuffled = run(model, variables, x, train=True, rngs={"dropout": jax.random.key(0)})
    np.testing.assert_allclose(shuffled, run(model, variables, x), atol=1e-5)


def test_bfloat16_and_the_start():
    model = tiny(dtype=jnp.bfloat16, use_post_norm=True, swiglu_mlp=True, embed_dim=64, **ROPE)
    logits, variables = jax.jit(model.init_with_output)(jax.random.key(0), draw.images("16 bits", 2, 8, 12))
    assert logits.dtype == jnp.float32 and {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    params = variables["params"]
    stds = [np.std(params["blocks_1"][part][last]["kernel"]) for part, last in (("attn", "proj"), ("mlp", "fc2"))]
    np.testing.assert_allclose(stds, 0.02 / 2, rtol=0.05)  # of block i: divided by the root of 2 (i + 1)
    np.testing.assert_allclose(np.std(params["blocks_0"]["mlp"]["fc1"]["kernel"]), 0.02, rtol=0.05)
    assert np.std(params["head"]["kernel"]) < 1e-4


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rope_type": "mrope"}, "rope_type='mrope' is unknown"),
        ({"num_heads": 8, **ROPE}, "multiple of 4"),
        ({"rope_type": "mixed", "rope_rotate_half": True, **ROPE}, "rope_rotate_half=False"),
        ({"class_token": False, "global_pool": "token"}, "class_token=True"),
        ({"global_pool": "map", "attn_pool_num_heads": 3}, "attn_pool_num_heads=3"),
        ({"dynamic_img_pad": True, "crop_to_patches": True}, "crop_to_patches=False"),
        ({"rope_jitter_coords": 0.5}, "rope_jitter_coords=0.5 is too small"),
        ({"num_kv_heads": (2,)}, "one for each of depth=2"),
        ({"num_kv_heads": 1}, "qkv_fused=False"),
        ({"num_kv_heads": 3}, "num_kv_heads=3"),
        ({"use_post_norm": True, "qk_norm": True}, "use_post_norm=True has no qk_norm"),
        ({"scan": True, "rope_type": "mixed", **ROPE}, "scan=True needs equal blocks"),
        ({"attn_implementation": "cudnn", "attn_drop_rate": 0.1}, "attn_drop_rate"),
    ],
)
def test_fields_that_do_not_fit(fields, words):
    with pytest.raises(UserError, match=words):
        models.create_model("eva02_tiny_patch14_224", **{**TINY, "use_rot_pos_emb": False, **fields})


# Parity with timm: every kind of entry, small.

SIZES = ("embed_dim", "depth", "num_heads", "image_size", "patch_size", "num_classes", "num_kv_heads", "mlp_ratio")


def kinds():
    """Of entries that differ in their sizes alone the first."""
    found: dict[str, str] = {}
    for name, fields in registry.FAMILIES["eva"].variants.items():
        found.setdefault(str(sorted((k, v) for k, v in fields.items() if k not in SIZES)), name)
    return list(found.values())


def pair(name, **fields):
    """Timm's model and ours, small, with the same weights."""
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    small = registry.FAMILIES["eva"].small(registry.model_fields(name))
    small |= {"num_classes": 5, "image_size": (16, 24), **fields}
    model = registry.create_model(name, **small)
    words = {"image_size": "img_size", "in_channels": "in_chans"}
    theirs = timm.create_model(name, **{words.get(k, k): v for k, v in small.items()}).eval()
    state = draw.state_dict({k: tuple(v.shape) for k, v in theirs.state_dict().items()})
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    variables = convert(model, state)
    helpers.assert_same(export(model, variables), state)
    return model, variables, theirs


def assert_same_logits(model, variables, theirs, size):
    torch = pytest.importorskip("torch")
    x = draw.images("parity", 2, *size, model.in_channels)
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(run(model, variables, x), wanted, atol=1e-4 * max(1, np.abs(wanted).max()))


@pytest.mark.torch
@pytest.mark.parametrize("name", kinds())
def test_entries_equal_timm(name):
    model, variables, theirs = pair(name)
    assert_same_logits(model, variables, theirs, (16, 24))
    if model.dynamic_img_size:
        assert_same_logits(model, variables, theirs, (20, 12))
    else:
        theirs.set_input_size((20, 12))
        state = {k: v.numpy() for k, v in theirs.state_dict().items()}
        other = model.clone(image_size=(20, 12))
        assert_same_logits(other, convert(other, state), theirs, (20, 12))


@pytest.mark.torch
@pytest.mark.parametrize("name", kinds())
def test_gradients_equal_timms(name):
    torch = pytest.importorskip("torch")
    model, variables, theirs = pair(name)
    x, labels = draw.images("gradients", 3, 16, 24), np.array([0, 3, 1])
    logits = theirs(torch.from_numpy(x).permute(0, 3, 1, 2))
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()

    def loss(variables):
        return -jnp.mean(jax.nn.log_softmax(model.apply(variables, x))[jnp.arange(3), labels])

    ours = export(model, jax.jit(jax.grad(loss))(variables))
    for key, parameter in theirs.named_parameters():
        wanted = parameter.grad.numpy()
        np.testing.assert_allclose(ours[key], wanted, atol=1e-3 * max(np.abs(wanted).max(), 1e-3), err_msg=key)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("vit_small_patch16_dinov3_qkvb", {"global_pool": "token", "rope_rotate_half": False}),
        ("vit_small_patch16_dinov3_qkvb", {"global_pool": "avgmax", "rope_grid_indexing": "xy"}),
        ("vit_small_patch16_dinov3", {"dynamic_img_pad": True, "num_classes": 0}),
        ("vit_base_patch16_sapiens2", {"num_kv_heads": 1, "qkv_bias": False}),
        ("eva02_base_patch14_224", {"rope_type": "mixed", "dynamic_img_size": True, "dynamic_img_pad": True}),
        ("eva02_base_patch14_224", {"global_pool": "max", "use_fc_norm": True, "qk_norm": True, "in_channels": 1}),
        ("eva02_tiny_patch14_224", {"swiglu_align_to": 8, "scale_mlp": True, "rope_rotate_half": True}),
        ("eva02_enormous_patch14_clip_224", {"swiglu_mlp": True, "swiglu_align_to": 8, "scale_attn_inner": True}),
        ("vit_pe_core_base_patch16_224", {"global_pool": "", "no_embed_class": True, "patch_size": (4, 8)}),
    ],
    ids=str,
)
def test_options_equal_timm(name, fields):
    model, variables, theirs = pair(name, **fields)
    assert_same_logits(model, variables, theirs, (16, 24))
    if model.dynamic_img_pad:
        assert_same_logits(model, variables, theirs, (13, 30))


@pytest.mark.torch
@pytest.mark.parametrize("name", ["eva02_base_patch14_224", "vit_small_patch16_rope_mixed_224"])
def test_dropped_patches_equal_timm(name, monkeypatch):
    torch = pytest.importorskip("torch")
    from timm.layers import PatchDropoutWithIndices

    model, variables, theirs = pair(name, patch_drop_rate=0.5)
    kept = np.random.default_rng(0).permuted(np.tile(np.arange(24), (2, 1)), axis=1)[:, :12]
    monkeypatch.setattr(eva, "draw_patches", lambda key, shape, rate: jnp.asarray(kept))

    def drop(self, x):
        prefix, patches = x[:, :1], x[:, 1:]
        chosen = torch.from_numpy(kept)
        patches = patches.gather(1, chosen[..., None].expand(-1, -1, patches.shape[-1]))
        return torch.cat([prefix, patches], 1), chosen

    monkeypatch.setattr(PatchDropoutWithIndices, "forward", drop)
    x = draw.images("kept", 2, 16, 24)
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    ours = model.apply(variables, x, train=True, rngs={"dropout": jax.random.key(0)})
    np.testing.assert_allclose(ours, wanted, atol=1e-4)
