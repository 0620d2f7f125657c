"""A blueprint follows from config, facts and devices: nothing is drawn or written to, and a run is what it says."""

import jax
import numpy as np
import pytest

from jaxvit.build.blueprint import draw
from jaxvit.build.facts import Facts, of_dataset
from jaxvit.build.parts import load_data, pretrained_name
from jaxvit.train.prepare import prepare
from tests.helpers import tiny_config, write_npz

PHOTOS = Facts(
    num_classes=1000, num_train=1_281_167, num_val=0, num_test=50_000, shape=None, in_channels=3, image_size=None,
    mean=(0.5,) * 3, std=(0.25,) * 3,
)  # fmt: skip


def large():
    config = tiny_config("tfds:imagenet2012", batch_size=1024, parallel__num_devices=None)
    config.model = {"name": "vit_large_patch16_224"}
    return config


def test_a_large_model_is_drawn_without_an_array():
    before = len(jax.live_arrays())
    found = draw(large(), PHOTOS)
    assert len(jax.live_arrays()) - before <= 2  # a key
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(found.variables))
    assert sum(leaf.size for leaf in jax.tree.leaves(found.variables)) == 304_326_632  # timm's count
    assert (found.batches.steps_per_epoch, found.mesh.size) == (1251, 8) and not found.resident
    assert found.batch(found.phases[0])["image"].shape == (1024, 224, 224, 3)


def test_the_config_is_complete_and_is_not_written_to():
    given = large()
    given.data.rescan = True
    before = given.to_json()
    found = draw(given, PHOTOS)
    assert given.to_json() == before
    assert not found.words["data"]["rescan"]  # asked of one start: what reads the run's config need not do it again
    assert (found.config.model.num_classes, found.config.data.image_size) == (1000, (224, 224))
    assert found.config.parallel.num_devices == 8
    with pytest.raises(AttributeError):
        found.config.num_epochs = 3
    with pytest.raises(AttributeError):
        found.config.model.num_classes = 3


@pytest.mark.parametrize("words", [{}, {"ema__decay": 0.9, "optim__sam__rho": 0.1, "optim__sam__every": 2}])
def test_a_run_has_the_shapes_of_its_blueprint(tmp_path, words):
    config = tiny_config(write_npz(tmp_path / "data"), model__depth=1, **words)
    found = draw(config, of_dataset(load_data(config)))
    run, state = prepare(config, tmp_path / "run")
    run.checkpoints.close()
    assert run.blueprint.words == found.words and run.batches == found.batches
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), found.phases[0].template)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == shapes
    batch = next(iter(run.feeds["train"].batches(np.arange(found.batches.size), found.batches.size)))
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
        k: (v.shape, v.dtype) for k, v in found.batch(found.phases[0]).items()
    }
    assert [found.is_sharp(step) for step in range(3)] == ([True, False, True] if words else [False] * 3)


@pytest.mark.parametrize("ending", ["safetensors", "fb_in1k.safetensors", "npz", "pth", "pth.tar"])
def test_a_file_that_is_called_like_a_model_is_a_path(ending):
    assert pretrained_name(f"deit_tiny_patch16_224.{ending}") is None
    assert pretrained_name("deit_tiny_patch16_224.fb_in1k") == "deit_tiny_patch16_224"
