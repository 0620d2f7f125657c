"""Distillation: the objectives by hand, a teacher of another family, size and normalisation, cached answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit import create_model, pretrained, train
from jaxvit.build.teacher import describe
from jaxvit.errors import UserError
from jaxvit.step.state import init_variables
from jaxvit.train import distill
from tests.helpers import tiny_config, write_npz


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """(name of the data, workdir of a teacher that reads 16x16 images)."""
    path = tmp_path_factory.mktemp("teacher")
    name = write_npz(path / "data")
    words = {"model__image_size": 16, "optim__learning_rate": 1e-2, "num_epochs": 4}
    train.train_and_evaluate(tiny_config(name, **words), path / "run")
    return name, path / "run"


TOKEN = {
    "model__name": "deit_tiny_distilled_patch16_224", "model__distilled": True, "distill__mode": "token",
    "distill__alpha": 0.5,
}  # fmt: skip


@pytest.mark.parametrize(
    "words", [{"augment__flip": False, "augment__crop_padding": 0}, TOKEN], ids=["cached soft", "token in step"]
)
def test_a_student_learns_from_a_teacher(taught, tmp_path, words, capsys):
    name, workdir = taught
    words = {"distill__alpha": 1.0, "num_epochs": 1, **words}
    config = tiny_config(name, distill__teacher=str(workdir), **words)
    final = train.train_and_evaluate(config, tmp_path / "run")
    assert np.isfinite(final["test/loss"])
    assert ("answers once" if "augment__flip" in words else "answers in every step") in capsys.readouterr().err
    assert train.train_and_evaluate(config, tmp_path / "run") == final  # the same config, finished


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory):
    """A ResNet for 24x24 images, saved as timm's files are, whose classes are in another order than the data's."""
    fields = {"layers": (1, 1), "channels": (4, 8), "block": "basic"}
    model = create_model("resnet18", num_classes=3, image_size=24, **fields)
    variables = init_variables(model, jax.random.key(3), (24, 24, 3))
    path = tmp_path_factory.mktemp("weights") / "resnet"
    words = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.2)}
    pretrained.save(model, variables, path, name="resnet18", data_config=words, label_names=["2", "0", "1"])
    return path, model, variables


def test_a_weight_file_of_another_family_and_size_teaches(resnet_file, tmp_path):
    path, model, variables = resnet_file
    teacher = distill.load_teacher(str(path), "resnet18", ["0", "1", "2"])
    assert teacher.columns.tolist() == [1, 2, 0]
    images = jnp.asarray(np.random.default_rng(0).random((4, 8, 8, 3)), jnp.float32)
    resized = jnp.clip(jax.image.resize(images, (4, 24, 24, 3), "cubic"), 0, 1)
    mean, std = (np.reshape(v, (1, 1, 1, 3)) for v in ((0.5, 0.4, 0.3), (0.2, 0.3, 0.2)))
    expected = model.apply(variables, ((resized - mean) / std).astype(jnp.float32))[:, np.asarray([1, 2, 0])]
    np.testing.assert_allclose(teacher.logits(teacher.variables, images), expected, atol=1e-5)
    name = write_npz(tmp_path / "data")
    words = {"distill__teacher": str(path), "distill__model": "resnet18", "distill__mode": "hard", "num_epochs": 1}
    final = train.train_and_evaluate(tiny_config(name, **words), tmp_path / "run")
    assert np.isfinite(final["test/loss"])


def test_a_timm_name_teaches(resnet_file, monkeypatch):
    path, _, _ = resnet_file
    monkeypatch.setattr("jaxvit.pretrained.hub.fetch", lambda name, revision=None: pretrained.files.read(path))
    teacher = distill.load_teacher("resnet18", None, ["0", "1", "2"])
    assert teacher.columns.tolist() == [1, 2, 0]
    assert "resnet18 at 24x24" in describe(teacher, cached=False)
    with pytest.raises(UserError, match=r"distill\.teacher .*class 'cat' of the data"):
        distill.load_teacher("resnet18", None, ["0", "1", "cat"])
