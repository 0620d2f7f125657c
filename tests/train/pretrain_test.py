"""Runs that pretrain first: what they leave, what they read, and that they resume in either phase."""

import contextlib
import json
import signal

import chex
import numpy as np
import pytest

import jaxvit
from jaxvit.errors import UserError
from jaxvit.runtime.interrupt import Interrupted
from jaxvit.train import run as run_module
from jaxvit.train import train_and_evaluate
from jaxvit.train.prepare import gather
from jaxvit.train.pretrain import conduct
from jaxvit.workdir.checkpoint import Checkpoints
from tests.helpers import tiny_config
from tests.helpers.workdirs import final_state, lines

SMALL = {
    "pretrain__name": "mae", "pretrain__num_epochs": 8, "pretrain__warmup_epochs": 0.0, "pretrain__learning_rate": 1e-2,
    "pretrain__decoder_embed_dim": 16, "pretrain__decoder_depth": 1, "pretrain__norm_pix_loss": False,
    "optim__learning_rate": 1e-2,
}  # fmt: skip


def config_of(**words):
    return tiny_config("digits", **{**SMALL, **words})


def arrays(seed=0, labels=0):
    """Three splits of images of one colour each, and noise; those to train on depend on neither argument."""
    same, other = np.random.default_rng(0), np.random.default_rng(seed)

    def split(rng, n, shift=0):
        images = rng.integers(0, 200, (n, 1, 1, 3)) + rng.integers(0, 56, (n, 8, 8, 3))
        return images.astype(np.uint8), (np.arange(n) + shift) % 3

    return {"train": split(same, 48, labels), "val": split(other, 16), "test": split(other, 12)}


def encoder(workdir):
    return (workdir / "pretrain" / "model.safetensors").read_bytes()


def test_the_first_phase_leaves_its_files(tmp_path):
    config, place = config_of(), tmp_path / "pretrain"
    loaded = conduct(config, tmp_path, gather(config, tmp_path, dataset=arrays()))
    found = lines(place)
    assert [line["epoch"] for line in found] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert found[-1]["pretrain/loss"] < 0.97 * found[0]["pretrain/loss"]
    summary = json.loads((place / "summary.json").read_text())
    assert (summary["patches"], summary["visible"], summary["epochs"], summary["steps"]) == (4, 1, 8, 24)
    assert summary["loss"] == found[-1]["pretrain/loss"]
    assert any((place / "events").iterdir()) and (place / "reconstructions.png").read_bytes().startswith(b"\x89PNG")
    with np.load(place / "reconstructions.npz") as pictures:
        image, painted, masked = (pictures[name] for name in ("image", "reconstruction", "masked"))
        assert image.shape == painted.shape == (8, 8, 8, 3) and masked.sum() == 8 * 3
        np.testing.assert_array_equal(image, arrays()["val"][0][pictures["index"]])
        seen = ~np.kron(masked.reshape(8, 2, 2), np.ones((1, 4, 4), bool))
        np.testing.assert_allclose(painted[seen].astype(int), image[seen], atol=1)
        assert np.abs(painted[~seen].astype(int) - image[~seen]).max() > 5
    assert not (tmp_path / "checkpoints/pretrain/best").exists()
    assert Checkpoints(tmp_path / "checkpoints/pretrain", read_only=True).steps("last")[-1] == 24
    blocks = loaded.variables["params"]["blocks_0"]["attn"]["qkv"]["kernel"]
    assert loaded.model.num_classes == 3 and blocks.shape == (16, 48)
    assert not np.any(loaded.variables["params"]["head"]["kernel"])
    assert np.abs(loaded.variables["params"]["pos_embed"]).max() > 0.9  # the sines, which stay


