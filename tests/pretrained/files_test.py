"""Weight files: every format read, every kind of damage answered in plain lines, nothing unpickled."""

import argparse
import json
import os
import pathlib
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxvit.errors import UserError
from jaxvit.pretrained import files, load_pretrained, read, zip_file
from tests.helpers import pretrained as helpers

TENSORS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a.bias": np.array([1.5, -2], np.float16),
    "n": np.array(3, np.int64),
    "empty": np.zeros((0, 4), np.float32),
}


def header_file(path, header, data=b"", length=None):
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def assert_plain(path, match):
    with pytest.raises(UserError, match=match) as error:
        read(path)
    assert len(str(error.value).splitlines()) <= 2
    assert str(error.value).isprintable() or "\n" in str(error.value)


def test_safetensors(tmp_path):
    save_file(TENSORS, tmp_path / "x.safetensors")
    found = read(tmp_path / "x.safetensors")
    helpers.assert_same(found.tensors, TENSORS)
    assert found.sha256 == files.sha256(tmp_path / "x.safetensors")
    assert len(found.sha256) == 64 and found.config == {}


def test_bfloat16(tmp_path):
    array = np.array([1, 2.5], ml_dtypes.bfloat16)
    path = header_file(tmp_path / "x", {"a": entry("BF16", (2,), (0, 4))}, array.tobytes())
    np.testing.assert_array_equal(read(path).tensors["a"], array)


@pytest.mark.parametrize("compressed", [True, False])
def test_npz(tmp_path, compressed):
    (np.savez_compressed if compressed else np.savez)(tmp_path / "x.npz", **TENSORS, f=np.asfortranarray(np.eye(3)))
    found = read(tmp_path / "x.npz").tensors
    np.testing.assert_array_equal(found.pop("f"), np.eye(3))
    helpers.assert_same(found, TENSORS)


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
    assert_plain(tmp_path, "not beside it")
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
    assert_plain(tmp_path, r"without the .index.json that says what is in which")
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
    assert_plain(tmp_path, "which is not beside it")
    assert_plain(Path("/dev/zero"), "is a pipe, a device")


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3"])
def test_types_that_are_not_supported_are_named(tmp_path, dtype):
    path = header_file(tmp_path / "x.safetensors", {"a": entry(dtype, (4,))}, b"\0" * 4)
    assert_plain(path, f"holds 'a' as {dtype}, a type that is not supported.\nExpected F32")


def test_bfloat16_in_an_npz_as_jax_programs_write_it(tmp_path):
    array = np.array([[1, 2.5]], ml_dtypes.bfloat16)
    np.savez(tmp_path / "x.npz", a=array)
    helpers.assert_same(read(tmp_path / "x.npz").tensors, {"a": array})


def test_an_npz_is_judged_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(zip_file, "FREE_BYTES", 2**20)
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in "abc":
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, np.zeros(2**21, np.float32))
    monkeypatch.setattr(zip_file, "_read_npy", lambda *_: pytest.fail("was unpacked"))
    assert_plain(tmp_path / "x.npz", "unpacks from 0 MB to 25 MB")
    with pytest.raises(UserError, match="to 25 MB; the model has room for 1 MB"):
        load_pretrained(NAME, tmp_path / "x.npz", **FIELDS)


