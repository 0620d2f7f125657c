"""main.py eval."""

import json

import pytest
from scipy.stats import binomtest

from jaxvit import cli
from tests.helpers.cli_files import make_files


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("cli"))


@pytest.mark.parametrize("batch_size", [1, 7, 20, 1000])
def test_eval_repeats_the_recorded_accuracy(files, capsys, tmp_path, batch_size):
    out = tmp_path / "metrics.json"
    assert cli.main(["eval", "--workdir", str(files / "run"), "--batch-size", str(batch_size), "--json", str(out)]) == 0
    final = json.loads((files / "run/summary.json").read_text())["final"]
    metrics = json.loads(out.read_text())
    assert metrics["accuracy"] == final["test/accuracy"]
    assert metrics["loss"] == pytest.approx(final["test/loss"], rel=1e-5)
    assert metrics["balanced_accuracy"] == pytest.approx(final["test/balanced_accuracy"])
    assert metrics["macro_f1"] == pytest.approx(final["test/macro_f1"]) and metrics["nll"] == metrics["loss"]
    assert metrics["images"] == 20
    low, high = binomtest(round(20 * metrics["accuracy"]), 20).proportion_ci(method="wilson")
    assert metrics["accuracy_interval"] == pytest.approx([low, high], abs=1e-7)
    printed = capsys.readouterr().out
    assert f"{final['test/accuracy']:.2%}" in printed and "20 of 68 in all splits" in printed
    assert metrics["of_images"] == 68 and metrics["split"] == "test"


def test_eval_at_another_size(files, capsys, tmp_path):
    out = tmp_path / "metrics.json"

    def evaluated(*words):
        assert cli.main(["eval", "--workdir", str(files / "run"), "--json", str(out), *words]) == 0
        return json.loads(out.read_text())

    own = evaluated()
    assert evaluated("--image-size", "8") == own
    larger = evaluated("--image-size", "16")
    assert larger["images"] == 20 and larger["loss"] != own["loss"]
    assert cli.main(["eval", "--workdir", str(files / "run"), "--image-size", "10"]) == 2
    assert "images of 10x10" in capsys.readouterr().err
    assert cli.main(["eval", "--workdir", str(files / "run"), "--image-size", "8", "--tta", "flip"]) == 2
