"""A study over folds: which runs there are, what its report says of all of them together."""

import csv
import json

import numpy as np
import pytest

from jaxvit import cli
from jaxvit import config as config_lib
from jaxvit.studies import conduct
from jaxvit.studies import study as studies
from jaxvit.studies.ledger import split_key
from tests.helpers.fake_runs import write_run

STUDY = """
from jaxvit.studies import Row, Study

TINY = {"model.name": "vit_tiny_patch16_224", "model.patch_size": 4, "model.embed_dim": 16, "model.depth": 1,
        "model.num_heads": 2}
STUDY = Study(
    title="Tiny", source="nobody", words=TINY,
    rows=[Row(name="a", label="A"), Row(name="b", label="B", teacher="a", words={"model.depth": 2})],
)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study of two rows over three folds and two seeds, done, with the files of runs that nobody trained."""
    root = tmp_path_factory.mktemp("folds")
    file, runs = root / "tiny.py", {}
    file.write_text(STUDY)
    study, path = studies.load(str(file))
    for i, row in enumerate(study.rows):
        for seed in (0, 1):
            for fold in (1, 2, 3):
                key = f"{row.name}/seed{seed}-fold{fold}"
                config = studies.row_config(study, path, row, seed, studies.Options(folds=3))
                config.data.fold = f"{fold}/3"
                if row.teacher:
                    config.distill.teacher = str(root / "study" / key.replace("b/", "a/"))
                write_run(root / "study" / key, classes=10, seed=100 * i + 10 * seed + fold, n=40 + fold, skill=2.0)
                (root / "study" / key / "config.json").write_text(json.dumps(config_lib.to_dict(config)))
                with np.load(root / "study" / key / "predictions.npz") as stored:
                    arrays = {**stored, "index": 3 * stored["index"] + fold}  # the folds lie between each other
                np.savez(root / "study" / key / "predictions.npz", **arrays)
                runs[key] = {"status": "done", "reason": ""}
    options = {"smoke": False, "epochs": None, "data": None, "overrides": [], "folds": 3}
    record = {"study": "tiny", "options": options, "runs": runs, "costs": {}, "wall_seconds": 1.0}
    (root / "study/study.json").write_text(json.dumps(record))
    return root


def hits(root, row, seed):
    """Which images of each fold a run has right, [3 of bool [n]]."""
    found = []
    for fold in (1, 2, 3):
        with np.load(root / f"study/{row}/seed{seed}-fold{fold}/predictions.npz") as stored:
            found.append(stored["logits"].argmax(1) == stored["labels"])
    return found


def rows_of(path):
    with open(path, newline="") as opened:
        return list(csv.DictReader(opened))


def test_report(finished, capsys):
    words = ["study", str(finished / "tiny.py"), "--workdir", str(finished / "study"), "--folds", "3", "--seeds", "2"]
    assert cli.main(words) == 0  # what is done is not run again
    assert capsys.readouterr().err.count("done before") == 12
    report = finished / "study/report"
    first, *_ = rows_of(report / "published_and_ours.csv")
    of_folds = 100 * np.mean([[h.mean() for h in hits(finished, "a", seed)] for seed in (0, 1)], axis=0)
    assert float(first["accuracy"]) == pytest.approx(of_folds.mean())
    assert float(first["accuracy_sd"]) == pytest.approx(of_folds.std(ddof=1))
    assert (first["seeds"], first["folds"]) == ("2", "3")
    pooled = {row["runs"]: row for row in rows_of(report / "folds.csv")}
    assert set(pooled) == {"A, seed 0", "A, seed 1", "B, seed 0", "B, seed 1"}
    for row, seed in (("a", 0), ("b", 1)):
        every = np.concatenate(hits(finished, row, seed))
        assert float(pooled[f"{row.upper()}, seed {seed}"]["all_images"]) == pytest.approx(every.mean())
    a, b = (np.concatenate(hits(finished, row, 0)) for row in "ab")
    (difference,) = rows_of(report / "differences.csv")  # over the images of all folds
    assert float(difference["difference"]) == pytest.approx(b.mean() - a.mean())
    assert int(difference["only_A_right"]) == np.sum(a & ~b)
    matrix = rows_of(report / "confusion_a.csv")
    assert sum(int(row[f"class {k}"]) for row in matrix for k in range(10)) == len(a)
    assert "--folds 3 --seeds 0,1" in (report / "report.md").read_text()


def test_runs_and_their_order(finished):
    study, file = studies.load(str(finished / "tiny.py"))
    options = studies.Options(folds=3)
    ledger = conduct.open_ledger(study, file, finished / "study", options)
    plans = conduct.make_plans(study, file, options, ledger, [], [4, 2], [1, 3])
    assert [plan.key for plan in plans[:5]] == [
        "a/seed4-fold1", "b/seed4-fold1", "a/seed4-fold3", "b/seed4-fold3", "a/seed2-fold1",
    ]  # fmt: skip
    ledger.content["costs"]["a"]["macs"] += 1
    conduct.make_plans(study, file, options, ledger, ["a"], [2])
    assert ledger.content["costs"]["a"]["macs"] % 2 == 1  # counted before
    ledger.content["costs_of"]["a"] = "another row of this name"
    conduct.make_plans(study, file, options, ledger, ["a"], [2])
    assert ledger.content["costs"]["a"]["macs"] % 2 == 0
    assert [plan.config.data.fold for plan in plans[1:3]] == ["1/3", "3/3"]
    assert split_key("a-fold1/seed4-fold3") == ("a-fold1", 4, 3) and split_key("a/seed10") == ("a", 10, None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--folds", "1"], "expected 2 to 1000 folds"),
        (["--folds", "4/3"], "or one of them such as 1/5"),
        (["--folds", "4"], "holds this study with folds 3, now 4"),
        ([], "holds this study with folds 3, now off"),
        (["--workdir", "NEW", "--folds", "3", "--config.data.fold=1/3"], "--folds 3 sets the fold of every run"),
        (["--workdir", "NEW", "--folds", "900"], "fewer than 900 folds"),
    ],
)
def test_mistakes(finished, tmp_path, capsys, words, said):
    words = [str(tmp_path / "new") if word == "NEW" else word for word in words]
    code = cli.main(["study", str(finished / "tiny.py"), "--workdir", str(finished / "study"), *words])
    err = capsys.readouterr().err
    assert code == 2 and said in err and len(err.splitlines()) <= 2
    assert not (tmp_path / "new/study.json").exists()
