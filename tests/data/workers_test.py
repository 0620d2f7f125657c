"""Processes that decode images: the same bits as threads, and what happens when one of them, or the parent, dies."""

import contextlib
import gc
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from jaxvit.data import Crop, Draws, Split, Streamed, crops, make_transform, streamed, workers
from jaxvit.data.images import decode
from jaxvit.errors import RunError
from jaxvit.runtime import interrupt, waiting
from tests.helpers.photos import detailed, jpeg

ROOT = Path(__file__).resolve().parent.parent.parent
OPTIONS = {"train_crop_mode": None, "random_resized_crop": (0.1, 0.5), "crop_ratio": (3 / 4, 4 / 3),
           "train_interpolation": "random"}  # fmt: skip
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")


@pytest.fixture(autouse=True)
def own_processes():
    """Not those of a test before, which a caught exception may still hold."""
    for pool in list(workers._pools.values()):
        pool.close()
    workers._pools.clear()


@pytest.fixture
def crop():
    draw = crops.make_draw(OPTIONS, (16, 16), "bicubic")
    assert draw is not None
    return Crop(draw, (16, 16), 3)


@pytest.fixture
def split(tmp_path):
    """Twelve photos, of which the sixth is broken; the odd ones lie within another file."""
    for i in range(12):
        (tmp_path / f"{i}.jpg").write_bytes(b"no image" if i == 5 else jpeg(detailed(seed=i)))

    def file(i):
        path = tmp_path / f"{i}.jpg"
        return io.BytesIO(path.read_bytes()) if i % 2 else path

    names = [f"{i}.jpg" for i in range(12)]
    return Split(
        "train", np.arange(12, dtype=np.int32), np.arange(12), lambda i: decode(file(i)), None, names, file=file
    )


