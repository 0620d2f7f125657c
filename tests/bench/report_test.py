"""The bench's report: rows of a model, what stays of a bench that fails."""

import json

import pytest

from jaxvit import cli, create_model
from jaxvit.bench import report
from jaxvit.bench.measure import Effort
from jaxvit.bench.subjects import Settings
from jaxvit.errors import UserError
from jaxvit.ops import cudnn_attention
from jaxvit.runtime import platform

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


@pytest.mark.parametrize(
    "fields, train, runs",
    [
        ({"dtype": "bfloat16"}, True, "cudnn"),
        ({}, True, "xla"),
        ({"dtype": "bfloat16", "attn_implementation": "xla"}, True, "xla"),
        ({"dtype": "bfloat16", "attn_drop_rate": 0.1}, True, "xla"),
        ({"dtype": "bfloat16", "attn_drop_rate": 0.1}, False, "cudnn"),
        ({"dtype": "bfloat16", "attn_layer": "diff"}, True, "xla"),
    ],
)
def test_a_row_names_the_attention_that_runs_here(fields, train, runs, monkeypatch):
    monkeypatch.setattr(cudnn_attention, "KERNEL", "xla")  # JAX's CUDA packages may not be here
    model = create_model("vit_tiny_patch16_224", **fields)
    assert report.implementation(model, train=train) == {"attention": "xla"}  # a CPU
    with platform.made_for("gpu"):
        assert report.implementation(model, train=train) == {"attention": runs}
    assert report.implementation(create_model("resnet18"), train=train) == {}
