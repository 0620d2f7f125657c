"""The bench: its rows, the batch size it finds, comparison with timm's rows and with a baseline, its errors."""

import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit import cli
from jaxvit.bench import compare, measure, report
from jaxvit.bench.clock import timed
from jaxvit.bench.measure import Effort
from jaxvit.bench.subjects import Settings, make_subject
from jaxvit.errors import UserError

TINY = (("depth", 1), ("embed_dim", 16), ("num_classes", 3), ("num_heads", 2), ("patch_size", 4))
SETTINGS = Settings("vit_tiny_patch16_224", image_size=8, fields=TINY)
QUICK = Effort(repeats=2, seconds=0.02, compile_times="cold")


def test_rows_of_a_small_model(capsys):
    found = {}
    report.run(found, [SETTINGS], ("train", "infer"), 2, QUICK)
    train, infer = found["results"]
    assert (train["mode"], infer["mode"]) == ("train", "infer")
    for row in (train, infer):
        assert row["images_per_second"]["median"] == pytest.approx(2 / row["step_seconds"])
        assert row["images_per_second"]["least"] <= row["images_per_second"]["median"]
        flops = row["model_flops_per_image"] * row["images_per_second"]["median"]
        assert row["mfu"] == pytest.approx(flops / found["ceiling_flops"]["float32"])
        assert row["memory_planned_bytes"] > 0 and row["compile_seconds"]["cold"] > 0
        assert row["xla_gmacs"] == pytest.approx(
            row["gmacs"], rel=0.7
        )  # softmax and norms are much of so small a model
    assert train["model_flops_per_image"] == 3 * infer["model_flops_per_image"]
    assert infer["latency_seconds"]["median"] > 0
    json.dumps(found)
    report.print_tables(found)
    assert "vit_tiny_patch16_224" in capsys.readouterr().out


def test_rows_where_xla_counts_compiled_programs_only(monkeypatch, capsys):
    # A GPU's plugin: jax answers None for a program that is lowered and not compiled.
    monkeypatch.setattr("jax._src.xla_bridge.using_pjrt_c_api", lambda backend=None: True)
    found = {}
    report.run(found, [SETTINGS], ("infer",), 2, QUICK)
    (row,) = found["results"]
    assert row["xla_gmacs"] is None and row["gmacs"] > 0 and row["mfu"] > 0
    report.print_tables(found)
    assert "vit_tiny_patch16_224" in capsys.readouterr().out


def test_the_clock_counts_calls():
    seen = []

    def call(carry):
        seen.append(carry)
        return carry + 1

    timing, carry = timed(call, jnp.float32(0), repeats=3, seconds=0.01)
    assert len(seen) == 3 + 3 * timing.calls == int(carry)
    assert timing.least <= timing.median <= timing.most


def test_inference_in_bfloat16_keeps_classifier_and_norms():
    subject = make_subject(Settings("vit_tiny_patch16_224", "bfloat16", 8, TINY))
    apply, variables, images = subject.inference(2)
    params = variables["params"]
    assert params["blocks_0"]["attn"]["qkv"]["kernel"].dtype == images.dtype == jnp.bfloat16
    assert params["head"]["kernel"].dtype == params["blocks_0"]["norm1"]["scale"].dtype == jnp.float32
    whole = subject.model.apply(subject.variables, images)
    np.testing.assert_array_equal(np.asarray(apply(variables, images)), np.asarray(whole))


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


def row(rate, **words):
    key = {"model": "m", "fields": {}, "dtype": "float32", "image_size": [8, 8], "mode": "infer", "batch_size": 2}
    return {**key, "images_per_second": {"median": rate}, "memory_planned_bytes": 100, **words}


def whole(*rows, device="a cpu"):
    return {"environment": {"device": device}, "results": list(rows)}


