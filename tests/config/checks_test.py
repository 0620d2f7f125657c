"""Values that no config may have."""

import pytest

from jaxvit import config as config_lib
from jaxvit.config import checks, recipes
from jaxvit.errors import UserError


def fields(name):
    return {"vit": ("depth", "image_size", "global_pool")}[name]


def apply(*overrides, base=None):
    config = base or config_lib.default()
    config.model.name = "vit"
    return config_lib.override(config, overrides, fields)


@pytest.mark.parametrize(
    "override",
    ["batch_size=0", "batch_size=-4", "num_epochs=0", "optim.learning_rate=-1", "optim.learning_rate=nan",
     "data.fraction=0", "data.fraction=1.5", "data.val_fraction=1", "dtype=float16", "loss.label_smoothing=1.0",
     "optim.accum_steps=3", "parallel.mode=pmapp", "data.interpolation=cubic", "optim.sam.rho=-0.1"],
)  # fmt: skip
def test_bad_values_are_refused(override):
    word = override.partition("=")[0]
    with pytest.raises(UserError, match=word.rsplit(".", 1)[-1]):
        checks.validate(apply(f"--config.{override}"))


def test_words_that_nothing_reads_are_told():
    assert checks.idle(config_lib.default()) == {}
    assert checks.idle(apply("--config.optim.sam.adaptive=true", "--config.ema.warmup=true")) == {
        "optim.sam.adaptive": "optim.sam.rho",
        "ema.warmup": "ema.decay",
    }
    assert checks.idle(apply("--config.optim.sam.adaptive=true", "--config.optim.sam.rho=0.5")) == {}


def test_options_whose_switch_is_off_are_told_and_no_recipe_has_one():
    words = {
        "augment.randaug_magnitude=5", "augment.random_erasing_mode=const", "augment.mix_prob=0.5",
        "augment.mix_switch_prob=0.1", "augment.crop_ratio=(1,1)", "distill.temperature=2", "wandb.name=x",
        "early_stopping.min_delta=0.1",
    }  # fmt: skip
    assert checks.idle(apply(*(f"--config.{word}" for word in words))).keys() == {w.partition("=")[0] for w in words}
    on = ["augment.policy=randaugment", "augment.random_erasing_prob=0.1", "augment.mixup_alpha=1",
          "augment.cutmix_alpha=1", "augment.train_crop_mode=rrc", "distill.teacher=x", "wandb.project=x",
          "early_stopping.patience=3"]  # fmt: skip
    assert checks.idle(apply(*(f"--config.{word}" for word in (*words, *on)))) == {}
    asam = ("--config.optim.sam.rho=0.1", "--config.optim.sam.eta=0.1", "--config.optim.sam.alpha=0.1")
    assert checks.idle(apply(*asam)).keys() == {"optim.sam.eta", "optim.sam.alpha"}
    for name, path in recipes.names().items():
        recipe = config_lib.load(str(path))
        assert recipe.sweep.ranges or checks.idle(recipe) == {}, name  # a search switches things on


def test_options_of_other_data_are_told():
    words = ("--config.data.columns=file=a", "--config.data.dir=d", "--config.data.archive=x")
    assert set(checks.idle(apply("--config.data.name=folder:p", *words))) == {
        "data.columns",
        "data.dir",
        "data.archive",
    }
    assert set(checks.idle(apply("--config.data.name=tfds:p", *words))) == {"data.columns", "data.archive"}
    assert set(checks.idle(apply("--config.data.name=csv:p", *words))) == {"data.dir", "data.archive"}
    assert set(checks.idle(apply("--config.data.name=cifar10", *words))) == {"data.columns"}


def test_true_is_not_a_number():
    config = config_lib.default()
    config.batch_size = True
    with pytest.raises(UserError, match="batch_size is True; expected a whole number"):
        checks.validate(config)
