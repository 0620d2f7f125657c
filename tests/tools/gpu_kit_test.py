"""What a packet brings along: filled here within 64 MiB, laid out there in the official order."""

import json
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from tools.gpu import __main__ as door
from tools.gpu import kit, packets, parts, prepare
from tools.gpu.jobs import Call, Packet


def write_strips(home, split, image, label, index=None):
    """As data sets lie there: lossless strips of 500 images, one under the other."""
    home.mkdir(parents=True, exist_ok=True)
    for number, begun in enumerate(range(0, len(image), 500)):
        strip = image[begun : begun + 500].reshape(-1, 32, 3)
        Image.fromarray(strip).save(home / f"{split}_{number:03d}.webp", lossless=True, method=0)
    order = {} if index is None else {"index": index}
    np.savez(home / f"{split}_labels.npz", label=label.astype(np.uint8), **order)


@pytest.fixture
def images():
    """1,200 images of noise, and their labels."""
    image = np.random.default_rng(1).integers(0, 256, (1200, 32, 32, 3), dtype=np.uint8)
    return image, np.arange(1200) % 10


@pytest.fixture
def packet(monkeypatch, tmp_path):
    """A packet of two calls with little room, in a repository of its own, with wheels that are there."""
    calls = (Call("z1", 30, (), ("cifar10:1",)), Call("z2", 30, (), ("cifar10:2", "weights")))
    monkeypatch.setitem(packets.PACKETS, "z", Packet("z", "a test", 5, calls))
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    (root / "tracked.txt").write_text("x" * 1000)
    (root / ".gitignore").write_text("/.gpu/\n")
    monkeypatch.setattr(prepare, "ROOT", root)
    monkeypatch.setattr(prepare, "wheels", lambda out: [])
    return root


def load(root):
    """The folders of z, as they arrive one call after the other."""
    work = root.parent / "work"
    said = []
    for call in ("z1", "z2"):
        said += kit.set_up(root / ".gpu" / call, work, ["cifar10"], {})
    return work / "data" / "cifar10", said


def test_two_calls_bring_one_data_set_in_the_official_order(packet, images, tmp_path, monkeypatch, capsys):
    image, label = images
    official = np.random.default_rng(0).permutation(1200)  # the row of each image in a strip
    data = tmp_path / "data"
    write_strips(data / "cifar10", "train", image[official], label[official], official)
    write_strips(data / "cifar10", "test", image[:500], label[:500])
    (data / "weights").mkdir()
    (data / "weights" / prepare.WEIGHTS).write_bytes(b"w" * 10)
    monkeypatch.setattr(prepare, "MARGIN", 0)
    strips = [path.stat().st_size for path in sorted((data / "cifar10").glob("*.webp"))]
    labels = [path.stat().st_size for path in (data / "cifar10").glob("*.npz")]
    monkeypatch.setattr(prepare, "LIMIT", 1007 + sum(labels) + strips[0] + strips[1] + 100)  # two strips in the first
    monkeypatch.setattr(prepare, "_commit", lambda root: "abc")
    assert prepare.main(["z", "--data", str(data), "--out", str(packet / ".gpu")]) in (0, 2)  # commit.json comes on top
    said = "".join(capsys.readouterr())
    assert ".gpu/z1: 2.9 MiB travel with the call" in said
    assert [p.name for p in sorted((packet / ".gpu" / "z1").rglob("*.webp"))] == ["test_000.webp", "train_000.webp"]
    shutil.rmtree(data)
    home, said = load(packet)
    assert said[0] == "cifar10: test 500 images, train 1 strips of 3"
    assert said[1] == "cifar10: test is here, train 1200 images"
    with np.load(home / "train.npz") as found:
        assert (found["image"] == image).all() and (found["label"] == label).all()
    with np.load(home / "test.npz") as found:
        assert (found["image"] == image[:500]).all()


def test_ordinary_arrays_become_strips_and_come_back(packet, images, tmp_path):
    image, label = images
    (tmp_path / "data" / "cifar10").mkdir(parents=True)
    (tmp_path / "data" / "weights").mkdir()
    (tmp_path / "data" / "weights" / prepare.WEIGHTS).write_bytes(b"w")
    for split in ("train", "test"):
        np.savez(tmp_path / "data" / "cifar10" / f"{split}.npz", image=image, label=label)
    assert prepare.main(["z", "--data", str(tmp_path / "data"), "--out", str(packet / ".gpu")]) == 0
    home, _ = load(packet)
    for split in ("train", "test"):
        with np.load(home / f"{split}.npz") as found:
            assert (found["image"] == image).all() and (found["label"] == label).all()


