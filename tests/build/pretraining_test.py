"""What pretraining is, before anything is allocated, and which configs describe none."""

import jax
import numpy as np
import pytest

from jaxvit import tree
from jaxvit.build import pretraining
from jaxvit.build.blueprint import draw
from jaxvit.build.facts import Facts
from jaxvit.config import checks
from jaxvit.errors import UserError
from jaxvit.models.mae import sine_cosine_positions
from tests.helpers import tiny_config

FACTS = Facts(
    num_classes=3, num_train=48, num_val=0, num_test=9, shape=(8, 8, 3), in_channels=3, image_size=(8, 8),
    mean=(0.5,) * 3, std=(0.25,) * 3,
)  # fmt: skip
SMALL = {"pretrain__name": "mae", "pretrain__decoder_embed_dim": 16, "pretrain__decoder_depth": 1}


def config_of(**words):
    return tiny_config("npz:nowhere", **{**SMALL, **words})


def test_it_is_the_papers_recipe_at_the_runs_size():
    words = {"ema__decay": 0.9, "optim__sam__rho": 0.1, "augment__mixup_alpha": 0.8, "optim__name": "sgd"}
    before = len(jax.live_arrays())
    found = pretraining.outline(config_of(pretrain__num_epochs=7, model__drop_path_rate=0.1, **words), FACTS)
    assert len(jax.live_arrays()) - before <= 2  # a key
    c = found.blueprint.config
    assert (c.optim.name, c.optim.b2, c.optim.weight_decay, c.optim.sam.rho) == ("adamw", 0.95, 0.05, 0)
    assert c.optim.learning_rate == pytest.approx(1.5e-4 * 16 / 256)
    assert (c.augment.flip, c.augment.random_resized_crop, c.augment.mixup_alpha) == (True, (0.2, 1.0), 0)
    assert (found.blueprint.batches.num_epochs, found.blueprint.batches.steps_per_epoch) == (7, 3)
    assert (found.num_patches, found.visible) == (4, 1)
    frozen = [p for p, on in tree.named_leaves(found.blueprint.phases[0].trainable).items() if not on]
    assert frozen == ["encoder/pos_embed"]


def test_it_changes_nothing_of_the_run():
    with_it, without = (draw(config_of(pretrain__name=name), FACTS) for name in ("mae", None))
    assert with_it.batches == without.batches
    assert {**with_it.words, "pretrain": 0} == {**without.words, "pretrain": 0}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"model": {"name": "resnet18"}}, "resnet18 is a ResNet"),
        ({"model__pos_embed": "none"}, "model.pos_embed=learn"),
        ({"pretrain__mask_ratio": 0.9}, "none visible; expected at most 0.75"),
        ({"model__patch_size": 8}, "a single patch"),
        ({"pretrain__decoder_embed_dim": 18}, "multiple of 4"),
        ({"pretrain__decoder_num_heads": 5}, "that 5 heads divide"),
    ],
)
def test_what_cannot_be_pretrained_is_said(words, said):
    with pytest.raises(UserError, match=said) as error:
        pretraining.outline(config_of(**words), FACTS)
    assert len(str(error.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"pretrain__name": "mea"}, "Did you mean 'mae'"),
        ({"pretrain__mask_ratio": 1.0}, "pretrain.mask_ratio is 1.0"),
        ({"pretrain__mask_ratio": 0.0}, "pretrain.mask_ratio is 0.0"),
        ({"pretrain__num_epochs": 0}, "pretrain.num_epochs is 0"),
        ({"pretrain__min_crop": 1.5}, "pretrain.min_crop is 1.5"),
        ({"lr_find": True}, "--config.pretrained=WORKDIR/pretrain"),
    ],
)
def test_bad_values_are_said_before_data_are_read(words, said):
    with pytest.raises(UserError, match=said) as error:
        checks.validate(config_of(**words))
    assert len(str(error.value).splitlines()) <= 2


def test_options_without_a_name_are_said_to_be_idle():
    assert checks.idle(config_of(pretrain__name=None, pretrain__mask_ratio=0.5))["pretrain.mask_ratio"] == (
        "pretrain.name"
    )


def test_it_starts_from_fixed_positions_or_from_weights_that_are_given():
    found = pretraining.outline(config_of(), FACTS)

    def full(model, value):
        shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
        return jax.tree.map(lambda x: np.full(x.shape, value, x.dtype), shapes)

    drawn = full(found.blueprint.model, 1.0)
    table = pretraining.start(found, drawn)["params"]["encoder"]["pos_embed"]
    np.testing.assert_array_equal(table[0, 0], 0)
    np.testing.assert_array_equal(table[0, 1:], sine_cosine_positions((2, 2), 16))
    started = pretraining.start(found, drawn, full(found.vit, 2.0))["params"]
    assert all(np.all(leaf == 2) for leaf in jax.tree.leaves(started["encoder"]))
    assert all(np.all(leaf == 1) for leaf in jax.tree.leaves(started["decoder"]))
