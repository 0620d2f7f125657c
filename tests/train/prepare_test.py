"""What is there before the first step."""

import json
import re

import jax
import numpy as np
import pytest
from PIL import Image

from jaxvit.data import crops
from jaxvit.errors import UserError
from jaxvit.runtime import sharding
from jaxvit.train import loop as train
from jaxvit.train.prepare import prepare
from tests.helpers import tiny_config, write_npz


@pytest.fixture
def data_name(tmp_path):
    return write_npz(tmp_path / "data", num_train=96)


def test_one_program_for_training_and_one_for_evaluation(tmp_path, data_name):
    """The last batch of a split is padded, so that its shape is that of the others."""
    run, state = prepare(tiny_config(data_name), tmp_path)
    for count, batch in run.dispatches(np.arange(96 // 16 * 16 - 16), 0, 0):
        state, _ = run.take_step(0, state, batch, count)
    for batch in run.feeds["test"].batches(np.arange(20), run.batches.eval_size, pad=True):
        run.blueprint.eval_step({"params": state.params}, batch)
    run.checkpoints.close()
    assert run.phase.train_steps[False]._cache_size() == run.blueprint.eval_step._cache_size() == 1
    json.dumps(run.compile_seconds)


def test_the_leaves_of_a_first_state_share_no_buffer(tmp_path, data_name):
    """A step is given them for good; the average begins as a copy of the weights."""
    run, state = prepare(tiny_config(data_name, ema__decay=0.9), tmp_path)
    run.checkpoints.close()
    places = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
    assert len(set(places)) == len(places)


def folder(path):
    """Photos of two classes, 24 x 32 pixels."""
    rng = np.random.default_rng(0)
    for i in range(24):
        file = path / ("train", "train", "test")[i % 3] / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).save(file)
    return f"folder:{path}"


def test_photos_are_cut_from_the_original_and_alike_on_any_devices(tmp_path):
    photos = folder(tmp_path / "photos")
    known = {
        "batch_size": 4, "data__image_size": 8, "data__val_fraction": 0.0, "augment__random_resized_crop": (0.1, 0.3),
        "augment__flip": False, "augment__crop_padding": 0,
    }  # fmt: skip

    def epoch(**options):
        run, _ = prepare(tiny_config(photos, **known | options), tmp_path)
        run.checkpoints.close()
        found = [jax.tree.map(np.asarray, dict(batch)) for _, batch in run.dispatches(run.order(1), 1, 0)]
        return run, np.concatenate([batch["image"] for batch in found])

    run, one = epoch(parallel__num_devices=1)
    assert run.feeds["train"].kind == "streamed" and run.feeds["test"].kind == "resident"
    targets = np.zeros((16, 2))
    assert run.blueprint.pixels.augment(jax.random.key(0), one, targets)[0] is one  # nothing is left for the device
    photo = run.dataset.train.read(int(run.order(1)[5]))
    cut, *_ = crops.resized_crop(crops.generator(run.options.seed, 1, 5), (24, 32), (8, 8), (0.1, 0.3), (3 / 4, 4 / 3))
    top, left, h, w = cut
    expected = photo.crop((left, top, left + w, top + h)).resize((8, 8), 3)  # bicubic
    np.testing.assert_array_equal(one[5], np.asarray(expected))
    np.testing.assert_array_equal(epoch(parallel__num_devices=2)[1], one)
    mapped, pmap = epoch(parallel__num_devices=2, parallel__mode="pmap")
    np.testing.assert_array_equal(pmap, one[sharding.dealt(np.arange(16), 4, mapped.blueprint.mesh)])
    assert epoch(augment__crop_from="resized")[0].feeds["train"].kind == "resident"


BAD = [
    ({"optim__schedule__name": "plateau", "data__val_fraction": 0.0}, "plateau needs validation images"),
    ({"early_stopping__patience": 2, "data__val_fraction": 0.0}, "early_stopping.patience needs validation images"),
    ({"optim__freeze": "."}, "freezes every parameter"),
    ({"optim__freeze": "blokcs"}, "matches no parameter"),
    ({"optim__name": "adamv"}, "no optimiser 'adamv'"),
    ({"optim__schedule__step_size": 3}, "the schedule 'cosine' has no option 'step_size'"),
    ({"optim__options": {"b9": 0.5}}, "has no option 'b9'"),
    ({"optim__options": {"b1": 0.5}}, "the option is optim.b1"),
    ({"optim__sam__rho": 0.1, "optim__sam__m": 5}, "optim.sam.m 5 does not divide batch_size 16"),
    ({"optim__sam__rho": 0.1, "optim__sam__rho_min": 0.2}, "optim.sam.rho_min 0.2 is above optim.sam.rho 0.1"),
    ({"optim__sam__method": "gsm"}, "optim.sam.method is 'gsm'"),
    ({"ema__decay": 1.0}, "ema.decay is 1.0"),
    ({"optim__learning_rate": -1.0}, "optim.learning_rate is -1.0"),
    ({"optim__weight_decay": -0.1}, "optim.weight_decay is -0.1"),
    ({"optim__sam__rho": -0.1}, "optim.sam.rho is -0.1"),
    ({"optim__schedule__name": "cosin"}, "no schedule 'cosin'"),
    ({"optim__schedule__min_learning_rate": 9.0}, "min_learning_rate 9.0 is above"),
    ({"optim__freeze": "last_9_blocks", "model__depth": 2}, "this model has 2 blocks"),
    ({"optim__unfreeze": ((1, "none"),)}, "'none' of epoch 1 unfreezes nothing"),
    ({"optim__freeze": "last_1_block", "optim__unfreeze": ((1, "head_only"),)}, "which was trained before"),
    ({"optim__freeze": "head_only", "optim__unfreeze": ((2, "none"),)}, "epoch 2 is never reached; num_epochs is 2"),
    ({"optim__freeze": "head_only", "optim__unfreeze": ("none",)}, "expected (epochs done, value of optim.freeze)"),
    ({"optim__freeze": "head_only", "optim__unfreeze": ((0, "none"),)}, "epoch 0 does not come after 0"),
    ({"optim__layer_decay": 1.5}, "optim.layer_decay is 1.5"),
    ({"optim__mu_dtype": "int8"}, "mu_dtype is 'int8'"),
    ({"augment__mixup_alpha": -1.0}, "augment.mixup_alpha is -1.0"),
    ({"augment__repeated": 17}, "augment.repeated is 17; a batch has 16 images"),
    ({"augment__train_crop_mode": "src"}, "which crops photos"),
    ({"augment__train_crop_mode": "crop"}, "expected one of rrc"),
    ({"augment__policy": "randaugmnt"}, "augment.policy is 'randaugmnt'"),
    ({"distill__alpha": -0.5}, "distill.alpha is -0.5"),
    ({"loss__on_nan": "ignore"}, "loss.on_nan is 'ignore'"),
    ({"distill__teacher": "nowhere"}, "distill.teacher 'nowhere' is not a run's workdir"),
    ({"distill__teacher": "x", "distill__mode": "token"}, "needs a model with a distillation token"),
]


def test_a_bad_augmentation_is_named_before_data_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxvit.build.parts.load_data", None)
    with pytest.raises(UserError, match="augment.fill is 2.0; expected a grey value from 0 to 1"):
        train.train_and_evaluate(tiny_config("digits", augment__fill=2.0), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words, said", BAD, ids=[said[:20] for _, said in BAD])
def test_contradictions_are_named_before_anything_is_compiled(tmp_path, data_name, words, said, monkeypatch):
    monkeypatch.setattr("jaxvit.train.prepare.init_variables", None)
    with pytest.raises(UserError, match=re.escape(said)) as error:
        train.train_and_evaluate(tiny_config(data_name, **words), tmp_path / "run")
    assert len(str(error.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"micro_batch": 7}, "micro_batch 7"),
        ({"optim__sam__rho": 0.05, "optim__sam__m": 7}, "optim.sam.m 7"),
        ({"optim__sam__rho": 0.05, "optim__sam__rho_min": 0.5}, "optim.sam.rho_min"),
        ({"data__mean": (0.5,)}, "set together"),
        ({"data__mean": (125.3, 123.0, 113.9), "data__std": (63.0, 62.1, 66.7)}, "divide by 255"),
        ({"data__mean": (0.5,), "data__std": (0.0,)}, "above 0"),
        ({"model__image_size": 8, "data__image_size": 16}, "differ"),
        ({"model__image_size": 10}, "patch size"),
        ({"data__image_size": 8, "augment__crop_padding": 8}, "crop_padding"),
        ({"data__image_size": 8, "data__train_sizes": ((0, 16),)}, "data.train_sizes"),
        ({"pretrained": "vit_small_patch16_224"}, "does not match"),
        ({"parallel__num_devices": 99}, "there are 8"),
        ({"pretrain__name": "mae", "pretrain__decoder_embed_dim": 6}, "decoder_embed_dim"),
    ],
)
def test_what_cannot_be_is_named_before_data_are_read(tmp_path, words, said):
    """A million photos are listed and looked into for minutes."""
    with pytest.raises(UserError, match=said):
        prepare(tiny_config(f"folder:{tmp_path / 'gone'}", **words), tmp_path)
