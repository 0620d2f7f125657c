"""The enhanced head: a hidden layer with dropout before the classifier, in every family, on weights that lack it."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit import models, optim, tree
from jaxvit.errors import UserError
from jaxvit.models import registry
from jaxvit.models.family import is_head
from jaxvit.pretrained import loading, save

IMAGES = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)
SMALL = {
    "vit_tiny_patch16_224": {"embed_dim": 12, "depth": 2, "num_heads": 2},
    "deit_tiny_distilled_patch16_224": {"embed_dim": 12, "depth": 2, "num_heads": 2},
    "vit_tiny_patch16_dinov3_qkvb": {"embed_dim": 16, "depth": 2, "num_heads": 2},
    "swin_tiny_patch4_window7_224": {"embed_dim": 8, "depths": (1, 1), "num_heads": (2, 2)},
    "resnet18": {"layers": (1, 1), "channels": (4, 8)},
}
HIDDEN = {
    "vit_tiny_patch16_224": ["head_hidden"],
    "deit_tiny_distilled_patch16_224": ["head_hidden", "head_dist_hidden"],
    "vit_tiny_patch16_dinov3_qkvb": ["head_hidden"],
    "swin_tiny_patch4_window7_224": ["head/hidden"],
    "resnet18": ["head_hidden"],
}


def make(name, **fields):
    return models.create_model(name, num_classes=5, image_size=32, **{**SMALL[name], **fields})


def draw(model):
    """Variables with no zeros, so that nothing is equal by chance."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: np.abs(rng.normal(size=x.shape) * 0.3 + 0.1).astype(np.float32), shapes)


@pytest.mark.parametrize("name", SMALL)
def test_the_logits_are_those_of_two_layers_on_the_features(name):
    model = make(name, head_hidden_size=7, drop_rate=0.2)
    variables = draw(model)
    leaves = tree.named_leaves(variables["params"])
    bare = models.create_model(name, num_classes=0, image_size=32, **SMALL[name])
    kept = {p for p in leaves if not is_head(registry.family_of(model), p)}
    assert len(leaves) - len(kept) == 4 * len(HIDDEN[name])
    if "distilled" in name:
        return  # its features are a mean already
    own = tree.named_leaves(jax.eval_shape(bare.init, jax.random.key(0), IMAGES)["params"])
    assert set(own) == kept
    part = tree.split(variables["params"], tree.map_with_path(lambda p, _: p in kept, variables["params"]))[0]
    features = np.asarray(jax.jit(bare.apply)({**variables, "params": part}, IMAGES), np.float64)
    (hidden,) = HIDDEN[name]
    last = {"resnet18": "fc", "swin_tiny_patch4_window7_224": "head/fc"}.get(name, "head")
    h = features @ leaves[f"{hidden}/kernel"] + leaves[f"{hidden}/bias"]
    h = np.maximum(h, 0) if name == "resnet18" else np.asarray(jax.nn.gelu(jnp.asarray(h), approximate=False))
    expected = h @ leaves[f"{last}/kernel"] + leaves[f"{last}/bias"]
    np.testing.assert_allclose(jax.jit(model.apply)(variables, IMAGES), expected, rtol=2e-4)


@pytest.mark.parametrize("name", SMALL)
def test_masks_and_layers_take_it_for_the_head(name):
    params = jax.eval_shape(make(name, head_hidden_size=7).init, jax.random.key(0), IMAGES)["params"]
    trains = tree.named_leaves(optim.freeze_mask(params, "head_only"))
    heads = {"fc", "head", "head_dist", "head_hidden", "head_dist_hidden"}
    assert {path for path, on in trains.items() if on} == {p for p in trains if p.split("/")[0] in heads}
    layers, decays = optim.layer_ids(params), tree.named_leaves(optim.decay_mask(params))
    for hidden in HIDDEN[name]:
        for leaf in ("kernel", "bias"):
            assert trains[f"{hidden}/{leaf}"]
            assert layers[f"{hidden}/{leaf}"] == max(layers.values())
            assert decays[f"{hidden}/{leaf}"] == (leaf == "kernel")
            for other in ("early", "middle", "last_1_block"):
                assert tree.named_leaves(optim.freeze_mask(params, other))[f"{hidden}/{leaf}"]


@pytest.mark.parametrize("name", SMALL)
def test_weights_without_it_leave_it_fresh_and_say_so(name, tmp_path):
    plain = make(name)
    variables = draw(plain)
    save(plain, variables, tmp_path / "plain", name=name)
    loaded = loading.load(name, tmp_path / "plain", head_hidden_size=7, head_init="normal")
    for hidden in HIDDEN[name]:
        timm_word = hidden.replace("/", ".")
        assert f"head_hidden_size=7: {timm_word} is fresh" in loaded.notes
    assert sum("num_classes=5" in note and "is fresh" in note for note in loaded.notes) == len(HIDDEN[name])
    before, after = (tree.named_leaves(v["params"]) for v in (variables, loaded.variables))
    for path in before:
        if not is_head(registry.family_of(loaded.model), path):
            np.testing.assert_array_equal(after[path], before[path])
    for hidden in HIDDEN[name]:
        kernel = np.asarray(after[f"{hidden}/kernel"])
        assert 0.3 < np.abs(kernel).max() * kernel.shape[0] ** 0.5 <= 1  # torch.nn.Linear's bound

    with pytest.warns(UserWarning, match="timm has no field for head_hidden_size=7"):
        save(loaded.model, loaded.variables, tmp_path / "enhanced", name=name)
    again = loading.load(name, tmp_path / "enhanced")  # its own file says that there is one
    assert again.model.head_hidden_size == 7
    chex.assert_trees_all_equal(again.variables, loaded.variables)
    other = loading.load(name, tmp_path / "enhanced", num_classes=3)  # the hidden layer stays, the classifier goes
    for hidden in HIDDEN[name]:
        np.testing.assert_array_equal(
            tree.named_leaves(other.variables["params"])[f"{hidden}/kernel"], after[f"{hidden}/kernel"]
        )
    features = loading.load(name, tmp_path / "enhanced", num_classes=0)
    assert any(note.endswith("is not loaded") for note in features.notes)
    assert not any("hidden" in path for path in tree.named_leaves(features.variables["params"]))


def test_dropout_is_before_and_after_the_hidden_layer():
    model = make("resnet18", head_hidden_size=64, drop_rate=0.5)
    variables, seen = draw(model), []

    def spy(next_fn, args, kwargs, context):
        if isinstance(context.module, nn.Dropout) and context.method_name == "__call__":
            seen.append((args[0].shape[-1], context.module.rate))
        return next_fn(*args, **kwargs)

    with nn.intercept_methods(spy):
        model.apply(variables, IMAGES, train=True, rngs={"dropout": jax.random.key(0)}, mutable=["batch_stats"])
    assert seen == [(8, 0.5), (64, 0.5)]


def test_families_with_hidden_layers_of_their_own_have_the_same_word():
    for name in ("alexnet", "vgg11"):
        assert models.model_fields(name)["head_hidden_size"] == 4096
    with pytest.raises(UserError, match="head_hidden_size=0 is too small"):
        make("resnet18", head_hidden_size=0)
    with pytest.raises(UserError, match="'head_hidden_size' here"):
        make("vit_tiny_patch16_224", representation_size=8)
