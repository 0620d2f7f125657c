"""`push`: the files and model card of a run, and the upload through the hub's own client to a hub on this machine."""

import json
import re

import numpy as np
import pytest
import yaml

from jaxvit import cli, train
from jaxvit.inference import from_run
from jaxvit.pretrained import export, load
from jaxvit.reports import card
from jaxvit.reports.numbers import wilson
from tests.helpers import pretrained as helpers
from tests.helpers import tiny_config, write_npz
from tests.helpers.hub_server import COMMIT, TOKEN, serving

FILES = {"README.md", "config.json", "confusion.svg", "curves.svg", "model.safetensors"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("push")
    train.train_and_evaluate(tiny_config(write_npz(root / "data"), num_epochs=1), root / "run")
    return root / "run"


def test_push(run, tmp_path, monkeypatch, capsys):
    dry = tmp_path / "dry"
    assert cli.main(["push", "--workdir", str(run), "--to", str(dry), "--dry-run"]) == 0
    assert {path.name for path in dry.iterdir()} == FILES
    text = (dry / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert head["pipeline_tag"] == "image-classification" and "license" not in head
    arrays = np.load(run / "predictions.npz")
    hits, count = int((arrays["logits"].argmax(-1) == arrays["labels"]).sum()), len(arrays["labels"])
    low, high = wilson(hits, count)
    assert f"{100 * hits / count:.2f} % ({100 * low:.1f}–{100 * high:.1f})" in text
    assert set(re.findall(r"\]\((\w+\.svg)\)", text)) == {"curves.svg", "confusion.svg"}
    with serving(tmp_path) as server:
        push = ["push", "--workdir", str(run), "--to", "me/mine"]
        assert cli.main(push) == 2 and "not logged in" in capsys.readouterr().err
        assert not server.requests
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
        assert cli.main(push) == 2 and len(capsys.readouterr().err.splitlines()) == 2
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        assert cli.main([*push, "--private"]) == 0
        assert f"/me/mine/commit/{COMMIT}" in capsys.readouterr().out
        made = server.created[0]  # the word for it depends on the client's version
        assert made["name"] == "mine" and (made.get("private") is True or made.get("visibility") == "private")
        there = server.repos["me/mine"]
        assert there.keys() >= FILES
        assert there["model.safetensors"] == (dry / "model.safetensors").read_bytes()
        assert b"hf_hub:me/mine" in there["README.md"]
        loaded, ours = load("hf_hub:me/mine"), from_run(run)
        helpers.assert_same(export(loaded.model, loaded.variables), export(ours.model, ours.variables))
        assert json.loads(there["config.json"])["label_names"] == ours.class_names


def test_no_path_of_the_machine_is_published():
    assert card._public("/home/me/secret/w.safetensors") == "w.safetensors"
    assert card._public("hf_hub:me/vit@v1") == "hf_hub:me/vit@v1" and card._public("0.001") == "0.001"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--to", "me/mine"], "give --workdir RUN and --to"),
        (["--workdir", "absent", "--to", "mine"], "'mine' is not a repository"),
        (["--workdir", "absent", "--to", "new", "--dry-run"], "no run in 'absent'"),
        (["--workdir", "absent", "--to", ".", "--dry-run"], "exists and is not empty"),
    ],
)
def test_mistakes(args, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").touch()
    assert cli.main(["push", *args]) == 2
    assert said in capsys.readouterr().err