def children(parent="self"):
    found = set()
    for task in Path(f"/proc/{parent}/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has ended meanwhile; its children are another's now
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def read(split, crop, *, number=3, processes=True, draws=True, start=0):
    feed = Streamed(split, make_transform(16), num_workers=number, crop=crop, processes=processes)
    order = np.array([3, 1, 3, 5, 0, 2, 4, 3, 11])
    drawn = Draws(1, 2, np.arange(9)) if draws else None
    batches = feed.batches(order, 4, start=start, pad=True, draws=drawn)
    return [{k: np.asarray(v) for k, v in batch.items()} for batch in batches], feed


def test_processes_give_the_bits_of_threads(split, crop):
    before = children()
    for draws in (True, False):
        expected, _ = read(split, crop, number=2, processes=False, draws=draws)
        assert len(expected) == 3 and expected[0]["mask"].tolist() == [True, True, True, False]
        for start in (0, 1):  # a run that is resumed
            found, feed = read(split, crop, draws=draws, start=start)
            for ours, theirs in zip(found, expected[start:], strict=True):
                for name in theirs:
                    np.testing.assert_array_equal(ours[name], theirs[name])
            for pid in children() - before:  # what asks a run to stop
                os.kill(pid, signal.SIGTERM)
                os.kill(pid, signal.SIGINT)
        assert feed.unreadable == ({5} if not start else set())
    started = children() - before
    assert len(started) == 3  # feeds share them
    for number in (1, 3):
        np.testing.assert_array_equal(read(split, crop, number=number)[0][2]["image"], read(split, crop)[0][2]["image"])
    del feed
    gc.collect()
    assert until(lambda: not children() - before), "processes outlive their feeds"


def test_a_process_that_is_killed_is_one_clear_error_and_the_next_batches_have_another(split, crop):
    before, shared = children(), set(os.listdir("/dev/shm"))
    feed = Streamed(split, make_transform(16), num_workers=1, crop=crop, processes=True)
    order, draws = np.tile(np.arange(5), 40), Draws(0, 0, np.arange(200))
    batches = feed.batches(order, 4, draws=draws)
    next(batches)
    (pid,) = children() - before
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(RunError, match=rf"process {pid}, which .* SIGKILL at \d\.jpg\n.*data\.num_workers") as caught:
        list(batches)
    assert len(str(caught.value).splitlines()) == 2
    assert len(list(feed.batches(order[:8], 4, draws=draws))) == 2
    assert set(os.listdir("/dev/shm")) == shared


def test_files_that_went_away_end_the_run_as_with_threads(split, crop, tmp_path):
    many = split.take(np.arange(100) % 5)
    feed = Streamed(many, make_transform(16), num_workers=2, crop=crop, processes=True)
    assert (
        sum(int(batch["mask"].sum()) for batch in feed.batches(np.arange(8), 4, draws=Draws(0, 0, np.arange(8)))) == 8
    )
    for i in range(5):
        (tmp_path / f"{i}.jpg").unlink()
    with pytest.raises(RunError, match=r"\d\d of 100 train images can no longer be read, for example 0\.jpg"):
        list(feed.batches(np.arange(100), 10, draws=Draws(0, 0, np.arange(100))))


def test_an_error_in_a_process_comes_through_with_its_place(split, crop):
    feed = Streamed(split, make_transform(16), num_workers=1, crop=crop, processes=True)
    feed.image_shape = (8, 8, 3)
    with pytest.raises(ValueError, match="differ in size") as caught:
        list(feed.batches(np.arange(4), 4))
    assert "rows.py" in caught.value.__notes__[0]


def test_a_process_that_cannot_be_started_is_one_clear_error(split, crop, monkeypatch):
    feed = Streamed(split, make_transform(16), num_workers=2, crop=crop, processes=True)
    monkeypatch.setattr(waiting, "LIMIT_SECS", 2.0)
    with monkeypatch.context() as limits:
        limits.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(RunError, match=r"cannot be started: No such file .*\n.*data\.workers=threads"):
            list(feed.batches(np.arange(4), 4))
    for _ in range(2):  # each thread has said so once; then it tries again
        with contextlib.suppress(RunError):
            list(feed.batches(np.arange(4), 4))
    assert len(list(feed.batches(np.arange(4), 4))) == 1


@pytest.mark.parametrize("processes", [False, True])
def test_a_drive_that_does_not_answer_does_not_hold_up_the_end(split, crop, processes, monkeypatch):
    """A stopped process, or a read that blocks, is what a network drive that went away looks like."""
    before, held = children(), threading.Event()
    feed = Streamed(split, make_transform(16), num_workers=1, crop=crop, processes=processes)
    monkeypatch.setattr(streamed, "PATIENCE", 0.1)
    batches = feed.batches(np.tile(np.arange(5), 8), 4, draws=Draws(0, 0, np.arange(40)))
    next(batches)
    if processes:
        (pid,) = children() - before
        os.kill(pid, signal.SIGSTOP)
    else:
        monkeypatch.setattr(crops.Crop, "of_file", lambda *_: held.wait(20))
    begun = time.monotonic()
    try:
        with interrupt.deferred(), pytest.raises(interrupt.Starved) as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            list(batches)
        assert stop.value.exit_code == 143 and time.monotonic() - begun < 2
        batches = feed.batches(np.arange(4), 4)
        monkeypatch.setattr(waiting, "LIMIT_SECS", 0.3)
        with pytest.raises(RunError, match="train images: no answer from the disk"):
            next(batches)
    finally:
        held.set()
        if processes:
            os.kill(pid, signal.SIGKILL)


PARENT = """
import sys
import numpy as np
from jaxvit.data import Split, Streamed, make_transform
from jaxvit.data.images import decode

if True:  # a script without a guard around its main part
    path = sys.argv[1]
    file = lambda i: path
    split = Split("train", np.zeros(64, np.int32), np.arange(64), lambda i: decode(path), file=file)
    feed = Streamed(split, make_transform(16), num_workers=2, processes=True)
    while True:
        for _ in feed.batches(np.arange(64), 8):
            print("batch", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_a_parent_that_ends(tmp_path, number):
    (tmp_path / "photo.jpg").write_bytes(jpeg(detailed()))
    shared = set(os.listdir("/dev/shm"))
    command = [sys.executable, "-c", PARENT, str(tmp_path / "photo.jpg")]
    parent = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert parent.stdout and parent.stdout.readline() == "batch\n"
    started = children(parent.pid)
    assert len(started) == 2
    begun = time.monotonic()
    parent.send_signal(number)
    parent.stdout.close()
    parent.wait(10)
    assert time.monotonic() - begun < 2
    assert until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in started), 3), "orphans"
    assert set(os.listdir("/dev/shm")) == shared


@pytest.mark.parametrize("elsewhere", [False, True])
def test_memory_has_no_name(elsewhere, monkeypatch):
    if elsewhere:  # not on Linux
        monkeypatch.delattr(os, "memfd_create")
    shared = set(os.listdir("/dev/shm"))
    memory = workers.Memory(workers.Layout(3, (5, 7, 3, 3)))
    assert set(os.listdir("/dev/shm")) == shared
    for i, images in enumerate(memory.images):
        images[:] = i
        memory.states[i][:] = 9
    assert (
        [int(images.min()) for images in memory.images] == [int(images.max()) for images in memory.images] == [0, 1, 2]
    )


ENDS = """
import sys
import numpy as np
from jaxvit.data import Crop, Draws, Split, Streamed, crops, make_transform

options = {
    "train_crop_mode": "rrc", "random_resized_crop": None, "crop_ratio": (0.75, 1.3), "train_interpolation": None
}
crop = Crop(crops.make_draw(options, (224, 224), "bicubic"), (224, 224), 3, sys.argv[2])
file = lambda i: sys.argv[1]
split = Split("train", np.zeros(999, np.int32), np.arange(999), lambda i: np.zeros((9, 9, 3), np.uint8), file=file)
feed = Streamed(split, make_transform(224), num_workers=4, crop=crop)
batches = feed.batches(np.arange(999), 16, draws=Draws(0, 0, np.arange(999)))
next(batches)
"""


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["pillow", "opencv"])
def test_a_program_that_ends_while_images_are_read_ends_in_order(tmp_path, decoder):
    """Python would end the threads from within the decoder's C++, which aborts."""
    pytest.importorskip("cv2")
    (tmp_path / "photo.jpg").write_bytes(jpeg(detailed(900, 1200)))
    command = [sys.executable, "-c", ENDS, str(tmp_path / "photo.jpg"), decoder]
    for _ in range(3):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


COMMAND = """
from jaxvit.config.default import default

def get_config():
    config = default()
    config.num_epochs, config.batch_size, config.eval_every_epochs = 5000, 4, 5000
    config.model.name = "vit_tiny_patch16_224"
    config.model.update({"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2})
    config.data.image_size, config.data.workers, config.data.num_workers = 16, "processes", 2
    config.augment.random_resized_crop = (0.1, 1.0)
    return config
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "number", "code", "said"),
    [
        ("worker", signal.SIGKILL, 1, "by SIGKILL at "),
        ("run", signal.SIGTERM, 143, "stopped at step"),
        ("run, and its drive is gone", signal.SIGTERM, 143, "while waiting for images"),
    ],
)
def test_a_run_ends_in_order(tmp_path, what, number, code, said):
    for i in range(24):
        file = tmp_path / "photos" / "ab"[i % 2] / f"{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg(detailed(60, 80, seed=i)))
    (tmp_path / "config.py").write_text(COMMAND)
    command = [sys.executable, "main.py", "--config", tmp_path / "config.py", "--workdir", tmp_path / "run"]
    with (tmp_path / "log").open("w") as log:
        run = subprocess.Popen(
            [*command, f"--config.data.name=folder:{tmp_path / 'photos'}"], cwd=ROOT, stdout=log, stderr=log
        )
    text = (tmp_path / "log").read_text
    assert until(lambda: "epoch 3/" in text(), 120), text()
    started = children(run.pid)
    assert len(started) == 2
    if what == "worker":
        os.kill(min(started), number)
    elif what == "run":
        run.send_signal(number)
    else:
        for pid in started:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(1)
        run.send_signal(number)
    begun = time.monotonic()
    assert run.wait(20) == code
    assert time.monotonic() - begun < 5  # seconds; 2 on a machine that does nothing else
    for pid in started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    assert said in text() and "Traceback" not in text()
    assert until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in started), 5), "orphans"
    assert code == 1 or any((tmp_path / "run" / "checkpoints" / "last").iterdir())
