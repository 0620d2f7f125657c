"""Reports: their files, that the page stands alone, and what is refused."""

import csv
import html.parser
import json
import re

import numpy as np
import pytest

from jaxvit import cli
from jaxvit.errors import UserError
from jaxvit.reports import report, tables, write_report
from jaxvit.reports.blocks import Figure, Table
from jaxvit.reports.runs import read_runs
from tests.helpers.fake_runs import write_run

VOID = {"meta", "img", "br", "wbr", "link", "hr", "input"}
ASSETS = {"img": "src", "script": "src", "link": "href", "image": "href", "use": "href", "iframe": "src"}


class Page(html.parser.HTMLParser):
    """Checks that elements close in order; collects ids, links and assets, and what an eye or a reader would miss."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.assets, self.text = [], set(), [], [], ""
        self.wrong, self.heading, self.labels, self.alts = [], 0, [], []
        self.feed(text)
        self.close()
        assert self.open == []
        self.wrong += [f"no element {name}" for name in self.labels if name not in self.ids]

    def check(self, tag, named):
        """Languages, alternative texts, order of headings, heads of tables, widths that a phone does not have."""
        if tag == "html" and not named.get("lang"):
            self.wrong.append("no language")
        if tag == "img" or named.get("role") == "img":
            self.alts.append(named.get("alt") or named.get("aria-label") or "")
            if len(self.alts[-1]) < 4:
                self.wrong.append(f"a picture says {self.alts[-1]!r}")
        if tag == "th" and named.get("scope") not in ("col", "row"):
            self.wrong.append("a th without scope")
        if tag in ("h1", "h2", "h3"):
            self.wrong += [f"{tag} after h{self.heading}"] * (int(tag[1]) > self.heading + 1)
            self.heading = int(tag[1])
        if tag == "button" and not (named.get("aria-label") or named.get("data-copy")):
            self.wrong.append("a button without a name")
        self.labels += [named[name] for name in ("aria-labelledby", "aria-describedby", "data-copy") if named.get(name)]
        width = re.search(r"(?<![-\w])(?:min-)?width:\s*(\d+)px", named.get("style") or "")
        if width and int(width[1]) > 360 and "scroll" not in self.scrolls[-1:]:
            self.wrong.append(f"{tag} is {width[1]} pixels wide")
        if tag == "table" and "scroll" not in self.scrolls[-1:]:
            self.wrong.append("a table that cannot scroll")

    @property
    def scrolls(self):
        return [kind for _, kind in self.open]

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        assert named.get("id") is None or named["id"] not in self.ids, named
        self.ids.add(named.get("id"))
        self.check(tag, named)
        if tag == "a":
            self.links.append(named["href"])
        if tag in ASSETS and named.get(ASSETS[tag]):
            self.assets.append(named[ASSETS[tag]])
        if tag not in VOID:
            self.open.append((tag, "scroll" if "scroll" in (named.get("class") or "").split() else ""))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        self.text += data


def check_page(path):
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert all(asset.startswith(("data:image/png;base64,", "#")) for asset in page.assets)
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    assert page.wrong == [] and text.count("<table") == text.count("<caption") > 0
    return page


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_report_of_one_run(tmp_path):
    run = write_run(tmp_path / "a", augment__flip=True)
    assert cli.main(["report", "--workdir", str(run)]) == 0
    out = run / "report"
    page = check_page(out / "index.html")
    for word in ("class 3", "augment.flip", "main.py <x>", "ECE", "no maps"):
        assert word in page.text
    data = np.load(run / "predictions.npz")
    right = (data["logits"].argmax(-1) == data["labels"]).mean()
    assert float(rows(out / "comparison.csv")[0]["top-1 (95 % interval)"]) == pytest.approx(right)
    assert len(rows(out / "classes.csv")) == 4
    matrix = np.array([list(row.values())[1:] for row in rows(out / "confusion_a.csv")], int)
    assert matrix.sum() == 40 and np.trace(matrix) == round(40 * right)
    text = (out / "report.md").read_text(encoding="utf-8")
    named = set(re.findall(r"figures/[\w.-]+", text))
    assert named and all((out / name).is_file() for name in named)
    assert f"{100 * right:.2f} %" in text


@pytest.mark.parametrize("averaged", [True, False])
def test_every_kind_of_line_of_several_runs_is_explained(tmp_path, averaged):
    paths = [write_run(tmp_path / name, seed=i) for i, name in enumerate("ab")]
    if averaged:
        lines = [json.loads(line) for line in (paths[1] / "metrics.jsonl").read_text().splitlines()]
        lines = [line | {"val_ema/loss": 1.0} if "val/loss" in line else line for line in lines]
        (paths[1] / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    loss, accuracy = report.training(read_runs(paths))[:2]
    assert loss.caption.startswith("Solid lines: validation; thin dashed lines: training")
    assert ("dotted lines: validation of the averaged weights" in loss.caption) == averaged
    assert "dotted" not in accuracy.caption  # it has no such line


def test_classes_of_unequal_size(tmp_path):
    from sklearn.metrics import balanced_accuracy_score, f1_score

    run = write_run(tmp_path / "a", sizes=(500, 100, 20, 4), skill=1.0)
    assert cli.main(["report", "--workdir", str(run)]) == 0
    assert (run / "report" / "figures" / "recall_by_size.svg").is_file()
    assert [row["train_images"] for row in rows(run / "report" / "classes.csv")] == ["500", "100", "20", "4"]
    data = np.load(run / "predictions.npz")
    found, said = rows(run / "report" / "comparison.csv")[0], data["logits"].argmax(-1)
    assert float(found["balanced accuracy"]) == pytest.approx(balanced_accuracy_score(data["labels"], said))
    assert float(found["macro F1"]) == pytest.approx(f1_score(data["labels"], said, average="macro"))
    alike = write_run(tmp_path / "b", sizes=(50, 40, 41, 42))
    assert cli.main(["report", "--workdir", str(alike)]) == 0
    assert not (alike / "report" / "figures" / "recall_by_size.svg").exists()


def test_a_class_without_test_images_has_no_recall_and_counts_in_no_mean(tmp_path):
    path = write_run(tmp_path / "a", classes=3, names=["cat", "dog", "eel", "alone"], sizes=(50, 40, 30, 1), skill=9.0)
    with np.load(path / "predictions.npz") as stored:
        arrays = dict(stored)
    arrays["logits"] = np.pad(arrays["logits"], ((0, 0), (0, 1)), constant_values=-99.0)
    np.savez(path / "predictions.npz", **arrays)
    blocks = report.classes(read_runs([path]))
    mean, table = (block for block in blocks if isinstance(block, Table))
    assert mean.rows == [["a", "1.0000", "1.0000", "1.0000"]] and "that are tested or predicted" in mean.caption
    assert table.rows[-1] == ["alone", "–", "–", "–", "0"]
    assert "nan" not in " ".join(block.alt for block in blocks if isinstance(block, Figure))


def test_images_of_a_report_are_named_by_their_files(tmp_path):
    """Runs of before have no names: their numbers are places in what the image is stored in."""
    run = write_run(tmp_path / "a")
    with np.load(run / "predictions.npz") as stored:
        arrays = dict(stored)
    page = check_page(write_report([run])[0])
    assert "image 3" in page.text and "in the split that stores the image" in page.text
    assert "count the test split" not in page.text
    names = np.array([f"cat/photo {i}.jpg" for i in range(len(arrays["labels"]))])
    np.savez(run / "predictions.npz", **arrays, names=names)
    page = check_page(write_report([run])[0])
    wrong = rows(run / "report/mistakes_a.csv")
    assert wrong and all(row["image"] == f"cat/photo {row['index']}.jpg" for row in wrong)
    assert all(row["image"] in page.text for row in wrong) and "An image is named by its file" in page.text
    np.savez(run / "predictions.npz", **arrays, names=names[:3])
    with pytest.raises(UserError, match="names for 40 images"):
        write_report([run])


def test_report_of_seeds_and_another_recipe(tmp_path):
    runs = [write_run(tmp_path / f"s{i}", seed=i) for i in range(2)]
    runs.append(write_run(tmp_path / "other", seed=5, skill=0.5, optim__learning_rate=0.5))
    files = write_report(runs, tmp_path / "out")
    page = check_page(files[0])
    (group,) = rows(tmp_path / "out" / "seeds.csv")
    accuracies = [float(row["top-1 (95 % interval)"]) for row in rows(tmp_path / "out" / "comparison.csv")]
    assert group["runs"] == "s0, s1"
    assert float(group["mean"]) == pytest.approx(np.mean(accuracies[:2]))
    assert float(group["sd"]) == pytest.approx(np.std(accuracies[:2], ddof=1))
    differences = rows(tmp_path / "out" / "differences.csv")
    assert [(d["A"], d["B"]) for d in differences] == [("s0", "s1"), ("s0", "other"), ("s1", "other")]
    assert float(differences[1]["difference"]) == pytest.approx(accuracies[2] - accuracies[0])
    assert "optim.learning_rate" in page.text
    again = write_report(runs, tmp_path / "again")
    assert files[0].read_bytes() == again[0].read_bytes()


def test_a_copy_of_a_run_is_no_second_seed(tmp_path):
    paths = [write_run(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("copy", 0), ("b", 1))]
    assert tables.seeds(read_runs(paths[:2])) is None
    assert [row[:3] for row in tables.seeds(read_runs(paths)).rows] == [["a, b", "0, 1", "2"]]


def test_many_classes_long_names_one_epoch(tmp_path):
    names = [f"a very long name of a kind of thing <{i}> & more" for i in range(100)]
    run = write_run(tmp_path / "r", classes=100, n=300, epochs=1, names=names)
    page = check_page(write_report([run])[0])
    assert names[99] in page.text
    assert len(rows(run / "report" / "classes.csv")) == 100


def test_two_classes_without_mistakes(tmp_path):
    run = write_run(tmp_path / "r", classes=2, skill=50.0)
    assert "no mistakes" in check_page(write_report([run])[0]).text


def test_unfinished_runs_are_reported_as_far_as_they_are(tmp_path):
    run = write_run(tmp_path / "half", epochs=3, finished=False)
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 30, "epo')  # cut off by a power failure
    page = check_page(write_report([run])[0])
    assert "half is unfinished: 2 of 3 epochs" in page.text and "no predictions.npz" in page.text
    (run / "metrics.jsonl").unlink()
    assert "No epoch has been recorded" in check_page(write_report([run])[0]).text
    both = write_report([run, write_run(tmp_path / "whole")], tmp_path / "out")
    assert "half has no predictions.npz" in check_page(both[0]).text
