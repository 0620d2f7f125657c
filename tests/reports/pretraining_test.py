"""The section of a report on pretraining, from files alone."""

import json

import numpy as np

from jaxvit.reports import pretraining
from jaxvit.reports.blocks import Figure, Pictures, Table
from jaxvit.reports.pictures import to_png
from jaxvit.reports.runs import RunFiles


def run(path, label, pretrained):
    if pretrained:
        place = path / "pretrain"
        place.mkdir(parents=True)
        lines = [{"step": 3 * k, "epoch": k, "pretrain/loss": 1 / k, "pretrain/learning_rate": 0.1} for k in (1, 2, 4)]
        lines.insert(0, {"step": 1, "epoch": 1, "pretrain/batch_loss": 2.0})
        (place / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        said = {
            "epochs": 4,
            "visible": 16,
            "patches": 64,
            "loss": 0.25,
            "train_seconds": 61.0,
            "images_per_second": 1e3,
        }
        (place / "summary.json").write_text(json.dumps(said))
        (place / "reconstructions.png").write_bytes(to_png(np.zeros((4, 4, 3), np.uint8)))
    config = {"pretrain.norm_pix_loss": True}
    return RunFiles(path, label, config, ["a", "b"], [{"epoch": 1, "step": 1, "train/loss": 3.0}], [], {})


def test_curve_table_and_pictures_of_the_runs_that_were_pretrained(tmp_path):
    runs = [run(tmp_path / "a", "first", True), run(tmp_path / "b", "second", False)]
    curve, table, pictures = pretraining.blocks(runs)
    assert isinstance(curve, Figure) and isinstance(table, Table) and isinstance(pictures, Pictures)
    assert table.rows == [["first", "4", "16 of 64", "0.2500", "61.0 s", "1,000"]]
    assert table.csv is not None and table.csv[2] == [["first", 1, 1.0], ["first", 2, 0.5], ["first", 4, 0.25]]
    assert "norm_pix_loss" in pictures.caption
    assert pretraining.blocks(runs[1:]) == []
