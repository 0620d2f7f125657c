"""Configs drawn at random from the whole menu are refused in plain words, or take steps and keep their promises."""

import random

import chex
import jax
import numpy as np
import pytest

from jaxvit import optim, pretrained, tree
from jaxvit.errors import UserError
from jaxvit.models import create_model
from jaxvit.step.state import ema_variables, init_variables
from jaxvit.train.prepare import prepare
from tests.helpers import tiny_config, write_npz

VIT = {"name": "vit_tiny_patch16_224", "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
MENU = {
    "model": [
        VIT,
        {**VIT, "head_hidden_size": 8, "drop_rate": 0.2, "drop_path_rate": 0.2},
        {**VIT, "scan": True, "proj_drop_rate": 0.1, "attn_drop_rate": 0.1},
        {**VIT, "name": "deit_tiny_distilled_patch16_224"},
        {**VIT, "name": "deit3_small_patch16_224", "drop_path_rate": 0.1},
        {"name": "resnet18", "layers": (1, 1), "channels": (4, 8), "block": "basic", "stem": "cifar", "drop_rate": 0.3},
        {"name": "resnet50", "layers": (1, 1), "channels": (4, 4), "block": "bottleneck", "drop_path_rate": 0.1},
        {"name": "swin_tiny_patch4_window7_224", "patch_size": 2, "embed_dim": 8, "depths": (1, 1),
         "num_heads": (1, 2), "window_size": 2},
        {"name": "vgg11_bn", "cfg": (8, "M", 4, "M"), "head_hidden_size": 16, "image_size": 32, "drop_rate": 0.2},
        {"name": "alexnet", "head_hidden_size": 8, "image_size": 64},
    ],
    "optimizer": [
        {"name": "adamw"}, {"name": "adamw", "mu_dtype": "bfloat16", "layer_decay": 0.7},
        {"name": "sgd", "nesterov": True, "weight_decay": 5e-4}, {"name": "lion", "learning_rate": 1e-4},
        {"name": "rmsprop", "momentum": 0.9, "layer_decay": 0.9}, {"name": "adan", "options": {"b3": 0.9}},
        *({"name": name} for name in sorted(optim.optimizers())),
    ],
    "schedule": [
        {"name": "cosine", "warmup_epochs": 0.5, "min_learning_rate": 1e-4}, {"name": "constant"},
        {"name": "wsd", "decay": "sqrt"}, {"name": "onecycle"}, {"name": "onecycle", "warmup_epochs": 0.5},
        {"name": "step", "step_size": 1}, {"name": "multistep", "milestones": (1,)}, {"name": "linear"},
        {"name": "polynomial", "power": 2.0}, {"name": "exponential"},
        {"name": "plateau", "patience": 0, "metric": "loss", "cooldown": 1, "min_scale": 0.1},
    ],
    "sam": [
        {}, {"rho": 0.05}, {"rho": 0.5, "adaptive": True}, {"rho": 0.05, "method": "gsam", "rho_min": 0.01},
        {"rho": 0.5, "adaptive": True, "m": 4}, {"rho": 0.1, "method": "gsam", "m": 8, "every": 2},
        {"rho": 0.1, "every": 2}, {"rho": 0.1, "adaptive": True, "start_fraction": 0.5},
    ],
    "accum_steps": [1, 1, 2, 4],
    "grad_clip_norm": [None, 0.5],
    "freeze": ["none", "none", "head_only", "early", "early_with_stem", "middle", "last_1_blocks", r"norm|bn"],
    "unfreeze": [(), (), (), ((1, "none"),)],
    "ema": [{}, {"decay": 0.9}, {"decay": 0.99, "warmup": True}],
    "dtype": ["float32", "bfloat16"],
    "augment": [
        {}, {"mixup_alpha": 0.8}, {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "random_erasing_prob": 0.5},
        {"cutmix_alpha": 1.0, "repeated": 2}, {"color_jitter": (0.4, 0.4, 0.4, 0.1), "affine_degrees": 10.0},
        {"policy": "randaugment", "random_resized_crop": (0.5, 1.0)}, {"policy": "trivialaugment", "mix_prob": 0.5},
        {"policy": "augmix"}, {"policy": "autoaugment_cifar10", "mixup_alpha": 0.2},
    ],
    "distill": [None, None, None, "soft", "hard", "token"],
    "loss": [{}, {"label_smoothing": 0.1}, {"on_nan": "skip"}, {"on_nan": "rollback"}],
    "remat": [False, True],
    "early_stopping": [{}, {"patience": 1, "min_delta": 0.1, "metric": "loss"}],
}  # fmt: skip
# They find their step size themselves and begin with steps that may be too small for a float32 to show.
SLOW_STARTERS = ("cocob", "dadapt_adamw", "dog", "dowg", "prodigy")


def contradictions(pick):
    """What the config must be refused for, as parts of messages; where there are none it must train."""
    distilled, family = "distilled" in pick["model"]["name"], pick["model"]["name"][:3]
    found = {
        "onecycle": pick["schedule"]["name"] == "onecycle" and "warmup_epochs" in pick["schedule"],
        "distillation token": pick["distill"] == "token" and not distilled,
        # the norms of a VGG are called features_1 and so on
        "matches no parameter": pick["freeze"] == r"norm|bn" and family in ("vgg", "ale"),
        "unfreezes nothing": pick["freeze"] == "none" and bool(pick["unfreeze"]),
    }
    return [message for message, holds in found.items() if holds]


@pytest.fixture(scope="module")
def data_and_teacher(tmp_path_factory):
    """(name of the data, directory of a ResNet's weights that reads 12x12 images)."""
    path = tmp_path_factory.mktemp("combinations")
    teacher = create_model("resnet18", num_classes=3, image_size=12, layers=(1,), channels=(4,), block="basic")
    variables = init_variables(teacher, jax.random.key(1), (12, 12, 3))
    pretrained.save(teacher, variables, path / "teacher", name="resnet18")
    return write_npz(path / "data"), path / "teacher"


def draw(seed, name, teacher):
    """A config with one entry of every row of the menu."""
    pick = {word: random.Random(f"{seed} {word}").choice(choices) for word, choices in MENU.items()}
    words = {"optim__learning_rate": 0.01, "model": {**pick["model"], "remat": pick["remat"]}, "dtype": pick["dtype"]}
    words |= {f"optim__{word}": value for word, value in pick["optimizer"].items()}
    words |= {f"optim__{word}": pick[word] for word in ("accum_steps", "grad_clip_norm", "freeze", "unfreeze")}
    for section in ("schedule", "sam", "ema", "augment", "loss", "early_stopping"):
        prefix = f"optim__{section}" if section in ("schedule", "sam") else section
        words |= {f"{prefix}__{word}": value for word, value in pick[section].items()}
    if pick["distill"]:
        words |= {"distill__teacher": str(teacher), "distill__model": "resnet18", "distill__mode": pick["distill"]}
    return tiny_config(name, **words), pick


QUICK = (2, 3)  # of the others some compile for half a minute


@pytest.mark.parametrize(
    "seed", [seed if seed in QUICK else pytest.param(seed, marks=pytest.mark.slow) for seed in range(60)]
)
def test_a_combination_keeps_its_promises(seed, data_and_teacher, tmp_path):
    config, pick = draw(seed, *data_and_teacher)
    refusals = contradictions(pick)
    if refusals:
        with pytest.raises(UserError, match="|".join(refusals)) as caught:
            prepare(config, tmp_path)
        assert len(str(caught.value).splitlines()) <= 2
        return
    run, state = prepare(config, tmp_path)
    rates = []
    for epoch in range(2 if pick["unfreeze"] else 1):
        state = run.enter(epoch, state)
        state = check_epoch(run, state, epoch, rates, pick)
    run.checkpoints.close()
    assert all(tree.named_leaves(run.phase.trainable).values()) or not pick["unfreeze"]
    if pick["schedule"]["name"] in ("constant", "plateau"):
        assert rates == [pytest.approx(config.optim.learning_rate)] * len(rates)


def check_epoch(run, state, epoch, rates, pick):
    """Takes two steps and compares the states before and after; returns the new one."""
    before = jax.tree.map(np.array, state)  # the step takes the state's own memory
    order, first = np.arange(len(run.dataset.train)), epoch * run.batches.steps_per_epoch
    batches = list(run.feeds["train"].batches(order, run.batches.size))[:2]
    for index, batch in enumerate(batches, first):
        state, found = run.take_step(index, state, batch)
        rates.append(float(found["learning_rate"]))
        assert np.isfinite(float(found["loss"])) and np.isfinite(float(found["grad_norm"])), pick

    assert int(state.step) == first + 2
    chex.assert_trees_all_equal_shapes_and_dtypes(before, jax.tree.map(np.array, state))
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves((state.params, state.batch_stats)))
    trains = tree.named_leaves(run.phase.trainable)
    old, new = tree.named_leaves(before.params), tree.named_leaves(state.params)
    moved = {path: bool((np.asarray(new[path]) != old[path]).any()) for path in old}
    assert not any(moved[path] for path, on in trains.items() if not on), pick  # bit by bit
    chex.assert_tree_all_finite(state.params)
    # a fresh ResNet's blocks end in norms of scale 0: where these are frozen, nothing before them has a gradient
    closed = pick["model"]["name"].startswith("resnet") and pick["freeze"] == r"norm|bn"
    if pick["optimizer"]["name"] not in SLOW_STARTERS and not closed:
        # a relu that never fires, or a shift that softmax takes away, has no gradient to move by
        still = [path for path, on in trains.items() if on and not moved[path]]
        assert len(still) <= 0.3 * sum(trains.values()), (pick, still)
    state_of = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state.opt_state)}
    keys = {path: "".join(f"['{part}']" for part in path.split("/")) for path in trains}
    assert not any(keys[path] in key for path, on in trains.items() if not on for key in state_of), pick
    frozen = optim.frozen_modules(run.phase.trainable)
    for path, value in tree.named_leaves(state.batch_stats).items():
        same = np.array_equal(value, tree.named_leaves(before.batch_stats)[path])
        assert same == (path.rpartition("/")[0] in frozen), (pick, path)
    if pick["ema"]:
        chex.assert_tree_all_finite(ema_variables(state, run.phase.trainable)["params"])
        average = tree.named_leaves(state.ema["params"])
        assert average.keys() == {path for path, on in trains.items() if on}
        part = [path for path in average if moved[path]]
        assert not part or any((np.asarray(average[path]) != np.asarray(new[path])).any() for path in part), pick
    return state