GOOD = {"a": entry()}
DAMAGED = {
    "too short": (b"", 8, "cut short"),
    "claims 4 GB": (b"{}", 1 << 32, "claims 4,294,967,296 bytes"),
    "claims all of 64 bits": (b"{}", (1 << 64) - 1, "claims"),
    "no JSON": (b"{nonsense}", None, "header cannot be read"),
    "no UTF-8": (b'{"\xff\xfe": 1}', None, "header cannot be read"),
    "nested too deep": (b'{"a":' + b"[" * 100_000 + b"}", None, "header cannot be read"),
    "a list": (b"{}[", None, "header cannot be read"),
    "name twice": (b'{"a": 1, "a": 2}', None, "occurs twice"),
    "unknown type": ({"a": entry("F31")}, None, "no known dtype"),
    "no offsets": ({"a": {"dtype": "F32", "shape": [1]}}, None, "no known dtype"),
    "entry is a word": ({"a": "x"}, None, "no known dtype"),
    "size is not the shape's": ({"a": entry(shape=(2,))}, None, "do not match its shape"),
    "negative": ({"a": entry(shape=(-1,), offsets=(4, 0))}, None, "do not match its shape"),
    "fractions": ({"a": entry(offsets=(0, 4.0))}, None, "do not match its shape"),
    "huge side beside none": ({"a": entry(shape=(0, 10**30), offsets=(0, 0))}, None, "do not match its shape"),
    "huge sides beside none": ({"a": entry(shape=(0, 2**40, 2**40), offsets=(0, 0))}, None, "do not match its shape"),
    "a side of 1e30": ({"a": entry(shape=(0, 1e30), offsets=(0, 0))}, None, "do not match its shape"),
    "huge shape": ({"a": entry(shape=(1 << 62, 1 << 62), offsets=(0, 4))}, None, "do not match its shape"),
    "overlap": ({"a": entry(), "b": entry(offsets=(2, 6))}, None, "overlap"),
    "gap": ({"a": entry(), "b": entry(offsets=(6, 10))}, None, "overlap"),
    "beyond the end": ({"a": entry(shape=(2,), offsets=(0, 8))}, None, "needs .* bytes and has"),
    "nothing inside": ({}, None, "needs|no tensors"),
}


@pytest.mark.parametrize("case", DAMAGED.values(), ids=DAMAGED)
def test_damaged_safetensors(tmp_path, case):
    header, length, match = case
    assert_plain(header_file(tmp_path / "x.safetensors", header, b"\0" * 4, length), match)


def test_absent_empty_and_unknown_files(tmp_path):
    assert_plain(tmp_path / "none.safetensors", "no such weight file")
    (tmp_path / "empty.safetensors").touch()
    assert_plain(tmp_path / "empty.safetensors", "is empty")
    (tmp_path / "x.txt").write_text("hello, here are no weights")
    assert_plain(tmp_path / "x.txt", "no weight file that can be read")
    for name in ("x.safetensors", "x.bin"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 22883208\n")
        assert_plain(tmp_path / name, "is a pointer of Git LFS .*git lfs pull")
        (tmp_path / name).write_text("<!DOCTYPE html><html><head>Access denied</head></html>")
        assert_plain(tmp_path / name, "is an HTML page .was it a download that failed")


def test_a_torchscript_program_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as archive:  # as torch.jit.save writes it
        for name in ("data.pkl", "code/__torch__/torch/nn/modules/linear.py", "constants.pkl"):
            archive.writestr(f"x/{name}", b"...")
    assert_plain(tmp_path / "x.pt", "is a program of TorchScript")


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self):
        return (open, (str(Bomb.target), "w"))


def test_npz_never_unpickles(tmp_path):
    Bomb.target = tmp_path / "trace"
    np.savez(tmp_path / "x.npz", a=np.array([Bomb()], dtype=object))
    assert_plain(tmp_path / "x.npz", "holds pickled Python objects")
    assert not Bomb.target.exists()


def test_npz_whose_header_claims_too_much(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros((4, 4), np.float32))
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        content = archive.read("a.npy")
    with zipfile.ZipFile(tmp_path / "y.npz", "w") as archive:
        archive.writestr("a.npy", content.replace(b"(4, 4)", b"(99999999, 9999)")[: len(content)])
    assert_plain(tmp_path / "y.npz", "is damaged")


def test_pickles_need_torch_and_are_not_opened_without(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    Bomb.target = tmp_path / "trace"
    path = tmp_path / "x.pth"
    path.write_bytes(pickle.dumps({"a": Bomb()}))
    assert_plain(path, r"needs the extra: pip install 'jaxvit\[torch\]'")
    with zipfile.ZipFile(tmp_path / "y.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": Bomb()}))
    assert_plain(tmp_path / "y.pt", "needs the extra")
    assert not Bomb.target.exists()


def test_an_old_torch_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", type("Torch", (), {"__version__": "2.5.1+cpu"}))
    (tmp_path / "x.pth").write_bytes(pickle.dumps({}))
    assert_plain(tmp_path / "x.pth", "needs torch >= 2.10.* found 2.5.1")