def test_what_is_missing_or_too_much_is_said_in_a_line(packet, images, tmp_path, monkeypatch, capsys):
    image, label = images
    data, out = tmp_path / "data", ["--out", str(packet / ".gpu")]

    def error():
        assert prepare.main(["z", "--data", str(data), *out]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: ")
        return lines[0]

    assert "starts from these weights" in error()
    (data / "weights").mkdir(parents=True)
    (data / "weights" / prepare.WEIGHTS).write_bytes(b"w")
    assert "holds neither strips of images" in error()
    write_strips(data / "cifar10", "train", image, label)
    assert "no test_labels.npz" in error()
    write_strips(data / "cifar10", "test", image[:500], label[:500])
    monkeypatch.setattr(prepare, "LIMIT", prepare.MARGIN + 2**21)
    assert "do not fit the" in error()


def test_a_load_above_the_limit_is_refused(packet, images, tmp_path, monkeypatch, capsys):
    (packet / "large.bin").write_bytes(b"x" * 5000)  # untracked and not ignored: it travels
    monkeypatch.setattr(prepare, "LIMIT", 4000)
    monkeypatch.setitem(packets.PACKETS, "y", Packet("y", "nothing brought", 5, (Call("y1", 30, ()),)))
    assert prepare.main(["y", "--out", str(packet / ".gpu")]) == 2
    assert "more than a call may bring along" in capsys.readouterr().err
    monkeypatch.setattr(prepare, "LIMIT", 9000)
    assert prepare.main(["y", "--out", str(packet / ".gpu")]) == 0


def test_a_teacher_comes_back_in_files_and_is_one_again(tmp_path, monkeypatch):
    from safetensors.numpy import load_file, save_file

    weights = {"fc.weight": np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)}

    def convert(words, check):
        home = words[-1]
        prepare.Path(home).mkdir()
        save_file(weights, f"{home}/model.safetensors")
        prepare.Path(home, "config.json").write_text("{}")

    monkeypatch.setattr(parts.subprocess, "run", convert)
    monkeypatch.setattr(parts, "MOST", 1000)
    files = parts.split(tmp_path / "run", tmp_path / "out")
    assert len(files) > 1 and all(path.stat().st_size <= 1000 for path in files)
    parts.join(files, tmp_path / "teacher")
    found = load_file(tmp_path / "teacher" / "model.safetensors")["fc.weight"]
    assert found.dtype == np.float32 and np.allclose(found, weights["fc.weight"], rtol=1e-3)
    assert (tmp_path / "teacher" / "config.json").exists()


def test_a_commit_is_named_only_where_it_is_what_ran(tmp_path):
    (tmp_path / "jaxvit").mkdir()
    (tmp_path / "jaxvit" / "a.py").write_text("a = 1\n")
    (tmp_path / "commit.json").write_text(json.dumps({"commit": "abc", "digest": kit.digest(tmp_path)}))
    assert kit.commit(tmp_path, tmp_path) == "abc"
    (tmp_path / "jaxvit" / "a.py").write_text("a = 2\n")
    assert kit.commit(tmp_path, tmp_path) == "abc with changes"
    assert kit.commit(tmp_path / "nowhere", tmp_path) == "unknown"


def test_noise_has_the_shape_of_the_images_it_stands_for(tmp_path):
    assert kit.make_noise(tmp_path / "noise", 30, 20, 7) == "noise: 30 and 20 images of noise"
    with np.load(tmp_path / "noise" / "train.npz") as found:
        assert found["image"].shape == (30, 32, 32, 3) and set(found["label"]) == set(range(7))


def test_the_door_knows_its_commands(capsys):
    assert door.main([]) == 0 and "prepare" in capsys.readouterr().out
    assert door.main(["mearge"]) == 2 and "no command 'mearge'" in capsys.readouterr().err
    for command in door.COMMANDS:
        with pytest.raises(SystemExit) as stop:
            door.main([command, "--help"])
        assert stop.value.code == 0
