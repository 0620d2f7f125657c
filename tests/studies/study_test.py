"""Study files: what they must say, what is refused, and that the six that there are follow their reports' protocols."""

import re
from pathlib import Path

import pytest

from jaxvit.errors import UserError
from jaxvit.studies import study as studies
from tests.helpers.studies import example

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "configs" / "studies").glob("*.py"))
HEAD = "from jaxvit.studies import Row, Study\n"
VIT = '{"model.name": "vit_tiny_patch16_224"}'


def configs(name):
    """Row name -> config of the first seed."""
    study, file = studies.load(name)
    return {row.name: studies.row_config(study, file, row, 0, studies.Options()) for row in study.rows}


def write(tmp_path, body, head=HEAD):
    path = tmp_path / "mine.py"
    path.write_text(head + body)
    return str(path)


def test_there_are_the_reports():
    assert {file.stem for file in FILES} >= {
        "cifar100_resnet_vs_vit", "cifar100_swin_finetune_vs_scratch", "cifar10_vit_vs_swin",
        "cifar10_vit_distillation", "cifar100_asam", "cifar10_transfer_learning", "cifar10_long_tail",
        "cifar100_backbones",
    }  # fmt: skip
    assert set(studies.names()) == {file.stem for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_a_study_is_short_and_every_row_is_valid(file):
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 80
    assert f"main.py study {file.stem}" in text
    assert configs(str(file))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "has no STUDY"),
        ("STUDY = 3", "has no STUDY"),
        ("1/0", "ZeroDivisionError"),
        ("STUDY = Study(title='a', source='b', rows=[])", "has no rows"),
        (
            f"STUDY = Study(title='a', source='b', rows=[Row(name='a b', label='', words={VIT})])",
            "not a name for a row",
        ),
        ("STUDY = Study(title='a', source='b', rows=[Row(name='report', label='')])", "not a name for a row"),
        ("STUDY = Study(title='a', source='b', rows=[Row(name='a', label='')] * 2)", "two rows"),
        ("STUDY = Study(title='a', source='b', rows=[Row(name='a', label='', teacher='b')])", "not a row before it"),
        ("STUDY = Study(title='a', source='b', columns=('acuracy',), rows=[Row(name='a', label='')])", "accuracy"),
        (
            "STUDY = Study(title='a', source='b', rows=[Row(name='a', label='', published={'macs': 1})])",
            "not one of its columns",
        ),
        (
            "STUDY = Study(title='a', source='b', rows=[Row(name='a', label='', published={'accuracy': '9'})])",
            "expected a number",
        ),
        ("STUDY = Study(title='a', source='b', pictures=('b',), rows=[Row(name='a', label='')])", "no row 'b'"),
        ("STUDY = Study(title='a', source='b', rows=[Row(name='a', label='', neighbours=0)])", "neighbours=0"),
        ("STUDY = Study(title='a', source='b', rows=[Row(name='a', label='', subject='x')])", "expected a part"),
        ("STUDY = Study(title='a', rows=[])", "TypeError"),
    ],
)
def test_a_file_that_makes_no_sense(tmp_path, body, said):
    with pytest.raises(UserError, match=re.escape(said)) as error:
        studies.load(write(tmp_path, body))
    assert len(str(error.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ('{"optim.learning_rat": 1}', "Did you mean 'optim.learning_rate'"),
        ('{"optim.learning_rate": "fast"}', "expected a number"),
        ('{"optim.learning_rate": -1.0}', "expected a number above 0"),
        ('{"model.name": "resnet81"}', "Did you mean"),
        ('{"model.name": "resnet18", "model.depth": 3}', "depth"),
    ],
)
def test_a_row_that_makes_no_sense(tmp_path, words, said):
    study, file = studies.load(
        write(tmp_path, f"STUDY = Study(title='a', source='b', rows=[Row(name='x', label='', words={words})])")
    )
    with pytest.raises(UserError, match=re.escape(said)) as error:
        studies.row_config(study, file, study.rows[0], 0, studies.Options())
    assert str(error.value).startswith("row 'x'")


def test_names_paths_and_suggestions(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="Did you mean 'cifar100_asam'"):
        studies.load("cifar100_asm")
    with pytest.raises(UserError, match="no study file"):
        studies.load(str(tmp_path / "none.py"))
    monkeypatch.setattr(studies, "directories", lambda: [])
    with pytest.raises(UserError, match="has no studies: give the path"):
        studies.load("cifar100_asam")


def test_words_of_the_command_line_come_last():
    study, file = studies.load("cifar10_vit_vs_swin")
    options = studies.Options(epochs=2, data="digits", overrides=("--config.batch_size=8",))
    config = studies.row_config(study, file, study.row("vit"), 4, options)
    assert (config.num_epochs, config.data.name, config.batch_size, config.seed) == (2, "digits", 8, 4)


def test_a_row_brings_its_teacher():
    study, _ = studies.load("cifar10_vit_distillation")
    assert [row.name for row in studies.chosen(study, ["vit_ti_distilled"])] == ["vit_b", "vit_ti_distilled"]
    with pytest.raises(UserError, match="Did you mean"):
        studies.chosen(study, ["vit_ti_distiled"])


def test_the_example_of_the_documentation_is_a_study(tmp_path):
    file = tmp_path / "my_depth.py"
    file.write_text(example())
    assert len(example().splitlines()) < 80
    assert {name: c.model.depth for name, c in configs(str(file)).items()} == {
        "vit_1": 1, "vit_4": 4, "frozen": 4, "pupil": 1,
    }  # fmt: skip