@pytest.mark.slow
def test_a_run_trains_after_it_and_others_start_from_its_encoder(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    train_and_evaluate(config_of(), first, dataset=arrays())
    place = first / "pretrain"
    assert [line["epoch"] for line in lines(first)] == [1, 2]
    summary = json.loads((first / "summary.json").read_text())
    assert summary["pretrain"] == json.loads((place / "summary.json").read_text())
    config = tiny_config("digits", optim__learning_rate=1e-2, pretrained=str(place))
    train_and_evaluate(config, second, dataset=arrays())
    chex.assert_trees_all_equal(final_state(first), final_state(second))
    assert lines(first) == lines(second)
    model, variables = jaxvit.load_pretrained("vit_tiny_patch16_224", place)
    assert model.num_classes == 0 and model.embed_dim == 16 and "head" not in variables["params"]


class Killed(BaseException):
    """As SIGKILL: nothing is caught, nothing is saved."""


def interrupted(patch, pretrains, step, how):
    original = run_module.Run.take_step

    def take(self, at, *args):
        if self.pretrains == pretrains and at == step:
            if how is Killed:
                raise Killed
            signal.raise_signal(signal.SIGTERM)
        return original(self, at, *args)

    patch.setattr(run_module.Run, "take_step", take)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pretrains", "step", "how"),
    [(True, 4, signal.SIGTERM), (True, 7, Killed), (False, 4, signal.SIGTERM), (False, 1, Killed)],
)
def test_a_run_resumes_with_the_same_bits_in_either_phase(tmp_path, monkeypatch, pretrains, step, how):
    config = config_of(model__drop_path_rate=0.2, checkpoint__min_seconds=0.0)
    train_and_evaluate(config, tmp_path / "whole", dataset=arrays())
    with monkeypatch.context() as patch:
        interrupted(patch, pretrains, step, how)
        with pytest.raises(Killed if how is Killed else Interrupted):
            train_and_evaluate(config, tmp_path / "parts", dataset=arrays())
    assert (tmp_path / "parts/pretrain/summary.json").exists() != pretrains
    with pytest.raises(UserError, match="pretrain.mask_ratio: 0.75 -> 0.5"):
        train_and_evaluate(config_of(pretrain__mask_ratio=0.5), tmp_path / "parts", dataset=arrays())
    with pytest.raises(UserError, match="different labels"):
        train_and_evaluate(config, tmp_path / "parts", dataset=arrays(labels=1))
    train_and_evaluate(config, tmp_path / "parts", dataset=arrays())
    chex.assert_trees_all_equal(final_state(tmp_path / "whole"), final_state(tmp_path / "parts"))
    assert encoder(tmp_path / "whole") == encoder(tmp_path / "parts")
    for name in ("", "pretrain"):
        assert lines(tmp_path / "whole" / name) == lines(tmp_path / "parts" / name)


@pytest.mark.slow
def test_pretraining_reads_neither_labels_nor_images_held_out(tmp_path):
    cases = {"a": arrays(), "b": arrays(seed=5), "c": arrays(labels=1)}
    for name, dataset in cases.items():
        train_and_evaluate(config_of(num_epochs=1), tmp_path / name, dataset=dataset)
    assert encoder(tmp_path / "a") == encoder(tmp_path / "b") == encoder(tmp_path / "c")
    train_and_evaluate(config_of(num_epochs=1, seed=1), tmp_path / "d", dataset=arrays())
    assert encoder(tmp_path / "a") != encoder(tmp_path / "d")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "tolerance"),
    [
        ({"parallel__num_devices": 4}, 1e-4),
        ({"parallel__num_devices": 2, "parallel__fsdp": 2}, 1e-4),
        ({"parallel__num_devices": 2, "parallel__mode": "pmap"}, 0.2),  # each device draws its own masks
        ({"dtype": "bfloat16"}, 0.05),
        ({"optim__accum_steps": 2}, 0.2),  # as does each part of a batch
        ({"model__scan": True, "model__remat": "block", "model__depth": 2}, None),
        ({"model__class_token": False, "model__global_pool": "avg"}, None),
    ],
)
def test_it_works_on_several_devices_and_in_other_forms(tmp_path, words, tolerance):
    train_and_evaluate(config_of(**words), tmp_path / "other", dataset=arrays())
    other = [line["pretrain/loss"] for line in lines(tmp_path / "other/pretrain")]
    assert np.isfinite(other).all() and other[-1] < other[0]
    if tolerance is not None:
        train_and_evaluate(config_of(), tmp_path / "one", dataset=arrays())
        one = [line["pretrain/loss"] for line in lines(tmp_path / "one/pretrain")]
        np.testing.assert_allclose(other, one, rtol=tolerance)


@pytest.mark.slow
def test_it_starts_from_weights_and_learns_from_a_teacher(tmp_path):
    train_and_evaluate(config_of(), tmp_path / "first", dataset=arrays())
    words = {"pretrained": str(tmp_path / "first/pretrain"), "distill__teacher": str(tmp_path / "first")}
    train_and_evaluate(config_of(**words), tmp_path / "second", dataset=arrays())
    losses = [[line["pretrain/loss"] for line in lines(tmp_path / name / "pretrain")] for name in ("first", "second")]
    assert losses[1][0] < losses[0][0]  # it resumes where the first one ended


@pytest.mark.slow
def test_damaged_files_are_made_again_with_the_same_bits(tmp_path, capsys):
    config = config_of()
    with contextlib.suppress(Killed), pytest.MonkeyPatch.context() as patch:
        interrupted(patch, False, 1, Killed)
        train_and_evaluate(config, tmp_path, dataset=arrays())
    before = encoder(tmp_path)
    (tmp_path / "pretrain/model.safetensors").write_bytes(before[:-1] + b"x")
    train_and_evaluate(config, tmp_path, dataset=arrays())
    assert "model.safetensors has changed" in capsys.readouterr().err
    assert encoder(tmp_path) == before
    assert Checkpoints(tmp_path / "checkpoints/pretrain").steps("last")[-1] == 24
