"""Weight files: every format read, every kind of damage answered in plain lines, nothing unpickled."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxvit.errors import UserError
from jaxvit.pretrained import files, load_pretrained, read, stored_data_config
from tests.helpers import pretrained as helpers
from tests.helpers.weight_files import TENSORS, assert_plain


def test_the_content_decides_not_the_name(tmp_path):
    save_file(TENSORS, tmp_path / "x.npz")
    assert read(tmp_path / "x.npz").tensors.keys() == TENSORS.keys()
    with (tmp_path / "y.safetensors").open("wb") as file:
        np.savez(file, **TENSORS)
    assert read(tmp_path / "y.safetensors").tensors.keys() == TENSORS.keys()


def test_directories(tmp_path):
    assert_plain(tmp_path, "no weights in")
    save_file(TENSORS, tmp_path / "b.safetensors")
    (tmp_path / "config.json").write_text('{"architecture": "resnet18"}')
    found = read(tmp_path)
    assert found.path.name == "b.safetensors" and found.config == {"architecture": "resnet18"}
    assert read(tmp_path / "b.safetensors").config == found.config
    save_file(TENSORS, tmp_path / "c.safetensors")
    assert_plain(tmp_path, "2 weight files: b.safetensors, c.safetensors")
    (tmp_path / "classes.json").touch()
    assert_plain(tmp_path, "the workdir of a run.*\n.*convert --from")
    save_file(TENSORS, tmp_path / "model.safetensors")
    assert read(tmp_path).path.name == "model.safetensors"
    (tmp_path / "config.json").write_text('{"architecture"')
    assert_plain(tmp_path, "cannot read .*config.json")
    assert read(tmp_path / "b.safetensors").config == {}  # a neighbour that is not timm's does not matter


def test_shards(tmp_path):
    names = list(TENSORS)
    for i, part in enumerate((names[:2], names[2:])):
        save_file({n: TENSORS[n] for n in part}, tmp_path / f"model-{i}.safetensors")
    index = {n: f"model-{i // 2}.safetensors" for i, n in enumerate(names)}
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": index}))
    helpers.assert_same(read(tmp_path).tensors, TENSORS)
    path.write_text(json.dumps({"weight_map": {"a": "../model-0.safetensors"}}))
    assert_plain(tmp_path, "not next to it")
    path.write_text(json.dumps({"weight_map": 3}))
    assert_plain(tmp_path, "no weight_map")


def shards(directory, parts, mapped):
    for i, names in enumerate(parts, 1):
        save_file({n: TENSORS[n] for n in names}, directory / f"model-{i:05}-of-{len(parts):05}.safetensors")
    path = directory / "model.safetensors.index.json"
    full = {n: f"model-{i:05}-of-{len(parts):05}.safetensors" for n, i in mapped.items()}
    path.write_text(json.dumps({"weight_map": full}))
    return path


def test_the_index_of_shards_is_obeyed(tmp_path):
    parts = (["a.weight", "n"], ["a.bias", "n"])
    shards(tmp_path, parts, {"a.weight": 1, "n": 1, "a.bias": 2})
    assert_plain(tmp_path, "model-00002-of-00002.safetensors holds 'n', for which .* says 'model-00001-of-00002")
    shards(tmp_path, parts, {"a.weight": 1, "n": 2, "a.bias": 2})
    assert_plain(tmp_path, "model-00001-of-00002.safetensors holds 'n', for which .* says 'model-00002-of-00002")
    shards(tmp_path, (["a.weight", "n"], ["a.bias"]), {"a.weight": 2, "n": 1, "a.bias": 2})
    assert_plain(tmp_path, "model-00001-of-00002.safetensors holds 'a.weight', for which .* says 'model-00002-of-00002")
    shards(tmp_path, (["a.weight", "n"], ["a.bias"]), {"a.weight": 1, "n": 1, "a.bias": 2, "b": 2})
    assert_plain(tmp_path, "says that 'b' is in 'model-00002-of-00002.safetensors', which does not hold it")
    shards(tmp_path, (["a.weight", "n"], ["a.bias"]), {"a.weight": 1, "a.bias": 2})
    assert_plain(tmp_path, "holds 'n', for which model.safetensors.index.json does not list it")
    shards(tmp_path, (["a.weight", "n"], ["a.bias"]), {"a.weight": 1, "a.bias": 2, "n": 1})
    assert read(tmp_path).tensors.keys() == {"a.weight", "a.bias", "n"}
    assert_plain(tmp_path / "model-00002-of-00002.safetensors", "is one of 2 parts of the weights.\nName their dir")
    (tmp_path / "model.safetensors.index.json").unlink()
    assert_plain(tmp_path, r"without the .index.json")
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    assert_plain(tmp_path, "is one of 2 parts")


def test_what_trainers_put_beside_the_weights_is_not_taken_for_them(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state_0.pth", "optimizer.bin", "scaler.pt"):
        (tmp_path / name).write_bytes(b"\x80 not weights")
    assert_plain(tmp_path, "no weights in")
    for name in ("a.ckpt", "checkpoint-3.pth.tar", "last.pth", "model_best.pth.tar", "pytorch_model.bin"):
        with (tmp_path / name).open("wb") as file:
            np.savez(file, **TENSORS)
        assert read(tmp_path).path.name == name
    save_file(TENSORS, tmp_path / "model.safetensors")
    assert read(tmp_path).path.name == "model.safetensors"


def test_hidden_files_are_no_weights(tmp_path):
    save_file({"a": np.ones(1, np.float32)}, tmp_path / "w.safetensors")
    (tmp_path / "._w.safetensors").write_bytes(b"Mac OS X")
    assert files.weight_file(tmp_path).name == "w.safetensors"


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.safetensors")
    assert_plain(tmp_path / "x.safetensors", "is a pipe, a device or a socket; expected a plain file")
    assert_plain(tmp_path, "no weights in")
    os.mkfifo(tmp_path / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_plain(tmp_path, "which is not next to it")
    assert_plain(Path("/dev/zero"), "is a pipe, a device")


def test_absent_empty_and_unknown_files(tmp_path):
    assert_plain(tmp_path / "none.safetensors", "no such weight file")
    (tmp_path / "empty.safetensors").touch()
    assert_plain(tmp_path / "empty.safetensors", "is empty")
    (tmp_path / "x.txt").write_text("hello, here are no weights")
    assert_plain(tmp_path / "x.txt", "not a weight file that can be read")
    for name in ("x.safetensors", "x.bin"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 22883208\n")
        assert_plain(tmp_path / name, "is a pointer of Git LFS .*git lfs pull")
        (tmp_path / name).write_text("<!DOCTYPE html><html><head>Access denied</head></html>")
        assert_plain(tmp_path / name, "is an HTML page .perhaps from a failed download")


@pytest.mark.torch
def test_what_is_in_the_way_is_named_in_our_words(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"model": {"a": torch.ones(2)}, "criterion": torch.nn.CrossEntropyLoss()}, tmp_path / "x.pth")
    line = (
        r"holds a torch\.nn\.modules\.loss\.CrossEntropyLoss in addition to the weights\.\n"
        r"Save only the weights .*state_dict"
    )
    assert_plain(tmp_path / "x.pth", line)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "y.pth")
    assert_plain(tmp_path / "y.pth", r"holds a torch\.nn\.modules\.linear\.Linear in addition")
    for path in ("x.pth", "y.pth"):
        with pytest.raises(UserError) as error:
            read(tmp_path / path)
        assert "\x1b" not in str(error.value) and "weights_only" not in str(error.value)


NAME, FIELDS = "vit_tiny_patch16_224", {"depth": 1, "embed_dim": 8, "num_heads": 2, "image_size": 32}


@pytest.fixture(scope="module")
def good_files(tmp_path_factory):
    from jaxvit.models.registry import create_model

    state_dict = helpers.weights(create_model(NAME, num_classes=3, **FIELDS))
    path = tmp_path_factory.mktemp("good")
    save_file(state_dict, path / "a.safetensors")
    np.savez(path / "b.npz", **state_dict)
    np.savez_compressed(path / "c.npz", **state_dict)
    return state_dict, [path / n for n in ("a.safetensors", "b.npz", "c.npz")]


def damage(content, kind, rng):
    """Cuts the file, flips bits of its first 4 KB or of its last, or overwrites a stretch."""
    content = bytearray(content)
    if kind == "cut":
        return bytes(content[: rng.integers(0, len(content))])
    if kind == "stretch":
        start = int(rng.integers(0, len(content) - 64))
        content[start : start + 64] = rng.bytes(64)
        return bytes(content)
    for _ in range(int(rng.integers(1, 4))):
        span = min(4096, len(content))
        place = int(rng.integers(0, span)) + (len(content) - span if kind == "tail" else 0)
        content[place] ^= 1 << int(rng.integers(0, 8))
    return bytes(content)


@pytest.mark.filterwarnings("ignore:.*NaN or infinite:UserWarning")
@pytest.mark.parametrize("kind", ["cut", "head", "tail", "stretch"])
def test_random_damage_is_an_answer_or_a_right_load(tmp_path, good_files, kind):
    rng = np.random.default_rng(sum(map(ord, kind)))
    state_dict, paths = good_files
    answered = 0
    for i in range(90):
        path = tmp_path / f"{i}{paths[i % 3].suffix}"
        path.write_bytes(damage(paths[i % 3].read_bytes(), kind, rng))
        try:
            model, variables = load_pretrained(NAME, path, **FIELDS)
        except UserError as error:
            answered += 1
            assert 1 <= len(str(error).splitlines()) <= 24
        else:
            assert variables["params"]["head"]["kernel"].shape == (8, model.num_classes)
    assert answered > 20, "the damage is too gentle to test anything"
    assert state_dict


def test_the_preprocessing_of_a_run_is_that_of_its_config(tmp_path):
    words = {"image_size": [48, 64], "mean": [0.4], "std": [0.2], "crop_pct": 0.9, "interpolation": "bilinear"}
    (tmp_path / "config.json").write_text(json.dumps({"model": {"in_channels": 1}, "data": words | {"name": "x"}}))
    (tmp_path / "classes.json").write_text("[]")
    found = stored_data_config("vit_tiny_patch16_224", tmp_path)
    assert found == {"image_size": (48, 64), "mean": (0.4,), "std": (0.2,), "crop_pct": 0.9,
                     "interpolation": "bilinear", "in_channels": 1}  # fmt: skip
    (tmp_path / "config.json").write_text('{"model": {}, "data": {}}')
    with pytest.raises(UserError, match=r"config\.json"):
        stored_data_config("vit_tiny_patch16_224", tmp_path)
