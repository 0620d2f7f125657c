"""Sizes of training images by epoch: what is read, what is compiled, that a resumed run has the same bits."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvit import models, train
from jaxvit.build import parts, sizes
from jaxvit.config import checks
from jaxvit.errors import UserError
from jaxvit.train.prepare import prepare
from jaxvit.train.run import Run
from tests.helpers import tiny_config, write_npz

SIZES = ((0, 8), (1, 16))


def write_photos(root, n=24):
    rng = np.random.default_rng(0)
    for split, count in (("train", n), ("test", 6)):
        for i in range(count):
            (root / split / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
            image = rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / split / f"class{i % 2}" / f"{i}.png")
    return f"folder:{root}"


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ("128", "128"), (((1, 8),), "begins at epoch 1"), (((0, 8), (0, 16)), "does not come after 0"),
        (((0, 8), (2, 12), (1, 16)), "does not come after 2"), (((0, 0),), r"\(0, 0\)"), (((0, 8.0),), "8.0"),
        (((0, 8), (9, 16)), "never reached"), (((0, "8"),), "'8'"), ((0,), "has 0"), (((0, (8, 8, 8)),), "8, 8, 8"),
    ],
)  # fmt: skip
def test_what_is_no_schedule_is_refused(entries, said):
    with pytest.raises(UserError, match=said):
        sizes.read_sizes(entries, 9)


def test_a_schedule_is_read_from_tuples_and_from_json():
    want = [(0, (8, 8)), (3, (12, 16))]
    assert sizes.read_sizes(((0, 8), (3, (12, 16))), 9) == sizes.read_sizes([[0, 8], [3, [12, 16]]], 9) == want
    assert sizes.read_sizes((0, 8), 9) == [(0, (8, 8))]
    assert sizes.read_sizes((), 9) == []


class Flat(nn.Module):
    """Reads all cells of a map by one linear layer, so that its parameters depend on the size."""

    in_channels: int = 3

    @nn.compact
    def __call__(self, images, *, train=False):
        return nn.Dense(2)(images.reshape(len(images), -1))


@pytest.mark.parametrize(
    ("name", "fields", "good", "bad", "said"),
    [
        ("vit_tiny_patch16_224", {"depth": 1}, (96, 128), 100, "patch"),
        ("eva02_tiny_patch14_224", {"depth": 1}, (112, 140), 96, "patch"),
        ("swin_tiny_patch4_window7_224", {"depths": (1, 1), "num_heads": (3, 6)}, (96, 160), 98, "patch"),
        ("swinv2_tiny_window8_256", {"depths": (1, 1), "num_heads": (3, 6)}, (96, 160), 98, "patch"),
        ("resnet18", {}, (33, 100), None, ""),
        ("convnext_atto", {}, (64, 100), None, ""),
        ("alexnet", {"head_hidden_size": 8}, (64, 128), 32, "63"),
        ("vgg11", {"head_hidden_size": 8}, (32, 100), 16, "32"),
    ],
)  # fmt: skip
def test_models_keep_their_parameters_at_other_sizes_or_say_why_not(name, fields, good, bad, said):
    model = models.create_model(name, num_classes=2, **fields)
    shapes = parts.variable_shapes(model, sizes.to_pair(model.image_size), 3)
    sizes.check_model(model, shapes, [(good[0], good[0]), (good[1], good[0])], 3)
    if bad is not None:
        with pytest.raises(UserError, match=f"data.train_sizes has {bad}x{bad}.*{said}"):
            sizes.check_model(model, shapes, [(bad, bad)], 3)


def test_a_model_whose_parameters_depend_on_the_size_is_refused():
    model = Flat()
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    with pytest.raises(UserError, match="Flat has other parameters"):
        sizes.check_model(model, shapes, [(4, 4)], 3)


def test_sizes_above_that_of_evaluation_are_refused(tmp_path):
    config = tiny_config(write_npz(tmp_path / "data", size=8), data__train_sizes=((0, 8), (1, 16)))
    with pytest.raises(UserError, match=r"16x16, more than the 8x8"):
        prepare(config, tmp_path / "run")


def run_of(tmp_path, **words):
    name = write_npz(tmp_path / "data", size=16)
    words = {"data__train_sizes": SIZES, "augment__random_resized_crop": (0.3, 1.0), **words}
    return prepare(tiny_config(name, **words), tmp_path / "run")


def test_each_size_is_compiled_once_and_its_step_computes_that_size(tmp_path):
    run, state = run_of(tmp_path, num_epochs=4, data__train_sizes=((0, 8), (1, 16), (2, 8), (3, (8, 12))))
    shapes = []
    for epoch in range(4):
        before = state
        state = run.enter(epoch, state)
        assert state is before  # the state is that of all sizes
        for step, batch in enumerate(run.batches_of(epoch)):
            state, found = run.take_step(epoch * run.batches.steps_per_epoch + step, state, batch)
        assert np.isfinite(found["loss"])
        program = run.phase.train_steps[False]
        shapes.append((run.phase.image_size, id(program), program._cache_size()))
    run.checkpoints.close()
    assert [size for size, *_ in shapes] == [(8, 8), (16, 16), (8, 8), (8, 12)]
    assert shapes[0][1] == shapes[2][1]  # a size that comes again
    assert [count for *_, count in shapes] == [1] * 4
    jaxprs = [str(phase.train_steps[False].trace(phase.template, run.blueprint.batch(phase)).jaxpr)
              for phase in run.blueprint.phases]  # fmt: skip
    tokens = ["16,5,16]", "16,17,16]", "16,5,16]", "16,7,16]"]  # of 4x4 patches, with the class token
    for jaxpr, mine in zip(jaxprs, tokens, strict=True):
        assert [t for t in dict.fromkeys(tokens) if f"[{t}" in jaxpr] == [mine]


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_photos_are_cropped_at_the_size_of_their_epoch(tmp_path, workers):
    words = {"data__train_sizes": SIZES, "data__image_size": 16, "augment__random_resized_crop": (0.3, 1.0)}
    config = tiny_config(write_photos(tmp_path / "photos"), augment__crop_padding=0, data__workers=workers, **words)
    run, state = prepare(config, tmp_path / "run")
    for epoch, side in enumerate((8, 16)):
        run.enter(epoch, state)
        batch = next(iter(run.batches_of(epoch)))
        assert batch["image"].shape[1:] == (side, side, 3) == run.blueprint.batch(run.phase)["image"].shape[1:]
        # as a run of that size alone, which draws the same boxes
        alone = parts.make_crop(run.blueprint.config, (side, side))
        at = run.order(epoch)[0]
        rng = np.random.Generator(np.random.PCG64([config.seed, epoch, 0]))
        np.testing.assert_array_equal(batch["image"][0], alone.of_file(rng, run.dataset.train.file(at)))
    assert next(iter(run.feeds["val"].batches(np.arange(1), 1)))["image"].shape[1:] == (16, 16, 3)
    run.checkpoints.close()


class Stop(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("words", [
    {}, {"steps_per_dispatch": 2}, {"parallel__mode": "pmap", "parallel__num_devices": 2},
    {"parallel__fsdp": 2, "parallel__num_devices": 4}, {"optim__accum_steps": 2, "ema__decay": 0.9},
    {"optim__sam__rho": 0.05, "optim__unfreeze": ((1, "none"),), "optim__freeze": "head_only"},
    {"pretrain__name": "mae", "pretrain__num_epochs": 1, "pretrain__decoder_embed_dim": 16},
], ids=lambda words: "-".join(words) or "plain")  # fmt: skip
def test_a_run_resumed_between_and_within_sizes_has_the_same_bits(tmp_path, monkeypatch, words):
    name = write_npz(tmp_path / "data", size=16)
    config = tiny_config(name, num_epochs=3, data__train_sizes=((0, 8), (1, 16), (2, 12)), **words)
    config.checkpoint.update({"min_seconds": 0.0, "every_steps": 1 if config.steps_per_dispatch is None else None})
    whole = train.train_and_evaluate(config, tmp_path / "whole")
    take_step = Run.take_step
    for stop in (3,) if words else (2, 3):  # of two steps an epoch: within a size, and between two

        def interrupted(run, step, *rest, stop=stop):
            if step >= stop and not run.pretrains:
                raise Stop
            return take_step(run, step, *rest)

        monkeypatch.setattr(Run, "take_step", interrupted)
        with pytest.raises(Stop):
            train.train_and_evaluate(config, tmp_path / f"cut{stop}")
        monkeypatch.setattr(Run, "take_step", take_step)
        assert train.train_and_evaluate(config, tmp_path / f"cut{stop}") == whole
        ends = [np.load(tmp_path / name / "predictions.npz")["logits"] for name in ("whole", f"cut{stop}")]
        np.testing.assert_array_equal(*ends)


@pytest.mark.slow
def test_a_dry_run_takes_steps_at_each_size_and_files_say_them(tmp_path, capsys):
    name = write_npz(tmp_path / "data", size=16)
    config = tiny_config(name, num_epochs=9, data__train_sizes=((0, 8), (6, 16)), fast_dev_run=True)
    train.train_and_evaluate(config, tmp_path / "run")
    said = capsys.readouterr().err
    assert "1 at 8x8" in said and "2 at 16x16" in said and "epoch 2: training images of 16x16" in said
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["train_sizes"] == [[0, [8, 8]], [1, [16, 16]]] and summary["image_size"] == [16, 16]
    checks.validate(config)


def test_the_header_has_epochs_and_work_of_each_size():
    model = models.create_model("vit_tiny_patch16_224", depth=1, num_classes=2, image_size=64)
    said = sizes.describe(model, [(0, (32, 32)), (2, (48, 32)), (3, (64, 64))], 9, (64, 64))
    shares = [(1 + 4), (1 + 6), (1 + 16)]  # tokens, about
    assert said.startswith("epochs 1-2 at 32x32 (0.") and ", 3 at 48x32 (0." in said
    assert said.endswith(", 4-9 at 64x64; evaluation at 64x64")
    found = [float(part.split(" of")[0]) for part in said.split("(")[1:]]
    np.testing.assert_allclose(found, [share / shares[2] for share in shares[:2]], atol=0.03)
