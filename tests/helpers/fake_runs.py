"""Writes the files of a run without training one."""

import json

import numpy as np

from jaxvit import config as config_lib


def write_run(
    path, *, classes=4, n=40, epochs=3, seed=0, data="digits", names=None, finished=True, skill=3.0, sizes=None, **words
):
    """Writes a run of `n` test images whose logits favour the true class by `skill`; `words` are a__b=value.

    `sizes`: training images of each class, as the summary holds them.
    """
    path.mkdir(parents=True, exist_ok=True)
    config = config_lib.to_dict(config_lib.default())
    config |= {"seed": seed, "num_epochs": epochs}
    config["data"]["name"] = data
    for word, value in words.items():
        section, _, name = word.rpartition("__")
        (config[section] if section else config)[name] = value
    names = names or [f"class {i}" for i in range(classes)]
    (path / "config.json").write_text(json.dumps(config))
    (path / "classes.json").write_text(json.dumps(names))
    lines = [
        {"step": 10 * e, "epoch": e, "train/loss": 2 / e, "train/accuracy": 0.5, "train/learning_rate": 0.1 / e,
         "train/grad_norm": 1.0, "val/loss": 2.5 / e, "val/accuracy": 0.4 + 0.1 * e, "val/top5_accuracy": 0.9}
        for e in range(1, epochs + 1 if finished else epochs)
    ]  # fmt: skip
    lines.insert(0, {"step": 5, "epoch": 1, "train/batch_loss": 2.2, "train/learning_rate": 0.05})
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rng = np.random.default_rng(7)
    labels = (np.arange(n) % classes).astype(np.int32)
    images = rng.integers(0, 255, (n, 8, 8, 3)).astype(np.uint8)
    if not finished:
        return path
    logits = np.random.default_rng(seed).normal(size=(n, classes)).astype(np.float32)
    logits[np.arange(n), labels] += skill
    np.savez(path / "predictions.npz", logits=logits, labels=labels, index=np.arange(n))
    np.savez(path / "samples.npz", image=images[:12], label=labels[:12], index=np.arange(12))
    summary = {"parameters": 1234, "gmacs": 0.5, "image_size": [8, 8], "seconds_per_epoch": 1.5, "train_seconds": 4.5,
               "images_per_second": 100.0, "num_test": n, "best": lines[-1], "command": "main.py <x>",
               "environment": {"python": "3.11", "jax": "0.10"}, "finished": "2026-01-01T00:00:00"}  # fmt: skip
    if sizes is not None:
        summary["train_of_each_class"] = list(sizes)
    (path / "summary.json").write_text(json.dumps(summary))
    return path
