"""The command bench: mistakes, the baseline, the loop."""

import argparse
import json

import pytest

from jaxvit import cli
from jaxvit.commands import bench

TINY = (("depth", 1), ("embed_dim", 16), ("num_classes", 3), ("num_heads", 2), ("patch_size", 4))


WRONG = [
    ([], "no --model NAME"),
    (["--model", "resnet19"], "resnet18"),
    (["--model", "resnet18", "--field", "stm=cifar"], "stem"),
    (["--model", "resnet18", "--field", "stem"], "NAME=VALUE"),
    (["--model", "resnet18", "--batch-size", "0"], "not a whole number"),
    (["--model", "resnet18", "--data", "digits"], "--data needs --loop"),
    (["--model", "resnet18", "--baseline", "nowhere.json"], "no file 'nowhere.json'"),
    (["--model", "resnet18", "--tolerance", "2"], "is not a share"),
    (["--model", "resnet18", "--compare", "timm", "--torch-python", "/nowhere"], "cannot run --torch-python"),
    (["--model", "vit_tiny_patch16_224", "--image-size", "30"], "not divisible"),
]


@pytest.mark.parametrize("words, said", WRONG, ids=[said[:20] for _, said in WRONG])
def test_mistakes_end_in_plain_lines(words, said, capsys):
    assert cli.main(["bench", *words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) <= 2 and said in "\n".join(lines)


@pytest.mark.slow
def test_command_with_baseline_and_loop(tmp_path, capsys):
    words = [word for name, value in TINY if name != "num_classes" for word in ("--field", f"{name}={value}")]
    words = ["bench", "--model", "vit_tiny_patch16_224", "--image-size", "8", "--batch-size", "4", *words]
    words += ["--seconds", "0.1", "--repeats", "2"]
    file = tmp_path / "a.json"
    assert cli.main([*words, "--mode", "none", "--loop", "--batch-size", "1"]) == 0  # fewer images than classes
    assert cli.main([*words, "--loop", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert [row["mode"] for row in found["results"]] == ["train", "infer", "loop"]
    assert found["results"][0]["compile_seconds"]["warm"] > 0
    found["results"][0]["images_per_second"]["median"] *= 1000
    file.write_text(json.dumps(found))
    assert cli.main([*words, "--baseline", str(file)]) == 1
    assert "vit_tiny_patch16_224 float32 train: images_per_second" in capsys.readouterr().err


def test_a_name_without_classes_is_measured_with_those_of_imagenet():
    args = argparse.Namespace(model=["vit_small_patch16_dinov3"], dtype="float32", image_size=None, field=[])
    assert bench._wanted(args)[0].fields == (("num_classes", 1000),)
    args.field = [("num_classes", 7)]
    assert bench._wanted(args)[0].fields == (("num_classes", 7),)