@pytest.mark.torch
def test_pth(tmp_path):
    torch = pytest.importorskip("torch")
    state = {"a": torch.arange(3.0), "b": torch.ones(2, 2, dtype=torch.bfloat16).T, "n": torch.tensor(4)}
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, tmp_path / "x.pth")
    found = read(tmp_path / "x.pth").tensors
    np.testing.assert_array_equal(found["a"], [0, 1, 2])
    assert found["b"].dtype == ml_dtypes.bfloat16 and found["n"] == 4
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert read(tmp_path / "old.pt").tensors.keys() == state.keys()
    torch.save([1, 2], tmp_path / "list.pth")
    assert_plain(tmp_path / "list.pth", "holds a list")
    content = bytearray((tmp_path / "x.pth").read_bytes())
    content[content.find(np.float32([0, 1, 2]).tobytes())] ^= 1
    (tmp_path / "bit.pth").write_bytes(content)
    assert_plain(tmp_path / "bit.pth", "checksum of .* does not match")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "x.pth").read_bytes()[:400])
    assert_plain(tmp_path / "cut.pth", "damaged")


@pytest.mark.torch
def test_a_training_checkpoint_with_its_arguments(tmp_path):
    torch = pytest.importorskip("torch")
    args = argparse.Namespace(lr=0.1, model="vit", output=pathlib.Path("runs"), best=np.float64(0.5), nested={"a": []})
    state = {"model": {"a": torch.ones(2)}, "args": args, "epoch": 3, "optimizer": {"state": {0: {"m": torch.ones(2)}}}}
    for new in (True, False):
        torch.save(state, tmp_path / "x.pth", _use_new_zipfile_serialization=new)
        np.testing.assert_array_equal(read(tmp_path / "x.pth").tensors["a"], np.ones(2))
    assert "argparse.Namespace" not in map(str, torch.serialization.get_safe_globals())  # allowed here alone


@pytest.mark.torch
def test_what_is_in_the_way_is_named_in_our_words(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"model": {"a": torch.ones(2)}, "criterion": torch.nn.CrossEntropyLoss()}, tmp_path / "x.pth")
    line = (
        r"holds a torch\.nn\.modules\.loss\.CrossEntropyLoss beside the weights\.\nSave the weights alone .*state_dict"
    )
    assert_plain(tmp_path / "x.pth", line)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "y.pth")
    assert_plain(tmp_path / "y.pth", r"holds a torch\.nn\.modules\.linear\.Linear beside")
    for path in ("x.pth", "y.pth"):
        with pytest.raises(UserError) as error:
            read(tmp_path / path)
        assert "\x1b" not in str(error.value) and "weights_only" not in str(error.value)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_numpy_has_not_are_named(tmp_path):
    torch = pytest.importorskip("torch")
    for value, said in (
        (torch.ones(2).to(torch.float8_e4m3fn), "float8_e4m3fn"),
        (torch.ones(2, 2).to_sparse(), r"float32 \(sparse_coo\)"),
        (torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "qint8"),
    ):
        torch.save({"a": value}, tmp_path / "x.pth")
        assert_plain(tmp_path / "x.pth", f"holds 'a' as {said}, a type that is not supported")


@pytest.mark.torch
def test_a_small_storage_may_claim_a_huge_shape(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"head.weight": torch.ones(1).expand(10**6, 10**6)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"head.weight is \[1000000, 1000000\]|missing"):
        load_pretrained(NAME, tmp_path / "x.pth", num_classes=3, **FIELDS)
    twice = {"a": torch.ones(1)}
    for _ in range(40):
        twice = {"b": twice, "c": twice}
    torch.save(twice, tmp_path / "y.pth")
    assert_plain(tmp_path / "y.pth", "holds more than 1,000,000 values")


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_malicious_pth(tmp_path):
    torch = pytest.importorskip("torch")
    Bomb.target = tmp_path / "trace"
    for new in (True, False):
        torch.save({"a": Bomb()}, tmp_path / "x.pth", _use_new_zipfile_serialization=new)
        assert_plain(tmp_path / "x.pth", "cannot be read safely")
    (tmp_path / "y.pth").write_bytes(pickle.dumps({"a": Bomb()}))
    assert_plain(tmp_path / "y.pth", "cannot be read safely")
    assert not Bomb.target.exists()


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
