"""Teachers: how they see images, and those that do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit import data, inference, train
from jaxvit.build import parts
from jaxvit.build.facts import of_dataset
from jaxvit.build.resolve import complete
from jaxvit.errors import UserError
from jaxvit.train import distill
from tests.helpers import tiny_config, write_npz


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """(name of the data, workdir of a teacher that reads 16x16 images)."""
    path = tmp_path_factory.mktemp("teacher")
    name = write_npz(path / "data")
    words = {"model__image_size": 16, "num_epochs": 1}
    train.train_and_evaluate(tiny_config(name, **words), path / "run")
    return name, path / "run"


def test_the_teacher_prepares_images_in_its_own_way(taught):
    name, workdir = taught
    teacher = distill.load_teacher(str(workdir), None, ["0", "1", "2"])
    config = complete(tiny_config(name), of_dataset(parts.load_data(tiny_config(name))))
    split = parts.load_data(config).test
    feed = parts.make_feed(config, split)
    cached = distill.teach(feed, teacher, parts.make_to_float(3), batch_size=16)
    order = np.asarray([5, 3, 8, 1])
    (batch,) = cached.batches(order, 4)
    classifier = inference.from_run(workdir)
    images = (np.asarray(split.images, np.float32) / 255.0)[order]
    resized = jnp.clip(data.augment.resize(jnp.asarray(images), 16), 0, 1)
    prepared = (resized - np.reshape(classifier.data_config["mean"], (1, 1, 1, 3))) / np.reshape(
        classifier.data_config["std"], (1, 1, 1, 3)
    )
    expected = classifier.model.apply(classifier.variables, prepared.astype(jnp.float32))
    np.testing.assert_allclose(batch["teacher_logits"], expected, atol=1e-5)
    inside = jax.jit(teacher.logits)(classifier.variables, jnp.asarray(images))
    np.testing.assert_allclose(inside, expected, atol=1e-5)
    (late,) = cached.batches(order, 2, start=1)
    np.testing.assert_array_equal(late["teacher_logits"], batch["teacher_logits"][2:])


def test_teachers_that_do_not_fit_are_refused(taught, tmp_path):
    name, workdir = taught
    with pytest.raises(UserError, match=r"distill\.teacher .*class '3'"):
        distill.load_teacher(str(workdir), None, ["0", "1", "2", "3"])
    (tmp_path / "weights.safetensors").touch()
    with pytest.raises(UserError, match=r"distill\.model"):
        distill.load_teacher(str(tmp_path / "weights.safetensors"), None, ["0"])
