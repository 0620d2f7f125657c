"""`convert`: weight files and runs become timm's two files; damaged, foreign and malicious files are refused."""

import json
import os
import pickle
import struct
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file
from safetensors.numpy import save as serialise

from jaxvit import inference, pretrained, train
from jaxvit.commands import source
from tests.helpers import tiny_config, write_npz
from tests.helpers.commands import CASES, damaged, failed, passed, write_weights


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("convert")
    train.train_and_evaluate(tiny_config(write_npz(root / "data"), num_epochs=1), root / "run")
    return root / "run"


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return write_weights("vit", tmp_path_factory.mktemp("weights") / "vit")


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("vgg", "alexnet")])
def test_files_come_back_bit_for_bit(case, tmp_path, capsys):
    directory, _, _ = write_weights(case, tmp_path / "a")
    out, _ = passed(capsys, ["convert", "--model", CASES[case][0], "--checkpoint", directory, "--to", tmp_path / "b"])
    for word in ("SHA-256", "licence", "wrote", "local-dir"):
        assert word in out
    assert (tmp_path / "b/model.safetensors").read_bytes() == (directory / "model.safetensors").read_bytes()
    assert (tmp_path / "b/config.json").read_text() == (directory / "config.json").read_text()


def test_a_file_is_adapted(vit, tmp_path, capsys):
    words = ["--num-classes", 7, "--image-size", "48x32", "--in-channels", 1]
    out, _ = passed(capsys, ["convert", "--checkpoint", vit[0], "--to", tmp_path / "new", *words])
    assert "num_classes=7: head is fresh" in out and "pos_embed resampled" in out
    config = json.loads((tmp_path / "new/config.json").read_text())
    assert config["num_classes"] == 7 and config["pretrained_cfg"]["input_size"] == [1, 48, 32]
    model, variables = pretrained.load_pretrained(None, tmp_path / "new")
    logits = model.apply(variables, np.ones((2, 48, 32, 1), np.float32))
    assert logits.shape == (2, 7)


def test_averaged_or_raw_weights_can_be_chosen(vit, tmp_path, capsys):
    raw = load_file(vit[0] / "model.safetensors")
    both = {f"student.{n}": a for n, a in raw.items()} | {f"teacher.{n}": a + 1 for n, a in raw.items()}
    (tmp_path / "both").mkdir()
    (tmp_path / "both/model.safetensors").write_bytes(serialise(both))
    (tmp_path / "both/config.json").write_bytes((vit[0] / "config.json").read_bytes())
    for words, added in ((["--weights", "raw"], 0), (["--weights", "ema"], 1), ([], 1)):
        to = tmp_path / "-".join(["to", *words])
        out, _ = passed(capsys, ["convert", "--checkpoint", tmp_path / "both", "--to", to, *words])
        assert f"without the prefix '{'teacher' if added else 'student'}.'" in out
        found = load_file(to / "model.safetensors")
        assert all(np.array_equal(found[name], array + added) for name, array in raw.items())
    failed(capsys, ["convert", "--from", tmp_path, "--to", tmp_path / "x", "--weights", "raw"])


def test_a_run_keeps_its_classes_and_preprocessing(run, tmp_path, capsys):
    out, _ = passed(capsys, ["convert", "--from", run, "--to", tmp_path / "new"])
    assert "best checkpoint" in out
    config = json.loads((tmp_path / "new/config.json").read_text())
    resolved = json.loads((run / "config.json").read_text())
    cfg = config["pretrained_cfg"]
    assert config["label_names"] == ["0", "1", "2"] and config["num_classes"] == 3
    assert cfg["mean"] == pytest.approx(resolved["data"]["mean"]) and cfg["input_size"] == [3, 8, 8]
    assert "license" not in cfg and "tag" not in cfg  # nobody's weights but the run's
    ours, theirs = inference.from_run(run), inference.from_name("vit_tiny_patch16_224", str(tmp_path / "new"))
    assert theirs.class_names == ["0", "1", "2"]
    assert all(ours.data_config[word] == theirs.data_config[word] for word in ours.data_config)
    jax.tree.map(np.testing.assert_array_equal, ours.variables, theirs.variables)