def test_a_baseline_flags_what_got_worse():
    compared, worse = compare.regressions(whole(row(89.0)), whole(row(100.0)), 0.1)
    assert worse == ["m float32 infer: images_per_second 100 -> 89 (-11.0%)"]
    assert {entry["figure"] for entry in compared} == {"images_per_second", "memory_planned_bytes"}
    assert compare.regressions(whole(row(91.0)), whole(row(100.0)), 0.1)[1] == []
    slow, fast = row(9.0, latency_seconds={"median": 2.0}), row(9.0, latency_seconds={"median": 1.0})
    assert len(compare.regressions(whole(slow), whole(fast), 0.1)[1]) == 1
    with pytest.raises(UserError, match="measured on 'a gpu', not on 'a cpu'"):
        compare.regressions(whole(row(1.0)), whole(row(1.0), device="a gpu"), 0.1)
    with pytest.raises(UserError, match="nothing was compared"):
        compare.regressions(whole(row(1.0)), whole(row(1.0, batch_size=4)), 0.1)


def test_ratios_are_ours_over_timms():
    other = {k: v for k, v in row(50.0).items() if k != "model"} | {"name": "m", "compiled": False}
    late = {"latency_seconds": {"median": 0.5}}
    failed = {**other, "compiled": True, "error": "no compiler"}
    (entry,) = compare.ratios([row(100.0, latency_seconds={"median": 0.25})], [other | late, failed])
    assert (entry["eager"], entry["eager_latency"]) == (2.0, 2.0)
    assert entry["compiled_error"] == "no compiler" and "compiled" not in entry


WRONG = [
    ([], "no --model NAME"),
    (["--model", "resnet19"], "resnet18"),
    (["--model", "resnet18", "--field", "stm=cifar"], "stem"),
    (["--model", "resnet18", "--field", "stem"], "NAME=VALUE"),
    (["--model", "resnet18", "--batch-size", "0"], "no whole number"),
    (["--model", "resnet18", "--data", "digits"], "--data goes with --loop"),
    (["--model", "resnet18", "--baseline", "nowhere.json"], "no file 'nowhere.json'"),
    (["--model", "resnet18", "--tolerance", "2"], "is no share"),
    (["--model", "resnet18", "--compare", "timm", "--torch-python", "/nowhere"], "cannot run --torch-python"),
    (["--model", "vit_tiny_patch16_224", "--image-size", "30"], "not divisible"),
]


@pytest.mark.parametrize("words, said", WRONG, ids=[said[:20] for _, said in WRONG])
def test_mistakes_end_in_plain_lines(words, said, capsys):
    assert cli.main(["bench", *words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) <= 2 and said in "\n".join(lines)


def test_what_was_measured_before_an_error_is_kept(tmp_path, capsys, monkeypatch):
    measured = report.measure

    def fails(subject, mode, *rest):
        if mode == "infer":
            raise UserError("does not fit the device at batch 2")
        return measured(subject, mode, *rest)

    monkeypatch.setattr(report, "measure", fails)
    words = [word for name, value in TINY for word in ("--field", f"{name}={value}")]
    words += [
        "--image-size",
        "8",
        "--batch-size",
        "2",
        "--repeats",
        "2",
        "--seconds",
        "0.02",
        "--compile-times",
        "none",
    ]
    assert cli.main(["bench", "--model", "vit_tiny_patch16_224", *words, "--json", str(tmp_path / "a.json")]) == 2
    said = capsys.readouterr()
    assert "train" in said.out and "does not fit" in said.err
    assert [row["mode"] for row in json.loads((tmp_path / "a.json").read_text())["results"]] == ["train"]


def test_a_talkative_torch_does_not_block(tmp_path):
    talker = tmp_path / "python"
    talker.write_text("#!/bin/sh\nhead -c 500000 /dev/zero | tr '\\0' '\\n' >&2\necho '{\"versions\": {}}'\n")
    talker.chmod(0o755)
    compare.check_timm(str(talker))
    talker.write_text("#!/bin/sh\necho no torch here >&2\nexit 1\n")
    with pytest.raises(UserError, match="no torch here"):
        compare.check_timm(str(talker))


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
    """In a process of its own: a second block of the same size is had without the kernel."""
    code = (
        "import resource, numpy as np, sys\n"
        "from jaxvit.runtime.allocator import keep_freed_memory\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    np.ones(2**22)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "faults(); usual = faults(); kept = keep_freed_memory(); faults()\n"
        "print(usual, faults() if kept else -1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    usual, kept = map(int, done.stdout.split())
    assert kept < usual / 2


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
