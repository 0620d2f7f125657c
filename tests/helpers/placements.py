"""One run at many placements: models, methods and devices, and how far two runs are apart."""

import json

import jax
import numpy as np

from jaxvit import train
from tests.helpers import tiny_config, write_npz

MODELS = {
    "resnet": {"name": "resnet18", "layers": (1, 1, 1, 1)},
    "vit": {"name": "vit_tiny_patch16_224", "patch_size": 4, "embed_dim": 64, "depth": 2, "num_heads": 2},
    "swin": {"name": "swin_tiny_patch4_window7_224", "patch_size": 1, "embed_dim": 32, "depths": (2, 2),
             "num_heads": (2, 4), "window_size": 4},
}  # fmt: skip
NEWER = {
    "eva": {"name": "vit_small_patch16_dinov3", "patch_size": 4, "embed_dim": 64, "depth": 2, "num_heads": 2},
    "swinv2": {"name": "swinv2_tiny_window8_256", "patch_size": 1, "embed_dim": 32, "depths": (1, 1),
               "num_heads": (2, 4), "window_size": 4},
    "convnext": {"name": "convnext_atto", "patch_size": 1, "depths": (1, 1, 1, 1), "dims": (16, 32, 64, 64)},
}  # fmt: skip
METHODS = {
    "adamw": {},
    "asam": {"optim__sam__rho": 0.5, "optim__sam__adaptive": True},
    "clip": {"optim__grad_clip_norm": 0.1, "optim__sam__rho": 0.05, "optim__accum_steps": 2, "ema__decay": 0.9},
}
PLACES = {
    **{str(n): {"parallel__num_devices": n} for n in (1, 2, 4, 8)},
    "fsdp4": {"parallel__num_devices": 8, "parallel__fsdp": 4},
    "fsdp8": {"parallel__num_devices": 8, "parallel__fsdp": 8},
    "tensor2": {"parallel__num_devices": 8, "parallel__fsdp": 2, "parallel__tensor": 2},
}
STEPS = 20


def run_config(data_name, model="vit", method="adamw", place="1", **words):
    words = {"num_epochs": 1, "log_every_steps": 1, **METHODS[method], **PLACES[place], **words}
    config = tiny_config(data_name, **words)
    del config.model
    with config.unlocked():
        config.model = dict((MODELS | NEWER)[model])
    return config


def steps_of(workdir):
    """Loss, accuracy and gradient norm of each step, and the metrics of the epoch: [[step's values], ...]."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("step", "epoch")} for line in lines]


def difference(a, b):
    """The greatest relative difference of each line."""
    return np.asarray(
        [max(abs(one[k] - two[k]) / max(abs(one[k]), 1e-12) for k in one) for one, two in zip(a, b, strict=True)]
    )


def run_at(tmp_path, place, model="vit", method="adamw", *, precision="float64", num_train=356, num_test=21, **words):
    """Trains for an epoch of 20 steps; returns `steps_of` the run."""
    data_name = write_npz(tmp_path / "data", num_train=num_train, num_test=num_test)  # that divide over nothing
    workdir = tmp_path / "-".join((model, method, place, words.get("parallel__mode", "jit")))
    with jax.enable_x64(precision == "float64"):
        train.train_and_evaluate(run_config(data_name, model, method, place, dtype=precision, **words), workdir)
    return steps_of(workdir)