def test_the_licence_of_the_weights_a_run_started_from(run, monkeypatch):
    classifier = inference.from_run(run)
    monkeypatch.setattr(inference, "from_run", lambda _: classifier)
    for start, licence in (("vit_tiny_patch16_224.augreg_in21k_ft_in1k", "apache-2.0"), ("weights.npz", "")):
        classifier.config.pretrained = start
        given = source.from_run(str(run))
        assert given.licence == licence and ("started from", start) in given.facts


def test_nothing_is_replaced_unless_told(vit, tmp_path, capsys):
    argv = ["convert", "--checkpoint", vit[0], "--to", tmp_path]
    passed(capsys, argv)
    before = (tmp_path / "model.safetensors").stat().st_mtime_ns
    assert "--force" in failed(capsys, argv)
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == before
    passed(capsys, [*argv, "--force"])
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]


@pytest.mark.filterwarnings("always")
def test_nan_is_counted_and_said(vit, tmp_path, capsys):
    tensors = dict(load_file(vit[0] / "model.safetensors"))
    tensors["head.bias"] = np.array([np.nan, np.inf, 0, 0, 0], np.float32)
    bad = damaged(vit[0], tmp_path / "bad", serialise(tensors))
    _, err = passed(capsys, ["convert", "--checkpoint", bad, "--to", tmp_path / "new"])
    assert err.startswith("warning: 2 weights in 1 tensors are NaN or infinite") and len(err.splitlines()) == 1


def renamed(tensors):
    return serialise({f"model_{name}": array for name, array in tensors.items()})


def typed(tensors):
    return serialise({name: array.astype(np.int32) for name, array in tensors.items()})


def short(tensors):
    return serialise({**tensors, "head.bias": tensors["head.bias"][:-1]})


def half(tensors):
    whole = serialise(tensors)
    return whole[: len(whole) // 2]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda tensors: b"", "is empty"),
        (half, "cut short"),
        (lambda tensors: serialise(tensors)[:-1], "cut short"),
        (lambda tensors: serialise(tensors)[:5], "ends before the header"),
        (lambda tensors: struct.pack("<Q", 4 << 30) + b"{" + b" " * 99, "claims 4,294,967,296 bytes"),
        (lambda tensors: b"not a weight file at all", "damaged"),
        (lambda tensors: bytes(range(256)) * 9, "damaged"),
        (renamed, "missing"),
        (typed, "wrong type"),
        (short, "misshapen"),
    ],
)
def test_damaged_files(vit, tmp_path, capsys, make, said):
    bad = damaged(vit[0], tmp_path / "bad", make(dict(load_file(vit[0] / "model.safetensors"))))
    argv = ["--checkpoint", bad, "--to", tmp_path / "new"]
    assert said in failed(capsys, ["convert", *argv])
    assert not (tmp_path / "new").exists()


