"""Every config loads, is valid, and takes a step of everything on small synthetic data."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxvit import config as config_lib
from jaxvit import models, sweep, train
from jaxvit.config import checks
from tests.helpers import write_npz

CONFIGS = sorted((Path(__file__).resolve().parent.parent / "configs").glob("*.py"))
DEIT = Path(__file__).resolve().parent.parent.parent / "shared/data/weights/deit_tiny_patch16_224.safetensors"
# augmentation policies and Swin compile for long; what the others compile is compiled by their kin
LONG = ("asam_vit", "cifar100_fast_resnet18", "cifar100_resnet18", "cifar100_vit_mae", "cifar100_vit_taught",
        "finetune_resnet", "finetune_swin", "finetune_vit", "imagenet_deit3_small", "imagenet_deit3_small_384",
        "imagenet_deit_small", "imagenet_resnet50_a1", "imagenet_resnet50_a2", "imagenet_resnet50_a3",
        "imagenet_swin_tiny", "imagenet_vit_small_90ep", "scratch_cnn_cifar", "scratch_swin_cifar", "scratch_vit_cifar",
        "sweep_cifar100_asam", "sweep_cifar100_resnet18", "sweep_cifar100_vit", "sweep_digits_vit")  # fmt: skip
STEPS = [pytest.param(path, marks=[pytest.mark.slow] * (path.stem in LONG), id=path.stem) for path in CONFIGS]


def test_headers_state_the_command_and_what_to_expect():
    texts = {path.name: path.read_text(encoding="utf-8") for path in CONFIGS}
    wrong = [name for name, text in texts.items() if f"--config configs/{name}" not in text or "Expect" not in text]
    assert texts and not wrong


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_is_valid(path):
    given = config_lib.load(str(path))
    checks.validate(given)
    fields = {k: v for k, v in given.model.items() if k not in ("name", "patch_size")}
    models.create_model(given.model.name, **fields)  # at full size, unless the data decide
    assert ("python main.py sweep" in path.read_text(encoding="utf-8")) == bool(given.sweep.ranges)
    if given.sweep.ranges:
        sweep.read_ranges(given)


@pytest.mark.parametrize("path", STEPS)
def test_every_config_takes_a_step(path, tmp_path):
    given = config_lib.load(str(path))
    size = 8 if given.data.name == "digits" else 32
    name = write_npz(tmp_path / "data", num_train=24, num_test=6, size=size, channels=1 if size == 8 else 3)
    words = [f"--config.data.name={name}", "--config.fast_dev_run", "--config.batch_size=8", "--config.pretrained=None"]
    words += ["--config.distill.teacher=None"] if given.distill.teacher else []
    words += ["--config.parallel.num_devices=1", "--config.data.image_size=32"] if size == 32 else []
    words += ["--config.data.train_sizes=((0,24),)"] if given.data.train_sizes else []
    config = config_lib.load(str(path), words, models.model_fields)
    with config.unlocked():  # small: the test is of the config, not of the machine
        if "resnet" in given.model.name:
            config.model.update({"channels": (8, 8, 8, 8), "layers": (1, 1, 1, 1)})
        elif "swin" in given.model.name:
            config.model.update({"depths": (1, 1), "embed_dim": 12, "num_heads": (2, 2)})
        elif size == 32:
            config.model.update({"depth": 1, "embed_dim": 12, "num_heads": 2})
    final = train.train_and_evaluate(config, tmp_path / "run")
    assert np.isfinite(final["test/loss"])
    resolved = json.loads((tmp_path / "run/config.json").read_text())
    assert resolved["optim"]["name"] == given.optim.name


@pytest.mark.slow
@pytest.mark.skipif(not DEIT.exists(), reason="the weights of DeiT-Ti are not here")
def test_linear_probe_trains_the_head_alone(tmp_path):
    name = write_npz(tmp_path / "data", num_train=24, num_test=6, size=32)
    words = [f"--config.data.name={name}", f"--config.pretrained={DEIT}", "--config.batch_size=8"]
    words += ["--config.num_epochs=2", "--config.data.image_size=32", "--config.parallel.num_devices=1"]
    config = config_lib.load(str(CONFIGS[0].parent / "linear_probe.py"), words, models.model_fields)
    final = train.train_and_evaluate(config, tmp_path / "run")
    assert final["test/accuracy"] > 0.5
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["trainable_parameters"] == 192 * 3 + 3
