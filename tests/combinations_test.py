"""Configs drawn at random from the whole menu take real steps and keep what each word promises."""

import random

import chex
import jax
import numpy as np
import pytest

from jaxvit import optim, pretrained, tree
from jaxvit.models import create_model
from jaxvit.run import prepare
from jaxvit.state import ema_variables, init_variables
from tests.helpers import tiny_config, write_npz

VIT = {"model__name": "vit_tiny_patch16_224", "model__patch_size": 4}
MENU = {
    "model": [
        VIT,
        {**VIT, "model__head_hidden_size": 8, "model__drop_rate": 0.2, "model__drop_path_rate": 0.2},
        {"model": {"name": "resnet18", "layers": (1, 1), "channels": (4, 8), "block": "basic", "stem": "cifar",
                   "drop_rate": 0.3}},
        {"model": {"name": "swin_tiny_patch4_window7_224", "patch_size": 2, "embed_dim": 8, "depths": (1, 1),
                   "num_heads": (1, 2), "window_size": 2}},
    ],
    "optimizer": [
        {"name": "adamw"}, {"name": "adamw", "mu_dtype": "bfloat16", "layer_decay": 0.7}, {"name": "lamb"},
        {"name": "sgd", "nesterov": True, "weight_decay": 5e-4}, {"name": "lion", "learning_rate": 1e-4},
        {"name": "muon"}, {"name": "rmsprop", "momentum": 0.9}, {"name": "adan", "options": {"b3": 0.9}},
    ],
    "schedule": [
        {"name": "cosine", "warmup_epochs": 0.5}, {"name": "constant"}, {"name": "wsd"}, {"name": "onecycle"},
        {"name": "step", "step_size": 1}, {"name": "multistep", "milestones": (1,)}, {"name": "linear"},
        {"name": "polynomial", "power": 2.0}, {"name": "plateau", "patience": 1}, {"name": "exponential"},
    ],
    "sam": [
        {}, {"rho": 0.05}, {"rho": 0.5, "adaptive": True}, {"rho": 0.05, "method": "gsam", "rho_min": 0.01},
        {"rho": 0.5, "adaptive": True, "m": 4}, {"rho": 0.1, "every": 2}, {"rho": 0.1, "start_fraction": 0.5},
    ],
    "accum_steps": [1, 2, 4],
    "grad_clip_norm": [None, 0.5],
    "freeze": ["none", "head_only", "early", "middle", "last_1_blocks", r"norm|bn"],
    "ema": [{"decay": 0.0}, {"decay": 0.9}, {"decay": 0.99, "warmup": True}],
    "dtype": ["float32", "bfloat16"],
    "augment": [
        {}, {"mixup_alpha": 0.8}, {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "random_erasing_prob": 0.5},
        {"cutmix_alpha": 1.0, "repeated": 2}, {"color_jitter": (0.4, 0.4, 0.4, 0.1), "affine_degrees": 10.0},
    ],
    "distill": [None, None, "soft", "hard"],
    "loss": [{}, {"label_smoothing": 0.1}, {"on_nan": "skip"}],
    "remat": [False, True],
}  # fmt: skip


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
    words = {"optim__learning_rate": 0.01, **pick["model"], "dtype": pick["dtype"]}
    words |= {f"optim__{word}": value for word, value in pick["optimizer"].items()}
    words |= {f"optim__{word}": pick[word] for word in ("accum_steps", "grad_clip_norm", "freeze")}
    for section, prefix in (("schedule", "optim__schedule"), ("sam", "optim__sam"), ("ema", "ema"),
                            ("augment", "augment"), ("loss", "loss")):  # fmt: skip
        words |= {f"{prefix}__{word}": value for word, value in pick[section].items()}
    if pick["distill"]:
        words |= {"distill__teacher": str(teacher), "distill__model": "resnet18", "distill__mode": pick["distill"]}
    config = tiny_config(name, **words)
    with config.unlocked():
        config.model.remat = pick["remat"]
    return config, pick


@pytest.mark.parametrize("seed", [*range(2), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 20))])
def test_a_combination_keeps_its_promises(seed, data_and_teacher, tmp_path):
    config, pick = draw(seed, *data_and_teacher)
    run, state = prepare(config, tmp_path)
    before = jax.tree.map(np.array, state)  # the step takes the state's own memory
    order, rates, steps = np.arange(len(run.dataset.train)), [], 2
    batches = list(run.feeds["train"].batches(order, run.batch_size))[:steps]
    for index, batch in enumerate(batches):
        state, found = run.take_step(index, state, batch)
        rates.append(float(found["learning_rate"]))
        assert np.isfinite(float(found["loss"])) and np.isfinite(float(found["grad_norm"])), pick
    run.checkpoints.close()

    assert int(state.step) == steps
    chex.assert_trees_all_equal_shapes_and_dtypes(before, jax.tree.map(np.array, state))
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves((state.params, state.batch_stats)))
    trains = tree.named_leaves(run.trainable)
    old, new = tree.named_leaves(before.params), tree.named_leaves(state.params)
    moved = {path: bool((np.asarray(new[path]) != old[path]).any()) for path in old}
    assert not any(moved[path] for path, on in trains.items() if not on), pick  # bit by bit
    still = [path for path, on in trains.items() if on and not moved[path]]
    # a relu that never fires, or a shift that softmax takes away, has no gradient to move by
    assert len(still) <= 0.3 * sum(trains.values()), (pick, still)
    state_of = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state.opt_state)}
    keys = {path: "".join(f"['{part}']" for part in path.split("/")) for path in trains}
    assert not any(keys[path] in key for path, on in trains.items() if not on for key in state_of), pick
    frozen = optim.frozen_modules(run.trainable)
    for path, value in tree.named_leaves(state.batch_stats).items():
        same = np.array_equal(value, tree.named_leaves(before.batch_stats)[path])
        assert same == (path.rpartition("/")[0] in frozen), (pick, path)
    if pick["ema"]["decay"]:
        average = ema_variables(state, run.trainable)["params"]
        chex.assert_tree_all_finite(average)
        part = [path for path in old if moved[path]]
        assert any((np.asarray(tree.named_leaves(average)[p]) != np.asarray(new[p])).any() for p in part), pick
    if pick["schedule"]["name"] == "constant":
        assert rates == [pytest.approx(config.optim.learning_rate)] * steps