def test_a_file_of_another_model(vit, tmp_path, capsys):
    directory, _, _ = vit
    argv = ["--checkpoint", directory, "--to", tmp_path / "new"]
    assert "vit_tiny_patch16_224" in failed(capsys, ["convert", "--model", "resnet18", *argv])
    (lone := tmp_path / "lone.safetensors").write_bytes((directory / "model.safetensors").read_bytes())
    assert "do not fit ResNet" in failed(
        capsys, ["convert", "--model", "resnet18", "--checkpoint", lone, "--to", tmp_path / "new"]
    )
    assert "does not say which model" in failed(capsys, ["convert", "--checkpoint", lone, "--to", tmp_path / "new"])
    half = {name: array.astype(ml_dtypes.bfloat16) for name, array in load_file(lone).items()}
    np.savez(tmp_path / "objects.npz", **{"head.bias": np.array([object()], dtype=object)})
    objects = ["convert", "--model", "vit_tiny_patch16_224", "--checkpoint", tmp_path / "objects.npz"]
    assert "pickled Python objects" in failed(capsys, [*objects, "--to", tmp_path / "new"])
    assert not (tmp_path / "new").exists()
    passed(capsys, ["convert", "--checkpoint", damaged(directory, tmp_path / "half", serialise(half)), *argv[2:]])


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        """`path` is a directory that unpickling makes."""
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".npz", ".safetensors"])
@pytest.mark.parametrize("torch", [True, False])
def test_a_pickle_is_never_run(tmp_path, capsys, monkeypatch, suffix, torch):
    if not torch:
        monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    file = tmp_path / f"evil{suffix}"
    file.write_bytes(pickle.dumps({"head.bias": Evil(tmp_path / "run")}))
    said = failed(capsys, ["convert", "--model", "resnet18", "--checkpoint", file, "--to", tmp_path / "new"])
    assert "jaxvit[torch]" in said or "safely" in said or "damaged" in said or "not a weight file" in said
    assert os.listdir(tmp_path) == [file.name]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "give one of --from"),
        (["--from", "RUN", "--model", "resnet18"], "give one of"),
        (["--from", "RUN"], "no --to"),
        (["--from", "RUN", "--num-classes", "3", "--to", "NEW"], "need --model"),
        (["--from", "GONE", "--to", "NEW"], "no run in"),
        (["--model", "resnet1", "--checkpoint", "GONE", "--to", "NEW"], "resnet18"),
        (["--model", "resnet18", "--checkpoint", "GONE", "--to", "NEW"], "no such weight file"),
        (["--checkpoint", "VIT", "--to", "FILE"], "is a file"),
        (["--checkpoint", "VIT", "--to", ""], "argument --to"),
        (["--checkpoint", "VIT", "--to", "NEW", "--num-classes", "-1"], "whole number"),
        (["--checkpoint", "VIT", "--to", "NEW", "--image-size", "8x8x8"], "expected for example 224"),
        (["--checkpoint", "VIT", "--to", "NEW", "--image-size", "30"], "not divisible"),
        (["--checkpoint", "VIT", "--to", "NEW", "--nimm-classes", "3"], "unrecognized"),
    ],
)
def test_mistakes(run, vit, tmp_path, capsys, argv, said):
    (tmp_path / "file").touch()
    places = {"RUN": run, "VIT": vit[0], "NEW": tmp_path / "new", "GONE": tmp_path / "gone", "FILE": tmp_path / "file"}
    assert said in failed(capsys, ["convert", *[places.get(word, word) for word in argv]])
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_timm_predicts_what_a_run_predicts(run, tmp_path, capsys):
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    passed(capsys, ["convert", "--from", run, "--to", tmp_path / "new"])
    args = json.loads((tmp_path / "new/config.json").read_text())["model_args"]
    classifier = inference.from_run(run)
    images = np.random.default_rng(0).standard_normal((4, 8, 8, 3), dtype=np.float32)
    ours = np.asarray(classifier.model.apply(classifier.variables, images))
    for theirs in (
        timm.create_model(f"local-dir:{tmp_path / 'new'}", pretrained=True),
        timm.create_model("vit_tiny_patch16_224", checkpoint_path=str(tmp_path / "new/model.safetensors"), **args),
    ):
        with torch.no_grad():
            wanted = theirs.eval()(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
        np.testing.assert_allclose(ours, wanted, atol=1e-5)
    preprocessing = timm.data.resolve_data_config(model=timm.create_model(f"local-dir:{tmp_path / 'new'}"))
    assert preprocessing["input_size"] == (3, 8, 8)
    assert preprocessing["mean"] == pytest.approx(classifier.data_config["mean"])
